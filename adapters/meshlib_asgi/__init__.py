"""ASGI applications in the mesh: FastAPI, Starlette, Quart, Falcon, Django's own.

    import meshlib_asgi

    app.add_middleware(meshlib_asgi.Middleware)   # Starlette, FastAPI
    app = meshlib_asgi.Middleware(app)            # any

Calls of the mesh that the application makes while it serves a request carry that request's trace and id on, and end with
its deadline. Messages are passed on as they are; nothing is patched and no body is held back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from meshlib.deadlines import outside
from meshlib.inbound import enter, leave, of_scope
from meshlib.mesh import close_default
from meshlib.serving import Asked, Desk, Visit, raw_path

if TYPE_CHECKING:
    from meshlib.inbound import Inbound
    from meshlib.mesh import Mesh
    from meshlib.serving import Answer, InboundLike

__all__ = ["Middleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: What ends a lifespan, by the application's word.
_SHUT_DOWN = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})


class Middleware:
    """An ASGI application around another: HTTP, WebSockets, and the lifespan. Starts nothing.

    A deadline holds until the response is out; on a WebSocket, until it is accepted. What runs on after that, such as
    background tasks, keeps the trace.

    Args:
        app: The application.
        mesh: Whose rules hold for calls made while serving that name no mesh. It stays open: who made it closes it. None:
            ``meshlib.default()``, which is closed when the lifespan ends.
        inbound: The keys of ``[inbound]`` (readiness, limit, late requests, access log); None: what the mesh's
            configuration says. Raises ConfigError. The limit, late requests and readiness are of HTTP.
    """

    def __init__(self, app: App, *, mesh: Mesh | None = None, inbound: InboundLike = None) -> None:
        self.app = app
        self.desk = Desk(mesh, inbound)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        elif kind == "lifespan" and self.desk.mesh is None:
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        desk = self.desk
        request = of_scope(scope["headers"], monotonic(), desk.mesh)
        visit = None
        if not desk.idle:
            answer = desk.readiness(scope["path"])
            if answer is None:
                visit = desk.admit(request, _asked(scope) if desk.logs else None)
                answer = visit.refusal
            if answer is not None:
                if visit is not None:
                    visit.end()
                await _respond(send, answer)
                return
        if visit is not None or request.deadline is not None:
            send = _watched(send, request, visit)
        await self._serve(scope, receive, send, request, visit)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = of_scope(scope["headers"], monotonic(), self.desk.mesh)
        visit = Visit(self.desk, request, _asked(scope)) if self.desk.logs else None
        if visit is not None or request.deadline is not None:
            send = _watched(send, request, visit)
        await self._serve(scope, receive, send, request, visit)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, request: Inbound, visit: Visit | None
    ) -> None:
        receive, send = outside(receive), outside(send)
        token = enter(request)
        try:
            await self.app(scope, receive, send)
        except BaseException as problem:
            if visit is not None:
                visit.failed("DC" if isinstance(problem, asyncio.CancelledError) else "-")
            raise
        finally:
            leave(token)
            request.answered = True
            if visit is not None:
                visit.end()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] in _SHUT_DOWN:
                close_default()
            await send(message)

        await self.app(scope, receive, closing)


async def _respond(send: Send, answer: Answer) -> None:
    headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _watched(send: Send, request: Inbound, visit: Visit | None) -> Send:
    """``send``, which notes what passes: the status, how much, and the end. May be called from other tasks."""

    async def watching(message: Message) -> None:
        kind = message["type"]
        await send(message)
        if kind in {"http.response.start", "websocket.http.response.start"}:
            if visit is not None:
                visit.status = message["status"]
        elif kind == "http.response.body":
            if visit is not None:
                visit.sent += len(message.get("body", b""))
            request.answered = not message.get("more_body", False)
        elif kind == "http.response.pathsend":
            request.answered = True
        elif kind == "websocket.accept":
            request.answered = True
            if visit is not None:
                visit.status = 101
        elif kind == "websocket.send" and visit is not None:
            visit.sent += len(message.get("bytes") or (message.get("text") or "").encode())
        elif kind == "websocket.close" and visit is not None:
            visit.status = visit.status or 403

    return watching


def _asked(scope: Scope) -> Asked:
    """What the log says of a request."""
    found = {"host": "", "user-agent": "", "content-length": "", "x-envoy-original-path": ""}
    for name, value in scope["headers"]:
        key = name.decode("latin-1")
        if key in found:
            found[key] = value.decode("latin-1")
    raw = scope.get("raw_path")
    query = scope.get("query_string", b"").decode("latin-1")
    if raw is None:
        path = raw_path(scope["path"].encode("utf-8", "replace").decode("latin-1"), query)
    else:
        path = raw.decode("latin-1") + (f"?{query}" if query else "")
    return Asked(
        scope.get("method", "GET"),  # a WebSocket's request has none to tell
        found["x-envoy-original-path"] or path,
        f"HTTP/{scope.get('http_version', '1.1')}",
        found["host"],
        found["user-agent"],
        found["content-length"],
    )
