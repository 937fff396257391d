"""How long to wait before something is tried again. Pure."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["grown", "reconnect"]

# ST-04 (gRFC A57), in seconds.
_FIRST = 1.0
_FACTOR = 1.6
_MOST = 120.0
_JITTER = 0.2


def grown(first: float, factor: float, times: int, most: float, jitter: Callable[[], float]) -> float:
    """A delay that grew so many times, ±20 %. `jitter`: gives a float in [0, 1)."""
    delay = min(first * factor ** min(times, 64), most)
    return delay * (1 - _JITTER + 2 * _JITTER * jitter())


def reconnect(failures: int, jitter: Callable[[], float]) -> float:
    """Seconds until the next stream to a server, after so many that had no answer (ST-04)."""
    return grown(_FIRST, _FACTOR, failures, _MOST, jitter)
