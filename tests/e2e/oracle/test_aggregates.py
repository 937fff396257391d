"""Where calls to an aggregate go: meshlib and a real Envoy on one control plane, with the same endpoints (CD-04, DV-11).

``pytest -m oracle tests/e2e/oracle/test_aggregates.py -s`` prints the table: a row for each case, with the calls out of ``CALLS`` that each
cluster had. Both draw, so that two counts may differ by chance, as `allowed` says.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import build
from meshlib.testing.control_plane import ControlPlane
from tests.e2e.oracle.answering import Answering, allowed, serving
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(180)]

CALLS = 864
H, U, D = "HEALTHY", "UNHEALTHY", "DEGRADED"
NO_PANIC = {"common_lb_config": {"healthy_panic_threshold": {"value": 0}}}
RETRY = {"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}}

#: The health of a cluster's endpoints, a list for each priority, and what else it says.
CLUSTERS: dict[str, tuple[list[list[str]], dict[str, Any]]] = {
    "well": ([[H, H, H, H]], {}),
    "half": ([[H, H, U, U]], {}),
    "low": ([[H, U, U, U]], {}),
    "low-too": ([[H, U, U, U, U, U]], {}),
    "low-calm": ([[H, U, U, U]], NO_PANIC),
    "two levels": ([[H, U, U], [H, H, U]], {}),
    "a level is dead": ([[U, U], [H, U, U]], {}),
    "degraded": ([[H, D, D, U]], {}),
    "degraded-too": ([[H, D, U, U]], {}),
    "dead": ([[U, U]], {}),
    "dead-too": ([[U, U, U, U]], {}),
    "dead-calm": ([[U, U]], NO_PANIC),
    "nobody": ([], {}),
    "random": ([[H, H, U], [H, H]], {"lb_policy": "RANDOM"}),
    "hashed": ([[H, H, U, U], [H, H]], {"lb_policy": "MAGLEV"}),
    "full": ([[H, H]], {"circuit_breakers": {"thresholds": [{"max_requests": 0}]}}),
    "no retry": ([[H, H]], {"circuit_breakers": {"thresholds": [{"max_retries": 0}]}}),
}
#: The clusters that an aggregate names, and what else it says.
CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "the first is well": (["well", "low"], {}),
    "half of the first": (["half", "well"], {}),
    "little of the first": (["low", "well"], {}),
    "little of both": (["low", "low-too"], {}),
    "little of both, and no panic here": (["low", "low-too"], NO_PANIC),
    "little of both, and no panic there": (["low-calm", "low-calm", "nobody"], {}),
    "levels": (["two levels", "well"], {}),
    "levels, of which one is dead": (["a level is dead", "two levels", "well"], {}),
    "degraded, and others are well": (["degraded", "well"], {}),
    "degraded": (["degraded", "degraded-too"], {}),
    "the first is dead": (["dead", "well"], {}),
    "all are dead": (["dead", "dead-too"], {}),
    "all are dead, and no panic here": (["dead-calm", "dead"], NO_PANIC),
    "all are dead, and no panic there": (["dead-calm", "dead-too"], {}),
    "nobody in the first": (["nobody", "half", "well"], {}),
    "not there": (["ghost", "half", "well"], {}),
    "none is there": (["ghost", "other ghost"], {}),
    "by chance": (["random", "well"], {}),
    "by hash": (["hashed", "well"], {}),
    "over a limit": (["full", "well"], {}),
}
#: Aggregates of a cluster that answers 503, with the upstream requests that one call comes to.
RETRIES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "its own max_retries": (["well"], {"circuit_breakers": {"thresholds": [{"max_retries": 0}]}}),
    "its cluster's max_retries": (["no retry"], {}),
}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Answering]]:
    """One for each endpoint of each cluster."""
    with serving(spot for name in CLUSTERS for spot in spots(name)) as made:
        yield made


def spots(name: str) -> list[str]:
    """What the endpoints of a cluster are called."""
    levels, _ = CLUSTERS[name]
    return [f"{name}/{number}" for number in range(sum(map(len, levels)))]


def leaf(name: str, servers: dict[str, Answering]) -> list[dict[str, Any]]:
    levels, said = CLUSTERS[name]
    left = iter(spots(name))
    groups = [
        build.locality(
            *(build.endpoint(servers[next(left)].address, health=health) for health in level),
            zone=f"z{priority}",
            priority=priority,
        )
        for priority, level in enumerate(levels)
    ]
    return [build.cluster(name, **said), build.endpoints(name, *groups)]


Both = Callable[..., tuple["collections.Counter[str]", "collections.Counter[str]"]]


@pytest.fixture(scope="module")
def both(servers, tmp_path_factory) -> Iterator[Both]:
    """What calls of a case get, of meshlib and of Envoy. All cases are listeners of one control plane."""
    sides = {**CASES, **RETRIES}
    with ExitStack() as stack:
        held = Ports(len(sides))
        stack.callback(held.close)
        port_of = dict(zip(sides, held.numbers, strict=True))
        resources = [each for name in CLUSTERS for each in leaf(name, servers)]
        for case, port in port_of.items():
            names, said = sides[case]
            action = {"hash_policy": [{"header": {"header_name": "x-key"}}]}
            if case in RETRIES:
                action["retry_policy"] = RETRY
            route = build.route(cluster=f"all: {case}", action=action)
            routes = build.route_config(case, build.virtual_host("v", route, domains=["*"]))
            resources += [
                build.listener(case, routes, address=f"127.0.0.1:{port}"),
                build.aggregate(f"all: {case}", *names, **said),
            ]
        control_plane = stack.enter_context(ControlPlane(*resources))
        envoy = stack.enter_context(EnvoyProcess(control_plane.address, tmp_path_factory.mktemp("envoy")))
        envoy.wait_for_listeners(len(sides))
        plain = stack.enter_context(httpx.Client(timeout=20))
        config = {"xds": {"server": control_plane.address, "view": "sidecar"}, "failures": "respond"}
        mesh = stack.enter_context(meshlib.Mesh(config))
        mesh.wait_ready(f"127.0.0.1:{port_of['the first is well']}", timeout=30)
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))

        def calls(case: str, count: int = CALLS, path: str = "/") -> Any:
            url = f"http://127.0.0.1:{port_of[case]}{path}"
            found = []
            for who, get in (("ours", client.get), ("theirs", plain.get)):
                answers = [
                    get(url, headers={"x-key": str(number), "x-case": f"{case}, {who}"})
                    for number in range(count)
                ]
                found.append(collections.Counter(map(told, answers)))
            return tuple(found)

        yield calls
        assert not [source.rejected for source in mesh.status().sources if source.rejected]


def told(response: httpx.Response) -> str:
    return (
        response.text
        if response.status_code == 200 or "/" in response.text[:20]
        else str(response.status_code)
    )


def by_cluster(found: collections.Counter[str]) -> collections.Counter[str]:
    made: collections.Counter[str] = collections.Counter()
    for who, count in found.items():
        made[who.partition("/")[0]] += count
    return made


@pytest.mark.parametrize("case", CASES)
def test_each_cluster_and_endpoint_has_the_share_that_envoy_gives_it(case, both):
    ours, theirs = both(case)
    assert ours.keys() == theirs.keys(), "other endpoints are called"
    rows = [(by_cluster(ours), by_cluster(theirs)), (ours, theirs)]
    print(f"\n{case}: {', '.join(CASES[case][0])}")
    for name in sorted(rows[0][0]):
        print(f"  {name:<14} meshlib {rows[0][0][name]:>4}  envoy {rows[0][1][name]:>4}")
    for mine, others in rows:
        for name in mine:
            assert abs(mine[name] - others[name]) <= allowed(mine[name], others[name], CALLS), name


@pytest.mark.parametrize(("case", "requests"), [("its own max_retries", 1), ("its cluster's max_retries", 3)])
def test_retries_are_limited_by_the_aggregate(case, requests, both, servers):
    """CB-03: which cluster a retry goes to is not known when it is decided."""
    both(case, 20, "/fail")
    for who in ("ours", "theirs"):
        seen = sum(server.seen[f"{case}, {who}"] for server in servers.values())
        assert seen == 20 * requests, who
