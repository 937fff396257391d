from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.config import DnsConfig
from meshlib.model.address import Address
from meshlib.model.cluster import Cluster, Discovery, DnsTarget, NameServers
from meshlib.model.endpoint import Assignment, Endpoint, Locality, LocalityEndpoints
from meshlib.model.snapshot import Part
from meshlib.sources.base import Source
from meshlib.sources.dns import HOLD, MOST_THREADS, DnsSource
from meshlib.sources.dns_query import Answer, Found, Unanswered
from tests.support.sources_kit import Bench

PLAIN = DnsConfig()


class Zone:
    """Answers by name: a list of addresses, an Answer, or an exception. Every question is noted."""

    def __init__(self, **records):
        self.records = records
        self.asked = []

    def __call__(self, question):
        self.asked.append(question.name)
        record = self.records.get(question.name, [])
        if isinstance(record, Exception):
            raise record
        if isinstance(record, Answer):
            return record
        found = tuple(sorted(Found(0, address) for address in record))
        return Answer(found, 60.0, nothing="" if found else f"{question.name} (A): NXDOMAIN")


class Threads:
    """In the place of helper threads: work waits until a test runs it."""

    def __init__(self):
        self.held = False
        self.waiting = []

    def __call__(self, work):
        if self.held:
            self.waiting.append(work)
        else:
            work()

    def run(self):
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()


class Speaker(Source):
    """Publishes what the test says, the first of it when it is opened."""

    def __init__(self, name, sink, first):
        super().__init__(name, name, sink)
        self.first = first

    def open(self, inherited):
        if self.first is not None:
            self.sink.publish(self.first)


def names(cluster, *hosts, **fields):
    """A cluster that DNS fills."""
    targets = tuple(DnsTarget(host, 80) for host in hosts)
    fields.setdefault("discovery", Discovery.STRICT_DNS)
    fields.setdefault("assignment", Assignment(cluster, (LocalityEndpoints(Locality(), ()),)))
    return Cluster(cluster, dns=targets, **fields)


def part(source, *clusters):
    return Part(source, clusters={cluster.name: cluster for cluster in clusters})


@pytest.fixture
def zone():
    return Zone(a=["10.0.0.1", "10.0.0.2"], b=["10.0.0.3"])


def bench_of(zone, *, static=None, threads=None, inherited=(), start=True, config=PLAIN):
    def build(merge, bench):
        bench.threads = threads or Threads()
        bench.dns = DnsSource(merge, config, zone, bench.threads)
        merge.resolve, merge.drop = bench.dns.resolve, bench.dns.drop
        return [Speaker("static", merge, static), Speaker("xds", merge, None), bench.dns]

    return Bench(build, inherited, start)


def say(bench, said):
    bench.merge.publish(said)
    bench.step()


