"""A fork in every state that grpc is known to take badly, with each setting of its support for forks.

A cell is a process of its own (``tests/support/fork_program.py``). In each, both sides go on calling at once, the child from
what its parent knew, over sockets and a stream of its own; and both end.

What is not here because nobody can save it: a child of a fork without Python's hooks while other threads of the program run
(Python's own locks stay held), and one outside uWSGI with a stream open (grpc crashes).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from meshlib.testing import ControlPlane, Upstream, build
from tests.support.late import again_if_late, soon

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "support" / "fork_program.py"

#: ``GRPC_ENABLE_FORK_SUPPORT``.
COLUMNS = ("unset", "0", "1")
ROWS = ("imported", "called", "busy", "threads", "first_calls", "closed", "hook")
#: Without Python's hooks, as uWSGI forks.
IN_C = ("called", "closed")
OWN = ("own_idle", "own_stream", "own_threads")
#: In these the child has something to start from.
WARM = ("called", "busy", "threads", "hook", *OWN)

Cell = tuple[str, str, str, bool]
CELLS: list[Cell] = [
    *((row, column, "os", False) for row in ROWS for column in COLUMNS),
    *((row, column, "uwsgi", False) for row in IN_C for column in COLUMNS),
    *((row, column, "os", False) for row in OWN for column in COLUMNS),
    *(("own_threads", column, "os", True) for column in COLUMNS),
]


def resources(address):
    host = build.virtual_host("reviews", build.route("/", cluster="c1"), domains=["reviews"])
    return (
        build.api_listener("reviews", build.route_config("r", host)),
        build.cluster("c1"),
        build.endpoints("c1", address),
    )


def environment(column="unset", **more):
    found = {key: value for key, value in os.environ.items() if not key.startswith(("GRPC_", "MESHLIB_"))}
    if column != "unset":
        found["GRPC_ENABLE_FORK_SUPPORT"] = column
    return {**found, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")]), **more}


@pytest.fixture(scope="module")
def upstream():
    with Upstream("u") as server:
        yield server


@pytest.fixture(scope="module")
def plane(upstream):
    with ControlPlane(*resources(upstream.address)) as running:
        yield running


@pytest.fixture(scope="module")
def busy_plane(upstream):
    """One that pushes all it has, fifty times a second."""
    with ControlPlane(*resources(upstream.address)) as running:
        stop = threading.Event()

        def push():
            while not stop.wait(0.02):
                running.push()

        thread = threading.Thread(target=push)
        thread.start()
        yield running
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def table(plane, busy_plane, upstream, request):
    """Of a cell what it said. Every one that is to be looked at is begun: most of their time they wait. Asked again it is run again."""
    wanted = [item.callspec.params["cell"] for item in request.session.items if "cell" in _params(item)]

    def work(cell):
        row, column, how, static = cell
        order = {
            "row": row,
            "how": how,
            "static": static,
            "times": 2 if row in ("threads", "first_calls", "closed") else 1,
            "plane": (busy_plane if row == "busy" else plane).address,
            "upstream": upstream.address,
            "hangs": 4.0 if row == "own_threads" else 20.0,
        }
        return subprocess.run(
            [sys.executable, str(PROGRAM), json.dumps(order)],
            capture_output=True,
            text=True,
            timeout=150,
            env=environment(column),
            check=False,
        )

    pool = ThreadPoolExecutor(4)
    futures: dict[Cell, Future[subprocess.CompletedProcess[str]]] = {
        cell: pool.submit(work, cell) for cell in wanted
    }
    yield lambda cell: (futures.pop(cell, None) or pool.submit(work, cell)).result()
    pool.shutdown(cancel_futures=True)


def _params(item):
    return getattr(getattr(item, "callspec", None), "params", {})


def name(cell):
    row, column, how, static = cell
    return "-".join([row, column, how, *(["static"] if static else [])])


@pytest.mark.timeout(480)  # the cells stand in a queue, and the first waits
@pytest.mark.parametrize("cell", CELLS, ids=name)
@again_if_late
def test_both_sides_of_a_fork_go_on(table, cell):
    row, column, how, static = cell
    done = table(cell)
    assert done.returncode == 0, done.stderr
    *forks, end = [json.loads(line) for line in done.stdout.splitlines()]
    for fork in forks:
        assert "parent_error" not in fork, (fork, done.stderr)
        if row == "own_threads" and "error" in fork:
            # Threads that are in calls at the fork: grpc itself hangs in the child, inside fork, or crashes it.
            assert fork["error"] in ("hangs in fork itself", "died in fork itself"), (fork, done.stderr)
            continue
        assert "error" not in fork, (fork, done.stderr)
        assert fork["status"] == 0
        assert fork["exit"] < 8
        if row == "hook":
            assert fork["left"] == []
        if row in OWN and column == "0" and not static:
            assert "GRPC_ENABLE_FORK_SUPPORT" in fork["refused"], "the child would have crashed"
        elif not static:
            assert fork["stream"] < 16
    warned = done.stderr.count("ran before fork")
    # In first calls the fork may come before the stream.
    lines = {0} if static or row in ("imported", "closed") else {0, 1} if row == "first_calls" else {1}
    assert warned in lines, done.stderr
    if warned:
        line = next(line for line in done.stderr.splitlines() if "ran before fork" in line)
        assert "meshlib" in line
        assert how != "uwsgi" or "lazy-apps" in line
    all_in_time(row, forks, end)


def all_in_time(row, forks, end):
    for fork in forks:
        soon(fork["parent"], 5.0, "the parent was kept")
        # In first calls a fork waits for the modules that they load.
        soon(fork["fork"], 10.0 if row == "first_calls" else 3.0, "the fork")
        if row in WARM and "error" not in fork:
            soon(fork["first"], 1.5, "the first call waited")
    soon(end["closed"], 1.5, "the close")


# --- what else there may be at a fork -----------------------------------------------------------------------------------

COMMON = """
import os, queue, sys, threading, time
last = []  # run just before a fork, after meshlib's own hooks
os.register_at_fork(before=lambda: [step() for step in last])
import meshlib
from tests.support.fork_program import reap, streams
from tests.support.watch import until
mesh = meshlib.Mesh({"xds": {"server": sys.argv[1]}})
client = meshlib.Client(mesh=mesh, timeout=10)

