#!/usr/bin/env python3
"""Repeat the measurements that docs/decisions/ quotes and that need no network.

``python scripts/measure_decisions.py [NAME…]``: breaker, tenacity, regex, imports. Numbers are of this machine, now;
what the decisions rest on is their order of magnitude.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]


def breaker() -> None:
    """What pybreaker does to calls that run at the same time."""
    import pybreaker

    shared = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=60)
    begun = time.perf_counter()
    _at_once(5, lambda: shared.call(time.sleep, 0.2))
    print(f"  5 threads, each a call of 0.2 s through one breaker: {time.perf_counter() - begun:.2f} s")

    async def fails() -> None:
        raise ConnectionError

    async def await_failures() -> None:
        for _ in range(10):
            try:
                await shared.call(fails)
            except ConnectionError:
                continue

    asyncio.run(await_failures())
    print(f"  10 failed coroutines, fail_max 5: counted {shared.fail_counter}, state {shared.current_state}")

    async def probe_at_once() -> None:
        half_open = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=0)
        half_open.half_open()
        calls = await asyncio.gather(*(_begin(half_open, fails) for _ in range(10)), return_exceptions=True)
        sent = sum(isinstance(call, ConnectionError) for call in calls)
        print(
            f"  10 coroutines at once while half open, all failing: {sent} were sent, then {half_open.current_state}"
        )

    asyncio.run(probe_at_once())


async def _begin(breaker: Any, work: Callable[[], object]) -> None:
    await breaker.call(work)


def _at_once(count: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def tenacity() -> None:
    """What tenacity costs as a calculator and as a loop, and what a shared loop object does."""
    import tenacity as t

    state = t.RetryCallState(retry_object=t.Retrying(), fn=None, args=(), kwargs={})
    state.attempt_number = 2
    stop, wait = t.stop_after_attempt(3), t.wait_random_exponential(multiplier=0.025, max=0.25)
    print(f"  stop and wait, asked once each: {_microseconds(lambda: (stop(state), wait(state))):.2f} µs")

    retrying = t.Retrying(stop=stop, wait=wait, sleep=lambda _: None)
    print(f"  its loop around a call that succeeds: {_microseconds(lambda: retrying(int)):.1f} µs")

    def loop() -> None:
        for attempt in retrying:
            with attempt:
                len(())

    print(f"  the same with `for attempt in`: {_microseconds(loop):.1f} µs")
    print(
        f"  20 tasks iterating one AsyncRetrying, each failing twice before it succeeds: {asyncio.run(_shared())}"
    )


async def _shared() -> str:
    import tenacity as t

    shared = t.AsyncRetrying(stop=t.stop_after_attempt(3), wait=t.wait_fixed(0))
    wrong = 0

    def refuse(tries: int) -> None:
        if tries < 3:
            raise ConnectionError

    async def one() -> None:
        nonlocal wrong
        tries = 0
        try:
            async for attempt in shared:
                with attempt:
                    tries += 1
                    await asyncio.sleep(0)
                    refuse(tries)
        except (t.RetryError, ConnectionError):
            wrong += 1
        else:
            wrong += tries != 3

    outcomes = await asyncio.gather(*(one() for _ in range(20)), return_exceptions=True)
    broken = sum(isinstance(outcome, BaseException) for outcome in outcomes)
    return f"{wrong} ended wrongly, {broken} broke"


def _microseconds(work: Callable[[], object], rounds: int = 7, calls: int = 5000) -> float:
    """The median over `rounds` of the time that one of `calls` calls takes."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(calls):
            work()
        times.append((time.perf_counter() - begun) / calls * 1e6)
    return statistics.median(times)


def regex() -> None:
    """What a pattern from the network can do to a call."""
    import re

    import re2

    pattern = r"(a|aa)+$"
    for length in (20, 26, 32):
        path = "a" * length + "!"
        times = []
        for compiled in (re.compile(pattern), re2.compile(pattern)):
            begun = time.perf_counter()
            compiled.fullmatch(path)
            times.append((time.perf_counter() - begun) * 1e3)
        print(f"  {pattern} on {length} letters: re {times[0]:.2f} ms, re2 {times[1]:.3f} ms")
    plain = r"/api/v[0-9]+/.*"
    for name, compiled in (("re", re.compile(plain)), ("re2", re2.compile(plain))):
        cost = _microseconds(lambda c=compiled: c.fullmatch("/api/v12/reviews"))  # type: ignore[misc]
        print(f"  {plain} on a plain path: {name} {cost:.2f} µs")


def imports() -> None:
    """What it costs to import each library, in a fresh process, above a bare interpreter."""
    code = "import time; t = time.perf_counter(); import {}; print((time.perf_counter() - t) * 1e3)"
    for name in (
        "meshlib",
        "grpc",
        "google.protobuf.message_factory",
        "httpx",
        "opentelemetry.trace",
        "meshlib.xds.schema",
    ):
        times = []
        for _ in range(7):
            done = subprocess.run(
                [sys.executable, "-c", code.format(name)], capture_output=True, text=True, check=True
            )
            times.append(float(done.stdout))
        print(f"  import {name}: {statistics.median(times):.0f} ms")


CASES = {"breaker": breaker, "tenacity": tenacity, "regex": regex, "imports": imports}


def main(names: list[str]) -> int:
    """Run the named cases, all by default."""
    for name in names or CASES:
        if name not in CASES:
            print(f"no such case: {name}; there are {', '.join(CASES)}", file=sys.stderr)
            return 2
        print(f"{name}: {(CASES[name].__doc__ or '').strip()}")
        CASES[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