class TestFilling:
    def test_a_first_part_goes_on_at_once_and_is_filled_when_the_answer_comes(self, zone):
        bench = bench_of(zone, static=part("static", names("c", "a")), start=False)
        assert bench.addresses("static", "c") is None
        assert zone.asked == []
        bench.start()
        assert bench.addresses("static", "c") == ["10.0.0.1:80", "10.0.0.2:80"]
        assert bench.status("dns").state == "ready"

    def test_a_part_without_names_passes_as_it_is(self, zone):
        bench = bench_of(zone)
        plain = part("xds", Cluster("c"))
        say(bench, plain)
        assert bench.parts["xds"] is plain
        assert [status.name for status in bench.merge.statuses()] == ["static", "xds"]

    def test_what_did_not_change_is_the_same_object(self, zone):
        bench = bench_of(zone, static=part("static", names("c", "a"), names("d", "b")))
        before = bench.parts["static"].clusters
        zone.records["b"] = ["10.0.0.9"]
        bench.step(120.0)
        after = bench.parts["static"].clusters
        assert after["c"] is before["c"]
        assert after["d"] is not before["d"]

    def test_one_look_up_serves_all_that_ask_the_same(self, zone):
        bench = bench_of(zone, static=part("static", names("c", "a"), names("d", "A")))
        assert zone.asked == ["a"]
        say(bench, part("xds", names("e", "a")))
        assert zone.asked == ["a"]
        assert bench.addresses("xds", "e") == ["10.0.0.1:80", "10.0.0.2:80"]

    def test_the_same_answer_again_publishes_nothing(self, zone):
        bench = bench_of(zone, static=part("static", names("c", "a")))
        before = len(bench.published)
        bench.step(600.0)
        assert len(zone.asked) > 5
        assert len(bench.published) == before

    def test_literal_endpoints_of_a_group_stay_and_addresses_are_there_once(self, zone):
        template = Assignment("c", (LocalityEndpoints(Locality("r"), (Endpoint(Address("10.0.0.1", 80)),)),))
        bench = bench_of(zone, static=part("static", names("c", "a", "b", assignment=template)))
        assert bench.addresses("static", "c") == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
        assert bench.parts["static"].clusters["c"].assignment.localities[0].locality == Locality("r")

    def test_groups_are_filled_by_their_own_targets(self, zone):
        groups = tuple(LocalityEndpoints(Locality(str(number)), (), priority=number) for number in range(2))
        cluster = Cluster(
            "c",
            discovery=Discovery.STRICT_DNS,
            assignment=Assignment("c", groups),
            dns=(DnsTarget("a", 80, group=1, weight=7), DnsTarget("b", 81, group=0, hostname="named")),
        )
        bench = bench_of(zone, static=part("static", cluster))
        first, second = bench.parts["static"].clusters["c"].assignment.localities
        assert [str(each.address) for each in first.endpoints] == ["10.0.0.3:81"]
        assert [each.hostname for each in first.endpoints] == ["named"]
        assert [each.weight for each in second.endpoints] == [7, 7]
        assert second.endpoints[0].hostname == "a"

    def test_logical_dns_is_one_endpoint_and_keeps_the_address_in_use(self, zone):
        """CD-03"""
        bench = bench_of(zone, static=part("static", names("c", "a", discovery=Discovery.LOGICAL_DNS)))
        (endpoint,) = bench.parts["static"].clusters["c"].assignment.endpoints
        assert endpoint.address == Address("10.0.0.1", 80)
        assert endpoint.additional_addresses == (Address("10.0.0.2", 80),)
        zone.records["a"] = ["10.0.0.0", "10.0.0.1"]
        bench.step(120.0)
        (endpoint,) = bench.parts["static"].clusters["c"].assignment.endpoints
        assert endpoint.address == Address("10.0.0.1", 80)
        zone.records["a"] = ["10.0.0.7"]
        bench.step(120.0)
        (endpoint,) = bench.parts["static"].clusters["c"].assignment.endpoints
        assert endpoint.address == Address("10.0.0.7", 80)

    def test_srv_gives_priorities_weights_and_ports(self):
        found = (Found(0, "10.0.0.1", 8001, 3, "one"), Found(1, "10.0.0.2", 8002, 1, "two"))
        zone = Zone(srv=Answer(found, 60.0))
        cluster = Cluster(
            "c",
            discovery=Discovery.SRV,
            dns=(DnsTarget("srv"),),
            assignment=Assignment("c", (LocalityEndpoints(Locality(), ()),)),
        )
        bench = bench_of(zone, static=part("static", cluster))
        groups = bench.parts["static"].clusters["c"].assignment.localities
        assert [(g.priority, str(g.endpoints[0].address), g.endpoints[0].weight) for g in groups] == [
            (0, "10.0.0.1:8001", 3),
            (1, "10.0.0.2:8002", 1),
        ]
        assert groups[0].endpoints[0].hostname == "one"


