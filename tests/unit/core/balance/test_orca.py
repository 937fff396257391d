"""Weights from endpoints' own reports (LB-07, LB-08, gRFC A58)."""

import random
from collections import Counter

import pytest

from meshlib.core.balance.orca import OrcaRoundRobin
from meshlib.core.loads import Metrics
from meshlib.core.reported import ReportedWeight, weight_of
from meshlib.core.upstream import PickContext
from meshlib.model.policy import Balancer, Balancing, Reports
from tests.support.live_kit import Watched, flat, live_endpoint

NOW = 100.0


@pytest.mark.parametrize(
    ("metrics", "reports", "weight"),
    [
        (Metrics(application_utilization=0.5, rps=100.0), Reports(), 200.0),
        (Metrics(cpu_utilization=0.5, rps=100.0), Reports(), 200.0),
        (Metrics(cpu_utilization=0.9, application_utilization=0.5, rps=100.0), Reports(), 200.0),
        (Metrics(application_utilization=0.5, rps=100.0, eps=50.0), Reports(), 100.0),
        (Metrics(application_utilization=0.5, rps=100.0, eps=50.0), Reports(penalty=0.0), 200.0),
        (Metrics(named_metrics={"kv": 0.25}, application_utilization=0.5, rps=100.0), Reports(names=("named_metrics.kv",)), 400.0),
        (Metrics(utilization={"g": 0.2}, named_metrics={"kv": 0.25}, rps=100.0), Reports(names=("named_metrics.kv", "utilization.g")), 400.0),
        (Metrics(mem_utilization=0.5, rps=100.0), Reports(names=("mem_utilization",)), 200.0),
        (Metrics(application_utilization=0.5, rps=100.0), Reports(names=("named_metrics.none", "nonsense")), 200.0),
        (Metrics(rps=100.0), Reports(), None),
        (Metrics(application_utilization=0.5), Reports(), None),
        (Metrics(application_utilization=-1.0, rps=100.0), Reports(), None),
        (Metrics(application_utilization=float("nan"), rps=100.0), Reports(), None),
        (Metrics(application_utilization=0.5, rps=float("inf")), Reports(), None),
    ],
)  # fmt: skip
def test_the_weight_of_a_report(metrics, reports, weight):
    """LB-07; LB-08: metrics that are named come first."""
    assert weight_of(metrics, reports) == (None if weight is None else pytest.approx(weight))


def said(*reports, at=NOW - 50.0):
    """An endpoint's weight, by reports of (rps, utilization) at these times after ``at``."""
    made = ReportedWeight()
    for later, rps, used in reports:
        made.add(Metrics(application_utilization=used, rps=rps), Reports(), at + later)
    return made


def test_a_weight_counts_after_the_blackout_and_until_it_expires():
    reports, made = Reports(), ReportedWeight()
    made.add(Metrics(application_utilization=0.5, rps=10.0), reports, 0.0)
    assert [made.usable(reports, at) for at in (0.0, 9.9)] == [0.0, 0.0]
    assert [made.usable(reports, at) for at in (10.0, 179.9)] == [20.0, 20.0]
    assert made.usable(reports, 180.0) == 0.0
    made.add(Metrics(application_utilization=0.5, rps=10.0), reports, 200.0)
    assert made.usable(reports, 205.0) == 0.0, "the blackout begins anew"
    assert made.usable(reports, 210.0) == 20.0


def shares(endpoints, now=NOW, picks=4000):
    picker, context = OrcaRoundRobin(endpoints, random.Random(1).random, Reports()), PickContext()
    context.now = now
    counts = Counter(picker.pick(context) for _ in range(picks))
    return [counts[endpoint] / picks for endpoint in endpoints]


def endpoints(*weights):
    made = [live_endpoint(number) for number in range(len(weights))]
    for endpoint, weight in zip(made, weights, strict=True):
        if weight:
            endpoint.reported = said((0.0, weight, 1.0), (45.0, weight, 1.0))
    return made


def test_turns_follow_the_weights():
    assert shares(endpoints(100.0, 300.0, 600.0)) == pytest.approx([0.1, 0.3, 0.6], abs=0.01)


def test_who_says_nothing_has_the_mean_of_the_others():
    assert shares(endpoints(100.0, 300.0, 0.0)) == pytest.approx([1 / 6, 3 / 6, 2 / 6], abs=0.01)


def test_one_weight_is_none():
    assert shares(endpoints(100.0, 0.0, 0.0)) == pytest.approx([1 / 3] * 3, abs=0.01)


def test_weights_are_made_anew_once_in_a_while_and_turns_go_on():
    made = endpoints(100.0, 100.0)
    picker, context = OrcaRoundRobin(made, random.Random(1).random, Reports(update=1.0)), PickContext()
    context.now = NOW
    for _ in range(100):
        picker.pick(context)
    made[0].reported.add(Metrics(application_utilization=1.0, rps=900.0), Reports(), NOW)
    assert Counter(picker.pick(context) for _ in range(100))[made[0]] in (49, 50, 51), (
        "not before the second is over"
    )
    context.now = NOW + 1.0
    assert Counter(picker.pick(context) for _ in range(1000))[made[0]] == pytest.approx(900, abs=12)


def test_answers_of_http_calls_steer_a_live_cluster():
    """The header that vLLM and Triton send."""
    from meshlib.model.call import Outcome, OutcomeKind
    from meshlib.model.headers import Headers

    balancing = Balancing(Balancer.ORCA, reports=Reports(blackout=0.0))
    watched = Watched(flat(2, balancing=balancing), now=1.0)
    first = watched.live.endpoints[0]

    def calls(count):
        counts = Counter()
        for _ in range(count):
            pick = watched.live.pick(PickContext(), watched.now)
            counts[pick.endpoint] += 1
            rps = 300 if pick.endpoint is first else 100
            line = f"TEXT application_utilization=0.5, rps_fractional={rps}"
            headers = Headers.of(("endpoint-load-metrics", line))
            outcome = Outcome(OutcomeKind.OK, status=200, sent=True, headers=headers)
            pick.report(outcome, watched.now)
            pick.release(watched.now)
        return counts

    calls(10)
    watched.now = 5.0
    assert calls(400)[first] == pytest.approx(300, abs=4)
    # Another balancer: nobody listens any more.
    watched.live.update(flat(2), 6.0)
    assert not watched.live.pick(PickContext(), 6.0).listens
