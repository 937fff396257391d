"""The way to an endpoint through an HTTP/1.1 proxy: CONNECT, and its answer (RFC 9110, 9.3.6; gRFC A86).

All of it is a part of connecting. It is over within what is left of the connect timeout, and no byte of a request has left by it.
"""

from __future__ import annotations

import contextlib
from time import monotonic
from typing import TYPE_CHECKING

from meshlib.pools.bounds import Bounds
from meshlib.wire.connection import Connection
from meshlib.wire.connection_async import AsyncConnection
from meshlib.wire.errors import ConnectError, ConnectTimeout, ReadTimeout, WireError, WriteTimeout
from meshlib.wire.message import Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshlib.wire.stream import Stream
    from meshlib.wire.stream_async import AsyncStream

__all__ = ["ask", "ask_async", "judge"]


class _Asking(Bounds):
    """Those of asking a proxy. ``until``: when connecting is to be over, on the system's clock."""

    __slots__ = ("_until",)

    def __init__(self, bounds: Bounds, until: float | None) -> None:
        super().__init__(bounds.clock, bounds.deadline)
        self._until = until

    def left(self, name: str) -> float | None:
        seconds = super().left(name)
        if self._until is None:
            return seconds
        left = self._until - monotonic()
        if left <= 0:
            raise TimeoutError("not connected in time")
        return left if seconds is None or left < seconds else seconds


def ask(stream: Stream, proxy: str, target: bytes, bounds: Bounds, until: float | None) -> None:
    """Have ``proxy``, at the other end of ``stream``, connect it to ``target``. Raises ConnectError, ConnectTimeout."""
    asking = _Asking(bounds, until)
    with _told(proxy, bounds, asking):
        connection = Connection(stream)
        answer = connection.send(Outgoing(b"CONNECT", target, [(b"Host", target)]), asking)
        judge(proxy, answer.status, connection.machine.leftover)


async def ask_async(
    stream: AsyncStream, proxy: str, target: bytes, bounds: Bounds, until: float | None
) -> None:
    """As ``ask``."""
    asking = _Asking(bounds, until)
    with _told(proxy, bounds, asking):
        connection = AsyncConnection(stream)
        answer = await connection.send(Outgoing(b"CONNECT", target, [(b"Host", target)]), asking)
        judge(proxy, answer.status, connection.machine.leftover)


def judge(proxy: str, status: int, more: bytes) -> None:
    """Whether the answer of ``proxy`` to CONNECT, with ``more`` behind it, opens the way. Raises ConnectError where it does not."""
    if not 200 <= status < 300:
        raise ConnectError(f"{proxy}: it answers CONNECT with {status}")
    if more:
        raise ConnectError(f"{proxy}: there is something behind its answer, before anybody was asked")


@contextlib.contextmanager
def _told(proxy: str, bounds: Bounds, asking: Bounds) -> Iterator[None]:
    """What goes wrong inside is told as a connection that could not be made."""
    try:
        yield
    except (ReadTimeout, WriteTimeout) as error:
        bounds.expired = bounds.expired or asking.expired
        raise ConnectTimeout(f"{proxy}: {error}") from error
    except ConnectError:
        raise
    except WireError as error:
        raise ConnectError(f"{proxy}: {error}") from error
