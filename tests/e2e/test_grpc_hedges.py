"""Hedges of gRPC calls of every kind, over real servers: blocking, futures, streams, asyncio."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import grpc
import pytest

import meshlib
from tests.support.asking import asked
from tests.support.grpc_channels import FACES, SERVICE, Channel, service
from tests.support.late import again_if_late, soon
from tests.support.on_clock import begun

Code = grpc.StatusCode
HEDGE = {"hedge": {"after": 0.05}}
METHODS = {
    "unary": "Get",
    "server stream": "UnaryStream",
    "client stream": "StreamUnary",
    "both streams": "StreamStream",
}
CASES = [(face, kind) for face in FACES for kind in METHODS]
every = pytest.mark.parametrize(("face", "kind"), CASES)


def active(mesh: Any) -> int:
    return sum(cluster.active for cluster in mesh.status().clusters.values())


def channel(kind: str, mesh: meshlib.Mesh, **options: Any) -> Channel:
    return Channel(kind, "stock", mesh, **options)


def release_once_refused(mesh: Any, call: Any, slow: Any, bad: Any, before: int) -> None:
    """The slow one answers once the call knows what the bad one said, which had ``before`` calls, or is over by it."""
    assert asked(
        lambda: call.done() or (slow.held == 1 and bad.requests_total > before and active(mesh) == 1)
    )
    slow.release()


def begin(here: Channel, kind: str, messages: Any = (b"a", b"b"), **options: Any) -> Any:
    """A call under way: of a blocking channel a future or a stream."""
    factory = "stream_" if kind in ("client stream", "both streams") else "unary_"
    factory += "stream" if kind in ("server stream", "both streams") else "unary"
    made = getattr(here.channel, factory)(SERVICE + METHODS[kind])
    message = messages if factory.startswith("stream") else b""
    options.setdefault("timeout", 20.0)
    if here.kind == "aio":
        return here.do(lambda: made(message, **options))
    if factory.endswith("stream"):
        return made(iter(message) if factory.startswith("stream") else message, **options)
    return made.future(iter(message) if factory.startswith("stream") else message, **options)


def finish(here: Channel, kind: str, call: Any) -> list[bytes]:
    """All that it answers; raises what it raises."""
    many = kind in ("server stream", "both streams")
    if here.kind == "sync":
        return list(call) if many else [call.result()]

    async def there() -> list[bytes]:
        return [message async for message in call] if many else [await call]

    return here.do(there)


def fact(here: Channel, call: Any, name: str) -> Any:
    return here.do(getattr(call, name))


def info_of(call: Any) -> meshlib.CallInfo:
    found = meshlib.call_info(call)
    assert found is not None
    return found


def hedged(here: Channel, kind: str, slow: Any) -> tuple[list[bytes], Any, int]:
    """A call whose first attempt went to ``slow``, and how many hedges there were up to it."""
    hedges = 0
    for _ in range(
        20
    ):  # on a busy machine a call to the other one is hedged, too, and takes the turn of ``slow``
        call = begin(here, kind)
        answers = finish(here, kind, call)
        attempts = info_of(call).attempts
        hedges += len(attempts) - 1
        if attempts[0].endpoint == slow.address:
            return answers, call, hedges
    raise AssertionError("round robin comes to each")


@every
def test_a_slow_endpoint_is_not_waited_for_and_its_call_is_cancelled(
    meshlib_grpc_upstream: Any, face: str, kind: str
) -> None:
    """The loser is cancelled and counted, nobody is blamed, and all that the caller sees is the winner's."""
    slow, fast = meshlib_grpc_upstream("slow"), meshlib_grpc_upstream("fast")
    slow.hang()
    fast.order(trailers=(("by", "fast"),), metadata=(("head", "fast"),))
    with meshlib.Mesh(service(slow, fast, **HEDGE)) as mesh, channel(face, mesh) as here:
        answers, call, hedges = hedged(here, kind, slow)
        info = info_of(call)
        assert [attempt.outcome for attempt in info.attempts] == ["cancelled", "ok"]
        assert info.endpoint == fast.address
        assert {json.loads(answer)["name"] for answer in answers} == {"fast"}
        assert fact(here, call, "code") is Code.OK
        assert ("by", "fast") in list(fact(here, call, "trailing_metadata"))
        assert ("head", "fast") in list(fact(here, call, "initial_metadata"))
        assert asked(lambda: slow.calls_open == 0), "the server is told that nobody waits any more"
        (cluster,) = mesh.status().clusters.values()
        assert (active(mesh), cluster.failures, cluster.retries) == (0, 0, hedges)
        assert any("hedged away" in line for line in info.trace())


