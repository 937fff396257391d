"""A channel of the mesh that was made and used before a fork: it works in the child, and goes on in the parent.

grpc survives a fork in no setting of its support for forks with a channel that is in use; ours are closed just before, where no call
uses them. Each cell is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from meshlib.testing import ControlPlane, build
from tests.support.certificates import Authority
from tests.support.grpc_echo import EchoServer
from tests.support.grpc_tls import CLIENT, SERVER
from tests.support.late import again_if_late, soon

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).resolve().parents[2]
#: ``GRPC_ENABLE_FORK_SUPPORT``.
COLUMNS = ("unset", "0", "1")

COMMON = """
import asyncio, contextlib, json, os, sys, threading, time
import grpc, meshlib, meshlib.grpc, meshlib.grpc.aio
from pathlib import Path
from tests.support.fork_program import reap

ORDER = json.loads(sys.argv[1])
mesh = meshlib.Mesh(ORDER["config"])
target = ORDER["target"]
UNARY, STREAM = "/echo.Echo/unary_unary", "/echo.Echo/stream_stream"

def children(work, count=3):
    \"\"\"One after another: each is forked, while the parent goes on. Prints what each fork took.\"\"\"
    forks = []
    for _ in range(count):
        work()
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            try:
                for _ in range(3):
                    work()
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        forks.append(time.monotonic() - began)
        for _ in range(3):
            work()
        seconds, status = reap(pid, 15)
        assert status == 0, (status, seconds)
    print(json.dumps(forks))

"""

BLOCKING = """
channel = meshlib.grpc.channel(target, mesh=mesh)
unary = channel.unary_unary(UNARY)

def work():
    value, call = unary.with_call(b"", timeout=10)
    assert meshlib.call_info(call).via == ORDER["via"], meshlib.call_info(call)
    assert unary.future(b"", timeout=10).result() == value
    assert list(channel.stream_stream(STREAM)(iter([b"1", b"2"]), timeout=10)) == [value] * 2
    assert unary(b"", timeout=10) == value

"""
ASYNCIO = """
channel = meshlib.grpc.aio.channel(target, mesh=mesh)
unary = channel.unary_unary(UNARY)

async def once():
    call = unary(b"", timeout=10)
    value = await call
    assert meshlib.call_info(call).via == ORDER["via"], meshlib.call_info(call)
    assert [m async for m in channel.stream_stream(STREAM)(iter([b"1", b"2"]), timeout=10)] == [value] * 2

"""
FACES = {
    "blocking": BLOCKING + "children(work)",
    # The one loop is of parent and child; between its runs nothing goes on in it.
    "one-loop": ASYNCIO
    + "loop = asyncio.new_event_loop()\nchildren(lambda: loop.run_until_complete(once()))",
    "a-loop-a-call": ASYNCIO + "children(lambda: asyncio.run(once()))",
}


def program(lines: str, order: dict[str, object], column: str = "unset") -> str:
    """What it printed; it must end well."""
    found = {key: value for key, value in os.environ.items() if not key.startswith(("GRPC_", "MESHLIB_"))}
    if column != "unset":
        found["GRPC_ENABLE_FORK_SUPPORT"] = column
    found["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
    done = subprocess.run(
        [sys.executable, "-c", COMMON + lines, json.dumps(order)],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env=found,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@again_if_late
def forked(lines: str, order: dict[str, object], column: str = "unset") -> None:
    """A program that has ``children``: no fork takes long."""
    soon(max(json.loads(program(lines, order, column))), 3.0, "a fork")


@pytest.fixture(scope="module")
def server() -> Iterator[EchoServer]:
    with EchoServer("a") as server:
        yield server


@pytest.fixture(scope="module")
def static(server: EchoServer) -> dict[str, object]:
    config = {"services": {"reviews": {"endpoints": [server.address]}}}
    return {"config": config, "target": "reviews", "via": "mesh"}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """A service whose server demands TLS, and a certificate of its clients."""
    authority, folder = Authority(), tmp_path_factory.mktemp("tls")
    mine, its = authority.issue(CLIENT), authority.issue(SERVER)
    files = {"ca": authority.pem, "cert": mine.chain_pem, "key": mine.key_pem}
    for name, pem in files.items():
        (folder / name).write_bytes(pem)
    tls = {name: str(folder / name) for name in files} | {"sans": [SERVER]}
    demands = grpc.ssl_server_credentials(
        [(its.key_pem, its.chain_pem)], authority.pem, require_client_auth=True
    )
    with EchoServer("a", credentials=demands) as server:
        config = {"services": {"reviews": {"endpoints": [server.address], "tls": tls}}}
        yield {"config": config, "target": "reviews", "via": "mesh"}


@pytest.fixture(scope="module")
def plane(server: EchoServer) -> Iterator[dict[str, object]]:
    routes = build.route_config("r", build.virtual_host("h", build.route(cluster="c")))
    resources = (
        build.api_listener("reviews", routes),
        build.cluster("c"),
        build.endpoints("c", server.address),
    )
    with ControlPlane(*resources) as running:
        yield {"config": {"xds": {"server": running.address}}, "target": "reviews", "via": "mesh"}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("face", FACES)
class TestBothSidesGoOn:
    def test_with_services_of_the_configuration(
        self, static: dict[str, object], face: str, column: str
    ) -> None:
        forked(FACES[face], static, column)

    def test_with_a_stream_to_a_control_plane(self, plane: dict[str, object], face: str, column: str) -> None:
        forked(FACES[face], plane, column)

    def test_over_TLS_of_the_mesh(self, secured: dict[str, object], face: str, column: str) -> None:
        forked(FACES[face], secured, column)

    def test_with_a_target_that_the_mesh_does_not_know(
        self, static: dict[str, object], server: EchoServer, face: str, column: str
    ) -> None:
        forked(FACES[face], {**static, "target": server.address, "via": "direct"}, column)


def test_what_the_collector_has_not_seen_of_asyncio_is_gone_before(static: dict[str, object]) -> None:
    """grpc waits for ever, in the child, for a thread that it does not have, once the last of the parent's channels is collected there."""
    forked(
        ASYNCIO
        + textwrap.dedent("""
        import gc
        gc.disable()

        async def leave():
            left = [grpc.aio.insecure_channel("127.0.0.1:1")]
            left.append(left)

        def work():
            asyncio.run(once())
            asyncio.run(leave())
            gc.collect(0) if os.getpid() != parent else None

        parent = os.getpid()
        children(work)
        """),
        static,
        "0",
    )


