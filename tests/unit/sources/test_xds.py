from __future__ import annotations

import logging
import sys
import types

import pytest

from meshlib.model.snapshot import Part
from meshlib.sources import protocol
from meshlib.sources.channel import GEVENT
from meshlib.sources.xds import WARM, XdsSource
from meshlib.testing import build
from meshlib.xds import schema
from meshlib.xds.bootstrap import Bootstrap, Feature, Node, Server
from tests.support.sources_kit import SERVER, ScriptedBench
from tests.support.xds_kit import REQUEST, delta_response, read, read_delta, response


class Plane(ScriptedBench):
    """A bench with one xDS source, whose streams are fake."""

    def __init__(self, *, view="target", inherited=(), bootstrap=None, start=True, protocol="sotw"):
        bootstrap = bootstrap or Bootstrap((SERVER,), Node("me", "shop"))
        super().__init__(
            lambda merge, bench: [XdsSource(merge, bootstrap, view, self.open_stream, protocol=protocol)],
            inherited,
            start,
        )
        self.source = self.bench.merge.sources[0]

    @property
    def stream(self):
        return self.streams[-1]

    def serve(self, name="reviews", cluster="c1"):
        """Everything that a target needs."""
        host = build.virtual_host(name, build.route("/", cluster=cluster), domains=[name])
        self.answer("listener", build.api_listener(name, build.route_config(name, host)))
        self.answer("cluster", build.cluster(cluster))
        self.answer("endpoint", build.endpoints(cluster, "10.0.0.1:80"))


class TestStream:
    def test_nothing_is_opened_before_it_starts(self):
        plane = Plane(start=False)
        assert plane.streams == []
        assert plane.status.state == "idle"

    def test_nothing_is_written_before_the_transport_is_connected(self):
        """EX-01: the timer of a name runs from when it was really sent."""
        plane = Plane()
        plane.want("reviews")
        assert plane.status.state == "connecting"
        assert plane.stream.written == []
        plane.up()
        assert plane.stream.requests == [("listener", ["reviews"], "", "", "")]

    def test_a_control_plane_that_nobody_asks_anything_yet_is_ready_once_it_is_reached(self):
        """The target view asks by name: without a name a readiness probe would wait for the first call, which waits for it."""
        plane = Plane()
        assert plane.status.state == "connecting"
        plane.up()
        assert plane.stream.requests == []
        assert plane.status.state == "ready"
        plane.end("gone")
        assert plane.status.state == "stale"
        plane.want("reviews")
        assert plane.part.unreached == "gone"  # nobody waits for a name while the server is away

    def test_one_that_is_asked_for_something_is_ready_once_it_answers(self):
        plane = Plane()
        plane.want("reviews")
        plane.up()
        assert plane.status.state == "connecting"
        plane.serve()
        assert plane.status.state == "ready"

    def test_the_first_request_says_who_we_are(self):
        """ST-02, ST-03"""
        plane = Plane()
        plane.want("reviews")
        plane.up()
        node = REQUEST.FromString(plane.stream.written[0]).node
        assert (node.id, node.cluster, node.user_agent_name) == ("me", "shop", "meshlib")
        assert node.user_agent_version
        assert "envoy.lb.does_not_support_overprovisioning" not in node.client_features

    def test_names_wanted_while_it_connects_are_asked_for_at_once(self):
        """ST-09"""
        plane = Plane()
        plane.want("a", "b")
        plane.up()
        assert [(short, sorted(names)) for short, names, *_ in plane.stream.requests] == [
            ("listener", ["a", "b"])
        ]

    def test_every_message_is_consumed_once_and_after_its_answer_was_written(self):
        """ST-10"""
        plane = Plane()
        plane.want("reviews")
        plane.up()
        written = len(plane.stream.written)
        consumed_at = []
        plane.stream.consumed = lambda: consumed_at.append(len(plane.stream.written))
        plane.serve()
        assert len(consumed_at) == 3
        assert consumed_at[0] > written
        assert plane.stream.requests[written][2:4] == ("1", "n1")

    def test_what_is_acknowledged_is_in_force(self):
        plane = Plane()
        plane.want("reviews")
        plane.up()
        plane.serve()
        seen, send = [], plane.stream.send

        def look(raw):
            seen.append(plane.bench.addresses("xds", "c1"))
            send(raw)

        plane.stream.send = look
        plane.answer("endpoint", build.endpoints("c1", "10.0.0.2:80"))
        assert seen == [["10.0.0.2:80"]]

    def test_a_message_is_consumed_even_where_reading_it_breaks(self, caplog):
        plane = Plane()
        plane.want("reviews")
        plane.up()
        plane.source._session.received = lambda raw, now, at: 1 / 0
        plane.answer("listener")
        assert plane.stream.consumptions == 1
        assert "ZeroDivisionError" in caplog.text

    def test_what_an_earlier_stream_still_says_is_not_heard(self):
        plane = Plane()
        plane.want("reviews")
        plane.up()
        old = plane.stream
        plane.end("reset")
        plane.bench.step(5.0)
        assert plane.stream is not old
        written = len(old.written)
        old.ready()
        old.answer(response("listener"))
        old.end("again")
        plane.bench.step()
        assert old.consumptions == 0
        assert len(old.written) == written
        assert len(plane.streams) == 2


