"""Pools over real sockets and a server that answers lines: what TCP needs of a pool, and nothing of HTTP.

A connection of any kind is pooled by saying whether it is free, and how it closes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import socket
import threading
import weakref
from typing import Any

import pytest

from meshlib.pools import AsyncEndpointPool, EndpointPool, PoolSettings
from meshlib.runtime.worker import Worker
from tests.support.pool_kit import CLOCK, FakeLimits, attempt

PATIENCE = 20.0


class Server:
    """Answers each line with itself; ``connections`` are those that it has accepted. ``quit`` ends the connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = self._socket.getsockname()
        self.connections = 0
        self._ended = threading.Condition()
        self.open = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with self._ended:
                self.connections += 1
                self.open += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as lines:
            for line in lines:
                lines.write(line)
                lines.flush()
                if line == b"quit\n":
                    break
        with self._ended:
            self.open -= 1
            self._ended.notify_all()

    def until_open(self, count: int) -> None:
        with self._ended:
            assert self._ended.wait_for(lambda: self.open == count, PATIENCE), self.open

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def server():
    found = Server()
    yield found
    found.close()


class LineConnection:
    """One line at a time."""

    streams = 1

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.idle = True
        self.closed = False
        self.born = self.rested = 0.0

    def free(self) -> bool:
        return self.idle and not self.closed and not select.select([self.socket], [], [], 0)[0]

    def close(self) -> None:
        self.closed = True
        self.socket.close()

    def ask(self, line: bytes) -> bytes:
        self.idle = False
        self.socket.sendall(line)
        answer = self.socket.recv(1000)
        self.idle = True
        return answer


def lines(server: Server, **options: Any) -> EndpointPool[LineConnection]:
    def dial(bounds: Any) -> LineConnection:
        return LineConnection(socket.create_connection(server.address, bounds.left("connect")))

    return EndpointPool(
        dial, options.pop("limits", None), options.pop("settings", PoolSettings()), CLOCK, **options
    )


def test_calls_share_a_few_connections(server: Server) -> None:
    limits = FakeLimits(3)
    pool = lines(server, limits=limits)
    answers = []

    def call(number: int) -> None:
        for turn in range(50):
            connection = pool.acquire(attempt(pool=PATIENCE, connect=PATIENCE))
            line = f"{number} {turn}\n".encode()
            answers.append(connection.ask(line) == line)
            pool.release(connection)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == [True] * 500
    assert server.connections <= 3
    pool.close()
    server.until_open(0)
    assert limits.count == 0


def test_one_that_the_server_closed_is_not_used_again(server: Server) -> None:
    pool = lines(server)
    first = pool.acquire(attempt())
    first.ask(b"quit\n")
    server.until_open(0)
    assert select.select([first.socket], [], [], PATIENCE)[0], "its end has come"
    pool.release(first)
    second = pool.acquire(attempt())
    assert (first.closed, pool.open) == (True, 1)
    assert second.ask(b"hello\n") == b"hello\n"
    pool.release(second)
    pool.close()


def test_idle_ones_end_by_themselves(server: Server) -> None:
    worker = Worker(CLOCK)
    worker.start()
    pool = lines(server, settings=PoolSettings(keepalive=0.05), worker=worker)
    held = [pool.acquire(attempt()) for _ in range(20)]
    for connection in held:
        connection.ask(b"hello\n")
        pool.release(connection)
    server.until_open(0)
    assert pool.open == 0
    assert worker.stop(PATIENCE)


def test_the_socket_is_handed_out_for_another_protocol(server: Server) -> None:
    limits = FakeLimits(1)
    pool = lines(server, limits=limits)
    taken = pool.acquire(attempt())
    sock = taken.socket  # a tunnel now; it counts as long as it is open
    sock.sendall(b"anything\n")
    assert sock.recv(100) == b"anything\n"
    assert (pool.open, limits.count) == (1, 1)
    taken.close()
    pool.release(taken)
    assert (pool.open, limits.count) == (0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_closes_nothing_of_its_parents(server: Server) -> None:
    pool = lines(server)
    busy, idle = pool.acquire(attempt()), pool.acquire(attempt())
    pool.release(idle)
    child = os.fork()
    if not child:
        pool.abandon(busy)  # collected in the child
        pool.forget()
        os._exit(0 if not (busy.closed or idle.closed) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert busy.ask(b"hello\n") == b"hello\n"
    pool.release(busy)
    pool.close()


class LineProtocol(asyncio.Protocol):
    """The same over a transport of asyncio's."""

    streams = 1

    def __init__(self) -> None:
        self.idle = True
        self.closed = False
        self.born = self.rested = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed = True

    def data_received(self, data: bytes) -> None:
        self.answer.set_result(data)

    def free(self) -> bool:
        return self.idle and not self.closed

    def close(self) -> None:
        self.closed = True
        self.transport.abort()

    async def ask(self, line: bytes) -> bytes:
        self.idle = False
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(line)
        answer: bytes = await self.answer
        self.idle = True
        return answer


def lines_async(server: Server, **options: Any) -> AsyncEndpointPool[LineProtocol]:
    async def dial(bounds: Any) -> LineProtocol:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(bounds.left("connect")):
            _, protocol = await loop.create_connection(LineProtocol, *server.address)
        return protocol

    return AsyncEndpointPool(
        dial, options.pop("limits", None), options.pop("settings", PoolSettings()), CLOCK
    )


def test_tasks_share_a_few_connections_which_end_by_themselves(server: Server) -> None:
    async def main() -> None:
        limits = FakeLimits(3)
        pool = lines_async(server, limits=limits, settings=PoolSettings(keepalive=0.05))

        async def call(number: int) -> None:
            for turn in range(20):
                connection = await pool.acquire(attempt(pool=PATIENCE))
                line = f"{number} {turn}\n".encode()
                assert await connection.ask(line) == line
                pool.release(connection)

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(call(number))
        assert server.connections <= 3
        await asyncio.to_thread(server.until_open, 0)
        assert (pool.open, limits.count) == (0, 0)

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
def test_30_loops_that_end_leave_no_loop_and_no_descriptor(server: Server) -> None:
    """Nobody closes the pools: the worst case."""
    loops = []

    async def main() -> None:
        pool = lines_async(server, settings=PoolSettings(keepalive=3600.0))
        first, second = await pool.acquire(attempt()), await pool.acquire(attempt())
        for connection in (first, second):
            await connection.ask(b"hello\n")
            pool.release(connection)
        loops.append(weakref.ref(asyncio.get_running_loop()))

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None  # noqa: PTH112, PTH208
    for _ in range(30):
        asyncio.run(main())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 30
    server.until_open(0)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208
