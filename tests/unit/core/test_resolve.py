"""What a URL means: rules 1 to 6 of the contract."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.chains import Chains, connection
from meshlib.core.resolve import Rules, compile_view
from meshlib.model.address import Address
from meshlib.model.call import Head
from meshlib.model.cluster import Cluster
from meshlib.model.headers import Headers
from meshlib.model.listener import ChainMatch, FilterChain, HttpManager, Listener, Source
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.matcher import MatcherList
from meshlib.model.route import ClusterWeight, Forward, Route, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Absence, Fate, Part, Snapshot


def routes(*domains, name="r"):
    route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "/")), Forward(cluster="c"))
    return RouteConfiguration(name, (VirtualHost("v", domains or ("*",), (route,)),))


def listener(name, *domains, address="", **fields):
    manager = HttpManager(routes=routes(*domains, name=name))
    where = (Address.parse(address),) if address else ()
    return Listener(name, (FilterChain(http=manager),), where, **fields)


def view(*parts, previous=None, **rules):
    return compile_view(Snapshot(parts), Rules(**rules), previous)


def ask(view, url):
    """What `url` means, with the Host that a client sends for it."""
    scheme, _, rest = url.partition("://")
    host, port = rest, None
    if rest.rpartition(":")[2].isdigit() and not rest.endswith("]"):
        host, _, digits = rest.rpartition(":")
        port = int(digits)
    return view.resolve(scheme, host, port, rest)


def via(view, url):
    found = ask(view, url)
    return found.via, found.listener.name if found.listener is not None else found.name


class TestRule1:
    def test_switched_off(self):
        part = Part("static", services={"reviews": listener("reviews")})
        found = ask(view(part, disabled=True), "http://reviews")
        assert (found.via, found.reason, found.plain) == ("direct", "meshlib is switched off", True)

    @pytest.mark.parametrize(
        ("pattern", "url", "bypassed"),
        [
            ("reviews", "http://reviews", True),
            ("reviews", "http://REVIEWS:9080", True),
            ("reviews:9080", "http://reviews:9080", True),
            ("reviews:80", "http://reviews", True),
            ("reviews:9080", "http://reviews", False),
            ("*.test", "http://reviews.test", True),
            ("*.test", "http://test", False),
            ("10.0.0.1", "http://10.0.0.1:8080", True),
            ("[::1]", "http://[::1]:80", True),
            ("*", "http://anything", True),
        ],
    )
    def test_bypass(self, pattern, url, bypassed):
        part = Part("static", services={"*.test": listener("w"), "reviews": listener("reviews")})
        found = ask(view(part, bypass=(pattern,)), url)
        assert found.plain is ("bypass" in found.reason) is bypassed


class TestRule3:
    KEYS = (
        "reviews:9080",
        "reviews",
        "*.internal",
        "*.eu.internal",
        "*.internal:81",
        "[::1]:80",
        "one.eu.internal",
    )

    @pytest.mark.parametrize(
        ("url", "key"),
        [
            ("http://reviews:9080", "reviews:9080"),
            ("http://reviews:9081", "reviews"),
            ("http://Reviews", "reviews"),
            ("http://reviews.", "reviews"),
            ("http://a.internal", "*.internal"),
            ("http://a.eu.internal", "*.eu.internal"),
            ("http://a.b.eu.internal", "*.eu.internal"),
            ("http://a.internal:81", "*.internal:81"),
            ("http://a.eu.internal:81", "*.eu.internal"),
            ("http://one.eu.internal:81", "one.eu.internal"),
            ("http://[::1]", "[::1]:80"),
        ],
    )
    def test_host_and_port_then_host_then_longest_wildcard(self, url, key):
        part = Part("static", services={key: listener(key) for key in self.KEYS})
        assert via(view(part), url) == ("mesh", key)

    def test_a_default_port_is_the_schemes(self):
        part = Part("static", services={"a:443": listener("a:443"), "a:80": listener("a:80")})
        assert via(view(part), "https://a") == ("mesh", "a:443")
        assert via(view(part), "http://a") == ("mesh", "a:80")

    def test_the_first_part_that_has_a_key_is_asked(self):
        made = view(
            Part("static", services={"a": listener("mine")}),
            Part("file", services={"a": listener("other"), "b": listener("b")}),
        )
        assert via(made, "http://a") == ("mesh", "mine")
        assert ask(made, "http://b").part == "file"

    def test_a_service_without_routes_yet_is_not_known(self):
        empty = Listener("a", (FilterChain(http=HttpManager("later")),))
        assert via(view(Part("static", services={"a": empty})), "http://a") == ("direct", "")


class TestRule4:
    def test_a_listener_at_the_urls_address(self):
        part = Part("xds", sidecar=(listener("local", "other.test", address="127.0.0.1:8001"),))
        assert via(view(part), "http://127.0.0.1:8001") == ("mesh", "local")
        assert via(view(part), "http://localhost:8001") == ("mesh", "local")
        assert via(view(part), "http://127.0.0.1:8002") == ("direct", "")

    def test_spellings_of_an_address_are_one(self):
        part = Part("xds", sidecar=(listener("six", address="[::1]:80"),))
        assert via(view(part), "http://[0:0::1]") == ("mesh", "six")

    def test_a_listener_on_the_port_with_a_virtual_host_for_the_host(self):
        part = Part("xds", sidecar=(listener("0.0.0.0_9080", "reviews:9080", "*", address="0.0.0.0:9080"),))
        assert via(view(part), "http://reviews:9080") == ("mesh", "0.0.0.0_9080")
        assert via(view(part), "http://ratings:9080") == ("direct", "")
        assert via(view(part), "http://reviews:9081") == ("direct", "")

    def test_an_ip_is_of_the_mesh_once_a_listener_has_it(self):
        everywhere = listener("any", "10.0.0.5:80", "*", address="0.0.0.0:80")
        part = Part("xds", sidecar=(everywhere, listener("six", address="10.0.0.6:80")))
        made = view(part, has_xds=True)
        assert via(made, "http://10.0.0.5:80") == ("mesh", "any")
        assert via(made, "http://10.0.0.6") == ("mesh", "six")
        assert via(made, "http://10.0.0.7") == ("direct", "")

    def test_the_loopback_reaches_a_listener_on_every_address(self):
        part = Part("xds", sidecar=(listener("any", address="0.0.0.0:8001"),))
        assert via(view(part), "http://127.0.0.1:8001") == ("mesh", "any")

    def test_only_what_is_outbound(self):
        inbound = listener("in", "reviews", address="127.0.0.1:2", outbound=False)
        assert via(view(Part("xds", sidecar=(inbound,))), "http://127.0.0.1:2") == ("direct", "")

    def test_a_listener_of_something_else_is_none(self):
        redis = Listener("redis", (FilterChain("no manager"),), (Address("127.0.0.1", 1),))
        assert via(view(Part("xds", sidecar=(redis,))), "http://127.0.0.1:1") == ("direct", "")

    def test_services_come_first(self):
        made = view(
            Part("static", services={"reviews": listener("service")}),
            Part("xds", sidecar=(listener("sidecar", "reviews", address="0.0.0.0:80"),)),
        )
        assert via(made, "http://reviews") == ("mesh", "service")


def tcp(*shares, timeout=0.0):
    """What a chain of TCP is to an HTTP call."""
    action = Forward(weighted=tuple(ClusterWeight(name, weight) for name, weight in shares), timeout=timeout)
    route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "")), action, "tcp_proxy")
    return HttpManager(routes=RouteConfiguration("tcp_proxy", (VirtualHost("tcp_proxy", ("*",), (route,)),)))


def chained(name, *chains, address, **fields):
    """A listener each of whose chains is (name, match): the name is that of its only cluster; None: the default."""
    made = tuple(
        FilterChain(each, match or ChainMatch(), tcp=tcp((each, 1)), default=match is None)
        for each, match in chains
    )
    return Listener(name, made, (Address.parse(address),), **fields)


def taken(view, url):
    """The chain that takes a call, by its cluster; how it ends where none does."""
    found = ask(view, url)
    if found.routes is None:
        return found.via
    (host,) = found.routes.config.virtual_hosts
    return host.routes[0].action.weighted[0].cluster


class TestRule4OfTcp:
    def test_a_call_to_its_address_goes_to_its_cluster(self):
        found = ask(
            view(Part("xds", sidecar=(chained("l", ("c", None), address="10.0.0.9:80"),))), "http://10.0.0.9"
        )
        assert (found.via, found.listener.name) == ("mesh", "l")
        match = found.routes.match(Head("GET", "http", "any.host", "/x", Headers(())), lambda: 0.0)
        assert (match.name, match.route.action.timeout, match.route.action.retry) == ("tcp_proxy", 0.0, None)

    def test_a_name_is_not_its(self):
        made = view(Part("xds", sidecar=(chained("l", ("c", None), address="0.0.0.0:80"),)))
        assert via(made, "http://reviews") == ("direct", "")

    CHAINS = (
        ("port", ChainMatch(port=81)),
        ("wide", ChainMatch(prefixes=("10.0.0.0/8",))),
        ("narrow", ChainMatch(prefixes=("10.1.0.0/16", "10.2.0.0/16"))),
        ("narrow tls", ChainMatch(prefixes=("10.1.0.0/16",), transport="tls")),
        ("named", ChainMatch(server_names=("www.example.com",))),
        ("wildcard", ChainMatch(server_names=(".example.com",))),
        ("h2c", ChainMatch(protocols=("h2c",))),
        ("six", ChainMatch(prefixes=("fd00::/8",))),
        ("any", ChainMatch()),
    )

    @pytest.mark.parametrize(
        ("scheme", "host", "port", "chain"),
        [
            ("http", "10.3.0.1", 80, "wide"),
            ("http", "10.2.0.1", 80, "narrow"),
            ("https", "10.1.0.1", 80, "narrow tls"),
            ("http", "10.1.0.1", 80, "narrow"),
            ("http", "10.1.0.1", 81, "port"),
            ("http", "fd00::1", 80, "six"),
            ("http", "fe80::1", 80, "any"),
            ("http", "192.0.2.1", 80, "any"),
            ("grpc", "192.0.2.1", 80, "h2c"),
            ("https", "www.example.com", 443, "named"),
            ("https", "api.example.com", 443, "wildcard"),
            ("https", "a.b.example.com", 443, "wildcard"),
            ("https", "example.com", 443, "any"),
            ("https", "www.example.org", 443, "any"),
            ("http", "www.example.com", 80, "any"),
        ],
    )
    def test_the_most_specific_rule_by_rule(self, scheme, host, port, chain):
        """LD: Envoy's order of destination port, address, server name, transport and protocols."""
        chains = Chains((match, name) for name, match in self.CHAINS)
        assert chains.choose(connection(scheme, host, port, inspects_http=True)) == chain

    @pytest.mark.parametrize(
        ("chains", "default", "chain"),
        [
            # Nothing of the longest prefix fits: the shorter one is not asked.
            (
                {
                    "a": ChainMatch(prefixes=("10.0.0.0/8",)),
                    "b": ChainMatch(prefixes=("10.1.0.0/16",), transport="tls"),
                },
                None,
                None,
            ),
            ({"a": ChainMatch(), "b": ChainMatch(port=80, transport="tls")}, "d", "d"),
            (
                {"a": ChainMatch(source=Source.EXTERNAL), "b": ChainMatch(source=Source.SAME_IP_OR_LOOPBACK)},
                None,
                "a",
            ),
            ({"a": ChainMatch(unknown_source=True), "b": ChainMatch()}, None, "b"),
            ({"a": ChainMatch(unknown_source=True)}, None, None),
            ({}, "d", "d"),
        ],
    )
    def test_what_a_rule_chose_stands(self, chains, default, chain):
        made = Chains(((match, name) for name, match in chains.items()), default)
        assert made.choose(connection("http", "10.1.2.3", 80, inspects_http=False)) == chain

    def test_protocols_are_known_where_somebody_looks(self):
        chains = (("http", ChainMatch(protocols=("http/1.1",))), ("else", None))
        looks = view(Part("xds", sidecar=(chained("l", *chains, address="10.0.0.1:80", inspects_http=True),)))
        blind = view(Part("xds", sidecar=(chained("l", *chains, address="10.0.0.1:80"),)))
        assert [taken(made, "http://10.0.0.1") for made in (looks, blind)] == ["http", "else"]

    def test_a_connection_that_no_chain_takes_is_closed(self):
        made = view(
            Part("xds", sidecar=(chained("l", ("c", ChainMatch(transport="tls")), address="10.0.0.1:80"),))
        )
        found = ask(made, "http://10.0.0.1")
        assert (found.via, found.reason) == (
            "closed",
            "listener l has the URL's address, and none of its filter chains takes the call",
        )
        assert taken(made, "https://10.0.0.1:80") == "c"

    def test_where_the_chain_cannot_be_told_no_call_is_taken_and_none_goes_past(self):
        unchosen = Listener("l", (), (Address("10.0.0.1", 80),), unchosen=True)
        assert via(view(Part("xds", sidecar=(unchosen,))), "http://10.0.0.1") == ("closed", "")

    def test_a_listener_whose_chains_come_by_themselves_takes_its_calls_when_none_is_there(self):
        made = Listener("l", (), (Address("10.0.0.1", 80),), matcher=MatcherList((), "c"), discovered=("c",))
        assert via(view(Part("xds", sidecar=(made,))), "http://10.0.0.1") == ("closed", "")

    def test_a_virtual_listener_has_what_is_redirected_and_not_loopback(self):
        """Istio's: 0.0.0.0_9080 is not bound, and traffic to loopback is not redirected."""
        virtual = chained("0.0.0.0_9080", ("c", None), address="0.0.0.0:9080", virtual=True)
        made = view(
            Part("xds", sidecar=(virtual, chained("own", ("o", None), address="10.0.0.2:9080", virtual=True)))
        )
        assert taken(made, "http://10.0.0.1:9080") == "c"
        assert taken(made, "http://10.0.0.2:9080") == "o"
        for url in (
            "http://127.0.0.1:9080",
            "http://localhost:9080",
            "http://[fd00::1]:9080",
            "http://10.0.0.1:9081",
        ):
            assert via(made, url) == ("direct", "")

    def test_an_address_that_a_filter_chain_names(self):
        """Consul's: one listener for all that is redirected, a filter chain an upstream."""
        chains = (("c", ChainMatch(prefixes=("10.0.0.1/32", "240.0.0.0/4"))), ("pass", None))
        redirected = chained("outbound_listener", *chains, address="127.0.0.1:15001", redirected=True)
        made = view(Part("xds", sidecar=(redirected,)))
        assert taken(made, "http://10.0.0.1:8080") == taken(made, "http://240.0.0.7") == "c"
        assert via(made, "http://10.0.0.2:8080") == ("direct", "")
        assert taken(made, "http://127.0.0.1:15001") == "pass"
        bound = chained("bound", *chains, address="0.0.0.0:80")
        made = view(Part("xds", sidecar=(bound,)))
        assert (taken(made, "http://10.0.0.1"), via(made, "http://10.0.0.2")) == ("c", ("direct", ""))

    def test_a_server_name_that_a_filter_chain_names(self):
        """Istio's 0.0.0.0_443: TLS is passed on by its server name, the rest goes by."""
        chains = (("api", ChainMatch(server_names=("api.example.com", ".shop.test"))), ("pass", None))
        made = view(
            Part("xds", sidecar=(chained("0.0.0.0_443", *chains, address="0.0.0.0:443", virtual=True),))
        )
        assert taken(made, "https://api.example.com") == taken(made, "https://eu.shop.test") == "api"
        assert ask(made, "https://API.example.com").reason == (
            "a filter chain of listener 0.0.0.0_443 is for api.example.com by TLS"
        )
        for url in (
            "https://shop.test",
            "https://example.com",
            "http://api.example.com:443",
            "https://api.example.com:444",
        ):
            assert via(made, url) == ("direct", "")

    def test_a_name_may_come_to_the_chain_of_any_address(self):
        of = [HttpManager(routes=routes(name, name=name)) for name in ("a.test", "b.test")]
        chains = [
            FilterChain(f"{index}", ChainMatch(prefixes=(f"10.0.0.{index}/32",)), http)
            for index, http in enumerate(of)
        ]
        made = view(Part("xds", sidecar=(Listener("l", tuple(chains), (Address("0.0.0.0", 80),)),)))
        assert ask(made, "http://b.test").routes.config.name == "b.test"
        assert via(made, "http://c.test") == ("direct", "")


