"""A request as the engine reads it, whatever library it is of: what the call asks for, and what it inherits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.effects import Call
from meshlib.deadlines import current_deadline
from meshlib.inbound import carry, is_retry
from meshlib.model.call import CallOptions
from meshlib.model.policy import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.resolution import Resolution
    from meshlib.model.call import Head
    from meshlib.runtime.clock import Clock

__all__ = ["NO_OPTIONS", "PATIENCE", "ask", "options_in", "retry_of"]

#: How long a call may wait for its configuration where its library bounds connecting by nothing: httpx's default, in seconds.
PATIENCE = 5.0

NO_OPTIONS = CallOptions()


def ask(
    resolution: Resolution,
    head: Head,
    clock: Clock,
    *,
    options: CallOptions = NO_OPTIONS,
    timeouts: Mapping[str, float | None],
    defaults: bool = False,
    replayable: bool,
    concurrent: bool = False,
    default_retry: RetryPolicy | None = None,
    tried: tuple[LiveEndpoint, ...] = (),
    url: str | Callable[[], str] = "",
) -> Call:
    """The call. Puts into ``head`` what it inherits from a request that is being served here.

    ``timeouts``: the library's, in seconds, by ``connect``, ``read``, ``write``, ``pool``; ``defaults``: nobody chose them, so
    they give way to what the mesh orders; ``replayable``: whether the body can be sent again, ``concurrent``: by several attempts at a time; ``default_retry``: the retries that
    the library was told to make; ``tried``: endpoints of earlier plans of the same call. Raises ConfigError for options that
    are none.
    """
    deadline = current_deadline(clock)
    connect = timeouts.get("connect", PATIENCE)
    return Call(
        resolution,
        head,
        deadline=deadline,
        limit="the deadline" if deadline is not None else "",
        timeout=options.timeout,
        retry=None if options.retry is None else retry_of(options),
        default_retry=default_retry,
        idempotent=options.idempotent,
        hash_key=options.hash_key,
        replayable=replayable,
        concurrent=concurrent,
        wait=PATIENCE if connect is None else connect,
        counted=(inside := carry(head.headers)),
        chained=inside and is_retry(),
        tried=tried,
        url=url,
        timeouts=timeouts,
        defaults=defaults,
    )


def options_in(extensions: Mapping[str, object]) -> CallOptions:
    """The call's own options among a request's extensions. Raises TypeError for what is none."""
    options = extensions.get("meshlib")
    if options is None:
        return NO_OPTIONS
    if not isinstance(options, CallOptions):
        raise TypeError(f'extensions["meshlib"]: expected meshlib.CallOptions, not {type(options).__name__}')
    return options


def retry_of(options: CallOptions) -> RetryPolicy | bool | None:
    """The retries that a call orders for itself: a policy, False for none, None for the route's. Raises ConfigError."""
    chosen = options.retry
    if chosen is None or isinstance(chosen, bool | RetryPolicy):
        return None if chosen is True else chosen
    from meshlib.config import read_retry
    from meshlib.runtime.policies import retry_policy

    return retry_policy(read_retry(chosen))
