"""The shapes that peers and cases fill: see ``bench/peers`` and ``bench/cases``."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from typing import Any, Protocol

from bench.world import World


class Unavailable(Exception):
    """A peer cannot be measured here; the text says why."""


class Peer(Protocol):
    """Something that is measured. ``name`` is how cases refer to it."""

    name: str

    def open(self, world: World) -> None:
        """Make it ready, warm. Raises Unavailable: its rows are left out, and the reason is printed."""

    def sample(self) -> float:
        """One measurement, in seconds for one call (decision, import)."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: ``peer`` ÷ ``against``, or ``peer`` alone. ``at_most`` is the bound, None: information.

    ``unit`` is that of ``at_most`` where nothing is divided: ``"µs"`` or ``"ms"``; ``"KiB"``, ``"MiB"`` or ``"threads"`` where the
    peers give these and no seconds.
    """

    what: str
    peer: str
    against: str = ""
    at_most: float | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """``name`` is what ``--only`` takes; ``title`` says how it is measured; ``place`` is that in the table; ``most``: rounds that
    are enough, where one takes a minute.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    place: int = 100
    most: int = sys.maxsize

    @property
    def peers(self) -> set[str]:
        return {name for row in self.rows for name in (row.peer, row.against) if name}


@dataclass(frozen=True, slots=True)
class Work:
    """What a call is. ``path`` "": one of all the routes; ``size``: of the answer's body; ``post``: what is sent."""

    path: str = ""
    post: bytes = b""
    size: int = 1024

    def paths(self, world: World) -> tuple[str, ...]:
        return (self.path,) if self.path else world.paths


#: Calls of a sample, ten for each of 50 endpoints: it begins with nothing of a peer in the processor's caches, after a collection and the
#: samples of others, so that the first hundred calls take a tenth longer among 50 endpoints, and a twentieth longer to one.
CALLS = 500
GET = Work()
POST = Work(post=b"y" * 65_536)
DOWNLOAD = Work("/download", size=10 * 1024 * 1024)
CHUNKS = Work("/chunks")


@dataclass
class SyncClient:
    """A client of httpx's shape in one thread. ``make(world)`` gives it and what its URLs begin with."""

    name: str
    make: Callable[[World], tuple[Any, str]]
    calls: int = CALLS
    work: Work = GET
    _client: Any = field(default=None, repr=False)
    _urls: list[str] = field(default_factory=list, repr=False)

    def open(self, world: World) -> None:
        self._client, base = self.make(world)
        self._urls = [base + path for path in self.work.paths(world)]
        for _ in range(4):
            self.sample()

    def sample(self) -> float:
        call, size = _caller(self._client, self.work), self.work.size
        urls = list(islice(cycle(self._urls), self.calls))
        gc.collect()
        began = time.perf_counter()
        for url in urls:
            response = call(url)
            if response.status_code != 200 or len(response.content) != size:
                raise RuntimeError(f"{self.name}: {response!r}")
        return (time.perf_counter() - began) / self.calls

    def close(self) -> None:
        self._client.close()


@dataclass
class AsyncClient:
    """The same for tasks: ``tasks`` of them, each makes ``calls`` one after the other."""

    name: str
    make: Callable[[World], Coroutine[Any, Any, tuple[Any, str]]]
    tasks: int = 50
    calls: int = CALLS // 50
    work: Work = GET
    _client: Any = field(default=None, repr=False)
    _urls: list[str] = field(default_factory=list, repr=False)
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner, repr=False)

    def open(self, world: World) -> None:
        self._client, base = self._runner.run(self.make(world))
        self._urls = [base + path for path in self.work.paths(world)]
        for _ in range(3):
            self.sample()

    def sample(self) -> float:
        gc.collect()
        return self._runner.run(self._sample())

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    async def _sample(self) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(self._calls(number) for number in range(self.tasks)))
        return (time.perf_counter() - began) / (self.tasks * self.calls)

    async def _calls(self, number: int) -> None:
        call, size = _caller(self._client, self.work), self.work.size
        for url in islice(cycle(self._urls), number, number + self.calls):
            response = await call(url)
            if response.status_code != 200 or len(response.content) != size:
                raise RuntimeError(f"{self.name}: {response!r}")


def _caller(client: Any, work: Work) -> Callable[[str], Any]:
    return partial(client.post, content=work.post) if work.post else client.get  # type: ignore[no-any-return]
