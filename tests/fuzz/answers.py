"""What peers answer and ask: name servers, control planes that are polled, health ports, processes of the same machine."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.flags
import dns.message
import dns.nameserver
import dns.query
import dns.resolver
import dns.rrset

from meshlib.cli.doctor.probes import _skew
from meshlib.config import DnsConfig
from meshlib.core.endpoint import LiveEndpoint
from meshlib.core.sessions import Held
from meshlib.hosts.health.flows import _grpc_answer, _serving_status
from meshlib.model.address import Address
from meshlib.model.call import Head, Outcome, OutcomeKind
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Endpoint, Locality
from meshlib.model.headers import Headers
from meshlib.model.session import Session, SessionKind
from meshlib.observe.admin import _Door
from meshlib.observe.peer import NotReadable, _read
from meshlib.runtime.sessions import Sessions
from meshlib.sidecar.evidence import Probe
from meshlib.sidecar.probe import _exchange
from meshlib.sources.dns_query import Question, Resolver, Unanswered
from meshlib.sources.polling import PollError
from meshlib.sources.rest import RestWire
from meshlib.xds import schema
from meshlib.xds.bootstrap import parse_bootstrap
from tests.fuzz.target import BETWEEN, Target, file_of, pieces, received

__all__ = ["TARGETS"]


# --- name servers --------------------------------------------------------------------------------------------------------------------


class _Server(dns.nameserver.Nameserver):
    """Answers each question with the next of these bytes."""

    def __init__(self, answers: list[bytes]) -> None:
        super().__init__()
        self._answers = answers

    def __str__(self) -> str:
        return "Do53:10.0.0.53@53"

    def kind(self) -> str:
        return "Do53"

    def is_always_max_size(self) -> bool:
        return True

    address, port = "10.0.0.53", 53

    def answer_nameserver(self) -> str:
        return "10.0.0.53"

    def answer_port(self) -> int:
        return 53

    def query(self, request: Any, *_: Any, **__: Any) -> Any:
        if not self._answers:
            raise ConnectionRefusedError
        raw = request.id.to_bytes(2) + self._answers.pop(0)
        found = dns.message.from_wire(raw, one_rr_per_rrset=False, ignore_trailing=False)
        if not request.is_response(found):
            raise dns.query.BadResponse
        return found


class _Clock:
    """dnspython's, on which a pause between two tries takes no time."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


dns.resolver.time = _Clock()  # type: ignore[attr-defined]


class _Resolver(Resolver):
    answers: list[bytes]

    def _dnspython(self, servers: Any) -> Any:
        del servers
        made = dns.resolver.Resolver(configure=False)
        made.nameservers = [_Server(self.answers)]
        return made


def _names(data: bytes) -> None:
    """The first byte says what is asked: there is an answer of addresses, or who said what."""
    kind, *answers = pieces(data, 2)
    resolver = _Resolver(DnsConfig(), "/dev/null")
    resolver.answers = answers[:6]
    asked = Question(
        "srv" if kind[:1] > b"m" else "addresses", "_a._tcp.example" if kind[:1] > b"m" else "a.example"
    )
    try:
        found = resolver.ask(asked)
    except Unanswered as problem:
        assert str(problem)
        return
    assert found.ttl is None or found.ttl >= 0
    for each in found.found:
        ipaddress.ip_address(each.address)
        assert each.weight > 0
    assert found.found or found.nothing


def _dns(text: str, *records: str) -> bytes:
    """An answer to the question of ``text``, without its id."""
    name, kind = text.split()
    made = dns.message.make_response(dns.message.make_query(name, kind))
    made.flags |= dns.flags.RA
    for record in records:
        owner, of, rest = record.split(" ", 2)
        made.answer.append(dns.rrset.from_text(f"{owner}.", 60, "IN", of, rest))
    return made.to_wire()[2:]


# --- a control plane that is polled ----------------------------------------------------------------------------------------------------


class _Rest(RestWire):
    """Its server has said all that it will."""

    said = b""
    theirs: socket.socket | None = None

    def _connected(self) -> socket.socket:
        if self.theirs is not None:
            self.theirs.close()
        ours, self.theirs = socket.socketpair()
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.theirs.sendall(self.said)
        self.theirs.shutdown(socket.SHUT_WR)
        return ours


