"""Whether an attempt is made again, and after how long: Envoy's conditions, its backoff, and what forbids a retry.

Theory. After each attempt three questions are asked, in this order:

1. Does a condition of the policy hold? An answer is judged by its head (status, headers), anything else by how it
   failed. A condition that nobody named never holds, and ``x-envoy-ratelimited`` in an answer rules out all conditions
   but ``envoy-ratelimited``.
2. May this request be sent again? Its method is one that the policy takes, its body can be replayed or none of it
   went out, and the caller did not forbid it.
3. Is another attempt left? The policy's count, and its ``stop`` strategy beside it.

The condition table (Envoy ``retry_on``; RT-06):

    outcome                      conditions under which it is retried
    status 5xx                   5xx
    status 502, 503, 504         gateway-error
    status 409                   retriable-4xx
    a status of ``statuses``     retriable-status-codes
    a header of ``headers``      retriable-headers
    x-envoy-ratelimited present  envoy-ratelimited, and no other
    grpc-status in the head      cancelled, deadline-exceeded, internal, resource-exhausted, unavailable
    not connected                connect-failure, and those of a reset
    reset, no response,
    attempt's time over          reset, 5xx, gateway-error; reset-before-request if nothing was sent
    stream refused               refused-stream, and those of a reset
    503 with finagle-http-nack   refused-stream, and those of its status: nothing was done, so that any method may be sent again
    503 with finagle-http-nonretryable-nack   none
    cancelled                    none

Where the policy has a ``retry`` strategy, it is asked in the place of the table. The call's own timeout is not here: it ends a call,
nobody asks (the plan's part).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from meshlib.core.classify import GATEWAY_ERRORS
from meshlib.core.conditions import compile_header, header_values_match
from meshlib.core.strategies import strategies_of
from meshlib.model.call import OK, Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.model.call import Head
    from meshlib.model.headers import Headers
    from meshlib.model.policy import RetryPolicy

__all__ = [
    "Deciding",
    "PolicyRetries",
    "Retries",
    "RetryAfter",
    "backoff_ceiling",
    "http_date",
    "may_matter",
    "reset_interval",
]

#: Of an attempt of which nothing is known but that it was made.
_SENT = Outcome(OutcomeKind.TIMEOUT, sent=True)
_RESET_CONDITIONS = ("reset", "5xx", "gateway-error")
_FAILURES = {
    OutcomeKind.CONNECT: ("not connected", ("connect-failure",)),
    OutcomeKind.RESET: ("the connection broke", ()),
    OutcomeKind.PROTOCOL: ("the answer was no response", ()),
    OutcomeKind.TIMEOUT: ("the attempt's time was over", ()),
    OutcomeKind.REFUSED: ("the stream was refused", ("refused-stream",)),
}
_GRPC_CONDITIONS = {
    "1": "cancelled",
    "4": "deadline-exceeded",
    "8": "resource-exhausted",
    "13": "internal",
    "14": "unavailable",
}
#: Conditions that may hold whatever the status is.
_BY_HEADERS = frozenset(
    (*_GRPC_CONDITIONS.values(), "envoy-ratelimited", "retriable-headers", "retriable-status-codes")
)
_RATE_LIMITED = "x-envoy-ratelimited"
#: Finagle ``HttpNackFilter``: the server did not take the request, and another may, or none will.
_NACK, _FINAL_NACK = "finagle-http-nack", "finagle-http-nonretryable-nack"
_HTTP_DATE_LENGTH = 29
#: So many seconds are no interval: it is the year 2001.
_OF_THE_EPOCH = 1e9
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EARLY_DATA = "early-data"
#: Beyond this doubling every ceiling is ``max_interval`` (and a float would overflow later).
_MOST_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Try again after ``delay`` seconds. ``reason``: which condition held, in words; ``told``: the upstream said when."""

    delay: float
    reason: str
    told: bool = False


class Deciding(Protocol):
    """The retries of one call, by its protocol's rules."""

    exhausted: bool
    why: str

    def after(self, outcome: Outcome, now: float, started: float) -> RetryAfter | None:
        """The decision on an attempt; None: no retry. Once for each attempt that is not hedged."""
        ...

    def holds(self, outcome: Outcome) -> bool:
        """Whether it is a reason to retry, were a retry left and allowed."""
        ...

    def beside(self) -> float | None:
        """The back-off of a retry that is made beside its attempt; None: none is left."""
        ...

    def spend(self) -> None:
        """Such a one is made."""
        ...


def may_matter(policy: RetryPolicy, outcome: Outcome) -> bool:
    """Whether ``policy`` has to be asked of this outcome at all: a call that went well, the usual one, pays nothing."""
    if outcome.grpc:
        return outcome.kind is not OK or outcome.status != 0
    if policy.retry is not None:
        return True
    good = outcome.kind is OK and (outcome.status or 0) < 400
    return not good or not policy.on.isdisjoint(_BY_HEADERS)


