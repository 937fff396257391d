"""What every source shares: its state, and the rules of an outage.

Theory of the states:

    idle ──start──► connecting ──good──► ready ──trouble──► stale ──good──► ready
                        └─────trouble───► failed ──good──► ready

``good``: something was read and accepted. ``trouble``: nothing can be read, or what was read is wrong. A source that
was good once never takes back what it said: what was published stays in force until something better comes (CA-01).
``stop`` leads to idle, and a later start from there goes by way of ``connecting`` again; having been good is remembered:
then it is ``stale`` in the place of ``connecting``. ``away`` tells an outage from a start: nobody waits in an outage.

Sources run on the worker, one thread, and hold no locks. ``status`` may be called from any thread: it reads attributes
that are swapped whole.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from meshlib.model.status import SourceStatus

if TYPE_CHECKING:
    from meshlib.model.events import Event
    from meshlib.model.snapshot import Part
    from meshlib.model.status import XdsClientStatus
    from meshlib.runtime.worker import Worker
    from meshlib.xds.csds import Client

__all__ = ["Sink", "Source", "State"]


class State(Enum):
    """The values are the contract's ``SourceStatus.state``."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    STALE = "stale"
    FAILED = "failed"


class Sink(Protocol):
    """Where a source puts what it knows. Used on the worker only (``worker`` itself by any thread)."""

    @property
    def worker(self) -> Worker: ...

    def publish(self, part: Part) -> None:
        """``part`` replaces what this source (``part.source``) said before."""
        ...

    def withdraw(self, source: str) -> None:
        """What ``source`` said before holds no more."""
        ...

    def changed(self, source: Source) -> None:
        """The source's state or what it waits for is another."""
        ...

    def tell(self, event: Event) -> None:
        """Observers are to know."""
        ...


class Source:
    """The base of sources. A subclass says what it does when it is started and stopped, any number of times in turn.

    Args:
        name: What a status and a part are called by.
        kind: ``"static"``, ``"file"``, ``"dns"``, ``"xds"``, ``"last_good"``.
        sink: Where it publishes.
    """

    def __init__(self, name: str, kind: str, sink: Sink) -> None:
        self.name = name
        self.kind = kind
        self.sink = sink
        self.state = State.IDLE
        self.last_error = ""
        self.away = False
        self._since = sink.worker.clock.now()
        self._was_good = False

    def open(self, inherited: Part | None) -> None:
        """Publish what is there at once, without waiting for anybody. Called once, before the first ``start``, by the
        thread that makes the runtime. ``inherited``: what a parent process had of this source. Raises ConfigError where
        nothing good can be had and waiting would not help.
        """

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End what runs; what was published stays."""

    def want(self, name: str, authority: str) -> None:
        """A resource of the target view is wanted. Most sources have none."""

    def forget(self, name: str) -> None:
        """It is wanted no more."""

    def suspect(self) -> None:
        """A sidecar did not carry a call. Called by any thread."""

    def only_look(self) -> None:
        """It is of a command, which may be another user's: what programs keep outside of themselves is not written."""

    @property
    def streaming(self) -> bool:
        """Whether something runs that does not survive a fork."""
        return False

    @property
    def shown(self) -> bool:
        """Whether a status lists it."""
        return True

    @property
    def refusal(self) -> str:
        """Why this source cannot work in this process at all, with the remedy."""
        return ""

    def pending(self, name: str) -> str:
        """What the target resource ``name`` still lacks, in words."""
        del name
        return ""

    def status(self) -> SourceStatus:
        return SourceStatus(
            name=self.name,
            kind=self.kind,
            state=self.state.value,
            since=self.seconds,
            last_error=self.last_error,
        )

    def others(self) -> tuple[SourceStatus, ...]:
        """Where it has more than one place to read from: of each of them."""
        return ()

    def xds_clients(self) -> tuple[XdsClientStatus, ...]:
        """Of each stream to a control plane."""
        return ()

    def xds_states(self) -> tuple[Client, ...]:
        """What each stream to a control plane has. From any thread but the worker's."""
        return ()

    @property
    def seconds(self) -> float:
        """Seconds in the present state."""
        return max(0.0, self.sink.worker.clock.now() - self._since)

    def begin(self) -> None:
        """It starts, or starts again."""
        self._move(State.STALE if self._was_good else State.CONNECTING, self.last_error)

    def good(self) -> None:
        """What was read is in force."""
        self._was_good, self.away = True, False
        self._move(State.READY, "")

    def trouble(self, error: str) -> None:
        """Nothing new can be had, because of ``error``."""
        self.away = True
        self._move(State.STALE if self._was_good else State.FAILED, error)

    def rest(self) -> None:
        """It was stopped."""
        self.away = False
        self._move(State.IDLE, self.last_error)

    def _move(self, state: State, error: str) -> None:
        if state is self.state and error == self.last_error:
            return
        self.last_error = error
        if state is not self.state:
            self.state = state
            self._since = self.sink.worker.clock.now()
        self.sink.changed(self)
