"""Every kind of failure, as the exception that is meshlib's and the library's at once, and as a response."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import meshlib
from meshlib.testing import Upstream
from tests.hosts.columns import Ask
from tests.hosts.kit import active, service

UpstreamFactory = Any
Open = Any


@contextmanager
def connection_refused(server: Upstream, make: Callable[..., Any]) -> Iterator[Any]:
    server.kill()
    yield make(service(server))


@contextmanager
def no_endpoint(_: Upstream, make: Callable[..., Any]) -> Iterator[Any]:
    yield make({"services": {"reviews": {"endpoints": []}}})


@contextmanager
def reset(server: Upstream, make: Callable[..., Any]) -> Iterator[Any]:
    server.reset()
    yield make(service(server))


@contextmanager
def garbage(server: Upstream, make: Callable[..., Any]) -> Iterator[Any]:
    server.order(garbage="this is no HTTP\r\n\r\n")
    yield make(service(server))


@contextmanager
def deadline(server: Upstream, make: Callable[..., Any]) -> Iterator[Any]:
    server.hang()
    yield make(service(server, timeout=1.0))  # it is over once the request is written, and not before
    server.release()


@contextmanager
def own_read_timeout(server: Upstream, make: Callable[..., Any]) -> Iterator[Any]:
    server.hang()
    yield make(service(server), read=0.2)
    server.release()


@contextmanager
def circuit_open(server: Upstream, make: Callable[..., Any]) -> Iterator[Any]:
    server.fail(503)
    client = make(service(server, breaker={"consecutive_failures": 1, "open_for": 60.0}))
    assert client.call().status == 503
    yield client


@contextmanager
def overloaded(server: Upstream, make: Callable[..., Any]) -> Iterator[Any]:
    server.order(hold="body", body="x" * 100)
    client = make(service(server, limits={"max_requests": 1}))
    held = client.begin(Ask())
    yield client
    client.drop(held)
    server.release()


@contextmanager
def route_overloaded(server: Upstream, make: Callable[..., Any]) -> Iterator[Any]:
    server.order(hold="body", body="x" * 100)
    client = make(service(server, routes=[{"limits": {"max_requests": 1}}]))
    held = client.begin(Ask())
    yield client
    client.drop(held)
    server.release()


@contextmanager
def routes_circuit_open(server: Upstream, make: Callable[..., Any]) -> Iterator[Any]:
    server.fail(503)
    client = make(service(server, routes=[{"breaker": {"consecutive_failures": 1, "open_for": 60.0}}]))
    assert client.call().status == 503
    yield client


#: What happens, meshlib's class, the library's kind, the response instead, and whether a byte may have been sent.
KINDS: dict[str, tuple[Any, type[meshlib.MeshError], str, int, bool]] = {
    "connection refused": (connection_refused, meshlib.errors.ConnectFailed, "connect", 503, False),
    "no endpoint": (no_endpoint, meshlib.NoHealthyEndpoint, "connect", 503, False),
    "reset": (reset, meshlib.errors.TransportFailed, "read", 503, True),
    "garbage": (garbage, meshlib.errors.ProtocolError, "protocol", 502, True),
    "deadline": (deadline, meshlib.DeadlineExceeded, "timeout", 504, True),
    "own read timeout": (own_read_timeout, meshlib.DeadlineExceeded, "read timeout", 504, True),
    "circuit open": (circuit_open, meshlib.CircuitOpen, "connect", 503, False),
    "overloaded": (overloaded, meshlib.Overloaded, "pool", 503, False),
    "route's circuit open": (routes_circuit_open, meshlib.CircuitOpen, "connect", 503, False),
    "route overloaded": (route_overloaded, meshlib.Overloaded, "pool", 503, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_is_an_exception_of_both(
    open_client: Open, meshlib_upstream: UpstreamFactory, kind: str
) -> None:
    """With what was done, whether anything was sent, and a cause where the network or the library gave one."""
    happens, ours, theirs, _, sent = KINDS[kind]
    with happens(meshlib_upstream("one"), open_client) as client:
        with pytest.raises(client.errors[theirs]) as caught:
            client.call()
        error = caught.value
        assert isinstance(error, ours)
        assert error.info is not None
        assert meshlib.call_info(error) is error.info
        assert error.sent is sent
        assert error.info.via == "mesh"
        if kind in {"connection refused", "reset", "garbage"}:
            assert isinstance(error.__cause__, BaseException)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_can_be_pickled_and_copied(
    open_client: Open, meshlib_upstream: UpstreamFactory, kind: str, right: str
) -> None:
    happens, _, theirs, _, _ = KINDS[kind]
    with happens(meshlib_upstream("one"), open_client) as client:
        with pytest.raises(client.errors[theirs]) as caught:
            client.call()
        error = caught.value
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(again) is type(error)
            if right != "names its pool":
                assert str(again) == str(error)
            assert again.info == error.info
            assert (again.phase, again.sent) == (error.phase, error.sent)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_is_a_response_where_that_is_ordered(
    open_client: Open, meshlib_upstream: UpstreamFactory, kind: str
) -> None:
    happens, _, _, status, _ = KINDS[kind]

    def make(config: dict[str, Any], **options: Any) -> Any:
        return open_client({**config, "failures": "respond"}, **options)

    with happens(meshlib_upstream("one"), make) as client:
        answer = client.call()
        assert answer.status == status
        assert answer.info is not None


def test_no_free_connection_is_overloaded_and_nobodys_fault(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    """The library's own limit: its pool timeout, and neither an ejection nor a breaker that opens."""
    if right == "waits":
        return
    one = meshlib_upstream("one")
    one.order(hold="body", body="x" * 100, times=1)
    config = service(
        one,
        breaker={"consecutive_failures": 1, "open_for": 60.0},
        outlier={"consecutive_5xx": 1, "max_ejection_percent": 100},
        retry={"attempts": 3, "on": ["reset", "connect-failure", "5xx"]},
    )
    client = open_client(config, connections=1, pool=1.0, connect=5.0)  # aiohttp's pool bounds dialling, too
    held = client.begin(Ask())
    with pytest.raises(client.errors["pool"]) as caught:
        client.call()
    assert isinstance(caught.value, meshlib.Overloaded)
    assert caught.value.sent is False
    status = client.mesh.status().clusters["reviews"]
    assert (status.endpoints[0].health, status.breaker) == ("healthy", "closed")
    client.drop(held)
    one.release()
    assert client.call().said["name"] == "one"


