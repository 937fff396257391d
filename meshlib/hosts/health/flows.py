"""What one health check does on a connection, as steps: a generator that waits for a descriptor where it has to, and ends with the answer.

Nothing here blocks and nothing knows the time: whoever runs the steps (:mod:`meshlib.hosts.health.prober`) waits, and closes a
generator whose time is over, which closes its connection. What a peer sends is read by the machines of :mod:`meshlib.wire`, strict
and bounded as for calls, and no more than so much of a body is read: one without end is a failure.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshlib.core.health import Answer, holds, judged
from meshlib.extras import needed
from meshlib.model.health import GrpcCheck, HttpCheck, TcpCheck
from meshlib.wire.dial import failed, numeric, prepared, speaks_http2
from meshlib.wire.errors import WireError
from meshlib.wire.http1 import END, Http1
from meshlib.wire.message import Head, Lines, Outgoing
from meshlib.wire.proxied import judge
from meshlib.wire.stream import Stream

if TYPE_CHECKING:
    from meshlib.wire.dial import Place

__all__ = ["Asking", "Line", "Names", "Wait", "ask"]

#: Bytes read at once, and of a body at most.
_READ = 65_536
_MOST_BODY = 1 << 20
#: What a TCP server may send before what is expected of it must have come.
_MOST_SENT = 65_536

#: ``grpc.health.v1.HealthCheckResponse.ServingStatus``.
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_SERVING = 1


@dataclass(frozen=True, slots=True)
class Wait:
    """For one of ``events`` (of ``poll``) at ``descriptor``."""

    descriptor: int
    events: int


@dataclass(frozen=True, slots=True)
class Names:
    """For the addresses of a name, which the steps are sent: pairs of a family and an address, or an OSError."""

    host: str
    port: int


Steps = Generator[Wait | Names, Any, Answer]
_Doing = Generator[Wait | Names, Any, Any]


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked and where. ``lines``: the request's headers; ``seconds``: the timeout that a gRPC server is told. ``keep``: the
    connection is kept for the next check.
    """

    how: HttpCheck | GrpcCheck | TcpCheck
    place: Place
    lines: Lines
    keep: bool


class Line:
    """The connection to one endpoint, kept between checks. Closed, it is made anew by the next."""

    __slots__ = ("_http1", "_http2", "place", "stream")

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.place: Place | None = None
        self._http1: Http1 | None = None
        self._http2: Any = None

    def close(self) -> None:
        stream, self.stream = self.stream, None
        self._http1 = self._http2 = None
        if stream is not None:
            stream.close()

    @property
    def open(self) -> bool:
        return self.stream is not None and not self.stream.closed

    @property
    def http1(self) -> Http1:
        if self._http1 is None:
            self._http1 = Http1()
        return self._http1

    @property
    def http2(self) -> Any:
        if self._http2 is None:
            from meshlib.wire.http2 import Http2

            self._http2 = Http2()
        return self._http2


def ask(line: Line, asking: Asking) -> Steps:
    """The steps of one check on ``line``. What goes wrong on the way is an answer, too; GeneratorExit closes the line."""
    try:
        answer: Answer = yield from _asked(line, asking)
    except (WireError, OSError, ValueError) as error:  # ValueError: a name that is none
        line.close()
        return Answer(False, str(error) or type(error).__name__, counted=True)
    except BaseException:
        line.close()
        raise
    if not asking.keep:
        line.close()
    return answer


def _asked(line: Line, asking: Asking) -> Steps:
    if line.open and (line.place != asking.place or (line.stream and _is_stale(line))):
        line.close()
    if not line.open:
        line.place = asking.place
        line.stream = yield from _connected(asking.place)
    how = asking.how
    if isinstance(how, TcpCheck):
        return (yield from _tcp(line, how))
    assert line.stream is not None
    if not speaks_http2(asking.place, line.stream.protocol):
        if isinstance(how, GrpcCheck):
            line.close()
            return Answer(False, "the server does not speak HTTP/2", counted=True)
        return (yield from _http1(line, how, asking))
    with needed("http2", "HTTP/2"):
        return (yield from _http2(line, how, asking))


