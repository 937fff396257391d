"""The command line as processes, with and without a terminal, against a control plane and other processes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import meshlib
from meshlib.testing import ControlPlane, build

CONFIG = '[services.reviews]\nendpoints = ["127.0.0.1:9"]\n'


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "160", "TERM": "xterm", **more}


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meshlib", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=environment(**more),
    )


@contextlib.contextmanager
def started(*arguments: str, out: int | None = None) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "meshlib", *arguments],
        stdout=subprocess.PIPE if out is None else out,
        stderr=subprocess.PIPE if out is None else out,
        text=True,
        env=environment(),
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()


def serve(plane: ControlPlane, *addresses: str, version: str | None = None) -> None:
    plane.set(
        build.api_listener(
            "reviews", build.route_config("r", build.virtual_host("all", build.route(cluster="reviews-v1")))
        ),
        build.cluster("reviews-v1"),
        build.endpoints("reviews-v1", *addresses),
        version=version,
    )


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "mesh.toml"
    path.write_text(CONFIG)
    return str(path)


def test_the_program_is_there_as_a_module() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"meshlib {meshlib.__version__}\n")


def test_what_is_printed_without_a_terminal_is_plain_text(config: str) -> None:
    done = run("route", "GET", "http://reviews/" + "x" * 300, "--config", config)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert any(line.endswith("x" * 300) for line in done.stdout.splitlines())  # not wrapped
    assert done.stderr == ""


def test_an_encoding_that_lacks_characters_does_not_matter(config: str) -> None:
    done = run("route", "GET", "http://reviews/", "--config", config, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "reviews at 127.0.0.1:9" in done.stdout


def test_a_reader_that_had_enough_is_no_failure(config: str) -> None:
    command = f"{sys.executable} -m meshlib dump --config {config} --json | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=environment(),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")


# --- a control plane ------------------------------------------------------------------------------------------------------


def test_route_waits_for_the_control_plane(control_plane: ControlPlane) -> None:
    serve(control_plane, "127.0.0.1:9001")
    done = run("route", "GET", "http://reviews/", "--json", MESHLIB_XDS_SERVER=control_plane.address)
    said = json.loads(done.stdout)
    assert (said["cluster"], said["endpoint"], said["via"]) == ("reviews-v1", "127.0.0.1:9001", "mesh")
    assert (done.returncode, done.stderr) == (0, "")


def test_route_with_a_control_plane_that_is_away() -> None:
    with ControlPlane() as plane:
        address = plane.address
    done = run("route", "GET", "http://reviews/", "--wait", "3", "--json", MESHLIB_XDS_SERVER=address)
    said = json.loads(done.stdout)
    assert (done.returncode, said["via"]) == (0, "direct")
    trace = "\n".join(said["trace"])
    assert f"the control plane {address} is not reachable (" in trace
    assert trace.endswith("reviews is called directly")
    assert "no listener" not in trace


def test_route_where_nothing_goes_directly_while_the_control_plane_is_away(tmp_path: Path) -> None:
    with ControlPlane() as plane:
        address = plane.address
    config = tmp_path / "mesh.toml"
    config.write_text(f'[xds]\nserver = "{address}"\ncold_start = "fail"\n')
    done = run("route", "GET", "http://reviews/", "--wait", "3", "--json", "--config", str(config))
    assert (done.returncode, json.loads(done.stdout)["via"]) == (1, "mesh")
    assert f"the control plane {address} is not reachable (" in done.stderr.replace("\n", " ")


def test_dump_asks_for_names(control_plane: ControlPlane) -> None:
    serve(control_plane, "127.0.0.1:9001", version="7")
    done = run("dump", "--name", "reviews", "--json", MESHLIB_XDS_SERVER=control_plane.address)
    said = json.loads(done.stdout)
    assert said["clusters"]["reviews-v1"]["endpoints"][0]["address"] == "127.0.0.1:9001"
    [xds] = [source for source in said["sources"] if source["name"] == "xds"]
    assert (xds["state"], xds["versions"]["listener"]) == ("ready", "7")


def test_watch_prints_a_line_a_change_and_ends_on_ctrl_c(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHLIB_XDS_SERVER", control_plane.address)
    serve(control_plane, "127.0.0.1:9001")
    with started("watch", "--json", "--name", "reviews") as child:
        wanted = {"127.0.0.1:9001"}
        seen = []
        assert child.stdout is not None
        for line in child.stdout:
            status = json.loads(line)
            seen.append(status)
            endpoints = status["clusters"].get("reviews-v1", {}).get("endpoints", ())
            if {endpoint["address"] for endpoint in endpoints} == wanted:
                if len(wanted) == 2:
                    break
                wanted = {"127.0.0.1:9001", "127.0.0.1:9002"}
                serve(control_plane, *sorted(wanted))
        child.send_signal(signal.SIGINT)
        rest, complaint = child.communicate(timeout=20)
        assert child.returncode == 0
        assert complaint == (
            "! this is a mesh of its own, made from the environment; it makes no calls. "
            "To watch a running process: meshlib watch PID (meshlib ps)\n"
        )
        assert len(seen) + len(rest.splitlines()) < 20  # nothing is said where nothing changes


# --- a terminal -----------------------------------------------------------------------------------------------------------


def read_until(terminal: int, *texts: str, seconds: float = 20.0) -> str:
    until, said = time.monotonic() + seconds, b""
    while not all(text.encode() in said for text in texts):
        left = until - time.monotonic()
        assert left > 0, f"{texts} did not come: {said!r}"
        if select.select([terminal], [], [], left)[0]:
            said += os.read(terminal, 65536)
    return said.decode(errors="replace")


def test_watch_draws_on_a_terminal_and_ends_on_ctrl_c(config: str) -> None:
    ours, theirs = pty.openpty()
    try:
        with started("watch", "--config", config, out=theirs) as child:
            said = read_until(ours, "reviews", "127.0.0.1:9", "healthy")
            assert "\x1b[?1049h" in said  # the alternate screen: what was there before comes back
            child.send_signal(signal.SIGINT)
            read_until(ours, "\x1b[?1049l")
            assert child.wait(20) == 0
    finally:
        os.close(ours)
        os.close(theirs)


def test_watch_without_a_terminal_writes_each_change(config: str) -> None:
    with started("watch", "--config", config) as child:
        assert child.stdout is not None
        said = ""
        while "127.0.0.1:9" not in said:
            said += child.stdout.readline()
        assert "\x1b" not in said
        Path(config).write_text(CONFIG.replace(":9", ":10"))
        while "127.0.0.1:10" not in said:
            said += child.stdout.readline()
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=20)
        assert child.returncode == 0


# --- another process ------------------------------------------------------------------------------------------------------


def test_dump_reads_a_running_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    services = {"services": {"reviews": {"endpoints": ["127.0.0.1:9"]}}}
    with meshlib.Mesh({**services, "admin": {"enabled": True}}) as mesh:
        mesh.snapshot()
        pid = str(os.getpid())
        done = run("dump", pid, "--json")
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        expected = json.loads(json.dumps(mesh.status().to_dict()))
        for each in (said, expected):
            each["sources"] = [{**source, "since": 0} for source in each["sources"]]
            each["sidecar"]["since"] = 0
        assert said == expected
        assert "127.0.0.1:9" in run("dump", pid).stdout
        assert json.loads(run("dump", pid, "--snapshot").stdout)["parts"][0]["source"] == "static"
        assert run("dump", pid, "--mesh", "2").returncode == 2
    done = run("dump", pid)
    assert done.returncode == 1
    assert "enabled = true" in done.stderr


def test_dump_finds_the_directory_that_the_configuration_names(tmp_path: Path) -> None:
    path = tmp_path / "mesh.toml"
    path.write_text(CONFIG + '[admin]\nenabled = true\nruntime_dir = "run"\n')
    with meshlib.Mesh(path) as mesh:
        mesh.snapshot()
        assert run("dump", str(os.getpid()), "--config", str(path)).returncode == 0
        assert run("dump", str(os.getpid()), XDG_RUNTIME_DIR="").returncode == 1
