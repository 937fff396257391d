"""How much a cluster may carry at a time (Envoy ``CircuitBreakers``, CB-01 to CB-03) and how much of it may be retries.

A limit of None is no limit, 0 lets nothing through. Lowering a limit below what is in flight blocks until that has
drained (CB-02): nothing in flight is stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.model.policy import Limits, RetryBudget

__all__ = ["budget_ceiling", "may_retry", "reached"]


def reached(limit: int | None, current: int) -> bool:
    """Whether one more would be too many."""
    return limit is not None and current >= limit


def budget_ceiling(budget: RetryBudget, in_flight: int) -> float:
    """How many retries a budget lets run at once while ``in_flight`` calls run, those that are pending among them."""
    return max(float(budget.min_concurrency), budget.percent * in_flight / 100.0)


def may_retry(limits: Limits, own: RetryBudget | None, retries: int, in_flight: int) -> bool:
    """Whether one more retry may start while ``retries`` run.

    The cluster's budget takes the place of its ``max_retries`` (Envoy ``retry_budget``); the policy's ``own`` budget
    holds beside either (RT-08).
    """
    if limits.budget is not None:
        allowed = retries < budget_ceiling(limits.budget, in_flight)
    else:
        allowed = not reached(limits.max_retries, retries)
    return allowed and (own is None or retries < budget_ceiling(own, in_flight))