class TestTime:
    def test_the_ttl_is_honoured(self, zone):
        zone.records["a"] = Answer((Found(0, "10.0.0.1"),), 30.0)
        bench = bench_of(zone, static=part("static", names("c", "a")))
        bench.step(29.0)
        assert len(zone.asked) == 1
        bench.step(1.5)
        assert len(zone.asked) == 2

    @pytest.mark.parametrize(("ttl", "expected"), [(0.0, 2.0), (1e9, 50.0)])
    def test_within_bounds(self, zone, ttl, expected):
        zone.records["a"] = Answer((Found(0, "10.0.0.1"),), ttl)
        bench = bench_of(
            zone, static=part("static", names("c", "a")), config=DnsConfig(min_ttl=2.0, max_ttl=50.0)
        )
        bench.step(expected - 0.1)
        assert len(zone.asked) == 1
        bench.step(0.2)
        assert len(zone.asked) == 2

    def test_jitter_only_ever_shortens_it(self, zone):
        zone.records["a"] = Answer((Found(0, "10.0.0.1"),), 100.0)
        bench = bench_of(zone, static=part("static", names("c", "a")), start=False)
        bench.random = lambda: 0.999
        bench.start()
        bench.step(89.0)
        assert len(zone.asked) == 1
        bench.step(2.0)
        assert len(zone.asked) == 2

    def test_a_cluster_may_set_its_own_rate(self, zone):
        cluster = names("c", "a", respect_dns_ttl=False, dns_refresh=7.0)
        bench = bench_of(zone, static=part("static", cluster))
        bench.step(21.5)
        assert len(zone.asked) == 4

    def test_an_answer_without_a_ttl_holds_for_the_clusters_rate(self, zone):
        zone.records["a"] = Answer((), None)
        bench = bench_of(zone, static=part("static", names("c", "a", dns_refresh=11.0)))
        bench.step(11.5)
        assert len(zone.asked) == 2


