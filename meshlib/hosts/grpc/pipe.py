"""Bytes handed on between grpc and an endpoint, both ways: the inside of a tunnel (:mod:`meshlib.hosts.grpc.tunnel`).

Theory. Each way has one buffer, which is empty or holds what its taker has not taken yet; as long as it holds something, nothing
more is read for that way. So a taker that stops stops who sends, as on one connection, and a pipe holds at most ``_AT_ONCE`` bytes
a way. Bytes are read into memory that all pipes of a thread share: they are copied only where they are not taken at once.

    way    empty, and bytes come        taken whole: empty; else: held
    way    held, and the taker can take taken whole: empty; else: held
    grpc ends its side                  closed: it ends one only when no call is left, or all of them are lost
    the endpoint ends its side          ending: what is held goes to grpc, then grpc reads the end
    ending, and grpc ends its side      closed
    the endpoint is lost                lost: it is sent no more, and polled no more; what came before is read as grpc takes it, to its end
    an error of grpc's side             as its end

All of it runs in the tunnel's thread.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.wire.stream import Stream

__all__ = ["Pipe", "Poller"]

#: Bytes that are read at once, and held at most. A record of TLS has up to 16 KiB (RFC 8446, 5.1).
_AT_ONCE = 131_072
_RECORD = 16_384

_SILENT = "the endpoint closed the connection before it said anything: it may refuse the certificate that it is shown, or want one"

_IN, _OUT, _LOST = select.POLLIN, select.POLLOUT, select.POLLERR | select.POLLHUP


class Poller(Protocol):
    """The sockets of the tunnel's thread."""

    scratch: memoryview

    def watch(self, sock: socket.socket, events: int, then: Callable[[int], object]) -> None:
        """Call ``then`` with the events of ``sock``: those of ``events``, and its errors and its end whatever these are."""

    def change(self, sock: socket.socket, events: int) -> None: ...

    def leave(self, sock: socket.socket) -> None: ...


def scratch() -> memoryview:
    """What pipes of one thread read into."""
    return memoryview(bytearray(_AT_ONCE))


