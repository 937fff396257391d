"""What becomes of connections, waits and causes when calls fail: over each library, seen from outside."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import httpx
import httpx2
import pytest
from aiohttp.http_exceptions import PayloadEncodingError

import meshlib
import meshlib.httpx2
from tests.support.libraries import LIBRARIES, Caller

UpstreamFactory = Any


def service(*addresses: str, **policies: Any) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": list(addresses), **policies}}}


def own_retries(library: str) -> dict[str, Any]:
    """What keeps urllib3 from trying again by itself."""
    return {"retries": False} if library == "urllib3" else {}


def ended(one: Any, by: Any, seconds: Sequence[float], ask: Callable[[], object]) -> Any:
    """The error, one of ``by``, of a call that has so many seconds and comes to ``one`` meanwhile. Where it does not, as on a busy
    machine, it is made again and has the next of them.
    """
    for each in seconds:
        before = one.requests_total
        with meshlib.deadline(each), pytest.raises(by) as caught:
            ask()
        if one.requests_total > before:
            return caught.value
    raise AssertionError("it never came there")


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "aiohttp-connector"])
def test_an_answer_that_is_tried_again_gives_its_connection_back(
    library: str, upstream: UpstreamFactory
) -> None:
    """There is one connection, so the second attempt waits for that of the first. A connector alone makes no retries."""
    one = upstream()
    policies = {"limits": {"max_connections": 1}, "retry": {"attempts": 3, "on": ["5xx"]}}
    with meshlib.Mesh(service(one.address, **policies)) as mesh, Caller(library, mesh) as ask:
        for _ in range(3):
            one.fail(503, times=2)
            with meshlib.deadline(20):
                status, _, info = ask("GET", "http://reviews/", **own_retries(library))
            assert status == 200
            assert info is not None
            assert len(info.attempts) == 3


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("failure", ["reset", "reset_body", "garbage", "timeout"])
def test_a_connection_that_failed_is_given_back(
    library: str, failure: str, upstream: UpstreamFactory
) -> None:
    """There may be one connection: if it stayed counted, none could be had after it."""
    one = upstream()
    if failure == "garbage":
        one.order(garbage="nothing of HTTP\r\n\r\n", times=3)
    elif failure == "timeout":
        one.hang()
    else:
        getattr(one, failure)(times=3)
    # Not Overloaded: a connection was to be had.
    ends = (meshlib.TransportFailed, meshlib.ProtocolError, meshlib.DeadlineExceeded)
    config = service(one.address, limits={"max_connections": 1})
    with meshlib.Mesh(config) as mesh, Caller(library, mesh) as ask:
        for _ in range(3):
            seconds = (0.1, 1.0, 10.0) if failure == "timeout" else (30.0,)
            ended(one, ends, seconds, lambda: ask("POST", "http://reviews/", **own_retries(library)))
        one.behave()
        assert ask("POST", "http://reviews/", **own_retries(library))[0] == 200
        assert mesh.status().clusters["reviews"].active == 0


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("within", ["head", "body"])
def test_a_deadline_shortens_a_read_that_has_a_timeout_of_its_own(
    library: str, within: str, upstream: UpstreamFactory
) -> None:
    one = upstream()
    one.order(hold=within)
    timeout: Any = 20
    if library.startswith("aiohttp"):
        timeout = aiohttp.ClientTimeout(sock_read=20)
    with meshlib.Mesh(service(one.address)) as mesh, Caller(library, mesh) as ask:

        def call() -> None:
            began = time.monotonic()
            try:
                ask("GET", "http://reviews/", timeout=timeout)
            finally:
                assert time.monotonic() - began < 10

        late = ended(one, meshlib.DeadlineExceeded, (0.2, 1.0, 8.0), call)
        one.release()
    info = late.info
    assert info is not None
    assert [attempt.sent for attempt in info.attempts] == [True]


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what a traceback shows above it."""
    while error is not None:
        yield error
        shown = error.__context__ if not error.__suppress_context__ else None
        error = error.__cause__ or shown


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("failure", "reason"), [("refused", ConnectionRefusedError), ("reset", ConnectionResetError)]
)
@pytest.mark.parametrize("retried", [False, True])
def test_the_systems_error_is_among_the_causes(
    library: str, failure: str, reason: type[OSError], retried: bool, upstream: UpstreamFactory
) -> None:
    one = upstream()
    one.reset()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
    policies = {"retry": {"attempts": 2, "on": ["connect-failure", "reset"]}} if retried else {}
    with (
        meshlib.Mesh(service(dead if failure == "refused" else one.address, **policies)) as mesh,
        Caller(library, mesh) as ask,
        pytest.raises(meshlib.TransportFailed if failure == "reset" else meshlib.ConnectFailed) as caught,
    ):
        ask("POST", "http://reviews/", **own_retries(library))
    assert any(isinstance(one, reason) for one in causes(caught.value)), list(causes(caught.value))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_body_that_breaks_off_has_a_cause(library: str, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.reset_body()
    with (
        meshlib.Mesh(service(one.address)) as mesh,
        Caller(library, mesh) as ask,
        pytest.raises(meshlib.TransportFailed) as caught,
    ):
        ask("GET", "http://reviews/")
    assert caught.value.phase == "body"
    # aiohttp's reader knows that the body is not whole, and not why.
    reason = PayloadEncodingError if library.startswith("aiohttp") else ConnectionResetError
    assert any(isinstance(one, reason) for one in causes(caught.value)), list(causes(caught.value))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", [meshlib.AsyncClient, meshlib.httpx2.AsyncClient])
@pytest.mark.parametrize("within", ["head", "body"])
def test_a_cancelled_scope_still_closes_its_connection(
    backend: str, kind: Any, within: str, upstream: UpstreamFactory
) -> None:
    """A scope of anyio's or trio's cancels at each await, also at those that clean up."""
    one = upstream()
    one.order(hold=within)

    async def main() -> None:
        async with kind(mesh=mesh) as client:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get, "http://reviews/")
                    await anyio.to_thread.run_sync(one.wait_for, lambda: one.held)
                    scope.cancel()
            # The client is open still: what is closed was closed by the call.
            await anyio.to_thread.run_sync(one.wait_for, lambda: not one.connections_open)

    with meshlib.Mesh(service(one.address)) as mesh:
        anyio.run(main, backend=backend)
        one.behave()
        assert mesh.status().clusters["reviews"].active == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("theirs", "ours"), [(httpx, meshlib), (httpx2, meshlib.httpx2)])
def test_a_connection_that_is_not_kept_is_closed_in_a_cancelled_scope(
    backend: str, theirs: Any, ours: Any, upstream: UpstreamFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where closing has to wait before it is done, as a goodbye of TLS may, the scope must not end it."""
    core = sys.modules[{"httpx": "httpcore", "httpx2": "httpcore2"}[theirs.__name__]]
    close = core.AsyncHTTPConnection.aclose

    async def slowly(connection: Any) -> None:
        await anyio.lowlevel.checkpoint()
        await close(connection)

    monkeypatch.setattr(core.AsyncHTTPConnection, "aclose", slowly)
    one = upstream()

    async def main() -> None:
        none = theirs.Limits(max_keepalive_connections=0)
        async with ours.AsyncClient(mesh=mesh, limits=none) as client:
            with anyio.CancelScope() as scope:
                async with client.stream("GET", "http://reviews/") as response:
                    async for _ in response.aiter_raw():
                        scope.cancel()
            await anyio.to_thread.run_sync(one.wait_for, lambda: not one.connections_open)

    with meshlib.Mesh(service(one.address)) as mesh:
        anyio.run(main, backend=backend)
