"""``python -m bench.chaos.caller``: one program that calls. It reads what it is to do from its input as a line of JSON, says that it is
ready, begins at the next line, and writes what came of each call.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

import meshlib

_BODY = b"x" * 2000


@dataclass
class Calls:
    """``number`` calls, ``rate`` a second together, by ``callers`` threads or tasks. The lock guards what is counted.

    ``failures`` has how often each kind occurred; ``extra`` attempts are those after the first.
    """

    number: int
    rate: float
    times: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    extra: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = 0.0

    def begin(self) -> None:
        self._began = time.monotonic()

    def next(self) -> tuple[int, float] | None:
        """The number of the next call, and in how many seconds it is due."""
        number = next(self._numbers)
        if number >= self.number:
            return None
        return number, self._began + number / self.rate - time.monotonic()

    def ended(self, began: float, failed: str, attempts: int) -> None:
        took = time.monotonic() - began
        with self._lock:
            self.times.append(took)
            self.extra += max(0, attempts - 1)
            if failed:
                self.failures[failed] += 1

    def result(self) -> dict[str, Any]:
        return {
            "times": [round(each, 6) for each in self.times],
            "failures": dict(self.failures),
            "extra": self.extra,
            "seconds": time.monotonic() - self._began,
        }


def request(number: int) -> tuple[str, str, bytes | None]:
    """Each call is one of its own: an answer to another would show. One in five has a body."""
    body = _BODY if number % 5 == 0 else None
    return ("GET" if body is None else "POST", f"/call/{number}", body)


def judged(response: httpx.Response, path: str, body: bytes | None) -> tuple[str, int]:
    """What is wrong with the answer, "" where nothing is, and how many attempts it took."""
    info = meshlib.call_info(response)
    told = response.headers.get("x-envoy-attempt-count")  # whoever made them
    attempts = int(told) if told else len(info.attempts) if info else 1
    if response.status_code != 200:
        return f"status {response.status_code}", attempts
    said = response.json()
    if said["path"] != path or said["body_length"] != len(body or b""):
        return "an answer to another call", attempts
    return "", attempts


def raised(error: httpx.HTTPError) -> tuple[str, int]:
    info = meshlib.call_info(error)
    name = next(each.__name__ for each in type(error).__mro__ if each.__module__ == "httpx")
    return (name, len(info.attempts) if info else 1)


def threads(client: httpx.Client, calls: Calls, url: str, callers: int) -> None:
    def caller() -> None:
        while (due := calls.next()) is not None:
            number, wait = due
            if wait > 0:
                time.sleep(wait)
            method, path, body = request(number)
            began = time.monotonic()
            try:
                outcome = judged(client.request(method, url + path, content=body), path, body)
            except httpx.HTTPError as error:
                outcome = raised(error)
            calls.ended(began, *outcome)

    made = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()


async def tasks(client: httpx.AsyncClient, calls: Calls, url: str, callers: int) -> None:
    async def caller() -> None:
        while (due := calls.next()) is not None:
            number, wait = due
            if wait > 0:
                await asyncio.sleep(wait)
            method, path, body = request(number)
            began = time.monotonic()
            try:
                outcome = judged(await client.request(method, url + path, content=body), path, body)
            except httpx.HTTPError as error:
                outcome = raised(error)
            calls.ended(began, *outcome)

    await asyncio.gather(*(caller() for _ in range(callers)))


def main() -> int:
    told = json.loads(sys.stdin.readline())
    calls = Calls(told["calls"], told["rate"])
    # Envoy's timeout of the route is the one that counts; the client's are far beyond it.
    options = {"timeout": 30.0, "limits": httpx.Limits(max_connections=1000), "trust_env": False}

    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        calls.begin()

    def by_threads(mesh: meshlib.Mesh) -> None:
        with meshlib.Client(mesh=mesh, **options) as client:
            client.get(url + "/warm-up")
            ready()
            threads(client, calls, url, told["callers"])

    async def by_tasks(mesh: meshlib.Mesh) -> None:
        async with meshlib.AsyncClient(mesh=mesh, **options) as client:
            await client.get(url + "/warm-up")
            ready()
            await tasks(client, calls, url, told["callers"])

    # Through the Envoy goes the same client, whose mesh has one endpoint and no policies: what is told apart is who routes, balances and
    # retries, and not two libraries.
    if told["plane"]:
        config = {"xds": {"server": told["plane"], "view": "sidecar"}}
        service = told["listener"]
    else:
        config = {"services": {"envoy": {"endpoints": [told["listener"]]}}}
        service = "envoy"
    url = f"http://{service}"
    with meshlib.Mesh(config) as mesh:
        mesh.wait_ready(service, timeout=20)
        if told["tasks"]:
            asyncio.run(by_tasks(mesh))
        else:
            by_threads(mesh)
    json.dump(calls.result(), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
