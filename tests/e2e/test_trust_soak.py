"""Calls over mTLS while everybody's certificates live for seconds and the roots above them are replaced: none fails, and a rotation costs a
connection a handshake. ``make soak-trust`` is ten minutes of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import meshlib
import meshlib.grpc.aio
from meshlib.testing import GrpcUpstream, IstioCa
from tests.support.trust_soak import ACCOUNT, Load, Rotation, Server

SECONDS = float(os.environ.get("MESHLIB_TRUST_SECONDS", "20"))
LONG = SECONDS >= 120
LIFETIME = 10.0
THREADS, TASKS = 20, 100


@pytest.mark.timeout(SECONDS + 120)
def test_no_call_fails_and_a_rotation_costs_a_handshake(tmp_path, record_property):
    load = Load()
    with (
        GrpcUpstream("stock") as upstream,
        IstioCa(tmp_path, lifetime=LIFETIME) as ca,
        Server(ca, upstream, tmp_path) as server,
        meshlib.Mesh(_config(ca, server)) as mesh,
    ):
        mesh.wait_ready("reviews", "stock")
        with Rotation(ca, server, seconds=SECONDS, roots=2 if LONG else 1) as rotation, _calling(mesh, load):
            rotation.wait()
        (identity,) = mesh.status().identity
        handshakes, issued = server.envoy.tls(), len([asked for asked in ca.requests if asked.admitted])
        roots = ca.authority.roots
    assert load.failures == []
    assert rotation.failure is None
    assert set(load.done) == {"http threads", "http tasks", "grpc threads", "grpc tasks"}
    assert min(load.done.values()) > SECONDS * 10
    assert issued >= SECONDS / LIFETIME
    assert rotation.roots == (2 if LONG else 1)
    assert (identity.state, identity.roots, len(roots)) == ("ready", 1, 1)
    # Every change of our certificate, or of the roots that are trusted (one more is told, one less), is one of the material.
    changes = issued + 2 * rotation.roots
    connections = THREADS + TASKS + 2  # HTTP has one a caller at most, gRPC one a channel
    assert handshakes["handshake"] <= (changes + 1) * connections
    for refusal in ("connection_error", "fail_verify_error", "fail_verify_no_cert", "fail_verify_san"):
        assert handshakes[refusal] == 0, handshakes
    record_property("calls", dict(load.done))
    record_property("issued", issued)
    record_property("handshakes", handshakes["handshake"])
    print(
        f"\n{dict(load.done)}, {issued} certificates for us, {rotation.renewed} for the server, {rotation.roots} roots;"
        f" {handshakes['handshake']} handshakes;"
        f" ms of the median call and of the slowest in a hundred: { {kind: load.milliseconds(kind) for kind in load.done} }"
    )


def _config(ca: IstioCa, server: Server) -> dict[str, Any]:
    service = {"endpoints": [server.envoy.address], "tls": {"sans": [ACCOUNT]}}
    identity = {"provider": "istio", **ca.settings}
    return {"identity": identity, "services": {"reviews": service, "stock": service}}


@contextlib.contextmanager
def _calling(mesh: meshlib.Mesh, load: Load):
    with meshlib.Client(mesh=mesh, timeout=30) as client, meshlib.grpc.channel("stock", mesh=mesh) as channel:
        unary = channel.unary_unary("/shop.Stock/Get")
        load.threads("http threads", THREADS, 0.2, lambda: client.get("http://reviews/").text)
        load.threads("grpc threads", THREADS, 0.2, lambda: unary(b"x") and "served")
        load.tasks(TASKS, 1.0, lambda: _tasks(mesh))
        try:
            yield
        finally:
            load.finish()


@contextlib.asynccontextmanager
async def _tasks(mesh: meshlib.Mesh) -> AsyncIterator[dict[str, Callable[[], Any]]]:
    async with (
        meshlib.AsyncClient(mesh=mesh, timeout=30) as client,
        meshlib.grpc.aio.channel("stock", mesh=mesh) as channel,
    ):
        unary = channel.unary_unary("/shop.Stock/Get")

        async def http() -> str:
            return (await client.get("http://reviews/")).text

        async def rpc() -> str:
            return "served" if await unary(b"x") else ""

        yield {"http tasks": http, "grpc tasks": rpc}
