"""RT-04: each strategy that tenacity has says the same to our plan as to tenacity's own loop."""

from __future__ import annotations

import random
import threading

import pytest
import tenacity

from meshlib.core.retry import Retries
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.policy import RetryPolicy

MOST = 12
#: Seconds that each attempt takes.
TOOK = 0.25


def rung(after):
    """An event that is set when so many strategies have asked it."""

    class Event(threading.Event):
        asked = 0

        def is_set(self):
            self.asked += 1
            return self.asked > after

    return Event()


STOPS = {
    "stop_after_attempt": lambda: tenacity.stop_after_attempt(4),
    "stop_after_delay": lambda: tenacity.stop_after_delay(3.0),
    "stop_all": lambda: tenacity.stop_after_attempt(3) & tenacity.stop_after_delay(4.0),
    "stop_any": lambda: tenacity.stop_after_attempt(6) | tenacity.stop_after_delay(3.0),
    "stop_before_delay": lambda: tenacity.stop_before_delay(3.0),
    "stop_never": lambda: tenacity.stop_never,
    "stop_when_event_set": lambda: tenacity.stop_when_event_set(rung(5)),
}
WAITS = {
    "wait_chain": lambda: tenacity.wait_chain(*(tenacity.wait_fixed(n) for n in (1, 2, 3))),
    "wait_combine": lambda: tenacity.wait_fixed(0.5) + tenacity.wait_incrementing(start=0, increment=0.5),
    "wait_exception": lambda: tenacity.wait_exception(lambda error: float(len(str(error)))),
    "wait_exponential": lambda: tenacity.wait_exponential(multiplier=0.1, max=2.0, min=0.2),
    "wait_exponential_jitter": lambda: tenacity.wait_exponential_jitter(max=2.0),
    "wait_fixed": lambda: tenacity.wait_fixed(0.75),
    "wait_full_jitter": lambda: tenacity.wait_full_jitter(multiplier=0.1, max=2.0),
    "wait_incrementing": lambda: tenacity.wait_incrementing(start=0.1, increment=0.3, max=1.0),
    "wait_none": tenacity.wait_none,
    "wait_random": lambda: tenacity.wait_random(0.1, 0.9),
    "wait_random_exponential": lambda: tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
}
#: The lowest version that is allowed does not have them all.
WAITS = {name: make for name, make in WAITS.items() if hasattr(tenacity, name)}


def error_of(number):
    return ConnectionError("x" * number)


def theirs(stop, wait, monkeypatch):
    """The waits of tenacity's own loop, on a clock that only attempts and waits move."""
    now, waits = [100.0], []
    monkeypatch.setattr(tenacity.time, "monotonic", lambda: now[0])

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    def attempt():
        now[0] += TOOK
        raise error_of(len(waits) + 1)

    with pytest.raises(tenacity.RetryError):
        tenacity.Retrying(stop=stop | tenacity.stop_after_attempt(MOST), wait=wait, sleep=sleep)(attempt)
    return waits


def ours(stop, wait):
    """The waits of a plan, on its own clock."""
    policy = RetryPolicy(on=frozenset({"reset"}), retries=MOST - 1, stop=stop, wait=wait)
    retries, now, waits = Retries(policy, lambda: 0.5, method="GET", wall=lambda: 0.0), 100.0, []
    while True:
        began = now
        now += TOOK
        outcome = Outcome(OutcomeKind.RESET, error=error_of(len(waits) + 1))
        retry = retries.after(outcome, now, began)
        if retry is None:
            return waits
        waits.append(retry.delay)
        now += retry.delay


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("stop", STOPS)
def test_the_plan_waits_and_stops_as_tenacitys_loop(stop, wait, monkeypatch):
    random.seed(7)
    expected = theirs(STOPS[stop](), WAITS[wait](), monkeypatch)
    random.seed(7)
    found = ours(STOPS[stop](), WAITS[wait]())
    assert found == pytest.approx(expected)


def test_every_strategy_of_tenacitys_is_in_the_tables():
    names = {name for name in dir(tenacity) if name.startswith(("stop_", "wait_"))}
    assert names == STOPS.keys() | WAITS.keys()
