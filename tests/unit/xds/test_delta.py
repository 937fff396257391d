"""The incremental stream's machine against a scripted server, by the ids of the checklist."""

from __future__ import annotations

import pytest

from meshlib.testing import build
from meshlib.xds import schema
from meshlib.xds.ads import AdsMachine
from meshlib.xds.cache import State
from meshlib.xds.decode import TYPES
from meshlib.xds.delta import DeltaMachine
from meshlib.xds.machine import EXISTENCE_TIMEOUT
from meshlib.xds.values import Interest, ServerFeatures
from tests.support.xds_kit import (
    DELTA_REQUEST,
    DELTA_RESPONSE,
    ERROR,
    NODE,
    STATUS,
    WILD,
    WRAPPER,
    bad,
    delta_response,
    names,
    opened,
    packed,
    read_delta,
    response,
)

NAME = schema.message("envoy.service.discovery.v3.ResourceName")

A = build.endpoints("a", "10.0.0.1:80")
A2 = build.endpoints("a", "10.0.0.2:80")
B = build.endpoints("b", "10.0.0.1:80")


def machine(**features):
    return DeltaMachine(NODE, TYPES, lambda: 0.5, ServerFeatures(**features))


def asked(ads, now=0.0):
    """(subscribed, unsubscribed) of each request that is no acknowledgement."""
    return [(more, less) for _, more, less, _, nonce, _ in read_delta(ads.outgoing(now)) if not nonce]


