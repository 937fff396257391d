"""gRPC channels where the mesh demands TLS: what is shown and checked, whose credentials hold, and what a refusal says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import meshlib
from tests.support.grpc_channels import FACES, Channel, Channels
from tests.support.grpc_tls import CLIENT, SERVER, Mesh, socket_of, world
from tests.support.issued import Authority

Code = grpc.StatusCode


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
    assert meshlib.call_info(call).endpoint == one.address
    assert one.connections_total == 1
