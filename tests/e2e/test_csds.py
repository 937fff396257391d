"""The client status service of a process: ``[admin] csds``, asked as grpcdebug asks it (CS-01, CS-02)."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

import meshlib
from meshlib.sources import csds
from meshlib.testing import ControlPlane, build
from meshlib.xds import schema
from tests.support.asking import asked
from tests.support.ports import free_port

RESPONSE = schema.message("envoy.service.status.v3.ClientStatusResponse")
Make = Callable[..., meshlib.Mesh]


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    host = build.virtual_host("reviews", build.route("/", cluster="c"), domains=["reviews"])
    with ControlPlane(
        build.api_listener("reviews", "r"),
        build.route_config("r", host),
        build.cluster("c"),
        build.endpoints("c", "127.0.0.1:9"),
    ) as running:
        yield running


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory in which a socket's path is not too long, wherever the tests have theirs."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, short_path: Path) -> str:
    return f"unix:{short_path}/csds.sock" if request.param == "unix" else f"127.0.0.1:{free_port()}"


@pytest.fixture
def make(plane: ControlPlane) -> Iterator[Make]:
    made: list[meshlib.Mesh] = []

    def mesh(address: str, **xds: Any) -> meshlib.Mesh:
        made.append(meshlib.Mesh({"xds": {"server": plane.address, **xds}, "admin": {"csds": address}}))
        made[-1].wait_ready("reviews")
        return made[-1]

    yield mesh
    for each in made:
        each.close()


def fetch(address: str, request: bytes = b"") -> Any:
    with grpc.insecure_channel(address) as channel:
        raw = channel.unary_unary(f"{schema.CSDS}/FetchClientStatus")(request, timeout=5)
    return RESPONSE.FromString(raw).config


def served(address: str) -> bool:
    try:
        return bool(fetch(address))
    except grpc.RpcError:
        return False


def test_one_client_with_all_that_it_has(make: Make, plane: ControlPlane, address: str) -> None:
    make(address, protocol="sotw", view="target")
    [config] = fetch(address)
    found = {(each.type_url, each.name): each for each in config.generic_xds_configs}
    names = {"listener": "reviews", "route": "r", "cluster": "c", "endpoint": "c"}
    assert set(found) == {(schema.TYPE_URLS[short], name) for short, name in names.items()}
    for (url, _), each in found.items():
        assert each.client_status == 3  # ACKED
        assert each.version_info == plane.version(url)
        assert each.xds_config.type_url == url
        assert abs(each.last_updated.ToNanoseconds() / 1e9 - time.time()) < 60


def test_a_stream_has_an_answer_for_each_request(make: Make, plane: ControlPlane, address: str) -> None:
    make(address, protocol="sotw", view="target")
    asking: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with grpc.insecure_channel(address) as channel:
        answers = channel.stream_stream(f"{schema.CSDS}/StreamClientStatus")(
            iter(asking.get, None), timeout=10
        )

        def states() -> set[int]:
            asking.put(b"")
            [config] = RESPONSE.FromString(next(answers)).config
            return {each.client_status for each in config.generic_xds_configs}

        assert states() == {3}  # ACKED
        plane.update(build.cluster("c", connect_timeout="-1s"))
        plane.wait_for_nack("cluster")
        assert states() == {3, 4}  # NACKED
        asking.put(None)
        assert list(answers) == []


def test_what_cannot_be_honoured_is_an_invalid_argument(make: Make, address: str) -> None:
    make(address)
    with pytest.raises(grpc.RpcError, match="node_matchers") as caught:
        fetch(address, b"\x0a\x00")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


def test_the_socket_is_its_owners_alone_and_goes_with_the_mesh(make: Make, short_path: Path) -> None:
    path = short_path / "csds.sock"
    path.write_text("what a killed process left")
    mesh = make(f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert served(f"unix:{path}")
    mesh.close()
    assert not path.exists()
    assert {each.name for each in short_path.iterdir()} == {"csds.sock.lock"}


def test_two_meshes_of_a_process_share_a_server(make: Make, address: str) -> None:
    first, _ = make(address), make(address)
    assert len(fetch(address)) == 2
    first.close()
    assert len(fetch(address)) == 1


@pytest.mark.parametrize(
    "where",
    ["0.0.0.0:9", "10.0.0.1:9", "example.org:9", "localhost:9", "[2001:db8::1]:9", "127.0.0.1", "unix:", "unix:/" + "x" * 200],
)  # fmt: skip
def test_it_is_of_this_machine_only(where: str) -> None:
    with pytest.raises(meshlib.ConfigError, match=r"admin\.csds"):
        meshlib.Mesh({"admin": {"csds": where}})


PROGRAM = """
import json, os, sys
import meshlib
mesh = meshlib.Mesh(json.loads(sys.argv[1]))
mesh.wait_ready("reviews")
for line in sys.stdin:
    if line.strip() == "fork":
        pid = os.fork()
        if not pid:
            mesh.wait_ready("reviews")
            os._exit(0 if mesh.status().process.forked else 1)
        mesh.wait_ready("reviews")
        print(os.waitpid(pid, 0)[1], flush=True)
    else:
        print("ready", flush=True)
