"""One way to make a gRPC call through every kind of channel: blocking, by futures, asyncio; the mesh's and grpc's own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Self

import grpc

import meshlib.grpc
from tests.support.grpc_interop import METHODS, SERVICE, Message, pack, unpack

__all__ = ["FACES", "KINDS", "Done", "Face", "make_face"]

#: How calls are made.
KINDS = ("blocking", "future", "aio")
#: Whose channel, and how. grpc's own says that what is expected is grpc's.
FACES = tuple(f"{whose} {kind}" for whose in ("grpc", "mesh") for kind in KINDS)


EMPTY = Message()


class Done(NamedTuple):
    """A call that is over, and went well."""

    value: Message
    call: Any
    initial: list[tuple[str, str | bytes]]
    trailing: list[tuple[str, str | bytes]]


def make_face(kind: str, target: str, mesh: meshlib.Mesh | None, **options: Any) -> Face:
    """A face of ``kind`` (of :data:`KINDS`) on a channel of ``mesh``, or, without one, of grpc's own."""
    aio = kind == "aio"
    if mesh is not None:
        make: Callable[..., Any] = meshlib.grpc.aio.channel if aio else meshlib.grpc.channel
        return Face(kind, lambda: make(target, mesh=mesh, **options))
    module: Any = grpc.aio if aio else grpc
    if "credentials" in options:
        return Face(kind, lambda: module.secure_channel(target, **options))
    return Face(kind, lambda: module.insecure_channel(target, **options))


class Face:
    """Calls on one channel, from any number of threads. An asyncio channel's run in a loop that has a thread."""

    def __init__(self, kind: str, make: Callable[[], Any]) -> None:
        self.kind = kind
        self._loop: asyncio.AbstractEventLoop | None = None
        if kind == "aio":
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
        self.channel = self.run(make)
        self._made: dict[tuple[str, str], Any] = {}

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """What ``work`` gives, which is called in the loop, if there is one, and awaited, if it can be."""
        if self._loop is None:
            return work(*arguments)

        async def inside() -> Any:
            found = work(*arguments)
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.run(self.channel.close)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def method(self, name: str, service: str = SERVICE) -> Any:
        """What a stub would hold."""
        kept = self._made.get((service, name))
        if kept is None:
            factory = getattr(self.channel, METHODS[name])
            kept = self._made[service, name] = self.run(factory, f"/{service}/{name}", pack, unpack)
        return kept

    # --- calls with one answer ----------------------------------------------------------------------------------------

    def unary(self, name: str, message: Message = EMPTY, service: str = SERVICE, **options: Any) -> Done:
        return self._one(self.method(name, service), message, options)

    def send(self, name: str, messages: Iterable[Message], **options: Any) -> Done:
        """Messages there, one back."""
        return self._one(self.method(name), messages, options)

    def _one(self, made: Any, message: Any, options: dict[str, Any]) -> Done:
        if self._loop is not None:

            async def answer() -> Done:
                call = made(message, **options)
                value = await call
                return Done(
                    value, call, _list(await call.initial_metadata()), _list(await call.trailing_metadata())
                )

            done: Done = self.run(answer)
            return done
        if self.kind == "future":
            call = made.future(message, **options)
            value = call.result()
        else:
            value, call = made.with_call(message, **options)
        return Done(value, call, _list(call.initial_metadata()), _list(call.trailing_metadata()))

    # --- streams ------------------------------------------------------------------------------------------------------

    def open(self, name: str, message: Message | None = None, **options: Any) -> Stream:
        """``message``: the one that is sent; None: they are written."""
        return Stream(self, name, message, options)


class Stream:
    """A call under way: written to, read from, cancelled by one thread."""

    def __init__(self, face: Face, name: str, message: Message | None, options: dict[str, Any]) -> None:
        self._face = face
        self._one_answer = METHODS[name] == "stream_unary"
        self._written: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        made = face.method(name)
        if face.kind == "aio":
            given = () if message is None else (message,)
            self.call = face.run(lambda: made(*given, **options))
            return
        begin = made.future if self._one_answer else made
        self.call = begin(iter(self._written.get, None) if message is None else message, **options)

    def write(self, message: Message) -> None:
        if self._face.kind == "aio":
            with contextlib.suppress(asyncio.InvalidStateError):  # it is over, and says why to who reads
                self._face.run(self.call.write, message)
        else:
            self._written.put(message)

    def done_writing(self) -> None:
        if self._face.kind == "aio":
            self._face.run(self.call.done_writing)
        else:
            self._written.put(None)

    def read(self) -> Message | None:
        """The next one; None at the end. Raises grpc.RpcError."""
        if self._face.kind == "aio":

            async def one() -> Message | None:
                message = await (self.call if self._one_answer else self.call.read())
                return None if message is grpc.aio.EOF else message

            found: Message | None = self._face.run(one)
            return found
        return self.call.result() if self._one_answer else next(self.call, None)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.read, None)

    def cancel(self) -> None:
        self._face.run(self.call.cancel)
        self._written.put(None)

    def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = self._face.run(self.call.code)
        return code

    def details(self) -> str:
        words: str = self._face.run(self.call.details)
        return words

    def initial(self) -> list[tuple[str, str | bytes]]:
        return _list(self._face.run(self.call.initial_metadata))

    def trailing(self) -> list[tuple[str, str | bytes]]:
        return _list(self._face.run(self.call.trailing_metadata))


def _list(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [(key, value) for key, value in metadata or ()]
