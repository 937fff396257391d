"""A Celery worker in the mesh, with the file that docs/tasks/celery.md shows: real processes, a Redis on loopback.

Who sends the tasks is a web application under gunicorn; who is called says which headers came.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshlib.testing import ControlPlane, Upstream, build
from tests.support import celery_kit
from tests.support.asking import asked
from tests.support.celery_kit import MISSING, Redis, Results, Worker, page_blocks
from tests.support.late import again_if_late, soon
from tests.support.storm import SERVICE, Calls, Storm
from tests.support.telemetry import sdk

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(celery_kit.SERVER is None, reason=MISSING)

#: What a log may not have.
BAD = ("Traceback", "ERROR/", "CRITICAL/", "ResourceWarning", "RuntimeWarning", "DeprecationWarning")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Shop:
    """The site's processes, on one Redis, with one configuration of the mesh."""

    def __init__(self, place: Path, broker: Redis) -> None:
        self.place = place
        self.broker = broker
        self.workers: list[Worker] = []
        self.results = Results(broker, lambda: "\n".join(worker.stacks() for worker in self.workers))
        self.stack = ExitStack()
        self.web: Any = None
        (place / "mesh_celery.py").write_text(page_blocks()[0])
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MESHLIB_", "GRPC_", "OTEL_", "CELERY_"))
        }
        path = os.pathsep.join([str(place), str(ROOT), str(ROOT / "adapters")])
        self.environment = {**kept, "PYTHONPATH": path, "SITE_BROKER": broker.url}

    def configured(self, config: dict[str, Any]) -> None:
        (self.place / "mesh.json").write_text(json.dumps(config))
        self.environment["MESHLIB_CONFIG"] = str(self.place / "mesh.json")

    def worker(self, *options: str, pool: str = "prefork", **environment: str) -> Worker:
        log = self.place / f"worker-{uuid.uuid4().hex[:6]}.log"
        made = Worker(log, {**self.environment, **environment}, *options, pool=pool)
        self.workers.append(made)
        return self.stack.enter_context(made)

    def start_web(self) -> None:
        """gunicorn with threads, so that requests can be many at a time."""
        options = ("--threads", "8", "--worker-class", "gthread")
        self.web = self.stack.enter_context(celery_kit.site(self.place, self.environment, *options))

    def send(
        self, name: str, kind: str, headers: dict[str, str] | None = None, **query: str | int
    ) -> list[str]:
        """What the web application sent for one request."""
        if self.web is None:
            self.start_web()
        response = httpx.post(
            f"{self.web.url}/send/{name}/{kind}", params=query, headers=headers, timeout=20.0
        )
        assert response.status_code == 200, self.web.log
        found: list[str] = response.json()
        return found


@pytest.fixture
def shop(tmp_path: Path, broker: Redis) -> Iterator[Shop]:
    made = Shop(tmp_path, broker)
    with made.results, made.stack:
        yield made
    with broker.client() as client:
        client.flushall()


@pytest.fixture
def stock() -> Iterator[Upstream]:
    with Upstream("stock") as server:
        yield server


@pytest.fixture
def plane(stock: Upstream) -> Iterator[ControlPlane]:
    """Has ``stock``."""
    route = build.route(cluster="stock", timeout=20.0)
    hosts = build.virtual_host("stock", route, domains=["stock"])
    with ControlPlane(
        build.api_listener("stock", "routes"),
        build.route_config("routes", hosts),
        build.cluster("stock"),
        build.endpoints("stock", build.endpoint(stock.address)),
    ) as server:
        yield server


def xds(plane: ControlPlane) -> dict[str, Any]:
    """With one stream a process, so that they can be counted."""
    return {"xds": {"server": plane.address, "view": "target"}}


def trace_of(number: int) -> dict[str, str]:
    """The headers of a request of a trace of its own, whose caller waits 15 s."""
    return {
        "traceparent": f"00-{number:032x}-00000000000000aa-01",
        "tracestate": "shop=1",
        "baggage": "tenant=blue",
        "x-request-id": f"request-{number}",
        "x-envoy-expected-rq-timeout-ms": "15000",
    }


