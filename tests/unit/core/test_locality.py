"""ED-07, ED-08, DV-15: priorities, panic, locality weights; another host first."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.endpoint import Down, LiveEndpoint
from meshlib.core.hashing import hash_bytes
from meshlib.core.levels import split_load
from meshlib.core.locality import Balance, Group
from meshlib.core.refusals import describe
from meshlib.core.spill import left_out
from meshlib.core.upstream import PickContext
from meshlib.model.endpoint import Health, Locality
from meshlib.model.policy import Balancer, Balancing, Elsewhere
from meshlib.model.subset import labels_of
from tests.support.live_kit import endpoint, live_endpoint

CONTEXT = PickContext()


def level(usable, total, *, priority=0, start=0, weight=None, degraded=0, down=Down.CONTROL_PLANE):
    members = [
        live_endpoint(
            start + number,
            down=0 if number < usable + degraded else down,
            health=Health.DEGRADED if usable <= number < usable + degraded else Health.UNKNOWN,
        )
        for number in range(total)
    ]
    return Group(priority, weight, members)


def balance(*groups, factor=140, seed=1, **fields):
    return Balance(groups, Balancing(**fields), factor, random.Random(seed).random)


def shares(made, groups, picks=4000):
    owner = {id(item): index for index, group in enumerate(groups) for item in group.endpoints}
    counts = Counter(owner[id(made.pick(CONTEXT))] for _ in range(picks))
    return [counts[index] / picks for index in range(len(groups))]


@pytest.mark.parametrize(
    ("usable", "first"), [(100, 100), (72, 100), (71, 99), (50, 70), (25, 35), (1, 1), (0, 0)]
)
def test_envoys_table(usable, first):  # ED-07
    health = min(100, 140 * usable // 100)
    assert split_load([health, 100], [0, 0]) == ([first, 100 - first], [0, 0])


def test_what_is_there_is_scaled_to_the_whole():
    assert split_load([20, 20], [0, 0])[0] == [50, 50]
    assert split_load([10, 20, 30], [0, 0, 0])[0] == [17, 33, 50]
    assert split_load([0, 5], [0, 0])[0] == [0, 100]


def test_degraded_hosts_take_what_the_usable_leave():  # ED-04
    assert split_load([70, 20], [100, 0]) == ([70, 20], [10, 0])
    assert split_load([0, 0], [0, 30]) == ([0, 0], [0, 100])


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=6))
def test_the_whole_load_is_given_out_and_never_to_nobody(levels):
    healthy, degraded = [pair[0] for pair in levels], [pair[1] for pair in levels]
    if not any(healthy) and not any(degraded):
        return
    first, second = split_load(healthy, degraded)
    assert sum(first) + sum(second) == 100
    assert all(
        load == 0 for load, health in zip(first + second, healthy + degraded, strict=True) if health == 0
    )


def test_calls_spill_to_the_next_priority():
    groups = [level(6, 12), level(4, 4, priority=1, start=100)]
    assert shares(balance(*groups), groups)[0] == pytest.approx(0.70, abs=0.03)
    healthy = [level(12, 12), level(4, 4, priority=1, start=100)]
    assert shares(balance(*healthy), healthy) == [1.0, 0.0]


def test_priorities_may_have_gaps_and_come_in_any_order():
    groups = [level(2, 2, priority=7, start=100), level(2, 2, priority=3)]
    assert shares(balance(*groups), groups) == [0.0, 1.0]


def test_panic_when_all_levels_together_have_too_little():  # ED-08
    groups = [level(1, 4)]
    made = balance(*groups)
    assert {made.pick(CONTEXT) for _ in range(8)} == set(groups[0].endpoints)


def test_no_panic_while_another_level_carries_the_load():
    groups = [level(1, 4), level(4, 4, priority=1, start=100)]
    made = balance(*groups)
    for _ in range(400):
        assert not made.pick(CONTEXT).down
    assert shares(made, groups)[0] == pytest.approx(0.35, abs=0.03)


def test_localities_keep_their_weights_in_a_panic():
    groups = [level(1, 4, weight=1), level(1, 4, weight=9, start=100)]
    made = balance(*groups, kind=Balancer.RING_HASH, locality_weighted=True, least_places=4096)
    first = {id(item) for item in groups[0].endpoints}
    picked = [made.pick(PickContext(hash=hash_bytes(str(number).encode()))) for number in range(4000)]
    assert {id(item) for item in picked} == first | {id(item) for item in groups[1].endpoints}
    assert sum(id(item) in first for item in picked) / 4000 == pytest.approx(0.1, abs=0.03)


def test_no_panic_at_half():
    groups = [level(2, 4)]
    made = balance(*groups)
    assert {made.pick(CONTEXT) for _ in range(20)} == set(groups[0].endpoints[:2])


def test_panic_switched_off():
    groups = [level(1, 4)]
    assert {balance(*groups, panic_threshold=0.0).pick(CONTEXT) for _ in range(20)} == {
        groups[0].endpoints[0]
    }
    assert balance(level(0, 4), panic_threshold=0.0).pick(CONTEXT) is None
    assert balance(level(0, 4), panic_threshold=0.0).peek(CONTEXT) is None


def test_few_of_many_are_still_called_without_panic():
    """1 of 200 is a health of 0 percent in whole numbers."""
    group = level(1, 200)
    assert balance(group, panic_threshold=0.0).pick(CONTEXT) is group.endpoints[0]


def test_everybody_unusable_is_panic_over_all_levels_by_size():
    groups = [level(0, 3), level(0, 1, priority=1, start=100)]
    assert shares(balance(*groups), groups)[0] == pytest.approx(0.75, abs=0.03)


def test_tls_that_cannot_be_had_is_never_called_not_even_in_panic():
    group = level(0, 3, down=Down.TLS)
    assert balance(group).pick(CONTEXT) is None
    group.endpoints[1].down = Down.CONTROL_PLANE
    assert {balance(group).pick(CONTEXT) for _ in range(10)} == {group.endpoints[1]}


def test_locality_weights():
    groups = [level(4, 4, weight=3), level(2, 2, weight=1, start=100)]
    assert shares(balance(*groups, locality_weighted=True), groups)[0] == pytest.approx(0.75, abs=0.03)
    # Without that policy endpoints count, not localities (DV-15).
    assert shares(balance(*groups), groups)[0] == pytest.approx(4 / 6, abs=0.03)


def test_a_locality_loses_weight_with_its_health():
    groups = [level(2, 4, weight=1), level(4, 4, weight=1, start=100)]
    assert shares(balance(*groups, locality_weighted=True), groups)[0] == pytest.approx(0.7 / 1.7, abs=0.03)


def test_a_locality_without_weight_gets_nothing_unless_all_have_none():  # DV-15
    groups = [level(4, 4, weight=None), level(4, 4, weight=1, start=100), level(4, 4, weight=0, start=200)]
    assert shares(balance(*groups, locality_weighted=True), groups) == [0.0, 1.0, 0.0]
    none = [level(1, 1), level(1, 1, start=100)]
    assert shares(balance(*none, locality_weighted=True), none)[0] == pytest.approx(0.5, abs=0.03)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=5),
    st.sampled_from(Balancer),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_nobody_unusable_while_somebody_usable_is_there(shape, kind, weighted, seed):
    groups = [
        level(usable, usable + broken, priority=priority, start=1000 * index, weight=index)
        for index, (usable, broken, priority) in enumerate(shape)
    ]
    made = balance(*groups, kind=kind, locality_weighted=weighted, panic_threshold=0.0, seed=seed)
    usable = [item for group in groups for item in group.endpoints if item.usable]
    for _ in range(10):
        picked = made.pick(CONTEXT)
        if usable:
            assert picked in usable
            assert made.peek(CONTEXT) in usable
        else:
            assert picked is None


@given(st.integers(1, 8), st.sampled_from(Balancer), st.integers(0, 2**32), st.booleans())
def test_another_host_first(count, kind, seed, uneven):
    group = Group(0, None, [live_endpoint(number, 1 + uneven * number) for number in range(count)])
    made = balance(group, kind=kind, seed=seed)
    tried = ()
    for _ in range(count):
        seen = made.peek(PickContext(1, tried))
        picked = made.pick(PickContext(1, tried))
        assert picked not in tried
        assert seen not in tried
        tried = (*tried, picked)
    # All were tried: any will do.
    assert made.pick(PickContext(1, tried)) in group.endpoints


def test_the_other_host_is_found_where_picks_never_fall_on_it():
    group = Group(0, None, [live_endpoint(0, 2**32 - 1), live_endpoint(1, 1)])
    made = Balance([group], Balancing(Balancer.RANDOM), 140, lambda: 0.0)
    assert made.pick(PickContext(2, (group.endpoints[0],))) is group.endpoints[1]


def test_ed_07_the_usable_share_of_weights_is_a_levels_health_where_that_is_asked_for():
    """Of weight 10 one is left, of three endpoints two: health is 14 % by weights, and 93 % by their number."""
    first = Group(0, None, [live_endpoint(0, 8, Down.CONTROL_PLANE), live_endpoint(1), live_endpoint(2, 1)])
    first.endpoints[2].down = Down.EJECTED | Down.UNCOUNTED
    second = level(2, 2, priority=1, start=5)
    by_number = Balance([first, second], Balancing(panic_threshold=0), 140, random.random)
    by_weight = Balance([first, second], Balancing(panic_threshold=0), 140, random.random, weighted=True)
    assert [item.healthy for item in by_number.levels] == [70, 100]
    assert [item.healthy for item in by_weight.levels] == [140 * 1 // 9, 100]
    assert shares(by_weight, [first, second]) == pytest.approx([0.15, 0.85], abs=0.03)


def test_why_nobody_can_be_called():
    assert describe([]) == "has no endpoint"
    found = describe(
        [
            live_endpoint(0, down=Down.CONTROL_PLANE),
            live_endpoint(1, down=Down.EJECTED),
            live_endpoint(2, down=Down.EJECTED | Down.CONTROL_PLANE),
            live_endpoint(3, down=Down.TLS),
        ]
    )
    words = "has no usable endpoint among 4 (2 unhealthy, 1 ejected, 1 behind TLS that cannot be had)"
    assert found == words


# --- where other attempts go ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [3, 4, 5])
def test_attempts_beyond_all_endpoints_fall_on_each_alike(attempts):
    """With two endpoints and three attempts one of them had two of each call's."""
    group = level(2, 2)
    made, counts = balance(group), Counter()
    for _ in range(600):
        tried = ()
        for number in range(attempts):
            tried = (*tried, made.pick(PickContext(number + 1, tried)))
        counts.update(tried)
    assert [counts[item] for item in group.endpoints] == pytest.approx([300 * attempts] * 2, abs=2)