class TestRule5:
    def test_named_by_the_authority_as_written(self):
        part = Part(
            "xds", targets={"reviews": listener("reviews", api=True), "reviews:9080": listener("with port")}
        )
        made = view(part, has_xds=True)
        assert via(made, "http://reviews") == ("mesh", "reviews")
        assert via(made, "http://reviews:9080") == ("mesh", "with port")
        assert ask(made, "http://reviews:9080").name == "reviews:9080"
        assert via(made, "http://reviews:9081") == ("wait", "reviews:9081")

    @pytest.mark.parametrize(
        ("rules", "url", "name"),
        [
            ({"with_port": True}, "http://reviews", "reviews:80"),
            ({"with_port": True}, "https://reviews", "reviews:443"),
            ({"with_port": True}, "http://reviews:9080", "reviews:9080"),
            ({"template": "listener/%s"}, "http://reviews", "listener/reviews"),
            ({"template": "xdstp://a/L/%s"}, "http://a.svc:80", "xdstp://a/L/a.svc:80"),
            ({"template": "xdstp://a/L/%s", "domains": ("*",)}, "http://x%y", "xdstp://a/L/x%25y"),
        ],
    )
    def test_template(self, rules, url, name):
        assert via(view(has_xds=True, **rules), url) == ("wait", name)

    def test_bs11_a_target_of_an_authority_has_its_template_and_no_other_way(self):
        rules = {"has_xds": True, "templates": {"a": "xdstp://a/L/%s"}}
        part = Part("xds", targets={"xdstp://a/L/reviews": listener("reviews")})
        services = Part("static", services={"ratings": listener("ratings")})
        made = view(services, part, **rules)
        found = made.resolve("xds://a", "reviews", None, "other.example")
        assert (found.via, found.listener.name) == ("mesh", "reviews")
        found = made.resolve("xds://a", "ratings", None, "ratings")
        assert (found.via, found.name, found.otherwise.via) == ("wait", "xdstp://a/L/ratings", "failed")
        gone = replace(part, absent={"xdstp://a/L/ratings": Absence(Fate.ABSENT, "is not there")})
        found = view(gone, **rules).resolve("xds://a", "ratings", None, "ratings")
        assert (found.via, found.reason) == ("failed", "is not there")

    def test_bs11_an_authority_that_is_not_there(self):
        found = view(Part("xds"), has_xds=True).resolve("xds://b", "reviews", None, "reviews")
        assert (found.via, found.reason) == ("failed", "the xDS bootstrap has no authority 'b'")

    @pytest.mark.parametrize(
        ("url", "asked"),
        [
            ("http://reviews", True),
            ("http://reviews.default.svc", True),
            ("http://reviews.default.svc.cluster.local", True),
            ("http://reviews.mesh", True),
            ("http://reviews.mesh.local", True),
            ("http://example.com", False),
            ("http://svc.example.com", False),
            ("http://10.0.0.1", False),
            ("http://[::1]", False),
        ],
    )
    def test_domains_that_are_asked_for(self, url, asked):
        assert (ask(view(has_xds=True), url).via == "wait") is asked

    def test_without_a_control_plane_nobody_waits(self):
        assert via(view(), "http://reviews") == ("direct", "")

    def test_what_is_known_to_be_absent_is_not_waited_for(self):
        absence = Absence(Fate.ABSENT, "listener 'reviews' was deleted by the server")
        made = view(Part("xds", absent={"reviews": absence}, listed=True), has_xds=True)
        found = ask(made, "http://reviews")
        # It is still asked for: an absent listener may come yet.
        assert (found.via, found.name) == ("direct", "reviews")
        assert "no listener reviews (listener 'reviews' was deleted by the server)" in found.reason

    def test_a_known_target_needs_no_domain(self):
        made = view(Part("file", targets={"api.example.com": listener("t")}))
        assert via(made, "http://api.example.com") == ("mesh", "t")


