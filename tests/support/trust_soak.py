"""Calls over TLS while everybody's certificates and the roots above them change: by Istio's CA (its stand-in) and a real Envoy.

The Envoy is the server of two services, ``reviews`` over HTTP and ``stock`` over gRPC. It demands a certificate of the mesh, and has its own and
the roots from files that are replaced while it runs. Ours comes from the CA by the provider of the product.

    the server's leaf    every half of a life
    ours                 by the provider: around the half of each
    a root               told ──two looks at the file──► signs ──until no older leaf lives──► the older one is dropped
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from meshlib.sources.identity_network import LOOK
from meshlib.testing import GrpcUpstream, IstioCa
from tests.support.tls_envoy import ANSWER, TlsEnvoy, file_secret, inline, write_secret

__all__ = ["Load", "Rotation", "Server"]

ACCOUNT = "spiffe://cluster.local/ns/default/sa/server"
_OURS = "spiffe://cluster.local/ns/default/sa/app"


class Server:
    """The Envoy, with ``grpc`` behind it."""

    def __init__(self, ca: IstioCa, grpc: GrpcUpstream, folder: Path) -> None:
        self._ca = ca
        self._folder = folder
        self.show()
        self.trust()
        certificate, roots = file_secret("server", folder), file_secret("roots", folder)
        self.envoy = TlsEnvoy(folder, certificate, roots, _OURS, grpc=grpc)

    def __enter__(self) -> Self:
        self.envoy.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.envoy.__exit__(*exc)

    def show(self) -> None:
        """A new certificate, of the root that signs now."""
        pair = self._ca.issue(ACCOUNT)
        made = {
            "certificate_chain": inline(pair.chain_pem),
            "private_key": inline(pair.key_pem),
        }
        write_secret("server", {"tls_certificate": made}, self._folder)

    def trust(self) -> None:
        """The roots that are told now."""
        roots = {"validation_context": {"trusted_ca": inline(self._ca.roots_pem)}}
        write_secret("roots", roots, self._folder)


class Rotation:
    """Renews the server's certificate every half of the CA's lifetime, and replaces the root ``roots`` times within ``seconds``."""

    def __init__(self, ca: IstioCa, server: Server, *, seconds: float, roots: int) -> None:
        self._ca = ca
        self._server = server
        self._over = threading.Event()
        self._period = ca.lifetime / 2
        told = math.ceil((2 * LOOK) / self._period)  # until everybody has looked at the files
        lived = math.ceil(ca.lifetime / self._period) + 1  # until no leaf of the older root is left
        self._steps: dict[int, Callable[[], None]] = {}
        whole = round(seconds / self._period / (roots + 0.5))
        for root in range(roots):
            begun = root * whole + 1
            self._steps |= {
                begun: self._prepare,
                begun + told: ca.activate,
                begun + told + lived: self._drop,
            }
        self.seconds = max(seconds, (max(self._steps) + 2) * self._period)
        self.renewed = 0
        self.roots = 0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="rotation", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def wait(self) -> None:
        """Until the time is over."""
        self._thread.join()

    def _run(self) -> None:
        try:
            for step in range(1, math.ceil(self.seconds / self._period) + 1):
                if self._over.wait(self._period):
                    return
                self._steps.get(step, bool)()
                self._server.show()
                self.renewed += 1
        except BaseException as problem:  # noqa: BLE001 - told by the test
            self.failure = problem

    def _prepare(self) -> None:
        self._ca.prepare()
        self._server.trust()

    def _drop(self) -> None:
        self._ca.drop_old_roots()
        self._server.trust()
        self.roots += 1


class Load:
    """Callers, each at a pace of its own, until it is over. A lock guards what they note."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.done: Counter[str] = Counter()
        self.took: defaultdict[str, list[float]] = defaultdict(list)
        self.failures: list[str] = []

    def threads(self, kind: str, count: int, pause: float, call: Callable[[], object]) -> None:
        """This many, which call and pause."""

        def work() -> None:
            while not self._over.is_set():
                began = time.perf_counter()
                try:
                    self._note(kind, call(), began)
                except Exception as problem:  # noqa: BLE001 - whatever it is, it is a failed call
                    self._fail(kind, problem)
                self.pace(pause)

        self._begin([threading.Thread(target=work, daemon=True) for _ in range(count)])

    def tasks(self, count: int, pause: float, main: Callable[[], Any]) -> None:
        """This many of each kind, in an event loop of a thread of their own. ``main``: an async context manager that gives the calls by kind."""

        async def work(kind: str, call: Callable[[], Awaitable[object]]) -> None:
            while not self._over.is_set():
                began = time.perf_counter()
                try:
                    self._note(kind, await call(), began)
                except Exception as problem:  # noqa: BLE001 - as above
                    self._fail(kind, problem)
                await self.pace_async(pause)

        async def run() -> None:
            async with main() as calls:
                await asyncio.gather(
                    *(work(kind, call) for kind, call in calls.items() for _ in range(count))
                )

        self._begin([threading.Thread(target=lambda: asyncio.run(run()), daemon=True)])

    def pace(self, pause: float) -> None:
        self._over.wait(pause)

    async def pace_async(self, pause: float) -> None:
        await asyncio.sleep(pause)

    def finish(self) -> None:
        """Returns when the last calls have come back."""
        self._over.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a caller hangs"

    def _begin(self, threads: list[threading.Thread]) -> None:
        self._threads += threads
        for thread in threads:
            thread.start()

    def _note(self, kind: str, answer: object, began: float) -> None:
        assert answer == ANSWER, answer
        with self._lock:
            self.done[kind] += 1
            self.took[kind].append(time.perf_counter() - began)

    def milliseconds(self, kind: str) -> tuple[float, float]:
        """Of the median call, and of the slowest of a hundred."""
        found = sorted(self.took[kind])
        median, slow = (found[int(share * (len(found) - 1))] * 1000 for share in (0.5, 0.99))
        return round(median, 1), round(slow, 1)

    def _fail(self, kind: str, problem: Exception) -> None:
        with self._lock:
            self.failures.append(f"{kind}: {type(problem).__name__}: {problem}")
