"""ACK and NACK: SW-01 to SW-20, and what delta has of the same (DL-03, DL-07, DL-08, DL-14), as a server sees it."""

from __future__ import annotations

import pytest

from meshlib.testing import build
from meshlib.xds import schema
from tests.conformance.support.ads import Control, needs, routed
from tests.support.xds_kit import DELTA_RESPONSE, RESPONSE, WRAPPER, bad, packed

INVALID_ARGUMENT = 3
SECONDS = 0.8


def first(name="c-shop", port=80):
    return build.endpoints(name, f"10.0.0.1:{port}")


@pytest.fixture
def serving(control):
    """A control plane that serves the target ``shop``, whose client has answered everything."""
    plane = control("shop")
    plane.connect()
    plane.serve("shop")
    plane.asked()
    return plane


class TestEach:
    def test_each_response_is_answered_once_with_its_nonce(self, control):
        """SW-01, SW-02, DL-03."""
        plane = control("shop")
        plane.connect()
        plane.serve("shop")
        answers = [each for each in plane.asked() if each.kind == "ack"]
        last = {each.type: each.nonce for each in answers}
        assert last == {"listener": "n1", "route": "n2", "cluster": "n3", "endpoint": "n4"}
        assert len({each.nonce for each in answers}) == 4

    def test_also_where_nothing_of_its_type_is_wanted_any_more(self, serving):
        """SW-01, SW-07: and the nonce counts when something is wanted again."""
        serving.bench.merge.forget("shop")
        serving.bench.step()
        serving.asked()
        nonce = serving.send("endpoint", first())
        assert [each.nonce for each in serving.asked("endpoint")] == [nonce]
        assert serving.part.clusters == {}
        serving.want("shop")
        serving.serve("shop")
        begun = next(each for each in serving.asked("endpoint") if each.names)
        assert begun.nonce == (nonce if serving.protocol == "sotw" else "")

    def test_an_ack_has_the_responses_version(self, serving):
        """SW-02: also where it is older than the last one, or the same (SW-19)."""
        for version in ("9", "2", "2", "b", ""):
            nonce = serving.send("endpoint", first(port=len(serving.sent)), version=version)
            [asked] = serving.asked("endpoint")
            assert (asked.kind, asked.nonce) == ("ack", nonce)
            assert asked.version == (version if serving.protocol == "sotw" else "")
            assert serving.target("shop") == f"10.0.0.1:{len(serving.sent) - 1}"

    def test_a_nack_says_what_is_wrong_under_the_last_good_version(self, serving):
        """SW-02, SW-04, DL-08: its nonce is the response's."""
        nonce = serving.send("cluster", bad("c-shop"))
        [asked] = serving.asked("cluster")
        assert (asked.kind, asked.nonce, asked.code) == ("nack", nonce, INVALID_ARGUMENT)
        assert asked.version == ("3" if serving.protocol == "sotw" else "")
        assert serving.target("shop") == "10.0.0.1:80"

    def test_a_first_response_that_is_bad_has_no_version(self, control):
        """SW-02."""
        plane = control("shop")
        plane.connect()
        plane.send("listener", build.api_listener("shop", "r", manager={"http_filters": []}))
        [asked] = plane.asked("listener")
        assert (asked.kind, asked.version) == ("nack", "")

    def test_what_is_good_in_part_is_refused_and_the_version_stays(self, control):
        """SW-03, DV-01, ER-01: the good part is in force."""
        plane = control("a", "b")
        plane.connect()
        plane.serve("a", "b")
        plane.asked()
        plane.send(
            "endpoint", first("c-a", 81), build.endpoints("c-b", build.locality("10.0.0.1:1", priority=3))
        )
        [asked] = plane.asked()
        assert (asked.kind, asked.version) == ("nack", "4" if plane.protocol == "sotw" else "")
        assert (plane.target("a"), plane.target("b")) == ("10.0.0.1:81", "10.0.0.1:80")
        assert plane.status.versions["endpoint"] == "4"

    def test_types_are_apart(self, serving):
        """SW-04: a refused listener does nothing to clusters and endpoints."""
        serving.send("listener", build.api_listener("shop", "r", manager={"http_filters": []}))
        nonce = serving.send("endpoint", first(port=81))
        refused, taken = serving.asked()
        assert (refused.type, refused.kind) == ("listener", "nack")
        assert (taken.type, taken.kind, taken.nonce) == ("endpoint", "ack", nonce)
        assert serving.target("shop") == "10.0.0.1:81"

    def test_a_request_for_more_has_the_newest_nonce_of_state_of_the_world(self, serving):
        """SW-05, CP-03, DL-03: also a refused response's; by delta it has none."""
        serving.send("listener", build.api_listener("shop", "r", manager={"http_filters": []}))
        serving.asked()
        serving.want("cart")
        [asked] = serving.asked("listener")
        if serving.protocol == "sotw":
            assert (asked.names, asked.nonce, asked.version) == (("cart", "shop"), "n5", "1")
        else:
            assert (asked.names, asked.nonce) == (("cart",), "")
        assert asked.error == ""  # SW-06: it was said

    def test_a_refusal_names_every_resource_with_everything_that_is_wrong(self, control):
        """SW-06."""
        plane = control("a", "b")
        plane.connect()
        wrong = [
            build.cluster(name, outlier_detection={"interval": "0s"}, connect_timeout="0s")
            for name in ("c-a", "c-b")
        ]
        plane.serve("a", "b")
        plane.asked()
        plane.send("cluster", *wrong)
        [asked] = plane.asked("cluster")
        lines = asked.error.splitlines()
        assert [line.partition(":")[0] for line in lines] == ["cluster 'c-a'", "cluster 'c-b'"]
        assert all("outlier_detection.interval" in line and "connect_timeout" in line for line in lines)


