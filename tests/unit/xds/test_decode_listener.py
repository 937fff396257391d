"""Listeners in both views, their filters, and what is refused of them."""

from __future__ import annotations

import pytest

from meshlib.model.address import Address
from meshlib.model.edits import Edit, EditAction, Removal
from meshlib.model.listener import (
    ChainMatch,
    Discovered,
    EscapedSlashes,
    FilterKind,
    HttpFilter,
    ProxyStatus,
    Source,
    Underscores,
)
from meshlib.model.match import HeaderMatch, StringKind, StringMatch
from meshlib.model.matcher import MatcherList
from meshlib.model.policy import Fault, HashKind
from meshlib.model.route import Forward
from meshlib.model.subset import labels_of
from meshlib.model.tls import SecretFrom, SecretKind, SecretName
from meshlib.testing import build
from meshlib.xds import decode, schema
from tests.support.matchers import INPUTS, chain_named, extension
from tests.support.xds_kit import istio, message, raw

ROUTES = build.route_config("r", build.virtual_host("v", build.route(cluster="a")))
HTTP = "type.googleapis.com/envoy.extensions.filters.http."
LISTENER_FILTERS = "type.googleapis.com/envoy.extensions.filters.listener."


def typed(kind, **fields):
    return {"name": kind.rpartition(".")[2], "typed_config": {"@type": kind, **fields}}


ADDRESS, PORT = f"{INPUTS}DestinationIPInput", f"{INPUTS}DestinationPortInput"
SINGLE = "matcher_list.matchers[0].predicate.single_predicate"


def port_is(matches, source=PORT):
    """A matcher that leads to the chain `a` where the port is so."""
    predicate = {"single_predicate": {"input": extension(source), **matches}}
    return {"matcher_list": {"matchers": [{"predicate": predicate, "on_match": chain_named("a")}]}}


def struct(kind, **value):
    """A filter that the schema does not know, in the way in which Istio sends some."""
    return typed(
        "type.googleapis.com/udpa.type.v1.TypedStruct", type_url=f"type.googleapis.com/{kind}", value=value
    )


def named(name, **fields):
    return {"name": name, **fields}


FILTERS = "envoy.extensions.filters."
RBAC = f"{FILTERS}http.rbac.v3.RBAC"
ROUTER = f"{FILTERS}http.router.v3.Router"
DELEGATE = "envoy.extensions.common.matching.v3.ExtensionWithMatcher"
COMPOSITE = f"{FILTERS}http.composite.v3.Composite"
OFF = build.any_of("envoy.config.route.v3.FilterConfig", {"disabled": True})
GUARDS = (
    "http.rbac.v3.RBAC",
    "http.ext_authz.v3.ExtAuthz",
    "http.jwt_authn.v3.JwtAuthentication",
    "http.oauth2.v3.OAuth2",
    "http.basic_auth.v3.BasicAuth",
    "http.api_key_auth.v3.ApiKeyAuth",
    "http.csrf.v3.CsrfPolicy",
)
NO_GUARDS = (
    "cors.v3.Cors",
    "gcp_authn.v3.GcpAuthnFilterConfig",
    "ip_tagging.v3.IPTagging",
    "lua.v3.Lua",
)
PROGRAMS = {
    "http.ext_proc.v3.ExternalProcessor": {"failure_mode_allow": True},
    "http.wasm.v3.Wasm": {"config": {"fail_open": True}},
    "network.ext_proc.v3.NetworkExternalProcessor": {"failure_mode_allow": True},
    "network.wasm.v3.Wasm": {"config": {"failure_policy": "FAIL_OPEN"}},
}
NULL = {"config": {"vm_config": {"runtime": "envoy.wasm.runtime.null", "vm_id": "stats"}}}
REFUSES = {"inlineCode": "function envoy_on_request(h) h:respond({[':status'] = '403'}) end"}
EXT_PROC = f"{FILTERS}http.ext_proc.v3.ExternalProcessor"
LUA, GO = f"{FILTERS}http.lua.v3.Lua", f"{FILTERS}http.golang.v3alpha.Config"


#: Where nothing is asked for.
ELSEWHERE = {"path_config_source": {"path": "/filters.yaml"}}


def discovered(**fields):
    """A filter that comes by ECDS."""
    return {"name": "found", "config_discovery": {"config_source": {"ads": {}}, **fields}}


def delegate(inner):
    """A filter that runs another one, as Envoy's match delegate."""
    return {
        "name": "delegate",
        "typed_config": build.any_of(DELEGATE, {"extension_config": {"name": "i", "typed_config": inner}}),
    }


def forward(manager):
    """Where a chain of TCP leads."""
    (host,) = manager.routes.virtual_hosts
    return host.routes[0].action


def cidr(prefix, length):
    return {"address_prefix": prefix, "prefix_len": length}


def good(resource, view="auto"):
    found = decode.listener(raw(resource), view)
    assert found.problems == ()
    return found.value


def problems(resource, view="auto"):
    found = decode.listener(raw(resource), view)
    assert found.value is None
    return found.problems


def ignored(resource):
    found = decode.listener(raw(resource))
    assert found.problems == ()
    return dict(found.ignored)


class TestViews:
    def test_target(self):
        made = good(build.api_listener("a:80", "r"))
        assert (made.api, made.addresses, made.http.route_name) == (True, (), "r")

    def test_ld_01_istio_sends_both_and_the_api_listener_holds(self):
        both = build.api_listener("a:80", "r", address=build.socket_address("10.0.0.1:80"))
        assert good(both).api
        assert good(both).addresses == ()
        assert not good(both, "sidecar").api

    def test_sidecar(self):
        made = good(build.listener("l", ROUTES, address="127.0.0.1:8001"))
        assert (made.api, made.outbound, made.addresses) == (False, True, (Address("127.0.0.1", 8001),))
        assert made.http.routes.virtual_hosts[0].routes[0].action.cluster == "a"

    def test_ld_01_a_socket_listener_for_a_target_is_no_problem_of_the_resource(self):
        assert not good(build.listener("l", ROUTES), "target").api

    def test_ld_01_neither(self):
        assert problems(build.any_of("envoy.config.listener.v3.Listener", {"name": "l"})) == (
            "neither api_listener nor address is set",
        )

    def test_an_api_listener_of_another_kind(self):
        resource = build.api_listener("l", "r")
        resource["api_listener"]["api_listener"] = {"@type": "type.googleapis.com/google.protobuf.Empty"}
        assert problems(resource)[0].startswith(
            "api_listener.api_listener: must hold envoy.extensions.filters.network"
        )

    def test_inbound_chains_are_nobodys_business(self):
        guard = struct("envoy.extensions.filters.http.rbac.v3.RBAC")
        made = good(build.listener("l", ROUTES, filters=[guard], traffic_direction="INBOUND"))
        assert (made.outbound, made.chains) == (False, ())


