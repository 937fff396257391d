"""meshlib's gRPC channels: one endpoint from a configuration, or from a control plane; 100 of them for what they hold."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import grpc

import meshlib.grpc
import meshlib.grpc.aio
from bench import routes
from bench.rpcs import UNARY, peers
from bench.world import World

ENDPOINTS = 100
_HELD = f"""
import json, sys, pathlib
import meshlib, meshlib.grpc
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4
def threads():
    return len(list(pathlib.Path("/proc/self/task").iterdir()))
def use(addresses):
    mesh = meshlib.Mesh({{"services": {{"reviews": {{"endpoints": addresses}}}}}})
    channel = meshlib.grpc.channel("reviews", mesh=mesh)
    call = channel.unary_unary({UNARY!r})
    for _ in range(len(addresses) * 3):
        call(b"y", timeout=30.0)
    held = len(channel._wire().subchannels._found)
    if held != len(addresses):
        sys.exit(f"{{held}} endpoints were called, not {{len(addresses)}}")
    return mesh, channel
addresses = json.loads(sys.argv[1])
one = use(addresses[:1])
before = resident(), threads()
many = use(addresses[1:])
print((resident() - before[0]) / (len(addresses) - 1), threads() - before[1])
"""


def _sync(world: World) -> Any:
    return meshlib.grpc.channel(routes.HOST, mesh=world.grpc_mesh)


def _aio(world: World) -> Any:
    return meshlib.grpc.aio.channel(routes.HOST, mesh=world.grpc_mesh)


def _tls(world: World) -> Any:
    credentials = grpc.ssl_channel_credentials(world.authority_pem)
    return meshlib.grpc.channel(routes.HOST, credentials, mesh=world.grpc_tls_mesh)


def _aio_tls(world: World) -> Any:
    credentials = grpc.ssl_channel_credentials(world.authority_pem)
    return meshlib.grpc.aio.channel(routes.HOST, credentials, mesh=world.grpc_tls_mesh)


def _mtls(world: World) -> Any:
    return meshlib.grpc.channel(routes.HOST, mesh=world.grpc_mtls_mesh)


def _aio_mtls(world: World) -> Any:
    return meshlib.grpc.aio.channel(routes.HOST, mesh=world.grpc_mtls_mesh)


def _xds(world: World) -> Any:
    return meshlib.grpc.channel(routes.HOST, mesh=world.grpc_xds_mesh)


def _aio_xds(world: World) -> Any:
    return meshlib.grpc.aio.channel(routes.HOST, mesh=world.grpc_xds_mesh)


@dataclass
class Held:
    """What a channel over 100 endpoints holds for each, in an interpreter of its own: KiB, or threads."""

    name: str
    column: int
    _addresses: list[str] = field(default_factory=list, repr=False)

    def open(self, world: World) -> None:
        self._addresses = world.grpc_addresses

    def sample(self) -> float:
        command = [sys.executable, "-c", _HELD, json.dumps(self._addresses)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout.split()[self.column])

    def close(self) -> None:
        """Nothing is open."""


PEERS = (
    *peers("meshlib.grpc", _sync, _aio),
    *peers("meshlib.grpc", _tls, _aio_tls, ", TLS"),
    *peers("meshlib.grpc", _mtls, _aio_mtls, ", TLS of the mesh"),
    *peers("meshlib.grpc", _xds, _aio_xds, ", xds"),
    Held("meshlib.grpc.channel, memory of an endpoint", 0),
    Held("meshlib.grpc.channel, threads of 100 endpoints", 1),
)
