"""Connections that are accepted and break in the TLS handshake leave nothing: no descriptor, no thread, no task, no count."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import meshlib
from tests.support.asking import asked
from tests.support.breaking_server import BreakingServer
from tests.support.certificates import Authority

#: Connections of each kind of client; a long run (``make handshakes``) says more.
COUNT = int(os.environ.get("BROKEN_HANDSHAKES", "2000")) // 2
#: Clients at the same time.
WIDTH = 20
CA = Authority("Mesh")
SERVER = CA.issue("reviews")

pytestmark = pytest.mark.timeout(60 + COUNT // 20)


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def nothing_more(before: int) -> bool:
    """Whether there are no more descriptors than before. The server is of this process, and closes its end of a connection when it comes
    to that, which may be after the call has failed: nobody tells.
    """
    return asked(lambda: descriptors() <= before)


@pytest.fixture
def breaking(request: pytest.FixtureRequest) -> Iterator[BreakingServer]:
    with BreakingServer(SERVER.server(alpn=("http/1.1",)), seed=14) as server:
        yield server


@pytest.fixture
def mesh(breaking: BreakingServer, tmp_path: Path) -> Iterator[meshlib.Mesh]:
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    tls = {"ca": f"{tmp_path}/ca.pem", "sans": ["reviews"]}
    with meshlib.Mesh({"services": {"reviews": {"endpoints": [breaking.address], "tls": tls}}}) as made:
        yield made


def counts(mesh: meshlib.Mesh) -> tuple[int, int]:
    """Calls and connections that are counted of the cluster."""
    clusters = mesh._runtime().clusters
    found = next(
        clusters.get(part.source, "reviews") for part in mesh.snapshot().parts if "reviews" in part.clusters
    )
    assert found is not None
    return found.active, found.connections


def broken(error: BaseException) -> str:
    """What a call may fail with: nothing was answered, and it is one of our errors."""
    assert isinstance(error, meshlib.ConnectFailed | meshlib.TransportFailed | meshlib.ProtocolError), repr(
        error
    )
    return type(error).__name__


def test_of_threads(mesh: meshlib.Mesh, breaking: BreakingServer) -> None:
    failed: list[str] = []

    def call(client: Any, times: int) -> None:
        for _ in range(times):
            with pytest.raises(meshlib.MeshError) as caught:
                client.get("http://reviews/")
            failed.append(broken(caught.value))

    with meshlib.Client(mesh=mesh) as client:
        call(client, 10)  # whatever is made once
        before, threads = descriptors(), threading.active_count()
        callers = [threading.Thread(target=call, args=(client, COUNT // WIDTH)) for _ in range(WIDTH)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert len(failed) == 10 + COUNT // WIDTH * WIDTH
        assert counts(mesh) == (0, 0)
        assert nothing_more(before)  # others of this process may have ended meanwhile
        assert threading.active_count() <= threads
        breaking.good = True
        assert client.get("http://reviews/").text == "ok"
    assert len(breaking.accepted) > 5


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_of_tasks(mesh: meshlib.Mesh, breaking: BreakingServer, kind: str) -> None:
    async def call(client: Any, times: int) -> list[str]:
        found = []
        for _ in range(times):
            with pytest.raises(meshlib.MeshError) as caught:
                await client.get("http://reviews/")
            found.append(broken(caught.value))
        return found

    async def run(width: int, times: int) -> int:
        async with meshlib.AsyncClient(mesh=mesh) as client:
            done = await asyncio.gather(*(call(client, times) for _ in range(width)))
            assert counts(mesh) == (0, 0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            if times > 1:
                breaking.good = True
                assert (await client.get("http://reviews/")).text == "ok"
        return sum(map(len, done))

    factory = asyncio.new_event_loop
    if kind == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(run(WIDTH, 1)) == WIDTH  # whatever is made once
    before, threads = descriptors(), threading.active_count()
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(run(WIDTH, COUNT // WIDTH)) == COUNT // WIDTH * WIDTH
    assert nothing_more(before)
    assert threading.active_count() <= threads
