"""One question to a health port on loopback: no redirect is followed, no proxy used, nothing is sent but a GET.

It is bounded in time as a whole, not per step, and in what it reads. ``Connection: close`` and no reuse: a probe leaves nothing.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from meshlib.sidecar.evidence import Answer

if TYPE_CHECKING:
    from meshlib.sidecar.evidence import Probe

__all__ = ["SECONDS", "Prober"]

#: For connecting, asking and reading together.
SECONDS = 1.0
_MOST = 65536


class Prober:
    """Asks, one question at a time, in the thread that calls. ``cancel`` may be called from any other."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()  # guards _socket and _cancelled
        self._socket: socket.socket | None = None
        self._cancelled = False

    def again(self) -> Prober:
        """One that is not cancelled."""
        return Prober(self._seconds) if self._cancelled else self

    def cancel(self) -> None:
        """End the question under way, and all that come."""
        with self._lock:
            self._cancelled = True
            if self._socket is not None:
                with suppress(OSError):  # it was not connected yet
                    self._socket.shutdown(socket.SHUT_RDWR)

    def ask(self, probe: Probe) -> Answer:
        """What is answered; never raises for what a network or a peer does."""
        until = time.monotonic() + self._seconds
        address = probe.address
        family = (
            socket.AF_UNIX if address.unix else socket.AF_INET6 if ":" in address.host else socket.AF_INET
        )
        try:
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                with self._lock:
                    if self._cancelled:
                        return Answer("silent")
                    self._socket = connection
                connection.settimeout(self._seconds)
                connection.connect(address.host if address.unix else (address.host, address.port))
                return _exchange(connection, probe, until) if probe.path else Answer("accepted")
        except (ConnectionRefusedError, FileNotFoundError):
            return Answer("refused")
        except OSError:
            return Answer("silent")
        finally:
            with self._lock:
                self._socket = None


def _exchange(connection: socket.socket, probe: Probe, until: float) -> Answer:
    import h11

    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=16384)
    host = "localhost" if probe.address.unix else str(probe.address)
    request = h11.Request(method="GET", target=probe.path, headers=[("Host", host), ("Connection", "close")])
    connection.sendall((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    status, body = 0, b""
    try:
        while len(body) < _MOST:
            match http.next_event():
                case h11.NEED_DATA:
                    connection.settimeout(max(0.001, until - time.monotonic()))
                    http.receive_data(connection.recv(16384))
                case h11.Response(status_code=status):
                    pass
                case h11.Data(data=data):
                    body += data
                case h11.EndOfMessage():
                    break
                case h11.InformationalResponse():
                    pass
                case _:
                    return Answer("silent")
            if time.monotonic() > until:
                return Answer("silent")
    except h11.RemoteProtocolError:
        return Answer("silent")
    return Answer("answered", status, body[:_MOST])
