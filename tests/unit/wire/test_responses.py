"""The table of responses, put to the machine with each parser, and to h11 and llhttp as they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib import metadata

import pytest

from tests.unit.wire.peers import bare, by_h11, by_llhttp
from tests.unit.wire.reading import cut, read
from tests.unit.wire.responses import ROWS, No, Read


def same(found: Read | No, listed: Read | No) -> bool:
    if isinstance(found, Read) and isinstance(listed, Read) and listed.lines is None:
        found = replace(found, lines=None)
    return found == listed


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_machine_reads_it_as_listed(row, parse):
    for size in (len(row.data) + 1, 7, 1):
        if len(row.data) // size > 20_000:
            continue
        segments = cut(row.data, range(0, len(row.data), size))
        found, says = read(segments, parse=parse, method=row.method, asked=row.asked, closed=row.closed)
        assert same(found, row.ours)
        assert row.says in says


#: What verdicts of other parsers are listed of; a later one may be stricter.
VERSIONS = {"h11": "0.16.0", "httptools": "0.9.0"}
PEERS = {"h11": ("h11", by_h11), "llhttp": ("httptools", by_llhttp)}


@pytest.mark.parametrize("peer", PEERS)
def test_the_others_read_it_as_listed(peer):
    package, read_row = PEERS[peer]
    if metadata.version(package) != VERSIONS[package]:
        pytest.skip(
            f"the table lists what {package} {VERSIONS[package]} reads (pip install {package}=={VERSIONS[package]})"
        )
    wrong = {}
    for row in ROWS:
        if peer == "llhttp" and row.method != b"GET":
            continue
        ours = bare(row.ours)
        listed, why = getattr(row, peer) or (ours, "")
        found = read_row(row)
        if found != bare(listed) or (why and found == ours):
            wrong[row.name] = (found, listed)
    assert not wrong


def test_the_table():
    assert len(ROWS) >= 150
    kinds = Counter(row.ours if isinstance(row.ours, No) else Read for row in ROWS)
    assert min(kinds[kind] for kind in (Read, *No)) >= 5
    assert all(why for row in ROWS for _, why in filter(None, (row.h11, row.llhttp)))
