"""The life of a stream: ST-01 to ST-13, as a server sees it."""

from __future__ import annotations

import pytest

from meshlib.sources.channel import OPTIONS
from meshlib.sources.protocol import SILENT
from meshlib.testing import build
from meshlib.xds.bootstrap import Node
from tests.conformance.support.ads import needs

SECONDS = 0.8  # of a second of backoff: its jitter is at its lowest


class TestOpening:
    def test_one_stream_has_every_type(self, control):
        """ST-01."""
        plane = control("shop")
        plane.connect()
        plane.serve("shop")
        assert {each.type for each in plane.asked()} == {"listener", "route", "cluster", "endpoint"}
        assert len(plane.streams) == 1

    def test_it_stays_while_the_mesh_lives_though_nothing_is_wanted(self, control):
        """ST-01: ours to choose (docs/differences.md): the first call need not wait for a connection."""
        plane = control()
        assert len(plane.streams) == 1
        plane.connect()
        plane.want("shop")
        plane.serve("shop")
        plane.bench.merge.forget("shop")
        plane.bench.step()
        assert not plane.streams[-1].cancelled
        assert len(plane.streams) == 1

    def test_the_node_is_in_each_request(self, control):
        """ST-02, DV-13: the first of each stream, and all others."""
        plane = control("shop", node=Node("me", "shop", metadata={"b": 1, "a": [True]}))
        first = plane.connect()
        assert first[0].node.id == "me"
        assert set(first[0].node.metadata.fields) == {"a", "b"}
        plane.serve("shop")
        assert [each.node for each in plane.asked()] == [first[0].node] * 7
        plane.end("gone")
        plane.advance(SECONDS)
        again = plane.connect()
        assert [each.node for each in again] == [first[0].node] * 4

    def test_the_client_says_what_it_can(self, control):
        """ST-03, DV-09: overprovisioning is done, so that its absence is not announced; no TTL is honoured, so that none is."""
        plane = control("shop")
        [asked] = plane.connect()
        assert list(asked.node.client_features) == ["xds.config.resource-in-sotw"]


class TestEnding:
    def test_tries_come_later_and_later(self, control):
        """ST-04: 1 s, 1.6 times as much each time, 120 s at most."""
        plane = control("shop")
        waits = []
        for count in range(1, 14):
            plane.end("refused")
            waits.append(0.0)
            while len(plane.streams) == count:
                plane.advance(0.1)
                waits[-1] += 0.1
        rule = [min(1.6**each, 120.0) * SECONDS for each in range(13)]
        assert waits == pytest.approx(rule, abs=0.11)

    def test_an_answer_begins_the_tries_anew_and_is_no_reason_for_haste(self, control):
        """ST-04: also where the server ends the stream itself, without an error."""
        plane = control("shop")
        for seconds in (1.0, 1.6, 2.56):
            plane.end("refused")
            plane.advance(seconds * SECONDS)
        plane.connect()
        plane.serve("shop")
        for _ in range(3):
            streams = len(plane.streams)
            plane.end()
            plane.advance(SECONDS - 0.01)
            assert len(plane.streams) == streams
            plane.advance(0.01)
            assert len(plane.streams) == streams + 1
            plane.connect()
            plane.serve("shop")

    def test_a_stream_without_an_answer_is_an_error_and_one_with_an_answer_is_none(self, control):
        """ST-05, ST-11: the error says which server, and why."""
        plane = control("shop")
        plane.connect()
        plane.end("UNAVAILABLE: connection reset")
        assert plane.status.state == "failed"
        assert plane.part.unreached == "UNAVAILABLE: connection reset"
        assert plane.bench.merge.pending("shop").startswith(
            "control plane 127.0.0.1:18000 not reachable: UNAVAILABLE: "
        )
        plane.advance(SECONDS)
        plane.connect()
        plane.serve("shop")
        plane.end("UNAVAILABLE: connection reset")
        assert (plane.status.state, plane.part.unreached, plane.status.last_error) == ("ready", "", "")
        assert plane.target("shop") == "10.0.0.1:80"

    def test_one_that_was_answered_and_ends_before_it_is_answered_again(self, control):
        """ST-05: the second is the error."""
        plane = control("shop")
        plane.connect()
        plane.serve("shop")
        plane.end("gone")
        plane.advance(SECONDS)
        plane.connect()
        plane.end("gone again")
        assert (plane.status.state, plane.status.last_error) == ("stale", "gone again")
        assert plane.target("shop") == "10.0.0.1:80"

    def test_a_stream_that_stands_in_silence_ends_the_error_of_an_earlier_one(self, control):
        """ST-05, ER-09, DL-12: the server has nothing to say that is new."""
        plane = control("shop")
        plane.connect()
        plane.serve("shop")
        plane.end("gone")
        plane.advance(SECONDS)
        plane.connect()
        plane.end("gone again")
        assert (plane.status.state, plane.status.last_error) == ("stale", "gone again")
        plane.advance(1.6 * SECONDS)
        plane.connect()
        plane.advance(SILENT)
        assert (plane.status.state, plane.status.last_error) == ("ready", "")


