"""Which leaf of an aggregate a call goes to (CD-04), and how all levels share the load where all panic (ED-08)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.aggregate import Place, first_reached, split
from meshlib.core.levels import LevelHealth, level_loads, split_load


def level(usable: int, size: int, degraded: int = 0, *, priority: int = 0, factor: int = 140) -> LevelHealth:
    worth = (min(100, factor * count // size) if size else 0 for count in (usable, degraded))
    return LevelHealth(priority, size, size, usable + degraded, *worth)


@st.composite
def clusters(draw: st.DrawFn) -> list[list[LevelHealth]]:
    def one() -> list[LevelHealth]:
        made = []
        for number in range(draw(st.integers(0, 3))):
            size = draw(st.integers(0, 12))
            usable = draw(st.integers(0, size))
            made.append(level(usable, size, draw(st.integers(0, size - usable)), priority=number))
        return made

    return [one() for _ in range(draw(st.integers(1, 4)))]


@pytest.mark.parametrize(
    ("leaves", "percent"),
    [
        ([[level(4, 4)], [level(4, 4)]], (100, 0)),
        ([[level(2, 4)], [level(4, 4)]], (70, 30)),
        ([[level(1, 4)], [level(4, 4)]], (35, 65)),
        ([[level(1, 4)], [level(1, 6)]], (40, 60)),  # all panic: 4 of 10, 6 of 10
        ([[level(0, 2)], [level(0, 4)]], (34, 66)),
        ([[level(1, 4, 2)], [level(4, 4)]], (35, 65)),
        ([[level(1, 4, 2)], [level(1, 4, 1)]], (65, 35)),
        ([[level(1, 3), level(2, 3)], [level(4, 4)]], (100, 0)),
        ([[], [level(2, 4)], [level(4, 4)]], (0, 70, 30)),
    ],
)
def test_the_shares_that_envoy_gave(leaves, percent):
    """The rows of tests/e2e/oracle/test_aggregates.py, where a real Envoy says the same."""
    found = split(leaves, 50.0)
    assert found is not None
    assert found.percent == percent


def test_nobody_is_usable_and_health_counts():
    """The first leaf says that it has nobody."""
    found = split([[level(0, 2)], [level(0, 4)]], 0.0)
    assert found is not None
    assert found.draw(0.99) == Place(0, 0, False)


def test_no_endpoints_anywhere():
    assert split([[], [level(0, 0)]], 50.0) is None


@given(clusters(), st.sampled_from([0.0, 20.0, 50.0, 100.0]))
def test_load_is_a_hundred_percent_and_falls_where_it_can(leaves, threshold):
    found = split(leaves, threshold)
    rows = [item for levels in leaves for item in levels if item.size]
    if not rows:
        assert found is None
        return
    assert found is not None
    assert sum(found.percent) == 100
    assert found.ends[-1] == 100
    drawn = {found.draw(number / 1000) for number in range(1000)}
    assert drawn == set(found.places)
    for place in drawn:
        there = leaves[place.leaf][place.level]
        assert there.size
        if any(item.healthy + item.degraded for item in rows) and not all(
            item.panics(threshold) for item in rows
        ):
            assert there.degraded if place.degraded else there.healthy


@given(clusters(), st.sampled_from([0.0, 50.0]))
def test_an_aggregate_shares_as_one_cluster_with_all_the_priorities_does(leaves, threshold):
    rows = [item for levels in leaves for item in levels if item.size]
    found = split(leaves, threshold)
    if found is None:
        return
    first, second = level_loads(rows, threshold)
    if any(first) or any(second):
        assert sum(found.percent) == sum(first) + sum(second)
        where = [number for number, levels in enumerate(leaves) for item in levels if item.size]
        for number, percent in enumerate(found.percent):
            assert percent == sum(
                load + more for at, load, more in zip(where, first, second, strict=True) if at == number
            )


@given(st.lists(st.integers(72, 100), min_size=1, max_size=5))
def test_a_first_leaf_that_is_well_has_all_the_load(usable):
    found = split([[level(count, 100)] for count in usable], 50.0)
    assert found is not None
    assert found.percent[0] == 100


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=6))
def test_levels_that_all_panic_share_by_their_size(pairs):
    """ED-08: recalculateLoadInTotalPanic; what division leaves over is the first's."""
    levels = [level(min(usable, size // 3), size) for usable, size in pairs]
    if sum(item.healthy for item in levels) >= 100 or not all(item.panics(50.0) for item in levels):
        return
    loads, none = level_loads(levels, 50.0)
    total = sum(item.size for item in levels)
    assert sum(loads) == 100
    assert not any(none)
    for item, load in list(zip(levels, loads, strict=True))[1:]:
        assert load == 100 * item.size // total


def test_one_level_that_does_not_panic_keeps_the_split_by_health():
    levels = [level(1, 4), level(2, 4)]
    assert level_loads(levels, 50.0)[0] == split_load([35, 70], [0, 0])[0]


def balance(*, empty: bool = False, reached: bool = True) -> SimpleNamespace:
    return SimpleNamespace(empty=empty, reached=reached)


@pytest.mark.parametrize(
    ("balances", "number"),
    [
        ([balance(), balance()], 0),
        ([balance(empty=True), balance()], 1),
        ([balance(reached=False), balance()], 1),
        ([balance(empty=True), balance(reached=False), balance(reached=False)], 1),
        ([balance(empty=True)], None),
        ([], None),
    ],
)
def test_an_rpc_goes_to_the_first_that_can_be_reached(balances, number):
    assert first_reached(balances) == number
