"""The body of a response: reading it to its end, closing it or losing it ends the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from meshlib.hosts.body import OpenCall

__all__ = ["AsyncBody", "Body"]


class Body:
    """Mixed with the library's ``SyncByteStream``. ``response``: the wire's, of which the connection is held until then."""

    # Let go once it is closed: a response that is kept shall not keep connections, plans and requests.
    _held: tuple[Any, OpenCall] | None = None

    def __init__(self, response: Any, call: OpenCall) -> None:
        self._held = response, call

    def __iter__(self) -> Iterator[bytes]:
        if self._held is None:
            return
        response, call = self._held
        try:
            yield from response
        except Exception as error:
            raised = call.broken(error)
            self.__dict__.pop("_held", None)
            if raised is error:
                raise
            raise raised from error

    def close(self) -> None:
        held = self.__dict__.pop("_held", None)  # one of two threads has it
        if held is not None:
            response, call = held
            try:
                response.close()
            finally:
                call.end()

    def __del__(self) -> None:
        held = self.__dict__.pop("_held", None)  # one of two threads has it
        if held is not None:
            response, call = held
            response.abandon()
            call.abandon()


class AsyncBody:
    """The same for a task."""

    _held: tuple[Any, OpenCall] | None = None

    def __init__(self, response: Any, call: OpenCall) -> None:
        self._held = response, call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._held is None:
            return
        response, call = self._held
        try:
            async for part in response:
                yield part
        except Exception as error:
            raised = call.broken(error)
            self.__dict__.pop("_held", None)
            if raised is error:
                raise
            raise raised from error

    async def aclose(self) -> None:
        held = self.__dict__.pop("_held", None)  # one of two threads has it
        if held is not None:
            response, call = held
            try:
                await response.aclose()
            finally:
                call.end()

    def __del__(self) -> None:
        held = self.__dict__.pop("_held", None)  # one of two threads has it
        if held is not None:
            response, call = held
            response.abandon()
            call.abandon()
