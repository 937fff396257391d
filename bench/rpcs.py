"""Shapes of peers that are gRPC channels: blocking and asyncio, unary RPCs and messages of a stream."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.grpc_server import ANSWER, MESSAGES, SERVICE
from bench.shapes import CALLS
from bench.world import World

#: Streams of a sample, one after the other.
STREAMS = 10
UNARY, STREAM = f"/{SERVICE}/Unary", f"/{SERVICE}/Stream"


@dataclass
class SyncChannel:
    """A ``grpc.Channel`` in one thread. A sample is of an RPC, or where it is of ``streams`` of one message."""

    name: str
    make: Callable[[World], Any]
    streams: bool = False
    calls: int = CALLS
    _channel: Any = field(default=None, repr=False)

    def open(self, world: World) -> None:
        self._channel = self.make(world)
        for _ in range(4):
            self.sample()

    def sample(self) -> float:
        gc.collect()
        if self.streams:
            return self._streams()
        call = self._channel.unary_unary(UNARY)
        began = time.perf_counter()
        for _ in range(self.calls):
            if call(b"y", timeout=30.0) != ANSWER:
                raise RuntimeError(f"{self.name}: another answer")
        return (time.perf_counter() - began) / self.calls

    def _streams(self) -> float:
        call = self._channel.unary_stream(STREAM)
        began = time.perf_counter()
        for _ in range(STREAMS):
            if sum(len(message) for message in call(b"y", timeout=30.0)) != len(ANSWER) * MESSAGES:
                raise RuntimeError(f"{self.name}: another answer")
        return (time.perf_counter() - began) / (STREAMS * MESSAGES)

    def close(self) -> None:
        self._channel.close()


@dataclass
class AioChannel:
    """The same of a ``grpc.aio.Channel``: ``tasks`` of one loop, each makes ``calls``."""

    name: str
    make: Callable[[World], Any]
    streams: bool = False
    tasks: int = 50
    calls: int = CALLS // 50
    _channel: Any = field(default=None, repr=False)
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner, repr=False)

    def open(self, world: World) -> None:
        async def make() -> Any:
            return self.make(world)

        self._channel = self._runner.run(make())
        for _ in range(3):
            self.sample()

    def sample(self) -> float:
        gc.collect()
        return self._runner.run(self._streams() if self.streams else self._unary())

    async def _unary(self) -> float:
        call = self._channel.unary_unary(UNARY)

        async def calls() -> None:
            for _ in range(self.calls):
                if await call(b"y", timeout=30.0) != ANSWER:
                    raise RuntimeError(f"{self.name}: another answer")

        began = time.perf_counter()
        await asyncio.gather(*(calls() for _ in range(self.tasks)))
        return (time.perf_counter() - began) / (self.tasks * self.calls)

    async def _streams(self) -> float:
        call = self._channel.unary_stream(STREAM)
        began = time.perf_counter()
        for _ in range(STREAMS):
            size = 0
            async for message in call(b"y", timeout=30.0):
                size += len(message)
            if size != len(ANSWER) * MESSAGES:
                raise RuntimeError(f"{self.name}: another answer")
        return (time.perf_counter() - began) / (STREAMS * MESSAGES)

    def close(self) -> None:
        self._runner.run(self._channel.close())
        self._runner.close()


Make = Callable[[World], Any]


def peers(of: str, sync: Make, aio: Make, kind: str = "") -> tuple[Any, ...]:
    """The four of one library; ``kind`` is added to their names."""
    return (
        SyncChannel(f"{of}.channel{kind}", sync),
        SyncChannel(f"{of}.channel{kind}, stream", sync, streams=True),
        AioChannel(f"{of}.aio.channel{kind}", aio),
        AioChannel(f"{of}.aio.channel{kind}, stream", aio, streams=True),
    )
