"""Many calls while what they need dies and returns; and what is left when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import meshlib
from meshlib.testing import ControlPlane, UpstreamProcess, build
from meshlib.testing.upstream_process import ServerProcess

SERVICE = "reviews"
ENDPOINTS = 5
PATIENCE = 60.0
#: Envoy's own default of 3 retries in flight would refuse most of them here.
LIMITS = {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 1024}


@dataclass
class Failure:
    """A call that failed. Monotonic seconds."""

    began: float
    ended: float
    error: BaseException

    @property
    def info(self) -> meshlib.CallInfo | None:
        return meshlib.call_info(self.error)

    def __str__(self) -> str:
        return f"{self.error!r}\n    " + "\n    ".join(self.info.trace() if self.info else ("no info",))


@dataclass
class Outage:
    """An endpoint was away: from before it was killed until after it served again."""

    address: str
    began: float
    ended: float


@dataclass
class Calls:
    """Calls under way, by any number of threads or tasks, until ``least`` are made and ``over`` is set. The condition guards
    what is counted.
    """

    least: int
    over: threading.Event = field(default_factory=threading.Event)
    failures: list[Failure] = field(default_factory=list)
    done: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _counted: threading.Condition = field(default_factory=threading.Condition)

    @property
    def wanted(self) -> bool:
        return len(self.failures) < 2000 and (self.done < self.least or not self.over.is_set())

    def request(self) -> tuple[str, str, bytes | None]:
        """Each call is one of its own: an answer to another would show. One in five has a body."""
        number = next(self._numbers)
        return (
            ("POST" if number % 5 == 0 else "GET"),
            f"/call/{number}",
            b"x" * 2000 if number % 5 == 0 else None,
        )

    def check(self, response: Any, path: str, body: bytes | None) -> None:
        if response.status_code != 200:
            raise AssertionError(f"{path}: {response.status_code}")
        said = response.json()
        if said["path"] != path or said["body_length"] != len(body or b""):
            raise AssertionError(f"{path}: the answer is to {said['path']} with {said['body_length']} bytes")

    def ended(self, began: float, error: BaseException | None) -> None:
        with self._counted:
            self.done += 1
            if error is not None:
                self.failures.append(Failure(began, time.monotonic(), error))
            self._counted.notify_all()

    def progress(self, number: int) -> None:
        """Until so many more have ended."""
        with self._counted:
            aim = self.done + number
            if not self._counted.wait_for(lambda: self.done >= aim or not self.wanted, PATIENCE):
                raise TimeoutError(f"{self.done} calls have ended, {aim} were awaited: they hang")


def run_threads(client: Any, calls: Calls, threads: int) -> None:
    """All calls by ``threads`` threads; returns when they ended."""

    def one() -> None:
        method, path, body = calls.request()
        calls.check(client.request(method, f"http://{SERVICE}{path}", content=body), path, body)

    by_threads(one, calls, threads)


def by_threads(one: Callable[[], None], calls: Calls, threads: int) -> None:
    """``one`` makes a call, and raises where it failed."""

    def caller() -> None:
        while calls.wanted:
            began, failed = time.monotonic(), None
            try:
                one()
            except Exception as error:  # noqa: BLE001 - counted
                failed = error
            calls.ended(began, failed)

    callers = [threading.Thread(target=caller, name=f"caller-{number}") for number in range(threads)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()


async def run_tasks(client: Any, calls: Calls, tasks: int) -> None:
    """The same by tasks of this loop."""

    async def one() -> None:
        method, path, body = calls.request()
        calls.check(await client.request(method, f"http://{SERVICE}{path}", content=body), path, body)

    await by_tasks(one, calls, tasks)


async def by_tasks(one: Callable[[], Awaitable[None]], calls: Calls, tasks: int) -> None:
    """As ``by_threads``."""

    async def caller() -> None:
        while calls.wanted:
            began, failed = time.monotonic(), None
            try:
                await one()
            except Exception as error:  # noqa: BLE001 - counted
                failed = error
            calls.ended(began, failed)

    await asyncio.gather(*(caller() for _ in range(tasks)))


class Storm:
    """Endpoints as processes and a control plane, and threads that kill them and bring them back.

    ``servers``: none is started; five of HTTP where none are given.
    """

    def __init__(self, servers: Sequence[ServerProcess] = ()) -> None:
        self.servers = list(servers) or [UpstreamProcess(f"v{number}") for number in range(ENDPOINTS)]
        self.outages: list[Outage] = []
        self.restarts = 0
        self.problems: list[BaseException] = []
        self.control_plane: ControlPlane | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
        self._stack.close()

    @property
    def addresses(self) -> list[str]:
        return [server.address for server in self.servers]

    def static(self, **policies: Any) -> dict[str, Any]:
        """A mesh without a control plane."""
        return {"services": {SERVICE: {"endpoints": self.addresses, **policies}}}

    def xds(self, retry: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
        """A mesh with one, which starts here; ``cluster``: further fields of the Cluster."""
        route = build.route(cluster=SERVICE, timeout=20.0, retry=retry)
        hosts = build.virtual_host(SERVICE, route, domains=[SERVICE])
        self.control_plane = ControlPlane(
            build.api_listener(SERVICE, "routes"),
            build.route_config("routes", hosts),
            build.cluster(SERVICE, connect_timeout=1.0, circuit_breakers={"thresholds": [LIMITS]}, **cluster),
            self.assignment(1),
        )
        self._stack.enter_context(self.control_plane)
        return {"xds": {"server": self.control_plane.address}}

    def assignment(self, weight: int) -> dict[str, Any]:
        """All endpoints; the first has another weight each time, so that something changes with each restart."""
        first, *others = self.addresses
        return build.endpoints(
            SERVICE, build.endpoint(first, weight=weight), *(build.endpoint(a, weight=1) for a in others)
        )

    def begin(self, calls: Calls, *, restarts: int) -> None:
        """Kill each endpoint in turn and, at the same time, the control plane ``restarts`` times; then the calls' end."""
        work = [threading.Thread(target=self._guarded, args=(self._endpoints, calls), name="endpoints")]
        if self.control_plane is not None:
            work.append(
                threading.Thread(
                    target=self._guarded, args=(self._control_plane, calls, restarts), name="control plane"
                )
            )

        def watch() -> None:
            for thread in work:
                thread.join()
            calls.over.set()

        self._threads = [*work, threading.Thread(target=watch, name="watch")]
        for thread in self._threads:
            thread.start()

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised by the test
            self.problems.append(error)

    def _endpoints(self, calls: Calls) -> None:
        """Each dies while calls are on it, and stays away for a while; then its successor at the same port serves."""
        share = max(1, calls.least // (3 * len(self.servers)))
        for server in self.servers:
            calls.progress(share)
            began = time.monotonic()
            server.kill()
            calls.progress(share)
            server.start()
            self.outages.append(Outage(server.address, began, time.monotonic()))
            self._returned(server, calls)

    def _returned(self, server: ServerProcess, calls: Calls) -> None:
        """What to wait for before the next one dies."""

    def _control_plane(self, calls: Calls, restarts: int) -> None:
        plane = self.control_plane
        assert plane is not None
        for number in range(restarts):
            calls.progress(max(1, calls.least // (3 * restarts)))
            plane.kill()
            calls.progress(20)
            plane.update(self.assignment(number + 2))
            plane.start()
            plane.wait_for_ack("endpoint", timeout=20.0)
            self.restarts += 1

    def verify(self, restarts: int) -> None:
        """Everything was killed that was to be killed."""
        if self.problems:
            raise self.problems[0]
        assert [outage.address for outage in self.outages] == self.addresses
        assert self.restarts == restarts

    def excused(self, failure: Failure) -> bool:
        """Whether the call failed at an endpoint that was killed, at a time when it was away."""
        info = failure.info
        return info is not None and any(
            outage.address == info.endpoint
            and failure.began <= outage.ended
            and failure.ended >= outage.began
            for outage in self.outages
        )


# --- what is left -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Footprint:
    """What this process has: threads by name, and open descriptors by what they are."""

    threads: tuple[str, ...]
    descriptors: tuple[str, ...]

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        found = []
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # the listing's own
                found.append(str(entry.readlink()))
        kinds = sorted(kind.partition(":[")[0] for kind in found)
        return cls(tuple(sorted(thread.name for thread in threading.enumerate())), tuple(kinds))


#: What ``counters`` says when nothing is under way.
NOTHING = dict.fromkeys(("active", "endpoints", "shown", "retries", "pending", "connections"), 0)


def counters(mesh: meshlib.Mesh) -> dict[str, int]:
    """Everything that is counted of live clusters, over all of them; ``connections`` are those of open pools."""
    runtime = mesh._runtime()
    live = list(runtime.clusters._known[0].values())
    return {
        "active": sum(cluster.active for cluster in live),
        "endpoints": sum(endpoint.active for cluster in live for endpoint in cluster.endpoints),
        "shown": sum(cluster.active for cluster in mesh.status().clusters.values()),
        "retries": sum(cluster.retries for cluster in live),
        "pending": sum(cluster.pending for cluster in live),
        "connections": sum(cluster.connections for cluster in live),
    }


def worked_off(mesh: meshlib.Mesh) -> None:
    """Until the mesh's worker has done all that it was given: it gives back what was collected."""
    done = threading.Event()
    mesh._runtime().worker.post(done.set)
    assert done.wait(10.0)


def pools_of(transport: Any) -> list[Any]:
    """The pools of a client's transport, in this process or this event loop."""
    caller = transport._caller
    wire = caller._mine[1] if hasattr(caller, "_mine") else caller._here.get()._wire
    found: list[Any] = [] if wire is None else wire._endpoints._pools.all()
    return found


def pooled(transport: Any) -> tuple[int, int]:
    """Connections of a client's transport: open, and idle."""
    every = pools_of(transport)
    return sum(pool.open for pool in every), sum(pool.idle for pool in every)