def call(using=client):
    response = using.get("http://reviews/x")
    assert response.status_code == 200 and meshlib.call_info(response).via == "mesh"

def in_child(work, code=0):
    try:
        work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        code = 1
    os._exit(code)

def ended_well(pid):
    seconds, status = reap(pid, 20)
    assert status == 0, (pid, status)
"""


def run(script, *arguments, **variables):
    """What a program printed; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", COMMON + textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment(**variables),
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_locks_that_other_threads_hold_at_the_fork(plane, tmp_path):
    """Logging's, the import's of another module, and every one of ours that a call may need. They are taken when the hooks
    are over, just before the fork, and nobody gives them back in the child.
    """
    tmp_path.joinpath("slow.py").write_text("import go\ngo.inside.set()\ngo.on.wait()\n")
    tmp_path.joinpath("go.py").write_text(
        "import threading\ninside, on = threading.Event(), threading.Event()\n"
    )
    out, _ = run(
        """
        import logging
        sys.path.insert(0, sys.argv[2])
        import go
        from meshlib import patched
        from meshlib.hosts.tls import _here as demands
        from meshlib.runtime import pybreaker_bridge
        from meshlib.runtime.tls.contexts import _here as contexts
        from meshlib.runtime.tls.watch import _here as watches
        call()
        runtime, caller = mesh._runtime(), client._transport._caller
        pools = caller._mine[1]._endpoints._pools
        handler = logging.StreamHandler()
        logging.getLogger("meshlib").addHandler(handler)
        locks = [
            runtime._lock, runtime.interest._lock, runtime.store._lock, runtime.clusters._lock, runtime.worker._turn,
            runtime.clusters.get("xds", "c1")._lock, caller._making.get(), pools._lock, pools.all()[0]._lock,
            patched._lock, pybreaker_bridge._memory.get(), meshlib.mesh._default_lock.get(),
            *(each.get().lock for each in (demands, contexts, watches)),
            meshlib.mesh._workers._state.get().lock, handler.lock,
        ]
        held, over = threading.Barrier(len(locks) + 1), threading.Event()

        def hold(lock):
            with lock:
                held.wait(10)
                over.wait(30)

        def others():
            last.clear()
            threads = [threading.Thread(target=hold, args=(lock,), daemon=True) for lock in locks]
            threads.append(threading.Thread(target=lambda: __import__("slow"), daemon=True))
            for thread in threads:
                thread.start()
            held.wait(10)
            assert go.inside.wait(10)

        last.append(others)
        pid = os.fork()
        if not pid:
            def work():
                call()
                mesh.status(), patched.names(), meshlib.mesh.default()
                logging.getLogger("meshlib").warning("a line")
                client.close()
                mesh.close()
            in_child(work)
        assert not last
        over.set(), go.on.set()
        ended_well(pid)
        call()
        print("both")
        """,
        plane.address,
        str(tmp_path),
    )
    assert out == ["both"]


def test_connections_that_go_past_the_mesh_are_not_shared_either(plane, meshlib_upstream):
    """A connection that both sides write on mixes their answers up."""
    alone = meshlib_upstream("alone")  # that a process of before comes to the other one late is not counted
    out, _ = run(
        """
        def direct():
            response = client.get(f"http://{sys.argv[2]}/x")
            assert meshlib.call_info(response).via == "direct"
            return os.fstat(response.extensions["network_stream"].get_extra_info("socket").fileno()).st_ino
        mine = direct()
        assert direct() == mine
        pid = os.fork()
        if not pid:
            def work():
                assert direct() != mine
                client.close()
            in_child(work)
        ended_well(pid)
        assert direct() == mine
        print("both")
        """,
        plane.address,
        alone.address,
    )
    assert out == ["both"]
    assert alone.connections_total == 2


