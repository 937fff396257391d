"""How connections are made: addresses, sockets, TLS, protocols. Each test for every kind of connection."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded

from meshlib.hosts.endpoints import place_to
from meshlib.hosts.tls import NONE
from meshlib.model.address import Address
from meshlib.model.cluster import Connecting, Eyeballs, Keepalive
from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.runtime.signal import under_trio
from meshlib.runtime.tls import context_for
from meshlib.wire import dial
from meshlib.wire.dial import Place, interleave
from meshlib.wire.dial_async import open_asyncio, resolve
from meshlib.wire.dial_trio import open_trio
from meshlib.wire.errors import ConnectError, ConnectTimeout, ReadTimeout, UnsupportedProtocol, WireError
from tests.support.asking import asked
from tests.support.mesh_tls import demanded
from tests.support.scripted import Awaited, Blocking, Peer, Scripted, bounds, get, post

if TYPE_CHECKING:
    from pathlib import Path

Driver = Blocking | Awaited
MUCH = b"0123456789abcdef" * 262_144


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def server_context(ca: trustme.CA, *names: str, alpn: list[str] | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def serve_ok(peer: Peer) -> None:
    while peer.head():
        peer.ok()


class TestSources:
    @pytest.mark.parametrize(
        ("sources", "own", "source"),
        [
            (("127.0.0.3",), None, "127.0.0.3"),
            (("::1", "127.0.0.3", "127.0.0.4"), None, "127.0.0.3"),
            (("127.0.0.3",), "127.0.0.2", "127.0.0.2"),
        ],
    )
    def test_the_first_of_the_family_unless_the_application_says(
        self, driver: Driver, sources: tuple[str, ...], own: str | None, source: str
    ) -> None:
        with Scripted(serve_ok) as server:
            connection = driver.connect(Place("127.0.0.1", server.port, local_address=own, sources=sources))
            assert connection.stream.get_extra_info("client_addr")[0] == source
            connection.close()

    def test_none_of_the_family(self, driver: Driver) -> None:
        with Scripted(serve_ok) as server, pytest.raises(ConnectError):
            driver.connect(Place("127.0.0.1", server.port, sources=("::1",)))

    @pytest.mark.skipif(sys.platform != "linux", reason="numbers of the options are Linux'")
    @pytest.mark.parametrize(
        ("own", "idle", "tos"), [(None, 33, 0), (((6, 4, 44), (0, 1, 16)), 44, 16), ((), 7200, 0)]
    )
    def test_options_of_one_source_take_the_place_of_all(
        self, driver: Driver, own: tuple[tuple[int, int, int], ...] | None, idle: int, tos: int
    ) -> None:
        """TCP_KEEPIDLE and IP_TOS; what is for IPv6 alone is passed over."""
        given = ((6, 4, 33), (41, 67, 8))
        connecting = Connecting(("::1", "127.0.0.3"), socket_options=given, source_options=(None, own))
        with Scripted(serve_ok) as server:
            address = Address("127.0.0.1", server.port)
            place = place_to(address, connecting, None, None, NONE, True, False)
            connection = driver.connect(place)
            sock = connection.stream.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle
            assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == tos
            connection.close()

    @pytest.mark.skipif(sys.platform != "linux", reason="names of the options are Linux'")
    def test_keepalive(self, driver: Driver) -> None:
        with Scripted(serve_ok) as server:
            keepalive = Keepalive(3, 60, 7)
            connection = driver.connect(Place("127.0.0.1", server.port, keepalive=keepalive))
            sock = connection.stream.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            found = (
                sock.getsockopt(socket.IPPROTO_TCP, name)
                for name in (socket.TCP_KEEPCNT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
            )
            assert tuple(found) == (3, 60, 7)
            connection.close()


class TestOtherAddresses:
    """Of one peer: Envoy's order (`HappyEyeballsConfig`), and the first that answers."""

    FOUR = tuple(Address(f"127.0.0.{number}", 80) for number in range(1, 5))
    SIX = tuple(Address(f"ff02::{number}", 80) for number in range(1, 5))

    @pytest.mark.parametrize(
        ("eyeballs", "given", "order"),
        [
            (Eyeballs(), "6a 6b 4a 4b", "6a 4a 6b 4b"),
            (Eyeballs("v4", 2), "4a 4b 4c 4d", "4a 4b 4c 4d"),
            (Eyeballs("v4", 2), "6a 6b 6c 6d", "6a 6b 6c 6d"),
            (Eyeballs("v4", 2), "6a 4a 6b 4b", "4a 4b 6a 6b"),
            (Eyeballs("v4", 2), "6a 6b 6c 4a", "4a 6a 6b 6c"),
            (Eyeballs("v4", 2), "6a 6b 6c 4a 4b 4c 4d 6d", "4a 4b 6a 4c 4d 6b 6c 6d"),
            (Eyeballs("", 2), "6a 4a 6b 4b", "6a 6b 4a 4b"),
            (Eyeballs("v4"), "6a 4a 6b 4b", "4a 6a 4b 6b"),
        ],
    )
    def test_in_envoys_order(self, eyeballs: Eyeballs, given: str, order: str) -> None:
        """The rows are those of Envoy's own test of it."""

        def address(name: str) -> Address:
            return (self.FOUR if name[0] == "4" else self.SIX)["abcd".index(name[1])]

        first, *others = map(address, given.split())
        place = Place(first.host, 80, others=lambda: others, eyeballs=eyeballs)
        assert [where[0] for _, where in dial.numeric(place)] == [
            address(name).host for name in order.split()
        ]

    def test_the_next_where_nobody_is_at_the_first(self, driver: Driver) -> None:
        with Scripted(serve_ok) as server, socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            others = [Address("127.0.0.1", server.port)]
            connection = driver.connect(Place(*nobody.getsockname(), others=lambda: others))
            assert connection.stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)
            connection.close()
            others.clear()
            with pytest.raises(ConnectError):
                driver.connect(Place(*nobody.getsockname(), others=lambda: others))