class TestOutage:
    def test_stale_answers_are_kept_when_the_resolver_is_away(self, zone):
        bench = bench_of(zone, static=part("static", names("c", "a")))
        zone.records["a"] = Unanswered("a (A): timed out")
        before = len(bench.published)
        bench.step(300.0)
        assert bench.addresses("static", "c") == ["10.0.0.1:80", "10.0.0.2:80"]
        assert len(bench.published) == before
        status = bench.status("dns")
        assert (status.state, status.last_error) == ("stale", "a (A): timed out")
        zone.records["a"] = ["10.0.0.5"]
        bench.step(40.0)
        assert bench.addresses("static", "c") == ["10.0.0.5:80"]
        assert (bench.status("dns").state, bench.status("dns").last_error) == ("ready", "")

    def test_it_is_asked_again_ever_later_and_soon_again_after_an_answer(self, zone):
        zone.records["a"] = Unanswered("a (A): refused")
        bench = bench_of(zone, static=part("static", names("c", "a")))

        def next_question(after):
            """Whether the next comes after that many seconds, and not before."""
            asked = len(zone.asked)
            bench.step(after - 0.01)
            early = len(zone.asked) - asked
            bench.step(0.02)
            return (early, len(zone.asked) - asked)

        pauses = [1.0, 1.6, 1.6**2, 1.6**3, 1.6**4, 1.6**5, 1.6**6, 1.6**7, 30.0, 30.0]
        assert [next_question(pause - 0.01) for pause in pauses] == [(0, 1)] * len(pauses)
        for _ in range(2000):  # 1.6 to the power of that is no float
            bench.step(30.0)
        assert next_question(29.99) == (0, 1)
        zone.records["a"] = ["10.0.0.1"]
        bench.step(30.0)
        zone.records["a"] = Unanswered("a (A): refused")
        bench.step(60.0)
        assert next_question(0.99) == (0, 1)

    def test_a_first_failure_is_an_outcome_nobody_waits_any_longer(self, zone):
        """CD-03: a DNS error with no earlier result is an empty priority."""
        zone.records["a"] = Unanswered("a (A): refused")
        bench = bench_of(zone, static=part("static", names("c", "a")))
        assert bench.addresses("static", "c") == []
        assert bench.status("dns").state == "failed"

    def test_one_name_of_two_that_fails_leaves_the_other(self, zone):
        zone.records["a"] = Unanswered("away")
        bench = bench_of(zone, static=part("static", names("c", "a", "b")))
        assert bench.addresses("static", "c") == ["10.0.0.3:80"]

    def test_that_a_name_has_nothing_is_an_answer(self, zone):
        bench = bench_of(zone, static=part("static", names("c", "a")))
        zone.records["a"] = []
        bench.step(120.0)
        assert bench.addresses("static", "c") == []
        status = bench.status("dns")
        assert (status.state, status.last_error, status.waiting) == ("failed", "a (A): NXDOMAIN", ("a",))
        zone.records["a"] = ["10.0.0.1"]
        bench.step(60.0)
        assert bench.addresses("static", "c") == ["10.0.0.1:80"]
        status = bench.status("dns")
        assert (status.state, status.last_error, status.waiting) == ("ready", "", ())

    def test_what_was_said_of_names_without_an_address_is_in_their_cluster(self, zone):
        bench = bench_of(zone, static=part("static", names("c", "a", "nope"), names("d", "a")))
        assert bench.cluster("static", "c").unresolved == "nope (A): NXDOMAIN"
        assert bench.addresses("static", "c") == ["10.0.0.1:80", "10.0.0.2:80"]
        assert bench.cluster("static", "d").unresolved == ""
        zone.records["nope"] = Unanswered("nope (A): SERVFAIL")
        bench.step(60.0)
        assert bench.cluster("static", "c").unresolved == "nope (A): SERVFAIL"
        zone.records["a"] = Unanswered("a (A): SERVFAIL")
        bench.step(100.0)  # its last answer serves
        assert bench.cluster("static", "c").unresolved == "nope (A): SERVFAIL"
        assert bench.status("dns").last_error == "a (A): SERVFAIL; nope (A): SERVFAIL"

    def test_a_status_tells_a_few_problems_and_counts_the_rest(self, zone):
        bench = bench_of(zone, static=part("static", names("c", *(f"n{number}" for number in range(8)))))
        assert bench.status("dns").last_error.endswith("n4 (A): NXDOMAIN; and 3 more")

    def test_retries_back_off_to_half_a_minute(self, zone):
        zone.records["a"] = Unanswered("away")
        bench = bench_of(zone, static=part("static", names("c", "a")))
        bench.step(10.0)
        soon = len(zone.asked)
        assert 4 <= soon <= 6
        bench.step(600.0)
        assert 18 <= len(zone.asked) - soon <= 26

    def test_a_cluster_says_how_long_to_pause_after_a_failure(self, zone):
        """As in Envoy, `dns_failure_refresh_rate` doubles up to its longest; without jitter: at 0, 10, 30, 70, 120, 170 s."""
        zone.records["a"] = Unanswered("away")
        cluster = names("c", "a", dns_failure_refresh=(10.0, 50.0))
        bench = bench_of(zone, static=part("static", cluster), start=False)
        bench.random = lambda: 0.0
        bench.start()
        for seconds, asked in ((9.0, 1), (2.0, 2), (18.0, 2), (2.0, 3), (40.0, 4), (50.0, 5), (50.0, 6)):
            bench.step(seconds)
            assert len(zone.asked) == asked

    def test_a_cluster_spreads_its_refreshes(self, zone):
        cluster = names("c", "a", respect_dns_ttl=False, dns_refresh=10.0, dns_jitter=20.0)
        bench = bench_of(zone, static=part("static", cluster), start=False)
        bench.random = lambda: 0.5
        bench.start()
        bench.step(19.0)  # 95 % of 10 s, and half of 20 s
        assert len(zone.asked) == 1
        bench.step(1.0)
        assert len(zone.asked) == 2

    def test_a_name_that_is_asked_of_others_is_another_question(self, zone):
        other = NameServers((Address("10.0.0.53", 53),))
        bench = bench_of(
            zone, static=part("static", names("c", "a"), names("d", "a", name_servers=other), names("e", "a"))
        )
        assert bench.status("dns").state == "ready"
        assert zone.asked == ["a", "a"]

    def test_half_an_answer_does_not_displace_a_whole_one(self, zone):
        bench = bench_of(zone, static=part("static", names("c", "a")))
        zone.records["a"] = Answer((Found(0, "10.0.0.2"),), 60.0, "a (AAAA): timed out")
        bench.step(61.0)
        assert bench.addresses("static", "c") == ["10.0.0.1:80", "10.0.0.2:80"]
        assert bench.status("dns").state == "stale"

    def test_but_is_better_than_none(self, zone):
        zone.records["a"] = Answer((Found(0, "10.0.0.2"),), 60.0, "a (AAAA): timed out")
        bench = bench_of(zone, static=part("static", names("c", "a")))
        assert bench.addresses("static", "c") == ["10.0.0.2:80"]
        assert bench.status("dns").last_error == "a (AAAA): timed out"

    def test_each_address_family_has_its_last_answer(self, zone):
        whole = Answer((Found(0, "10.0.0.1"), Found(0, "::1")), 60.0)
        zone.records["a"] = whole
        bench = bench_of(zone, static=part("static", names("c", "a")))
        for moved in ("10.0.0.2", "10.0.0.3"):  # whatever it was before: whole, or half like this one
            zone.records["a"] = Answer(
                (Found(0, moved),), 60.0, "a (AAAA): SERVFAIL", unasked=frozenset({"AAAA"})
            )
            bench.step(61.0)
            assert bench.addresses("static", "c") == [f"{moved}:80", "[::1]:80"]
            assert bench.status("dns").state == "stale"

    def test_of_srv_half_an_answer_displaces_only_half_ones(self, zone):
        zone.records["a"] = Answer((Found(0, "10.0.0.1", 80, 1, "one"),), 60.0, "two (A): SERVFAIL")
        bench = bench_of(zone, static=part("static", names("c", "a", discovery=Discovery.SRV)))
        zone.records["a"] = Answer((Found(0, "10.0.0.2", 80, 1, "one"),), 60.0, "two (A): SERVFAIL")
        bench.step(61.0)
        assert bench.addresses("static", "c") == ["10.0.0.2:80"]

    def test_a_resolver_that_breaks_is_a_failure_like_any_other(self, zone):
        zone.records["a"] = ZeroDivisionError("oh")
        bench = bench_of(zone, static=part("static", names("c", "a")))
        assert "ZeroDivisionError" in bench.status("dns").last_error
        zone.records["a"] = ["10.0.0.1"]
        bench.step(5.0)
        assert bench.addresses("static", "c") == ["10.0.0.1:80"]


