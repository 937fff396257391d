"""Filters that decide who may pass, beside a real Envoy: what it denies is refused, what it lets pass is answered.

Each case is a listener with one such filter and one way of switching it on or off at one place. Nobody has credentials
here, so wherever the filter is in force, Envoy says no.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import build
from meshlib.testing.control_plane import ControlPlane
from meshlib.testing.upstream import Upstream
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.e2e.oracle.exchange import Client, Request
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(170)]

Json = dict[str, Any]

_HTTP = "envoy.extensions.filters.http."
_PASSWORD = base64.b64encode(hashlib.sha1(b"secret", usedforsecurity=False).digest()).decode()
BASIC = build.any_of(
    f"{_HTTP}basic_auth.v3.BasicAuth", {"users": {"inline_string": f"me:{{SHA}}{_PASSWORD}"}}
)
BASIC_HERE = build.any_of(
    f"{_HTTP}basic_auth.v3.BasicAuthPerRoute", {"users": {"inline_string": f"you:{{SHA}}{_PASSWORD}"}}
)
KEYS = build.any_of(
    f"{_HTTP}api_key_auth.v3.ApiKeyAuth",
    {
        "credentials": [{"key": "secret", "client": "me"}],
        "key_sources": [{"header": "x-key"}],
    },
)
ANYBODY = {"permissions": [{"any": True}], "principals": [{"any": True}]}
NOBODY = build.any_of(f"{_HTTP}rbac.v3.RBAC", {"rules": {"action": "DENY", "policies": {"all": ANYBODY}}})
EVERYBODY_HERE = build.any_of(f"{_HTTP}rbac.v3.RBACPerRoute")
NOBODY_HERE = build.any_of(
    "xds.type.v3.TypedStruct",
    {
        "type_url": f"type.googleapis.com/{_HTTP}rbac.v3.RBACPerRoute",
        "value": {"rbac": {"rules": {"action": "DENY", "policies": {"all": ANYBODY}}}},
    },
)
ASK = build.any_of(
    f"{_HTTP}ext_authz.v3.ExtAuthz",
    {"grpc_service": {"envoy_grpc": {"cluster_name": "nobody"}}, "transport_api_version": "V3"},
)
ASK_HERE = build.any_of(
    f"{_HTTP}ext_authz.v3.ExtAuthzPerRoute", {"check_settings": {"context_extensions": {"a": "b"}}}
)
ASK_NOT_HERE = build.any_of(f"{_HTTP}ext_authz.v3.ExtAuthzPerRoute", {"disabled": True})
TOKEN = build.any_of(
    f"{_HTTP}jwt_authn.v3.JwtAuthentication",
    {
        "providers": {
            "p": {
                "remote_jwks": {
                    "http_uri": {"uri": "http://127.0.0.1:1/keys", "cluster": "nobody", "timeout": "1s"}
                }
            }
        },
        "requirement_map": {"needed": {"provider_name": "p"}},
    },
)
TOKEN_HERE = build.any_of(f"{_HTTP}jwt_authn.v3.PerRouteConfig", {"requirement_name": "needed"})
TOKEN_NOT_HERE = build.any_of(f"{_HTTP}jwt_authn.v3.PerRouteConfig", {"disabled": True})
_NOBODY = {"grpc_service": {"envoy_grpc": {"cluster_name": "nobody"}}}
PROCESS = build.any_of(f"{_HTTP}ext_proc.v3.ExternalProcessor", _NOBODY)
PROCESS_OR_NOT = build.any_of(
    f"{_HTTP}ext_proc.v3.ExternalProcessor", {**_NOBODY, "failure_mode_allow": True}
)
WATCH = build.any_of(f"{_HTTP}ext_proc.v3.ExternalProcessor", {**_NOBODY, "observability_mode": True})


def processing(**fields: Any) -> Json:
    return build.any_of(f"{_HTTP}ext_proc.v3.ExtProcPerRoute", fields)


PROCESS_NOT_HERE = processing(disabled=True)
PROCESS_OTHERWISE = processing(overrides={"request_attributes": ["request.path"]})
PASS_WITHOUT = processing(overrides={"failure_mode_allow": True})
FAIL_WITHOUT = processing(overrides={"failure_mode_allow": False})


def plugin(**fields: Any) -> Json:
    """A Wasm filter whose code nobody has."""
    uri = {"uri": "http://127.0.0.1:1/a.wasm", "cluster": "nobody", "timeout": "0.1s"}
    code = {"remote": {"http_uri": uri, "sha256": "0" * 64, "retry_policy": {"num_retries": 0}}}
    machine = {"runtime": "envoy.wasm.runtime.v8", "code": code, "vm_id": str(fields)}
    return build.any_of(f"{_HTTP}wasm.v3.Wasm", {"config": {"vm_config": machine, **fields}})


def script(text: str) -> Json:
    source = {"inline_string": f"function envoy_on_request(handle) {text} end"}
    return build.any_of(f"{_HTTP}lua.v3.Lua", {"default_source_code": source})


REFUSE = 'handle:respond({[":status"] = "403"}, "no")'
SCRIPT_NOT_HERE = build.any_of(f"{_HTTP}lua.v3.LuaPerRoute", {"disabled": True})
SCRIPT_HERE = build.any_of(
    f"{_HTTP}lua.v3.LuaPerRoute",
    {"source_code": {"inline_string": f"function envoy_on_request(handle) {REFUSE} end"}},
)
DELEGATE = build.any_of(
    "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
    {
        "extension_config": {"name": "inner", "typed_config": NOBODY},
        "xds_matcher": {
            "matcher_tree": {
                "input": {
                    "name": "path",
                    "typed_config": build.any_of(
                        "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", {"header_name": "x-never"}
                    ),
                },
                "exact_match_map": {
                    "map": {
                        "never": {
                            "action": {
                                "name": "skip",
                                "typed_config": build.any_of(
                                    "envoy.extensions.filters.common.matcher.action.v3.SkipFilter"
                                ),
                            }
                        }
                    }
                },
            }
        },
    },
)


def wrapped(config: Json | None = None, **fields: Any) -> Json:
    return build.any_of(
        "envoy.config.route.v3.FilterConfig", {**({"config": config} if config is not None else {}), **fields}
    )


OFF = wrapped(disabled=True)
HERE = wrapped({})


@dataclass(frozen=True)
class Case:
    """``places``: what `typed_per_filter_config` says of the filter at config, host, route, share."""

    config: Json
    places: Json = field(default_factory=dict)
    disabled: bool = True
    name: str = "guard"
    key: str = "guard"


#: Off in the chain, so that only what enables it is covered; or on, and switched off somewhere.
CASES = {
    "off": Case(BASIC),
    "basic auth by a route": Case(BASIC, {"route": BASIC_HERE}),
    "basic auth by a host": Case(BASIC, {"host": BASIC_HERE}),
    "basic auth by the configuration": Case(BASIC, {"config": BASIC_HERE}),
    "basic auth by a share": Case(BASIC, {"share": BASIC_HERE}),
    "wrapped by a route": Case(BASIC, {"route": wrapped(BASIC_HERE)}),
    "wrapped and optional by a host": Case(BASIC, {"host": wrapped(BASIC_HERE, is_optional=True)}),
    "wrapped without settings": Case(
        KEYS, {"route": wrapped(build.any_of(f"{_HTTP}api_key_auth.v3.ApiKeyAuthPerRoute"))}
    ),
    "a host's, switched off by a route": Case(BASIC, {"host": BASIC_HERE, "route": OFF}),
    "a host's, switched off by a share": Case(BASIC, {"host": BASIC_HERE, "share": OFF}),
    "a host's off, switched on by a route": Case(BASIC, {"host": OFF, "route": BASIC_HERE}),
    "by the key of the type, not of the filter": Case(
        BASIC, {"route": BASIC_HERE}, key="envoy.filters.http.basic_auth"
    ),
    "for another filter": Case(BASIC, {"route": BASIC_HERE}, key="somebody else"),
    "rbac by a route": Case(NOBODY, {"route": NOBODY_HERE}),
    "rbac lifted where it is enabled": Case(NOBODY, {"host": NOBODY_HERE, "route": EVERYBODY_HERE}),
    "ext_authz by a route": Case(ASK, {"route": ASK_HERE}),
    "ext_authz enabled and lifted": Case(ASK, {"route": ASK_NOT_HERE}),
    "jwt by a host": Case(TOKEN, {"host": TOKEN_HERE}),
    "jwt by a host, lifted by a share": Case(TOKEN, {"host": TOKEN_HERE, "share": TOKEN_NOT_HERE}),
    "on, off at a route": Case(BASIC, {"route": OFF}, disabled=False),
    "on, off at a host, on at a route": Case(BASIC, {"host": OFF, "route": BASIC_HERE}, disabled=False),
    "on, off at the configuration, on at a share": Case(
        BASIC, {"config": OFF, "share": BASIC_HERE}, disabled=False
    ),
    "ext_authz on, lifted at a route": Case(ASK, {"route": ASK_NOT_HERE}, disabled=False),
    "rbac on, lifted at a host": Case(NOBODY, {"host": EVERYBODY_HERE}, disabled=False),
    "a delegate, off at a route": Case(DELEGATE, {"route": OFF}, disabled=False),
    "ext_proc by a route": Case(PROCESS, {"route": HERE}),
    "ext_proc by a route, in other words": Case(PROCESS, {"route": PROCESS_OTHERWISE}),
    "ext_proc by a host, lifted by a route": Case(
        PROCESS, {"host": PROCESS_OTHERWISE, "route": PROCESS_NOT_HERE}
    ),
    "ext_proc by a host, lifted by a share's failure mode": Case(
        PROCESS, {"host": PROCESS_OTHERWISE, "share": PASS_WITHOUT}
    ),
    "ext_proc on, lifted at a route": Case(PROCESS, {"route": PROCESS_NOT_HERE}, disabled=False),
    "ext_proc that may be gone, by a route": Case(PROCESS_OR_NOT, {"route": HERE}),
    "ext_proc that may be gone, in other words": Case(
        PROCESS_OR_NOT, {"route": PROCESS_OTHERWISE}, disabled=False
    ),
    "ext_proc that may be gone, but not here": Case(PROCESS_OR_NOT, {"route": FAIL_WITHOUT}, disabled=False),
    "ext_proc that may be gone, but not at a host": Case(
        PROCESS_OR_NOT, {"host": FAIL_WITHOUT, "route": PROCESS_OTHERWISE, "share": PASS_WITHOUT}
    ),
    "ext_proc that may be gone by its canonical name": Case(
        PROCESS_OR_NOT,
        {"route": HERE},
        name="envoy.filters.http.ext_proc",
        key="envoy.filters.http.ext_proc",
    ),
    "ext_proc that watches, by a route": Case(WATCH, {"route": HERE}),
    "wasm by a route": Case(plugin(), {"route": HERE}),
    "wasm that fails closed, by a route": Case(plugin(failure_policy="FAIL_CLOSED"), {"route": HERE}),
    "wasm that fails open": Case(plugin(fail_open=True), disabled=False),
    "wasm that fails open by its policy": Case(plugin(failure_policy="FAIL_OPEN"), disabled=False),
    "lua that refuses, by a route": Case(script(REFUSE), {"route": HERE}),
    "lua that refuses, off at a route": Case(script(REFUSE), {"route": SCRIPT_NOT_HERE}, disabled=False),
    "lua that refuses at a route only": Case(
        script("handle:logInfo('x')"), {"route": SCRIPT_HERE}, disabled=False
    ),
    "lua that edits": Case(script("handle:headers():add('x-lua', 'here')"), disabled=False),
    "lua that fails": Case(script("nobody.knows()"), disabled=False),
}
#: What Envoy says; a program that cannot be run is a fault of its own.
DENIALS = (401, 403, 500, 503)
PATHS = ("/here", "/there", "/split", "/nothing")


def _routes(case: Case) -> Json:
    """`/here` and the share of `/split` are what `route` and `share` speak of; `/nothing` has no route."""

    def settings(place: str) -> Json:
        found = case.places.get(place)
        return {} if found is None else {"typed_per_filter_config": {case.key: found}}

    share = {"name": "up", "weight": 1, **settings("share")}
    host = build.virtual_host(
        "v",
        build.route("/here", cluster="up", **settings("route")),
        build.route("/there", cluster="up"),
        build.route("/split", action={"weighted_clusters": {"clusters": [share]}}),
        **settings("host"),
    )
    return build.route_config("r", host, **settings("config"))


def _listener(number: int, case: Case, port: int) -> Json:
    guard = {"name": case.name, "typed_config": case.config, "disabled": case.disabled}
    return build.listener(f"l{number}", _routes(case), address=f"127.0.0.1:{port}", filters=[guard])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The port of each case in Envoy, and a mesh on the same control plane."""
    ports = Ports(len(CASES))
    numbers = dict(zip(CASES, ports.numbers, strict=True))
    try:
        with Upstream("up") as upstream:
            listeners = [
                _listener(number, case, numbers[name]) for number, (name, case) in enumerate(CASES.items())
            ]
            clusters = [build.cluster("up", [upstream.address]), build.cluster("nobody", ["127.0.0.1:1"])]
            with (
                ControlPlane(*clusters, *listeners) as control_plane,
                EnvoyProcess(control_plane.address, tmp_path_factory.mktemp("envoy")) as envoy,
                meshlib.Mesh({"xds": {"server": control_plane.address, "view": "sidecar"}}) as mesh,
            ):
                envoy.wait_for_listeners(len(CASES))
                mesh.wait_ready(*(f"127.0.0.1:{port}" for port in numbers.values()), timeout=20)
                yield numbers, mesh
    finally:
        ports.close()


