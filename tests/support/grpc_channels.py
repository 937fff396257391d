"""A blocking and an asyncio gRPC channel behind one face, so that one test is of both."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import meshlib
from meshlib.testing import ControlPlane, build

__all__ = ["FACES", "Channel", "Channels", "service", "told"]

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


class Channels:
    """Channels of one kind, and the meshes that are made for them: all closed at the end of the block."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._channels: list[Channel] = []
        self._meshes: list[meshlib.Mesh] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for channel in self._channels:
            channel.close()
        for mesh in self._meshes:
            mesh.close()

    def make(self, mesh: meshlib.Mesh | dict[str, Any], target: str = "stock", **options: Any) -> Channel:
        if not isinstance(mesh, meshlib.Mesh):
            mesh = meshlib.Mesh(mesh)
            self._meshes.append(mesh)
        self._channels.append(Channel(self._kind, target, mesh, **options))
        return self._channels[-1]


def service(*upstreams: Any, **policies: Any) -> dict[str, Any]:
    """The configuration of a ``stock`` that has these endpoints and policies."""
    return {"services": {"stock": {"endpoints": [each.address for each in upstreams], **policies}}}


@contextmanager
def told(source: str, *upstreams: Any) -> Iterator[dict[str, Any]]:
    """A configuration by which ``stock`` has these endpoints: it says so itself (``"file"``), or a control plane does (``"xds"``)."""
    if source == "file":
        yield service(*upstreams)
        return
    addresses = [each.address for each in upstreams]
    route = build.route_config("r", build.virtual_host("v", build.route(cluster="c")))
    resources = build.api_listener("stock", route), build.cluster("c"), build.endpoints("c", *addresses)
    with ControlPlane(*resources) as plane:
        yield {"xds": {"server": plane.address, "view": "target"}}


async def _awaited(made: Any, message: Any, options: dict[str, Any]) -> bytes:
    return await made(message, **options)


async def _with_call(made: Any, message: Any, options: dict[str, Any]) -> tuple[bytes, Any]:
    call = made(message, **options)
    return await call, call
