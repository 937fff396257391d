"""The life of gRPC connections over the mesh's TLS: their states, material that changes under load, endpoints that leave, and that
nothing is left.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

import meshlib
import meshlib.grpc
import meshlib.grpc.aio
from meshlib.testing import VirtualClock
from tests.support.certificates import Authority, Issued
from tests.support.grpc_channels import FACES, SERVICE, Channel, Channels
from tests.support.grpc_tls import CLIENT, SERVER, Listener, Mesh, Witness, socket_of, tunnels, world
from tests.support.storm import Footprint

State = grpc.ChannelConnectivity


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with world() as made:
        yield made


@pytest.fixture(params=FACES)
def channel(request: pytest.FixtureRequest, mesh: Mesh) -> Iterator[Callable[..., Channel]]:
    """A function that makes channels of one kind to ``stock``. After the test nothing is left."""
    with Channels(request.param) as channels:
        yield lambda **options: channels.make(mesh.config, **options)
    nothing_is_left()


def nothing_is_left() -> None:
    tunnels().join()
    assert not tunnels().sockets


# --- states --------------------------------------------------------------------------------------------------------------


def test_a_channel_is_ready_once_the_endpoint_said_its_settings(
    mesh: Mesh, meshlib_grpc_upstream: Any
) -> None:
    """The handshake alone is none: a server may refuse a certificate behind it."""
    one = meshlib_grpc_upstream("v1", credentials=mesh.server())
    seen: list[State] = []
    changed = threading.Condition()

    def told(state: State) -> None:
        with changed:
            seen.append(state)
            changed.notify_all()

    def wait_for(state: State) -> None:
        with changed:
            assert changed.wait_for(lambda: state in seen, 20), seen

    with Listener(mesh.authority.issue(SERVER)) as silent:
        mesh.say(silent.address, connect_timeout="0.5s")
        with meshlib.Mesh(mesh.config) as here, meshlib.grpc.channel("stock", mesh=here) as made:
            made.subscribe(told, try_to_connect=True)
            wait_for(State.CONNECTING)
            silent.shook.get(timeout=20)
            assert State.READY not in seen
            mesh.say(one.address)
            wait_for(State.READY)
            assert made.unary_unary(SERVICE + "Get")(b"", timeout=20.0)
            one.stop()
            seen.clear()
            with pytest.raises(meshlib.MeshError):
                made.unary_unary(SERVICE + "Get")(b"", timeout=20.0)
            wait_for(State.TRANSIENT_FAILURE)
    nothing_is_left()


def test_a_call_that_waits_is_made_once_the_certificate_is_right(
    channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any
) -> None:
    one = meshlib_grpc_upstream("v1", credentials=mesh.server())
    mesh.say(one.address, socket=socket_of(Authority("other").pem, ("URI", SERVER), shown=mesh.shown))
    here = channel()
    with pytest.raises(meshlib.ConnectFailed, match="certificate verify failed"):
        here.unary(timeout=20.0)
    held = here.begun(wait_for_ready=True, timeout=20.0)
    mesh.say(one.address)
    assert str(here.do(held.code)) == "StatusCode.OK"


@pytest.mark.parametrize("kind", FACES)
def test_a_call_that_is_cancelled_while_it_connects_leaves_nothing(kind: str, mesh: Mesh) -> None:
    """grpc itself would wait 20 s for the endpoint's SETTINGS."""
    with Listener(mesh.authority.issue(SERVER)) as silent, meshlib.Mesh(mesh.config) as running:
        mesh.say(silent.address)
        with Channel(kind, "stock", running) as here:
            held = here.begun(timeout=60.0)
            silent.shook.get(timeout=20)
            here.do(held.cancel)
            with pytest.raises((grpc.FutureCancelledError, CancelledError)):
                here.do(held.result if kind == "sync" else lambda: _awaited(held))
        silent.ends.get(timeout=10)
    nothing_is_left()


async def _awaited(call: Any) -> Any:
    return await call


# --- material that changes -----------------------------------------------------------------------------------------------

THREADS, TASKS, ROTATIONS = 20, 100, 20


