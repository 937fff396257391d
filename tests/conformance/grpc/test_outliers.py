"""Endpoints that are put aside because their calls fail (A50): by the share of failures, and beside the others' success."""

from __future__ import annotations

import time

import grpc
import pytest

from meshlib.testing import build
from tests.conformance.support.scene import locality

LOOK = 0.6  # seconds between two looks
SOON = f"{LOOK}s"


def percentage(threshold=50, volume=5, hosts=1, **fields):
    """Detection by the share of failures alone."""
    return {
        "interval": SOON,
        "enforcing_consecutive_5xx": 0,  # Envoy's, which ours know too
        "base_ejection_time": "600s",
        "max_ejection_percent": 100,
        "enforcing_success_rate": 0,
        "enforcing_failure_percentage": 100,
        "failure_percentage_threshold": threshold,
        "failure_percentage_request_volume": volume,
        "failure_percentage_minimum_hosts": hosts,
    } | fields


def success(factor=1000, volume=5, hosts=1, **fields):
    """Detection by the rate of success alone; ``factor``: thousandths of the standard deviation below the mean."""
    return {
        "interval": SOON,
        "enforcing_consecutive_5xx": 0,  # Envoy's, which ours know too
        "base_ejection_time": "600s",
        "max_ejection_percent": 100,
        "enforcing_success_rate": 100,
        "success_rate_stdev_factor": factor,
        "success_rate_request_volume": volume,
        "success_rate_minimum_hosts": hosts,
    } | fields


NAMES = ("a", "b", "c", "d")


@pytest.fixture
def watched(scene, connect):
    """A function that starts four servers, the first of which fails; gives them and a caller that has seen all of them."""

    def make(detection):
        servers = scene.simple(*NAMES, outlier_detection=detection)
        caller = connect()
        caller.becomes(*NAMES)
        servers[0].fail()
        return servers, caller

    return make


def stays(caller, looks=4):
    """Whether the one that fails is called on: over some looks, each with calls enough to judge by."""
    until = time.monotonic() + (looks + 0.5) * LOOK
    caller.until(lambda answer: answer.outcome == "UNAVAILABLE")
    while "UNAVAILABLE" in caller.row(60):
        if time.monotonic() > until:
            return True
    return False


@pytest.mark.parametrize("detection", [percentage, success])
def test_endpoint_that_fails_is_ejected(watched, detection):
    """OD-01: calls go to the others."""
    (a, *_), caller = watched(detection())
    caller.becomes("b", "c", "d", calls=40)
    before = a.calls
    assert set(caller.row(40)) == {"b", "c", "d"}
    assert a.calls == before


@pytest.mark.parametrize("detection", [percentage, success])
def test_ejection_ends_after_its_time(watched, detection):
    """OD-03: and the endpoint that does well is called as the others."""
    (a, *_), caller = watched(detection(base_ejection_time="1s"))
    caller.becomes("b", "c", "d", calls=40)
    a.behave()
    caller.becomes(*NAMES, calls=40)


@pytest.mark.parametrize("detection", [percentage, success])
def test_end_of_detection_ends_every_ejection(scene, watched, detection):
    """OD-03: at once, whatever the time left."""
    (a, *_), caller = watched(detection())
    caller.becomes("b", "c", "d", calls=40)
    a.behave()
    scene.plane.update(build.cluster("main"))
    caller.becomes(*NAMES, calls=40)


def test_without_detection_nothing_is_ejected(scene, connect):
    """OD-02."""
    a, *_ = scene.simple(*NAMES)
    a.fail()
    caller = connect()
    caller.becomes("UNAVAILABLE", "b", "c", "d", calls=40)
    assert "UNAVAILABLE" in caller.row(40)


