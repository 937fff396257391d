"""The body of a response: reading it to its end, closing it or losing it ends the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from meshlib.hosts.body import OpenCall

__all__ = ["AsyncBody", "Body"]


class _Held:
    """What a body holds until the call is over. ``response``: the wire's, of which the connection is held until then."""

    # Let go once it is closed: a response that is kept shall not keep connections, plans and requests.
    _held: tuple[Any, OpenCall] | None = None

    def __init__(self, response: Any, call: OpenCall) -> None:
        self._held = response, call

    def _take(self) -> tuple[Any, OpenCall] | None:
        """What is held, to be ended by the caller: one of two threads has it."""
        held: tuple[Any, OpenCall] | None = self.__dict__.pop("_held", None)
        return held

    def _broken(self, call: OpenCall, error: Exception) -> NoReturn:
        """The body broke: raise what the caller gets."""
        raised = call.broken(error)
        self._take()
        if raised is error:
            raise error
        raise raised from error

    def __del__(self) -> None:
        held = self._take()
        if held is not None:
            response, call = held
            response.abandon()
            call.abandon()


class Body(_Held):
    """Mixed with the library's ``SyncByteStream``."""

    def __iter__(self) -> Iterator[bytes]:
        if self._held is None:
            return
        response, call = self._held
        try:
            yield from response
        except Exception as error:  # noqa: BLE001 - raised again
            self._broken(call, error)

    def read(self) -> bytes:
        """All that is still to come."""
        if self._held is None:
            return b""
        response, call = self._held
        try:
            return response.read()  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001 - raised again
            self._broken(call, error)

    def close(self) -> None:
        held = self._take()
        if held is not None:
            response, call = held
            try:
                response.close()
            finally:
                call.end()


class AsyncBody(_Held):
    """The same for a task."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._held is None:
            return
        response, call = self._held
        try:
            async for part in response:
                yield part
        except Exception as error:  # noqa: BLE001 - raised again
            self._broken(call, error)

    async def aread(self) -> bytes:
        """All that is still to come."""
        if self._held is None:
            return b""
        response, call = self._held
        try:
            return await response.aread()  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001 - raised again
            self._broken(call, error)

    async def aclose(self) -> None:
        held = self._take()
        if held is not None:
            response, call = held
            try:
                await response.aclose()
            finally:
                call.end()
