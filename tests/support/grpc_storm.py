"""gRPC calls of all four kinds for a storm, each of which knows what it must be answered."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from meshlib.testing import GrpcUpstreamProcess
from tests.support.storm import Calls, Storm, by_tasks, by_threads

LENGTH = 8  # messages of a stream
SECONDS = 30.0  # for a call; one that takes as long is lost

_ECHO = ("x-upstream-order", json.dumps({"echo": True}))
_REPEAT = ("x-upstream-order", json.dumps({"echo": True, "messages": LENGTH}))
_SLOW = ("x-upstream-order", json.dumps({"echo": True, "message_delay": 0.02}))


@dataclass(frozen=True)
class Work:
    """One call: what is sent, and what must come back. Every message is of this call alone."""

    kind: str
    sent: tuple[bytes, ...]
    expected: tuple[bytes, ...]
    order: tuple[str, str]

    @classmethod
    def of(cls, number: int) -> Work:
        """Of ten calls six are unary, one each a stream of either side, two of both; one of these is slow, so that servers die
        while it is under way.
        """
        kind = number % 10
        many = tuple(f"{number}:{place}".encode() for place in range(LENGTH))
        if kind < 6:
            return cls("unary_unary", many[:1], many[:1], _ECHO)
        if kind == 6:
            return cls("unary_stream", many[:1], many[:1] * LENGTH, _REPEAT)
        if kind == 7:
            return cls("stream_unary", many, (b"".join(many),), _ECHO)
        return cls("stream_stream", many, many, _SLOW if kind == 9 else _ECHO)

    @property
    def path(self) -> str:
        return "/soak.Echo/" + "".join(part.title() for part in self.kind.split("_"))

    @property
    def asked(self) -> Any:
        return self.sent[0] if self.kind.startswith("unary_") else iter(self.sent)

    def check(self, got: list[bytes], *, whole: bool) -> None:
        """All messages in their order; where the stream broke, those that came."""
        expected = list(self.expected if whole else self.expected[: len(got)])
        if got != expected:
            raise WrongMessages(f"{self.path}: {got} came, {expected} should")


class WrongMessages(AssertionError):
    """A message was lost, came twice, or is another call's."""


@dataclass
class GrpcCalls(Calls):
    """``by_kind``: how many ended; ``begun``: of a stream that broke, how many messages had come."""

    begun: dict[BaseException, int] = field(default_factory=dict)
    by_kind: dict[str, int] = field(default_factory=dict)
    _works: Iterator[int] = field(default_factory=itertools.count)

    def work(self) -> Work:
        return Work.of(next(self._works))

    def checked(self, work: Work, got: list[bytes], error: grpc.RpcError | None) -> None:
        """Raise what is wrong with a call that ended so."""
        with self._counted:
            self.by_kind[work.kind] = self.by_kind.get(work.kind, 0) + 1
        work.check(got, whole=error is None)
        if error is not None:
            if work.kind.endswith("_stream"):
                self.begun[error] = len(got)
            raise error


class GrpcStorm(Storm):
    """Over three servers."""

    def __init__(self) -> None:
        super().__init__([GrpcUpstreamProcess(f"v{number}") for number in range(3)])

    def _returned(self, server: Any, calls: Calls) -> None:
        """Until it is called again: gRPC connects anew after a second or more, and nobody is there while all three wait so."""
        while calls.wanted and not server.counts()["requests_total"]:
            calls.progress(5)


def threads_call(channel: grpc.Channel, calls: GrpcCalls, threads: int) -> None:
    """All calls by ``threads`` threads; returns when they ended."""

    def one() -> None:
        work, got, failed = calls.work(), [], None
        try:
            answer = getattr(channel, work.kind)(work.path)(
                work.asked, timeout=SECONDS, metadata=(work.order,)
            )
            for message in answer if work.kind.endswith("_stream") else (answer,):
                got.append(message)  # noqa: PERF402 - what came counts also where it breaks off
        except grpc.RpcError as error:
            failed = error
        calls.checked(work, got, failed)

    by_threads(one, calls, threads)


async def tasks_call(channel: grpc.aio.Channel, calls: GrpcCalls, tasks: int) -> None:
    """The same by tasks of this loop."""

    async def one() -> None:
        work, got, failed = calls.work(), [], None
        try:
            call = getattr(channel, work.kind)(work.path)(work.asked, timeout=SECONDS, metadata=(work.order,))
            async for message in call if work.kind.endswith("_stream") else _once(call):
                got.append(message)  # noqa: PERF401 - what came counts also where it breaks off
        except grpc.RpcError as error:
            failed = error
        calls.checked(work, got, failed)

    await by_tasks(one, calls, tasks)


async def _once(call: Any) -> AsyncIterator[bytes]:
    yield await call


def threads_of_kernel() -> int:
    """All of this process, grpc's own included, which Python does not know."""
    return len(list(Path("/proc/self/task").iterdir()))
