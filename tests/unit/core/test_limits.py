import pytest

from meshlib.core.limits import budget_ceiling, may_retry, reached
from meshlib.model.policy import Limits, RetryBudget


def test_no_limit_and_a_limit_of_nothing():
    assert not reached(None, 10**9)
    assert reached(0, 0)
    assert not reached(2, 1)
    assert reached(2, 2)
    assert reached(2, 5)  # lowered below what is in flight: blocks until drained (CB-02)


@pytest.mark.parametrize(("in_flight", "ceiling"), [(0, 3), (15, 3), (16, 3.2), (100, 20)])
def test_a_budget_is_a_share_with_a_floor(in_flight, ceiling):  # RT-08
    assert budget_ceiling(RetryBudget(20.0, 3), in_flight) == pytest.approx(ceiling)


def test_max_retries_by_default_is_three():  # CB-03
    assert may_retry(Limits(), None, 2, 10)
    assert not may_retry(Limits(), None, 3, 10)


def test_the_clusters_budget_replaces_max_retries():
    limits = Limits(max_retries=0, budget=RetryBudget(50.0, 1))
    assert may_retry(limits, None, 4, 10)
    assert not may_retry(limits, None, 5, 10)


def test_the_policys_own_budget_holds_beside_it():
    assert not may_retry(Limits.unlimited(), RetryBudget(10.0, 0), 1, 10)
    assert not may_retry(Limits(max_retries=1), RetryBudget(100.0, 10), 1, 10)
    assert may_retry(Limits.unlimited(), RetryBudget(10.0, 2), 1, 10)
    assert not may_retry(Limits.unlimited(), RetryBudget(0.0, 0), 0, 10)