class Load:
    """Calls, as many at once as there are callers, until ``over``. ``seen``: with which certificates they were answered."""

    def __init__(self, callers: int) -> None:
        self.callers = callers
        self.over = False
        self.failed: list[BaseException] = []
        self.calls = 0
        self.seen: Counter[bytes] = Counter()
        self._changed = threading.Condition()

    def answered(self, *shown: bytes) -> None:
        """One call's; a stream has one connection."""
        assert len(set(shown)) == 1, "a stream changed its connection"
        with self._changed:
            self.calls += 1
            self.seen[shown[0]] += 1
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self.failed.append(error)
            self._changed.notify_all()

    def wait_for(self, held: Issued) -> None:
        """Until as many calls as there are callers were answered with that certificate."""
        with self._changed:
            came = self._changed.wait_for(
                lambda: self.failed or self.seen[held.chain_pem] >= self.callers, 60
            )
            assert came, "the certificate is not used"

    def by_threads(self, channel: grpc.Channel) -> None:
        unary, stream = channel.unary_unary(SERVICE + "Get"), channel.stream_stream(SERVICE + "StreamStream")
        while not self.over and not self.failed:
            try:
                self.answered(unary(b"", timeout=60.0))
                self.answered(*stream(iter([b"1", b"2", b"3"]), timeout=60.0))
            except BaseException as error:  # noqa: BLE001 - told below
                self.fail(error)

    async def by_tasks(self, channel: grpc.aio.Channel) -> None:
        unary, stream = channel.unary_unary(SERVICE + "Get"), channel.stream_stream(SERVICE + "StreamStream")
        while not self.over and not self.failed:
            try:
                self.answered(await unary(b"", timeout=60.0))
                self.answered(*[each async for each in stream(iter([b"1", b"2", b"3"]), timeout=60.0)])
            except BaseException as error:  # noqa: BLE001 - told below
                self.fail(error)


def rotate(mesh: Mesh, address: str, load: Load) -> None:
    for _ in range(ROTATIONS):
        mesh.shown = mesh.authority.issue(CLIENT)
        mesh.say(address)
        load.wait_for(mesh.shown)
    load.over = True


def check(load: Load) -> None:
    assert not load.failed, load.failed[:3]
    assert len(load.seen) == ROTATIONS + 1
    assert load.calls >= load.callers * ROTATIONS


