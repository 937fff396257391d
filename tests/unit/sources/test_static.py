from __future__ import annotations

import pytest

from meshlib.config import Config, IdentityConfig
from meshlib.core.match import compile_routes
from meshlib.model.address import Address
from meshlib.model.call import Head
from meshlib.model.cluster import Discovery
from meshlib.model.endpoint import Locality
from meshlib.model.headers import Headers
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.policy import Balancer, Breaker, Limits, RetryBudget
from meshlib.model.route import DirectResponse, Forward, HostRewriteKind, Redirect
from meshlib.model.tls import (
    Certificate,
    Pem,
    San,
    SanKind,
    SecretFrom,
    SecretKind,
    SecretName,
    Tls,
    Validation,
)
from meshlib.sources.static import NOBODY, StaticSource, build
from tests.support.sources_kit import Bench


def part(**services):
    return build(Config.from_mapping({"services": services}).services)


def routes_of(made, key):
    return made.services[key].http.routes.virtual_hosts[0].routes


def forward(made, key, index=-1):
    action = routes_of(made, key)[index].action
    assert isinstance(action, Forward)
    return action


def matched(made, key, method="GET", path="/", **headers):
    """The route that takes this call, by the real matcher."""
    compiled = compile_routes(made.services[key].http.routes)
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    found = compiled.match(Head(method, "http", key, path, Headers.of(*pairs)), lambda: 0.5)
    return None if found is None else found.route


class TestPlain:
    """A service of the configuration file has no timeout, retry, breaker or ejection unless written."""

    def test_nothing_is_done_that_is_not_written(self):
        made = part(reviews={"endpoints": ["10.0.0.1:8080"]})
        cluster, action = made.clusters["reviews"], forward(made, "reviews")
        assert made.services["reviews"].from_file
        assert (action.timeout, action.retry) == (None, None)
        assert (cluster.breaker, cluster.outlier, cluster.connect_timeout) == (None, None, None)
        assert cluster.limits == Limits.unlimited()
        assert cluster.discovery is Discovery.STATIC

    def test_endpoints_are_grouped_by_place_and_priority(self):
        made = part(
            reviews={
                "endpoints": [
                    "10.0.0.1:8080",
                    {"address": "10.0.0.2:8080", "weight": 3, "zone": "eu-1b", "region": "eu"},
                    {"address": "[::1]:8080", "priority": 1},
                    "unix:/run/reviews",
                    "reviews.internal:80",
                ]
            }
        )
        groups = made.clusters["reviews"].assignment.localities
        assert [(group.priority, group.locality, len(group.endpoints)) for group in groups] == [
            (0, Locality(), 3),
            (0, Locality("eu", "eu-1b"), 1),
            (1, Locality(), 1),
        ]
        assert groups[1].endpoints[0].weight == 3
        assert [str(each.address) for each in groups[0].endpoints] == [
            "10.0.0.1:8080",
            "unix:/run/reviews",
            "reviews.internal:80",
        ]
        assert groups[0].endpoints[2].hostname == "reviews.internal"

    def test_a_service_that_has_nothing_has_nobody_to_call(self):
        made = part(reviews={})
        assert made.clusters["reviews"].assignment.endpoints == ()

    def test_the_balancer(self):
        made = part(reviews={"endpoints": ["10.0.0.1:1"], "balancer": "least_request"})
        assert made.clusters["reviews"].balancing.kind is Balancer.LEAST_REQUEST


class TestNames:
    def test_dns_makes_every_record_an_endpoint(self):
        made = part(reviews={"dns": "reviews.internal:8080"})
        cluster = made.clusters["reviews"]
        assert cluster.discovery is Discovery.STRICT_DNS
        assert (cluster.dns[0].name, cluster.dns[0].port, cluster.dns_family) == (
            "reviews.internal",
            8080,
            "all",
        )
        assert len(cluster.assignment.localities) == 1

    def test_an_address_needs_no_dns(self):
        made = part(reviews={"dns": "10.0.0.9:8080"})
        assert made.clusters["reviews"].discovery is Discovery.STATIC
        assert made.clusters["reviews"].assignment.endpoints[0].address == Address("10.0.0.9", 8080)

    def test_srv(self):
        made = part(reviews={"srv": "_http._tcp.reviews.internal"})
        assert made.clusters["reviews"].discovery is Discovery.SRV
        assert made.clusters["reviews"].dns[0].name == "_http._tcp.reviews.internal"