class TestStrangers:
    def test_a_type_that_was_not_asked_for_is_not_answered(self, protocol):
        """SW-08: one that is unknown, and one that is known."""
        plane = Control(protocol, "shop")
        plane.connect()
        plane.send("endpoint", first())
        made = DELTA_RESPONSE if plane.protocol == "delta" else RESPONSE
        plane.raw(made(type_url="type.googleapis.com/no.Such", nonce="x").SerializeToString())
        assert plane.asked() == []
        assert not plane.streams[-1].cancelled
        plane.serve("shop")
        assert plane.target("shop") == "10.0.0.1:80"

    def test_a_resource_of_another_type_is_refused(self, serving):
        """SW-09, DL-14."""
        serving.send(
            "endpoint",
            ("c-shop", build.cluster("c-shop")) if serving.protocol == "delta" else build.cluster("c"),
        )
        [asked] = serving.asked("endpoint")
        assert asked.kind == "nack"
        assert "envoy.config.cluster.v3.Cluster" in asked.error
        assert serving.target("shop") == "10.0.0.1:80"

    def test_the_wrappers_name_wins(self, serving):
        """SW-10."""
        inner = build.endpoints("another", "10.0.0.7:80")
        wrapped = WRAPPER(name="c-shop", version="1", resource=packed(inner))
        serving.send("endpoint", wrapped if serving.protocol == "delta" else schema.pack(wrapped))
        assert serving.target("shop") == "10.0.0.7:80"

    def test_a_wrapper_with_nothing_in_it_is_refused(self, serving):
        """SW-10."""
        empty = WRAPPER(name="c-shop", version="1")
        serving.send("endpoint", empty if serving.protocol == "delta" else schema.pack(empty))
        [asked] = serving.asked("endpoint")
        assert "missing" in asked.error
        assert serving.target("shop") == "10.0.0.1:80"

    def test_a_name_that_is_twice_is_refused_and_none_of_them_applies(self, control):
        """SW-11, DL-07, DV-10: the others do."""
        plane = control("a", "b")
        plane.connect()
        plane.serve("a", "b")
        plane.asked()
        plane.send("endpoint", first("c-a", 81), first("c-b", 81), first("c-a", 82))
        [asked] = plane.asked("endpoint")
        assert asked.error == "endpoint 'c-a': is in the response more than once"
        assert (plane.target("a"), plane.target("b")) == ("10.0.0.1:80", "10.0.0.1:81")

    def test_what_nobody_asked_for_is_checked_and_dropped(self, serving):
        """SW-12, CP-01."""
        serving.send("endpoint", first(port=81), first("stranger"))
        assert serving.asked("endpoint")[0].kind == "ack"
        serving.send(
            "endpoint", first(port=82), build.endpoints("stranger", build.locality("10.0.0.1:1", priority=3))
        )
        [asked] = serving.asked("endpoint")
        assert "'stranger'" in asked.error
        assert serving.target("shop") == "10.0.0.1:82"
        assert serving.status.resources["endpoint"] == 1

    def test_what_is_as_it_was_changes_nothing(self, serving):
        """SW-13: it is acknowledged, and nothing is published; not even the objects are others."""
        before = serving.part
        published = len(serving.bench.published)
        for short, resource in needs("shop").items():
            serving.send(short, resource)
        assert [each.kind for each in serving.asked()] == ["ack"] * 4
        assert serving.part is before
        assert len(serving.bench.published) == published

    def test_bytes_that_are_no_response_are_not_answered(self, control):
        """SW-20: and do not count as an answer, should the stream end then (ST-05)."""
        plane = control("shop")
        plane.connect()
        plane.raw(b"\xff\xff\xff")
        assert plane.asked() == []
        plane.end("gone")
        assert (plane.status.state, plane.status.last_error) == ("failed", "gone")


