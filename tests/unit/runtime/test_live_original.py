"""A pass-through cluster has an endpoint for each address that calls are bound for, and no more than it may."""

from __future__ import annotations

import random
from dataclasses import replace

from meshlib.core.destination import Bound
from meshlib.core.upstream import PickContext, Refusal, RefusalKind
from meshlib.model.address import Address
from meshlib.model.cluster import Cluster, Discovery
from meshlib.model.policy import Limits
from meshlib.model.tls import Tls
from meshlib.runtime.live_original import MOST, LiveOriginal
from tests.support.live_kit import OK


def made(**fields):
    cluster = Cluster("c", Discovery.ORIGINAL_DST, **fields)
    return LiveOriginal(cluster, random.random, lambda event: None, lambda: 0.0, 0.0)


def pick(live, number, port=80):
    context = PickContext()
    address = Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", port)
    context.override = Bound(address).override(1)
    return live.pick(context, 0.0)


def test_the_same_address_is_the_same_endpoint():
    live = made()
    first, second, other = pick(live, 1), pick(live, 1), pick(live, 2)
    assert first.endpoint is second.endpoint
    assert first.endpoint is not other.endpoint
    assert first.endpoint.name == "10.0.0.1:80"
    assert live.active == 3
    for each in (first, second, other):
        each.report(OK, 0.0)
        each.release(0.0)
    assert live.active == 0


def test_limits_hold():
    live = made(limits=Limits(max_requests=1))
    assert not isinstance(pick(live, 1), Refusal)
    assert pick(live, 2).kind is RefusalKind.MAX_REQUESTS


def test_there_are_so_many_and_who_carries_calls_stays():
    live = made(limits=Limits.unlimited())
    held = pick(live, 0)
    for number in range(1, MOST + 50):
        pick(live, number).release(0.0)
    assert len(live.endpoints) == MOST
    assert not held.endpoint.gone
    assert held.endpoint in live.endpoints
    assert pick(live, 0).endpoint is held.endpoint


def test_where_all_carry_calls_nobody_else_is_taken():
    live = made(limits=Limits.unlimited())
    held = [pick(live, number) for number in range(MOST)]
    assert pick(live, MOST).kind in (RefusalKind.NO_ENDPOINT, RefusalKind.SESSION)
    held[0].release(0.0)
    assert not isinstance(pick(live, MOST), Refusal)
    assert held[0].endpoint.gone


def test_what_the_mesh_demands_of_connections_follows():
    live = made()
    before = pick(live, 1).endpoint
    demand = Tls(sni="a")
    live.update(replace(live.cluster, tls=demand), 0.0)
    after = pick(live, 1).endpoint
    assert (before.gone, before.tls, after.tls) == (True, None, demand)