class TestRoutes:
    def test_ld_02_exactly_one(self):
        resource = build.api_listener("l", "r")
        del resource["api_listener"]["api_listener"]["rds"]
        assert problems(resource)[0].endswith("one of rds and route_config must be set")

    def test_ld_02_only_from_this_stream(self):
        resource = build.api_listener("l", "")
        resource["api_listener"]["api_listener"]["rds"]["config_source"] = {"path": "/x"}
        found = problems(resource)
        assert [text.partition(": ")[0] for text in found] == [
            "api_listener.api_listener.rds.config_source.path",
            "api_listener.api_listener.rds.route_config_name",
        ]

    def test_problems_of_inline_routes_have_their_path(self):
        bad = build.route_config("r", build.virtual_host("v", build.route(regex="(", cluster="a")))
        assert problems(build.listener("l", bad))[0].startswith(
            "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].match.safe_regex.regex: "
        )

    def test_scoped_routes(self):
        resource = build.api_listener("l", "r")
        manager = resource["api_listener"]["api_listener"]
        del manager["rds"]
        manager["scoped_routes"] = {}
        assert "scoped_routes" in problems(resource)[0]

    def test_manager(self):
        options = {
            "common_http_protocol_options": {"max_stream_duration": "7s"},
            "normalize_path": True,
            "merge_slashes": True,
            "strip_any_host_port": True,
        }
        made = good(build.api_listener("l", "r", manager=options)).http
        assert made.max_stream_duration == 7.0
        assert (made.normalize_path, made.merge_slashes, made.strip_any_port) == (True, True, True)

    def test_what_a_manager_does_to_heads_and_replies(self):
        options = {
            "strip_trailing_host_dot": True,
            "scheme_header_transformation": {"scheme_to_overwrite": "https"},
            "add_user_agent": True,
            "append_x_forwarded_port": True,
            "server_name": "edge",
            "server_header_transformation": "APPEND_IF_ABSENT",
        }
        resource = build.listener("l", ROUTES, manager=options)
        made = good(resource).http
        assert ignored(resource) == {}
        assert (made.strip_trailing_dot, made.scheme, made.user_agent, made.forwarded_port) == (
            True,
            "https",
            True,
            True,
        )
        assert (made.server_name, made.keeps_server) == ("edge", True)
        options["server_header_transformation"] = "PASS_THROUGH"
        assert good(build.listener("l", ROUTES, manager=options)).http.server_name == ""

    @pytest.mark.parametrize(
        ("given", "read"),
        [
            ("IMPLEMENTATION_SPECIFIC_DEFAULT", EscapedSlashes.KEEP),
            ("KEEP_UNCHANGED", EscapedSlashes.KEEP),
            ("REJECT_REQUEST", EscapedSlashes.REJECT),
            ("UNESCAPE_AND_REDIRECT", EscapedSlashes.REDIRECT),
            ("UNESCAPE_AND_FORWARD", EscapedSlashes.FORWARD),
        ],
    )
    def test_escaped_slashes(self, given, read):
        resource = build.listener("l", ROUTES, manager={"path_with_escaped_slashes_action": given})
        assert good(resource).http.escaped_slashes is read

    @pytest.mark.parametrize(
        ("given", "read"),
        [
            ("ALLOW", Underscores.ALLOW),
            ("REJECT_REQUEST", Underscores.REJECT),
            ("DROP_HEADER", Underscores.DROP),
            (9, Underscores.REJECT),  # as in Envoy
        ],
    )
    def test_underscores(self, given, read):
        manager = {"common_http_protocol_options": {"headers_with_underscores_action": given}}
        resource = build.listener("l", ROUTES, manager=manager)
        assert good(resource).http.underscores is read
        assert ignored(resource) == {}

    @pytest.mark.parametrize(
        ("options", "place"),
        [
            ({"path_with_escaped_slashes_action": 9}, "path_with_escaped_slashes_action: 9 is not known"),
            (
                {"scheme_header_transformation": {"scheme_to_overwrite": "ftp"}},
                "scheme_to_overwrite: must be",
            ),
            ({"server_name": "a\r\nb: c"}, "server_name: must not hold a line break"),
        ],
    )
    def test_wrong_values_of_a_manager(self, options, place):
        assert place in problems(build.listener("l", ROUTES, manager=options))[0]

    @pytest.mark.parametrize(
        ("options", "field"),
        [
            ({"use_remote_address": True}, "use_remote_address"),
            ({"use_remote_address": False}, ""),
            ({"forward_client_cert_details": "APPEND_FORWARD"}, "forward_client_cert_details"),
            ({"forward_client_cert_details": "ALWAYS_FORWARD_ONLY"}, ""),
            ({"generate_request_id": True}, ""),
            ({"generate_request_id": False}, ""),
            ({"internal_address_config": {"unix_sockets": True}}, ""),
            ({"proxy_status_config": {}}, ""),
            ({"scheme_header_transformation": {"match_upstream": True}}, ""),
        ],
    )
    def test_what_changes_a_call_and_is_not_honoured_is_told(self, options, field):
        found = ignored(build.listener("l", ROUTES, manager=options))
        here = "filter_chains[0].filters[0].typed_config."
        assert [place.removeprefix(here) for place in found] == ([field] if field else [])

    def test_ld_08_limits_of_requests_and_streams(self):
        common = {"max_headers_count": 5, "max_stream_duration": "8s"}
        options = {
            "common_http_protocol_options": common,
            "max_request_headers_kb": 2,
            "request_timeout": "3s",
            "stream_idle_timeout": "0s",
        }
        resource = build.listener("l", ROUTES, manager=options)
        found = good(resource).http
        assert (found.most_lines, found.most_head, found.max_stream_duration) == (5, 2048, 8.0)
        assert (found.request_timeout, found.stream_idle_timeout) == (3.0, 0.0)
        assert ignored(resource) == {}
        for wrong in (
            {"max_request_headers_kb": 0},
            {"max_request_headers_kb": 8193},
            {"common_http_protocol_options": {"max_headers_count": 0}},
        ):
            assert len(problems(build.listener("l", ROUTES, manager=wrong))) == 1

    def test_ld_07(self):
        options = {"xff_num_trusted_hops": 1, "original_ip_detection_extensions": [{"name": "x"}]}
        assert len(problems(build.api_listener("l", "r", manager=options))) == 2
        assert good(build.listener("l", ROUTES, manager=options))


