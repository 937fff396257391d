"""A file that makes every call plain while it is there.

Plain calls go without what the mesh demands, TLS among it. So whoever may put files into a directory that is everybody's, such as
``/tmp``, does not thereby have the switch: it is this user's, root's, or that of the directory's owner.
"""

from __future__ import annotations

import logging
import os
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
        self._told = -1  # of whose file it was warned

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
        pulled = bool(self._path) and self._is_there(Path(self._path))
        if pulled == self.pulled:
            return
        self.pulled = pulled
        if pulled:
            _log.warning("meshlib: %s is there: every call is plain", self._path)
        else:
            _log.warning("meshlib: %s is gone: calls are the mesh's again", self._path or "the kill switch")
        self._turn(pulled)

    def _is_there(self, path: Path) -> bool:
        try:
            # Of a link its own: what it leads to says nothing of who put it there.
            owner, directory = path.lstat().st_uid, path.parent.stat().st_uid
            there = path.exists()
        except (OSError, ValueError):
            return False
        if there and owner not in (os.geteuid(), 0, directory):
            if owner != self._told:
                self._told = owner
                _log.warning("meshlib: %s belongs to user %d and is no kill switch", path, owner)
            return False
        return there
