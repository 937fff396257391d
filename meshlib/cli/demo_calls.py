"""The demo's client: a steady stream of calls, and what became of each."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from meshlib.errors import MeshError
from meshlib.hosts.info import call_info

if TYPE_CHECKING:
    from meshlib.cli.demo_stage import Stage
    from meshlib.model.call import CallInfo

__all__ = ["RATE", "Call", "Calls", "Tally"]

#: Calls a second.
RATE = 90
#: So many may be under way at a time: a call that waits for a retry does not slow the others down.
_CALLERS = 5


@dataclass(frozen=True, slots=True)
class Call:
    """One call. ``began`` is monotonic, ``version`` who answered; ``gold``: it had the header of the header route;
    ``error`` is ``""`` where it succeeded.
    """

    began: float
    seconds: float
    gold: bool
    version: str
    error: str
    info: CallInfo | None = field(repr=False)

    @property
    def retries(self) -> int:
        return max(0, len(self.info.attempts) - 1) if self.info is not None else 0

    def tried(self, address: str) -> bool:
        """Whether an attempt went to ``address``."""
        return self.info is not None and any(attempt.endpoint == address for attempt in self.info.attempts)


class Calls:
    """``RATE`` calls a second from ``start`` until it is left, every second one with ``x-tier: gold``."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._made: list[Call] = []  # appended to by the callers, read by the director
        self._over = threading.Event()
        self._callers = [
            threading.Thread(target=self._caller, args=(number,), name=f"demo-caller-{number}", daemon=True)
            for number in range(_CALLERS)
        ]

    def start(self) -> None:
        for caller in self._callers:
            caller.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for caller in self._callers:
            if caller.ident is not None:
                caller.join(5.0)

    def since(self, began: float, until: float = float("inf")) -> Tally:
        """The calls that began in this time and have ended."""
        return Tally([call for call in list(self._made) if began <= call.began < until])

    def _caller(self, number: int) -> None:
        """Every ``_CALLERS``-th call. A call that is late is made at once, and none is made up for."""
        period = _CALLERS / RATE
        due = time.monotonic() + number / RATE
        turn = number
        while not self._over.wait(max(0.0, due - time.monotonic())):
            self._made.append(self._call(gold=turn % 2 == 1))
            turn += _CALLERS
            due = max(due + period, time.monotonic() - period)

    def _call(self, *, gold: bool) -> Call:
        began = time.monotonic()
        try:
            headers = {"x-tier": "gold"} if gold else None
            response = self._stage.client.get("http://reviews/api/reviews/7", headers=headers)
        except Exception as error:  # noqa: BLE001 - a failed call is a fact that the demo shows
            words = str(error) if isinstance(error, MeshError) else repr(error)
            return Call(began, time.monotonic() - began, gold, "", words, call_info(error))
        seconds = time.monotonic() - began
        if response.status_code != 200:
            return Call(began, seconds, gold, "", f"status {response.status_code}", call_info(response))
        return Call(began, seconds, gold, response.json()["name"], "", call_info(response))


@dataclass(frozen=True, slots=True)
class Tally:
    """Some calls, counted."""

    calls: Sequence[Call]

    def __len__(self) -> int:
        return len(self.calls)

    def only(self, wanted: Callable[[Call], bool]) -> Tally:
        return Tally([call for call in self.calls if wanted(call)])

    @property
    def gold(self) -> Tally:
        return self.only(lambda call: call.gold)

    @property
    def plain(self) -> Tally:
        return self.only(lambda call: not call.gold)

    @property
    def failed(self) -> Sequence[Call]:
        return [call for call in self.calls if call.error]

    @property
    def retries(self) -> int:
        return sum(call.retries for call in self.calls)

    def count(self, version: str) -> int:
        return sum(call.version == version for call in self.calls)

    def share(self, version: str) -> float:
        """0 to 1; 0 of no calls."""
        return self.count(version) / len(self.calls) if self.calls else 0.0

    def quantile(self, q: float) -> float:
        """Seconds within which the share ``q`` of the calls ended; 0 of no calls."""
        times = sorted(call.seconds for call in self.calls)
        return times[min(len(times) - 1, int(q * len(times)))] if times else 0.0

    def endpoints(self) -> Counter[tuple[str, str]]:
        """Calls by the cluster that they were routed to and the endpoint that answered."""
        return Counter(
            (call.info.cluster, call.info.endpoint) for call in self.calls if call.info is not None
        )

    def sample(self, *wanted: Callable[[Call], bool]) -> Call | None:
        """The last call for which the first of ``wanted`` holds that holds for any."""
        for test in wanted:
            found = next((call for call in reversed(self.calls) if test(call)), None)
            if found is not None:
                return found
        return self.calls[-1] if self.calls else None
