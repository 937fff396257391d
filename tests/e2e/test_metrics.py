"""Metrics of real calls: the conventions' histogram, and meshlib's own counters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import meshlib
from meshlib.testing import VirtualClock
from meshlib.testing.upstream import Upstream
from tests.support.faces import FaceFactory
from tests.support.telemetry import Recorded, sdk

UpstreamFactory = Any

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """Metrics alone: no tracer provider is set."""
    with sdk(tracing=False) as found:
        yield found


def service(*upstreams: Upstream, **policies: Any) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": [up.address for up in upstreams], **policies}}}


def test_each_attempt_is_measured(recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream("v1")
    one.fail(503, times=1)
    client = face(service(one, retry={"attempts": 2, "on": ["5xx"]}))
    for _ in range(3):
        client.get("http://reviews/api?q=1")
    points = {
        point.attributes["http.response.status_code"]: point
        for point in recorded.points("http.client.request.duration")
    }
    common = {
        "http.request.method": "GET",
        "server.address": "reviews",
        "server.port": 80,
        "network.protocol.version": "1.1",
    }
    assert dict(points[200].attributes) == {**common, "http.response.status_code": 200}
    assert dict(points[503].attributes) == {**common, "http.response.status_code": 503, "error.type": "503"}
    assert (points[200].count, points[503].count) == (3, 1)
    assert points[200].explicit_bounds == BUCKETS
    assert 0 < points[200].sum < 10
    assert recorded.spans == ()
    [retries] = recorded.points("meshlib.retries")
    assert (dict(retries.attributes), retries.value) == ({"meshlib.cluster": "reviews"}, 1)


def test_a_failure_is_measured_by_its_name(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    one.kill()
    client = face(service(one))
    with pytest.raises(meshlib.ConnectFailed):
        client.get("http://reviews/")
    [point] = recorded.points("http.client.request.duration")
    assert point.attributes["error.type"] == "ConnectError"
    assert "http.response.status_code" not in point.attributes


def test_ejections_and_breakers_are_counted(recorded: Recorded, upstream: UpstreamFactory) -> None:
    bad, good = upstream("bad"), upstream("good")
    bad.fail(503)
    config = service(
        bad,
        good,
        balancer="round_robin",
        outlier={"consecutive_5xx": 2, "max_ejection_percent": 100, "base_ejection": 60},
        breaker={"consecutive_failures": 2, "open_for": 60},
    )
    with meshlib.Mesh(config) as mesh, meshlib.Client(mesh=mesh) as client:
        for _ in range(8):
            client.get("http://reviews/")
        good.fail(503)
        for _ in range(2):
            client.get("http://reviews/")
        with pytest.raises(meshlib.CircuitOpen):
            client.get("http://reviews/")
    [ejections] = recorded.points("meshlib.ejections")
    assert ejections.attributes["meshlib.cluster"] == "reviews"
    assert ejections.attributes["meshlib.ejection.reason"] == "5xx or lost connections in a row"
    assert ejections.value >= 1
    states = {
        point.attributes["meshlib.breaker.state"]: point.value
        for point in recorded.points("meshlib.breaker.transitions")
    }
    assert states == {"open": 1}


def test_an_ejection_at_the_end_of_an_interval_has_one_reason(
    recorded: Recorded, upstream: UpstreamFactory, meshlib_clock: VirtualClock
) -> None:
    bad, good = upstream("bad"), upstream("good")
    bad.fail(503)
    outlier = {"consecutive_5xx": 0, "failure_percentage": 50, "minimum_calls": 4, "interval": 10}
    config = service(bad, good, balancer="round_robin", outlier=outlier)
    with meshlib.Mesh(config, clock=meshlib_clock) as mesh, meshlib.Client(mesh=mesh) as client:
        statuses = [client.get("http://reviews/").status_code for _ in range(8)]
        assert sorted(statuses) == [200] * 4 + [503] * 4
        meshlib_clock.advance(10)
        assert [client.get("http://reviews/").status_code for _ in range(4)] == [200] * 4
    [ejections] = recorded.points("meshlib.ejections")
    assert (ejections.attributes["meshlib.ejection.reason"], ejections.value) == ("failure percentage", 1)


def test_sources_say_whether_they_are_ready(recorded: Recorded, upstream: UpstreamFactory) -> None:
    one = upstream("v1")
    with meshlib.Mesh(service(one)) as mesh, meshlib.Client(mesh=mesh) as client:
        client.get("http://reviews/")
        [point] = recorded.points("meshlib.source.ready")
        assert (dict(point.attributes), point.value) == ({"meshlib.source": "static"}, 1)
        with meshlib.Mesh(service(one)) as twin, meshlib.Client(mesh=twin) as other:
            other.get("http://reviews/")
            assert len(recorded.points("meshlib.source.ready")) == 1
    assert recorded.points("meshlib.source.ready") == []


def test_an_away_control_plane_is_not_ready(recorded: Recorded, upstream: UpstreamFactory) -> None:
    from meshlib.testing import ControlPlane

    one = upstream("v1")
    with ControlPlane() as plane:
        server = plane.address
    config = {**service(one), "xds": {"server": server}}
    with meshlib.Mesh(config) as mesh, meshlib.Client(mesh=mesh) as client:
        client.get("http://reviews/")
        values = {
            point.attributes["meshlib.source"]: (point.value, point.attributes.get("meshlib.source.server"))
            for point in recorded.points("meshlib.source.ready")
        }
    assert values["static"] == (1, None)
    assert values["xds"] == (0, server)


def test_calls_that_the_control_plane_had_not_answered_for_are_counted(
    recorded: Recorded, upstream: UpstreamFactory
) -> None:
    from meshlib.testing import ControlPlane

    port = upstream("v1").address.rpartition(":")[2]
    with ControlPlane() as plane:
        server = plane.address
    for cold_start in ("direct", "fail"):
        config = {"xds": {"server": server, "domains": ["localhost"], "cold_start": cold_start}}
        with meshlib.Mesh(config) as mesh, meshlib.Client(mesh=mesh) as client:
            for _ in range(2):
                if cold_start == "direct":
                    assert client.get(f"http://localhost:{port}/").status_code == 200
                else:
                    with pytest.raises(meshlib.NotReady):
                        client.get(f"http://localhost:{port}/")
    found = {
        point.attributes["meshlib.via"]: point.value for point in recorded.points("meshlib.calls.unanswered")
    }
    assert found == {"direct": 2, "failed": 2}