class TestPublishing:
    def test_a_target_comes_into_force_once_all_of_it_is_there(self):
        plane = Plane()
        plane.want("reviews")
        plane.up()
        plane.serve()
        assert set(plane.part.targets) == {"reviews"}
        assert plane.bench.addresses("xds", "c1") == ["10.0.0.1:80"]
        assert plane.status.state == "ready"
        assert plane.status.resources["endpoint"] == 1
        assert plane.status.versions["cluster"] == "1"

    def test_a_forgotten_name_goes(self):
        plane = Plane()
        plane.want("reviews")
        plane.up()
        plane.serve()
        plane.bench.merge.forget("reviews")
        plane.bench.step()
        assert plane.part.targets == {}
        assert plane.stream.requests[-1][:2] == ("endpoint", [])

    def test_a_name_that_does_not_come_in_time_does_not_exist(self):
        """EX-01, EX-02"""
        plane = Plane()
        plane.want("reviews", "nosuch")
        plane.up()
        plane.serve()
        assert plane.status.waiting
        plane.bench.step(16.0)
        assert set(plane.part.absent) == {"nosuch"}
        plane.answer(
            "listener",
            *(
                build.api_listener(
                    name, build.route_config(name, build.virtual_host(name, build.route("/", cluster="c1")))
                )
                for name in ("reviews", "nosuch")
            ),
            version="2",
        )
        assert "nosuch" in plane.part.targets
        assert plane.part.absent == {}

    def test_a_refused_resource_is_reported_and_logged_once(self, caplog):
        plane = Plane()
        plane.want("reviews")
        plane.up()
        with caplog.at_level(logging.WARNING, logger="meshlib"):
            for _ in range(3):
                plane.answer(
                    "listener", build.any_of("envoy.config.listener.v3.Listener", {"name": "reviews"})
                )
        (rejected,) = plane.status.rejected
        assert (rejected.resource, rejected.type) == ("reviews", "listener")
        assert [
            line for line in caplog.messages if "refused" in line and "reviews" in line
        ] == caplog.messages
        assert len(caplog.messages) == 1

    def test_what_the_bootstrap_says_and_nobody_does_is_reported(self):
        bootstrap = Bootstrap((SERVER,), skipped=("xds_servers[0].call_creds[0]",))
        plane = Plane(bootstrap=bootstrap)
        fields = [(item.field, item.value) for item in plane.status.ignored]
        assert fields == [("xds_servers[0].call_creds[0]", "")]

    def test_server_features_reach_the_session(self):
        """ER-03"""
        server = Server("127.0.0.1:1", features=frozenset({Feature.IGNORE_RESOURCE_DELETION}))
        plane = Plane(bootstrap=Bootstrap((server,)), view="sidecar")
        plane.up()
        plane.answer("cluster", build.cluster("c1", ["10.0.0.1:80"]))
        plane.answer("cluster", version="2")
        assert plane.status.resources["cluster"] == 1


