"""The outage matrix of a start: real processes, a control plane that is dead, late, or of another opinion, and a file.

Where a configuration was ever held, no call fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import meshlib
from meshlib.cli.common import opened
from meshlib.cli.doctor.collect import look_here
from meshlib.sources.last_good import LastGood
from meshlib.testing import ControlPlane, build
from tests.e2e.test_cli import run

pytestmark = pytest.mark.timeout(180)  # each test starts several processes

ROOT = Path(__file__).resolve().parents[2]

#: A process that has a mesh, and does what each line on its standard input says; it answers each with a line of JSON.
PROGRAM = """
import json, logging, os, sys
import meshlib
from tests.support.watch import until

logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
order = json.loads(sys.argv[1])
mesh = meshlib.Mesh(order["config"])

if order["face"] == "http":
    client = meshlib.Client(mesh=mesh)

    def call():
        return client.get(f"http://{order['target']}/", timeout=10).json()["name"]
else:
    import meshlib.grpc

    channel = meshlib.grpc.channel(order["target"], mesh=mesh)
    unary = channel.unary_unary("/shop.Stock/Get")

    def call():
        return json.loads(unary(b"", timeout=10))["name"]

def calls(count):
    names, errors = [], []
    for _ in range(count):
        try:
            names.append(call())
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}"[:300])
    return {"names": sorted(set(names)), "answered": len(names), "errors": sorted(set(errors))}

def source(name):
    found = next((each for each in mesh.status().sources if each.name == name), None)
    return None if found is None else found.to_dict()

