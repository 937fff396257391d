"""Virtual hosts and routes: precedence, every kind of path, conditions, and the index against a plain scan."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.domains import DomainIndex
from meshlib.core.match import compile_routes
from meshlib.core.paths import PathIndex
from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.model.match import (
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    RouteMatch,
    StringKind,
    StringMatch,
)
from meshlib.model.route import Edit, Forward, HeaderEdits, Redirect, Route, RouteConfiguration, VirtualHost


def head(path="/", authority="shop.test", *headers, method="GET", scheme="http"):
    return Head(method, scheme, authority, path, Headers.of(*headers))


def route(path, kind=PathKind.PREFIX, name="", *, case_sensitive=True, **match):
    return Route(RouteMatch(PathMatch(kind, path, case_sensitive), **match), Forward(cluster="c"), name)


def one_host(*routes, domains=("*",), **fields):
    return RouteConfiguration("r", (VirtualHost("v", domains, routes, **fields),))


def matched(config, request, random=lambda: 0.5):
    found = compile_routes(config).match(request, random)
    return found.name if found is not None else None


def never():
    raise AssertionError("no randomness is needed")


class TestVirtualHosts:
    """VH-01, VH-02, VH-03, DV-03."""

    DOMAINS = (
        "shop.test",
        "*.shop.test",
        "*-beta.shop.test",
        "*.test",
        "api.*",
        "api.shop.*",
        "shop.test:8080",
        "*",
    )

    @pytest.mark.parametrize(
        ("authority", "expected"),
        [
            ("shop.test", "shop.test"),
            ("SHOP.test", "shop.test"),
            ("web.shop.test", "*.shop.test"),
            ("a.b.shop.test", "*.shop.test"),
            ("x-beta.shop.test", "*-beta.shop.test"),
            ("-beta.shop.test", "*.shop.test"),
            ("api.shop.test", "*.shop.test"),
            ("api.shop.example", "api.shop.*"),
            ("api.other", "api.*"),
            ("api.", "*"),
            (".shop.test", "*.test"),
            ("shop.test:8080", "shop.test:8080"),
            ("shop.test:9090", "*"),
            ("elsewhere", "*"),
        ],
    )
    def test_exact_then_longest_suffix_then_longest_prefix_then_any(self, authority, expected):
        hosts = tuple(VirtualHost(domain, (domain,), (route("/"),)) for domain in reversed(self.DOMAINS))
        routes = compile_routes(RouteConfiguration("r", hosts))
        assert routes.virtual_host(authority).host.name == expected
        assert routes.knows(authority) is (expected != "*")

    def test_port_is_part_of_the_name_unless_it_is_to_be_ignored(self):
        plain = one_host(route("/"), domains=("shop.test",))
        ignoring = RouteConfiguration("r", plain.virtual_hosts, ignore_port=True)
        assert matched(plain, head(authority="shop.test:80")) is None
        assert matched(ignoring, head(authority="shop.test:80")) == "v/0"
        assert compile_routes(ignoring).knows("shop.test:1")

    def test_ipv6_keeps_its_brackets_when_the_port_goes(self):
        config = RouteConfiguration("r", (VirtualHost("v", ("[::1]",), (route("/"),)),), ignore_port=True)
        assert matched(config, head(authority="[::1]:80")) == "v/0"
        assert matched(config, head(authority="[::1]")) == "v/0"

    def test_listener_port_is_stripped_only_if_it_is_that_port(self):
        routes = compile_routes(one_host(route("/"), domains=("shop.test",)))
        assert routes.virtual_host("shop.test:80", 80) is not None
        assert routes.virtual_host("shop.test:81", 80) is None

    def test_first_of_two_with_one_domain_wins(self):
        index = DomainIndex([("a.test", 1), ("A.test", 2), ("*", 3), ("*", 4)])
        assert (index.find("a.test"), index.find("b.test")) == (1, 3)

    domains = st.lists(
        st.text("ab.", min_size=1, max_size=4).flatmap(lambda t: st.sampled_from([t, f"*{t}", f"{t}*", "*"])),
        max_size=8,
    )

    @given(domains, st.text("ab.", min_size=1, max_size=6))
    def test_index_agrees_with_the_rule(self, domains, authority):
        assert DomainIndex((domain, domain) for domain in domains).find(authority) == _best_domain(
            domains, authority
        )

    def test_all_must_be_secure_redirects_to_https_with_its_port(self):
        config = one_host(route("/"), require_tls="all")
        found = compile_routes(config).match(head("/x", "shop.test:8080"), never)
        assert found.route.action == Redirect(scheme="https", host="shop.test:8080")
        assert matched(config, head("/x", scheme="https")) == "v/0"

    def test_only_external_calls_must_be_secure(self):
        assert matched(one_host(route("/"), require_tls="external"), head("/x")) == "v/0"


def _best_domain(domains, authority):
    """VH-01 word by word."""
    if authority in domains:
        return authority
    suffixes = [d for d in domains if d.startswith("*") and d != "*" and authority.endswith(d[1:])]
    prefixes = [
        d for d in domains if d.endswith("*") and not d.startswith("*") and authority.startswith(d[:-1])
    ]
    for group in (suffixes, prefixes):
        longest = max((d for d in group if len(authority) >= len(d)), key=len, default=None)
        if longest is not None:
            return longest
    return "*" if "*" in domains else None


class TestPaths:
    """RM-01, RM-02, RM-03, RM-04."""

    @pytest.mark.parametrize(
        ("kind", "value", "path", "matches"),
        [
            (PathKind.PREFIX, "", "/any", True),
            (PathKind.PREFIX, "/a", "/abc", True),
            (PathKind.PREFIX, "/a", "/A", False),
            (PathKind.PREFIX, "/a?x", "/a?x=1", False),
            (PathKind.EXACT, "/a", "/a?x=1", True),
            (PathKind.EXACT, "/a", "/a#part", True),
            (PathKind.EXACT, "/a", "/a/", False),
            (PathKind.SEPARATED_PREFIX, "/a/b", "/a/b", True),
            (PathKind.SEPARATED_PREFIX, "/a/b", "/a/b/c", True),
            (PathKind.SEPARATED_PREFIX, "/a/b", "/a/b?c", True),
            (PathKind.SEPARATED_PREFIX, "/a/b", "/a/bc", False),
            (PathKind.REGEX, "/v[0-9]+", "/v12?q", True),
            (PathKind.REGEX, "/v[0-9]+", "/v12/x", False),
            (PathKind.REGEX, ".*x", "/a/x", True),
        ],
    )
    def test_kinds(self, kind, value, path, matches):
        assert (matched(one_host(route(value, kind)), head(path)) is not None) is matches

    def test_case_can_be_ignored_but_by_an_expression(self):
        for kind in (PathKind.PREFIX, PathKind.EXACT, PathKind.SEPARATED_PREFIX):
            assert matched(one_host(route("/Ab", kind, case_sensitive=False)), head("/aB")) == "v/0"
        assert matched(one_host(route("/Ab", PathKind.REGEX, case_sensitive=False)), head("/aB")) is None

    def test_first_match_wins_over_a_later_more_specific_one(self):
        config = one_host(route("/a", name="prefix"), route("/a/b", PathKind.EXACT, name="exact"))
        assert matched(config, head("/a/b")) == "prefix"

    def test_order_holds_over_all_kinds_of_path(self):
        config = one_host(
            route("/a/b", PathKind.EXACT, "gold", headers=(HeaderMatch("x-tier", present=True),)),
            route(
                "/A/B",
                PathKind.EXACT,
                "any case",
                case_sensitive=False,
                query=(QueryMatch("q", present=True),),
            ),
            route("/a/.*", PathKind.REGEX, "expression", headers=(HeaderMatch("x-late", present=True),)),
            route("/a", PathKind.SEPARATED_PREFIX, "separated"),
            route("", name="rest"),
        )
        assert matched(config, head("/a/b", "s", ("x-tier", "1"))) == "gold"
        assert matched(config, head("/a/b?q")) == "any case"
        assert matched(config, head("/a/b", "s", ("x-late", "1"))) == "expression"
        assert matched(config, head("/a/b")) == "separated"
        assert matched(config, head("/ab")) == "rest"

    def test_bytes_above_ascii_are_compared_as_utf8(self):
        assert matched(one_host(route("/café")), head("/café".encode().decode("latin-1"))) == "v/0"

    def test_a_route_without_a_name_says_where_it_stands(self):
        assert matched(one_host(route("/x"), route("/")), head("/")) == "v/1"


# --- the index against a plain scan -----------------------------------------------------------------------------------

TEXTS = st.lists(st.sampled_from(["/", "a", "b", "/a", "B", "/a/b"]), max_size=3).map("".join)
PATTERNS = st.sampled_from(["/a.*", "/(a|b)", ".*", "/a/[ab]*", "(?i)/A", "/a+", "", "/a?"])
PATHS = st.one_of(
    st.builds(
        PathMatch,
        st.sampled_from([PathKind.PREFIX, PathKind.EXACT, PathKind.SEPARATED_PREFIX]),
        TEXTS,
        st.booleans(),
    ),
    st.builds(PathMatch, st.just(PathKind.REGEX), PATTERNS, st.booleans()),
)
ROUTES = st.builds(
    RouteMatch,
    PATHS,
    st.sampled_from(
        [(), (HeaderMatch("x-a", present=True),), (HeaderMatch("x-b", StringMatch(StringKind.EXACT, "1")),)]
    ),
    st.sampled_from([(), (QueryMatch("q", present=True),)]),
    st.sampled_from([None, 0, 500_000, 1_000_000]),
)
REQUESTS = st.builds(
    lambda path, query, lines: head("/" + path + query, "h", *lines),
    TEXTS,
    st.sampled_from(["", "?", "?q", "?q=1&a"]),
    st.sampled_from([(), (("x-a", "1"),), (("x-b", "1"),), (("X-A", ""), ("x-b", "1"))]),
)


@given(
    st.lists(ROUTES, max_size=12),
    st.lists(REQUESTS, min_size=1, max_size=5),
    st.sampled_from([0.0, 0.49, 0.5, 0.99]),
)
def test_compiled_matching_agrees_with_a_plain_scan(matches, requests, drawn):
    config = one_host(*(Route(match, Forward(cluster="c")) for match in matches))
    routes = compile_routes(config)
    for request in requests:
        first = next((i for i, match in enumerate(matches) if _matches(match, request, drawn)), None)
        found = routes.match(request, lambda: drawn)
        assert (found.name if found else None) == (f"v/{first}" if first is not None else None)
        told = []
        assert routes.match(request, lambda: drawn, told) is found
        assert told


def _matches(match, request, drawn):
    """One route against one request, as the checklist says it."""
    path = request.path.partition("?")[0]
    value, kind = match.path.value, match.path.kind
    if kind is PathKind.REGEX:
        fits = re.fullmatch(value, path) is not None
    else:
        if not match.path.case_sensitive:
            path, value = path.lower(), value.lower()
        fits = {
            PathKind.PREFIX: path.startswith(value),
            PathKind.EXACT: path == value,
            PathKind.SEPARATED_PREFIX: path == value or path.startswith(value + "/"),
        }[kind]
    names = {name.lower(): value for name, value in request.headers}
    fits = fits and all(
        names.get(item.name) == "1" if item.string else item.name in names for item in match.headers
    )
    fits = fits and all(re.search(r"[?&]q(=|&|$)", request.path) for _ in match.query)
    return fits and (match.per_million is None or drawn * 1_000_000 < match.per_million)


class TestCost:
    def test_few_of_many_routes_are_asked(self):
        paths = [
            (PathMatch(kind, f"/{kind.value}/{number}/x"), True)
            for number in range(2000)
            for kind in PathKind
        ]
        index = PathIndex([*paths, (PathMatch(PathKind.PREFIX, "/"), True)])
        for kind in PathKind:
            assert len(list(index.candidates(f"/{kind.value}/1234/x"))) == 2

    def test_routes_behind_one_that_takes_all_are_left_out(self):
        index = PathIndex([(PathMatch(PathKind.PREFIX, "/"), True)] * 1000)
        assert list(index.candidates("/x")) == [0]

    def test_many_candidates_come_one_by_one_in_order(self):
        index = PathIndex([(PathMatch(PathKind.PREFIX, "/ab"[: 1 + n % 3]), False) for n in range(300)])
        assert list(index.candidates("/abc")) == list(range(300))

    def test_nothing_heavy_is_loaded_by_import(self):
        code = "import sys, meshlib.core.match, meshlib.core.resolve; sys.exit('re2' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestFraction:
    """RM-06."""

    def test_asked_once_for_all_fractions_of_a_call_and_only_when_reached(self):
        draws = []

        def random():
            draws.append(0.3)
            return 0.3

        config = one_host(
            route("/plain", PathKind.EXACT),
            route("/", name="fifth", per_million=200_000),
            route("/", name="third", per_million=300_000),
            route("/", name="half", per_million=500_000),
        )
        assert matched(config, head("/plain"), random) == "v/0"
        assert draws == []
        assert matched(config, head("/x"), random) == "half"
        assert draws == [0.3]

    def test_none_and_all(self):
        config = one_host(
            route("/", name="never", per_million=0), route("/", name="always", per_million=1_000_000)
        )
        assert matched(config, head(), lambda: 0.0) == "always"
        assert matched(config, head(), lambda: 0.999999999) == "always"


class TestTrace:
    def test_says_why_a_route_was_passed_over(self):
        config = one_host(
            route("/a", name="gold", headers=(HeaderMatch("x-tier", StringMatch(StringKind.EXACT, "gold")),)),
            route("/a", name="some", per_million=100_000),
            route("/", name="rest"),
        )
        told = []
        assert compile_routes(config).match(head("/a"), lambda: 0.5, told).name == "rest"
        assert told == [
            "virtual host v is for shop.test",
            'route gold (prefix "/a") does not match: header x-tier exact "gold"',
            'route some (prefix "/a") does not match: it is for 10 % of the calls, and this is none of them',
            "route rest (every path) matches",
        ]

    def test_says_that_nothing_is_for_the_host_or_the_path(self):
        routes = compile_routes(one_host(route("/a"), domains=("a.test",)))
        told = []
        assert routes.match(head("/", "b.test"), never, told) is None
        assert told == ["no virtual host of r is for b.test"]
        assert routes.match(head("/b", "a.test"), never, told) is None
        assert told[-1] == "no route of virtual host v matches /b"


def test_a_format_that_nobody_refused_in_time_is_left_out():
    edits = HeaderEdits(request_add=(Edit("x-bad", "%NOPE%"), Edit("x-good", "1")))
    routes = compile_routes(one_host(route("/"), edits=edits))
    found = routes.match(head(), never)
    assert found.compiled.request_head(None, head(), cluster="c").headers.to_dict() == {"x-good": "1"}


@pytest.mark.parametrize(
    ("path", "route_name"),
    [
        ("/a;v=1", "exact"),
        ("/a;v=1;w=2?x;y", "exact"),
        ("/a;v=1/b;c", "prefix"),
        ("/;v=1/a", None),
        ("/whole/x;y=z", "expression"),
        ("/part;p/x", "separated"),
    ],
)
def test_path_parameters_that_are_to_be_ignored(path, route_name):
    """Each line measured with Envoy 1.40."""
    kinds = {
        "exact": PathMatch(PathKind.EXACT, "/a"),
        "prefix": PathMatch(PathKind.PREFIX, "/a/b"),
        "expression": PathMatch(PathKind.REGEX, "/whole/[a-z]+"),
        "separated": PathMatch(PathKind.SEPARATED_PREFIX, "/part"),
    }
    routes = tuple(Route(RouteMatch(each), Forward(cluster="c"), name) for name, each in kinds.items())
    config = RouteConfiguration("r", (VirtualHost("v", ("*",), routes),), ignore_path_parameters=True)
    found = compile_routes(config).match(head(path), never)
    assert (found.name if found is not None else None) == route_name
    assert (
        found is None
        or compile_routes(replace(config, ignore_path_parameters=False)).match(head(path), never) is None
    )
