"""Work in a thread of its own, whose waits go by a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

import meshlib
from meshlib.testing import VirtualClock

__all__ = ["begun", "ended_by_time"]


def begun(work: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
    """``work`` is begun; nobody waits for it where its test has failed."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments, **options))
        except BaseException as error:  # noqa: BLE001 - the future's
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def ended_by_time(clock: VirtualClock, future: Future[Any], before: float, more: float = 1.1) -> Any:
    """The DeadlineExceeded of what has not ended after ``before`` seconds, and has after ``more``."""
    clock.advance(before)
    assert not future.done()
    clock.advance(more)
    with pytest.raises(meshlib.DeadlineExceeded) as caught:
        future.result(10.0)
    assert caught.value.info is not None
    return caught.value
