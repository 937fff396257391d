"""Sockets connected under trio, raced as RFC 8305 says."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import trio

from meshlib.wire.dial import ATTEMPT_DELAY, failed, interleave, numeric, prepared
from meshlib.wire.errors import ConnectError, ConnectTimeout
from meshlib.wire.stream import Stream
from meshlib.wire.stream_trio import TrioStream, limited

if TYPE_CHECKING:
    from meshlib.pools.bounds import Bounds
    from meshlib.wire.dial import Address, Place

__all__ = ["open_trio", "resolve"]


async def open_trio(place: Place, bounds: Bounds, seconds: float | None) -> TrioStream:
    """A socket that is connected to ``place``. Raises ConnectError, ConnectTimeout."""
    won: list[socket.socket] = []
    errors: list[OSError] = []
    try:
        with limited(bounds, seconds):
            addresses: list[Address] = [(socket.AF_UNIX, place.uds)]
            if place.uds is None:
                addresses = await resolve(place)
            await _race(place, addresses, won, errors)
        if not won:
            raise failed(place, errors) from (errors[-1] if errors else None)
        return TrioStream(Stream(won.pop()))
    except TimeoutError as error:
        bounds.timed_out()
        raise ConnectTimeout(f"{place}: not connected in time") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that is none
        raise ConnectError(f"{place}: {error}") from error
    finally:
        for sock in won:
            sock.close()


async def resolve(place: Place) -> list[Address]:
    """The addresses of a place's name, as they are tried."""
    if known := numeric(place):
        return known
    found = await trio.socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    return interleave((family, address) for family, _, _, _, address in found)


async def _race(
    place: Place, addresses: list[Address], won: list[socket.socket], errors: list[OSError]
) -> None:
    async def attempt(address: Address, over: trio.Event) -> None:
        try:
            sock = await _connected(place, address)
        except OSError as error:
            errors.append(error)
            over.set()
            return
        won.append(sock)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for address in addresses:
            over = trio.Event()
            nursery.start_soon(attempt, address, over)
            with trio.move_on_after(ATTEMPT_DELAY):
                await over.wait()
    for late in won[1:]:
        late.close()
    del won[1:]


async def _connected(place: Place, address: Address) -> socket.socket:
    sock = prepared(place, address[0])
    try:
        code = sock.connect_ex(address[1])
        if code == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except BaseException:
        sock.close()
        raise
    if code:
        sock.close()
        raise OSError(code, os.strerror(code))
    return sock
