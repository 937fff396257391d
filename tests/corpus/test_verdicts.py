"""Each file through ``meshlib check`` beside ``envoy --mode validate``: the same verdict, or a difference that is listed."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from meshlib.cli.check import inspect
from tests.corpus.progress import told
from tests.corpus.trees import as_bootstrap
from tests.support.envoy_validate import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(0)

_NODE = ("--service-node", "corpus", "--service-cluster", "corpus")
_AT = re.compile(r"^\S+?:\d+:\d+: ")  # file, line, column


def test_verdicts(files, resources, differences, whole, tmp_path, capsys):
    verdicts, wrong = Counter(), []
    tried = list(_tried(files, resources, tmp_path))
    assert tried
    for number, (name, path) in enumerate(tried, 1):
        theirs, ours = refusal(path, *_NODE), inspect(path)
        verdict, problem = _verdict(theirs, ours.problems, differences)
        verdicts[verdict] += 1
        wrong += [f"{name}: {line}" for line in [*problem, *_unplaced(path, ours)]]
        words = ", ".join(f"{count} {word}" for word, count in verdicts.items())
        told(capsys, number, len(tried), f"files: {words}")
    assert not wrong, "\n".join(wrong)
    if whole:
        assert differences.unused("meshlib", "envoy") == []


def _tried(files, resources, folder: Path) -> Iterator[tuple[str, Path]]:
    for number, (name, path) in enumerate(files):
        copied = folder / f"file-{number}{path.suffix}"
        copied.write_bytes(path.read_bytes())
        yield name, copied
    for number, found in enumerate(resources):
        written = folder / f"set-{number}.json"
        written.write_text(json.dumps(as_bootstrap(found)))
        yield found.name, written


def _verdict(theirs: str, ours: tuple[str, ...], differences) -> tuple[str, list[str]]:
    """The verdict of both in words, and what about it is on no list."""
    if bool(theirs) == bool(ours):
        return ("refused by both" if ours else "accepted by both"), []
    if theirs:
        why = differences.explain("envoy", theirs)
        return "refused by Envoy alone", [] if why else [
            f"only Envoy refuses it: {' '.join(theirs.split())[-400:]}"
        ]
    unexplained = [line for line in ours if not differences.explain("meshlib", line)]
    return "refused by meshlib alone", [f"only meshlib refuses it: {line}" for line in unexplained[:3]]


def _unplaced(path: Path, report) -> Iterator[str]:
    """Each of meshlib's problems has its place, and none is a crash."""
    for line in report.problems:
        if not _AT.match(line.removeprefix(str(path.parent))) or "could not be decoded" in line:
            yield f"has no place, or is a crash: {line}"
    if report.kind != "envoy":
        yield "is not told to be one of Envoy's"
