"""What is of delta alone: DL-01 to DL-13, as a server sees it."""

from __future__ import annotations

import pytest

from meshlib.testing import build
from tests.conformance.support.ads import Control, needs, routed
from tests.support.xds_kit import WRAPPER, bad, packed

SECONDS = 0.8


@pytest.fixture
def control():
    return lambda *names, **options: Control("delta", *names, **options)


def again(plane):
    """The stream is lost, and another one stands: what it is asked for, by type."""
    plane.end("gone")
    plane.advance(SECONDS)
    return {each.type: each for each in plane.connect()}


class TestAsking:
    def test_the_first_request_of_a_type_has_every_name_and_no_version_that_is_not_held(self, control):
        """DL-01, DL-02: of the very first stream there is none."""
        plane = control("a", "b")
        [asked] = plane.connect()
        assert (asked.names, asked.versions, asked.less) == (("a", "b"), (), ())

    def test_the_versions_of_what_is_held_are_in_the_first_request_only(self, control):
        """DL-02, DL-08: each its own, as it came; a refused update leaves it."""
        plane = control("a", "b")
        plane.connect()
        plane.serve("a", "b")
        plane.send("cluster", bad("c-a"), version="bad")
        plane.send("cluster", build.cluster("c-b", connect_timeout=3), version="own")
        asked = again(plane)
        assert asked["cluster"].versions == (("c-a", "3"), ("c-b", "own"))
        plane.want("c")
        assert [each.versions for each in plane.asked()] == [()]

    def test_what_was_learned_by_a_wildcard_has_its_version_told(self, control):
        """DL-02, DL-12: and a server that sends nothing again makes nothing forgotten."""
        plane = control(view="sidecar")
        plane.connect()
        plane.send("cluster", build.cluster("one"), build.cluster("two"))
        asked = again(plane)
        assert (asked["cluster"].names, asked["cluster"].versions) == ((), (("one", "1"), ("two", "1")))
        plane.send("cluster", version="2")
        plane.advance(60.0)
        assert set(plane.part.clusters) == {"one", "two"}

    def test_answers_have_the_nonce_and_subscriptions_have_none(self, control):
        """DL-03: a message is one or the other."""
        plane = control("a")
        plane.connect()
        nonce = plane.send("listener")
        plane.want("b")
        answer, subscription = plane.asked("listener")
        assert (answer.nonce, answer.names, answer.less) == (nonce, (), ())
        assert (subscription.nonce, subscription.names) == ("", ("b",))

    def test_only_what_is_different_is_said(self, control):
        """DL-04: what is given up and wanted again is subscribed to again, once it was given up."""
        plane = control("a")
        plane.connect()
        plane.serve("a")
        plane.asked()
        plane.want("b")
        assert [(each.names, each.less) for each in plane.asked()] == [(("b",), ())]
        plane.bench.merge.forget("b")
        plane.bench.step()
        assert [(each.names, each.less) for each in plane.asked()] == [((), ("b",))]
        plane.want("b")
        assert [(each.names, each.less) for each in plane.asked()] == [(("b",), ())]

    def test_where_nothing_is_wanted_nothing_is_asked(self, control):
        """DL-10: an empty first request would mean everything."""
        plane = control("a")
        plane.connect()
        plane.serve("a")
        plane.bench.merge.forget("a")
        plane.bench.step()
        assert again(plane) == {}


class TestBeingTold:
    def test_what_a_response_does_not_name_stays(self, control):
        """DL-05: and what was never heard of may be removed."""
        plane = control("a", "b")
        plane.connect()
        plane.serve("a", "b")
        plane.asked()
        plane.send("listener", needs("a")["listener"], removed=["never-heard-of"])
        plane.send("endpoint")
        assert [each.kind for each in plane.asked()] == ["ack", "ack"]
        assert (plane.target("a"), plane.target("b")) == ("10.0.0.1:80", "10.0.0.1:80")

    def test_a_listener_that_is_removed_does_not_exist_at_once(self, control):
        """DL-06: no 15 s are waited for; it stays subscribed, and is used when it comes."""
        plane = control("a")
        plane.connect()
        plane.send("listener", removed=["a"])
        assert plane.target("a") == "absent"
        assert [(each.kind, each.less) for each in plane.asked()] == [("ack", ())]
        plane.serve("a")
        assert plane.target("a") == "10.0.0.1:80"

    def test_what_was_removed_has_no_version_on_the_next_stream(self, control):
        """DL-06."""
        plane = control("a", "b")
        plane.connect()
        plane.serve("a", "b")
        plane.send("listener", removed=["a"])
        assert again(plane)["listener"].versions == (("b", "1"),)

    def test_what_is_sent_and_removed_at_once_is_refused(self, control):
        """DL-07."""
        plane = control("a")
        plane.connect()
        plane.serve("a")
        plane.asked()
        plane.send("endpoint", build.endpoints("c-a", "10.0.0.9:80"), removed=["c-a"])
        [asked] = plane.asked()
        assert asked.error == "endpoint 'c-a': is among the removed resources, too"
        assert plane.target("a") == "10.0.0.1:80"

    def test_without_the_star_what_came_by_it_is_forgotten(self, control):
        """DL-09: a name that is given up under a star stays for as long as the server has it."""
        plane = control("a", view="auto")
        plane.connect()
        plane.serve("a")
        plane.bench.merge.forget("a")
        plane.bench.step()
        assert [each.less for each in plane.asked("listener") if each.less] == [("a",)]
        plane.send("listener", removed=["a"])
        assert again(plane)["listener"].versions == ()

    def test_an_alias_that_leads_nowhere_is_nothing(self, control):
        """DL-11: it is acknowledged; what has an alias that is wanted is taken for that."""
        plane = control("a")
        plane.connect()
        plane.serve("a")
        plane.asked()
        plane.send("endpoint", WRAPPER(name="other", aliases=["c-a"]))
        assert [each.kind for each in plane.asked()] == ["ack"]
        assert plane.target("a") == "10.0.0.1:80"
        made = build.endpoints("other", "10.0.0.3:80")
        plane.send("endpoint", WRAPPER(name="other", aliases=["c-a"], version="9", resource=packed(made)))
        assert plane.target("a") == "10.0.0.3:80"

    def test_a_server_that_is_silent_about_a_name(self, control):
        """DL-13: has 15 s, as by state of the world."""
        plane = control("a")
        plane.connect()
        plane.advance(14.9)
        assert plane.target("a") == ""
        plane.advance(0.2)
        assert plane.target("a") == ""  # it has not answered at all
        plane.send("listener")
        plane.want("b")
        plane.advance(15.1)
        assert plane.target("b") == "absent"

    def test_what_others_name_is_waited_for_though_it_is_said_to_be_gone(self, control):
        """DL-06, CA-08: whoever names it may be ahead of it."""
        plane = control("a")
        plane.connect()
        plane.send("listener", needs("a")["listener"])
        plane.send("route", routed("a", "c"))
        plane.send("cluster", removed=["c"])
        plane.send("cluster", build.cluster("c"))
        plane.send("endpoint", build.endpoints("c", "10.0.0.8:80"))
        assert plane.target("a") == "10.0.0.8:80"
