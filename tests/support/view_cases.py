"""Resources that gRPC and Envoy judge differently, for the decoders' tests and for a real Envoy."""

from __future__ import annotations

from meshlib.testing import build
from meshlib.xds import decode
from tests.support.xds_kit import raw

ADDRESS = "10.0.0.1:80"
MOST = 2**32 - 1


def routes(*domains, **fields):
    return build.route_config(
        "r", build.virtual_host("v", build.route(cluster="c"), domains=domains), **fields
    )


def match(**fields):
    return build.route_config("r", build.virtual_host("v", build.route(cluster="c", match=fields)))


def action(**fields):
    return build.route_config("r", build.virtual_host("v", build.route(cluster="c", action=fields)))


def headers(**fields):
    return build.route_config("r", build.virtual_host("v", build.route(cluster="c")), **fields)


def policy(**fields):
    policies = [
        {"typed_extension_config": {"name": "x", "typed_config": build.any_of(name)}}
        for name in fields["names"]
    ]
    return build.cluster(
        "c", [ADDRESS], load_balancing_policy={"policies": policies}, **fields.get("more", {})
    )


LB = "envoy.extensions.load_balancing_policies."
DROP = {"category": "x", "drop_percentage": {"numerator": 5}}

#: What gRPC refuses, in a few of our words, and Envoy takes.
ENVOY_TAKES = {
    "an address twice": (build.endpoints("c", ADDRESS, ADDRESS), "is there twice"),
    "an address twice, in two localities": (
        build.endpoints("c", build.locality(ADDRESS, zone="a"), build.locality(ADDRESS, zone="b")),
        "is there twice",
    ),
    "a gap in the priorities": (
        build.endpoints("c", build.locality(ADDRESS), build.locality("10.0.0.2:80", priority=2)),
        "have no gap",
    ),
    "priorities from 1 on": (build.endpoints("c", build.locality(ADDRESS, priority=1)), "must begin with 0"),
    "a locality twice": (
        build.endpoints("c", build.locality(ADDRESS), build.locality("10.0.0.2:80", weight=7)),
        "is already in priority 0",
    ),
    "port 0": (build.endpoints("c", "10.0.0.1:0"), "must be 1 to 65535"),
    "endpoints of too great a weight": (
        build.endpoints("c", build.endpoint(ADDRESS, weight=MOST), build.endpoint("10.0.0.2:80", weight=1)),
        "add up to more than",
    ),
    "localities of too great a weight": (
        build.endpoints(
            "c", build.locality(ADDRESS, weight=MOST), build.locality("10.0.0.2:80", zone="b", weight=1)
        ),
        "add up to more than",
    ),
    "drops without a share": (
        build.endpoints("c", ADDRESS, policy={"drop_overloads": [{"category": "x"}]}),
        "drop_percentage: is missing",
    ),
    "UDP": (
        build.endpoints(
            "c",
            {
                "endpoint": {
                    "address": {
                        "socket_address": {"protocol": "UDP", "address": "10.0.0.1", "port_value": 80}
                    }
                }
            },
        ),
        "UDP is not supported",
    ),
    "a star inside a domain": (routes("a*b"), "may stand alone"),
    "two stars in a domain": (routes("*a*"), "may stand alone"),
    "an empty domain": (routes("", "a"), "may stand alone"),
    "a header that nobody can send": (
        match(headers=[{"name": "a b", "present_match": True}]),
        "is no name of a header",
    ),
    "a condition on a header that says nothing": (match(prefix="/", headers=[{"name": "x"}]), "must be set"),
    "a range that ends before it starts": (
        match(headers=[{"name": "a", "range_match": {"start": 5, "end": 1}}]),
        "is after end",
    ),
    "an edit of a header that nobody can send": (
        headers(request_headers_to_add=[build.header("a b", "x")]),
        "is no name of a header",
    ),
    "a cluster of the newer names without a service name": (
        build.cluster("xdstp://a/b"),
        "must be set where the cluster",
    ),
}

#: What neither takes: Envoy in a few of our words; to gRPC it is none of its balancers (CD-06).
NEITHER_TAKES = {
    "CLUSTER_PROVIDED for STATIC": (
        build.cluster("c", [ADDRESS], lb_policy="CLUSTER_PROVIDED"),
        "bring a balancer",
    ),
    "CLUSTER_PROVIDED for STRICT_DNS": (
        build.cluster("c", [ADDRESS], type="STRICT_DNS", lb_policy="CLUSTER_PROVIDED"),
        "bring a balancer",
    ),
    "CLUSTER_PROVIDED for LOGICAL_DNS": (
        build.cluster("c", [ADDRESS], type="LOGICAL_DNS", lb_policy="CLUSTER_PROVIDED"),
        "bring a balancer",
    ),
    "CLUSTER_PROVIDED for EDS": (build.cluster("c", lb_policy="CLUSTER_PROVIDED"), "bring a balancer"),
}

#: What Envoy refuses, in a few of our words, and gRPC takes, since it does not look or has another rule.
GRPC_TAKES = {
    "ClusterProvided for STATIC": (
        policy(names=[f"{LB}cluster_provided.v3.ClusterProvided"]),
        "bring a balancer",
    ),
    "ORIGINAL_DST by turns": (build.cluster("c", type="ORIGINAL_DST"), "must be CLUSTER_PROVIDED"),
    "ORIGINAL_DST by a policy": (
        build.cluster(
            "c",
            type="ORIGINAL_DST",
            lb_policy="LOAD_BALANCING_POLICY_CONFIG",
            load_balancing_policy={
                "policies": [
                    {
                        "typed_extension_config": {
                            "name": "x",
                            "typed_config": build.any_of(f"{LB}cluster_provided.v3.ClusterProvided"),
                        }
                    }
                ]
            },
        ),
        "must be CLUSTER_PROVIDED",
    ),
    "a policy beside what belongs to the enum": (
        policy(
            names=[f"{LB}round_robin.v3.RoundRobin"],
            more={"common_lb_config": {"locality_weighted_lb_config": {}}},
        ),
        "cannot stand beside load_balancing_policy",
    ),
    "pick_first alone": (policy(names=[f"{LB}pick_first.v3.PickFirst"]), "none is supported"),
    "a locality of no weight": (build.endpoints("c", build.locality(ADDRESS, weight=0)), "must not be 0"),
    "two categories of drops": (
        build.endpoints("c", ADDRESS, policy={"drop_overloads": [DROP, DROP | {"category": "y"}]}),
        "one category only",
    ),
    "drops of more than everything": (
        build.endpoints(
            "c",
            ADDRESS,
            policy={"drop_overloads": [{"category": "x", "drop_percentage": {"numerator": 101}}]},
        ),
        "no more than 100 %",
    ),
    "drops of more than everything in millionths": (
        build.endpoints(
            "c",
            ADDRESS,
            policy={
                "drop_overloads": [
                    {"category": "x", "drop_percentage": {"numerator": 1_000_001, "denominator": "MILLION"}}
                ]
            },
        ),
        "no more than 100 %",
    ),
}

READERS = {
    "ClusterLoadAssignment": decode.endpoint,
    "RouteConfiguration": decode.route,
    "Cluster": decode.cluster,
    "Listener": decode.listener,
}


def judged(resource, view):
    return READERS[resource["@type"].rpartition(".")[2]](raw(resource), view)
