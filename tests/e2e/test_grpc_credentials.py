"""Call credentials over the mesh: whose fault it is that there are none, and what becomes of a call whose token is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import trustme

import meshlib
from tests.support.grpc_channels import FACES, Channel, Channels, service

Code = grpc.StatusCode
#: Each way to make a call; each gives what it brought, or raises.
WAYS: dict[str, Callable[..., Any]] = {
    "unary": lambda here, **options: here.unary(**options),
    "with_call": lambda here, **options: here.call(**options),
    "future": lambda here, **options: (
        here.do(here.begun(**options).result) if here.kind == "sync" else here.unary(**options)
    ),
    "server stream": lambda here, **options: here.server_stream(**options),
    "client stream": lambda here, **options: here.client_stream([b"a", b"b"], **options),
    "both streams": lambda here, **options: here.both_streams([b"a"], **options),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
GUARDS: dict[str, Any] = {
    "retry": {"attempts": 3, "on": ["unavailable"]},
    "outlier": {"consecutive_5xx": 1, "max_ejection_percent": 100},
    "breaker": {"consecutive_failures": 1},
}


class Token(grpc.AuthMetadataPlugin):
    """Gives the token of ``number``; raises, or gives what cannot be sent, where it is told to."""

    def __init__(self, how: str = "") -> None:
        self.how = how
        self.number = 1
        self.asked = 0

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        self.asked += 1
        if self.how == "raises":
            raise RuntimeError("no token today")
        if self.how == "fails":
            callback((), RuntimeError("no token today"))
        elif self.how == "gives nonsense":
            callback((("Bad Key", "x"),), None)
        else:
            callback((("x-token", str(self.number)),), None)

    def forget(self) -> None:
        self.number += 1


@pytest.fixture(scope="module")
def issued() -> tuple[grpc.ServerCredentials, grpc.ChannelCredentials]:
    authority = trustme.CA()
    mine = authority.issue_cert("stock")
    pair = mine.private_key_pem.bytes(), b"".join(pem.bytes() for pem in mine.cert_chain_pems)
    return grpc.ssl_server_credentials([pair]), grpc.ssl_channel_credentials(authority.cert_pem.bytes())


@pytest.fixture
def one(meshlib_grpc_upstream: Any, issued: Any) -> Any:
    return meshlib_grpc_upstream("v1", credentials=issued[0])


@pytest.fixture(params=FACES)
def channel(request: pytest.FixtureRequest, issued: Any) -> Iterator[Callable[..., Channel]]:
    """A function that makes a secure channel of each kind in turn."""

    def make(*servers: Any, credentials: Any = None, options: Any = (), **policies: Any) -> Channel:
        secure = issued[1] if credentials is None else credentials
        return channels.make(service(*servers, **policies), credentials=secure, options=options)

    with Channels(request.param) as channels:
        yield make


@every_way
@pytest.mark.parametrize("how", ["raises", "fails", "gives nonsense"])
def test_a_plug_in_that_fails_is_the_callers_error_and_no_endpoints(
    channel: Any, one: Any, way: Any, how: str
) -> None:
    plug_in = Token(how)
    here = channel(one, **GUARDS)
    with pytest.raises(grpc.RpcError) as caught:
        way(here, credentials=grpc.metadata_call_credentials(plug_in), timeout=20.0)
    error: Any = caught.value
    assert error.code() is Code.UNAVAILABLE
    assert not isinstance(error, meshlib.MeshError), "as grpc says it"
    info = meshlib.call_info(error)
    assert info is not None
    assert [(attempt.outcome, attempt.sent) for attempt in info.attempts] == [("refused", False)]
    assert plug_in.asked == 1
    status = here.mesh.status().clusters["stock"]
    assert (status.active, status.failures, status.ejections, status.breaker) == (0, 0, 0, "closed")
    assert status.endpoints[0].health == "healthy"
    assert one.requests_total == 0
    way(here, timeout=20.0)


def test_those_of_the_channel_are_the_callers_too(channel: Any, one: Any, issued: Any) -> None:
    plug_in = Token("raises")
    both = grpc.composite_channel_credentials(issued[1], grpc.metadata_call_credentials(plug_in))
    here = channel(one, credentials=both, **GUARDS)
    with pytest.raises(grpc.RpcError, match="no token today"):
        here.unary(timeout=20.0)
    plug_in.how = ""
    assert here.who(timeout=20.0) == "v1"


def test_what_a_server_says_in_the_same_words_is_an_answer(channel: Any, one: Any) -> None:
    one.fail(Code.UNAVAILABLE, "Getting metadata from plugin failed with error: elsewhere", times=1)
    here = channel(one, retry=GUARDS["retry"])
    assert here.who(timeout=20.0) == "v1"
    assert one.requests_total == 2


def test_those_that_such_a_connection_may_not_carry(meshlib_grpc_upstream: Any) -> None:
    """grpc.aio refuses them before anything is begun, and so it does here."""
    one = meshlib_grpc_upstream("v1")
    config = service(one, **GUARDS)
    secret = grpc.access_token_call_credentials("secret")
    with meshlib.Mesh(config) as mesh, Channel("sync", "stock", mesh) as here:
        for way in WAYS.values():
            with pytest.raises(grpc.RpcError) as caught:
                way(here, credentials=secret, timeout=20.0)
            assert caught.value.code() is Code.UNAUTHENTICATED
        assert mesh.status().clusters["stock"].failures == 0
    with meshlib.Mesh(config) as mesh, Channel("aio", "stock", mesh) as here:
        with pytest.raises(grpc.aio.UsageError, match="only valid on secure channels"):
            here.unary(credentials=secret, timeout=20.0)
        assert mesh.status().clusters["stock"].active == 0


def test_a_plug_in_that_blocks_blocks_no_other_call(channel: Any, one: Any) -> None:
    free = threading.Event()

    class Blocks(grpc.AuthMetadataPlugin):
        def __call__(self, context: Any, callback: Any) -> None:
            free.wait(20.0)
            callback((), None)

    here = channel(one)
    try:
        given = grpc.metadata_call_credentials(Blocks())
        held = here.begun(credentials=given, timeout=0.5)
        assert [here.who(timeout=20.0) for _ in range(5)] == ["v1"] * 5
        assert here.do(held.code) is Code.DEADLINE_EXCEEDED
    finally:
        free.set()


def refuse(one: Any, times: int) -> None:
    one.fail(Code.UNAUTHENTICATED, "too old", times=times)


@every_way
@pytest.mark.parametrize("told", [True, False])
def test_a_refused_token_is_asked_for_anew_once(channel: Any, one: Any, way: Any, told: bool) -> None:
    plug_in = Token()
    options = [("meshlib.renew_credentials", plug_in.forget if told else 1)]
    here = channel(one, options=options)
    refuse(one, 1)
    way(here, credentials=grpc.metadata_call_credentials(plug_in), timeout=20.0)
    tokens = [dict(request.metadata)["x-token"] for request in one.requests]
    assert tokens == (["1", "2"] if told else ["1", "1"])
    assert plug_in.asked == 2
    refuse(one, 9)
    with pytest.raises(grpc.RpcError) as caught:
        way(here, credentials=grpc.metadata_call_credentials(plug_in), timeout=20.0)
    assert caught.value.code() is Code.UNAUTHENTICATED
    info = meshlib.call_info(caught.value)
    assert info is not None
    assert [attempt.status for attempt in info.attempts] == [16, 16], "at most one more"
    assert here.mesh.status().clusters["stock"].active == 0


@every_way
def test_unless_it_is_asked_for_there_is_no_such_attempt(channel: Any, one: Any, way: Any) -> None:
    for value in (None, 0):
        here = channel(one, options=[] if value is None else [("meshlib.renew_credentials", value)])
        refuse(one, 1)
        with pytest.raises(grpc.RpcError) as caught:
            way(here, timeout=20.0)
        assert caught.value.code() is Code.UNAUTHENTICATED
        one.behave()
    assert one.requests_total == 2


def test_it_is_beside_the_retries_of_the_policy(channel: Any, one: Any) -> None:
    here = channel(one, options=[("meshlib.renew_credentials", 1)], retry=GUARDS["retry"])
    one.fail(Code.UNAVAILABLE, times=1)
    one.fail(Code.UNAUTHENTICATED, times=1)
    one.fail(Code.UNAVAILABLE, times=1)
    assert here.who(timeout=20.0) == "v1"
    assert one.requests_total == 4


@pytest.mark.parametrize(
    ("part", "way"),
    [({"metadata": (("x-early", "1"),)}, "unary"), ({"messages": 1}, "server stream")],
    ids=["metadata", "a message"],  # of a stream asyncio's may lose the metadata: tests/e2e/test_grpc.py
)
def test_a_call_that_was_answered_in_part_is_not_made_again(
    channel: Any, one: Any, part: dict[str, Any], way: str
) -> None:
    here = channel(one, options=[("meshlib.renew_credentials", 1)])
    one.order(code=Code.UNAUTHENTICATED, **part)
    with pytest.raises(grpc.RpcError):
        WAYS[way](here, timeout=20.0)
    assert one.requests_total == 1


def test_what_was_sent_and_is_gone_is_not_made_again(channel: Any, one: Any) -> None:
    options = [("meshlib.renew_credentials", 1), ("grpc.per_rpc_retry_buffer_size", 8)]
    here = channel(one, options=options)
    refuse(one, 1)
    with pytest.raises(grpc.RpcError) as caught:
        here.client_stream([b"x" * 100] * 4, timeout=20.0)
    assert caught.value.code() is Code.UNAUTHENTICATED
    assert one.requests_total == 1


def test_a_function_that_raises_costs_the_call_nothing(
    channel: Any, one: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def forget() -> None:
        raise RuntimeError("forgot to forget")

    here = channel(one, options=[("meshlib.renew_credentials", forget)])
    refuse(one, 1)
    assert here.who(timeout=20.0) == "v1"
    assert "forgot to forget" in caplog.text


def test_another_value_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match=r"meshlib\.renew_credentials: must be 1, 0 or a function"):
        meshlib.grpc.channel("stock", options=[("meshlib.renew_credentials", "yes")])