def test_twenty_children_at_once_and_their_children(plane):
    out, err = run(
        """
        call()
        children = []
        for number in range(20):
            pid = os.fork()
            if not pid:
                def work():
                    call()
                    if number % 5 == 0:
                        until(mesh, lambda: streams(mesh), 15)
                        grandchild = os.fork()
                        if not grandchild:
                            def more():
                                call()
                                until(mesh, lambda: streams(mesh), 15)
                            in_child(more)
                        call()
                        ended_well(grandchild)
                in_child(work)
            children.append(pid)
        call()
        for pid in children:
            ended_well(pid)
        mesh.close()
        print("all")
        """,
        plane.address,
    )
    assert out == ["all"]
    assert err.count("ran before fork") == 1, err


@pytest.mark.parametrize("where", ["hook", "observer", "worker"])
def test_a_fork_inside_a_callback(plane, where):
    """In the middle of a call, in an observer of calls, and on the thread that runs the sources."""
    out, _ = run(
        """
        call()
        once, pids = [True], queue.SimpleQueue()

        def fork(*_):
            if not once:
                return
            once.clear()
            pid = os.fork()
            if not pid:
                def work():
                    with meshlib.Client(mesh=mesh, timeout=10) as fresh:
                        call(fresh)
                    call()
                in_child(work)
            pids.put(pid)

        if sys.argv[2] == "hook":
            client.event_hooks = {"response": [fork]}
        elif sys.argv[2] == "observer":
            mesh._observe(fork)
        else:
            mesh._runtime().worker.post(fork)
        call()
        ended_well(pids.get(timeout=10))
        call()
        until(mesh, lambda: streams(mesh), 15)
        mesh.close()
        print("both")
        """,
        plane.address,
        where,
    )
    assert out == ["both"]


def test_a_fork_in_a_program_of_asyncio(plane):
    out, _ = run(
        """
        import asyncio
        shared = meshlib.AsyncClient(mesh=mesh, timeout=10)

        async def calls(count):
            answers = await asyncio.gather(*(shared.get("http://reviews/x") for _ in range(count)))
            assert {answer.status_code for answer in answers} == {200}

        async def parent():
            await calls(10)
            pending = [asyncio.create_task(calls(5)) for _ in range(4)]
            await asyncio.sleep(0)
            pid = os.fork()
            if not pid:
                # A running loop cannot be shared, nor run in the child: a loop of its own, in a thread that has none.
                thread = threading.Thread(target=lambda: in_child(lambda: asyncio.run(calls(10))))
                thread.start()
                thread.join()
            await asyncio.gather(*pending)
            await calls(10)
            await asyncio.to_thread(ended_well, pid)

        asyncio.run(parent())
        print("both")
        """,
        plane.address,
    )
    assert out == ["both"]


def test_a_subprocess_disturbs_nothing(upstream):
    """vfork and posix_spawn: no hook runs, no stream is closed, nothing is said."""
    # Streams that processes of before have begun may come late: here are none.
    with ControlPlane(*resources(upstream.address)) as plane:
        out, err = run(
            """
            import subprocess
            call()
            until(mesh, lambda: any(part.listed for part in mesh.snapshot().parts), 15)  # by the other view's stream
            assert streams(mesh)
            worker = mesh._runtime().worker
            for _ in range(5):
                assert subprocess.run([sys.executable, "-S", "-c", "pass"], close_fds=True).returncode == 0
                pid = os.posix_spawn("/bin/true", ["true"], os.environ)
                assert os.waitpid(pid, 0)[1] == 0
            assert worker.running and streams(mesh)
            call()
            mesh.close()
            print("done")
            """,
            plane.address,
        )
        assert out == ["done"]
        assert plane.opened == 2, "one stream a view, and no other"
    assert "fork" not in err


def test_a_child_starts_warm_while_the_control_plane_is_away(upstream):
    with ControlPlane(*resources(upstream.address)) as plane:
        stop = threading.Event()
        ready_read, ready_write = os.pipe()
        go_read, go_write = os.pipe()

        def kill():
            os.read(ready_read, 1)
            plane.kill()
            os.write(go_write, b"x")
            stop.set()

        thread = threading.Thread(target=kill)
        thread.start()
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                COMMON
                + textwrap.dedent(
                    """
                    call()
                    os.write(int(sys.argv[2]), b"x")
                    os.read(int(sys.argv[3]), 1)
                    pid = os.fork()
                    if not pid:
                        in_child(call)
                    ended_well(pid)
                    call()
                    """
                ),
                plane.address,
                str(ready_write),
                str(go_read),
            ],
            pass_fds=[ready_write, go_read],
            capture_output=True,
            text=True,
            timeout=50,
            env=environment(),
            check=False,
            cwd=ROOT,
        )
        os.write(ready_write, b"x")  # lets the thread go, should the program have failed before it did
        thread.join(10)
        for descriptor in (ready_read, ready_write, go_read, go_write):
            os.close(descriptor)
    assert stop.is_set()
    assert done.returncode == 0, done.stderr
