"""A response's body that is held up on purpose (Envoy's ``response_rate_limit`` of its fault filter).

Bytes come in slices, sixteen a second as in Envoy: the first at once, and no more than a second's worth at a time where the reader was
slow. The wire is read only as its bytes are given, so that the sender is held up, too. The call's deadline holds meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from meshlib.core.effects import Deliver
from meshlib.wire.errors import ReadTimeout

if TYPE_CHECKING:
    from meshlib.core.effects import Step
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.clock import Clock

__all__ = ["paced"]

#: Slices a second (Envoy ``StreamRateLimiter``), and seconds that a slow reader may have saved.
_SLICES = 16
_SAVED = 1.0
_LATE = "the deadline is over"


def paced(response: Any, step: Step, clock: Clock, bounds: Bounds) -> Any:
    """``response``, a wire's, whose body comes with as many bytes a second as ``step`` says; itself where that says nothing, or it is of a
    library's own connection.
    """
    awaited = getattr(response, "awaited", None)
    if awaited is None or not isinstance(step, Deliver) or not step.pace:
        return response
    return (_AsyncPaced if awaited else _Paced)(response, step.pace, clock, bounds)


class _Slices:
    """Has all that the response has. What came of it and was not given yet is kept."""

    __slots__ = ("_bounds", "_clock", "_free", "_inner", "_parts", "_rate", "_rest", "_slice")

    def __init__(self, inner: Any, rate: int, clock: Clock, bounds: Bounds) -> None:
        put = object.__setattr__
        put(self, "_inner", inner)
        put(self, "_parts", None)
        put(self, "_rate", rate)
        put(self, "_slice", max(1, rate // _SLICES))
        put(self, "_clock", clock)
        put(self, "_bounds", bounds)
        put(self, "_free", clock.now())  # from when on the next slice may pass
        put(self, "_rest", b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def _due(self, most: int | None = None) -> tuple[int, float, bool]:
        """How many bytes of what is kept are next, after how many seconds, and whether the call's time is over by then."""
        count = min(self._slice, len(self._rest), self._slice if most is None else most)
        now, deadline = self._clock.now(), self._bounds.deadline
        seconds = max(0.0, self._free - now)
        if deadline is not None and now + seconds >= deadline:
            return count, max(0.0, deadline - now), True
        return count, seconds, False

    def _give(self, count: int) -> bytes:
        put, rest = object.__setattr__, self._rest
        put(self, "_free", max(self._free, self._clock.now() - _SAVED) + count / self._rate)
        put(self, "_rest", rest[count:])
        return rest[:count]  # type: ignore[no-any-return]


class _Paced(_Slices):
    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        self._fill()
        return self._next(None)

    def read(self) -> bytes:
        """All that is still to come."""
        return b"".join(self)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """As the response's own; 0 is the end."""
        try:
            self._fill()
        except StopIteration:
            return 0
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _fill(self) -> None:
        put = object.__setattr__
        if self._parts is None:
            put(self, "_parts", iter(self._inner))
        while not self._rest:
            put(self, "_rest", next(self._parts))

    def _next(self, most: int | None) -> bytes:
        count, seconds, late = self._due(most)
        if seconds > 0:
            self._clock.sleep(seconds)
        if late:
            self._inner.close()
            raise ReadTimeout(_LATE)
        return self._give(count)


class _AsyncPaced(_Slices):
    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        put = object.__setattr__
        if self._parts is None:
            put(self, "_parts", self._inner.__aiter__())
        while not self._rest:
            put(self, "_rest", await self._parts.__anext__())
        count, seconds, late = self._due()
        if seconds > 0:
            await self._clock.sleep_async(seconds)
        if late:
            await self._inner.aclose()
            raise ReadTimeout(_LATE)
        return self._give(count)

    async def aread(self) -> bytes:
        """All that is still to come."""
        return b"".join([part async for part in self])
