"""HTTP/1.1 servers for tests: real sockets on 127.0.0.1, a thread a connection, in this process.

    with Upstream("v1") as upstream:
        httpx.get(upstream.url + "/x").json()   # {"name": "v1", "method": "GET", "path": "/x", "headers": …}
        upstream.fail(503, times=2)
        upstream.kill()                         # every connection is reset, the port refuses
        upstream.restart()                      # the same port again

`python -m meshlib.testing.upstream --name v1 --port 0` is the same as a process of its own; `UpstreamProcess` runs one.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

from meshlib.testing.alone import serve_alone
from meshlib.testing.http_answer import Answer, response_head
from meshlib.testing.http_connection import BadRequest, Connection, Gone, RequestHead
from meshlib.testing.ordered import Ordered
from meshlib.testing.orders import ORDER_HEADER, Order
from meshlib.testing.ports import bind, refuse_taken, reserve

__all__ = ["CONTROL_PATH", "Received", "Upstream"]

# Where an upstream takes orders over HTTP and tells its counts: for one that is a process of its own.
CONTROL_PATH = "/__upstream__"

_KEPT_BODY = 64 * 1024
_JOIN = 5.0  # seconds for a connection's thread to notice that it is to end


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived. `connection` and `number` (of the request on it) count from 1."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes  # at most its first 64 KiB
    body_length: int
    connection: int
    number: int
    complete: bool  # False where the client left before the end of the body

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever the case of its name; None if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class Upstream(Ordered[Order, RequestHead, Received]):
    """A server that answers each request with who it is and what it got, until it is told otherwise.

    The answer is JSON: `name`, `method`, `path`, `headers` (pairs, in order, as received), `body_length`,
    `connection`, `request` (its number on the connection), `sni`. `port` 0 takes a free one and keeps it. `tls`: an
    SSLContext makes it a TLS server. Orders come from `order` and its shorthands, newest first, or with a request,
    as JSON in the header `x-upstream-order`. Every method may be called from every thread.
    """

    def __init__(self, name: str = "upstream", *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(name, Order())
        self.port = port
        self._tls = tls
        # The condition of Ordered guards all of the following.
        self._connections: dict[Connection, threading.Thread] = {}
        self._connections_total = 0
        self._reserved: socket.socket | None = None
        self._listening: tuple[socket.socket, socket.socket, threading.Thread] | None = None
        if tls is not None and tls.sni_callback is None:
            tls.sni_callback = cast("Any", _note_sni)

    # ------------------------------------------------------------------------------------------- life

    @property
    def address(self) -> str:
        """`127.0.0.1:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port` (or https)."""
        return f"http{'s' if self._tls else ''}://{self.address}"

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._listening is not None

    def start(self) -> Self:
        """Listens; nothing happens if it does. Raises OSError if its port cannot be had."""
        if self._listening is not None:
            return self
        listener = self._listener()
        self.port = listener.getsockname()[1]
        wake, woken = socket.socketpair()
        thread = threading.Thread(
            target=self._accept, args=(listener, woken), name=f"upstream-{self.name}", daemon=True
        )
        self._listening = (listener, wake, thread)
        thread.start()
        return self

    def stop(self) -> None:
        """Ends in order: the port is closed, each connection is closed with FIN, threads are joined."""
        self._stop(Connection.leave)
        self._reserve(None)

    def kill(self) -> None:
        """Ends as a killed process does: the port refuses and each connection is reset.

        The port stays reserved for the next `start`, until `stop`.
        """
        if self._listening is not None:
            self._reserve(reserve(self.port))
        self._stop(Connection.cut)

    def restart(self) -> None:
        """Kills it and listens at the same port again. Orders stay."""
        self.kill()
        self.start()

    def close_connections(self, *, reset: bool = False) -> None:
        """Ends every open connection (with FIN, or RST) and goes on listening."""
        self._end_connections(Connection.cut if reset else Connection.leave)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # ----------------------------------------------------------------------------------------- orders

    def fail(self, status: int = 503, *, times: int | None = None) -> None:
        """Answers with this status."""
        self.order(status=status, times=times)

    def reset(self, *, times: int | None = None) -> None:
        """Resets the connection when a request has arrived, before the head of a response."""
        self.order(reset="head", times=times)

    def reset_body(self, *, times: int | None = None) -> None:
        """Resets the connection in the middle of the response's body."""
        self.order(reset="body", times=times)

    def release(self) -> None:
        """Lets go on all that is held now."""
        with self._changed:
            super().release()
            connections = list(self._connections)
        for connection in connections:
            connection.wake()

    # ----------------------------------------------------------------------------------- what was seen

    @property
    def connections_open(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def connections_total(self) -> int:
        """How many connections were ever accepted."""
        return self._connections_total

    def counts(self) -> dict[str, int]:
        """The counts, under the names of their properties."""
        with self._changed:
            return {
                "connections_open": self.connections_open,
                "connections_total": self.connections_total,
                "requests_total": self.requests_total,
                "held": self.held,
            }

    # -------------------------------------------------------------------------------------- the server

    def _listener(self) -> socket.socket:
        refuse_taken(self.port)
        listener = bind(self.port)
        try:
            listener.listen(1024)
        except OSError:
            listener.close()
            raise
        self._reserve(None)
        return listener

    def _reserve(self, reserved: socket.socket | None) -> None:
        """Keeps this socket in place of the one kept before."""
        with self._changed:
            before, self._reserved = self._reserved, reserved
        if before is not None:
            before.close()

    def _accept(self, listener: socket.socket, woken: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, listener, woken:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while not any(key.fileobj is woken for key, _ in selector.select()):
                with contextlib.suppress(OSError):  # the client left before it was accepted
                    self._take(listener.accept()[0])

    def _take(self, sock: socket.socket) -> None:
        with self._changed:
            self._connections_total += 1
            connection = Connection(sock, self._connections_total)
            thread = threading.Thread(
                target=self._serve,
                args=(connection,),
                name=f"upstream-{self.name}-{connection.number}",
                daemon=True,
            )
            self._connections[connection] = thread
            self._changed.notify_all()
            thread.start()

    def _stop(self, end: Callable[[Connection], None]) -> None:
        with self._changed:
            listening, self._listening = self._listening, None
        if listening is not None:
            _, wake, thread = listening
            with wake:
                wake.send(b"!")
                thread.join(_JOIN)
        self._end_connections(end)

    def _end_connections(self, end: Callable[[Connection], None]) -> None:
        with self._changed:
            threads = dict(self._connections)
        for connection in threads:
            end(connection)
        for connection, thread in threads.items():
            thread.join(_JOIN / 10)
            if thread.is_alive():  # it is writing to a client that does not read
                connection.leave()
                thread.join(_JOIN)

    def _serve(self, connection: Connection) -> None:
        try:
            if self._tls is not None:
                connection.secure(self._tls)
            while self._exchange(connection):
                pass
        except Gone:
            connection.close()
        except BadRequest as error:
            with contextlib.suppress(Gone):
                connection.write(
                    response_head(400, [("connection", "close"), ("content-length", len(str(error)))])
                )
                connection.write(str(error).encode("latin-1", "replace"))
        except (OSError, ValueError):  # a handshake that failed
            connection.close()
        finally:
            connection.close()
            with self._changed:
                del self._connections[connection]
                self._changed.notify_all()

    def _exchange(self, connection: Connection) -> bool:
        """One request and its response; whether another may follow."""
        head = connection.read_head()
        if head is None:
            return False
        connection.requests += 1
        if head.path == CONTROL_PATH:
            return self._control(connection, head)
        order = self._choose(head)
        answer = Answer(connection, head, order, self._hold)
        if order.echo:
            received = self._echo(connection, head, answer)
        elif order.early:
            received = self._received(connection, head, b"", 0, complete=True)
            answer.send(self._describe(received, connection))
        else:
            received = self._received(connection, head, *self._read(connection, head))
            if received.complete:
                answer.send(self._describe(received, connection))
        return received.complete and answer.reusable

    def _choose(self, head: RequestHead) -> Order:
        brought = head.get(ORDER_HEADER)
        if brought is not None:
            try:
                return Order.from_dict(json.loads(brought))
            except ValueError as error:
                raise BadRequest(f"{ORDER_HEADER}: {error}") from error
        return self._standing(head)

    def _read(self, connection: Connection, head: RequestHead) -> tuple[bytes, int, bool]:
        """The body's first part, its length, and whether it came whole."""
        kept, length = bytearray(), 0
        try:
            for part in connection.read_body(head):
                kept += part[: _KEPT_BODY - len(kept)]
                length += len(part)
        except Gone:
            return bytes(kept), length, False
        return bytes(kept), length, True

    def _received(
        self, connection: Connection, head: RequestHead, body: bytes, length: int, complete: bool
    ) -> Received:
        received = Received(
            head.method,
            head.path,
            head.headers,
            body,
            length,
            connection.number,
            connection.requests,
            complete,
        )
        with self._changed:
            self._requests.append(received)
            self._requests_total += 1
            self._changed.notify_all()
        return received

    def _echo(self, connection: Connection, head: RequestHead, answer: Answer) -> Received:
        kept, length = bytearray(), 0
        answer.open()
        for part in connection.read_body(head):
            kept += part[: _KEPT_BODY - len(kept)]
            length += len(part)
            answer.chunk(part)
        received = self._received(connection, head, bytes(kept), length, complete=True)
        answer.end()
        return received

    def _describe(self, received: Received, connection: Connection) -> bytes:
        described = {
            "name": self.name,
            "method": received.method,
            "path": received.path,
            "headers": received.headers,
            "body_length": received.body_length,
            "connection": received.connection,
            "request": received.number,
            "sni": connection.sni,
        }
        return json.dumps(described).encode()

    def _hold(self, connection: Connection) -> None:
        """Waits for a release that comes after now."""
        with self._changed:
            before = self._releases
            self._held_now += 1
            self._changed.notify_all()
        try:
            connection.pause_until(lambda: self._releases != before)
        finally:
            with self._changed:
                self._held_now -= 1

    def _control(self, connection: Connection, head: RequestHead) -> bool:
        """GET: the counts. PUT: an order with `times`, as JSON. DELETE: behave. POST: release."""
        body = b"".join(connection.read_body(head))
        if head.method == "PUT":
            try:
                given = json.loads(body)
                times = given.pop("times", None)
                self.order(Order.from_dict(given), times=times)
            except (ValueError, AttributeError, TypeError) as error:
                raise BadRequest(f"no order: {error}") from error
        elif head.method == "DELETE":
            self.behave()
        elif head.method == "POST":
            self.release()
        counts = json.dumps(self.counts()).encode()
        connection.write(response_head(200, [("content-length", len(counts))]) + counts)
        return head.keeps_alive


def _note_sni(sock: ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
    sock.asked_for = name or ""  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(serve_alone("meshlib.testing.upstream", Upstream))
