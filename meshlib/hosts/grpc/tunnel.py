"""TLS for grpc's connections, made by ours: grpc speaks plain text to a Unix socket of this process, and a thread hands its bytes on.

grpcio's own TLS checks one name, against all kinds of names that a certificate has, and shows and trusts what it was given once.
What a mesh demands beyond that (URIs of SPIFFE, pins, revocation, protocols and versions, files that change) our contexts do
(:mod:`meshlib.runtime.tls`), for gRPC as for HTTP.

Theory. A *tunnel* leads to one place, the way there included: address, TLS, name, timeout. It listens at a path of its own, which
is the target of grpc's channels to that place; channels that lead to equal places share it, as they share grpc's connections. Each
connection of grpc's to it gets one of ours to the endpoint:

    grpc connects ──► the endpoint is dialled, in a thread of its own: name, socket, handshake, names of the certificate
        it stands                          ──► a pipe (:mod:`meshlib.hosts.grpc.pipe`); grpc is READY once the endpoint's SETTINGS came
        it does not, or takes too long     ──► grpc's connection is closed; the tunnel keeps why (``error``)
        the tunnel is closed meanwhile     ──► the dialling is stopped

    a tunnel    open ──its last user leaves──► closed: it listens no more; pipes that carry something go on until grpc closes them
    the thread  none ──a tunnel is opened──► running ──no tunnel, no pipe, nothing dialled──► none

No byte of grpc's is read before the endpoint is known to be who it must be.

Who may connect: only this process. The sockets are in a directory that only its user can enter, and the kernel tells the process
at the other end, which must be this one; where it cannot tell, there are no tunnels. A process removes its directory at its end; where
it was killed, the next one of that user does.

Forks: everything here belongs to one process. A child closes what it has of its parent's, at the fork or on first use.

Lock: ``_lock`` of a switch guards its tunnels, the dials under way and whether its thread runs. What polls and pipes do is the
thread's alone, and others post to it.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import select
import socket
import sys
import threading
from collections import deque
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from meshlib.errors import ConfigError
from meshlib.hosts.grpc.pipe import Pipe, scratch
from meshlib.hosts.grpc.private import TELLS, Folder, peer
from meshlib.pools.bounds import Bounds
from meshlib.runtime import threads
from meshlib.runtime.clock import MonotonicClock
from meshlib.runtime.greenlets import patched
from meshlib.runtime.process import Local, settle_before_fork
from meshlib.wire.dial import Place, open_stream
from meshlib.wire.errors import ConnectError, WireError
from meshlib.wire.readable import waiting_poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshlib.wire.stream import Stream

__all__ = ["Tunnel", "tunnel_to"]

#: Seconds until a listener that found no descriptor left is looked at again.
_PAUSE = 0.1
#: Seconds for which a fork waits for what was closed just before.
_SETTLE = 1.0
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = logging.getLogger("meshlib")
_CLOCK = MonotonicClock()


def tunnel_to(place: Place, seconds: float | None, generation: object = None) -> Tunnel:
    """This process's tunnel to ``place``, for one more user. Thread-safe. ``seconds``: for connecting, the handshake included;
    ``generation``: tunnels of two share nothing. Raises ConfigError where there can be none.
    """
    return _here.get().open(place, seconds, generation)


class Tunnel:
    """Made by :func:`tunnel_to`. ``uri``: grpc's target; ``error``: why the last connection could not be made, ``""`` once one is."""

    def __init__(self, switch: _Switch, key: object, place: Place, seconds: float | None, path: str) -> None:
        self._switch = switch
        self.key = key
        self.place = place
        self.seconds = seconds
        self.path = path
        self.uri = f"unix:{quote(path)}"
        self.error = ""
        self.users = 0
        self.dials: set[_Dial] = set()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.listener.bind(path)
            self.listener.listen(128)
            self.listener.setblocking(False)
        except BaseException:
            self.listener.close()
            raise

    def close(self) -> None:
        """One user less."""
        self._switch.leave(self)

    def heard(self, why: str) -> None:
        """A connection got its first bytes, or ``why`` it did not."""
        place = f"{self.place}: "
        self.error = f"{place}{why.removeprefix(place)}" if why else ""


class _Dial(Bounds):
    """The bounds of one dial, for ``inner``, a connection of grpc's. It may be stopped, from another thread."""

    __slots__ = ("_stop", "inner", "stopped")

    def __init__(self, inner: socket.socket, seconds: float | None) -> None:
        super().__init__(_CLOCK, None, {"connect": seconds})
        self.inner = inner
        self.stopped = False
        self._stop: Callable[[], object] | None = None

    @contextlib.contextmanager
    def ringing(self, stop: Callable[[], object]) -> Iterator[None]:
        self._stop = stop
        try:
            if self.stopped:
                stop()
            yield
        finally:
            self._stop = None

    def stop(self) -> None:
        self.stopped = True
        stop = self._stop
        if stop is not None:
            stop()