class TestUpdates:
    def test_an_update_waits_for_its_new_names(self, zone):
        """CA-02: until then its hosts are served as before."""
        bench = bench_of(zone)
        say(bench, part("xds", names("c", "a")))
        bench.threads.held = True
        say(bench, part("xds", names("c", "a"), names("d", "b")))
        assert set(bench.parts["xds"].clusters) == {"c"}
        bench.threads.run()
        bench.step()
        assert bench.addresses("xds", "d") == ["10.0.0.3:80"]

    def test_but_not_for_ever(self, zone):
        bench = bench_of(zone)
        say(bench, part("xds", names("c", "a")))
        bench.threads.held = True
        say(bench, part("xds", names("c", "a"), names("d", "b")))
        bench.step(HOLD + 0.1)
        assert bench.addresses("xds", "d") is None
        assert bench.addresses("xds", "c") == ["10.0.0.1:80", "10.0.0.2:80"]

    def test_the_newest_of_several_updates_is_what_goes_on(self, zone):
        bench = bench_of(zone)
        say(bench, part("xds", names("c", "a")))
        bench.threads.held = True
        say(bench, part("xds", names("d", "b")))
        say(bench, part("xds", names("e", "b")))
        bench.threads.run()
        bench.step()
        assert set(bench.parts["xds"].clusters) == {"e"}
        bench.step(HOLD * 2)
        assert set(bench.parts["xds"].clusters) == {"e"}

    def test_an_update_without_new_names_goes_on_at_once(self, zone):
        bench = bench_of(zone)
        say(bench, part("xds", names("c", "a")))
        bench.threads.held = True
        say(bench, part("xds", names("c", "a"), Cluster("plain")))
        assert set(bench.parts["xds"].clusters) == {"c", "plain"}

    def test_an_update_without_names_displaces_one_that_waits(self, zone):
        bench = bench_of(zone)
        say(bench, part("xds", names("c", "a")))
        bench.threads.held = True
        say(bench, part("xds", names("d", "b")))
        say(bench, part("xds", Cluster("plain")))
        assert set(bench.parts["xds"].clusters) == {"plain"}
        bench.threads.run()
        bench.step(HOLD * 2)
        assert set(bench.parts["xds"].clusters) == {"plain"}

    def test_names_that_nobody_needs_any_more_are_not_asked_for(self, zone):
        bench = bench_of(zone)
        say(bench, part("xds", names("c", "a")))
        say(bench, part("xds", Cluster("plain")))
        zone.asked.clear()
        bench.step(600.0)
        assert zone.asked == []
        assert bench.worker.run_due() is None

    def test_of_a_source_that_is_gone_too(self, zone):
        bench = bench_of(zone)
        say(bench, part("xds", names("c", "a")))
        bench.merge.withdraw("xds")
        zone.asked.clear()
        bench.step(600.0)
        assert zone.asked == []
        assert "xds" not in bench.parts

    def test_a_changed_cluster_keeps_its_addresses(self, zone):
        bench = bench_of(zone)
        say(bench, part("xds", names("c", "a")))
        bench.threads.held = True
        say(bench, part("xds", names("c", "a", connect_timeout=1.0)))
        assert bench.parts["xds"].clusters["c"].connect_timeout == 1.0
        assert bench.addresses("xds", "c") == ["10.0.0.1:80", "10.0.0.2:80"]