class TestNames:
    def test_what_is_missing_of_listeners_and_clusters_is_deleted(self, control):
        """SW-14, ER-03; by delta it has to be said (DL-05)."""
        plane = control("a", "b")
        plane.connect()
        plane.serve("a", "b")
        plane.delete("listener", "b", needs("a")["listener"])
        assert (plane.target("a"), plane.target("b")) == ("10.0.0.1:80", "absent")
        plane.delete("cluster", "c-a")
        plane.advance(2.0)
        assert plane.target("a") == "was deleted by the server"

    def test_what_is_missing_of_routes_and_endpoints_is_nothing(self, serving):
        """SW-14: an empty response is acknowledged, and does nothing."""
        for short in ("route", "endpoint"):
            nonce = serving.send(short)
            [asked] = serving.asked(short)
            assert (asked.kind, asked.nonce) == ("ack", nonce)
        assert serving.target("shop") == "10.0.0.1:80"

    def test_what_never_came_is_not_deleted(self, control):
        """SW-15: a response may be an answer to the request before."""
        plane = control("a", "b")
        plane.connect()
        plane.send("listener", needs("a")["listener"])
        assert plane.target("b") == ""
        plane.advance(14.9)
        assert plane.target("b") == ""

    def test_nothing_begins_with_an_empty_list_but_everything(self, control):
        """SW-16: no request is empty, but where the last name goes."""
        plane = control("shop")
        empty = [each for each in plane.connect() if not each.names]
        for name in ("listener", "route", "cluster", "endpoint"):
            plane.send(name, needs("shop")[name])
            empty += [each for each in plane.asked() if not each.names and each.kind == "names"]
        assert empty == []
        plane.bench.merge.forget("shop")
        plane.bench.step()
        gone = plane.asked()
        assert [each.type for each in gone] == ["listener", "route", "cluster", "endpoint"]
        assert all(each.names == () for each in gone)
        if plane.protocol == "delta":
            assert [each.less for each in gone] == [("shop",), ("r-shop",), ("c-shop",), ("c-shop",)]

    def test_everything_there_is(self, control):
        """SW-17, CP-05: listeners for an Envoy and clusters by an empty list; beside names by a star."""
        plane = control(view="auto")
        assert [(each.type, each.names) for each in plane.connect()] == [("listener", ()), ("cluster", ())]
        host = build.virtual_host("v", build.route(cluster="c"), domains=["*"])
        plane.send("listener", build.listener("l", build.route_config("r", host), address="10.1.0.1:80"))
        plane.send("cluster", build.cluster("c"))
        plane.send("endpoint", build.endpoints("c", "10.0.0.5:80"))
        assert [each.name for each in plane.part.sidecar] == ["l"]
        assert plane.cluster("c") == "10.0.0.5:80"
        plane.asked()
        plane.want("shop")
        [asked] = plane.asked("listener")
        assert asked.names == ("*", "shop")
        plane.bench.merge.forget("shop")
        plane.bench.step()
        [asked] = plane.asked("listener")
        assert (asked.names, asked.less) == ((("*",), ()) if plane.protocol == "sotw" else ((), ("shop",)))

    def test_two_that_want_one_name_are_one_subscription(self, control):
        """SW-18: two targets with one cluster."""
        plane = control("a", "b")
        plane.connect()
        plane.send("listener", needs("a")["listener"], needs("b")["listener"])
        plane.send("route", routed("a", "one"), routed("b", "one"))
        plane.send("cluster", build.cluster("one"))
        plane.send("endpoint", first("one"))
        assert [each.names for each in plane.asked("endpoint") if each.kind == "names"] == [("one",)]
        plane.bench.merge.forget("a")
        plane.bench.step()
        assert plane.target("b") == "10.0.0.1:80"
        assert plane.asked("endpoint") == []

    def test_who_wants_what_is_known_has_it_at_once(self, control):
        """SW-18: without a request."""
        plane = control("a", "b")
        plane.connect()
        plane.serve("a")
        plane.asked()
        plane.send("listener", needs("a")["listener"], needs("b")["listener"])
        plane.asked()
        plane.send("route", routed("b", "c-a"))
        assert plane.target("b") == "10.0.0.1:80"
        assert [each.type for each in plane.asked()] == ["route"]


