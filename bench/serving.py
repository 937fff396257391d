"""Web applications under gunicorn: what a request costs their worker."""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY, create_server
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.world import World

_OPTIONS = (
    "--log-level",
    "error",
    "--worker-class",
    "gthread",
    "--workers",
    "1",
    "--threads",
    "1",
    "--keep-alive",
    "600",
)
#: What a proxy adds, and what a caller in the mesh says.
_LINES = {
    "User-Agent": "python-requests/2.32.5",
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
    "X-Forwarded-For": "10.0.0.7",
    "X-Forwarded-Proto": "http",
    "X-Request-Id": "6d4f5c2e-2b5c-9f0e-8d0a-0f5b9a3c1e77",
    "X-Envoy-Expected-Rq-Timeout-Ms": "15000",
    "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}


class Sites:
    """gunicorn with all the applications of ``bench.sites``, and one connection to it.

    A few calls go to each, again and again, so that whatever else the machine does hits all of them; in an order that is drawn
    anew, since who comes after its like finds the processor's caches filled.
    """

    def __init__(self, turns: int = 30, calls: int = 10) -> None:
        self._turns = turns
        self._calls = calls
        self._process, address = _start()
        self._client = http.client.HTTPConnection(*address, timeout=30)
        self._found: dict[str, float] = {}
        self._order = random.Random(1)

    def take(self, name: str) -> float:
        """A sample of that application, in seconds for a request. Samples are made of all at once, and each is given once."""
        if name not in self._found:
            self._found = self._measured()
        return self._found.pop(name)

    def close(self) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(10)

    def _measured(self) -> dict[str, float]:
        before = self._get("/spent")
        names = list(before)
        for _ in range(self._turns):
            self._order.shuffle(names)
            for name in names:
                self._visit(name)
        after = self._get("/spent")
        return {name: (after[name] - before[name]) / (self._turns * self._calls) / 1e9 for name in before}

    def _visit(self, name: str) -> None:
        for _ in range(self._calls):
            if self._get(f"/{name}/items/7/?page=2") != {"item": 7}:
                raise RuntimeError(f"{name}: another answer than was expected")

    def _get(self, path: str) -> Any:
        self._client.request("GET", path, headers=_LINES)
        response = self._client.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body[:200]!r}")
        return json.loads(body)


def _start() -> tuple[subprocess.Popen[bytes], tuple[str, int]]:
    with create_server(("127.0.0.1", 0)) as listening:
        # What is accepted inherits it: a head and a body are written apart, and the second would wait for the first's receipt.
        listening.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        number = listening.fileno()
        command = [sys.executable, "-m", "gunicorn", *_OPTIONS, "--bind", f"fd://{number}", "bench.sites:app"]
        process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[1], pass_fds=[number])
        return process, listening.getsockname()


@dataclass
class Site:
    """The application mounted as ``/mount``. A sample is the processor time of its worker for a request, from its head to the
    next one's, gunicorn's part included: a client waits for that, and for others besides.
    """

    name: str
    mount: str
    _sites: Any = field(default=None, repr=False)

    def open(self, world: World) -> None:
        self._sites = world.sites
        for _ in range(2):
            self.sample()

    def sample(self) -> float:
        found: float = self._sites.take(self.mount)
        return found

    def close(self) -> None:
        """The world's."""
