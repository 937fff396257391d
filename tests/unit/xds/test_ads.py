"""The stream's machine against a scripted server, by the ids of the checklist."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from meshlib.testing import build
from meshlib.xds import decode, schema
from meshlib.xds.ads import AdsMachine
from meshlib.xds.cache import State
from meshlib.xds.decode import TYPES
from meshlib.xds.values import Interest, ServerFeatures
from tests.support.xds_kit import (
    ERROR,
    NODE,
    REQUEST,
    STATUS,
    WILD,
    WRAPPER,
    Wire,
    bad,
    message,
    names,
    opened,
    packed,
    read,
    response,
)

EDS = build.endpoints("a", "10.0.0.1:80")


def machine(jitter=0.5, types=TYPES, **features):
    return AdsMachine(NODE, types, lambda: jitter, ServerFeatures(**features))


class TestSubscriptions:
    def test_st_02_the_node_is_in_each_request(self):
        ads = machine()
        ads.set_interest("listener", WILD)
        ads.set_interest("cluster", WILD)
        ads.opened(0)
        assert [REQUEST.FromString(each).node.id for each in ads.outgoing(0)] == ["me", "me"]
        ads.received(response("listener", build.listener("l", "r")), 0)
        assert [REQUEST.FromString(each).node.id for each in ads.outgoing(0)] == ["me"]

    def test_st_03_what_this_client_can_do(self):
        ads = machine()
        ads.set_interest("listener", WILD)
        ads.opened(0)
        [raw] = ads.outgoing(0)
        assert list(REQUEST.FromString(raw).node.client_features) == ["xds.config.resource-in-sotw"]

    def test_a_node_that_is_none(self):
        with pytest.raises(ValueError, match=r"core\.v3\.Node"):
            AdsMachine(b"\xff", TYPES, lambda: 0.5)

    def test_nothing_goes_out_before_a_stream_is_up_or_twice(self):
        ads = machine()
        ads.set_interest("endpoint", names("a"))
        assert ads.outgoing(0) == []
        ads.opened(0)
        assert len(ads.outgoing(0)) == 1
        assert ads.outgoing(0) == []

    def test_sw_16_a_named_subscription_never_begins_empty(self):
        ads = machine()
        assert opened(ads, endpoint=names()) == []
        ads.set_interest("endpoint", names("b", "a"))
        assert read(ads.outgoing(0)) == [("endpoint", ["a", "b"], "", "", "")]
        ads.set_interest("endpoint", names())
        assert read(ads.outgoing(0)) == [("endpoint", [], "", "", "")]

    def test_sw_17_wildcards(self):
        ads = machine()
        assert opened(ads, listener=WILD) == [("listener", [], "", "", "")]
        ads.set_interest("listener", Interest(True, frozenset("a")))
        assert read(ads.outgoing(0))[0][1] == ["*", "a"]
        ads.set_interest("listener", WILD)
        assert read(ads.outgoing(0))[0][1] == ["*"]  # an empty list would now mean "nothing"
        ads.set_interest("listener", names("a"))
        assert read(ads.outgoing(0))[0][1] == ["a"]
        ads.set_interest("listener", WILD)
        ads.closed(0)
        ads.opened(1)
        assert read(ads.outgoing(1)) == [("listener", [], "", "", "")]

    def test_st_09_changes_are_folded_into_the_newest(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        for wanted in ("ab", "b", "abc", "c"):
            ads.set_interest("endpoint", names(*wanted))
        assert read(ads.outgoing(0)) == [("endpoint", ["c"], "", "", "")]

    def test_st_09_a_change_and_its_reverse_need_no_request(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.set_interest("endpoint", names("a", "b"))
        ads.set_interest("endpoint", names("a"))
        assert ads.outgoing(0) == []

    def test_st_07_st_08_reconnect(self):
        ads = machine()
        opened(ads, endpoint=names("a"), cluster=names("c"))
        ads.received(response("endpoint", EDS, version="7", nonce="n"), 0)
        ads.outgoing(0)
        ads.closed(1)
        ads.set_interest("endpoint", names("a", "b"))
        ads.opened(2)
        assert read(ads.outgoing(2)) == [
            ("cluster", ["c"], "", "", ""),
            ("endpoint", ["a", "b"], "7", "", ""),  # the version is kept, the nonce is not
        ]

    def test_sw_05_new_names_carry_version_and_nonce(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(response("endpoint", EDS, version="7", nonce="n"), 0)
        ads.outgoing(0)
        ads.set_interest("endpoint", names("a", "b"))
        assert read(ads.outgoing(0)) == [("endpoint", ["a", "b"], "7", "n", "")]


class TestAnswers:
    def test_sw_01_sw_02_ack(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        found = ads.received(response("endpoint", EDS, version="7", nonce="n"), 0)
        assert (found.type, found.version, found.accepted, found.updated) == ("endpoint", "7", True, ("a",))
        assert read(ads.outgoing(0)) == [("endpoint", ["a"], "7", "n", "")]
        assert ads.cache.get("endpoint", "a").version == "7"
        assert ads.changed() == {"endpoint": {"a"}}
        assert ads.changed() == {}

    def test_sw_02_sw_06_dv_01_nack(self):
        ads = machine()
        opened(ads, cluster=names("a", "b", "c"))
        ads.received(response("cluster", build.cluster("a"), version="1", nonce="n1"), 0)
        ads.outgoing(0)
        found = ads.received(
            response("cluster", bad("b"), build.cluster("a"), bad("c"), version="2", nonce="n2"), 0
        )
        assert not found.accepted
        assert [each.resource for each in found.rejected] == ["b", "c"]
        [(_, _, version, nonce, text)] = read(ads.outgoing(0))
        assert (version, nonce) == ("1", "n2")
        for name in ("'b'", "'c'", "outlier_detection.interval", "connect_timeout"):
            assert name in text
        ads.set_interest("cluster", names("a"))
        assert read(ads.outgoing(0)) == [("cluster", ["a"], "1", "n2", "")]  # told once

    def test_nothing_is_folded_into_a_nack(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        ads.received(response("cluster", bad("a")), 0)
        ads.set_interest("cluster", names("a", "b"))
        first, second = read(ads.outgoing(0))
        assert (first[1], bool(first[4])) == (["a"], True)
        assert (second[1], second[3], second[4]) == (["a", "b"], "n1", "")

    def test_a_server_that_sends_the_same_bad_resources_again_is_answered_ever_later(self):
        ads, now, sent, received = machine(), 0.0, [], 0
        opened(ads, cluster=names("a"))
        while now < 60.0:
            received += 1  # at once, whenever it is answered
            ads.received(response("cluster", bad("a"), version=str(received), nonce=f"n{received}"), now)
            requests = read(ads.outgoing(now))
            if not requests:
                due = ads.next_timer()
                assert due > now
                assert read(ads.outgoing((now + due) / 2)) == []
                now = due
                ads.tick(now)
                requests = read(ads.outgoing(now))
            assert [(nonce, bool(text)) for _, _, _, nonce, text in requests] == [(f"n{received}", True)]
            sent.append(now)
        assert len(sent) < 15
        pauses = [later - earlier for earlier, later in itertools.pairwise(sent)]
        assert pauses[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
        assert max(pauses) == pytest.approx(10.0)

    def test_a_flood_of_the_same_bad_resources_owes_one_answer(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        for number in range(1000):
            ads.received(response("cluster", bad("a"), nonce=f"n{number}"), number * 0.001)
        due = ads.next_timer()
        assert due > 1.0
        assert [nonce for _, _, _, nonce, _ in read(ads.outgoing(due))] == ["n999"]
        assert ads.next_timer() is None

    def test_what_is_owed_before_a_repeated_refusal_is_told_at_once(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        good, wrong = build.cluster("a"), bad("a")
        for number, resource in enumerate([wrong, good, wrong, wrong, wrong]):
            ads.received(response("cluster", resource, nonce=f"n{number}"), 0)
        told = [(nonce, bool(text)) for _, _, _, nonce, text in read(ads.outgoing(0))]
        assert told == [("n0", True), ("n1", False)]
        due = ads.next_timer()
        assert [nonce for _, _, _, nonce, _ in read(ads.outgoing(due))] == ["n4"]
        assert ads.next_timer() is None

    @pytest.mark.parametrize(
        "what", ["other words", "mended", "after a pause", "other names wanted", "a new stream"]
    )
    def test_what_ends_the_holding_back_of_a_refusal(self, what):
        ads, now = machine(), 2.0
        opened(ads, cluster=names("a"))
        for number in range(3):
            ads.received(response("cluster", bad("a"), nonce=f"n{number}"), 1.0)
            ads.outgoing(1.0)
        assert ads.next_timer() is not None
        resource = {"other words": bad("b"), "mended": build.cluster("a")}.get(what, bad("a"))
        if what == "other names wanted":
            ads.set_interest("cluster", names("a", "b"))
        elif what == "a new stream":
            ads.closed(now)
            opened(ads, now)
        elif what == "after a pause":
            ads.outgoing(ads.next_timer())
            now = 12.0
        if what != "other names wanted":
            ads.received(response("cluster", resource, nonce="new"), now)
        requests = read(ads.outgoing(now))
        assert requests[-1][3] == ("n2" if what == "other names wanted" else "new")
        assert ads.next_timer() in (None, now + 15.0)

    def test_the_good_beside_it_is_in_force_while_a_refusal_is_held_back(self):
        ads = machine()
        opened(ads, cluster=WILD)
        for version in ("1", "2"):
            good = build.cluster("good", connect_timeout=float(version))
            ads.received(response("cluster", bad("a"), good, version=version), 0)
            assert ads.cache.get("cluster", "good").value.connect_timeout == float(version)
            ads.outgoing(0)
        assert ads.next_timer() is not None

    def test_an_ack_carries_new_names(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(response("endpoint", EDS), 0)
        ads.set_interest("endpoint", names("a", "b"))
        assert read(ads.outgoing(0)) == [("endpoint", ["a", "b"], "1", "n1", "")]

    def test_sw_01_several_before_anything_is_written(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        ads.received(response("cluster", build.cluster("a"), version="1", nonce="n1"), 0)
        ads.received(response("cluster", bad("a"), version="2", nonce="n2"), 0)
        ads.received(response("cluster", build.cluster("a"), version="3", nonce="n3"), 0)
        assert [(each[2], each[3], bool(each[4])) for each in read(ads.outgoing(0))] == [
            ("1", "n1", False),
            ("1", "n2", True),
            ("3", "n3", False),
        ]

    def test_sw_01_sw_07_after_everything_was_unsubscribed(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.set_interest("endpoint", names())
        ads.outgoing(0)
        found = ads.received(response("endpoint", EDS), 0)
        assert (found.accepted, found.updated) == (True, ())
        assert read(ads.outgoing(0)) == [("endpoint", [], "1", "n1", "")]
        ads.set_interest("endpoint", names("b"))
        assert read(ads.outgoing(0)) == [("endpoint", ["b"], "1", "n1", "")]

    def test_sw_04_types_are_apart(self):
        ads = machine()
        opened(ads, cluster=names("a"), endpoint=names("a"))
        ads.received(response("cluster", bad("a"), version="9", nonce="c"), 0)
        ads.received(response("endpoint", EDS, version="3", nonce="e"), 0)
        assert ads.status(0).versions == {"endpoint": "3"}

    @pytest.mark.parametrize("url", ["type.googleapis.com/no.Such", "", schema.ROUTE])
    def test_sw_08_what_was_not_asked_for(self, url):
        ads = machine()
        opened(ads, endpoint=names("a"))
        found = ads.received(response("endpoint", type_url=url or "x"), 0)
        assert (found.type, found.accepted) == ("", False)
        assert "not asked for" in found.error
        assert ads.outgoing(0) == []

    def test_sw_20_garbage_is_no_answer(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        assert "no DiscoveryResponse" in ads.received(b"\xff\xff\xff", 0).error
        assert ads.outgoing(0) == []
        assert not ads.status(0).answered
        assert "no DiscoveryResponse" in ads.status(0).last_error

    def test_sw_09_another_type_inside(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        found = ads.received(response("cluster", EDS), 0)
        assert "is of type" in found.error
        assert [each.resource for each in found.rejected] == [""]

    def test_sw_10_wrapped(self):
        ads = machine()
        opened(ads, endpoint=names("outer"))
        wrapped = schema.pack(WRAPPER(name="outer", resource=packed(EDS)))
        assert ads.received(response("endpoint", wrapped), 0).updated == ("outer",)
        assert ads.cache.value("endpoint", "outer").name == "outer"

    def test_sw_10_empty_wrapper(self):
        ads = machine()
        opened(ads, endpoint=names("outer"))
        found = ads.received(response("endpoint", schema.pack(WRAPPER(name="outer"))), 0)
        assert "the wrapped resource is missing" in found.error

    def test_dv_10_twice_in_one_response(self):
        ads = machine()
        opened(ads, endpoint=names("a", "b"))
        other = build.endpoints("a", "10.0.0.9:80")
        found = ads.received(response("endpoint", EDS, other, build.endpoints("b")), 0)
        assert found.updated == ("b",)
        assert "more than once" in found.error
        assert ads.cache.value("endpoint", "a") is None

    def test_dv_10_twice_in_one_response_of_what_is_here_already(self):
        ads = machine()
        opened(ads, endpoint=names("a", "b"))
        ads.received(response("endpoint", EDS, build.endpoints("b"), version="1"), 0)
        here, other = ads.cache.value("endpoint", "a"), build.endpoints("a", "10.0.0.9:80")
        for version, twice in enumerate(((EDS, EDS), (EDS, other), (other, EDS), (EDS, EDS, other)), 2):
            found = ads.received(response("endpoint", *twice, build.endpoints("b"), version=str(version)), 0)
            assert found.error.count("more than once") == 1
            assert found.updated == ()
            assert ads.cache.value("endpoint", "a") is here
            assert ads.cache.get("endpoint", "a").version == "1"
            assert ads.cache.get("endpoint", "b").version == str(version)

    def test_sw_12_unasked_resources_are_checked_and_dropped(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        assert ads.received(response("cluster", build.cluster("b")), 0).accepted
        assert ads.cache.get("cluster", "b") is None
        assert not ads.received(response("cluster", bad("b")), 0).accepted
        assert [each.resource for each in ads.status(0).rejected] == ["b"]
        ads.received(response("cluster", build.cluster("a")), 0)
        assert ads.status(0).rejected == ()

    def test_sw_12_what_nobody_asks_for_any_more_is_not_taken_in_though_it_is_here(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(response("endpoint", EDS, version="1"), 0)
        ads.set_interest("endpoint", names("b"))  # the server was not told yet: `a` is here still
        assert ads.received(response("endpoint", EDS, version="2"), 0).updated == ()
        assert ads.cache.get("endpoint", "a").version == "1"

    def test_sw_13_the_same_again_is_not_even_decoded(self):
        decoded = []

        def counting(raw):
            decoded.append(raw)
            return decode.endpoint(raw)

        types = [
            dataclasses.replace(kind, decode=counting) if kind.short == "endpoint" else kind for kind in TYPES
        ]
        ads = machine(types=types)
        opened(ads, endpoint=names("a"))
        ads.received(response("endpoint", EDS, version="1"), 0)
        ads.changed()
        value = ads.cache.value("endpoint", "a")
        found = ads.received(response("endpoint", EDS, version="2"), 0)
        assert (found.accepted, found.updated, len(decoded)) == (True, (), 1)
        assert ads.changed() == {}
        assert ads.cache.value("endpoint", "a") is value
        assert ads.cache.get("endpoint", "a").version == "2"

    def test_sw_19_an_older_version_is_a_version(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(response("endpoint", EDS, version="9"), 0)
        found = ads.received(response("endpoint", build.endpoints("a"), version="2"), 0)
        assert found.updated == ("a",)
        assert ads.status(0).versions["endpoint"] == "2"

    def test_er_11_a_panic_is_a_nack(self):
        def panic(raw):
            raise RuntimeError("boom")

        types = [dataclasses.replace(kind, decode=panic) for kind in TYPES]
        ads = machine(types=types)
        opened(ads, endpoint=names("a"))
        found = ads.received(response("endpoint", EDS), 0)
        assert "RuntimeError: boom" in found.error
        assert read(ads.outgoing(0))[0][4] == found.error


class TestDeletion:
    def test_sw_14_full_state(self):
        ads = machine()
        opened(ads, cluster=names("a", "b"), endpoint=names("a"))
        ads.received(response("cluster", build.cluster("a"), build.cluster("b")), 0)
        ads.received(response("endpoint", EDS), 0)
        assert ads.received(response("cluster", build.cluster("a")), 0).removed == ("b",)
        assert ads.cache.get("cluster", "b").state is State.DOES_NOT_EXIST
        assert ads.cache.failed("cluster", "b") == "was deleted by the server"
        assert ads.received(response("endpoint"), 0).removed == ()
        assert ads.cache.value("endpoint", "a") is not None

    def test_sw_15_what_never_came_is_not_deleted(self):
        ads = machine()
        opened(ads, cluster=names("a", "b"))
        assert ads.received(response("cluster", build.cluster("a")), 0).removed == ()
        assert ads.cache.get("cluster", "b").state is State.REQUESTED

    def test_a_bad_resource_is_not_missing(self):
        ads = machine()
        opened(ads, cluster=names("a", "b"))
        ads.received(response("cluster", build.cluster("a"), build.cluster("b")), 0)
        found = ads.received(response("cluster", bad("a")), 0)
        assert found.removed == ("b",)
        assert ads.cache.value("cluster", "a") is not None  # ER-02

    def test_nothing_is_deleted_where_a_name_cannot_be_read(self):
        ads = machine()
        opened(ads, cluster=WILD)
        ads.received(response("cluster", build.cluster("a")), 0)
        garbage = schema.message("google.protobuf.Any")(type_url=schema.CLUSTER, value=b"\xff")
        found = ads.received(response("cluster", garbage), 0)
        assert (found.removed, found.accepted) == ((), False)
        assert ads.cache.value("cluster", "a") is not None

    def test_er_03_ignore_resource_deletion(self):
        ads = machine(ignore_resource_deletion=True)
        opened(ads, cluster=WILD)
        ads.received(response("cluster", build.cluster("a")), 0)
        assert ads.received(response("cluster"), 0).removed == ()
        assert ads.cache.value("cluster", "a") is not None

    def test_a_wildcards_deletion_leaves_nothing_behind(self):
        ads = machine()
        opened(ads, cluster=WILD)
        ads.received(response("cluster", build.cluster("a"), bad("b")), 0)
        assert ads.received(response("cluster"), 0).removed == ("a", "b")
        ads.outgoing(0)
        assert list(ads.cache.entries("cluster")) == []
        assert ads.status(0).rejected == ()

    def test_sw_18_unsubscribing_drops_and_a_quick_return_does_not(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(response("endpoint", EDS), 0)
        ads.outgoing(0)
        ads.set_interest("endpoint", names())
        ads.set_interest("endpoint", names("a"))  # EX-06
        assert ads.outgoing(0) == []
        assert ads.cache.value("endpoint", "a") is not None
        assert ads.next_timer() is None
        ads.set_interest("endpoint", names())
        ads.outgoing(0)
        assert ads.cache.get("endpoint", "a") is None


class TestErrors:
    def test_er_01_good_ones_are_applied(self):
        ads = machine()
        opened(ads, cluster=names("a", "b"))
        found = ads.received(response("cluster", build.cluster("a"), bad("b")), 0)
        assert (found.updated, found.accepted) == (("a",), False)

    def test_er_02_a_bad_first_version(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        ads.received(response("cluster", bad("a")), 0)
        assert "was refused: connect_timeout" in ads.cache.failed("cluster", "a")
        assert [(each.resource, each.type) for each in ads.status(0).rejected] == [("a", "cluster")]
        ads.received(response("cluster", build.cluster("a")), 0)
        assert ads.cache.failed("cluster", "a") == ""
        assert ads.status(0).rejected == ()
        assert ads.status(0).last_error == ""

    def test_er_09_the_same_good_version_clears_the_refusal(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        for resource in (build.cluster("a"), bad("a"), build.cluster("a")):
            ads.received(response("cluster", resource), 0)
        assert ads.cache.get("cluster", "a").state is State.ACKED

    def test_er_04_fail_on_data_errors(self):
        ads = machine(fail_on_data_errors=True)
        opened(ads, cluster=names("a"))
        ads.received(response("cluster", build.cluster("a")), 0)
        ads.received(response("cluster", bad("a")), 0)
        assert ads.cache.value("cluster", "a") is None

    def error(self, name, code, text="no"):
        made = ERROR(error_detail=STATUS(code=code, message=text))
        made.resource_name.name = name
        return made

    def test_er_05_the_server_says_why(self):
        ads = machine()
        opened(ads, cluster=names("a", "b"))
        ads.received(response("cluster", build.cluster("b")), 0)
        found = ads.received(response("cluster", errors=[self.error("a", 5), self.error("b", 14)]), 0)
        assert found.accepted
        assert found.removed == ()  # ER-06
        assert ads.cache.failed("cluster", "a") == "the server has none: no"
        assert ads.cache.value("cluster", "b") is not None
        assert ads.next_timer() is None
        assert ads.changed()["cluster"] >= {"a", "b"}

    @pytest.mark.parametrize(("name", "code"), [("", 5), ("a", 0)])
    def test_er_05_what_says_nothing_is_refused(self, name, code):
        ads = machine()
        opened(ads, cluster=names("a"))
        assert (
            "resource_errors[0]"
            in ads.received(response("cluster", errors=[self.error(name, code)]), 0).error
        )


class TestTimers:
    def test_ex_01_from_the_moment_the_request_is_written(self):
        ads = machine()
        ads.set_interest("endpoint", names("a"))
        assert ads.next_timer() is None
        ads.opened(5)
        assert ads.next_timer() is None
        ads.outgoing(7)
        assert ads.next_timer() == 22
        assert not ads.tick(21.9)
        assert ads.tick(22)
        assert ads.next_timer() is None

    def test_ex_02_expiry_and_late_arrival(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        assert ads.status(0).waiting == ("endpoint a",)
        ads.tick(15)
        assert ads.cache.get("endpoint", "a").state is State.DOES_NOT_EXIST
        assert "does not exist" in ads.cache.failed("endpoint", "a")
        assert ads.changed() == {"endpoint": {"a"}}
        assert ads.status(0).waiting == ()
        assert ads.received(response("endpoint", EDS), 16).updated == ("a",)
        assert ads.cache.failed("endpoint", "a") == ""

    def test_ex_03_a_new_stream_begins_anew(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.closed(10)
        assert ads.next_timer() is None
        assert not ads.tick(100)
        ads.opened(100)
        ads.outgoing(100)
        assert ads.next_timer() == 115

    def test_ex_04_what_is_there_needs_no_timer(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(response("endpoint", EDS), 0)
        assert ads.next_timer() is None
        ads.closed(1)
        ads.opened(2)
        ads.outgoing(2)
        assert ads.next_timer() is None

    def test_ex_05_a_refused_one_exists(self):
        ads = machine()
        opened(ads, cluster=names("a"))
        ads.received(response("cluster", bad("a")), 0)
        assert ads.next_timer() is None

    def test_ex_07_transient(self):
        ads = machine(resource_timer_is_transient_error=True)
        opened(ads, endpoint=names("a"))
        assert ads.next_timer() == 30
        ads.tick(30)
        assert ads.cache.get("endpoint", "a").state is State.TIMEOUT

    def test_ex_08_each_has_its_own(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.set_interest("endpoint", names("a", "b"))
        ads.outgoing(10)
        ads.tick(15)
        assert ads.cache.get("endpoint", "b").state is State.REQUESTED
        assert ads.next_timer() == 25

    def test_what_a_wildcard_should_bring(self):
        ads = machine()
        opened(ads, cluster=Interest(True, expected=frozenset("a")))
        assert ads.next_timer() == 15
        ads.tick(15)
        assert "does not exist" in ads.cache.failed("cluster", "a")

    def test_a_name_that_is_wanted_no_more(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.set_interest("endpoint", names())
        assert ads.next_timer() is None


class TestBackoff:
    @pytest.mark.parametrize(("jitter", "factor"), [(0.0, 0.8), (0.5, 1.0), (0.999999999, 1.2)])
    def test_st_04(self, jitter, factor):
        ads = machine(jitter)
        expected = [min(1.6**n, 120.0) * factor for n in range(15)]
        assert [ads.closed(0, "refused") for _ in range(15)] == pytest.approx(expected)

    def test_st_04_an_answer_resets_it_and_there_is_no_tight_loop(self):
        ads = machine()
        for _ in range(5):
            ads.closed(0)
        opened(ads, endpoint=names("a"))
        ads.received(response("endpoint", EDS), 0)
        assert [ads.closed(0), ads.closed(0)] == pytest.approx([1.0, 1.6])

    def test_st_05_whose_fault_it_is(self):
        ads = machine()
        ads.closed(0, "connection refused")
        assert ads.status(0).last_error == "connection refused"
        opened(ads, endpoint=names("a"))
        ads.received(response("endpoint", EDS), 0)
        assert (ads.status(0).connected, ads.status(0).answered) == (True, True)
        ads.closed(0, "max age")
        assert ads.status(0).last_error == ""
        assert (ads.status(0).connected, ads.status(0).answered) == (False, False)
        opened(ads)
        ads.closed(0)
        assert "before the server answered" in ads.status(0).last_error

    def test_er_07_ca_01_nothing_is_forgotten(self):
        ads = machine()
        opened(ads, endpoint=names("a"))
        ads.received(response("endpoint", EDS), 0)
        ads.closed(0, "gone")
        assert ads.status(0).resources["endpoint"] == 1


def test_status_tells_what_is_ignored():
    ads = machine()
    opened(ads, cluster=WILD)
    ads.received(response("cluster", build.cluster("a", transport_socket_matcher={})), 0)
    assert [(each.resource, each.type, each.field, each.value) for each in ads.status(0).ignored] == [
        ("a", "cluster", "transport_socket_matcher", "{}")
    ]


def test_the_cache_keeps_bytes_and_version():
    ads = machine()
    opened(ads, endpoint=names("a"))
    ads.received(response("endpoint", EDS, version="7"), 0)
    entry = ads.cache.get("endpoint", "a")
    assert entry.raw == message(EDS).SerializeToString(deterministic=True)
    assert entry.version == "7"


def test_features_of_a_bootstrap():
    assert ServerFeatures.of(["xds_v3", "ignore_resource_deletion", 7, {}]) == ServerFeatures(True)


def test_a_name_that_is_wanted_again_is_asked_for_after_the_acknowledgement_of_an_answer_to_nothing():
    """SW-05, SW-07, SW-16: go-control-plane would take it for one that came with the answer."""
    wire = Wire("target")
    wire.open()
    wire.want("a")
    wire.send("listener", build.api_listener("a", "r"), version="1")
    wire.session.forget("a")
    wire.flush()
    assert wire.session.received(response("listener", version="2", nonce="n9"), 0.0).accepted
    wire.session.want("a")
    of_listeners = [each for each in wire.flush() if each[0] == "listener"]
    assert of_listeners == [("listener", [], "2", "n9", ""), ("listener", ["a"], "2", "n9", "")]
