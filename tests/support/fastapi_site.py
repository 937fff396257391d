"""A FastAPI service for tests; as ``django_views``, in FastAPI."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse

import meshlib
import meshlib_asgi
from meshlib.deadlines import current_deadline
from meshlib.inbound import current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["create_app"]


def create_app() -> FastAPI:
    mesh = meshlib.Mesh(json.loads(os.environ.get("TEST_SITE_MESHLIB", "{}")))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with mesh, meshlib.AsyncClient(mesh=mesh) as app.state.client:
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(meshlib_asgi.Middleware, mesh=mesh)
    app.add_middleware(_Before)

    @app.get("/")
    async def call(request: Request) -> Any:
        answer = await app.state.client.get(f"http://{os.environ.get('SERVICE_CALLS', 'stock')}/")
        return {
            "name": os.environ.get("SERVICE_NAME", "site"),
            "headers": dict(request.headers),
            "next": answer.json(),
        }

    @app.get("/sync")
    def call_sync() -> Any:
        with (
            meshlib.Client() as client
        ):  # by the mesh that the middleware was given, in a thread of FastAPI's
            return client.get(f"http://{os.environ.get('SERVICE_CALLS', 'stock')}/").json()

    @app.get("/stream")
    async def stream() -> Any:
        async def parts() -> AsyncIterator[str]:
            for _ in range(3):
                yield f"{_seen()};"

        return StreamingResponse(parts())

    @app.get("/boom")
    async def boom() -> Any:
        raise RuntimeError("boom")

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            text = await socket.receive_text()
            answer = await app.state.client.get("http://stock/")
            headers = dict(answer.json()["headers"])
            await socket.send_json([text, _seen(), headers.get("traceparent")])

    _add_what_others_left(app)
    return app


def _add_what_others_left(app: FastAPI) -> None:
    """Where one sees what is left of a request after it, and for the next of its connection."""
    released, done = asyncio.Event(), asyncio.Queue()

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> Any:
        async def work() -> None:
            await released.wait()
            done.put_nowait(_state())

        tasks.add_task(work)
        return _state()

    @app.get("/later")
    async def later() -> Any:
        """Let the background work end; what this request saw meanwhile, and what the work saw."""
        here = _state()
        released.set()
        return {"here": here, "work": await done.get()}

    @app.post("/upload")
    async def upload(request: Request) -> Any:
        with meshlib.deadline(5):
            body = await request.body()
            return [len(body), *_state()]

    @app.get("/before")
    async def before(request: Request) -> Any:
        return request.scope["before"]


class _Before:
    """Notes what a request finds before the middleware of the mesh has seen it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["before"] = _state()
        await self.app(scope, receive, send)


def _state() -> list[Any]:
    return [_seen(), current_deadline() is not None]


def _seen() -> str:
    request = current()
    return "none" if request is None else request.request_id or "empty"
