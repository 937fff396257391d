"""What is polled when, and what becomes of the answers: the same by REST and by unary calls of gRPC."""

from __future__ import annotations

import json
from functools import partial
from typing import ClassVar

import grpc
import pytest

from meshlib.model.snapshot import Part
from meshlib.sources.fetch import FetchWire
from meshlib.sources.last_good import SETTLE
from meshlib.sources.polling import TIMEOUT, PollError
from meshlib.sources.rest import RestWire
from meshlib.testing import ControlPlane, build
from meshlib.testing.polls import PollRefused
from meshlib.xds import schema
from meshlib.xds.bootstrap import Server
from meshlib.xds.discovery import REQUEST, RESPONSE
from tests.support.polling_kit import REFRESH, SOONEST, FetchServer, Noted, Plane, Polled
from tests.support.raw_server import RawServer

NOTHING = Part("xds")


@pytest.fixture(params=["rest", "fetch"])
def polled(request):
    control = ControlPlane()
    if request.param == "rest":
        with control.rest() as server:
            made = Polled("rest", control, server.url, server.address)
            control.set(*made.resources().values())
            yield made
    else:
        with control:
            made = Polled("fetch", control, control.address, control.address)
            control.set(*made.resources().values())
            yield made


class OverRest:
    """A server that gives each poll the same answer: "empty", "garbage" (no DiscoveryResponse) or "nothing", which does not end."""

    asked = "/v3/discovery:listeners"
    wire = RestWire
    answers: ClassVar = {
        "empty": b'HTTP/1.1 200 X\r\nContent-Length: 20\r\n\r\n{"version_info":"1"}',
        "garbage": b"HTTP/1.1 200 X\r\nContent-Length: 1\r\n\r\n{",
        "nothing": b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{",
    }

    def __init__(self, answer):
        self.server = RawServer(answer=self.answers[answer])
        self.address = self.server.address

    def plane(self):
        return Plane(f"http://{self.address}", protocol="rest")

    def answer(self, name):
        self.server.answer = self.answers[name]

    @property
    def requests(self):
        return [schema.from_json(REQUEST, json.loads(body)) for body in self.server.bodies]


class OverFetch:
    """The same by gRPC."""

    asked = "/envoy.service.listener.v3.ListenerDiscoveryService/FetchListeners"
    wire = staticmethod(partial(FetchWire, api="v3", ours=""))
    answers: ClassVar = {
        "empty": schema.message(RESPONSE)(version_info="1").SerializeToString(),
        "garbage": b"\xff",
        "nothing": None,
    }

    def __init__(self, answer):
        self.server = FetchServer(self.answers[answer])
        self.server.start()
        self.server.kill()  # until the test begins it
        self.address = self.server.address

    def plane(self):
        return Plane(self.address, protocol="fetch")

    def answer(self, name):
        self.server.answer = self.answers[name]

    @property
    def requests(self):
        return [schema.message(REQUEST).FromString(body) for body in self.server.bodies]


@pytest.fixture(params=[OverRest, OverFetch])
def scripted(request):
    return request.param


class TestPolls:
    def test_each_type_is_asked_for_by_name_and_what_comes_serves(self, polled):
        with polled.plane() as plane:
            plane.ready()
            assert plane.addresses("xds", "reviews") == ["127.0.0.1:1001"]
            assert plane.xds.state == "ready"
            assert plane.xds.server == polled.address
            asked = {each.kind: each for each in polled.control.requests}
            assert {kind: each.names for kind, each in asked.items()} == {
                "listener": ("reviews",),
                "route": ("r-reviews",),
                "cluster": ("reviews",),
                "endpoint": ("reviews",),
            }
            assert all(each.node.id == "me" for each in polled.control.requests)

    def test_the_sidecar_view_asks_for_everything(self, polled):
        host = build.virtual_host("v", build.route("/", cluster="reviews"), domains=["*"])
        polled.control.update(build.listener("in", build.route_config("r", host), address="127.0.0.1:1"))
        with polled.plane("sidecar") as plane:
            plane.until(lambda: plane.parts.get("xds", NOTHING).sidecar)
            assert [each.name for each in plane.parts["xds"].sidecar] == ["in"]

    def test_both_views(self, polled):
        with polled.plane("auto") as plane:
            plane.ready()
            assert {each.names for each in polled.control.requests if each.kind == "listener"} == {
                (),
                ("reviews",),
            }

    def test_nothing_is_asked_before_the_refresh_is_over(self, polled):
        with polled.plane() as plane:
            plane.ready()
            before = polled.control.seen
            plane.step(SOONEST - 1)
            assert polled.control.seen == before
            plane.step(1)
            plane.asked(polled.control, "endpoint", before)

    def test_the_next_poll_says_what_was_accepted_and_304_changes_nothing(self, polled):
        with polled.plane() as plane:
            plane.ready()
            before = polled.control.seen
            plane.step(SOONEST)
            asked = plane.asked(polled.control, "listener", before)
            assert asked.version == polled.control.version("listener")
            assert asked.error is None
            plane.asked(polled.control, "endpoint", before)
            part = plane.parts["xds"]
            plane.in_state("ready")
            assert plane.parts["xds"] is part

    def test_a_change_comes_with_the_next_poll(self, polled):
        with polled.plane() as plane:
            plane.ready()
            polled.control.update(build.endpoints("reviews", "127.0.0.1:1002"))
            plane.step(SOONEST)
            plane.until(lambda: plane.addresses("xds", "reviews") == ["127.0.0.1:1002"])

    def test_another_name_is_asked_for_at_once_and_without_a_version(self, polled):
        """A server that compares versions alone would have nothing new for it."""
        polled.control.update(*polled.resources("ratings").values())
        with polled.plane() as plane:
            plane.ready()
            before = polled.control.seen
            plane.ready("ratings")
            asked = plane.asked(polled.control, "listener", before)
            assert (asked.names, asked.version) == (("ratings", "reviews"), "")

    def test_many_names_at_once_are_few_polls(self, polled):
        names = [f"s{number}" for number in range(50)]
        with polled.plane() as plane:
            plane.want(*names)
            plane.asked(polled.control, "listener", 0, lambda each: len(each.names) == 50)
            assert len(polled.control.requests) <= 3

    def test_who_gives_up_every_name_does_not_ask_for_everything(self, polled):
        with polled.plane() as plane:
            plane.ready()
            before = polled.control.seen
            plane.merge.forget("reviews")
            plane.step(4 * REFRESH)
            plane.want("ratings")
            plane.asked(polled.control, "listener", before)
            assert all(each.names for each in polled.control.requests)

    def test_a_resource_that_is_wrong_is_refused_in_the_next_poll(self, polled):
        with polled.plane() as plane:
            plane.ready()
            before = polled.control.seen
            polled.control.update({**polled.resources()["cluster"], "lb_policy": "CLUSTER_PROVIDED"})
            plane.step(SOONEST)
            plane.until(lambda: plane.xds.rejected)
            plane.step(SOONEST)
            asked = plane.asked(polled.control, "cluster", before, lambda each: each.is_nack)
            assert "reviews" in asked.error
            assert asked.version == ""
            assert plane.addresses("xds", "reviews") == ["127.0.0.1:1001"]

    def test_a_server_that_takes_back_what_was_refused(self, polled):
        """Its version is the one in force again, so that 304 would leave the refusal standing."""
        with polled.plane() as plane:
            plane.ready()
            before = polled.control.version("cluster")
            polled.control.update({**polled.resources()["cluster"], "lb_policy": "CLUSTER_PROVIDED"})
            plane.step(SOONEST)
            plane.until(lambda: plane.xds.rejected)
            polled.control.update(polled.resources()["cluster"], version=before)
            plane.step(SOONEST)
            plane.until(lambda: not plane.xds.rejected)

    def test_a_file_that_a_resource_names_is_not_read(self, polled, tmp_path):
        path = tmp_path / "eds.yaml"
        path.write_text("resources: []")
        source = {"path_config_source": {"path": str(path)}}
        polled.control.update(build.cluster("reviews", eds_cluster_config={"eds_config": source}))
        with polled.plane() as plane:
            plane.want("reviews")
            plane.until(lambda: plane.xds.rejected)
            (refused,) = plane.xds.rejected
            assert "path_config_source" in refused.problems[0]


class TestTrouble:
    def test_pauses_after_failures_grow(self, polled):
        """With the least that chance gives there is a floor; its bound doubles up to a minute."""
        with polled.plane() as plane:
            plane.random = lambda: 0.99
            source = plane.merge.sources[0]
            source._open_stream.keywords["random"] = plane.random
            polled.control.refuse()
            plane.want("reviews")
            plane.lost()
            for bound in (1, 2, 4, 8, 16, 32, 60, 60):
                seen = polled.control.seen
                plane.step(bound * 0.9)
                assert polled.control.seen == seen
                plane.step(bound * 0.1)
                plane.asked(polled.control, "listener", seen)
                plane.until(lambda: source._servers[0].stream._types and not source._servers[0].stream._busy)
            polled.control.accept()
            plane.step(60.0)
            plane.ready()

    def test_names_that_are_wanted_in_an_outage_wait_for_its_pause(self, polled):
        with polled.plane() as plane:
            plane.ready()
            polled.control.refuse()
            plane.step(SOONEST)
            plane.in_state("stale")
            stream = plane.merge.sources[0]._servers[0].stream
            plane.until(lambda: not stream._busy and not stream._due)  # the polls of all types have failed
            seen = polled.control.seen
            plane.want(*(f"s{number}" for number in range(20)))
            assert polled.control.seen == seen

    def test_one_type_that_cannot_be_had_is_an_outage_though_the_others_come(self, polled, monkeypatch):
        """Else its state would flap with each poll."""
        polls = polled.control._polls
        answer = polls.answer

        def without_endpoints(protocol, url, request, raw):
            if url == schema.ENDPOINT:
                raise PollRefused(grpc.StatusCode.INTERNAL, "no")
            return answer(protocol, url, request, raw)

        monkeypatch.setattr(polls, "answer", without_endpoints)
        with polled.plane() as plane:
            plane.want("reviews")
            name = "discovery:endpoints" if polled.protocol == "rest" else "/FetchEndpoints: INTERNAL: no"
            plane.until(lambda: name in plane.xds.last_error)
            plane.changes.clear()
            polled.control.update({**polled.resources()["cluster"], "connect_timeout": "3s"})
            plane.step(SOONEST)
            plane.until(lambda: plane.xds.versions["cluster"] == polled.control.version("cluster"))
            assert plane.xds.state == "stale"
            assert [state for _, state, _ in plane.changes if state == "ready"] == []

    def test_nobody_listens(self, scripted):
        server = scripted("empty")
        with server.server:
            pass
        with server.plane() as plane:
            plane.want("reviews")
            plane.lost()
            assert f"cannot connect to {server.address}: " in plane.xds.last_error
            assert "Connection refused" in plane.xds.last_error
            assert plane.parts["xds"].unreached

    def test_a_body_that_is_none_is_refused_with_the_next_poll(self, scripted):
        server = scripted("empty")
        with server.server, server.plane() as plane:
            plane.want("reviews")
            plane.until(lambda: plane.xds.versions)
            server.answer("garbage")
            plane.step(SOONEST)
            plane.in_state("stale")
            assert f"{server.asked}: the answer is no DiscoveryResponse: " in plane.xds.last_error
            server.answer("empty")
            seen = len(server.server.bodies)
            plane.step(1.0)  # enough for the pause, and less than a poll may take
            plane.in_state("ready")
            assert plane.xds.last_error == ""
            refused = server.requests[seen]
            assert (refused.error_detail.code, refused.version_info) == (3, "1")  # INVALID_ARGUMENT
            assert "is no DiscoveryResponse" in refused.error_detail.message

    def test_an_answer_that_does_not_end_is_given_up(self, scripted):
        """What bounds the poll is its own time, and not the pauses of a connection that is alive."""
        server = scripted("nothing")
        with server.server, server.plane() as plane:
            server.server.bodies = Noted(plane.posted)
            plane.want("reviews")
            plane.until(lambda: server.server.bodies)
            plane.step(TIMEOUT)
            plane.lost()
            assert f"{server.asked}: no whole answer within {TIMEOUT:g} s" in plane.xds.last_error
            server.answer("empty")
            plane.step(1.0)  # as above
            plane.in_state("ready")

    def test_it_ends_while_an_answer_is_awaited(self, scripted):
        server = scripted("nothing")
        with server.server, server.plane() as plane:
            server.server.bodies = Noted(plane.posted)
            plane.want("reviews")
            plane.until(lambda: server.server.bodies)
            stream = plane.merge.sources[0]._servers[0].stream
            plane.merge.stop()
            stream._thread.join(5)  # less than a poll may take, and before the server ends it
            assert not stream._thread.is_alive()


@pytest.mark.parametrize("connected", [True, False])
def test_a_wire_that_was_ended_asks_nothing_any_more(scripted, connected):
    """Also where a poll was just about to begin: a fork, or the end of a mesh, would wait for it."""
    server = scripted("empty")
    with server.server:
        wire = server.wire(Server(server.address))
        if connected:
            wire.connect()
        wire.end()
        with pytest.raises(PollError):
            wire.ask(schema.LISTENER, b"")
        wire.close()
        assert not server.server.bodies


def test_the_last_good_state_of_a_server_that_is_away(polled, tmp_path):
    kept = str(tmp_path / "kept" / "state.bin")
    with polled.plane(last_good=kept) as plane:
        plane.ready()
        plane.step(SETTLE)
        plane.until(lambda: plane.status("last_good").state == "ready")
    polled.control.refuse()
    with polled.plane(last_good=kept) as again:
        again.step()
        assert again.addresses("xds", "reviews") == ["127.0.0.1:1001"]
        assert again.status("last_good").state == "stale"
        again.until(lambda: again.xds.state == "stale" and again.xds.last_error)
        assert again.addresses("xds", "reviews") == ["127.0.0.1:1001"]
