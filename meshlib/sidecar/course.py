"""From one look to the next: what becomes of a call, so that nothing slips past a sidecar and nothing flaps.

Theory. A look gives a finding; a course of findings gives the state (:mod:`meshlib.model.sidecar` draws them).

- While something sure is there and not ready, calls wait: ``starting`` from the very first look on, for ``start_window`` seconds.
  Then what is known from variables alone is ``absent``, since they may have been inherited from another place; everything else
  is ``gone``, and the fallback decides.
- ``ready`` ends when its listener is gone, and by nothing else: a health port that says 503 belongs to a sidecar that drains,
  and a draining sidecar still carries calls. The kernel's table of listeners is exact, but a restart may take a moment in which
  a look falls: two of the last three looks must say so, or one, where a call could not connect either.
- It returns once it is ready again, in two of the last three looks where it was ready before.

Times: a sidecar that went is ``gone`` half a second later where nobody calls (two looks, 0.25 s apart), and one that is back is
``ready`` a second later, so that both hold what is promised (1 s and 10 s).
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.model.sidecar import ABSENT, Sidecar

if TYPE_CHECKING:
    from meshlib.model.sidecar import State
    from meshlib.sidecar.detect import Finding

__all__ = ["PERIODS", "Course"]

#: Seconds between looks, by state. A look takes some 50 to 100 µs.
PERIODS: dict[State, float] = {"absent": 5.0, "starting": 0.1, "ready": 0.25, "gone": 0.5}

_ENOUGH, _OF = 2, 3


class Course:
    """The state over time; pure: whoever looks says what it found, and when. Not thread-safe."""

    def __init__(self, start_window: float) -> None:
        self.current: Sidecar = ABSENT
        self._window = start_window
        self._began: float | None = None  # when calls began to wait
        self._waited = False  # the whole of it
        self._was_ready = False
        #: Whether each of the last looks speaks against the state.
        self._against: deque[bool] = deque(maxlen=_OF)

    def late(self, now: float) -> bool:
        """Whether the start window is over."""
        return self._waited or (self._began is not None and now - self._began >= self._window)

    def step(self, found: Finding, now: float, *, suspected: bool = False) -> Sidecar:
        """What holds after a look. ``suspected``: a call could not connect."""
        state = self._next(found, now, suspected=suspected)
        if state != self.current.state:
            self._against.clear()
        self._was_ready = self._was_ready or state == "ready"
        self.current = self._value(state, found, now)
        return self.current

    def _next(self, found: Finding, now: float, *, suspected: bool) -> State:
        ready = found.sure and bool(found.ready)
        match self.current.state:
            case "ready":
                missed = not found.sure or found.listening is False
                return "gone" if self._enough(missed, at_once=suspected) else "ready"
            case "gone":
                return "ready" if self._enough(ready, at_once=not self._was_ready) else "gone"
            case _ if ready:
                self._began, self._waited = None, self.late(now)
                return "ready"
            case "absent" if not found.here or self._waited:
                # What went away may come again, and is waited for then; variables stay as they are.
                self._waited = self._waited and found.here
                return "absent"
            case "absent":
                self._began = now
        if not self.late(now):
            return "starting"
        self._began, self._waited = None, True
        return "gone" if found.here and found.origin != "environment" else "absent"

    def _enough(self, against: bool, *, at_once: bool) -> bool:
        self._against.append(against)
        return against and (at_once or self._against.count(True) >= _ENOUGH)

    def _value(self, state: State, found: Finding, now: float) -> Sidecar:
        before = self.current
        since = before.since if state == before.state and before is not ABSENT else now
        if before.kind != "none" and (state == "gone" or (state == "ready" and not found.ready)):
            # Of what is gone, the last that was known; and while it carries calls nobody asks whether it is ready.
            seen = (
                before.evidence if state == "ready" else found.evidence or ("nothing of it listens any more",)
            )
            return replace(before, state=state, since=since, evidence=seen)
        return Sidecar(
            kind=found.kind,
            mode=found.mode,
            state=state,
            confidence=found.confidence,
            evidence=found.evidence,
            address=found.address,
            grpc=found.grpc,
            upstreams=found.upstreams,
            since=since,
        )