class TestOutage:
    def test_away_at_start_is_failure_and_nobody_waits(self):
        """CA-09"""
        plane = Plane()
        plane.want("reviews")
        plane.end("UNAVAILABLE: Connection refused")
        assert (plane.status.state, plane.status.last_error) == ("failed", "UNAVAILABLE: Connection refused")
        assert plane.part.unreached == "UNAVAILABLE: Connection refused"
        assert plane.part.absent == {}  # whether there is one is not known

    def test_and_what_comes_then_is_used(self):
        plane = Plane()
        plane.want("reviews")
        plane.end("UNAVAILABLE: Connection refused")
        plane.bench.step(2.0)
        plane.up()
        plane.serve()
        assert plane.status.state == "ready"
        assert plane.status.last_error == ""
        assert set(plane.part.targets) == {"reviews"}
        assert plane.part.unreached == ""

    def test_the_next_tries_come_later_and_later(self):
        """ST-04: 1 s × 1.6 to 120 s, ± 20 %."""
        plane = Plane()
        opened = []
        for _ in range(20):
            plane.end("refused")
            before = plane.bench.clock.now()
            while len(plane.streams) == len(opened) + 1:
                plane.bench.step(0.1)
            opened.append(plane.bench.clock.now() - before)
        assert 0.7 <= opened[0] <= 1.3
        assert opened == pytest.approx(sorted(opened), abs=0.11)
        assert 90.0 <= opened[-1] <= 145.0

    def test_away_later_is_staleness_and_the_last_good_state_serves(self):
        """CA-01, ST-05, ST-08"""
        plane = Plane()
        plane.want("reviews")
        plane.up()
        plane.serve()
        before = plane.part
        plane.end("UNAVAILABLE: gone")
        assert plane.status.state == "ready"
        plane.bench.step(2.0)
        plane.end("UNAVAILABLE: Connection refused")
        assert plane.status.state == "stale"
        assert plane.part.targets == before.targets
        assert plane.part.unreached == "UNAVAILABLE: Connection refused"
        plane.want("late")
        assert plane.part.absent == {}
        plane.bench.step(3.0)
        plane.up()
        first = plane.stream.requests[0]
        assert first[0] == "listener"
        assert sorted(first[1]) == ["late", "reviews"]
        assert first[2:4] == ("1", "")

    def test_a_stream_that_ends_after_an_answer_is_no_error(self):
        """ST-05"""
        plane = Plane()
        plane.want("reviews")
        plane.up()
        plane.serve()
        changes = len(plane.bench.changes)
        plane.end("")
        assert len(plane.bench.changes) == changes
        plane.bench.step(2.0)
        assert len(plane.streams) == 2

    def test_garbage_is_no_answer(self):
        plane = Plane()
        plane.want("reviews")
        plane.up()
        plane.stream.answer(b"\xff\xfe garbage")
        plane.bench.step()
        assert plane.stream.consumptions == 1
        assert plane.status.state == "failed"
        assert plane.status.last_error
        plane.serve()
        assert plane.status.state == "ready"

    def test_garbage_in_a_good_stream_changes_nothing(self):
        plane = Plane()
        plane.want("reviews")
        plane.up()
        plane.serve()
        before = plane.part
        plane.stream.answer(b"\xff\xfe garbage")
        plane.bench.step()
        assert (plane.part.targets, plane.part.clusters) == (before.targets, before.clusters)
        plane.serve()
        assert plane.part.unreached == ""

    def test_what_is_pending_says_who_is_away(self):
        plane = Plane()
        plane.want("reviews")
        assert "reviews" in plane.source.pending("reviews")
        plane.end("UNAVAILABLE: Connection refused")
        assert plane.source.pending("reviews") == (
            "control plane 127.0.0.1:18000 not reachable: UNAVAILABLE: Connection refused"
        )


class TestFork:
    """What a child does with what its parent knew."""

    def left(self):
        parent = Plane()
        parent.want("reviews")
        parent.up()
        parent.serve()
        return parent.part

    def test_the_parents_part_serves_until_the_childs_is_complete(self):
        left = self.left()
        child = Plane(inherited=[left])
        assert child.part is left
        child.want("reviews")
        child.up()
        host = build.virtual_host("reviews", build.route("/", cluster="c1"), domains=["reviews"])
        child.answer("listener", build.api_listener("reviews", build.route_config("reviews", host)))
        assert child.part is left
        child.answer("cluster", build.cluster("c1"))
        assert child.part is left
        child.answer("endpoint", build.endpoints("c1", "10.0.0.2:80"))
        assert child.part is not left
        assert child.bench.addresses("xds", "c1") == ["10.0.0.2:80"]

    def test_it_serves_for_as_long_as_the_control_plane_is_away(self):
        left = self.left()
        child = Plane(inherited=[left])
        child.want("reviews")
        child.end("refused")
        child.bench.step(WARM * 4)
        assert child.part.targets == left.targets
        assert child.status.state == "stale"

    def test_a_name_that_the_parent_did_not_know_is_waited_for_while_the_child_connects(self):
        child = Plane(inherited=[self.left()])
        child.want("ratings")
        assert child.status.state == "stale"
        assert child.part.unreached == ""
        child.up()
        assert child.part.unreached == ""
        child.end("refused")  # but not in an outage
        assert child.part.unreached == "refused"

    def test_so_it_is_after_a_pause(self):
        parent = Plane()
        parent.want("reviews")
        parent.up()
        parent.serve()
        parent.bench.merge.stop()
        parent.bench.start()
        parent.want("ratings")
        assert (parent.part.unreached, parent.part.absent) == ("", {})

    def test_it_is_known_before_the_child_has_all_that_its_parent_had(self):
        left = self.left()
        child = Plane(inherited=[left])
        child.want("reviews")
        child.want("ratings")
        child.up()
        host = build.virtual_host("ratings", build.route("/", cluster="c2"), domains=["ratings"])
        child.answer("listener", build.api_listener("ratings", build.route_config("ratings", host)))
        child.answer("cluster", build.cluster("c2", ["10.0.0.9:80"]))
        assert set(child.part.targets) == {"reviews", "ratings"}
        assert child.part.targets["reviews"] is left.targets["reviews"]
        assert child.bench.addresses("xds", "c2") == ["10.0.0.9:80"]
        assert "c1" in child.part.clusters

    def test_but_not_for_ever_once_the_control_plane_answers(self):
        child = Plane(inherited=[self.left()])
        child.want("reviews", "nosuch")
        child.up()
        child.answer("listener")
        child.bench.step(WARM + 1)
        assert child.part.targets == {}


