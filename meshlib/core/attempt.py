"""One attempt of a call: what is to be sent, where to, within which time, and what it holds until it is over.

A plan keeps its attempts by number, so that two may be in flight. Each holds its own pick and, if it is a retry, its own
permit; both are given back once, by whoever ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from meshlib.core.trace import ending
from meshlib.model.call import OK, Attempt, OutcomeKind
from meshlib.model.hidden import HiddenBytes

if TYPE_CHECKING:
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.stages import StreamLimits
    from meshlib.core.tokens import Demand
    from meshlib.core.upstream import Leaf, Pick, RetryPermit
    from meshlib.model.call import Head, Outcome

__all__ = ["BLAMELESS", "Record", "Send", "Shadow", "record", "tell", "tell_deadline", "tell_timeout_retry"]

_EXPECTED_TIMEOUT = b"x-envoy-expected-rq-timeout-ms"
_ATTEMPT_COUNT = b"x-envoy-attempt-count"
_TIMEOUT_RETRY = b"x-envoy-is-timeout-retry"

_OK, _STATUS = OutcomeKind.OK.value, OutcomeKind.STATUS.value

#: Outcomes that say nothing of the endpoint: a limit or a wait of our own ended the attempt, or its caller did, or what that gave.
BLAMELESS = frozenset(
    {OutcomeKind.CANCELLED, OutcomeKind.OVERFLOW, OutcomeKind.NO_TIME, OutcomeKind.OWN, OutcomeKind.NO_TOKEN}
)


@dataclass(frozen=True, slots=True)
class Shadow:
    """What is to be mirrored: ``head`` goes to ``cluster`` of ``part``, within ``seconds``."""

    part: str
    cluster: str
    head: Head
    seconds: float

    def words(self) -> str:
        return f"mirrored to cluster {self.cluster!r}"


class Send:
    """The effect: send ``head`` to ``endpoint``; then tell the plan the outcome. Belongs to its plan.

    ``number`` counts from 1; ``upstream``: whose endpoint it is, of an aggregate the leaf. ``deadline`` is absolute: the attempt's response, body included, is there by then;
    ``cluster``: as it was then; ``connect_timeout``: seconds, the cluster's; ``began``: when it was decided; ``key`` pairs its events; ``handed``: to a sidecar,
    whose the retries are: what may have been sent is not sent again. ``limits``: of the stream, by its route;
    ``longest``: seconds after which its cluster ends it, where that is its deadline. ``mirrors``: what is to be sent elsewhere, too; ``try_idle``: seconds between two bytes of this attempt; ``token``: what it is to bring, and nobody but its receiver to see;
    ``error``: what the library raises for the status of an RPC, where its retries are to look at that; ``hedge_at``: absolute, when another is to be begun beside it (``woke``) if nothing was heard of it.
    """

    __slots__ = (
        "_bare",
        "began",
        "cluster",
        "connect_timeout",
        "deadline",
        "endpoint",
        "error",
        "handed",
        "head",
        "hedge_at",
        "key",
        "limits",
        "longest",
        "mirrors",
        "number",
        "permit",
        "pick",
        "token",
        "try_idle",
        "upstream",
    )

    def __init__(
        self,
        number: int,
        pick: Pick,
        head: Head,
        *,
        deadline: float | None,
        permit: RetryPermit | None,
        began: float,
        grpc: bool = False,
    ) -> None:
        self.number = number
        self.handed = False
        self.pick = pick
        self.endpoint: LiveEndpoint = pick.endpoint
        self.head = head
        self.deadline = deadline
        self.upstream: Leaf = pick.upstream
        self.cluster = cluster = self.upstream.cluster
        self.connect_timeout = cluster.connect_timeout
        self.permit = permit
        self.began = began
        self.key = 0
        self.limits: StreamLimits | None = None
        self.longest: float | None = None
        if cluster.stream_limit is not None and not grpc:
            self._shorten(began, cluster.stream_limit)
        self.try_idle: float | None = None
        self.token: Demand | None = None
        self.hedge_at: float | None = None
        self.error: BaseException | None = None
        self._bare: Head | None = None
        self.mirrors: tuple[Shadow, ...] = ()

    def _shorten(self, began: float, longest: float) -> None:
        """It may take so many seconds, where its call's time is not over before."""
        if self.deadline is None or began + longest < self.deadline:
            self.deadline, self.longest = began + longest, longest

    def release(self, now: float, failure: Outcome | None = None) -> None:
        """It is over, its body read or given up: its pick and its permit go back. Effective once; from any thread."""
        self.pick.release(now, failure)
        self.end_retry()

    def bring(self, token: str) -> None:
        """Have ``head`` bring ``token``, up to ``withhold``."""
        self._bare, self.head = self.head, self.head.copy()
        self.head.headers.raw.append((b"Authorization", HiddenBytes(f"Bearer {token}".encode("ascii"))))

    @property
    def brings(self) -> bool:
        """Whether ``head`` does."""
        return self._bare is not None

    def withhold(self) -> None:
        """It was sent: what is said of the attempt from now on does not have its token."""
        if self._bare is not None:
            self.head, self._bare = self._bare, None

    def end_retry(self) -> None:
        """Its head arrived, or it failed: as a retry it is over."""
        permit, self.permit = self.permit, None
        if permit is not None:
            permit.release()


class Record(NamedTuple):
    """An attempt that is over. ``retried``: another was made of it."""

    attempt: Send
    outcome: Outcome
    retried: bool

    def told(self) -> Attempt:
        """As the caller is told of it."""
        attempt, outcome, retried = self
        if outcome.kind is not OK:
            kind = outcome.kind.word
        else:
            status = outcome.status or 0
            kind = _STATUS if retried or status >= 500 or (outcome.grpc and status) else _OK
        return Attempt(
            attempt.number, attempt.endpoint.name, kind, outcome.status, outcome.sent, outcome.seconds
        )

    def why(self) -> str:
        """Why it failed, in words; ``""`` where there was an answer."""
        return "" if self.outcome.status is not None else ending(self.outcome)


def record(records: list[Record], attempt: Send, outcome: Outcome, *, retried: bool) -> Record:
    """Put an attempt that is over into its place: by its number."""
    # One that began later may be over earlier.
    place = len(records)
    while place and records[place - 1].attempt.number > attempt.number:
        place -= 1
    made = Record(attempt, outcome, retried)
    records.insert(place, made)
    return made


def tell_deadline(head: Head, seconds: float, wall: float, names: tuple[bytes, ...]) -> None:
    """The same in Finagle's form, which linkerd has, too: when it was said, and until when, in nanoseconds since the epoch. ``wall``: now."""
    said = int(wall * 1_000_000_000)
    text = b"%d %d" % (said, said + max(0, int(seconds * 1_000_000_000)))
    for name in names:
        head.headers.put(name, text)


def tell(head: Head, seconds: float | None, number: int | None) -> None:
    """Write into ``head`` how much time the upstream has, and which attempt this is; None: nothing of it."""
    if seconds is not None:
        # Rounded down, so that no hop has more time than its caller. Zero would mean no limit to an Envoy.
        head.headers.put(_EXPECTED_TIMEOUT, b"%d" % max(1, int(seconds * 1000)))
    if number is not None:
        head.headers.put(_ATTEMPT_COUNT, b"%d" % number)


def tell_timeout_retry(head: Head, *, after: bool) -> None:
    """Write into the ``head`` of a retry whether it follows an attempt that took too long."""
    head.headers.put(_TIMEOUT_RETRY, b"true" if after else b"false")
