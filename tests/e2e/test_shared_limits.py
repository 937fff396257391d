"""Rate limits that processes share by a real Redis: exact while it answers, each process's own while it does not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import redis
import redis.asyncio

import meshlib
from meshlib.core import plan_limits
from meshlib.runtime import shared
from tests.support.celery_kit import Redis
from tests.support.grpc_channels import FACES, Channel, service
from tests.support.late import again_if_late, soon

#: So slow that a test sees none of it.
HOURLY = {"per": 3600.0}

#: Seconds that a call waits for Redis, as it is.
SECONDS = plan_limits.SECONDS


@pytest.fixture(autouse=True)
def _redis_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes Redis late, and a call that gives it up counts for itself: no count would be exact."""
    wait(monkeypatch, 10.0)


def wait(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A call waits so long for Redis."""
    for module in (plan_limits, shared):
        monkeypatch.setattr(module, "SECONDS", seconds)


def config(address: str, server: Redis, **limit: Any) -> dict[str, Any]:
    limited = {"rate": 10.0, **HOURLY, "storage": redis.Redis.from_url(server.url), **limit}
    return {
        "sidecar": {"mode": "off"},
        "services": {"reviews": {"endpoints": [address], "rate_limit": limited}},
    }


@contextmanager
def halted(server: Redis) -> Iterator[None]:
    """It takes connections and what is sent, and answers nothing."""
    assert server._process is not None
    server._process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server._process.send_signal(signal.SIGCONT)


def scripts(server: Redis) -> dict[str, int]:
    """How often each command ran that we sent."""
    with redis.Redis.from_url(server.url) as asking:
        stats = asking.info("commandstats")
    others = {
        "time",
        "hmget",
        "hset",
        "pexpire",
        "info",
        "hello",
        "client|setinfo",
    }  # the script's, and the client's first words
    told = {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}
    return {name: calls for name, calls in told.items() if name not in others}


async def all_at_once(mesh: meshlib.Mesh, calls: int) -> list[int]:
    async with meshlib.AsyncClient(mesh=mesh) as client:
        answers = await asyncio.gather(*(client.get("http://reviews/") for _ in range(calls)))
    return [answer.status_code for answer in answers]


def test_threads_and_tasks_of_two_meshes_have_one_bucket(redis_server: Redis, upstream: Any) -> None:
    one = upstream()
    with (
        meshlib.Mesh(config(one.address, redis_server, burst=40)) as mesh,
        meshlib.Mesh(config(one.address, redis_server, burst=40)) as other,
        meshlib.Client(mesh=mesh) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        threads = [pool.submit(client.get, "http://reviews/") for _ in range(40)]
        statuses = Counter(asyncio.run(all_at_once(other, 40)))
        statuses += Counter(each.result().status_code for each in threads)
        assert statuses == {200: 40, 429: 40}
        assert client.get("http://reviews/").text == "local_rate_limited"
        info = meshlib.call_info(client.get("http://reviews/"))
        assert "the rate limit of cluster 'reviews' is reached" in info.trace()[-1]
    ran = scripts(redis_server)
    assert set(ran) <= {"eval", "evalsha"}
    assert ran["eval"] <= 2, "the script's text is sent where it is not known, once"
    assert ran["evalsha"] <= 82 + 2, "one a decision at most: those that come together ask together"


PROGRAM = """
import json, sys
import meshlib, redis
from meshlib.core import plan_limits
from meshlib.runtime import shared

plan_limits.SECONDS = shared.SECONDS = 10.0  # as in the tests' own process
address, url = sys.argv[1:]
limit = {"rate": 10.0, "per": 3600.0, "burst": 25, "storage": redis.Redis.from_url(url)}
services = {"reviews": {"endpoints": [address], "rate_limit": limit}}
with meshlib.Mesh({"services": services, "sidecar": {"mode": "off"}}) as mesh, meshlib.Client(mesh=mesh) as client:
    print(json.dumps([client.get("http://reviews/").status_code for _ in range(20)]), flush=True)
"""


def test_processes_have_one_bucket(redis_server: Redis, upstream: Any) -> None:
    one = upstream()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, one.address, redis_server.url],
            stdout=subprocess.PIPE,
            env=environment,
        )
        for _ in range(3)
    ]
    answers = [json.loads(each.communicate(timeout=50)[0]) for each in running]
    assert Counter(status for each in answers for status in each) == {200: 25, 429: 35}


def test_a_fork_has_it_too(redis_server: Redis, upstream: Any) -> None:
    one = upstream()
    with (
        meshlib.Mesh(config(one.address, redis_server, burst=6)) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        assert [client.get("http://reviews/").status_code for _ in range(3)] == [200] * 3
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                found = [client.get("http://reviews/").status_code for _ in range(3)]
                os.write(writing, json.dumps(found).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading) as told:
            assert json.load(told) == [200] * 3
        os.waitpid(child, 0)
        assert client.get("http://reviews/").status_code == 429, "the child took what was left"


def test_a_route_has_its_own_beside_the_services(redis_server: Redis, upstream: Any) -> None:
    """A call that its route refuses takes nothing from the service."""
    one = upstream()
    made = config(one.address, redis_server, burst=5)
    limit = {"rate": 1.0, **HOURLY, "burst": 2, "storage": redis.Redis.from_url(redis_server.url)}
    made["services"]["reviews"]["routes"] = [
        {"name": "few", "match": {"prefix": "/few"}, "rate_limit": limit}
    ]
    with meshlib.Mesh(made) as mesh, meshlib.Client(mesh=mesh) as client:
        assert [client.get("http://reviews/few").status_code for _ in range(4)] == [200, 200, 429, 429]
        assert [client.get("http://reviews/").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert "route few" in meshlib.call_info(client.get("http://reviews/few")).trace()[-1]


@pytest.mark.parametrize("kind", FACES)
def test_calls_of_grpc_too(redis_server: Redis, meshlib_grpc_upstream: Any, kind: str) -> None:
    one = meshlib_grpc_upstream("one")
    limit = {"rate": 10.0, **HOURLY, "burst": 3, "storage": redis.Redis.from_url(redis_server.url)}
    with meshlib.Mesh(service(one, rate_limit=limit)) as mesh, Channel(kind, "stock", mesh) as here:
        for _ in range(3):
            here.call(timeout=20.0)
        with pytest.raises(grpc.RpcError) as caught:
            here.call(timeout=20.0)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@again_if_late  # a machine that stands still for a moment loses what is more than a burst
def test_it_fills_again_by_the_clock_of_redis(redis_server: Redis, upstream: Any) -> None:
    one = upstream()
    limits = {"rate": 50.0, "per": 1.0, "burst": 5}
    with (
        meshlib.Mesh(config(one.address, redis_server, **limits)) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        began = time.monotonic()
        passed = 0
        while time.monotonic() - began < 1.0:
            passed += client.get("http://reviews/").status_code == 200
        lasted = time.monotonic() - began
    assert passed <= 5 + 50 * lasted + 1
    soon(50 - passed, 11, "of 50 a second did not pass")


@again_if_late
def test_one_that_hangs_or_is_gone_fails_no_call_and_is_heard_again(
    redis_server: Redis, upstream: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait(monkeypatch, SECONDS)
    caplog.clear()
    with redis.Redis.from_url(redis_server.url) as other:
        other.flushall()
    one = upstream()
    client_of = redis.Redis.from_url(redis_server.url, socket_timeout=0.5)
    with (
        meshlib.Mesh(config(one.address, redis_server, burst=30, storage=client_of)) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        assert client.get("http://reviews/").status_code == 200
        with halted(redis_server):
            began = time.monotonic()
            assert [client.get("http://reviews/").status_code for _ in range(20)] == [200] * 20
            soon(time.monotonic() - began, 2.5, "the first waits, the others do not")
            assert asyncio.run(all_at_once(mesh, 5)) == [200] * 5
        answered = time.monotonic() + 20
        while "answers again" not in caplog.text and time.monotonic() < answered:
            client.get("http://reviews/")
        assert "does not answer within 0.25 s; each process counts for itself" in caplog.text
        assert "answers again" in caplog.text
        assert redis_server._process is not None
        redis_server._process.kill()
        redis_server._process.wait(10)
        statuses = Counter(client.get("http://reviews/").status_code for _ in range(60))
        assert set(statuses) <= {200, 429}
        assert statuses[429], "its own bucket holds"


def test_what_stands_in_its_place_is_no_answer(redis_server: Redis, upstream: Any, caplog: Any) -> None:
    one = upstream()
    with redis.Redis.from_url(redis_server.url) as other:
        other.set("meshlib:rate_limit:reviews", "of somebody else")
        with (
            meshlib.Mesh(config(one.address, redis_server, burst=2)) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):
            assert [client.get("http://reviews/").status_code for _ in range(3)] == [200, 200, 429]
            assert "WRONGTYPE" in caplog.text
        assert other.get("meshlib:rate_limit:reviews") == b"of somebody else"
        other.delete("meshlib:rate_limit:reviews")


@pytest.mark.parametrize(
    "kept", [{"tokens": "nan", "at": "nan"}, {"tokens": "1e308", "at": "-1e308"}, {"tokens": "x", "at": ""}]
)
def test_whatever_is_kept_no_more_pass_than_a_burst(
    redis_server: Redis, upstream: Any, kept: dict[str, str]
) -> None:
    one = upstream()
    with redis.Redis.from_url(redis_server.url) as other:
        other.hset("meshlib:rate_limit:reviews", mapping=kept)  # type: ignore[arg-type]
    with (
        meshlib.Mesh(config(one.address, redis_server, burst=2)) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        statuses = Counter(client.get("http://reviews/").status_code for _ in range(6))
    assert statuses[200] <= 2
    assert statuses[200] + statuses[429] == 6


def test_a_client_that_awaits_is_refused(upstream: Any) -> None:
    limit = {"rate": 1.0, "storage": redis.asyncio.Redis()}
    with pytest.raises(meshlib.ConfigError, match=r"rate_limit\.storage: must be a client of Redis"):
        meshlib.Mesh({"services": {"reviews": {"endpoints": ["127.0.0.1:1"], "rate_limit": limit}}})
