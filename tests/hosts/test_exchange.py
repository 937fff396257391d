"""Retries, bodies, connections, events: what happens within a call."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections import Counter
from typing import Any

import pytest

import meshlib
from meshlib.model.events import AttemptEnded, AttemptStarted, CallEnded
from meshlib.testing import ControlPlane, build
from tests.hosts.columns import Ask
from tests.hosts.kit import active, ended_here, names, service
from tests.support.late import within

UpstreamFactory = Any
Open = Any

RETRY = {"attempts": 3, "on": ["5xx", "reset", "connect-failure"]}


def kinds(client: Any) -> list[Any]:
    """Events of calls, from now on."""
    seen: list[Any] = []
    client.mesh._runtime().observe(seen.append)
    return seen


def collect(client: Any) -> None:
    """Find what nobody holds any more, and let what that begins be done."""
    gc.collect()
    client.settle()
    client.mesh._runtime().worker.call(lambda: None, 5.0)


def test_a_failed_answer_is_tried_again(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    one = meshlib_upstream("one")
    one.fail(503, times=2)
    answer = open_client(service(one, retry=RETRY)).call()
    if right == "no retries":
        assert (answer.status, one.requests_total) == (503, 1)
        return
    assert answer.status == 200
    assert answer.info is not None
    assert [attempt.status for attempt in answer.info.attempts] == [503, 503, 200]


def test_after_the_last_retry_the_last_answer_is_given(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    one = meshlib_upstream("one")
    one.fail(503)
    answer = open_client(service(one, retry=RETRY)).call()
    assert answer.status == 503
    assert answer.info is not None
    assert len(answer.info.attempts) == (1 if right == "no retries" else 3)


@pytest.mark.parametrize("case", ["503, tell", "503, silent", "429, tell"])
def test_an_answer_after_the_last_attempt_says_so_where_that_is_ordered(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str, case: str
) -> None:
    """`spent_retries`: a client above that has retries of its own makes none. What is not tried again (429) is left to it."""
    status, word = case.split(", ")
    one = meshlib_upstream("one")
    one.order(status=int(status), headers=(("x-should-retry", "true"), ("retry-after", "1")))
    answer = open_client({**service(one, retry=RETRY), "spent_retries": word}).call()
    attempts = 1 if status == "429" or right == "no retries" else 3
    assert (answer.status, one.requests_total) == (int(status), attempts)
    assert answer.headers["x-should-retry"] == ("false" if word == "tell" and attempts == 3 else "true")
    assert answer.headers["retry-after"] == "1"


def test_a_failure_that_is_told_as_a_response_says_so_too(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    dead = meshlib_upstream("dead")
    dead.kill()
    config = {**service(dead, retry=RETRY), "failures": "respond", "spent_retries": "tell"}
    answer = open_client(config).call()
    attempts = 1 if right == "no retries" else 3
    assert answer.info is not None
    assert (answer.status, len(answer.info.attempts)) == (503, attempts)
    assert answer.headers.get("x-should-retry") == ("false" if attempts == 3 else None)


def test_a_refused_connection_is_tried_elsewhere(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    dead, alive = meshlib_upstream("dead"), meshlib_upstream("alive")
    dead.kill()
    client = open_client(service(dead, alive, retry=RETRY, balancer="round_robin"))
    if right == "no retries":
        answers = client.together([Ask()] * 6)
        assert sum(isinstance(answer, meshlib.errors.ConnectFailed) for answer in answers) == 3
    else:
        assert names(client, 6) == {"alive": 6}


@pytest.mark.parametrize("replayable", [True, False])
def test_a_body_is_sent_again_only_where_it_can_be(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str, replayable: bool
) -> None:
    one = meshlib_upstream("one")
    one.fail(503, times=1)
    client = open_client(service(one, retry=RETRY))
    body: Any = b"once and again" if replayable else (b"once", b" and never again")
    answer = client.call(method="POST", body=body)
    tried_again = replayable and right != "no retries"
    assert answer.status == (200 if tried_again else 503)
    assert [request.body for request in one.requests] == (
        [body, body] if tried_again else [body if replayable else b"".join(body)]
    )


def test_a_small_answer_that_is_not_wanted_keeps_its_connection(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    one = meshlib_upstream("one")
    client = open_client(service(one, retry=RETRY))
    for _ in range(5):
        one.fail(503, times=2)
        client.call()
    assert one.requests_total == (5 if right == "no retries" else 15)
    assert one.connections_total == 1


def test_an_answer_that_is_dropped_gives_all_back(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    one = meshlib_upstream("one")
    one.order(body="x" * 1_000_000, times=1)
    client = open_client(service(one, limits={"max_requests": 1}))
    client.drop(client.begin(Ask()))
    assert active(client) == 0
    assert client.call().said["name"] == "one"


def test_an_answer_that_is_lost_gives_all_back(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    """Nobody read or closed it; the collector finds it."""
    one = meshlib_upstream("one")
    one.order(body="x" * 1_000_000, times=1)
    client = open_client(service(one, limits={"max_requests": 1}))
    client.begin(Ask())
    collect(client)
    assert active(client) == 0
    assert client.call().said["name"] == "one"


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_ends_at_once(
    open_client: Open, meshlib_upstream: UpstreamFactory, status: int
) -> None:
    one = meshlib_upstream("one")
    one.order(status=status, body="", times=3)
    client = open_client(service(one))
    for _ in range(3):
        assert (client.call().status, active(client)) == (status, 0)
    assert one.connections_total == 1


def test_head_has_no_body(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    one = meshlib_upstream("one")
    client = open_client(service(one))
    for _ in range(3):
        answer = client.call(method="HEAD")
        assert (answer.status, answer.body) == (200, b"")
    assert (one.connections_total, active(client)) == (1, 0)


def test_each_attempt_begins_and_ends_once(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    dead, one = meshlib_upstream("dead"), meshlib_upstream("one")
    dead.kill()
    one.fail(503, times=2)
    client = open_client(service(dead, one, retry={**RETRY, "attempts": 6}))
    seen = kinds(client)
    for _ in range(6):
        with contextlib.suppress(meshlib.MeshError):  # the last attempt may be that at the dead one
            client.call()
    started = [event.key for event in seen if isinstance(event, AttemptStarted)]
    ended = [event.key for event in seen if isinstance(event, AttemptEnded)]
    assert len(set(started)) == len(started) >= 6
    assert sorted(started) == sorted(ended)
    assert sum(isinstance(event, CallEnded) for event in seen) == 6


def test_a_direct_call_is_an_attempt_too(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    one = meshlib_upstream("one")
    client = open_client(service(meshlib_upstream("other")))
    seen = kinds(client)
    client.call(url=one.url)
    found = Counter(type(event).__name__ for event in seen)
    assert (found["AttemptStarted"], found["AttemptEnded"]) == (1, 1)


def test_an_idle_connection_ends_by_itself(
    open_client: Open, meshlib_upstream: UpstreamFactory, meshlib_control_plane: ControlPlane
) -> None:
    """Without another call that would look for it, and long before the library's own keep-alive."""
    one = meshlib_upstream("one")
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        "common_http_protocol_options": {"idle_timeout": "0.2s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    extension = {"typed_extension_protocol_options": {name: build.any_of(name, options)}}
    routes = build.route_config("r", build.virtual_host("v", build.route("/", cluster="c")))
    meshlib_control_plane.set(
        build.api_listener("reviews", routes), build.cluster("c", [one.address], **extension)
    )

    def idle() -> float:
        client = open_client({"xds": {"server": meshlib_control_plane.address}}, keepalive=60.0)
        client.call()
        began = time.monotonic()
        if client.is_async:  # a loop that stands still ends nothing
            client.do(asyncio.to_thread(one.wait_for, lambda: one.connections_open == 0, timeout=20))
        else:
            one.wait_for(lambda: one.connections_open == 0, timeout=20)
        return time.monotonic() - began

    within(0.0, 2.0, idle)


def test_a_connection_that_the_server_ended_is_not_used_again(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    one = meshlib_upstream("one")
    client = open_client(service(one))
    for _ in range(5):
        assert client.call().said["name"] == "one"
        one.close_connections()
        one.wait_for(lambda: one.connections_open == 0)
        assert ended_here(one)
        client.settle()


def test_a_freed_connection_goes_to_the_longest_waiter(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    """Sixteen calls on one connection are answered in the order in which they came to wait, and none starves."""
    one = meshlib_upstream("one")
    client = open_client(service(one), connections=1, pool=20.0, connect=20.0)
    answers = client.together([Ask(headers=(("x-n", str(number)),)) for number in range(16)])
    assert not [answer for answer in answers if isinstance(answer, BaseException)]
    assert one.requests_total == 16
    assert one.connections_total == 1


def test_many_at_once(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    servers = [meshlib_upstream("a"), meshlib_upstream("b")]
    client = open_client(service(*servers, balancer="round_robin"))
    answers = client.together([Ask() for _ in range(40)])
    found = Counter(answer.said["name"] for answer in answers if not isinstance(answer, BaseException))
    assert found == {"a": 20, "b": 20}
    assert active(client) == 0


@pytest.mark.parametrize("moment", ["connect", "head", "body"])
def test_a_cancelled_call_gives_all_back(
    open_client: Open, meshlib_upstream: UpstreamFactory, moment: str
) -> None:
    one = meshlib_upstream("one")
    if moment == "head":
        one.hang()
    elif moment == "body":
        one.order(hold="body", body="x" * 1000)
    client = open_client(service(one))
    if not client.is_async:
        return  # nobody cancels a thread
    seen = kinds(client)

    async def cancelled() -> None:
        async def call() -> None:
            await client.finish_async(await client.begin_async(Ask()))

        task = asyncio.ensure_future(call())
        if moment == "connect":
            await asyncio.sleep(0)
        else:
            await asyncio.to_thread(one.wait_for, lambda: one.held == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    client.do(cancelled())
    one.release()
    one.behave()
    if moment == "body":
        collect(client)  # a response whose reading was cancelled is its caller's to close
    assert active(client) == 0
    started = [event.key for event in seen if isinstance(event, AttemptStarted)]
    ended = [event.key for event in seen if isinstance(event, AttemptEnded)]
    assert started == ended
    assert client.call().said["name"] == "one"


def test_the_hosts_own_redirects_are_calls_of_their_own(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    one = meshlib_upstream("one")
    one.order(status=302, headers=(("location", "/there"),), times=1)
    client = open_client(service(one))
    answer = client.call(follow=True)
    if right == "given":
        assert (answer.status, answer.headers["location"]) == (302, "/there")
        return
    assert answer.said["path"] == "/there"
    assert answer.info is not None
    assert len(answer.info.attempts) == 1


def test_an_endpoint_that_moves_is_called_where_it_is(
    open_client: Open, meshlib_upstream: UpstreamFactory, meshlib_control_plane: Any
) -> None:
    old, new = meshlib_upstream("old"), meshlib_upstream("new")
    routes = build.route_config("r", build.virtual_host("v", build.route("/", cluster="c")))
    meshlib_control_plane.set(build.api_listener("reviews", routes), build.cluster("c", [old.address]))
    client = open_client({"xds": {"server": meshlib_control_plane.address}})
    assert client.call().said["name"] == "old"
    meshlib_control_plane.set(build.api_listener("reviews", routes), build.cluster("c", [new.address]))

    def moved(_: object) -> bool:
        found = client.mesh.status().clusters["c"].endpoints
        return [endpoint.address for endpoint in found] == [new.address]

    assert client.mesh._runtime().store.wait(moved, 10.0)
    assert client.call().said["name"] == "new"


def test_what_a_proxy_of_the_mesh_may_not_change(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    """Header lines of the application arrive as they are, in their order, repeated lines too."""
    one = meshlib_upstream("one")
    client = open_client(service(one))
    sent = (("x-one", "1"), ("x-two", "2"), ("x-three", "a, b"))
    lines = client.call(headers=sent).said["headers"]
    assert [(name.lower(), value) for name, value in lines if name.lower().startswith("x-")] == list(sent)
