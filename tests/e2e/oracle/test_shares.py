"""Who gets how many calls: meshlib and a real Envoy on one control plane, over random shapes of one cluster (ED-01, ED-07, ED-08).

A shape has priorities, localities with and without weights, endpoints with weights that are well, unwell or degraded, a panic threshold and
an overprovisioning factor. ``pytest -m oracle tests/e2e/oracle/test_shares.py -s`` prints the table: a row for each priority and each
locality with the calls out of ``CALLS``. Both draw, so that two counts may differ by chance, as `allowed` says; `LEAST` is for
shares so small that this is too coarse.
"""

from __future__ import annotations

import collections
import random
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

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(240)]

CALLS = 720
LEAST = 6
SHAPES = 24
DIRE = 8  # of them those of which all is worse than the threshold
MOST = 18  # endpoints of a shape
HEALTHS = ("HEALTHY", "UNHEALTHY", "DEGRADED")


class Shape:
    """One cluster, made of a number. ``places``: the priority and the locality of each endpoint, by its name."""

    def __init__(self, number: int) -> None:
        rng = random.Random(number)
        self.name = f"shape {number}"
        self.places: dict[str, tuple[int, str]] = {}
        self.groups: list[tuple[int, str, int | None, list[tuple[str, int, str]]]] = []
        # Shapes of which most is well, most is not, and between; and those of which all panics.
        dire = number >= SHAPES - DIRE
        well = rng.choice((0.85, 0.5, 0.25, 0.1)) if not dire else 0.25
        chances = (well, (1 - well) * 0.7, (1 - well) * 0.3) if not dire else (well, 0.7, 0.05)
        for priority in range(rng.choice((1, 2, 2, 3) if not dire else (2, 3))):
            for zone in range(rng.choice((1, 2, 3))):
                members = []
                for _ in range(rng.choice((1, 2, 3))):
                    if len(self.places) == MOST:
                        break
                    spot = f"s{len(self.places)}"
                    self.places[spot] = priority, f"z{zone}"
                    members.append((spot, rng.choice((1, 1, 1, 3)), rng.choices(HEALTHS, chances)[0]))
                if members:
                    self.groups.append((priority, f"z{zone}", rng.choice((None, 1, 2, 5)), members))
        self.said: dict[str, Any] = {"lb_policy": rng.choice(("ROUND_ROBIN", "RANDOM", "LEAST_REQUEST"))}
        common: dict[str, Any] = {}
        threshold = rng.choice((None, 0, 20, 100) if not dire else (None, 100))
        if threshold is not None:
            common["healthy_panic_threshold"] = {"value": threshold}
        if rng.random() < 0.5:
            common["locality_weighted_lb_config"] = {}
        if common:
            self.said["common_lb_config"] = common
        self.factor = rng.choice((None, 100, 200))
        self.weighted = rng.random() < 0.4
        self.told = f"{self.said['lb_policy']}, panic {threshold}, factor {self.factor}, " + (
            "locality weights" if "locality_weighted_lb_config" in common else "no locality weights"
        )
        if self.weighted:
            self.told += ", health by weights"

    def resources(self, servers: dict[str, Answering]) -> list[dict[str, Any]]:
        groups = [
            build.locality(
                *(
                    build.endpoint(servers[spot].address, weight=weight, health=health)
                    for spot, weight, health in members
                ),
                zone=zone,
                weight=given,
                priority=priority,
            )
            for priority, zone, given, members in self.groups
        ]
        policy: dict[str, Any] = {} if self.factor is None else {"overprovisioning_factor": self.factor}
        if self.weighted:
            policy["weighted_priority_health"] = True
        more = {"policy": policy} if policy else {}
        return [build.cluster(self.name, **self.said), build.endpoints(self.name, *groups, **more)]


ALL = [Shape(number) for number in range(SHAPES)]
Both = Callable[[Shape], tuple["collections.Counter[str]", "collections.Counter[str]"]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Who answered, of meshlib and of Envoy. All shapes are clusters of one control plane."""
    with ExitStack() as stack:
        servers = stack.enter_context(serving(f"s{number}" for number in range(MOST)))
        held = Ports(len(ALL))
        stack.callback(held.close)
        port_of = {shape.name: port for shape, port in zip(ALL, held.numbers, strict=True)}
        resources = []
        for shape in ALL:
            routes = build.route_config(
                shape.name, build.virtual_host("v", build.route(cluster=shape.name), domains=["*"])
            )
            resources += [
                build.listener(shape.name, routes, address=f"127.0.0.1:{port_of[shape.name]}"),
                *shape.resources(servers),
            ]
        control_plane = stack.enter_context(ControlPlane(*resources))
        envoy = stack.enter_context(EnvoyProcess(control_plane.address, tmp_path_factory.mktemp("envoy")))
        envoy.wait_for_listeners(len(ALL))
        plain = stack.enter_context(httpx.Client(timeout=20))
        config = {"xds": {"server": control_plane.address, "view": "sidecar"}, "failures": "respond"}
        mesh = stack.enter_context(meshlib.Mesh(config))
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))
        mesh.wait_ready(*(f"127.0.0.1:{port}" for port in held.numbers), timeout=30)

        def calls(shape: Shape) -> Any:
            url = f"http://127.0.0.1:{port_of[shape.name]}/"
            return tuple(
                collections.Counter(told(get(url)) for _ in range(CALLS)) for get in (client.get, plain.get)
            )

        yield calls
        assert not [source.rejected for source in mesh.status().sources if source.rejected]


def told(response: httpx.Response) -> str:
    return response.text if response.status_code == 200 else str(response.status_code)


def summed(found: collections.Counter[str], key: Callable[[str], str]) -> collections.Counter[str]:
    made: collections.Counter[str] = collections.Counter()
    for who, count in found.items():
        made[key(who)] += count
    return made


@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.name)
def test_priorities_localities_and_endpoints_have_the_shares_that_envoy_gives_them(
    shape: Shape, both: Both
) -> None:
    ours, theirs = both(shape)

    def priority(who: str) -> str:
        return f"priority {shape.places[who][0]}" if who in shape.places else who

    def locality(who: str) -> str:
        return f"priority {shape.places[who][0]} {shape.places[who][1]}" if who in shape.places else who

    print(f"\n{shape.name}: {shape.told}")
    for number, zone, given, members in shape.groups:
        healths = " ".join(f"{health[0]}{'' if weight == 1 else weight}" for _, weight, health in members)
        print(f"  priority {number} {zone}, weight {given}: {healths}")
    for key in (priority, locality, str):
        mine, others = summed(ours, key), summed(theirs, key)
        for name in sorted(mine.keys() | others.keys()):
            if key is not str:
                print(f"    {name:<16} meshlib {mine[name]:>4}  envoy {others[name]:>4}")
            most = max(LEAST, allowed(mine[name], others[name], CALLS))
            assert abs(mine[name] - others[name]) <= most, name