@cache
def _bootstrapped() -> Any:
    server = {"server_uri": "x:1", "channel_creds": [{"type": "insecure"}]}
    text = json.dumps({"xds_servers": [server], "node": {"id": "n"}})
    return parse_bootstrap(text, "boot.json").servers[0]


def _polled(data: bytes) -> None:
    """An answer, or words that name what was asked."""
    wire = _Rest(_bootstrapped())
    wire.said = data
    try:
        body = wire.ask(schema.CLUSTER, b"{}")
        if body is not None:
            with suppress(ValueError):
                assert isinstance(wire.read(schema.CLUSTER, body).message, bytes)
    except PollError as problem:
        assert str(problem).startswith("POST /v3/discovery:clusters: ")
        assert len(str(problem)) < 2048
    finally:
        wire.close()
        if wire.theirs is not None:
            wire.theirs.close()


# --- ports and processes of this machine -------------------------------------------------------------------------------------------------


def _health(data: bytes) -> None:
    with received(data) as connection:
        found = _exchange(connection, Probe.at(15021, "/ready"), time.monotonic() + 1.0)
    assert found.outcome in ("answered", "silent")
    assert len(found.body) <= 65536
    with received(data) as connection:
        skew = _skew(connection, "a")
    assert skew is None or abs(skew) < 1e12


def _asked(data: bytes) -> None:
    """A request to the admin socket is answered in JSON, whatever it is."""
    with received(data) as connection:
        _Door._answer(SimpleNamespace(_meshes=[]), connection)  # type: ignore[arg-type]


class _Peer:
    """A process whose admin socket says ``said``."""

    def __init__(self) -> None:
        self.path = file_of(b"", "peer.sock")
        self.path.unlink()
        self.said = b""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(8)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, suppress(OSError):
                connection.sendall(self.said)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(64)


_peer = cache(_Peer)


def _process(data: bytes) -> None:
    peer = _peer()
    peer.said = data
    try:
        said = _read(Path(peer.path), "status", 5.0)
    except NotReadable as problem:
        assert str(peer.path) in str(problem)
        return
    assert all(isinstance(mesh, dict) for mesh in said["meshes"])


_HTTP = (
    b"HTTP/1.1 200 OK\r\n",
    b"Content-Length: 2\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"{}",
    b"Date: ",
    b"\0",
    b"-1",
)
_ANSWER = b'{"version_info":"1","resources":[{"@type":"type.googleapis.com/envoy.config.cluster.v3.Cluster","name":"c"}],"type_url":""}'

# --- sessions ------------------------------------------------------------------------------------------------------------------------


def _session(data: bytes) -> None:
    """What a call brings of its session, and what an answer has in its place."""
    brought, answered = (part.decode("latin-1") for part in pieces(data, 2)[:2])
    endpoint = LiveEndpoint(Endpoint(Address("10.0.0.1", 80)), priority=0, locality=Locality())
    env: Any = SimpleNamespace(sessions=Sessions(), wall=lambda: 1e9)
    for kind in SessionKind:
        name = "sid" if kind is SessionKind.COOKIE else "x-s"
        said = ("cookie", f"sid={brought}") if kind is SessionKind.COOKIE else ("x-s", brought)
        head = Head("GET", "http", "a", "/", Headers.of(said))
        held = Held(Session(kind, name, 60.0, strict=True), head, env, "l", grpc=False)
        held.read(0.0)
        override = held.override(1)
        for one in override.names if override is not None else ():
            assert one.isascii()
            assert one.isprintable()
        if override is not None:
            override.choose({endpoint.address: endpoint}, Cluster("c"), grpc=False)
        inside = held.head.headers.get("x-s") or ""
        assert held.head is head or (inside.isascii() and inside.isprintable())
        answer = Headers.of(("x-s", answered))
        edited = held.edited(answer, endpoint, "c") or answer
        assert len(edited.raw) <= 2
        held.learn(Outcome(OutcomeKind.OK, 200, answer), endpoint, "c", 0.0)


