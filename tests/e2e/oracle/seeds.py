"""How many tables, from which seed on: `MESHLIB_ORACLE_SEEDS` (default 100), `MESHLIB_ORACLE_FIRST` (default 0)."""

from __future__ import annotations

import os

__all__ = ["BATCH", "REQUESTS", "batches"]

#: Tables in one Envoy.
BATCH = 100
#: Requests to each table.
REQUESTS = 50


def batches() -> list[range]:
    """The seeds, a hundred at a time."""
    count = int(os.environ.get("MESHLIB_ORACLE_SEEDS", "100"))
    first = int(os.environ.get("MESHLIB_ORACLE_FIRST", "0"))
    return [range(start, min(start + BATCH, first + count)) for start in range(first, first + count, BATCH)]
