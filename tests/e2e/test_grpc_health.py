"""grpc's own client-side health checks (gRFC A17), ordered by a channel's service config, over the mesh: real servers with real ``Watch`` streams."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import meshlib
from tests.support.asking import asked
from tests.support.grpc_channels import FACES, Channel, Channels, service
from tests.support.on_clock import begun

Code = grpc.StatusCode
Status = health_pb2.HealthCheckResponse
SERVICE = "shop.Stock"


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # without types
    """Says of each service what the test says, to all who watch. ``code``: ends each stream at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._said: dict[str, int] = {}
        self.code: grpc.StatusCode | None = None
        self.begun: list[float] = []
        self.open = 0

    def say(self, status: int, name: str = SERVICE) -> None:
        with self._changed:
            self._said[name] = status
            self._changed.notify_all()

    def Watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        with self._changed:
            self.begun.append(time.monotonic())
            self.open += 1
        context.add_callback(self._ended)
        if self.code is not None:
            context.abort(self.code, "as ordered")
        last = None
        while context.is_active():
            with self._changed:
                found = self._said.get(request.service, Status.SERVICE_UNKNOWN)
                if found == last:
                    self._changed.wait()
                    continue
            last = found
            yield Status(status=found)

    def _ended(self) -> None:
        with self._changed:
            self.open -= 1
            self._changed.notify_all()


@pytest.fixture
def server(meshlib_grpc_upstream: Any) -> Any:
    """A function that makes a server and its health."""

    def make(name: str, status: int | None = Status.SERVING) -> tuple[Any, Health]:
        health = Health()
        if status is not None:
            health.say(status)
        add = health_pb2_grpc.add_HealthServicer_to_server
        return meshlib_grpc_upstream(name, setup=lambda server: add(health, server)), health

    return make


@pytest.fixture(params=FACES)
def channels(request: pytest.FixtureRequest) -> Iterator[Channels]:
    with Channels(request.param) as made:
        yield made


def checked(channels: Channels, *servers: Any, options: Any = (), **policies: Any) -> Channel:
    config = {"healthCheckConfig": {"serviceName": SERVICE}}
    given = [("grpc.service_config", json.dumps(config)), *options]
    return channels.make(service(*servers, **policies), options=given)


def names(here: Channel, count: int = 20) -> set[str]:
    return {here.who(timeout=20.0) for _ in range(count)}


def failures(here: Channel) -> int:
    (cluster,) = here.mesh.status().clusters.values()
    return cluster.failures


def test_an_endpoint_that_does_not_serve_gets_no_calls_until_it_does(channels: Channels, server: Any) -> None:
    (one, health), (two, _) = server("v1", Status.NOT_SERVING), server("v2")
    here = checked(channels, one, two)
    assert names(here) == {"v2"}
    assert one.requests_total == 0
    health.say(Status.SERVING)
    assert asked(lambda: "v1" in names(here, 4))
    assert names(here) == {"v1", "v2"}
    health.say(Status.NOT_SERVING)
    assert asked(lambda: "v1" not in names(here, 4))
    before = one.requests_total
    assert names(here) == {"v2"}
    assert one.requests_total == before
    assert failures(here) == 0, "nobody is blamed"
    assert len(health.begun) == 1, "one stream for the connection"


def test_where_nobody_serves_calls_fail_or_wait_and_no_breaker_opens(channels: Channels, server: Any) -> None:
    (one, health), (two, _) = server("v1", Status.NOT_SERVING), server("v2", Status.SERVICE_UNKNOWN)
    policies = {"breaker": {"consecutive_failures": 1}, "outlier": {"consecutive_5xx": 1}}
    here = checked(channels, one, two, **policies)
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as caught:
            here.who(timeout=20.0)
        assert caught.value.code() is Code.UNAVAILABLE
        assert isinstance(caught.value, meshlib.NoHealthyEndpoint)
        info = meshlib.call_info(caught.value)
        assert info is not None
        assert {attempt.outcome for attempt in info.attempts} <= {"connect"}
        assert not any(attempt.sent for attempt in info.attempts)
    (cluster,) = here.mesh.status().clusters.values()
    assert (cluster.failures, cluster.breaker) == (0, "closed")
    waits = threading.Timer(0.3, health.say, [Status.SERVING])
    waits.start()
    assert here.who(timeout=20.0, wait_for_ready=True) == "v1"
    assert (one.requests_total, two.requests_total) == (1, 0)


def test_a_server_without_the_service_is_called_and_asked_once(channels: Channels, server: Any) -> None:
    one, health = server("v1")
    health.code = Code.UNIMPLEMENTED
    here = checked(channels, one)
    assert names(here) == {"v1"}
    assert not asked(lambda: len(health.begun) > 1, 1.5)


def test_a_stream_that_fails_is_begun_again_after_a_back_off(channels: Channels, server: Any) -> None:
    (one, health), (two, _) = server("v1"), server("v2")
    health.code = Code.INTERNAL
    here = checked(channels, one, two)
    assert names(here) == {"v2"}
    assert not asked(lambda: len(health.begun) > 4, 2.0), "it is not hammered"
    health.code = None
    assert asked(lambda: "v1" in names(here, 4))
    gaps = [after - before for before, after in zip(health.begun, health.begun[1:], strict=False)]
    assert gaps
    assert max(gaps) > 0.5


def test_only_who_is_in_use_is_asked_and_no_more_once_the_channel_is_closed(
    channels: Channels, server: Any
) -> None:
    (one, health), (two, other) = server("v1"), server("v2")
    here = checked(channels, one, two)
    assert not asked(lambda: bool(health.begun or other.begun), 0.3)
    assert here.who(timeout=20.0)
    assert len(health.begun) + len(other.begun) == 1
    assert names(here) == {"v1", "v2"}
    assert (health.open, other.open) == (1, 1)
    (cluster,) = here.mesh.status().clusters.values()
    assert cluster.active == 0, "the streams are none of its calls"
    here.do(here.channel.close)
    assert asked(lambda: (health.open, other.open) == (0, 0))


@pytest.mark.parametrize("how", ["inhibited", "pick_first", "not ordered"])
def test_who_is_not_to_be_asked_is_called(channels: Channels, server: Any, how: str) -> None:
    one, health = server("v1", Status.NOT_SERVING)
    if how == "inhibited":
        here = checked(channels, one, options=[("grpc.inhibit_health_checking", 1)])
    elif how == "pick_first":
        here = checked(channels, one, balancer="pick_first")
    else:
        here = channels.make(service(one))
    assert names(here) == {"v1"}
    assert health.begun == []


def test_a_stream_of_answers_goes_on_where_its_server_stops_to_serve(channels: Channels, server: Any) -> None:
    one, health = server("v1")
    one.order(messages=2, hold="body", where=lambda received: received.method.endswith("UnaryStream"))
    here = checked(channels, one)
    answers = begun(here.server_stream, timeout=20.0)
    one.wait_for(lambda: one.held == 1, timeout=20.0)
    health.say(Status.NOT_SERVING)
    assert asked(lambda: refused(here)), "the channel knows it before the stream goes on"
    one.release()
    assert len(answers.result(20.0)) == 2


def refused(here: Channel) -> bool:
    try:
        here.who(timeout=20.0)
    except meshlib.NoHealthyEndpoint:
        return True
    return False
