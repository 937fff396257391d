"""Whom a live cluster gives to gRPC calls: gRPC's rules, beside the balance of HTTP calls (ED-01, ED-04, ED-08, LB-01, LB-11)."""

from __future__ import annotations

from collections import Counter

import pytest

from meshlib.core.upstream import PickContext, Refusal
from meshlib.model.endpoint import Health
from meshlib.model.policy import Balancing
from tests.support.live_kit import OK, Watched, address, cluster, endpoint, locality

GRPC = PickContext(grpc=True)
HTTP = PickContext()


def shares(watched: Watched, calls: int = 400, context: PickContext = GRPC) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(calls):
        pick = watched.live.pick(context, 0.0)
        assert not isinstance(pick, Refusal), pick
        found[pick.endpoint.name] += 1
        pick.report(OK, 0.0)
        pick.release(0.0)
    return found


def name(number: int) -> str:
    return str(address(number))


def live(watched: Watched, number: int):
    return next(one for one in watched.live.endpoints if one.address == address(number))


def test_endpoint_weights_do_not_count() -> None:
    watched = Watched(cluster(locality(endpoint(0, weight=9), endpoint(1, weight=1))))
    assert shares(watched) == {name(0): 200, name(1): 200}
    assert shares(watched, context=HTTP) == {name(0): 360, name(1): 40}


def test_localities_share_by_their_weights_however_many_of_them_are_left() -> None:
    halves = locality(endpoint(0), endpoint(1, health=Health.UNHEALTHY), zone="a", weight=1)
    whole = locality(endpoint(2), zone="b", weight=3)
    found = shares(Watched(cluster(halves, whole)), 4000)
    assert found[name(0)] == pytest.approx(1000, abs=150)


def test_the_first_priority_with_anybody_takes_all() -> None:
    first = locality(endpoint(0), *(endpoint(n, health=Health.UNHEALTHY) for n in range(1, 10)))
    second = locality(endpoint(10), priority=1)
    assert shares(Watched(cluster(first, second))) == {name(0): 400}


def test_nobody_panics_and_degraded_ones_are_not_called() -> None:
    everybody = locality(endpoint(0, health=Health.UNHEALTHY), endpoint(1, health=Health.DEGRADED))
    watched = Watched(cluster(everybody, balancing=Balancing(panic_threshold=50.0)))
    assert isinstance(watched.live.pick(GRPC, 0.0), Refusal)
    assert not isinstance(watched.live.pick(HTTP, 0.0), Refusal)


def test_what_cannot_be_connected_to_is_passed_over_by_gRPC_alone() -> None:
    watched = Watched(cluster(locality(endpoint(0), endpoint(1)), locality(endpoint(2), priority=1)))
    one = live(watched, 0)
    watched.live.mark_reached(one, 1)
    assert shares(watched) == {name(1): 400}
    assert shares(watched, context=HTTP) == {name(0): 200, name(1): 200}
    watched.live.mark_reached(live(watched, 1), 1)
    assert shares(watched) == {name(2): 400}, "the next priority"
    assert watched.live.reached()
    watched.live.mark_reached(live(watched, 2), 1)
    assert not watched.live.reached()
    assert shares(watched) == {name(0): 200, name(1): 200}, "of none that can be, the marks say nothing"
    watched.live.mark_reached(one, -1)
    assert shares(watched) == {name(0): 400}, "and back"


def test_after_an_update_the_writer_has_made_it() -> None:
    watched = Watched(cluster(locality(endpoint(0))))
    watched.live.update(cluster(locality(endpoint(1))), 0.0)
    assert watched.live._balances.grpc is None, "no gRPC call came"
    shares(watched, 1)
    watched.live.update(cluster(locality(endpoint(0), endpoint(1))), 0.0)
    assert watched.live._balances.grpc is not None
    assert shares(watched) == {name(0): 200, name(1): 200}
