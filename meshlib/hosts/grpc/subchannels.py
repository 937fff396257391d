"""The connections of one channel of ours: a channel of grpc's own to each endpoint, made on first use.

grpc keeps the TCP connections of a process in one pool, by address and options: channels of ours to the same endpoints share
them. More connections to an endpoint are opened when the streams of those that stand are used up (gRFC A105); that is grpc's own
doing, once it is told to.

Where the cluster bounds their age (``max_connection_age``), one that is older gives way to another before the next call, and is closed
once its calls are over. grpc would give the new one the old one's TCP connection, were it not for an option that differs: the number
of its *generation*. Channels of ours that connect to an endpoint in the same generation share connections as always; the first
that finds it too old begins the next.

Which of them stand is asked without a thread. A subchannel that could not connect is *marked* on its endpoint, so that the
choice passes it over while others can be reached; its state is then looked at every ``_LOOK`` seconds, which also makes it
connect again, until it stands. One that takes longer than ``_SLOW`` to connect is marked, too.

    new, standing ──an attempt could not connect, or connects for long──► marked ──it stands, or its endpoint left──► standing

Where the application's service config has health checks (gRFC A17), grpc's own core makes them, one ``Watch`` for each connection that is in use: it is told to, and
one whose endpoint does not serve is not standing. Those are looked at as long as they are there, so that who does not serve is marked before a call meets it.

Who observes connections (gRFC A94, A118) is told of what the looks see, and only then are those that stand looked at, too: one
that breaks and stands again between two looks is not seen, and one that fails to connect again and again has failed once.

Locks: ``_lock`` guards making, marking and removing, never a look-up or a call of grpc's that may block. So a call may find one that
is about to be closed: it says that it uses it, looks whether it is ``leaving``, and then takes another; whoever closes says so
first, and then looks who uses it.
"""

from __future__ import annotations

import itertools
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from meshlib.errors import ConfigError, NoHealthyEndpoint
from meshlib.hosts.grpc.out_of_band import LoadStream
from meshlib.hosts.grpc.settings import inner_options, uri
from meshlib.hosts.grpc.subchannel import Subchannel, limits_of
from meshlib.hosts.tls import rotations
from meshlib.model.call import OutcomeKind
from meshlib.model.events import CONNECTED, DISCONNECTED, FAILED, ConnectionChanged
from meshlib.model.policy import Balancer
from meshlib.sources.stream import channels_closed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.attempt import Send
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import Leaf
    from meshlib.hosts.grpc.out_of_band import Begin
    from meshlib.hosts.grpc.settings import Settings
    from meshlib.hosts.grpc.target import Target
    from meshlib.hosts.grpc.way import Way
    from meshlib.model.endpoint import Endpoint
    from meshlib.model.tls import Tls
    from meshlib.runtime.runtime import Runtime

__all__ = ["Subchannels"]

#: States of a connection, as grpc's core numbers them.
READY, TRANSIENT_FAILURE, SHUTDOWN = 2, 3, 4

#: Seconds between looks at what is marked, and at what is being closed.
_LOOK = 0.1
_DRAIN = 1.0
#: gRFC A61's (RFC 8305) time after which another address is tried while one connects. Seconds.
_SLOW = 0.25

#: What ``telemetry.metrics`` says where connections are observed.
_CONNECTIONS = frozenset({"grpc.client.tls.handshakes", "grpc.subchannel"})

_generations = itertools.count(1)


def _generation(endpoint: LiveEndpoint, age: float | None, now: float) -> tuple[int, float]:
    """The number of the connections that are made now, 0 where their age is not bounded, and when the first of them was begun."""
    if age is None:
        return 0, now
    current = endpoint.generation
    if current is None or now - current[1] >= age:
        # Without a lock: of two channels that come at once each may begin one, and shares nothing with the other until the next.
        current = endpoint.generation = next(_generations), now
    return current


def _no_tls(upstream: Leaf, error: ConfigError) -> NoHealthyEndpoint:
    return NoHealthyEndpoint(f"cluster {upstream.cluster.name!r} demands TLS, which cannot be had: {error}")


def _ends(sub: Subchannel[Any]) -> bool:
    return sub.leaving or sub.endpoint is None or sub.endpoint.gone


C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)


class Maker(Protocol[C_co]):
    """Makes a channel of grpc's own, past whoever patched its factories."""

    def __call__(
        self, target: str, options: Sequence[tuple[str, Any]], credentials: Any, compression: Any
    ) -> C_co: ...


