"""Blocking streams of bytes, over sockets.

The sockets are non-blocking, and the stream waits by itself: so a send is one system call, a read two, and a timeout that is
another one at each operation costs none. Under gevent the waiting is the greenlet's.

Who may close a stream: anybody, from any thread. A descriptor that a thread waits for, or that OpenSSL reads from, must not
become another connection's meanwhile. So system calls on it run under the stream's lock, which is held while they run and never
while one waits; and a stream that is closed under somebody who waits is only shut down, which wakes him, and he closes it.

A stream belongs to the process that opened it. A child has its descriptor, too: it may close that, which the parent does not
feel, and must neither read, nor write, nor shut it down.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from meshlib.wire.errors import ConnectError, ConnectTimeout, ReadError, ReadTimeout, WriteError, WriteTimeout
from meshlib.wire.readable import new_poll, readable, waiting_poll
from meshlib.wire.stream_tls import Handshakes, alpn_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.pools.bounds import Bounds

__all__ = ["Stream", "rest_after"]

#: The largest record of TLS: of a write that fails within it, nothing can be read by the peer (RFC 8446, 5.1).
_RECORD = 16_384
#: What OpenSSL is given at once beyond that.
_TLS_PART = 262_144
#: How many parts one ``sendmsg`` takes: IOV_MAX of Linux and the BSDs.
_MOST_PARTS = 1024


class Stream:
    """A connected socket, which it owns. Thread-safe; one thread may read while another one writes.

    Attributes:
        closed: It is of no use any more.
        protocol: What ALPN chose.
    """

    __slots__ = (
        "_awaited",
        "_idle_poll",
        "_in",
        "_lock",
        "_more",
        "_out",
        "_owner",
        "_remember",
        "_sock",
        "_tls",
        "_unsent",
        "_waiting",
        "_wanted",
        "closed",
        "protocol",
    )

    def __init__(self, sock: socket.socket, remember: Callable[[Any], object] | None = None) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._remember = remember
        self._lock = (
            threading.RLock()
        )  # guards the descriptor, closed and _waiting; re-entered by signal handlers
        self._waiting = 0
        self._wanted = 0  # what OpenSSL said last that it waits for
        self._awaited = select.POLLOUT  # and what it said to ``write_now``
        self._owner = os.getpid()
        self._more = False  # the last read brought all that was asked for, so there may be more
        self._unsent: Sequence[bytes | memoryview] = ()
        self._in: Any = None
        self._out: Any = None
        self._idle_poll: Any = None
        self.closed = False
        self.protocol = alpn_of(sock) if self._tls else None

    # ------------------------------------------------------------------------------------------------------ reading

    def read(self, most: int, bounds: Bounds) -> bytes:
        """At least one byte and at most ``most``; b"" at the end. Raises ReadTimeout, ReadError."""
        data: bytes = self._read(self._sock.recv, most, bounds)
        self._more = len(data) == most or (self._tls and len(data) == _RECORD)
        return data

    def readinto(self, buffer: memoryview, bounds: Bounds) -> int:
        """As ``read``, into ``buffer``; how many bytes there are."""
        count: int = self._read(self._sock.recv_into, buffer, bounds)
        self._more = count == len(buffer)
        return count

    def read_now(self, most: int) -> bytes | None:
        """What is there already; None where nothing is. Raises ReadError."""
        try:
            self._check()
            data: bytes | None = self._call(self._sock.recv, most)
        except OSError as error:
            raise ReadError(_words(error)) from error
        if data and self._remember is not None:
            self._remember_session()
        return data

    def await_input(self, seconds: float, bounds: Bounds) -> bool:
        """Wait until there is something to read, at most that long; whether there is. Raises ReadTimeout, ReadError."""
        try:
            self._check()
            left = bounds.left("read")
            least = seconds if left is None or seconds < left else left
            if bounds.wakes:
                found = (self._tls and self._pending()) or self._wait_woken(least, bounds)
            else:
                with bounds.ringing(self._stop):
                    found = (self._tls and self._pending()) or self._wait(select.POLLIN, least)
        except TimeoutError as error:
            raise self._read_timeout(bounds, error) from error
        except OSError as error:
            raise ReadError(_words(error)) from error
        if not found and least != seconds:
            raise self._read_timeout(bounds, None)
        return bool(found)

    def _read(self, receive: Callable[[Any], Any], what: Any, bounds: Bounds) -> Any:
        try:
            self._check()
            seconds = bounds.left("read")
            if bounds.alarmed:
                with bounds.ringing(self._stop):
                    data = self._receive(receive, what, seconds)
            else:
                data = self._receive(receive, what, seconds)
        except TimeoutError as error:
            raise self._read_timeout(bounds, error) from error
        except OSError as error:
            raise ReadError(_words(error)) from error
        if self._remember is not None:
            self._remember_session()
        return data

    def _receive(self, receive: Callable[[Any], Any], what: Any, seconds: float | None) -> Any:
        until = None if seconds is None else monotonic() + seconds
        events = select.POLLIN
        if self._more or (self._tls and self._pending()):
            data, events = self._attempt(receive, what, events)
            if data is not None:
                return data
        while self._wait(events, seconds):
            data, events = self._attempt(receive, what, select.POLLIN)
            if data is not None:
                return data
            seconds = None if until is None else max(0.0, until - monotonic())
        raise TimeoutError("nothing came in time")

    def _pending(self) -> bool:
        """Whether OpenSSL holds bytes that were read already: no wait would see them."""
        return bool(self._call(ssl.SSLSocket.pending, self._sock))

    def _remember_session(self) -> None:
        remember, self._remember = self._remember, None
        if remember is not None:
            remember(self._sock)

    def _read_timeout(self, bounds: Bounds, error: TimeoutError | None) -> ReadTimeout:
        bounds.timed_out()
        return ReadTimeout(str(error or "nothing came in time"))

    # ------------------------------------------------------------------------------------------------------ writing

    def write(
        self,
        data: bytes | list[bytes],
        bounds: Bounds,
        listening: bool = False,
        patience: float | None = None,
    ) -> bool:
        """Have the system take all of ``data``, after what is left of earlier writes. Raises WriteTimeout, WriteError.

        With ``listening`` it ends early, with False, when the peer's bytes come while the system takes no more of ours: the
        rest stays, and goes with the next write. ``patience``: seconds in which the system must take something, if the bounds
        are wider.

        ``bounds.sent`` is set unless it is sure that no byte of it can be read by the peer: the system refused the first.
        """
        try:
            self._check()
            seconds = bounds.left("write")
            if patience is not None and (seconds is None or patience < seconds):
                seconds = patience
            if bounds.alarmed:
                with bounds.ringing(self._stop):
                    return self._write(data, seconds, bounds, listening)
            return self._write(data, seconds, bounds, listening)
        except TimeoutError as error:
            bounds.timed_out()
            raise WriteTimeout(str(error)) from error
        except OSError as error:
            raise WriteError(_words(error)) from error

    def _write(
        self, data: bytes | list[bytes], seconds: float | None, bounds: Bounds, listening: bool
    ) -> bool:
        rest: Sequence[bytes | memoryview] = data if isinstance(data, list) else (data,)
        if self._unsent:
            rest = (*self._unsent, *rest)
            self._unsent = ()
        while rest:
            count, events = self._send(rest, bounds) if rest[0] else (0, 0)
            if count is not None:
                rest = rest_after(rest, count)
                continue
            found = self._wait(events | select.POLLIN if listening else events, seconds)
            if not found:
                raise TimeoutError("the peer took nothing in time")
            if listening and not found & events:
                self._unsent = rest
                return False
        return True

    def _send(self, parts: Sequence[bytes | memoryview], bounds: Bounds) -> tuple[int | None, int]:
        """How many bytes the system took, None: none now; and what to wait for before the next."""
        if self._tls:
            part: bytes | memoryview = parts[0]
            most = _TLS_PART if bounds.sent else _RECORD
            if len(part) > most:
                part = memoryview(part)[:most]
            send, what = self._sock.send, part
        elif len(parts) == 1:
            send, what = self._sock.send, parts[0]
        else:
            send, what = self._sock.sendmsg, parts[:_MOST_PARTS]  # type: ignore[assignment]
        # Set before, since a greenlet may be killed or a signal arrive in the middle; taken back where it is sure.
        before, bounds.sent = bounds.sent, True
        try:
            count, events = self._attempt(send, what, select.POLLOUT)
        except OSError:
            bounds.sent = before
            raise
        if count is None and not self._tls:
            bounds.sent = before
        return count or None, events  # gevent's TLS sends 0 bytes where others raise

    def write_now(self, data: bytes | memoryview) -> int:
        """Have the system take what it takes without waiting; how many bytes that is. What it did not take is to come first the
        next time. Raises WriteError. For who shares the stream with others; ``write`` is for who has it alone.
        """
        part = memoryview(data)[:_TLS_PART] if self._tls and len(data) > _TLS_PART else data
        try:
            self._check()
            with self._lock:
                count = self._call(self._sock.send, part) or 0
                self._awaited = self._wanted or select.POLLOUT
        except OSError as error:
            raise WriteError(_words(error)) from error
        return count

    def await_output(self, bounds: Bounds, *, listening: bool = False) -> None:
        """After a ``write_now`` that took too little: wait until the system takes more, or with ``listening`` until the peer's bytes
        come. Raises WriteTimeout, WriteError.
        """
        events = self._awaited
        try:
            self._check()
            seconds = bounds.left("write")
            with bounds.ringing(self._stop):
                found = self._wait(events | select.POLLIN if listening else events, seconds)
        except TimeoutError as error:
            bounds.timed_out()
            raise WriteTimeout(str(error)) from error
        except OSError as error:
            raise WriteError(_words(error)) from error
        if not found:
            bounds.timed_out()
            raise WriteTimeout("the peer took nothing in time")

    # ------------------------------------------------------------------------------------- the descriptor, its lock

    def _call(self, call: Callable[[Any], Any], what: Any) -> Any:
        """``call(what)``, which blocks on nothing; None where it would."""
        with self._lock:
            if self.closed:
                raise OSError("the connection is closed")
            self._wanted = 0
            try:
                return call(what)
            except BlockingIOError:
                return None
            except ssl.SSLWantReadError:
                self._wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                self._wanted = select.POLLOUT
            return None

    def _attempt(self, call: Callable[[Any], Any], what: Any, usual: int) -> tuple[Any, int]:
        """As ``_call``, and what to wait for before it is tried again; ``usual`` where OpenSSL names nothing else."""
        if not self._tls:
            return self._call(call, what), usual
        with self._lock:  # what it waits for is what this call does, not one in another thread
            return self._call(call, what), self._wanted or usual

    def _wait(self, events: int, seconds: float | None) -> int:
        """Wait for one of ``events``; those that came, 0 if the time is over. An error or the end counts as any of them."""
        reads = events == select.POLLIN
        with self._lock:
            if self.closed:
                raise OSError("the connection is closed")
            poll = self._in if reads else self._out
            if poll is None:
                poll = waiting_poll()
                if reads:
                    self._in = poll
                else:
                    self._out = poll
                poll.register(self._sock.fileno(), events)
            elif not reads:
                poll.modify(self._sock.fileno(), events)
            self._waiting += 1
        try:
            found = poll.poll(None if seconds is None else seconds * 1000.0)
        finally:
            self._waited()
        if not found:
            return 0
        came: int = found[0][1]
        return came if came & events else events

    def _wait_woken(self, seconds: float, bounds: Bounds) -> int:
        """``_wait`` for input, ended by ``bounds`` without harm to the connection."""
        waking, woken = socket.socketpair()
        with waking, woken:
            poll = waiting_poll()
            with self._lock:
                if self.closed:
                    raise OSError("the connection is closed")
                poll.register(self._sock.fileno(), select.POLLIN)
                poll.register(woken.fileno(), select.POLLIN)
                self._waiting += 1
            try:
                with bounds.ringing(lambda: waking.send(b"\0")):
                    return len(poll.poll(seconds * 1000.0))
            finally:
                self._waited()

    def _wait_until(self, events: int, until: float | None) -> None:
        if not self._wait(events, None if until is None else max(0.0, until - monotonic())):
            raise TimeoutError("not over in time")

    def _waited(self) -> None:
        with self._lock:
            self._waiting -= 1
            if self.closed and not self._waiting:
                self._sock.close()

    def _check(self) -> None:
        if self.closed:
            raise OSError("the connection is closed")
        if self._owner != os.getpid():
            raise OSError("the connection is another process's")

    def _stop(self) -> None:
        """Wake whoever waits for it, from another thread. The connection is of no use after that."""
        with self._lock, contextlib.suppress(OSError):  # the peer was faster
            if self._owner == os.getpid():
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def readable(self) -> bool:
        """Of an idle connection: the peer closed it, or sent what nobody asked for, or it is not ours to use. Waits for nothing."""
        with self._lock:
            if self.closed or self._owner != os.getpid():
                return True
            poll = self._idle_poll
            if poll is None:
                poll = new_poll()
                if poll is None:
                    return readable(self._sock.fileno())
                poll.register(self._sock.fileno(), select.POLLIN)
                self._idle_poll = poll
            if not poll.poll(0):
                return False
            if not self._tls:
                return True
            # A session ticket or a new key is nothing to the application.
            try:
                self._sock.recv(1)
            except ssl.SSLWantReadError:
                return False
            except OSError:
                return True
            return True

    def close(self) -> None:
        """End it. A read or a write in another thread fails. Twice is no error."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._in = self._out = self._idle_poll = None  # the descriptor's number will be another's
            if not self._waiting:
                self._sock.close()
                return
        self._stop()

    # --------------------------------------------------------------------------------------------------- what it is

    def start_tls(
        self,
        context: ssl.SSLContext,
        server_hostname: str | None,
        bounds: Bounds,
        seconds: float | None = None,
    ) -> Stream:
        """TLS from here on; this stream is of no use any more. Raises ConnectTimeout, ConnectError, and closes it then.

        ``seconds``: what is left of a connect timeout that runs already.
        """
        try:
            self._check()
            allowed = bounds.left("connect")
            seconds = allowed if seconds is None else seconds
            until = None if seconds is None else monotonic() + seconds
            self.begin_tls(context, server_hostname)
            with bounds.ringing(self._stop):
                while wanted := self.shake_hands():
                    self._wait_until(wanted, until)
        except TimeoutError as error:
            self.close()
            bounds.timed_out()
            raise ConnectTimeout(f"the TLS handshake: {error}") from error
        except (OSError, ValueError) as error:  # ValueError: a name that is none
            self.close()
            raise ConnectError(_words(error)) from error
        except BaseException:  # a greenlet is killed in the handshake
            self.close()
            raise
        return self.secured(context)

    def begin_tls(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        """The first step of ``start_tls``. Raises OSError, ValueError."""
        if self._tls:
            raise OSError("TLS within TLS is not supported")
        with self._lock:
            self._sock = context.wrap_socket(
                self._sock, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            self._in = self._out = self._idle_poll = None

    def shake_hands(self) -> int:
        """The second step, again and again: what it waits for, as an event of ``poll``; 0: it is done. Raises OSError."""
        return 0 if self._call(_handshake, self._sock) else self._wanted

    def secured(self, context: ssl.SSLContext) -> Stream:
        """The last step: the stream that goes on; this one is of no use any more."""
        self.closed = True  # the socket is the new stream's
        return Stream(self._sock, context.remember if isinstance(context, Handshakes) else None)

    def get_extra_info(self, name: str) -> Any:
        """As httpcore's ``NetworkStream``: ssl_object, client_addr, server_addr, socket, is_readable."""
        if name == "ssl_object":
            return self._sock if self._tls else None
        if name == "client_addr":
            return self._sock.getsockname()
        if name == "server_addr":
            return self._sock.getpeername()
        if name == "socket":
            return self._sock
        if name == "is_readable":
            return self.readable()
        return None


def _handshake(sock: Any) -> bool:
    sock.do_handshake()
    return True


def rest_after(parts: Sequence[bytes | memoryview], count: int) -> Sequence[bytes | memoryview]:
    """What is left of ``parts`` beyond ``count`` bytes."""
    for number, part in enumerate(parts):
        if count < len(part):
            rest = memoryview(part)[count:] if count else part
            return (rest, *parts[number + 1 :])
        count -= len(part)
    return ()


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