class TestLife:
    def test_stopped_it_asks_nobody_and_started_again_it_does(self, zone):
        bench = bench_of(zone, static=part("static", names("c", "a")))
        bench.merge.stop()
        zone.asked.clear()
        bench.step(600.0)
        assert zone.asked == []
        bench.start()
        bench.step()
        assert zone.asked == ["a"]

    def test_an_answer_that_comes_after_the_stop_starts_nothing(self, zone):
        bench = bench_of(zone, static=part("static", names("c", "a")), start=False)
        bench.threads.held = True
        bench.start()
        bench.merge.stop()
        bench.threads.run()
        bench.step(600.0)
        assert zone.asked == ["a"]

    def test_never_more_threads_than_the_bound(self):
        zone = Zone()
        threads = Threads()
        threads.held = True
        clusters = [names(f"c{number}", f"n{number}") for number in range(40)]
        bench = bench_of(zone, static=part("static", *clusters), threads=threads)
        assert len(threads.waiting) == MOST_THREADS
        for _ in range(5):
            threads.run()
            bench.step()
            assert len(threads.waiting) <= MOST_THREADS
        assert len(zone.asked) == 40

    def test_a_child_starts_with_the_parents_addresses(self, zone):
        parent = bench_of(zone, static=part("static", names("c", "a")))
        threads = Threads()
        threads.held = True
        child = bench_of(
            zone, static=part("static", names("c", "a")), inherited=parent.published[-1], threads=threads
        )
        assert child.addresses("static", "c") == ["10.0.0.1:80", "10.0.0.2:80"]

    def test_but_not_for_another_name(self, zone):
        parent = bench_of(zone, static=part("static", names("c", "a")))
        child = bench_of(
            zone, static=part("static", names("c", "b")), inherited=parent.published[-1], start=False
        )
        assert child.addresses("static", "c") is None

    def test_the_status_names_what_is_waited_for(self, zone):
        threads = Threads()
        threads.held = True
        bench = bench_of(zone, static=part("static", names("c", "a", "b")), threads=threads)
        status = bench.status("dns")
        assert (status.state, status.waiting, status.resources) == ("connecting", ("a", "b"), {"name": 2})


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.one_of(
                st.just("fail"), st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "::1"]), unique=True)
            ),
            st.floats(0.1, 100.0),
        ),
        max_size=25,
    )
)
def test_whatever_happens_what_is_in_force_is_the_last_answer_of_each_name(events):
    zone = Zone(a=["10.1.0.1"], b=["10.1.0.2"], c=["10.1.0.3"])
    bench = bench_of(zone, static=part("static", *(names(name, name) for name in "abc")))
    expected = {name: zone.records[name] for name in "abc"}
    for name, record, seconds in events:
        zone.records[name] = Unanswered("away") if record == "fail" else record
        bench.step(seconds)
        bench.step(400.0)
        if record != "fail":
            expected[name] = record
        for each, addresses in expected.items():
            shown = sorted(str(Address(address, 80)) for address in addresses)
            assert sorted(bench.addresses("static", each)) == shown