class Subchannels(Generic[C]):
    """Of one channel, in one process or event loop. Thread-safe where ``make`` and ``later`` are.

    Args:
        target: The channel's.
        make: Makes a channel of grpc's.
        state: Gives one's state, as the core numbers it; its second argument says whether it shall connect.
        close: Closes one.
        later: Calls something some seconds from now, in the worker or the loop.
        rest: Closes one at once, in the thread that forks.
        stream: Begins streams of load reports on one.
        refusal: Why none to an endpoint can be made in this process, in words; ``""``: they can.
    """

    def __init__(
        self,
        runtime: Runtime,
        target: Target,
        settings: Settings,
        make: Maker[C],
        state: Callable[[C, bool], int],
        close: Callable[[C], object],
        later: Callable[[float, Callable[[], object]], object],
        rest: Callable[[C], object],
        stream: Callable[[C], Begin],
        refusal: Callable[[], str] = str,
    ) -> None:
        self._runtime = runtime
        self._target = target
        self.settings = settings
        self._secure = settings.given.secure
        self._make = make
        self._state = state
        self._close_one = close
        self._later = later
        self._rest_one = rest
        self._stream = stream
        self._refusal = refusal
        self._lock = threading.Lock()
        self._view: object = runtime.view
        self._rotations = rotations.count
        # By endpoint and authority, of which there may be two: the channel's, and the endpoint's name (gRFC A81).
        self._found: dict[tuple[LiveEndpoint, str], tuple[Endpoint, Subchannel[C]]] = {}
        self._watched: list[Subchannel[C]] = []
        self._draining: list[Subchannel[C]] = []
        self._looking = self._drains = False
        self._observed = not _CONNECTIONS.isdisjoint(runtime.config.telemetry.metrics)
        self.closed = False
        self._own: Subchannel[C] | None = None
        runtime.rests(self)

    def get(self, attempt: Send, user: object) -> Subchannel[C]:
        """The one to ``attempt.endpoint``, with ``user``, the call, among its users: until it is over, or makes another attempt.
        Raises NoHealthyEndpoint for TLS that is demanded and cannot be had and where grpc cannot be used, and ValueError once closed.
        """
        while True:
            sub = self._current(attempt)
            sub.users[user] = None
            if not sub.leaving:
                return sub
            del sub.users[user]

    def _current(self, attempt: Send) -> Subchannel[C]:
        if self._runtime.view is not self._view or rotations.count != self._rotations:
            self._sweep()
        endpoint, authority = attempt.endpoint, attempt.head.authority
        found = self._found.get((endpoint, authority))
        if (
            found is not None
            and found[0] is endpoint.endpoint
            and found[1].serves(self._demanded(endpoint), attempt.began)
        ):
            sub = found[1]
        else:
            refused = self._refusal()
            if refused:
                raise NoHealthyEndpoint(refused)
            sub = self._put(endpoint, attempt.upstream, authority)
        if not sub.seen_ready:
            self._watch(sub)
        return sub

    def own(self) -> Subchannel[C]:
        """The one to the target as it is. Raises ValueError once closed."""
        own = self._own
        if own is None:
            with self._lock:
                own = self._own
                if own is None:
                    self._refuse_closed()
                    settings = self.settings
                    made = self._make(
                        self._target.text, settings.options, settings.credentials, settings.compression
                    )
                    own = self._own = Subchannel(made, None, None)
        return own

    def own_for(self, user: object) -> Subchannel[C]:
        """The same, with ``user`` as for ``get``."""
        while True:
            own = self.own()
            own.users[user] = None
            if not own.leaving:
                return own
            del own.users[user]

    def unconnected(self, sub: Subchannel[C], words: str, kind: OutcomeKind = OutcomeKind.CONNECT) -> None:
        """An attempt could not connect, or (``kind``) the endpoint does not serve, in the core's ``words``."""
        if kind is OutcomeKind.CONNECT:
            self._tell(sub, FAILED, words)
        with self._lock:
            if sub.leaving:
                return
            sub.seen_ready = False
            self._mark(sub)
        self._watch(sub)

    def connected(self, sub: Subchannel[C]) -> bool:
        """Whether it stands now."""
        return not self.closed and self._state(sub.channel, False) == READY

    def own_state(self, *, connect: bool) -> int:
        """Of the one to the target as it is, which is to ``connect``."""
        return self._state(self.own().channel, connect)

    def states(self) -> list[int]:
        """Of all to endpoints that there are."""
        return [self._state(sub.channel, False) for _, sub in list(self._found.values())]

    def connect(self, endpoint: LiveEndpoint, upstream: Leaf, authority: str) -> None:
        """Begin to connect to ``endpoint``, if that was not begun. Raises NoHealthyEndpoint as ``get``."""
        found = self._found.get((endpoint, authority))
        sub = found[1] if found is not None else self._put(endpoint, upstream, authority)
        self._state(sub.channel, True)

    def close(self) -> None:
        """Close all at once: calls under way are cancelled, as grpc does."""
        with self._lock:
            self.closed = True
            subs = self._all()
            for sub in subs:
                self._unmark(sub)
            self._found, self._watched, self._draining, self._own = {}, [], [], None
        self._close_all(subs, self._close_one)

    def rest(self) -> None:
        """A fork comes, which grpc survives without channels only: close those that no call uses. They are made anew on use."""
        with self._lock:
            subs, found, own = self._all(), self._found, self._own
            # Taken away first: whoever comes waits for the lock.
            self._found, self._own = {}, None
            stay = [sub for sub in subs if not sub.leaving]
            for sub in stay:
                sub.leaving = True
            idle = {sub for sub in subs if sub.idle}
            for sub in stay:
                sub.leaving = sub in idle
            self._found = {key: entry for key, entry in found.items() if entry[1] not in idle}
            self._own = None if own in idle else own
            for sub in idle:
                self._unmark(sub)
            self._watched = [sub for sub in self._watched if sub not in idle]
            self._draining = [sub for sub in self._draining if sub not in idle]
        for sub in idle:
            self._tell(sub, DISCONNECTED, "subchannel shutdown")
            sub.shut()
            self._rest_one(sub.channel)
        if idle and len(idle) == len(subs):
            channels_closed()

    @property
    def needs(self) -> str:
        return self._runtime.view.resolve(*self._target.place).name if self._found else ""

    def _all(self) -> list[Subchannel[C]]:
        found = [sub for _, sub in self._found.values()] + self._draining
        return found if self._own is None else [*found, self._own]

    # --- making and leaving -----------------------------------------------------------------------------------------------

    def _put(self, endpoint: LiveEndpoint, upstream: Leaf, authority: str) -> Subchannel[C]:
        config, tls, now = endpoint.endpoint, self._demanded(endpoint), self._runtime.clock.now()
        way = self._way(tls, endpoint, upstream, authority)
        with self._lock:
            self._refuse_closed()
            found = self._found.get((endpoint, authority))
            if found is not None:
                before, sub = found
                if before.address == config.address and now < sub.until and sub.way == way:
                    sub.confirm(tls)
                    self._found[endpoint, authority] = config, sub
                    return sub
                self._drain(sub)
            sub = self._made(endpoint, upstream, authority, tls, way, now)
            begin, random = self._stream(sub.channel), self._runtime.random
            sub.reports = LoadStream(upstream.loads, endpoint, begin, self._later, random)
            self._found[endpoint, authority] = config, sub
            return sub

    def _demanded(self, endpoint: LiveEndpoint) -> Tls | None:
        """The mesh's TLS, where that is to be made; None: it demands none, or the application's holds."""
        return None if self._secure else endpoint.tls

    def _way(self, tls: Tls | None, endpoint: LiveEndpoint, upstream: Leaf, authority: str) -> Way | None:
        if tls is None:
            return None
        from meshlib.hosts.grpc.way import way_to  # not every mesh has TLS

        try:
            return way_to(tls, endpoint, upstream, authority, self._runtime.worker)
        except ConfigError as error:
            raise _no_tls(upstream, error) from error

    def _made(
        self,
        endpoint: LiveEndpoint,
        upstream: Leaf,
        authority: str,
        tls: Tls | None,
        way: Way | None,
        now: float,
    ) -> Subchannel[C]:
        settings, cluster = self.settings, upstream.cluster
        generation, began = _generation(endpoint, cluster.max_connection_age, now)
        checked = settings.checks and cluster.balancing.kind is not Balancer.PICK_FIRST
        options = inner_options(
            settings, authority, cluster.limits, generation, tunnelled=way is not None, checked=checked
        )
        if way is None:
            given = settings.given.elsewhere
            channel = self._make(uri(endpoint.address), options, given, settings.compression)
            return Subchannel(channel, endpoint, upstream, began, tls=tls, checked=checked)
        try:
            tunnel = way.tunnel()
        except ConfigError as error:
            raise _no_tls(upstream, error) from error
        channel = self._make(tunnel.uri, options, settings.given.tunnelled, settings.compression)
        return Subchannel(
            channel, endpoint, upstream, began, tls=tls, way=way, tunnel=tunnel, checked=checked
        )

    def _refuse_closed(self) -> None:
        if self.closed:
            raise ValueError("Cannot invoke RPC on closed channel!")

    def _sweep(self) -> None:
        """The configuration is another: what leads to endpoints that left, or is to be another, is closed once nothing uses it."""
        with self._lock:
            self._view, self._rotations = self._runtime.view, rotations.count
            for key, (_, sub) in list(self._found.items()):
                endpoint, authority = key
                renamed = authority not in (self._target.place[3], endpoint.hostname)
                others = sub.upstream is not None and sub.limits != limits_of(sub.upstream)
                if endpoint.gone or renamed or others or sub.outdated(self._demanded(endpoint)):
                    del self._found[key]
                    self._drain(sub)
                sub.bound_age()

    def _drain(self, sub: Subchannel[C]) -> None:
        if sub in self._watched:
            self._watched.remove(sub)  # nobody is to connect it any more
        sub.leaving = True
        self._unmark(sub)
        self._draining.append(sub)
        if not self._drains:
            self._drains = True
            self._later(0.0, self._close_idle)

    def _close_all(self, subs: list[Subchannel[C]], close: Callable[[C], object]) -> None:
        for sub in subs:
            self._tell(sub, DISCONNECTED, "subchannel shutdown")
            sub.shut()
            close(sub.channel)
        if subs:
            channels_closed()

    def _close_idle(self) -> None:
        with self._lock:
            idle = [sub for sub in self._draining if sub.idle]
            self._draining = [sub for sub in self._draining if sub not in idle]
            self._drains = bool(self._draining) and not self.closed
            again = self._drains
        # At once, as no call uses them: what a loop is asked to do it may not do before the process forks.
        self._close_all(idle, self._rest_one)
        if again:
            self._later(_DRAIN, self._close_idle)

    # --- which of them stand ----------------------------------------------------------------------------------------------

    def _watch(self, sub: Subchannel[C]) -> None:
        with self._lock:
            if sub in self._watched or sub.leaving or self.closed:
                return
            sub.since = self._runtime.clock.now()
            self._watched.append(sub)
            begin, self._looking = not self._looking, True
        if begin:
            self._later(_LOOK, self._look)

    def _look(self) -> None:
        now = self._runtime.clock.now()
        freed = False
        changed = []
        with self._lock:
            for sub in list(self._watched):
                stood, ends = sub.seen_ready, _ends(sub)
                state = SHUTDOWN if ends else self._state(sub.channel, not stood)
                sub.seen_ready = state == READY
                if stood != sub.seen_ready and not ends:
                    changed.append(sub)
                if sub.checked and state == TRANSIENT_FAILURE:
                    self._mark(sub)
                elif sub.seen_ready or stood or ends or state == SHUTDOWN:
                    if not (sub.seen_ready and (self._observed or sub.checked)):
                        self._watched.remove(sub)
                    freed = self._unmark(sub) or freed
                elif state == TRANSIENT_FAILURE or now - sub.since >= _SLOW:
                    self._mark(sub)
            self._looking = again = bool(self._watched) and not self.closed
        for sub in changed:
            self._tell(sub, *((CONNECTED, "") if sub.seen_ready else (DISCONNECTED, "unknown")))
        if freed:
            self._runtime.store.wake()
        if again:
            self._later(_LOOK, self._look)

    def _tell(self, sub: Subchannel[C], change: str, words: str) -> None:
        """Tell who observes. Without the lock."""
        if not self._observed or sub.endpoint is None or sub.upstream is None:
            return
        with self._lock:
            before, sub.told = sub.told, change
        if before == change or (change == DISCONNECTED and before != CONNECTED):
            return
        target, cluster, locality = self._target.uri, sub.upstream.cluster.name, sub.endpoint.locality
        secure = self._secure or sub.tunnel is not None
        told = partial(ConnectionChanged, target, cluster, locality, secure)
        if before == CONNECTED and change == FAILED:
            self._runtime.emit(told(DISCONNECTED, "unknown"))
        self._runtime.emit(told(change, words))

    def _mark(self, sub: Subchannel[C]) -> None:
        if not sub.marked and sub.endpoint is not None and sub.upstream is not None:
            sub.marked = True
            sub.upstream.mark_reached(sub.endpoint, 1)

    def _unmark(self, sub: Subchannel[C]) -> bool:
        if not sub.marked or sub.endpoint is None or sub.upstream is None:
            return False
        sub.marked = False
        sub.upstream.mark_reached(sub.endpoint, -1)
        return True
