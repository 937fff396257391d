"""When a hedge is due, who gets none, and what is known of how long attempts take."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.effects import Finish, Rest, Send, Sleep
from meshlib.core.hedging import Quantile
from meshlib.model.call import OutcomeKind
from meshlib.model.policy import Hedge, RetryPolicy
from meshlib.model.route import Forward
from tests.unit.core.test_plan import RETRY, FakeUpstream, make, outcome

HEDGE = Hedge(after=0.05)


def begun(hedge: Hedge = HEDGE, *, method: str = "GET", retry: RetryPolicy | None = None, **call: Any) -> Any:
    """A plan, its first attempt, and its upstream."""
    plan, upstream = make(Forward(cluster="c", hedge=hedge, retry=retry), concurrent=True, **call)
    plan._call.head.method = method
    first = plan.start(0.0)
    assert isinstance(first, Send)
    return plan, first, upstream


@pytest.mark.parametrize(
    ("asked", "is_hedged"),
    [
        ({}, True),
        ({"method": "DELETE"}, True),
        ({"method": "POST"}, False),
        ({"method": "PATCH"}, False),
        ({"method": "POST", "idempotent": True}, True),
        ({"method": "GET", "idempotent": False}, False),
        ({"method": "POST", "hedge": Hedge(after=0.05, methods=frozenset({"POST"}))}, True),
        ({"method": "GET", "hedge": Hedge(after=0.05, methods=frozenset({"POST"}))}, False),
        ({"retry": None, "hedge": Hedge()}, False),
        ({"hedge": Hedge(on_try_timeout=True)}, False),  # no policy says how long an attempt takes
        ({"hedge": Hedge(quantile=0.95)}, False),  # nothing is known yet
    ],
)
def test_who_is_hedged(asked: dict[str, Any], is_hedged: bool) -> None:
    assert (begun(**asked)[1].hedge_at == 0.05) is is_hedged


def test_a_call_that_orders_no_retry_or_whose_body_cannot_be_shared_is_not_hedged() -> None:
    plan, _ = make(Forward(cluster="c", hedge=HEDGE), concurrent=False)
    assert plan.start(0.0).hedge_at is None
    plan, _ = make(Forward(cluster="c", hedge=HEDGE), concurrent=True, retry=False)
    assert plan.start(0.0).hedge_at is None


def test_what_has_a_hedge_is_not_retried_and_what_has_none_is() -> None:
    plan, first, upstream = begun(retry=RETRY)
    second = plan.woke(0.05)
    assert isinstance(second, Send)
    assert second.endpoint is not first.endpoint
    assert plan.outcome(outcome(status=503), 0.1, first.number) == Rest(None), "its hedge is under way"
    assert isinstance(plan.outcome(outcome(status=503), 0.2, second.number), Sleep), (
        "nothing is left in flight"
    )
    third = plan.woke(0.3)
    assert isinstance(third, Send)
    assert isinstance(plan.outcome(outcome(status=200), 0.4, third.number), Finish)
    plan.close(0.5)
    assert [pick.released for pick in upstream.picks] == [1, 1, 1]
    assert [permit.released for permit in upstream.permits] == [1, 1]


def test_a_retry_beside_a_slow_attempt_comes_back_to_nothing_that_is_answered() -> None:
    plan, first, upstream = begun(retry=RETRY)
    second = plan.woke(0.05)
    waits = plan.outcome(outcome(status=503), 0.1, second.number)
    assert isinstance(waits, Rest)
    assert waits.until is not None, "it is made again though the first is under way"
    assert isinstance(plan.outcome(outcome(status=200), 0.11, first.number), Finish)
    assert [permit.released for permit in upstream.permits] == [1, 1], "the retry that was due is given back"


def test_nobody_is_blamed_and_the_answer_is_told_of() -> None:
    plan, first, upstream = begun()
    second = plan.woke(0.05)
    end = plan.outcome(outcome(status=200), 0.1, second.number)
    assert isinstance(end, Finish)
    assert upstream.picks[0].reports[0].kind is OutcomeKind.CANCELLED
    assert upstream.picks[0].released == 1, "at once, not when the body is read"
    assert upstream.picks[1].released == 0
    info = plan.info(0.1)
    assert info.endpoint == second.endpoint.name
    assert [attempt.outcome for attempt in info.attempts] == ["cancelled", "ok"]
    assert info.attempts[0].endpoint == first.endpoint.name
    assert any("hedged away" in line for line in info.trace())


def test_without_another_endpoint_or_a_permit_the_call_goes_on_as_it_is() -> None:
    upstream = FakeUpstream(retries=0)
    plan, _ = make(Forward(cluster="c", hedge=HEDGE), upstream, concurrent=True)
    first = plan.start(0.0)
    assert plan.woke(0.05) == Rest(None)
    assert isinstance(plan.outcome(outcome(status=200), 3.0, first.number), Finish)
    assert "no hedge" in "\n".join(plan.info(3.0).trace())


def test_an_attempts_time_that_is_over_gives_nothing_up_and_is_told_to_the_detector() -> None:
    policy = RetryPolicy(frozenset({"5xx"}), retries=1, per_try_timeout=0.2)
    hedge = Hedge(on_try_timeout=True, methods=None, budget=None)
    plan, first, upstream = begun(hedge, method="POST", retry=policy)
    assert first.deadline == 15.0, "the route's, not the attempt's"
    assert first.hedge_at == pytest.approx(0.2 + 0.5 * 0.025), "after the back-off"
    second = plan.woke(first.hedge_at)
    assert isinstance(second, Send)
    assert second.hedge_at is None, "it was the last retry"
    assert [report.kind for report in upstream.picks[0].reports] == [OutcomeKind.TIMEOUT]
    assert isinstance(plan.outcome(outcome(status=200), 0.3, first.number), Finish)


@given(st.sampled_from([0.5, 0.9, 0.95, 0.99]), st.integers(0, 2**32))
def test_a_quantile_is_known_to_a_tenth_once_there_are_enough(share: float, seed: int) -> None:
    chance, sketch, values = random.Random(seed), Quantile(share, 0.0), []
    least = round(5 / (1 - share))
    for number in range(3 * least):
        if number < least:
            assert sketch.value(float(number > 0)) is None or len(values) >= least
        values.append(chance.lognormvariate(-3.0, 1.0))
        sketch.add(values[-1], 1.0)
    values.sort()
    found = sketch.value(3.0)
    assert found is not None
    around = [values[max(0, int(share * len(values)) + step) :][:1] for step in (-2, 1)]
    low, high = around[0][0], (around[1] or [values[-1]])[0]
    assert low / 1.1 <= found <= high * 1.1
    assert sketch.value(100.0) is None, "a minute later nothing is known"


@given(
    st.floats(0.0, 3.0),
    st.lists(
        st.tuples(st.floats(0.0, 1.0), st.sampled_from(["woke", "bad", "good", "reset", "refused"])),
        max_size=12,
    ),
    st.sampled_from([None, RETRY, RetryPolicy(frozenset({"5xx", "reset"}), retries=9, per_try_timeout=0.2)]),
    st.sampled_from([None, HEDGE, Hedge(on_try_timeout=True, methods=None)]),
)
def test_nothing_leaves_once_the_deadline_is_over(deadline, steps, retry, hedge) -> None:
    """Whatever happens to a call, and whenever: no attempt is begun at its deadline or later, and none has more time than is left."""
    plan, _ = make(
        Forward(cluster="c", retry=retry, hedge=hedge, timeout=0.0), concurrent=True, deadline=deadline
    )
    now, flight = 0.0, []
    effect = plan.start(now)
    for seconds, what in steps:
        if isinstance(effect, Send):
            assert now < deadline
            assert effect.deadline is not None
            assert effect.deadline <= deadline
            told = int(effect.head.headers.get("x-envoy-expected-rq-timeout-ms"))
            assert told <= max(1, (deadline - now) * 1000)
            flight.append(effect.number)
        elif isinstance(effect, Finish):
            return
        now += seconds
        if what == "woke" or not flight:
            effect = plan.woke(now)
            continue
        kinds = {"reset": OutcomeKind.RESET, "refused": OutcomeKind.CONNECT}
        ended = outcome(kinds[what]) if what in kinds else outcome(status=200 if what == "good" else 503)
        effect = plan.outcome(ended, now, flight.pop())
