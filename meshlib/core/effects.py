"""What goes into a call, what its plan asks for, and what its exchange asks of the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshlib.core.attempt import Send

if TYPE_CHECKING:
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.match import Match
    from meshlib.core.resolution import Resolution
    from meshlib.core.resolve import View
    from meshlib.core.retry_grpc import Throttling
    from meshlib.core.upstream import Buckets, CallLimits, Delays, Limiter, Memory, Upstream
    from meshlib.errors import MeshError
    from meshlib.model.call import CallInfo, Head, Outcome, Response
    from meshlib.model.events import Event
    from meshlib.model.limits import Descriptor, Verdict
    from meshlib.model.policy import Hedge, RetryPolicy, RouteLimits
    from meshlib.model.sidecar import Sidecar

__all__ = [
    "DELIVER",
    "Ask",
    "Call",
    "Deliver",
    "Direct",
    "Effect",
    "Env",
    "Fail",
    "Finish",
    "Pass",
    "Reply",
    "Rest",
    "Send",
    "Sleep",
    "Step",
    "Take",
    "Wait",
]


@dataclass(slots=True)
class Env:
    """What a plan asks of its surroundings; one per process and mesh, shared by all calls.

    ``upstream(part, cluster)`` gives a live cluster, or why there is none, in words: ``""`` while it may come;
    ``random()`` a float in [0, 1); ``wall()`` seconds since the epoch, for headers that name a point in time (RT-07);
    ``emit`` is None where nobody listens; ``awaits``: as ``upstream``, what a cluster that may come waits for, in words that can follow
    "which"; ``limits(part, match, policy, now)``: the live route of a match that has limits; ``buckets``: those of
    the rate limits of filters; ``cluster``: that of this
    process's node; ``own``: what this process is to consistent hashing; ``delays``: how long attempts took lately, for hedges; ``deadlines``: headers that say a deadline in Finagle's form; ``delayed``: an entry
    for each call that a fault delays now; ``sessions``: where they are that servers chose the names of, None: nothing is remembered.
    Thread-safe as far as its members are.
    """

    upstream: Callable[[str, str], Upstream | str]
    random: Callable[[], float]
    wall: Callable[[], float]
    emit: Callable[[Event], None] | None = None
    awaits: Callable[[str, str], str] = lambda part, cluster: "has not come yet"  # noqa: ARG005 - nothing more is known
    own: int = 0
    delays: Delays | None = None
    deadlines: tuple[bytes, ...] = ()
    delayed: list[None] = field(default_factory=list)
    limits: Callable[[str, Match, RouteLimits, float], CallLimits] | None = None
    sessions: Memory | None = None
    buckets: Buckets | None = None
    cluster: str = ""


@dataclass(slots=True)
class Call:
    """What a call brings along.

    ``deadline`` (absolute, the plan's clock) is the nearest of the application's own and ``limit`` names it in words.
    ``timeout``, ``retry``, ``idempotent``, ``hash_key`` are those of ``CallOptions``; ``own``: what stands for its channel in consistent
    hashing; ``default_retry``: the retries that hold
    where neither the call nor the mesh orders any, since the host library was told to make them, ``default_hedge`` so of hedges; ``wait``: how many seconds the
    call may wait for endpoints that are not known yet; ``replayable``: whether the body can be sent again, ``concurrent``: by several attempts at a time; ``counted``:
    each attempt says its number, also where the virtual host does not order that; ``chained``: it is made for a request that is somebody's retry, so that it is not retried once it may have been sent; ``tried``: endpoints that an earlier
    plan of the same call has tried, where the host library has retries of its own; ``url``: as the application wrote it, or
    what gives it, for observers; ``timeouts``: the host library's (see :class:`meshlib.pools.bounds.Bounds`), and whether they
    are only its ``defaults``, which give way to what the mesh orders.

    ``grpc``: it has gRPC's semantics where they differ from Envoy's; ``patient``: it waits for an endpoint that can be reached
    (``wait_for_ready``); ``strict``: it goes through the mesh or not at all; ``throttle``: of retries to its server; ``renews``: where its credentials are refused it is made
    once more, with new ones; False once it is; ``credentials``: the application gave it some that are not in its head. For observers: ``target``, the channel's; ``registered``,
    generated code names the method; ``key`` of the events, 0 where nobody listens.
    """

    resolution: Resolution
    head: Head
    deadline: float | None = None
    limit: str = ""
    timeout: float | None = None
    retry: RetryPolicy | bool | None = None
    default_retry: RetryPolicy | None = None
    default_hedge: Hedge | None = None
    idempotent: bool | None = None
    hash_key: str | None = None
    own: int | None = None
    replayable: bool = True
    concurrent: bool = False
    wait: float = 0.0
    counted: bool = False
    chained: bool = False
    tried: tuple[LiveEndpoint, ...] = ()
    url: str | Callable[[], str] = ""
    timeouts: Mapping[str, float | None] = field(default_factory=dict)
    defaults: bool = False
    grpc: bool = False
    patient: bool = False
    strict: bool = False
    renews: bool = False
    credentials: bool = False
    throttle: Throttling | None = None
    target: str = ""
    registered: bool = False
    key: int = 0


@dataclass(slots=True)
class Sleep:
    """Do nothing for ``seconds``, then ``woke``. What came of the last attempt is given up now."""

    seconds: float


@dataclass(slots=True)
class Wait:
    """Wait until the absolute time ``until``, or for a configuration that is ``ready``; then ``woke``. ``reached``: for an
    endpoint that can be reached, too.
    """

    until: float
    ready: Callable[[View], bool] = field(default=bool, compare=False)
    reached: Callable[[], bool] | None = field(default=None, compare=False)


@dataclass(slots=True)
class Rest:
    """Wait for the attempts in flight; at the absolute time ``until``, if there is one, ``woke``."""

    until: float | None


@dataclass(slots=True)
class Ask:
    """Ask the rate limit service behind ``cluster`` about ``descriptors``, within so many ``seconds``; put what it says into
    ``verdict`` (None: it does not answer), then ``woke``. ``authority`` (``""``: the cluster's name) and ``metadata`` are of the call to
    it.
    """

    part: str
    cluster: str
    authority: str
    metadata: tuple[tuple[str, str], ...]
    seconds: float
    domain: str
    descriptors: tuple[Descriptor, ...]
    verdict: Verdict | None = None


@dataclass(slots=True)
class Take:
    """Have the storage of ``limiter`` decide whether the call may pass, within so many ``seconds``; put what it says into ``verdict``
    (None: it does not answer), then ``woke``.
    """

    limiter: Limiter
    seconds: float
    verdict: bool | None = None


@dataclass(slots=True)
class Reply:
    """The configuration orders this response, or a failure is told as one."""

    response: Response
    info: CallInfo | None = None


@dataclass(slots=True)
class Pass:
    """Call the URL as it is: the route goes to a pass-through cluster. ``deadline`` is absolute."""

    head: Head
    deadline: float | None


@dataclass(slots=True)
class Finish:
    """The end. ``failure`` None: the outcome's response is the caller's. Else the error's class, in words
    ``message``; ``response`` is what a sidecar would have answered.
    """

    outcome: Outcome | None
    failure: type[MeshError] | None = None
    message: str = ""
    response: Response | None = None


#: What a plan asks for.
Effect = Send | Sleep | Wait | Rest | Ask | Take | Reply | Pass | Finish


class Direct:
    """Call the URL as it is, by the host library's own means. ``head`` None: and as if meshlib were not there.

    ``deadline`` is absolute. ``before``: the head's lines as the application gave them; what an observer made of them since is
    to be sent. ``peer``: who answered.
    """

    __slots__ = ("before", "began", "deadline", "handed", "head", "key", "number", "peer")

    def __init__(
        self, head: Head | None, deadline: float | None, began: float = 0.0, handed: Sidecar | None = None
    ) -> None:
        self.head = head
        self.deadline = deadline
        self.began = began
        self.handed = handed
        self.before: list[tuple[bytes, bytes]] | None = None
        self.key = 0
        self.number = 1
        self.peer = ""

    @property
    def changes(self) -> tuple[set[bytes], list[tuple[bytes, bytes]]]:
        """Names of lines that are to go, and lines that are to come or to be as they are here."""
        before, head = self.before, self.head
        if before is None or head is None:
            return set(), []
        after = head.headers.raw
        return {name for name, _ in before} - {name for name, _ in after}, [
            line for line in after if line not in before
        ]


class Deliver:
    """The response at hand is the caller's. ``pace``: with so many bytes a second; 0: as it comes."""

    __slots__ = ("pace",)

    def __init__(self, pace: int = 0) -> None:
        self.pace = pace


#: As a rule.
DELIVER = Deliver()


@dataclass(slots=True)
class Fail:
    """Raise: ``failure``, in words ``message``; None: the error of ``outcome`` as it is."""

    failure: type[MeshError] | None
    message: str
    outcome: Outcome | None
    info: CallInfo | None = None


#: What an exchange asks of the loop.
Step = Send | Direct | Sleep | Wait | Rest | Ask | Take | Reply | Deliver | Fail