def trace(number: int = 1) -> tuple[str, dict[str, str]]:
    """The id of a trace, and those headers."""
    return f"{number:032x}", trace_of(number)


def carried(headers: dict[str, str]) -> tuple[str | None, ...]:
    parent = headers.get("traceparent")
    return (
        parent and parent[3:35],
        headers.get("tracestate"),
        headers.get("baggage"),
        headers.get("x-request-id"),
    )


def quiet(worker: Worker) -> None:
    """Nobody raised, and meshlib warned of nothing."""
    lines = worker.log.splitlines()
    bad = [
        one for one in lines if any(word in one for word in BAD) or ("WARNING/" in one and "meshlib" in one)
    ]
    assert not bad, worker.log[-4000:]


# --- what a task inherits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_task_belongs_to_the_request_that_sent_it(shop: Shop, plane: ControlPlane, pool: str) -> None:
    shop.configured(xds(plane))
    worker = shop.worker("--concurrency", "2", pool=pool)
    sent = {}
    for number, kind in enumerate(("requests", "client", "async"), 1):
        if (pool, kind) == ("gevent", "async"):
            continue  # asyncio under gevent's patches is nobody's promise
        trace_id, headers = trace(number)
        sent[trace_id, True] = shop.send("reserve", kind, headers, awaited=1, many=2)
        sent[trace_id, False] = shop.send("reserve", kind, headers, many=2)
    nobodys = shop.send("reserve", "client", many=2)
    for (trace_id, awaited), ids in sent.items():
        for found in shop.results.values(ids):
            headers = found["headers"]
            assert found["via"] == "mesh"
            assert carried(headers) == (trace_id, "shop=1", "tenant=blue", f"request-{int(trace_id, 16)}")
            left = int(headers.get("x-envoy-expected-rq-timeout-ms", 0))
            if awaited:
                assert 0 < left < 15_000
            else:
                # Nobody waits: the route's own 20 s.
                assert 15_000 < left <= 20_000
    for found in shop.results.values(nobodys):
        assert carried(found["headers"]) == (None,) * 4
        assert int(found["headers"]["x-envoy-expected-rq-timeout-ms"]) > 15_000
    assert worker.stop(10.0) < 10.0
    quiet(worker)


def test_what_a_task_sends_and_what_follows_it_is_of_the_same_trace(shop: Shop, stock: Upstream) -> None:
    shop.configured({"services": {"stock": {"endpoints": [stock.address]}}})
    shop.worker("--concurrency", "2")
    trace_id, headers = trace()
    (inner,) = shop.results.values(shop.send("sends", "client", headers))
    chained = shop.send("chain", "requests", headers, awaited=1)
    chorded = shop.send("chord", "client", headers, many=3)
    stock.order(status=503, times=1, where=lambda head: head.path.startswith("/again"))
    repeated = shop.send("repeated", "requests", headers, path="again", awaited=1)
    found = [
        *shop.results.values([inner]),
        *(one for end in (chained, chorded) for value in shop.results.values(end) for one in value),
        *shop.results.values(repeated),
    ]
    assert [one["path"] for one in found[:3]] == ["/task/0", "/task/0", "/last"]
    assert len(found) == 1 + 2 + 4 + 1
    assert found[-1]["retries"] == 1
    for one in found:
        assert carried(one["headers"]) == (trace_id, "shop=1", "tenant=blue", "request-1")
    assert int(found[-1]["headers"]["x-envoy-expected-rq-timeout-ms"]) < 15_000


def test_a_task_that_runs_in_its_caller_is_part_of_it(shop: Shop, stock: Upstream) -> None:
    shop.configured({"services": {"stock": {"endpoints": [stock.address]}}})
    trace_id, headers = trace()
    (found,) = shop.send("eager", "client", headers)
    assert carried(found["headers"])[0] == trace_id  # type: ignore[index]
    assert int(found["headers"]["x-envoy-expected-rq-timeout-ms"]) < 15_000  # type: ignore[index]