def _serving(data: bytes) -> None:
    """What a gRPC server says of its health: a status or nothing, and good is one of them only."""
    head = {"content-type": "application/grpc", "grpc-status": "0"}
    for body in (data, b"\0" + len(data).to_bytes(4, "big") + data):
        status = _serving_status(body)
        assert status is None or 0 <= status < 1 << 70, status
        answer = _grpc_answer(200, head, body)
        assert answer.good == (status == 1), answer
        assert len(answer.words) < 1000, answer


TARGETS = (
    Target(
        "sessions", ("core/sessions.py",), _session,
        (
            b"Cg8xMjcuMC4wLjE6NDQyNDUQuNmy2AY=" + BETWEEN + b"abc", b"MTAuMC4wLjE6ODA=;UV:YWJj" + BETWEEN, b"MTAuMC4wLjE6ODAsMTAuMS4wLjE6ODA7Yw==",
            b'"Cg8xMjcuMC4wLjE6NDQyNDU="', b"",
        ),
        (b"Cg", b"UV:", b";", b"=", b"MTAuMC4wLjE6ODA=", b"EP////8P", b"//////////8B", b'"', BETWEEN),
    ),
    Target(
        "names", ("sources/dns_query.py",), _names,
        (
            BETWEEN.join((b"a", _dns("a.example A", "a.example A 10.0.0.1"), _dns("a.example AAAA", "a.example AAAA ::1"))),
            BETWEEN.join((b"a", _dns("a.example A", "a.example CNAME b.example.", "b.example A 10.0.0.1"), _dns("a.example AAAA"))),
            BETWEEN.join((
                b"s", _dns("_a._tcp.example SRV", "_a._tcp.example SRV 1 0 80 t.example.", "_a._tcp.example SRV 2 9 0 u.example."),
                _dns("t.example A", "t.example A 10.0.0.1"), _dns("t.example AAAA"),
            )),
            b"a" + BETWEEN + b"\x81\x83" + b"\0" * 8,
        ),
        (b"\xc0\x0c", b"\xc0\xff", b"\0\x01\0\x01", b"\0\x21", b"\0\x05", b"\x81\x80", b"\x81\x83", b"\xff\xff", b"\0\x04\x0a\0\0\x01", BETWEEN),
        share=2,
    ),
    Target(
        "polled", ("sources/rest.py", "sources/rest_wire.py", "xds/discovery.py"), _polled,
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_ANSWER) + _ANSWER, b"HTTP/1.1 304 Not Modified\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b"HTTP/1.1 404 No\r\n\r\nno", b"HTTP/1.1 200 OK\r\n\r\n" + _ANSWER,
        ),
        (*_HTTP, b'"resources":[', b'"@type":', b"type.googleapis.com/envoy.config.cluster.v3.Cluster", b"Content-Encoding: gzip\r\n", b"NaN", b"[" * 1500),
        share=2,
    ),
    Target(
        "health", ("sidecar/probe.py", "cli/doctor/probes.py"), _health,
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nok", b"HTTP/1.1 503 X\r\n\r\n", b"HTTP/1.1 100 \r\n\r\n",
            b"HTTP/1.0 200 OK\r\nDate: x\r\n\r\n",
        ),
        (*_HTTP, b"Sun, 06 Nov 1994 08:49:37", b"+9999", b"-0000", b"99999999"), share=2,
    ),
    Target(
        "serving", ("hosts/health/flows.py",), _serving,
        (b"\0\0\0\0\2\x08\1", b"\0\0\0\0\0", b"\0\0\0\0\x06\x7a\2ab\x08\2", b"\1\0\0\0\2\x08\1"),
        (b"\x08\1", b"\x0a\xff\xff\xff\xff\x0f", b"\xff" * 11, b"\0\0\0\0"), share=1,
    ),
    Target("asked", ("observe/admin.py",), _asked, (b"status\n", b"facts", b"x" * 500, b"\xff\n", b"process\nstatus\n"), (b"\n", b"status", b"\0"), share=1),
    Target(
        "process", ("observe/peer.py",), _process, (b'{"meshes":[{}]}', b'{"meshes":[1]}', b"[]", b'{"meshes":null}', b"\xff", b"[" * 2000),
        (b'"meshes"', b"[", b"]", b"{", b"}", b"null", b"1e999", b":"), share=1,
    ),
)  # fmt: skip
