"""How far it is: on a terminal a line that is written over, elsewhere a line now and then."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["told"]


def told(capsys: pytest.CaptureFixture[str], number: int, count: int, text: str) -> None:
    """``number`` of ``count`` are done; ``text`` says what came of them."""
    with capsys.disabled():
        if sys.stdout.isatty():
            print(f"\r  {number} of {count} {text[:150]:150}", end="" if number < count else "\n", flush=True)
        elif number == count or number % max(1, count // 10) == 0:
            print(f"  {number} of {count} {text}", flush=True)