class TestFilters:
    def test_the_router(self):
        [found] = good(build.api_listener("l", "r")).http.filters
        assert found.kind == "router"

    @pytest.mark.parametrize("make", [build.api_listener, build.listener])
    def test_ld_03(self, make):
        router = dict(build.ROUTER)
        assert problems(make("l", ROUTES, manager={"http_filters": []}))[0].endswith(
            "http_filters: must not be empty: the router is missing"
        )
        twice = problems(make("l", ROUTES, manager={"http_filters": [router, router]}))
        # To Envoy two filters may have one name.
        assert any("is there twice" in text for text in twice) is (make is build.api_listener)
        assert any("the router must be the last filter" in text for text in twice)
        unnamed = problems(make("l", ROUTES, manager={"http_filters": [{**router, "name": ""}]}))
        assert unnamed[0].endswith("http_filters[0].name: must not be empty")

    @pytest.mark.parametrize("make", [build.api_listener, build.listener])
    @pytest.mark.parametrize("name", ["my.filter", "envoy.filters.http.cors"])
    def test_a_filter_without_a_configuration_is_refused_unless_optional(self, make, name):
        found = problems(make("l", ROUTES, filters=[named(name)]))
        assert found[0].endswith("http_filters[0].typed_config: is missing")
        assert good(make("l", ROUTES, filters=[{**named(name), "is_optional": True}]))

    @pytest.mark.parametrize("make", [build.api_listener, build.listener])
    def test_the_last_filter_is_not_disabled(self, make):
        filters = [{**build.ROUTER, "disabled": True}]
        assert problems(make("l", ROUTES, manager={"http_filters": filters}))[0].endswith(
            "[0].disabled: the last filter must not be disabled"
        )

    def test_ld_04_unknown(self):
        unknown = struct("my.Filter")
        assert (
            "is not supported and not optional"
            in problems(build.api_listener("l", "r", filters=[unknown]))[0]
        )
        assert good(build.api_listener("l", "r", filters=[{**unknown, "is_optional": True}]))
        found = ignored(build.listener("l", ROUTES, filters=[unknown]))
        assert list(found) == ["filter_chains[0].filters[0].typed_config.http_filters[0]"]

    def test_ld_04_a_typed_struct_is_told_by_the_type_it_means(self):
        found = ignored(build.listener("l", ROUTES, filters=[struct("my.Filter")]))
        assert list(found.values()) == ["my.Filter"]

    @pytest.mark.parametrize(
        "guard",
        [
            struct("envoy.extensions.filters.http.rbac.v3.RBAC"),
            struct("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"),
            struct("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"),
            named("envoy.filters.http.rbac"),
        ],
    )
    def test_who_may_pass_is_never_left_to_chance(self, guard):
        for optional in (False, True):
            found = problems(build.listener("l", ROUTES, filters=[{**guard, "is_optional": optional}]))
            assert "decides who may pass" in found[0]
        assert "decides who may pass" in problems(build.api_listener("l", "r", filters=[guard]))[0]
        assert good(build.api_listener("l", "r", filters=[{**guard, "is_optional": True}]))  # A39

    @pytest.mark.parametrize("disabled", [False, True])
    def test_ld_05_disabled(self, disabled):
        other = {**struct("my.Filter"), "disabled": True}
        assert ignored(build.listener("l", ROUTES, filters=[other])) == {}
        guard = {**struct(RBAC), "disabled": True, "is_optional": disabled}
        resource = build.listener("l", ROUTES, filters=[guard])
        assert good(resource).http.filters[0] == HttpFilter("TypedStruct", FilterKind.GUARD, True)
        assert ignored(resource) == {
            "filter_chains[0].filters[0].typed_config.http_filters[0]": (
                f"{RBAC} decides who may pass, and is not supported: what it covers is answered 403"
            )
        }

    @pytest.mark.parametrize(
        ("fields", "fault"),
        [
            ({}, Fault()),
            (
                {
                    "delay": {"fixed_delay": "0.5s", "percentage": {"numerator": 10}},
                    "abort": {"http_status": 503, "percentage": {"numerator": 7, "denominator": "MILLION"}},
                    "upstream_cluster": "c",
                    "headers": [{"name": "X", "present_match": True}],
                    "max_active_faults": 3,
                },
                Fault(
                    0.5, 100_000, 503, 7, abort_unit=1, cluster="c", headers=(HeaderMatch("x", present=True),), most=3
                ),
            ),
            ({"abort": {"grpc_status": 14, "percentage": {"numerator": 100}}}, Fault(abort_per_million=1_000_000, abort_code=14)),
            (
                {
                    "delay": {"header_delay": {}, "percentage": {"numerator": 50, "denominator": "TEN_THOUSAND"}},
                    "abort": {"header_abort": {}},
                },
                Fault(delay_per_million=5_000, delay_by_header=True, delay_unit=100, abort_by_header=True),
            ),
            ({"abort": {"http_status": 200}}, Fault(abort=200)),
            ({"abort": {"http_status": 599}}, Fault(abort=599)),
            ({"abort": {"grpc_status": 0}}, Fault(abort_code=0)),
            ({"abort": {"grpc_status": 16}}, Fault(abort_code=16)),
        ],
    )  # fmt: skip
    def test_faults(self, fields, fault):
        """FI-01 to FI-04."""
        resource = build.listener("l", ROUTES, filters=[typed(f"{HTTP}fault.v3.HTTPFault", **fields)])
        found = good(resource).http.filters[0]
        assert (found.kind, found.fault) == (FilterKind.FAULT, fault)
        assert ignored(resource) == {}

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"abort": {"http_status": 199}}, "abort.http_status: must be 200 to 599, not 199"),
            ({"abort": {"http_status": 600}}, "abort.http_status: must be 200 to 599, not 600"),
            ({"abort": {"grpc_status": 17}}, "abort.grpc_status: must be a code of gRPC, not 17"),
            (
                {"abort": {"percentage": {"numerator": 1}}},
                "abort: one of http_status, grpc_status and header_abort",
            ),
            ({"delay": {"percentage": {"numerator": 1}}}, "delay: one of fixed_delay and header_delay"),
        ],
    )
    def test_a_fault_that_is_none(self, fields, words):
        fault = typed(f"{HTTP}fault.v3.HTTPFault", **fields)
        [problem] = decode.listener(raw(build.listener("l", ROUTES, filters=[fault]))).problems
        assert f"http_filters[0].typed_config.{words}" in problem

    def test_a_fault_that_cannot_be_read_is_told(self):
        unread = build.listener("l", ROUTES, filters=[struct(f"{FILTERS}http.fault.v3.HTTPFault")])
        assert len(ignored(unread)) == 1
        empty = build.listener(
            "l", ROUTES, filters=[{**named("envoy.filters.http.fault"), "is_optional": True}]
        )
        assert good(empty).http.filters[0] == HttpFilter("envoy.filters.http.fault", FilterKind.FAULT)

    @pytest.mark.parametrize(
        "guard",
        [
            *(struct(f"{FILTERS}{kind}") for kind in GUARDS),
            struct("envoy.config.filter.http.ext_authz.v2.ExtAuthz"),
            struct("envoy.config.filter.http.jwt_authn.v2alpha.JwtAuthentication"),
            struct("istio.envoy.config.filter.http.authn.v2alpha1.FilterConfig"),
            {**struct(RBAC), "name": "any name at all"},
            typed("type.googleapis.com/xds.type.v3.TypedStruct", type_url=RBAC, value={}),
            named("envoy.filters.http.basic_auth/httproute/default/a"),
            *(
                named(f"envoy.{kind}")
                for kind in ("ext_authz", "csrf", "filters.http.jwt_authn", "filters.http.oauth2")
            ),
            named("istio_authn"),
            {**typed("type.googleapis.com/google.protobuf.Struct", value={}), "name": "envoy.ext_authz"},
            discovered(config_source=ELSEWHERE, type_urls=[f"type.googleapis.com/{RBAC}"]),
            discovered(
                config_source=ELSEWHERE,
                type_urls=["type.googleapis.com/my.Filter", f"type.googleapis.com/{RBAC}"],
            ),
            discovered(
                config_source=ELSEWHERE,
                type_urls=["type.googleapis.com/my.Filter"],
                default_config=struct(RBAC)["typed_config"],
            ),
            discovered(config_source=ELSEWHERE, type_urls=[f"type.googleapis.com/{DELEGATE}"]),
            discovered(config_source=ELSEWHERE, type_urls=[]),
            delegate(build.any_of(RBAC)),
            delegate(delegate(build.any_of(RBAC))["typed_config"]),
            delegate(build.any_of(COMPOSITE, {"of": build.any_of(RBAC)})),
            struct(f"{FILTERS}http.filter_chain.v3.FilterChainConfig", filters=[build.any_of(RBAC)]),
            *(struct(f"{FILTERS}{kind}") for kind in PROGRAMS if kind.startswith("http.")),
            typed(f"type.googleapis.com/{EXT_PROC}", failure_mode_allow=False),
            struct(EXT_PROC, failure_mode_allow="it cannot be read"),
            struct(f"{FILTERS}http.ext_proc.v3alpha.ExternalProcessor", failure_mode_allow=True),
            struct(f"{FILTERS}http.wasm.v3.Wasm", config={"failure_policy": "FAIL_RELOAD"}),
            struct(LUA, **REFUSES),
            struct(GO, library_id="a"),
            struct(f"{FILTERS}http.dynamic_modules.v3.DynamicModuleFilter"),
            {**typed("type.googleapis.com/google.protobuf.Struct", value={}), "name": "envoy.ext_proc"},
            discovered(config_source=ELSEWHERE, type_urls=[f"type.googleapis.com/{LUA}"]),
            delegate(build.any_of(EXT_PROC)),
            delegate(struct(LUA, **REFUSES)["typed_config"]),
        ],
        ids=str,
    )
    def test_every_way_in_which_a_guard_comes(self, guard):
        for view in (build.listener, build.api_listener):
            assert "decides who may pass" in problems(view("l", ROUTES, filters=[guard]))[0]
        made = good(build.listener("l", ROUTES, filters=[{**guard, "disabled": True}]))
        assert made.http.filters[0] == HttpFilter(guard["name"], FilterKind.GUARD, True)

    @pytest.mark.parametrize(
        ("fields", "kind", "default"),
        [
            ({}, FilterKind.GUARD, None),
            ({"default_config": build.any_of(ROUTER)}, FilterKind.GUARD, FilterKind.ROUTER),
            ({"default_config": struct(RBAC)["typed_config"]}, FilterKind.GUARD, FilterKind.GUARD),
            (
                {
                    "default_config": struct(f"{FILTERS}http.cors.v3.Cors")["typed_config"],
                    "apply_default_config_without_warming": True,
                },
                FilterKind.OTHER,
                FilterKind.OTHER,
            ),
            ({"apply_default_config_without_warming": True}, FilterKind.GUARD, None),
        ],
    )
    @pytest.mark.parametrize("source", [{"ads": {}}, {"self": {}}])
    def test_a_filter_that_comes_by_itself_is_a_guard_until_it_is_none(self, source, fields, kind, default):
        types = [f"type.googleapis.com/{RBAC}", f"type.googleapis.com/{ROUTER}"]
        item = discovered(config_source=source, type_urls=types, **fields)
        resource = build.listener("l", ROUTES, filters=[item])
        allowed = Discovered(frozenset({RBAC, ROUTER}), default)
        assert good(resource).http.filters[0] == HttpFilter("found", kind, False, allowed)
        assert list(ignored(resource)) == ["filter_chains[0].filters[0].typed_config.http_filters[0]"]
        # gRPC knows none.
        assert "decides who may pass" in problems(build.api_listener("l", ROUTES, filters=[item]))[0]

    @pytest.mark.parametrize(
        "other",
        [
            *(struct(f"{FILTERS}http.{kind}") for kind in NO_GUARDS),
            *(
                made(f"{FILTERS}{kind}")
                for kind, fields in PROGRAMS.items()
                if kind.startswith("http.")
                for made in (
                    lambda kind, fields=fields: struct(kind, **fields),
                    lambda kind, fields=fields: typed(f"type.googleapis.com/{kind}", **fields),
                )
            ),
            struct(EXT_PROC, failureModeAllow=True, grpcService={"timeout": "1s"}),
            struct(f"{FILTERS}http.wasm.v3.Wasm", **NULL),
            struct(LUA, inlineCode="function envoy_on_request(h) h:headers():add('a', 'b') end"),
            delegate(build.any_of(LUA)),
            {**struct("my.Filter"), "name": "envoy.filters.http.rbac"},  # its type tells, and wins
            {**named("envoy.filters.http.rbac_like"), "is_optional": True},
            discovered(type_urls=["type.googleapis.com/my.Filter"]),
        ],
        ids=str,
    )
    def test_what_does_not_ask_who(self, other):
        resource = build.listener("l", ROUTES, filters=[other])
        assert [each.kind for each in good(resource).http.filters] == [FilterKind.OTHER, FilterKind.ROUTER]
        assert "filter_chains[0].filters[0].typed_config.http_filters[0]" in ignored(resource)

    @pytest.mark.parametrize("place", ["config", "host", "route", "share"])
    def test_a_guard_that_is_switched_off_somewhere_leaves_something_to_serve(self, place):
        off = {"typed_per_filter_config": {"TypedStruct": OFF}}
        share = {"name": "a", "weight": 1, **(off if place == "share" else {})}
        action = {"weighted_clusters": {"clusters": [share]}}
        routes = build.route_config(
            "r",
            build.virtual_host(
                "v",
                build.route(action=action, **(off if place == "route" else {})),
                **(off if place == "host" else {}),
            ),
            **(off if place == "config" else {}),
        )
        assert good(build.listener("l", routes, filters=[struct(RBAC)]))
        assert "decides who may pass" in problems(build.api_listener("l", routes, filters=[struct(RBAC)]))[0]
        other = {**struct(RBAC), "name": "another"}
        assert "decides who may pass" in problems(build.listener("l", routes, filters=[other]))[0]
        assert "decides who may pass" in problems(build.listener("l", "r", filters=[struct(RBAC)]))[0]

    def test_filters_behind_the_router(self):
        def resource(**fields):
            router = dict(build.ROUTER)
            inner = {"name": "g", "typed_config": build.any_of(RBAC), **fields}
            router["typed_config"] = {**router["typed_config"], "upstream_http_filters": [inner]}
            return build.listener("l", ROUTES, manager={"http_filters": [router]})

        assert "upstream_http_filters[0]: envoy" in problems(resource())[0]
        assert good(resource(disabled=True)).http.filters[1] == HttpFilter("g", FilterKind.GUARD, True)

    def test_filters_behind_the_router_that_guard_nothing(self):
        router = dict(build.ROUTER)
        kinds = (
            f"{FILTERS}http.upstream_codec.v3.UpstreamCodec",
            f"{FILTERS}http.header_mutation.v3.HeaderMutation",
        )
        inner = [
            {"name": "x", "typed_config": build.any_of("xds.type.v3.TypedStruct", {"type_url": f"t/{kind}"})}
            for kind in kinds
        ]
        router["typed_config"] = {**router["typed_config"], "upstream_http_filters": inner}
        found = ignored(build.listener("l", ROUTES, manager={"http_filters": [router]}))
        assert list(found.values()) == [kinds[1]]

    @pytest.mark.parametrize(
        "guard",
        [
            *(struct(f"{FILTERS}network.{kind}") for kind in ("rbac.v3.RBAC", "ext_authz.v3.ExtAuthz")),
            *(
                named(name)
                for name in ("envoy.filters.network.rbac", "envoy.ext_authz", "envoy.client_ssl_auth")
            ),
            discovered(type_urls=[f"type.googleapis.com/{FILTERS}network.rbac.v3.RBAC"]),
            *(struct(f"{FILTERS}{kind}") for kind in PROGRAMS if kind.startswith("network.")),
        ],
        ids=str,
    )
    def test_a_network_filter_that_guards(self, guard):
        resource = build.listener("l", ROUTES)
        resource["filter_chains"][0]["filters"].insert(0, guard)
        assert problems(resource)[0].startswith("filter_chains[0].filters[0]: ")
        filters = resource["filter_chains"][0]["filters"][1:]
        open_chain = {"filters": filters, "filter_chain_match": {"destination_port": 81}}
        resource["filter_chains"].append(open_chain)
        closed, left = good(resource).chains
        assert closed.http.filters[0] == HttpFilter(guard["name"], FilterKind.NETWORK)
        assert [each.kind for each in left.http.filters] == [FilterKind.ROUTER]
        assert ignored(resource)["filter_chains[0].filters[0]"].endswith("its filter chain answers 403")

    @pytest.mark.parametrize("kind", [kind for kind in PROGRAMS if kind.startswith("network.")])
    def test_a_network_program_without_which_calls_pass(self, kind):
        resource = build.listener("l", ROUTES)
        resource["filter_chains"][0]["filters"].insert(0, struct(f"{FILTERS}{kind}", **PROGRAMS[kind]))
        assert [each.kind for each in good(resource).http.filters] == [FilterKind.ROUTER]

    @pytest.mark.parametrize(
        ("wire", "guard"),
        [
            (b"", True),
            (b"\x10\x01", False),
            (b"\x10\x00", True),
            (b"\x10\x01\x10\x00", True),  # the last one holds
            (b"\x0a\x00\x10\x01\x42\x01p", False),
            (b"\x12\x01a", True),  # another type than the field's
            (b"\x10", True),  # no message
        ],
    )
    def test_a_program_as_a_control_plane_writes_it(self, wire, guard):
        made = raw(build.listener("l", ROUTES, filters=[struct(EXT_PROC)]))
        message = schema.message("envoy.config.listener.v3.Listener").FromString(made)
        held = message.filter_chains[0].filters[0].typed_config
        manager = schema.unpack(held)
        outer = manager.http_filters[0].typed_config
        outer.type_url, outer.value = f"type.googleapis.com/{EXT_PROC}", wire
        held.CopyFrom(schema.pack(manager))
        assert (decode.listener(message.SerializeToString()).value is None) is guard

    @pytest.mark.parametrize("reject", [{}, {"code": "Forbidden"}, None])
    def test_a_header_without_which_nobody_passes(self, reject):
        held = typed(
            "type.googleapis.com/envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig",
            header_name="x-client",
            **({"reject_with_status": reject} if reject is not None else {}),
        )
        resource = build.listener("l", ROUTES, manager={"original_ip_detection_extensions": [held]})
        if reject is None:
            assert good(resource)
        else:
            (line,) = problems(resource)
            assert line.startswith(
                "filter_chains[0].filters[0].typed_config.original_ip_detection_extensions[0]: "
            )