class TestAnew:
    def test_a_new_stream_asks_for_all_at_once(self, control, protocol):
        """ST-07, ST-08, DL-01, DL-02: with what is held, and without a nonce."""
        plane = control("shop", "cart")
        plane.connect()
        plane.serve("shop", "cart")
        plane.end()
        plane.advance(SECONDS)
        asked = plane.connect()
        assert [each.type for each in asked] == ["listener", "route", "cluster", "endpoint"]
        wanted = [("cart", "shop"), ("r-cart", "r-shop"), ("c-cart", "c-shop"), ("c-cart", "c-shop")]
        assert [each.names for each in asked] == wanted
        assert [each.nonce for each in asked] == [""] * 4
        if protocol == "sotw":
            assert [each.version for each in asked] == ["1", "2", "3", "4"]
        else:
            assert [dict(each.versions) for each in asked] == [
                dict.fromkeys(names, str(number)) for number, names in enumerate(wanted, 1)
            ]

    def test_no_list_is_in_parts(self, control):
        """ST-07: a server would answer a part of it without the rest, and the rest be deleted."""
        names = [f"target-{number}" for number in range(200)]
        plane = control(*names)
        plane.connect()
        plane.serve(*names)
        plane.end()
        plane.advance(SECONDS)
        asked = plane.connect()
        assert [len(each.names) for each in asked] == [200] * 4

    def test_what_is_wanted_meanwhile_is_asked_for_with_the_rest(self, control):
        """ST-09: one request, of the newest."""
        plane = control("a")
        plane.connect()
        plane.serve("a")
        plane.end()
        plane.want("b", "c")
        plane.bench.merge.forget("b")
        plane.advance(SECONDS)
        assert [each.names for each in plane.connect() if each.type == "listener"] == [("a", "c")]

    def test_quick_changes_are_one_request(self, control, protocol):
        """ST-09: what is wanted and given up before anything is written is not heard of."""
        plane = control("a")
        plane.connect()
        plane.serve("a")
        plane.asked()
        plane.streams[
            -1
        ].ears._answering = True  # a response is being dealt with, and nothing is written before its answer
        for name in ("b", "c", "d"):
            plane.want(name)
        plane.bench.merge.forget("c")
        plane.bench.step()
        assert plane.asked() == []
        plane.send("listener", *(needs(name)["listener"] for name in "abd"))
        asked = plane.asked("listener")
        if protocol == "sotw":
            assert [(each.names, each.kind) for each in asked] == [(("a", "b", "d"), "ack")]
        else:
            assert [(each.names, each.kind) for each in asked] == [((), "ack"), (("b", "d"), "names")]


class TestTransport:
    def test_the_next_response_is_read_when_the_last_one_is_in_force(self, control):
        """ST-10: what a server floods with stays in its own buffers."""
        plane = control("shop")
        plane.connect()
        plane.serve("shop")
        stream, seen = plane.streams[-1], []
        stream.consumed = lambda: seen.append((plane.target("shop"), plane.asked()[-1].kind))
        plane.send("endpoint", build.endpoints("c-shop", "10.0.0.2:80"))
        plane.send("endpoint", build.endpoints("c-shop", "10.0.0.3:80"))
        assert seen == [("10.0.0.2:80", "ack"), ("10.0.0.3:80", "ack")]

    def test_the_channel_pings_and_takes_large_responses(self):
        """ST-06, ST-13: every 5 min, 20 s for the answer; what is received may be as large as a mesh."""
        options = dict(OPTIONS)
        assert options["grpc.keepalive_time_ms"] == 5 * 60 * 1000
        assert options["grpc.keepalive_timeout_ms"] == 20 * 1000
        assert options["grpc.max_receive_message_length"] == 512 * 2**20