class TestPolicies:
    def test_attempts_count_the_first(self):
        made = part(reviews={"endpoints": [], "retry": {"attempts": 3, "on": ["5xx"]}})
        assert forward(made, "reviews").retry.retries == 2

    def test_retry(self):
        retry = {
            "attempts": 4,
            "on": ["connect-failure"],
            "statuses": [409],
            "methods": ["get"],
            "per_try_timeout": 0.5,
            "budget": 0.2,
            "budget_min": 7,
            "backoff_base": 0.1,
        }
        made = forward(part(reviews={"endpoints": [], "retry": retry}), "reviews").retry
        assert made.on == {"connect-failure", "retriable-status-codes"}
        assert made.statuses == {409}
        assert made.methods == {"GET"}
        assert made.per_try_timeout == 0.5
        assert made.budget == RetryBudget(20.0, 7)
        assert (made.base_interval, made.max_interval) == (0.1, pytest.approx(1.0))

    def test_tenacity_strategies_are_handed_on(self):
        stop, wait = (lambda state: False), (lambda state: 0.0)
        made = part(reviews={"endpoints": [], "retry": {"stop": stop, "wait": wait}})
        retry = forward(made, "reviews").retry
        assert retry.stop is stop
        assert retry.wait is wait

    def test_breaker(self):
        made = part(reviews={"endpoints": [], "breaker": {"consecutive_failures": 2, "open_for": 3.0}})
        assert made.clusters["reviews"].breaker == Breaker(2, 3.0)

    def test_outlier(self):
        made = part(reviews={"endpoints": [], "outlier": {"consecutive_gateway": 3, "base_ejection": 400.0}})
        outlier = made.clusters["reviews"].outlier
        assert (outlier.consecutive_gateway, outlier.enforcing_gateway) == (3, 100)
        assert outlier.base_ejection == outlier.max_ejection == 400.0

    def test_limits(self):
        made = part(reviews={"endpoints": [], "limits": {"max_requests": 5}})
        assert made.clusters["reviews"].limits == Limits(None, None, 5, None)

    def test_timeout_and_its_absence_on_a_route(self):
        made = part(
            reviews={
                "endpoints": [],
                "timeout": 2.0,
                "routes": [{"match": {"prefix": "/slow"}, "timeout": 0}, {"match": {"prefix": "/a"}}],
            }
        )
        assert [forward(made, "reviews", index).timeout for index in range(3)] == [0, 2.0, 2.0]

    def test_idle_timeout_of_a_route(self):
        routes = [{"match": {"prefix": "/slow"}, "idle_timeout": 10}, {"match": {"prefix": "/a"}}]
        made = part(reviews={"endpoints": [], "routes": routes})
        assert [forward(made, "reviews", index).idle_timeout for index in range(3)] == [10.0, None, None]