@given(st.lists(st.integers(0, 3), max_size=9), st.integers(1, 4), st.sets(st.integers(0, 3)))
def test_what_is_left_out_is_never_everybody(tried, every, well):
    found = left_out(tried, every, well)
    if len(tried) < every or not well:
        assert found is None
    if found is not None:
        assert not found.issuperset(well)
        assert found <= set(tried)


def test_the_priorities_of_those_before_are_left():
    assert left_out([], 1, {0, 1}) is None
    assert left_out([0], 1, {0, 1, 2}) == {0}
    assert left_out([0, 1], 1, {0, 1, 2}) == {0, 1}
    assert left_out([0, 1, 2], 1, {0, 1, 2}) == set(), "from the start"
    assert left_out([0, 1, 2, 0], 1, {0, 1, 2}) == {0}
    assert left_out([0], 2, {0, 1}) is None
    assert left_out([0, 0, 1], 2, {0, 1}) == {0}
    assert left_out([0, 0, 1, 1], 2, {0, 1}) == set()
    assert left_out([0, 0, 1, 1, 0], 2, {0, 1}) is None


def again(every=1, tried=(), value=None, **fields):
    context = PickContext(len(tried) + 1, tuple(tried), value)
    context.elsewhere = Elsewhere(every, **fields)
    return context


