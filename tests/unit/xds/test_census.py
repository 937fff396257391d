"""How many resources there are, by gRFC A78's authorities and states, and A88's."""

import pytest

from meshlib.xds.cache import Cache, State
from meshlib.xds.census import census
from meshlib.xds.decode import types

TYPES = types("target")
NAME = "envoy.config.cluster.v3.Cluster"


def of(*moves):
    cache = Cache(kind.short for kind in TYPES)
    for move in moves:
        move(cache)
    return dict(census(cache, TYPES))


def accept(cache):
    cache.accept("cluster", "a", object(), raw=b"1")


def request(cache):
    cache.request("cluster", "a")


def reject(cache):
    cache.reject("cluster", "a", ("wrong",))


def close(cache):
    """Nothing good is there; what is refused is in force as a refusal."""
    cache.close("cluster", "a", object())


def lose(state, **how):
    return lambda cache: cache.lose("cluster", "a", state, "why", **how)


@pytest.mark.parametrize(
    ("moves", "state"),
    [
        ([request], "requested"),
        ([request, accept], "acked"),
        ([request, reject], "nacked"),
        ([request, reject, close], "nacked"),
        ([accept, reject], "nacked_but_cached"),
        ([accept, lose(State.DOES_NOT_EXIST)], "does_not_exist"),
        ([accept, lose(State.DOES_NOT_EXIST, drop=False)], "does_not_exist_but_cached"),
        ([request, lose(State.TIMEOUT, absent=False)], "timeout"),
        ([request, lose(State.RECEIVED_ERROR)], "received_error"),
        ([accept, lose(State.RECEIVED_ERROR, drop=False)], "received_error_but_cached"),
    ],
)
def test_each_state_has_its_name(moves, state):  # MX-01
    assert of(*moves) == {(NAME, "#old", state): 1}


def test_authorities_are_those_of_federated_names():  # MX-01
    found = of(
        lambda cache: cache.request("cluster", "a"),
        lambda cache: cache.request("cluster", "b"),
        lambda cache: cache.request("cluster", "xdstp://one.example/envoy.config.cluster.v3.Cluster/c"),
        lambda cache: cache.request("cluster", "xdstp:///envoy.config.cluster.v3.Cluster/d"),
    )
    assert found == {
        (NAME, "#old", "requested"): 2,
        (NAME, "one.example", "requested"): 1,
        (NAME, "", "requested"): 1,
    }
