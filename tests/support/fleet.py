"""A fleet: gateway → orders → stock, each under a real server, on one control plane; and a crowd that calls the gateway.

While the crowd calls, an instance of orders is stopped, one of stock and the control plane are killed, and all come back. Every answer is
checked hop by hop: names, one trace, one request id, a deadline that shrinks. The spans that the processes wrote are
checked afterwards: each service's call is a child of its caller's.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from meshlib.testing import ControlPlane, build
from tests.support.storm import LIMITS
from tests.support.web_servers import ROOT, WebServer

__all__ = ["Crowd", "Fleet", "MakeServer", "PoolCrowd", "broken_traces", "hops_of"]

#: application, log, site (as ``WebServer`` takes it), number of workers → a server that is not started yet.
MakeServer = Callable[..., WebServer]

SERVICES = ("gateway", "orders", "stock")
#: Name, whom it calls, workers.
PLAN = (
    ("stock-1", "", 1),
    ("stock-2", "", 1),
    ("orders-1", "stock", 1),
    ("orders-2", "stock", 1),
    ("gateway", "orders", 2),
)
RETRY = {"retry_on": "connect-failure,reset,gateway-error", "num_retries": 4}
#: Milliseconds that each request may take. A server that came back loads its application before it answers.
BUDGET = 30_000
PATIENCE = 60.0


class Fleet:
    """The services as processes, and their control plane. Without ``gateway`` somebody else calls orders.
    ``graceful``: a server that is asked to end sends its responses first.
    """

    def __init__(
        self, make: MakeServer, folder: Path, *, gateway: bool = True, graceful: bool = True
    ) -> None:
        self._make = make
        self._graceful = graceful
        self._gateway = gateway
        self._folder = folder
        self.spans_folder = folder / "spans"
        self._stack = contextlib.ExitStack()
        self.plane = ControlPlane()
        self.servers: dict[str, WebServer] = {}

    def __enter__(self) -> Self:
        self.spans_folder.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.plane)
            mesh = {"xds": {"server": self.plane.address, "view": "target"}, "node": {"id": "fleet"}}
            # Instances of two services break: a request that was tried again at the one may meet the other's end.
            mesh["retry_chains"] = "go_on"
            for name, calls, workers in PLAN if self._gateway else PLAN[:-1]:
                server = self._make(
                    self._folder / f"{name}.log",
                    workers,
                    mesh=mesh,
                    calls=calls,
                    name=name.partition("-")[0],
                    FLEET_SPANS=str(self.spans_folder),
                )
                self.servers[name] = server
                server.start()
                stack.callback(server.__exit__)
                if name in ("stock-2", "orders-2"):
                    self._publish(name.partition("-")[0])
            for server in self.servers.values():
                server.wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _publish(self, service: str) -> None:
        route = build.route(cluster=service, timeout=60.0, retry=RETRY)
        hosts = build.virtual_host(service, route, domains=[service])
        self.plane.update(
            build.api_listener(service, f"{service}-routes"),
            build.route_config(f"{service}-routes", hosts),
            build.cluster(service, connect_timeout=1.0, circuit_breakers={"thresholds": [LIMITS]}),
            self._assignment(service, 1),
        )

    def _assignment(self, service: str, weight: int) -> dict[str, Any]:
        first, second = (self.servers[f"{service}-{number}"].address for number in (1, 2))
        return build.endpoints(
            service, build.endpoint(first, weight=weight), build.endpoint(second, weight=1)
        )

    def upset(self, crowd: Crowd) -> None:
        """Stop and start an instance of orders, kill the control plane and an instance of stock and bring them back, as calls go on.

        What is killed with SIGKILL may cut off responses that it is sending; so may uWSGI when it is stopped.
        """
        crowd.mortal = {self.servers["stock-2"].address}
        if not self._graceful:
            crowd.mortal.add(self.servers["orders-1"].address)
        share = max(8, crowd.least // 10)
        for name in ("orders-1", "control plane", "stock-2"):
            crowd.progress(share)
            if name == "control plane":
                self.plane.kill()
                crowd.progress(share)
                self.plane.update(self._assignment("orders", 2))
                self.plane.start()
                self.plane.wait_for_ack("endpoint", timeout=20.0)
            else:
                server = self.servers[name]
                if name == "orders-1":
                    server.stop()
                else:
                    server.kill()
                crowd.progress(share)
                server.start()
                server.wait()
        crowd.progress(share)

    def stop(self) -> dict[str, float]:
        """Ask each server to end; the seconds that each took."""
        return {name: server.stop() for name, server in self.servers.items()}

    def spans(self) -> list[dict[str, Any]]:
        """Every span that a process wrote; a line that SIGKILL cut off is none."""
        lines = (
            line
            for file in self.spans_folder.iterdir()
            for line in file.read_bytes().splitlines(keepends=True)
        )
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def logs(self, lines: int = 15) -> str:
        """The end of each server's log."""
        tails = (
            f"--- {name}\n" + "\n".join(server.log.splitlines()[-lines:])
            for name, server in self.servers.items()
        )
        return "\n".join(tails)