class TestChains:
    def tcp(self, **fields):
        kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
        return typed(kind, stat_prefix="x", **fields)

    def test_match_and_default(self):
        resource = build.listener("l", ROUTES)
        resource["filter_chains"][0]["name"] = "first"
        resource["filter_chains"][0]["filter_chain_match"] = {
            "destination_port": 80,
            "prefix_ranges": [{"address_prefix": "10.1.2.3", "prefix_len": 8}],
            "transport_protocol": "raw_buffer",
            "application_protocols": ["http/1.1"],
            "server_names": ["A.test", "*.b.test"],
            "source_type": "EXTERNAL",
        }
        resource["default_filter_chain"] = {"filters": [self.tcp(cluster="pass")]}
        first, last = good(resource).chains
        assert first.name == "first"
        names = ("a.test", ".b.test")
        assert first.match == ChainMatch(
            80, ("10.0.0.0/8",), "raw_buffer", ("http/1.1",), names, Source.EXTERNAL
        )
        assert (first.default, last.default, last.http) == (False, True, None)
        assert forward(last.tcp) == Forward(cluster="pass", timeout=0.0)
        assert not ignored(resource)

    def test_tcp_that_leads_nowhere(self):
        resource = build.listener("l", "r")
        resource["filter_chains"] = [{"filters": [self.tcp(cluster="")]}]
        assert forward(good(resource).chains[0].tcp).cluster == ""
        assert ignored(resource) == {
            "filter_chains[0].filters[0].typed_config.cluster": "it is empty: connections lead nowhere"
        }

    def test_weighted_tcp(self):
        clusters = {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 2}]}
        resource = build.listener("l", ROUTES)
        resource["filter_chains"] = [{"filters": [self.tcp(weighted_clusters=clusters)]}]
        shares = forward(good(resource).chains[0].tcp).weighted
        assert [(share.cluster, share.weight) for share in shares] == [("a", 1), ("b", 2)]
        assert not ignored(resource)

    @pytest.mark.parametrize(
        ("said", "retry"),
        [
            ({}, None),
            ({"max_connect_attempts": 1}, None),
            ({"backoff_options": {"base_interval": "1s"}}, None),
            ({"max_connect_attempts": 3}, (2, 0.0, 0.0)),
            ({"max_connect_attempts": 2, "backoff_options": {"base_interval": "0.5s"}}, (1, 0.5, 5.0)),
            (
                {
                    "max_connect_attempts": 2,
                    "backoff_options": {"base_interval": "0.5s", "max_interval": "1s"},
                },
                (1, 0.5, 1.0),
            ),
        ],
    )
    def test_attempts_of_tcp(self, said, retry):
        resource = build.listener("l", "r")
        resource["filter_chains"] = [{"filters": [self.tcp(cluster="c", **said)]}]
        found = forward(good(resource).chains[0].tcp).retry
        if retry is None:
            assert found is None
        else:
            assert (found.retries, found.base_interval, found.max_interval) == retry
            assert found.on == {"connect-failure"}
            assert not found.avoid_previous
        assert not ignored(resource)

    @pytest.mark.parametrize(
        "said",
        [
            {"max_connect_attempts": 0},
            {"backoff_options": {}},
            {"backoff_options": {"base_interval": "2s", "max_interval": "1s"}},
        ],
    )
    def test_attempts_of_tcp_that_are_none(self, said):
        resource = build.listener("l", "r")
        resource["filter_chains"] = [{"filters": [self.tcp(cluster="c", **said)]}]
        [found] = problems(resource)
        assert found.startswith(f"filter_chains[0].filters[0].typed_config.{next(iter(said))}: ")

    def test_for_which_endpoints_a_connection_of_tcp_is(self):
        def labels(**said):
            return {"metadata_match": {"filter_metadata": {"envoy.lb": said}}}

        resource = build.listener("l", "r")
        clusters = {"clusters": [{"name": "a", "weight": 1, **labels(stage="b")}, {"name": "b", "weight": 2}]}
        resource["filter_chains"] = [
            {"filters": [self.tcp(weighted_clusters=clusters, **labels(stage="a", v="1"))]}
        ]
        found = forward(good(resource).chains[0].tcp)
        assert found.labels == labels_of({"stage": "a", "v": "1"})
        assert [each.labels for each in found.weighted] == [
            labels_of({"stage": "b", "v": "1"}),
            labels_of({"stage": "a", "v": "1"}),
        ]
        assert not ignored(resource)

    def test_what_a_connection_of_tcp_is_hashed_by(self):
        resource = build.listener("l", "r")
        hashed = [{"source_ip": {}}, {"filter_state": {"key": "k"}}]
        resource["filter_chains"] = [{"filters": [self.tcp(cluster="c", hash_policy=hashed)]}]
        kinds = [each.kind for each in forward(good(resource).chains[0].tcp).hash_policy]
        assert kinds == [HashKind.SOURCE_IP, HashKind.FILTER_STATE]
        assert not ignored(resource)

    def test_a_guard_covers_a_chain_of_tcp(self):
        guard = {"name": "envoy.filters.network.rbac"}
        resource = build.listener("l", ROUTES)
        resource["default_filter_chain"] = {"filters": [guard, self.tcp(cluster="c")]}
        last = good(resource).chains[1]
        assert last.manager.filters == (HttpFilter(guard["name"], FilterKind.NETWORK),)
        resource["filter_chains"] = []
        assert "decides who may pass" in problems(resource)[0]

    @pytest.mark.parametrize(
        ("match", "place"),
        [
            ({"destination_port": 0}, "destination_port"),
            ({"prefix_ranges": [{"address_prefix": "x"}]}, "prefix_ranges[0]"),
            ({"source_prefix_ranges": [{"address_prefix": "x"}]}, "source_prefix_ranges[0]"),
            ({"server_names": ["a", "a.*"]}, "server_names[1]"),
            ({"server_names": ["*"]}, "server_names[0]"),
            ({"source_type": 7}, "source_type"),
            ({"address_suffix": "1"}, "address_suffix"),  # as in Envoy
        ],
    )
    def test_wrong_match(self, match, place):
        resource = build.listener("l", ROUTES)
        resource["filter_chains"][0]["filter_chain_match"] = match
        assert problems(resource)[0].startswith(f"filter_chains[0].filter_chain_match.{place}: ")

    def test_two_chains_for_the_same_connections(self):  # as in Envoy, which refuses them
        def chains(*matches):
            resource = build.listener("l", ROUTES)
            filters = resource["filter_chains"][0]["filters"]
            resource["filter_chains"] = [{"filters": filters, **match} for match in matches]
            return resource

        tls = {"filter_chain_match": {"transport_protocol": "tls"}}
        assert good(chains(tls, {}))
        for both in ((tls, tls), ({}, {}), ({}, {"filter_chain_match": {}})):
            assert problems(chains(*both)) == (
                "filter_chains[1]: has the same filter_chain_match as filter_chains[0]",
            )
        assert good({**chains({"name": "a"}, {"name": "b"}), "filter_chain_matcher": {}})
        for one, other in (
            ({"server_names": ["a.test", "b.test"]}, {"server_names": ["B.test"]}),
            ({"application_protocols": ["h2", "h2c"]}, {"application_protocols": ["h2c", "x"]}),
            (
                {"prefix_ranges": [cidr("10.0.0.1", 8)]},
                {"prefix_ranges": [cidr("10.0.0.2", 8), cidr("::", 0)]},
            ),
            ({"source_ports": [1, 2]}, {"source_ports": [2]}),
        ):
            pair = chains({"filter_chain_match": one}, {"filter_chain_match": other})
            assert problems(pair) == (
                "filter_chains[1]: its filter_chain_match overlaps with that of filter_chains[0]",
            )
            other["destination_port"] = 80
            assert good(pair)

    def test_more_combinations_than_a_table_can_hold(self):
        resource = build.listener("l", ROUTES)
        names, ports = [f"{number}.test" for number in range(1000)], list(range(1, 102))
        resource["filter_chains"][0]["filter_chain_match"] = {"server_names": names, "source_ports": ports}
        assert problems(resource) == (
            "filter_chains[0]: the chains up to here name more than 100000 kinds of connections",
        )

    def matched(self, matcher, *names):
        resource = build.listener("l", ROUTES)
        filters = resource["filter_chains"][0]["filters"]
        chains = [{"name": name, "filters": filters} for name in names or ("a", "b")]
        return resource | {"filter_chains": chains, "filter_chain_matcher": matcher}

    def test_a_matcher_chooses_by_names(self):
        found = good(self.matched({"on_no_match": chain_named("a")}))
        assert [chain.name for chain in found.chains] == ["a", "b"]
        assert found.matcher == MatcherList((), "a")
        assert not found.unchosen

    def test_a_match_that_is_only_noted_is_none(self):
        noted = chain_named("a") | {"keep_matching": True}
        matcher = port_is({"value_match": {"exact": "1"}}) | {"on_no_match": noted}
        matcher["matcher_list"]["matchers"][0]["on_match"] = noted
        made = good(self.matched(matcher)).matcher
        assert ([then for _, then in made.rules], made.otherwise) == ([None], None)

    def test_a_matcher_tells_chains_by_their_names(self):
        matcher = {"on_no_match": chain_named("a")}
        assert problems(self.matched(matcher, "a", "a")) == ("filter_chains[1].name: 'a' is there twice",)
        assert problems(self.matched(matcher, "a", "")) == (
            "filter_chains[1].name: must not be empty, beside a filter_chain_matcher",
        )

    @pytest.mark.parametrize(
        ("matcher", "place"),
        [
            (
                {"on_no_match": {"action": extension("google.protobuf.BoolValue")}},
                "on_no_match.action.typed_config",
            ),
            (port_is({"value_match": {"exact": "1"}}, "envoy.made.up.v3.Input"), f"{SINGLE}.input"),
            (port_is({"custom_match": extension("envoy.made.up.v3.Match")}), f"{SINGLE}.custom_match"),
            (
                port_is({"value_match": {"custom": extension("envoy.made.up.v3.Match")}}),
                f"{SINGLE}.value_match.custom",
            ),
            (
                {
                    "matcher_tree": {
                        "input": extension(PORT),
                        "custom_match": extension("envoy.made.up.v3.Match"),
                    }
                },
                "matcher_tree.custom_match",
            ),
        ],
    )
    def test_where_something_of_a_matcher_is_not_evaluated_no_chain_is_chosen(self, matcher, place):
        found = good(self.matched(matcher))
        assert (found.chains, found.unchosen, found.matcher) == ((), True, None)
        assert f"filter_chain_matcher.{place}" in ignored(self.matched(matcher))
        alone = good(self.matched(matcher, "a"))
        assert (len(alone.chains), alone.unchosen) == (1, False), "there is none to choose from"

    def test_matchers_within_one_another_have_an_end(self):
        """Each custom matcher begins anew in an Any, so that no parser ends them."""
        held = message(self.matched({"on_no_match": chain_named("a")}))
        for _ in range(60):
            networks = schema.message("xds.type.matcher.v3.IPMatcher")()
            entry = networks.range_matchers.add()
            entry.ranges.add(address_prefix="10.0.0.0")
            entry.on_match.matcher.CopyFrom(held.filter_chain_matcher)
            tree = message(self.matched({"matcher_tree": {"input": extension(ADDRESS)}})).filter_chain_matcher
            tree.matcher_tree.custom_match.typed_config.CopyFrom(schema.pack(networks))
            held.filter_chain_matcher.CopyFrom(tree)
        (problem,) = decode.listener(held.SerializeToString()).problems
        assert problem.endswith("holds more than 32 matchers within one another")
        predicate = {"single_predicate": {"input": extension(PORT), "value_match": {"exact": "1"}}}
        for _ in range(40):
            predicate = {"not_matcher": predicate}
        rule = {"predicate": predicate, "on_match": chain_named("a")}
        (problem,) = problems(self.matched({"matcher_list": {"matchers": [rule]}}))
        assert problem.endswith("holds more than 32 predicates within one another")

    def test_chains_that_come_by_themselves(self):
        matcher = {"matcher_tree": {"input": extension(PORT), "exact_match_map": {"map": {}}}}
        table = matcher["matcher_tree"]["exact_match_map"]["map"]
        table |= {str(port): chain_named(name) for port, name in enumerate("adcb", 80)}
        resource = self.matched(matcher) | {"fcds_config": {"config_source": {"ads": {}}}}
        assert good(resource).discovered == ("c", "d")
        del resource["filter_chains"]
        assert good(resource).discovered == ("a", "b", "c", "d")
        (problem, *_) = problems(resource | {"fcds_config": {}})
        assert problem == "fcds_config.config_source: must be ads or self"
        del resource["filter_chain_matcher"]
        assert problems(resource)[0].startswith(
            "fcds_config: is for the filter chains that a filter_chain_matcher"
        )
        unread = port_is({"value_match": {"exact": "1"}}, "envoy.made.up.v3.Input")
        found = good(resource | {"filter_chain_matcher": unread})
        assert (found.unchosen, found.discovered) == (True, ())

    def test_a_chains_name_is_one_in_all_its_spellings(self):  # FE-01
        of = "xdstp://a/envoy.config.listener.v3.FilterChain/"
        asked, told, here = f"{of}f?b=1&a=2", f"{of}f?a=2&b=1", f"{of}%66?b=1&a=2"
        matcher = {"on_no_match": chain_named(asked)}
        source = {"fcds_config": {"config_source": {"ads": {}}}}
        found = good(self.matched(matcher, "x") | source)
        assert (found.discovered, found.matcher) == ((told,), MatcherList((), told))
        found = good(self.matched(matcher, here) | source)
        assert (found.discovered, [chain.name for chain in found.chains]) == ((), [told])
        assert problems(self.matched(matcher, here, asked))[0].endswith("is there twice")

    def test_a_chain_by_itself(self):
        found = decode.filter_chain(raw(build.filter_chain("f", ROUTES)))
        assert found.value.name == "f"
        assert found.value.http.routes is not None
        assert decode.filter_chain(raw(build.filter_chain("", "r"))).problems == ("name: must not be empty",)
        guard = typed(f"type.googleapis.com/{RBAC}")
        guarded = decode.filter_chain(raw(build.filter_chain("f", "r", filters=[guard])))
        assert guarded.value.http.filters[0].kind is FilterKind.GUARD
        (words,) = [text for _, text in guarded.ignored]
        assert words.endswith("its filter chain answers 403")

    @pytest.mark.parametrize(
        ("fields", "virtual", "redirected"),
        [
            ({}, False, False),
            ({"bind_to_port": True}, False, False),
            ({"bind_to_port": False}, True, False),
            ({"deprecated_v1": {"bind_to_port": False}}, True, False),
            ({"use_original_dst": True}, False, True),
            ({"listener_filters": [{"name": "envoy.filters.listener.original_dst"}]}, False, True),
            ({"listener_filters": [typed(f"{LISTENER_FILTERS}original_dst.v3.OriginalDst")]}, False, True),
        ],
    )
    def test_what_is_redirected(self, fields, virtual, redirected):
        made = good(build.listener("l", ROUTES, **fields))
        assert (made.virtual, made.redirected) == (virtual, redirected)

    @pytest.mark.parametrize(
        ("disabled", "inspects"),
        [
            (None, True),
            ({"any_match": True}, False),
            ({"not_match": {"any_match": True}}, True),
            ({"destination_port_range": {"start": 9080, "end": 9081}}, False),
            ({"destination_port_range": {"start": 9079, "end": 9080}}, True),
            (
                {
                    "or_match": {
                        "rules": [{"destination_port_range": {"start": 1, "end": 2}}, {"any_match": True}]
                    }
                },
                False,
            ),
            (
                {
                    "and_match": {
                        "rules": [{"destination_port_range": {"start": 1, "end": 2}}, {"any_match": True}]
                    }
                },
                True,
            ),
        ],
    )
    def test_who_looks_at_plain_text(self, disabled, inspects):
        item = typed(f"{LISTENER_FILTERS}http_inspector.v3.HttpInspector")
        if disabled is not None:
            item["filter_disabled"] = disabled
        resource = build.listener("l", ROUTES, address="0.0.0.0:9080", listener_filters=[item])
        assert good(resource).inspects_http is inspects
        assert good(build.listener("l", ROUTES)).inspects_http is False

    def test_a_prefix_is_no_longer_than_its_address(self):  # as in Envoy
        resource = build.listener("l", ROUTES)
        ranges = [{"address_prefix": "10.0.0.1", "prefix_len": 99}]
        resource["filter_chains"][0]["filter_chain_match"] = {"prefix_ranges": ranges}
        assert good(resource).chains[0].match.prefixes == ("10.0.0.1/32",)

    def test_addresses(self):
        more = [{"address": build.socket_address("[::1]:81")}, {"address": build.socket_address("unix:/s")}]
        made = good(build.listener("l", ROUTES, address="127.0.0.1:0", additional_addresses=more))
        assert [str(each) for each in made.addresses] == ["[::1]:81", "unix:/s"]


