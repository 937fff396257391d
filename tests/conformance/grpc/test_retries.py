"""Calls that are tried again (A44): after which codes, how often, how soon, and when not."""

from __future__ import annotations

import grpc
import pytest

from meshlib.testing import build

CODES = {
    "cancelled": grpc.StatusCode.CANCELLED,
    "deadline-exceeded": grpc.StatusCode.DEADLINE_EXCEEDED,
    "internal": grpc.StatusCode.INTERNAL,
    "resource-exhausted": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
}
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ATTEMPTS = "grpc-previous-rpc-attempts"


def policy(on="unavailable", count=None, base="0.01s", maximum="0.02s"):
    made = {"retry_on": on, "retry_back_off": {"base_interval": base, "max_interval": maximum}}
    return made if count is None else made | {"num_retries": count}


@pytest.fixture
def retrying(scene, connect):
    """A function that sets this policy on the route to a server, ``a``; gives that and a caller."""

    def make(**parts):
        (a,) = scene.simple("a")
        scene.route(build.route(cluster="main", retry=policy(**parts)))
        return a, connect()

    return make


@pytest.mark.parametrize("condition", CODES)
def test_each_condition_is_its_code(retrying, condition):
    """RT-02: that code is tried again, and the others are not."""
    a, caller = retrying(on=condition, count=3)
    for name, code in CODES.items():
        a.fail(code, times=1)
        assert caller.outcome() == ("a" if name == condition else code.name)
        a.behave()
    assert a.calls == len(CODES) + 1


def test_several_conditions(retrying):
    """RT-02: each of them counts, in one call as well."""
    a, caller = retrying(on="cancelled,internal", count=3)
    a.fail(grpc.StatusCode.CANCELLED, times=1)
    a.fail(grpc.StatusCode.INTERNAL, times=1)
    assert caller.outcome() == "a"
    a.fail(times=1)
    assert caller.call().code is UNAVAILABLE
    assert a.calls == 4


def test_conditions_of_http_are_passed_over(retrying):
    """RT-02: what gRPC does not know says nothing."""
    a, caller = retrying(on="5xx,gateway-error,unavailable,connect-failure", count=2)
    a.fail(times=1)
    assert caller.outcome() == "a"
    a.fail(grpc.StatusCode.INTERNAL, times=1)
    assert caller.outcome() == "INTERNAL"


def test_conditions_of_http_alone_are_no_policy(retrying):
    """RT-02: none is left, so nothing is tried again."""
    a, caller = retrying(on="5xx", count=3)
    a.fail(times=1)
    assert caller.call().code is UNAVAILABLE
    assert a.calls == 1


def test_other_codes_are_final(retrying):
    """RT-02."""
    a, caller = retrying(on=",".join(CODES), count=3)
    for code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNKNOWN, grpc.StatusCode.ABORTED):
        a.fail(code, times=1)
        assert caller.call().code is code
    assert a.calls == 3


def test_without_a_policy_nothing_is_tried_again(scene, connect):
    """RT-01."""
    (a,) = scene.simple("a")
    a.fail(times=1)
    assert connect().call().code is UNAVAILABLE
    assert a.calls == 1


def test_one_retry_is_the_default(retrying):
    """RT-03."""
    a, caller = retrying()
    a.fail()
    assert caller.call().code is UNAVAILABLE
    assert a.calls == 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_so_many_retries_and_no_more(retrying, count):
    """RT-03: attempts are one more than ``num_retries``."""
    a, caller = retrying(count=count)
    a.fail()
    assert caller.call().code is UNAVAILABLE
    assert a.calls == count + 1
    a.behave()
    a.fail(times=count)
    assert caller.outcome() == "a"


def test_five_attempts_at_most(retrying):
    """RT-03, DV-08: however many are asked for."""
    a, caller = retrying(count=10)
    a.fail()
    assert caller.call().code is UNAVAILABLE
    assert a.calls == 5


def test_last_attempts_answer_is_the_calls(retrying):
    """RT-03: its code and its details."""
    a, caller = retrying(on="unavailable,internal", count=1)
    a.fail(times=1)
    a.fail(grpc.StatusCode.INTERNAL, times=1)
    answer = caller.call()
    assert answer.code is grpc.StatusCode.INTERNAL
    assert "ordered of a" in answer.details


def test_virtual_hosts_policy_holds(scene, connect):
    """RT-01: for routes without one of their own."""
    (a,) = scene.simple("a")
    scene.route(build.route(cluster="main"), retry_policy=policy(count=2))
    a.fail(times=2)
    assert connect().outcome() == "a"
    assert a.calls == 3


def test_routes_policy_replaces_the_virtual_hosts(scene, connect):
    """RT-01: whole; its number of retries counts, and its conditions."""
    (a,) = scene.simple("a")
    scene.route(build.route(cluster="main", retry=policy("internal")), retry_policy=policy("unavailable", 4))
    caller = connect()
    a.fail(times=1)
    assert caller.call().code is UNAVAILABLE
    a.behave()
    a.fail(grpc.StatusCode.INTERNAL)
    assert caller.call().code is grpc.StatusCode.INTERNAL
    assert a.calls == 3


