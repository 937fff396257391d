"""Rate limits that a control plane orders: a real Envoy beside meshlib, with the same listeners and the same rate limit service.

What is compared: what each call is answered, and what the service is asked about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import Upstream, build
from meshlib.testing.control_plane import ControlPlane
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.ports import Ports
from tests.support.rate_limit_server import RateLimitServer

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

LOCAL, LOCAL_TYPE = (
    "envoy.filters.http.local_ratelimit",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
)
GLOBAL, GLOBAL_TYPE = "envoy.filters.http.ratelimit", "envoy.extensions.filters.http.ratelimit.v3.RateLimit"
HERE_TYPE = "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute"
OFF = build.any_of("envoy.config.route.v3.FilterConfig", {"disabled": True})
ALL = {"default_value": {"numerator": 100}}
NONE = {"default_value": {"numerator": 0}}


def bucket(most: int, fill: int = 1, every: str = "1000s") -> dict[str, Any]:
    return {"max_tokens": most, "tokens_per_fill": fill, "fill_interval": every}


def local(**fields: Any) -> dict[str, Any]:
    given = {"stat_prefix": "l", "filter_enabled": ALL, "filter_enforced": ALL, **fields}
    return {"name": LOCAL, "typed_config": build.any_of(LOCAL_TYPE, given)}


def asking(domain: str = "d", **fields: Any) -> dict[str, Any]:
    service = {"grpc_service": {"envoy_grpc": {"cluster_name": "limits"}}, "transport_api_version": "V3"}
    given = {"domain": domain, "rate_limit_service": service, "timeout": "5s", **fields}
    return {"name": GLOBAL, "typed_config": build.any_of(GLOBAL_TYPE, given)}


def rule(*actions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"actions": list(actions), **fields}


def key(value: str, name: str = "") -> dict[str, Any]:
    return {"generic_key": {"descriptor_value": value, **({"descriptor_key": name} if name else {})}}


def header(name: str, to: str, **more: Any) -> dict[str, Any]:
    return {"request_headers": {"header_name": name, "descriptor_key": to, **more}}


def address(value: str, *ranges: tuple[str, int], invert: bool = False, **fields: str) -> dict[str, Any]:
    matcher = {
        "ranges": [{"address_prefix": prefix, "prefix_len": length} for prefix, length in ranges],
        "invert_match": invert,
    }
    return {"remote_address_match": {"descriptor_value": value, "address_matcher": matcher, **fields}}


def of_route(to: str, *path: str, **more: Any) -> dict[str, Any]:
    where = {"key": path[0], "path": [{"key": each} for each in path[1:]]}
    return {"metadata": {"descriptor_key": to, "metadata_key": where, "source": "ROUTE_ENTRY", **more}}


def edit(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}}


def own(name: str, typed: dict[str, Any]) -> dict[str, Any]:
    return {"typed_per_filter_config": {name: typed}}


def entry(*pairs: tuple[str, str], most: int = 1) -> dict[str, Any]:
    return {"entries": [{"key": name, "value": value} for name, value in pairs], "token_bucket": bucket(most)}


#: Filters, fields of the route's action, of the route, of the virtual host, and the calls: path and headers.
Case = tuple[
    list[dict[str, Any]], dict[str, Any], dict[str, Any], dict[str, Any], list[tuple[str, dict[str, str]]]
]
THREE = [("/", {})] * 3
HITS = {"hits_addend": {"number": 3}}
MATCH = {"name": "x-tier", "string_match": {"exact": "gold"}}
LIMITED_HEADERS = [edit("x-limited", "by %REQ(x-user)%")]

CASES: dict[str, Case] = {
    "global: the caller's address": (
        [asking()], {"rate_limits": [
            rule(address("mine", ("127.0.0.0", 8))),
            rule(address("other", ("10.0.0.0", 8), ("::", 0))),
            rule(address("no", ("10.0.0.0", 8), default_value="else", descriptor_key="from")),
            rule(address("not", ("10.0.0.0", 8), invert=True)),
            rule(address("neither", ("127.0.0.1", 32), invert=True, default_value="here")),
        ]}, {}, {}, [("/", {})],
    ),
    "global: hits of a format": (
        [asking(rate_limits=[rule(key("cost"), hits_addend={"format": "%REQ(x-cost)%"}), rule(key("other"))])],
        {}, {}, {},
        [("/", {"x-cost": cost}) for cost in ("7", "0", "x", "-1", "-0", "1000000000", "1000000001", "1.5", "1e3", "+7", ".9", "7x", "1_0", "1e")] + [("/", {})],
    ),
    "global: a route's metadata": (
        [asking()],
        {"include_vh_rate_limits": True, "rate_limits": [
            rule(of_route("plan", "team", "plan")),
            rule(of_route("deep", "team", "of", "a")),
            rule(of_route("number", "team", "number"), key("beside")),
            rule(of_route("none", "team", "none", default_value="else")),
            rule(of_route("skipped", "other", "plan", skip_if_absent=True), key("kept")),
        ]},
        {"metadata": {"filter_metadata": {"team": {"plan": "gold", "of": {"a": "b"}, "number": 7, "empty": ""}}}},
        {"rate_limits": [rule(of_route("host", "team", "plan")), rule(of_route("empty", "team", "empty", default_value="e"))]},
        [("/", {})],
    ),
    "local: two pass": ([local(token_bucket=bucket(2))], {}, {}, {}, THREE),
    "local: another status": ([local(token_bucket=bucket(1), status={"code": 503})], {}, {}, {}, THREE),
    "local: a status that is none": ([local(token_bucket=bucket(1), status={"code": 200})], {}, {}, {}, THREE),
    "local: off by default": (
        [{"name": LOCAL, "typed_config": build.any_of(LOCAL_TYPE, {"stat_prefix": "l", "token_bucket": bucket(1)})}],
        {}, {}, {}, THREE,
    ),
    "local: counted and not enforced": (
        [local(token_bucket=bucket(1), filter_enforced=NONE, request_headers_to_add_when_not_enforced=[edit("x-over", "yes")])],
        {}, {}, {}, THREE,
    ),
    "local: headers of a refusal": (
        [local(token_bucket=bucket(1), response_headers_to_add=LIMITED_HEADERS)],
        {}, {}, {}, [("/", {"x-user": "me"})] * 2,
    ),
    "local: what is left": (
        [local(token_bucket=bucket(2), enable_x_ratelimit_headers="DRAFT_VERSION_03")], {}, {}, {}, THREE,
    ),
    "local: no bucket": ([local()], {}, {}, {}, THREE),
    "local: of the route": (
        [local(token_bucket=bucket(3))], {},
        own(LOCAL, build.any_of(LOCAL_TYPE, {"stat_prefix": "r", "token_bucket": bucket(1), "filter_enabled": ALL, "filter_enforced": ALL})),
        {}, THREE,
    ),
    "local: off for the route": ([local(token_bucket=bucket(1))], {}, own(LOCAL, OFF), {}, THREE),
    "local: of the virtual host": (
        [local()], {}, {},
        own(LOCAL, build.any_of(LOCAL_TYPE, {"stat_prefix": "v", "token_bucket": bucket(2), "filter_enabled": ALL, "filter_enforced": ALL})),
        THREE,
    ),
    "local: descriptors": (
        [local(token_bucket=bucket(10), descriptors=[entry(("user", "a")), entry(("user", "b"), most=2)])],
        {"rate_limits": [rule(header("x-user", "user"))]}, {}, {},
        [("/", {"x-user": user}) for user in "aabbbcc"],
    ),
    "local: descriptors beside a bucket of all": (
        [local(token_bucket=bucket(3), descriptors=[entry(("user", "a"), most=2)])],
        {"rate_limits": [rule(header("x-user", "user"))]}, {}, {},
        [("/", {"x-user": user}) for user in "abaabb"],
    ),
    "local: descriptors instead of a bucket of all": (
        [local(token_bucket=bucket(1), descriptors=[entry(("user", "a"), most=2)], always_consume_default_token_bucket=False)],
        {"rate_limits": [rule(header("x-user", "user"))]}, {}, {},
        [("/", {"x-user": user}) for user in "aabab"],
    ),
    "local: two descriptors of one call": (
        [local(token_bucket=bucket(10), descriptors=[entry(("user", "a"), most=3), entry(("generic_key", "all"), most=2)],
               enable_x_ratelimit_headers="DRAFT_VERSION_03")],
        {"rate_limits": [rule(header("x-user", "user")), rule(key("all"))]}, {}, {},
        [("/", {"x-user": user}) for user in "aaaab"],
    ),
    "local: another stage": (
        [local(token_bucket=bucket(10), stage=2, descriptors=[entry(("generic_key", "two")), entry(("generic_key", "none"))])],
        {"rate_limits": [rule(key("none")), rule(key("two"), stage=2)]}, {}, {}, THREE,
    ),
    "local: rules of its own": (
        [local(token_bucket=bucket(10), descriptors=[entry(("generic_key", "mine"))], rate_limits=[rule(key("mine"))])],
        {"rate_limits": [rule(key("other"))]}, {}, {}, THREE,
    ),
    "global: nothing to ask": ([asking()], {}, {}, {}, [("/", {})]),
    "global: each kind of entry": (
        [asking("kinds")],
        {
            "rate_limits": [
                rule({"source_cluster": {}}, {"destination_cluster": {}}),
                rule({"remote_address": {}}),
                rule({"masked_remote_address": {"v4_prefix_mask_len": 8}}),
                rule(key("one"), key("two", "mine")),
                rule(header("x-user", "user"), header("x-none", "none", skip_if_absent=True)),
                rule(header("x-none", "none")),
                rule(header(":path", "path"), header(":method", "method"), header(":authority", "authority")),
                rule({"query_parameters": {"query_parameter_name": "q", "descriptor_key": "query"}}),
                rule({"header_value_match": {"descriptor_value": "gold", "headers": [MATCH]}}),
                rule({"header_value_match": {"descriptor_value": "no", "expect_match": False, "headers": [MATCH]}}),
                rule({"query_parameter_value_match": {
                    "descriptor_value": "has", "query_parameters": [{"name": "q", "present_match": True}]}}),
                rule({"metadata": {"descriptor_key": "m", "metadata_key": {"key": "none", "path": [{"key": "k"}]},
                                   "default_value": "else"}}),
                rule(key("hits"), **HITS),
                rule(key("later"), stage=1),
            ]
        },
        {}, {},
        [("/", {}), ("/p?q=1&q=2", {"x-user": "me", "x-tier": "gold"}), ("/?q", {"x-user": ""})],
    ),
    "global: a name that is the same for all": (
        [asking()], {"rate_limits": [rule(header("host", "host"))]}, {}, {}, [("/", {"host": "reviews"})],
    ),
    "global: over the limit": ([asking("over")], {"rate_limits": [rule(key("x"))]}, {}, {}, [("/", {})]),
    "global: over the limit, another status": (
        [asking("over", rate_limited_status={"code": 503}, disable_x_envoy_ratelimited_header=True,
                response_headers_to_add=LIMITED_HEADERS, enable_x_ratelimit_headers="DRAFT_VERSION_03")],
        {"rate_limits": [rule(key("x"))]}, {}, {}, [("/", {"x-user": "me"})],
    ),
    "global: not enforced": (
        [asking("over", filter_enforced=NONE)], {"rate_limits": [rule(key("x"))]}, {}, {}, [("/", {})],
    ),
    "global: not enabled": (
        [asking("over", filter_enabled=NONE)], {"rate_limits": [rule(key("x"))]}, {}, {}, [("/", {})],
    ),
    "global: under it, with lines": (
        [asking("fine", enable_x_ratelimit_headers="DRAFT_VERSION_03")],
        {"rate_limits": [rule(key("x"))]}, {}, {}, [("/", {})],
    ),
    "global: it fails": ([asking("fails")], {"rate_limits": [rule(key("x"))]}, {}, {}, [("/", {})]),
    "global: it fails, and that denies": (
        [asking("fails", failure_mode_deny=True)], {"rate_limits": [rule(key("x"))]}, {}, {}, [("/", {})],
    ),
    "global: it fails, another status": (
        [asking("fails", failure_mode_deny=True, status_on_error={"code": 503})],
        {"rate_limits": [rule(key("x"))]}, {}, {}, [("/", {})],
    ),
    "global: no answer in time": (
        [asking("hangs", timeout="1s", failure_mode_deny=True)],  # within which it must be asked
        {"rate_limits": [rule(key("x"))]}, {}, {}, [("/", {})],
    ),
    "global: calls of others": (
        [asking("over", request_type="internal"), local(token_bucket=bucket(1))],
        {}, {}, {}, [("/", {})] * 2,
    ),
    "global: the virtual host's where the route has none": (
        [asking()], {}, {}, {"rate_limits": [rule(key("host"))]}, [("/", {})],
    ),
    "global: the route's instead of the virtual host's": (
        [asking()], {"rate_limits": [rule(key("route"))]}, {}, {"rate_limits": [rule(key("host"))]}, [("/", {})],
    ),
    "global: both": (
        [asking()], {"rate_limits": [rule(key("route"))], "include_vh_rate_limits": True}, {},
        {"rate_limits": [rule(key("host"))]}, [("/", {})],
    ),
    "global: both by the filter at the route": (
        [asking()], {"rate_limits": [rule(key("route"))]},
        own(GLOBAL, build.any_of(HERE_TYPE, {"vh_rate_limits": "INCLUDE"})),
        {"rate_limits": [rule(key("host"))]}, [("/", {})],
    ),
    "global: none of the virtual host's": (
        [asking()], {}, own(GLOBAL, build.any_of(HERE_TYPE, {"vh_rate_limits": "IGNORE"})),
        {"rate_limits": [rule(key("host"))]}, [("/", {})],
    ),
    "global: rules and domain of the filter at the route": (
        [asking()], {"rate_limits": [rule(key("route"))]},
        own(GLOBAL, build.any_of(HERE_TYPE, {"domain": "another", "rate_limits": [rule(key("mine"))]})),
        {}, [("/", {})],
    ),
    "global: rules of the filter, and how often a call counts": (
        [asking(rate_limits=[rule(key("mine"), **HITS)])], {"rate_limits": [rule(key("route"))]}, {}, {}, [("/", {})],
    ),
    "global: at the route likewise": (
        [asking()], {"rate_limits": [rule(key("route"))]},
        own(GLOBAL, build.any_of(HERE_TYPE, {"rate_limits": [rule(key("mine"), **HITS)]})), {}, [("/", {})],
    ),
    "local: how often a call counts": (
        [local(token_bucket=bucket(10), descriptors=[entry(("generic_key", "mine"), most=5)], rate_limits=[rule(key("mine"), **HITS)])],
        {}, {}, {}, THREE,
    ),
    "global: off for the route": (
        [asking("over")], {"rate_limits": [rule(key("x"))]}, own(GLOBAL, OFF), {}, [("/", {})],
    ),
    "two filters": (
        [local(token_bucket=bucket(2)), asking("fine")], {"rate_limits": [rule(key("x"))]}, {}, {}, THREE,
    ),
}  # fmt: skip

LIMIT = {"name": "per-user", "requests_per_unit": 5, "unit": "MINUTE"}
STATUS = {"code": "OK", "current_limit": LIMIT, "limit_remaining": 4, "duration_until_reset": "30s"}


def answers(domain: str, descriptors: list[list[tuple[str, str]]]) -> dict[str, Any]:
    if domain == "over":
        return {
            "overall_code": "OVER_LIMIT",
            "statuses": [{**STATUS, "code": "OVER_LIMIT", "limit_remaining": 0}],
            "response_headers_to_add": [{"key": "x-from-service", "value": "over"}],
        }
    if domain == "fine":
        another = {
            "code": "OK",
            "current_limit": {"requests_per_unit": 100, "unit": "HOUR"},
            "limit_remaining": 90,
        }
        return {
            "overall_code": "OK",
            "statuses": [another, STATUS],
            "response_headers_to_add": [{"key": "x-from-service", "value": "fine"}],
            "request_headers_to_add": [{"key": "x-to-upstream", "value": "told"}],
        }
    if domain == "fails":
        return {"fail": True}
    return {"hang": True} if domain == "hangs" else {"overall_code": "OK"}


SEEN = (
    "x-envoy-ratelimited",
    "x-limited",
    "x-from-service",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
)
TOLD = ("x-over", "x-to-upstream")
Found = tuple[list[Any], list[Any]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Found, Found]]]:
    with ExitStack() as stack:
        upstream = stack.enter_context(Upstream("v1"))
        server = stack.enter_context(RateLimitServer(answers))
        held = Ports(len(CASES))
        stack.callback(held.close)
        ports = dict(zip(CASES, held.numbers, strict=True))
        http2 = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": build.any_of(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                {"explicit_http_config": {"http2_protocol_options": {}}},
            )
        }
        resources = [
            build.cluster("c", [upstream.address]),
            build.cluster("limits", [server.address], typed_extension_protocol_options=http2),
        ]
        for case, (filters, action, route, host_fields, _) in CASES.items():
            routed = build.route(cluster="c", **route)
            routed["route"] = {**routed["route"], **action}
            host = build.virtual_host("v", routed, domains=["*"], **host_fields)
            name = case.replace(" ", "-")
            address = f"127.0.0.1:{ports[case]}"
            resources.append(
                build.listener(name, build.route_config(name, host), filters=filters, address=address)
            )
        plane = stack.enter_context(ControlPlane(*resources))
        envoy = stack.enter_context(EnvoyProcess(plane.address, tmp_path_factory.mktemp("envoy")))
        envoy.wait_for_listeners(len(CASES))
        plain = stack.enter_context(httpx.Client(timeout=20))
        config: meshlib.ConfigDict = {
            "node": {"cluster": "oracle"},
            "xds": {"server": plane.address, "view": "sidecar"},
        }
        mesh = stack.enter_context(meshlib.Mesh(config))
        mesh.wait_ready(*(f"127.0.0.1:{port}" for port in held.numbers), timeout=30)
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))

        def ask(case: str) -> tuple[Found, Found]:
            found = []
            for each in (client, plain):
                server.taken()
                answered = []
                for path, headers in CASES[case][4]:
                    response = each.get(f"http://127.0.0.1:{ports[case]}{path}", headers=headers)
                    body = response.json()["headers"] if response.status_code == 200 else response.text
                    told = (
                        {name: dict(body).get(name) for name in TOLD} if response.status_code == 200 else body
                    )
                    answered.append(
                        (response.status_code, told, {name: response.headers.get(name) for name in SEEN})
                    )
                found.append((answered, server.taken()))
            return found[0], found[1]

        yield ask


@pytest.mark.parametrize("case", CASES)
def test_both_answer_alike_and_ask_alike(case: str, both: Callable[[str], tuple[Found, Found]]) -> None:
    (ours, asked), (theirs, asked_by_envoy) = both(case)
    assert ours == theirs
    assert asked == asked_by_envoy
