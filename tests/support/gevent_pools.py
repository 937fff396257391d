"""Programs over a pool, patched by gevent before anything else: ``python -m tests.support.gevent_pools NAME`` prints JSON."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402

from meshlib.pools import EndpointPool, PoolSettings  # noqa: E402
from meshlib.runtime.worker import Worker  # noqa: E402
from tests.support.pool_kit import CLOCK, FakeConnection, FakeLimits, attempt  # noqa: E402


def dial(bounds: Any) -> FakeConnection:
    gevent.sleep(0)
    return FakeConnection()


def fair() -> Any:
    """Four greenlets on one connection: how many calls each had."""
    pool = EndpointPool(dial, FakeLimits(1), PoolSettings(), CLOCK)
    calls: Counter[int] = Counter()

    def call(number: int) -> None:
        while sum(calls.values()) < 2000:
            connection = pool.acquire(attempt())
            calls[number] += 1
            gevent.sleep(0)
            pool.release(connection)

    gevent.joinall([gevent.spawn(call, number) for number in range(4)], raise_error=True)
    return sorted(calls.values())


def killed() -> Any:
    """Greenlets that are killed or timed out at any of their points: what is left of them, and whether the last is served."""
    chance = random.Random(3)
    limits = FakeLimits(3)
    pool = EndpointPool(dial, limits, PoolSettings(), CLOCK)
    ends: Counter[str] = Counter()

    def call() -> None:
        with gevent.Timeout(chance.choice([0.001, 0.003, 5.0]), False):
            connection = pool.acquire(attempt())
            try:
                for _ in range(chance.randrange(3)):
                    gevent.sleep(0)
            finally:
                connection.room = chance.random() > 0.1
                pool.release(connection)
            ends["done"] += 1

    for _ in range(30):
        greenlets = [gevent.spawn(call) for _ in range(60)]
        for _ in range(chance.randrange(6)):
            gevent.sleep(0)
        for greenlet in chance.sample(greenlets, 30):
            greenlet.kill(block=False)
            if chance.random() < 0.3:
                gevent.sleep(0)
        gevent.joinall(greenlets)
        ends["killed"] += sum(isinstance(greenlet.value, gevent.GreenletExit) for greenlet in greenlets)
    last = pool.acquire(attempt(pool=5.0))
    pool.release(last)
    return {
        "ends": ends,
        "waiting": pool.waiting,
        "busy": pool.open - pool.idle,
        "counted": limits.count - pool.idle,
        "pending": limits.pending,
    }


def idle() -> Any:
    """Idle connections end on the worker, which is a greenlet here."""
    worker = Worker(CLOCK)
    worker.start()
    pool = EndpointPool(dial, None, PoolSettings(keepalive=0.05), CLOCK, worker=worker)
    held = [pool.acquire(attempt()) for _ in range(20)]
    for connection in held:
        pool.release(connection)
    last = held[-1]
    over = Event()
    last.close = lambda: (setattr(last, "closed", True), over.set())  # type: ignore[method-assign]
    assert over.wait(10.0)
    abandoned = pool.acquire(attempt())
    pool.abandon(abandoned)
    worker.call(lambda: None, 5.0)
    closed = sum(connection.closed for connection in [*held, abandoned])
    return {"closed": closed, "stopped": worker.stop(5.0), "open": pool.open}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
