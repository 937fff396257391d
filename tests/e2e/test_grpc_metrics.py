"""Metrics of real RPCs: the conventions' histogram (v1.44.0, rpc-metrics.md), and gRPC's instruments (gRFC A66, A96)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import meshlib
import meshlib.grpc
import meshlib.grpc.aio
from tests.support.rpc_server import METHODS, Asyncio, Blocking, RpcServer
from tests.support.telemetry import Recorded, sdk

GET = METHODS["unary_unary"]
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
LABELS = {"grpc.method": GET, "grpc.target": "dns:///reviews:80"}


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """Metrics alone: no tracer provider is set."""
    with sdk(tracing=False) as found:
        yield found


@pytest.fixture
def server() -> Iterator[RpcServer]:
    with RpcServer() as found:
        yield found


def mesh_of(*endpoints: str, **policies: Any) -> meshlib.Mesh:
    config: Any = {"services": {"reviews": {"endpoints": list(endpoints), **policies}}}
    return meshlib.Mesh(config)


def by(recorded: Recorded, name: str, attribute: str) -> dict[Any, Any]:
    return {point.attributes[attribute]: point for point in recorded.points(name)}


@pytest.mark.parametrize("kind", [Blocking, Asyncio])
def test_a_call_is_measured_whole_and_each_attempt_by_itself(
    recorded: Recorded, server: RpcServer, kind: Any
) -> None:
    server.codes = [UNAVAILABLE, UNAVAILABLE]
    with mesh_of(server.address, retry={"attempts": 3, "on": ["unavailable"], "backoff_base": 0.01}) as mesh:
        channel = kind("reviews:80", mesh)
        for _ in range(3):
            channel.call("unary_unary")
        server.codes = [grpc.StatusCode.NOT_FOUND]
        with pytest.raises(grpc.RpcError):
            channel.call("unary_unary")
        channel.close()
    calls = by(recorded, "rpc.client.call.duration", "rpc.response.status_code")
    common = {"rpc.system.name": "grpc", "rpc.method": GET, "server.address": "reviews", "server.port": 80}
    assert dict(calls["OK"].attributes) == {**common, "rpc.response.status_code": "OK"}
    assert dict(calls["NOT_FOUND"].attributes) == {
        **common,
        "rpc.response.status_code": "NOT_FOUND",
        "error.type": "NOT_FOUND",
    }
    assert {code: point.count for code, point in calls.items()} == {"OK": 3, "NOT_FOUND": 1}
    assert calls["OK"].explicit_bounds == SECONDS

    whole = by(recorded, "grpc.client.call.duration", "grpc.status")
    assert dict(whole["OK"].attributes) == {**LABELS, "grpc.status": "OK"}
    assert {code: point.count for code, point in whole.items()} == {"OK": 3, "NOT_FOUND": 1}
    assert len(whole["OK"].explicit_bounds) == 41
    tries = by(recorded, "grpc.client.attempt.duration", "grpc.status")
    assert {code: point.count for code, point in tries.items()} == {"OK": 3, "NOT_FOUND": 1, "UNAVAILABLE": 2}
    assert tries["OK"].sum + tries["UNAVAILABLE"].sum < whole["OK"].sum
    [started] = recorded.points("grpc.client.attempt.started")
    assert (dict(started.attributes), started.value) == (LABELS, 6)

    [retries] = recorded.points("grpc.client.call.retries")
    assert (dict(retries.attributes), retries.count, retries.sum) == (LABELS, 1, 2)
    [delay] = recorded.points("grpc.client.call.retry_delay")
    assert delay.count == 1
    assert 0.01 < delay.sum < calls["OK"].sum
    assert recorded.points("grpc.client.call.transparent_retries") == []
    assert recorded.points("http.client.request.duration") == []
    assert recorded.spans == ()


def test_what_never_left_is_a_transparent_retry(recorded: Recorded, server: RpcServer) -> None:
    with RpcServer() as gone:
        dead = gone.address
    with mesh_of(dead, server.address, balancer="round_robin") as mesh:
        channel = Blocking("reviews:80", mesh)
        for _ in range(2):
            channel.call("unary_unary")
        channel.close()
    [transparent] = recorded.points("grpc.client.call.transparent_retries")
    assert (dict(transparent.attributes), transparent.count, transparent.sum) == (LABELS, 1, 1)
    assert recorded.points("grpc.client.call.retries") == []


def test_a_stream_is_measured_up_to_its_end(recorded: Recorded, server: RpcServer) -> None:
    server.held.clear()
    with mesh_of(server.address) as mesh:
        channel = meshlib.grpc.aio.channel("reviews:80", mesh=mesh)

        async def read() -> None:
            call = channel.unary_stream(f"/{METHODS['unary_stream']}")(b"m")
            async for _ in call:
                assert recorded.points("grpc.client.attempt.duration") == []
                server.held.set()
            await channel.close()

        asyncio.run(read())
    for name in ("grpc.client.attempt.duration", "grpc.client.call.duration", "rpc.client.call.duration"):
        [point] = recorded.points(name)
        assert point.count == 1


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        ("reviews:80", "dns:///reviews:80"),
        ("dns:reviews:80", "dns:reviews:80"),
        ("dns:///reviews:80", "dns:///reviews:80"),
        ("xds:///reviews", "xds:///reviews"),
    ],
)
def test_a_method_that_no_generated_code_names_makes_no_series(
    recorded: Recorded, server: RpcServer, target: str, uri: str
) -> None:
    with mesh_of(server.address) as mesh, meshlib.grpc.channel(target, mesh=mesh) as channel:
        made: Any = channel.unary_unary
        assert made(f"/{GET}")(b"m") == b"m"
        assert made(f"/{GET}", None, None, True)(b"m") == b"m"
    whole = by(recorded, "grpc.client.call.duration", "grpc.method")
    assert {name: point.attributes["grpc.target"] for name, point in whole.items()} == {
        "other": uri,
        GET: uri,
    }
    assert set(by(recorded, "rpc.client.call.duration", "rpc.method")) == {"_OTHER", GET}


def test_a_call_that_has_no_endpoint_is_measured(recorded: Recorded) -> None:
    with mesh_of() as mesh, meshlib.grpc.channel("reviews:80", mesh=mesh) as channel:
        made: Any = channel.unary_unary
        with pytest.raises(meshlib.NoHealthyEndpoint):
            made(f"/{GET}", None, None, True)(b"m")
    [point] = recorded.points("grpc.client.call.duration")
    assert dict(point.attributes) == {**LABELS, "grpc.status": "UNAVAILABLE"}
    [started] = recorded.points("grpc.client.attempt.started")
    assert started.value == 1, "to gRPC an attempt begins before an endpoint is chosen"


#: What grpcio's own plug-in (grpcio-observability 1.85.0) gave of the calls below, over grpcio's own channel: its attempts that started,
#: and those that ended, by method and code. Each of its releases demands one exact grpcio, so that it cannot stand beside ours.
STARTED = {(GET,): 2, (METHODS["unary_stream"],): 1, ("other",): 1}
ENDED = {(GET, "OK"): 2, (METHODS["unary_stream"], "OK"): 1, ("other", "UNIMPLEMENTED"): 1}


def test_attempts_are_told_as_grpcios_own_plug_in_tells_them(recorded: Recorded, server: RpcServer) -> None:
    with mesh_of(server.address) as mesh, meshlib.grpc.channel("dns:///reviews:80", mesh=mesh) as channel:
        made: Any = channel
        for _ in range(2):
            made.unary_unary(f"/{GET}", None, None, True)(b"m")
        list(made.unary_stream(f"/{METHODS['unary_stream']}", None, None, True)(b"m"))
        with pytest.raises(grpc.RpcError):
            made.unary_unary("/shop.Reviews/Nothing")(b"m")

    def told(name: str, value: str) -> dict[Any, Any]:
        target = LABELS["grpc.target"]
        points = recorded.points(name)
        assert {point.attributes["grpc.target"] for point in points} == {target}
        labels = ("grpc.method", "grpc.status")
        return {
            tuple(point.attributes[key] for key in labels if key in point.attributes): getattr(point, value)
            for point in points
        }

    assert told("grpc.client.attempt.started", "value") == STARTED
    assert told("grpc.client.attempt.duration", "count") == ENDED
    units = {metric.name: metric.unit for metric in recorded.metrics}
    assert units["grpc.client.attempt.started"] == "{attempt}"
    assert units["grpc.client.attempt.duration"] == "s"