def test_a_body_that_breaks_off_raises_with_its_call(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    one = meshlib_upstream("one")
    one.reset_body()
    client = open_client(service(one, retry={"attempts": 3, "on": ["reset"]}))
    with pytest.raises(client.errors["any"]) as caught:
        client.call()
    info = meshlib.call_info(caught.value)
    assert info is not None
    assert (info.endpoint, len(info.attempts)) == (one.address, 1)
    assert isinstance(caught.value, meshlib.errors.TransportFailed)
    assert one.requests_total == 1
    assert active(client) == 0


def test_a_body_that_is_cut_short_raises(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    one = meshlib_upstream("one")
    one.order(truncate=True, body="x" * 1000)
    client = open_client(service(one))
    with pytest.raises(client.errors["any"]) as caught:
        client.call()
    assert isinstance(caught.value, meshlib.MeshError)
    assert active(client) == 0


def test_failures_of_direct_calls_are_the_librarys_own(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    dead = meshlib_upstream("dead")
    dead.kill()
    client = open_client(service(meshlib_upstream("one")))
    with pytest.raises(client.errors["connect"]) as caught:
        client.call(url=dead.url)
    assert not isinstance(caught.value, meshlib.MeshError)
    info = meshlib.call_info(caught.value)
    assert info is not None
    assert info.via == "direct"


def test_a_deadline_bounds_what_is_waited_for(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    """In force around the call, nearer than every timeout; in mesh and direct calls alike."""
    one = meshlib_upstream("one")
    one.hang()
    client = open_client(service(one), read=30.0, connect=30.0)
    for url in ("http://reviews/", one.url):
        with meshlib.deadline(0.2), pytest.raises(client.errors["timeout"]) as caught:
            client.call(url=url)
        assert isinstance(caught.value, meshlib.DeadlineExceeded)
    one.release()


def test_a_deadline_that_is_over_sends_nothing(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    one = meshlib_upstream("one")
    client = open_client(service(one))
    for url in ("http://reviews/", one.url):
        with meshlib.deadline(0.0), pytest.raises(client.errors["timeout"]) as caught:
            client.call(url=url)
        assert isinstance(caught.value, meshlib.DeadlineExceeded)
        assert caught.value.sent is False
    assert one.requests_total == 0


def test_a_deadline_bounds_a_body_that_drips(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    one = meshlib_upstream("one")
    one.order(body="x" * 400, chunks=400, chunk_delay=0.05)
    client = open_client(service(one), read=30.0)
    with (
        meshlib.deadline(0.3),
        pytest.raises(client.errors["any"] if not client.is_async else Exception) as caught,
    ):
        client.call()
    assert isinstance(caught.value, meshlib.DeadlineExceeded)


def test_threads_and_tasks_each_have_their_own_failure(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    one = meshlib_upstream("one")
    client = open_client(service(one))
    asks = [Ask(headers=(("x-n", str(number)),)) for number in range(20)]
    one.order(reset="head", where=lambda request: int(request.get("x-n") or 0) % 2 == 1)
    answers = client.together(asks)
    assert threading.active_count() < 100
    for number, answer in enumerate(answers):
        if number % 2:
            assert isinstance(answer, meshlib.errors.TransportFailed), answer
        else:
            assert not isinstance(answer, BaseException), answer
    assert active(client) == 0


@pytest.mark.parametrize("what", ["a header", "a method"])
def test_a_request_that_cannot_be_said_is_refused_on_a_kept_connection_too(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str, what: str
) -> None:
    """At once: it is no fault of the connection's, which another one would mend, and the connection goes on."""
    one = meshlib_upstream("one")
    client = open_client(service(one, retry={"attempts": 3, "on": ["reset", "connect-failure", "5xx"]}))
    assert client.call().status == 200
    wrong = Ask(headers=(("x-wrong", "one\ntwo"),)) if what == "a header" else Ask("GET /other HTTP/1.1\n")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - every library has its own
        client.call(wrong)
    assert not isinstance(caught.value, meshlib.MeshError)
    assert active(client) == 0
    assert client.call().status == 200
    assert one.requests_total == 2
    assert one.connections_total <= (2 if right == "closes" else 1)
