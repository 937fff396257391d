"""Where retries go: a real Envoy and meshlib from one bootstrap send as many attempts to each endpoint (RT-07)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from meshlib.testing import build
from tests.e2e.oracle.shares import Sides, alike, answering, table
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(180)]

CALLS = 270
RETRY = "envoy.extensions.retry."


def priority(every: int) -> dict[str, Any]:
    config = build.any_of(
        f"{RETRY}priority.previous_priorities.v3.PreviousPrioritiesConfig", {"update_frequency": every}
    )
    return {"retry_priority": {"name": "envoy.retry_priorities.previous_priorities", "typed_config": config}}


def predicates(*given: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """So often a host is looked for that it is found for sure."""
    made = [
        {
            "name": f"envoy.retry_host_predicates.{name}",
            "typed_config": build.any_of(f"{RETRY}host.{name}.v3.{kind}", fields),
        }
        for name, kind, fields in given
    ]
    return {"retry_host_predicate": made, "host_selection_retry_max_attempts": 200}


CANARY = ("omit_canary_hosts", "OmitCanaryHostsPredicate", {})
LABELS = (
    "omit_host_metadata",
    "OmitHostMetadataConfig",
    {"metadata_match": {"filter_metadata": {"envoy.lb": {"v": "2"}}}},
)
BEFORE = ("previous_hosts", "PreviousHostsPredicate", {})
#: Endpoints by priority (``-`` before one that is unhealthy), the retries, and what is said of where they go.
CASES: dict[str, tuple[list[str], int, dict[str, Any]]] = {
    "each time another priority": (["aa", "aa", "aa"], 2, priority(1)),
    "and from the start": (["aa", "aa", "aa"], 5, priority(1)),
    "every second time": (["aa", "aa", "aa"], 5, priority(2)),
    "every third time": (["aa", "aa"], 4, priority(3)),
    "one is not well": (["aa", "-aa-a-a", "aa"], 2, priority(1)),
    "one alone": (["aaa"], 2, priority(1)),
    "nobody is well": (["-a-a", "-a-a"], 2, priority(1)),
    "no canaries": (["aacc"], 2, predicates(CANARY)),
    "no canaries, another host": (["aaacc"], 2, predicates(CANARY, BEFORE)),
    "not those labels": (["aavv"], 2, predicates(LABELS)),
    "neither": (["aacvv"], 2, predicates(LABELS, CANARY)),
    "both at once": (["aac", "aac"], 1, {**priority(1), **predicates(CANARY)}),
}  # fmt: skip
METADATA = {"a": {"v": "1"}, "c": {"canary": True}, "v": {"v": "2"}}


def localities(groups: list[str], ports: list[int]) -> list[dict[str, Any]]:
    left, made = iter(ports), []
    for level, written in enumerate(groups):
        spots, health = [], "HEALTHY"
        for letter in written:
            if letter == "-":
                health = "UNHEALTHY"
                continue
            metadata = {"filter_metadata": {"envoy.lb": METADATA[letter]}}
            spots.append(build.endpoint(f"127.0.0.1:{next(left)}", health=health, metadata=metadata))
            health = "HEALTHY"
        made.append(build.locality(*spots, priority=level))
    return made


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    hits: Counter[str] = Counter()
    held = Ports(1)
    with answering(8, hits) as ports:
        routes, clusters = [], []
        for number, (case, (groups, retries, said)) in enumerate(CASES.items()):
            policy = {
                "retry_on": "5xx",
                "num_retries": retries,
                "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
                **said,
            }
            routes.append(build.route(f"/{number}/", cluster=case, action={"retry_policy": policy}))
            clusters.append(
                {
                    "name": case,
                    "type": "STATIC",
                    # Turns that an omission passes over fall into step with the calls.
                    "lb_policy": "RANDOM" if "retry_host_predicate" in said else "ROUND_ROBIN",
                    "circuit_breakers": {"thresholds": [{"max_retries": 100}]},
                    "load_assignment": build.without_type(build.endpoints(case, *localities(groups, ports))),
                }
            )
        config = build.route_config("r", build.virtual_host("v", *routes, domains=["*"]))
        listener = build.without_type(build.listener("l", config, address=f"127.0.0.1:{held.numbers[0]}"))
        bootstrap = {
            "node": {"id": "me", "cluster": "fleet"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "static_resources": {"listeners": [listener], "clusters": clusters},
        }
        made = Sides(bootstrap, tmp_path_factory.mktemp("envoy"), 1)
        names = {str(port): number for number, port in enumerate(ports)}
        try:
            yield made, f"http://127.0.0.1:{held.numbers[0]}", names, hits
        finally:
            made.close()
            held.close()


@pytest.mark.parametrize("case", CASES)
def test_as_many_attempts_go_to_each_endpoint(case, sides):
    made, base, names, hits = sides
    assert not [source.rejected for source in made.mesh.status().sources if source.rejected]
    found = []
    for ours in (True, False):
        hits.clear()
        made.calls(f"{base}/{list(CASES).index(case)}/fail", CALLS, ours=ours)
        found.append({names[port]: count for port, count in hits.items()})
    attempts = CALLS * (CASES[case][1] + 1)
    rows = [(spot, *(side.get(spot, 0) for side in found)) for spot in sorted({*found[0], *found[1]})]
    print(table(f"{case}: {CALLS} calls each", ("endpoint", "meshlib", "Envoy"), rows))
    assert sum(found[0].values()) == sum(found[1].values()) == attempts
    for spot, mine, theirs in rows:
        assert alike(mine, theirs, attempts), spot
