"""Delta with a server that forgets names: Istio's, where the node asks for its generator for gRPC."""

from __future__ import annotations

import pytest

from meshlib.testing import build
from meshlib.xds import schema
from meshlib.xds.decode import TYPES
from meshlib.xds.delta import DeltaMachine
from meshlib.xds.istio import wants_grpc
from tests.support.xds_kit import NODE, WILD, delta_response, names, opened, read_delta

GRPC = schema.from_json("envoy.config.core.v3.Node", {"id": "me", "metadata": {"GENERATOR": "grpc"}})

A, B = build.cluster("a"), build.cluster("b")


def machine(node=GRPC):
    ads = DeltaMachine(node, TYPES, lambda: 0.5)
    opened(ads, cluster=names("a"), route=names("r"))
    return ads


def asked(ads):
    """What is subscribed to, and given up, beside acknowledgements."""
    return [each[:3] for each in read_delta(ads.outgoing(0)) if not each[4]]


def test_whom_it_is_about():
    assert wants_grpc(GRPC)
    assert wants_grpc(GRPC.SerializeToString())
    for metadata in ({}, {"GENERATOR": "event"}, {"GENERATOR": 1}):
        assert not wants_grpc(schema.from_json("envoy.config.core.v3.Node", {"metadata": metadata}))
    assert not wants_grpc(b"\xff")


def test_a_change_subscribes_to_all():
    ads = machine()
    ads.set_interest("cluster", names("a", "b"))
    assert asked(ads) == [("cluster", ["a", "b"], [])]
    ads.set_interest("cluster", names("b", "c"))
    assert asked(ads) == [("cluster", ["b", "c"], ["a"])]
    ads.set_interest("cluster", names("c"))
    assert asked(ads) == [("cluster", ["c"], ["b"])]
    assert asked(ads) == []
    ads.set_interest("cluster", names())
    assert asked(ads) == [("cluster", [], ["c"])]


@pytest.mark.parametrize("node", [GRPC, NODE])
def test_routes_and_other_servers_are_as_ever(node):
    ads = machine(node)
    ads.set_interest("route", names("r", "s"))
    assert asked(ads) == [("route", ["s"], [])]
    if node is NODE:
        ads.set_interest("cluster", names("a", "b"))
        assert asked(ads) == [("cluster", ["b"], [])]
        ads.received(delta_response("cluster", B), 0)
        assert asked(ads) == []


def test_a_push_that_says_nothing_of_some_is_answered_with_all_of_them_once():
    ads = machine()
    ads.set_interest("cluster", names("a", "b"))
    ads.outgoing(0)
    ads.received(delta_response("cluster", A, removed=["b"], version="1"), 0)
    assert asked(ads) == []  # all is said
    ads.received(delta_response("cluster", A, version="2"), 0)
    assert asked(ads) == [("cluster", ["a", "b"], [])]
    ads.received(delta_response("cluster", A, version="2"), 0)
    assert asked(ads) == []  # and not again, whatever comes of it
    ads.received(delta_response("cluster", version="3"), 0)
    ads.received(delta_response("cluster", A, B, version="3"), 0)
    assert asked(ads) == [("cluster", ["a", "b"], [])]
    assert ads.cache.value("cluster", "b") is not None


def test_a_new_stream_asks_once_and_what_nobody_wants_is_not_asked_for():
    ads = machine()
    ads.received(delta_response("cluster", version="1"), 0)
    ads.closed(0)
    assert [each[:2] for each in opened(ads)] == [("route", ["r"]), ("cluster", ["a"])]
    assert asked(ads) == []
    ads.received(delta_response("cluster", version="2"), 0)
    ads.closed(0)
    assert [each[:2] for each in opened(ads, cluster=names())] == [("route", ["r"])]


def test_all_that_there_is_stays_that():
    ads = DeltaMachine(GRPC, TYPES, lambda: 0.5)
    opened(ads, listener=WILD)
    ads.received(delta_response("listener", build.listener("l", "r"), version="1"), 0)
    ads.received(delta_response("listener", version="2"), 0)
    assert asked(ads) == []
