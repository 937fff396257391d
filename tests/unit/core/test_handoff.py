"""Which calls are handed to a sidecar."""

from __future__ import annotations

import pytest

from meshlib.core.handoff import ALL, GRPC, Handoff, for_sidecar
from meshlib.core.resolution import Resolution
from meshlib.model.address import Address
from meshlib.model.call import Head
from meshlib.model.sidecar import Sidecar

HERE = Address("127.0.0.1", 15001)


class Entry:
    def __init__(self, key):
        self.key = key

    def resolution(self, reason, name=""):
        made = Resolution("mesh", reason, name=name)
        made.name = self.key  # says which it was
        return made


def handoff(mode, state="ready", fallback="when_allowed", **more):
    sidecar = Sidecar(kind="envoy", mode=mode, state=state, **more)
    keys = [*sidecar.upstreams, ALL, GRPC] if state == "ready" else []
    return Handoff(sidecar, {key: Entry(key) for key in keys}, fallback)


@pytest.mark.parametrize("state", ["absent", "starting", "ready", "gone"])
@pytest.mark.parametrize("mode", ["transparent", "listener", "forward_proxy", "api", "none", "proxyless"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_is_never_handed(state, mode, host):
    assert handoff(mode, state, "never", address=HERE).resolve("http", host, 80) is None


@pytest.mark.parametrize(
    ("mode", "scheme", "host", "handed"),
    [
        ("transparent", "http", "reviews", True),
        ("transparent", "https", "reviews", True),
        ("transparent", "grpc", "10.0.0.1", True),
        ("listener", "http", "reviews.example", True),
        ("listener", "ws", "10.0.0.1", True),
        ("listener", "https", "reviews", False),
        ("listener", "wss", "reviews", False),
        ("forward_proxy", "http", "reviews", True),
        ("forward_proxy", "https", "reviews", False),
        ("api", "http", "reviews", True),
        ("api", "http", "reviews.shop", True),
        ("api", "http", "api.reviews.example", False),
        ("api", "http", "10.0.0.1", False),
        ("none", "http", "reviews", False),
        ("proxyless", "http", "reviews", False),
    ],
)
@pytest.mark.parametrize("state", ["starting", "ready", "gone"])
def test_what_is_handed_is_the_same_in_every_state(mode, scheme, host, handed, state):
    found = handoff(mode, state, "never", address=HERE).resolve(scheme, host, 80)
    assert (found is not None) is handed
    if found is not None:
        ready = "sidecar" if mode == "transparent" else "mesh"
        assert found.via == {"starting": "wait", "ready": ready, "gone": "failed"}[state]
        assert found.handed is not None


def test_upstreams_have_listeners_of_their_own():
    upstreams = {"reviews": Address("127.0.0.1", 1), "ratings:9080": Address("127.0.0.1", 2)}
    made = handoff("listener", upstreams=upstreams)
    assert made.resolve("http", "reviews", 80).name == "reviews"
    assert made.resolve("http", "reviews", 9080).name == "reviews"
    assert made.resolve("http", "ratings", 9080).name == "ratings:9080"
    assert made.resolve("http", "ratings", 80) is None
    assert made.resolve("http", "elsewhere", 80) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("state", ["starting", "ready", "gone"])
def test_a_call_to_a_listeners_own_address_is_its(host, state):
    upstreams = {"reviews": Address("127.0.0.1", 8001), "reviews:9080": Address("127.0.0.1", 8001)}
    made = handoff("listener", state, "never", upstreams=upstreams, address=HERE)
    assert (
        made.resolve("http", host, 8001).via == {"starting": "wait", "ready": "mesh", "gone": "failed"}[state]
    )
    assert made.resolve("http", host, 15001) is not None
    assert made.resolve("http", host, 8002) is None
    assert made.resolve("https", host, 8001) is None
    if state == "ready":
        assert (made.resolve("http", host, 8001).name, made.resolve("http", host, 15001).name) == (
            "reviews",
            ALL,
        )
    assert handoff("forward_proxy", state, "never", address=HERE).resolve("http", host, 15001) is None
    assert handoff("api", state, "never", address=HERE).resolve("http", host, 15001) is None


def test_grpc_has_a_listener_of_its_own_where_there_is_one():
    made = handoff("api", address=HERE, grpc=Address("127.0.0.1", 50001))
    assert made.resolve("grpc", "reviews", 80).name == GRPC
    assert made.resolve("http", "reviews", 80).name == ALL
    assert handoff("listener", address=HERE).resolve("grpc", "reviews", 80).name == ALL


def test_one_that_is_gone_leaves_the_call_to_the_others_where_that_is_allowed():
    assert handoff("transparent", "gone").resolve("http", "reviews", 80) is None
    found = handoff("listener", "gone", "never", address=HERE).resolve("http", "reviews", 80)
    assert "the sidecar envoy at 127.0.0.1:15001 is not there" in found.reason


def test_one_that_is_not_ready_is_waited_for_and_then_it_fails():
    found = handoff("transparent", "starting").resolve("http", "reviews", 80)
    assert found.open
    assert (found.otherwise.via, found.otherwise.handed) == ("failed", found.handed)


@pytest.mark.parametrize(
    ("mode", "grpc", "path", "lines"),
    [
        ("listener", False, "/a?b", {}),
        ("forward_proxy", False, "http://reviews:80/a?b", {}),
        ("forward_proxy", True, "/a?b", {}),
        ("api", False, "/a?b", {"dapr-app-id": "reviews"}),
    ],
)
def test_the_head_is_as_the_listener_takes_it(mode, grpc, path, lines):
    head = for_sidecar(Sidecar(mode=mode), Head("GET", "http", "reviews:80", "/a?b"), grpc=grpc)
    assert (head.path, head.headers.to_dict()) == (path, lines)
