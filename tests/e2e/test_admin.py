"""The socket that `meshlib dump PID` reads, in real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import meshlib
from meshlib.observe import admin
from meshlib.observe.peer import NotReadable, ask
from tests.support.late import again_if_late, soon

CONFIG = {"services": {"reviews": {"endpoints": ["127.0.0.1:9"]}}}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


def shown(directory: Path, **more: Any) -> meshlib.Mesh:
    return meshlib.Mesh({**CONFIG, "admin": {"enabled": True, "runtime_dir": str(directory)}, **more})


def own(directory: Path) -> Path:
    return directory / f"{os.getpid()}.sock"


def test_off_unless_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with meshlib.Mesh(CONFIG) as mesh:
        mesh.snapshot()
        assert list(tmp_path.rglob("*")) == []


def test_status_and_snapshot_are_read(directory: Path) -> None:
    with shown(directory) as mesh:
        mesh.snapshot()
        [status] = ask(os.getpid(), "status", [directory])
        assert status["clusters"] == mesh.status().to_dict()["clusters"]
        assert status["process"]["pid"] == os.getpid()
        [snapshot] = ask(os.getpid(), "snapshot", [directory])
        assert snapshot == json.loads(json.dumps(mesh.snapshot().to_dict()))


def test_nothing_is_there_before_the_first_use(directory: Path) -> None:
    with shown(directory):
        assert not directory.exists()


def test_two_meshes_share_one_socket_and_the_last_takes_it_along(directory: Path) -> None:
    with shown(directory) as one:
        one.snapshot()
        with shown(directory, services={"ratings": {"endpoints": ["127.0.0.1:9"]}}) as two:
            two.snapshot()
            names = [list(status["clusters"]) for status in ask(os.getpid(), "status", [directory])]
            assert names == [["reviews"], ["ratings"]]
        assert len(ask(os.getpid(), "status", [directory])) == 1
    assert list(directory.iterdir()) == []


def test_a_mesh_that_is_started_again_is_shown_again(directory: Path) -> None:
    for _ in range(2):
        with shown(directory) as mesh:
            mesh.snapshot()
            assert len(ask(os.getpid(), "status", [directory])) == 1


def test_only_the_owner_can_open_it(directory: Path) -> None:
    before = os.umask(0)
    try:
        with shown(directory) as mesh:
            mesh.snapshot()
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            assert stat.S_IMODE(own(directory).stat().st_mode) == 0o600
            assert own(directory).stat().st_uid == os.geteuid()
    finally:
        os.umask(before)


def test_another_user_is_turned_away_by_the_kernels_word(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one who could open it, as root can: here the process takes itself for somebody else's."""
    with shown(directory) as mesh:
        mesh.snapshot()
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(own(directory)))
            with contextlib.suppress(OSError):
                connection.sendall(b"status\n")
            assert said(connection) == b""
        monkeypatch.undo()
        assert f"user {os.geteuid()} was turned away" in caplog.text


def said(connection: socket.socket) -> bytes:
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("request_", "answered"),
    [
        (b"status\n", True),
        (b"status\r\n", True),
        (b"status", False),
        (b"shutdown\n", False),
        (b"\n", False),
        (b"\xff" * 1000 + b"\n", False),
    ],
)
@again_if_late
def test_requests_are_bounded(
    directory: Path, request_: bytes, answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "PATIENCE", 5.0 if answered else 0.2)
    with shown(directory) as mesh:
        mesh.snapshot()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            began = time.monotonic()
            connection.connect(str(own(directory)))
            connection.sendall(request_)
            answer = said(connection)
            soon(time.monotonic() - began, 5.0)
        assert (b'"meshes"' in answer) is answered
        monkeypatch.setattr(admin, "PATIENCE", 5.0)
        # It serves the next one all the same.
        assert ask(os.getpid(), "status", [directory])


def test_one_who_says_nothing_delays_others_for_a_bounded_time(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "PATIENCE", 1.0)
    with shown(directory) as mesh:
        mesh.snapshot()
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(own(directory)))
            before = time.monotonic()
            assert ask(os.getpid(), "status", [directory])
            assert time.monotonic() - before < 5


@pytest.mark.parametrize("what", ["file", "link", "open"])
def test_a_directory_that_is_not_safe_is_not_used(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "run"
    if what == "file":
        directory.write_text("")
    elif what == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        directory.symlink_to(tmp_path / "real")
    else:
        directory.mkdir()
        directory.chmod(0o777)
    with shown(directory) as mesh:
        assert mesh.snapshot().version > 0  # what is configured works all the same
    assert f"no admin socket in {directory}" in caplog.text
    assert not own(directory).exists()


def test_a_directory_of_ours_must_be_this_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "meshlib").mkdir(mode=0o755)
    with meshlib.Mesh({**CONFIG, "admin": {"enabled": True}}) as mesh:
        mesh.snapshot()
    assert "chmod 700" in caplog.text


