"""Responses: urllib3's and requests' own, which end their call when they are read, closed or lost.

An object that urllib3 or requests made gets the class of here: what it is, holds and pickles to stays the same.
"""

from __future__ import annotations

import http.client
import io
from functools import partial
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import DecodeError, HTTPError

from meshlib.errors import DeadlineExceeded, TransportFailed
from meshlib.model.call import OutcomeKind
from meshlib_requests.failures import Failure, failure_of, join, outcome_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from meshlib.core.plan import Plan
    from meshlib.model.call import CallInfo, Outcome
    from meshlib.model.call import Response as Ordered
    from meshlib.runtime.runtime import Runtime
    from meshlib_requests.connections import Attempt

__all__ = ["HTTPResponse", "Held", "Response", "edit_lines", "hold", "ordered"]


class Held:
    """What a response holds until its body is done with: the plan's pick, and the attempt whose bounds its reads have."""

    __slots__ = ("attempt", "plan", "runtime", "status")

    def __init__(self, runtime: Runtime, plan: Plan, attempt: Attempt, status: int) -> None:
        self.runtime = runtime
        self.plan = plan
        self.attempt = attempt
        self.status = status

    def end(self, failure: Outcome | None = None) -> None:
        self.plan.close(self.runtime.clock.now(), failure)

    def broken(self, error: HTTPError) -> Any:
        """The body broke: the plan hears of it; the error as the caller gets it."""
        now = self.runtime.clock.now()
        outcome = outcome_of(error, self.attempt, now - self.plan.started)
        outcome.status = self.status
        info = self.plan.info(now)
        self.end(outcome)
        kind = DeadlineExceeded if outcome.kind is OutcomeKind.TIMEOUT else TransportFailed
        return join(error, Failure(kind, info, sent=True, phase="body"))


class HTTPResponse(urllib3.HTTPResponse):
    """urllib3's response to a call of the mesh. As thread-safe as urllib3's."""

    _held: Held | None = None
    _reading = False

    def read(self, *args: Any, **options: Any) -> bytes:
        data: bytes = self._told(super().read, *args, **options)
        return data

    def read1(self, *args: Any, **options: Any) -> bytes:
        data: bytes = self._told(super().read1, *args, **options)
        return data

    def read_chunked(self, *args: Any, **options: Any) -> Iterator[bytes]:  # type: ignore[override]
        try:
            yield from super().read_chunked(*args, **options)
        except HTTPError as error:
            told = self._broke(error)
            raise told from told.__cause__
        finally:
            if self._connection is None:
                self._let_go()

    def release_conn(self) -> None:
        original = self._original_response
        if self._connection is not None and original is not None and not original.isclosed():
            # Its rest would be read as the next answer.
            self._connection.close()
        super().release_conn()
        if not self._reading:
            self._let_go()

    def close(self) -> None:
        super().close()
        self.release_conn()

    def __del__(self) -> None:
        """A response that was never closed. The collector runs anywhere, also in a thread that holds the locks which
        this needs: the worker does it.
        """
        held = self._held
        if held is None:
            return
        if held.runtime.worker.running:
            held.runtime.worker.post(
                partial(_abandon, held, self._pool, self._connection, self._original_response)
            )
        elif self._connection is not None:
            self._connection.close()

    def _told(self, read: Any, *args: Any, **options: Any) -> Any:
        if self._held is None:
            return read(*args, **options)
        self._reading = True
        try:
            return read(*args, **options)
        except HTTPError as error:
            told = self._broke(error)
            raise told from told.__cause__
        finally:
            self._reading = False
            if self._connection is None:
                self._let_go()

    def _broke(self, error: HTTPError) -> Any:
        held = self._held
        if held is None or isinstance(error, DecodeError):
            return error
        self._held = None
        return held.broken(error)

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.end()


def _abandon(held: Held, pool: Any, connection: Any, original: Any) -> None:
    try:
        if original is not None:
            original.close()
        if connection is not None:
            connection.close()
            pool._put_conn(connection)
    finally:
        held.end()


def hold(raw: Any, held: Held, info: CallInfo) -> HTTPResponse:
    """``raw``, an open response of urllib3, which ends its call from now on."""
    raw.__class__ = HTTPResponse
    raw._held = held
    raw._meshlib_info = info
    found: HTTPResponse = raw
    return found


class Response(requests.Response):
    """requests' response to a call of the mesh."""

    def iter_content(self, chunk_size: int | None = 1, decode_unicode: bool = False) -> Iterator[Any]:
        chunks: Iterator[Any] = super().iter_content(chunk_size, decode_unicode)  # type: ignore[call-overload]
        return _joined(chunks)


def _joined(chunks: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from chunks
    except requests.RequestException as error:
        failure = failure_of(error)
        if failure is None:
            raise
        both = join(error, failure)
        raise both from both.__cause__


class _NoSocket:
    """Stands where a response has what ``http.client`` read: for who takes cookies from there."""

    def __init__(self, lines: Iterable[tuple[str, str]]) -> None:
        self.msg = _message(lines)

    def isclosed(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""


def ordered(response: Ordered, method: str, url: str, info: CallInfo) -> urllib3.HTTPResponse:
    """A response that nobody sent."""
    raw = urllib3.HTTPResponse(
        body=io.BytesIO(b"" if method == "HEAD" else response.body),
        headers=HTTPHeaderDict(response.headers),
        status=response.status,
        version=11,
        version_string="HTTP/1.1",
        reason=http.client.responses.get(response.status, ""),
        preload_content=False,
        decode_content=False,
        original_response=_NoSocket(response.headers),  # type: ignore[arg-type]
        request_method=method,
        request_url=url,
    )
    raw._meshlib_info = info  # type: ignore[attr-defined]
    return raw


def edit_lines(raw: Any, lines: Iterable[tuple[str, str]]) -> None:
    """Give ``raw`` other header lines; cookies are taken from these, too."""
    pairs = list(lines)
    raw.headers = HTTPHeaderDict(pairs)
    raw._original_response.msg = _message(pairs)


def _message(lines: Iterable[tuple[str, str]]) -> http.client.HTTPMessage:
    message = http.client.HTTPMessage()
    for name, value in lines:
        message.add_header(name, value)
    return message
