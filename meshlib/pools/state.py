"""Which connections to one endpoint there are, who may have one, and who waits. No I/O, no lock, no time of its own.

Theory. A connection is dialed, carries requests, rests between them, and ends. It is any library's (:class:`Pooled`): one
request at a time, or as many as ``streams`` says, which may change at any moment; which of the two it is shows once it is
dialed.

    dial ──► in use ──released──► usable? ──no──► ended
               ▲                     │yes
               │                     ├─ somebody waits: theirs
               └──taken──── idle ◄───┘
                              └─ idle or old for too long, the endpoint gone, the pool closed: ended

*Turns.* Whoever finds nothing ready waits in one queue, in the order of coming. The head of the queue has the next turn: a
connection that came back or has room, or else leave to dial, where the limits allow one more. A turn is given the moment it
exists, by whoever made it, so no newcomer can come between; and while somebody waits, newcomers join the queue. Who leaves
the queue after a turn was given (cancelled, interrupted, out of time) hands it on.

*Dials.* Who has leave to dial does so itself, outside any lock, and keeps the connection. If it can be shared, others who wait
are counted on it: as many as the last dialed connection could take, so that one dial serves many, and each of them gets its
turn when it is there, or when it turns out to carry one request only. After a dial that failed nobody is counted on another's
until one succeeds, so that all who wait learn that the endpoint is down in the time of one dial and not one after the other.

*Limits.* Envoy's: ``max_connections`` counts over the cluster, and another over all pools of an endpoint, but a pool may always have
one; ``max_pending`` counts who has no connection yet, dialing or waiting (``Bounds.begin_pending``). The application's own
``max_connections`` holds for this endpoint where it was chosen or the mesh orders none.

*Idle.* The youngest is taken first, so that a few stay warm and the rest run out. Age is looked at between two requests only, and so
is the number of requests that a connection has carried: one that has carried all it may takes no more, and ends with its last.

Whoever holds a ``PoolState`` guards it (a lock, or one event loop) and closes what it finds in ``ended``.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.upstream import Connections
    from meshlib.model.cluster import Cluster

__all__ = ["PoolSettings", "PoolState", "Pooled", "Waiter", "is_usable"]

#: Requests that a connection is counted on for, before the first is there: what RFC 9113 (6.5.2) says a server should allow.
_STREAMS = 100


class Pooled(Protocol):
    """A connection, as a pool sees it. Hashed by identity.

    Attributes:
        idle: It carries no request.
        closed: It is over.
        streams: How many requests it may carry at once, now.
        born: When it was dialed, on the mesh's clock; the pool sets it.
        rested: When it became idle; the pool sets it.
        carried: How many requests it was taken for; the pool counts them where their number is bounded.
    """

    born: float
    rested: float
    carried: int

    @property
    def idle(self) -> bool: ...

    @property
    def closed(self) -> bool: ...

    @property
    def streams(self) -> int: ...

    def free(self) -> bool:
        """Whether it can take one more request now: open, and nothing came that nobody asked for. Waits for nothing."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What the application and the mesh say of a pool.

    ``max_connections``: at most so many to the endpoint; ``chosen``: that is the application's word and not the host library's
    default, which gives way to what the mesh orders. ``max_idle``: at most so many are kept idle. ``keepalive``: seconds after
    which an idle one ends. ``max_age``: seconds after which one ends between two requests. ``max_requests``: how many one carries
    before it ends. None: no bound. ``ahead``: so many connections are made for each request.
    """

    max_connections: int | None = None
    chosen: bool = False
    max_idle: int | None = None
    keepalive: float | None = 5.0
    max_age: float | None = None
    max_requests: int | None = None
    ahead: float = 1.0

    def within(self, cluster: Cluster) -> PoolSettings:
        """The same within what ``cluster`` orders of its connections."""
        idle, age = cluster.idle_timeout, cluster.max_connection_age
        most = cluster.max_requests_per_connection
        if idle is None and age is None and most is None and cluster.ahead == self.ahead:
            return self
        return replace(
            self,
            keepalive=self.keepalive if idle is None else idle,
            max_age=age,
            max_requests=most,
            ahead=cluster.ahead,
        )


P = TypeVar("P", bound=Pooled)


def is_usable(connection: Pooled) -> bool:
    """Whether it may be kept. Its socket is not asked, which whoever takes it next does: that is half of what a pool costs."""
    return connection.free() if connection.streams > 1 else connection.idle and not connection.closed


class Counted(Generic[P]):
    """What a pool of either kind says of itself, from any thread."""

    _state: PoolState[P]

    @property
    def closed(self) -> bool:
        """Nothing is kept any more."""
        return self._state.closed

    @property
    def idle(self) -> int:
        """How many connections wait for work."""
        return self._state.idle

    @property
    def open(self) -> int:
        """How many connections there are, busy, idle or being dialed."""
        return self._state.open

    @property
    def waiting(self) -> int:
        """How many callers wait for their turn."""
        return self._state.waiting


class Waiter(Generic[P]):
    """Who waits for a turn. Once ``served``, ``connection`` is theirs, or (None) leave to dial."""

    __slots__ = ("connection", "served")

    def __init__(self) -> None:
        self.served = False
        self.connection: P | None = None

    def wake(self) -> None:
        """Its turn has come. Runs nobody else, and may be called for another reason, too."""
        raise NotImplementedError


class PoolState(Generic[P]):
    """The bookkeeping of one endpoint's pool.

    Args:
        limits: The cluster's counters, or None for no limits.
        settings: Replaced by :meth:`configure`.
        multiplexed: Connections may turn out to carry several requests.
        gone: Whether the endpoint left its cluster, or connections to it are to be others; then nothing is kept.

    Attributes:
        ended: Connections that are counted no more, and are to be closed.
        open: How many there are: in use, idle, or being dialed.
        dialing: How many of them are being dialed.
        closed: Nothing is kept any more.
    """

    __slots__ = (
        "_gone",
        "_held",
        "_idle",
        "_keepalive",
        "_lost",
        "_max_age",
        "_most",
        "_settings",
        "_shared",
        "_spent",
        "_streams",
        "_waiting",
        "closed",
        "dialing",
        "ended",
        "limits",
        "open",
    )

    def __init__(
        self,
        limits: Connections | None,
        settings: PoolSettings,
        *,
        multiplexed: bool = False,
        gone: Callable[[], bool] = bool,
    ) -> None:
        self._gone = gone
        # Strongly, so that a response that is collected unread does not take its socket along before that is closed.
        self._held: dict[P, int] = {}
        self._idle: deque[P] = deque()  # the youngest is last
        self._shared: list[P] = []  # in use, and may take more
        self._spent: set[P] = set()  # in use by some, and takes no more
        self._lost: set[P] = set()  # in use by some, closed and counted no more
        self._streams = _STREAMS if multiplexed else 1
        self._waiting: OrderedDict[Waiter[P], None] = OrderedDict()
        self.limits = limits
        self.ended: list[P] = []
        self.open = 0
        self.dialing = 0
        self.closed = False
        self.configure(settings)

    def configure(self, settings: PoolSettings) -> None:
        """Other settings hold from now on."""
        self._settings = settings
        self._keepalive = inf if settings.keepalive is None else settings.keepalive
        self._max_age = inf if settings.max_age is None else settings.max_age
        self._most = settings.max_requests

    @property
    def idle(self) -> int:
        """How many connections rest."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many callers wait for a turn."""
        return len(self._waiting)

    # --- who wants one ------------------------------------------------------------------------------------------------

    def take(self, now: float) -> P | None:
        """A connection that is there for a newcomer; None: wait for a turn. Its holder asks whether it is ``free``."""
        return None if self._waiting else self._found(now)

    def wait(self, waiter: Waiter[P], now: float) -> None:
        """Join the queue. Its turn may come at once."""
        self._waiting[waiter] = None
        self.serve(now)

    def leave(self, waiter: Waiter[P], now: float) -> None:
        """It gives up. A turn that it has already is the next one's."""
        if not waiter.served:
            self._waiting.pop(waiter, None)
        elif waiter.connection is None:
            self.not_dialed(now)
        elif not self.put_back(waiter.connection, now, usable=True):
            self.ended.append(waiter.connection)

    def refuse(self, connection: P, now: float, waiter: Waiter[P] | None = None) -> None:
        """What was taken is of no use: it takes no request any more. ``waiter``: whose turn gave it, and who has the next."""
        if waiter is not None:
            self._waiting[waiter] = None
            self._waiting.move_to_end(waiter, last=False)
        if connection in self._shared:
            self._shared.remove(connection)
        if self._held.get(connection, 0) > 1:
            self._spent.add(connection)
        if not self.put_back(connection, now, usable=False):
            self.ended.append(connection)

    def serve(self, now: float) -> None:
        """Give turns to those who wait longest, as long as there are any."""
        while self._waiting:
            connection = self._found(now)
            if connection is None and not self._may_dial():
                return
            self._give_turn(connection)

    # --- dials --------------------------------------------------------------------------------------------------------

    def dialed(self, connection: P, now: float) -> None:
        """Leave to dial was used: it is its holder's, and has room for others where it can be shared."""
        self.dialing -= 1
        connection.born = now
        self._streams = max(
            1, connection.streams if self._most is None else min(connection.streams, self._most)
        )
        self._hold(connection)
        self.serve(now)

    def not_dialed(self, now: float, *, failed: bool = False) -> None:
        """Leave to dial was of no use; ``failed``: the endpoint's doing, and not its holder's."""
        self.dialing -= 1
        if failed:
            self._streams = 1
        self._uncount()
        self.serve(now)

    def begin_ahead(self) -> bool:
        """Leave to dial one more than is needed now, where so many are to be: it is used as a turn's."""
        wanted = self._settings.ahead * (sum(self._held.values()) + len(self._waiting))
        if self.closed or self.dialing or self._gone() or wanted <= self.open * self._streams:
            return False
        most = self._settings.max_idle
        if most is not None and self.open >= most:
            return False  # it would not be kept
        if self._is_full() or (self.limits is not None and not self.limits.open_connection()):
            return False
        self.open += 1
        self.dialing += 1
        return True

    # --- what comes back ----------------------------------------------------------------------------------------------

    def put_back(self, connection: P, now: float, *, usable: bool) -> bool:
        """It is done with one request; ``usable``: it could take another. Whether it is kept; else it is counted no more, and
        the caller closes it. Raises RuntimeError, and changes nothing, for what was not taken.
        """
        held = self._held.get(connection)
        if held is None:
            raise RuntimeError(f"{connection!r} was put back twice, or is not of this pool")
        if held > 1:
            self._held[connection] = held - 1
            if connection.closed and connection not in self._lost:
                self._lose(connection)
            self.serve(now)
            return True
        kept = self._drop(connection, now, usable=usable)
        self.serve(now)
        return kept

    def expire(self, now: float) -> float:
        """End what has rested or lived for too long; when there will be something to do next (``inf``: never)."""
        kept: deque[P] = deque()
        for connection in self._idle:
            if self._is_fresh(connection, now) and not self._gone():
                kept.append(connection)
            else:
                self._end(connection)
        self._idle = kept
        return self.due()

    def due(self) -> float:
        """When the first of the idle ones is to end (``inf``: never)."""
        keepalive, max_age = self._keepalive, self._max_age
        if max_age == inf:
            return self._idle[0].rested + keepalive if self._idle else inf
        return min((min(one.rested + keepalive, one.born + max_age) for one in self._idle), default=inf)

    def clear(self, now: float) -> None:
        """Keep nothing from now on: what is idle ends; what is in use ends when it comes back."""
        self.closed = True
        self._shared.clear()
        self.empty()
        self.serve(now)

    def empty(self) -> None:
        """End what is idle."""
        while self._idle:
            self._end(self._idle.pop())

    def drain_ended(self) -> list[P]:
        """What is to be closed; it is handed over."""
        ended, self.ended = self.ended, []
        return ended

    # --- within -------------------------------------------------------------------------------------------------------

    def _found(self, now: float) -> P | None:
        """One with room, taken. Those in use come first, so that what is idle runs out."""
        held = self._held
        if self._shared:
            for connection in self._shared[:]:
                if (
                    connection.closed
                    or now - connection.born >= self._max_age
                    or self._has_carried(connection)
                ):
                    self._shared.remove(connection)
                elif held[connection] < connection.streams:
                    held[connection] += 1
                    self._count(connection)
                    return connection
        idle = self._idle
        while idle:
            connection = idle.pop()
            if self._is_fresh(connection, now) and not self._has_carried(connection):
                self._hold(connection)
                return connection
            self._end(connection)
        return None

    def _is_fresh(self, connection: P, now: float) -> bool:
        return now - connection.rested < self._keepalive and now - connection.born < self._max_age

    def _has_carried(self, connection: P) -> bool:
        """Whether it has carried all that it may."""
        return self._most is not None and connection.carried >= self._most

    def _count(self, connection: P) -> None:
        if self._most is not None:
            connection.carried += 1

    def _may_dial(self) -> bool:
        if len(self._waiting) <= self.dialing * (self._streams - 1):
            return False  # what is being dialed will do
        limits = self.limits
        if self._is_full() or (limits is not None and not limits.open_connection(force=self.open == 0)):
            return False
        self.open += 1
        self.dialing += 1
        return True

    def _is_full(self) -> bool:
        """Whether the application's own limit is reached, where it holds."""
        most, limits = self._settings.max_connections, self.limits
        if most is None or self.open < most:
            return False
        return self._settings.chosen or limits is None or not limits.limited

    def _drop(self, connection: P, now: float, *, usable: bool) -> bool:
        """Its last holder gives it back."""
        del self._held[connection]
        if self._shared and connection in self._shared:
            self._shared.remove(connection)
        spent = connection in self._spent
        self._spent.discard(connection)
        if connection in self._lost:
            self._lost.remove(connection)
            return False
        spent = spent or self._has_carried(connection)
        if not usable or spent or self.closed or now - connection.born >= self._max_age or self._gone():
            self._uncount()
            return False
        if self._waiting:
            self._hold(connection)
            self._give_turn(connection)
        elif self._has_space():
            connection.rested = now
            self._idle.append(connection)
        else:
            self._uncount()
            return False
        return True

    def _hold(self, connection: P) -> None:
        """Nobody had it; now somebody has."""
        self._held[connection] = 1
        self._count(connection)
        if connection.streams > 1:
            self._shared.append(connection)

    def _give_turn(self, connection: P | None) -> None:
        waiter, _ = self._waiting.popitem(last=False)
        waiter.connection = connection
        waiter.served = True
        waiter.wake()

    def _has_space(self) -> bool:
        most = self._settings.max_idle
        return self._keepalive > 0 and (most is None or len(self._idle) < most)

    def _lose(self, connection: P) -> None:
        """It closed under those who share it; the last of them gives it back for good."""
        self._lost.add(connection)
        if connection in self._shared:
            self._shared.remove(connection)
        self._uncount()

    def _end(self, connection: P) -> None:
        self.ended.append(connection)
        self._uncount()

    def _uncount(self) -> None:
        self.open -= 1
        if self.limits is not None:
            self.limits.close_connection()