def _is_stale(line: Line) -> bool:
    """A kept connection that its peer has ended, or on which it said what nobody asked for; HTTP/2 may say something at any time."""
    assert line.stream is not None
    if line._http2 is None:
        return line.stream.readable()
    machine = line.http2
    try:
        data = line.stream.read_now(_READ)
    except WireError:
        return True
    if data is not None:
        machine.feed(data)
    return not machine.room


# --- a connection ----------------------------------------------------------------------------------------------------------


def _connected(place: Place) -> _Doing:
    """A stream to ``place``. Raises OSError, ValueError."""
    hop = place.hop
    if hop.uds is not None:
        addresses: Any = [(socket.AF_UNIX, hop.uds)]
    else:
        addresses = numeric(hop)
        if not addresses:
            addresses = yield Names(hop.host, hop.port)
            if isinstance(addresses, OSError):
                raise addresses
    errors: list[OSError] = []
    for family, address in addresses:
        try:
            stream = yield from _dialled(hop, family, address)
        except OSError as error:
            errors.append(error)
            continue
        if place.proxy is not None:
            yield from _passed(place, stream)
        return (yield from _secured(place, stream))
    raise failed(hop, errors)


def _passed(place: Place, stream: Stream) -> _Doing:
    """The proxy at the other end connects it to ``place``. Raises OSError, WireError, and closes it then."""
    try:
        machine = Http1()
        asked = machine.request(b"CONNECT", place.target, [(b"Host", place.target)], b"")
        yield from _write(stream, b"".join(asked))
        while not isinstance(head := machine.next(), Head):
            if head is None:
                machine.feed((yield from _read(stream)))
        judge(str(place.hop), head.status, machine.leftover)
    except BaseException:
        stream.close()
        raise


def _dialled(place: Place, family: int, address: Any) -> _Doing:
    sock = prepared(place, family)
    try:
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            yield Wait(sock.fileno(), select.POLLOUT)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except BaseException:
        sock.close()
        raise
    if code:
        sock.close()
        raise OSError(code, os.strerror(code))
    return Stream(sock)


def _secured(place: Place, stream: Stream) -> _Doing:
    handshakes = place.handshakes
    if handshakes is None:
        return stream
    try:
        stream.begin_tls(handshakes, place.server_hostname or None)
        while wanted := stream.shake_hands():
            yield Wait(stream.get_extra_info("socket").fileno(), wanted)
    except BaseException:
        stream.close()
        raise
    return stream.secured(handshakes)


def _wait(stream: Stream, events: int) -> Wait:
    return Wait(stream.get_extra_info("socket").fileno(), events)


def _write(stream: Stream, data: bytes) -> _Doing:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write_now(rest) :]
        if rest:
            yield _wait(stream, select.POLLOUT)


def _read(stream: Stream) -> _Doing:
    """What comes next; b"": the peer closed. Others have their turn before."""
    while True:
        yield _wait(stream, select.POLLIN)
        data = stream.read_now(_READ)
        if data is not None:
            return data


# --- what is said on it ---------------------------------------------------------------------------------------------------------


def _tcp(line: Line, how: TcpCheck) -> Steps:
    stream = line.stream
    assert stream is not None
    if not how.receive:
        line.close()  # as Envoy's: a connection says enough
        return Answer(True, "connected")
    yield from _write(stream, how.send)
    heard = b""
    while not holds(how.receive, heard):
        data = yield from _read(stream)
        if not data:
            raise OSError("the peer closed the connection before what is expected came")
        heard += data
        if len(heard) > _MOST_SENT:
            raise OSError(f"{_MOST_SENT} bytes came without what is expected")
    return Answer(True, "what is expected came")


def _http1(line: Line, how: HttpCheck, asking: Asking) -> Steps:
    machine, stream = line.http1, line.stream
    assert stream is not None
    target = how.path.encode("utf-8", "surrogatepass")
    sent = machine.request(how.method.encode("ascii"), target, asking.lines, how.send)
    yield from _write(stream, b"".join(sent))
    body = _Body(how)
    head: Head | None = None
    while True:
        event = machine.next()
        if event is None:
            machine.feed((yield from _read(stream)))
        elif isinstance(event, Head):
            head = event
        elif isinstance(event, bytes):
            body.add(event)
        elif event is END:
            break
    if not machine.reusable:
        line.close()
    assert head is not None
    return judged(how, head.status, _named(head.headers), body.kept)