class _Switch:
    """One process's tunnels, and their thread."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        _left_by_a_fork()
        _switches.append(self)
        self._lock = threading.Lock()
        self._quiet = threading.Condition(self._lock)
        self._tunnels: dict[object, Tunnel] = {}
        self._folder: Folder | None = None
        self._dials = 0
        self._wires: _Wires | None = None
        self._thread: threading.Thread | None = None  # the last, which may be about to end

    def open(self, place: Place, seconds: float | None, generation: object) -> Tunnel:
        key = (place, seconds, generation)
        with self._lock:
            tunnel = self._tunnels.get(key)
            if tunnel is None:
                tunnel = self._tunnels[key] = self._made(key, place, seconds)
            tunnel.users += 1
        return tunnel

    def _made(self, key: object, place: Place, seconds: float | None) -> Tunnel:
        if not TELLS:
            raise ConfigError(f"TLS for gRPC: {sys.platform} does not tell who connects to a Unix socket")
        try:
            wires = self._wires if self._wires is not None else self._started()
            if self._folder is None:
                self._folder = Folder()
            tunnel = Tunnel(self, key, place, seconds, self._folder.path())
        except (OSError, RuntimeError) as error:  # RuntimeError: there are as many threads as there may be
            if self._wires is not None:
                self._wires.post(_nothing)  # it ends, where this was to be the first
            raise ConfigError(f"TLS for gRPC: no Unix socket can be made: {error}") from error
        wires.post(partial(wires.watch, tunnel.listener, select.POLLIN, partial(self._accept, tunnel)))
        return tunnel

    def _started(self) -> _Wires:
        wires = _Wires()
        run = partial(wires.run, partial(self._over, wires))
        thread = threading.Thread(target=run, name="meshlib-tunnel", daemon=True)
        try:
            threads.start(thread)
        except RuntimeError:
            wires.abandon()
            raise
        self._wires, self._thread = wires, thread
        return wires

    def leave(self, tunnel: Tunnel) -> None:
        if self.owner != os.getpid():
            return
        with self._lock:
            tunnel.users -= 1
            if tunnel.users:
                return
            del self._tunnels[tunnel.key]
            with contextlib.suppress(OSError):
                Path(tunnel.path).unlink()
            wires = self._wires
            assert wires is not None, "it runs as long as there is a tunnel"
            wires.post(partial(wires.drop, tunnel))
            dials = list(tunnel.dials)
        for dial in dials:
            dial.stop()

    def _over(self, wires: _Wires) -> bool:
        """Whether the thread may end; if so, it has."""
        with self._lock:
            self._quiet.notify_all()
            if self._tunnels or self._dials or wires.busy:
                return False
            self._wires = None
            folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()
        return True

    # --- in the thread ----------------------------------------------------------------------------------------------------

    def _accept(self, tunnel: Tunnel, events: int) -> None:
        del events
        wires = self._wires
        assert wires is not None
        try:
            inner, _ = tunnel.listener.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                tunnel.heard(str(error))
                wires.rest(tunnel.listener, _PAUSE)
            return
        if not _is_ours(inner):
            inner.close()
            return
        inner.setblocking(False)
        dial = _Dial(inner, tunnel.seconds)
        with self._lock:
            self._dials += 1
            tunnel.dials.add(dial)
        arguments = tunnel, dial, wires
        thread = threading.Thread(target=self._connect, args=arguments, daemon=True, name="meshlib-dial")
        try:
            threads.start(thread)
        except RuntimeError as error:  # there are as many as there may be
            tunnel.heard(str(error))
            self._dialled(tunnel, dial, None, wires)

    # --- in a thread of its own -------------------------------------------------------------------------------------------

    def _connect(self, tunnel: Tunnel, dial: _Dial, wires: _Wires) -> None:
        stream: Stream | None = None
        try:
            stream = _connected(tunnel.place, dial)
        except WireError as error:
            tunnel.heard(str(error))
        except Exception as error:  # noqa: BLE001 - logged, and kept for whoever calls
            tunnel.heard(str(error))
            _log.exception("meshlib: a tunnel to %s failed", tunnel.place)
        finally:
            self._dialled(tunnel, dial, stream, wires)

    def _dialled(self, tunnel: Tunnel, dial: _Dial, stream: Stream | None, wires: _Wires) -> None:
        """It is over."""
        if stream is None:
            dial.inner.close()
        with self._lock:
            tunnel.dials.discard(dial)
            self._dials -= 1
            wires.post(_nothing if stream is None else partial(wires.join, tunnel, dial.inner, stream))

    # --- around a fork ----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until what is closed is gone."""
        until = monotonic() + _SETTLE
        with self._lock:
            thread = self._thread
            if self._tunnels:
                return
            while self._wires is not None and (left := until - monotonic()) > 0:
                self._quiet.wait(left)
        if thread is not None and self._wires is None:
            threads.join(thread, max(0.0, until - monotonic()))

    def remove_files(self) -> None:
        """The process ends, whoever has tunnels still."""
        with self._lock:
            folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()

    def abandon(self) -> None:
        """Close what this process has of another's, without a lock: its threads are not here."""
        for tunnel in list(self._tunnels.values()):
            tunnel.listener.close()
            for dial in list(tunnel.dials):
                dial.inner.close()
        if self._wires is not None:
            self._wires.abandon()
        if self._folder is not None:
            self._folder.abandon()