class TestIstio:
    """Real answers of istiod: nothing of them may be refused."""

    @pytest.mark.parametrize("name", ["grpc", "envoy"])
    @pytest.mark.parametrize("short", ["listener", "route", "cluster", "endpoint"])
    def test_nothing_is_refused(self, name, short):
        found = [getattr(decode, short)(each.value) for each in istio(name)[short]]
        assert found
        assert [each.problems for each in found if each.problems] == []

    def values(self, name, short):
        return {
            found.name: found for found in (getattr(decode, short)(each.value) for each in istio(name)[short])
        }

    def test_a_sidecars_listener(self):
        found = self.values("envoy", "listener")["0.0.0.0_9080"]
        http, default = found.value.chains
        assert (http.http.route_name, forward(default.tcp).cluster) == ("9080", "PassthroughCluster")
        assert (found.value.virtual, found.value.inspects_http) == (True, True)
        assert [value for _, value in found.ignored] == [
            "io.istio.http.peer_metadata.Config",
            "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
            "google.protobuf.Struct",
            "envoy.extensions.filters.http.cors.v3.Cors",
        ]

    def test_auto_mtls_is_plain_for_who_has_no_sidecar(self):
        cluster = self.values("envoy", "cluster")["outbound|9080||reviews.default.svc.cluster.local"].value
        assert cluster.tls is None
        mutual, plain = cluster.tls_matches
        assert (mutual.match, plain.match, plain.tls) == ({"tlsMode": "istio"}, {}, None)
        assert mutual.tls.secrets == (
            SecretName("default", SecretKind.CERTIFICATE, SecretFrom.IDENTITY),
            SecretName("ROOTCA", SecretKind.CA, SecretFrom.IDENTITY),
        )
        assert mutual.tls.alpn

    def test_a_cluster_that_demands_mtls_is_closed_until_there_is_an_identity(self):
        cluster = self.values("grpc", "cluster")["outbound|9090||ring.default.svc.cluster.local"].value
        assert cluster.tls.secrets == (
            SecretName("default", SecretKind.CERTIFICATE, SecretFrom.IDENTITY),
            SecretName("default", SecretKind.CA, SecretFrom.IDENTITY),
        )
        assert cluster.tls.closed


