"""Whatever interrupts a connection in the middle closes it and leaves no descriptor: cancelled tasks at each await, killed
greenlets, signals, deadlines on a virtual clock, a close from another thread.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from meshlib.pools.bounds import Bounds
from meshlib.testing.clock import VirtualClock
from meshlib.wire.dial import Place, connect
from meshlib.wire.dial_async import connect_async
from meshlib.wire.errors import ConnectTimeout, ReadTimeout, WireError
from tests.support.loops import on_both_loops
from tests.support.scripted import Peer, Scripted, bounds, get, post
from tests.unit.wire.test_dial import client_context, deaf, server_context

if TYPE_CHECKING:
    from collections.abc import Callable

MUCH = b"0123456789abcdef" * 1_048_576


def serve(peer: Peer) -> None:
    """Reads a body, and answers with two."""
    while peer.head():
        peer.take(500_000)
        peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        peer.say(b"5\r\nworld\r\n0\r\n\r\n")


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@on_both_loops
@pytest.mark.parametrize("secure", [False, True])
async def test_a_task_that_is_cancelled_at_each_await(secure: bool) -> None:
    ca = trustme.CA()
    tls = server_context(ca, "127.0.0.1") if secure else None
    with Scripted(serve, tls=tls) as server:
        place = Place("127.0.0.1", server.port, context=client_context(ca) if secure else None)
        made: list[Any] = []

        async def call() -> bytes:
            connection = await connect_async(place, bounds(connect=20.0))
            made.append(connection)
            response = await connection.send(post(b"x" * 500_000), bounds(read=20.0, write=20.0))
            return await response.aread()  # type: ignore[no-any-return]

        whole = 0
        for step in range(200):
            task = asyncio.ensure_future(call())
            await turns(step)
            task.cancel()
            try:
                assert await task == b"helloworld"
                whole += 1
                made[-1].close()
            except asyncio.CancelledError:
                assert all(connection.closed for connection in made)
            if whole > 3:
                break
        for connection in made:
            connection.close()
        await turns()
        transports = [one.stream._transport for one in made]
    assert all(transport.is_closing() for transport in transports)


@pytest.mark.parametrize("secure", [False, True])
def test_a_trio_task_that_is_cancelled_at_each_await(secure: bool) -> None:
    ca = trustme.CA()
    tls = server_context(ca, "127.0.0.1") if secure else None
    made: list[Any] = []
    answers: list[bytes] = []

    async def call(place: Place) -> None:
        connection = await connect_async(place, bounds(connect=20.0))
        made.append(connection)
        response = await connection.send(post(b"x" * 500_000), bounds(read=20.0, write=20.0))
        answers.append(await response.aread())
        connection.close()

    async def calls(place: Place) -> None:
        for step in range(200):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, place)
                for _ in range(step):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert all(connection.closed for connection in made)
            if len(answers) > 3:
                return

    before = descriptors()
    with Scripted(serve, tls=tls) as server:
        trio.run(calls, Place("127.0.0.1", server.port, context=client_context(ca) if secure else None))
    assert set(answers) <= {b"helloworld"}
    assert descriptors() == before


@on_both_loops
async def test_a_task_that_is_cancelled_while_it_connects() -> None:
    listener, waiting = deaf()
    before = descriptors()
    place = Place("127.0.0.1", listener.getsockname()[1])
    tasks = [asyncio.ensure_future(connect_async(place, bounds(connect=20.0))) for _ in range(5)]
    while descriptors() < before + 5:  # names are looked up in threads
        await turns()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await turns()
    assert descriptors() == before
    for one in (listener, *waiting):
        one.close()


@pytest.mark.parametrize("at", ["head", "body", "upload"])
def test_a_signal_closes_the_connection(at: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def stuck(peer: Peer) -> None:
        peer.head()
        if at == "body":
            peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        reached.set()
        done.wait(20)

    reached, done, answered = threading.Event(), threading.Event(), threading.Event()
    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with Scripted(stuck) as server:
            connection = connect(Place("127.0.0.1", server.port), bounds())

            def wake() -> None:
                (answered if at == "body" else reached).wait(20)
                until_waiting(connection.stream)
                signal.pthread_kill(main, signal.SIGUSR1)

            def call() -> None:
                response = connection.send(post(MUCH) if at == "upload" else get(), bounds())
                answered.set()
                response.read()

            thread = threading.Thread(target=wake)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                call()
            thread.join(20)
            assert connection.closed
            assert connection.stream._sock.fileno() == -1
            done.set()
    finally:
        signal.signal(signal.SIGUSR1, before)


def until_waiting(stream: Any) -> None:
    while not stream._waiting:
        os.sched_yield()


def test_another_thread_closes_a_connection_in_use() -> None:
    done = threading.Event()
    with Scripted(lambda peer: (peer.head(), done.wait(20))) as server:
        connection = connect(Place("127.0.0.1", server.port), bounds())
        seen: list[BaseException] = []

        def call() -> None:
            try:
                connection.send(get(), bounds())
            except WireError as error:
                seen.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        until_waiting(connection.stream)
        connection.close()
        thread.join(20)
        assert len(seen) == 1
        assert connection.stream._sock.fileno() == -1
        done.set()


def test_a_virtual_deadline_while_connecting() -> None:
    listener, waiting = deaf()
    clock = VirtualClock()
    own = Bounds(clock, clock.now() + 5.0)
    seen: list[BaseException] = []

    def dial() -> None:
        try:
            connect(Place("127.0.0.1", listener.getsockname()[1]), own)
        except ConnectTimeout as error:
            seen.append(error)

    before = descriptors()
    thread = threading.Thread(target=dial)
    thread.start()
    until(lambda: bool(clock.timers) and descriptors() == before + 1)
    clock.advance(6.0)
    thread.join(20)
    assert len(seen) == 1
    assert own.expired
    assert descriptors() == before
    for one in (listener, *waiting):
        one.close()


@on_both_loops
async def test_a_virtual_deadline_of_a_task() -> None:
    listener, waiting = deaf()
    clock = VirtualClock()
    own = Bounds(clock, clock.now() + 5.0)
    before = descriptors()
    dialling = asyncio.ensure_future(connect_async(Place("127.0.0.1", listener.getsockname()[1]), own))
    while descriptors() == before:
        await turns()
    clock.advance(6.0)
    with pytest.raises(ConnectTimeout):
        await dialling
    assert own.expired
    for one in (listener, *waiting):
        one.close()
    done = threading.Event()
    with Scripted(lambda peer: (peer.head(), done.wait(20))) as server:
        connection = await connect_async(Place("127.0.0.1", server.port), bounds())
        own = Bounds(clock, clock.now() + 5.0)
        sending = asyncio.ensure_future(connection.send(get(), own))
        await turns(10)
        clock.advance(6.0)
        with pytest.raises(ReadTimeout):
            await sending
        assert own.expired
        assert connection.closed
        done.set()


def until(holds: Callable[[], bool]) -> None:
    while not holds():
        os.sched_yield()


GEVENT = """
    import gevent.monkey
    gevent.monkey.patch_all()
    import os, socket, ssl, sys
    import gevent, gevent.event, trustme
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.clock import MonotonicClock
    from meshlib.wire.dial import Place, connect
    from meshlib.wire.errors import ConnectTimeout, ReadTimeout
    from meshlib.wire.message import Outgoing

    secure = sys.argv[1] == "tls"
    ca = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    ca.configure_trust(client_context)
    MUCH = b"x" * 3_000_000

    def bounds(**timeouts):
        return Bounds(MonotonicClock(), None, timeouts)

    def serve(sock):
        if secure:
            sock = server_context.wrap_socket(sock, server_side=True)
        stream = sock.makefile("rb")
        while line := stream.readline():
            length = 0
            while (header := stream.readline()) != b"\\r\\n":
                if header.lower().startswith(b"content-length:"):
                    length = int(header[15:])
            assert len(stream.read(length)) == length
            if b"/stuck" in line:
                stuck.set()
                gevent.event.Event().wait()
            body = MUCH if b"/much" in line else b"ok"
            sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))

    def accept():
        while True:
            gevent.spawn(serve, listener.accept()[0])

    def get(target, body=None):
        lines = [(b"Host", b"x")] + ([(b"Content-Length", b"%d" % len(body))] if body else [])
        return Outgoing(b"GET", target, lines, body)

    stuck = gevent.event.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    gevent.spawn(accept)
    place = Place("127.0.0.1", listener.getsockname()[1], context=client_context if secure else None)
    # The server is a greenlet of this very thread: whatever waits lets it run, or there would be no answer.
    connection = connect(place, bounds(connect=20.0))
    assert connection.send(get(b"/"), bounds(read=20.0)).read() == b"ok"
    assert connection.free()
    assert connection.send(get(b"/much", MUCH), bounds(read=20.0, write=20.0)).read() == MUCH
    assert connection.idle
    try:
        connection.send(get(b"/stuck"), bounds(read=0.05))
    except ReadTimeout:
        assert connection.closed
    else:
        raise AssertionError

    connection = connect(place, bounds(connect=20.0))
    stuck.clear()
    one = gevent.spawn(lambda: connection.send(get(b"/stuck"), bounds()))
    stuck.wait()
    one.kill()
    assert connection.closed
    assert connection.stream._sock.fileno() == -1

    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)
    full = []
    for _ in range(4):
        other = socket.socket()
        other.setblocking(False)
        other.connect_ex(deaf.getsockname())
        full.append(other)
    there = Place("127.0.0.1", deaf.getsockname()[1])
    before = len(os.listdir("/proc/self/fd"))
    one = gevent.spawn(lambda: connect(there, bounds()))
    gevent.sleep(0)
    gevent.sleep(0)
    one.kill()
    assert len(os.listdir("/proc/self/fd")) == before
    try:
        connect(there, bounds(connect=0.05))
    except ConnectTimeout:
        print("all well")
"""


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_under_gevent(kind: str) -> None:
    program = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GEVENT), kind],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert program.stdout == "all well\n", program.stderr
