"""Streams of bytes for trio: the non-blocking socket of a blocking stream, for which a task waits instead of a thread."""

from __future__ import annotations

import contextlib
import select
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

import trio

from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.wire.errors import ConnectError, ConnectTimeout, ReadError, ReadTimeout, WriteError, WriteTimeout
from meshlib.wire.stream import Stream, rest_after

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

__all__ = ["TrioStream", "limited"]

_CLOCK = MonotonicClock()


@contextlib.contextmanager
def limited(bounds: Bounds, seconds: float | None) -> Iterator[None]:
    """Raises TimeoutError once the seconds are over, or the deadline of ``bounds`` where its clock is virtual."""
    token = trio.lowlevel.current_trio_token()

    def ring() -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(scope.cancel)

    with trio.move_on_after(inf if seconds is None else seconds) as scope:
        if bounds.alarmed:
            with bounds.ringing(ring):
                yield
        else:
            yield
    if scope.cancelled_caught:
        raise TimeoutError("not in time")


class TrioWait:
    """Where one task waits until it is woken."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = trio.Event()

    def wake(self) -> None:
        self.event.set()

    def end(self) -> None:
        """There is no timer to be ended."""


class TrioStream:
    """As :class:`~meshlib.wire.stream_async.AsyncioStream`. ``core`` is its own."""

    __slots__ = ("_core",)

    def __init__(self, core: Stream) -> None:
        self._core = core

    @property
    def closed(self) -> bool:
        """It is of no use any more."""
        return self._core.closed

    @property
    def protocol(self) -> bytes | None:
        """What ALPN chose."""
        return self._core.protocol

    async def read(self, most: int, bounds: Bounds) -> bytes:
        """At least one byte and at most ``most``; b"" at the end. Raises ReadTimeout, ReadError."""
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self._core.read_now(most)
        while data is None:
            await self._await_input(bounds, None)
            data = self._core.read_now(most)
        return data

    def read_now(self, most: int) -> bytes | None:
        """What is there already; None where nothing is. Raises ReadError."""
        return self._core.read_now(most)

    async def await_input(self, seconds: float, bounds: Bounds) -> bool:
        """Wait until there is something to read, at most that long; whether there is. Raises ReadTimeout, ReadError."""
        return await self._await_input(bounds, seconds)

    async def _await_input(self, bounds: Bounds, most: float | None) -> bool:
        shorter = False
        try:
            seconds = bounds.left("read")
            if most is not None and (seconds is None or most < seconds):
                shorter, seconds = True, most
            with limited(bounds, seconds):
                await self._wait(self._core._wanted or select.POLLIN)
        except TimeoutError as error:
            if shorter and not bounds.expired:
                return False
            bounds.timed_out()
            raise ReadTimeout(str(error)) from error
        except OSError as error:
            raise ReadError(str(error)) from error
        return True

    async def write(
        self,
        data: bytes | list[bytes],
        bounds: Bounds,
        listening: bool = False,
        patience: float | None = None,
    ) -> bool:
        """As ``Stream.write``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        core = self._core
        core._unsent = (*core._unsent, *(data if isinstance(data, list) else (data,)))
        try:
            seconds = bounds.left("write")
            until = None if seconds is None else trio.current_time() + seconds
            while not self._send(bounds):
                seconds = bounds.left("write")
                if until is not None and trio.current_time() > until:
                    raise TimeoutError("not all of it in time")  # noqa: TRY301 - as one of waiting
                if patience is not None and (seconds is None or patience < seconds):
                    seconds = patience
                with limited(bounds, seconds):
                    if not await self._wait(core._wanted or select.POLLOUT, listening=listening):
                        return False
        except TimeoutError as error:
            bounds.timed_out()
            raise WriteTimeout(str(error)) from error
        except OSError as error:
            raise WriteError(str(error)) from error
        return True

    def _send(self, bounds: Bounds) -> bool:
        """Have the system take what it takes; whether that is all. Raises OSError."""
        core = self._core
        while core._unsent:
            count, _ = core._send(core._unsent, bounds) if core._unsent[0] else (0, 0)
            if count is None:
                return False
            core._unsent = rest_after(core._unsent, count)
        return True

    # ------------------------------------------------------------------------------------------- for who shares it

    def listen(self, call: Callable[[], object]) -> bool:
        """It tells of nothing by itself."""
        del call
        return False

    @property
    def unsent(self) -> int:
        """Bytes that the system has not taken yet."""
        return sum(map(len, self._core._unsent))

    @property
    def full(self) -> bool:
        """There are some."""
        return bool(self._core._unsent)

    def write_now(self, data: bytes) -> None:
        """Have the system take of it what it takes, and keep the rest. Raises WriteError."""
        core = self._core
        core._unsent = (*core._unsent, data)
        bounds = Bounds(_CLOCK)
        bounds.sent = True  # whoever shares it says what it knows of that
        try:
            self._send(bounds)
        except OSError as error:
            raise WriteError(str(error)) from error

    async def drained(self, bounds: Bounds) -> None:
        """Wait until it is not full. Raises WriteTimeout, WriteError."""
        await self.write(b"", bounds)

    def new_wait(self) -> TrioWait:
        """For a task that waits for one thing of many, within ``within``."""
        return TrioWait()

    async def within(self, waiter: TrioWait, seconds: float | None, bounds: Bounds) -> None:
        """Until ``waiter`` is woken. Raises TimeoutError."""
        waiter.event = trio.Event()
        with limited(bounds, seconds):
            await waiter.event.wait()

    # ------------------------------------------------------------------------------------------------- its socket

    async def _wait(self, events: int, *, listening: bool = False) -> bool:
        """Until one of ``events`` comes; False: with ``listening``, that the peer's bytes did first."""
        sock = self._core.get_extra_info("socket")
        came: list[bool] = []

        async def wait(reads: bool, wanted: bool) -> None:
            with contextlib.suppress(trio.ClosedResourceError):  # who goes on sees that it is closed
                await (trio.lowlevel.wait_readable if reads else trio.lowlevel.wait_writable)(sock)
                came.append(wanted)
            nursery.cancel_scope.cancel()

        try:
            if not (listening and events == select.POLLOUT):
                reads = events == select.POLLIN
                await (trio.lowlevel.wait_readable if reads else trio.lowlevel.wait_writable)(sock)
                return True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, False, True)
                nursery.start_soon(wait, True, False)
        except trio.ClosedResourceError:
            raise OSError("the connection is closed") from None
        return any(came)

    def readable(self) -> bool:
        """As ``Stream.readable``."""
        return self._core.readable()

    def close(self) -> None:
        """End it; who waits for it fails. Twice is no error."""
        if not self._core.closed:
            with contextlib.suppress(RuntimeError):  # not within trio: nobody waits
                trio.lowlevel.notify_closing(self._core.get_extra_info("socket"))
            self._core.close()

    async def start_tls(
        self,
        context: ssl.SSLContext,
        server_hostname: str | None,
        bounds: Bounds,
        seconds: float | None = None,
    ) -> TrioStream:
        """As ``Stream.start_tls``."""
        core = self._core
        try:
            allowed = bounds.left("connect")
            began, left = monotonic(), allowed if seconds is None else seconds
            core.begin_tls(context, server_hostname)
            while wanted := core.shake_hands():
                spent = monotonic() - began
                with limited(bounds, None if left is None else max(0.0, left - spent)):
                    await self._wait(wanted)
        except TimeoutError as error:
            self.close()
            bounds.timed_out()
            raise ConnectTimeout("the TLS handshake was not over in time") from error
        except (OSError, ValueError) as error:  # ValueError: a name that is none
            self.close()
            raise ConnectError(str(error) or type(error).__name__) from error
        except BaseException:
            self.close()
            raise
        return TrioStream(core.secured(context))

    def get_extra_info(self, name: str) -> Any:
        """As httpcore's ``AsyncNetworkStream``."""
        return self._core.get_extra_info(name)