@pytest.mark.parametrize(
    "detection",
    [
        pytest.param(percentage(enforcing_failure_percentage=0), id="percentage not enforced"),
        pytest.param(percentage(threshold=100), id="percentage not above 100"),
        pytest.param(percentage(volume=10_000), id="percentage of too few calls"),
        pytest.param(percentage(hosts=5), id="percentage of too few endpoints"),
        pytest.param(success(enforcing_success_rate=0), id="success not enforced"),
        pytest.param(success(factor=100_000), id="success within the deviation"),
        pytest.param(success(volume=10_000), id="success of too few calls"),
        pytest.param(success(hosts=5), id="success of too few endpoints"),
    ],
)
def test_endpoint_is_kept(watched, detection):
    """OD-01, OD-04: where it is not to be ejected."""
    _, caller = watched(detection)
    assert stays(caller)


@pytest.mark.ours_differs(
    "docs/differences.md: failures in a row eject as the control plane says, and as Envoy by default"
)
def test_failures_in_a_row_eject_nobody(watched):
    """OD-06: they are Envoy's alone."""
    _, caller = watched(
        percentage(enforcing_failure_percentage=0, enforcing_consecutive_5xx=100, consecutive_5xx=3)
    )
    assert stays(caller, 2)


@pytest.mark.parametrize("detection", [percentage, success])
def test_one_ejection_is_always_allowed(watched, detection):
    """OD-04: the check is made before; a maximum of 1 % is one endpoint."""
    _, caller = watched(detection(max_ejection_percent=1))
    caller.becomes("b", "c", "d", calls=40)


def test_no_more_than_the_maximum_is_ejected(watched):
    """OD-04: of four that fail, a maximum of 50 % ejects two."""
    servers, caller = watched(percentage(max_ejection_percent=50))
    for server in servers[1:]:
        server.fail()
    caller.until(lambda _: len(called(caller, servers)) == 2)
    assert len(called(caller, servers)) == 2


def called(caller, servers):
    """The servers that a row of calls reaches, retries included."""
    before = [server.calls for server in servers]
    caller.row(40)
    return [server for server, count in zip(servers, before, strict=True) if server.calls > count]


def test_any_code_but_ok_is_a_failure(scene, connect):
    """OD-05: an answer of the application, too."""
    a, *_ = scene.simple(*NAMES, outlier_detection=percentage())
    caller = connect()
    caller.becomes(*NAMES)
    a.fail(grpc.StatusCode.NOT_FOUND)
    caller.becomes("b", "c", "d", calls=40)


def test_connection_is_kept_while_it_is_ejected(watched):
    """OD-05."""
    (a, *_), caller = watched(percentage(base_ejection_time="1s"))
    caller.becomes("b", "c", "d", calls=40)
    a.behave()
    caller.becomes(*NAMES, calls=40)
    assert a.connections == 1


def test_attempts_of_a_call_count_each(scene, watched):
    """OD-05: a retry that helps does not hide the failure."""
    (a, *_), caller = watched(percentage())
    retry = {"retry_on": "unavailable", "retry_back_off": {"base_interval": "0.01s"}}
    scene.route(build.route(cluster="main", retry=retry))
    caller.becomes("b", "c", "d", calls=40)
    caller.until(lambda _: not called(caller, [a]))


def test_ejection_of_a_whole_priority_fails_over(scene, connect):
    """OD-05, LB-11: an ejected endpoint is as good as unreachable."""
    a, b = scene.serve("a"), scene.serve("b")
    members = [locality("one", a), locality("other", b, priority=1)]
    scene.plane.update(*scene.cluster("main", *members, outlier_detection=percentage()))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("a")
    a.fail()
    caller.becomes("b", calls=40)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_ejection_percent": 101},
        {"enforcing_success_rate": 101},
        {"enforcing_failure_percentage": 101},
        pytest.param(
            {"failure_percentage_threshold": 101},
            marks=pytest.mark.oracle_differs("C-core looks at the other percentages only"),
        ),
        {"interval": "-1s"},
    ],
)
def test_detection_that_makes_no_sense_is_refused(scene, connect, bad):
    """OD-01: the cluster before stays."""
    scene.simple("a")
    caller = connect()
    assert caller.outcome() == "a"
    scene.plane.update(build.cluster("main", outlier_detection=bad))
    scene.plane.wait_for_nack("cluster")
    assert caller.row(5) == ["a"] * 5
