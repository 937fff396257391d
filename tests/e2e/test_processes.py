"""Which processes can be asked, what they have counted, and a master's workers: `ps`, `dump`, `watch` and `manage.py meshlib`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_cli import environment, run
from tests.support.asking import asked

#: A master that makes no mesh, and workers that each make calls when they are told to.
PROGRAM = """
import json, os, signal, sys
import meshlib

def work(config, reading, writing):
    with meshlib.Client(mesh=meshlib.Mesh(config)) as client:
        for line in reading:
            for _ in range(int(line)):
                client.get("http://reviews/")
            writing.write("done\\n")
            writing.flush()
    os._exit(0)

config, workers = json.loads(sys.argv[1]), int(sys.argv[2])
pipes = []
for _ in range(workers):
    (down, up), (back, forth) = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.close(up), os.close(back)
        for _, _, other_up, other_back in pipes:
            other_up.close(), other_back.close()
        work(config, os.fdopen(down), os.fdopen(forth, "w"))
    os.close(down), os.close(forth)
    pipes.append((pid, None, os.fdopen(up, "w"), os.fdopen(back)))
print(*(pid for pid, *_ in pipes), flush=True)
for line in sys.stdin:
    for _, _, up, _ in pipes:
        up.write(line)
        up.flush()
    print(*(back.readline().strip() for *_, back in pipes), flush=True)
for pid, _, up, _ in pipes:
    up.close()
    os.waitpid(pid, 0)
