"""Active health checks: what a row of answers makes of an endpoint, how long the next check waits, what a response says."""

import pytest

from meshlib.core.health import LEAST, Answer, Check, holds, judged
from meshlib.model.health import HealthCheck, HttpCheck
from meshlib.model.match import StringKind, StringMatch

GOOD = Answer(True, "status 200")
DEGRADED = Answer(True, "status 200", degraded=True)
BAD = Answer(False, "status 503")
LOST = Answer(False, "reset", counted=True)
HTTP = HttpCheck("/healthz")


def check(**fields) -> Check:
    return Check(HealthCheck(HTTP, **fields), 0.0)


def hear(one: Check, *answers: Answer, now: float = 1.0):
    for answer in answers:
        heard, wait = one.hear(answer, now, lambda: 0.0, used=True)
    return heard, wait


@pytest.mark.parametrize(
    ("answers", "failed"),
    [
        ([], True),
        ([GOOD], False),  # the first decides alone, either way
        ([BAD], True),
        ([LOST], True),
        ([BAD, GOOD], True),
        ([BAD, GOOD, GOOD], False),
        ([BAD, GOOD, LOST, GOOD], True),  # a row begins anew
        ([GOOD, BAD], True),  # an answer that is wrong is enough
        ([GOOD, LOST], False),
        ([GOOD, LOST, LOST], False),
        ([GOOD, LOST, LOST, LOST], True),
        ([GOOD, LOST, LOST, GOOD, LOST, LOST], False),
        ([GOOD, LOST, LOST, BAD], True),
        ([GOOD, LOST, LOST, LOST, GOOD, GOOD], False),
    ],
)
def test_a_row_of_answers(answers, failed):
    one = check(healthy=2, unhealthy=3)
    if answers:
        hear(one, *answers)
    assert one.failed is failed
    assert one.total == len(answers)
    assert one.good == sum(answer.good for answer in answers)


def test_a_threshold_of_0_is_never_reached_as_in_envoy():
    one = check(healthy=0, unhealthy=0)
    hear(one, GOOD, *[LOST] * 100)
    assert not one.failed
    hear(one, BAD, *[GOOD] * 100)
    assert one.failed


def test_what_an_answer_changes_is_told_once():
    one = check()
    assert hear(one, GOOD)[0].edge
    assert not hear(one, GOOD)[0].changed
    assert hear(one, DEGRADED)[0].changed
    assert not hear(one, DEGRADED)[0].edge
    assert not hear(one, LOST)[0].changed
    assert one.degraded  # until a good answer says otherwise
    assert hear(one, GOOD)[0].changed
    assert hear(one, BAD, now=7.0)[0].edge
    assert one.since == 7.0
    assert not hear(one, BAD)[0].edge


def test_an_ejection_ends_with_a_check_that_passes_and_holds():
    one = check()
    assert hear(one, GOOD)[0].unejects
    assert not hear(one, BAD)[0].unejects
    assert not hear(one, GOOD)[0].unejects  # one of two
    assert hear(one, GOOD)[0].unejects


def test_a_call_may_say_that_its_endpoint_is_to_be_left_alone():
    one = check()
    hear(one, GOOD)
    assert one.fail_now("said so", 2.0).edge
    assert (one.failed, one.excluded) == (True, True)
    hear(one, GOOD)
    assert (one.failed, one.excluded) == (True, True)
    hear(one, GOOD)
    assert (one.failed, one.excluded) == (False, False)


WAITS = {
    "interval": 10.0,
    "unhealthy_interval": 20.0,
    "unhealthy_edge": 3.0,
    "healthy_edge": 4.0,
    "healthy": 2,
    "unhealthy": 2,
}


