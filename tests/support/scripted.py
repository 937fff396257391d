"""A server whose every connection is a function of the test's, and drivers of connections that tests call alike."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

import trio

from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.wire.dial import Place, connect
from meshlib.wire.dial_async import connect_async
from meshlib.wire.message import Outgoing

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

__all__ = ["Awaited", "Blocking", "Peer", "Scripted", "Trio", "bounds", "get", "post"]

CLOCK = MonotonicClock()


def bounds(**timeouts: float | None) -> Bounds:
    return Bounds(CLOCK, None, timeouts)


def get(target: bytes = b"/", *lines: tuple[bytes, bytes], **options: Any) -> Outgoing:
    return Outgoing(b"GET", target, [(b"Host", b"test"), *lines], **options)


def post(body: Any, *lines: tuple[bytes, bytes], **options: Any) -> Outgoing:
    framing = (
        (b"Content-Length", b"%d" % len(body))
        if isinstance(body, bytes)
        else (b"Transfer-Encoding", b"chunked")
    )
    return Outgoing(b"POST", b"/", [(b"Host", b"test"), *lines, framing], body, **options)


class Peer:
    """The server's side of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        self.sock = sock
        self._held = b""

    def head(self) -> bytes:
        """The next request's head; b"" at the end."""
        while b"\r\n\r\n" not in self._held:
            data = self.sock.recv(65_536)
            if not data:
                return b""
            self._held += data
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        return head

    def take(self, count: int) -> bytes:
        """So many bytes."""
        while len(self._held) < count:
            data = self.sock.recv(65_536)
            if not data:
                raise ConnectionError("the client closed in the middle")
            self._held += data
        data, self._held = self._held[:count], self._held[count:]
        return data

    def rest(self) -> bytes:
        """Until the client closes."""
        data, self._held = self._held, b""
        with contextlib.suppress(ConnectionError):
            while more := self.sock.recv(1_000_000):
                data += more
        return data

    def say(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ok(self, body: bytes = b"ok") -> None:
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


class Scripted:
    """Listens on 127.0.0.1 (or where ``listener`` does); ``serve`` has each connection, in a thread of its own.

    Attributes:
        failures: What ``serve`` raised; leaving the context raises the first.
        taken: How many connections there were.
    """

    def __init__(
        self,
        serve: Callable[[Peer], object],
        *,
        tls: ssl.SSLContext | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self._serve = serve
        self._tls = tls
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()  # guards _open and _ending
        self._open: list[socket.socket] = []
        self._ending = False
        self._threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []
        self.taken = 0

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with contextlib.suppress(OSError):  # wakes the thread that accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        # What was connected may not be accepted yet, and the client's side need not be closed before its loop runs again.
        self._threads[0].join(30)
        with self._lock:
            self._ending = True
            for one in self._open:
                with contextlib.suppress(OSError):  # the peer was first
                    socket.socket.shutdown(one, socket.SHUT_RDWR)  # wakes the thread that reads
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        for one in (self._listener, *self._open):
            one.close()
        if kind is None and self.failures:
            raise self.failures[0]

    def _start(self, target: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.taken += 1
            with self._lock:
                self._open.append(sock)
            self._start(self._run, sock)

    def _run(self, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                with self._lock:
                    if self._ending:
                        return
                    sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                    self._open.append(sock)  # the one before has no descriptor any more
                sock.do_handshake()
            self._serve(Peer(sock))
        except OSError:
            return  # the client went away: what that means is the test's matter
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            self.failures.append(error)
        finally:
            sock.close()


class Blocking:
    """Blocking connections."""

    def connect(self, place: Place, within: Bounds | None = None, trace: Any = None) -> Any:
        return connect(place, within or bounds(connect=20.0), trace)

    def send(self, connection: Any, request: Outgoing, within: Bounds | None = None) -> Any:
        return connection.send(request, within or bounds(read=20.0, write=20.0))

    def parts(self, parts: Iterable[bytes]) -> Any:
        return iter(parts)

    def read(self, response: Any) -> bytes:
        return response.read()  # type: ignore[no-any-return]

    def all_parts(self, response: Any) -> list[bytes]:
        return list(response)

    def drain(self, response: Any, most: int) -> bool:
        return response.drain(most)  # type: ignore[no-any-return]

    def close(self, response: Any) -> None:
        response.close()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A method that is a coroutine function in the other driver."""
        return function(*arguments)

    def settle(self) -> None:
        """What is due is done."""

    def end(self) -> None:
        pass


class Awaited:
    """The same over asynchronous ones, on a loop that runs while something is awaited."""

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._runner = asyncio.Runner(loop_factory=loop_factory)

    def connect(self, place: Place, within: Bounds | None = None, trace: Any = None) -> Any:
        return self.call(connect_async, place, within or bounds(connect=20.0), _awaited(trace))

    def send(self, connection: Any, request: Outgoing, within: Bounds | None = None) -> Any:
        request.trace = _awaited(request.trace)
        return self.call(connection.send, request, within or bounds(read=20.0, write=20.0))

    async def parts(self, parts: Iterable[bytes]) -> Any:
        for part in parts:
            yield part

    def read(self, response: Any) -> bytes:
        return self.call(response.aread)  # type: ignore[no-any-return]

    def all_parts(self, response: Any) -> list[bytes]:
        async def read() -> list[bytes]:
            return [part async for part in response]

        return self.call(read)  # type: ignore[no-any-return]

    def drain(self, response: Any, most: int) -> bool:
        return self.call(response.adrain, most)  # type: ignore[no-any-return]

    def close(self, response: Any) -> None:
        self.call(response.aclose)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._runner.run(function(*arguments))

    def settle(self) -> None:
        async def turns() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        self.call(turns)

    def end(self) -> None:
        self.settle()
        self._runner.close()


class Trio(Awaited):
    """The same under trio."""

    def __init__(self) -> None:
        pass

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        async def run() -> Any:
            with trio.fail_after(40):
                return await function(*arguments)

        return trio.run(run)

    def settle(self) -> None:
        pass

    def end(self) -> None:
        pass


def _awaited(trace: Any) -> Any:
    if trace is None:
        return None

    async def tell(name: str, info: dict[str, Any]) -> None:
        trace(name, info)

    return tell