@pytest.mark.parametrize("over", ["static", "secured"])
def test_a_call_under_way_is_left_alone(request: pytest.FixtureRequest, over: str) -> None:
    """The parent's stream goes on over the connection that it has, and the child has a connection of its own."""
    told = program(
        BLOCKING
        + textwrap.dedent("""
        messages, more = [b"1"], threading.Semaphore(1)
        more = threading.Semaphore(1)

        def outgoing():
            for number in range(3):
                more.acquire()
                yield b"%d" % number
        stream = channel.stream_stream(STREAM)(outgoing(), timeout=30)
        assert next(stream) == b"a"
        pid = os.fork()
        if not pid:
            try:
                work()
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        seconds, status = reap(pid, 15)
        more.release(), more.release()
        print(status, *stream, stream.code().name)
        """),
        request.getfixturevalue(over),
    )
    assert told == "0 b'a' b'a' OK\n"


@pytest.mark.parametrize("target", ["reviews", "direct", "secured"])
def test_calls_under_way_are_not_broken_off(
    static: dict[str, object], secured: dict[str, object], server: EchoServer, target: str
) -> None:
    """Four threads are in unary calls while the process forks: none of theirs is broken off."""
    direct = {**static, "target": server.address, "via": "direct"}
    order = {"reviews": static, "direct": direct, "secured": secured}[target]
    told = program(
        BLOCKING
        + textwrap.dedent("""
        over, failed, made, begun = threading.Event(), [], [], threading.Semaphore(0)

        def calls():
            while not over.is_set():
                try:
                    made.append(unary(b"", timeout=10))
                    begun.release()
                except Exception as error:
                    failed.append(repr(error))

        threads = [threading.Thread(target=calls) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            assert begun.acquire(timeout=10)
        for _ in range(5):
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
        over.set()
        for thread in threads:
            thread.join(15)
        print(failed, all(value == b"a" for value in made))
        """),
        order,
    )
    assert told == "[] True\n"


def test_children_of_multiprocessing(static: dict[str, object]) -> None:
    told = program(
        BLOCKING
        + textwrap.dedent("""
        import multiprocessing

        def ask(number):
            return unary(b"", timeout=10).decode()

        work()
        with multiprocessing.get_context("fork").Pool(3) as pool:
            print(*pool.map(ask, range(9), chunksize=1))
        work()
        """),
        static,
    )
    assert told == " ".join(["a"] * 9) + "\n"


def test_a_child_has_nothing_of_its_parent_s_tunnels(secured: dict[str, object]) -> None:
    """One that a call uses goes on in the parent; the child keeps no descriptor of it, and removes no file of the parent's."""
    told = program(
        BLOCKING
        + textwrap.dedent("""
        from tests.support.grpc_tls import tunnels

        more = threading.Semaphore(1)

        def outgoing():
            for number in range(2):
                more.acquire()
                yield b"%d" % number
        stream = channel.stream_stream(STREAM)(outgoing(), timeout=30)
        assert next(stream) == b"a"
        parents = tunnels()
        assert parents.sockets and parents.threads, parents
        assert all(Path(path).exists() for path in parents.sockets)
        pid = os.fork()
        if not pid:
            try:
                assert not tunnels().sockets, tunnels()
                work()
                assert not parents.sockets & tunnels().sockets, tunnels()
                channel.close()
                mesh.close()
                tunnels().join()
                assert not tunnels().sockets, tunnels()
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        seconds, status = reap(pid, 15)
        assert all(Path(path).exists() for path in parents.sockets)
        more.release()
        print(status, *stream, stream.code().name)
        channel.close()
        tunnels().join()
        print(sorted(tunnels().sockets), [path for path in parents.sockets if Path(path).parent.exists()])
        """),
        secured,
    )
    assert told == "0 b'a' OK\n[] []\n"


def test_before_a_fork_nothing_is_left_of_TLS(secured: dict[str, object]) -> None:
    told = program(
        textwrap.dedent("""
        import threading
        from tests.support.grpc_tls import tunnels
        last = []
        os.register_at_fork(before=lambda: last.append([t.name for t in threading.enumerate()]))
        """)
        + BLOCKING
        + textwrap.dedent("""
        work()
        print(len(tunnels().threads))
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        print(last)
        """),
        secured,
    )
    assert told.splitlines() == ["1", "[['MainThread']]"]


def test_before_a_fork_none_of_grpcs_threads_is_left(static: dict[str, object]) -> None:
    """It is what makes the fork safe; the hook of the program ran after meshlib's."""
    told = program(
        textwrap.dedent("""
        from tests.support.fork_program import grpc_threads
        last = []
        os.register_at_fork(before=lambda: last.append(grpc_threads()))
        """)
        + BLOCKING
        + textwrap.dedent("""
        work()
        print(bool(grpc_threads()))
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        print(last)
        """),
        static,
    )
    assert told.splitlines() == ["True", "[[]]"]
