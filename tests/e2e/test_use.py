"""Subscriptions follow use: what no recent call needs is unsubscribed, and is there again for the next call.

The servers and calls are real; the time is the test's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import meshlib
import meshlib.grpc
from meshlib.testing import ControlPlane, VirtualClock, build
from tests.support.asking import asked
from tests.support.grpc_channels import FACES, Channels
from tests.support.libraries import LIBRARIES, Caller
from tests.support.on_clock import begun

PROTOCOLS = ("delta", "sotw")
TYPES = ("listener", "route", "cluster", "endpoint")


def service(name: str, *addresses: str) -> list[dict[str, Any]]:
    host = build.virtual_host("v", build.route("/", cluster=f"{name}-cluster", timeout=0), domains=[name])
    return [
        build.api_listener(name, f"{name}-routes"),
        build.route_config(f"{name}-routes", host),
        build.cluster(f"{name}-cluster"),
        build.endpoints(f"{name}-cluster", *addresses),
    ]


class Wanted:
    """What a control plane's one client wants now, by its requests."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def names(self, kind: str) -> set[str]:
        found: set[str] = set()
        for each in self._plane.requests:
            if each.kind == kind and each.protocol == "sotw":
                found = set(each.names)
            elif each.kind == kind:
                found = (found | set(each.names)) - set(each.unsubscribe)
        return found

    def until(self, wanted: Callable[[], bool]) -> None:
        self._plane.wait_for(wanted, timeout=20, what="what is wanted")


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(protocol: str, meshlib_mesh: Any, meshlib_clock: VirtualClock) -> Callable[..., meshlib.Mesh]:
    def made(plane: ControlPlane, **more: Any) -> meshlib.Mesh:
        xds = {"server": plane.address, "view": "target", "protocol": protocol, **more}
        return meshlib_mesh({"xds": xds}, clock=meshlib_clock)  # type: ignore[no-any-return]

    return made


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_was_called_once_is_unsubscribed_within_two_minutes_and_comes_back(
    library: str, make: Any, upstream: Any, meshlib_clock: VirtualClock
) -> None:
    """SW-07, SW-16, DL-10"""
    a, b = upstream("a"), upstream("b")
    with ControlPlane(*service("once", a.address), *service("often", b.address)) as plane:
        mesh, wanted = make(plane), Wanted(plane)
        with Caller(library, mesh) as call:
            assert json.loads(call("GET", "http://once/")[1])["name"] == "a"
            for _ in range(12):
                assert json.loads(call("GET", "http://often/")[1])["name"] == "b"
                meshlib_clock.advance(10.0)
            wanted.until(lambda: wanted.names("listener") == {"often"})
            for kind in TYPES[1:]:
                wanted.until(lambda kind=kind: len(wanted.names(kind)) == 1)  # type: ignore[misc]
            assert {target for part in mesh.snapshot().parts for target in part.targets} == {"often"}
            meshlib_clock.advance(120.0)
            for kind in TYPES:
                wanted.until(lambda kind=kind: not wanted.names(kind))  # type: ignore[misc]
            plane.update(build.endpoints("once-cluster", b.address))
            for name in ("once", "often"):
                status, body, info = call("GET", f"http://{name}/")
                assert (status, json.loads(body)["name"], info.via) == (200, "b", "mesh")
        assert plane.opened == 1
        assert not any(each.is_nack for each in plane.requests)


@pytest.mark.parametrize("library", ["httpx", "aiohttp", "requests"])
def test_a_request_that_is_under_way_is_use(
    library: str, make: Any, upstream: Any, meshlib_clock: VirtualClock
) -> None:
    server = upstream("slow")
    server.hang()
    with ControlPlane(*service("slow", server.address)) as plane:
        mesh, wanted = make(plane), Wanted(plane)
        with Caller(library, mesh) as call:
            options = {"timeout": None} if library != "aiohttp" else {}
            future = begun(call, "GET", "http://slow/", **options)
            server.wait_for(lambda: server.held == 1)
            for _ in range(20):
                meshlib_clock.advance(14.0)
            assert wanted.names("listener") == {"slow"}
            server.release()
            assert future.result(20)[0] == 200
            for _ in range(9):
                meshlib_clock.advance(14.0)
            wanted.until(lambda: not wanted.names("listener"))


@pytest.mark.parametrize("face", FACES)
def test_a_channel_that_is_connected_is_use(
    face: str, make: Any, meshlib_grpc_upstream: Any, meshlib_clock: VirtualClock
) -> None:
    server = meshlib_grpc_upstream("stock")
    with ControlPlane(*service("stock", server.address)) as plane, Channels(face) as channels:
        mesh, wanted = make(plane), Wanted(plane)
        channel = channels.make(mesh)
        channel.unary()
        for _ in range(20):
            meshlib_clock.advance(14.0)
        assert wanted.names("listener") == {"stock"}
        channel.unary()
        channel.do(channel.channel.close)
        for _ in range(9):
            meshlib_clock.advance(14.0)
        wanted.until(lambda: not wanted.names("listener"))


def test_of_names_that_nobody_knows_a_hundred_are_kept(
    make: Any, upstream: Any, meshlib_clock: VirtualClock
) -> None:
    server = upstream("known")
    with ControlPlane(*service("known", server.address)) as plane:
        mesh, wanted = make(plane), Wanted(plane)
        runtime = mesh._runtime()
        with Caller("httpx", mesh) as call:
            assert call("GET", "http://known/")[0] == 200
            for number in range(400):
                runtime.want(f"unknown-{number}", f"unknown-{number}")
            wanted.until(lambda: f"unknown-{399}" in wanted.names("listener"))
            assert runtime.worker.call(lambda: None, 20)  # which sets its timers once it has asked
            meshlib_clock.advance(16.0)
            meshlib_clock.advance(16.0)
            wanted.until(lambda: len(wanted.names("listener")) == 101)
            assert "known" in wanted.names("listener")
            assert call("GET", "http://known/")[0] == 200


@pytest.mark.parametrize("library", ["httpx", "requests", "aiohttp"])
def test_in_an_outage_nothing_is_let_go_of(
    library: str, make: Any, upstream: Any, meshlib_clock: VirtualClock
) -> None:
    server = upstream("a")
    with ControlPlane(*service("once", server.address)) as plane:
        mesh = make(plane)
        with Caller(library, mesh) as call:
            assert call("GET", "http://once/")[0] == 200
            plane.stop()
            runtime = mesh._runtime()

            def unreached() -> bool:
                meshlib_clock.advance(1.0)  # until the next try, which is real
                return any(part.unreached for part in runtime.store.snapshot.parts)

            assert asked(unreached)
            for _ in range(50):
                meshlib_clock.advance(14.0)
            status, _, info = call("GET", "http://once/")
            assert (status, info.via) == (200, "mesh")