class TestLinesOfAManager:
    EARLY = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"

    def decoded(self, **manager):
        return decode.listener(raw(build.listener("l", ROUTES, manager=manager)))

    def early(self, *mutations, kind=EARLY):
        extension = {"name": "e", "typed_config": build.any_of(kind, {"mutations": list(mutations)})}
        return self.decoded(early_header_mutation_extensions=[extension])

    def test_what_they_say(self):
        found = self.decoded(
            via="mesh",
            always_set_request_id_in_response=True,
            proxy_status_config={"remove_details": True, "use_node_id": True},
        )
        made = found.value.http
        assert (made.via, made.tells_request_id) == ("mesh", True)
        assert made.proxy_status == ProxyStatus(details=False, node_id=True)
        assert found.ignored == ()

    def test_edits_before_all_else(self):
        found = self.early(
            {"remove": "X-A"},
            {"append": build.header("X-B", "%REQ(x-c)%", action="ADD_IF_ABSENT")},
            {"remove_on_match": {"key_matcher": {"prefix": "x-d"}}},
        )
        assert found.value.http.mutations == (
            Removal("x-a"),
            Edit("x-b", "%REQ(x-c)%", EditAction.ADD_IF_ABSENT),
            Removal(matching=StringMatch(StringKind.PREFIX, "x-d")),
        )
        assert found.ignored == ()

    def test_other_extensions_are_reported_by_name(self):
        found = self.decoded(
            early_header_mutation_extensions=[
                typed("type.googleapis.com/envoy.config.core.v3.Locality", zone="z")
            ]
        )
        assert found.value.http.mutations == ()
        assert [value for path, value in found.ignored if "early_header" in path] == [
            "envoy.config.core.v3.Locality"
        ]

    @pytest.mark.parametrize(
        ("mutation", "place", "words"),
        [
            ({"remove": ":path"}, ".remove", "cannot be edited, as in Envoy"),
            (
                {"append": build.header("x-a", "%NOPE%")},
                ".append.header.value",
                "NOPE",
            ),
            ({"remove_on_match": {}}, ".remove_on_match.key_matcher", "is missing"),
            ({}, "", "one of remove, append and remove_on_match must be set"),
        ],
    )
    def test_what_cannot_be_done_refuses_the_listener(self, mutation, place, words):
        found = self.early(mutation)
        [problem] = found.problems
        assert f"early_header_mutation_extensions[0].typed_config.mutations[0]{place}: " in problem
        assert words in problem

    def test_whose_calls_are_internal(self):
        ranges = {"cidr_ranges": [{"address_prefix": "10.1.2.3", "prefix_len": 8}]}
        assert self.decoded(internal_address_config=ranges).value.http.internal == ("10.0.0.0/8",)
        for more in ({"xff_num_trusted_hops": 1}, {"use_remote_address": True}):
            assert self.decoded(internal_address_config=ranges, **more).value.http.internal == ()
        ranges = {"cidr_ranges": [{"address_prefix": "nowhere", "prefix_len": 8}]}
        [problem] = self.decoded(internal_address_config=ranges).problems
        assert "internal_address_config.cidr_ranges[0]: " in problem

    def router(self, **fields):
        router = {"name": "router", "typed_config": build.any_of(ROUTER, fields)}
        return self.decoded(http_filters=[router])

    def test_what_the_router_is_told(self):
        found = self.router(
            suppress_envoy_headers=True,
            strict_check_headers=["x-envoy-max-retries"],
            respect_expected_rq_timeout=True,
        )
        made = found.value.http
        assert (made.suppress_envoy_headers, made.respect_timeout) == (True, True)
        assert made.strict_headers == ("x-envoy-max-retries",)
        assert found.ignored == ()

    def test_a_line_that_no_router_checks(self):
        [problem] = self.router(strict_check_headers=["x-envoy-max-retries", "x-user"]).problems
        assert "strict_check_headers[1]: must be one of x-envoy-max-retries, " in problem