def child(count):
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, json.dumps(calls(count)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return said

def wait(name, state):
    until(mesh, lambda: source(name)["state"] == state)
    return source(name)

def turn(name):
    # A call tells what it comes to: so many of them until the answer is another's.
    seen = []
    for _ in range(100_000):
        seen.append(call())
        if seen[-1] == name:
            return {"answered": len(seen), "last": name}
    return {"answered": len(seen), "last": seen[-1]}

def ready(host):
    mesh.wait_ready(host, timeout=30)

DO = {"ready": ready, "calls": calls, "source": source, "child": child, "wait": wait, "turn": turn}
for line in sys.stdin:
    name, *arguments = json.loads(line)
    print(json.dumps(DO[name](*arguments)), flush=True)
mesh.close()
"""


class Process:
    def __init__(self, config: dict[str, Any], face: str, target: str) -> None:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("GRPC_", "MESHLIB_"))
        }
        environment["PYTHONPATH"] = str(ROOT)
        self.child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps({"config": config, "face": face, "target": target})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def do(self, *words: Any) -> Any:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps(words) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        assert line, self.child.communicate()[1]
        return json.loads(line)

    def end(self) -> str:
        """What it logged."""
        _, said = self.child.communicate(timeout=30)
        assert self.child.returncode == 0, said
        return said

    def kill(self) -> None:
        self.child.kill()
        self.child.communicate()


class Case:
    """One view, one face; ``process`` starts another process with the same configuration."""

    def __init__(
        self, view: str, face: str, plane: ControlPlane, directory: Path, upstream: Callable[..., Any]
    ) -> None:
        self.view, self.face, self.plane, self.upstream = view, face, plane, upstream
        self.path = directory / "kept" / "state.bin"
        self.target = "reviews" if view == "target" else "reviews:8080"
        self.made: list[Process] = []

    def resources(self, address: str) -> list[Any]:
        host = build.virtual_host("v", build.route("/", cluster="c"), domains=[self.target])
        routes = build.route_config("r", host)
        made = (
            build.api_listener("reviews", "r")
            if self.view == "target"
            else build.listener("outbound", "r", address="0.0.0.0:8080")
        )
        more = {} if self.face == "http" else {"http2_protocol_options": {}}
        return [made, routes, build.cluster("c", **more), build.endpoints("c", address)]

    def process(self, **more: Any) -> Process:
        xds = {"server": self.plane.address, "last_good": str(self.path), **more}
        self.made.append(Process({"xds": xds, "sidecar": {"mode": "off"}}, self.face, self.target))
        return self.made[-1]

    def fill(self) -> Any:
        """A process learns, writes, and ends; the control plane goes. Who it called."""
        one = self.upstream("v1")
        self.plane.set(*self.resources(one.address))
        process = self.process()
        assert process.do("calls", 5) == answered(5, "v1")
        assert process.do("wait", "last_good", "ready")["kind"] == "last_good"
        process.end()
        self.plane.kill()
        return one


def answered(count: int, *names: str) -> dict[str, Any]:
    return {"names": sorted(names), "answered": count, "errors": []}


@pytest.fixture(params=["target-http", "sidecar-http", "target-grpc", "sidecar-grpc"])
def case(
    request: pytest.FixtureRequest,
    control_plane: ControlPlane,
    tmp_path: Path,
    upstream: Any,
    meshlib_grpc_upstream: Any,
) -> Iterator[Case]:
    view, face = request.param.split("-")
    made = Case(view, face, control_plane, tmp_path, upstream if face == "http" else meshlib_grpc_upstream)
    yield made
    for process in made.made:
        process.kill()


def test_dead_at_the_start_with_a_file(case: Case) -> None:
    """CA-10; and it comes later, and says otherwise."""
    case.fill()
    process = case.process()
    assert process.do("calls", 50) == answered(50, "v1")
    assert process.do("source", "last_good")["state"] == "stale"
    assert process.do("wait", "xds", "stale")["last_error"]
    assert process.do("calls", 50) == answered(50, "v1")
    two = case.upstream("v2")
    case.plane.set(*case.resources(two.address))  # before it is back: what it says first is kept, too
    case.plane.restart()
    assert process.do("turn", "v2")["last"] == "v2"
    assert process.do("wait", "last_good", "ready")["since"] < 30
    assert process.do("calls", 20) == answered(20, "v2")
    said = process.end()
    assert said.count("s old, serves") == 1, said
    again = case.process()
    case.plane.kill()
    assert again.do("calls", 20) == answered(20, "v2")
    again.end()


@pytest.mark.parametrize("case", ["target-http", "sidecar-grpc"], indirect=True)
def test_dead_at_the_start_without_a_file(case: Case) -> None:
    case.fill()
    case.path.unlink()
    process = case.process(cold_start="fail")
    said = process.do("calls", 3)
    assert said["answered"] == 0
    assert process.do("source", "last_good")["state"] == "idle"
    process.end()


@pytest.mark.parametrize("case", ["target-http", "sidecar-http", "sidecar-grpc"], indirect=True)
def test_the_control_plane_has_nothing_of_it_any_more(case: Case) -> None:
    """What is live wins, also where it takes away."""
    case.fill()
    process = case.process(cold_start="fail")
    assert process.do("calls", 5) == answered(5, "v1")
    case.plane.set()  # before it is back: what it says first would be "ready", too
    case.plane.restart()
    process.do("wait", "last_good", "ready")
    assert process.do("calls", 3)["answered"] == 0
    process.end()


@pytest.mark.parametrize("case", ["target-http", "sidecar-grpc"], indirect=True)
def test_a_fork_before_and_after_the_control_plane_is_back(case: Case) -> None:
    one = case.fill()
    process = case.process()
    assert process.do("calls", 5) == answered(5, "v1")
    assert process.do("child", 10) == answered(10, "v1")
    assert process.do("calls", 5) == answered(5, "v1")
    case.plane.restart()
    case.plane.set(*case.resources(one.address))
    process.do("wait", "last_good", "ready")
    assert process.do("child", 10) == answered(10, "v1")
    assert process.do("calls", 5) == answered(5, "v1")
    process.end()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (_flip, "checksum"),
    "cut": (_cut, "checksum"),
    "empty": (lambda path: path.write_bytes(b""), "no file of a last good state"),
    "older": (lambda path: path.write_bytes(b"meshlib last good state 0\n"), "format"),
    "open to others": (lambda path: path.chmod(0o666), "others may write"),
    "in an open directory": (lambda path: path.parent.chmod(0o777), "others may write"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("case", ["target-http"], indirect=True)
def test_a_file_that_cannot_be_used_is_told_and_costs_nothing(case: Case, damage: str) -> None:
    one = case.fill()
    break_it, words = DAMAGE[damage]
    break_it(case.path)
    process = case.process(cold_start="fail")
    assert process.do("calls", 1)["answered"] == 0
    status = process.do("source", "last_good")
    assert status["state"] == "failed"
    assert words in status["last_error"]
    case.plane.restart()
    case.plane.set(*case.resources(one.address))
    process.do("ready", case.target)
    assert process.do("calls", 10) == answered(10, "v1")
    if "open" not in damage or damage == "open to others":
        assert process.do("wait", "last_good", "ready")["last_error"] == ""
        assert case.path.stat().st_mode & 0o777 == 0o600
    assert process.end().count(words) == 1


@pytest.mark.parametrize("case", ["target-http"], indirect=True)
def test_where_nothing_can_be_written_calls_go_on(case: Case) -> None:
    """Not even root can make a file there."""
    one = case.upstream("v1")
    case.plane.set(*case.resources(one.address))
    case.path = Path("/proc/self/state.bin")
    process = case.process()
    assert process.do("calls", 10) == answered(10, "v1")
    assert "cannot be written" in process.do("wait", "last_good", "failed")["last_error"]
    for _ in range(5):
        case.plane.set(*case.resources(case.upstream("v2").address))
        assert process.do("turn", "v2")["last"] == "v2"
        case.plane.set(*case.resources(one.address))
        assert process.do("turn", "v1")["last"] == "v1"
    assert process.do("calls", 10) == answered(10, "v1")
    assert process.end().count("cannot be written") == 1


@pytest.mark.parametrize("case", ["target-http"], indirect=True)
def test_workers_that_share_a_file(case: Case) -> None:
    """Whoever wrote last, a start from it serves."""
    one = case.upstream("v1")
    case.plane.set(*case.resources(one.address))
    workers = [case.process() for _ in range(3)]
    for _ in range(2):
        for worker in workers:
            assert worker.do("calls", 5) == answered(5, "v1")
    for worker in workers:
        worker.do("wait", "last_good", "ready")
    workers[0].kill()
    for worker in workers[1:]:
        worker.end()
    case.plane.kill()
    assert list(case.path.parent.iterdir()) == [case.path]
    process = case.process()
    assert process.do("calls", 20) == answered(20, "v1")
    process.end()


def _settings(case: Case, path: Path) -> Path:
    path.write_text(
        f'[xds]\nserver = "{case.plane.address}"\nlast_good = "{case.path}"\n[sidecar]\nmode = "off"\n'
    )
    return path


@pytest.mark.parametrize("case", ["target-http"], indirect=True)
def test_a_command_reads_the_file(case: Case, tmp_path: Path) -> None:
    one = case.fill()
    config = str(_settings(case, tmp_path / "mesh.toml"))
    said = run("route", "GET", "http://reviews/", "--config", config, "--wait", "10")
    assert one.address in said.stdout, said


@pytest.mark.parametrize("case", ["target-http"], indirect=True)
def test_a_command_writes_none(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root's ``meshlib dump`` would leave a file that the program may not read."""
    told: list[str] = []
    monkeypatch.setattr(LastGood, "only_look", lambda source: told.append(source.name))
    config = _settings(case, tmp_path / "mesh.toml")
    with opened(config):
        assert len(told) == 1
    look_here((), config, lambda _: None)
    assert len(told) == 2


def test_wait_ready_does_not_wait_for_a_file_that_is_not_there(
    control_plane: ControlPlane, upstream: Any, tmp_path: Path
) -> None:
    control_plane.set(
        build.listener("l", build.route_config("r", build.virtual_host("v", build.route(cluster="c")))),
        build.cluster("c", [upstream().address]),
    )
    config = {"xds": {"server": control_plane.address, "last_good": str(tmp_path / "new" / "state.bin")}}
    with meshlib.Mesh(config) as mesh:
        mesh.wait_ready(timeout=5)


def test_nothing_is_read_or_written_where_it_is_not_asked_for(control_plane: ControlPlane) -> None:
    with meshlib.Mesh({"xds": {"server": control_plane.address}}) as mesh:
        mesh._runtime()
        assert "last_good" not in {source.kind for source in mesh.status().sources}