@pytest.mark.parametrize("kind", [Balancer.ROUND_ROBIN, Balancer.LEAST_REQUEST, Balancer.MAGLEV])
def test_another_attempt_goes_to_another_priority(kind):
    groups = [level(2, 2), level(2, 2, priority=1, start=10), level(2, 2, priority=2, start=20)]
    for number, group in enumerate(groups):
        for item in group.endpoints:
            item.priority = number
    made = balance(*groups, kind=kind, table_size=251)
    for value in range(20):
        tried = []
        for number in range(3):
            tried.append(made.pick(again(1, tried, value if kind is Balancer.MAGLEV else None)))
            assert tried[-1] in groups[number].endpoints
        assert made.pick(again(1, tried, value)) in groups[0].endpoints


def test_the_others_have_their_healths_worth():
    groups = [level(2, 2), level(1, 4, priority=1, start=10), level(4, 4, priority=2, start=20)]
    for number, group in enumerate(groups):
        for item in group.endpoints:
            item.priority = number
    made, tried = balance(*groups), [groups[0].endpoints[0]]
    counts = Counter(made.pick(again(1, tried)).priority for _ in range(3000))
    assert counts[1] / 3000 == pytest.approx(0.35, abs=0.03)
    assert counts[2] / 3000 == pytest.approx(0.65, abs=0.03)


def test_who_is_omitted_is_called_only_where_there_is_nobody_else():
    canary = {"envoy.lb": {"canary": True, "v": "2"}}
    members = [
        LiveEndpoint(
            endpoint(number, metadata=canary if number in (1, 2) else {}), priority=0, locality=Locality()
        )
        for number in range(4)
    ]
    made = balance(Group(0, None, members))
    for fields in ({"canaries": False}, {"labels": (labels_of({"v": "2"}),)}):
        for _ in range(50):
            assert made.pick(again(0, [members[0]], **fields)) is members[3]
        assert made.pick(again(0, [members[0], members[3]], **fields)) in (members[0], members[3])
        only = balance(Group(0, None, members[1:3]))
        assert only.pick(again(0, [members[1]], **fields)) is members[2]
        assert {made.pick(PickContext()) for _ in range(8)} == set(members), "a first attempt omits nobody"
    told = {"envoy.lb": {"canary": "true"}}
    assert not Elsewhere(canaries=False).omits(told), "it is no truth value"
    assert not Elsewhere(canaries=False).omits({})