class TestRepeated:
    def test_a_server_that_answers_each_nack_with_the_same_is_answered_ever_later(self, serving):
        """CP-07: a minute of it is a handful of messages."""
        count, begun = 0, serving.bench.clock.now()
        while serving.bench.clock.now() < begun + 60.0:
            serving.send("cluster", bad("c-shop"))
            while not serving.asked("cluster"):
                serving.advance(0.01)
            count += 1
        assert count < 20
        assert serving.target("shop") == "10.0.0.1:80"

    def test_so_is_one_that_answers_each_ack_with_what_was_sent(self, serving):
        """CP-07: each is answered; what is new is, at once."""
        count, begun = 0, serving.bench.clock.now()
        while serving.bench.clock.now() < begun + 60.0:
            nonce = serving.send("endpoint", first(), version="4")
            while not (asked := serving.asked("endpoint")):
                serving.advance(0.01)
            assert [(each.kind, each.nonce) for each in asked] == [("ack", nonce)]
            count += 1
        assert count < 20
        nonce = serving.send("endpoint", first(port=81), version="5")
        assert [each.nonce for each in serving.asked("endpoint")] == [nonce]
        assert serving.target("shop") == "10.0.0.1:81"

    def test_what_falls_due_while_a_response_is_dealt_with_is_sent_after_it(self, serving, monkeypatch):
        """CP-07: nothing can be written before that; the worker does not spin over the timer until then."""
        serving.send("endpoint", first(), version="4")
        assert serving.asked("endpoint") == [], "what was answered already is held back"
        stream, bench = serving.streams[-1], serving.bench
        say = stream.answer

        def late(raw):
            say(raw)
            bench.worker.post(lambda: bench.clock.advance(60.0))  # comes before the answer

        monkeypatch.setattr(stream, "answer", late)
        monkeypatch.setattr(bench, "step", bench.worker.run_due)
        nonce = serving.send("endpoint", first(), version="4")
        assert [(each.kind, each.nonce) for each in serving.asked("endpoint")] == [("ack", nonce)]

    def test_pushes_of_the_same_by_another_version_are_answered_at_once(self, serving):
        """A server whose versions count its pushes waits for the answer to each."""
        for _ in range(50):
            nonce = serving.send("endpoint", first())
            assert [each.nonce for each in serving.asked("endpoint")] == [nonce]

    def test_a_server_that_ends_streams_by_age_is_no_trouble(self, serving):
        """CP-06, CP-07: each minute, for an hour: each stream replays what there is, also by older versions; nothing grows or fails."""
        for _ in range(60):
            serving.advance(60.0)
            serving.end("max age")
            assert (serving.status.state, serving.status.last_error) == ("ready", "")
            serving.advance(SECONDS)
            assert [each.names for each in serving.connect()] == [
                ("shop",),
                ("r-shop",),
                ("c-shop",),
                ("c-shop",),
            ]
            for short, resource in needs("shop").items():
                serving.send(short, resource, version="0")
            assert [each.kind for each in serving.asked()] == ["ack"] * 4
            assert serving.target("shop") == "10.0.0.1:80"
        assert sum(serving.status.resources.values()) == 4

    def test_a_server_that_looks_at_versions_only_is_told_by_them(self, serving):
        """CP-07, DV-01: what it sees of a NACK is the version before."""
        serving.send(
            "endpoint", build.endpoints("c-shop", build.locality("10.0.0.1:1", priority=3)), version="bad"
        )
        [asked] = serving.asked("endpoint")
        assert asked.version == ("4" if serving.protocol == "sotw" else "")
