"""Zone-aware routing: a real Envoy that is told its local cluster, and meshlib from the same bootstrap, keep the same share of calls in each
zone (ED-07, DV-15).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from meshlib.testing import build
from tests.e2e.oracle.shares import Sides, alike, answering, near, table
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(180)]

CALLS = 2_025
LB = "envoy.extensions.load_balancing_policies"
ZONE = "zone_aware_lb_config"


def policy(name: str, **zone_aware: Any) -> dict[str, Any]:
    kind = "".join(word.capitalize() for word in name.split("_"))
    config = build.any_of(f"{LB}.{name}.v3.{kind}", {"locality_lb_config": {ZONE: zone_aware}})
    return {
        "load_balancing_policy": {
            "policies": [{"typed_extension_config": {"name": name, "typed_config": config}}]
        }
    }


#: Callers by zone (ours is a), endpoints by zone (``-`` before one that is unhealthy, ``~`` before a degraded one), what the cluster says, and
#: the shares that Envoy's algorithm gives.
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, float]]] = {
    "as many callers as endpoints": ("ab", "aaabbb", {}, {"a": 1.0}),
    "fewer callers than endpoints": ("abb", "aaaabb", {}, {"a": 1.0}),
    "more callers than endpoints": ("aab", "aabbbbbb", {}, {"a": 0.3749, "b": 0.6251}),
    "of three zones": ("aabbc", "aabbbbcc", {}, {"a": 0.625, "b": 0.25, "c": 0.125}),
    "nobody here": ("abc", "bbbbcc", {}, {"b": 1.0, "c": 0.0}),
    "one here is down": ("ab", "aa-abbb", {"common_lb_config": {ZONE: {"min_cluster_size": 3}}}, {"a": 0.8, "b": 0.2}),
    "too few": ("ab", "abbb", {}, {"a": 0.25, "b": 0.75}),
    "few are enough": ("ab", "abbb", {"common_lb_config": {ZONE: {"min_cluster_size": 1}}}, {"a": 0.5, "b": 0.5}),
    "half of the calls": ("ab", "aaabbb", {"common_lb_config": {ZONE: {"routing_enabled": {"value": 50}}}}, {"a": 0.75, "b": 0.25}),
    "switched off": ("ab", "aaabbb", {"common_lb_config": {ZONE: {"routing_enabled": {"value": 0}}}}, {"a": 0.5, "b": 0.5}),
    "forced": ("aab", "abbbbb", policy("round_robin", force_local_zone={"min_size": 1}), {"a": 1.0}),
    "forced in vain": ("aab", "abbbbb", policy("round_robin", force_local_zone={"min_size": 2}), {"a": 0.2499, "b": 0.7501}),
    "forced by the old name": ("aab", "abbbbb", policy("least_request", force_locality_direct_routing=True), {"a": 1.0}),
    "callers of one zone": ("aaa", "aaabbb", {}, {"a": 0.5, "b": 0.5}),
    "forced, callers of one zone": ("aaa", "aaabbb", policy("random", force_local_zone={}), {"a": 1.0}),
    "no caller here": ("bc", "aaabbb", {}, {"a": 0.5, "b": 0.5}),
    "callers unwell": ("a-a-a-bb-b-b", "aaabbb", {}, {"a": 0.5, "b": 0.5}),
    "callers unwell, and nobody is called": ("a-a-a-bb-b-b", "aaabbb", {"common_lb_config": {ZONE: {"fail_traffic_on_panic": True}}}, {"503": 1.0}),
    "panic": ("ab", "a-a-ab-b-b", {}, {"a": 0.5, "b": 0.5}),
    "in a panic nobody is called": ("ab", "a-a-ab-b-b", {"common_lb_config": {ZONE: {"fail_traffic_on_panic": True}}}, {"503": 1.0}),
    "weights of localities win": ("ab", "aaabbb", {"common_lb_config": {"locality_weighted_lb_config": {}}}, {"a": 0.25, "b": 0.75}),
    "by weight": ("ab", "abbbbb", policy("round_robin", locality_basis="HEALTHY_HOSTS_WEIGHT", min_cluster_size=1), {"a": 0.5, "b": 0.5}),
    "degraded take over": ("ab", "-a-a~a-b-b-b~b-b", {"common_lb_config": {"healthy_panic_threshold": {}, ZONE: {"min_cluster_size": 0}}}, {}),
}  # fmt: skip


def spots(zones: str) -> list[tuple[str, str]]:
    """Of ``a-b`` zone a, and an unhealthy one of zone b."""
    found, health = [], "HEALTHY"
    for letter in zones:
        if letter in "-~":
            health = {"-": "UNHEALTHY", "~": "DEGRADED"}[letter]
        else:
            found.append((letter, health))
            health = "HEALTHY"
    return found


def localities(zones: str, ports: list[int], case: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """As a control plane says it, and the zone of each port."""
    made: dict[str, list[Any]] = {}
    owner = {}
    for (zone, health), port in zip(spots(zones), ports, strict=False):
        weight = 10 if case == "by weight" and zone == "a" else 6 if case == "by weight" else 1
        made.setdefault(zone, []).append(build.endpoint(f"127.0.0.1:{port}", health=health, weight=weight))
        owner[str(port)] = zone
    return [
        build.locality(*held, zone=zone, weight=1 if zone == "a" else 3) for zone, held in made.items()
    ], owner


def static(name: str, groups: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    assignment = build.without_type(build.endpoints(name, *groups))
    return {"name": name, "type": "STATIC", "load_assignment": assignment, **fields}


#: An Envoy has one local cluster: cases that have the same callers share it.
FLEETS = {callers: [case for case in CASES if CASES[case][0] == callers] for callers, *_ in CASES.values()}


def bootstrap(callers: str, ports: list[int], port: int) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """The zone of each port, by case, and all cases on one listener, by the first part of the path."""
    fleet, _ = localities(callers, [20_000 + number for number in range(20)], "")
    for group in fleet:
        group.pop("load_balancing_weight", None)
    clusters, owners, routes = [static("fleet", fleet)], {}, []
    for number, case in enumerate(FLEETS[callers]):
        groups, owners[case] = localities(CASES[case][1], ports, case)
        clusters.append(static(case, groups, **CASES[case][2]))
        routes.append(build.route(f"/{number}", cluster=case))
    made = build.route_config("r", build.virtual_host("v", *routes, domains=["*"]))
    listener = build.without_type(build.listener("l", made, address=f"127.0.0.1:{port}"))
    return {
        "node": {"id": "me", "cluster": "fleet", "locality": {"zone": "a"}},
        "cluster_manager": {"local_cluster_name": "fleet"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }, owners


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    with answering(8) as held:
        yield held


def zone_shares(counts: Mapping[str, int], owner: Mapping[str, str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for who, count in counts.items():
        found[owner.get(who, who)] += count
    return found


@pytest.mark.parametrize("callers", FLEETS)
def test_the_same_share_stays(callers, ports, tmp_path):
    held = Ports(1)
    config, owners = bootstrap(callers, ports, held.numbers[0])
    sides = Sides(config, tmp_path, 1)
    rows, wrong = [], []
    try:
        assert not [source.rejected for source in sides.mesh.status().sources if source.rejected]
        for number, case in enumerate(FLEETS[callers]):
            url, expected = f"http://127.0.0.1:{held.numbers[0]}/{number}", CASES[case][3]
            ours, theirs = (zone_shares(counts, owners[case]) for counts in sides.counts(url, CALLS))
            for zone in sorted({*ours, *theirs, *expected}):
                share = expected.get(zone)
                rows.append((case, zone, ours[zone], theirs[zone], "" if share is None else share))
                if not alike(ours[zone], theirs[zone], CALLS) or (
                    share is not None and not near(ours[zone], CALLS, share)
                ):
                    wrong.append((case, zone))
    finally:
        sides.close()
        held.close()
    head = ("case", "zone", "meshlib", "Envoy", "share")
    print(table(f"callers {callers}, {CALLS} calls each", head, rows))
    assert not wrong