class TestRoutes:
    def test_what_no_route_is_for_goes_to_the_endpoints(self):
        made = part(
            reviews={
                "endpoints": ["10.0.0.1:1"],
                "routes": [{"match": {"prefix": "/api"}, "service": "other"}],
            },
            other={"endpoints": ["10.0.0.2:1"]},
        )
        assert matched(made, "reviews", path="/api/1").action.cluster == "other"
        assert matched(made, "reviews", path="/").action.cluster == "reviews"
        assert matched(made, "reviews", "OPTIONS", "*").action.cluster == "reviews"

    def test_a_service_of_routes_only_has_no_cluster_and_no_last_route(self):
        made = part(
            reviews={"routes": [{"match": {"prefix": "/api"}, "service": "other"}]}, other={"endpoints": []}
        )
        assert "reviews" not in made.clusters
        assert matched(made, "reviews", path="/else") is None

    def test_a_split_by_weight(self):
        made = part(
            reviews={
                "routes": [
                    {
                        "match": {"prefix": "/api", "headers": {"x-tier": "gold"}},
                        "split": {"reviews-v1": 90, "reviews-v2": 10},
                    }
                ]
            }
        )
        weights = [(item.cluster, item.weight) for item in forward(made, "reviews").weighted]
        assert weights == [("reviews-v1", 90), ("reviews-v2", 10)]
        assert matched(made, "reviews", path="/api", x_tier="gold") is not None
        assert matched(made, "reviews", path="/api", x_tier="silver") is None

    def test_methods(self):
        made = part(reviews={"routes": [{"match": {"methods": ["get", "POST", "M*X"]}, "service": "a"}]})
        assert [
            bool(matched(made, "reviews", method)) for method in ("GET", "POST", "M*X", "MMX", "PUT")
        ] == [
            True,
            True,
            True,
            False,
            False,
        ]

    def test_paths_and_queries(self):
        made = part(
            reviews={
                "routes": [
                    {"name": "exact", "match": {"path": "/a"}, "service": "x"},
                    {"name": "below", "match": {"path_separated_prefix": "/b"}, "service": "x"},
                    {"name": "re", "match": {"regex": "/c[0-9]+"}, "service": "x"},
                    {"name": "query", "match": {"query": {"v": "2"}}, "service": "x"},
                ]
            }
        )
        names = {
            path: getattr(matched(made, "reviews", path=path), "name", None)
            for path in ("/a", "/a/b", "/b", "/b/c", "/bc", "/c12", "/c", "/z?v=2", "/z?v=3")
        }
        assert names == {
            "/a": "exact",
            "/a/b": None,
            "/b": "below",
            "/b/c": "below",
            "/bc": None,
            "/c12": "re",
            "/c": None,
            "/z?v=2": "query",
            "/z?v=3": None,
        }

    def test_header_matchers_of_every_kind(self):
        made = part(
            reviews={
                "routes": [
                    {"name": "range", "match": {"headers": {"n": {"range": [1, 5]}}}, "service": "x"},
                    {"name": "present", "match": {"headers": {"p": {"present": True}}}, "service": "x"},
                    {
                        "name": "invert",
                        "match": {"headers": {"i": {"exact": "a", "invert": True, "missing_as_empty": True}}},
                        "service": "x",
                    },
                ]
            }
        )
        assert matched(made, "reviews", n="4", i="a").name == "range"
        assert matched(made, "reviews", n="5", i="a") is None
        assert matched(made, "reviews", p="", i="a").name == "present"
        assert matched(made, "reviews").name == "invert"

    def test_a_percentage(self):
        made = part(reviews={"routes": [{"match": {"percent": 12.5}, "service": "x"}]})
        assert routes_of(made, "reviews")[0].match.per_million == 125_000

    def test_rewrites(self):
        made = part(
            reviews={
                "routes": [
                    {"match": {"prefix": "/a"}, "service": "x", "rewrite": "/b"},
                    {
                        "service": "x",
                        "rewrite": {"regex": "^/x", "substitution": "/y", "host": "reviews.internal"},
                    },
                ]
            }
        )
        assert forward(made, "reviews", 0).prefix_rewrite == "/b"
        second = forward(made, "reviews", 1)
        assert (second.regex_rewrite.pattern, second.regex_rewrite.substitution) == ("^/x", "/y")
        assert (second.host_rewrite.kind, second.host_rewrite.value) == (
            HostRewriteKind.LITERAL,
            "reviews.internal",
        )

    def test_answers_without_a_call(self):
        made = part(
            reviews={
                "routes": [
                    {"match": {"prefix": "/old"}, "redirect": {"prefix": "/new", "status": 308}},
                    {"match": {"prefix": "/ping"}, "response": {"status": 200, "body": "päng"}},
                    {"match": {"prefix": "/no"}, "response": {"status": 404}},
                ]
            }
        )
        redirect, ping, nothing = (route.action for route in routes_of(made, "reviews"))
        assert isinstance(redirect, Redirect)
        assert (redirect.status, redirect.prefix_rewrite) == (308, "/new")
        assert ping == DirectResponse(200, "päng".encode(), "text/plain")
        assert nothing == DirectResponse(404, b"", "")

    def test_header_edits(self):
        made = part(
            reviews={
                "endpoints": [],
                "routes": [
                    {
                        "request_headers": {"set": {"x-a": "1"}, "add": {"x-b": "2"}, "remove": ["x-c"]},
                        "response_headers": {"remove": ["server"]},
                    }
                ],
            }
        )
        edits = routes_of(made, "reviews")[0].edits
        assert [(edit.name, edit.value, edit.action.name) for edit in edits.request_add] == [
            ("x-a", "1", "OVERWRITE"),
            ("x-b", "2", "APPEND"),
        ]
        assert edits.request_remove == ("x-c",)
        assert edits.response_remove == ("server",)


class TestEdits:
    def services(self, **services):
        return Config.from_mapping({"services": services}).services

    def test_what_did_not_change_is_the_same_object(self):
        first = build(self.services(a={"endpoints": ["10.0.0.1:1"]}, b={"endpoints": ["10.0.0.2:1"]}))
        second = build(self.services(a={"endpoints": ["10.0.0.1:1"]}, b={"endpoints": ["10.0.0.3:1"]}), first)
        assert second.clusters["a"] is first.clusters["a"]
        assert second.services["a"] is first.services["a"]
        assert second.services["b"] is first.services["b"]
        assert second.clusters["b"] is not first.clusters["b"]

    def test_reconfigure_publishes_only_changes(self):
        services = self.services(a={"endpoints": ["10.0.0.1:1"]})
        bench = Bench(lambda merge, bench: [StaticSource(merge, services)])
        source = bench.merge.sources[0]
        assert bench.status("static").state == "ready"
        assert bench.status("static").resources == {"service": 1, "cluster": 1}
        before = len(bench.published)
        source.reconfigure(self.services(a={"endpoints": ["10.0.0.1:1"]}))
        bench.step()
        assert len(bench.published) == before
        source.reconfigure(self.services())
        bench.step()
        assert bench.parts["static"].services == {}


