"""tenacity's ``stop``, ``wait`` and ``retry`` objects, asked by the retries of one call.

They are calculators: each is given a state and answers a truth value or seconds. Nobody lets tenacity's own loop run, so that they
hold for HTTP and gRPC, blocking and asynchronous alike, and on a virtual clock.

Of an HTTP call an answer is a result, the :class:`meshlib.model.call.Outcome` with its ``status`` and ``headers``, and what brought none is an exception. Of an
RPC, whose library raises for a status, one that is not OK is an exception too: the library's own error.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from meshlib.errors import TransportFailed
from meshlib.model.call import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.model.policy import RetryPolicy

__all__ = ["RetryState", "StateOutcome", "Strategies", "strategies_of"]


def strategies_of(policy: RetryPolicy) -> Strategies | None:
    """Those of ``policy``, for one call; None: it has none."""
    if policy.stop is None and policy.wait is None and policy.retry is None:
        return None
    return Strategies(policy)


class Strategies:
    """The objects of one policy and the state of one call. Not thread-safe. What they raise is told in ``why`` and ends the retries: a
    failure of the user's object must not break the call's cleaning up.

    Attributes:
        why: Why there is no other attempt, in words.
        stopped: ``stop`` said so.
    """

    __slots__ = ("_policy", "_state", "stopped", "why")

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._state: RetryState | None = None
        self.why = ""
        self.stopped = False

    @property
    def began(self) -> float | None:
        """When the first attempt that they were asked of did; None: they were asked of none."""
        return None if self._state is None else self._state.start_time

    def again(self, attempts: int, outcome: Outcome, now: float, started: float) -> str | None:
        """Whether ``retry`` wants another attempt, in words; None: it does not. ``attempts``: made so far; ``started``: the last one."""
        retry = self._policy.retry
        assert retry is not None
        self.why = ""
        state = self._ended(attempts, outcome, now, started)
        try:
            again = bool(retry(state))
        except Exception as error:  # noqa: BLE001 - the user's object
            self.why = f"retry.retry failed: {error!r}"
            return None
        return "retry.retry says so" if again else None

    def delay(
        self,
        attempts: int,
        outcome: Outcome,
        now: float,
        started: float,
        told: float | None,
        backoff: Callable[[], float],
    ) -> float | None:
        """Seconds until the next attempt: what the upstream ``told``, else what ``wait`` says, else ``backoff``; None: there is none."""
        self.why = ""
        state = self._ended(attempts, outcome, now, started)
        delay = told
        if delay is None:
            delay = backoff() if self._policy.wait is None else self._ask_wait(state)
        if delay is None:
            return None
        state.upcoming_sleep = delay
        if self._policy.stop is not None and self._ask_stop(state):
            self.stopped = True
            return None
        state.idle_for += delay
        return delay

    def _ended(self, attempts: int, outcome: Outcome, now: float, started: float) -> RetryState:
        state = self._state
        if state is None:
            state = self._state = RetryState(started)
        state.ended(attempts, outcome, now)
        return state

    def _ask_wait(self, state: RetryState) -> float | None:
        assert self._policy.wait is not None
        try:
            delay = float(self._policy.wait(state))
        except Exception as error:  # noqa: BLE001 - the user's object
            self.why = f"retry.wait failed: {error!r}"
            return None
        if not math.isfinite(delay):
            self.why = f"retry.wait gave {delay}"
            return None
        return max(0.0, delay)

    def _ask_stop(self, state: RetryState) -> bool:
        assert self._policy.stop is not None
        try:
            stopped = bool(self._policy.stop(state))
        except Exception as error:  # noqa: BLE001 - the user's object
            self.why = f"retry.stop failed: {error!r}"
            return True
        if stopped:
            self.why = "retry.stop says so"
        return stopped


class StateOutcome:
    """What tenacity calls an outcome: a finished future of one attempt."""

    __slots__ = ("_error", "_value", "attempt_number")

    def __init__(self, number: int, value: Outcome) -> None:
        self.attempt_number = number
        self._value = value
        answered = value.kind in (OutcomeKind.OK, OutcomeKind.STATUS)
        if value.grpc:
            answered = value.status == 0
        self._error: BaseException | None = None
        if not answered:
            words = value.detail or (f"grpc-status {value.status}" if value.status else value.kind.value)
            self._error = value.error or TransportFailed(words, sent=value.sent)

    @property
    def failed(self) -> bool:
        return self._error is not None

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def exception(self, timeout: float | None = None) -> BaseException | None:  # noqa: ARG002 - a future's signature
        return self._error

    def result(self, timeout: float | None = None) -> Outcome:  # noqa: ARG002 - a future's signature
        if self._error is not None:
            raise self._error
        return self._value


class RetryState:
    """What tenacity's strategies read (its ``RetryCallState``), on the plan's clock. One per call, so that a strategy
    object may be shared by all of them.
    """

    def __init__(self, started: float) -> None:
        self.start_time = started
        self.attempt_number = 1
        self.outcome: StateOutcome | None = None
        self.outcome_timestamp: float | None = None
        self.idle_for = 0.0
        self.upcoming_sleep = 0.0
        self.next_action: object | None = None
        self.retry_object: object | None = None
        self.fn: Callable[..., object] | None = None
        self.args: tuple[object, ...] = ()
        self.kwargs: dict[str, object] = {}

    @property
    def seconds_since_start(self) -> float | None:
        return None if self.outcome_timestamp is None else self.outcome_timestamp - self.start_time

    def ended(self, number: int, outcome: Outcome, now: float) -> None:
        """Attempt ``number`` ended so."""
        self.attempt_number = number
        self.outcome = StateOutcome(number, outcome)
        self.outcome_timestamp = now
        self.upcoming_sleep = 0.0
