"""Sessions of RPCs from a configuration file: what each kind of call tells of them, and that calls go by them (SS-01)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import meshlib
import meshlib.grpc
from tests.conformance.support.server import SAY, TALK, Server


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    """Three; each sends initial metadata in which it says who it is."""
    started = [Server(name).start() for name in "abc"]
    for server in started:
        server.order(headers_first=True)
    yield started
    for server in started:
        server.stop()


def made(servers: list[Server], **session: Any) -> meshlib.Mesh:
    service = {"endpoints": [server.address for server in servers], "session": session}
    return meshlib.Mesh({"services": {"shop": service}})


def of(call: Any, name: str) -> list[str]:
    return [value for key, value in call.initial_metadata() if key == name]


def who(data: bytes) -> str:
    import json

    return str(json.loads(data)["who"])


def test_each_kind_of_blocking_call_tells(servers: list[Server]) -> None:
    with made(servers, cookie="sid") as mesh, meshlib.grpc.channel("shop", mesh=mesh) as channel:
        unary = channel.unary_unary(SAY)
        value, call = unary.with_call(b"")
        [cookie] = of(call, "set-cookie")
        assert of(call, "x-server") == [who(value)], "what the server says stays"
        future = unary.future(b"")
        assert of(future, "set-cookie")
        future.result()
        stream = channel.stream_stream(TALK)(iter([b"a", b"b"]))
        assert of(stream, "set-cookie")
        assert len(list(stream)) == 2
        metadata = [("cookie", cookie.partition(";")[0])]
        assert {who(unary(b"", metadata=metadata)) for _ in range(7)} == {who(value)}
        stream = channel.stream_stream(TALK)(iter([b"a"]), metadata=metadata)
        assert [who(each) for each in stream] == [who(value)]
        assert of(stream, "set-cookie") == []


async def test_so_does_an_asyncio_call(servers: list[Server]) -> None:
    with made(servers, cookie="sid") as mesh:
        async with meshlib.grpc.aio.channel("shop", mesh=mesh) as channel:
            call = channel.unary_unary(SAY)(b"")
            value = await call
            initial = await call.initial_metadata()
            cookie = str(initial["set-cookie"])
            assert initial["x-server"] == who(value)
            metadata = (("cookie", cookie.partition(";")[0]),)
            unary = channel.unary_unary(SAY)
            again = await asyncio.gather(*(unary(b"", metadata=metadata) for _ in range(7)))
            assert {who(each) for each in again} == {who(value)}


@pytest.mark.parametrize("envelope", [False, True])
def test_a_session_whose_name_the_server_chose(servers: list[Server], envelope: bool) -> None:
    with (
        made(servers, header="x-server", envelope=envelope) as mesh,
        meshlib.grpc.channel("shop", mesh=mesh) as channel,
    ):
        unary = channel.unary_unary(SAY)
        for _ in range(3):
            value, call = unary.with_call(b"")
            [name] = of(call, "x-server")
            assert (name == who(value)) is not envelope
            again = {who(unary(b"", metadata=[("x-server", name)])) for _ in range(7)}
            assert again == {who(value)}
        assert len({who(unary(b"")) for _ in range(3)}) == 3


def test_a_strict_session_whose_endpoint_is_gone_is_unavailable(servers: list[Server]) -> None:
    from base64 import b64encode

    name = f"{b64encode(b'127.0.0.1:1').decode()};UV:{b64encode(b'a').decode()}"
    with (
        made(servers, header="x-server", envelope=True) as mesh,
        meshlib.grpc.channel("shop", mesh=mesh) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(SAY)(b"", metadata=[("x-server", name)])
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "gone" in caught.value.details()
