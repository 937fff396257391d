"""A blocking and an asyncio gRPC channel behind one face, so that one test is of both."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

import meshlib

__all__ = ["FACES", "Channel"]

FACES = ("sync", "aio")
SERVICE = "/shop.Stock/"


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Channel:
    """``kind``: one of ``FACES``; ``options``: of the channel. Each call gives the answer or raises what the channel raises."""

    def __init__(self, kind: str, target: str, mesh: meshlib.Mesh | None, **options: Any) -> None:
        self.kind = kind
        self.mesh = mesh
        self._loop = Loop() if kind == "aio" else None
        make = meshlib.grpc.channel if self._loop is None else meshlib.grpc.aio.channel
        self.channel = make(target, mesh=mesh, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        if self._loop is None:
            self.channel.close()
        else:
            self._loop.run(self.channel.close())
            self._loop.close()

    def unary(self, message: bytes = b"", method: str = "Get", **options: Any) -> bytes:
        made = self.channel.unary_unary(SERVICE + method)
        if self._loop is None:
            return made(message, **options)
        return self._loop.run(_awaited(made, message, options))

    def who(self, **options: Any) -> str:
        """The name of the server that answers."""
        return json.loads(self.unary(**options))["name"]

    def said(self, **options: Any) -> dict[str, Any]:
        return json.loads(self.unary(**options))

    def call(self, message: bytes = b"", method: str = "Get", **options: Any) -> tuple[bytes, Any]:
        """The answer and the call object."""
        made = self.channel.unary_unary(SERVICE + method)
        if self._loop is None:
            return made.with_call(message, **options)
        return self._loop.run(_with_call(made, message, options))

    def server_stream(self, message: bytes = b"", **options: Any) -> list[bytes]:
        made = self.channel.unary_stream(SERVICE + "UnaryStream")
        return self._all(made, message, options)

    def client_stream(self, messages: Iterable[bytes], **options: Any) -> bytes:
        made = self.channel.stream_unary(SERVICE + "StreamUnary")
        if self._loop is None:
            return made(iter(messages), **options)
        return self._loop.run(_awaited(made, messages, options))

    def both_streams(self, messages: Iterable[bytes], **options: Any) -> list[bytes]:
        made = self.channel.stream_stream(SERVICE + "StreamStream")
        return self._all(made, messages if self._loop else iter(messages), options)

    def begun(self, **options: Any) -> Any:
        """A unary call under way, for ``do``."""
        made = self.channel.unary_unary(SERVICE + "Get")
        return made.future(b"", **options) if self._loop is None else self.do(lambda: made(b"", **options))

    def do(self, work: Callable[[], Any]) -> Any:
        """Do something where the channel's calls belong."""
        if self._loop is None:
            return work()

        async def there() -> Any:
            found = work()
            return await found if asyncio.iscoroutine(found) else found

        return self._loop.run(there())

    def _all(self, made: Any, message: Any, options: dict[str, Any]) -> list[bytes]:
        if self._loop is None:
            return list(made(message, **options))

        async def collected() -> list[bytes]:
            return [answer async for answer in made(message, **options)]

        return self._loop.run(collected())


async def _awaited(made: Any, message: Any, options: dict[str, Any]) -> bytes:
    return await made(message, **options)


async def _with_call(made: Any, message: Any, options: dict[str, Any]) -> tuple[bytes, Any]:
    call = made(message, **options)
    return await call, call
