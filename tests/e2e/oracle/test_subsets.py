"""Subset balancing: a real Envoy and meshlib from one bootstrap call the same endpoints for the labels of a route, in the same shares."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from meshlib.testing import build
from tests.e2e.oracle.shares import Sides, alike, answering, table
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(180)]

CALLS = 450
#: Endpoints: labels, and what else; the first six are of priority 0.
MEMBERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"v": "1", "stage": "prod"}, {}),
    ({"v": "1", "stage": "dev"}, {}),
    ({"v": "2", "stage": "prod", "who": ["a", "b"]}, {"weight": 3}),
    ({"v": "2", "stage": "prod", "who": "b"}, {}),
    ({"v": 3, "on": True}, {}),
    ({"v": "4"}, {"health": "UNHEALTHY"}),
    ({"v": "4", "stage": "prod"}, {}),
    ({}, {}),
]
KEYS = [{"keys": ["v"]}, {"keys": ["v", "stage"]}]
#: What the cluster says of its subsets.
CLUSTERS: dict[str, dict[str, Any]] = {
    "nobody": {"subset_selectors": KEYS},
    "anybody": {"fallback_policy": "ANY_ENDPOINT", "subset_selectors": KEYS},
    "default": {
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"stage": "prod"},
        "subset_selectors": KEYS,
    },
    "an empty default": {
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"stage": "none"},
        "subset_selectors": KEYS,
    },
    "anybody in a panic": {
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"stage": "none"},
        "panic_mode_any": True,
        "subset_selectors": KEYS,
    },
    "each selector its own": {
        "fallback_policy": "ANY_ENDPOINT",
        "default_subset": {"stage": "dev"},
        "subset_selectors": [
            {"keys": ["v"], "fallback_policy": "NO_FALLBACK"},
            {"keys": ["stage"], "fallback_policy": "DEFAULT_SUBSET"},
            {"keys": ["stage", "v"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["v"]},
            {"keys": ["on"], "fallback_policy": "ANY_ENDPOINT"},
        ],
    },
    "lists": {"list_as_any": True, "subset_selectors": [{"keys": ["who"]}, {"keys": ["who", "v"]}]},
    "lists as they are": {"subset_selectors": [{"keys": ["who"]}]},
    "one each": {"subset_selectors": [{"keys": ["v"], "single_host_per_subset": True}]},
    "other labels": {
        "metadata_fallback_policy": "FALLBACK_LIST",
        "subset_selectors": KEYS,
    },
    "no selector": {"fallback_policy": "NO_FALLBACK"},
    "weighed": {"locality_weight_aware": True, "subset_selectors": [{"keys": ["stage"]}]},
    "scaled": {
        "locality_weight_aware": True,
        "scale_locality_weight": True,
        "subset_selectors": [{"keys": ["stage"]}],
    },
    "as a policy": {
        "fallback_policy": "ANY_ENDPOINT",
        "allow_redundant_keys": True,
        "subset_selectors": [*KEYS, {"keys": ["stage"]}],
    },
    "a policy of least request": {"subset_selectors": KEYS},
}
#: Labels that routes ask for.
WANTED: dict[str, dict[str, Any] | None] = {
    "nothing": None,
    "v=1": {"v": "1"},
    "v=2": {"v": "2"},
    "v=3": {"v": 3},
    "v='3'": {"v": "3"},
    "v=4": {"v": "4"},
    "v=9": {"v": "9"},
    "stage=prod": {"stage": "prod"},
    "stage=dev": {"stage": "dev"},
    "stage=x": {"stage": "x"},
    "v=1 stage=dev": {"v": "1", "stage": "dev"},
    "v=1 stage=x": {"v": "1", "stage": "x"},
    "v=9 stage=x": {"v": "9", "stage": "x"},
    "on": {"on": True},
    "on=1": {"on": 1},
    "off": {"on": False},
    "who=b": {"who": "b"},
    "who=a v=2": {"who": "a", "v": "2"},
    "who=list": {"who": ["a", "b"]},
    "v=2 more": {"v": "2", "more": "x"},
    "v=2 stage=prod more": {"v": "2", "stage": "prod", "more": "x"},
    "others": {"v": "9", "fallback_list": [{"v": "8"}, {"stage": "dev", "v": "1"}, {"v": "2"}]},
    "no others": {"v": "2", "fallback_list": []},
}
POLICIES = {"as a policy": "round_robin", "a policy of least request": "least_request"}
LB = "envoy.extensions.load_balancing_policies"


def cluster(name: str, ports: list[int]) -> dict[str, Any]:
    spots = [
        build.endpoint(f"127.0.0.1:{port}", metadata={"filter_metadata": {"envoy.lb": labels}}, **more)
        for port, (labels, more) in zip(ports, MEMBERS, strict=True)
    ]
    groups = [
        build.locality(*spots[:2], zone="a", weight=4),
        build.locality(*spots[2:6], zone="b", weight=1),
        build.locality(*spots[6:], zone="a", priority=1, weight=1),
    ]
    made: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "load_assignment": build.without_type(build.endpoints(name, *groups)),
    }
    if name in ("weighed", "scaled"):
        made["common_lb_config"] = {"locality_weighted_lb_config": {}}
    if name not in POLICIES:
        return {**made, "lb_subset_config": CLUSTERS[name]}
    kind = "".join(word.capitalize() for word in POLICIES[name].split("_"))
    inner = build.any_of(f"{LB}.{POLICIES[name]}.v3.{kind}", {})
    child = {"policies": [{"typed_extension_config": {"name": "inner", "typed_config": inner}}]}
    outer = build.any_of(f"{LB}.subset.v3.Subset", {**CLUSTERS[name], "subset_lb_policy": child})
    return {
        **made,
        "load_balancing_policy": {
            "policies": [{"typed_extension_config": {"name": "outer", "typed_config": outer}}]
        },
    }


def match(labels: dict[str, Any] | None) -> dict[str, Any]:
    return {} if labels is None else {"metadata_match": {"filter_metadata": {"envoy.lb": labels}}}


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    held = Ports(1)
    with answering(len(MEMBERS)) as ports:
        routes = [
            build.route(f"/{number}/{name.replace(' ', '-')}", cluster=name, action=match(labels))
            for number, labels in enumerate(WANTED.values())
            for name in CLUSTERS
        ]
        shared = {
            "clusters": [
                {"name": "nobody", "weight": 1, **match({"stage": "prod"})},
                {"name": "nobody", "weight": 1, **match({"v": "2", "stage": "prod"})},
            ]
        }
        routes.append(
            build.route("/weighted", action={"weighted_clusters": shared, **match({"v": "1", "stage": "x"})})
        )
        config = build.route_config("r", build.virtual_host("v", *routes, domains=["*"]))
        listener = build.without_type(build.listener("l", config, address=f"127.0.0.1:{held.numbers[0]}"))
        bootstrap = {
            "node": {"id": "me", "cluster": "fleet"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "static_resources": {
                "listeners": [listener],
                "clusters": [cluster(name, ports) for name in CLUSTERS],
            },
        }
        made = Sides(bootstrap, tmp_path_factory.mktemp("envoy"), 1)
        names = {str(port): str(number) for number, port in enumerate(ports)}
        try:
            yield made, f"http://127.0.0.1:{held.numbers[0]}", names
        finally:
            made.close()
            held.close()


def compared(sides, path: str, calls: int) -> tuple[Counter[str], Counter[str], list[str]]:
    made, base, names = sides
    found = made.counts(f"{base}{path}", calls)
    ours, theirs = (
        Counter({names.get(who, who): count for who, count in counts.items()}) for counts in found
    )
    return ours, theirs, [who for who in {*ours, *theirs} if not alike(ours[who], theirs[who], calls)]


@pytest.mark.parametrize("name", CLUSTERS)
def test_labels_lead_to_the_same_endpoints(name, sides):
    assert not [source.rejected for source in sides[0].mesh.status().sources if source.rejected]
    rows, wrong = [], []
    for number, labels in enumerate(WANTED):
        calls = CALLS if name in ("weighed", "scaled") else 54
        ours, theirs, far = compared(sides, f"/{number}/{name.replace(' ', '-')}", calls)
        shown = [" ".join(f"{who}:{counts[who]}" for who in sorted(counts)) for counts in (ours, theirs)]
        rows.append((labels, *shown))
        if far or set(ours) != set(theirs):
            wrong.append((labels, *shown))
    print(table(name, ("labels", "meshlib", "Envoy"), rows))
    assert not wrong


def test_a_part_of_a_split_has_the_last_word(sides):
    ours, theirs, far = compared(sides, "/weighted", CALLS)
    assert not far
    assert set(ours) == set(theirs) == {"0", "2", "3"}
