"""Hand-off to a real Envoy in a pod's network namespace: it carries the calls, dies, comes back, drains."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshlib.testing import GrpcUpstream, Upstream
from tests.support import netns
from tests.support.late import again_if_late, soon
from tests.support.netns import ISTIO, KUMA, LINKERD, PLAIN, EnvoySidecar, Namespace, Program, Shape

ROOT = Path(__file__).resolve().parents[2]
HTTP = ("aiohttp", "httpx", "requests")
VIP = "10.96.0.10"

pytestmark = pytest.mark.timeout(180)


class Calls(Program):
    """What :mod:`tests.support.handoff_program` tells, as it comes."""

    def __init__(
        self,
        pod: Namespace,
        config: dict[str, Any],
        url: str,
        *hosts: str,
        environ: dict[str, str] | None = None,
    ) -> None:
        self.hosts = hosts
        words = json.dumps(config), url, *hosts
        super().__init__(pod, "tests.support.handoff_program", *words, environ=environ)

    def until(self, since: float, wanted: Callable[[dict[str, Any]], bool], seconds: float = 20.0) -> float:
        """Wait until a call of every host that began after ``since`` is ``wanted``; gives when the last of these began."""
        found: dict[str, float] = {}
        end = time.monotonic() + seconds
        seen = 0
        with self.new:
            while len(found) < len(self.hosts):
                for call in self.told[seen:]:
                    if call["begun"] > since and wanted(call):
                        found.setdefault(call["host"], call["begun"])
                seen = len(self.told)
                if len(found) < len(self.hosts):
                    assert self.new.wait(end - time.monotonic()), (found, self.told[-8:])
        return max(found.values())


def via(word: str) -> Callable[[dict[str, Any]], bool]:
    return lambda call: call["via"] == word and "error" not in call


def numbers(*servers: Any) -> Counter[str | None]:
    """How often each call arrived."""
    return Counter(received.header("x-number") for server in servers for received in server.requests)


@pytest.fixture
def pod() -> Iterator[Namespace]:
    netns.needed()
    with Namespace(hosts={"reviews": VIP}) as made:
        yield made


@pytest.fixture
def servers(pod: Namespace) -> Iterator[tuple[Upstream, Upstream]]:
    """What the sidecar calls, and what is called without one."""
    with pod.inside():
        beyond, own = Upstream("beyond").start(), Upstream("own").start()
    yield beyond, own
    with pod.inside():
        own.stop()
        beyond.stop()


def port(server: Upstream) -> int:
    return int(server.address.rpartition(":")[2])


@again_if_late
def outage(calls: Calls, sidecar: EnvoySidecar, fallback: str) -> tuple[float, float, float]:
    """It is killed and comes back: when it was, when it began to come, and since when it carries all. An error comes soon."""
    killed = time.monotonic()
    sidecar.kill()
    if fallback == "never":
        calls.until(killed, lambda call: "error" in call and call["via"] == "sidecar")
    else:
        calls.until(killed, via("mesh"))
    calls.until(killed + 1.5, lambda call: True)
    back = time.monotonic()
    sidecar.start()
    ready = time.monotonic()
    returned = calls.until(back, via("sidecar"))
    assert returned - ready < 10
    if fallback == "never":
        took = [
            call["ended"] - call["begun"] for call in list(calls.told) if killed + 1.0 < call["begun"] < back
        ]
        assert took
        soon(max(took), 2.5, "an error")
    return killed, back, returned


def story(calls: Calls, sidecar: EnvoySidecar, beyond: Upstream, own: Upstream, *, fallback: str) -> None:
    """It carries, is killed, comes back, drains and ends."""
    calls.until(0.0, via("sidecar"))
    begun = time.monotonic()
    killed, back, returned = outage(calls, sidecar, fallback)
    calls.until(returned + 0.5, lambda call: True)
    drained = time.monotonic()
    sidecar.drain()
    calls.until(drained + 1.0, lambda call: True)
    told = calls.end()

    for call in told:
        carried = "error" not in call and (call["via"], call["name"]) == ("sidecar", "beyond")
        if killed + 1.0 < call["begun"] < back:  # without it
            if call["ended"] >= back and carried:
                continue  # it was sent when the sidecar was there again
            if fallback == "never":
                assert call["of_the_mesh"], call
                assert call["via"] == "sidecar"
                assert "sidecar" in call["error"]
            else:
                assert "error" not in call, call
                assert (call["via"], call["name"]) == ("mesh", "own")
        elif (call["begun"] > returned and call["host"] != "grpc") or call["ended"] < begun:
            assert carried, call
    arrived = numbers(beyond, own)
    assert not [number for number, count in arrived.items() if count > 1]
    assert len(arrived) >= sum("error" not in call for call in told)


@pytest.mark.parametrize("shape", [ISTIO, LINKERD, KUMA], ids=["istio", "linkerd", "kuma"])
def test_redirected_calls(
    pod: Namespace, servers: tuple[Upstream, Upstream], tmp_path: Path, shape: Shape
) -> None:
    beyond, own = servers
    config = {"services": {"reviews": {"endpoints": [own.address]}}}
    with EnvoySidecar(pod, shape, {"reviews:9080": port(beyond)}, tmp_path) as sidecar:
        pod.redirect(shape)
        calls = Calls(pod, config, "http://reviews:9080/", *HTTP)
        calls.until(0.0, via("sidecar"))
        story(calls, sidecar, beyond, own, fallback="when_allowed")


def test_redirected_calls_where_none_may_go_without(
    pod: Namespace, servers: tuple[Upstream, Upstream], tmp_path: Path
) -> None:
    beyond, own = servers
    config = {"services": {"reviews": {"endpoints": [own.address]}}, "sidecar": {"fallback": "never"}}
    with EnvoySidecar(pod, ISTIO, {"reviews:9080": port(beyond)}, tmp_path) as sidecar:
        pod.redirect(ISTIO)
        story(Calls(pod, config, "http://reviews:9080/", *HTTP), sidecar, beyond, own, fallback="never")
    assert not own.requests_total


@pytest.mark.parametrize("form", ["listener", "forward_proxy"])
@pytest.mark.parametrize("fallback", ["never", "when_allowed"])
def test_a_listener_of_its_own(
    pod: Namespace, servers: tuple[Upstream, Upstream], tmp_path: Path, form: str, fallback: str
) -> None:
    beyond, own = servers
    address = ("http://" if form == "forward_proxy" else "") + "127.0.0.1:10001"
    config = {
        "services": {"reviews": {"endpoints": [own.address]}},
        "sidecar": {"mode": "envoy", "address": address, "fallback": fallback},
    }
    with EnvoySidecar(pod, PLAIN, {"reviews:9080": port(beyond)}, tmp_path, listeners=[10001]) as sidecar:
        story(Calls(pod, config, "http://reviews:9080/", *HTTP), sidecar, beyond, own, fallback=fallback)


CONSUL = {"REVIEWS_CONNECT_SERVICE_HOST": "127.0.0.1", "REVIEWS_CONNECT_SERVICE_PORT": "10001"}
KATO = {
    "TENANT_ID": "t",
    "SERVICE_ID": "s",
    "SERVICE_NAME": "gr000001",
    "DEPEND_SERVICE": "gr12238e:abc",
    "GR12238E80_HOST": "127.0.0.1",
    "GR12238E80_PORT": "10001",
}


@pytest.mark.parametrize(
    ("environ", "service", "shape"),
    [
        (CONSUL, "reviews", PLAIN),
        (KATO, "127.0.0.1:10001", Shape(1234, 10000, None, 65533)),
    ],
    ids=["consul", "kato"],
)
def test_a_listener_that_the_environment_names(
    pod: Namespace,
    servers: tuple[Upstream, Upstream],
    tmp_path: Path,
    environ: dict[str, str],
    service: str,
    shape: Shape,
) -> None:
    beyond, own = servers
    config = {"services": {service: {"endpoints": [own.address]}}}
    with EnvoySidecar(pod, shape, {"*": port(beyond)}, tmp_path, listeners=[10001]) as sidecar:
        calls = Calls(pod, config, f"http://{service}/", *HTTP, environ=environ)
        story(calls, sidecar, beyond, own, fallback="when_allowed")


@pytest.mark.parametrize("form", ["redirected", "listener"])
def test_calls_of_grpc(pod: Namespace, tmp_path: Path, form: str) -> None:
    with pod.inside():
        beyond, own = GrpcUpstream("beyond").start(), GrpcUpstream("own").start()
    config: dict[str, Any] = {"services": {"reviews": {"endpoints": [own.address]}}}
    if form == "listener":
        config["sidecar"] = {"mode": "envoy", "address": "127.0.0.1:10001"}
    routes = {"reviews:9080": port(beyond)}
    shape = ISTIO if form == "redirected" else PLAIN
    try:
        with EnvoySidecar(pod, shape, routes, tmp_path, listeners=[10001], grpc=list(routes)) as sidecar:
            if form == "redirected":
                pod.redirect(shape)
            calls = Calls(pod, config, "reviews:9080", "grpc")
            calls.until(0.0, via("sidecar"))
            story(calls, sidecar, beyond, own, fallback="when_allowed")
    finally:
        with pod.inside():
            own.stop()
            beyond.stop()


def test_envoy_says_that_it_carried_the_calls(
    pod: Namespace, servers: tuple[Upstream, Upstream], tmp_path: Path
) -> None:
    beyond, own = servers
    with EnvoySidecar(pod, ISTIO, {"reviews:9080": port(beyond)}, tmp_path) as sidecar:
        pod.redirect(ISTIO)
        calls = Calls(
            pod, {"services": {"reviews": {"endpoints": [own.address]}}}, "http://reviews:9080/", *HTTP
        )
        calls.until(0.0, via("sidecar"))
        told = calls.end()
        counted = sidecar.stats("cluster.reviews")
        assert beyond.requests_total == len(told)
        assert [value for key, value in counted.items() if key.endswith("upstream_rq_total")] == [len(told)]
