"""One message there and one back, in an event loop: over grpc's core, past its layer of Python.

That layer makes a task for each RPC, to wait for the core; the call of the mesh above it waits, too. Here the core's coroutine is
stepped by what it waits for, so that an RPC needs no task, and begins at once. What it gives is the same as grpc's call gives. The
names of the core are grpc's own (tests/unit/test_private_names.py); where one is not as it was, ``make_direct`` gives None.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import grpc
from grpc import _common, _observability
from grpc._cython import cygrpc
from grpc.aio import AioRpcError, Metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from meshlib.hosts.grpc.request import Method

__all__ = ["UnaryAttempt", "make_direct"]

_CODES = _common.CYGRPC_STATUS_CODE_TO_STATUS_CODE
_CANCELLED = "Locally cancelled by application!"


class UnaryAttempt:
    """An RPC under way. Belongs to its loop."""

    __slots__ = ("_call", "_coroutine", "_deserializer", "_ended", "_method", "_waiters", "error", "value")

    def __init__(self, call: Any, coroutine: Any, method: Method) -> None:
        self._call = call
        self._coroutine = coroutine
        self._method = method
        self._ended: list[Callable[[Any], object]] | None = []
        self._waiters: list[asyncio.Future[None]] = []
        self.value: Any = None
        self.error: BaseException | None = None
        self._step(None)

    def _step(self, future: asyncio.Future[Any] | None) -> None:
        """On, from what it waited for: it asks that itself."""
        del future
        try:
            waits = self._coroutine.send(None)
        except StopIteration as done:
            self._end(done.value)
        except BaseException as error:  # noqa: BLE001 - whoever awaits it gets it
            self.error = error
            self._end(None)
        else:
            waits._asyncio_future_blocking = False
            waits.add_done_callback(self._step)

    def _end(self, data: Any) -> None:
        if data is not None and self._call.is_ok():
            try:
                deserializer = self._method.deserializer
                self.value = data if deserializer is None else deserializer(data)
            except Exception as error:  # noqa: BLE001 - as grpc's call, whoever awaits it gets it
                self.error = error
        ended, self._ended = self._ended, None
        for callback in ended or ():
            callback(self)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __await__(self) -> Generator[Any, None, Any]:
        if self._ended is not None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            yield from waiter
        if self.error is not None:
            raise self.error
        call = self._call
        if call.is_ok():
            return self.value
        if call.is_locally_cancelled():
            raise asyncio.CancelledError
        raise AioRpcError(
            self.ended_with(),
            Metadata.from_tuple(call._initial_metadata or ()),
            Metadata.from_tuple(call._status.trailing_metadata() or ()),
            details=call._status.details(),
            debug_error_string=call._status.debug_error_string(),
        )

    def ended_with(self) -> grpc.StatusCode:
        """The code of one that is over."""
        if self._call._status is None:
            return grpc.StatusCode.UNKNOWN
        code: grpc.StatusCode = _CODES.get(self._call._status.code(), grpc.StatusCode.UNKNOWN)
        return code

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        if self._ended is None:
            callback(self)
        else:
            self._ended.append(callback)

    def done(self) -> bool:
        return self._ended is None

    def cancel(self) -> bool:
        if self._call.done():
            return False
        self._call.cancel(_CANCELLED)
        return True

    async def code(self) -> grpc.StatusCode:
        await self._over()
        return self.ended_with()

    async def details(self) -> Any:
        await self._over()
        return self._call._status.details() if self._call._status is not None else str(self.error)

    async def debug_error_string(self) -> Any:
        await self._over()
        return self._call._status.debug_error_string() if self._call._status is not None else ""

    async def initial_metadata(self) -> Any:
        return Metadata.from_tuple(await self._call.initial_metadata())

    async def trailing_metadata(self) -> Any:
        await self._over()
        status = self._call._status
        return Metadata.from_tuple(status.trailing_metadata() or ()) if status is not None else Metadata()

    async def wait_for_connection(self) -> None:
        await self

    async def _over(self) -> None:
        if self._ended is not None:
            with contextlib.suppress(AioRpcError, asyncio.CancelledError):
                await self


def make_direct(inner: Any, method: Method) -> Callable[..., UnaryAttempt] | None:
    """What begins RPCs of ``inner``, a unary-unary callable of grpc's own: called with message, seconds, metadata, credentials and
    ``wait_for_ready``. None where grpc is not as it is known.
    """
    try:
        begin, path, handle = inner._channel.call, inner._method, inner._registered_call_handle
        context = cygrpc.build_census_context()
        with _observability.get_plugin() as plugin:
            if plugin is not None:
                return None
    except AttributeError:
        return None
    serializer, now = method.serializer, time.time

    def call(message: Any, seconds: float | None, metadata: Any, credentials: Any, wait: bool | None) -> Any:
        data = message if serializer is None else _common.serialize(message, serializer)
        rpc = begin(path, None if seconds is None else now() + seconds, credentials, wait, handle)
        return UnaryAttempt(rpc, rpc.unary_unary(data, tuple(metadata or ()), context), method)

    return call
