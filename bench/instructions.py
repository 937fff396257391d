"""How many instructions of the processor a call takes: what nothing else that runs on the machine can change.

Information, below the table; there is no bound. Counted is what the caller runs in user space: not the kernel's work for it, nor
the server's. A peer is run in a process of its own twice, the second time with calls more; the difference is theirs. ``perf stat``
counts where the machine lets it, else valgrind's cachegrind, under which everything takes some fifty times as long.

``python -m bench.instructions PEER CALLS`` is what is counted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.run import peers
from bench.shapes import Unavailable
from bench.world import World

NAMES = ("decide 100 × 50", "meshlib.Client", "httpx.Client", "meshlib_requests.Session", "requests.Session")
#: Calls of a sample that makes a peer warm, and of the one that is counted. Among 50 endpoints some have no connection before some
#: hundreds of calls, and a dial costs as much as a call.
_READY = 100
_MORE = 200  # calls more, in the process in which they are counted
_SECONDS = 600.0  # for one process

_ROOT = Path(__file__).resolve().parents[1]
#: So that both processes of a peer do the same up to the calls.
_SAME = {"PYTHONHASHSEED": "0"}


@dataclass(frozen=True, slots=True)
class Counter:
    """A program that counts the instructions of another, and where in what it says the number is."""

    name: str
    command: tuple[str, ...]
    said: re.Pattern[str]

    def count(self, *command: str) -> int:
        """The instructions of a command. Raises Unavailable with what was said instead."""
        try:
            done = subprocess.run(
                (*self.command, *command),
                capture_output=True,
                text=True,
                check=False,
                cwd=_ROOT,
                env={**os.environ, **_SAME},
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"{self.name}: {error}") from error
        found = self.said.search(done.stderr)
        if done.returncode or found is None:
            # The peer's own last line, not the counter's.
            lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("==")]
            raise Unavailable(f"{self.name}: {lines[-1] if lines else f'exit code {done.returncode}'}")
        return int(found[1].replace(",", ""))


COUNTERS = (
    Counter(
        "perf",
        ("perf", "stat", "--no-inherit", "-x", ";", "-e", "instructions:u", "--"),
        re.compile(r"^(\d+);[^;]*;instructions:u", re.MULTILINE),
    ),
    Counter(
        "cachegrind",
        ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"),
        re.compile(r"I +refs: +([\d,]+)"),
    ),
)


def measure(names: tuple[str, ...] = NAMES) -> tuple[str, dict[str, float], dict[str, str]]:
    """What counted (``""``: nothing here can), the instructions of a call by peer, and why others have none."""
    try:
        counter = _counter()
    except Unavailable as reason:
        return "", {}, {"instructions": str(reason)}
    found: dict[str, float] = {}
    missing: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # Counts are the same however much runs beside it.
        counts = {
            name: [pool.submit(counter.count, *_process(name, calls)) for calls in (_READY, _READY + _MORE)]
            for name in names
        }
        for name, (few, many) in counts.items():
            try:
                found[name] = (many.result() - few.result()) / _MORE
            except Unavailable as reason:
                missing[name] = str(reason)
    return counter.name, found, missing


def render(counter: str, found: dict[str, float]) -> str:
    """A line a peer."""
    width = max(map(len, found))
    lines = [f"{name.ljust(width)}  {count:12,.0f}" for name, count in found.items()]
    return "\n".join([f"instructions of one call, by {counter}", *lines])


def _counter() -> Counter:
    """The first that counts here. Raises Unavailable."""
    reasons = []
    for counter in COUNTERS:
        if shutil.which(counter.command[0]) is None:
            reasons.append(f"{counter.name}: there is no {counter.command[0]} here")
            continue
        try:
            counter.count("true")
        except Unavailable as reason:
            reasons.append(str(reason))
        else:
            return counter
    raise Unavailable("; ".join((*reasons, "apt-get install valgrind")))


def _process(name: str, calls: int) -> tuple[str, ...]:
    return sys.executable, "-m", "bench.instructions", name, str(calls)


def _run(name: str, calls: int) -> None:
    """What is counted: a peer is made ready, and makes ``calls``."""
    peer: Any = replace(peers()[name], calls=_READY)  # type: ignore[type-var]
    world = World()
    try:
        peer.open(world)
        peer.calls = calls
        peer.sample()
        peer.close()
    finally:
        world.close()


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]))
