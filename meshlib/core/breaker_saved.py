"""What a breaker knows, as a value that outlives its process: kept by one, taken on by the next.

Theory. Times in a process are monotonic and mean nothing in another. So what is kept says how long ago things were, and when as a whole
it was kept by the clock of the day; who takes it on puts them that much earlier on its own clock. Probes that were under way belong to the
process that made them: a breaker that was half open is taken on as one whose time is over, and makes others.

The value is JSON-ready. It comes from outside, so that nothing of it is believed: what is wrong raises ValueError with its place.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from meshlib.core.breaker import BreakerState
from meshlib.core.window import SLICES, Kept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.core.breaker import CircuitBreaker

__all__ = ["Saved", "put", "read", "seconds", "take"]

#: Calls of a window at most (``breaker.window``); failures in a row that are told apart.
_MOST = 1_000_000
#: Seconds: what is older is as old.
_OLDEST = 10.0 * 365 * 86_400


class Saved(NamedTuple):
    """Times are of this process's clock, as when it was taken on."""

    state: BreakerState
    failures: int
    opened: float
    window: Kept | None


def take(machine: CircuitBreaker, now: float) -> dict[str, object] | None:
    """What it knows; None: nothing that a new one would not."""
    window = machine.window.kept(now) if machine.window is not None else None
    if machine.state is BreakerState.CLOSED and not machine.failures and window is None:
        return None
    made: dict[str, object] = {"state": machine.state.value, "failures": machine.failures}
    if machine.state is not BreakerState.CLOSED:
        made["opened"] = max(0.0, now - machine.opened)
    if window is not None:
        made["window"] = window.calls or [list(each) for each in window.slices]
        if window.slices:
            made["turns"] = window.ends
    return made


def put(machine: CircuitBreaker, saved: Saved) -> None:
    """Have ``machine``, which has counted nothing, go on from there."""
    if saved.state is not BreakerState.CLOSED:
        machine.force(BreakerState.OPEN, saved.opened)
        return
    machine.failures = saved.failures
    if machine.window is not None and saved.window is not None:
        machine.window.take_on(saved.window)


def read(value: object, place: str, began: float) -> Saved:
    """What ``take`` gave. ``began``: when that was, by this process's clock."""
    if not isinstance(value, dict):
        raise ValueError(f"{place}: must be a mapping")  # noqa: TRY004 - of whatever type: a wrong value
    try:
        state = BreakerState(value.get("state"))
    except ValueError:
        raise ValueError(f"{place}.state: must be closed, open or half_open") from None
    failures = _whole(value.get("failures", 0), f"{place}.failures")
    opened = seconds(value.get("opened", 0.0), f"{place}.opened")
    return Saved(state, failures, began - opened, _window(value, place, began))


def _window(value: Mapping[str, object], place: str, began: float) -> Kept | None:
    given, place = value.get("window"), f"{place}.window"
    if given is None:
        return None
    if isinstance(given, str):
        if len(given) > _MOST or set(given) - set("0123"):
            raise ValueError(f"{place}: must be at most {_MOST} of 0, 1, 2, 3")
        return Kept(given, (), 0.0)
    if not isinstance(given, list) or len(given) > SLICES:
        raise ValueError(f"{place}: must be text, or a list of at most {SLICES}")
    slices = tuple(_slice(each, f"{place}[{index}]") for index, each in enumerate(given))
    return Kept("", slices, began + seconds(value.get("turns", 0.0), f"{place}.turns"))


def _slice(given: object, place: str) -> tuple[int, int, int]:
    if not isinstance(given, list) or len(given) != 3:
        raise ValueError(f"{place}: must be three whole numbers: calls, failures, slow ones")
    calls, failed, slow = (_whole(each, f"{place}[{index}]") for index, each in enumerate(given))
    if max(failed, slow) > calls:
        raise ValueError(f"{place}: has more failures or slow calls than calls")
    return calls, failed, slow


def _whole(given: object, place: str) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= _MOST:
        raise ValueError(f"{place}: must be a whole number from 0 to {_MOST}")
    return given


def seconds(given: object, place: str) -> float:
    """What is a number of seconds, of ten years at most."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < inf:
        raise ValueError(f"{place}: must be a number of seconds, 0 or more")
    return float(min(given, _OLDEST))