class TestLateLoops:
    """What a loop did not look at while it stood still is not the peer's fault."""

    @staticmethod
    def stand_still(seconds: float) -> None:
        time.sleep(seconds)

    def test_a_connection_that_was_made_meanwhile_is_made(self) -> None:
        async def main(place: Place) -> None:
            # So long as the loop was late it has the time to look: 0.95 s.
            asyncio.get_running_loop().call_soon(self.stand_still, 1.0)
            stream = await open_asyncio(place, bounds(connect=0.05), 0.05)
            stream.close()

        with Scripted(serve_ok) as server:
            asyncio.run(main(Place("127.0.0.1", server.port)))

    def test_a_peer_that_is_silent_gets_no_more_than_the_loop_stood_still(self) -> None:
        async def main(place: Place) -> float:
            loop = asyncio.get_running_loop()
            loop.call_soon(self.stand_still, 0.5)
            began = loop.time()
            with pytest.raises(ConnectTimeout):
                await open_asyncio(place, bounds(connect=0.3), 0.3)
            return loop.time() - began

        listener, waiting = deaf()
        assert asyncio.run(main(Place("127.0.0.1", listener.getsockname()[1]))) > 0.65
        for one in (listener, *waiting):
            one.close()

    def test_an_address_is_nobodys_to_resolve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def asked(*_: object, **__: object) -> Any:
            raise AssertionError("a resolver was asked")

        monkeypatch.setattr(socket, "getaddrinfo", asked)
        for host in ("127.0.0.1", "::1"):
            [(_, address)] = asyncio.run(resolve(Place(host, 80)))
            assert address[:2] == (host, 80)


