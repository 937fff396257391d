"""Calls that a sidecar carries: by its own listener, the same for every host."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import meshlib
from meshlib.model.policy import RetryPolicy
from meshlib.testing import Upstream
from tests.hosts.kit import ended_here
from tests.support.late import again_if_late, soon

UpstreamFactory = Any
Open = Any


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict comes within milliseconds; on a machine that stalls, later."""
    monkeypatch.setattr("meshlib.core.exchange._VERDICT", 20.0)
    monkeypatch.setattr("meshlib.runtime.runtime._VERDICT", 20.0)


def handed(address: str, *others: Upstream, **sidecar: Any) -> dict[str, Any]:
    """A sidecar that was told, and ``reviews`` at ``others`` for when it is not there."""
    return {
        "sidecar": {"mode": "envoy", "address": address, **sidecar},
        "services": {"reviews": {"endpoints": [one.address for one in others]}} if others else {},
    }


def is_back(client: Any, sidecar: Upstream) -> bool:
    """Wait until the sidecar carries calls again: its state is known before that is in force."""

    def carries(_: object) -> bool:
        found = client.mesh.explain("GET", "http://reviews/")
        return bool(client.mesh.status().sidecar.in_use) and (found.via, found.endpoint) == (
            "sidecar",
            sidecar.address,
        )

    found: bool = client.mesh._runtime().store.wait(carries, 10)
    return found