class Pipe:
    """``inner``: grpc's connection; ``stream``: the endpoint's. Both are its own.

    ``heard`` is called once, before grpc is told: with ``""`` when the first bytes of the endpoint's came, or with why none will come.
    ``closed`` is called with the pipe, once.
    """

    __slots__ = (
        "_closed",
        "_down",
        "_ending",
        "_heard",
        "_inner",
        "_inner_waits",
        "_lost",
        "_outer",
        "_outer_waits",
        "_poller",
        "_reads",
        "_remember",
        "_stream",
        "_up",
        "_writes",
    )

    def __init__(
        self,
        poller: Poller,
        inner: socket.socket,
        stream: Stream,
        remember: Callable[[Any], object] | None,
        heard: Callable[[str], object],
        closed: Callable[[Pipe], object],
    ) -> None:
        self._poller = poller
        self._inner = inner
        self._stream = stream
        self._outer: Any = stream.get_extra_info("socket")
        self._remember = remember  # the session of TLS, once something was read
        self._heard: Callable[[str], object] | None = heard
        self._closed: Callable[[Pipe], object] | None = closed
        self._up: bytes | None = None  # to the endpoint
        self._down: bytes | None = None  # to grpc
        self._reads, self._writes = _IN, _OUT  # what OpenSSL waits for when it reads and writes
        self._ending = False
        self._lost: str | None = None  # why
        self._inner_waits = self._outer_waits = _IN

    @property
    def silent(self) -> bool:
        """Whether the endpoint has said nothing yet."""
        return self._heard is not None

    def begin(self) -> None:
        """Hand on what comes."""
        self._poller.watch(self._inner, _IN, self._from_grpc)
        self._poller.watch(self._outer, _IN, self._from_endpoint)
        self._from_endpoint(0)  # what OpenSSL read already no poll would tell

    def close(self) -> None:
        """End both sides. Twice is no error."""
        closed, self._closed = self._closed, None
        if closed is None:
            return
        self._poller.leave(self._inner)
        if not self._ending:
            self._poller.leave(self._outer)
        self._inner.close()
        self._stream.close()
        closed(self)

    def abandon(self) -> None:
        """Close what a fork left of a parent's, which does not feel it."""
        self._inner.close()
        socket.socket.close(self._outer)

    # --- what the sockets say ---------------------------------------------------------------------------------------------

    def _from_grpc(self, events: int) -> None:
        if self._down is not None:
            self._give(memoryview(self._down))
            self._read_rest()
        if self._up is not None:
            if events & _LOST:
                self.close()
        elif events & (_IN | _LOST):
            self._read_grpc()
        self._wait()

    def _from_endpoint(self, events: int) -> None:
        if self._up is not None:
            self._send(memoryview(self._up))
        if self._down is None:
            self._read_endpoint()
        elif events & _LOST:
            self._lose("")
        self._wait()

    def _wait(self) -> None:
        """Poll for what can go on."""
        if self._closed is None:
            return
        inner = (_IN if self._up is None else 0) | (_OUT if self._down is not None else 0)
        if inner != self._inner_waits:
            self._inner_waits = inner
            self._poller.change(self._inner, inner)
        if self._ending or self._lost is not None:
            return
        outer = (self._reads if self._down is None else 0) | (self._writes if self._up is not None else 0)
        if outer != self._outer_waits:
            self._outer_waits = outer
            self._poller.change(self._outer, outer)

    # --- to the endpoint --------------------------------------------------------------------------------------------------

    def _read_grpc(self) -> None:
        scratch = self._poller.scratch
        try:
            count = self._inner.recv_into(scratch)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self._pass_over()
            self.close()
        elif not self._ending and self._lost is None:
            self._send(scratch[:count])

    def _pass_over(self) -> None:
        """Read what came that nobody wants any more, tickets of TLS above all: closed with it unread, the connection would be reset, and
        what grpc said last could be lost with it.
        """
        if not self._ending:
            with contextlib.suppress(OSError):
                self._outer.read(_AT_ONCE, self._poller.scratch)

    def _send(self, data: memoryview) -> None:
        self._writes = _OUT
        try:
            count = self._outer.write(data)
        except ssl.SSLWantReadError:
            count, self._writes = 0, _IN
        except (ssl.SSLWantWriteError, BlockingIOError):
            count = 0
        except OSError as error:
            self._lose(str(error))
            return
        if count == len(data):
            self._up = None
        elif count or self._up is None:
            self._up = bytes(data[count:])

    # --- to grpc ----------------------------------------------------------------------------------------------------------

    def _read_endpoint(self) -> None:
        if self._ending or self._closed is None:
            return
        scratch = self._poller.scratch
        size, ended, why = 0, False, _SILENT
        try:
            # Whole records: of one that was taken in part no poll tells.
            while size <= _AT_ONCE - _RECORD:
                count = self._outer.read(_AT_ONCE - size, scratch[size:] if size else scratch)
                size += count
                ended = not count
                if count < _RECORD:
                    break  # there is more only where a poll says so
        except (ssl.SSLWantReadError, BlockingIOError):
            self._reads = _IN
        except ssl.SSLWantWriteError:
            self._reads = _OUT
        except OSError as error:
            ended, why = True, str(error)
        if self._lost is not None and not size and not ended:
            ended, why = True, self._lost
        if size:
            self._hear("")
            self._give(scratch[:size])
        if ended:
            self._end(why)

    def _lose(self, why: str) -> None:
        """The endpoint takes no more. A poll would tell that again and again, while grpc does not read."""
        if self._lost is None and not self._ending:
            self._lost, self._up = why, None
            self._poller.leave(self._outer)
            self._read_rest()

    def _read_rest(self) -> None:
        """What one that is lost said before, as far as grpc takes it."""
        while self._lost is not None and self._down is None and not self._ending and self._closed is not None:
            self._read_endpoint()

    def _hear(self, why: str) -> None:
        heard, self._heard = self._heard, None
        if heard is not None:
            heard(why)
            if not why and self._remember is not None:
                self._remember(self._outer)

    def _give(self, data: memoryview) -> None:
        try:
            count = self._inner.send(data)
        except BlockingIOError:
            count = 0
        except OSError:
            self.close()
            return
        if count == len(data):
            self._down = None
            if self._ending:
                self._say_end()
        elif count or self._down is None:
            self._down = bytes(data[count:])

    def _end(self, why: str) -> None:
        """The endpoint ended its side, or all is read of one that is lost."""
        if self._ending or self._closed is None:
            return
        self._hear(why)
        self._ending = True
        self._up = None
        self._poller.leave(self._outer)
        self._stream.close()
        if self._down is None:
            self._say_end()

    def _say_end(self) -> None:
        with contextlib.suppress(OSError):
            self._inner.shutdown(socket.SHUT_WR)