class TestSockets:
    def test_nodelay_and_what_else_is_asked_of_them(self, driver: Driver) -> None:
        with Scripted(serve_ok) as server:
            options = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),)
            place = Place("127.0.0.1", server.port, local_address="127.0.0.2", socket_options=options)
            connection = driver.connect(place)
            sock = connection.stream.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert connection.stream.get_extra_info("client_addr")[0] == "127.0.0.2"
            assert connection.stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)
            connection.close()

    def test_a_unix_socket(self, driver: Driver, tmp_path: Path) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        told: list[tuple[str, Any]] = []
        with Scripted(serve_ok, listener=listener):
            place = Place("unused", 80, uds=str(tmp_path / "s"))
            connection = driver.connect(place, trace=lambda name, info: told.append((name, info)))
            assert driver.read(driver.send(connection, get())) == b"ok"
            connection.close()
        assert told[0][0] == "connection.connect_unix_socket.started"
        assert told[0][1]["path"] == str(tmp_path / "s")

    def test_nobody_listens(self, driver: Driver, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        for place in (
            Place("127.0.0.1", port),
            Place("localhost", port),
            Place("", 0, uds=str(tmp_path / "x")),
        ):
            own = bounds(connect=20.0)
            with pytest.raises(ConnectError) as caught:
                driver.connect(place, own)
            assert str(place) in str(caught.value)
            assert not own.sent

    @pytest.mark.parametrize("name", ["nowhere.invalid", "x" * 300 + ".invalid", "a..b"])
    def test_a_name_that_is_none(self, driver: Driver, name: str) -> None:
        with pytest.raises(ConnectError):
            driver.connect(Place(name, 80))

    def test_a_deadline_that_is_over(self, driver: Driver) -> None:
        clock = MonotonicClock()
        own = Bounds(clock, clock.now() - 1.0)
        with pytest.raises(ConnectTimeout):
            driver.connect(Place("127.0.0.1", 1), own)
        assert own.expired


def deaf() -> tuple[socket.socket, list[socket.socket]]:
    """A listener whose queue is full, so that the kernel answers nobody who would connect."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(listener.getsockname())
        waiting.append(one)
    return listener, waiting


class TestHappyEyeballs:
    def test_families_take_turns(self) -> None:
        four, six = socket.AF_INET, socket.AF_INET6
        given = [(six, "a"), (six, "b"), (six, "a"), (four, "c"), (six, "d"), (four, "e")]
        assert interleave(given) == [(six, "a"), (four, "c"), (six, "b"), (four, "e"), (six, "d")]
        assert interleave([]) == []

    def resolve_to(self, monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
        """The name has these addresses, which differ by their ports alone: all must be of this machine."""
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

        async def resolved(_: Place) -> Any:
            return [(family, address) for family, _, _, _, address in found]

        monkeypatch.setattr("meshlib.wire.dial_async.resolve", resolved)
        monkeypatch.setattr("meshlib.wire.dial_trio.resolve", resolved)

    def test_the_next_address_is_tried_when_one_fails(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dial, "ATTEMPT_DELAY", 60.0)
        monkeypatch.setattr("meshlib.wire.dial_async.ATTEMPT_DELAY", 60.0)
        monkeypatch.setattr("meshlib.wire.dial_trio.ATTEMPT_DELAY", 60.0)
        with socket.create_server(("127.0.0.1", 0)) as gone:
            dead = gone.getsockname()[1]
        with Scripted(serve_ok) as server:
            self.resolve_to(monkeypatch, dead, server.port)
            connection = driver.connect(Place("some.name", 80))
            assert driver.read(driver.send(connection, get())) == b"ok"
            connection.close()

    def test_the_next_address_is_tried_when_one_does_not_answer(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listener, waiting = deaf()
        with Scripted(serve_ok) as server:
            self.resolve_to(monkeypatch, listener.getsockname()[1], server.port)
            connection = driver.connect(Place("some.name", 80))
            assert driver.read(driver.send(connection, get())) == b"ok"
            connection.close()
        for one in (listener, *waiting):
            one.close()

    def test_all_that_failed_is_told(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone, socket.create_server(("127.0.0.1", 0)) as too:
            ports = gone.getsockname()[1], too.getsockname()[1]
        self.resolve_to(monkeypatch, *ports)
        with pytest.raises(ConnectError, match=r"some\.name:80: .*(refused|Connect call failed)"):
            driver.connect(Place("some.name", 80))

    def test_nobody_answers(self, driver: Driver) -> None:
        listener, waiting = deaf()
        with pytest.raises(ConnectTimeout, match="not connected in time"):
            driver.connect(Place("127.0.0.1", listener.getsockname()[1]), bounds(connect=0.1))
        for one in (listener, *waiting):
            one.close()


class TestTls:
    def test_the_name_is_asked_for_and_checked(self, driver: Driver, ca: trustme.CA) -> None:
        asked: list[str] = []
        context = server_context(ca, "mesh.test")
        context.sni_callback = lambda _, name, __: asked.append(name)
        told: list[str] = []
        with Scripted(serve_ok, tls=context) as server:
            place = Place("127.0.0.1", server.port, context=client_context(ca), server_hostname="mesh.test")
            connection = driver.connect(place, trace=lambda name, _: told.append(name))
            assert driver.read(driver.send(connection, get())) == b"ok"
            assert connection.free()
            assert connection.stream.get_extra_info("ssl_object").version() == "TLSv1.3"
            connection.close()
            other = Place("127.0.0.1", server.port, context=client_context(ca), server_hostname="other.test")
            own = bounds(connect=20.0)
            with pytest.raises(ConnectError, match=r"other\.test"):
                driver.connect(other, own)
            assert not own.sent
        assert asked == ["mesh.test", "other.test"]
        assert told[2:4] == ["connection.start_tls.started", "connection.start_tls.complete"]

    def test_without_a_name_the_hosts_own(self, driver: Driver, ca: trustme.CA) -> None:
        with Scripted(serve_ok, tls=server_context(ca, "127.0.0.1")) as server:
            connection = driver.connect(Place("127.0.0.1", server.port, context=client_context(ca)))
            assert driver.read(driver.send(connection, get())) == b"ok"
            connection.close()

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_sessions_are_resumed(self, driver: Driver, ca: trustme.CA, version: ssl.TLSVersion) -> None:
        context = server_context(ca, "mesh.test")
        context.maximum_version = version
        with Scripted(serve_ok, tls=context) as server:
            place = Place("127.0.0.1", server.port, context=client_context(ca), server_hostname="mesh.test")
            reused = []
            for _ in range(3):
                connection = driver.connect(place)
                reused.append(connection.stream.get_extra_info("ssl_object").session_reused)
                driver.read(driver.send(connection, get()))
                connection.close()
            assert reused == [False, True, True]
            elsewhere = Place(
                "127.0.0.1", server.port, context=client_context(ca), server_hostname="mesh.test"
            )
            connection = driver.connect(elsewhere)
            assert not connection.stream.get_extra_info("ssl_object").session_reused
            connection.close()

    def test_two_places_that_share_a_context_offer_what_each_speaks(
        self, driver: Driver, ca: trustme.CA
    ) -> None:
        shared = client_context(ca)
        context = server_context(ca, "mesh.test", alpn=["h2", "http/1.1"])
        with Scripted(serve_ok, tls=context) as server:
            options: Any = {"context": shared, "server_hostname": "mesh.test"}
            both = Place("127.0.0.1", server.port, http2=True, **options)
            one = Place("127.0.0.1", server.port, **options)
            chosen = []
            for place in (one, both, one):
                name = place.server_hostname
                stream = (
                    dial._open(place, bounds(), None)
                    if isinstance(driver, Blocking)
                    else driver.call(open_async, place)
                )
                secured = driver.call(stream.start_tls, place.handshakes, name, bounds(connect=20.0))
                chosen.append(secured.protocol)
                secured.close()
            assert chosen == [b"http/1.1", b"h2", b"http/1.1"]

    def test_what_a_control_plane_demands(self, driver: Driver, ca: trustme.CA) -> None:
        # TL-04: with a CA of the mesh the names that it demands count, and no other.
        pem = ca.cert_pem.bytes()
        with Scripted(serve_ok, tls=server_context(ca, "spiffe.test")) as server:
            good = context_for(demanded(pem, "spiffe.test"))
            place = Place("127.0.0.1", server.port, context=good, server_hostname="whatever")
            for _ in range(2):
                connection = driver.connect(place)
                assert driver.read(driver.send(connection, get())) == b"ok"
                connection.close()
            bad = context_for(demanded(pem, "another.test"))
            with pytest.raises(ConnectError, match=r'none of the names exact "another\.test"'):
                driver.connect(Place("127.0.0.1", server.port, context=bad, server_hostname="whatever"))

    def test_the_connect_timeout_bounds_the_handshake(self, driver: Driver, ca: trustme.CA) -> None:
        done = threading.Event()
        with Scripted(lambda _: done.wait(20)) as server:
            place = Place("127.0.0.1", server.port, context=client_context(ca))
            with pytest.raises(ConnectTimeout, match="TLS handshake"):
                driver.connect(place, bounds(connect=1.0))  # the connection stands before that is over
            done.set()

    def test_a_peer_that_speaks_no_tls(self, driver: Driver, ca: trustme.CA) -> None:
        refuse = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        with Scripted(lambda peer: peer.say(refuse)) as server, pytest.raises(ConnectError):
            driver.connect(Place("127.0.0.1", server.port, context=client_context(ca)))

    def test_much_both_ways(self, driver: Driver, ca: trustme.CA) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            assert peer.take(len(MUCH)) == MUCH
            peer.ok(MUCH)
            peer.rest()

        with Scripted(serve, tls=server_context(ca, "127.0.0.1")) as server:
            connection = driver.connect(Place("127.0.0.1", server.port, context=client_context(ca)))
            response = driver.send(connection, post(MUCH))
            assert driver.read(response) == MUCH
            assert connection.idle
            connection.close()

    def test_an_early_answer_over_tls(self, driver: Driver, ca: trustme.CA) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\n\r\nenough!")
            done.wait(20)

        done = threading.Event()
        with Scripted(serve, tls=server_context(ca, "127.0.0.1")) as server:
            connection = driver.connect(Place("127.0.0.1", server.port, context=client_context(ca)))
            response = driver.send(connection, post(MUCH * 4), bounds(read=20.0))
            assert (response.status, driver.read(response)) == (413, b"enough!")
            assert connection.closed
            done.set()

    def test_a_read_times_out(self, driver: Driver, ca: trustme.CA) -> None:
        with Scripted(Peer.rest, tls=server_context(ca, "127.0.0.1")) as server:
            connection = driver.connect(Place("127.0.0.1", server.port, context=client_context(ca)))
            with pytest.raises(ReadTimeout):
                driver.send(connection, get(), bounds(read=0.05))
            assert connection.closed

    def test_a_kept_connection_that_the_peer_has_closed_is_not_free(
        self, driver: Driver, ca: trustme.CA
    ) -> None:
        closed = threading.Event()

        def serve(peer: Peer) -> None:
            peer.head()
            peer.ok()
            assert go.wait(20)
            peer.sock.close()
            closed.set()

        go = threading.Event()
        with Scripted(serve, tls=server_context(ca, "127.0.0.1")) as server:
            connection = driver.connect(Place("127.0.0.1", server.port, context=client_context(ca)))
            driver.read(driver.send(connection, get()))
            assert connection.free()
            go.set()
            assert closed.wait(20)
            assert asked(lambda: not connection.free())  # the kernel tells nobody when the end has come
            connection.close()
            with pytest.raises((RuntimeError, WireError)):
                driver.send(connection, get())

    def test_a_child_that_closes_its_parents_says_nothing_to_the_peer(
        self, driver: Driver, ca: trustme.CA
    ) -> None:
        with Scripted(serve_ok, tls=server_context(ca, "127.0.0.1")) as server:
            connection = driver.connect(Place("127.0.0.1", server.port, context=client_context(ca)))
            assert driver.read(driver.send(connection, get())) == b"ok"
            child = os.fork()
            if child == 0:
                try:
                    assert not connection.free()
                    connection.close()
                except BaseException:  # noqa: BLE001 - the child must not run on as a second pytest
                    os._exit(1)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert driver.read(driver.send(connection, get())) == b"ok"
            end(driver, connection)

    def test_a_tunnel_becomes_tls(self, driver: Driver, ca: trustme.CA) -> None:
        context = server_context(ca, "far.test")

        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 200 OK\r\n\r\n")
            secured = context.wrap_socket(peer.sock, server_side=True)
            inner = Peer(secured)
            inner.say(inner.take(5))
            inner.rest()
            secured.close()

        with Scripted(serve) as server:
            connection = driver.connect(Place("127.0.0.1", server.port))
            request = get()
            request.method, request.target = b"CONNECT", b"far.test:443"
            stream = driver.send(connection, request).network_stream
            secured = driver.call(stream.start_tls, client_context(ca), "far.test", 20.0)
            driver.call(secured.write, b"hello", 20.0)
            assert driver.call(secured.read, 100, 20.0) == b"hello"
            if isinstance(driver, Blocking):
                secured.close()
            else:
                driver.call(secured.aclose)


async def open_async(place: Place) -> Any:
    opening = open_trio if under_trio() else open_asyncio
    return await opening(place, bounds(), None)


def serve_http2(peer: Peer) -> None:
    """Answers each request with its body, by h2."""
    server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    peer.say(server.data_to_send())
    bodies: dict[int, bytearray] = {}
    while data := peer.sock.recv(65_536):
        for event in server.receive_data(data):
            if isinstance(event, RequestReceived):
                bodies[event.stream_id] = bytearray()
            elif isinstance(event, DataReceived):
                bodies[event.stream_id] += event.data
                server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                server.send_headers(event.stream_id, [(b":status", b"200")])
                server.send_data(event.stream_id, bytes(bodies[event.stream_id]) or b"ok", end_stream=True)
        peer.say(server.data_to_send())


class TestHttp2:
    def test_by_prior_knowledge(self, driver: Driver) -> None:
        with Scripted(serve_http2) as server:
            connection = driver.connect(Place("127.0.0.1", server.port, http1=False, http2=True))
            assert connection.version == b"HTTP/2"
            for _ in range(2):
                assert driver.read(driver.send(connection, get())) == b"ok"
                assert (
                    driver.call(asked_free, connection) if isinstance(driver, Awaited) else connection.free()
                )
            assert driver.read(driver.send(connection, post(b"x" * 10_000))) == b"x" * 10_000
            end(driver, connection)

    @pytest.mark.parametrize("chosen", ["h2", "http/1.1"])
    def test_alpn_chooses(self, driver: Driver, ca: trustme.CA, chosen: str) -> None:
        context = server_context(ca, "127.0.0.1", alpn=[chosen])
        with Scripted(serve_http2 if chosen == "h2" else serve_ok, tls=context) as server:
            place = Place("127.0.0.1", server.port, context=client_context(ca), http2=True)
            connection = driver.connect(place)
            assert connection.version == (b"HTTP/2" if chosen == "h2" else b"HTTP/1.1")
            assert driver.read(driver.send(connection, get())) == b"ok"
            end(driver, connection)

    def test_in_plain_text_with_both_it_is_http1(self, driver: Driver) -> None:
        with Scripted(serve_ok) as server:
            connection = driver.connect(Place("127.0.0.1", server.port, http2=True))
            assert driver.read(driver.send(connection, get())) == b"ok"
            connection.close()

    def test_without_h2(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.startswith("meshlib.wire.multiplexed")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delitem(sys.modules, "meshlib.wire.http2_library", raising=False)
        monkeypatch.delitem(sys.modules, "meshlib.wire.http2", raising=False)
        monkeypatch.setitem(sys.modules, "h2", None)
        for name in [name for name in sys.modules if name.startswith("h2.")]:
            monkeypatch.setitem(sys.modules, name, None)
        with Scripted(lambda peer: peer.rest()) as server:
            place = Place("127.0.0.1", server.port, http1=False, http2=True)
            with pytest.raises(UnsupportedProtocol, match=r"meshlib-client\[http2\]"):
                driver.connect(place)


async def asked_free(connection: Any) -> bool:
    return bool(connection.free())


def end(driver: Driver, connection: Any) -> None:
    async def close() -> None:
        connection.close()

    if isinstance(driver, Awaited):
        driver.call(close)
    else:
        connection.close()
