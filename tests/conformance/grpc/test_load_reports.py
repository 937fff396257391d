"""LRS: the same calls come to the same numbers (LR-01 to LR-03, LR-05)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from meshlib.testing import build
from tests.conformance.support.scene import locality

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.testing import ControlPlane
    from tests.conformance.support.scene import Scene

SELF = {"lrs_server": {"self": {}}}


@pytest.fixture
def told(scene: Scene, plane: ControlPlane) -> Callable[[dict[str, int]], Any]:
    """A function that waits until the reports on cluster ``main`` come to these numbers, and gives their `ClusterStats`."""
    plane.loads.ask("main")

    def wait(wanted: dict[str, int]) -> Any:
        plane.loads.wait_for(lambda: plane.loads.total("main") == wanted, timeout=15.0)
        return plane.loads.reports("main")

    return wait


def numbers(issued: int, succeeded: int, failed: int, dropped: int = 0, active: int = 0) -> dict[str, int]:
    return {"issued": issued, "succeeded": succeeded, "failed": failed, "dropped": dropped, "active": active}


def test_how_calls_end(scene: Scene, plane: ControlPlane, connect: Callable[..., Any], told: Any) -> None:
    (server,) = scene.simple("a", **SELF)
    caller = connect()
    assert caller.row(3) == ["a"] * 3
    server.order(code=grpc.StatusCode.NOT_FOUND, times=2)
    assert caller.row(2) == ["NOT_FOUND"] * 2
    reports = told(numbers(5, 3, 2))
    first = plane.loads.requests[0]
    assert "envoy.lrs.supports_send_all_clusters" in first.node.client_features
    assert not len(first.cluster_stats)
    assert {report.cluster_service_name for report in reports} <= {"", "main"}


def test_by_locality(scene: Scene, connect: Callable[..., Any], told: Any) -> None:
    one, other = scene.serve("one"), scene.serve("other")
    places = locality("one", one), locality("other", other, priority=1)
    scene.plane.update(*scene.cluster("main", *places, **SELF))
    scene.route(build.route(cluster="main"))
    assert connect().row(4) == ["one"] * 4
    found: dict[str, int] = {}
    for report in told(numbers(4, 4, 0)):
        for each in report.upstream_locality_stats:
            assert each.locality.region == "region"
            found[each.locality.zone] = found.get(each.locality.zone, 0) + each.total_issued_requests
    assert {zone: count for zone, count in found.items() if count} == {"one": 4}


def test_a_stream_that_is_given_up(scene: Scene, connect: Callable[..., Any], told: Any) -> None:
    """To gRPC it is an error."""
    (server,) = scene.simple("a", **SELF)
    caller = connect()
    assert caller.outcome() == "a"
    server.hold()
    held = caller.start(timeout=30)
    server.wait_for_held(1)
    told(numbers(2, 1, 0, active=1))
    held.cancel()
    told(numbers(2, 1, 1))


def test_drops(scene: Scene, connect: Callable[..., Any], told: Any) -> None:
    a = scene.serve("a")
    share = {"category": "throttle", "drop_percentage": {"numerator": 100}}
    scene.plane.update(build.cluster("main", **SELF))
    scene.plane.update(scene.endpoints("main", a, policy={"drop_overloads": [share]}))
    scene.route(build.route(cluster="main"))
    assert connect().row(4) == ["UNAVAILABLE"] * 4
    reports = told(numbers(0, 0, 0, dropped=4))
    drops = [(each.category, each.dropped_count) for report in reports for each in report.dropped_requests]
    assert {name for name, _ in drops} == {"throttle"}
    assert sum(count for _, count in drops) == 4


def test_what_limits_refuse(scene: Scene, connect: Callable[..., Any], told: Any) -> None:
    (server,) = scene.simple("a", circuit_breakers={"thresholds": [{"max_requests": 1}]}, **SELF)
    caller = connect()
    assert caller.outcome() == "a"
    server.hold()
    held = caller.start()
    server.wait_for_held(1)
    assert caller.row(3) == ["UNAVAILABLE"] * 3
    server.behave()
    held.result()
    reports = told(numbers(2, 2, 0, dropped=3))
    assert not [each for report in reports for each in report.dropped_requests]
