"""What a process says, kept in a file as it comes, and told to who waits for it; and what a thread says to the log."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import logging

    import pytest

__all__ = ["Log", "told_here"]


class Log:
    """Copies ``pipe`` to the file ``path`` until its other end is closed. Any thread may read and wait.

    The condition guards the file: who waits sees what was written before.
    """

    def __init__(self, path: Path, pipe: IO[bytes]) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._ended = False
        path.write_bytes(b"")
        self._reader = threading.Thread(target=self._copy, args=(pipe,), name=f"log {path.name}", daemon=True)
        self._reader.start()

    def _copy(self, pipe: IO[bytes]) -> None:
        with pipe, self._path.open("ab", buffering=0) as file:
            for line in pipe:
                with self._changed:
                    file.write(line)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, said: Callable[[str], object], seconds: float) -> bool:
        """Whether ``said(text)`` came true in time; at once where the process has closed its end, and says no more."""

        def over() -> bool:
            return bool(said(self._text())) or self._ended

        with self._changed:
            self._changed.wait_for(over, seconds)
            return bool(said(self._text()))

    def _text(self) -> str:
        return self._path.read_text(errors="replace")

    def close(self, seconds: float = 5.0) -> None:
        """Until all of it is in the file, once the process has ended."""
        self._reader.join(seconds)


def told_here(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the calling thread logged: the threads of tests before may still have something to say."""
    return [record for record in caplog.records if record.thread == threading.get_ident()]
