"""Breakers outlive the worker: what one process knew, the next goes on from. And processes share one by a real Redis, whatever becomes of that."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pybreaker
import pytest
import redis

import meshlib
from meshlib.runtime import pybreaker_bridge
from tests.support.celery_kit import Redis

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


def storage(server: Redis, name: str) -> Any:
    # So long that a busy machine loses nothing of what is kept there.
    client = redis.Redis.from_url(server.url, socket_timeout=5.0, socket_connect_timeout=5.0)
    return pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client, namespace=name)


def test_two_meshes_share_breakers_by_a_real_redis_and_its_end_fails_no_call(
    redis_server: Redis, upstream: Any
) -> None:
    one = upstream()

    def made() -> dict[str, Any]:
        route = {
            **ROUTES[0],
            "breaker": {
                "consecutive_failures": 1,
                "open_for": 60.0,
                "storage": storage(redis_server, "route"),
            },
        }
        breaker = {"consecutive_failures": 3, "open_for": 60.0, "storage": storage(redis_server, "service")}
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
        redis_server._process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert [client.get("http://reviews/").status_code for _ in range(20)] == [200] * 20
            assert time.monotonic() - began < 4.5, "nobody waits for it: that were 5 s"
        finally:
            redis_server._process.send_signal(signal.SIGCONT)
        redis_server._process.terminate()
        redis_server._process.wait(10)
        assert [client.get("http://reviews/").status_code for _ in range(5)] == [200] * 5
        one.fail(500, times=3)
        for _ in range(3):
            client.get("http://reviews/")
        with pytest.raises(meshlib.CircuitOpen):
            client.get("http://reviews/")


def shared(upstream: Any, server: Redis, **breaker: Any) -> dict[str, Any]:
    kept = {"open_for": 60.0, "storage": storage(server, "shared"), **breaker}
    return config(upstream, breaker=kept)


def settled(mesh: meshlib.Mesh) -> None:
    live = mesh._runtime().clusters.get("static", "reviews")
    assert live._breakers.one._bridge.idle(20)


def test_a_decision_is_one_script_and_pybreaker_sees_it(
    redis_server: Redis, upstream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pybreaker_bridge, "POLL", 60.0)  # a look by the clock is a script, too
    one = upstream()
    with (
        meshlib.Mesh(shared(one, redis_server, consecutive_failures=6)) as mesh,
        meshlib.Client(mesh=mesh) as client,
        redis.Redis.from_url(redis_server.url) as asking,
    ):
        client.get("http://reviews/")
        settled(mesh)
        asking.config_resetstat()
        one.fail(500, times=6)
        for _ in range(6):
            client.get("http://reviews/")
        settled(mesh)
        told = asking.info("commandstats")
        assert told["cmdstat_evalsha"]["calls"] == 6
        within = {"get", "set", "incr", "mget"}
        assert {name.removeprefix("cmdstat_") for name in told} <= {
            "evalsha",
            "info",
            "config|resetstat",
            *within,
        }
        theirs = pybreaker.CircuitBreaker(
            fail_max=6, reset_timeout=60, state_storage=storage(redis_server, "shared")
        )
        with pytest.raises(pybreaker.CircuitBreakerError):
            theirs.call(bool)
        assert theirs.fail_counter == 6


def test_failures_of_all_count_together_exactly(redis_server: Redis, upstream: Any) -> None:
    one = upstream()
    one.fail(500, times=100)
    limit = shared(one, redis_server, consecutive_failures=9)
    with (
        meshlib.Mesh(limit) as mesh,
        meshlib.Mesh(shared(one, redis_server, consecutive_failures=9)) as other,
        meshlib.Client(mesh=mesh) as client,
        meshlib.Client(mesh=other) as neighbour,
    ):
        for _ in range(4):
            for each, caller in ((mesh, client), (other, neighbour)):
                caller.get("http://reviews/")
                settled(each)
        assert {each.status().clusters["reviews"].breaker for each in (mesh, other)} == {"closed"}
        client.get("http://reviews/")
        settled(mesh)
        with pytest.raises(meshlib.CircuitOpen):
            client.get("http://reviews/")


def test_a_redis_that_goes_away_closes_no_breaker(redis_server: Redis, upstream: Any) -> None:
    """pybreaker says "closed" where it cannot ask."""
    one = upstream()
    with (
        meshlib.Mesh(shared(one, redis_server, consecutive_failures=2)) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        one.fail(500, times=2)
        for _ in range(2):
            client.get("http://reviews/")
        settled(mesh)
        assert redis_server._process is not None
        redis_server._process.kill()
        redis_server._process.wait(10)
        until = time.monotonic() + 3 * pybreaker_bridge.POLL
        while time.monotonic() < until:
            with pytest.raises(meshlib.CircuitOpen):
                client.get("http://reviews/")
        settled(mesh)
        with pytest.raises(meshlib.CircuitOpen):
            client.get("http://reviews/")


@pytest.mark.parametrize("kept", [b"\xff\xfe", b"ajar", b""])
def test_whatever_another_keeps_there_a_call_goes_on(redis_server: Redis, upstream: Any, kept: bytes) -> None:
    one = upstream()
    with redis.Redis.from_url(redis_server.url) as asking:
        made = shared(one, redis_server, consecutive_failures=3)
        for name in ("state", "opened_at", "fail_counter"):
            asking.set(f"shared:pybreaker:{name}", kept)
        with meshlib.Mesh(made) as mesh, meshlib.Client(mesh=mesh) as client:
            for _ in range(3):
                assert client.get("http://reviews/").status_code == 200
                settled(mesh)
