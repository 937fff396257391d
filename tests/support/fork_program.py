"""The program of the fork table's tests: it comes into a state, forks, and both sides say how they fared.

``python fork_program.py '{"row": …, "how": …, "times": 3, "plane": …, "upstream": …}'`` prints a line of JSON for each fork,
and one at its end. ``how`` is a key of ``FORKS``; ``static``: the service is in the configuration, there is no stream. It needs nothing of pytest, since every cell of the table is a process of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import logging
import os
import select
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.watch import until

__all__ = ["ROWS", "bare_fork", "main", "sockets_to"]

#: Seconds after which a side counts as hanging.
HANGS = 20.0


def bare_fork() -> int:
    """fork as a C program does it that knows nothing of Python's hooks (uWSGI): the caller keeps the GIL."""
    return int(ctypes.PyDLL(None).fork())


FORKS: dict[str, Callable[[], int]] = {"os": os.fork, "bare": bare_fork, "uwsgi": bare_fork}


def pose_as_uwsgi() -> None:
    """A process that has uWSGI's module is one of uWSGI's."""
    module = types.ModuleType("uwsgi")
    module.opt = {"enable-threads": True}  # type: ignore[attr-defined]
    sys.modules["uwsgi"] = module


# --- what a process has open ------------------------------------------------------------------------------------------


def inodes() -> set[int]:
    """The inodes of the sockets that this process has a descriptor of."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the directory's own descriptor
            target = str(entry.readlink())
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    return found


def sockets_to(port: int) -> set[int]:
    """The inodes of this process's established connections to ``port`` of this machine."""
    mine, found = inodes(), set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "01" and int(fields[2].rpartition(":")[2], 16) == port and int(fields[9]) in mine:
                found.add(int(fields[9]))
    return found


# --- what both sides do -----------------------------------------------------------------------------------------------


def streams(mesh: Any) -> bool:
    return any(source.kind == "xds" and source.state == "ready" for source in mesh.status().sources)


class Site:
    """An application: a mesh, a client of it, and whatever else the row wants to be there at the fork."""

    def __init__(self, order: dict[str, Any]) -> None:
        import meshlib

        self.order = order
        self.meshlib = meshlib
        self.plane = int(order["plane"].rpartition(":")[2])
        self.config: dict[str, Any] = {"xds": {"server": order["plane"]}}
        self.static = bool(order.get("static"))
        if self.static:
            self.config = {"services": {"reviews": {"endpoints": [order["upstream"]]}}}
        self.threads: list[threading.Thread] = []
        self.stop = threading.Event()
        self.keep: list[Any] = []
        self.last: Last | None = None
        self.renew()

    def renew(self) -> None:
        self.mesh = self.meshlib.Mesh(self.config)
        self.client = self.meshlib.Client(mesh=self.mesh, timeout=10)

    def call(self) -> int:
        """One call through the mesh: the inode of the socket that it went over."""
        response = self.client.get("http://reviews/x")
        info = self.meshlib.call_info(response)
        assert response.status_code == 200, response
        assert info.via == "mesh", info
        sock = response.extensions["network_stream"].get_extra_info("socket")
        return os.fstat(sock.fileno()).st_ino

    def plane_sockets(self) -> set[int]:
        return sockets_to(self.plane)

    def connected(self) -> None:
        if not self.static:
            until(self.mesh, lambda: streams(self.mesh), 15)

    def quiet(self) -> None:
        """End the threads of ``loop``."""
        self.stop.set()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread of the parent hangs"
        self.threads.clear()
        self.stop.clear()

    def loop(self, work: Callable[[], object], count: int = 4) -> None:
        """``count`` threads that do ``work`` again and again."""

        def run() -> None:
            while not self.stop.is_set():
                with contextlib.suppress(Exception):
                    work()

        for _ in range(count):
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            self.threads.append(thread)


# --- the rows: how a parent comes into the state ----------------------------------------------------------------------


def imported(site: Site) -> None:
    """Imported, a Mesh and a client made; nothing used."""
    import grpc  # noqa: F401


def called(site: Site) -> None:
    """A call was made, and the stream is idle."""
    site.call()
    site.connected()


def busy(site: Site) -> None:
    """The stream is open, and resources come over it all the time (the test pushes them)."""
    called(site)


def threads(site: Site) -> None:
    """Four threads are in calls."""
    called(site)
    if not site.threads:
        site.loop(site.call)


def first_calls(site: Site) -> None:
    """Four threads are in the first calls of a mesh, which connects."""
    site.quiet()
    site.renew()
    site.loop(site.call)


def closed(site: Site) -> None:
    """The mesh was closed just before; whoever goes on makes another."""
    called(site)
    site.mesh.close()


def hook(site: Site) -> None:
    """As ``called``; the fork's own hook closes the stream, and a hook that runs after it sees what is left of grpc."""
    called(site)
    assert site.plane_sockets()


def grpc_threads() -> list[str]:
    names = [comm.read_text().strip() for comm in Path("/proc/self/task").glob("*/comm")]
    return [
        name for name in names if name.startswith(("event_engine", "grpc_", "timer_manager", "lifeguard"))
    ]