class TestViews:
    PART = Part(
        "xds",
        sidecar=(listener("sidecar", "reviews", address="0.0.0.0:80"),),
        targets={"reviews": listener("target"), "ratings": listener("target")},
    )

    @pytest.mark.parametrize(
        ("chosen", "reviews", "ratings"),
        [("auto", "sidecar", "target"), ("target", "target", "target"), ("sidecar", "sidecar", "")],
    )
    def test_view(self, chosen, reviews, ratings):
        made = view(self.PART, view=chosen, has_xds=True)
        assert via(made, "http://reviews")[1] == reviews
        assert via(made, "http://ratings")[1] == ratings

    def test_in_the_sidecar_view_the_first_configuration_is_waited_for(self):
        assert via(view(view="sidecar", has_xds=True), "http://reviews") == ("wait", "")
        assert via(view(Part("xds"), view="sidecar", has_xds=True), "http://reviews") == ("wait", "")
        assert via(view(LISTED, view="sidecar", has_xds=True), "http://reviews") == ("direct", "")
        assert via(view(view="sidecar", has_xds=True), "http://example.com") == ("direct", "")

    def test_a_file_is_of_both(self):
        part = Part("file", self.PART.services, self.PART.sidecar, self.PART.targets)
        assert via(view(part, view="target"), "http://reviews") == ("mesh", "sidecar")


