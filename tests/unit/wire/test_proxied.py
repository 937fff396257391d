"""TL-07: connections through an HTTP/1.1 proxy. Each test for every kind of connection."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

import pytest
import trustme

from meshlib.model.address import Address
from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.testing import VirtualClock
from meshlib.wire.dial import Place
from meshlib.wire.errors import ConnectError, ConnectTimeout
from tests.support.connect_proxy import ConnectProxy
from tests.support.scripted import Awaited, Blocking, Peer, Scripted, bounds, get

Driver = Blocking | Awaited
BEYOND = r"10\.0\.0\.1:443"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def proxy():
    with ConnectProxy() as made:
        yield made


def at(server: Any) -> Address:
    return (
        Address("127.0.0.1", server.port) if isinstance(server, Scripted) else Address.parse(server.address)
    )


def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def server_context(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


def serve_ok(peer: Peer) -> None:
    while peer.head():
        peer.ok()


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])
def test_bytes_go_through_it(driver: Driver, ca: trustme.CA, proxy: ConnectProxy, secure: bool) -> None:
    with Scripted(serve_ok, tls=server_context(ca, "mesh.test") if secure else None) as server:
        context = client_context(ca) if secure else None
        place = Place("127.0.0.1", server.port, context=context, server_hostname="mesh.test", proxy=at(proxy))
        own, told = bounds(connect=20.0), []
        connection = driver.connect(place, own, trace=lambda name, info: told.append((name, info)))
        assert not own.sent
        assert driver.read(driver.send(connection, get())) == b"ok"
        assert connection.free()
        connection.close()
        target = f"127.0.0.1:{server.port}"
        assert proxy.heads == [f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()]
    assert told[0][0] == "connection.connect_tcp.started"
    assert told[0][1]["port"] == at(proxy).port


def test_over_a_unix_socket(driver: Driver, tmp_path: Any) -> None:
    with Scripted(serve_ok) as server, ConnectProxy(str(tmp_path / "s")) as proxy:
        place = Place("127.0.0.1", server.port, proxy=Address(str(tmp_path / "s"), 0, True))
        connection = driver.connect(place)
        assert driver.read(driver.send(connection, get())) == b"ok"
        connection.close()
        assert proxy.asked == [f"127.0.0.1:{server.port}"]


def test_an_address_of_version_6_has_brackets(driver: Driver, proxy: ConnectProxy) -> None:
    with Scripted(serve_ok, listener=socket.create_server(("::1", 0), family=socket.AF_INET6)) as server:
        connection = driver.connect(Place("::1", server.port, proxy=at(proxy)))
        assert driver.read(driver.send(connection, get())) == b"ok"
        connection.close()
        assert proxy.asked == [f"[::1]:{server.port}"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nsecret", "CONNECT with 403"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "CONNECT with 407"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n", "CONNECT with 302"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "behind its answer"),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", r"\(the proxy to"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, r"\(the proxy to"),
        (b"HTTP/1.1 200 OK\r\nx-a: " + b"y" * 200_000, r"\(the proxy to"),
        (b"", r"\(the proxy to"),
    ],
    ids=["403", "407", "302", "more", "garbage", "lines", "long", "nothing"],
)
def test_what_it_answers_else_is_no_connection(driver: Driver, answer: bytes, words: str) -> None:
    def serve(peer: Peer) -> None:
        peer.head()
        peer.say(answer)

    with Scripted(serve) as server:
        own = bounds(connect=20.0)
        with pytest.raises(ConnectError, match=words) as caught:
            driver.connect(Place("10.0.0.1", 443, proxy=at(server)), own)
        assert not isinstance(caught.value, ConnectTimeout)
        assert f"127.0.0.1:{server.port} (the proxy to 10.0.0.1:443)" in str(caught.value)
        assert b"secret" not in str(caught.value).encode()
        assert not own.sent


def test_an_interim_answer_comes_before(driver: Driver) -> None:
    def serve(peer: Peer) -> None:
        peer.head()
        peer.say(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.0 204 Yes\r\n\r\n")
        serve_ok(peer)

    with Scripted(serve) as server:
        connection = driver.connect(Place("10.0.0.1", 80, proxy=at(server)))
        assert driver.read(driver.send(connection, get())) == b"ok"
        connection.close()


def test_nobody_is_the_proxy(driver: Driver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(ConnectError, match=rf"127\.0\.0\.1:{port} \(the proxy to {BEYOND}\): "):
        driver.connect(Place("10.0.0.1", 443, proxy=Address("127.0.0.1", port)))


def test_the_connect_timeout_bounds_its_answer(driver: Driver) -> None:
    done = threading.Event()
    with Scripted(lambda _: done.wait(20)) as server:
        own = bounds(connect=0.1, read=None)
        with pytest.raises(ConnectTimeout, match="the proxy to"):
            driver.connect(Place("10.0.0.1", 443, proxy=at(server)), own)
        assert not own.expired
        clock = MonotonicClock()
        own = Bounds(clock, clock.now() + 0.1)
        with pytest.raises(ConnectTimeout):
            driver.connect(Place("10.0.0.1", 443, proxy=at(server)), own)
        assert own.expired
        done.set()


def test_a_virtual_deadline_ends_it(driver: Driver) -> None:
    clock, asked = VirtualClock(), threading.Event()

    def serve(peer: Peer) -> None:
        peer.head()
        asked.set()
        peer.rest()

    def later() -> None:
        asked.wait(20)
        clock.advance(6.0)

    thread = threading.Thread(target=later)
    thread.start()
    with Scripted(serve) as server:
        own = Bounds(clock, clock.now() + 5.0)
        with pytest.raises(ConnectTimeout):
            driver.connect(Place("10.0.0.1", 443, proxy=at(server)), own)
        assert own.expired
    thread.join()
