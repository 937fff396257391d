"""Hedges at the end of an attempt's time (``hedge_on_per_try_timeout``): meshlib's clients and a real Envoy on one control plane.

What an attempt meets is told by the call's path: the n-th waits so long and is answered with this status, wherever it arrives.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, NamedTuple

import httpx
import pytest

import meshlib
from meshlib.testing import build
from meshlib.testing.control_plane import ControlPlane
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.asking import asked
from tests.support.late import TRIES
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

#: Seconds of an attempt; scripts count in them.
TRY = 0.8
MANY = httpx.Limits(max_connections=99)


class Scripted:
    """A server. ``seen``: of each call the numbers of its attempts; ``lost``: those whose caller went away first."""

    seen: ClassVar[defaultdict[str, set[int]]] = defaultdict(set)
    lost: ClassVar[defaultdict[str, set[int]]] = defaultdict(set)

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as lines:
            while first := lines.readline():
                path = first.split()[1].decode()
                fields = dict(line.lower().split(b": ", 1) for line in iter(lines.readline, b"\r\n"))
                lines.read(int(fields.get(b"content-length", b"0")))
                number = int(fields[b"x-envoy-attempt-count"])
                _, call, script = path[1:].split("/")
                self.seen[call].add(number)
                steps = script.split(",")
                wait, _, does = steps[min(number, len(steps)) - 1].partition(":")
                connection.settimeout(float(wait) * TRY or 0.001)
                with suppress(TimeoutError):
                    if not connection.recv(1, socket.MSG_PEEK):
                        self.lost[call].add(number)
                        return
                connection.settimeout(None)
                if does == "reset":
                    return
                head = f"HTTP/1.1 {does} X\r\ncontent-length: 0\r\nx-answered: {number}\r\n\r\n"
                connection.sendall(head.encode())


class Case(NamedTuple):
    """``script``: of each attempt how long it takes, in attempts' times, and its status; ``on``: the condition of retries."""

    words: str
    script: str
    on: str = "5xx"
    retries: int = 2
    method: str = "GET"
    timeout: float = 20.0


CASES = [
    Case("it is fast", "0:200"),
    Case("the second is faster", "9:200,0:200"),
    Case("the first is faster after all", "1.4:200,9:200"),
    Case("what is made beside it fails, and is made again", "9:200,0:503,0:200"),
    Case("the slow one fails, and the other is waited for", "1.4:503,9:200,0:200"),
    Case("an answer that is no reason to retry is the answer", "9:200,0:503", on="connect-failure"),
    Case("also of the slow one", "1.4:503,9:200", on="connect-failure"),
    Case("as many as there are retries", "3.5:200,9:200,9:200,0:200"),
    Case("all fail", "3.4:503,3.4:503,3.4:503"),
    Case("the last retry fails while the slow one is under way", "2.5:200,0:503", retries=1),
    Case("the last retry is reset while the slow one is under way", "2.5:200,0:reset", retries=1),
    Case("the slow one is reset while the other is under way", "1.4:reset,1.2:200", retries=1),
    Case("no retry is left from the start", "1.5:200", retries=0),
    Case("a POST is no exception", "9:200,0:200", method="POST"),
    Case("the call's time is over", "9:200", timeout=3.5 * TRY),
]
SECOND = 1


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    made = [Scripted() for _ in range(4)]
    yield [one.address for one in made]
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def listening(servers: list[str]) -> Iterator[tuple[ControlPlane, int]]:
    routes = [
        build.route(
            f"/{number}/",
            cluster="c",
            timeout=case.timeout,
            retry={
                "retry_on": case.on,
                "num_retries": case.retries,
                "per_try_timeout": f"{TRY}s",
                "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
            },
        )
        for number, case in enumerate(CASES)
    ]
    host = build.virtual_host(
        "v",
        *routes,
        domains=["*"],
        include_request_attempt_count=True,
        hedge_policy={"hedge_on_per_try_timeout": True},
    )
    thresholds = {"thresholds": [{"priority": "DEFAULT", "max_retries": 1000}]}
    held = Ports(1)
    port = held.numbers[0]
    listener = build.listener("l", build.route_config("r", host), address=f"127.0.0.1:{port}")
    with ControlPlane(listener, build.cluster("c", servers, circuit_breakers=thresholds)) as control_plane:
        yield control_plane, port
    held.close()


Listening = tuple[ControlPlane, int]
#: Of each call its status, whose answer it is, and how many attempts there were.
Told = dict[int, tuple[int, str, int]]