UNROUTED = Listener("l", (FilterChain(http=HttpManager("r")),), (Address("127.0.0.1", 80),))
LISTED = Part("xds", listed=True)


class TestNotKnownYet:
    """What waits, and what holds when the time is over."""

    ABSENT = Absence(Fate.ABSENT, "listener 'reviews' does not exist")
    UNUSABLE = Absence(Fate.UNUSABLE, "listener 'reviews' was refused: …")
    UNANSWERED = Absence(Fate.UNANSWERED, "the server did not answer within 30 s")

    @staticmethod
    def outcome(part, url="http://reviews", **rules):
        """(what it is now, whether waiting may help, what it is in the end)"""
        found = ask(view(*part, has_xds=True, **rules), url)
        return found.via, found.open, (found.otherwise or found).via

    @pytest.mark.parametrize(
        ("part", "now", "helps", "end"),
        [
            ((), "wait", True, "direct"),
            ((Part("xds"),), "wait", True, "direct"),
            ((LISTED,), "wait", True, "direct"),
            ((Part("xds", absent={"reviews": ABSENT}),), "wait", True, "direct"),
            ((Part("xds", absent={"reviews": ABSENT}, listed=True),), "direct", False, "direct"),
            ((Part("xds", absent={"reviews": UNUSABLE}),), "wait", True, "failed"),
            ((Part("xds", absent={"reviews": UNUSABLE}, listed=True),), "failed", False, "failed"),
            ((Part("xds", absent={"reviews": UNANSWERED}, listed=True),), "wait", False, "direct"),
            ((Part("xds", unreached="refused"),), "wait", False, "direct"),
            ((Part("xds", sidecar=(UNROUTED,), listed=True),), "wait", True, "direct"),
            (
                (Part("xds", sidecar=(UNROUTED,), absent={"reviews": ABSENT}, listed=True),),
                "wait",
                True,
                "direct",
            ),
            ((Part("xds", targets={"reviews": UNROUTED}, listed=True),), "wait", True, "failed"),
            ((Part("xds", targets={"reviews": UNROUTED}, unreached="x"),), "wait", False, "failed"),
        ],
    )
    def test_a_name(self, part, now, helps, end):
        assert self.outcome(part) == (now, helps, end)
        # Whoever wants no direct call at a cold start gets none, unless the control plane said that there is no listener.
        strict = "direct" if now == "direct" else "failed"
        assert self.outcome(part, cold_start="fail")[2] == strict
        assert self.outcome(part, unknown="refuse")[2] == ("refused" if now == "direct" else "failed")

    def test_an_address(self):
        """It is of the mesh only once a listener has it; then it never goes direct."""
        for part in ((), (Part("xds"),), (Part("xds", unreached="x"),), (LISTED,)):
            assert self.outcome(part, "http://127.0.0.1") == ("direct", False, "direct")
        known = Part("xds", sidecar=(UNROUTED,), listed=True)
        assert self.outcome((known,), "http://127.0.0.1") == ("wait", True, "failed")
        assert self.outcome((known,), "http://127.0.0.2") == ("direct", False, "direct")

    def test_a_name_that_is_not_of_the_mesh(self):
        known = Part("xds", sidecar=(UNROUTED,), listed=True)
        for part in ((), (known,), (Part("xds", unreached="x"),)):
            assert self.outcome(part, "http://example.com") == ("direct", False, "direct")

    def test_a_listener_without_routes_is_of_its_own_port_only(self):
        absent = {"reviews:81": self.ABSENT}
        assert self.outcome(
            (Part("xds", sidecar=(UNROUTED,), absent=absent, listed=True),), "http://reviews:81"
        ) == (
            "direct",
            False,
            "direct",
        )

    def test_in_the_target_view_no_listeners_are_waited_for(self):
        part = Part("xds", absent={"reviews": self.ABSENT})
        assert self.outcome((part,), view="target") == ("direct", False, "direct")

    def test_the_words_say_what_is_true(self):
        """Never that there is no listener, as long as nobody said so."""
        rules = {"server": "10.0.0.1:18000"}
        silent = ask(view(has_xds=True, **rules), "http://reviews").otherwise.reason
        assert silent == (
            "the control plane 10.0.0.1:18000 has not answered: listener reviews is asked for, and not there yet: "
            "reviews is called directly"
        )
        away = ask(
            view(Part("xds", unreached="refused"), has_xds=True, **rules), "http://reviews"
        ).otherwise.reason
        assert away.startswith("the control plane 10.0.0.1:18000 is not reachable (refused): ")
        lacks = ask(view(Part("xds", sidecar=(UNROUTED,)), has_xds=True, **rules), "http://127.0.0.1")
        assert lacks.otherwise.reason == (
            "the control plane 10.0.0.1:18000 has not answered: route configuration r of listener l has not come yet"
        )
        assert "no listener" not in silent + away + lacks.reason


