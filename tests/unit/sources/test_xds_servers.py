"""Several control planes of one source: streams, states, what is told of each."""

from __future__ import annotations

import pytest

from meshlib.model.events import ControlPlaneLost, ResourcesReceived
from meshlib.sources.xds import WARM, XdsSource
from meshlib.sources.xds_pair import XdsPair
from meshlib.testing import build
from meshlib.xds.bootstrap import Authority, Bootstrap, Node, Server
from tests.support.sources_kit import ScriptedBench
from tests.support.xds_kit import response

FIRST, SECOND = Server("127.0.0.1:1"), Server("127.0.0.1:2")


class Plane(ScriptedBench):
    """Two servers, of which the streams are fake."""

    def __init__(self, *, pair=False, inherited=(), authorities=None, servers=(FIRST, SECOND)):
        bootstrap = Bootstrap(servers, Node("me", "shop"), authorities=authorities or {})

        def sources(merge, bench):
            if pair:
                return [XdsPair(merge, bootstrap, self.open_stream, protocol="sotw")]
            return [XdsSource(merge, bootstrap, "target", self.open_stream, protocol="sotw")]

        super().__init__(sources, inherited)
        self.source = self.bench.merge.sources[0]

    def newest(self, server):
        """The number of the stream that was opened last to a server."""
        return max(at for at, stream in enumerate(self.streams) if stream.server == server)

    def opened(self, server):
        return sum(stream.server == server for stream in self.streams)

    def reach(self, server):
        self.up(self.newest(server))

    def lose(self, server, error="refused"):
        self.end(error, at=self.newest(server))

    def serve(self, server, name="reviews", address="10.0.0.1:80"):
        at = self.newest(server)
        host = build.virtual_host(name, build.route("/", cluster=f"c-{name}"), domains=[name])
        self.answer("listener", build.api_listener(name, build.route_config(name, host)), at=at)
        self.answer("cluster", build.cluster(f"c-{name}"), at=at)
        self.answer("endpoint", build.endpoints(f"c-{name}", address), at=at)

    @property
    def states(self):
        return {status.name: status.state for status in self.bench.merge.statuses()}


def test_a_stream_is_opened_when_it_is_needed_and_closed_when_it_is_not():
    """ST-01, FB-02"""
    plane = Plane()
    plane.want("reviews")
    assert (plane.opened(FIRST), plane.opened(SECOND)) == (1, 0)
    plane.lose(FIRST)
    assert plane.opened(SECOND) == 1
    plane.reach(SECOND)
    plane.serve(SECOND)
    assert plane.bench.parts["xds 1"].targets.keys() == {"reviews"}
    spare = plane.streams[plane.newest(SECOND)]
    waits = []
    spare.cancel = waits.append
    plane.bench.step(5.0)
    plane.reach(FIRST)
    plane.serve(FIRST)
    assert waits == [0.0]  # the worker goes on at once
    assert set(plane.bench.parts) == {"xds"}
    assert plane.part.targets.keys() == {"reviews"}
    plane.bench.step(600.0)
    assert plane.opened(SECOND) == 1


def test_states_of_all_and_of_each():
    """FB-03: nobody is told of an outage while a server is left to ask."""
    plane = Plane()
    plane.want("reviews")
    names = ("xds", f"xds {FIRST.uri}", f"xds {SECOND.uri}")
    seen = [tuple(plane.states[name] for name in names)]
    plane.lose(FIRST)
    seen.append(tuple(plane.states[name] for name in names))
    assert plane.part is None
    plane.lose(SECOND, "gone")
    seen.append(tuple(plane.states[name] for name in names))
    assert plane.part.unreached == "gone"
    assert plane.source.pending("reviews") == f"control plane {SECOND.uri} not reachable: gone"
    plane.bench.step(5.0)
    plane.reach(SECOND)
    plane.serve(SECOND)
    seen.append(tuple(plane.states[name] for name in names))
    assert plane.part.unreached == ""
    assert seen == [
        ("connecting", "connecting", "idle"),
        ("connecting", "failed", "connecting"),
        ("failed", "failed", "failed"),
        ("ready", "failed", "ready"),
    ]


def test_what_is_known_serves_and_a_new_name_is_not_hopeless():
    """FB-01, FB-04"""
    plane = Plane()
    plane.want("reviews")
    plane.reach(FIRST)
    plane.serve(FIRST)
    plane.lose(FIRST, "")
    plane.bench.step(2.0)
    plane.lose(FIRST)
    assert plane.states["xds"] == "stale"
    assert plane.part.unreached == ""
    assert plane.opened(SECOND) == 0
    plane.want("ratings")
    assert plane.opened(SECOND) == 1
    assert plane.part.targets.keys() == {"reviews"}


def test_statuses_and_metrics_are_of_each_server():
    """MX-01"""
    plane = Plane()
    plane.want("reviews")
    plane.lose(FIRST)
    plane.reach(SECOND)
    plane.serve(SECOND)
    _, first, second = plane.bench.merge.statuses()
    assert (first.server, first.last_error, sum(first.resources.values())) == (FIRST.uri, "refused", 0)
    assert (second.server, second.versions, second.last_error) == (
        SECOND.uri,
        {"listener": "1", "cluster": "1", "endpoint": "1"},
        "",
    )
    assert {short for short, count in second.resources.items() if count == 1} == {
        "listener",
        "cluster",
        "endpoint",
    }
    assert dict(plane.status.resources) == dict(second.resources)
    assert plane.status.waiting == ()
    clients = {client.server: client for client in plane.source.xds_clients()}
    assert {uri: client.connected for uri, client in clients.items()} == {FIRST.uri: False, SECOND.uri: True}
    assert sum(clients[SECOND.uri].resources.values()) == 3
    lost = [event.server for event in plane.bench.events if isinstance(event, ControlPlaneLost)]
    told = {event.server for event in plane.bench.events if isinstance(event, ResourcesReceived)}
    assert (lost, told) == ([FIRST.uri], {SECOND.uri})


