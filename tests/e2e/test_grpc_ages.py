"""How old the connections of gRPC channels grow, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import meshlib
from meshlib.testing import ControlPlane, VirtualClock, build
from tests.support.grpc_channels import FACES, Channel, Channels, service

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@pytest.fixture(params=FACES)
def channel(request: pytest.FixtureRequest, meshlib_mesh: Any, meshlib_clock: VirtualClock) -> Iterator[Any]:
    """A function that makes channels of one kind in one mesh: ``channel({"services": …})``, to ``stock``."""

    def make(config: dict[str, Any] | meshlib.Mesh) -> Channel:
        mesh = meshlib_mesh(config, clock=meshlib_clock) if isinstance(config, dict) else config
        return channels.make(mesh)

    with Channels(request.param) as channels:
        yield make


def of_the_file(age: float, plane: ControlPlane, *servers: Any) -> dict[str, Any]:
    return service(*servers, max_connection_age=age)


def of_a_control_plane(age: float, plane: ControlPlane, *servers: Any) -> dict[str, Any]:
    common = {"max_connection_duration": build.duration(age)}
    held = {
        "common_http_protocol_options": common,
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    extension = {"typed_extension_protocol_options": {_OPTIONS: build.any_of(_OPTIONS, held)}}
    routes = build.route_config("r", build.virtual_host("v", build.route("/", cluster="c")))
    plane.set(
        build.api_listener("stock", routes),
        build.cluster("c", [server.address for server in servers], **extension),
    )
    return {"xds": {"server": plane.address}}


@pytest.mark.parametrize("config", [of_the_file, of_a_control_plane])
def test_a_connection_that_is_older_is_replaced_between_two_calls(
    channel: Callable[..., Channel],
    config: Any,
    meshlib_grpc_upstream: Any,
    meshlib_control_plane: ControlPlane,
    meshlib_clock: VirtualClock,
) -> None:
    one = meshlib_grpc_upstream("v1")
    first = channel(config(300.0, meshlib_control_plane, one))
    second = channel(first.mesh)
    for connections in (1, 2, 3):
        assert {first.who(), second.who()} == {"v1"}
        meshlib_clock.advance(299.0)
        assert {first.who(), second.who()} == {"v1"}
        assert one.connections_total == connections, "channels of a process share them"
        meshlib_clock.advance(1.0)


def test_calls_under_way_end_in_peace(
    channel: Callable[..., Channel], meshlib_grpc_upstream: Any, meshlib_clock: VirtualClock
) -> None:
    one = meshlib_grpc_upstream("v1")
    here = channel(service(one, max_connection_age=60.0))
    one.hang()
    held = here.begun()
    one.wait_for(lambda: one.held == 1)
    meshlib_clock.advance(60.0)
    young = here.begun()
    one.wait_for(lambda: one.held == 2)
    # The old connection is looked at each second, and stays for its call.
    meshlib_clock.advance(10.0)
    assert not here.do(held.done)
    assert not here.do(young.done)
    one.behave()
    assert [str(here.do(call.code)) for call in (held, young)] == ["StatusCode.OK"] * 2
    assert one.connections_total == 2
    status = here.mesh.status() if here.mesh is not None else None
    assert status is not None
    assert status.clusters["stock"].failures == 0
