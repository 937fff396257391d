"""A file that makes every call plain while it is there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from meshlib.sources.base import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.model.snapshot import Part
    from meshlib.runtime.worker import Timer
    from meshlib.sources.base import Sink

__all__ = ["PERIOD", "KillSwitch"]

#: Seconds between looks. The contract promises that it takes effect within 2.
PERIOD = 0.5

_log = logging.getLogger("meshlib")


class KillSwitch(Source):
    """Looks whether the file is there.

    Args:
        path: The file, ``""`` for none.
        turn: Is told whether the mesh is off, on the worker, each time that changes.
    """

    def __init__(self, sink: Sink, path: str, turn: Callable[[bool], object]) -> None:
        super().__init__("kill_switch", "kill_switch", sink)
        self._path = path
        self._turn = turn
        self._timer: Timer | None = None
        self._running = False
        self.pulled = False

    @property
    def shown(self) -> bool:
        return False

    def open(self, inherited: Part | None) -> None:
        del inherited
        self._look()

    def start(self) -> None:
        self._running = True
        self._again()

    def stop(self) -> None:
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def at(self, path: str) -> None:
        """Another file, or none, from now on."""
        if path != self._path:
            self._path = path
            self._look()
            if self._running and self._timer is None:
                self._again()

    def _again(self) -> None:
        self._timer = None
        if self._path:
            self._look()
            self._timer = self.sink.worker.later(PERIOD, self._again)

    def _look(self) -> None:
        pulled = bool(self._path) and Path(self._path).exists()
        if pulled == self.pulled:
            return
        self.pulled = pulled
        if pulled:
            _log.warning("meshlib: %s is there: every call is plain", self._path)
        else:
            _log.warning("meshlib: %s is gone: calls are the mesh's again", self._path or "the kill switch")
        self._turn(pulled)