@pytest.mark.parametrize(
    ("fields", "answers", "seconds"),
    [
        (WAITS, [GOOD], 10.0),
        (WAITS, [BAD], 20.0),
        (WAITS, [GOOD, LOST], 3.0),
        (WAITS, [GOOD, LOST, LOST], 20.0),
        (WAITS, [BAD, GOOD], 4.0),
        (WAITS, [BAD, GOOD, GOOD], 10.0),
        ({"interval": 10.0}, [BAD], 10.0),
        ({"interval": 10.0, "unhealthy_interval": 2.0}, [GOOD, LOST], 2.0),
        ({"interval": 10.0}, [BAD, GOOD], 10.0),
        ({"interval": 0.001}, [GOOD], LEAST),
    ],
)
def test_the_wait_for_the_next(fields, answers, seconds):
    assert hear(check(**fields), *answers)[1] == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("fields", "answer", "seconds"),
    [
        ({}, GOOD, 5.0),  # it is its owner who ends the checks then
        ({"no_traffic": 60.0}, GOOD, 60.0),
        ({"no_traffic": 60.0, "no_traffic_healthy": 300.0}, GOOD, 300.0),
        ({"no_traffic": 60.0, "no_traffic_healthy": 300.0}, BAD, 60.0),
    ],
)
def test_the_wait_where_no_call_uses_the_cluster(fields, answer, seconds):
    assert check(**fields).hear(answer, 0.0, lambda: 0.0, used=False)[1] == pytest.approx(seconds)


def test_jitter_is_added():
    def most(**fields):
        return check(interval=10.0, **fields).hear(GOOD, 0.0, lambda: 1.0, used=True)[1]

    assert most() == pytest.approx(10.5)  # they drift apart where nothing is written
    assert most(jitter_percent=20) == pytest.approx(12.0)
    assert most(jitter=3.0) == pytest.approx(13.0)
    assert most(jitter=3.0, jitter_percent=50) == pytest.approx(18.0)
    assert check(initial_jitter=4.0).before_first(lambda: 0.5) == 2.0


RANGES = HttpCheck("/", expected=((200, 204), (301, 302)), retriable=((500, 504), (200, 201)))


@pytest.mark.parametrize(
    ("how", "status", "headers", "body", "expected"),
    [
        (HTTP, 200, {}, b"", (True, False)),
        (HTTP, 201, {}, b"", (False, False)),
        (HTTP, 503, {}, b"", (False, False)),
        (RANGES, 200, {}, b"", (True, False)),  # expected goes before retriable
        (RANGES, 203, {}, b"", (True, False)),
        (RANGES, 204, {}, b"", (False, False)),
        (RANGES, 301, {}, b"", (True, False)),
        (RANGES, 503, {}, b"", (False, True)),
        (RANGES, 504, {}, b"", (False, False)),
        (HttpCheck("/", receive=(b"ok",)), 200, {}, b"not ok", (True, False)),
        (HttpCheck("/", receive=(b"ok",)), 200, {}, b"no", (False, False)),
    ],
)
def test_what_a_response_says(how, status, headers, body, expected):
    answer = judged(how, status, headers, body)
    assert (answer.good, answer.counted) == expected
    assert str(status) in answer.words


def test_headers_of_a_response():
    assert judged(HTTP, 200, {"x-envoy-degraded": ""}, b"").degraded
    assert not judged(HTTP, 200, {"x-envoy-immediate-health-check-fail": "true"}, b"").excluded
    assert judged(HTTP, 503, {"x-envoy-immediate-health-check-fail": "true"}, b"").excluded
    named = HttpCheck("/", service=StringMatch(StringKind.PREFIX, "rev"))
    assert judged(named, 200, {"x-envoy-upstream-healthchecked-cluster": "reviews"}, b"").good
    assert not judged(named, 200, {"x-envoy-upstream-healthchecked-cluster": "books"}, b"").good
    assert not judged(named, 200, {}, b"").good


@pytest.mark.parametrize(
    ("parts", "data", "found"),
    [
        ((), b"", True),
        ((b"a", b"b"), b"a-b", True),
        ((b"a", b"b"), b"b-a", False),
        ((b"aa", b"a"), b"aa", False),
        ((b"aa", b"a"), b"aaa", True),
    ],
)
def test_parts_are_found_in_order(parts, data, found):
    assert holds(parts, data) is found
