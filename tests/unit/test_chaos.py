"""What breaks in `make chaos`, and how its table judges; the small run is in tests/e2e/test_chaos.py."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from bench.chaos.__main__ import table, worse
from bench.chaos.schedule import AT_ONCE, Kind, disturbances, weights
from bench.chaos.stage import Side


def side(name: str, failed: int, times: list[float]) -> Side:
    return Side("threads", name, len(times), Counter({"status 503": failed} if failed else {}), 7, times)


def test_the_same_seed_breaks_the_same_at_the_same_time() -> None:
    def one(seed: int) -> list[object]:
        return [*islice(disturbances(seed, 10), 50), *islice(weights(seed, 10), 50)]

    assert one(1) == one(1)
    assert one(1) != one(2)


@pytest.mark.parametrize("seed", range(20))
def test_an_endpoint_has_one_disturbance_at_a_time_and_most_have_none(seed: int) -> None:
    found = list(islice(disturbances(seed, 10), 300))
    assert [each.at for each in found] == sorted(each.at for each in found)
    for each in found:
        others = [other for other in found if other is not each and other.at <= each.at < other.until]
        assert len(others) < AT_ONCE
        assert each.endpoint not in {other.endpoint for other in others}
    assert {each.kind for each in found} == set(Kind)
    assert {each.endpoint for each in found} == set(range(10))


def test_ours_is_worse_where_more_calls_fail_or_the_99th_takes_longer() -> None:
    fast, slow = [0.001] * 100, [0.001] * 98 + [0.5] * 2
    assert worse([side("Envoy", 1, fast), side("meshlib", 1, fast)]) == []
    assert worse([side("Envoy", 1, slow), side("meshlib", 0, fast)]) == []
    assert worse([side("Envoy", 9, fast), side("meshlib", 18, fast)]) == []
    assert worse([side("Envoy", 9, fast), side("meshlib", 22, fast)]) == [
        "threads: 22.000% failed, 9.000% through Envoy"
    ]
    assert worse([side("Envoy", 1, fast), side("meshlib", 1, slow)]) == [
        "threads: p99 500.0 ms, 1.0 ms through Envoy"
    ]


def test_the_table_has_a_line_a_side_and_what_failed() -> None:
    shown = table([side("Envoy", 3, [0.001] * 100), side("meshlib", 0, [0.002] * 100)]).splitlines()
    assert shown[1].split() == [
        *("threads", "Envoy", "100", "3", "3.000%", "1.0", "ms", "1.0", "ms", "1.0", "ms", "1.0", "ms", "7")
    ]
    assert shown[-2:] == ["threads, Envoy: 3 status 503", "threads, meshlib: none failed"]