def test_a_task_whose_sender_has_gone_is_not_run(shop: Shop, stock: Upstream) -> None:
    shop.configured({"services": {"stock": {"endpoints": [stock.address]}}})
    _, headers = trace()
    late = shop.send("reserve", "client", headers | {"x-envoy-expected-rq-timeout-ms": "300"}, awaited=1)
    until = time.time() + 0.5
    assert asked(
        lambda: time.time() > until
    )  # the time of day itself: the deadline is read in other processes
    shop.worker("--concurrency", "1")
    (found,) = shop.results.wait(late)
    assert found["status"] == "REVOKED"
    assert stock.requests_total == 0


def test_headers_that_are_not_what_they_should_be_are_as_good_as_absent(
    shop: Shop, stock: Upstream, broker: Redis
) -> None:
    """Anybody who can write to the broker says what is in a message."""
    from celery import Celery

    shop.configured({"services": {"stock": {"endpoints": [stock.address]}}})
    shop.worker("--concurrency", "1")
    headers = {"traceparent": "00-zz", "x-request-id": "a\r\nx-evil: 1", "baggage": 7, "tracestate": ["x"]}
    with Celery("other", broker=broker.url, backend=broker.url) as app:
        sent = [app.send_task("shop.reserve", ("client", "x"), headers=headers).id]
        sent.append(app.send_task("shop.reserve", ("client", "x"), headers={"mesh-deadline": 1e300}).id)
        for found in shop.results.values(sent):
            assert carried(found["headers"]) == (None,) * 4
            assert "x-evil" not in found["headers"]


def test_a_message_carries_the_span_that_is_active_where_it_is_sent() -> None:
    """With baggage of OpenTelemetry's; of a request being served without a span, what it said; what is there stays."""
    from opentelemetry import baggage, context, trace

    from meshlib.inbound import enter, leave, of_scope

    file: dict[str, Any] = {}
    exec(compile(page_blocks()[0], "mesh_celery.py", "exec"), file)
    with sdk():
        token = enter(of_scope([(name.encode(), value.encode()) for name, value in trace_of(7).items()], 0.0))
        try:
            said: dict[str, str] = {}
            file["sent"](headers=said)
            assert carried(said) == (f"{7:032x}", "shop=1", "tenant=blue", "request-7")
            with trace.get_tracer("web").start_as_current_span("view") as span:
                file["sent"](headers=said)
                assert carried(said)[0] == f"{7:032x}"  # a task that is repeated
                attached = context.attach(baggage.set_baggage("tenant", "red"))
                fresh: dict[str, str] = {}
                file["sent"](headers=fresh)
                context.detach(attached)
        finally:
            leave(token)
        ids = span.get_span_context()
        assert fresh["traceparent"].startswith(f"00-{ids.trace_id:032x}-{ids.span_id:016x}-")
        assert carried(fresh)[1:] == (None, "tenant=red", "request-7")
        nobodys: dict[str, str] = {}
        file["sent"](headers=nobodys)
        assert nobodys == {}


# --- processes that come and go -----------------------------------------------------------------------------------------


def test_a_call_before_the_fork_is_a_warning_and_beat_runs_beside_it(
    shop: Shop, plane: ControlPlane, stock: Upstream
) -> None:
    """The site is imported in the parent and makes a call there; beat is a fork of it as the children are."""
    shop.configured(xds(plane))
    worker = shop.worker(
        "--concurrency", "2", "--beat", "--schedule", str(shop.place / "beat"), SITE_EARLY="1"
    )
    trace_id, headers = trace()
    ids = [
        one
        for number in range(8)
        for one in shop.send("reserve", "requests", headers, many=2, path=f"{number}")
    ]
    for found in shop.results.values(ids):
        assert carried(found["headers"])[0] == trace_id
        assert found["pid"] != worker.process.pid  # type: ignore[union-attr]
    stock.wait_for(lambda: sum(one.path == "/beat" for one in stock.requests) >= 3, timeout=20.0)
    beats = [dict(one.headers) for one in stock.requests if one.path == "/beat"]
    assert not any("traceparent" in one for one in beats)
    assert worker.stop(10.0) < 10.0
    assert worker.log.count("meshlib: a control-plane stream ran before fork") == 1
    assert "Traceback" not in worker.log