class PolicyRetries:
    """What the retries of one call keep by a policy, whatever the protocol. Not thread-safe: one call, one owner."""

    __slots__ = ("_random", "_strategies", "attempts", "exhausted", "policy", "why")

    def __init__(self, policy: RetryPolicy, random: Callable[[], float]) -> None:
        self.policy = policy
        #: Attempts made so far, the first included.
        self.attempts = 0
        #: Whether a condition held and no attempt was left.
        self.exhausted = False
        #: Why the last decision was not to retry, in words; ``""`` where it was to retry or nothing had failed.
        self.why = ""
        self._random = random
        self._strategies = strategies_of(policy)

    def spend(self) -> None:
        self.attempts += 1

    def _asked(self, outcome: Outcome, now: float, started: float) -> str | None:
        """Why the policy's ``retry`` strategy wants another attempt; None: it does not."""
        assert self._strategies is not None
        reason = self._strategies.again(self.attempts, outcome, now, started)
        if reason is None:
            self.why = self._strategies.why
        return reason

    def _used_up(self, most: int) -> bool:
        """Whether none of ``most`` attempts is left."""
        self.exhausted = self.attempts >= most
        if self.exhausted:
            self.why = f"all {self.attempts} attempts are used"
        return self.exhausted

    def _backoff(self) -> float:
        """Seconds, by the protocol's rule."""
        raise NotImplementedError

    def _again(
        self, reason: str, told: float | None, outcome: Outcome, now: float, started: float
    ) -> RetryAfter | None:
        """The retry for ``reason``: after what the upstream ``told``, else what ``wait`` says, else the back-off; None: ``stop`` forbids it."""
        strategies = self._strategies
        if strategies is None:
            return RetryAfter(self._backoff() if told is None else told, reason, told is not None)
        delay = strategies.delay(self.attempts, outcome, now, started, told, self._backoff)
        if delay is None:
            self.why, self.exhausted = strategies.why, strategies.stopped
            return None
        return RetryAfter(delay, reason, told is not None)


class Retries(PolicyRetries):
    """The retries of one HTTP call. Not thread-safe: one call, one owner.

    Args:
        policy: What the route, the call or the file orders.
        random: Gives a float in [0, 1).
        method: The request's.
        replayable: Whether the body can be sent again. If not, a retry is made only while nothing was sent.
        idempotent: ``CallOptions.idempotent``: False stops retries once anything may have been sent, True allows
            them whatever the method, None leaves it to the policy.
        head: The request as asked for; for conditions on its headers.
        wall: Seconds since the epoch, for reset headers that hold a point in time.
    """

    __slots__ = (
        "_head",
        "_idempotent",
        "_method",
        "_on",
        "_replayable",
        "_wall",
    )

    def __init__(
        self,
        policy: RetryPolicy,
        random: Callable[[], float],
        *,
        method: str,
        replayable: bool = True,
        idempotent: bool | None = None,
        head: Head | None = None,
        wall: Callable[[], float],
    ) -> None:
        super().__init__(policy, random)
        self._method = method
        self._replayable = replayable
        self._idempotent = idempotent
        self._head = head
        self._wall = wall
        self._on = policy.on
        if policy.request_headers and not _asks(policy, head):
            self._on = frozenset()

    def after(self, outcome: Outcome, now: float, started: float) -> RetryAfter | None:
        """The decision on an attempt that began at ``started`` and whose outcome came now; None: no retry.

        ``now`` and ``started`` are monotonic seconds. Call it once for each attempt.
        """
        self.attempts += 1
        self.why = ""
        reason = self._condition(outcome) if self.policy.retry is None else self._asked(outcome, now, started)
        if reason is None:
            return None
        self.why = self._forbidden(outcome)
        if self.why:
            return None
        if self._used_up(self.policy.retries + 1):
            return None
        return self._again(reason, self._told(outcome), outcome, now, started)

    def holds(self, outcome: Outcome) -> bool:
        strategies = self._strategies
        if self.policy.retry is not None and strategies is not None and strategies.began is not None:
            return self._asked(outcome, strategies.began, strategies.began) is not None
        return self._condition(outcome) is not None

    def beside(self) -> float | None:
        if self.attempts >= self.policy.retries or self._forbidden(_SENT):
            return None
        return self._random() * backoff_ceiling(self.policy, self.attempts + 1)

    # --- does a condition hold? -----------------------------------------------------------------------------------

    def _condition(self, outcome: Outcome) -> str | None:
        if not self._on:
            return None
        if outcome.kind in (OutcomeKind.OK, OutcomeKind.STATUS):
            return self._answered(outcome.status or 0, outcome.headers)
        failure = _FAILURES.get(outcome.kind)
        if failure is None:
            return None
        words, own = failure
        for condition in (*own, *_RESET_CONDITIONS):
            if condition in self._on:
                return f"{words} ({condition})"
        if "reset-before-request" in self._on and not outcome.sent:
            return f"{words} (reset-before-request)"
        return None

    def _answered(self, status: int, headers: Headers | None) -> str | None:
        on = self._on
        if status == 503 and headers is not None:
            if _FINAL_NACK in headers:
                return None
            if _NACK in headers and "refused-stream" in on:
                return f"the request was not taken ({_NACK})"
        if headers is not None and _RATE_LIMITED in headers:
            return "rate limited (envoy-ratelimited)" if "envoy-ratelimited" in on else None
        if "5xx" in on and 500 <= status <= 599:
            return f"status {status} (5xx)"
        if "gateway-error" in on and status in GATEWAY_ERRORS:
            return f"status {status} (gateway-error)"
        if "retriable-4xx" in on and status == 409:
            return "status 409 (retriable-4xx)"
        # A request that itself came as early data must see the 425 and be sent again by who made it (RFC 8470).
        if "retriable-status-codes" in on and status in self.policy.statuses and not self._early(status):
            return f"status {status} (retriable-status-codes)"
        if headers is None:
            return None
        if "retriable-headers" in on:
            for match in self.policy.headers:
                if header_values_match(match)(_response_value(match.name, status, headers)):
                    return f"header {match.name} (retriable-headers)"
        return self._grpc_answered(headers)

    def _early(self, status: int) -> bool:
        return status == 425 and self._head is not None and _EARLY_DATA in self._head.headers

    def _grpc_answered(self, headers: Headers) -> str | None:
        code = headers.get("grpc-status")
        condition = _GRPC_CONDITIONS.get(code) if code is not None else None
        return (
            f"grpc-status {code} ({condition})" if condition is not None and condition in self._on else None
        )

    # --- may it be sent again? ------------------------------------------------------------------------------------

    def _forbidden(self, outcome: Outcome) -> str:
        # An answer proves that the request went out, whatever the transport could say of it.
        sent = outcome.sent or outcome.status is not None
        if outcome.status == 503 and outcome.headers is not None and _NACK in outcome.headers:
            # Nothing was done with it: whatever its method is, that it was sent does no harm.
            return "" if self._replayable else "its body cannot be sent again"
        if sent and self._idempotent is False:
            return "the caller forbids it once anything may have been sent"
        if sent and not self._replayable:
            return "its body cannot be sent again"
        methods = self.policy.methods
        if methods is not None and self._idempotent is None and self._method.upper() not in methods:
            return f"{self._method} is not among the methods that are retried"
        return ""

    # --- after how long? ------------------------------------------------------------------------------------------

    def _backoff(self) -> float:
        return self._random() * backoff_ceiling(self.policy, self.attempts)

    def _told(self, outcome: Outcome) -> float | None:
        """What a reset header of the answer tells, spread over 1 to 1.5 times (RT-07), or None."""
        if not self.policy.reset_headers or outcome.headers is None:
            return None
        interval = reset_interval(self.policy, outcome.headers, self._wall)
        return None if interval is None else interval * (1.0 + 0.5 * self._random())


