"""grpcio's own channels: to one address, and by ``xds:///`` with a control plane that knows this one address."""

from __future__ import annotations

from typing import Any

import grpc

from bench import routes
from bench.rpcs import peers
from bench.world import World


def _sync(world: World) -> Any:
    return grpc.insecure_channel(world.grpc_addresses[0])


def _aio(world: World) -> Any:
    return grpc.aio.insecure_channel(world.grpc_addresses[0])


def _tls(world: World) -> Any:
    return grpc.secure_channel(world.grpc_tls_address, grpc.ssl_channel_credentials(world.authority_pem))


def _aio_tls(world: World) -> Any:
    return grpc.aio.secure_channel(world.grpc_tls_address, grpc.ssl_channel_credentials(world.authority_pem))


def _options(world: World) -> list[tuple[str, Any]]:
    return [("grpc.TEST_ONLY_DO_NOT_USE_IN_PROD.xds_bootstrap_config", world.grpc_bootstrap)]


def _xds(world: World) -> Any:
    return grpc.insecure_channel(f"xds:///{routes.HOST}", _options(world))


def _aio_xds(world: World) -> Any:
    return grpc.aio.insecure_channel(f"xds:///{routes.HOST}", _options(world))


PEERS = (
    *peers("grpcio", _sync, _aio),
    *peers("grpcio", _tls, _aio_tls, ", TLS"),
    *peers("grpcio", _xds, _aio_xds, ", xds"),
)