def test_a_child_that_is_killed_leaves_nothing_and_its_task_runs_again(
    shop: Shop, plane: ControlPlane, stock: Upstream
) -> None:
    shop.configured(xds(plane))
    worker = shop.worker("--concurrency", "2", "--prefetch-multiplier", "1")
    trace_id, headers = trace()
    first = shop.results.values(shop.send("reserve", "client", headers, many=8))
    plane.wait_for_streams(2, timeout=10.0)
    stock.order(hold="head", times=1, where=lambda head: head.path == "/killed/0")
    ids = shop.send("sturdy", "client", headers, path="killed")
    stock.wait_for(lambda: stock.held == 1, timeout=10.0)
    before = worker.children()
    # Of the two, the one that has a call under way: the other is killed too, since nobody can tell them apart.
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    (found,) = shop.results.values(ids)
    assert carried(found["headers"])[0] == trace_id
    assert found["pid"] not in before
    assert {one["pid"] for one in first} <= before
    # The kernel knows a process's children, and tells only their parent.
    assert asked(lambda: len(worker.children()) == 2)
    assert not worker.children() & before
    plane.wait_for_streams(2, timeout=10.0)
    stock.behave()
    assert worker.stop(10.0) < 10.0
    plane.wait_for_streams(0, timeout=5.0)
    stock.wait_for(lambda: stock.connections_open == 0, timeout=5.0)
    assert not [one for one in worker.log.splitlines() if "WARNING/" in one and "meshlib" in one]


def test_children_that_end_after_their_tasks_close_what_they_had(
    shop: Shop, plane: ControlPlane, stock: Upstream
) -> None:
    shop.configured(xds(plane))
    worker = shop.worker("--concurrency", "2", "--max-tasks-per-child", "3")
    trace_id, headers = trace()
    found = shop.results.values(shop.send("reserve", "requests", headers, many=24), 60.0)
    assert {carried(one["headers"])[0] for one in found} == {trace_id}
    assert len({one["pid"] for one in found}) >= 8
    plane.wait_for_streams(2, timeout=10.0)
    assert plane.opened >= 8
    stock.wait_for(lambda: stock.connections_open <= 2, timeout=10.0)
    assert worker.stop(10.0) < 10.0
    quiet(worker)


@pytest.mark.timeout(180)
@again_if_late
def test_a_warm_shutdown_takes_as_long_as_the_deadline_of_its_calls(
    shop: Shop, plane: ControlPlane, stock: Upstream
) -> None:
    """With the control plane away as well."""
    plane.start()
    stock.behave()
    shop.configured(xds(plane))
    worker = shop.worker("--concurrency", "2")
    _, headers = trace()
    shop.results.values(shop.send("reserve", "client", headers, many=4))
    stock.hang()
    ids = shop.send("reserve", "requests", headers | {"x-envoy-expected-rq-timeout-ms": "3000"}, awaited=1)
    stock.wait_for(lambda: stock.held == 1, timeout=10.0)
    plane.kill()
    took = worker.stop(12.0)
    (found,) = shop.results.wait(ids)
    assert found["status"] == "FAILURE"
    assert "deadline" in str(found["result"]["exc_message"]), found
    stock.behave()
    soon(took, 8.0, "the end")


def test_gevent_without_grpcs_preparation_fails_at_once_with_the_remedy(
    shop: Shop, plane: ControlPlane
) -> None:
    shop.configured(xds(plane))
    worker = shop.worker("--concurrency", "2", pool="gevent", SITE_UNPREPARED="1")
    _, headers = trace()
    (found,) = shop.results.wait(shop.send("reserve", "client", headers))
    assert found["status"] == "FAILURE"
    assert "init_gevent" in str(found["result"]["exc_message"])
    assert worker.stop(10.0) < 10.0