@dataclass
class Crowd:
    """Threads that call ``url``, each call one of its own; until ``least`` have ended and ``over`` is set."""

    address: str
    path: str
    least: int
    services: tuple[str, ...] = SERVICES
    threads: int = 8
    over: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)
    answers: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    mortal: set[str] = field(default_factory=set)  # who may cut off a response
    cut_off: list[str] = field(default_factory=list)  # where one was
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _ended: threading.Condition = field(default_factory=threading.Condition)  # told after each call

    def __enter__(self) -> Self:
        self._callers = [
            threading.Thread(target=self._call_on, name=f"crowd-{n}") for n in range(self.threads)
        ]
        for thread in self._callers:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        for thread in self._callers:
            thread.join(PATIENCE)
        stuck = [thread.name for thread in self._callers if thread.is_alive()]
        assert not stuck, f"these hang: {stuck}"

    @property
    def done(self) -> int:
        return len(self.answers) + len(self.failures) + len(self.cut_off)

    def progress(self, number: int) -> None:
        """Until so many more calls have ended."""
        with self._ended:
            aim = self.done + number
            if not self._ended.wait_for(lambda: self.done >= aim or len(self.failures) > 50, PATIENCE):
                raise TimeoutError(f"{self.done} calls have ended, {aim} were awaited: they hang")

    def finish(self) -> None:
        """Until all are made."""
        if self.done < self.least:
            self.progress(self.least - self.done)

    def _call_on(self) -> None:
        while not (self.over.is_set() and self.done >= self.least) and len(self.failures) <= 50:
            self._call(next(self._numbers) + 1)
            with self._ended:
                self._ended.notify_all()

    def _call(self, number: int) -> None:
        trace, budget = f"{number:032x}", BUDGET + number % 1000
        headers = {
            "traceparent": f"00-{trace}-{number:016x}-01",
            "x-request-id": f"request-{number}",
            "x-envoy-expected-rq-timeout-ms": str(budget),
            "connection": "close",
        }
        began = time.monotonic()
        try:
            status, body = self._exchange(number, headers)
            if status != 200:
                raise AssertionError(f"{status}: {body[:500]!r}")
            answer = json.loads(body)
            cut_off = hops_of(answer)[-1].get("cut_off")
            if cut_off not in self.mortal:
                self._check(answer, trace, f"request-{number}", budget)
        except Exception as error:  # noqa: BLE001 - counted
            self.failures.append(f"{number} after {time.monotonic() - began:.3f} s: {error!r}")
        else:
            if cut_off in self.mortal:
                self.cut_off.append(cut_off)
            else:
                self.answers.append((trace, answer))

    def _exchange(self, number: int, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=BUDGET / 1000 + 5)
        with contextlib.closing(connection):
            connection.request("GET", self.path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()

    def _check(self, answer: dict[str, Any], trace: str, request: str, budget: int) -> None:
        hops = hops_of(answer)
        assert tuple(hop["name"] for hop in hops) == self.services, hops
        assert {hop["trace"].split("-")[1] for hop in hops} == {trace}, hops
        assert {hop["request"] for hop in hops} == {request}, hops
        assert hops[0]["expected"] == str(budget), hops
        for before, after in itertools.pairwise(hops):
            # What is sent on is what was left then: less than what was left when the caller was called. Whole milliseconds.
            assert after["left"] < before["left"], hops
            assert int(after["expected"]) <= before["left"] * 1000 + 1, hops


class PoolCrowd(Crowd):
    """The same calls, made by the processes of a ``multiprocessing`` pool: ``fleet_pool`` is the gateway."""

    def __init__(self, fleet: Fleet, method: str, least: int, log: Path) -> None:
        super().__init__("", "", least)
        self._fleet, self._method, self._log = fleet, method, log
        self._lock = threading.Lock()  # guards the pipe to the program: a line is whole
        self._waiting: dict[int, queue.SimpleQueue[tuple[int, bytes]]] = {}

    def __enter__(self) -> Self:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MESHLIB_", "GRPC_"))}
        environment = {
            **kept,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")]),
            "MESHLIB_XDS_SERVER": self._fleet.plane.address,
            "SERVICE_NAME": "gateway",
            "SERVICE_CALLS": "orders",
            "FLEET_SPANS": str(self._fleet.spans_folder),
        }
        with self._log.open("wb") as log:
            self._program = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fleet_pool", self._method],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=ROOT,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, name="answers")
        self._reader.start()
        return super().__enter__()

    def __exit__(self, *exc: object) -> None:
        """Ask the program to end, which it does within seconds."""
        try:
            super().__exit__(*exc)
            assert self._program.stdin is not None
            self._program.stdin.close()
            assert self._program.wait(10) == 0, self._log.read_text()
        finally:
            if self._program.poll() is None:
                os.killpg(self._program.pid, signal.SIGKILL)
            self._reader.join()
            assert self._program.stdout is not None
            self._program.stdout.close()
            self._program.wait()

    def _exchange(self, number: int, headers: dict[str, str]) -> tuple[int, bytes]:
        waiting = self._waiting[number] = queue.SimpleQueue()
        with self._lock:
            assert self._program.stdin is not None
            self._program.stdin.write(json.dumps([number, headers]).encode() + b"\n")
            self._program.stdin.flush()
        return waiting.get(timeout=PATIENCE)

    def _read(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            number, status, answer = json.loads(line)
            self._waiting.pop(number).put((status, json.dumps(answer).encode()))


def hops_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """An answer's services, outermost first."""
    hops = []
    current: dict[str, Any] | None = answer
    while current is not None:
        hops.append(current)
        current = current.get("next")
    return hops


def broken_traces(answers: list[tuple[str, dict[str, Any]]], spans: list[dict[str, Any]]) -> list[str]:
    """Of the answers, those whose spans are no chain: what a service received as its parent is the span that its caller
    wrote for this call, and that one's parent is what the caller received.
    """
    by_id = {span["id"]: span for span in spans}
    broken = []
    for trace, answer in answers:
        for caller, called in itertools.pairwise(hops_of(answer)):
            span = by_id.get(called["trace"].split("-")[2])
            expected = {
                "service": caller["name"],
                "trace": trace,
                "parent": caller["trace"].split("-")[2],
                "kind": "CLIENT",
                "scope": "meshlib",
                "status": 200,
            }
            if span is None or expected.items() - span.items():
                broken.append(f"{trace}: {caller['name']} → {called['name']}: {span}")
    return broken
