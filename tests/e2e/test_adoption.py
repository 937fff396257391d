"""`meshlib adoption`: what processes have seen of services that join step by step, and edits of the file while they run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshlib.testing import Upstream
from tests.e2e.test_cli import environment, run
from tests.support.asking import asked
from tests.support.late import again_if_late, soon

#: Makes as many calls as a line says, and says who answered them.
PROGRAM = """
import json, sys
import meshlib

with meshlib.Client() as client:
    for line in sys.stdin:
        url, count = line.split()
        answers = [client.get(url) for _ in range(int(count))]
        infos = [meshlib.call_info(answer) for answer in answers]
        print(json.dumps([[answer.json()["name"], info and info.via] for answer, info in zip(answers, infos)]), flush=True)
"""


class Program:
    """The program in a process of its own."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self.pid = child.pid

    def call(self, url: str, count: int = 1) -> list[Any]:
        """Who answered, and by what way."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{url} {count}\n")
        self._child.stdin.flush()
        found: list[Any] = json.loads(self._child.stdout.readline())
        return found

    def until(self, url: str, answer: list[Any]) -> None:
        """Call until ``answer`` comes: an edit has 5 seconds."""
        began = time.monotonic()
        while self.call(url) != [answer]:
            soon(time.monotonic() - began, 5.0, "an edit")


@contextlib.contextmanager
def program(config: Path, runtime: Path) -> Iterator[Program]:
    environ = environment(MESHLIB_CONFIG=str(config), XDG_RUNTIME_DIR=str(runtime))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environ,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        yield Program(child)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(10) == 0


def write(path: Path, new: Upstream, mode: str, more: str = "") -> Path:
    host, _, port = new.address.rpartition(":")
    path.write_text(
        f'[services."127.0.0.1"]\nendpoints = ["{host}:{port}"]\n[adoption]\n"127.0.0.1" = "{mode}"\n{more}'
    )
    return path


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "run"


def test_processes_are_summed(meshlib_upstream: Any, tmp_path: Path, runtime: Path) -> None:
    old, new = meshlib_upstream("old"), meshlib_upstream("new")
    config = write(tmp_path / "mesh.toml", new, "observe")
    other = write(tmp_path / "other.toml", new, "observe")
    with program(config, runtime) as one, program(config, runtime) as two, program(other, runtime) as three:
        assert one.call(old.url, 2) == [["old", "direct"]] * 2
        assert two.call(new.url) == [["new", "direct"]]
        three.call(old.url, 5)
        environ = {"XDG_RUNTIME_DIR": str(runtime)}
        done = run("adoption", "--json", "--config", str(config), **environ)
        [row] = json.loads(done.stdout)["services"]
        assert (row["service"], row["mode"], row["calls"], row["same"]) == ("127.0.0.1", "observe", 3, 1)
        assert (row["different"], row["safe"], done.returncode) == ({"port": 2}, False, 1)
        assert [example["went"] for example in row["examples"]] == [old.address] * 2
        [alone] = json.loads(run("adoption", str(two.pid), "--json", **environ).stdout)["services"]
        assert (alone["calls"], alone["safe"]) == (1, True)
        shown = run("adoption", "--config", str(config), **environ)
        assert "not safe to go on" in shown.stdout
        assert old.address in shown.stdout


def test_nobody_to_ask(meshlib_upstream: Any, tmp_path: Path, runtime: Path) -> None:
    config = write(tmp_path / "mesh.toml", meshlib_upstream("new"), "observe")
    done = run("adoption", "--config", str(config), XDG_RUNTIME_DIR=str(runtime))
    assert done.returncode == 1
    assert "mesh.toml" in done.stderr


@pytest.mark.timeout(180)
@again_if_late
def test_edits_take_effect_in_a_running_process(meshlib_upstream: Any, tmp_path: Path, runtime: Path) -> None:
    old, new = meshlib_upstream("old"), meshlib_upstream("new")
    config = write(tmp_path / "mesh.toml", new, "off")
    (tmp_path / "off").unlink(missing_ok=True)
    with program(config, runtime) as one:
        assert one.call(old.url) == [["old", None]]
        write(config, new, "observe")
        one.until(old.url, ["old", "direct"])
        # Its socket comes after the rules that calls go by, and it tells nobody.
        assert asked((runtime / "meshlib" / f"{one.pid}.sock").exists)
        done = run("adoption", str(one.pid), "--json", XDG_RUNTIME_DIR=str(runtime))
        assert json.loads(done.stdout)["services"][0]["mode"] == "observe"
        write(config, new, "on")
        one.until(old.url, ["new", "mesh"])
        config.write_text("[adoption]\ndefault = 7\n")
        assert one.call(old.url) == [["new", "mesh"]], "a bad edit changes nothing"
        write(config, new, "on", f'kill_switch = "{tmp_path / "off"}"\n')
        (tmp_path / "off").touch()
        one.until(old.url, ["old", None])
        (tmp_path / "off").unlink()
        one.until(old.url, ["new", "mesh"])