"""


class Family:
    """A master and its workers."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.master = child.pid
        assert child.stdout is not None
        self.workers = [int(pid) for pid in child.stdout.readline().split()]

    def call(self, times: int) -> None:
        """Every worker makes so many calls."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(f"{times}\n")
        self.child.stdin.flush()
        assert set(self.child.stdout.readline().split()) == {"done"}

    def end(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()
        assert self.child.wait(30) == 0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def config(tmp_path: Path, directory: Path) -> str:
    """What the commands are told, so that they look where the processes are."""
    path = tmp_path / "mesh.toml"
    path.write_text(f'[admin]\nenabled = true\nruntime_dir = "{directory}"\n')
    return str(path)


@contextlib.contextmanager
def family(directory: Path, workers: int = 2, **more: Any) -> Iterator[Family]:
    said = {"admin": {"enabled": True, "runtime_dir": str(directory)}, "node": {"cluster": "shop"}, **more}
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(said), str(workers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield Family(child)
    finally:
        child.stdin.close()
        child.stdout.close()
        child.kill()
        child.wait()


def service(*addresses: str, **more: Any) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": list(addresses), **more}}}


def stands_still(pid: int) -> bool:
    """Whether all of its threads are stopped."""
    stats = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(") ")[2].startswith("T") for stat in stats)


def read(*arguments: str) -> Any:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def test_ps_lists_who_can_be_asked(directory: Path, config: str, upstream: Any) -> None:
    with family(directory, **service(upstream().address)) as some:
        assert read("ps", "--config", config, "--json") == {"processes": []}  # no mesh was used yet
        assert "enabled = true" in run("ps", "--config", config).stdout
        some.call(1)
        rows = read("ps", "--config", config, "--json")["processes"]
        assert [row["pid"] for row in rows] == sorted(some.workers)
        for row in rows:
            assert (row["parent"], row["role"], row["service"]) == (some.master, "worker", "shop")
            assert (row["state"], row["meshes"], row["problem"]) == ("ready", 1, "")
            assert row["command"].startswith(sys.executable)
        shown = run("ps", "--config", config).stdout
        assert all(str(pid) in shown for pid in (*some.workers, some.master))
        killed = os.pidfd_open(some.workers[0])
        os.kill(some.workers[0], signal.SIGKILL)
        ended, _, _ = select.select([killed], [], [], 10.0)
        os.close(killed)
        assert ended
        rows = read("ps", "--config", config, "--json")["processes"]
        assert [row["pid"] for row in rows] == some.workers[1:]


def test_a_process_that_does_not_answer_is_listed(directory: Path, config: str, upstream: Any) -> None:
    with family(directory, **service(upstream().address)) as some:
        some.call(1)
        os.kill(some.workers[0], signal.SIGSTOP)
        try:
            assert asked(lambda: stands_still(some.workers[0])), "nobody is told of a stranger's child"
            rows = {row["pid"]: row for row in read("ps", "--config", config, "--json")["processes"]}
        finally:
            os.kill(some.workers[0], signal.SIGCONT)
        assert rows[some.workers[0]]["state"] == "no answer"
        assert "no answer within" in rows[some.workers[0]]["problem"]
        assert rows[some.workers[1]]["state"] == "ready"


def test_what_a_process_counted_is_read(directory: Path, config: str, upstream: Any) -> None:
    good, bad = upstream("good"), upstream("bad")
    bad.fail(503)
    outlier = {"consecutive_5xx": 2, "max_ejection_percent": 50, "base_ejection": 60.0}
    retry = {"attempts": 3, "on": ["5xx"], "budget": 5.0}
    with family(directory, 1, **service(good.address, bad.address, outlier=outlier, retry=retry)) as some:
        some.call(10)
        [pid] = some.workers
        cluster = read("dump", str(pid), "--config", config, "--json")["clusters"]["reviews"]
        assert (cluster["requests"], cluster["failures"], cluster["retries"]) == (12, 2, 2)
        assert (cluster["ejections"], cluster["overflows"]) == (1, 0)
        ends = {endpoint["address"]: endpoint for endpoint in cluster["endpoints"]}
        assert (ends[good.address]["requests"], ends[good.address]["failures"]) == (10, 0)
        assert 0.0 < ends[good.address]["latency"]["p50"] <= ends[good.address]["latency"]["p99"] < 50.0
        assert (ends[good.address]["last_error"], ends[good.address]["ejected_for"]) == ("", None)
        assert (ends[bad.address]["requests"], ends[bad.address]["failures"]) == (2, 2)
        assert (ends[bad.address]["health"], ends[bad.address]["last_error"]) == ("ejected", "status 503")
        assert 0.0 < ends[bad.address]["ejected_for"] <= 70.0
        shown = run("dump", str(pid), "--config", config).stdout
        assert f"{bad.address} failed last: status 503" in shown
        assert "2 retries, 1 ejection" in shown
        assert "ejected, " in shown


def test_a_master_is_asked_for_its_workers(directory: Path, config: str, upstream: Any) -> None:
    with family(directory, **service(upstream().address)) as some:
        done = run("dump", str(some.master), "--config", config)
        assert done.returncode == 1
        assert "nor has a worker of it" in done.stderr
        some.call(3)
        statuses = read("dump", str(some.master), "--config", config, "--json")
        assert sorted(status["process"]["pid"] for status in statuses) == sorted(some.workers)
        assert [status["clusters"]["reviews"]["requests"] for status in statuses] == [3, 3]
        shown = run("dump", str(some.master), "--config", config).stdout
        assert all(f"process {pid}" in shown for pid in some.workers)
        snapshots = read("dump", str(some.master), "--config", config, "--snapshot")
        assert [list(snapshot) for snapshot in snapshots] == [["version", "parts"]] * 2
        alone = read("dump", str(some.workers[0]), "--config", config, "--json")
        assert alone["process"]["pid"] == some.workers[0]


def test_watch_follows_a_process_until_it_ends(directory: Path, config: str, upstream: Any) -> None:
    with family(directory, **service(upstream().address)) as some:
        some.call(1)
        command = [sys.executable, "-m", "meshlib", "watch", str(some.master), "--config", config, "--json"]
        watching = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )
        assert watching.stdout is not None
        counted: dict[int, int] = {}
        told = False  # a line may come twice with the same number of requests
        for line in watching.stdout:
            status = json.loads(line)
            counted[status["process"]["pid"]] = status["clusters"]["reviews"]["requests"]
            if counted == dict.fromkeys(some.workers, 1) and not told:
                told = True
                some.call(4)
            if counted == dict.fromkeys(some.workers, 5):
                break
        some.end()
        _, complaint = watching.communicate(timeout=30)
        assert watching.returncode == 1
        assert "nothing is left to watch" in complaint


@pytest.mark.parametrize("arguments", [("watch", "1", "--name", "reviews"), ("dump", "1", "--mesh", "0")])
def test_wrong_usage(config: str, arguments: tuple[str, ...]) -> None:
    assert run(*arguments, "--config", config).returncode == 2


def test_no_such_process(config: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for command in ("dump", "watch"):
        done = run(command, str(child.pid), "--config", config)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"there is no process {child.pid}" in done.stderr


def test_djangos_command_shows_the_same(directory: Path, upstream: Any) -> None:
    with family(directory, **service(upstream().address)) as some:
        some.call(2)
        program = (
            "import sys, django; from django.conf import settings; from django.core.management import call_command;"
            "settings.configure(INSTALLED_APPS=['meshlib_django'],"
            f" MESHLIB={{'admin': {{'enabled': True, 'runtime_dir': {str(directory)!r}}}}});"
            "django.setup(); call_command('meshlib', *sys.argv[1:])"
        )
        command = [sys.executable, "-c", program, str(some.master)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout
        assert shown.count("cluster reviews: 2 requests, 0 failures") == 2
        assert all(f"process {pid}" in shown for pid in some.workers)
        done = subprocess.run(
            [*command, "--json"], capture_output=True, text=True, check=True, env=environment()
        )
        assert sorted(status["process"]["pid"] for status in json.loads(done.stdout)) == sorted(some.workers)