class TestSeen:
    """A listener's own settings hold before its routes are asked."""

    @staticmethod
    def resolution(**fields):
        manager = HttpManager(routes=routes("reviews", name="r"), **fields)
        made = Listener("l", (FilterChain(http=manager),), (Address("0.0.0.0", 9080),))
        return ask(view(Part("xds", sidecar=(made,))), "http://reviews:9080")

    def test_a_port_that_is_stripped_is_not_compared(self):
        assert self.resolution().via == "direct"
        found = self.resolution(strip_matching_port=True)
        assert found.via == "mesh"
        head = Head("GET", "http", "reviews:9080", "/")
        assert found.seen(head).authority == "reviews"
        assert head.authority == "reviews:9080"

    def test_nothing_to_do_costs_no_copy(self):
        head = Head("GET", "http", "reviews:9080", "//")
        assert ask(view(), "http://reviews").seen(head) is head
        found = ask(view(Part("static", services={"reviews": listener("r")})), "http://reviews")
        assert found.seen(head) is head


class TestRule6:
    def test_unknown_hosts(self):
        assert ask(view(), "http://example.com").via == "direct"
        found = ask(view(unknown="refuse"), "http://example.com")
        assert (found.via, found.routes) == ("refused", None)
        assert "example.com" in found.reason