class _Wires:
    """What one thread polls. ``post`` is for all threads, the rest for its own."""

    def __init__(self) -> None:
        self._poll, self._unit = _poller()
        self._told: dict[int, Callable[[int], object]] = {}
        self._pipes: dict[Pipe, Tunnel] = {}
        self._posted: deque[Callable[[], object]] = deque()
        self._resting: list[tuple[float, socket.socket]] = []
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        self.scratch = scratch()
        self.watch(self._ear, select.POLLIN, self._heard)

    @property
    def busy(self) -> bool:
        return bool(self._pipes or self._posted)

    def post(self, work: Callable[[], object]) -> None:
        """Have the thread do something soon. Of any thread."""
        self._posted.append(work)
        with contextlib.suppress(OSError):  # it is full, so the thread will wake; or the thread is over
            self._bell.send(b"\0")

    def watch(self, sock: socket.socket, events: int, then: Callable[[int], object]) -> None:
        self._told[sock.fileno()] = then
        self._poll.register(sock.fileno(), events)

    def change(self, sock: socket.socket, events: int) -> None:
        self._poll.modify(sock.fileno(), events)

    def leave(self, sock: socket.socket) -> None:
        if self._told.pop(sock.fileno(), None) is not None:
            self._poll.unregister(sock.fileno())

    def drop(self, tunnel: Tunnel) -> None:
        """Listen no more. grpc would wait 20 s for the SETTINGS of who says nothing, after its channel was closed, too."""
        listener = tunnel.listener
        self._resting = [entry for entry in self._resting if entry[1] is not listener]
        self.leave(listener)
        listener.close()
        for pipe, of in list(self._pipes.items()):
            if of is tunnel and pipe.silent:
                pipe.close()

    def rest(self, listener: socket.socket, seconds: float) -> None:
        """Listen to nobody for a while."""
        self.change(listener, 0)
        self._resting.append((monotonic() + seconds, listener))

    def join(self, tunnel: Tunnel, inner: socket.socket, stream: Stream) -> None:
        """Hand on bytes between the two, to their end."""
        handshakes = tunnel.place.handshakes
        remember = None if handshakes is None else handshakes.remember
        pipe = Pipe(self, inner, stream, remember, tunnel.heard, self._pipes.pop)
        self._pipes[pipe] = tunnel
        if not tunnel.users:
            pipe.close()
            return
        try:
            pipe.begin()
        except OSError:
            pipe.close()
            raise

    def run(self, over: Callable[[], bool]) -> None:
        poll, unit, told, posted = self._poll.poll, self._unit, self._told, self._posted
        try:
            while True:
                for number, events in poll(_PAUSE * unit if self._resting else None):
                    then = told.get(number)
                    if then is not None:
                        _guarded(then, events)
                while posted:
                    _guarded(posted.popleft())
                if self._resting:
                    self._wake_up()
                if not self._pipes and over():
                    return
        finally:
            self.abandon()

    def abandon(self) -> None:
        for pipe in list(self._pipes):
            pipe.abandon()
        self._ear.close()
        self._bell.close()
        if hasattr(self._poll, "close"):
            self._poll.close()

    def _wake_up(self) -> None:
        now = monotonic()
        for when, listener in list(self._resting):
            if now >= when:
                self._resting.remove((when, listener))
                self.change(listener, select.POLLIN)

    def _heard(self, events: int) -> None:
        del events
        with contextlib.suppress(OSError):
            self._ear.recv(4096)


def _is_ours(inner: socket.socket) -> bool:
    try:
        return peer(inner) == os.getpid()
    except OSError:
        return False


def _connected(place: Place, bounds: Bounds) -> Stream:
    stream = open_stream(place, bounds)
    if stream.protocol is None:  # as grpc's own TLS, which goes on with nobody who does not choose it
        stream.close()
        raise ConnectError(f"{place}: the endpoint does not choose HTTP/2 by ALPN")
    return stream


def _nothing() -> None:
    """What is posted to wake the thread."""


def _guarded(step: Callable[..., object], *arguments: object) -> None:
    """The thread serves all tunnels: what goes wrong with one does not end it."""
    try:
        step(*arguments)
    except Exception:  # noqa: BLE001 - logged
        _log.exception("meshlib: a tunnel of gRPC's failed")


def _poller() -> tuple[Any, float]:
    """What waits for sockets, and how many of its units a second has. Under gevent only the greenlet waits."""
    if hasattr(select, "epoll") and not patched("socket"):
        return select.epoll(), 1.0
    return waiting_poll(), 1000.0


#: Of this process, and what a fork left of its parent's.
_switches: list[_Switch] = []


def _left_by_a_fork() -> None:
    for switch in list(_switches):
        if switch.owner != os.getpid():
            switch.abandon()
            _switches.remove(switch)


_here = Local(_Switch)
settle_before_fork(lambda: _here.get().settle())
atexit.register(lambda: _here.get().remove_files())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_left_by_a_fork)