class TestSidecarView:
    def test_what_is_there_is_published_at_once_and_says_what_it_lacks(self):
        plane = Plane(view="sidecar")
        plane.up()
        plane.answer("listener", build.listener("l", "routes", address="0.0.0.0:80"))
        assert plane.part.listed
        assert plane.part.sidecar[0].http.routes is None
        assert plane.part.lacking == {"*": ""}
        host = build.virtual_host("all", build.route("/", cluster="c1"))
        plane.answer("route", build.route_config("routes", host))
        assert plane.part.lacking == {"*": "", "c1": ""}
        plane.answer("cluster", build.cluster("c1", ["10.0.0.1:80"]))
        assert plane.part.lacking == {}
        assert set(plane.part.clusters) == {"c1"}

    def test_a_cluster_that_is_not_there_is_told_in_the_status_and_once_in_the_log(self, caplog):
        plane = Plane(view="sidecar")
        plane.up()
        host = build.virtual_host("all", build.route("/", cluster="c1"))
        plane.answer(
            "listener", build.listener("l", build.route_config("routes", host), address="0.0.0.0:80")
        )
        plane.answer("cluster")
        plane.answer("cluster", build.cluster("other", ["10.0.0.1:80"]))
        told = "cluster c1 (is not among those that the control plane has)"
        assert plane.status.missing == (told,)
        assert [line for line in caplog.messages if "c1" in line] == [
            f"meshlib: 127.0.0.1:18000: routes name clusters that are not there: {told}"
        ]

    def test_while_the_control_plane_is_away_nothing_that_lacks_is_waited_for(self):
        plane = Plane(view="sidecar")
        plane.up()
        plane.answer("listener", build.listener("l", "routes", address="0.0.0.0:80"))
        plane.end("gone")
        plane.bench.step(2.0)
        plane.end("refused")
        assert plane.part.lacking["*"].endswith("refused")
        assert plane.part.unreached == "refused"


class TestLife:
    def test_stop_ends_the_stream_and_start_opens_another(self):
        plane = Plane()
        plane.want("reviews")
        plane.up()
        plane.serve()
        assert plane.source.streaming
        first = plane.stream
        plane.bench.merge.stop()
        assert first.cancelled
        assert not plane.source.streaming
        first.end("cancelled")
        plane.bench.step(600.0)
        assert len(plane.streams) == 1
        assert plane.status.state == "idle"
        plane.bench.start()
        assert len(plane.streams) == 2
        plane.up()
        assert plane.stream.requests[0][:2] == ("listener", ["reviews"])
        assert set(plane.part.targets) == {"reviews"}

    def test_stop_while_it_waits_for_the_next_try(self):
        plane = Plane()
        plane.end("refused")
        plane.bench.merge.stop()
        plane.bench.step(600.0)
        assert len(plane.streams) == 1


