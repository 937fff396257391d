"""What breaks, when, and for how long: the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

__all__ = ["AT_ONCE", "Disturbance", "Kind", "disturbances", "weights"]

#: Endpoints of ten that are disturbed at a time, at most.
AT_ONCE = 3


class Kind(Enum):
    """What happens to an endpoint, and with what share it is chosen."""

    KILL = "killed"  # SIGKILL; the port refuses, until another process listens at it
    FREEZE = "stopped"  # SIGSTOP: the kernel accepts connections and takes requests, and nothing answers
    HOLD = "silent"  # it accepts, reads, and answers nothing; new connections, too
    SLOW = "slow"  # each answer comes later
    RESET = "resetting"  # each connection is reset when a request has come
    CUT = "cutting"  # each connection is reset in the middle of an answer; not for long, since nobody can mend that


_LONG = dict.fromkeys(Kind, (0.5, 3.0)) | {Kind.CUT: (0.1, 0.5)}
_SHARES = {Kind.KILL: 4, Kind.FREEZE: 3, Kind.HOLD: 2, Kind.SLOW: 5, Kind.RESET: 3, Kind.CUT: 1}


@dataclass(frozen=True, slots=True)
class Disturbance:
    """``endpoint`` is its number; seconds since the begin. ``delay``: of SLOW."""

    at: float
    until: float
    endpoint: int
    kind: Kind
    delay: float


def disturbances(seed: int, endpoints: int) -> Iterator[Disturbance]:
    """Without an end, in order of time: one in 0.7 seconds or so, of 0.5 to 3 seconds each. An endpoint has one at a time."""
    draw = random.Random(f"{seed} disturbances")
    free = [0.0] * endpoints
    at = 1.0
    while True:
        at += draw.uniform(0.2, 1.2)
        if sum(until > at for until in free) >= AT_ONCE:
            at = sorted(free)[-AT_ONCE]
        endpoint = draw.choice([number for number, until in enumerate(free) if until <= at])
        kind = draw.choices(list(_SHARES), list(_SHARES.values()))[0]
        until = at + draw.uniform(*_LONG[kind])
        free[endpoint] = until + 0.5
        yield Disturbance(at, until, endpoint, kind, draw.uniform(0.05, 0.4))


def weights(seed: int, endpoints: int) -> Iterator[list[int]]:
    """One weight for each endpoint, anew each time."""
    draw = random.Random(f"{seed} weights")
    while True:
        yield [draw.randint(1, 10) for _ in range(endpoints)]
