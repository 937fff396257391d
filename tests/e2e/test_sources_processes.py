"""Processes that fork, end or are patched while a control-plane stream is open. Each client is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

from meshlib.testing import ControlPlane, build
from tests.support.late import again_if_late, soon


@pytest.fixture
def plane():
    host = build.virtual_host("reviews", build.route("/", cluster="c1"), domains=["reviews"])
    with ControlPlane(
        build.api_listener("reviews", build.route_config("r", host)),
        build.cluster("c1"),
        build.endpoints("c1", "127.0.0.1:9001"),
    ) as running:
        yield running


def run(script, *arguments, timeout=50.0, **environment):
    """What a script printed and what it said on stderr; it must end by itself, and well."""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # grpc's core has things of its own to say.
    err = "\n".join(line for line in done.stderr.splitlines() if "meshlib" in line or "Traceback" in line)
    return done.stdout, err


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fork_support", ["", "0", "1"])
@again_if_late
def test_a_child_is_warm_and_gets_updates_of_its_own(plane, fork_support):
    """With every setting of grpcio's fork support: the stream is closed for the fork and opened again after it."""
    environment = {"GRPC_ENABLE_FORK_SUPPORT": fork_support} if fork_support else {}
    out, err = run(
        """
        import os, sys, time
        import meshlib
        mesh = meshlib.Mesh({"xds": {"server": sys.argv[1]}})
        mesh.wait_ready("reviews", timeout=10)

        def connected():
            def ready(_):
                return next(s for s in mesh.status().sources if s.kind == "xds").state == "ready"
            assert mesh._runtime().store.wait(ready, 15), mesh.status().to_dict()

        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            began = time.monotonic()
            assert mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:9001"
            print(time.monotonic() - began, flush=True)
            process = mesh.status().process
            assert process.forked and process.started and process.pid == os.getpid()
            mesh.wait_ready("reviews", timeout=10)
            connected()
            print("child is up", flush=True)
            os.read(read, 1)
            mesh.close()
            os._exit(0)
        assert mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:9001"
        mesh.wait_ready("reviews", timeout=10)
        os.write(write, b"x")
        assert os.waitpid(pid, 0)[1] == 0
        connected()
        print("parent goes on")
        mesh.close()
        """,
        plane.address,
        **environment,
    )
    warm, *said = out.split("\n")
    assert said[:2] == ["child is up", "parent goes on"]
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert "meshlib" in lines[0]
    assert "fork" in lines[0]
    soon(float(warm), 2.0, "it is not warm")


def test_many_children_of_a_parent_with_a_stream(plane):
    """A preforking server that made calls before it forked."""
    out, err = run(
        """
        import os, sys
        import meshlib
        mesh = meshlib.Mesh({"xds": {"server": sys.argv[1]}})
        mesh.wait_ready("reviews", timeout=10)
        children = []
        for _ in range(4):
            pid = os.fork()
            if not pid:
                mesh.wait_ready("reviews", timeout=10)
                assert mesh.explain("GET", "http://reviews/").via == "mesh"
                mesh.close()
                os._exit(0)
            children.append(pid)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        mesh.wait_ready("reviews", timeout=10)
        mesh.close()
        print("all")
        """,
        plane.address,
    )
    assert out.split() == ["all"]
    assert len(err.splitlines()) == 1


def test_a_fork_before_the_first_use_is_nothing_special(plane):
    out, err = run(
        """
        import os, sys
        import meshlib
        mesh = meshlib.Mesh({"xds": {"server": sys.argv[1]}})
        pid = os.fork()
        mesh.wait_ready("reviews", timeout=10)
        assert not mesh.status().process.forked
        mesh.close()
        if not pid:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("both")
        """,
        plane.address,
    )
    assert out.split() == ["both"]
    assert err == ""


@pytest.mark.timeout(180)
@again_if_late
def test_a_process_ends_cleanly_with_an_open_stream_and_soon(plane):
    out, err = run(
        """
        import atexit, sys, time
        ended = []
        atexit.register(lambda: print(time.monotonic() - ended[0]))
        import meshlib
        mesh = meshlib.Mesh({"xds": {"server": sys.argv[1]}})
        mesh.wait_ready("reviews", timeout=10)
        ended.append(time.monotonic())
        """,
        plane.address,
    )
    assert err == ""
    soon(float(out), 2.0, "the exit")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("state", ["dead", "silent"])
@again_if_late
def test_a_process_ends_soon_whatever_the_control_plane_does(plane, state):
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if state == "silent":
            listening.listen()
        began = time.monotonic()
        run(
            """
            import sys
            import meshlib
            mesh = meshlib.Mesh({"xds": {"server": sys.argv[1]}})
            try:
                mesh.wait_ready("reviews", timeout=0.3)
            except meshlib.NotReady:
                pass
            """,
            f"127.0.0.1:{listening.getsockname()[1]}",
        )
        soon(time.monotonic() - began, 15.0, "the program")


def test_multiprocessing_with_fork(plane):
    out, _ = run(
        """
        import multiprocessing, sys
        import meshlib
        context = multiprocessing.get_context("fork")
        mesh = meshlib.Mesh({"xds": {"server": sys.argv[1]}})

        def work(number):
            mesh.wait_ready("reviews", timeout=10)
            return mesh.explain("GET", "http://reviews/").endpoint

        mesh.wait_ready("reviews", timeout=10)
        with context.Pool(3) as pool:
            print(set(pool.map(work, range(9))))
        mesh.close()
        """,
        plane.address,
    )
    assert out.strip() == "{'127.0.0.1:9001'}"


def test_no_thread_but_the_applications_takes_a_signal(plane):
    """uWSGI's handler ends the process in whatever thread it runs, and waits for ever where that is not the main one."""
    out, err = run(
        """
        import os, signal, sys
        from pathlib import Path
        import meshlib
        with meshlib.Mesh({"xds": {"server": sys.argv[1]}}) as mesh:
            mesh.wait_ready("reviews", timeout=10)
            for task in Path("/proc/self/task").iterdir():
                if int(task.name) != os.getpid():
                    try:
                        lines = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
                    except (FileNotFoundError, ProcessLookupError):
                        continue  # it has ended
                    blocked = int(lines["SigBlk"], 16)
                    stops = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
                    print(lines["Name"].strip(), all(blocked >> (number - 1) & 1 for number in stops))
        """,
        plane.address,
    )
    assert err == ""
    threads = [line.rsplit(" ", 1) for line in out.splitlines()]
    assert len(threads) > 3
    assert not [name for name, deaf in threads if deaf != "True"], out
