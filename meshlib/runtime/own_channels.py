"""grpc's channels that meshlib makes for itself: to endpoints, and to control planes.

They are made past grpc's factories, of which others make spans, and a mesh (each attempt would be a call of its own, and a stream
to a control plane one that does not end); and they are marked, so that our own patch leaves them alone. By then grpc has its hooks
around forks, and ours are to run before them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc import _channel as blocking
from grpc.aio import _channel as of_asyncio

from meshlib.runtime.process import arm_again

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

__all__ = ["PLAIN", "aio_channel", "channel"]

#: The attribute that marks them.
PLAIN = "_meshlib_plain"


def channel(
    target: str,
    options: Sequence[tuple[str, Any]],
    credentials: grpc.ChannelCredentials | None,
    compression: grpc.Compression | None = None,
) -> grpc.Channel:
    """As ``grpc.insecure_channel`` makes it, and with ``credentials`` as ``grpc.secure_channel``."""
    inner = None if credentials is None else credentials._credentials
    made: grpc.Channel = blocking.Channel(target, options, inner, compression)
    vars(made)[PLAIN] = True
    arm_again()
    return made


def aio_channel(
    target: str,
    options: Sequence[tuple[str, Any]],
    credentials: grpc.ChannelCredentials | None,
    compression: grpc.Compression | None = None,
) -> grpc.aio.Channel:
    """As ``channel``; for the running event loop."""
    inner = None if credentials is None else credentials._credentials
    made: grpc.aio.Channel = of_asyncio.Channel(target, options, inner, compression, None)
    vars(made)[PLAIN] = True
    arm_again()
    return made
