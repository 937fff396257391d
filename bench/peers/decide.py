"""A call without its I/O: what the URL means, the route, an endpoint, the plan up to its Send, the outcome, the end.

The configuration is a mesh's own, read and compiled in the way of every other; no socket is opened.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from bench import routes
from bench.world import World


@dataclass
class Decide:
    name: str
    routes: int
    endpoints: int
    calls: int = 1000
    _mesh: Any = field(default=None, repr=False)
    _one: Callable[[Any], None] | None = field(default=None, repr=False)
    _heads: list[Any] = field(default_factory=list, repr=False)

    def open(self, world: World) -> None:
        import meshlib
        from meshlib.model.call import Head
        from meshlib.model.headers import Headers

        del world
        addresses = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:8080" for n in range(1, self.endpoints + 1)]
        self._mesh = meshlib.Mesh({"services": {routes.HOST: routes.service(addresses, self.routes)}})
        lines = [
            (b"Accept", b"*/*"),
            (b"Accept-Encoding", b"gzip, deflate"),
            (b"Connection", b"keep-alive"),
            (b"User-Agent", b"python-httpx/0.28.1"),
        ]
        self._heads = [
            Head("GET", "http", routes.HOST, path, Headers(lines)) for path in routes.paths(self.routes)
        ]
        self._one = _decision(self._mesh._runtime())
        # What an endpoint counts is made with its first call: that is done before anything is measured.
        # Of calls that are spread at random, ten an endpoint leave one in 22,000 without any.
        for _ in range(3 + 10 * self.endpoints // self.calls):
            self.sample()

    def sample(self) -> float:
        one = self._one
        assert one is not None
        heads = list(islice(cycle(self._heads), self.calls))
        gc.collect()
        began = time.perf_counter()
        for head in heads:
            one(head)
        return (time.perf_counter() - began) / self.calls

    def close(self) -> None:
        self._mesh.close()


def _decision(runtime: Any) -> Callable[[Any], None]:
    from meshlib.core.effects import Call, Finish, Send
    from meshlib.core.plan import Plan
    from meshlib.model.call import Outcome, OutcomeKind

    env, now, ok = runtime.env, runtime.clock.now, OutcomeKind.OK

    def one(head: Any) -> None:
        resolution = runtime.view.resolve("http", routes.HOST, None, routes.HOST)
        plan = Plan(Call(resolution, head), env)
        effect = plan.start(now())
        if type(effect) is not Send:
            raise RuntimeError(f"expected a Send: {effect!r}")
        effect = plan.outcome(Outcome(ok, 200, None, True, 0.0), now())
        if type(effect) is not Finish:
            raise RuntimeError(f"expected the end: {effect!r}")
        plan.close(now())

    return one


PEERS = (
    Decide("decide 100 × 50", 100, 50),
    Decide("decide 5,000 × 10,000", 5_000, 10_000),
)
