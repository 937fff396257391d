"""Whether an attempt of a gRPC call is made again: gRFC A6 and A44 (RT-02 to RT-05).

It differs from :mod:`meshlib.core.retry`, Envoy's, in all but the question. A code is retried that the policy names:

    cancelled 1   deadline-exceeded 4   resource-exhausted 8   internal 13   unavailable 14

A broken connection counts as ``unavailable``. Other words of ``on`` say nothing here, but for a service of the configuration
file, whose one policy is for its HTTP calls too: there those about a server that cannot be reached or fails
(``5xx``, ``gateway-error``, ``connect-failure``, ``reset``, ``refused-stream``) mean ``unavailable``.

The call is committed, and never made again, once the server sent metadata or a message before its status. At most five
attempts are made. Waits double from ``base_interval`` to ``max_interval``, give or take a fifth; a server may say by
``grpc-retry-pushback-ms`` how long to wait, or, by a value that is no such number, not to come back.

Where the mesh orders no retries the application's own policy holds, whose codes may be any; its throttle holds for either.

A policy of the configuration file may have tenacity's objects (:mod:`meshlib.core.strategies`): ``retry`` is asked in the place of the codes, of attempts that failed;
``wait`` in the place of the back-off, unless the server says when; ``stop`` beside the number of attempts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.core.retry import PolicyRetries
from meshlib.model.call import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.retry import RetryAfter
    from meshlib.model.call import Outcome
    from meshlib.model.headers import Headers
    from meshlib.model.policy import RetryPolicy

__all__ = ["PUSHBACK", "GrpcRetries", "Throttling", "grpc_codes", "pushback"]

PUSHBACK = "grpc-retry-pushback-ms"

#: gRFC A6: more attempts are treated as five.
_MOST_ATTEMPTS = 5
#: gRFC A6: the jitter of a wait.
_SPREAD = 0.2
_MOST_DOUBLINGS = 64
_UNAVAILABLE = 14
_CODES = {
    "cancelled": 1,
    "deadline-exceeded": 4,
    "resource-exhausted": 8,
    "internal": 13,
    "unavailable": _UNAVAILABLE,
}
_NAMES = {code: name for name, code in _CODES.items()}
_OF_HTTP = frozenset(("5xx", "gateway-error", "connect-failure", "reset", "refused-stream"))


def grpc_codes(policy: RetryPolicy, *, from_file: bool) -> frozenset[int]:
    """The codes that ``policy`` retries."""
    codes = {_CODES[word] for word in policy.on if word in _CODES} | policy.codes
    if from_file and not policy.on.isdisjoint(_OF_HTTP):
        codes.add(_UNAVAILABLE)
    return frozenset(codes)


class Throttling(Protocol):
    """Bounds the retries to one server (gRFC A6). Thread-safe."""

    def failed(self) -> bool:
        """An attempt failed that the policy would retry; whether it may be."""
        ...

    def allows(self) -> bool:
        """Whether enough is left for an attempt that no failure is the reason of."""
        ...

    def succeeded(self) -> None:
        """An attempt was answered."""
        ...


class GrpcRetries(PolicyRetries):
    """The retries of one gRPC call; as :class:`meshlib.core.retry.Retries`. Not thread-safe: one call, one owner.

    Args:
        policy: What the route, the call or the file orders.
        codes: Those that are retried.
        random: Gives a float in [0, 1).
        replayable: Asked at each failure: whether what was sent can be sent again.
        throttle: The server's, if the application orders one.
    """

    __slots__ = (
        "_codes",
        "_replayable",
        "_throttle",
    )

    def __init__(
        self,
        policy: RetryPolicy,
        codes: frozenset[int],
        random: Callable[[], float],
        replayable: Callable[[], bool],
        throttle: Throttling | None = None,
    ) -> None:
        super().__init__(policy, random)
        self._codes = codes
        self._replayable = replayable
        self._throttle = throttle

    def after(self, outcome: Outcome, now: float, started: float) -> RetryAfter | None:
        """The decision on an attempt; None: no retry. Call it once for each attempt."""
        self.attempts += 1
        self.why = ""
        reason = self._reason(outcome, now, started)
        if reason is None:
            return None
        if outcome.sent and self._throttle is not None and not self._throttle.failed():
            self.why = "too many calls to the server fail (retryThrottling)"
            return None
        if outcome.sent and not self._replayable():
            self.why = "its messages cannot be sent again"
            return None
        if self._used_up(min(self.policy.retries + 1, _MOST_ATTEMPTS)):
            return None
        told = pushback(outcome.headers)
        if told is not None and told < 0:
            self.why = f"the server says not to ({PUSHBACK})"
            return None
        return self._again(reason, told, outcome, now, started)

    def holds(self, outcome: Outcome) -> bool:
        if outcome.kind is OutcomeKind.TIMEOUT:
            return False
        strategies = self._strategies
        if self.policy.retry is not None and strategies is not None and strategies.began is not None:
            return strategies.again(self.attempts, outcome, strategies.began, strategies.began) is not None
        return _code(outcome) in self._codes

    def beside(self) -> float | None:
        """Its time for an attempt is a configuration file's, and that has no such hedges."""
        return None

    def _reason(self, outcome: Outcome, now: float, started: float) -> str | None:
        """Why it is a reason to retry, in words; None: it is none."""
        if outcome.kind is OutcomeKind.TIMEOUT:
            return None
        if self.policy.retry is not None:
            return self._asked(outcome, now, started)
        code = _code(outcome)
        if code not in self._codes:
            return None
        return f"grpc-status {code} ({_NAMES.get(code, 'as the application says')})"

    def _backoff(self) -> float:
        policy = self.policy
        doublings = min(self.attempts - 1, _MOST_DOUBLINGS)
        try:
            wait = min(policy.base_interval * policy.multiplier**doublings, policy.max_interval)
        except OverflowError:
            wait = policy.max_interval
        return wait * (1.0 + _SPREAD * (2.0 * self._random() - 1.0))


def _code(outcome: Outcome) -> int:
    """A connection that broke is UNAVAILABLE."""
    return _UNAVAILABLE if outcome.status is None else outcome.status


def pushback(headers: Headers | None) -> float | None:
    """Seconds that the server asks for; below 0: not to come back; None: it says nothing."""
    text = headers.get(PUSHBACK) if headers is not None else None
    if text is None:
        return None
    # A 32-bit number of milliseconds, as gRPC reads it; longer ones are no number.
    return int(text) / 1000.0 if text.isascii() and text.isdigit() and len(text) <= 10 else -1.0