class Last:
    """A hook that was registered before meshlib's, so that it runs after them: what it found just before a fork."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.port = int(order["plane"].rpartition(":")[2])
        self.found: list[str] = []
        os.register_at_fork(before=self.look)

    def look(self) -> None:
        self.found = [*grpc_threads(), *map(str, sockets_to(self.port))]


def _stub(site: Site) -> Any:
    import grpc

    channel = grpc.insecure_channel(site.order["plane"])
    site.keep.append(channel)
    return channel.unary_unary("/nobody/Knows", None, None)


def _unary(stub: Any) -> None:
    import grpc

    with contextlib.suppress(grpc.RpcError):
        stub(b"", timeout=5)


def own_idle(site: Site) -> None:
    """The application has a channel of its own, and one call made."""
    called(site)
    if not site.keep:
        _unary(_stub(site))


def own_stream(site: Site) -> None:
    """The application has a two-way stream of its own open."""
    called(site)
    if not site.keep:
        import grpc

        channel = grpc.insecure_channel(site.order["plane"])
        requests: Iterator[bytes] = iter(threading.Event().wait, True)  # type: ignore[assignment]
        method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
        call = channel.stream_stream(method, None, None)(requests)
        site.keep.extend([channel, call])
        grpc.channel_ready_future(channel).result(10)


def own_threads(site: Site) -> None:
    """Four threads of the application are in unary calls on a channel of its own."""
    called(site)
    if not site.keep:
        stub = _stub(site)
        site.loop(lambda: _unary(stub))


ROWS: dict[str, Callable[[Site], None]] = {
    row.__name__: row
    for row in (
        imported,
        called,
        busy,
        threads,
        first_calls,
        closed,
        hook,
        own_idle,
        own_stream,
        own_threads,
    )
}


# --- the fork ---------------------------------------------------------------------------------------------------------


def child_side(site: Site, parents: set[int], report: dict[str, Any]) -> None:
    """What a child does. Raises what went wrong."""
    began = time.monotonic()
    if site.mesh.closed:
        site.renew()
    used = site.call()
    report["first"] = time.monotonic() - began
    assert used not in parents, "a call went over a socket of the parent's"
    assert site.mesh.status().process.pid == os.getpid()
    for _ in range(3):
        assert site.call() not in parents
    if not site.static:
        own_stream_comes(site, parents, report, began)
    gc.collect()
    site.call()


def own_stream_comes(site: Site, parents: set[int], report: dict[str, Any], began: float) -> None:
    """A stream on a connection of its own, or the words that there is none."""

    def error() -> str:
        return next(source.last_error for source in site.mesh.status().sources if source.kind == "xds")

    until(site.mesh, lambda: streams(site.mesh) or "FORK_SUPPORT" in error(), 15)
    if streams(site.mesh):
        report["stream"] = time.monotonic() - began
        assert sockets_to(site.plane) - parents, "no connection of its own to the control plane"
    else:
        report["refused"] = error()


def run_child(site: Site, parents: set[int], write: int, *, clean: bool) -> None:
    os.write(write, b"\n")  # it came out of fork, and runs
    report: dict[str, Any] = {}
    try:
        child_side(site, parents, report)
    except BaseException as error:  # noqa: BLE001 - told to the parent
        report["error"] = f"{type(error).__name__}: {error}"
    os.write(write, json.dumps(report).encode() + b"\n")
    if not clean:
        os._exit(0)
    # A child that ends as a program does: handlers, finalizers, the interpreter's end.
    sys.exit(0)


def read_report(read: int, seconds: float) -> dict[str, Any]:
    """What the child says: it has ``seconds`` to come out of fork, and then HANGS."""
    data, end = b"", time.monotonic() + seconds
    while data.count(b"\n") < 2:
        where = "after the fork" if data else "in fork itself"
        ready, _, _ = select.select([read], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return {"error": f"hangs {where}"}
        more = os.read(read, 65536)
        if not more:
            return {"error": f"died {where}"}
        if not data:
            end = time.monotonic() + HANGS
        data += more
    found: dict[str, Any] = json.loads(data)
    return found


def reap(pid: int, seconds: float) -> tuple[float, int | None]:
    """Seconds until the child ended and its status; None: it had to be killed, and said where it was on stderr."""
    began, child = time.monotonic(), os.pidfd_open(pid)
    try:
        if select.select([child], [], [], seconds)[0]:
            return time.monotonic() - began, os.waitpid(pid, 0)[1]
        os.kill(pid, signal.SIGUSR1)
        if not select.select([child], [], [], 5.0)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(child)
    os.waitpid(pid, 0)
    return time.monotonic() - began, None


def one_fork(site: Site, number: int) -> dict[str, Any]:
    ROWS[site.order["row"]](site)
    parents = inodes()
    read, write = os.pipe()
    began = time.monotonic()
    pid = FORKS[site.order["how"]]()
    if not pid:
        os.close(read)
        run_child(site, parents, write, clean=number % 2 == 0)
    took = time.monotonic() - began
    os.close(write)
    result: dict[str, Any] = {"fork": took, "left": site.last.found if site.last else []}
    began = time.monotonic()
    try:
        if site.mesh.closed:
            site.renew()
        for _ in range(3):
            site.call()
        result["parent"] = time.monotonic() - began
        site.connected()
    except Exception as error:  # noqa: BLE001 - told to the test
        result["parent_error"] = f"{type(error).__name__}: {error}"
    result.update(read_report(read, site.order.get("hangs", HANGS)))
    hung = result.get("error", "").startswith("hangs")
    seconds, status = reap(pid, 1.0 if hung else HANGS)
    if status is None and not hung:
        result["error"] = "hangs at its end"
    result["exit"], result["status"] = seconds, status
    os.close(read)
    return result


def main() -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=True)  # says where it is, and ends
    order = json.loads(sys.argv[1])
    if order["how"] == "uwsgi":
        pose_as_uwsgi()
    logging.basicConfig(format="%(process)d %(name)s %(message)s")
    last = Last(order)
    site = Site(order)
    site.last = last
    for number in range(order["times"]):
        print(json.dumps(one_fork(site, number)), flush=True)
    site.quiet()
    began = time.monotonic()
    site.mesh.close()
    print(json.dumps({"closed": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
