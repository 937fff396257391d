"""multiprocessing and process pools, by every start method, from a parent that has a stream open."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from meshlib.testing import ControlPlane, Upstream, build
from tests.support.late import again_if_late, soon

#: Each try is the start of several interpreters.
pytestmark = pytest.mark.timeout(480)

ROOT = Path(__file__).resolve().parents[2]

#: Python 3.12 starts no thread once a program has come to its end. One that ends while a stream connects has a traceback of
#: grpc's own watcher of a channel, which starts a thread for each change.
ENDS = "RuntimeError: can't create new thread at interpreter shutdown"
FILES = re.compile(r'File "([^"]+)"')

#: A program as people write it: the mesh and the client are of the module, which spawn and forkserver import anew.
PROGRAM = '''
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor

import meshlib

client = meshlib.Client(mesh=meshlib.Mesh({"xds": {"server": os.environ["PLANE"]}}), timeout=10)


def call(number):
    """The process that called, and how long its first call took."""
    began = time.monotonic()
    response = client.get(f"http://reviews/{number}")
    assert response.json()["path"] == f"/{number}"
    assert meshlib.call_info(response).via == "mesh"
    return os.getpid(), time.monotonic() - began


def talk(pipe, number):
    pipe.send(call(number))
    pipe.close()


def pool(context):
    with context.Pool(3) as workers:
        return workers.map(call, range(12), chunksize=1)


def process(context):
    found = []
    ours, theirs = context.Pipe()
    workers = [context.Process(target=talk, args=(theirs, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        found.append(ours.recv())
    for worker in workers:
        worker.join(20)
        assert worker.exitcode == 0, worker.exitcode
    return found


def executor(context):
    with ProcessPoolExecutor(3, mp_context=context) as workers:
        return list(workers.map(call, range(12)))


def main(method, kind, times):
    call(0)
    for _ in range(times):
        found = globals()[kind](multiprocessing.get_context(method))
        assert os.getpid() not in {pid for pid, _ in found}
        if method == "fork":
            print(max(seconds for _, seconds in found), flush=True)  # before the next fork
        call(1)
    print("done")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
'''

#: The same of a program that knows nothing of meshlib, for ``meshlib run``.
PLAIN = """
import multiprocessing, os, sys

import httpx


def call(number):
    return httpx.get(f"http://reviews/{number}").json()["path"] == f"/{number}"


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    assert call(0)
    with context.Pool(2) as workers:
        assert all(workers.map(call, range(4), chunksize=1))
    assert call(1)
    print("done")
"""


@pytest.fixture(scope="module")
def plane():
    host = build.virtual_host("reviews", build.route("/", cluster="c1"), domains=["reviews"])
    with (
        Upstream("u") as upstream,
        ControlPlane(
            build.api_listener("reviews", build.route_config("r", host)),
            build.cluster("c1"),
            build.endpoints("c1", upstream.address),
        ) as running,
    ):
        yield running


def run(tmp_path, text, command, arguments, **variables):
    """What the program said on stderr, and before ``done``, which it must print; it must end by itself, and well."""
    program = tmp_path / "program.py"
    program.write_text(text)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GRPC_", "MESHLIB_"))}
    path = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
    done = subprocess.run(
        [*command, str(program), *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": path, **variables},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *said, end = done.stdout.split()
    assert end == "done"
    if sys.version_info[:2] == (3, 12) and ENDS in done.stderr:
        # grpc's own, to its last frame.
        assert all(
            re.search(r"/grpc/|/threading\.py$|grpc/_cython", path) for path in FILES.findall(done.stderr)
        )
    else:
        assert "Traceback" not in done.stderr, done.stderr
    return done.stderr, said


@pytest.mark.parametrize("kind", ["pool", "process", "executor"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@again_if_late
def test_children_of_a_parent_with_a_stream(plane, tmp_path, method, kind):
    err, took = run(tmp_path, PROGRAM, [sys.executable], [method, kind, "2"], PLANE=plane.address)
    # A fork of this process is told, once; the server of forkserver is a process of its own, and uses nothing.
    assert err.count("ran before fork") == (1 if method == "fork" else 0), err
    assert len(took) == (2 if method == "fork" else 0)
    for seconds in took:
        soon(float(seconds), 2.0, "the first call of a child")


@pytest.mark.parametrize("fork_support", ["0", "1"])
@again_if_late
def test_fork_at_each_setting_of_grpcs_support(plane, tmp_path, fork_support):
    _, took = run(
        tmp_path,
        PROGRAM,
        [sys.executable],
        ["fork", "pool", "3"],
        PLANE=plane.address,
        GRPC_ENABLE_FORK_SUPPORT=fork_support,
    )
    assert len(took) == 3
    for seconds in took:
        soon(float(seconds), 2.0, "the first call of a child")


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_meshlib_run_join_too(plane, tmp_path, method):
    """``reviews`` is a name that only the control plane knows: who is not in the mesh cannot call it."""
    command = [sys.executable, "-m", "meshlib", "run", "--", sys.executable]
    _, said = run(tmp_path, PLAIN, command, [method], MESHLIB_XDS_SERVER=plane.address)
    assert not said


@pytest.mark.parametrize("number", [0, 1])
def test_what_the_page_shows(tmp_path, number):
    page = (ROOT / "docs" / "tasks" / "multiprocessing.md").read_text()
    program = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[number]
    host = build.virtual_host("stock", build.route("/", cluster="c1"), domains=["stock"])
    with (
        Upstream("u") as upstream,
        ControlPlane(
            build.api_listener("stock", build.route_config("r", host)),
            build.cluster("c1"),
            build.endpoints("c1", upstream.address),
        ) as plane,
    ):
        program = program.replace("print(", "print('done'); found = (")
        _, said = run(tmp_path, program, [sys.executable], [], MESHLIB_XDS_SERVER=plane.address)
        assert not said
        assert upstream.requests_total == 8
