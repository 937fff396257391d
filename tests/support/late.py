"""Bounds of time on a machine that may stall: what takes too long by itself does so each time, and what a busy machine adds it adds now
and then. So a bound is kept as tight as what it guards, and one of a few tries has to be within it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["TRIES", "Late", "again_if_late", "soon", "within"]

P = ParamSpec("P")
R = TypeVar("R")

TRIES = 3


class Late(AssertionError):
    """Something took longer than it may."""


def soon(took: float, most: float, words: str = "") -> None:
    """Raises Late where ``took`` is not below ``most``; both in seconds, or in what the caller counts."""
    if not took < most:
        raise Late(f"{words or 'it took'}: {took:.3g}, at most {most:.3g}")


def again_if_late(test: Callable[P, R]) -> Callable[P, R]:
    """Of a test, or a part of one, that makes all that it counts by itself: it is run anew where it was Late."""
    assert not inspect.iscoroutinefunction(test)

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        for _ in range(TRIES - 1):
            try:
                return test(*arguments, **named)
            except Late as late:
                print(f"again: {late}")  # pytest shows it where the last try fails
        return test(*arguments, **named)

    return run


def within(least: float, most: float, timed: Callable[[], Any], tries: int = TRIES) -> None:
    """``timed``, which gives what it took, gives at least ``least`` each time, and less than ``most`` in one of the tries."""
    took: list[float] = []
    while not took or took[-1] >= most:
        assert len(took) < tries, took
        took.append(timed())
        assert took[-1] >= least, took
