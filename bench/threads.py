"""A client of httpx's shape, shared by threads."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from bench.shapes import CALLS
from bench.world import World


@dataclass
class Threads:
    """``threads`` of them, each makes ``calls`` one after the other with a client that all share."""

    name: str
    make: Callable[[World], tuple[Any, str]]
    threads: int = 8
    calls: int = CALLS // 8
    _client: Any = field(default=None, repr=False)
    _urls: list[str] = field(default_factory=list, repr=False)
    _pool: ThreadPoolExecutor | None = field(default=None, repr=False)

    def open(self, world: World) -> None:
        self._client, base = self.make(world)
        self._urls = [base + path for path in world.paths]
        self._pool = ThreadPoolExecutor(self.threads)
        for _ in range(4):
            self.sample()

    def sample(self) -> float:
        assert self._pool is not None
        gc.collect()
        began = time.perf_counter()
        for _ in self._pool.map(self._calls, range(self.threads)):
            pass
        return (time.perf_counter() - began) / (self.threads * self.calls)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._client.close()

    def _calls(self, number: int) -> None:
        get = self._client.get
        for url in islice(cycle(self._urls), number, number + self.calls):
            response = get(url)
            if response.status_code != 200 or len(response.content) != 1024:
                raise RuntimeError(f"{self.name}: {response!r}")
