"""gRPC channels where the mesh demands TLS: what is shown and checked, whose credentials hold, and what a refusal says."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.experimental
import pytest

import meshlib
from tests.support.grpc_channels import FACES, Channel, Channels
from tests.support.grpc_tls import SERVER, Listener, Mesh, socket_of, world
from tests.support.issued import Authority

Code = grpc.StatusCode
OTHER = "spiffe://mesh/ns/shop/sa/other"


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with world() as made:
        yield made


@pytest.fixture(params=FACES)
def channel(request: pytest.FixtureRequest, mesh: Mesh) -> Iterator[Callable[..., Channel]]:
    """A function that makes channels of one kind to ``stock``."""
    with Channels(request.param) as channels:
        yield lambda **options: channels.make(mesh.config, **options)


def test_calls_of_every_kind_go_over_it(channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any) -> None:
    one = meshlib_grpc_upstream("v1", credentials=mesh.server())
    mesh.say(one.address)
    here = channel()
    said = here.said()
    assert (said["name"], said["authority"]) == ("v1", "stock")
    assert len(here.server_stream(b"x", metadata=(("x-upstream-order", '{"messages": 3}'),))) == 3
    assert here.client_stream([b"a", b"b"])
    assert len(here.both_streams([b"a", b"b"])) == 2
    _, call = here.call()
    info = meshlib.call_info(call)
    assert info is not None
    assert info.endpoint == one.address
    assert one.connections_total == 1


def test_large_messages_and_a_reader_that_waits(channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any) -> None:
    one = meshlib_grpc_upstream("v1", credentials=mesh.server())
    mesh.say(one.address)
    here = channel()
    whole = bytes(range(256)) * 4096  # 1 MiB, beyond what sockets and the tunnel hold
    order = (("x-upstream-order", '{"echo": true}'),)
    assert here.unary(whole, metadata=order) == whole
    assert here.both_streams([whole, whole[::-1], b""], metadata=order) == [whole, whole[::-1], b""]


# --- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ("root", "certificate verify failed"),
        ("name", "none of the names"),
        ("expired", "certificate has expired"),
        ("no names", "none of the names"),
    ],
)
def test_who_is_not_who_it_must_be_gets_no_byte(channel: Any, mesh: Mesh, refusal: str, words: str) -> None:
    """TL-04; the server says so itself."""
    root = Authority("other").root if refusal == "root" else mesh.authority.root
    sans = (
        ("URI", OTHER)
        if refusal == "name"
        else ("DNS", "stock")
        if refusal == "no names"
        else ("URI", SERVER)
    )
    held = mesh.authority.issue(
        *(() if refusal == "no names" else (SERVER,)),
        common="stock",
        until=dt.timedelta(hours=-1 if refusal == "expired" else 1),
    )
    with Listener(held) as server:
        mesh.say(server.address, socket=socket_of(root, sans, shown=mesh.shown))
        with pytest.raises(meshlib.ConnectFailed, match=words) as caught:
            channel().unary(timeout=20.0)
        server.ends.get(timeout=20)
        assert server.received == b""
    error: Any = caught.value
    assert error.code() is Code.UNAVAILABLE
    assert re.search(words, error.details())
