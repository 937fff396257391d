"""What one URL means, as an answer (:mod:`meshlib.core.resolve` gives it)."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Literal

from meshlib.core.replies import PLAIN, Replies

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.departure import Departure
    from meshlib.core.joining import Joining
    from meshlib.core.match import CompiledRoutes
    from meshlib.core.normalize import Entrance
    from meshlib.core.router import Router
    from meshlib.model.call import Head
    from meshlib.model.listener import HttpFilter, HttpManager, Listener
    from meshlib.model.sidecar import Sidecar

__all__ = ["Resolution"]

Via = Literal["mesh", "direct", "refused", "failed", "wait", "sidecar", "closed"]


class Resolution:
    """What one URL means. Immutable. ``name``: the target resource that is wanted (rule 5), else ``""``; ``plain``: the
    call is to be as if meshlib were not there (rule 1); ``guards``: filters that may cover the call (`core.guards`); ``faults``: those that may inject a fault (`core.faults`); ``limits``: those that limit rates (`core.limiting`);
    ``sessions``: those that keep sessions (`core.sessions`);
    ``entrance``: what the listener does first, None where that is nothing, ``departure``: what it does to responses last;
    ``replies``: what it makes of its own replies; ``router``: what its router is told, None as a rule;
    ``meant``: gives the known host that is nearly this one, or ``""``. "failed" is a call that cannot be made before more
    is known; "closed" one whose connection its listener would not take.

    Where ``via`` is "wait", ``otherwise`` is what holds when the time is over; ``hopeless``: it is over. ``waited``: how
    many seconds a call waited for this answer. ``unanswered``: the control plane has not said what the host is.

    ``joining``: how far the service has joined, None where it has; what is said else holds for the calls that are in.
    ``handed``: the sidecar that carries the call: by a plan whose cluster is that sidecar, or, where ``via`` is "sidecar", by
    whatever redirects the call that goes to its URL as it is.
    """

    __slots__ = (
        "_meant",
        "departure",
        "entrance",
        "faults",
        "guards",
        "handed",
        "hopeless",
        "joining",
        "limits",
        "listener",
        "manager",
        "name",
        "otherwise",
        "part",
        "plain",
        "reason",
        "replies",
        "router",
        "routes",
        "sessions",
        "unanswered",
        "via",
        "waited",
    )

    def __init__(
        self,
        via: Via,
        reason: str,
        *,
        part: str = "",
        listener: Listener | None = None,
        routes: CompiledRoutes | None = None,
        manager: HttpManager | None = None,
        name: str = "",
        plain: bool = False,
        meant: Callable[[], str] | None = None,
        otherwise: Resolution | None = None,
        hopeless: bool = False,
        entrance: Entrance | None = None,
        guards: tuple[HttpFilter, ...] = (),
        faults: tuple[HttpFilter, ...] = (),
        sessions: tuple[HttpFilter, ...] = (),
        limits: tuple[HttpFilter, ...] = (),
        replies: Replies = PLAIN,
        departure: Departure | None = None,
        router: Router | None = None,
        unanswered: bool = False,
        handed: Sidecar | None = None,
    ) -> None:
        self.via: Via = via
        self.otherwise = otherwise
        self.hopeless = hopeless
        self.unanswered = unanswered
        self.handed = handed
        self.joining: Joining | None = None
        self.waited = 0.0
        self.plain = plain
        self.reason = reason
        self.part = part
        self.listener = listener
        self.routes = routes
        self.manager = manager
        self.name = name
        self.entrance = entrance
        self.guards = guards
        self.faults = faults
        self.sessions = sessions
        self.limits = limits
        self.replies = replies
        self.departure = departure
        self.router = router
        self._meant = meant

    def words(self) -> tuple[str, ...]:
        """The lines of a trace: why, and for a host that nobody knows the nearest that somebody does. Looked for when it is
        asked for, since most calls to unknown hosts mean them.
        """
        meant = self._meant() if self._meant is not None else ""
        return (self.reason, f"did you mean {meant}?") if meant else (self.reason,)

    def refusal(self, authority: str) -> str:
        """What a caller of ``authority`` is told where the call is not made."""
        said = self.reason if authority in self.reason else f"{authority}: {self.reason}"
        return "; ".join((said, *self.words()[1:]))

    @property
    def open(self) -> bool:
        """Whether another answer may come."""
        return self.via == "wait" and not self.hopeless

    def after(self, seconds: float) -> Resolution:
        """The same, for a call that waited that long."""
        made = copy(self)
        made.waited = seconds
        return made

    def is_internal(self, head: Head) -> bool:
        """Whether the call came from an address that the listener counts as internal: none, as a rule."""
        return self.entrance is not None and self.entrance.is_internal(head)

    def seen(self, head: Head) -> Head:
        """The head as the routes see it, after the listener: itself, as a rule."""
        return head if self.entrance is None else self.entrance.seen(head)

    def __repr__(self) -> str:
        return f"Resolution({self.via!r}, {self.reason!r})"
