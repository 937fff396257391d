"""Breakers outlive the worker: what one process knew, the next goes on from. And processes share one by a real Redis, whatever becomes of that."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pybreaker
import pytest
import redis

import meshlib
from tests.support.celery_kit import MISSING, SERVER, Redis

ROUTES = [
    {
        "name": "fragile",
        "match": {"prefix": "/fragile"},
        "breaker": {"consecutive_failures": 1, "open_for": 60.0},
    }
]


def config(upstream: Any, **policies: Any) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": [upstream.address], **policies}}}


def test_the_next_worker_goes_on_from_there(upstream: Any) -> None:
    one = upstream()
    policies: dict[str, Any] = {
        "routes": ROUTES,
        "breaker": {
            "consecutive_failures": 0,
            "failure_rate": 0.5,
            "window": 10,
            "minimum": 4,
            "open_for": 60.0,
        },
        "endpoint_breaker": {"consecutive_failures": 9},
    }
    with meshlib.Mesh(config(one, **policies)) as mesh, meshlib.Client(mesh=mesh) as client:
        client.get("http://reviews/")
        one.fail(500, times=2)
        client.get("http://reviews/fragile")
        client.get("http://reviews/")
        kept = json.dumps(mesh.breakers())
    with meshlib.Mesh(config(one, **policies)) as mesh, meshlib.Client(mesh=mesh) as client:
        mesh.restore_breakers(json.loads(kept))
        with pytest.raises(meshlib.CircuitOpen, match="route fragile"):
            client.get("http://reviews/fragile")
        assert mesh.status().clusters["reviews"].breaker == "closed"
        one.fail(500, times=1)
        client.get("http://reviews/")
        assert mesh.status().clusters["reviews"].breaker == "open", "three of four"
        again = mesh.breakers()
    names = {str(entry.get("endpoint", "the route")) for entry in again["breakers"]}  # type: ignore[attr-defined]
    assert names == {"", one.address, "the route"}


@pytest.mark.parametrize(
    "value",
    [None, {}, {"version": 2}, {"version": 1, "at": 0}, {"version": 1, "at": 0, "breakers": [1]},
     {"version": 1, "at": True, "breakers": []}, {"version": 1, "at": float("-inf"), "breakers": []},
     {"version": 1, "at": 0, "breakers": [{"route": ["a"], "knows": {"state": "open"}}]},
     {"version": 1, "at": 0, "breakers": [{"cluster": "reviews", "knows": {"state": "ajar"}}]}],
)  # fmt: skip
def test_what_is_no_such_value_is_refused(value: Any, upstream: Any) -> None:
    with meshlib.Mesh(config(upstream())) as mesh, pytest.raises(ValueError, match="breakers"):
        mesh.restore_breakers(value)


@pytest.fixture
def server(tmp_path: Any) -> Iterator[Redis]:
    if SERVER is None:
        pytest.skip(MISSING)
    with Redis(tmp_path) as made:
        yield made


def storage(server: Redis, name: str) -> Any:
    client = redis.Redis.from_url(server.url, socket_timeout=0.3, socket_connect_timeout=0.3)
    return pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client, namespace=name)


def test_two_meshes_share_breakers_by_a_real_redis_and_its_end_fails_no_call(
    server: Redis, upstream: Any
) -> None:
    one = upstream()

    def made() -> dict[str, Any]:
        route = {
            **ROUTES[0],
            "breaker": {"consecutive_failures": 1, "open_for": 60.0, "storage": storage(server, "route")},
        }
        breaker = {"consecutive_failures": 3, "open_for": 60.0, "storage": storage(server, "service")}
        return config(one, breaker=breaker, routes=[route])

    with (
        meshlib.Mesh(made()) as mesh,
        meshlib.Mesh(made()) as other,
        meshlib.Client(mesh=mesh) as client,
        meshlib.Client(mesh=other) as neighbour,
    ):
        one.fail(500, times=1)
        client.get("http://reviews/fragile")
        until = time.monotonic() + 20
        refused = False
        while not refused and time.monotonic() < until:
            try:
                neighbour.get("http://reviews/fragile")
            except meshlib.CircuitOpen:
                refused = True
        assert refused, "the other learns of it, within its next looks"
        assert neighbour.get("http://reviews/").status_code == 200, "the route's alone"
        assert not mesh.breakers()["breakers"], "what a storage keeps is not kept twice"
        server._process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert [client.get("http://reviews/").status_code for _ in range(20)] == [200] * 20
            assert time.monotonic() - began < 5, "nobody waits for it"
        finally:
            server._process.send_signal(signal.SIGCONT)
        server._process.terminate()
        server._process.wait(10)
        assert [client.get("http://reviews/").status_code for _ in range(5)] == [200] * 5
        one.fail(500, times=3)
        for _ in range(3):
            client.get("http://reviews/")
        with pytest.raises(meshlib.CircuitOpen):
            client.get("http://reviews/")
