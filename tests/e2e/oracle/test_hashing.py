"""Where a request's hash leads: meshlib and a real Envoy on one control plane choose the same endpoint for each key (LB-03 to LB-05, HP-01)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import build
from meshlib.testing.control_plane import ControlPlane
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.e2e.oracle.shares import answering
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

KEYS = 400
LB = "envoy.extensions.load_balancing_policies"


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    with answering(6) as held:
        yield held


def policy(name: str, **fields: Any) -> dict[str, Any]:
    kind = {"ring_hash": "RingHash", "maglev": "Maglev"}[name]
    config = build.any_of(f"{LB}.{name}.v3.{kind}", fields)
    return {"policies": [{"typed_extension_config": {"name": name, "typed_config": config}}]}


HEADER = [{"header": {"header_name": "x-key"}}]
#: What the cluster says of its balancer, and the route of what is hashed.
CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "ring": ({"lb_policy": "RING_HASH"}, HEADER),
    "ring of murmur": (
        {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"hash_function": "MURMUR_HASH_2"}},
        HEADER,
    ),
    "small ring": (
        {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 7, "maximum_ring_size": 40}},
        HEADER,
    ),
    "ring by policy": (
        {"load_balancing_policy": policy("ring_hash", minimum_ring_size=500, locality_weighted_lb_config={})},
        HEADER,
    ),
    "ring by hostnames": (
        {
            "load_balancing_policy": policy(
                "ring_hash", consistent_hashing_lb_config={"use_hostname_for_hashing": True}
            )
        },
        HEADER,
    ),
    "maglev": ({"lb_policy": "MAGLEV"}, HEADER),
    "small maglev": ({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 251}}, HEADER),
    "maglev by policy": ({"load_balancing_policy": policy("maglev", locality_weighted_lb_config={})}, HEADER),
    "localities weighed": (
        {"lb_policy": "MAGLEV", "common_lb_config": {"locality_weighted_lb_config": {}}},
        HEADER,
    ),
    "query and header": ({"lb_policy": "RING_HASH"}, [{"query_parameter": {"name": "q"}}, *HEADER]),
    "terminal": ({"lb_policy": "RING_HASH"}, [{"query_parameter": {"name": "q"}, "terminal": True}, *HEADER]),
    "cookie": ({"lb_policy": "MAGLEV"}, [{"cookie": {"name": "who"}}]),
    "rewritten header": (
        {"lb_policy": "MAGLEV"},
        [
            {
                "header": {
                    "header_name": "x-key",
                    "regex_rewrite": {"pattern": {"regex": "(k)ey-(\\d)"}, "substitution": "\\2\\1"},
                }
            }
        ],
    ),
}


def members(ports: list[int], *, unwell: bool) -> list[dict[str, Any]]:
    """Two priorities, localities and endpoints of several weights, one with a key of its own."""
    spots = [f"127.0.0.1:{port}" for port in ports]
    key = {"filter_metadata": {"envoy.lb": {"hash_key": "its-own"}}}
    return [
        build.locality(
            build.endpoint(spots[0], weight=1, hostname="a.internal"),
            build.endpoint(spots[1], weight=3, hostname="b.internal"),
            zone="z1",
            weight=2,
        ),
        build.locality(
            build.endpoint(spots[2], weight=2, hostname="c.internal", metadata=key),
            build.endpoint(spots[3], hostname="d.internal", health="UNHEALTHY" if unwell else "HEALTHY"),
            zone="z2",
            weight=5,
        ),
        build.locality(
            build.endpoint(spots[4], hostname="e.internal"),
            build.endpoint(spots[5], hostname="f.internal"),
            zone="z3",
            priority=1,
        ),
    ]


def asked(number: int) -> dict[str, Any]:
    return {
        "headers": [
            ("x-key", f"key-{number}"),
            *([("x-key", "more")] if number % 5 == 0 else []),
            ("cookie", f"a=b; who=u{number}"),
        ],
        "params": {"q": f"v{number % 40}"} if number % 3 else {},
    }


SIDES = [(case, unwell) for case in CASES for unwell in (False, True)]


@pytest.fixture(scope="module")
def answers(ports, tmp_path_factory) -> Iterator[Callable[[str, bool], tuple[list[int], list[int]]]]:
    """Where all keys of a case lead, by Envoy and by meshlib. All cases are listeners of one control plane."""
    with ExitStack() as stack:
        held = Ports(len(SIDES))
        stack.callback(held.close)
        port_of = dict(zip(SIDES, held.numbers, strict=True))
        resources = []
        for (case, unwell), port in port_of.items():
            name = f"{case}, {unwell}"
            cluster, hashed = CASES[case]
            route = build.route(cluster=name, action={"hash_policy": hashed})
            routes = build.route_config(name, build.virtual_host("v", route, domains=["*"]))
            resources += [
                build.listener(name, routes, address=f"127.0.0.1:{port}"),
                build.cluster(name, **{"lb_policy": "ROUND_ROBIN", **cluster}),
                build.endpoints(name, *members(ports, unwell=unwell)),
            ]
        control_plane = stack.enter_context(ControlPlane(*resources))
        envoy = stack.enter_context(EnvoyProcess(control_plane.address, tmp_path_factory.mktemp("envoy")))
        envoy.wait_for_listeners(len(SIDES))
        plain = stack.enter_context(httpx.Client(timeout=20))
        mesh = stack.enter_context(
            meshlib.Mesh({"xds": {"server": control_plane.address, "view": "sidecar"}})
        )
        mesh.wait_ready(*(f"127.0.0.1:{port}" for port in held.numbers), timeout=30)
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))

        def both(case: str, unwell: bool) -> tuple[list[int], list[int]]:
            url = f"http://127.0.0.1:{port_of[case, unwell]}/"
            ours, theirs = (
                [place(get(url, **asked(number))) for number in range(KEYS)]
                for get in (client.get, plain.get)
            )
            return ours, theirs

        yield both
        assert not [source.rejected for source in mesh.status().sources if source.rejected]


def place(response: httpx.Response) -> int:
    assert response.status_code == 200
    return int(response.text)


@pytest.mark.parametrize("unwell", [False, True], ids=["all well", "one unwell"])
@pytest.mark.parametrize("case", CASES)
def test_each_key_leads_to_the_same_endpoint(case, unwell, answers):
    ours, theirs = answers(case, unwell)
    fewest = 1 if case == "small ring" else 2  # on a few places two endpoints may have none
    assert len(set(ours)) > fewest, "all keys lead to one"
    assert sum(a != b for a, b in zip(ours, theirs, strict=True)) == 0
