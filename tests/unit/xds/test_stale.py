"""Assignments that hold for some time (Envoy ``endpoint_stale_after``), by either protocol and in what is in force."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.testing import build
from meshlib.xds.ads import AdsMachine
from meshlib.xds.decode import TYPES
from meshlib.xds.delta import DeltaMachine
from meshlib.xds.session import Session
from tests.support.xds_kit import NODE, delta_response, names, opened, response

HOLDS = build.endpoints("a", "10.0.0.1:80", policy={"endpoint_stale_after": "5s"})
FOR_EVER = build.endpoints("a", "10.0.0.1:80")
BOTH = pytest.mark.parametrize(("kind", "answer"), [(AdsMachine, response), (DeltaMachine, delta_response)])


def asked(kind: type) -> Any:
    machine = kind(NODE, TYPES, lambda: 0.5)
    opened(machine, endpoint=names("a"))
    return machine


@BOTH
def test_it_is_gone_unless_it_comes_again(kind: type, answer: Any) -> None:
    machine = asked(kind)
    machine.received(answer("endpoint", HOLDS, nonce="1"), 10)
    machine.outgoing(10)
    assert machine.next_timer() == 15
    machine.received(answer("endpoint", HOLDS, nonce="2"), 14)
    machine.outgoing(18)  # the acknowledgement, which was held back
    machine.changed()
    assert not machine.tick(18.9)
    assert machine.next_timer() == 19
    assert machine.tick(19)
    assert machine.changed() == {"endpoint": {"a"}}
    assert machine.cache.value("endpoint", "a") is None
    words = "is stale: it did not come again within 5 s (endpoint_stale_after)"
    assert machine.cache.failed("endpoint", "a") == words
    assert machine.next_timer() is None
    assert machine.received(answer("endpoint", HOLDS, nonce="3"), 30).updated == ("a",)
    machine.outgoing(30)
    assert machine.next_timer() == 35


@BOTH
def test_a_stream_that_ends_does_not_keep_it(kind: type, answer: Any) -> None:
    machine = asked(kind)
    machine.received(answer("endpoint", HOLDS), 10)
    machine.closed(11)
    assert machine.next_timer() == 15
    assert machine.tick(15)
    assert machine.cache.value("endpoint", "a") is None


@BOTH
def test_one_that_holds_for_ever_takes_its_place(kind: type, answer: Any) -> None:
    machine = asked(kind)
    machine.received(answer("endpoint", HOLDS, nonce="1"), 10)
    machine.received(answer("endpoint", FOR_EVER, nonce="2"), 11)
    assert machine.next_timer() is None
    assert not machine.tick(100)
    assert machine.cache.value("endpoint", "a") is not None


def test_what_is_not_wanted_any_more_is_no_news() -> None:
    machine = asked(AdsMachine)
    machine.received(response("endpoint", HOLDS), 10)
    machine.set_interest("endpoint", names())
    machine.outgoing(11)
    assert not machine.tick(15)


def test_calls_are_told_why_there_is_nobody() -> None:
    session = Session(NODE, view="sidecar", jitter=lambda: 0.5)
    session.opened(0)
    session.outgoing(0)
    cluster = build.cluster("c", service_name="a")
    routes = build.route_config("r", build.virtual_host("v", build.route(cluster="c"), domains=["*"]))
    session.received(response("cluster", cluster, nonce="1"), 0)
    session.received(response("listener", build.listener("l", routes, address="127.0.0.1:1"), nonce="1"), 0)
    session.outgoing(0)
    session.received(response("endpoint", HOLDS, nonce="1"), 0)
    assert len(session.part.clusters["c"].assignment.endpoints) == 1
    assert session.next_timer() == 5
    assert session.tick(5)
    found = session.part.clusters["c"]
    assert found.assignment.endpoints == ()
    assert found.unassigned.startswith("its assignment 'a' is stale: ")