def test_a_listener_of_a_sidecar_carries_the_call(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    sidecar, one = meshlib_upstream("sidecar"), meshlib_upstream("one")
    client = open_client(handed(sidecar.address, one))
    answer = client.call(url="http://reviews/a%20b?q=1")
    assert (answer.said["name"], answer.said["path"]) == ("sidecar", "/a%20b?q=1")
    assert answer.sent("host") == ["reviews"]
    info = answer.info
    assert info is not None
    assert (info.via, info.endpoint, len(info.attempts)) == ("sidecar", sidecar.address, 1)
    assert "the sidecar envoy" in "\n".join(info.trace())
    assert (client.mesh.status().sidecar.in_use, one.requests_total) == (True, 0)


def test_a_forward_proxy_gets_the_absolute_form(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    sidecar = meshlib_upstream("sidecar")
    answer = open_client(handed(sidecar.url)).call(url="http://reviews:9080/a%20b?q=1")
    assert answer.said["path"] == "http://reviews:9080/a%20b?q=1"
    assert answer.sent("host") == ["reviews:9080"]
    assert answer.info is not None
    assert answer.info.via == "sidecar"


def test_loopback_is_not_handed(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    sidecar, one = meshlib_upstream("sidecar"), meshlib_upstream("one")
    answer = open_client(handed(sidecar.address)).call(url=one.url)
    assert answer.said["name"] == "one"
    assert answer.info is not None
    assert answer.info.via == "direct"


def test_a_bypassed_host_is_not_handed(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    sidecar = meshlib_upstream("sidecar")
    client = open_client({**handed(sidecar.address), "bypass": ["*.invalid"]})
    with pytest.raises(Exception, match=r"."):  # nobody has such a name
        client.call(url="http://reviews.invalid/")
    assert sidecar.requests_total == 0


def test_the_retries_are_the_sidecars(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    sidecar, one = meshlib_upstream("sidecar"), meshlib_upstream("one")
    sidecar.fail(503)
    config = handed(sidecar.address, one)
    config["services"]["reviews"]["retry"] = {"attempts": 3, "on": ["5xx"]}
    answer = open_client(config).call()
    assert (answer.status, sidecar.requests_total, one.requests_total) == (503, 1, 0)


def test_a_sidecar_that_went_away_gives_the_calls_back(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    sidecar, one = meshlib_upstream("sidecar"), meshlib_upstream("one")
    client = open_client(handed(sidecar.address, one))
    assert client.call().said["name"] == "sidecar"
    sidecar.kill()
    assert ended_here(sidecar)
    answer = client.call()
    assert answer.said["name"] == "one"
    assert answer.info is not None
    assert answer.info.via == "mesh"
    sidecar.restart()
    assert is_back(client, sidecar)
    assert client.call().said["name"] == "sidecar"
    assert one.requests_total == 1


@again_if_late
def test_a_sidecar_that_went_away_is_an_error_where_calls_may_not_go_without(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    sidecar, one = meshlib_upstream("sidecar"), meshlib_upstream("one")
    client = open_client(handed(sidecar.address, one, fallback="never"))
    assert client.call().said["name"] == "sidecar"
    sidecar.kill()
    assert ended_here(sidecar)
    for _ in range(2):
        begun = time.monotonic()
        with pytest.raises(meshlib.MeshError, match="sidecar envoy") as caught:
            client.call()
        soon(time.monotonic() - begun, 1.5)  # neither the verdict's time nor the start window of 10 s
        assert isinstance(caught.value, client.errors["connect"])
        assert caught.value.info is not None
        assert caught.value.info.via == "sidecar"
        assert sidecar.address in str(caught.value)
    assert one.requests_total == 0
    sidecar.restart()
    assert is_back(client, sidecar)
    assert client.call().said["name"] == "sidecar"


def test_a_sidecar_that_is_late_is_waited_for(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    sidecar, one = meshlib_upstream("sidecar"), meshlib_upstream("one")
    sidecar.kill()
    client = open_client(handed(sidecar.address, one), connect=0.05)
    runtime = client.mesh._runtime()
    runtime.worker.later(0.4, sidecar.restart)
    answer = client.call()
    assert (answer.said["name"], one.requests_total) == ("sidecar", 0)


@pytest.mark.parametrize("fallback", ["never", "when_allowed"])
def test_a_sidecar_that_does_not_come(
    open_client: Open, meshlib_upstream: UpstreamFactory, fallback: str
) -> None:
    sidecar, one = meshlib_upstream("sidecar"), meshlib_upstream("one")
    sidecar.kill()
    client = open_client(handed(sidecar.address, one, start_window=0.2, fallback=fallback))
    if fallback == "when_allowed":
        assert client.call().said["name"] == "one"
        return
    with pytest.raises(meshlib.MeshError, match="sidecar envoy") as caught:
        client.call()
    assert caught.value.info is not None
    assert caught.value.info.via == "sidecar"


def test_what_a_sidecar_broke_off_is_not_sent_twice(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    sidecar, one = meshlib_upstream("sidecar"), meshlib_upstream("one")
    sidecar.reset()
    client = open_client(handed(sidecar.address, one))
    with pytest.raises(meshlib.MeshError) as caught:
        client.call()
    assert caught.value.info is not None
    assert (caught.value.info.via, len(caught.value.info.attempts)) == ("sidecar", 1)
    assert (sidecar.requests_total, one.requests_total) == (2 if right == "again" else 1, 0)


def test_what_a_sidecar_had_taken_when_it_went_away_is_not_sent_twice(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    """On a kept connection, after which a new one cannot be made."""
    sidecar, one = meshlib_upstream("sidecar"), meshlib_upstream("one")
    client = open_client(handed(sidecar.address, one))
    assert client.call().said["name"] == "sidecar"
    sidecar.hang()

    def kill() -> None:
        sidecar.wait_for(lambda: sidecar.held == 1)
        sidecar.kill()

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill)
        if right == "again":
            assert client.call().said["name"] == "one"
        else:
            with pytest.raises(meshlib.MeshError) as caught:
                client.call()
            assert caught.value.info is not None
            assert (caught.value.info.via, len(caught.value.info.attempts)) == ("sidecar", 1)
        killed.result(10)
    assert (sidecar.requests_total, one.requests_total) == (2, 1 if right == "again" else 0)


def test_retries_that_a_call_orders_for_itself_hold(meshlib_upstream: UpstreamFactory) -> None:
    sidecar = meshlib_upstream("sidecar")
    sidecar.fail(503, times=1)
    options = meshlib.CallOptions(retry=RetryPolicy(on=frozenset({"5xx"}), retries=1))
    with (
        meshlib.Mesh(meshlib.Config.from_mapping(handed(sidecar.address))) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        answer = client.get("http://reviews/", extensions={"meshlib": options})
    assert (answer.status_code, sidecar.requests_total) == (200, 2)
