"""A call's decisions in words."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from meshlib.core.resolve import source_words
from meshlib.errors import Overloaded
from meshlib.model.call import OutcomeKind

if TYPE_CHECKING:
    from meshlib.core.match import Match
    from meshlib.core.resolution import Resolution
    from meshlib.model.call import Attempt, Head, Outcome
    from meshlib.model.route import ClusterWeight

__all__ = ["broken", "ending", "failed", "render"]

#: What the numbers of the operating system mean; its own words differ between systems, and asyncio has others.
_SYSTEM = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset by the peer",
    errno.ECONNABORTED: "connection aborted",
    errno.EPIPE: "connection closed by the peer",
    errno.ETIMEDOUT: "connection timed out",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "network unreachable",
    errno.ENOENT: "no such socket",
    errno.EACCES: "permission denied",
}
_RESOLVER = frozenset({"gaierror", "herror"})

#: Errors that are looked at beneath one; more of them is a circle or a joke.
_DEEPEST = 32


def render(
    resolution: Resolution,
    head: Head,
    match: Match | None,
    cluster: tuple[str, Sequence[str]],
    weight: ClusterWeight | None,
    attempts: Sequence[Attempt],
    endings: Sequence[str],
    words: Sequence[str],
) -> tuple[str, ...]:
    """The lines of ``CallInfo.trace()``: what was asked, who knew the host, route, cluster, each attempt, the end. ``cluster``: the route's,
    and those that the attempts were sent to, which are others where it is an aggregate.
    """
    lines = [f"{head.method} {head.scheme}://{head.authority}{head.path}"]
    if resolution.reason:
        lines.append(resolution.reason)
    if resolution.listener is not None:
        lines.append(f"listener {resolution.listener.name} of {source_words(resolution.part)}")
    if match is not None:
        lines.append(f"virtual host {match.virtual_host.name}, route {match.name}")
    name, used = cluster
    if name:
        share = f" (weight {weight.weight} of its route's split)" if weight is not None else ""
        leaves = ", then ".join(used)
        lines.append(f"cluster {name}{share}{f': its leaf {leaves}' if leaves not in ('', name) else ''}")
    lines.extend(attempt_line(attempt, why) for attempt, why in zip(attempts, endings, strict=True))
    lines.extend(words)
    return tuple(lines)


def attempt_line(attempt: Attempt, why: str) -> str:
    """One attempt: how it ended, where, after how long. ``why`` is the ``ending`` of one that failed."""
    took = f"after {attempt.seconds * 1000:.1f} ms"
    if attempt.status is not None:
        return f"attempt {attempt.number}: status {attempt.status} from {attempt.endpoint} {took}"
    return f"attempt {attempt.number}: {failed(why, attempt)}"


def failed(why: str, attempt: Attempt) -> str:
    """``connection refused (errno 111) at 127.0.0.1:9 after 1.0 ms; no byte was sent``."""
    sent = "the request may have been sent" if attempt.sent else "no byte was sent"
    return f"{why} at {attempt.endpoint} after {attempt.seconds * 1000:.1f} ms; {sent}"


def broken(outcome: Outcome, endpoint: str) -> str:
    """A response that did not come to its end."""
    return f"the response broke off in its body: {ending(outcome)} at {endpoint}"


def ending(outcome: Outcome) -> str:
    """Why an attempt that has no answer failed, in words that are the same whatever library made it."""
    if outcome.kind is OutcomeKind.OVERFLOW or isinstance(outcome.error, Overloaded):
        return str(outcome.error)
    said = _of_system(outcome.error)
    match outcome.kind:
        case OutcomeKind.TIMEOUT:
            return "no answer in time"
        case OutcomeKind.NO_TIME:
            return "no connection was free in time"
        case OutcomeKind.CANCELLED:
            return outcome.detail or "given up by the caller"
        case OutcomeKind.NO_TOKEN:
            return outcome.detail
        case OutcomeKind.OWN:
            return _with_own("not made", outcome)
        case OutcomeKind.CONNECT:
            return said or (
                "no connection in time" if _late(outcome.error) else _with_own("no connection", outcome)
            )
        case OutcomeKind.UNHEALTHY:
            return _with_own("it says that it does not serve", outcome)
        case OutcomeKind.REFUSED:
            return _with_own("request refused", outcome)
        case OutcomeKind.PROTOCOL:
            return _with_own("no response that can be read", outcome)
        case _:
            return said or _with_own("connection lost", outcome)


def _with_own(words: str, outcome: Outcome) -> str:
    """``words``, with what the library that made the attempt says."""
    error = outcome.error
    own = outcome.detail or (str(error) or type(error).__name__ if error is not None else "")
    return f"{words} ({own})" if own else words


def _of_system(error: BaseException | None) -> str:
    """What the operating system or TLS said, where one of them is at the bottom of ``error``; ``""`` where none is."""
    for found in _beneath(error):
        if not isinstance(found, OSError):
            continue
        verification = getattr(found, "verify_message", "")
        if verification or type(found).__name__.startswith("SSL"):
            return f"TLS failed ({verification or getattr(found, 'reason', None) or found})"
        if type(found).__name__ in _RESOLVER:
            return f"name not resolved ({found.strerror})"
        if found.errno is not None:
            return f"{_SYSTEM.get(found.errno) or _plain(found)} (errno {found.errno})"
    return ""


def _plain(error: OSError) -> str:
    text = error.strerror or type(error).__name__
    return text[:1].lower() + text[1:]


def _late(error: BaseException | None) -> bool:
    return any(
        isinstance(found, TimeoutError) or "Timeout" in type(found).__name__ for found in _beneath(error)
    )


def _beneath(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what it was made of, the outermost first: causes, and errors that are arguments of errors."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if found is None or id(found) in seen or len(seen) == _DEEPEST:
            continue
        seen.add(id(found))
        yield found
        arguments = (item for item in found.args if isinstance(item, BaseException))
        waiting += [*arguments, found.__cause__, found.__context__]
