"""What one changed endpoint costs follows what has changed, and not what there is: from the bytes to the clusters in force.

Calls of Python are counted, not timed. What C does for a whole dictionary, as to copy it, is one step here: a tenth of a millisecond
for ten thousand clusters.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from typing import Any

import pytest

from meshlib.core.resolve import Rules, compile_view
from meshlib.runtime.clusters import Clusters
from meshlib.runtime.store import Store
from meshlib.testing import VirtualClock, build
from meshlib.xds.session import Session
from tests.support.xds_kit import NODE, delta_response, response


class Counted:
    """Counts calls of Python by where they lead."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __enter__(self) -> Counter[str]:
        gc.disable()  # what it would run is none of this
        sys.setprofile(self._count)
        return self.calls

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def _count(self, frame: Any, event: str, argument: object) -> None:
        del argument
        if event == "call":
            self.calls[frame.f_code.co_qualname] += 1


def service(view: str, count: int) -> dict[str, list[dict[str, Any]]]:
    names = [f"c{number}" for number in range(count)]
    hosts = (build.virtual_host(name, build.route(cluster=name), domains=[name]) for name in names)
    make = build.listener if view == "sidecar" else build.api_listener
    return {
        "listener": [make("l", "r")],
        "route": [build.route_config("r", *hosts)],
        "cluster": [build.cluster(name) for name in names],
        "endpoint": [build.endpoints(name, "10.0.0.1:80", "10.0.0.2:80") for name in names],
    }


def cost(protocol: str, view: str, clusters: int) -> Counter[str]:
    """Of one endpoint that changes, where there are so many clusters."""
    make = response if protocol == "sotw" else delta_response
    session = Session(NODE, view=view, protocol=protocol, jitter=lambda: 0.5)
    clock = VirtualClock()
    live = Clusters(clock, lambda: 0.5)
    rules = Rules(has_xds=True, view=view)
    store = Store(lambda snapshot, previous: compile_view(snapshot, rules, previous), live.reconcile, clock)
    session.opened(0.0)
    session.want("l")
    session.outgoing(0.0)
    for short, resources in service(view, clusters).items():
        assert session.received(make(short, *resources), 0.0).accepted
        session.outgoing(0.0)
    store.publish((session.part,))
    for address in ("10.0.0.3:80", "10.0.0.4:80"):  # the second time all has been seen once
        raw = make("endpoint", build.endpoints("c1", "10.0.0.1:80", address), version=address)
        with Counted() as found:
            assert session.received(raw, 0.0).accepted
            store.publish((session.part,))
            session.outgoing(0.0)
            assert session.next_timer() is None
        assert [each.name for each in live.get("xds", "c1").endpoints] == ["10.0.0.1:80", address]
    return found


@pytest.mark.parametrize("protocol", ["delta", "sotw"])
@pytest.mark.parametrize("view", ["sidecar", "target"])
def test_it_is_the_same_among_ten_times_as_many(protocol: str, view: str) -> None:
    few, many = cost(protocol, view, 40), cost(protocol, view, 400)
    assert few == many
