"""The retries of an application's own service config, over the mesh."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import meshlib
from tests.support.grpc_channels import FACES, Channel, Channels, service

Code = grpc.StatusCode
_cases = itertools.count()
POLICY = {
    "maxAttempts": 3,
    "initialBackoff": "0.001s",
    "maxBackoff": "0.001s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["NOT_FOUND"],
}


@pytest.fixture(params=FACES)
def channel(request: pytest.FixtureRequest) -> Iterator[Callable[..., Channel]]:
    def make(*servers: Any, config: dict[str, Any], policies: Any = (), mesh: Any = None) -> Channel:
        options = [("grpc.service_config", json.dumps(config))]
        return channels.make(mesh or service(*servers, **dict(policies)), options=options)

    with Channels(request.param) as channels:
        yield make


def failing(here: Channel, code: Any = Code.NOT_FOUND) -> int:
    """How many attempts a call makes."""
    with pytest.raises(grpc.RpcError) as caught:
        here.unary(timeout=20.0)
    assert caught.value.code() is code
    info = meshlib.call_info(caught.value)
    assert info is not None
    return len(info.attempts)


def test_they_hold_where_the_mesh_orders_none(channel: Any, meshlib_grpc_upstream: Any) -> None:
    """Attempts are the mesh's: another endpoint gets the next."""
    servers = [meshlib_grpc_upstream(f"v{n}") for n in range(3)]
    here = channel(*servers, config={"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]})
    for server in servers:
        server.fail(Code.NOT_FOUND, times=1)
    assert failing(here) == 3
    assert [server.requests_total for server in servers] == [1, 1, 1]
    assert here.who(timeout=20.0)
    servers[0].fail(Code.NOT_FOUND)
    assert [here.server_stream(timeout=20.0) for _ in range(3)]


def test_they_are_of_the_methods_that_they_name(channel: Any, meshlib_grpc_upstream: Any) -> None:
    one = meshlib_grpc_upstream("v1")
    named = {"name": [{"service": "shop.Stock", "method": "Other"}], "retryPolicy": POLICY}
    here = channel(one, config={"methodConfig": [named]})
    one.fail(Code.NOT_FOUND)
    assert failing(here) == 1
    one.behave()
    one.fail(Code.NOT_FOUND, times=2)
    assert here.unary(method="Other", timeout=20.0)


def test_what_the_mesh_orders_wins(channel: Any, meshlib_grpc_upstream: Any) -> None:
    one = meshlib_grpc_upstream("v1")
    policies = {"retry": {"attempts": 2, "on": ["unavailable"]}}
    here = channel(one, config={"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]}, policies=policies)
    one.fail(Code.NOT_FOUND)
    assert failing(here) == 1
    one.behave()
    one.fail(Code.UNAVAILABLE)
    assert failing(here, Code.UNAVAILABLE) == 2


@pytest.mark.parametrize("orders", ["application", "mesh"])
def test_a_throttle_holds_for_either_and_for_all_channels(
    channel: Any, meshlib_grpc_upstream: Any, orders: str
) -> None:
    one = meshlib_grpc_upstream("v1")
    policies: Any = ()
    ratio = 1 - next(_cases) / 1000  # those of other cases are others' to share
    config: dict[str, Any] = {"retryThrottling": {"maxTokens": 6, "tokenRatio": ratio}}
    if orders == "mesh":
        policies = {"retry": {"attempts": 3, "on": ["unavailable"], "backoff_base": 0.001}}
        code = Code.UNAVAILABLE
    else:
        config["methodConfig"] = [{"name": [{}], "retryPolicy": POLICY}]
        code = Code.NOT_FOUND
    here = channel(one, config=config, policies=policies)
    other = channel(config=config, mesh=here.mesh)
    one.fail(code)
    # Six tokens: a retry is made as long as more than three are left.
    assert failing(here, code) == 3
    assert failing(other, code) == 1
    one.behave()
    for _ in range(3):
        here.who(timeout=20.0)
    one.fail(code)
    assert failing(here, code) == 2
