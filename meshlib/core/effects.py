"""What goes into a call plan and what it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.resolution import Resolution
    from meshlib.core.upstream import Upstream
    from meshlib.errors import MeshError
    from meshlib.model.call import Head, Outcome, Response
    from meshlib.model.events import Event
    from meshlib.model.policy import RetryPolicy

__all__ = ["Call", "Effect", "Env", "Finish", "Pass", "Reply", "Send", "Sleep", "Wait"]


@dataclass(slots=True)
class Env:
    """What a plan asks of its surroundings; one per process and mesh, shared by all calls.

    ``upstream(part, cluster)`` gives a live cluster, or why there is none, in words: ``""`` while it may come;
    ``random()`` a float in [0, 1); ``wall()`` seconds since the epoch, for headers that name a point in time (RT-07);
    ``emit`` is None where nobody listens. Thread-safe as far as its members are.
    """

    upstream: Callable[[str, str], Upstream | str]
    random: Callable[[], float]
    wall: Callable[[], float]
    emit: Callable[[Event], None] | None = None


@dataclass(slots=True)
class Call:
    """What a call brings along.

    ``deadline`` (absolute, the plan's clock) is the nearest of the application's own and ``limit`` names it in words.
    ``timeout``, ``retry``, ``idempotent``, ``hash_key`` are those of ``CallOptions``; ``default_retry``: the retries that hold
    where neither the call nor the mesh orders any, since the host library was told to make them; ``wait``: how many seconds the
    call may wait for endpoints that are not known yet; ``replayable``: whether the body can be sent again; ``counted``:
    each attempt says its number, also where the virtual host does not order that; ``tried``: endpoints that an earlier
    plan of the same call has tried, where the host library has retries of its own.
    """

    resolution: Resolution
    head: Head
    deadline: float | None = None
    limit: str = ""
    timeout: float | None = None
    retry: RetryPolicy | bool | None = None
    default_retry: RetryPolicy | None = None
    idempotent: bool | None = None
    hash_key: str | None = None
    replayable: bool = True
    wait: float = 0.0
    counted: bool = False
    tried: tuple[LiveEndpoint, ...] = ()


@dataclass(slots=True)
class Send:
    """Send ``head`` to ``endpoint`` now. ``deadline`` (absolute) bounds the attempt until its body is read;
    ``connect_timeout`` in seconds. ``endpoint`` is held until the plan is told how the attempt ended.
    """

    number: int
    endpoint: LiveEndpoint
    head: Head
    deadline: float | None
    connect_timeout: float | None
    upstream: Upstream


@dataclass(slots=True)
class Sleep:
    """Do nothing for ``seconds``, then ``woke``. What came of the last attempt is given up now."""

    seconds: float


@dataclass(slots=True)
class Wait:
    """Wait until the configuration changes, or until the absolute time ``until``; then ``woke``."""

    until: float


@dataclass(slots=True)
class Reply:
    """The configuration orders this response."""

    response: Response


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


Effect = Send | Sleep | Wait | Reply | Pass | Finish
