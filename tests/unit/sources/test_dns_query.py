from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from meshlib.config import DnsConfig
from meshlib.model.address import Address
from meshlib.model.cluster import NameServers
from meshlib.sources import dns_query
from meshlib.sources.dns_query import Found, Question, Resolver, Unanswered
from tests.support.dns_server import DnsServer


@pytest.fixture
def server():
    with DnsServer() as running:
        yield running


@pytest.fixture
def hosts(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("")
    return path


@pytest.fixture
def resolver(server, hosts):
    return Resolver(DnsConfig(nameservers=("127.0.0.1",), port=server.port), str(hosts))


def ask(resolver, name, family="all", kind="addresses"):
    return resolver.ask(Question(kind, name, family))


def addresses(resolver, name, family="all"):
    return [found.address for found in ask(resolver, name, family).found]


class TestServersOfACluster:
    def test_they_are_asked_in_place_of_others(self, server, hosts):
        server.records = {("a.test", "A"): ["10.0.0.1"]}
        with DnsServer({("a.test", "A"): ["10.0.0.2"]}) as other:
            resolver = Resolver(DnsConfig(nameservers=("127.0.0.1",), port=server.port), str(hosts))
            question = Question(
                "addresses", "a.test", "v4_only", NameServers((Address("127.0.0.1", other.port),))
            )
            assert [found.address for found in resolver.ask(question).found] == ["10.0.0.2"]
            other.mode = "refused"
            with pytest.raises(Unanswered, match=f"REFUSED from 127.0.0.1:{other.port}"):
                resolver.ask(question)
        assert server.questions == []

    @pytest.mark.parametrize("family", ["all", "auto", "v4_only"])
    def test_families_that_no_interface_has(self, server, hosts, family):
        """Envoy ``filter_unroutable_families``: who has only IPv6 is not told of IPv4, wherever it would come from."""
        server.records = {("a.test", "A"): ["10.0.0.1"], ("a.test", "AAAA"): ["fd00::1"]}
        hosts.write_text("10.0.0.2 b.test")
        config = DnsConfig(nameservers=("127.0.0.1",), port=server.port)
        resolver = Resolver(config, str(hosts), lambda: frozenset({"AAAA"}))
        found = resolver.ask(Question("addresses", "a.test", family, NameServers(routable=True)))
        assert [item.address for item in found.found] == ([] if family == "v4_only" else ["fd00::1"])
        assert ("a.test", "A") not in server.questions
        found = resolver.ask(Question("addresses", "b.test", family, NameServers(routable=True)))
        assert found.found == ()
        assert "no interface of this machine" in found.nothing
        found = resolver.ask(Question("addresses", "b.test", family, NameServers()))
        assert [item.address for item in found.found] == ["10.0.0.2"]

    @pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
    def test_what_this_machine_has(self):
        """As the kernel's table of routes says, whose leaves are ``|-- 192.0.2.2`` above ``/32 host LOCAL``."""
        lines = Path("/proc/net/fib_trie").read_text().splitlines()
        own = {
            above.split()[-1] for above, line in itertools.pairwise(lines) if line.strip() == "/32 host LOCAL"
        }
        assert ("A" in dns_query.routed_types()) is any(not each.startswith("127.") for each in own)

    def test_only_how_they_are_asked(self, server, resolver):
        """Over TCP, which the server does not speak."""
        server.records = {("a.test", "A"): ["10.0.0.1"]}
        with pytest.raises(Unanswered):
            resolver.ask(Question("addresses", "a.test", "v4_only", NameServers(tcp=True)))
        asked = Question("addresses", "a.test", "v4_only", NameServers(search=False, rotate=True))
        assert [found.address for found in resolver.ask(asked).found] == ["10.0.0.1"]


class TestAddresses:
    def test_every_a_and_aaaa_record(self, server, resolver):
        server.records = {("a.test", "A"): ["10.0.0.2", "10.0.0.1"], ("a.test", "AAAA"): ["::5"]}
        server.ttl = 77
        answer = ask(resolver, "a.test")
        assert answer.found == (Found(0, "10.0.0.1"), Found(0, "10.0.0.2"), Found(0, "::5"))
        assert answer.ttl == 77

    @pytest.mark.parametrize(
        ("family", "expected"),
        [
            ("all", ["10.0.0.1", "::5"]),
            ("auto", ["::5"]),
            ("v4_only", ["10.0.0.1"]),
            ("v6_only", ["::5"]),
            ("v4_preferred", ["10.0.0.1"]),
        ],
    )
    def test_families(self, server, resolver, family, expected):
        server.records = {("a.test", "A"): ["10.0.0.1"], ("a.test", "AAAA"): ["::5"]}
        assert addresses(resolver, "a.test", family) == expected

    @pytest.mark.parametrize(("family", "expected"), [("auto", ["10.0.0.1"]), ("v6_only", [])])
    def test_families_without_records_of_theirs(self, server, resolver, family, expected):
        server.records = {("a.test", "A"): ["10.0.0.1"]}
        assert addresses(resolver, "a.test", family) == expected

    def test_a_name_that_is_not_there_has_nothing(self, resolver):
        assert ask(resolver, "nosuch.test").found == ()

    @pytest.mark.parametrize(
        ("name", "family", "said"),
        [
            ("nosuch.test", "all", "nosuch.test (A, AAAA): NXDOMAIN from {server}"),
            ("nosuch.test", "auto", "nosuch.test (AAAA, A): NXDOMAIN from {server}"),
            ("four.test", "v6_only", "four.test (AAAA): no data from {server}"),
            ("bare.test", "all", "bare.test (A, AAAA): no data from {server}"),
            ("four.test", "all", ""),
        ],
    )
    def test_and_who_said_so_is_told(self, server, resolver, name, family, said):
        server.records = {("four.test", "A"): ["10.0.0.1"], ("bare.test", "TXT"): ["nothing"]}
        answer = ask(resolver, name, family)
        assert answer.nothing == said.format(server=f"127.0.0.1:{server.port}")
        assert answer.lacks == ""

    def test_an_address_is_no_question(self, server, resolver):
        assert addresses(resolver, "10.1.2.3") == ["10.1.2.3"]
        assert addresses(resolver, "[::1]") == ["::1"]
        assert server.questions == []

    def test_a_chain_of_aliases_is_as_short_lived_as_its_shortest(self, server, resolver):
        server.records = {("a.test", "A"): ["10.0.0.1"]}
        server.ttl = 9
        assert ask(resolver, "a.test", "v4_only").ttl == 9


class TestFailures:
    @pytest.mark.parametrize("mode", ["silent", "servfail", "garbage"])
    def test_who_cannot_say_is_named(self, server, resolver, monkeypatch, mode):
        monkeypatch.setattr(dns_query, "TRY", 0.2)
        monkeypatch.setattr(dns_query, "LIFETIME", 0.5)
        server.mode = mode
        with pytest.raises(Unanswered, match=r"a\.test \(A"):
            ask(resolver, "a.test")

    @pytest.mark.parametrize(
        ("mode", "said"),
        [
            ("servfail", "a.test (A, AAAA): SERVFAIL from {server}"),
            ("refused", "a.test (A, AAAA): REFUSED from {server}"),
            ("silent", "a.test (A, AAAA): no answer within 0.4 s from {server}"),
        ],
    )
    def test_what_was_said_is_told(self, server, resolver, monkeypatch, mode, said):
        monkeypatch.setattr(dns_query, "TRY", 0.2)
        monkeypatch.setattr(dns_query, "LIFETIME", 0.4)
        server.mode = mode
        with pytest.raises(Unanswered) as caught:
            ask(resolver, "a.test")
        assert str(caught.value) == said.format(server=f"127.0.0.1:{server.port}")

    def test_a_type_that_fails_leaves_the_other(self, server, resolver):
        server.records = {("a.test", "A"): ["10.0.0.1"]}
        server.modes = {"AAAA": "servfail"}
        answer = ask(resolver, "a.test")
        assert answer.found == (Found(0, "10.0.0.1"),)
        assert answer.lacks == f"a.test (AAAA): SERVFAIL from 127.0.0.1:{server.port}"
        assert answer.unasked == {"AAAA"}

    def test_a_type_that_fails_beside_one_that_has_nothing_is_a_failure(self, server, resolver):
        server.modes = {"AAAA": "servfail"}
        with pytest.raises(Unanswered, match=r"^a\.test \(AAAA\): SERVFAIL from 127\.0\.0\.1:\d+$"):
            ask(resolver, "a.test")

    def test_a_name_that_is_none(self, resolver):
        with pytest.raises(Unanswered):
            ask(resolver, "a..b")
        with pytest.raises(Unanswered):
            ask(resolver, "x" * 64 + ".test")

    def test_nobody_listens(self, hosts, monkeypatch, server):
        monkeypatch.setattr(dns_query, "TRY", 0.2)
        monkeypatch.setattr(dns_query, "LIFETIME", 0.4)
        server.mode = "silent"
        resolver = Resolver(DnsConfig(nameservers=("127.0.0.1",), port=server.port), str(hosts))
        with pytest.raises(Unanswered):
            ask(resolver, "a.test")


class TestHosts:
    def test_the_file_of_hosts_comes_first(self, server, resolver, hosts):
        server.records = {("a.test", "A"): ["10.0.0.1"]}
        hosts.write_text("# comment\n10.9.9.9 other A.Test # more\n::9 a.test\nnonsense a.test\n\n")
        assert addresses(resolver, "a.test") == ["10.9.9.9", "::9"]
        assert addresses(resolver, "a.test.", "v4_only") == ["10.9.9.9"]
        assert server.questions == []

    def test_localhost_needs_no_file(self, server, resolver):
        assert addresses(resolver, "localhost") == ["127.0.0.1", "::1"]
        assert addresses(resolver, "app.localhost", "v4_only") == ["127.0.0.1"]
        assert server.questions == []

    def test_a_file_that_cannot_be_read_is_no_file(self, server, resolver, hosts):
        hosts.unlink()
        server.records = {("a.test", "A"): ["10.0.0.1"]}
        assert addresses(resolver, "a.test") == ["10.0.0.1"]


class TestSrv:
    def test_targets_with_their_ports_weights_and_priorities(self, server, resolver):
        server.records = {
            ("_http._tcp.a.test", "SRV"): [
                "10 3 8001 one.test.",
                "10 1 8002 two.test.",
                "20 0 8003 three.test.",
            ],
            ("one.test", "A"): ["10.0.0.1"],
            ("two.test", "A"): ["10.0.0.2"],
            ("three.test", "A"): ["10.0.0.3"],
        }
        answer = ask(resolver, "_http._tcp.a.test", kind="srv")
        assert answer.found == (
            Found(0, "10.0.0.1", 8001, 3, "one.test"),
            Found(0, "10.0.0.2", 8002, 1, "two.test"),
            Found(1, "10.0.0.3", 8003, 1, "three.test"),
        )
        assert answer.ttl == 1

    def test_a_targets_weight_is_divided_among_its_addresses(self, server, resolver):
        server.records = {
            ("srv.test", "SRV"): ["0 1 80 one.test.", "0 1 80 two.test."],
            ("one.test", "A"): ["10.0.0.1"],
            ("two.test", "A"): ["10.0.0.2", "10.0.0.3"],
        }
        weights = {found.address: found.weight for found in ask(resolver, "srv.test", kind="srv").found}
        assert weights == {"10.0.0.1": 2, "10.0.0.2": 1, "10.0.0.3": 1}

    def test_decidedly_not_there(self, server, resolver):
        server.records = {("srv.test", "SRV"): ["0 0 0 ."]}
        answer = ask(resolver, "srv.test", kind="srv")
        assert answer.found == ()
        assert answer.nothing == "srv.test (SRV): the service is decidedly not there (RFC 2782)"

    def test_why_nothing_came_of_it_is_told(self, server, resolver):
        where = f"127.0.0.1:{server.port}"
        missing = ask(resolver, "nosuch.test", kind="srv")
        assert missing.nothing == f"nosuch.test (SRV): NXDOMAIN from {where}"
        server.records = {
            ("srv.test", "SRV"): ["0 1 80 one.test."],
            ("two.test", "SRV"): ["0 1 80 one.test."],
        }
        assert ask(resolver, "srv.test", kind="srv").nothing == f"one.test (A, AAAA): NXDOMAIN from {where}"
        server.modes = {("one.test", "A"): "servfail"}
        with pytest.raises(Unanswered) as caught:
            ask(resolver, "srv.test", kind="srv")
        assert str(caught.value) == f"srv.test (SRV): one.test (A): SERVFAIL from {where}"
        server.modes = {"SRV": "refused"}
        with pytest.raises(Unanswered) as caught:
            ask(resolver, "srv.test", kind="srv")
        assert str(caught.value) == f"srv.test (SRV): REFUSED from {where}"

    def test_a_target_that_has_no_address_is_left_out(self, server, resolver):
        server.records = {
            ("srv.test", "SRV"): ["0 1 80 one.test.", "0 1 80 nosuch.test."],
            ("one.test", "A"): ["10.0.0.1"],
        }
        assert [found.address for found in ask(resolver, "srv.test", kind="srv").found] == ["10.0.0.1"]

    def test_a_name_without_srv_records(self, server, resolver):
        server.records = {("a.test", "A"): ["10.0.0.1"]}
        assert ask(resolver, "a.test", kind="srv").found == ()