def test_the_default_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with meshlib.Mesh({**CONFIG, "admin": {"enabled": True}}) as mesh:
        mesh.snapshot()
        assert own(tmp_path / "meshlib").exists()
        assert ask(os.getpid(), "status", admin.directories(None))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "not there"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert admin.directories(None) == (tmp_path / "tmp" / f"meshlib-{os.geteuid()}",)


def test_a_path_that_is_too_long_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with shown(tmp_path / ("x" * 120)) as mesh:
        mesh.snapshot()
    assert "no admin socket in" in caplog.text


def test_a_socket_that_another_process_is_making_stays(directory: Path) -> None:
    """It is bound by another name, and nobody listens there yet."""
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(directory / ".1.sock"))
        with shown(directory) as mesh:
            mesh.snapshot()
            other.listen()
            (directory / ".1.sock").rename(directory / "1.sock")
    assert [path.name for path in directory.iterdir()] == ["1.sock"]


def test_a_socket_that_a_killed_process_left_is_cleaned(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as alive:
        dead.bind(str(directory / "1.sock"))
        dead.listen()
        alive.bind(str(directory / "2.sock"))
        alive.listen()
        dead.close()
        with pytest.raises(NotReadable, match="killed"):
            ask(1, "status", [directory])
        with shown(directory) as mesh:
            mesh.snapshot()
            assert {path.name for path in directory.iterdir()} == {"2.sock", own(directory).name}


# --- what the reader finds ------------------------------------------------------------------------------------------------


def test_no_such_process(directory: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(NotReadable, match=f"there is no process {child.pid}"):
        ask(child.pid, "status", [directory])


def test_a_process_without_a_socket(directory: Path) -> None:
    with pytest.raises(NotReadable, match="enabled = true"):
        ask(os.getpid(), "status", [directory])


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense", b"[]", b'{"meshes": 1}', b'{"meshes": [1]}', b'{"pid": 1}', b"[" * 100_000],
)
def test_an_answer_that_is_none(directory: Path, answer: bytes) -> None:
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "7.sock"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NotReadable, match="not of meshlib"):
            ask(7, "status", [directory])
        thread.join()


def test_one_that_never_answers(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "7.sock"))
        listener.listen()
        with pytest.raises(NotReadable, match="no answer within"):
            ask(7, "status", [directory], timeout=0.1)


# --- real processes -------------------------------------------------------------------------------------------------------

PROGRAM = """
import os, sys
import meshlib
mesh = meshlib.Mesh({
    "services": {"reviews": {"endpoints": ["127.0.0.1:9"]}},
    "admin": {"enabled": True, "runtime_dir": sys.argv[1]},
})
mesh.snapshot()
pids = [os.getpid()]
if sys.argv[2] == "fork":
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        mesh.snapshot()
        os.write(writing, b"ready")
        sys.stdin.readline()
        sys.exit(0)
    os.read(reading, 5)
    pids.append(pid)
print(*pids, flush=True)
sys.stdin.readline()
if sys.argv[2] == "fork":
    os.waitpid(pid, 0)
"""


@contextlib.contextmanager
def process(directory: Path, how: str = "plain") -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, str(directory), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield child, [int(pid) for pid in child.stdout.readline().split()]
    finally:
        child.stdin.close()
        child.stdout.close()
        child.kill()
        child.wait()


def test_another_process_is_read_and_its_socket_goes_at_its_exit(directory: Path) -> None:
    with process(directory) as (child, [pid]):
        [status] = ask(pid, "status", [directory])
        assert status["process"]["pid"] == pid
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.wait(20) == 0
    assert list(directory.iterdir()) == []


def test_a_killed_processs_socket_is_cleaned_by_the_next(directory: Path) -> None:
    with process(directory) as (child, [pid]):
        child.send_signal(signal.SIGKILL)
        child.wait(20)
        assert (directory / f"{pid}.sock").exists()
    with process(directory) as (_, [other]):
        assert [path.name for path in directory.iterdir()] == [f"{other}.sock"]


def test_a_forked_child_has_its_own(directory: Path) -> None:
    with process(directory, "fork") as (child, [parent, forked]):
        statuses = {pid: ask(pid, "status", [directory])[0]["process"] for pid in (parent, forked)}
        assert (statuses[parent]["pid"], statuses[parent]["forked"]) == (parent, False)
        assert (statuses[forked]["pid"], statuses[forked]["forked"]) == (forked, True)
        os.kill(parent, signal.SIGKILL)
        child.wait(20)
        # The child holds no copy of its parent's socket: nobody is kept waiting there.
        with pytest.raises(NotReadable, match="killed"):
            ask(parent, "status", [directory])
        assert ask(forked, "status", [directory])


def test_a_child_that_uses_no_mesh_leaves_its_parents_socket_alone(directory: Path) -> None:
    with shown(directory) as mesh:
        mesh.snapshot()
        pid = os.fork()
        if not pid:  # pragma: no cover - another process
            admin._at_exit()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert ask(os.getpid(), "status", [directory])