@pytest.mark.timeout(300)
def test_certificates_change_under_20_threads(mesh: Mesh) -> None:
    """A stream that is open stays on its connection; no call fails."""
    first, load = mesh.shown, Load(THREADS)
    with Witness(mesh.server()) as one, ExitStack() as stack:
        mesh.say(one.address)
        here = stack.enter_context(meshlib.Mesh(mesh.config))
        made = stack.enter_context(meshlib.grpc.channel("stock", mesh=here))
        more: queue.Queue[bytes | None] = queue.Queue()
        long = made.stream_stream(SERVICE + "StreamStream")(iter(more.get, None), timeout=300.0)
        more.put(b"1")
        assert next(long) == first.chain_pem
        threads = [threading.Thread(target=load.by_threads, args=(made,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        load.wait_for(first)
        rotate(mesh, one.address, load)
        for thread in threads:
            thread.join(60)
        more.put(b"2")
        more.put(None)
        assert list(long) == [first.chain_pem]
        assert long.code() is grpc.StatusCode.OK
    check(load)
    nothing_is_left()


@pytest.mark.timeout(300)
def test_certificates_change_under_100_tasks(mesh: Mesh) -> None:
    first, load = mesh.shown, Load(TASKS)

    async def main(address: str) -> None:
        more: asyncio.Queue[bytes] = asyncio.Queue()

        async def messages() -> AsyncIterator[bytes]:
            while message := await more.get():
                yield message

        async with meshlib.grpc.aio.channel("stock", mesh=here) as made:
            long = made.stream_stream(SERVICE + "StreamStream")(messages(), timeout=300.0)
            await more.put(b"1")
            assert await long.read() == first.chain_pem
            tasks = [asyncio.create_task(load.by_tasks(made)) for _ in range(TASKS)]
            await asyncio.to_thread(load.wait_for, first)
            await asyncio.to_thread(rotate, mesh, address, load)
            await asyncio.gather(*tasks)
            await more.put(b"2")
            await more.put(b"")
            assert await long.read() == first.chain_pem
            assert await long.read() is grpc.aio.EOF
            assert await long.code() is grpc.StatusCode.OK

    with Witness(mesh.server()) as one:
        mesh.say(one.address)
        with meshlib.Mesh(mesh.config) as here:
            asyncio.run(main(one.address))
    check(load)
    nothing_is_left()


@pytest.mark.parametrize("kind", FACES)
def test_files_that_change_are_used_without_a_word_of_anybody(
    kind: str, mesh: Mesh, tmp_path: Path, meshlib_mesh: Any, meshlib_clock: VirtualClock
) -> None:
    """TL-06."""

    def write(held: Issued) -> None:
        for name, pem in (("ca", mesh.authority.pem), ("cert", held.chain_pem), ("key", held.key_pem)):
            (tmp_path / name).write_bytes(pem)

    tls = {name: str(tmp_path / name) for name in ("ca", "cert", "key")} | {"sans": [SERVER]}
    issued = [mesh.authority.issue(CLIENT) for _ in range(4)]
    write(issued[0])
    with Witness(mesh.server()) as one, Channels(kind) as channels:
        config = {"services": {"stock": {"endpoints": [one.address], "tls": tls}}}
        here = channels.make(meshlib_mesh(config, clock=meshlib_clock))
        for held in issued:
            write(held)
            meshlib_clock.advance(5.0)
            assert here.unary(timeout=20.0) == held.chain_pem
        # One of another's: the old pair serves, and live connections stay.
        (tmp_path / "key").write_bytes(issued[0].key_pem)
        meshlib_clock.advance(5.0)
        assert here.unary(timeout=20.0) == issued[-1].chain_pem
    nothing_is_left()


# --- nothing is left -----------------------------------------------------------------------------------------------------


def test_an_endpoint_that_left_is_connected_to_no_more(
    channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any
) -> None:
    """A call that is under way there ends in peace."""
    one, two = (meshlib_grpc_upstream(name, credentials=mesh.server()) for name in ("v1", "v2"))
    mesh.say(one.address)
    here = channel()
    one.hang()
    held = here.begun(timeout=60.0)
    one.wait_for(lambda: one.held == 1)
    before = tunnels().sockets
    assert len(before) == 1
    mesh.say(two.address)
    one.behave()
    for _ in range(10_000):
        if here.who(timeout=20.0) == "v2":
            break
    assert {here.who(timeout=20.0) for _ in range(5)} == {"v2"}
    assert str(here.do(held.code)) == "StatusCode.OK"


def not_the_servers(threads: tuple[str, ...]) -> list[str]:
    """A server's pool grows by one whenever a call comes while the thread of the last is not back yet."""
    return [name for name in threads if not name.startswith("grpc-upstream")]


@pytest.mark.timeout(300)
def test_a_thousand_channels_leave_nothing(mesh: Mesh, meshlib_grpc_upstream: Any) -> None:
    servers = [meshlib_grpc_upstream(f"v{number}", credentials=mesh.server()) for number in range(2)]
    mesh.say(*(server.address for server in servers))
    with meshlib.Mesh(mesh.config) as here:

        def some(count: int) -> None:
            made = [meshlib.grpc.channel("stock", mesh=here) for _ in range(count)]
            for channel in made:
                assert channel.unary_unary(SERVICE + "Get")(b"", timeout=60.0)
            assert len(tunnels().sockets) <= 2, "who goes to the same place shares one"
            for channel in made:
                channel.close()
            nothing_is_left()

        some(50)
        before = Footprint.now()
        for _ in range(19):
            some(50)
        for _ in range(50):
            some(1)
        after = Footprint.now()
    assert not_the_servers(after.threads) == not_the_servers(before.threads)
    assert len(after.descriptors) <= len(before.descriptors)
