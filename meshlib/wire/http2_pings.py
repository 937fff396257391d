"""A connection of HTTP/2 whose peer is asked whether it is there (Envoy ``KeepaliveSettings``). No I/O, no time of its own.

Theory.

    resting ──the interval is over, or a request comes after a long rest──► asked (PING) ──its answer──► resting
                                                                             └─nothing came for ``timeout``──► gone

Whatever comes shows that the peer is there, and moves the end of the wait on: what is asked may stand behind a large response.
Who keeps the time (a pool) calls :meth:`Pinged.tend` at the moment that the last call named, or before.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from meshlib.wire.http2 import Http2
from meshlib.wire.http2_frames import ACK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.model.cluster import Pings
    from meshlib.wire.heads import Sizes
    from meshlib.wire.http2_stream import Http2Stream

__all__ = ["Pinged"]

#: What a PING holds, so that its answer is known.
_OURS = b"meshlib?"


class Pinged(Http2):
    """One connection. ``pings``: when it is asked; ``random``: gives floats in [0, 1).

    Attributes:
        gone: The peer did not answer in time.
    """

    def __init__(
        self,
        sizes: Sizes,
        settings: Sequence[tuple[int, int]],
        pings: Pings,
        random: Callable[[], float],
    ) -> None:
        super().__init__(sizes, settings)
        self._pings = pings
        self._random = random
        self._fed = self._seen = 0  # how often something came, and when that was looked at last
        self._until: float | None = None  # the end of the wait for an answer
        self._next: float | None = None  # when it is asked again; None: it was never tended
        self.gone = False

    def tend(self, now: float) -> float:
        """Ask where it is time to; when to come again, ``inf``: never."""
        if self.failure is not None:
            return inf
        if self._next is None:  # Envoy's first interval has no jitter
            self._next = inf if self._pings.interval is None else now + self._pings.interval
        if self._until is not None and now >= self._until:
            if self._fed == self._seen:
                self.gone = True
                return inf
            self._seen, self._until = self._fed, now + self._pings.timeout
        if self._until is None and now >= self._next:
            self.ask(now)
        return self._next if self._until is None else min(self._until, self._later(now))

    def ask(self, now: float) -> None:
        """Ask now, unless that is done already."""
        if self._until is not None or self.failure is not None:
            return
        self._h2.ping(_OURS)
        self._seen, self._until = self._fed, now + self._pings.timeout
        interval = self._pings.interval
        if interval is not None:
            self._next = now + interval * (1.0 + self._pings.jitter * self._random())

    def feed(self, data: bytes) -> list[Http2Stream]:
        self._fed += 1
        return super().feed(data)

    def _later(self, now: float) -> float:
        """The next time to ask, where that is still to come."""
        return self._next if self._next is not None and self._next > now else inf

    def _on_ping(self, frame: bytes, flags: int, number: int) -> None:
        super()._on_ping(frame, flags, number)
        if flags & ACK and frame[9:17] == _OURS:
            self._until = None
