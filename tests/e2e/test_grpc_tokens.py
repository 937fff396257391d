"""Tokens of services over gRPC: each way to make a call, of blocking and asyncio channels."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

import meshlib
from tests.e2e.test_grpc_credentials import WAYS, every_way
from tests.support.grpc_channels import FACES, Channel, Channels, service

TOKEN = "secret-token-0123456789"
Code = grpc.StatusCode
Make = Callable[..., Channel]


@pytest.fixture(scope="module")
def issued() -> tuple[grpc.ServerCredentials, bytes]:
    authority = trustme.CA()
    mine = authority.issue_cert("stock")
    pair = mine.private_key_pem.bytes(), b"".join(pem.bytes() for pem in mine.cert_chain_pems)
    return grpc.ssl_server_credentials([pair]), authority.cert_pem.bytes()


@pytest.fixture
def one(meshlib_grpc_upstream: Any, issued: Any) -> Any:
    return meshlib_grpc_upstream("v1", credentials=issued[0])


@pytest.fixture(params=FACES)
def channel(request: pytest.FixtureRequest, issued: Any) -> Iterator[Make]:
    """A function that makes a channel of each kind, with TLS unless it is told otherwise."""
    meshes: list[meshlib.Mesh] = []

    def make(*servers: Any, tokens: Any = None, credentials: Any = "tls", **policies: Any) -> Channel:
        mesh = meshlib.Mesh(service(*servers, **policies), tokens=tokens)
        meshes.append(mesh)
        if credentials == "tls":
            credentials = grpc.ssl_channel_credentials(issued[1])
        return channels.make(mesh, credentials=credentials)

    with Channels(request.param) as channels:
        yield make
    for mesh in meshes:
        mesh.close()


def arrived(server: Any) -> list[list[str]]:
    return [[value for key, value in each.metadata if key == "authorization"] for each in server.requests]


@every_way
def test_a_service_gets_its_token_at_each_attempt(channel: Make, one: Any, way: Any) -> None:
    given = iter(range(100))
    one.fail(Code.UNAVAILABLE, times=1)
    here = channel(
        one, tokens={"stock": lambda: f"{TOKEN}-{next(given)}"}, retry={"attempts": 3, "on": ["unavailable"]}
    )
    way(here, timeout=20.0)
    assert arrived(one) == [[f"Bearer {TOKEN}-0"], [f"Bearer {TOKEN}-1"]]


@every_way
def test_what_the_application_brings_holds(channel: Make, one: Any, way: Any, issued: Any) -> None:
    asked: list[None] = []
    tokens = {"stock": lambda: asked.append(None)}
    here = channel(one, tokens=tokens)
    way(here, timeout=20.0, metadata=(("authorization", "Basic mine"),))
    mine = grpc.access_token_call_credentials("of-the-call")
    way(here, timeout=20.0, credentials=mine)
    both = grpc.composite_channel_credentials(grpc.ssl_channel_credentials(issued[1]), mine)
    way(channel(one, tokens=tokens, credentials=both), timeout=20.0)
    assert arrived(one) == [["Basic mine"], ["Bearer of-the-call"], ["Bearer of-the-call"]]
    assert not asked


@every_way
@pytest.mark.parametrize("credentials", ["none", "of this machine"])
def test_it_does_not_go_in_plain_text(
    channel: Make, meshlib_grpc_upstream: Any, way: Any, credentials: str
) -> None:
    one = meshlib_grpc_upstream("v1")
    here = channel(
        one,
        tokens={"stock": lambda: TOKEN},
        credentials=None if credentials == "none" else grpc.local_channel_credentials(),
    )
    with pytest.raises(
        meshlib.NoHealthyEndpoint, match="stock wants a token: it goes over TLS only"
    ) as caught:
        way(here, timeout=20.0)
    error: Any = caught.value
    assert (error.code(), one.requests_total) == (Code.UNAVAILABLE, 0)


@every_way
def test_a_call_without_its_token_fails_in_words(channel: Make, one: Any, way: Any) -> None:
    def source() -> str:
        raise RuntimeError(f"not to be told: {TOKEN}")

    here = channel(one, tokens={"stock": source}, retry={"attempts": 3, "on": ["unavailable"]})
    with pytest.raises(
        meshlib.NoHealthyEndpoint, match=r"stock wants a token: .*failed \(RuntimeError\)"
    ) as caught:
        way(here, timeout=20.0)
    error: Any = caught.value
    info = meshlib.call_info(error)
    assert info is not None
    assert TOKEN not in f"{error!r}{error}{error.details()}{info!r}{info.trace()}"
    assert [(each.outcome, each.sent) for each in info.attempts] == [("refused", False)]
    status = here.mesh.status().clusters["stock"]
    assert (status.active, status.failures, status.endpoints[0].health) == (0, 0, "healthy")
    assert one.requests_total == 0


@every_way
def test_an_asynchronous_source(channel: Make, one: Any, way: Any) -> None:
    async def source() -> str:
        await asyncio.sleep(0)
        return TOKEN

    here = channel(one, tokens={"stock": source})
    if here.kind == "aio":
        way(here, timeout=20.0)
        assert arrived(one) == [[f"Bearer {TOKEN}"]]
        return
    with pytest.raises(meshlib.NoHealthyEndpoint, match="asynchronous, and the client is not"):
        way(here, timeout=20.0)


@every_way
def test_one_that_does_not_come_back_is_not_waited_for(channel: Make, one: Any, way: Any) -> None:
    end = threading.Event()

    def source() -> str:
        end.wait(20)
        return TOKEN

    here = channel(one, tokens={"stock": source})
    if here.kind == "sync" and way in (WAYS["unary"], WAYS["with_call"]):
        end.set()  # a blocking call calls it itself, and nobody can take it back from there
        way(here, timeout=20.0)
        assert arrived(one) == [[f"Bearer {TOKEN}"]]
        return
    try:
        with pytest.raises(grpc.RpcError) as caught:
            way(here, timeout=0.5)
    finally:
        end.set()
    error: Any = caught.value
    assert (error.code(), one.requests_total) == (Code.DEADLINE_EXCEEDED, 0)


@pytest.mark.parametrize("way", ["future", "server stream", "both streams"])
def test_one_that_does_not_come_in_the_time_of_an_attempt(channel: Make, one: Any, way: str) -> None:
    end = threading.Event()

    def source() -> str:
        end.wait(20)
        return TOKEN

    here = channel(one, tokens={"stock": source}, retry={"attempts": 2, "per_try_timeout": 0.2})
    try:
        with pytest.raises(
            meshlib.NoHealthyEndpoint, match="stock wants a token: it did not come in time"
        ) as caught:
            WAYS[way](here)
    finally:
        end.set()
    error: Any = caught.value
    assert (error.code(), one.requests_total) == (Code.UNAVAILABLE, 0)


@every_way
@pytest.mark.parametrize("whose", ["the application's TLS", "the mesh's TLS"])
def test_that_of_the_file_is_read_at_each_use(
    channel: Make, one: Any, way: Any, issued: Any, tmp_path: Path, whose: str
) -> None:
    file, ca = tmp_path / "token", tmp_path / "ca.pem"
    ca.write_bytes(issued[1])
    credentials = "tls" if whose.startswith("the app") else None
    here = channel(one, token=str(file), tls={"ca": str(ca)}, credentials=credentials)
    with pytest.raises(
        meshlib.NoHealthyEndpoint, match=f"stock wants a token: the token {file} cannot be read"
    ):
        way(here, timeout=20.0)
    for text in (f"{TOKEN}-1\n", f"  {TOKEN}-2"):
        file.write_text(text)
        way(here, timeout=20.0)
    assert arrived(one) == [[f"Bearer {TOKEN}-1"], [f"Bearer {TOKEN}-2"]]
    for text in ("", "two words", "a\nb", "x" * 20_000):
        file.write_text(text)
        with pytest.raises(meshlib.NoHealthyEndpoint, match=f"stock wants a token: {file} holds no token"):
            way(here, timeout=20.0)
    assert one.requests_total == 2
