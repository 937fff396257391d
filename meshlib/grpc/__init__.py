"""gRPC channels in the mesh: ``meshlib.grpc.channel(target)`` is a ``grpc.Channel``.

    channel = meshlib.grpc.channel("reviews:9080")
    stub = reviews_pb2_grpc.ReviewsStub(channel)

Stubs, interceptors (``grpc.intercept_channel``), credentials, health and reflection clients take it as any other. Each call goes
by the routes, endpoints and policies of the mesh; one to a target that the mesh does not know goes there as grpc does.
``meshlib.grpc.ServerInterceptor`` is for servers: what their handlers call inherits trace and deadline.
:mod:`meshlib.grpc.aio` has the channels of asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from meshlib.grpc import aio as aio
    from meshlib.mesh import Mesh
    from meshlib.serving_grpc import ServerInterceptor

__all__ = ["ServerInterceptor", "channel"]


def channel(
    target: str,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    *,
    mesh: Mesh | None = None,
) -> grpc.Channel:
    """A channel to ``target`` through the mesh. Connects to nobody before it is used. Thread-safe, and good after a fork.

    Args:
        target: As grpc takes it: ``"reviews:9080"``, ``"dns:///reviews:9080"``; by ``"xds:///reviews"`` calls go through the mesh
            or not at all.
        credentials: As ``grpc.secure_channel`` takes them; None: plain text, and a cluster that demands TLS is not called.
        options: Channel arguments. ``grpc.default_authority`` is the authority that virtual hosts are matched against.
        compression: As grpc takes it.
        mesh: Whose rules hold; without it ``meshlib.default()``.

    What fails is meshlib's error and a ``grpc.RpcError`` at once, which has ``code()`` and ``details()``.
    """
    from meshlib.hosts.grpc.channel import MeshChannel
    from meshlib.mesh import runtime_of

    return MeshChannel(target, credentials, options, compression, runtime_of(mesh))


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "aio":
        return import_module("meshlib.grpc.aio")
    if name == "ServerInterceptor":  # it is one of grpc's, which is loaded when somebody wants it
        return import_module("meshlib.serving_grpc").ServerInterceptor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
