"""The demo keeps its word: `meshlib demo --once` in a process of its own, and that it can say no."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from meshlib.cli import demo
from meshlib.cli.demo_calls import Call, Tally
from meshlib.cli.demo_script import Act, Script
from meshlib.cli.demo_stage import Stage
from meshlib.model.call import Attempt, CallInfo

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "meshlib", "demo"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TERMINAL = {**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"}


def refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


@pytest.mark.timeout(120)
def test_every_claim_of_the_demo_holds() -> None:
    # The user's own settings do not reach it.
    environment = {**ENVIRONMENT, "MESHLIB_DISABLED": "1", "GRPC_XDS_BOOTSTRAP": "/nowhere.json"}
    began = time.monotonic()
    done = subprocess.run(
        [*COMMAND, "--once", "--json"], check=False, capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert time.monotonic() - began < 100
    said = json.loads(done.stdout)
    assert said["holds"] is True
    acts = said["acts"]
    assert [act["act"] for act in acts] == [1, 2, 3, 4, 5, 6, 7]
    assert all(fact["holds"] for act in acts for fact in act["facts"])
    assert all(act["failed"] == 0 and act["calls"] > 50 and act["trace"] for act in acts)
    assert 0.75 < acts[0]["shares"]["v1"] < 1.0
    assert acts[3]["retries"] > 0
    assert any("attempt 2" in line for line in acts[3]["trace"])
    assert acts[6]["shares"]["v2"] > acts[5]["shares"]["v2"]
    for address in (said["control_plane"], *said["versions"].values()):
        assert refuses(address)


def test_an_interrupt_ends_everything_that_the_demo_started() -> None:
    process = subprocess.Popen(
        [*COMMAND, "--once"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
    )
    assert process.stdout is not None
    process.stdout.readline()
    addresses = re.findall(r"127\.0\.0\.1:\d+", process.stdout.readline())
    assert len(addresses) == 4
    assert not any(map(refuses, addresses))
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in complaints
    assert all(map(refuses, addresses))


def test_on_a_terminal_it_is_drawn_live_and_ends_cleanly() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(COMMAND, stdin=theirs, stdout=theirs, stderr=theirs, env=TERMINAL, cwd=ROOT)
    os.close(theirs)
    seen = b""
    while b"reviews-v1" not in seen or b"one call, explained" not in seen:
        seen += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while data := os.read(ours, 65536):
            seen += data
    os.close(ours)
    assert process.wait(20) == 0
    assert b"Traceback" not in seen
    assert b"x-tier: gold" in seen
    assert seen.rstrip().endswith((b"\x1b[?1049l\x1b[?25h", b"\x1b[?25h\x1b[?1049l"))  # the screen as it was


def test_a_claim_that_does_not_hold_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control plane says the contrary of what the script claims."""
    publish = Stage.publish

    def contrary(self: Stage, split: dict[str, int], *, gold: bool) -> None:
        publish(self, dict(zip(split, reversed(split.values()), strict=True)), gold=gold)

    monkeypatch.setattr(Stage, "publish", contrary)
    monkeypatch.setattr(Script, "play", lambda self: self._split(90, 10, "nine of ten to v1"))
    assert demo.run(once=True) == 1
    printed = capsys.readouterr().out
    assert "✗ v1 got" in printed
    assert "2 of 5 claims did not hold" in printed


def test_without_grpcio_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['grpc'] = None; from meshlib.cli import main; sys.exit(main(['demo', '--once']))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT
    )
    assert done.returncode == 1
    assert "grpcio" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


# --- the claims --------------------------------------------------------------------------------------------------------


def call(version: str, *, gold: bool = False, seconds: float = 0.001, tries: int = 1) -> Call:
    attempts = tuple(Attempt(number, f"host{number}", "ok", 200, True, 0.0) for number in range(1, tries + 1))
    return Call(0.0, seconds, gold, version, "" if version else "failed", CallInfo("mesh", attempts=attempts))


def shares(tally: Tally, expected: dict[str, float]) -> list[bool]:
    act = Act(1, "", "", 0.0)
    script: Any = Script.__new__(Script)
    script._shares(act, tally, expected)
    return [fact.holds for fact in act.facts]


@pytest.mark.parametrize(
    ("first", "holds"), [(90, True), (97, True), (80, True), (50, False), (76, False), (0, False)]
)
def test_a_share_may_be_off_by_chance_and_no_more(first: int, holds: bool) -> None:
    """Of 200 calls, in percent."""
    tally = Tally([call("v1")] * (2 * first) + [call("v2")] * (200 - 2 * first))
    assert shares(tally, {"v1": 0.9}) == [holds]


def test_a_share_of_nothing_is_nothing() -> None:
    assert shares(Tally([call("v1")] * 100), {"v3": 0.0}) == [True]
    assert shares(Tally([call("v1")] * 99 + [call("v3")]), {"v3": 0.0}) == [False]


def test_few_calls_prove_nothing() -> None:
    assert shares(Tally([call("v1")] * 5), {"v1": 1.0, "v3": 0.0}) == [False]


def test_what_calls_are_counted_as() -> None:
    tally = Tally([call("v1"), call("v2", gold=True, seconds=0.5, tries=3), call("")])
    assert (len(tally), tally.retries, len(tally.failed)) == (3, 2, 1)
    assert (tally.share("v1"), len(tally.gold), len(tally.plain)) == (1 / 3, 1, 2)
    assert (tally.quantile(0.5), tally.quantile(0.99)) == (0.001, 0.5)
    assert tally.calls[1].tried("host3")
    assert not tally.calls[0].tried("host2")
    assert (Tally([]).quantile(0.5), Tally([]).share("v1"), Tally([]).sample()) == (0.0, 0.0, None)
