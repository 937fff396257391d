"""The HTTP clients against real servers, each test on httpx and httpx2, sync and async."""

from __future__ import annotations

import gc
import queue
import socket
import threading
import time
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing.upstream import Upstream
from tests.support.faces import Face, FaceFactory
from tests.support.late import again_if_late, soon
from tests.support.watch import Watch

UpstreamFactory = Any


def service(*upstreams: Upstream, **policies: Any) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": [up.address for up in upstreams], **policies}}}


def active(client: Face) -> int:
    return sum(cluster.active for cluster in client.mesh.status().clusters.values())  # type: ignore[attr-defined]


def test_a_route_that_may_not_be_silent_for_long(face: FaceFactory, upstream: UpstreamFactory) -> None:
    """Bytes that come in time end nothing, however long the whole takes."""
    one = upstream("v1")
    idle = {"/silent": 0.4, "/steady": 1.5}
    routes = [{"match": {"prefix": path}, "idle_timeout": seconds} for path, seconds in idle.items()]
    client = face(service(one, routes=routes))
    one.order(hold="head", times=1)
    with pytest.raises(meshlib.DeadlineExceeded, match="idle"):
        client.get("http://reviews/silent")
    one.order(body="x" * 1000, chunks=10, chunk_delay=0.2)
    assert len(client.get("http://reviews/steady").content) == 1000  # in 1.8 s


