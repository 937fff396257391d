"""``meshlib_requests.call_options``: what single calls ask for themselves."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from urllib3.util import Retry

import meshlib
import meshlib_requests
from meshlib_requests import call_options

UpstreamFactory = Any
SessionFactory = Callable[..., meshlib_requests.Session]


@pytest.fixture
def session() -> Iterator[SessionFactory]:
    opened: list[Any] = []

    def make(*upstreams: Any, max_retries: Any = 0, **policies: Any) -> meshlib_requests.Session:
        services = {"reviews": {"endpoints": [up.address for up in upstreams], **policies}}
        mesh = meshlib.Mesh({"services": services})
        made = meshlib_requests.Session(mesh=mesh)
        made.mount("http://", meshlib_requests.MeshAdapter(mesh=mesh, max_retries=max_retries))
        opened.extend((mesh, made))
        return made

    yield make
    for one in reversed(opened):
        one.close()


def tries(found: object) -> int:
    info = meshlib.call_info(found)
    assert info is not None
    return len(info.attempts)


def test_retries_of_the_call_in_place_of_the_routes(
    session: SessionFactory, upstream: UpstreamFactory
) -> None:
    bad = upstream("bad")
    bad.fail(503)
    client = session(bad, retry={"attempts": 2, "on": ["5xx"]})
    with call_options(retry=False):
        assert tries(client.get("http://reviews/")) == 1
        with call_options(retry={"attempts": 4, "on": ["5xx"]}):
            assert tries(client.get("http://reviews/")) == 4
        with call_options():
            assert tries(client.get("http://reviews/")) == 2
        assert tries(client.get("http://reviews/")) == 1
    assert tries(client.get("http://reviews/")) == 2


def test_no_retry_is_none_of_urllib3s_either(session: SessionFactory, upstream: UpstreamFactory) -> None:
    bad = upstream("bad")
    bad.fail(503)
    client = session(bad, max_retries=Retry(2, status_forcelist=[503], raise_on_status=False))
    assert tries(client.get("http://reviews/")) == 3
    with call_options(retry=False):
        assert tries(client.get("http://reviews/")) == 1


@pytest.mark.parametrize(
    "policies", [{"retry": {"attempts": 3, "on": ["5xx", "reset"]}}, {}], ids=["mesh", "urllib3"]
)
def test_what_must_not_be_sent_twice_is_sent_once(
    session: SessionFactory, upstream: UpstreamFactory, policies: dict[str, Any]
) -> None:
    bad = upstream("bad")
    client = session(bad, max_retries=Retry(2, status_forcelist=[503], raise_on_status=False), **policies)
    bad.fail(503)
    with call_options(idempotent=False):
        assert tries(client.get("http://reviews/")) == 1
    assert tries(client.get("http://reviews/")) == 3
    bad.behave()
    bad.reset()
    before = bad.requests_total
    with call_options(idempotent=False), pytest.raises(requests.ConnectionError) as raised:
        client.get("http://reviews/")
    assert tries(raised.value) == 1
    assert bad.requests_total - before <= 1


def test_the_timeout_bounds_the_whole_call(session: SessionFactory, upstream: UpstreamFactory) -> None:
    slow = upstream("slow")
    slow.hang()
    client = session(slow, timeout=20.0, retry={"attempts": 3, "on": ["5xx"]})
    began = time.monotonic()
    with call_options(timeout=0.2), pytest.raises(meshlib.DeadlineExceeded) as raised:
        client.get("http://reviews/")
    assert isinstance(raised.value, requests.Timeout)
    assert 0.15 < time.monotonic() - began < 5


def test_it_holds_for_plain_sessions_and_managers_too(
    session: SessionFactory, upstream: UpstreamFactory
) -> None:
    bad = upstream("bad")
    bad.fail(503)
    mesh = session(bad, retry={"attempts": 2, "on": ["5xx"]})._mesh
    with (
        requests.Session() as plain,
        meshlib_requests.PoolManager(mesh=mesh) as manager,
        call_options(retry=False),
    ):
        plain.mount("http://", meshlib_requests.MeshAdapter(mesh=mesh))
        assert tries(plain.get("http://reviews/")) == 1
        assert tries(manager.request("GET", "http://reviews/", retries=False)) == 1


def test_a_thread_has_its_own(session: SessionFactory, upstream: UpstreamFactory) -> None:
    bad = upstream("bad")
    bad.fail(503)
    client = session(bad, retry={"attempts": 2, "on": ["5xx"]})
    counted: list[int] = []

    def call() -> None:
        counted.append(tries(client.get("http://reviews/")))

    with call_options(retry=False):
        copied = contextvars.copy_context()
        for target in (call, lambda: copied.run(call)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join(10)
    assert counted == [2, 1]


@pytest.mark.parametrize("timeout", [-1.0, float("nan"), True, "2s"])
def test_a_wrong_timeout_is_refused(timeout: float) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout"), call_options(timeout=timeout):
        pass


def test_a_wrong_retry_is_refused() -> None:
    with pytest.raises(meshlib.ConfigError, match="attemps"), call_options(retry={"attemps": 3}):
        pass
    with pytest.raises(TypeError, match="retry"), call_options(retry=3):  # type: ignore[arg-type]
        pass
