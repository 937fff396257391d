from __future__ import annotations

from bench.shapes import Case, Row

CASE = Case(
    "aiohttp",
    "aiohttp: one task, one call after the other; and 50 tasks of one event loop",
    tuple(
        Row(
            f"{ours}{many} ÷ aiohttp.ClientSession{many}",
            ours + many,
            "aiohttp.ClientSession" + many,
            at_most=1.25,
        )
        for ours in ("meshlib_aiohttp.ClientSession", "meshlib_aiohttp.connector")
        for many in ("", " × 50")
    ),
)
