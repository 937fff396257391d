"""The content of a response as an iterator that ends the call: for libraries whose responses are made with one."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Self

from meshlib.hosts.info import attach
from meshlib.wire.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from meshlib.hosts.body import OpenCall
    from meshlib.model.call import CallInfo
    from meshlib.model.headers import Headers

__all__ = ["AsyncContent", "Content", "decoding"]


class _Gunzip:
    def __init__(self) -> None:
        self._inner: Any = None  # where nothing comes, nothing is missing

    def __call__(self, part: bytes | None) -> bytes:
        if part is not None:
            self._inner = self._inner or zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            return self._inner.decompress(part)  # type: ignore[no-any-return]
        if self._inner is not None and not self._inner.eof:
            raise EOFError("it ends in the middle")
        return b""


def decoding(headers: Headers) -> Callable[[bytes | None], bytes] | None:
    """What undoes the gzip of a response, for libraries that give content as it was before; its lines are taken out of
    ``headers``. None: it is in no encoding, or another.
    """
    if headers.get("content-encoding") != "gzip":
        return None
    headers.remove("content-encoding")
    headers.remove("content-length")
    return _Gunzip()


class _Content:
    """What both kinds do without waiting.

    Args:
        parts: What is read.
        response: What is closed at the end; None: nothing is. One that is the wire's has ``abandon`` too.
        call: What ends with it. None: the call is not the mesh's.
        info: What ``meshlib.call_info`` finds on the content.
        decode: What is given for each part, be it nothing yet, and (None) for their end. Its error is the peer's fault.
        whole: Called when all was read.
    """

    _call: OpenCall | None = None  # where __init__ failed
    _open = False

    def __init__(
        self,
        parts: Any,
        response: Any = None,
        call: OpenCall | None = None,
        info: CallInfo | None = None,
        *,
        decode: Callable[[bytes | None], bytes] | None = None,
        whole: Callable[[], object] | None = None,
    ) -> None:
        self._response = response
        self._call = call
        self._decode = decode
        self._whole = whole
        self._parts = self._begin(parts)
        self._open = True
        if info is not None:
            attach(self, info)

    def _begin(self, parts: Any) -> Any:
        raise NotImplementedError

    def _take(self, part: bytes | None) -> bytes:
        """What is given for a part; None: there are no more."""
        data = part or b""
        if self._decode is not None:
            try:
                data = self._decode(part)
            except Exception as error:
                raise RemoteProtocolError(f"the content cannot be decoded: {error}") from error
        if part is None and self._whole is not None:
            self._whole()
        return data

    def _broken(self, error: Exception) -> BaseException:
        return error if self._call is None else self._call.broken(error)

    def __del__(self) -> None:
        if self._open and self._call is not None:
            self._response.abandon()
            self._call.abandon()


class Content(_Content):
    """For blocking callers. One thread at a time reads it."""

    def _begin(self, parts: Any) -> Any:
        return iter(parts)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        while self._open:
            try:
                part = next(self._parts, None)
                data = self._take(part)
            except Exception as error:
                raised = self._broken(error)
                self.close()
                if raised is error:
                    raise
                raise raised from error
            if part is None:
                self.close()
            if data:
                return data
        raise StopIteration

    def close(self) -> None:
        """Give up what is left."""
        if not self._open:
            return
        self._open = False
        try:
            if self._response is not None:
                self._response.close()
        finally:
            if self._call is not None:
                self._call.end()


class AsyncContent(_Content):
    """For a task."""

    def _begin(self, parts: Any) -> Any:
        return aiter(parts if hasattr(parts, "__aiter__") else _each(parts))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while self._open:
            try:
                part = await anext(self._parts, None)
                data = self._take(part)
            except Exception as error:
                raised = self._broken(error)
                await self.aclose()
                if raised is error:
                    raise
                raise raised from error
            if part is None:
                await self.aclose()
            if data:
                return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Give up what is left."""
        if not self._open:
            return
        self._open = False
        try:
            if self._response is not None:
                await self._response.aclose()
        finally:
            if self._call is not None:
                self._call.end()


async def _each(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