class TestGevent:
    @staticmethod
    def patch(monkeypatch):
        monkey = types.ModuleType("gevent.monkey")
        monkey.is_module_patched = lambda name: name == "threading"
        monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)

    @pytest.fixture
    def patched(self, monkeypatch):
        self.patch(monkeypatch)

    def test_a_stream_is_refused_with_the_remedy(self, patched):
        plane = Plane()
        assert plane.streams == []
        assert plane.bench.merge.refusal == GEVENT
        assert "init_gevent" in plane.status.last_error
        assert plane.status.state == "failed"

    def test_unless_grpc_was_prepared(self, patched, monkeypatch):
        cygrpc = types.ModuleType("cygrpc")
        cygrpc.g_gevent_activated = True
        monkeypatch.setitem(sys.modules, "grpc._cython.cygrpc", cygrpc)
        plane = Plane()
        assert len(plane.streams) == 1
        assert plane.bench.merge.refusal == ""

    def test_where_it_patches_while_a_stream_is_up_no_other_is_opened(self, monkeypatch):
        plane = Plane()
        plane.want("reviews")
        plane.up()
        plane.serve()
        self.patch(monkeypatch)
        plane.want("ratings")
        plane.end()
        plane.bench.step(600.0)
        assert len(plane.streams) == 1
        assert plane.status.state == "stale"
        assert plane.status.last_error == plane.bench.merge.refusal == GEVENT
        assert plane.part.targets["reviews"]
        assert plane.part.unreached == GEVENT  # nobody waits for it

    def test_gevent_without_patched_threads_is_no_matter(self, monkeypatch):
        monkey = types.ModuleType("gevent.monkey")
        monkey.is_module_patched = lambda name: False
        monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
        assert len(Plane().streams) == 1


def test_the_node_keeps_its_metadata_as_it_was_written():
    """BS-07"""
    metadata = {"GENERATOR": "envoy", "LABELS": {"a": [1, 2.5, True, None, "x"]}}
    plane = Plane(bootstrap=Bootstrap((SERVER,), Node("me", metadata=metadata)))
    plane.want("reviews")
    plane.up()
    node = REQUEST.FromString(plane.stream.written[0]).node
    assert schema.to_json(node)["metadata"] == metadata


def test_part_of_another_kind_is_not_ours():
    plane = Plane(inherited=[Part("static")])
    assert "static" not in plane.bench.parts