def _asks(policy: RetryPolicy, head: Head | None) -> bool:
    """Envoy ``retriable_request_headers``: one of them must match for any retry at all."""
    return head is not None and any(compile_header(match)(head) for match in policy.request_headers)


def _response_value(name: str, status: int, headers: Headers) -> str | None:
    return str(status) if name == ":status" else headers.get(name)


def backoff_ceiling(policy: RetryPolicy, retry: int) -> float:
    """The longest wait before the ``retry``-th retry (from 1): (2^N - 1) × base, at most ``max_interval`` (RT-04)."""
    doublings = min(retry, _MOST_DOUBLINGS)
    return min((2.0**doublings - 1.0) * policy.base_interval, policy.max_interval)


def reset_interval(policy: RetryPolicy, headers: Headers, wall: Callable[[], float]) -> float | None:
    """Seconds until the server wants to be asked again: the first of the policy's reset headers that is there, can be read
    in its form and is not beyond ``max_reset_interval`` (Envoy ``rate_limited_retry_back_off``, RT-07).
    """
    for name, form in policy.reset_headers:
        text = (headers.get(name) or "").strip()
        seconds = _whole_number(text)
        if seconds is None:
            # RFC 9110, 10.2.3: a date, or seconds.
            at = http_date(text) if form == "retry_after" else None
            seconds = None if at is None else at - wall()
        elif form == "unix_timestamp":
            seconds -= wall()
        elif form == "milliseconds":
            seconds /= 1000.0
        elif form == "seconds_or_unix_timestamp" and seconds >= _OF_THE_EPOCH:
            seconds -= wall()
        if seconds is not None and 0.0 < seconds <= policy.max_reset_interval:
            return seconds
    return None


def _whole_number(text: str) -> float | None:
    # 20 digits hold any 64-bit number; more would only cost time.
    return float(int(text)) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def http_date(text: str) -> float | None:
    """Seconds since the epoch at a date like ``Sun, 06 Nov 1994 08:49:37 GMT``, the one form that may be sent (RFC 9110, 5.6.7);
    None for what is none.
    """
    if len(text) != _HTTP_DATE_LENGTH or text[3:5] != ", " or not text.endswith(" GMT"):
        return None
    try:
        day, month, year, clock = text[5:-4].split(" ")
        hour, minute, second = map(int, clock.split(":"))
        at = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), hour, minute, min(second, 59), tzinfo=UTC
        )
    except ValueError:
        return None
    return at.timestamp()