class TestCompiling:
    def test_what_did_not_change_is_kept(self):
        kept, changed = listener("kept"), listener("changed")
        first = view(Part("static", services={"kept": kept, "changed": changed}))
        second = view(Part("static", services={"kept": kept, "changed": listener("changed")}), previous=first)
        assert ask(second, "http://kept").routes is ask(first, "http://kept").routes
        assert ask(second, "http://changed").routes is not ask(first, "http://changed").routes

    def test_where_only_clusters_differ_all_is_kept_but_the_answers(self):
        part = Part("xds", services={"a": listener("a")}, sidecar=(listener("l", "b", address="0.0.0.0:80"),))
        first = view(part)
        before = ask(first, "http://b")
        changed = replace(part, clusters={"c": Cluster("c")}, lacking={"d": ""})
        second = view(changed, previous=first)
        assert second is not first
        assert second.snapshot.parts == (changed,)
        assert second._services is first._services
        assert ask(second, "http://b") is not before  # what it suggests is of its own names
        assert (ask(second, "http://b").routes, ask(second, "http://b").via) == (before.routes, "mesh")

    @pytest.mark.parametrize(
        "other",
        [
            {"services": {"a": listener("a")}},
            {"sidecar": (listener("l", "b", address="0.0.0.0:80"),)},
            {"targets": {"t": listener("t")}},
            {"absent": {"t": Absence(Fate.ABSENT, "none")}},
            {"listed": True},
            {"unreached": "refused"},
        ],
    )
    def test_where_anything_else_differs_it_is_compiled(self, other):
        part = Part("xds", clusters={"c": Cluster("c")})
        first = view(part, has_xds=True)
        assert view(replace(part, **other), previous=first, has_xds=True)._services is not first._services
        assert view(part, previous=first, has_xds=True)._services is first._services
        assert view(part, previous=first)._services is not first._services
        assert view(part, part, previous=first, has_xds=True)._services is not first._services

    def test_one_configuration_in_two_places_is_compiled_once(self):
        one = listener("one")
        made = view(Part("static", services={"a": one, "b": one}))
        assert ask(made, "http://a").routes is ask(made, "http://b").routes

    def test_answers_are_remembered_but_not_without_bound(self):
        made = view(Part("static", services={"a": listener("a")}))
        assert ask(made, "http://a") is ask(made, "http://a")
        for number in range(10_000):
            ask(made, f"http://host-{number}")
        assert len(made._answers) <= 4096

    hosts = st.text("a.b:[]%/0", max_size=8)

    @given(st.sampled_from(["http", "https", "ws", ""]), hosts, st.none() | st.integers(0, 70_000), hosts)
    def test_any_host_has_an_answer(self, scheme, host, port, authority):
        part = Part("xds", {"a": listener("a")}, (listener("l", "a", "*.b", address="0.0.0.0:80"),))
        found = view(part, has_xds=True).resolve(scheme, host, port, authority)
        assert found.via in ("mesh", "direct", "wait")
        assert found.reason
