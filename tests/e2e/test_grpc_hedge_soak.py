"""Hedged gRPC calls of every kind that are cancelled, given up, or end at any moment, from many threads and tasks: nothing is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
from collections import Counter
from typing import Any

import grpc

import meshlib
import meshlib.grpc
from meshlib.model.events import AttemptEnded, AttemptStarted, CallEnded, CallStarted
from tests.support.asking import asked
from tests.support.grpc_channels import SERVICE, service

THREADS, CALLS, TASKS = 6, 50, 40
KINDS = {
    "unary_unary": "Get",
    "unary_stream": "UnaryStream",
    "stream_unary": "StreamUnary",
    "stream_stream": "StreamStream",
}
POLICIES = {
    "hedge": {"after": 0.004, "max": 3},
    "retry": {"attempts": 3, "on": ["unavailable"], "backoff_base": 0.002},
    "breaker": {"consecutive_failures": 1000},
    "limits": {"max_requests": 10_000, "max_retries": 10_000},
}
CODES = ("OK", "OK", "OK", "UNAVAILABLE", "NOT_FOUND")


class Told:
    """What observers hear: each thing that begins ends once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.attempts: Counter[int] = Counter()
        self.calls: Counter[int] = Counter()
        self.hedged = 0

    def __call__(self, event: Any) -> None:
        with self._lock:
            if isinstance(event, AttemptStarted):
                self.attempts[event.key] += 1
                self.hedged += event.number > 1
            elif isinstance(event, AttemptEnded):
                self.attempts[event.key] -= 1
            elif isinstance(event, CallStarted):
                self.calls[event.key] += 1
            elif isinstance(event, CallEnded):
                self.calls[event.key] -= 1

    @property
    def even(self) -> bool:
        with self._lock:
            return not any(self.attempts.values()) and not any(self.calls.values())


def order(chance: random.Random) -> list[tuple[str, str]]:
    delay, code = chance.choice((0.0, 0.002, 0.004, 0.01, 0.03)), chance.choice(CODES)
    said = f'{{"delay": {delay}, "code": "{code}", "messages": {chance.randrange(3)}}}'
    return [("x-upstream-order", said)]


def is_clean(mesh: meshlib.Mesh, told: Told) -> bool:
    clusters, runtime = mesh.status().clusters.values(), mesh._runtime()
    part = runtime.view.resolve("http", "stock", None, "stock").part
    live: Any = runtime.clusters.upstream(part, "stock")
    if live.retries:  # in flight, which nobody is told
        return False
    return told.even and all(cluster.active == 0 for cluster in clusters)


def blocking(channel: Any, seed: int, wrong: list[BaseException]) -> None:
    chance = random.Random(seed)
    made = {kind: getattr(channel, kind)(SERVICE + name) for kind, name in KINDS.items()}
    try:
        for _ in range(CALLS):
            kind = chance.choice(sorted(KINDS))
            message = iter([b"a", b"b"]) if kind.startswith("stream") else b""
            options: Any = {"timeout": chance.choice((0.008, 20.0)), "metadata": order(chance)}
            if not kind.endswith("stream") and chance.randrange(2):
                with contextlib.suppress(grpc.RpcError):
                    made[kind](message, **options)
                continue
            begin = made[kind] if kind.endswith("stream") else made[kind].future
            call = begin(message, **options)
            what = chance.randrange(6)
            if what == 0:
                del call  # given up
                continue
            if what == 1:
                threading.Timer(chance.random() * 0.02, call.cancel).start()
            if what == 2:
                call.cancel()
            try:
                if kind.endswith("stream"):
                    for _ in call:
                        if what == 3:
                            break
                    if what == 3:
                        call.cancel()
                else:
                    call.result()
            except (grpc.RpcError, grpc.FutureCancelledError):
                pass
            call.code()
            call.trailing_metadata()
    except BaseException as error:  # noqa: BLE001 - the test's
        wrong.append(error)


async def one(made: dict[str, Any], chance: random.Random) -> None:
    kind = chance.choice(sorted(KINDS))
    message = [b"a", b"b"] if kind.startswith("stream") else b""
    call = made[kind](message, timeout=chance.choice((0.008, 20.0)), metadata=order(chance))
    what = chance.randrange(6)
    if what == 0:
        del call
        return
    if what == 1:
        asyncio.get_running_loop().call_later(chance.random() * 0.02, call.cancel)
    try:
        if not kind.endswith("stream"):
            await call
        elif what == 2:
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            async for _ in call:
                if what == 3:
                    break
            if what == 3:
                call.cancel()
    except grpc.RpcError:
        pass
    await call.code()
    await call.trailing_metadata()


def test_blocking_channels_are_left_clean(meshlib_grpc_upstream: Any) -> None:
    servers = [meshlib_grpc_upstream(f"v{number}") for number in range(4)]
    told, wrong = Told(), []
    with (
        meshlib.Mesh(service(*servers, **POLICIES)) as mesh,
        meshlib.grpc.channel("stock", mesh=mesh) as channel,
    ):
        mesh._observe(told)
        threads = [threading.Thread(target=blocking, args=(channel, seed, wrong)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a call never ended"
        if wrong:
            raise wrong[0]
        gc.collect()
        assert asked(lambda: is_clean(mesh, told)), (told.attempts.most_common(3), told.calls.most_common(3))
        assert told.hedged > 50
        assert asked(lambda: all(server.calls_open == 0 for server in servers))


def test_asyncio_channels_are_left_clean(meshlib_grpc_upstream: Any) -> None:
    servers = [meshlib_grpc_upstream(f"v{number}") for number in range(4)]
    told = Told()

    async def all_of(mesh: meshlib.Mesh) -> None:
        async with meshlib.grpc.aio.channel("stock", mesh=mesh) as channel:
            made = {kind: getattr(channel, kind)(SERVICE + name) for kind, name in KINDS.items()}

            async def some(seed: int) -> None:
                chance = random.Random(seed)
                for _ in range(8):
                    task = asyncio.ensure_future(one(made, chance))
                    if chance.random() < 0.2:
                        await asyncio.wait([task], timeout=chance.random() * 0.02)
                        task.cancel()
                    await asyncio.wait([task])
                    if not task.cancelled() and (error := task.exception()) is not None:
                        assert isinstance(error, asyncio.CancelledError), error

            await asyncio.wait_for(asyncio.gather(*(some(seed) for seed in range(TASKS))), 60)
            gc.collect()
            assert await asyncio.to_thread(asked, lambda: is_clean(mesh, told))

    with meshlib.Mesh(service(*servers, **POLICIES)) as mesh:
        mesh._observe(told)
        asyncio.run(all_of(mesh))
        assert told.hedged > 50
        assert asked(lambda: all(server.calls_open == 0 for server in servers))