def test_a_call_reaches_an_endpoint_with_the_host_that_was_asked(
    face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    client = face(service(one))
    response = client.get("http://reviews/api/1?q=a%20b", headers={"X-Thing": "1"})
    said = response.json()
    assert (said["name"], said["method"], said["path"]) == ("v1", "GET", "/api/1?q=a%20b")
    assert [value for name, value in said["headers"] if name.lower() == "host"] == ["reviews"]
    assert ["X-Thing", "1"] in [[name, value] for name, value in said["headers"]] or ["x-thing", "1"] in said[
        "headers"
    ]
    info = meshlib.call_info(response)
    assert info is not None
    assert info is response.extensions["meshlib"]
    assert (info.via, info.cluster, info.endpoint) == ("mesh", "reviews", one.address)
    assert [(a.number, a.endpoint, a.outcome, a.status, a.sent) for a in info.attempts] == [
        (1, one.address, "ok", 200, True)
    ]
    assert info.to_dict()["endpoint"] == one.address
    assert any(one.address in line for line in info.trace())


def test_calls_are_balanced_over_all_endpoints(face: FaceFactory, upstream: UpstreamFactory) -> None:
    servers = [upstream(f"v{n}") for n in range(3)]
    client = face(service(*servers, balancer="round_robin"))
    names = [client.get("http://reviews/").json()["name"] for _ in range(9)]
    assert sorted(names) == ["v0"] * 3 + ["v1"] * 3 + ["v2"] * 3


def test_connections_are_kept_one_pool_an_endpoint(face: FaceFactory, upstream: UpstreamFactory) -> None:
    servers = [upstream("a"), upstream("b")]
    client = face(service(*servers))
    for _ in range(10):
        client.get("http://reviews/")
    assert [server.connections_total for server in servers] == [1, 1]


def test_a_host_that_nobody_knows_is_called_directly(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream("direct")
    client = face({})
    response = client.get(one.url + "/x")
    assert response.json()["name"] == "direct"
    info = meshlib.call_info(response)
    assert info is not None
    assert (info.via, info.endpoint, len(info.attempts)) == ("direct", one.address, 1)


def test_unknown_hosts_can_be_refused(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    client = face({"unknown_hosts": "refuse"})
    with pytest.raises(meshlib.UnknownService) as caught:
        client.get(one.url)
    assert isinstance(caught.value, client.library.ConnectError)
    assert caught.value.info is not None
    assert one.requests_total == 0


def test_bypassed_and_disabled_calls_are_plain(
    face: FaceFactory, upstream: UpstreamFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = upstream("one"), upstream("other")
    config = {**service(other), "bypass": ["127.0.0.1"]}
    config["services"]["127.0.0.1"] = {"endpoints": [other.address]}
    response = face(config).get(one.url)
    assert response.json()["name"] == "one"
    assert meshlib.call_info(response) is None
    monkeypatch.setenv("MESHLIB_DISABLED", "1")
    del config["bypass"]
    response = face(config).get(one.url)
    assert response.json()["name"] == "one"
    assert meshlib.call_info(response) is None


def test_a_failed_connection_is_retried_at_another_endpoint(
    face: FaceFactory, upstream: UpstreamFactory
) -> None:
    dead, alive = upstream("dead"), upstream("alive")
    dead.kill()
    client = face(service(dead, alive, retry={"attempts": 2, "on": ["connect-failure"]}))
    responses = [client.get("http://reviews/") for _ in range(4)]
    assert {response.json()["name"] for response in responses} == {"alive"}
    retried = [info for response in responses if len((info := meshlib.call_info(response)).attempts) > 1]
    assert retried
    assert [(a.endpoint, a.outcome, a.sent) for a in retried[0].attempts] == [
        (dead.address, "connect", False),
        (alive.address, "ok", True),
    ]


def test_a_failed_connection_is_both_libraries_error(face: FaceFactory, upstream: UpstreamFactory) -> None:
    dead = upstream()
    dead.kill()
    client = face(service(dead))
    with pytest.raises(meshlib.MeshError) as caught:
        client.get("http://reviews/")
    error = caught.value
    assert isinstance(error, client.library.ConnectError)
    assert isinstance(error, meshlib.ConnectFailed)
    assert error.request.url.host == "reviews"  # type: ignore[attr-defined]
    assert error.info is not None
    assert (error.info.endpoint, error.info.attempts[0].outcome, error.sent) == (
        dead.address,
        "connect",
        False,
    )
    assert meshlib.call_info(error) is error.info
    assert dead.address in str(error)


def test_statuses_are_retried_and_the_last_response_is_the_answer(
    face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream()
    one.fail(503)
    client = face(service(one, retry={"attempts": 3, "on": ["5xx"]}))
    response = client.get("http://reviews/")
    assert response.status_code == 503
    info = meshlib.call_info(response)
    assert [attempt.outcome for attempt in info.attempts] == ["status"] * 3
    assert one.requests_total == 3


@pytest.mark.parametrize("content", [b"same bytes", {"form": "data"}])
def test_a_body_that_can_be_replayed_is(face: FaceFactory, upstream: UpstreamFactory, content: Any) -> None:
    one = upstream()
    one.fail(503, times=1)
    client = face(service(one, retry={"attempts": 2, "on": ["5xx"]}))
    options = {"content": content} if isinstance(content, bytes) else {"data": content}
    response = client.request("POST", "http://reviews/", **options)
    assert response.status_code == 200
    first, second = one.requests
    assert first.body == second.body != b""


def test_a_body_that_cannot_be_replayed_is_not(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.fail(503, times=1)
    client = face(service(one, retry={"attempts": 2, "on": ["5xx"]}))
    response = client.request("POST", "http://reviews/", content=client.body([b"one", b"two"]))
    assert response.status_code == 503
    assert one.requests_total == 1


def test_idempotent_false_stops_once_anything_was_sent(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.fail(503, times=1)
    client = face(service(one, retry={"attempts": 2, "on": ["5xx"]}))
    options = meshlib.CallOptions(idempotent=False)
    assert client.get("http://reviews/", extensions={"meshlib": options}).status_code == 503
    assert client.get("http://reviews/").status_code == 200


def test_a_calls_own_retry_and_timeout(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.fail(503, times=2)
    client = face(service(one))
    options = meshlib.CallOptions(retry={"attempts": 3, "on": ["5xx"]})
    assert client.get("http://reviews/", extensions={"meshlib": options}).status_code == 200
    one.order(hold="head")
    with pytest.raises(meshlib.DeadlineExceeded) as caught:
        client.get("http://reviews/", extensions={"meshlib": meshlib.CallOptions(timeout=0.2)})
    one.release()
    assert isinstance(caught.value, client.library.ReadTimeout)
    assert caught.value.sent


def test_a_deadline_bounds_everything_inside(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.order(hold="head")
    # Nothing but the deadline ends these: each attempt lasts 0.1 s at least, so no more than four begin in time.
    retry = {"attempts": 100, "on": ["5xx"], "per_try_timeout": 0.1, "budget": 1.0, "budget_min": 100}
    client = face(service(one, retry=retry), timeout=None)
    for url in ("http://reviews/", one.url):
        begun = time.monotonic()
        with meshlib.deadline(0.3), pytest.raises(meshlib.DeadlineExceeded) as caught:
            client.get(url)
        assert time.monotonic() - begun > 0.1
        assert isinstance(caught.value, client.library.TimeoutException)
        assert caught.value.info is not None
        assert len(caught.value.info.attempts) <= 4
    one.release()


@again_if_late
def test_the_services_timeout_covers_its_retries(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.order(hold="head")
    retry = {"attempts": 9, "on": ["5xx"], "per_try_timeout": 0.15}
    client = face(service(one, timeout=0.4, retry=retry), timeout=None)
    begun = time.monotonic()
    with pytest.raises(meshlib.DeadlineExceeded) as caught:
        client.get("http://reviews/")
    assert time.monotonic() - begun > 0.2
    one.release()
    assert caught.value.info is not None
    made = len(caught.value.info.attempts)
    assert made <= 3  # a fourth would begin after 0.45 s
    soon(3 - made, 2, "attempts that were not begun in time")


def test_the_applications_own_read_timeout_holds(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.order(hold="head")
    client = face(service(one), timeout=0.2)
    with pytest.raises(client.library.ReadTimeout):
        client.get("http://reviews/")
    one.release()


def test_the_applications_own_write_timeout_holds(face: FaceFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # the system accepts, and nobody reads
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        client = face({"services": {"reviews": {"endpoints": [address]}}})
        patience = client.library.Timeout(None, write=0.2)
        with pytest.raises(client.library.WriteTimeout) as caught:
            client.request("PUT", "http://reviews/", content=b"x" * 50_000_000, timeout=patience)
    assert isinstance(caught.value, meshlib.DeadlineExceeded)
    assert caught.value.sent


def test_the_deadline_holds_in_the_body(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.order(body="x" * 10_000, chunks=100, chunk_delay=0.05)
    client = face(service(one, timeout=1.5))
    response = client.open("GET", "http://reviews/")
    with pytest.raises(meshlib.DeadlineExceeded) as caught:
        client.read(response)  # without a deadline it ends well, after 5 s
    assert caught.value.phase == "body"
    assert active(client) == 0


@pytest.mark.parametrize("order", [{"reset": "body"}, {"truncate": True}])
def test_a_response_cut_off_in_its_body_raises(
    face: FaceFactory, upstream: UpstreamFactory, order: dict[str, Any]
) -> None:
    one = upstream()
    one.order(body="x" * 100_000, **order)
    client = face(service(one, retry={"attempts": 3, "on": ["5xx", "reset"]}))
    response = client.open("GET", "http://reviews/")
    assert response.status_code == 200
    with pytest.raises(meshlib.TransportFailed) as caught:
        client.read(response)
    assert isinstance(caught.value, client.library.TransportError)
    assert caught.value.info is not None
    assert (caught.value.info.endpoint, len(caught.value.info.attempts)) == (one.address, 1)
    assert active(client) == 0


def test_reset_before_the_head_is_retried(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.order(reset="head", times=1)
    client = face(service(one, retry={"attempts": 2, "on": ["reset"]}))
    response = client.get("http://reviews/")
    assert [attempt.outcome for attempt in meshlib.call_info(response).attempts] == ["reset", "ok"]


def test_streams_both_ways(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.order(echo=True)
    client = face(service(one))
    chunks = [bytes([65 + n]) * 50_000 for n in range(10)]
    response = client.open("POST", "http://reviews/", content=client.body(chunks))
    assert client.read(response) == b"".join(chunks)
    assert active(client) == 0


def test_an_unread_body_that_is_closed_or_collected_releases_its_endpoint(
    face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream()
    one.order(body="x" * 1_000_000)
    client = face(service(one))
    watch = Watch(client.mesh)  # type: ignore[attr-defined]
    response = client.open("GET", "http://reviews/")
    assert active(client) == 1
    client.close_response(response)
    assert active(client) == 0
    response = client.open("GET", "http://reviews/")
    assert active(client) == 1
    del response
    gc.collect()
    watch.until(lambda: active(client) == 0)
    client.run_until(lambda: one.wait_for(lambda: not one.connections_open))


def test_a_stale_connection_is_not_used(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    client = face(service(one))
    for _ in range(3):
        assert client.get("http://reviews/").status_code == 200
        one.close_connections()
        one.wait_for(lambda: not one.connections_open)
    assert one.connections_total == 3


def test_the_breaker_opens_and_closes_again(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.fail(500, times=3)
    client = face(service(one, breaker={"consecutive_failures": 3, "open_for": 1.5}))
    for _ in range(3):
        assert client.get("http://reviews/").status_code == 500
    with pytest.raises(meshlib.CircuitOpen) as caught:
        client.get("http://reviews/")
    assert isinstance(caught.value, client.library.ConnectError)
    assert not caught.value.sent
    assert client.mesh.status().clusters["reviews"].breaker == "open"  # type: ignore[attr-defined]
    refused = 0
    while not _succeeds(client):  # each refusal takes a little of the time for which it is open
        refused += 1
        assert refused < 100_000
    assert client.mesh.status().clusters["reviews"].breaker == "closed"  # type: ignore[attr-defined]


def _succeeds(client: Face) -> bool:
    try:
        return bool(client.get("http://reviews/").status_code == 200)
    except meshlib.CircuitOpen:
        return False


def test_an_endpoint_that_fails_is_ejected(face: FaceFactory, upstream: UpstreamFactory) -> None:
    bad, good = upstream("bad"), upstream("good")
    bad.fail(500)
    outlier = {"consecutive_5xx": 2, "base_ejection": 60.0, "max_ejection_percent": 50}
    client = face(service(bad, good, balancer="round_robin", outlier=outlier))
    for _ in range(6):
        client.get("http://reviews/")
    assert {client.get("http://reviews/").json()["name"] for _ in range(4)} == {"good"}
    health = {e.address: e.health for e in client.mesh.status().clusters["reviews"].endpoints}  # type: ignore[attr-defined]
    assert health == {bad.address: "ejected", good.address: "healthy"}


def test_failures_can_be_told_as_responses(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    client = face(
        {
            **service(one, timeout=0.2, breaker={"consecutive_failures": 1, "open_for": 60}),
            "failures": "respond",
        }
    )
    one.order(hold="head")
    response = client.get("http://reviews/")
    assert (response.status_code, response.text) == (504, "upstream request timeout")
    assert meshlib.call_info(response) is not None
    response = client.get("http://reviews/")
    assert (response.status_code, response.headers["x-envoy-overloaded"]) == (503, "true")
    one.release()
    one.kill()
    client = face({**service(one), "failures": "respond"})
    assert client.get("http://reviews/").status_code == 503


def test_redirects_splits_and_direct_responses(face: FaceFactory, upstream: UpstreamFactory) -> None:
    v1, v2 = upstream("v1"), upstream("v2")
    config = {
        "services": {
            "reviews": {
                "endpoints": [v1.address],
                "routes": [
                    {
                        "match": {"prefix": "/gold", "headers": {"x-tier": "gold"}},
                        "split": {"reviews-v2": 100},
                    },
                    {"match": {"prefix": "/half"}, "split": {"reviews-v1": 50, "reviews-v2": 50}},
                ],
            },
            "reviews-v1": {"endpoints": [v1.address]},
            "reviews-v2": {"endpoints": [v2.address]},
        }
    }
    client = face(config)
    assert client.get("http://reviews/gold", headers={"x-tier": "gold"}).json()["name"] == "v2"
    assert client.get("http://reviews/gold").json()["name"] == "v1"
    assert {client.get("http://reviews/half").json()["name"] for _ in range(40)} == {"v1", "v2"}


def test_white_space_around_a_header_value_is_not_part_of_it(
    face: FaceFactory, upstream: UpstreamFactory
) -> None:
    """RFC 9110, 5.5; as a proxy would read it."""
    v1, v2 = upstream("v1"), upstream("v2")
    gold = {"match": {"headers": {"x-tier": "gold"}}, "split": {"v2": 1}}
    config = {
        "services": {
            "reviews": {"endpoints": [v1.address], "routes": [gold]},
            "v2": {"endpoints": [v2.address]},
        }
    }
    assert face(config).get("http://reviews/", headers={"x-tier": " gold\t"}).json()["name"] == "v2"


def test_clients_are_the_host_librarys(face: FaceFactory) -> None:
    client = face({})
    expected = client.library.AsyncClient if client.is_async else client.library.Client
    assert isinstance(client.client, expected)


def test_base_url_mounts_and_cookies_behave_as_ever(face: FaceFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    one.order(headers=(("set-cookie", "a=b"), ("x-upstream", "1")))
    library_client = face(service(one), base_url="http://reviews/base")
    assert library_client.get("/x").json()["path"] == "/base/x"
    assert library_client.get("/x").json()["path"] == "/base/x"
    assert one.requests[-1].header("cookie") == "a=b"

    def answer(request: Any) -> Any:
        return library_client.library.Response(299)

    mounted = face(service(one), mounts={"http://reviews": library_client.library.MockTransport(answer)})
    assert mounted.get("http://reviews/").status_code == 299


def test_a_transport_of_the_callers_own_is_used_as_it_is(face: FaceFactory) -> None:
    probe = face({})
    mock = probe.library.MockTransport(lambda request: probe.library.Response(298))
    assert face({}, transport=mock).get("http://reviews/").status_code == 298


def test_options_of_the_wrong_kind_are_a_clear_error(face: FaceFactory, upstream: UpstreamFactory) -> None:
    client = face(service(upstream()))
    with pytest.raises(TypeError, match=r"meshlib\.CallOptions"):
        client.get("http://reviews/", extensions={"meshlib": {"timeout": 1}})


def test_limits_make_calls_wait_and_then_refuse(upstream: UpstreamFactory) -> None:
    """Of two that come while the one connection is taken, one waits and one is refused, whichever was first."""
    one = upstream()
    one.order(hold="head", times=1)
    limits = {"max_connections": 1, "max_pending": 1}
    with meshlib.Mesh(service(one, limits=limits)) as mesh, meshlib.Client(mesh=mesh) as client:
        ends: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def call() -> None:
            try:
                ends.put(client.get("http://reviews/", timeout=httpx.Timeout(30)).status_code)
            except meshlib.MeshError as error:
                ends.put(error)

        threads = [threading.Thread(target=call) for _ in range(3)]
        threads[0].start()
        one.wait_for(lambda: one.held)
        threads[1].start()
        threads[2].start()
        refused = ends.get(timeout=20)
        assert type(refused).__name__ == "Overloaded"
        assert isinstance(refused, httpx.PoolTimeout)
        assert "max_pending" in str(refused)
        one.release()
        for thread in threads:
            thread.join()
        assert [ends.get_nowait(), ends.get_nowait()] == [200, 200]
        assert one.connections_total == 1