class TestHeldBodies:
    def decoded(self, **limit):
        fault = build.any_of(
            "envoy.extensions.filters.http.fault.v3.HTTPFault", {"response_rate_limit": limit}
        )
        filters = [{"name": "envoy.filters.http.fault", "typed_config": fault}]
        return decode.listener(raw(build.listener("l", ROUTES, filters=filters)))

    def test_what_is_said(self):
        found = self.decoded(
            fixed_limit={"limit_kbps": 2}, percentage={"numerator": 5, "denominator": "MILLION"}
        )
        fault = found.value.http.filters[0].fault
        assert (fault.rate, fault.rate_per_million, fault.rate_by_header) == (2048, 5, False)
        assert found.ignored == ()
        fault = self.decoded(header_limit={}, percentage={"numerator": 5}).value.http.filters[0].fault
        assert (fault.rate, fault.rate_per_million, fault.rate_by_header) == (0, 50_000, True)

    @pytest.mark.parametrize(
        ("limit", "words"),
        [
            ({}, "one of fixed_limit and header_limit must be set"),
            ({"fixed_limit": {}}, "limit_kbps: must be more than 0"),
        ],
    )
    def test_what_says_nothing(self, limit, words):
        [problem] = self.decoded(**limit).problems
        assert "response_rate_limit" in problem
        assert problem.endswith(words)