def test_routes_policy_without_a_usable_condition_hides_the_virtual_hosts(scene, connect):
    """RT-01."""
    (a,) = scene.simple("a")
    scene.route(build.route(cluster="main", retry=policy("5xx")), retry_policy=policy("unavailable", 4))
    a.fail(times=1)
    assert connect().call().code is UNAVAILABLE
    assert a.calls == 1


@pytest.mark.ours_differs("docs/tasks/grpc.md, Limits: grpc's core takes it out")
def test_server_is_told_of_the_attempts_before(retrying):
    """A6: ``grpc-previous-rpc-attempts``; the first has none."""
    a, caller = retrying(count=3)
    assert caller.call().values(ATTEMPTS) == []
    a.fail(times=1)
    assert caller.call().values(ATTEMPTS) == ["1"]
    a.fail(times=2)
    assert caller.call().values(ATTEMPTS) == ["2"]


def test_nothing_is_tried_again_once_the_answer_has_begun(retrying):
    """RT-05, A6: initial metadata commits a call."""
    a, caller = retrying(count=3)
    a.order(code=UNAVAILABLE, headers_first=True)
    assert caller.call().code is UNAVAILABLE
    assert a.calls == 1


def test_server_may_forbid_retries(retrying):
    """RT-05, A6: a pushback that is no number of milliseconds."""
    a, caller = retrying(count=3)
    a.order(code=UNAVAILABLE, trailing=(("grpc-retry-pushback-ms", "-1"),))
    assert caller.call().code is UNAVAILABLE
    assert a.calls == 1


def test_server_may_say_when(retrying):
    """RT-05, A6: its pushback stands for the back-off."""
    a, caller = retrying(count=3)
    a.order(code=UNAVAILABLE, times=1, trailing=(("grpc-retry-pushback-ms", "500"),))
    answer = caller.call()
    assert answer.outcome == "a"
    assert 0.5 <= answer.seconds < 3


def test_back_off_grows_to_its_maximum(retrying):
    """RT-04: 100, 200, 300, 300 ms, a fifth more or less."""
    a, caller = retrying(count=4, base="0.1s", maximum="0.3s")
    a.fail()
    answer = caller.call()
    assert answer.code is UNAVAILABLE
    assert a.calls == 5
    assert 0.8 * 0.9 <= answer.seconds < 1.2 * 0.9 + 1


@pytest.mark.ours_differs("docs/differences.md: a call whose backoff would pass its deadline ends at once")
def test_deadline_counts_for_all_attempts(retrying):
    """RT-03: and ends a call that waits for its next attempt."""
    a, caller = retrying(count=4, base="30s", maximum="60s")
    a.fail()
    answer = caller.call(timeout=0.5)
    assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.4 <= answer.seconds < 2
    assert a.calls == 1


def test_next_attempt_goes_to_another_endpoint(scene, connect):
    """LB-01: each attempt is a pick of its own."""
    a, _ = scene.simple("a", "b")
    scene.route(build.route(cluster="main", retry=policy(count=1)))
    caller = connect()
    caller.becomes("a", "b")  # both are connected
    a.fail()
    before = a.calls
    caller.becomes("b")
    assert caller.row(20) == ["b"] * 20
    assert a.calls > before


def test_attempts_stay_in_the_cluster_that_was_chosen(scene, connect):
    """RA-02: a split is drawn once a call."""
    a, b = scene.named("a", "b")
    scene.route(build.route(weights={"a": 50, "b": 50}, retry=policy(count=4)))
    a.fail()
    seen = connect().many(100)
    assert set(seen) == {"UNAVAILABLE", "b"}
    assert a.calls == 5 * seen["UNAVAILABLE"]
    assert b.calls == seen["b"]


def test_stream_is_tried_again_before_its_first_answer(retrying):
    """RT-05: what it has sent so far is sent again."""
    a, caller = retrying(count=2)
    a.fail(times=2)
    talk = caller.talk()
    assert talk.say("one") == "a"
    assert talk.say("two") == "a"
    assert talk.finish() is grpc.StatusCode.OK
    assert a.calls == 3


def test_policy_changes_for_the_calls_behind_it(scene, connect):
    """RT-01."""
    (a,) = scene.simple("a")
    caller = connect()
    assert caller.outcome() == "a"
    scene.route(build.route(cluster="main", retry=policy(count=1)))

    def retried(_):
        return a.calls > before + 1

    a.fail()
    before = a.calls
    while not retried(caller.fails()):
        before = a.calls


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({"retry_on": "unavailable", "num_retries": 0}, id="no retries"),
        pytest.param({"retry_on": "unavailable", "retry_back_off": {"max_interval": "1s"}}, id="no base"),
        pytest.param(
            {"retry_on": "unavailable", "retry_back_off": {"base_interval": "0s"}},
            id="base of zero",
            marks=pytest.mark.oracle_differs("C-core takes a base of zero for a millisecond"),
        ),
    ],
)
def test_policy_that_makes_no_sense_is_refused(scene, connect, bad):
    """RT-03, RT-04: the routes before stay."""
    scene.simple("a")
    caller = connect()
    assert caller.outcome() == "a"
    scene.plane.update(scene.routes(build.route(cluster="nothing", retry=bad)))
    scene.plane.wait_for_nack("route")
    assert caller.row(5) == ["a"] * 5
