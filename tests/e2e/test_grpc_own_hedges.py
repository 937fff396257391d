"""The hedges of an application's own service config, over the mesh: the rules of gRFC A6 as a table, with real servers."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import meshlib
from meshlib.core.retry_grpc import PUSHBACK
from tests.support.asking import asked
from tests.support.grpc_channels import FACES, SERVICE, Channel, Channels, service
from tests.support.late import again_if_late, soon
from tests.support.on_clock import begun

Code = grpc.StatusCode
_cases = itertools.count()
#: Seconds within which no hedge is due by its delay.
FAR = "20s"


@pytest.fixture(params=FACES)
def channel(request: pytest.FixtureRequest) -> Iterator[Callable[..., Channel]]:
    def make(*servers: Any, policy: Any, more: Any = (), policies: Any = (), mesh: Any = None) -> Channel:
        config = {"methodConfig": [{"name": [{}], "hedgingPolicy": policy}], **dict(more)}
        options = [("grpc.service_config", json.dumps(config))]
        return channels.make(mesh or service(*servers, **dict(policies)), options=options)

    with Channels(request.param) as channels:
        yield make


def policy(most: int, delay: str | None = FAR, *codes: Any) -> dict[str, Any]:
    made = {"maxAttempts": most, "hedgingDelay": delay, "nonFatalStatusCodes": list(codes)}
    return {name: value for name, value in made.items() if value not in (None, [])}


def ways(here: Channel) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """One message there, in each way that the channel has: what it answers and its call."""

    def future() -> tuple[Any, Any]:
        call = here.begun(timeout=20.0)
        return call.result(), call

    def stream() -> tuple[Any, Any]:
        made = here.channel.unary_stream(SERVICE + "UnaryStream")
        call = here.do(lambda: made(b"", timeout=20.0))
        if here.kind == "sync":
            return list(call), call

        async def all_of() -> list[bytes]:
            return [message async for message in call]

        return here.do(all_of), call

    found = {"call": lambda: here.call(timeout=20.0), "stream": stream}
    return {**found, "future": future} if here.kind == "sync" else found


def attempts(make: Callable[[], tuple[Any, Any]]) -> tuple[Any, int, float]:
    """The code of a call, how many attempts it made, and in how many seconds."""
    began = time.monotonic()
    try:
        _, told = make()
        code = Code.OK
    except grpc.RpcError as error:
        told, code = error, error.code()
    info = meshlib.call_info(told)
    assert info is not None
    return code, len(info.attempts), time.monotonic() - began


@again_if_late
def three_are_held(servers: list[Any], way: Callable[[], tuple[Any, Any]], seconds: float) -> None:
    """So soon a call has three attempts, and no more of them, at servers that hold each until then."""
    before = sum(server.requests_total for server in servers)
    began = time.monotonic()
    done = begun(attempts, way)
    assert asked(lambda: sum(server.held for server in servers) == 3), "no answer is waited for"
    took = time.monotonic() - began
    assert not asked(lambda: sum(server.held for server in servers) > 3, 0.3)
    for server in servers:
        server.release()
    code, made, _ = done.result(20.0)
    assert (code, made) == (Code.OK, 3)
    assert sum(server.requests_total for server in servers) == before + 3
    assert asked(lambda: sum(server.calls_open for server in servers) == 0)
    soon(took, seconds, "three attempts")


def test_without_a_delay_all_are_made_at_once_also_to_one_endpoint(
    channel: Any, meshlib_grpc_upstream: Any
) -> None:
    one = meshlib_grpc_upstream("v1")
    here = channel(one, policy=policy(3, None))
    one.hang()
    for way in ways(here).values():
        three_are_held([one], way, 0.5)


def test_after_each_delay_another_is_made_up_to_the_number(channel: Any, meshlib_grpc_upstream: Any) -> None:
    servers = [meshlib_grpc_upstream(f"v{n}") for n in range(4)]
    here = channel(*servers, policy=policy(3, "0.1s"))
    for server in servers:
        server.hang()
    for way in ways(here).values():
        three_are_held(servers, way, 0.6)


@pytest.mark.parametrize(
    ("most", "codes", "fails", "trailers", "made"),
    [
        (4, ["UNAVAILABLE"], Code.UNAVAILABLE, (), 4),  # not fatal: the next one at once
        (9, ["unavailable", 5], Code.NOT_FOUND, (), 5),  # more than five are five
        (4, ["UNAVAILABLE"], Code.NOT_FOUND, (), 1),  # fatal
        (4, [], Code.UNAVAILABLE, (), 1),  # by default all are
        (4, ["UNAVAILABLE"], Code.UNAVAILABLE, ((PUSHBACK, "-1"),), 1),  # the server says not to
        (4, ["UNAVAILABLE"], Code.UNAVAILABLE, ((PUSHBACK, "soon"),), 1),
        (3, ["UNAVAILABLE"], Code.UNAVAILABLE, ((PUSHBACK, "150"),), 3),  # or when
    ],
)
def test_what_follows_a_failure(
    channel: Any,
    meshlib_grpc_upstream: Any,
    most: int,
    codes: list[Any],
    fails: Any,
    trailers: Any,
    made: int,
) -> None:
    one = meshlib_grpc_upstream("v1")
    here = channel(one, policy=policy(most, FAR, *codes))
    one.order(code=fails, trailers=trailers)
    for way in ways(here).values():
        code, count, seconds = attempts(way)
        assert (code, count) == (fails, made)
        assert seconds < 10.0
        if made == 3:
            assert seconds >= 0.3, "two waits, as the server says"


def test_a_pushback_puts_off_the_next_hedge_beside_others(channel: Any, meshlib_grpc_upstream: Any) -> None:
    """A6: the next hedge comes when the server says, not by the delay; one that says not to ends them, and the rest goes on."""
    one = meshlib_grpc_upstream("v1")
    for said, made in (("400", 3), ("-1", 2)):
        here = channel(one, policy=policy(3, "0.3s", "UNAVAILABLE"))
        for way in ways(here).values():
            put_off(one, way, said, made)


@again_if_late
def put_off(one: Any, way: Callable[[], tuple[Any, Any]], said: str, made: int) -> None:
    """The server says so of the third attempt, of which there are so many."""
    info = answered_after(one, way, said, made)
    outcomes = [each.outcome for each in info.attempts]
    assert len(outcomes) == made
    assert outcomes.pop(1) == "status"
    assert "ok" in outcomes
    trace = "\n".join(info.trace())
    if made == 3:
        third = re.search(r"attempt 3 beside it: attempt 1 has no answer after ([\d.]+) s", trace)
        assert third is not None
        assert float(third[1]) >= 0.7
        soon(float(third[1]), 1.1, "the third")
    else:
        assert "no other hedge: the server says not to" in trace


def answered_after(one: Any, way: Callable[[], tuple[Any, Any]], said: str, made: int) -> meshlib.CallInfo:
    """Of a call whose second attempt fails with such a pushback, and which has no answer before so many are made."""
    before = one.requests_total
    one.behave()
    one.hang()
    pushback = ((PUSHBACK, said),)
    one.order(code=Code.UNAVAILABLE, trailers=pushback, where=lambda seen: seen.number == before + 2)
    done = begun(info_of, way)
    assert asked(lambda: one.requests_total >= before + 2)
    # By the delay the third would come 0.3 s behind the second.
    third = asked(lambda: one.held == 2, 10.0 if made == 3 else 0.9)
    assert third is (made == 3)
    assert asked(lambda: one.held == made - 1), "what is not held yet is not released"
    one.release()
    info: meshlib.CallInfo = done.result(20.0)
    assert asked(lambda: one.calls_open == 0)
    return info


def info_of(way: Callable[[], tuple[Any, Any]]) -> meshlib.CallInfo:
    try:
        told = way()[1]
    except grpc.RpcError as error:
        told = error
    info = meshlib.call_info(told)
    assert info is not None
    return info


def test_of_two_attempts_at_one_endpoint_one_ends_and_the_other_goes_on(
    channel: Any, meshlib_grpc_upstream: Any
) -> None:
    one = meshlib_grpc_upstream("v1")
    here = channel(one, policy=policy(2, "0.05s", "UNAVAILABLE"))
    for way in ways(here).values():
        one.behave()
        one.order(delay=0.3)
        one.order(delay=0.15, code=Code.UNAVAILABLE, times=1)
        assert attempts(way)[:2] == (Code.OK, 2)
    assert sum(cluster.active for cluster in here.mesh.status().clusters.values()) == 0


def test_the_throttle_holds_for_hedges(channel: Any, meshlib_grpc_upstream: Any) -> None:
    """Failures that are not fatal take tokens; at half of them only first attempts are made, until enough calls were answered."""
    one = meshlib_grpc_upstream("v1")
    ratio = 1 - next(_cases) / 1000  # those of other cases are others' to share
    throttling = {"retryThrottling": {"maxTokens": 6, "tokenRatio": ratio}}
    here = channel(one, policy=policy(5, FAR, "UNAVAILABLE"), more=throttling)
    way = ways(here)["call"]
    one.fail(Code.UNAVAILABLE)
    # Six tokens: a hedge is made as long as more than three are left.
    assert attempts(way)[:2] == (Code.UNAVAILABLE, 3)
    assert attempts(way)[:2] == (Code.UNAVAILABLE, 1)
    one.behave()
    for _ in range(3):
        assert attempts(way)[:2] == (Code.OK, 1)
    one.fail(Code.UNAVAILABLE)
    assert attempts(way)[:2] == (Code.UNAVAILABLE, 2)


@pytest.mark.parametrize(
    "ordered", [{"retry": {"attempts": 2, "on": ["unavailable"]}}, {"hedge": {"after": 9.0}}]
)
def test_what_the_mesh_orders_wins(channel: Any, meshlib_grpc_upstream: Any, ordered: Any) -> None:
    one = meshlib_grpc_upstream("v1")
    here = channel(one, policy=policy(5, None, "NOT_FOUND"), policies=ordered)
    one.order(delay=0.2)
    for way in ways(here).values():
        assert attempts(way)[:2] == (Code.OK, 1)
    one.behave()
    one.fail(Code.NOT_FOUND)
    assert attempts(ways(here)["call"])[:2] == (Code.NOT_FOUND, 1)


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"maxAttempts": 1}, "methodConfig[0].hedgingPolicy.maxAttempts"),
        ({"hedgingDelay": "soon", "maxAttempts": 2}, "methodConfig[0].hedgingPolicy.hedgingDelay"),
        (
            {"maxAttempts": 2, "nonFatalStatusCodes": ["OKAY"]},
            "methodConfig[0].hedgingPolicy.nonFatalStatusCodes[0]",
        ),
    ],
)
def test_what_a6_refuses_fails_the_calls_with_its_place(
    channel: Any, meshlib_grpc_upstream: Any, wrong: Any, where: str
) -> None:
    """As grpc's core does with the fields that it knows."""
    one = meshlib_grpc_upstream("v1")
    here = channel(one, policy=wrong)
    for way in ways(here).values():
        with pytest.raises(grpc.RpcError) as caught:
            way()
        assert caught.value.code() is Code.INVALID_ARGUMENT
        assert isinstance(caught.value, meshlib.ConfigError)
        assert where in caught.value.details()
    assert one.requests_total == 0
