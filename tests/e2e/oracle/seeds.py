"""How many tables, from which seed on: `MESHLIB_ORACLE_SEEDS` (default 100), `MESHLIB_ORACLE_FIRST` (default 0).

Where the first is set, as by `make oracle`, shares are compared over all calls; else over a third of them.
"""

from __future__ import annotations

import os

__all__ = ["BATCH", "REQUESTS", "batches", "of_calls"]

#: Tables in one Envoy.
BATCH = 100
#: Requests to each table.
REQUESTS = 50


def batches() -> list[range]:
    """The seeds, a hundred at a time."""
    count = int(os.environ.get("MESHLIB_ORACLE_SEEDS", "100"))
    first = int(os.environ.get("MESHLIB_ORACLE_FIRST", "0"))
    return [range(start, min(start + BATCH, first + count)) for start in range(first, first + count, BATCH)]


def of_calls(whole: int) -> int:
    """How many of so many calls are made."""
    return whole if "MESHLIB_ORACLE_SEEDS" in os.environ else whole // 3
