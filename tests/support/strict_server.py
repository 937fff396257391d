"""A server that reads requests as strictly as they can be read, and keeps what it could not read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11

from tests.support.accepting import Accepting

if TYPE_CHECKING:
    import socket

__all__ = ["StrictHttp2Server", "StrictServer"]


class StrictServer(Accepting):
    """Each request gets 200 and what is in ``answer``.

    Attributes:
        requests: Method, target, header lines and body of each, as they came.
        wrong: Why bytes that came are no requests.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]] = []
        self.wrong: list[str] = []
        self.answer: list[tuple[bytes, bytes]] = [(b"content-length", b"2")]

    def serve(self, sock: socket.socket) -> None:
        read = h11.Connection(h11.SERVER)
        try:
            while self._one(sock, read):
                read.start_next_cycle()
        except h11.RemoteProtocolError as problem:
            self.wrong.append(str(problem))
        except h11.LocalProtocolError:  # it is over
            pass

    def _one(self, sock: socket.socket, read: h11.Connection) -> bool:
        head, body = None, b""
        while True:
            event = read.next_event()
            if event is h11.NEED_DATA:
                read.receive_data(sock.recv(65_536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                break
            else:
                return False
        self.requests.append((head.method, head.target, list(head.headers), body))
        answer = h11.Response(status_code=200, headers=self.answer)
        sent = (read.send(each) or b"" for each in (answer, h11.Data(data=b"ok"), h11.EndOfMessage()))
        sock.sendall(b"".join(sent))
        return read.our_state is h11.DONE


class StrictHttp2Server(StrictServer):
    """The same over HTTP/2 with prior knowledge, as h2 reads it."""

    def serve(self, sock: socket.socket) -> None:
        read = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        read.initiate_connection()
        heads: dict[int, list[tuple[bytes, bytes]]] = {}
        bodies: dict[int, bytes] = {}
        try:
            while True:
                sock.sendall(read.data_to_send())
                data = sock.recv(65_536)
                if not data:
                    break
                for event in read.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        heads[event.stream_id], bodies[event.stream_id] = list(event.headers), b""
                    elif isinstance(event, h2.events.DataReceived):
                        bodies[event.stream_id] += event.data
                        read.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded):
                        self._answer(read, event.stream_id, heads[event.stream_id], bodies[event.stream_id])
        except h2.exceptions.ProtocolError as problem:
            self.wrong.append(str(problem))

    def _answer(self, read: Any, number: int, head: list[tuple[bytes, bytes]], body: bytes) -> None:
        pseudo = {name: value for name, value in head if name.startswith(b":")}
        lines = [(b"host", pseudo.get(b":authority", b"")), *(line for line in head if line[0] not in pseudo)]
        self.requests.append((pseudo[b":method"], pseudo[b":path"], lines, body))
        read.send_headers(number, [(b":status", b"200"), *self.answer])
        read.send_data(number, b"ok", end_stream=True)