@pytest.mark.parametrize("name", CASES)
def test_what_envoy_denies_is_refused_and_the_rest_serves(both, name):
    numbers, mesh = both
    port = numbers[name]
    with Client(port) as envoy, meshlib.Client(mesh=mesh) as client:
        for path in PATHS:
            theirs = envoy.send(Request("GET", f"127.0.0.1:{port}", path)).status
            ours = client.get(f"http://127.0.0.1:{port}{path}")
            assert meshlib.call_info(ours).via == "mesh"
            wanted = 403 if theirs in DENIALS else theirs
            if path == "/nothing" and ours.status_code == 403:
                wanted = 403  # some filters ask nobody where there is no route to ask for
            assert (path, ours.status_code) == (path, wanted)
            decision = mesh.explain("GET", f"http://127.0.0.1:{port}{path}")
            if wanted == 403:
                said = f"filter {CASES[name].name} decides who may pass here"
                assert said in ours.text
                assert any(said in line for line in decision.trace())
                assert decision.response.status == 403
            else:
                assert isinstance(ours, httpx.Response)
                assert decision.response is None or decision.response.status == wanted


#: Where the filter is in force nowhere.
OPEN = {
    "off",
    "by the key of the type, not of the filter",
    "for another filter",
    "ext_authz enabled and lifted",
    "ext_proc that may be gone, by a route",
    "ext_proc that may be gone, in other words",
    "ext_proc that may be gone by its canonical name",
    "wasm that fails open",
    "wasm that fails open by its policy",
    "lua that edits",
    "lua that fails",
}


def test_the_cases_are_what_they_say(both):
    """Envoy denies something in each but those."""
    numbers, _ = both
    said = {}
    for name, port in numbers.items():
        with Client(port) as envoy:
            said[name] = {envoy.send(Request("GET", f"127.0.0.1:{port}", path)).status for path in PATHS}
    assert {name for name, statuses in said.items() if statuses.isdisjoint(DENIALS)} == OPEN