def test_a_refusal_is_of_its_server(caplog):
    plane = Plane()
    plane.want("reviews")
    plane.lose(FIRST)
    plane.reach(SECOND)
    plane.answer("listener", build.listener("reviews", "r", address="127.0.0.1:80"), at=plane.newest(SECOND))
    bad = build.api_listener(
        "reviews", build.route_config("r", build.virtual_host("v", build.route(regex="(")))
    )
    plane.answer("listener", bad, at=plane.newest(SECOND))
    _, first, second = plane.bench.merge.statuses()
    assert (first.rejected, [each.resource for each in second.rejected]) == ((), ["reviews"])
    assert f"{SECOND.uri}: listener 'reviews' is refused" in caplog.text


def test_both_views_of_a_server_are_one_status():
    plane = Plane(pair=True)
    plane.want("reviews")
    assert list(plane.states) == ["xds", f"xds {FIRST.uri}", f"xds {SECOND.uri}"]
    wild, named = (at for at, stream in enumerate(plane.streams) if stream.server == FIRST)
    plane.up(wild)
    plane.up(named)
    cluster = build.cluster("c", ["10.0.0.1:80"])
    plane.answer("cluster", cluster, build.cluster("d", ["10.0.0.1:80"]), at=wild)
    host = build.virtual_host("v", build.route("/", cluster="c"), domains=["*"])
    plane.answer("listener", build.api_listener("reviews", build.route_config("r", host)), at=named)
    plane.answer("cluster", cluster, at=named)
    _, first, second = plane.bench.merge.statuses()
    assert (first.state, first.resources["cluster"], second.state) == ("ready", 2, "idle")


def test_a_child_has_what_its_parent_took_from_another_server():
    parent = Plane()
    parent.want("reviews")
    parent.lose(FIRST)
    parent.reach(SECOND)
    parent.serve(SECOND)
    child = Plane(inherited=parent.bench.published[-1])
    child.want("reviews")
    assert child.bench.parts["xds 1"].targets.keys() == {"reviews"}
    child.reach(FIRST)
    child.serve(FIRST, address="10.0.0.2:80")
    child.bench.step(WARM)
    assert set(child.bench.parts) == {"xds"}
    assert child.bench.addresses("xds", "c-reviews") == ["10.0.0.2:80"]


def test_an_outage_of_one_authority_is_no_outage():
    """FB-05"""
    shop = Authority((SECOND,), "xdstp://shop/envoy.config.listener.v3.Listener/%s")
    plane = Plane(servers=(FIRST,), authorities={"shop": shop})
    name = "xdstp://shop/envoy.config.listener.v3.Listener/ratings"
    plane.want("reviews", name)
    plane.reach(FIRST)
    plane.serve(FIRST)
    plane.lose(SECOND)
    assert plane.states == {"xds": "ready", f"xds {FIRST.uri}": "ready", f"xds {SECOND.uri}": "failed"}
    plane.bench.worker.post(plane.bench.merge.stop)
    plane.bench.step()
    told = [change for change in plane.bench.changes if change[0] == "xds"]
    assert [state for _, state, _ in told] == ["connecting", "ready", "idle"]  # and no outage as it ends
    plane.bench.start()
    plane.reach(FIRST)
    plane.serve(FIRST)
    plane.lose(SECOND)
    assert (plane.part.unreached, set(plane.part.absent)) == ("", {name})
    assert plane.source.pending(name) == f"control plane {SECOND.uri} not reachable: refused"
    plane.bench.merge.forget(name)
    plane.bench.step()
    assert plane.states[f"xds {SECOND.uri}"] == "idle"
    assert plane.part.absent == {}


def test_stopping_ends_all_and_a_start_begins_with_the_first():
    plane = Plane()
    plane.want("reviews")
    plane.reach(FIRST)
    plane.serve(FIRST)
    plane.lose(FIRST, "")
    plane.bench.step(2.0)
    plane.lose(FIRST)
    plane.want("ratings")
    plane.reach(SECOND)
    plane.serve(SECOND, "ratings")
    assert plane.states["xds"] == "ready"
    plane.bench.worker.post(plane.bench.merge.stop)
    plane.bench.step()
    assert all(stream.cancelled for stream in plane.streams)
    assert set(plane.states.values()) == {"idle"}
    assert not plane.source.streaming
    before = plane.opened(FIRST)
    plane.bench.start()
    assert plane.opened(FIRST) == before + 1


@pytest.mark.parametrize("late", ["ready", "answer", "end"])
def test_a_stream_that_was_closed_says_nothing_any_more(late):
    plane = Plane()
    plane.want("reviews")
    plane.lose(FIRST)
    plane.reach(SECOND)
    spare = plane.streams[plane.newest(SECOND)]
    plane.bench.step(5.0)
    plane.reach(FIRST)
    plane.serve(FIRST)
    assert spare.cancelled
    if late == "answer":
        spare.answer(response("listener"))
    else:
        getattr(spare, late)()
    plane.bench.step(5.0)
    assert plane.states[f"xds {SECOND.uri}"] == "idle"
    assert plane.part.targets.keys() == {"reviews"}