class TestProtocol:
    """``xds.protocol``: delta first, state of the world where a server has nothing else."""

    @pytest.fixture(autouse=True)
    def nothing_is_known_of_servers(self, monkeypatch):
        monkeypatch.setattr(protocol, "_without_delta", set())

    def first(self, plane):
        """(protocol of the newest stream, names of its first request)."""
        (raw, *_) = plane.stream.written
        if plane.stream.protocol == "delta":
            return "delta", read_delta([raw])[0][1]
        return "sotw", read([raw])[0][1]

    def test_delta_is_asked_first_and_serves(self):
        plane = Plane(protocol="auto")
        plane.want("reviews")
        plane.up()
        assert self.first(plane) == ("delta", ["reviews"])
        host = build.virtual_host("reviews", build.route("/", cluster="c1"), domains=["reviews"])
        for short, resource in [
            ("listener", build.api_listener("reviews", build.route_config("reviews", host))),
            ("cluster", build.cluster("c1")),
            ("endpoint", build.endpoints("c1", "10.0.0.1:80")),
        ]:
            plane.stream.answer(delta_response(short, resource, version="push-1"))
            plane.bench.step()
        assert plane.bench.addresses("xds", "c1") == ["10.0.0.1:80"]
        assert plane.status.state == "ready"
        assert plane.status.versions == {"listener": "push-1", "cluster": "push-1", "endpoint": "push-1"}

    def test_a_server_without_it_is_asked_otherwise_at_once_and_ever_after(self):
        plane = Plane(protocol="auto")
        plane.want("reviews")
        plane.up()
        plane.end("UNIMPLEMENTED: unknown method", unimplemented=True)
        assert len(plane.streams) == 2  # without a wait
        assert plane.status.state == "connecting"
        assert plane.status.last_error == ""
        plane.up()
        assert self.first(plane) == ("sotw", ["reviews"])
        plane.serve()
        assert plane.status.state == "ready"
        plane.end("gone")
        plane.bench.step(2.0)
        assert [stream.protocol for stream in plane.streams] == ["delta", "sotw", "sotw"]
        assert Plane(protocol="auto").stream.protocol == "sotw"  # another mesh of the process
        elsewhere = Bootstrap((Server("127.0.0.1:18001"),), Node("me", "shop"))
        assert Plane(protocol="auto", bootstrap=elsewhere).stream.protocol == "delta"

    def test_what_is_in_force_stays_when_a_server_loses_it(self):
        plane = Plane(protocol="auto")
        plane.want("reviews")
        plane.up()
        host = build.virtual_host("reviews", build.route("/", respond=(204, "")), domains=["reviews"])
        listener = build.api_listener("reviews", build.route_config("reviews", host))
        plane.stream.answer(delta_response("listener", listener))
        plane.bench.step()
        part = plane.part
        assert set(part.targets) == {"reviews"}
        plane.end("gone")
        plane.bench.step(2.0)
        plane.up()
        plane.end("UNIMPLEMENTED", unimplemented=True)
        plane.up()
        assert self.first(plane) == ("sotw", ["reviews"])
        plane.answer("listener", listener)
        assert plane.part.targets == part.targets

    def test_a_stream_that_was_answered_was_there(self):
        plane = Plane(protocol="auto")
        plane.want("reviews")
        plane.up()
        plane.stream.answer(delta_response("listener", removed=["reviews"]))
        plane.bench.step()
        plane.end("UNIMPLEMENTED", unimplemented=True)
        plane.bench.step(2.0)
        assert [stream.protocol for stream in plane.streams] == ["delta", "delta"]

    def test_one_that_is_away_is_no_server_without_it(self):
        plane = Plane(protocol="auto")
        plane.want("reviews")
        plane.end("UNAVAILABLE: nobody there")
        assert plane.status.state == "failed"
        plane.bench.step(2.0)
        assert [stream.protocol for stream in plane.streams] == ["delta", "delta"]

    def test_neither(self):
        plane = Plane(protocol="auto")
        plane.want("reviews")
        for _ in range(2):
            plane.end("UNIMPLEMENTED: unknown service", unimplemented=True)
        assert len(plane.streams) == 2  # the next try waits
        assert plane.status.state == "failed"
        assert "unknown service" in plane.status.last_error

    def test_delta_alone_says_what_to_do_where_there_is_none(self):
        plane = Plane(protocol="delta")
        plane.want("reviews")
        plane.end("UNIMPLEMENTED: unknown method", unimplemented=True)
        assert len(plane.streams) == 1
        assert 'unknown method: the control plane does not have xds.protocol = "delta"; "auto"' in (
            plane.status.last_error
        )
        assert protocol._without_delta == set()

    def test_istios_generator_for_grpc_is_never_asked_for_delta(self):
        node = Node("me", "shop", metadata={"GENERATOR": "grpc"})
        asked = Bootstrap((SERVER,), node)
        assert Plane(protocol="auto", bootstrap=asked).stream.protocol == "sotw"
        assert Plane(protocol="delta", bootstrap=asked).stream.protocol == "delta"  # who says so means it

    @pytest.mark.parametrize("spoken", ["delta", "sotw"])
    def test_dl_12_ex_04_a_server_that_has_nothing_new_to_say_is_there(self, spoken):
        plane = Plane(protocol=spoken)
        plane.want("reviews")
        plane.up()
        listener = build.api_listener("reviews", build.route_config("reviews"))
        made = delta_response if spoken == "delta" else response
        plane.stream.answer(made("listener", listener))
        plane.bench.step()
        plane.end("gone")
        plane.bench.step(2.0)
        plane.end("UNAVAILABLE: not yet")
        assert plane.status.state == "stale"
        plane.bench.step(5.0)
        plane.up()
        assert plane.status.state == "stale"  # it may refuse the stream yet
        plane.bench.step(protocol.SILENT)
        assert plane.status.state == "ready"
        plane.end("gone")
        assert plane.status.state == "ready"  # ST-05

    def test_a_silent_server_of_which_something_is_awaited_is_not(self):
        plane = Plane(protocol="delta")
        plane.want("reviews")
        plane.up()
        plane.bench.step(protocol.SILENT)
        assert plane.status.state == "connecting"


@pytest.mark.parametrize(
    ("code", "details", "lacks"),
    [
        ("UNIMPLEMENTED", "Method not found!", True),
        ("UNKNOWN", "not implemented", True),
        ("UNKNOWN", "it broke", False),
        ("UNAVAILABLE", "not implemented", False),
    ],
)
def test_who_says_that_it_lacks_the_method(code, details, lacks):
    status = types.SimpleNamespace(name=code)
    problem = types.SimpleNamespace(code=lambda: status, details=lambda: details)
    assert protocol.lacks_method(problem) is lacks
    assert not protocol.lacks_method(OSError("not implemented"))
