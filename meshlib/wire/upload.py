"""What both drivers of HTTP/1.1 do alike while a request goes out. No I/O, no waiting.

A server may answer before it has all of the request, and may then stop reading. So whoever sends a body listens meanwhile
(``Early``), and stops when that is of no use any more:

- the answer is no success (3xx, 4xx, 5xx): what is still to come is not wanted;
- the answer is whole;
- more of it came than is kept here;
- the peer took nothing for some time after a head of 2xx. Until then the upload goes on, since there are servers that answer
  first and read on, and a client that has sent all before it reads serves them.

The response is delivered then, and the connection closed after it, since the request is not complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.wire.http1 import END, Interim
from meshlib.wire.message import Head

if TYPE_CHECKING:
    from meshlib.wire.http1 import Event, Http1
    from meshlib.wire.message import Outgoing

__all__ = ["CONTINUE_SECONDS", "PATIENCE", "READ", "Early", "begin"]

#: How long a body waits for 100 Continue (curl's time), in seconds.
CONTINUE_SECONDS = 1.0
#: How long a peer that has answered with success may take nothing of the body, in seconds.
PATIENCE = 1.0
#: Bytes that are read at once.
READ = 65_536
#: A body of at most that many bytes goes in one send with the head.
_TOGETHER = 65_536
#: Bytes of an early response that are kept while the request still goes out.
_MOST_EARLY = 1_048_576


def begin(machine: Http1, request: Outgoing) -> tuple[list[bytes], bool]:
    """The bytes to send first; whether they are all of the request. Raises LocalProtocolError, and nothing has changed then."""
    body, target, headers = request.body, request.target, request.headers
    if machine.spelling is not None:
        target, headers = machine.spelling.of(request)
    if body is None:
        return machine.request(request.method, target, headers, b""), True
    whole = (
        isinstance(body, bytes)
        and len(body) <= _TOGETHER
        and not any(name.lower() == b"expect" for name, _ in request.headers)
    )
    return machine.request(request.method, target, headers, body if whole else None), whole


class Early:
    """What came of the response while the request was sent.

    Attributes:
        head: The final one.
        events: What followed it.
    """

    __slots__ = ("_heard", "_machine", "events", "head")

    def __init__(self, machine: Http1) -> None:
        self._machine = machine
        self._heard = 0
        self.head: Head | None = None
        self.events: list[Event] = []

    def hear(self, data: bytes) -> bool:
        """The peer said ``data``, or closed its half; whether no more of the request is to be sent."""
        machine = self._machine
        machine.feed(data)
        self._heard += len(data)
        while (event := machine.next()) is not None:
            if isinstance(event, Head):
                self.head = event
            elif not isinstance(event, Interim):
                self.events.append(event)
            if event is END:
                break
        if self.head is None:
            return False
        done = END in self.events
        return done or not data or self.head.status >= 300 or self._heard > _MOST_EARLY