def _http2(line: Line, how: HttpCheck | GrpcCheck, asking: Asking) -> Steps:
    machine = line.http2
    grpc = isinstance(how, GrpcCheck)
    send = _grpc_request(how.service) if isinstance(how, GrpcCheck) else how.send
    method, path = (
        (b"POST", b"/grpc.health.v1.Health/Check")
        if isinstance(how, GrpcCheck)
        else (
            how.method.encode("ascii"),
            how.path.encode("utf-8", "surrogatepass"),
        )
    )
    request = Outgoing(method, path, asking.lines, secure=asking.place.context is not None)
    stream = machine.open(request, len(send))
    if send:
        machine.send(stream, send, end=True)
    body = _Body(how)
    assert line.stream is not None
    while True:
        while parts := stream.parts:
            part = parts.popleft()
            body.add(part)
            machine.took(stream, len(part))
        yield from _write(line.stream, machine.outgoing())
        if stream.error is not None:
            raise stream.error
        if stream.ended:
            break
        machine.feed((yield from _read(line.stream)))
    if not machine.room:
        line.close()
    headers = _named(stream.head.headers)
    if grpc:
        return _grpc_answer(stream.head.status, {**headers, **_named(stream.trailers)}, body.kept)
    assert isinstance(how, HttpCheck)
    return judged(how, stream.head.status, headers, body.kept)


class _Body:
    """What is read of one: counted, and kept as far as the check looks at it."""

    __slots__ = ("_count", "_most", "kept")

    def __init__(self, how: HttpCheck | GrpcCheck) -> None:
        self._count = 0
        if isinstance(how, GrpcCheck):
            self._most = _READ
        else:
            self._most = min(how.most or _MOST_BODY, _MOST_BODY) if how.receive else 0
        self.kept = b""

    def add(self, part: bytes) -> None:
        """Raises OSError beyond what is read."""
        self._count += len(part)
        if self._count > _MOST_BODY:
            raise OSError(f"the answer has more than {_MOST_BODY} bytes")
        if len(self.kept) < self._most:
            self.kept += part[: self._most - len(self.kept)]


def _named(lines: Lines) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in lines}


# --- grpc.health.v1 -----------------------------------------------------------------------------------------------------------


def _grpc_request(service: str) -> bytes:
    """A ``HealthCheckRequest`` in gRPC's framing: field 1 is the service."""
    name = service.encode("utf-8", "surrogatepass")
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _grpc_answer(status: int, headers: dict[str, str], body: bytes) -> Answer:
    """Envoy's: SERVING with OK is good, everything else is an answer that is not."""
    if status != 200:
        return Answer(False, f"status {status}")
    kind = headers.get("content-type", "")
    if not (kind == "application/grpc" or kind.startswith(("application/grpc+", "application/grpc;"))):
        return Answer(False, f"no answer of gRPC ({kind[:80]!r})")
    code = headers.get("grpc-status", "")
    if code != "0":
        said = headers.get("grpc-message", "")
        return Answer(False, f"grpc-status {code[:16] or 'missing'}" + (f": {said[:200]}" if said else ""))
    held = _serving_status(body)
    if held is None:
        return Answer(False, "the answer is no HealthCheckResponse")
    words = _STATUSES[held] if held < len(_STATUSES) else str(held)
    return Answer(held == _SERVING, words)


def _serving_status(body: bytes) -> int | None:
    """``HealthCheckResponse.status`` of one message that is not compressed; None where it is none. Other fields are passed over."""
    if len(body) < 5 or body[0] != 0 or len(body) - 5 != int.from_bytes(body[1:5], "big"):
        return None
    message, at, status = body[5:], 0, 0
    while at < len(message):
        key, at = _read_varint(message, at)
        if key is None:
            return None
        wire = key & 7
        if wire == 0:
            value, at = _read_varint(message, at)
            if value is None:
                return None
            if key >> 3 == 1:
                status = value
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _read_varint(message, at)
            if size is None:
                return None
            at += size
        else:
            return None
        if at > len(message):
            return None
    return status


def _read_varint(data: bytes, at: int) -> tuple[int | None, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return None, at