class TestTls:
    """What the ``tls`` of a service demands of a connection."""

    IDENTITY = IdentityConfig(provider="istio")
    MINE = SecretName("default", SecretKind.CERTIFICATE, SecretFrom.IDENTITY)
    ROOTS = SecretName("ROOTCA", SecretKind.CA, SecretFrom.IDENTITY)

    @staticmethod
    def made(identity=NOBODY, where=None, **tls):
        service = {**(where or {"endpoints": ["a:1"]}), "tls": tls}
        return build(Config.from_mapping({"services": {"a": service}}).services, identity=identity)

    def test_there_is_none_where_none_is_written(self):
        assert part(a={"endpoints": ["a:1"]}).clusters["a"].tls is None

    def test_an_empty_table_is_the_systems_roots_and_the_name(self):
        made = self.made()
        assert made.clusters["a"].tls == Tls(validation=Validation(system=True))
        assert made.identified == frozenset()

    @pytest.mark.parametrize(
        "where", [{"endpoints": ["a:1"]}, {"dns": "a:1"}, {"dns": "10.0.0.1:1"}, {"srv": "_a._tcp.b"}]
    )
    def test_it_is_of_every_kind_of_endpoint(self, where):
        tls = (
            self.made(where=where, ca="ca.pem", cert="c", key="k", sni="b", sans=["b", "10.0.0.1"])
            .clusters["a"]
            .tls
        )
        assert tls == Tls(
            sni="b",
            certificate=Certificate(Pem(file="c"), Pem(file="k")),
            validation=Validation(roots=Pem(file="ca.pem"), sans=(exactly("b"), exactly("10.0.0.1"))),
        )

    def test_without_a_pair_that_of_identity_is_shown(self):
        made = self.made(self.IDENTITY)
        assert made.clusters["a"].tls == Tls(validation=Validation(system=True), certificates=self.MINE)
        assert made.identified == {"a"}
        assert self.made(self.IDENTITY, cert="c", key="k").clusters["a"].tls.certificates is None

    def test_a_name_of_spiffe_is_trusted_by_the_roots_of_identity(self):
        sans = ["spiffe://td/ns/x/sa/y"]
        tls = self.made(self.IDENTITY, sans=sans).clusters["a"].tls
        assert (tls.roots, tls.validation) == (self.ROOTS, Validation(sans=(exactly(sans[0]),)))
        tls = self.made(self.IDENTITY, sans=sans, ca="ca.pem").clusters["a"].tls
        assert (tls.roots, tls.validation.roots) == (None, Pem(file="ca.pem"))

    def test_what_identity_does_not_have_is_not_asked_of_it(self):
        sans = ["spiffe://td/ns/x/sa/y"]
        only_roots = self.made(IdentityConfig(ca="r"), sans=sans).clusters["a"].tls
        assert (only_roots.certificates, only_roots.roots) == (None, self.ROOTS)
        only_pair = self.made(IdentityConfig(cert="c", key="k"), sans=sans).clusters["a"].tls
        assert (only_pair.certificates, only_pair.roots, only_pair.validation.system) == (
            self.MINE,
            None,
            True,
        )

    def test_an_identity_that_is_only_found_is_not_used(self):
        found = self.made(sans=["spiffe://td/ns/x/sa/y"])
        assert (found.clusters["a"].tls.secrets, found.clusters["a"].tls.validation.system) == ((), True)

    def test_an_edit_of_it_makes_another_cluster(self):
        before = self.made()
        services = Config.from_mapping(
            {"services": {"a": {"endpoints": ["a:1"], "tls": {"sni": "b"}}}}
        ).services
        assert build(services, before).clusters["a"].tls.sni == "b"

    def test_the_token_is_the_clusters(self):
        made = part(a={"endpoints": ["a:1"], "tls": {}, "token": "/run/token"}, b={"endpoints": ["b:1"]})
        assert [made.clusters[name].token for name in "ab"] == ["/run/token", ""]


def exactly(name):
    return San(SanKind.ANY, StringMatch(StringKind.EXACT, name))
