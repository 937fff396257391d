"""A large load assignment, or many clusters, from the bytes to the balance: no step grows with the number of endpoints or clusters.

Steps are counted, not timed: all calls, of Python and of C, between two places where others may run. What is one call of C's
is one step here, however long it is: parsing the response is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from meshlib.core.resolve import Rules, compile_view
from meshlib.model.snapshot import Snapshot
from meshlib.runtime.clusters import Clusters
from meshlib.testing import VirtualClock, build
from tests.support.xds_kit import Wire, response

#: Calls between two places: of an endpoint some hundred, of a piece of a list some more.
MOST = 1000


class Steps:
    """Counts calls between two times that it is called itself. ``longest``: how many, from where, to where."""

    def __init__(self) -> None:
        self.longest = (0, "", "")
        self.times = 0
        self._calls = 0
        self._since = ""

    def __call__(self) -> None:
        here = sys._getframe(1).f_code.co_qualname
        self.longest = max(self.longest, (self._calls, self._since, here))
        self._since = here
        self.times += 1
        self._calls = 0

    def run(self, work: Callable[[], object]) -> None:
        self._calls = 0
        sys.setprofile(self._count)
        try:
            work()
        finally:
            sys.setprofile(None)
        self()

    def _count(self, frame: object, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self._calls += 1


def addresses(count: int) -> list[str]:
    return [f"10.0.{number >> 8}.{number & 255}:80" for number in range(count)]


@pytest.mark.parametrize("view", ["sidecar", "target"])
@pytest.mark.parametrize("localities", [1, 10])
def test_no_step_grows_with_the_number_of_endpoints(view, localities):
    steps = Steps()
    wire = Wire(view, give_way=steps)
    clusters = Clusters(VirtualClock(), lambda: 0.5, steps)
    wire.open()
    wire.want("l")
    routes = build.route_config("r", build.virtual_host("v", build.route(cluster="large")))
    make = build.listener if view == "sidecar" else build.api_listener
    wire.send("listener", make("l", routes))
    wire.send("cluster", build.cluster("large"))
    for count in (2000, 4000):
        each = count // localities
        members = addresses(count)
        parts = [
            build.locality(*members[number * each : (number + 1) * each], zone=f"z{number}")
            for number in range(localities)
        ]
        message = response("endpoint", build.endpoints("large", *parts))
        before = steps.times
        steps.run(lambda message=message: wire.session.received(message, 0))
        snapshot = Snapshot((wire.part,), count)
        steps.run(lambda snapshot=snapshot: clusters.reconcile(snapshot, 0.0))
        found = clusters.get("xds", "large")
        assert found is not None
        assert len(found.endpoints) == count
        assert steps.times - before > 2 * count
    assert steps.longest < (MOST,), "calls, from where, to where"


@pytest.mark.parametrize("view", ["sidecar", "target"])
def test_no_step_grows_with_the_number_of_clusters(view):
    steps = Steps()
    for count in (300, 1500):
        wire = Wire(view, give_way=steps)
        clusters = Clusters(VirtualClock(), lambda: 0.5, steps)
        wire.open()
        wire.want("l")
        names = [f"c{number}" for number in range(count)]
        hosts = [
            build.virtual_host(
                name, build.route("/a", cluster=name), build.route(cluster=name), domains=[name]
            )
            for name in names
        ]
        make = build.listener if view == "sidecar" else build.api_listener
        for short, resources in (
            ("listener", [make("l", "r")]),
            ("route", [build.route_config("r", *hosts)]),
            ("cluster", [build.cluster(name) for name in names]),
            ("endpoint", [build.endpoints(name, "10.0.0.1:80") for name in names]),
        ):
            message = response(short, *resources)
            steps.run(lambda wire=wire, message=message: wire.session.received(message, 0))
            wire.flush()
            snapshot = Snapshot((wire.part,), count)
            steps.run(lambda snapshot=snapshot: compile_view(snapshot, Rules(), None, steps))
            steps.run(lambda clusters=clusters, snapshot=snapshot: clusters.reconcile(snapshot, 0.0))
        assert all(clusters.get("xds", name).endpoints for name in names)
    # Some steps look at every name, and do nothing with it.
    assert steps.longest < (MOST + 5 * 1500,), "calls, from where, to where"
