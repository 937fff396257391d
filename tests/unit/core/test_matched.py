"""Which chain a matcher tree leads to, where not all of a connection is known. (What Envoy makes of one: `e2e/oracle/test_matched_chains.py`.)"""

import ipaddress

import pytest

from meshlib.core.chains import Connection, connection
from meshlib.core.matched import MatchedChains
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.matcher import (
    AllOf,
    AnyOf,
    Entry,
    Fact,
    FactMatch,
    MatcherList,
    MatcherTable,
    Not,
    TableKind,
)

CHAINS = {name: name for name in "abcd"}


def exactly(fact, text):
    return FactMatch(fact, StringMatch(StringKind.EXACT, text))


def to(host, port=80, scheme="http"):
    return connection(scheme, host, port, inspects_http=False)


def chains(matcher, default=None):
    return MatchedChains(CHAINS, matcher, default)


NETWORKS = MatcherTable(
    Fact.ADDRESS,
    TableKind.NETWORKS,
    (Entry("10.0.0.0/8", "a"), Entry("10.1.0.0/16", "b"), Entry("0.0.0.0/0", "c")),
)


@pytest.mark.parametrize(
    ("host", "choice", "named"), [("10.1.2.3", "b", "b"), ("10.2.0.1", "a", "a"), ("192.0.2.1", "c", None)]
)
def test_an_address_leads_to_the_longest_network(host, choice, named):
    found = chains(NETWORKS)
    assert found.choose(to(host)) == choice
    assert found.named(to(host)) == named, "every address is in 0.0.0.0/0: it names none"


def test_a_name_may_lead_to_the_chain_of_any_address_and_the_default_comes_last():
    found = chains(NETWORKS, "default")
    assert list(found.possible(to("a.test"))) == ["a", "b", "c", "default"]
    assert found.choose(to("a.test")) is None
    assert found.named(to("a.test")) is None
    assert list(chains(MatcherList((), "d")).possible(to("a.test"))) == ["d"]


def test_a_match_that_leads_to_nothing_is_none():
    inner = MatcherTable(Fact.PORT, TableKind.EXACT, (Entry("443", "b"),))
    matcher = MatcherList(
        (
            (exactly(Fact.ADDRESS, "10.0.0.1"), inner),
            (exactly(Fact.ADDRESS, "10.0.0.1"), None),
            (Not(exactly(Fact.PORT, "1")), "c"),
        )
    )
    found = chains(matcher)
    assert found.choose(to("10.0.0.1", 443)) == "b"
    assert found.choose(to("10.0.0.1", 80)) == "c"
    assert found.choose(to("10.0.0.1", 1)) is None
    assert found.named(to("10.0.0.1", 443)) == "b"
    assert found.named(to("10.0.0.1", 80)) is None
    assert list(found.possible(to("a.test", 443))) == ["b", "c"]


def test_a_chain_that_is_not_there_takes_nobody_and_not_the_default():
    found = chains(MatcherList((), "z"), "default")
    assert found.choose(to("10.0.0.1")) is None
    assert chains(MatcherList(()), "default").choose(to("10.0.0.1")) == "default"


CALLER = exactly(Fact.CALLER, "10.0.0.9")


@pytest.mark.parametrize(
    "matcher",
    [
        MatcherList(((CALLER, "a"),), "b"),
        MatcherList(((Not(CALLER), "a"),), "b"),
        MatcherList(((AllOf((CALLER, exactly(Fact.PORT, "80"))), "a"),), "b"),
        MatcherList(((AnyOf((CALLER, exactly(Fact.PORT, "81"))), "a"),), "b"),
        MatcherList(((exactly(Fact.PORT, "80"), MatcherList(((CALLER, "a"),))),), "b"),
        MatcherTable(Fact.CALLER, TableKind.EXACT, (Entry("10.0.0.9", "a"),), "b"),
    ],
)
def test_what_depends_on_the_caller_takes_nobody(matcher):
    found = chains(matcher, "default")
    for host in ("10.0.0.1", "a.test"):
        assert found.choose(to(host)) is None
        assert list(found.possible(to(host))) == []
        assert found.named(to(host)) is None
        assert found.with_name(to(host)) is None


@pytest.mark.parametrize(
    "predicate",
    [
        AllOf((CALLER, exactly(Fact.PORT, "81"))),
        Not(AnyOf((CALLER, exactly(Fact.PORT, "80")))),
    ],
)
def test_what_the_caller_cannot_change_does_not_depend_on_it(predicate):
    assert chains(MatcherList(((predicate, "a"),), "b")).choose(to("10.0.0.1")) == "b"


def test_a_name_over_tls_leads_to_the_chain_that_names_it():
    matcher = MatcherTable(
        Fact.SERVER_NAME,
        TableKind.DOMAINS,
        (Entry("*.test", "a"), Entry("www.a.test", "b"), Entry("*", "c")),
    )
    found = chains(matcher)
    names = {
        name: (found.choose(to(name, 443, "https")), found.with_name(to(name, 443, "https")))
        for name in ("www.a.test", "x.test", "other.example")
    }
    assert names == {"www.a.test": ("b", "b"), "x.test": ("a", "a"), "other.example": ("c", None)}
    assert found.choose(to("10.0.0.1", 443, "https")) is None, "an address is no server's name"
    assert found.with_name(to("x.test")) is None


def test_what_tells_plain_text_from_tls():
    matcher = MatcherList(
        (
            (exactly(Fact.TRANSPORT, "tls"), "a"),
            (exactly(Fact.PROTOCOLS, "'h2c'"), "b"),
            (exactly(Fact.LOCAL, "local"), "c"),
        ),
        "d",
    )
    found = chains(matcher)
    assert found.choose(to("10.0.0.1", scheme="https")) == "a"
    assert found.choose(connection("grpc", "10.0.0.1", 80, inspects_http=True)) == "b"
    assert found.choose(to("127.0.0.1")) == "c"
    assert found.choose(to("10.0.0.1")) == "d"


def test_an_exclusive_network_counts_only_where_none_is_longer():
    matcher = MatcherTable(
        Fact.ADDRESS,
        TableKind.NETWORKS,
        (Entry("10.0.0.0/8", "a", exclusive=True), Entry("10.1.0.0/16", None), Entry("0.0.0.0/0", "c")),
    )
    found = chains(matcher)
    assert found.choose(to("10.2.0.1")) == "a"
    assert found.choose(to("10.1.0.1")) == "c"
    assert found.choose(Connection(80, ipaddress.ip_address("::1"), "", "raw_buffer", ())) is None
