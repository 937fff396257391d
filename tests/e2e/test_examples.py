"""Every example runs as its README says, and prints what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)  # each test is a program

ROOT = Path(__file__).resolve().parents[2]
PROMISES = {
    "first_call.py": ["{'one': 10, 'three': 20, 'two': 10}", "why the last call", "endpoint 127.0.0.1:"],
    "weighted_split.py": [
        "all to v1: {'v1': 200}",
        "0/100: {'v2': 200}",
        "the control plane is gone: {'v2': 200}",
    ],
    "resilience.py": [
        "the bad host is ejected: ['ok 200']",
        "a deadline: the deadline is over",
        "a breaker: ",
    ],
    "async_calls.py": ["a hundred calls: {'one': "],
    "own_httpx_client.py": ["one: via mesh", "elsewhere: via direct"],
    "grpc/route_guide.py": [
        "thirty calls: {'one': 10, 'three': 10, 'two': 10}",
        "a place that is not there: NOT_FOUND",
        "in the area: ['a well', 'an inn']",
        "a walk of 3 points is 8 long; mesh",
        "at once: ['a well', 'an inn', 'a bridge']",
        "notes found: ['first', 'first', 'second'] - OK",
    ],
    "grpc/health.py": ["now: SERVING", "after a change: NOT_SERVING", "it does not know: NOT_FOUND"],
    "grpc/reflection.py": ["'examples.Guide'", "Browse takes Area, gives Feature"],
    "grpc/compression.py": [
        "no compression: all",
        "of the channel: less than a tenth",
        "of the call: less than a tenth",
    ],
    "legacy/story.py": [
        "safe to go on",
        "of these the sidecar has carried",
        "in the whole story, 0 failed",
    ],
}
#: What the others import.
PARTS = {"grpc/guide.py", "legacy/gunicorn.conf.py", "legacy/shop.py"}


def test_every_example_is_listed() -> None:
    folder = ROOT / "examples"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.py")} == set(PROMISES) | PARTS
    readme = (ROOT / "examples" / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_an_example_runs(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / name],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    for promise in PROMISES[name]:
        assert promise in done.stdout
