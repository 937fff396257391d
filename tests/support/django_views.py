"""Views that tell what they see of their request, and call the next service."""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import Any

from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

import meshlib
from meshlib.inbound import current

__all__ = ["urlpatterns"]

client = meshlib.Client()


def identity(_: Any) -> HttpResponse:
    return HttpResponse(_seen())


async def identity_async(_: Any) -> HttpResponse:
    before = _seen()
    await asyncio.sleep(0)
    return HttpResponse(before if before == _seen() else "mixed")


def boom(_: Any) -> HttpResponse:
    raise RuntimeError("boom")


async def boom_async(_: Any) -> HttpResponse:
    raise RuntimeError("boom")


def stream(_: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(_seen() for _ in range(2))


async def stream_async(_: Any) -> StreamingHttpResponse:
    async def parts() -> Any:
        for _ in range(2):
            await asyncio.sleep(0)
            yield _seen()

    return StreamingHttpResponse(parts())


def file(_: Any) -> FileResponse:
    opened = tempfile.TemporaryFile()  # noqa: SIM115 - the response closes it
    opened.write(b"abc")
    opened.seek(0)
    return FileResponse(opened)


def call(request: Any) -> JsonResponse:
    host = os.environ.get("SERVICE_CALLS", "stock")
    return JsonResponse(_told(request, client.get(f"http://{host}/").json()))


async def call_async(request: Any) -> JsonResponse:
    host = os.environ.get("SERVICE_CALLS", "stock")
    async with meshlib.AsyncClient() as own:
        return JsonResponse(_told(request, (await own.get(f"http://{host}/")).json()))


def sync_only(get_response: Any) -> Any:
    """A middleware that knows no loops: under ASGI Django runs it in a thread."""

    def middleware(request: Any) -> Any:
        response = get_response(request)
        response["x-outside"] = _seen()
        return response

    return middleware


def _told(request: Any, answer: Any) -> Any:
    """What came in here, and what the next service says."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return {"name": os.environ.get("SERVICE_NAME", "site"), "headers": headers, "next": answer}


def _seen() -> str:
    request = current()
    return "none" if request is None else request.request_id or "empty"


urlpatterns = [
    path("", call),
    path("async", call_async),
    path("id", identity),
    path("id-async", identity_async),
    path("boom", boom),
    path("boom-async", boom_async),
    path("stream", stream),
    path("stream-async", stream_async),
    path("file", file),
]
