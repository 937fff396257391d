"""A pool under gevent, whose greenlets may be killed wherever others run: programs of their own, patched first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gevent", reason="needs gevent: pip install gevent")

ROOT = Path(__file__).resolve().parents[3]


def run(program: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.support.gevent_pools", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout)


def test_four_greenlets_on_one_connection_have_a_quarter_each() -> None:
    calls = run("fair")
    assert len(calls) == 4
    assert calls[-1] - calls[0] <= 1


def test_who_is_killed_anywhere_leaves_nothing_and_hands_its_turn_on() -> None:
    found = run("killed")
    assert min(found["ends"]["done"], found["ends"]["killed"]) > 50, "its ways of ending are to have happened"
    assert {key: found[key] for key in ("waiting", "busy", "counted", "pending")} == {
        "waiting": 0,
        "busy": 0,
        "counted": 0,
        "pending": 0,
    }


def test_idle_and_abandoned_connections_end_on_the_worker() -> None:
    assert run("idle") == {"closed": 21, "stopped": True, "open": 0}
