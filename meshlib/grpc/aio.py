"""asyncio gRPC channels in the mesh: ``meshlib.grpc.aio.channel(target)`` is a ``grpc.aio.Channel``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from meshlib.mesh import Mesh
    from meshlib.serving_grpc import AioServerInterceptor as ServerInterceptor

__all__ = ["ServerInterceptor", "channel"]


def channel(
    target: str,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    *,
    mesh: Mesh | None = None,
) -> grpc.aio.Channel:
    """A channel to ``target`` through the mesh, for any number of event loops. As :func:`meshlib.grpc.channel`; what fails is
    meshlib's error and a ``grpc.aio.AioRpcError`` at once. ``interceptors``: as ``grpc.aio.insecure_channel`` takes them.
    """
    from meshlib.hosts.grpc_aio.channel import AioMeshChannel
    from meshlib.mesh import runtime_of

    return AioMeshChannel(target, credentials, options, compression, interceptors, runtime_of(mesh))


def __getattr__(name: str) -> Any:
    if name == "ServerInterceptor":  # it is one of grpc's, which is loaded when somebody wants it
        from meshlib.serving_grpc import AioServerInterceptor

        return AioServerInterceptor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
