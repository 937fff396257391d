"""Both views of one control plane: two streams, one part, one status."""

from __future__ import annotations

import pytest

from meshlib.sources.xds import XdsSource
from meshlib.sources.xds_pair import XdsPair, xds_source
from meshlib.testing import build
from meshlib.xds.bootstrap import Bootstrap, Node, Server
from tests.support.sources_kit import Bench
from tests.support.xds_kit import read, response

SERVER = Server("127.0.0.1:18000")


class FakeStream:
    """A stream whose other end is the test."""

    def __init__(self, server, ears, post, protocol):
        self.ears, self.post, self.protocol = ears, post, protocol
        self.written = []
        self.cancelled = False

    def send(self, raw):
        self.written.append(raw)

    def consumed(self):
        pass

    def cancel(self, timeout=0.5):
        self.cancelled = True

    @property
    def asked(self):
        """What was asked for first, by type."""
        found = {}
        for short, names, *_ in read(self.written):
            found.setdefault(short, names)
        return found


class Plane:
    def __init__(self, *, view="auto", node=None, inherited=(), protocol="sotw"):
        self.streams = []
        self.nonce = 0

        def opener(server, ears, post, protocol):
            self.streams.append(FakeStream(server, ears, post, protocol))
            return self.streams[-1]

        bootstrap = Bootstrap((SERVER,), node or Node("me", "shop"))
        self.bench = Bench(
            lambda merge, bench: [xds_source(merge, bootstrap, view, opener, protocol=protocol)], inherited
        )
        self.source = self.bench.merge.sources[0]

    def want(self, name):
        self.bench.merge.want(name, name)
        self.bench.step()

    def up(self, stream):
        stream.post(lambda: stream.ears.on_ready(stream))
        self.bench.step()

    def answer(self, stream, short, *resources):
        self.nonce += 1
        raw = response(short, *resources, nonce=f"n{self.nonce}")
        stream.post(lambda: stream.ears.on_message(stream, raw))
        self.bench.step()

    def end(self, stream, error):
        stream.post(lambda: stream.ears.on_end(stream, error))
        self.bench.step()

    @property
    def part(self):
        return self.bench.parts["xds"]

    @property
    def status(self):
        return self.bench.status("xds")


def routes(cluster):
    return build.route_config(cluster, build.virtual_host("v", build.route("/", cluster=cluster)))


def test_each_view_asks_on_a_stream_of_its_own_as_the_client_that_servers_know():
    """SW-16, SW-17, CP-02: a wildcard is an empty list and stands alone; names stand alone."""
    plane = Plane()
    (wild,) = plane.streams
    plane.up(wild)
    assert wild.asked["listener"] == []
    assert wild.asked["cluster"] == []
    plane.want("reviews")
    _, named = plane.streams
    plane.up(named)
    assert named.asked == {"listener": ["reviews"]}


def test_nothing_is_asked_by_name_before_a_name_is_wanted():
    plane = Plane()
    assert len(plane.streams) == 1
    assert plane.status.state == "connecting"


def test_both_make_one_part_and_one_status():
    plane = Plane()
    plane.want("reviews")
    wild, named = plane.streams
    plane.up(wild)
    plane.up(named)
    target = build.api_listener("reviews", routes("shared"))
    plane.answer(
        wild, "cluster", build.cluster("shared", ["10.0.0.1:80"]), build.cluster("own", ["10.0.0.2:80"])
    )
    plane.answer(
        wild, "listener", build.listener("0.0.0.0_9080", routes("own"), address="0.0.0.0:9080"), target
    )
    assert [listener.name for listener in plane.part.sidecar] == ["0.0.0.0_9080"]
    plane.answer(named, "listener", target)
    plane.answer(named, "cluster", build.cluster("shared", ["10.0.0.1:80"]))
    assert set(plane.part.targets) == {"reviews"}
    assert set(plane.part.clusters) == {"shared", "own"}
    status = plane.status
    assert status.state == "ready"
    assert (status.resources["listener"], status.resources["cluster"]) == (2, 2)
    assert status.versions["cluster"]


def test_a_refused_resource_is_told_once_though_both_views_have_it():
    plane = Plane()
    plane.want("reviews")
    wild, named = plane.streams
    plane.up(wild)
    plane.up(named)
    bad = build.api_listener(
        "reviews", build.route_config("r", build.virtual_host("v", build.route(regex="(", cluster="c")))
    )
    plane.answer(wild, "listener", bad)
    plane.answer(named, "listener", bad)
    assert [(entry.type, entry.resource) for entry in plane.status.rejected] == [("listener", "reviews")]


def test_a_server_that_is_known_to_be_away_keeps_nobody_waiting():
    """CA-09: the view by name need not find out for itself."""
    plane = Plane()
    plane.end(plane.streams[0], "connection refused")
    assert plane.status.state == "failed"
    plane.want("reviews")
    assert plane.part.unreached == "connection refused"
    assert "connection refused" in plane.source.pending("reviews")


def test_in_a_child_that_connects_a_name_that_its_parent_did_not_know_is_waited_for():
    parent = Plane()
    parent.want("reviews")
    wild, named = parent.streams
    parent.up(wild)
    parent.up(named)
    parent.answer(wild, "cluster", build.cluster("shared", ["10.0.0.1:80"]))
    parent.answer(wild, "listener")
    parent.answer(named, "listener", build.api_listener("reviews", routes("shared")))
    parent.answer(named, "cluster", build.cluster("shared", ["10.0.0.1:80"]))
    child = Plane(inherited=[parent.part])
    child.want("ratings")
    assert (child.part.unreached, child.part.absent) == ("", {})
    assert set(child.part.targets) == {"reviews"}


def test_one_view_that_is_there_is_enough_to_be_ready_and_the_others_error_is_not_told():
    plane = Plane()
    plane.want("reviews")
    wild, named = plane.streams
    plane.up(wild)
    plane.answer(wild, "cluster", build.cluster("c", ["10.0.0.1:80"]))
    plane.end(named, "reset")
    assert (plane.status.state, plane.status.last_error) == ("ready", "")


def test_stopping_ends_both():
    plane = Plane()
    plane.want("reviews")
    plane.bench.worker.post(plane.bench.merge.stop)
    plane.bench.step()
    assert all(stream.cancelled for stream in plane.streams)
    assert plane.status.state == "idle"
    assert not plane.source.streaming


@pytest.mark.parametrize(
    ("view", "metadata", "kind"),
    [
        ("auto", {}, XdsPair),
        ("auto", {"GENERATOR": "grpc"}, XdsSource),
        ("target", {}, XdsSource),
        ("sidecar", {}, XdsSource),
    ],
)
def test_which_source_a_view_has(view, metadata, kind):
    plane = Plane(view=view, node=Node("me", "shop", metadata=metadata))
    assert type(plane.source) is kind
