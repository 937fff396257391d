"""`meshlib doctor PID`: of real processes, and of a master's workers; and the command on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from meshlib.testing import ControlPlane, Upstream, build
from tests.support import netns
from tests.support.asking import asked
from tests.support.netns import EnvoySidecar, Namespace
from tests.support.web_servers import gunicorn, uwsgi

pytestmark = pytest.mark.timeout(180)  # each test starts several interpreters

ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MESHLIB_", "GRPC_", "OTEL_")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")]), **more}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


def doctor(*arguments: object, **more: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and what was found."""
    done = subprocess.run(
        [sys.executable, "-m", "meshlib", "doctor", "--json", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=environment(**more),
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)["findings"]


def one(findings: list[dict[str, Any]], name: str) -> dict[str, Any]:
    [found] = [each for each in findings if each["id"] == name]
    return found


def ids(findings: list[dict[str, Any]]) -> set[str]:
    return {each["id"] for each in findings}


@contextmanager
def running(config: dict[str, Any], *features: str, **more: str) -> Iterator[int]:
    """The process's id, once its mesh is there."""
    command = [sys.executable, "-m", "tests.support.doctor_program"]
    whole = {"admin": {"enabled": True}, **config}
    child = subprocess.Popen(
        [*command, json.dumps(whole), *features],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(**more),
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield int(child.stdout.readline())
    finally:
        child.stdin.close()
        child.wait(20)
        child.stdout.close()


def reviews(*addresses: str, **more: Any) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": list(addresses), **more}}}


RETRIED = {"retry": {"attempts": 3, "on": ["5xx"]}}


def test_a_process_that_is_well(upstream: Upstream) -> None:
    with running(reviews(upstream.address)) as pid:
        assert doctor(pid) == (0, [])


def test_a_process_whose_environment_is_not(upstream: Upstream) -> None:
    more = {"MESHLIB_CONIFG": "x", "HTTP_PROXY": "http://user:secret@127.0.0.1:3128"}
    with running(reviews(upstream.address, "127.0.0.1:1"), **more) as pid:
        code, found = doctor(pid)
    assert code == 1
    assert ids(found) == {"variable-misspelt", "proxy-wins", "endpoint-not-listening"}
    assert "secret" not in str(found)


def test_a_control_plane_that_went_away() -> None:
    plane = ControlPlane(build.cluster("c"), build.endpoints("c"))
    with plane, running({"xds": {"server": plane.address}}) as pid:
        assert asked(lambda: "control-plane" in ids(doctor(pid)[1]), 40.0)
        plane.stop()
        assert asked(lambda: "control-plane-unreachable" in ids(doctor(pid)[1]), 40.0)
        code, found = doctor(pid)
    assert (code, one(found, "control-plane-unreachable")["severity"]) == (1, "warning")


def test_clients_that_try_again_by_themselves(upstream: Upstream) -> None:
    features = ("openai", "requests", "tenacity")
    with running(reviews(upstream.address, **RETRIED), *features) as pid:
        code, found = doctor(pid)
    assert "not-a-secret" not in str(found)
    said = {each["summary"].partition(" ")[0]: each for each in found}
    assert (code, set(said)) == (1, {"openai", "urllib3's", "tenacity"})
    assert said["openai"]["summary"].startswith("openai tries http://reviews again 2 times")
    assert "up to 9 requests" in said["openai"]["summary"]
    assert said["urllib3's"]["severity"] == said["tenacity"]["severity"] == "info"
    assert "(4) is mounted for http://reviews/" in said["urllib3's"]["summary"]


@pytest.mark.parametrize(("host", "severity"), [("reviews", "warning"), ("api.example.com", "info")])
def test_a_client_that_a_variable_sends_to_the_mesh(
    tmp_path: Path, upstream: Upstream, host: str, severity: str
) -> None:
    """Without a PID: it is told by its variable, and what is only installed is a note."""
    path = tmp_path / "mesh.json"
    path.write_text(json.dumps(reviews(upstream.address, **RETRIED)))
    code, found = doctor("--config", path, OPENAI_BASE_URL=f"http://{host}/v1")
    said = [each["severity"] for each in found if each["id"] == "retries-owned-twice"]
    assert said == ([severity] if severity == "info" else [severity, "info"])
    assert code == (severity == "warning")


def test_clients_are_not_looked_for_where_the_mesh_tries_nothing_again(upstream: Upstream) -> None:
    with running(reviews(upstream.address), "openai", "requests", "tenacity") as pid:
        assert doctor(pid) == (0, [])


@pytest.mark.parametrize(
    ("features", "severity", "words"),
    [
        (["sdk"], None, ""),
        (["contrib"], None, ""),
        (["sdk", "contrib"], "info", "OpenTelemetry's packages make the span"),
        (["sdk", "sentry"], "warning", "OpenTelemetry and sentry"),
        (["sdk", "ddtrace"], "warning", "OpenTelemetry and ddtrace"),
        (["ddtrace"], None, ""),
    ],
)
def test_who_makes_spans(upstream: Upstream, features: list[str], severity: str | None, words: str) -> None:
    for module in ("ddtrace", "sentry_sdk", "opentelemetry.instrumentation.httpx"):
        pytest.importorskip(module)
    with running(reviews(upstream.address), *features) as pid:
        code, found = doctor(pid)
    assert code == (1 if severity == "warning" else 0)
    assert ids(found) == ({"double-instrumentation"} if severity else set())
    if severity:
        assert found[0]["severity"] == severity
        assert found[0]["summary"].startswith(words)


def test_a_fork(upstream: Upstream) -> None:
    with running(reviews(upstream.address), "forked") as pid:
        code, found = doctor(pid)
    assert (code, ids(found)) == (0, {"used-before-fork"})


def test_gevent(upstream: Upstream) -> None:
    pytest.importorskip("gevent")
    with ControlPlane() as plane, ExitStack() as stack:
        config = {"xds": {"server": plane.address}}
        well = stack.enter_context(running(config, "gevent", "init_gevent"))
        bare = stack.enter_context(running(config, "gevent"))
        late = stack.enter_context(running(reviews(upstream.address), "late"))
        assert asked(lambda: ids(doctor(well)[1]) == {"control-plane"}, 40.0)
        code, found = doctor(bare)
        assert code == 1
        assert one(found, "gevent-without-grpc")["severity"] == "error"
        code, found = doctor(late)
        assert (code, ids(found)) == (1, {"gevent-late"})


def test_who_cannot_be_asked(tmp_path: Path) -> None:
    code, found = doctor(os.getpid())
    assert (code, ids(found)) == (1, {"process-cannot-be-asked"})
    assert "enabled = true" in found[0]["remedy"]
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    code, found = doctor(child.pid)
    assert code == 1
    assert f"there is no process {child.pid}" in found[0]["summary"]


@pytest.fixture
def shop(tmp_path: Path, upstream: Upstream) -> dict[str, Any]:
    """The site of an application one of whose endpoints is dead, in ``tmp_path``; its mesh is there from the first request on."""
    (tmp_path / "shop.py").write_text(
        "import meshlib\n\n\ndef app(environ, start_response):\n"
        "    meshlib.default().snapshot()\n    start_response('200 OK', [])\n    return [b'ok']\n"
    )
    config = (
        f'[services.reviews]\nendpoints = ["127.0.0.1:1", "{upstream.address}"]\n[admin]\nenabled = true\n'
    )
    (tmp_path / "mesh.toml").write_text(config)
    variables = {"MESHLIB_CONFIG": str(tmp_path / "mesh.toml"), "XDG_RUNTIME_DIR": str(tmp_path)}
    return {"mesh": {}, "calls": "", "name": "shop", **variables}


def sockets(place: Path) -> list[Path]:
    """Those that listen: before that a socket's name begins with a dot."""
    return list(place.glob("meshlib/[0-9]*.sock"))


def test_the_workers_of_a_master(tmp_path: Path, shop: dict[str, Any]) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(
        "def post_worker_init(worker):\n    import meshlib\n\n    meshlib.default().snapshot()\n"
    )
    settings = ["--chdir", str(tmp_path), "-c", str(tmp_path / "gunicorn.conf.py"), "--workers", "2"]
    with gunicorn("shop:app", tmp_path / "log", *settings, **shop) as server:
        assert asked(lambda: len(sockets(tmp_path)) == 2, 40.0)
        workers = sorted(int(path.stem) for path in sockets(tmp_path))
        code, found = doctor(server.pid)
        assert (code, ids(found)) == (1, {"endpoint-not-listening"})
        assert found[0]["evidence"][-1] == f"processes {workers[0]}, {workers[1]}"
        assert server.pid not in workers
        code, found = doctor(workers[0])
        assert found[0]["evidence"] == ["127.0.0.1:1: connection refused"]


def test_the_worker_of_uwsgis_master(tmp_path: Path, shop: dict[str, Any]) -> None:
    pytest.importorskip("pyuwsgi")
    with uwsgi("shop:app", tmp_path / "log", "--pythonpath", str(tmp_path), "--lazy-apps", **shop) as server:
        assert asked(lambda: len(sockets(tmp_path)) == 1, 40.0)
        code, found = doctor(server.pid)
    assert (code, ids(found)) == (1, {"endpoint-not-listening"})


# --- a sidecar --------------------------------------------------------------------------------------------------------------

SQUAT = """
import os, socket, sys
os.seteuid(1000)
held = [socket.create_server(("0.0.0.0", port)) for port in (15001, 15006, 15021)]
print("listening", flush=True)
sys.stdin.read()
"""


def in_pod(pod: Namespace, config: str, tmp_path: Path) -> tuple[int, list[dict[str, Any]]]:
    (tmp_path / "mesh.toml").write_text(config)
    words = [sys.executable, "-m", "meshlib", "doctor", "--json", "--config", str(tmp_path / "mesh.toml")]
    done = subprocess.run(
        pod.command(*words), capture_output=True, text=True, timeout=100, check=False, env=environment()
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)["findings"]


@pytest.fixture
def pod() -> Iterator[Namespace]:
    netns.needed()
    with Namespace({"reviews": "10.96.0.10"}) as made:
        yield made


@pytest.mark.parametrize("mode", ["auto", "require", "istio"])
def test_a_sidecar_that_is_there(pod: Namespace, tmp_path: Path, mode: str) -> None:
    with EnvoySidecar(pod, netns.ISTIO, {"reviews": 9080}, tmp_path):
        pod.redirect(netns.ISTIO)
        code, found = in_pod(pod, f'[sidecar]\nmode = "{mode}"\n', tmp_path)
    assert code == 0
    assert not {"sidecar-absent", "sidecar-other"} & ids(found)
    said = one(found, "sidecar")
    assert said["summary"] == "istio, mode transparent, confidence high: it carries the calls"
    assert "15021/healthz/ready answered 200: ready" in str(said["evidence"])


def test_somebody_else_in_the_place_of_a_sidecar(pod: Namespace, tmp_path: Path) -> None:
    squatter = pod.popen(sys.executable, "-c", SQUAT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert squatter.stdout is not None
    assert squatter.stdout.readline() == "listening\n"
    pod.redirect(netns.ISTIO)
    code, found = in_pod(pod, "", tmp_path)
    assert (code, one(found, "sidecar")["severity"]) == (0, "info")  # nobody says that there is one
    code, found = in_pod(pod, '[sidecar]\nmode = "istio"\n', tmp_path)
    assert code == 1
    assert one(found, "sidecar-absent")["severity"] == "error"
    assert "15001 is listened on by user id 1000" in str(one(found, "sidecar-other")["evidence"])


def test_a_process_whose_sidecar_went_away(pod: Namespace, tmp_path: Path) -> None:
    """It is asked over its admin socket, from outside the pod."""
    config = {"admin": {"enabled": True}, "sidecar": {"mode": "istio"}}
    with EnvoySidecar(pod, netns.ISTIO, {"reviews": 9080}, tmp_path) as sidecar:
        pod.redirect(netns.ISTIO)
        child = pod.popen(
            *(sys.executable, "-m", "tests.support.doctor_program", json.dumps(config)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        assert asked(lambda: "carries the calls" in str(doctor(pid)[1]) and doctor(pid)[0] == 0, 40.0)
        sidecar.kill()
        assert asked(lambda: "sidecar-absent" in ids(doctor(pid)[1]), 40.0)


def read_all(terminal: int) -> str:
    """What was written at its other end, which is closed."""
    said = b""
    with suppress(OSError):  # there is no more
        while data := os.read(terminal, 10_000):
            said += data
    return said.decode()


def test_each_step_is_said_on_a_terminal_only(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    try:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "meshlib", "doctor", "--json"],
                stdout=subprocess.PIPE,
                stderr=slave,
                timeout=100,
                check=False,
                env=environment(TERM="xterm", COLUMNS="160"),
            )
        finally:
            os.close(slave)
        said = read_all(master)
    finally:
        os.close(master)
    assert ids(json.loads(done.stdout)["findings"]) == {"nothing-configured"}
    lines = [line.strip() for line in said.splitlines()]
    assert [line for line in lines if "…" in line] == lines
    assert len(lines) == 3
