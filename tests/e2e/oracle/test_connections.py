"""What a cluster says of its connections: every library in the mesh, and a real Envoy, on one control plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from meshlib.testing import build
from tests.e2e.oracle.callers import CALLERS, calling
from tests.support.asking import asked
from tests.support.raw_server import RawServer

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

#: aiohttp parses what comes over its own connections, and opens them.
OF_AIOHTTP = ("aiohttp", "aiohttp-connector")
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
WITHOUT_AIOHTTP = pytest.mark.parametrize(
    "statuses", [host for host in CALLERS if host not in OF_AIOHTTP], indirect=True
)
Statuses = Callable[..., list[int]]


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as running:
        yield running


@pytest.fixture(params=CALLERS)
def statuses(request: Any, tmp_path: Path, server: RawServer) -> Iterator[Statuses]:
    """The statuses of so many calls, one after the other, to a cluster with these fields."""
    with ExitStack() as stack:

        def make(calls: int, **fields: Any) -> list[int]:
            cluster = build.cluster("c", [server.address], **fields)
            call = stack.enter_context(calling(request.param, cluster, tmp_path))
            return [call() for _ in range(calls)]

        yield make


def answer(lines: int = 0, size: int = 0) -> bytes:
    more = "".join(f"x-{number}: {'v' * size}\r\n" for number in range(lines))
    return f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{more}\r\nok".encode()


@WITHOUT_AIOHTTP
@pytest.mark.parametrize(("lines", "status"), [(4, 200), (5, 502)])
def test_lines_of_a_response(statuses: Statuses, server: RawServer, lines: int, status: int) -> None:
    server.answer = answer(lines)
    common = {"max_headers_count": 5}
    assert statuses(1, common_http_protocol_options=common) == [status]


@WITHOUT_AIOHTTP
@pytest.mark.parametrize(("size", "status"), [(800, 200), (1200, 502)])
def test_bytes_of_a_response(statuses: Statuses, server: RawServer, size: int, status: int) -> None:
    server.answer = answer(1, size)
    common = {"max_response_headers_kb": 1}
    assert statuses(1, common_http_protocol_options=common) == [status]


@WITHOUT_AIOHTTP
def test_more_than_by_default(statuses: Statuses, server: RawServer) -> None:
    server.answer = answer(150, 600)
    common = {"max_response_headers_kb": 200, "max_headers_count": 200}
    assert statuses(1, common_http_protocol_options=common) == [200]


@WITHOUT_AIOHTTP
def test_an_endpoints_other_addresses(statuses: Statuses, server: RawServer) -> None:
    """Where nobody listens at the first, or IPv6 goes first and only IPv4 is there."""
    host, _, port = server.address.rpartition(":")
    first = {"socket_address": {"address": "::1", "port_value": int(port)}}
    other = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    endpoint = {"endpoint": {"address": first, "additional_addresses": [other]}}
    groups = {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint]}]}
    eyeballs = {"first_address_family_version": "V6", "first_address_family_count": 2}
    options = {"happy_eyeballs_config": eyeballs}
    assert statuses(2, load_assignment=groups, upstream_connection_options=options) == [200, 200]
    assert len(server.peers) == 1


@pytest.mark.parametrize(("most", "connections"), [(1, 6), (2, 3), (None, 1)])
def test_requests_of_a_connection(
    statuses: Statuses, server: RawServer, most: int | None, connections: int
) -> None:
    common = {} if most is None else {"max_requests_per_connection": most}
    assert statuses(6, common_http_protocol_options=common) == [200] * 6
    assert len(server.peers) == connections


def spelled(head: bytes) -> tuple[bytes, set[bytes]]:
    """Its target, and the names of its lines that all hosts send."""
    first, *lines = head.split(b"\r\n")
    names = {line.partition(b":")[0] for line in lines}
    return first.split(b" ")[1], {name for name in names if name.lower() in (b"host", b"accept-encoding")}


@WITHOUT_AIOHTTP
@pytest.mark.parametrize("whole", [False, True])
def test_how_requests_are_spelled(statuses: Statuses, server: RawServer, whole: bool) -> None:
    """Of Envoy names are small letters otherwise, and here as the library has them."""
    options = {"header_key_format": {"proper_case_words": {}}, "send_fully_qualified_url": whole}
    url = build.any_of(HTTP_OPTIONS, {"explicit_http_config": {"http_protocol_options": options}})
    assert statuses(1, typed_extension_protocol_options={HTTP_OPTIONS: url}) == [200]
    [head] = server.heads
    target, names = spelled(head)
    assert names == {b"Host", b"Accept-Encoding"}
    host = next(line for line in head.split(b"\r\n") if line.startswith(b"Host: ")).removeprefix(b"Host: ")
    assert target == (b"http://" + host + b"/path" if whole else b"/path")


@pytest.mark.parametrize("statuses", [host for host in CALLERS if host != "urllib3"], indirect=True)
@pytest.mark.parametrize("ratio", [None, 2.0])
def test_connections_ahead_of_requests(statuses: Statuses, server: RawServer, ratio: float | None) -> None:
    fields = {} if ratio is None else {"preconnect_policy": {"per_upstream_preconnect_ratio": ratio}}
    assert statuses(4, **fields) == [200] * 4
    wanted = 1 if ratio is None else 2  # urllib3's pools keep one
    assert asked(lambda: len(server.peers) >= wanted, 10)
    assert len(server.peers) == wanted


@WITHOUT_AIOHTTP
def test_where_they_come_from(statuses: Statuses, server: RawServer) -> None:
    source = {"source_address": {"address": "127.0.0.9", "port_value": 0}}
    assert statuses(1, upstream_bind_config=source) == [200]
    assert server.peers == ["127.0.0.9"]
