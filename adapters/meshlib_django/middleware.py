"""The middleware: of WSGI and ASGI, of sync and async views alike, without a change of thread."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.apps import apps
from django.http import HttpResponse

from meshlib.inbound import enter, leave, read
from meshlib.serving import Asked, Desk, raw_path
from meshlib_django.settings import register

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from meshlib.inbound import Inbound
    from meshlib.serving import Answer, Visit

__all__ = ["Middleware"]


class Middleware:
    """Calls of the mesh that are made for a request carry its trace and id on, and end with its deadline; also those made
    while a streaming response is being generated. What else it does is in ``settings.MESHLIB["inbound"]``.

    Raises ConfigError where the configuration is wrong, when Django loads its middleware.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        if not apps.is_installed("meshlib_django"):
            register()  # the settings hold without the application, too
        self.desk = Desk()
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        if self._is_async:
            return self._async(request)
        inbound = read(request.META.get, monotonic())
        visit, refusal = (None, None) if self.desk.idle else self._admit(request, inbound)
        if refusal is not None:
            return refusal
        token = enter(inbound)
        try:
            response = self.get_response(request)
        except BaseException:
            _broken(inbound, visit)
            raise
        finally:
            leave(token)
        return _sent(response, inbound, visit)

    async def _async(self, request: Any) -> Any:
        inbound = read(request.META.get, monotonic())
        visit, refusal = (None, None) if self.desk.idle else self._admit(request, inbound)
        if refusal is not None:
            return refusal
        token = enter(inbound)
        try:
            response = await self.get_response(request)
        except BaseException:
            _broken(inbound, visit)
            raise
        finally:
            leave(token)
        return _sent(response, inbound, visit)

    def _admit(self, request: Any, inbound: Inbound) -> tuple[Visit | None, Any]:
        """The visit, or the response that is given instead of one."""
        desk = self.desk
        answer = desk.readiness(request.path_info)
        if answer is not None:
            return None, _response(answer)
        visit = desk.admit(inbound, _asked(request) if desk.logs else None)
        if visit.refusal is None:
            return visit, None
        visit.end()
        return None, _response(visit.refusal)


def _response(answer: Answer) -> Any:
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


def _broken(inbound: Inbound, visit: Visit | None) -> None:
    inbound.answered = True
    if visit is not None:
        visit.failed()


def _sent(response: Any, inbound: Inbound, visit: Visit | None) -> Any:
    """``response``, whose sending is part of serving the request."""
    if visit is not None:
        visit.status = response.status_code
    if not response.streaming:
        inbound.answered = True
        if visit is not None:
            visit.sent = len(response.content)
            visit.end()
        return response
    if getattr(response, "file_to_stream", None) is not None:
        # A file: nothing runs while it is sent, and a server that sends it by itself must be able to.
        inbound.answered = True
        if visit is not None:
            length = response.headers.get("Content-Length", "")
            visit.sent = int(length) if length.isdigit() else 0
    elif response.is_async:
        response.streaming_content = _async_parts(response.streaming_content, inbound, visit)
    else:
        response.streaming_content = _Parts(response.streaming_content, inbound, visit)
    if visit is not None or inbound.deadline is not None:
        _at_close(response, inbound, visit)
    return response


def _at_close(response: Any, inbound: Inbound, visit: Visit | None) -> None:
    """Servers close each response; that is its end, also where it was not read to its own."""
    close = response.close

    def closing() -> None:
        try:
            close()
        finally:
            inbound.answered = True
            if visit is not None:
                visit.end()

    response.close = closing


class _Parts:
    """The parts of a streaming response. An iterator without ``close``: Django closes what is within by itself."""

    __slots__ = ("_inbound", "_parts", "_visit")

    def __init__(self, parts: Iterator[bytes], inbound: Inbound, visit: Visit | None) -> None:
        self._parts = iter(parts)
        self._inbound = inbound
        self._visit = visit

    def __iter__(self) -> _Parts:
        return self

    def __next__(self) -> bytes:
        token = enter(self._inbound)
        try:
            part = next(self._parts)
        finally:
            leave(token)
        if self._visit is not None:
            self._visit.sent += len(part)
        return part


async def _async_parts(
    parts: AsyncIterator[bytes], inbound: Inbound, visit: Visit | None
) -> AsyncIterator[bytes]:
    """The parts of an async streaming response."""
    inner = aiter(parts)
    try:
        while True:
            token = enter(inbound)
            try:
                part = await anext(inner)
            except StopAsyncIteration:
                return
            finally:
                leave(token)
            if visit is not None:
                visit.sent += len(part)
            yield part
    finally:
        close = getattr(inner, "aclose", None)
        if close is not None:
            token = enter(inbound)
            try:
                await close()
            finally:
                leave(token)


def _asked(request: Any) -> Asked:
    """What the log says of a request."""
    get = request.META.get
    path = get("HTTP_X_ENVOY_ORIGINAL_PATH") or get("RAW_URI") or get("REQUEST_URI")
    scope = getattr(request, "scope", None)
    protocol = f"HTTP/{scope.get('http_version', '1.1')}" if scope is not None else get("SERVER_PROTOCOL", "")
    return Asked(
        request.method or "",
        path or raw_path(request.path.encode("utf-8", "replace").decode("latin-1"), get("QUERY_STRING", "")),
        protocol,
        get("HTTP_HOST", ""),
        get("HTTP_USER_AGENT", ""),
        get("CONTENT_LENGTH") or "",
    )