@every
def test_unavailable_is_waited_over_and_another_code_is_the_answer(
    meshlib_grpc_upstream: Any, face: str, kind: str
) -> None:
    """gRFC A6: a code that is not fatal leaves the other attempts under way; one that is ends the call, with its trailing metadata."""
    slow, bad = meshlib_grpc_upstream("slow"), meshlib_grpc_upstream("bad")
    for code, outcome in ((Code.UNAVAILABLE, "ok"), (Code.NOT_FOUND, "status")):
        slow.behave()
        bad.behave()
        slow.hang()
        bad.order(code=code, trailers=(("by", "bad"),))
        with meshlib.Mesh(service(slow, bad, **HEDGE)) as mesh, channel(face, mesh) as here:
            for _ in range(2):
                before = bad.requests_total
                call, caught = begin(here, kind), None
                if outcome == "ok":
                    release_once_refused(mesh, call, slow, bad, before)
                try:
                    finish(here, kind, call)
                except grpc.RpcError as error:
                    caught = error
                info = info_of(call)
                if info.attempts[0].endpoint != slow.address:
                    continue
                assert len(info.attempts) == 2
                answered = next(each for each in info.attempts if each.endpoint == info.endpoint)
                assert answered.outcome == outcome
                assert (caught is None) is (outcome == "ok")
                if caught is not None:
                    assert fact(here, call, "code") is Code.NOT_FOUND
                    assert ("by", "bad") in list(fact(here, call, "trailing_metadata"))
            assert asked(lambda: active(mesh) == 0)
            assert asked(lambda: slow.calls_open == 0)


@every
def test_who_cancels_the_call_cancels_all_of_its_attempts(
    meshlib_grpc_upstream: Any, face: str, kind: str
) -> None:
    servers = [meshlib_grpc_upstream(f"v{number}") for number in range(3)]
    for server in servers:
        server.hang()
    hedge = {"hedge": {"after": 0.02, "max": 3}, "breaker": {"consecutive_failures": 1}}
    with meshlib.Mesh(service(*servers, **hedge)) as mesh, channel(face, mesh) as here:
        call = begin(here, kind)
        assert asked(lambda: [server.calls_open for server in servers] == [1, 1, 1])
        assert active(mesh) == 3
        assert here.do(call.cancel)
        assert asked(lambda: [server.calls_open for server in servers] == [0, 0, 0])
        assert asked(lambda: active(mesh) == 0)
        (cluster,) = mesh.status().clusters.values()
        assert (cluster.failures, cluster.breaker) == (0, "closed")
        assert [attempt.outcome for attempt in info_of(call).attempts] == ["cancelled"] * 3
        for server in servers:
            server.behave()
        assert finish(here, kind, begin(here, kind)), "no permit is held"


@every
@again_if_late
def test_the_deadline_is_that_of_the_call_with_all_of_its_attempts(
    meshlib_grpc_upstream: Any, face: str, kind: str
) -> None:
    servers = [meshlib_grpc_upstream(f"v{number}") for number in range(2)]
    for server in servers:
        server.hang()
    with meshlib.Mesh(service(*servers, **HEDGE)) as mesh, channel(face, mesh) as here:
        began = time.monotonic()
        call = begin(here, kind, timeout=1.5)  # the hedge is begun in time on a busy machine, too
        with pytest.raises(grpc.RpcError):
            finish(here, kind, call)
        took = time.monotonic() - began
        assert took > 1.45
        soon(took, 5.0)
        assert fact(here, call, "code") is Code.DEADLINE_EXCEEDED
        assert len(info_of(call).attempts) == 2
        assert asked(lambda: active(mesh) == 0)
        assert asked(lambda: [server.calls_open for server in servers] == [0, 0])
        (cluster,) = mesh.status().clusters.values()
        assert cluster.retries == 1