"""


@pytest.fixture
def program(plane: ControlPlane) -> Iterator[Callable[[str], Any]]:
    """Starts a process that serves at an address, and gives what asks it."""
    running: list[subprocess.Popen[str]] = []

    def start(address: str) -> Any:
        config = {"xds": {"server": plane.address}, "admin": {"csds": address}}
        command = [sys.executable, "-c", PROGRAM, json.dumps(config)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)

        def ask(word: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(word + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert ask("ready") == "ready"
        return ask, process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_one_process_at_a_time_serves_an_address(
    make: Make, program: Any, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As gunicorn's workers do: the first one does, and another once that has ended, however it did."""
    monkeypatch.setattr(csds, "RETRY", 0.05)
    _, process = program(address)
    assert served(address)
    make(address)
    assert "the client status service is not served" in caplog.text
    process.kill()
    process.wait()
    assert asked(lambda: served(address), 10.0)
    assert caplog.text.count("the client status service is not served") == 1


def test_a_fork(program: Any, address: str) -> None:
    ask, process = program(address)
    assert served(address)
    assert ask("fork") == "0"
    assert process.poll() is None
    assert asked(lambda: served(address), 10.0)


SITE = """
import json, os
import meshlib
from meshlib.sources import csds
csds.RETRY = 0.1
mesh = meshlib.Mesh(json.loads(os.environ["SITE_MESH"]))

def app(environ, start_response):
    mesh.wait_ready("reviews")
    start_response("200 OK", [("content-type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.mark.timeout(180)  # three workers come and go one after the other
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_of_gunicorns_workers_one_serves(
    plane: ControlPlane,
    address: str,
    tmp_path: Path,
    preload: tuple[str, ...],
) -> None:
    """Whichever of them is killed, another follows."""
    (tmp_path / "site_of_csds.py").write_text(SITE)
    where = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", where, *preload, "site_of_csds:app"]
    mesh = {"xds": {"server": plane.address}, "admin": {"csds": address}}
    environment = os.environ | {"SITE_MESH": json.dumps(mesh)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            first = both(where)
            assert asked(lambda: served(address), 40.0)
            for pid in first:
                os.kill(pid, signal.SIGKILL)
                assert asked(lambda gone=pid: gone not in both(where), 40.0)
                assert asked(lambda: served(address), 40.0)
        finally:
            process.terminate()
            process.wait(20)


def both(where: str) -> set[int]:
    """Ask a site of two workers until both have answered; who they are."""
    found: set[int] = set()

    def answered() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            found.add(int(httpx.get(f"http://{where}/", timeout=10).text))
        return len(found) == 2

    assert asked(answered, 40.0), found
    return found
