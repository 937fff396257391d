"""What lacks and what is deleted: a real Envoy and meshlib on one control plane give the same answers, step by step."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import ControlPlane, build
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

PATHS = ("/ok", "/forbidden", "/gone", "/gone/500", "/split", "/header")


def routes(*more: dict[str, Any]) -> dict[str, Any]:
    return build.route_config(
        "r",
        build.virtual_host(
            "v",
            *more,
            build.route("/forbidden", respond=(403, "")),
            _with_code(build.route("/gone/500", cluster="gone")),
            build.route("/gone", cluster="gone"),
            build.route("/split", weights={"gone": 100}),
            build.route("/ok", cluster="c"),
        ),
    )


def envoy(port: int, path: str) -> int | str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except ConnectionRefusedError:
        return "refused"
    finally:
        connection.close()


def ours(client: httpx.Client, port: int, path: str) -> int | str:
    try:
        return client.get(f"http://127.0.0.1:{port}{path}").status_code
    except httpx.ConnectError as error:
        return "refused" if error.__class__ is httpx.ConnectError else str(error)  # the closed port's own


def _with_code(route: dict[str, Any]) -> dict[str, Any]:
    action = {**route["route"], "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR"}
    return {**route, "route": action}


@pytest.mark.parametrize("protocol", ["delta", "sotw"])
def test_the_same_answers_when_something_lacks_or_is_deleted(
    tmp_path: Path, upstream: Any, protocol: str
) -> None:
    one = upstream("one")
    held = Ports(1)
    try:
        _walk(tmp_path, one, held.numbers[0], protocol)
    finally:
        held.close()


def _walk(folder: Path, one: Any, port: int, protocol: str) -> None:
    xds = {"view": "sidecar", "protocol": protocol}
    listener = build.listener("l", "r", address=f"127.0.0.1:{port}")
    cluster, endpoints = build.cluster("c"), build.endpoints("c", one.address)
    with (
        ControlPlane(listener, routes(), cluster, endpoints) as plane,
        EnvoyProcess(plane.address, folder, protocol) as proxy,
        meshlib.Mesh({"xds": {"server": plane.address, **xds}, "failures": "respond"}) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        proxy.wait_for_listeners(1)
        mesh.wait_ready(f"127.0.0.1:{port}", timeout=20)

        def both(kind: str, ok: int | str) -> tuple[list[int | str], list[int | str]]:
            """What the two answer once both have taken in the newest version of a type; `ok`: the first of Envoy's."""
            version = plane.version(kind)

            def taken() -> bool:
                acks = {
                    each.stream
                    for each in plane.requests
                    if each.kind == kind and each.is_ack and each.version == version
                }
                return len(acks) == 2

            plane.wait_for(taken, timeout=20)
            # An ACK is written before what it accepts is in force: there by way of the worker, which does both.
            for _ in range(2):
                mesh._runtime().worker.call(lambda: None, 20.0)
            proxy._wait(lambda: envoy(port, "/ok") == ok)
            return [envoy(port, path) for path in PATHS], [ours(client, port, path) for path in PATHS]

        found, mine = both("route", 200)
        assert found == mine == [200, 403, 503, 500, 503, 404]
        assert {each.protocol for each in plane.requests} == {protocol}
        for kind, name in ("endpoint", "c"), ("route", "r"):
            plane.remove(kind, name)  # only delta says so, and what is in force stays for both
            if protocol == "delta":
                found, mine = both(kind, 200)
            assert found == mine == [200, 403, 503, 500, 503, 404]
        plane.update(endpoints, routes())
        both("route", 200)
        plane.remove("cluster", "c")
        assert mesh._runtime().store.wait(lambda view: "c" not in view.snapshot.clusters, 20.0)
        found, mine = both("cluster", 503)
        assert found == mine == [503, 403, 503, 500, 503, 404]
        plane.update(cluster)
        plane.wait_for_ack("cluster", timeout=20)
        mesh.wait_ready(f"127.0.0.1:{port}", timeout=20)
        found, mine = both("cluster", 200)
        assert found == mine == [200, 403, 503, 500, 503, 404]
        plane.update(routes(build.route("/ok", respond=(404, ""))))
        found, mine = both("route", 404)
        assert found == mine == [404, 403, 503, 500, 503, 404]
        plane.remove("listener", "l")
        found, mine = both("listener", "refused")
        assert found == mine == ["refused"] * len(PATHS)