class TestSubscriptions:
    def test_dl_02_what_came_without_a_version_is_named_under_a_wildcard(self):
        # Istio gives single resources none; of what is not named it would not say that it is gone.
        ads = machine()
        opened(ads, cluster=WILD, endpoint=names("a"))
        ads.received(delta_response("cluster", build.cluster("c"), version=""), 0)
        ads.received(delta_response("endpoint", A, version=""), 0)
        ads.outgoing(0)
        ads.closed(1)
        assert [each[3] for each in opened(ads, 2)] == [{"c": ""}, {}]
        ads.received(delta_response("cluster", removed=["c"]), 3)
        assert ads.cache.value("cluster", "c") is None

    def test_dl_01_st_02_the_first_request_lists_all_and_each_brings_the_node(self):
        ads = machine()
        ads.set_interest("cluster", names("c"))
        ads.set_interest("endpoint", names("b", "a"))
        ads.opened(0)
        raw = ads.outgoing(0)
        assert read_delta(raw) == [
            ("cluster", ["c"], [], {}, "", ""),
            ("endpoint", ["a", "b"], [], {}, "", ""),
        ]
        assert [DELTA_REQUEST.FromString(each).node.id for each in raw] == ["me", "me"]
        ads.closed(1)
        assert [each[:3] for each in opened(ads, 2)] == [("cluster", ["c"], []), ("endpoint", ["a", "b"], [])]

    def test_dl_02_versions_are_told_in_the_first_request_of_a_type_only(self):
        ads = machine()
        assert opened(ads, listener=WILD, endpoint=names("a", "b", "c"))[0] == (
            "listener",
            [],
            [],
            {},
            "",
            "",
        )
        ads.received(delta_response("endpoint", A, B, versions={"a": "7", "b": "9"}), 0)
        ads.received(delta_response("listener", build.listener("l", "r"), version="3"), 0)
        ads.set_interest("endpoint", names("a", "b", "c", "d"))
        assert all(not versions for _, _, _, versions, _, _ in read_delta(ads.outgoing(0)))
        ads.set_interest("endpoint", names("a", "c", "d"))
        ads.closed(1)
        first, second = opened(ads, 2)
        assert first == ("listener", [], [], {"l": "3"}, "", "")  # learned by the wildcard
        assert second == ("endpoint", ["a", "c", "d"], [], {"a": "7"}, "", "")

    def test_dl_03_an_acknowledgement_is_only_that_and_a_subscription_has_no_nonce(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(delta_response("endpoint", A, nonce="n7"), 0)
        ads.set_interest("endpoint", names("a", "b"))
        assert read_delta(ads.outgoing(0)) == [
            ("endpoint", [], [], {}, "n7", ""),
            ("endpoint", ["b"], [], {}, "", ""),
        ]
        assert ads.outgoing(0) == []

    def test_dl_04_only_differences_are_sent(self):
        ads = machine()
        opened(ads, endpoint=names("a", "b"))
        ads.set_interest("endpoint", names("b", "c", "d"))
        assert asked(ads) == [(["c", "d"], ["a"])]

    def test_dl_04_sw_18_what_comes_back_before_it_was_given_up_is_still_here(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(delta_response("endpoint", A), 0)
        ads.outgoing(0)
        ads.set_interest("endpoint", names())
        ads.set_interest("endpoint", names("a"))
        assert ads.outgoing(0) == []
        assert ads.cache.value("endpoint", "a") is not None
        ads.set_interest("endpoint", names("a", "b"))
        ads.set_interest("endpoint", names("a"))
        assert ads.outgoing(0) == []

    def test_a_name_that_was_given_up_is_forgotten_and_asked_for_anew(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(delta_response("endpoint", A), 0)
        ads.outgoing(0)
        ads.set_interest("endpoint", names())
        assert asked(ads) == [([], ["a"])]
        assert ads.cache.get("endpoint", "a") is None
        ads.set_interest("endpoint", names("a"))
        assert asked(ads) == [(["a"], [])]

    def test_dl_10_nothing_wanted_is_no_request(self):
        ads = machine()
        assert opened(ads, endpoint=names(), cluster=names("c")) == [("cluster", ["c"], [], {}, "", "")]
        ads.set_interest("cluster", names())
        assert asked(ads) == [([], ["c"])]
        ads.closed(0)
        assert opened(ads, 1) == []  # an empty first request would mean everything

    def test_dl_09_sw_17_wildcards(self):
        ads = machine()
        assert opened(ads, listener=WILD) == [("listener", [], [], {}, "", "")]
        ads.received(delta_response("listener", build.listener("l", "r"), build.listener("a", "r")), 0)
        ads.outgoing(0)
        ads.set_interest("listener", Interest(True, frozenset("a")))
        assert asked(ads) == [(["*", "a"], [])]  # named from now on, so that "*" is, too
        ads.set_interest("listener", Interest(True, frozenset("ab")))
        assert asked(ads) == [(["b"], [])]
        ads.set_interest("listener", names("a", "b"))
        assert asked(ads) == [([], ["*"])]
        assert [each.name for each in ads.cache.entries("listener")] == [
            "a",
            "b",
        ]  # all that "*" brought is gone
        ads.set_interest("listener", Interest(True, frozenset("b")))
        assert asked(ads) == [(["*"], ["a"])]
        ads.closed(0)
        assert opened(ads, 1)[0][1] == ["*", "b"]

    def test_dl_09_a_name_given_up_under_a_wildcard_stays_until_the_server_says(self):
        ads = machine()
        opened(ads, listener=Interest(True, frozenset("a")))
        ads.received(delta_response("listener", build.listener("a", "r")), 0)
        ads.set_interest("listener", WILD)
        assert asked(ads) == [([], ["a"])]
        assert ads.cache.value("listener", "a") is not None
        ads.received(delta_response("listener", removed=["a"]), 0)
        ads.outgoing(0)
        assert ads.cache.get("listener", "a") is None


class TestResponses:
    def test_dl_05_what_a_response_does_not_name_stays(self):
        ads = machine()
        opened(ads, cluster=WILD)
        ads.received(delta_response("cluster", build.cluster("a"), build.cluster("b")), 0)
        found = ads.received(
            delta_response("cluster", build.cluster("c"), removed=["b", "never-heard-of"]), 0
        )
        assert (found.accepted, found.updated, found.removed) == (True, ("c",), ("b",))
        assert set(ads.cache.names("cluster")) == {"a", "c"}

    @pytest.mark.parametrize("kind", ["route", "cluster", "endpoint"])
    def test_ca_08_what_others_name_and_never_came_is_waited_for(self, kind):
        """Whoever named it may be ahead of it: its time is over when it would be by state of the world (DL-13)."""
        ads = machine()
        opened(ads, **{kind: names("a")})
        found = ads.received(delta_response(kind, removed=["a"]), 3)
        assert (found.accepted, found.removed, ads.changed()) == (True, (), {})
        assert ads.next_timer() is not None
        ads.tick(ads.next_timer())
        assert ads.cache.get(kind, "a").state is State.DOES_NOT_EXIST

    def test_dl_06_a_listener_that_is_asked_for_and_removed_does_not_exist_at_once(self):
        kind = "listener"
        ads = machine()
        opened(ads, **{kind: names("a")})
        found = ads.received(delta_response(kind, removed=["a"]), 3)
        assert (found.accepted, found.removed) == (True, ("a",))
        assert ads.changed() == {kind: {"a"}}
        entry = ads.cache.get(kind, "a")
        assert (entry.state, entry.absent) == (State.DOES_NOT_EXIST, True)
        assert ads.next_timer() is None
        assert read_delta(ads.outgoing(3)) == [(kind, [], [], {}, "n1", "")]  # it stays subscribed

    def test_dl_06_it_is_used_when_it_comes_later(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(delta_response("endpoint", removed=["a"]), 0)
        assert ads.received(delta_response("endpoint", A), 9).updated == ("a",)
        assert ads.cache.get("endpoint", "a").state is State.ACKED

    def test_removed_by_the_other_field(self):
        ads = machine()
        opened(ads, listener=names("a"))
        made = DELTA_RESPONSE(type_url=schema.LISTENER, nonce="n", removed_resource_names=[NAME(name="a")])
        assert ads.received(made.SerializeToString(), 0).removed == ("a",)

    def test_dl_06_a_deleted_cluster_is_gone_and_its_version_is_not_told(self):
        ads = machine()
        opened(ads, cluster=names("a", "b"))
        ads.received(delta_response("cluster", build.cluster("a"), build.cluster("b")), 0)
        ads.received(delta_response("cluster", removed=["a"], version="2"), 0)
        assert ads.cache.value("cluster", "a") is None
        ads.closed(0)
        assert opened(ads, 1) == [("cluster", ["a", "b"], [], {"b": "1"}, "", "")]

    def test_what_state_of_the_world_cannot_take_away_stays_in_force(self):
        """As in Envoy; and the next stream does not tell a version that the server does not know."""
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(delta_response("endpoint", A), 0)
        ads.changed()
        assert ads.received(delta_response("endpoint", removed=["a"], version="2"), 0).removed == ()
        assert ads.changed() == {}
        assert ads.cache.value("endpoint", "a") is not None
        ads.closed(0)
        assert opened(ads, 1) == [("endpoint", ["a"], [], {}, "", "")]
        ads.received(delta_response("endpoint", A, version="3"), 1)
        ads.closed(1)
        assert opened(ads, 2) == [("endpoint", ["a"], [], {"a": "3"}, "", "")]

    def test_er_03_er_04_what_the_server_s_features_say_of_deletion(self):
        kept = machine(ignore_resource_deletion=True)
        opened(kept, cluster=WILD)
        kept.received(delta_response("cluster", build.cluster("a")), 0)
        kept.received(delta_response("cluster", removed=["a"]), 0)
        assert kept.cache.value("cluster", "a") is not None
        strict = machine(fail_on_data_errors=True)
        opened(strict, endpoint=names("a"))
        strict.received(delta_response("endpoint", A), 0)
        strict.received(delta_response("endpoint", removed=["a"]), 0)
        assert strict.cache.value("endpoint", "a") is None

    def test_dl_07_twice_in_a_response(self):
        ads = machine()
        opened(ads, endpoint=names("a", "b"))
        found = ads.received(delta_response("endpoint", A, A2, B), 0)
        assert (found.accepted, found.updated) == (False, ("b",))
        assert "'a': is in the response more than once" in found.error
        found = ads.received(delta_response("endpoint", A, removed=["a", "b"], nonce="n2"), 0)
        assert not found.accepted
        assert "'a': is among the removed resources, too" in found.error
        assert "'b'" not in found.error
        assert ads.cache.value("endpoint", "a") is None

    def test_dl_08_each_resource_has_its_own_version_and_a_nack_leaves_it(self):
        ads = machine()
        opened(ads, cluster=names("a", "b", "c"))
        ads.received(delta_response("cluster", build.cluster("a"), build.cluster("b"), version="1"), 0)
        found = ads.received(
            delta_response("cluster", ("a", bad("a")), ("b", build.cluster("b")), ("c", bad("c")), version="2", nonce="n2"), 0
        )  # fmt: skip
        assert [each.resource for each in found.rejected] == ["a", "c"]
        assert {each.name: each.version for each in ads.cache.entries("cluster")} == {
            "a": "1",
            "b": "2",
            "c": "",
        }
        assert ads.cache.value("cluster", "a") is not None  # ER-02
        ads.closed(0)
        assert opened(ads, 1) == [("cluster", ["a", "b", "c"], [], {"a": "1", "b": "2"}, "", "")]

    def test_er_01_sw_06_a_nack_says_all_and_what_is_good_is_in_force(self):
        ads = machine()
        opened(ads, cluster=names("a", "b", "c"))
        found = ads.received(delta_response("cluster", bad("b"), build.cluster("a"), bad("c")), 0)
        assert (found.updated, found.valid) == (("a",), 1)
        [(_, more, less, versions, nonce, text)] = read_delta(ads.outgoing(0))
        assert (more, less, versions, nonce) == ([], [], {}, "n1")
        for word in ("'b'", "'c'", "outlier_detection.interval", "connect_timeout"):
            assert word in text
        assert ads.outgoing(0) == []
        assert {each.resource for each in ads.status(0).rejected} == {"b", "c"}
        ads.received(delta_response("cluster", build.cluster("b"), build.cluster("c"), version="2"), 0)
        assert ads.status(0).rejected == ()

    def test_nothing_is_folded_into_a_nack(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        ads.received(delta_response("cluster", bad("a")), 0)
        ads.set_interest("cluster", names("a", "b"))
        first, second = read_delta(ads.outgoing(0))
        assert (first[1], first[4], bool(first[5])) == ([], "n1", True)
        assert second[1:] == (["b"], [], {}, "", "")

    def test_dl_11_an_alias_that_leads_nowhere_is_nothing(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        found = ads.received(delta_response("endpoint", WRAPPER(name="x", aliases=["a"])), 0)
        assert (found.accepted, found.updated) == (True, ())
        assert ads.cache.get("endpoint", "a").state is State.REQUESTED
        assert not ads.received(
            delta_response("endpoint", WRAPPER(name="a")), 0
        ).accepted  # no body and no alias

    def test_a_resource_by_an_alias_that_is_wanted(self):
        ads = machine()
        opened(ads, cluster=names("mine"))
        made = WRAPPER(
            name="theirs", aliases=["mine", "other"], version="4", resource=packed(build.cluster("theirs"))
        )
        assert ads.received(delta_response("cluster", made), 0).updated == ("mine",)
        assert ads.cache.value("cluster", "mine").name == "mine"
        assert ads.cache.get("cluster", "mine").version == "4"
        assert ads.cache.get("cluster", "theirs") is None

    def test_an_alias_of_what_is_here_already_has_it_too(self):
        ads = machine()
        opened(ads, cluster=names("theirs"))
        made = WRAPPER(name="theirs", aliases=["mine"], version="4", resource=packed(build.cluster("theirs")))
        assert ads.received(delta_response("cluster", made), 0).updated == ("theirs",)
        ads.set_interest("cluster", names("theirs", "mine"))
        ads.outgoing(0)
        assert ads.received(delta_response("cluster", made), 0).updated == ("mine",)
        assert ads.cache.value("cluster", "mine").name == "mine"
        assert ads.cache.value("cluster", "theirs").name == "theirs"
        assert ads.received(delta_response("cluster", made), 0).updated == ()

    def test_sw_10_the_name_beside_the_resource_wins(self):
        ads = machine()
        opened(ads, cluster=names("outer"))
        assert ads.received(delta_response("cluster", ("outer", build.cluster("inner"))), 0).updated == (
            "outer",
        )
        assert ads.cache.value("cluster", "outer").name == "outer"
        other = WRAPPER(
            resource_name=NAME(name="outer"), resource=packed(build.cluster("c", connect_timeout=3))
        )
        assert ads.received(delta_response("cluster", other), 0).updated == ("outer",)

    def test_dl_12_a_server_that_sends_nothing_again_makes_nothing_forgotten(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(delta_response("endpoint", A), 0)
        ads.outgoing(0)
        ads.closed(0)
        opened(ads, 1)
        assert ads.next_timer() is None  # EX-04
        ads.tick(100)
        assert ads.cache.get("endpoint", "a").state is State.ACKED
        ads.stands()
        assert ads.status(0).answered
        ads.closed(101, "gone")
        assert ads.status(0).last_error == ""  # ST-05: it was as good as answered

    def test_sw_13_the_same_again_is_acknowledged_and_changes_nothing(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(delta_response("endpoint", A), 0)
        ads.changed()
        found = ads.received(delta_response("endpoint", A, version="2", nonce="n2"), 0)
        assert (found.accepted, found.updated, ads.changed()) == (True, (), {})
        assert ads.cache.get("endpoint", "a").version == "2"
        assert [each[4] for each in read_delta(ads.outgoing(0))] == ["n1", "n2"]  # SW-01

    def test_dl_14_another_type_than_the_message_s(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        found = ads.received(delta_response("endpoint", ("a", build.cluster("a"))), 0)
        assert not found.accepted
        assert "is of type" in found.error

    def test_sw_08_sw_20_what_is_no_answer_is_not_answered(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        assert ads.received(delta_response("cluster", build.cluster("a")), 0).type == ""
        garbage = ads.received(b"\xff\xfe", 0)
        assert "no DeltaDiscoveryResponse" in garbage.error
        assert ads.outgoing(0) == []

    def test_er_05_the_server_says_in_words_why_there_is_none(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        error = ERROR(resource_name=NAME(name="a"), error_detail=STATUS(code=7, message="not for you"))
        assert ads.received(delta_response("endpoint", errors=[error]), 0).accepted
        assert ads.cache.get("endpoint", "a").state is State.RECEIVED_ERROR
        assert "not for you" in ads.cache.failed("endpoint", "a")

    def test_a_list_of_all_is_known_with_the_first_response(self):
        ads = machine()
        opened(ads, cluster=WILD, endpoint=names("a"))
        ads.received(delta_response("endpoint", A), 0)
        assert ads.cache.listed == set()
        ads.received(delta_response("cluster"), 0)
        assert ads.cache.listed == {"cluster"}

    def test_versions_in_the_status_are_the_system_s(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(delta_response("endpoint", A, version="push-7", versions={"a": "x"}), 0)
        assert ads.status(0).versions == {"endpoint": "push-7"}


class TestWhatAnEarlierProcessLeft:
    """By state of the world the next whole answer says what of it is gone; here the server has to be told of it."""

    def left(self, short, name, value):
        ads = machine()
        ads.cache.hold(short, name, value, raw=b"raw")
        return ads

    def test_under_a_wildcard_it_is_named_without_a_version_and_taken_away(self):
        ads = self.left("cluster", "a", object())
        assert opened(ads, cluster=WILD) == [("cluster", [], [], {"a": ""}, "", "")]
        ads.received(delta_response("cluster", build.cluster("b"), removed=["a"]), 0)
        assert set(ads.cache.names("cluster")) == {"b"}

    def test_by_name_it_is_asked_for_as_if_there_were_none(self):
        ads = self.left("endpoint", "a", object())
        assert opened(ads, endpoint=names("a")) == [("endpoint", ["a"], [], {}, "", "")]
        assert ads.next_timer() == EXISTENCE_TIMEOUT
        assert ads.received(delta_response("endpoint", removed=["a"]), 0).removed == ("a",)
        assert ads.cache.value("endpoint", "a") is None

    def test_what_comes_takes_its_place(self):
        ads = self.left("endpoint", "a", object())
        opened(ads, endpoint=names("a"))
        assert ads.received(delta_response("endpoint", A), 0).updated == ("a",)
        ads.closed(0)
        assert opened(ads, 1) == [("endpoint", ["a"], [], {"a": "1"}, "", "")]


class TestTimers:
    def test_dl_13_ex_01_a_server_that_says_nothing_of_a_name(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        assert ads.next_timer() == EXISTENCE_TIMEOUT
        assert ads.tick(EXISTENCE_TIMEOUT)
        assert ads.cache.get("endpoint", "a").state is State.DOES_NOT_EXIST
        assert ads.received(delta_response("endpoint", A), 20).updated == ("a",)  # EX-02

    def test_ex_03_a_broken_stream_begins_anew(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.closed(10)
        assert ads.next_timer() is None
        opened(ads, 12)
        assert ads.next_timer() == 12 + EXISTENCE_TIMEOUT

    def test_ex_05_what_is_refused_exists(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        ads.received(delta_response("cluster", bad("a")), 1)
        ads.outgoing(1)
        assert not ads.tick(100)

    def test_a_refusal_that_comes_again_is_held_back_and_a_subscription_is_not(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        for number in range(3):
            ads.received(delta_response("cluster", bad("a"), nonce=f"n{number}"), 0)
        assert read_delta(ads.outgoing(0)) == []
        due = ads.next_timer()
        ads.set_interest("cluster", names("a", "b"))
        assert asked(ads) == [(["b"], [])]
        assert [each[4] for each in read_delta(ads.outgoing(due))] == ["n2"]


def test_what_one_protocol_knows_the_other_goes_on_with():
    ads = AdsMachine(NODE, TYPES, lambda: 0.5)
    ads.set_interest("endpoint", names("a"))
    ads.opened(0)
    ads.outgoing(0)
    ads.received(response("endpoint", A), 0)
    other = DeltaMachine(NODE, TYPES, lambda: 0.5, cache=ads.cache)
    opened(other, endpoint=names("a"))
    assert other.cache.value("endpoint", "a") is not None
    assert other.next_timer() is None