def halting(go: threading.Event) -> Iterator[bytes]:
    """Messages: one, and more than is kept once it may go on."""
    yield b"a" * 10
    assert go.wait(20.0)
    for _ in range(40):
        yield b"b" * 10


@contextmanager
def silent_attempts(start: Any) -> Iterator[tuple[Any, Any]]:
    """A hedged stream, two attempts of which wait for their first messages: the call, and what keeps its attempts."""
    servers = [start(f"v{number}") for number in range(2)]
    for server in servers:
        server.hang()
    with meshlib.Mesh(service(*servers, **HEDGE)) as mesh, channel("sync", mesh) as here:
        call = begin(here, "server stream")
        assert asked(lambda: [server.calls_open for server in servers] == [1, 1])
        later = call._later
        assert asked(lambda: all(leg.watched for leg in later.legs))
        yield call, later


def test_no_two_read_one_attempt_while_a_call_is_cancelled(
    meshlib_grpc_upstream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread reads each attempt's first message; who iterates waits for that one also while its attempt is about to be cancelled."""
    with silent_attempts(meshlib_grpc_upstream) as (call, later):
        reader = begun(lambda: next(call))
        give_up = later._give_up

        def late(attempt: Any) -> None:
            later._changed()  # whoever waits looks again
            with suppress(TimeoutError):
                reader.exception(0.2)
            give_up(attempt)

        monkeypatch.setattr(type(later), "_give_up", lambda _, attempt: late(attempt))
        assert call.cancel()
        error = reader.exception(20.0)
        assert isinstance(error, grpc.RpcError), error
        assert error.code() is Code.CANCELLED  # type: ignore[attr-defined]


def test_who_iterates_leaves_an_attempt_that_has_lost(
    meshlib_grpc_upstream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another was sooner, and a thread still waits for the first message of this one, which is about to be cancelled."""
    with silent_attempts(meshlib_grpc_upstream) as (call, later):
        lost, won = (leg.attempt for leg in later.legs)
        with monkeypatch.context() as patch:
            patch.setattr(type(later), "_give_up", lambda *_: None)
            later.commit(won)
            assert later.attempt is won
            assert begun(lambda: later.first(lost)).result(20.0) is None
        lost.cancel()
        assert call.cancel()


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("kind", ["client stream", "both streams"])
def test_a_stream_that_is_not_kept_any_more_goes_on_alone_and_whole(
    meshlib_grpc_upstream: Any, face: str, kind: str
) -> None:
    """gRFC A6, "Memory Management": the attempt that came furthest goes on, the others are cancelled; none ends as if it were whole."""
    servers = [meshlib_grpc_upstream(f"v{number}") for number in range(2)]
    for server in servers:
        server.order(echo=True, hold="head")
    go = threading.Event()

    async def these() -> Any:
        yield b"a" * 10
        assert await run_in_thread(go.wait, 20.0)
        for _ in range(40):
            yield b"b" * 10

    size = [("grpc.per_rpc_retry_buffer_size", 100)]
    with meshlib.Mesh(service(*servers, **HEDGE)) as mesh, channel(face, mesh, options=size) as here:
        call = begin(here, kind, these() if face == "aio" else list_once(partial(halting, go)))
        assert asked(lambda: [server.calls_open for server in servers] == [1, 1])
        go.set()
        let_go(servers)
        answers = finish(here, kind, call)
        assert b"".join(answers) == b"a" * 10 + b"b" * 400
        outcomes = sorted(attempt.outcome for attempt in info_of(call).attempts)
        assert outcomes == ["cancelled", "ok"]
        assert asked(lambda: all(server.calls_open == 0 for server in servers))
        answered = [received.answered for server in servers for received in server.requests]
        assert sorted(answered) == [False, True]
        assert active(mesh) == 0


def let_go(servers: list[Any]) -> None:
    """One of two attempts is cancelled, and the other answered then."""
    assert asked(lambda: sum(server.calls_open for server in servers) == 1)
    assert asked(lambda: sum(server.held for server in servers) == 1)
    for server in servers:
        server.release()


async def run_in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    import asyncio

    return await asyncio.to_thread(work, *arguments)


class list_once:  # noqa: N801 - a function, to those who call it
    """What is iterated over by whoever begins."""

    def __init__(self, make: Callable[[], Iterator[bytes]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[bytes]:
        return self._make()


@pytest.mark.parametrize("face", FACES)
def test_a_stream_that_has_begun_is_not_hedged_though_nobody_reads_it(
    meshlib_grpc_upstream: Any, face: str
) -> None:
    servers = [meshlib_grpc_upstream(f"v{number}") for number in range(2)]
    for server in servers:
        server.order(messages=3)
    # A busy machine brings the first message in time, too.
    with meshlib.Mesh(service(*servers, hedge={"after": 1.5})) as mesh, channel(face, mesh) as here:
        call = begin(here, "server stream")
        assert asked(lambda: sum(server.requests_total for server in servers) == 1)
        assert not asked(lambda: sum(server.requests_total for server in servers) > 1, 1.8)
        assert len(finish(here, "server stream", call)) == 3
        assert sum(server.requests_total for server in servers) == 1
        assert [attempt.outcome for attempt in info_of(call).attempts] == ["ok"]


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("kind", ["server stream", "both streams"])
def test_a_stream_is_committed_with_its_first_message(
    meshlib_grpc_upstream: Any, face: str, kind: str
) -> None:
    """What fails behind it is the caller's, whatever the code is, and no other attempt is begun."""
    servers = [meshlib_grpc_upstream(f"v{number}") for number in range(2)]
    servers[0].hang()
    servers[1].order(messages=2, message_delay=0.3, code=Code.UNAVAILABLE)
    with (
        meshlib.Mesh(service(*servers, hedge={"after": 0.05, "max": 3})) as mesh,
        channel(face, mesh) as here,
    ):
        for _ in range(2):
            call = begin(here, kind)
            with pytest.raises(grpc.RpcError):
                finish(here, kind, call)
            info = info_of(call)
            assert fact(here, call, "code") is Code.UNAVAILABLE
            assert info.endpoint == servers[1].address
        assert asked(lambda: active(mesh) == 0)
        assert asked(lambda: servers[0].calls_open == 0)


def test_a_blocking_call_whose_messages_are_a_stream_is_hedged(meshlib_grpc_upstream: Any) -> None:
    slow, fast = meshlib_grpc_upstream("slow"), meshlib_grpc_upstream("fast")
    slow.hang()
    with meshlib.Mesh(service(slow, fast, **HEDGE)) as mesh, channel("sync", mesh) as here:
        made = here.channel.stream_unary(SERVICE + "StreamUnary")
        for _ in range(2):
            answer, call = made.with_call(iter([b"a", b"b"]), timeout=20.0)
            assert json.loads(answer)["name"] == "fast"
            assert json.loads(answer)["payload_length"] == 2
            assert [each.outcome for each in info_of(call).attempts][-1] == "ok"
        # Who is overtaken may be taken by its server later than the answer comes.
        assert asked(lambda: slow.requests_total >= 1)
        assert asked(lambda: slow.calls_open == 0)
        assert info_of(call).endpoint == fast.address
        assert active(mesh) == 0


def test_a_blocking_call_that_is_not_kept_any_more_goes_on_alone_and_whole(
    meshlib_grpc_upstream: Any,
) -> None:
    servers = [meshlib_grpc_upstream(f"v{number}") for number in range(2)]
    for server in servers:
        server.order(echo=True, hold="head")
    go = threading.Event()

    size = [("grpc.per_rpc_retry_buffer_size", 100)]
    with meshlib.Mesh(service(*servers, **HEDGE)) as mesh, channel("sync", mesh, options=size) as here:
        made = here.channel.stream_unary(SERVICE + "StreamUnary")
        done = begun(lambda: made.with_call(halting(go), timeout=20.0))
        assert asked(lambda: [server.calls_open for server in servers] == [1, 1])
        go.set()
        let_go(servers)
        answer, call = done.result(20.0)
        assert answer == b"a" * 10 + b"b" * 400
        assert sorted(attempt.outcome for attempt in info_of(call).attempts) == ["cancelled", "ok"]
        assert asked(lambda: all(server.calls_open == 0 for server in servers))
        answered = [received.answered for server in servers for received in server.requests]
        assert sorted(answered) == [False, True]
        assert active(mesh) == 0