# --- thousands -----------------------------------------------------------------------------------------------------------

COUNT = int(os.environ.get("MESHLIB_FLEET_REQUESTS", "5000"))
#: Tasks for each web request, and so of each trace; requests under way at a time.
EACH, WIDTH = 5, 8
RETRY = {
    "retry_on": "connect-failure,refused-stream,reset",
    "num_retries": 3,
    "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
}


class Traffic:
    """Web requests that send tasks, and the end of those tasks; what was seen of each."""

    def __init__(self, shop: Shop, calls: Calls) -> None:
        self.shop = shop
        self.calls = calls
        self.wrong: list[Any] = []
        self.pids: set[int] = set()
        self.attempts: dict[int, int] = {}
        self._numbers = iter(range(1, 10**9))
        self._lock = threading.Lock()  # guards what is above

    def run(self) -> None:
        """Until the calls are no longer wanted."""
        with ThreadPoolExecutor(WIDTH) as pool:
            for done in [pool.submit(self._caller) for _ in range(WIDTH)]:
                done.result()

    def _caller(self) -> None:
        with (
            httpx.Client(base_url=self.shop.web.url, timeout=30.0) as client,
            Results(self.shop.broker) as results,
        ):
            while self.calls.wanted:
                with self._lock:
                    number = next(self._numbers)
                trace_id, headers = trace(number)
                kind = ("requests", "client")[number % 2]
                query = {"awaited": 1, "many": EACH, "path": f"fleet-{number}"}
                ids = (
                    client.post(f"/send/reserve/{kind}", params=query, headers=headers)
                    .raise_for_status()
                    .json()
                )
                began = time.monotonic()
                for place, ended in enumerate(results.wait(ids, 60.0)):
                    self._note(ended, trace_id, f"/fleet-{number}/{place}", began)

    def _note(self, ended: dict[str, Any], trace_id: str, path: str, began: float) -> None:
        found, failed = ended["result"], None
        if ended["status"] != "SUCCESS":
            failed = RuntimeError(str(ended))
        elif (
            carried(found["headers"])[0] != trace_id
            or found["path"] != path
            or not 0 < int(found["headers"]["x-envoy-expected-rq-timeout-ms"]) < 15_000
        ):
            failed = AssertionError(f"{path}: {found}")
        self.calls.ended(began, failed)
        if failed is None:
            with self._lock:
                self.pids.add(found["pid"])
                self.attempts[found["attempts"]] = self.attempts.get(found["attempts"], 0) + 1


@pytest.mark.fleet
@pytest.mark.timeout(600)
def test_no_task_fails_while_endpoints_and_the_control_plane_are_restarted(
    tmp_path: Path, shop: Shop, record_property: Any
) -> None:
    began = time.monotonic()
    with Storm() as storm:
        shop.configured(storm.xds(RETRY))
        route = build.route(cluster=SERVICE, timeout=20.0, retry=RETRY)
        assert storm.control_plane is not None
        storm.control_plane.update(
            build.api_listener("stock", "stock-routes"),
            build.route_config("stock-routes", build.virtual_host("stock", route, domains=["stock"])),
        )
        worker = shop.worker("--concurrency", "3")
        shop.start_web()
        calls = Calls(COUNT)
        traffic = Traffic(shop, calls)
        storm.begin(calls, restarts=4)
        traffic.run()
        storm.verify(4)
        assert not calls.failures, "\n".join(str(one.error) for one in calls.failures[:5])
        assert calls.done >= COUNT
        assert len(traffic.pids) == 3
        assert sum(count for number, count in traffic.attempts.items() if number > 1) > 0
        ended = worker.stop(10.0)
        assert ended < 10.0
        storm.control_plane.wait_for_streams(0, timeout=5.0)
    assert "Traceback" not in worker.log
    record_property("seconds", time.monotonic() - began)
    print(
        f"{calls.done} tasks in {time.monotonic() - began:.1f} s, ended in {ended:.2f} s, {traffic.attempts}"
    )
