"""Zone-aware routing: Envoy's percentages, and that nobody gets more than others for it (ED-07, DV-15)."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.endpoint import Down
from meshlib.core.locality import Balance, Group, grpc_balance
from meshlib.core.upstream import PickContext
from meshlib.core.zones import Caller, Fleet, fleet_of, zones_of
from meshlib.model.endpoint import Health, Locality
from meshlib.model.policy import Balancer, Balancing, SlowStart, ZoneAware
from tests.support.live_kit import cluster, endpoint, live_endpoint, locality

CONTEXT = PickContext()
A, B, C = (Locality("r", zone) for zone in "abc")
ANY = ZoneAware(minimum=0)


def members(**sizes: int) -> dict[Locality, list]:
    numbers = iter(range(100_000))
    return {
        Locality("r", zone): [live_endpoint(next(numbers)) for _ in range(size)]
        for zone, size in sizes.items()
    }


def fleet(**sizes: int) -> Fleet:
    counts = {Locality("r", zone): size for zone, size in sizes.items()}
    return Fleet({place: size for place, size in counts.items() if size}, {}, frozenset(counts))


def shares(rules, caller, usable, threshold=50.0):
    zones = zones_of(rules, caller, usable, threshold)
    return None if zones is None else {place.zone: share for place, share in zones.share.items() if share}


def test_envoys_example():
    """The numbers of its documentation: 62.5 % stay, the rest goes as 10 to 5."""
    found = shares(ANY, Caller(A, fleet(a=4, b=4, c=2)), members(a=25, b=50, c=25))
    assert found == {"a": 6250, "b": 2500, "c": 1250}


@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=6),
    st.lists(st.integers(0, 40), min_size=6, max_size=6),
)
def test_every_endpoint_gets_the_same_load(callers, endpoints):
    """Callers of all localities together: an endpoint gets as much as another, but for what rounding makes."""
    endpoints = endpoints[: len(callers)]
    if not any(endpoints):
        return
    names = "abcdef"[: len(callers)]
    usable = members(**dict(zip(names, endpoints, strict=True)))
    whole = fleet(**dict(zip(names, callers, strict=True)))
    got: Counter[str] = Counter()
    for name, count in zip(names, callers, strict=True):
        found = shares(ANY, Caller(Locality("r", name), whole), usable)
        assert sum(found.values()) == pytest.approx(10_000)
        for zone, share in found.items():
            got[zone] += count * share / 10_000
    load = sum(callers) / sum(endpoints)
    for name, size in zip(names, endpoints, strict=True):
        assert got[name] == pytest.approx(size * load, abs=0.01 * sum(callers)), name


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_as_many_stay_as_there_is_room_for(ours, others, here, there):
    found = shares(ANY, Caller(A, fleet(a=ours, b=others)), members(a=here, b=there))
    room = (here / (here + there)) / (ours / (ours + others))
    assert found.get("a", 0) == pytest.approx(10_000 * min(1.0, room), rel=0.01, abs=2)


def test_nothing_is_done_without_a_reason():
    whole, usable = fleet(a=1, b=1), members(a=3, b=3)
    here = Caller(A, whole)
    assert shares(None, here, usable) == {"a": 10_000}, "Envoy's defaults, where the local cluster is told"
    assert shares(None, Caller(A), usable) is None, "not told, and not asked for"
    assert shares(ANY, None, usable) is None
    assert shares(ANY, here, members(a=6)) is None
    assert shares(ANY, Caller(C, whole), usable) is None
    assert shares(ANY, Caller(A, fleet(a=1)), usable) is None
    assert shares(ZoneAware(minimum=7), here, usable) is None
    assert shares(ZoneAware(minimum=6), here, usable) == {"a": 10_000}
    assert shares(ZoneAware(percent=25), here, usable) == {"a": 2500}


def test_callers_that_nobody_tells_are_as_many_in_each_locality():
    assert shares(ANY, Caller(A), members(a=2, b=2, c=2)) == {"a": 10_000}
    assert shares(ANY, Caller(A), members(a=1, b=2, c=3)) == {"a": 4998, "c": 5002}, (
        "of whole hundredths of a percent"
    )
    assert shares(ANY, Caller(A), members(a=0, b=2, c=2)) == {"b": 5000, "c": 5000}, "all here are down"
    assert shares(ANY, Caller(Locality("r", "x")), members(a=2, b=2)) is None, "nobody is here"


def test_all_may_be_forced_to_stay():
    forced, usable = ZoneAware(minimum=0, force=2), members(a=2, b=50)
    assert shares(forced, Caller(A, fleet(a=3, b=1)), usable) == {"a": 10_000}
    assert shares(forced, Caller(A, fleet(a=3)), usable) == {"a": 10_000}
    assert shares(forced, Caller(A, fleet(a=1, b=1)), members(a=1, b=50))["a"] < 10_000


def test_the_fleet_is_what_the_local_cluster_has():
    held = cluster(
        locality(endpoint(1, 3), endpoint(2, health=Health.UNHEALTHY), zone="a"),
        locality(endpoint(3, health=Health.DEGRADED), endpoint(4), zone="b"),
        locality(endpoint(5, health=Health.DRAINING), zone="c"),
        locality(endpoint(6), zone="d", priority=1),
    )
    made = fleet_of(held)
    assert made.counts == {A: 1, B: 1}
    assert made.weights == {A: 3, B: 1}
    assert made.localities == {A, B, C}
    assert made.well == 60.0


def test_too_few_callers_are_well():
    unwell = Fleet({A: 1}, {A: 1}, frozenset({A, B}), 49.0)
    usable = members(a=3, b=3)
    assert shares(ANY, Caller(A, unwell), usable) is None
    closed = zones_of(ZoneAware(fail_on_panic=True), Caller(A, unwell), usable, 50.0)
    assert closed.closed


# --- in a balance ------------------------------------------------------------------------------------------------------


def groups(*, priority=0, **sizes):
    """``a=(2, 3)``: of three in zone a two are usable."""
    made, number = [], priority * 1000
    for zone, (usable, total) in sizes.items():
        held = [live_endpoint(number + i, down=0 if i < usable else Down.EJECTED) for i in range(total)]
        number += total
        made.append(Group(priority, None, held, Locality("r", zone)))
    return made


def drawn(held, caller, *, picks=6000, factor=140, grpc=False, **fields):
    fields.setdefault("zones", ANY)
    rng = random.Random(7).random
    if grpc:
        made = grpc_balance(held, Balancing(**fields), rng, caller=caller)
    else:
        made = Balance(held, Balancing(**fields), factor, rng, caller=caller)
    owner = {id(item): group.locality.zone for group in held for item in group.endpoints}
    counts: Counter[str] = Counter()
    for _ in range(picks):
        picked = made.pick(CONTEXT)
        counts["nobody" if picked is None else owner[id(picked)]] += 1
    return {zone: count / picks for zone, count in counts.items()}


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize(
    "kind", [Balancer.ROUND_ROBIN, Balancer.LEAST_REQUEST, Balancer.RANDOM, Balancer.PEAK_EWMA]
)
def test_a_balance_divides_so(kind, grpc):
    found = drawn(groups(a=(1, 1), b=(3, 3)), Caller(A, fleet(a=1, b=1)), kind=kind, grpc=grpc)
    assert found == {"a": pytest.approx(0.5, abs=0.03), "b": pytest.approx(0.5, abs=0.03)}


def test_with_slow_start():
    held = groups(a=(1, 1), b=(3, 3))
    for group in held:
        for item in group.endpoints:
            item.since = 0.0
    found = drawn(held, Caller(A, fleet(a=1, b=1)), slow_start=SlowStart(100.0))
    assert found["a"] == pytest.approx(0.5, abs=0.03)


def test_who_is_ejected_makes_less_stay():
    here = Caller(A, fleet(a=1, b=1))
    assert drawn(groups(a=(4, 4), b=(4, 4)), here) == {"a": 1.0}
    assert drawn(groups(a=(3, 4), b=(4, 4)), here)["a"] == pytest.approx(0.857, abs=0.03)
    assert drawn(groups(a=(0, 4), b=(4, 4)), here) == {"b": 1.0}


def test_only_the_first_priority_is_divided():
    held = groups(a=(1, 2), b=(1, 2)) + groups(a=(2, 2), b=(2, 2), priority=1)
    found = drawn(held, Caller(A, fleet(a=1, b=1)))
    assert found["a"] == pytest.approx(0.7 + 0.15, abs=0.03)
    assert drawn(groups(a=(2, 2), b=(2, 2), priority=1), Caller(A, fleet(a=1, b=1)))["b"] == pytest.approx(
        0.5, abs=0.03
    )


def test_weights_of_localities_win():
    held = groups(a=(1, 1), b=(1, 1))
    for group in held:
        group.weight = 1
    assert drawn(held, Caller(A, fleet(a=1, b=1)), locality_weighted=True)["b"] == pytest.approx(
        0.5, abs=0.03
    )


def test_hashing_looks_at_no_zones():
    found = drawn(
        groups(a=(2, 2), b=(2, 2)), Caller(A, fleet(a=1, b=1)), kind=Balancer.MAGLEV, table_size=251
    )
    assert found["b"] == pytest.approx(0.5, abs=0.1)


def test_in_a_panic_nobody_is_called_where_that_is_told():
    held, here = groups(a=(1, 4), b=(1, 4)), Caller(A, fleet(a=1, b=1))
    assert drawn(held, here)["b"] == pytest.approx(0.5, abs=0.03), "a panic, zones or not"
    closed = ZoneAware(minimum=0, fail_on_panic=True)
    assert drawn(held, here, zones=closed) == {"nobody": 1.0}
    assert drawn(held, None, zones=closed) == {"nobody": 1.0}, "whoever calls"
    assert drawn(held, here, zones=closed, panic_threshold=0.0) == {"a": 1.0}
    assert Balance(held, Balancing(zones=closed), 140, random.random).empty
    partly = held + groups(a=(4, 4), priority=1)
    assert "nobody" not in drawn(partly, here, zones=closed), "another priority takes the load"


def test_another_try_leaves_the_zone_before_it_repeats_itself():
    held = groups(a=(1, 1), b=(1, 1))
    made = Balance(
        held, Balancing(zones=ANY), 140, random.Random(3).random, caller=Caller(A, fleet(a=1, b=1))
    )
    first = made.pick(CONTEXT)
    assert made.pick(PickContext(2, (first,))) is held[1].endpoints[0]
    assert made.peek(PickContext(2, (first,))) is held[1].endpoints[0]
