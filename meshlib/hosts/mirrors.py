"""Mirrored calls: sent on threads of their own, and nothing that becomes of them reaches a call (RW-04).

    call ──add──► queue, bounded ──► a few threads, begun on demand ──► our own wire ──► the answer is read, up to a bound, and dropped
                    └─ full: dropped, and counted as an overflow of the cluster that it was for

One home for blocking and asyncio calls alike: a loop would be slowed by what it drives, and may end with its caller. A mirrored call is
an exchange as others are, with a resolution that knows one route, to the cluster that is mirrored to: it is picked for, guarded, given
its token and judged as any, without retries, and no observer hears of it. The threads end when there is nothing to do.

A child of a fork has a runtime, and so a queue, of its own. Under gevent the threads are greenlets.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections import deque
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from meshlib.core.effects import Call
from meshlib.core.exchange import Exchange
from meshlib.core.match import CompiledRoutes, compile_routes
from meshlib.core.resolution import Resolution
from meshlib.errors import Overloaded
from meshlib.hosts.base import BaseHost, BaseWire
from meshlib.hosts.endpoints import WireSettings
from meshlib.hosts.errors import Errors
from meshlib.hosts.run import Caller
from meshlib.interceptors import CallPath
from meshlib.model.listener import Listener
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.route import Forward, Route, RouteConfiguration, VirtualHost
from meshlib.pools import PoolSettings
from meshlib.runtime import threads
from meshlib.runtime.clusters import LiveCluster

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshlib.core.attempt import Shadow
    from meshlib.core.exchange import Place
    from meshlib.hosts.body import OpenCall
    from meshlib.model.call import CallInfo, Head, Response
    from meshlib.model.headers import Headers
    from meshlib.runtime.runtime import Runtime

__all__ = ["Mirrors", "mirrors_of"]

_log = logging.getLogger("meshlib")

#: Threads at a time: what a cluster that hangs can hold of this process.
MOST_THREADS = 8
#: Calls that wait for one of them, and bytes of their bodies.
MOST_WAITING, MOST_BYTES = 256, 16 * 1024 * 1024
#: Of an answer so many bytes are read, so that its connection can be kept.
_MOST_READ = 1024 * 1024
#: Seconds after which a thread that has nothing to do ends.
_IDLE = 2.0
_WITH_BODY = frozenset({"PATCH", "POST", "PUT"})

_ANY = RouteMatch(PathMatch(PathKind.PREFIX, ""))
_LISTENER = Listener("mirror", from_file=True)


class _Mirrored:
    """A call that is mirrored, as :class:`meshlib.hosts.base.BaseWire` reads it."""

    __slots__ = ("body", "head", "place", "seconds", "shadow")

    def __init__(self, shadow: Shadow, body: bytes) -> None:
        self.shadow = shadow
        self.head: Head = shadow.head
        self.body = body or None
        host, port = self.head.authority, None
        self.place: Place = (self.head.scheme, host, port, host)
        framed = {b"content-length", b"transfer-encoding"}
        if not any(name.lower() in framed for name, _ in self.head.headers.raw) and (
            body or self.head.method in _WITH_BODY
        ):
            self.head.headers.raw.append((b"Content-Length", b"%d" % len(body)))


class _Host(BaseHost):
    """Whose answers nobody reads."""

    errors = Errors.of(
        connect=ConnectionError,
        connect_timeout=TimeoutError,
        read=OSError,
        read_timeout=TimeoutError,
        write=OSError,
        write_timeout=TimeoutError,
        protocol=OSError,
        disconnected=ConnectionError,
        overloaded=OSError,
        request=ValueError,
    )

    def arrived_directly(self, response: Any) -> Any:
        raise NotImplementedError  # no mirrored call is direct

    def deliver(self, _request: Any, response: Any, headers: Headers | None, call: OpenCall) -> Any:  # noqa: ARG002
        read = 0
        try:
            for part in response:
                read += len(part)
                if read > _MOST_READ:
                    break
        except Exception as error:
            raise call.broken(error) from error
        finally:
            response.close()
            call.end()

    def direct(self, _request: Any, response: Any, info: CallInfo | None) -> Any:
        raise NotImplementedError

    def reply(self, _request: Any, response: Response, info: CallInfo | None) -> Any:
        """The mesh answers by itself: nothing is sent."""


class _Around:
    """What an exchange asks of its surroundings (:class:`meshlib.core.exchange.Surroundings`), for one mirrored call."""

    __slots__ = ("config", "env", "resolution", "tokens")

    def __init__(self, runtime: Runtime, shadow: Shadow) -> None:
        self.config = runtime.config
        self.tokens = runtime.tokens
        self.env = replace(runtime.env, emit=None, limits=None, sessions=None)
        routes = _routes(shadow.cluster)
        self.resolution = Resolution(
            "mesh", "a mirrored call", part=shadow.part, listener=_LISTENER, routes=routes
        )

    @property
    def view(self) -> Any:
        return self

    def resolve(self, *_: Any) -> Resolution:
        return self.resolution

    def want(self, name: str, authority: str = "") -> None:
        pass

    def patience(self, resolution: Resolution, timeout: float) -> float:  # noqa: ARG002
        return 0.0

    def known(self, view: Any, place: Place) -> bool:  # noqa: ARG002
        return True

    def settled(self, *_: Any) -> Resolution:
        return self.resolution

    def suspect(self) -> None:
        pass

    def mirror(self, *_: Any) -> None:
        pass

    def compare(self, *_: Any) -> None:
        pass


@lru_cache(maxsize=256)
def _routes(cluster: str) -> CompiledRoutes:
    route = Route(_ANY, Forward(cluster=cluster), name="mirror")
    return compile_routes(RouteConfiguration("mirror", (VirtualHost("mirror", ("*",), (route,)),)))


class Mirrors:
    """The mirrored calls of one runtime. Thread-safe; ``add`` never blocks and never raises.

    Lock: ``_ready`` guards the queue, the counts and how many threads there are; it is held for no work.

    Attributes:
        sent: How many were begun; ``dropped``: how many were not.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ready = threading.Condition(threading.Lock())
        self._waiting: deque[_Mirrored] = deque()
        self._bytes = 0
        self._threads = 0
        self._idle = 0
        self._told = False
        self.sent = 0
        self.dropped = 0
        settings = WireSettings(ssl=_context, pool=PoolSettings(max_idle=MOST_THREADS))
        self._host: Any = _Host()
        self._caller: Caller[Any, Any] = Caller(
            self._host, lambda: runtime, partial(BaseWire, settings, None), CallPath()
        )

    def add(self, shadows: Iterable[Shadow], body: bytes | None) -> None:
        """Send these, some time soon. ``body`` None: it is not at hand whole, and so nothing is sent."""
        for shadow in shadows:
            if body is None or not self._put(_Mirrored(shadow, body), len(body)):
                self._drop(shadow, body is None)

    def _put(self, mirrored: _Mirrored, size: int) -> bool:
        with self._ready:
            if len(self._waiting) >= MOST_WAITING or self._bytes + size > MOST_BYTES:
                return False
            self._waiting.append(mirrored)
            self._bytes += size
            begin = self._idle < len(self._waiting) and self._threads < MOST_THREADS
            if begin:
                self._threads += 1
            else:
                self._ready.notify()
        if begin:
            self._begin()
        return True

    def _begin(self) -> None:
        try:
            threads.start(threading.Thread(target=self._run, name="meshlib-mirror", daemon=True))
        except RuntimeError:  # there can be no more threads: those that there are do it, or nobody
            with self._ready:
                self._threads -= 1

    def _drop(self, shadow: Shadow, unread: bool) -> None:
        upstream = self._runtime.clusters.get(shadow.part, shadow.cluster)
        if isinstance(upstream, LiveCluster):
            upstream.overflow()
        with self._ready:
            self.dropped += 1
            told, self._told = self._told, True
        if not told:
            why = "a body is not at hand whole" if unread else f"{len(self._waiting)} wait already"
            _log.warning("meshlib: calls are not mirrored to cluster %r: %s (told once)", shadow.cluster, why)

    def _run(self) -> None:
        while True:
            mirrored = self._next()
            if mirrored is None:
                return
            try:
                self._send(mirrored)
            except Exception as error:  # noqa: BLE001 - whatever becomes of it is nobody's
                _log.debug("meshlib: a call mirrored to %s failed: %s", mirrored.shadow.cluster, error)

    def _next(self) -> _Mirrored | None:
        """What is to be sent; None: nothing came for a while, and the thread is not counted any more."""
        with self._ready:
            if not self._waiting:
                self._idle += 1
                self._ready.wait_for(lambda: bool(self._waiting), _IDLE)
                self._idle -= 1
            if not self._waiting:
                self._threads -= 1
                return None
            mirrored = self._waiting.popleft()
            self._bytes -= len(mirrored.body or b"")
            self.sent += 1
            return mirrored

    def _send(self, mirrored: _Mirrored) -> None:
        runtime = self._runtime
        if runtime.closed:
            raise Overloaded("the mesh is closed")
        around: Any = _Around(runtime, mirrored.shadow)

        def read(resolution: Resolution) -> Call:
            seconds = mirrored.shadow.seconds
            return Call(resolution, mirrored.head, timeout=seconds, retry=False, url="")

        self._caller.finish(mirrored, runtime, Exchange(around, mirrored.place, read, plain=False))


def mirrors_of(runtime: Runtime) -> Mirrors:
    """Those of this runtime, made on first use."""
    known = vars(runtime)
    found: Mirrors | None = known.get("mirrors")
    # setdefault is atomic: threads that come at once get the same.
    return found if found is not None else known.setdefault("mirrors", Mirrors(runtime))


@lru_cache(maxsize=2)
def _context(http2: bool) -> ssl.SSLContext:  # noqa: ARG001 - it says so by itself
    """For ``https`` URLs whose TLS the mesh does not say."""
    return ssl.create_default_context()
