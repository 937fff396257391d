"""gRPC channels and the sidecar beside them; channels of services that have not joined."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import meshlib
from meshlib.model.events import CONNECTED, DISCONNECTED, ConnectionChanged
from tests.support.grpc_channels import FACES, Channel, Channels

Open = Callable[..., Channel]
#: Of a mesh that tells of connections.
OBSERVED = {"telemetry": {"metrics": ["grpc.subchannel"]}}


@pytest.fixture(params=FACES)
def channel(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Makes a channel of one kind in a mesh of its own."""
    with Channels(request.param) as channels:
        yield channels.make


def handed(address: str, *others: Any, **sidecar: Any) -> dict[str, Any]:
    services = {"stock": {"endpoints": [one.address for one in others]}} if others else {}
    return {"sidecar": {"mode": "envoy", "address": address, **sidecar}, "services": services}


def changes_of(here: Channel) -> queue.Queue[str]:
    """What becomes of its connections, from now on."""
    changes: queue.Queue[str] = queue.Queue()
    assert here.mesh is not None
    here.mesh._runtime().observe(
        lambda event: changes.put(event.change) if isinstance(event, ConnectionChanged) else None, calls=False
    )
    return changes


def test_a_listener_of_a_sidecar_carries_the_call(channel: Open, meshlib_grpc_upstream: Any) -> None:
    sidecar, one = meshlib_grpc_upstream("sidecar"), meshlib_grpc_upstream("one")
    here = channel(handed(sidecar.address, one), "stock:9080")
    answer, call = here.call()
    info = meshlib.call_info(call)
    assert info is not None
    assert (info.via, info.endpoint, len(info.attempts)) == ("sidecar", sidecar.address, 1)
    assert b'"name": "sidecar"' in answer
    assert here.said()["authority"] == "stock:9080"


def test_the_retries_are_the_sidecars(channel: Open, meshlib_grpc_upstream: Any) -> None:
    sidecar, one = meshlib_grpc_upstream("sidecar"), meshlib_grpc_upstream("one")
    sidecar.fail(grpc.StatusCode.UNAVAILABLE)
    config = handed(sidecar.address, one)
    config["services"]["stock"]["retry"] = {"attempts": 3, "on": ["unavailable"]}
    with pytest.raises(grpc.RpcError) as caught:
        channel(config).unary()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    assert (sidecar.requests_total, one.requests_total) == (1, 0)


def test_a_sidecar_that_went_away_gives_the_calls_back_and_takes_them_again(
    channel: Open, meshlib_grpc_upstream: Any
) -> None:
    sidecar, one = meshlib_grpc_upstream("sidecar"), meshlib_grpc_upstream("one")
    config = handed(sidecar.address, one)
    here = channel(config | OBSERVED)
    assert here.mesh is not None
    changes = changes_of(here)
    assert here.who() == "sidecar"
    assert changes.get(timeout=10) == CONNECTED
    sidecar.kill()
    # A call before that is lost with the connection, and may have been sent.
    assert changes.get(timeout=10) == DISCONNECTED
    assert here.who(timeout=10) == "one"
    sidecar.restart()
    until = time.monotonic() + 10
    while here.who(timeout=10) != "sidecar":
        assert time.monotonic() < until
    assert here.mesh.status().sidecar.in_use


def test_a_sidecar_that_went_away_is_an_error_where_calls_may_not_go_without(
    channel: Open, meshlib_grpc_upstream: Any
) -> None:
    sidecar, one = meshlib_grpc_upstream("sidecar"), meshlib_grpc_upstream("one")
    here = channel(handed(sidecar.address, one, fallback="never") | OBSERVED)
    changes = changes_of(here)
    assert here.who() == "sidecar"
    assert changes.get(timeout=10) == CONNECTED
    sidecar.kill()
    # A call before that is lost with the connection, and nothing is said of the sidecar.
    assert changes.get(timeout=10) == DISCONNECTED
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            here.unary(timeout=10)
        error: Any = caught.value
        info = meshlib.call_info(error)
        assert info is not None
        assert (error.code(), info.via) == (grpc.StatusCode.UNAVAILABLE, "sidecar")
        assert "sidecar envoy" in error.details()
    assert one.requests_total == 0


def test_dapr_gets_its_applications_name(
    channel: Open, meshlib_grpc_upstream: Any, meshlib_upstream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar, health = meshlib_grpc_upstream("sidecar"), meshlib_upstream("health")
    monkeypatch.setenv("DAPR_GRPC_PORT", sidecar.address.rpartition(":")[2])
    monkeypatch.setenv("DAPR_HTTP_PORT", health.address.rpartition(":")[2])
    here = channel({"sidecar": {"mode": "dapr"}}, "stock:9080")
    assert here.who() == "sidecar"
    assert ["dapr-app-id", "stock"] in [list(pair) for pair in here.said()["metadata"]]


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_a_service_that_has_not_joined_is_called_the_old_way(
    channel: Open, meshlib_grpc_upstream: Any, mode: str
) -> None:
    old, new = meshlib_grpc_upstream("old"), meshlib_grpc_upstream("new")
    config = {"services": {"127.0.0.1": {"endpoints": [new.address]}}, "adoption": {"127.0.0.1": mode}}
    here = channel({**config, "sidecar": {"mode": "off"}}, old.address)
    answer, call = here.call()
    assert b'"name": "old"' in answer
    info = meshlib.call_info(call)
    assert here.mesh is not None
    seen: Any = here.mesh.status().adoption["services"]
    if mode == "off":
        assert (info, seen["127.0.0.1"]["calls"]) == (None, 0)
        return
    assert info is not None
    assert info.via == "direct"
    assert (seen["127.0.0.1"]["calls"], seen["127.0.0.1"]["different"]) == (1, {"port": 1})
