"""What goes out for a URL is what the library alone sends, byte for byte: each path of a table, over each library."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, UnrewindableBodyError

import meshlib
import meshlib_requests
from meshlib_requests.urllib3 import PoolManager
from tests.support.libraries import LIBRARIES, call
from tests.support.raw_server import RawServer

UpstreamFactory = Any

PATHS = [
    "", "/", "/a", "//", "///x", "//bucket/a%2fb", "/a//b", "/a:80//b", "/@x", "//@x:1/y", "//[::1]/x", "//[x", "//a:b:c/",
    "/./a/../b", "/a/..", "/..", "/..//..//x", "/%2e%2e/x", "/http://x/y", "/*",
    "/%7e%7E", "/a%", "/a%zz%2f", "/a%25b", "/a%00b", "/%C3%BC", "/a+b%2B", "/ü", "/€", "/a b", "/a\tb", "/a\r\nX: y",
    '/"<>^`', "/[x]", "/{x}", "/\\x", "/a|b", "/a;b=c",
    "?x=1", "/a?", "/a?x=1?y=2", "/a?b%2fc", "/a?b c", "/a?ü", "/a?[x]", "/a?x=#", "/a#frag", "/a#b\nc",
]  # fmt: skip

#: Header lines of the caller's.
LINES: list[dict[str, str]] = [
    {},
    {"Host": "other.example"},
    {"A": "1", "Host": "other.example", "B": "2"},
    {"User-Agent": "me", "Accept-Encoding": "br", "Accept": "text/plain"},
]


@pytest.fixture
def mesh(server: RawServer) -> Iterator[meshlib.Mesh]:
    """One that carries what the library alone would send to the server."""
    with meshlib.Mesh({"services": {server.address: {"endpoints": [server.address]}}}) as made:
        yield made


def seen(server: RawServer, send: Callable[[], Any]) -> tuple[Any, ...]:
    """What arrived for a call, and what the caller got: status and body, or the class of what was raised."""
    before = len(server.heads)
    try:
        end = send()
    except Exception as error:  # noqa: BLE001 - compared
        # What fails in the mesh is of a class of its own, below the library's.
        end = next(cls.__name__ for cls in type(error).__mro__ if not cls.__module__.startswith("meshlib"))
    return (*server.heads[before:], *server.bodies[before:], end)


def pool_of(mesh: meshlib.Mesh | None, server: RawServer) -> Any:
    manager = urllib3.PoolManager() if mesh is None else PoolManager(mesh=mesh)
    return manager.connection_from_url(f"http://{server.address}")


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_sends_what_it_sends_alone(library: str, server: RawServer, mesh: meshlib.Mesh) -> None:
    options = {"retries": False} if library == "urllib3" else {}

    def ask(one: meshlib.Mesh | None, path: str, lines: dict[str, str]) -> Any:
        status, body, info = call(
            library, one, "GET", f"http://{server.address}{path}", headers=lines, **options
        )
        assert one is None or (info is not None and info.via == "mesh")
        return status, body

    for path in PATHS:
        plain, ours = (seen(server, lambda one=one, path=path: ask(one, path, {})) for one in (None, mesh))
        assert ours == plain, path
    for lines in LINES:
        plain, ours = (
            seen(server, lambda one=one, lines=lines: ask(one, "/", lines)) for one in (None, mesh)
        )
        assert ours == plain, lines


def test_a_pool_sends_what_it_sends_alone(server: RawServer, mesh: meshlib.Mesh) -> None:
    """A pool takes paths, and whole URLs of its host; of any where it is told so."""
    whole = [f"http://{server.address}{path}" for path in ("", "/a?b#c", "/../x", "//y")]
    for url in [*PATHS, *whole, "*", "a/b", "http://other.example/x", "ftp://other.example/a b"]:
        for options in ({}, {"assert_same_host": False}):
            plain, ours = (
                seen(
                    server,
                    lambda one=one, url=url, options=options: (
                        pool_of(one, server).urlopen("GET", url, retries=False, **options).status
                    ),
                )
                for one in (None, mesh)
            )
            assert ours == plain, (url, options)


def test_what_a_pool_is_asked_for_goes_through_the_mesh(server: RawServer, mesh: meshlib.Mesh) -> None:
    for url in ("//bucket/a%2fb", "*", f"http://{server.address}/x"):
        response = pool_of(mesh, server).urlopen("OPTIONS", url, assert_same_host=False)
        info = meshlib.call_info(response)
        assert info is not None
        assert info.via == "mesh", url


def test_a_path_that_cannot_be_parsed_is_no_endpoints_fault(upstream: UpstreamFactory) -> None:
    one = upstream()
    config = {
        "services": {
            "reviews": {
                "endpoints": [one.address],
                "breaker": {"consecutive_failures": 1},
                "outlier": {"consecutive_5xx": 1, "max_ejection_percent": 100},
                "retry": {"attempts": 3, "on": ["5xx", "connect-failure", "reset"]},
            }
        }
    }
    with meshlib.Mesh(config) as mesh:
        pool = PoolManager(mesh=mesh).connection_from_url("http://reviews")
        for url, kind in (("/a#b\nc", LocationParseError), ("ftp://x/a b", HTTPError), ("//[x", None)):
            if kind is None:
                assert pool.urlopen("GET", url).status == 200
                continue
            with pytest.raises(kind) as caught:
                pool.urlopen("GET", url, assert_same_host=False)
            assert not isinstance(caught.value, meshlib.MeshError)
        assert pool.urlopen("GET", "/").status == 200
        assert mesh.status().clusters["reviews"].endpoints[0].health == "healthy"


def test_routes_see_what_is_sent_and_a_rewrite_is_encoded(server: RawServer) -> None:
    config = {
        "services": {
            "reviews": {
                "endpoints": [server.address],
                "routes": [
                    {"match": {"path": "/a%20b"}, "rewrite": {"prefix": "/c d"}},
                    {"match": {"path": "/whole"}, "rewrite": {"prefix": "/part"}},
                    {"match": {"path": "/named"}, "rewrite": {"host": "other.example"}},
                ],
            }
        }
    }
    with meshlib.Mesh(config) as mesh:
        pool = PoolManager(mesh=mesh).connection_from_url("http://reviews")
        pool.urlopen("GET", "/a b")
        pool.urlopen("GET", "http://reviews/whole")
        pool.urlopen("GET", "http://reviews/named")
    assert [head.split(b"\r\n")[0] for head in server.heads] == [
        b"GET /c%20d HTTP/1.1",
        b"GET /part HTTP/1.1",
        b"GET /named HTTP/1.1",
    ]
    assert b"\r\nHost: other.example" in server.heads[2]


# --- a body that can be read once ---------------------------------------------------------------------------------------


def once() -> Iterator[bytes]:
    yield b"abc"


class Again:
    """Begins anew each time that it is iterated over."""

    def __iter__(self) -> Iterator[bytes]:
        return once()


class Pipe:
    """Is read, and cannot be rewound."""

    def __init__(self) -> None:
        self._left = b"abc"

    def read(self, size: int = -1) -> bytes:
        data, self._left = self._left[: size % 100], self._left[size % 100 :]
        return data


@pytest.mark.parametrize("failure", ["fail", "reset"])
@pytest.mark.parametrize(
    ("body", "again"),
    [(once, False), (Pipe, False), (Again, True), (lambda: [b"abc"], True), (lambda: b"abc", True)],
)
def test_urllib3s_retries_send_no_body_that_was_read(
    upstream: UpstreamFactory, failure: str, body: Callable[[], Any], again: bool
) -> None:
    """urllib3 alone sends an empty one in its place, and calls that a success."""
    one = upstream()
    getattr(one, failure)(times=1)
    retries = urllib3.Retry(2, status_forcelist=[503], allowed_methods=None)
    with meshlib.Mesh({"services": {"reviews": {"endpoints": [one.address]}}}) as mesh:
        manager = PoolManager(mesh=mesh)
        if again:
            assert manager.request("PUT", "http://reviews/", body=body(), retries=retries).status == 200
        elif failure == "fail":
            assert manager.request("PUT", "http://reviews/", body=body(), retries=retries).status == 503
        else:
            with pytest.raises(meshlib.TransportFailed):
                manager.request("PUT", "http://reviews/", body=body(), retries=retries)
    assert [request.body for request in one.requests] == [b"abc"] * (2 if again else 1)


def test_the_mesh_sends_again_what_can_be_iterated_again(upstream: UpstreamFactory) -> None:
    one = upstream()
    config = {"services": {"reviews": {"endpoints": [one.address], "retry": {"attempts": 2, "on": ["5xx"]}}}}
    with meshlib.Mesh(config) as mesh, meshlib_requests.Session(mesh=mesh) as session:
        for body, status, sent in ((Again(), 200, 2), (once(), 503, 1)):
            one.fail(503, times=1)
            before = one.requests_total
            assert session.put("http://reviews/", data=body).status_code == status
            assert [request.body for request in one.requests[before:]] == [b"abc"] * sent


def test_a_pools_own_redirect_sends_no_body_that_was_read(upstream: UpstreamFactory) -> None:
    one = upstream()
    one.order(status=307, headers=[("Location", "/next")], times=1)
    with meshlib.Mesh({"services": {"reviews": {"endpoints": [one.address]}}}) as mesh:
        pool = PoolManager(mesh=mesh).connection_from_url("http://reviews")
        with pytest.raises(UnrewindableBodyError, match="read once"):
            pool.urlopen("PUT", "/", body=once())
    assert one.requests_total == 1


# --- the pool's own limit -----------------------------------------------------------------------------------------------


def test_a_pool_that_blocks_waits_as_long_as_urllib3s(upstream: UpstreamFactory) -> None:
    """Its timeouts are for connecting and reading, not for waiting."""
    one = upstream()
    one.delay(0.1)
    with (
        meshlib.Mesh({"services": {"reviews": {"endpoints": [one.address]}}}) as mesh,
        requests.Session() as session,
    ):
        session.mount("http://", meshlib_requests.MeshAdapter(pool_maxsize=1, pool_block=True, mesh=mesh))

        async def all_at_once() -> list[int]:
            ask = [asyncio.to_thread(session.get, "http://reviews/", timeout=(0.05, 30)) for _ in range(4)]
            return [response.status_code for response in await asyncio.gather(*ask)]

        assert asyncio.run(all_at_once()) == [200] * 4
    assert one.connections_total == 1


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_a_pool_timeout_is_urllib3s_and_nobodys_fault(upstream: UpstreamFactory, seconds: float) -> None:
    one = upstream()
    config = {
        "endpoints": [one.address],
        "breaker": {"consecutive_failures": 1},
        "outlier": {"consecutive_5xx": 1},
    }
    with meshlib.Mesh({"services": {"reviews": config}}) as mesh:
        manager = PoolManager(maxsize=1, block=True, mesh=mesh)
        held = manager.request("GET", "http://reviews/", preload_content=False)
        for _ in range(2):
            with pytest.raises(urllib3.exceptions.EmptyPoolError) as caught:
                manager.request("GET", "http://reviews/", pool_timeout=seconds, retries=5)
            assert isinstance(caught.value, meshlib.Overloaded)
            assert caught.value.info is not None
            assert len(caught.value.info.attempts) == 1
        held.drain_conn()
        assert manager.request("GET", "http://reviews/", pool_timeout=seconds).status == 200
        assert mesh.status().clusters["reviews"].endpoints[0].health == "healthy"


def test_no_connection_in_time_is_requests_own_error_too(upstream: UpstreamFactory) -> None:
    one = upstream()
    one.order(hold="body", times=1)
    limits = {"max_connections": 1}
    with (
        meshlib.Mesh({"services": {"reviews": {"endpoints": [one.address], "limits": limits}}}) as mesh,
        meshlib_requests.Session(mesh=mesh) as session,
    ):
        held = session.get("http://reviews/", stream=True)
        one.wait_for(lambda: one.held)
        with pytest.raises(requests.ConnectionError) as caught:
            session.get("http://reviews/", timeout=(0.05, 5))
        one.release()
        assert held.json()["path"] == "/"
    assert isinstance(caught.value, meshlib.Overloaded)
    assert caught.value.request.url == "http://reviews/"


# --- limits of http.client ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "count"), [(None, 98), (None, 99), (None, 101), (1000, 101), (1000, 999)])
def test_as_many_header_lines_as_http_client_reads(
    monkeypatch: pytest.MonkeyPatch, count: int, most: int | None
) -> None:
    if most is not None:  # what applications do that need more
        monkeypatch.setattr("http.client._MAXHEADERS", most)
    lines = "".join(f"X-{number}: {number}\r\n" for number in range(count - 1))
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\nok".encode()
    with RawServer(answer=answer) as server:
        config = {"services": {server.address: {"endpoints": [server.address]}}}
        with meshlib.Mesh(config) as mesh:
            plain, ours = (
                seen(server, lambda one=one: call("requests", one, "GET", f"http://{server.address}/")[:2])
                for one in (None, mesh)
            )
    assert ours == plain
    assert (plain[-1] == (200, b"ok")) is (count < 100 or most is not None)
