"""What a person reads of calls that failed: the same words whichever library made them, each said once."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

import meshlib
import meshlib_aiohttp
import meshlib_requests
from meshlib.testing import Upstream

LIBRARIES = ("httpx", "httpx2", "requests", "urllib3", "aiohttp")


def caller(library, mesh):
    """``get(url)`` of that library."""

    def aiohttp_get(url):
        async def run():
            async with (
                meshlib_aiohttp.ClientSession(mesh=mesh) as session,
                session.get(url, allow_redirects=False) as answer,
            ):
                await answer.read()
                return answer

        return asyncio.run(run())

    if library == "aiohttp":
        return aiohttp_get
    if library == "requests":
        session = meshlib_requests.Session(mesh=mesh)
        return lambda url: session.get(url, timeout=5, allow_redirects=False)
    if library == "urllib3":
        manager = meshlib_requests.PoolManager(mesh=mesh)
        return lambda url: manager.request("GET", url, timeout=5, retries=False)
    client = (meshlib if library == "httpx" else meshlib.httpx2).Client(mesh=mesh)
    return client.get


@pytest.fixture
def dead():
    """The address of a port that nothing listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def upstream():
    with Upstream("a") as server:
        yield server


def trace(thing):
    return [re.sub(r"[\d.]+ ms", "N ms", line) for line in meshlib.call_info(thing).trace()]


def failure(library, service):
    """The exception that a call to ``service`` raises."""
    with meshlib.Mesh({"services": {"reviews": service}}) as mesh, pytest.raises(meshlib.MeshError) as caught:
        caller(library, mesh)("http://reviews/r")
    return caught.value


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_connection_that_is_refused(library, dead):
    service = {"endpoints": [dead], "retry": {"attempts": 2, "on": ["connect-failure"]}}
    error = failure(library, service)
    refused = f"connection refused (errno 111) at {dead} after N ms; no byte was sent"
    assert trace(error)[-3:] == [
        f"attempt 1: {refused}",
        f"attempt 2: {refused}",
        "no retry: all 2 attempts are used",
    ]
    if library in {"httpx", "httpx2", "aiohttp"}:
        assert re.sub(r"[\d.]+ ms", "N ms", str(error)) == f"reviews: {refused}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_connection_that_breaks(library, upstream):
    upstream.reset()
    error = failure(library, {"endpoints": [upstream.address]})
    assert trace(error)[-1] == (
        f"attempt 1: connection reset by the peer (errno 104) at {upstream.address} after N ms; the request may have been sent"
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_answer_that_does_not_come(library, upstream):
    upstream.hang()
    # The request gets there within that time on a busy machine, too.
    error = failure(library, {"endpoints": [upstream.address], "timeout": 1.5})
    upstream.release()
    assert trace(error)[-2:] == [
        f"attempt 1: no answer in time at {upstream.address} after N ms; the request may have been sent",
        f"the route's timeout of 1.5 s is over ({upstream.address})",
    ]
    assert str(error) == f"the route's timeout of 1.5 s is over ({upstream.address})"


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_body_that_breaks_off(library, upstream):
    upstream.reset_body()
    error = failure(library, {"endpoints": [upstream.address]})
    first, last = trace(error)[-2:]
    assert first == f"attempt 1: status 200 from {upstream.address} after N ms"
    assert last.startswith("the response broke off in its body: connection ")
    assert last.endswith(f" at {upstream.address}")


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_answer_of_the_configuration(library, upstream):
    routes = [{"match": {"prefix": "/r"}, "redirect": {"path": "/to"}}]
    service = {"endpoints": [upstream.address], "routes": routes}
    with meshlib.Mesh({"services": {"reviews": service}}) as mesh:
        response = caller(library, mesh)("http://reviews/r") if library != "urllib3" else None
        if response is not None:
            assert trace(response)[-1] == "the configuration answers 301"


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "service", ["refused", {"endpoints": []}, "reset", "body"], ids=["refused", "empty", "reset", "body"]
)
def test_an_error_is_printed_once(library, service, upstream, dead):
    """Neither ``ConnectFailed(ConnectFailed(…))`` nor what the host library is made of."""
    if service == "reset":
        upstream.reset()
    elif service == "body":
        upstream.reset_body()
    if isinstance(service, str):
        service = {"endpoints": [dead if service == "refused" else upstream.address]}
    error = failure(library, service)
    name = type(error).__name__
    assert repr(error) == f"{name}({str(error)!r})"
    assert f"{name}({name}" not in repr(error)
    assert "ConnectionKey" not in repr(error) + str(error)


def test_the_library_beneath_finds_its_own_errors_where_they_were(dead):
    """``error.args[0].reason`` is what programs look at."""
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    error = failure("requests", {"endpoints": [dead]})
    assert isinstance(error.args[0], MaxRetryError)
    assert isinstance(error.args[0].reason, NewConnectionError)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_host_that_is_refused_is_named_once(library):
    config = {"services": {"reviews": {"endpoints": ["127.0.0.1:9"]}}, "unknown_hosts": "refuse"}
    with meshlib.Mesh(config) as mesh, pytest.raises(meshlib.UnknownService) as caught:
        caller(library, mesh)("http://nowhere.example/")
    assert "no source knows nowhere.example, and unknown hosts are refused" in str(caught.value)
    assert "nowhere.example: no source" not in str(caught.value)