def _told(who: str, number: int, status: int, answered: str | None) -> tuple[int, str, int]:
    return status, answered or "", len(Scripted.seen[f"{who}{number}"])


def _url(listening: Listening, who: str, number: int) -> str:
    return f"http://127.0.0.1:{listening[1]}/{number}/{who}{number}/{CASES[number].script}"


def _in_threads(listening: Listening, who: str, numbers: Sequence[int], client: httpx.Client) -> Told:
    def one(number: int) -> tuple[int, str, int]:
        response = client.request(CASES[number].method, _url(listening, who, number))
        return _told(who, number, response.status_code, response.headers.get("x-answered"))

    with ThreadPoolExecutor(len(numbers)) as pool:
        return dict(zip(numbers, pool.map(one, numbers), strict=True))


async def _in_tasks(
    listening: Listening, who: str, numbers: Sequence[int], client: httpx.AsyncClient
) -> Told:
    async def one(number: int) -> tuple[int, str, int]:
        response = await client.request(CASES[number].method, _url(listening, who, number))
        return _told(who, number, response.status_code, response.headers.get("x-answered"))

    found = await asyncio.gather(*(one(number) for number in numbers))
    return dict(zip(numbers, found, strict=True))


def _mesh(listening: Listening) -> meshlib.Mesh:
    return meshlib.Mesh({"xds": {"server": listening[0].address, "view": "sidecar"}, "failures": "respond"})


def _by_envoy(listening: Listening, who: str, numbers: Sequence[int], folder: Path) -> Told:
    folder.mkdir()
    with (
        EnvoyProcess(listening[0].address, folder) as envoy,
        httpx.Client(timeout=60, limits=MANY) as client,
    ):
        envoy.wait_for_listeners(1)
        return _in_threads(listening, who, numbers, client)


def _by_client(listening: Listening, who: str, numbers: Sequence[int], _folder: Path) -> Told:
    with _mesh(listening) as mesh, meshlib.Client(mesh=mesh, timeout=60, limits=MANY) as client:
        mesh.wait_ready(f"127.0.0.1:{listening[1]}", timeout=20)
        found = _in_threads(listening, who, numbers, client)
        assert _idle(mesh)
        return found


def _by_async_client(listening: Listening, who: str, numbers: Sequence[int], _folder: Path) -> Told:
    async def ask() -> Told:
        async with (
            _mesh(listening) as mesh,
            meshlib.AsyncClient(mesh=mesh, timeout=60, limits=MANY) as client,
        ):
            mesh.wait_ready(f"127.0.0.1:{listening[1]}", timeout=20)
            found = await _in_tasks(listening, who, numbers, client)
            assert _idle(mesh)
            return found

    return asyncio.run(ask())


SIDES = {"envoy": _by_envoy, "sync": _by_client, "async": _by_async_client}


def _faults(number: int, rows: Sequence[tuple[int, str, int]], whos: Sequence[str]) -> list[str]:
    """What is not as it should be about one call, of which each side told a row."""
    faults = [f"{CASES[number].words}: {rows}"] if len(set(rows)) > 1 else []
    if number == SECOND:
        if rows[0] != (200, "2", 2):
            faults.append(f"Envoy does not do what is compared here: {rows[0]}")
        faults += [
            f"{who}: the attempt that was overtaken is not given up"
            for who in whos
            if not asked(lambda lost=Scripted.lost[f"{who}{number}"]: lost == {1})
        ]
    return faults


def test_the_same_attempts_are_made_and_the_same_answer_is_given(listening, tmp_path):
    faults: dict[int, list[str]] = {number: [] for number in range(len(CASES))}
    for turn in range(TRIES):  # what differs by itself does so each time
        numbers, whos = list(faults), [f"{side}{turn}-" for side in SIDES]
        sides = zip(whos, SIDES.values(), strict=True)
        told = [ask(listening, who, numbers, tmp_path / who) for who, ask in sides]
        for number in numbers:
            rows = [each[number] for each in told]
            print(turn, CASES[number].words, *rows, sep=" | ")
            faults[number] = _faults(number, rows, whos)
        faults = {number: found for number, found in faults.items() if found}
        if not faults:
            break
    assert not faults


def _idle(mesh: meshlib.Mesh) -> bool:
    """Nothing is in flight any more."""
    (cluster,) = mesh.status().clusters.values()
    return cluster.active == 0
