"""One way to call through every HTTP face: httpx and httpx2, sync and async."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import httpx2

import meshlib
import meshlib.httpx2

FACES = ("httpx", "httpx-async", "httpx2", "httpx2-async")


class Face:
    """A client of one face. ``request`` reads the body; ``stream`` leaves it to the caller's function."""

    def __init__(self, kind: str, mesh: meshlib.Mesh, **options: Any) -> None:
        self.library: ModuleType = httpx2 if kind.startswith("httpx2") else httpx
        self.is_async = kind.endswith("async")
        ours = meshlib.httpx2 if kind.startswith("httpx2") else meshlib
        self._runner = asyncio.Runner() if self.is_async else None
        maker = ours.AsyncClient if self.is_async else ours.Client
        self.client: Any = maker(mesh=mesh, **options)

    def run(self, work: Any) -> Any:
        """The result of a coroutine, or the value itself."""
        # A runner has a context of its own; a call belongs to the caller's.
        return (
            self._runner.run(work, context=contextvars.copy_context()) if self._runner is not None else work
        )

    def request(self, method: str, url: str, **options: Any) -> Any:
        return self.run(self.client.request(method, url, **options))

    def get(self, url: str, **options: Any) -> Any:
        return self.request("GET", url, **options)

    def open(self, method: str, url: str, **options: Any) -> Any:
        """A response whose body is not read."""
        request = self.client.build_request(method, url, **options)
        return self.run(self.client.send(request, stream=True))

    def read(self, response: Any) -> bytes:
        data: bytes = self.run(response.aread()) if self.is_async else response.read()
        return data

    def close_response(self, response: Any) -> None:
        self.run(response.aclose()) if self.is_async else response.close()

    def run_until(self, wait: Callable[[], Any]) -> None:
        """Block in ``wait``, which the event loop, if there is one, is at work for."""
        if self._runner is not None:
            self._runner.run(asyncio.to_thread(wait))
        else:
            wait()

    def body(self, chunks: list[bytes]) -> Any:
        """A body that can be sent once."""
        if not self.is_async:
            return iter(chunks)

        async def generate() -> Any:
            for chunk in chunks:
                yield chunk

        return generate()

    def close(self) -> None:
        if self._runner is not None:
            self._runner.run(self.client.aclose())
            self._runner.close()
        else:
            self.client.close()


FaceFactory = Callable[..., Face]
