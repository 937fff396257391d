"""What calls came to lately: of the last so many, or of the last so many seconds.

Of a window of calls each is kept, in two bits. A window of seconds has ``SLICES`` slices, of which the oldest goes as a new one begins:
it covers between nine and ten tenths of what was asked for. Both cost one step a call.

Not thread-safe.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["SLICES", "Kept", "Window"]

SLICES = 10
_FAILED, _SLOW = 1, 2


class Kept(NamedTuple):
    """What a window knew: ``calls``, a digit each, the oldest first; or, of a window of seconds, its ``slices`` (calls, failures, slow
    ones), the newest of which ``ends`` then.
    """

    calls: str
    slices: tuple[tuple[int, int, int], ...]
    ends: float


class Window:
    """The last ``calls``; with ``seconds`` those of that time. ``total``, ``failed``, ``slow``: how many; read them, no more."""

    __slots__ = ("_ends", "_kept", "_length", "calls", "failed", "seconds", "slow", "total")

    def __init__(self, calls: int, seconds: float | None = None) -> None:
        self.calls = calls
        self.seconds = seconds
        self._kept: deque[int | list[int]] = deque()
        self._length = 0.0 if seconds is None else seconds / SLICES
        self._ends = 0.0  # of the newest slice
        self.total = self.failed = self.slow = 0

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """One more call. ``now`` does not go back."""
        self.turn(now)
        self.total += 1
        self.failed += failed
        self.slow += slow
        if self.seconds is None:
            self._kept.append(failed * _FAILED | slow * _SLOW)
            if self.total > self.calls:
                self._forget(self._kept.popleft())
            return
        newest = self._kept[-1]
        assert isinstance(newest, list)
        newest[0] += 1
        newest[1] += failed
        newest[2] += slow

    def fail_last(self) -> None:
        """A call that was added as good failed after all."""
        if not self._kept or self.failed >= self.total:
            return
        newest = self._kept[-1]
        if isinstance(newest, list):
            newest[1] += 1
        elif newest & _FAILED:
            return
        else:
            self._kept[-1] = newest | _FAILED
        self.failed += 1

    def turn(self, now: float) -> None:
        """Forget what is too old."""
        if self.seconds is None or (self._kept and now < self._ends):
            return
        over = int((now - self._ends) // self._length) + 1 if self._kept else SLICES
        self._ends = self._ends + over * self._length if self._kept else now + self._length
        for _ in range(min(over, SLICES)):
            self._kept.append([0, 0, 0])
        while len(self._kept) > SLICES:
            self._forget(self._kept.popleft())

    def resized(self, calls: int, seconds: float | None) -> Window:
        """Another with what it knows, as far as that fits: a window of calls is no window of seconds."""
        made = Window(calls, seconds)
        if seconds is None and self.seconds is None:
            made._kept.extend(list(self._kept)[-calls:])
            bits = [item for item in made._kept if isinstance(item, int)]
            made.total = len(bits)
            made.failed = sum(bool(item & _FAILED) for item in bits)
            made.slow = sum(bool(item & _SLOW) for item in bits)
        return made

    def kept(self, now: float) -> Kept | None:
        """All that it knows; None: nothing."""
        self.turn(now)
        if not self.total:
            return None
        if self.seconds is None:
            return Kept("".join(str(item) for item in self._kept), (), 0.0)
        slices = tuple((item[0], item[1], item[2]) for item in self._kept if isinstance(item, list))
        return Kept("", slices, max(0.0, self._ends - now))

    def take_on(self, kept: Kept) -> None:
        """Know that instead, as far as it fits: a window of calls is no window of seconds."""
        if bool(kept.calls) is not (self.seconds is None):
            return
        self.clear()
        if self.seconds is None:
            self._kept.extend(int(digit) for digit in kept.calls[-self.calls :])
            found = [(1, item & _FAILED, item >> 1) for item in self._kept if isinstance(item, int)]
        else:
            self._kept.extend(list(each) for each in kept.slices)
            self._ends = kept.ends
            found = list(kept.slices)
        self.total = sum(calls for calls, _, _ in found)
        self.failed = sum(failed for _, failed, _ in found)
        self.slow = sum(slow for _, _, slow in found)

    def clear(self) -> None:
        """Nothing is known any more."""
        self._kept.clear()
        self.total = self.failed = self.slow = 0

    def _forget(self, item: int | list[int]) -> None:
        if isinstance(item, list):
            calls, failed, slow = item
        else:
            calls, failed, slow = 1, item & _FAILED, item >> 1
        self.total -= calls
        self.failed -= failed
        self.slow -= slow
