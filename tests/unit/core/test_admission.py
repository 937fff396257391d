"""Admission control: the share that is refused, its bounds, and that a service which is well again gets its calls back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.admission import AdmissionControl, good
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.limits import Admission

OK = OutcomeKind.OK


def heard(policy, total, failed, now=0.0):
    control = AdmissionControl(policy)
    for number in range(total):
        control.add(now, failed=number < failed)
    return control


@pytest.mark.parametrize(
    ("policy", "total", "failed", "probability"),
    [
        (Admission(), 0, 0, 0.0),
        (Admission(), 100, 5, 0.0),
        (Admission(threshold=0.5), 99, 66, (99 - 33 / 0.5) / 100),
        (Admission(threshold=0.5, aggression=2.0), 99, 66, ((99 - 33 / 0.5) / 100) ** 0.5),
        (Admission(), 1000, 1000, 0.8),
        (Admission(most=1.0), 1000, 1000, 1000 / 1001),
        (Admission(least_rate=10.0), 299, 299, 0.0),
        (Admission(least_rate=10.0), 300, 300, 0.8),
    ],
)
def test_the_share_that_is_refused_is_envoys(policy, total, failed, probability):
    assert heard(policy, total, failed).probability(0.0) == pytest.approx(probability)


def test_what_is_older_than_the_window_counts_no_more():
    control = heard(Admission(window=10.0), 100, 100)
    assert control.probability(5.0) == 0.8
    assert control.probability(10.1) == 0.0


def test_a_service_that_is_well_again_gets_its_calls_back():
    control, draw, now = AdmissionControl(Admission(window=10.0)), random.Random(1).random, 0.0
    refused = [0, 0]
    for well in (False, True):
        for _ in range(4000):
            now += 0.01
            if draw() < control.probability(now):
                refused[well] += 1
            else:
                control.add(now, failed=not well)
    assert refused[False] > 0.7 * 4000
    assert refused[True] < 0.4 * 4000
    assert control.probability(now) == 0.0


@given(
    st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=80),
    st.floats(0.01, 1.0),
    st.floats(1.0, 10.0),
    st.floats(0, 1),
)
def test_it_is_a_probability_whatever_comes(calls, threshold, aggression, most):
    control, now = AdmissionControl(Admission(threshold=threshold, aggression=aggression, most=most)), 0.0
    for later, failed in calls:
        now += later
        control.add(now, failed=failed)
        assert 0.0 <= control.probability(now) <= most


def test_what_counts_as_good():
    policy = Admission(statuses=((200, 300), (404, 405)), codes=frozenset((0, 5)))
    for status, expected in ((200, True), (299, True), (300, False), (404, True), (500, False)):
        assert good(policy, Outcome(OK, status)) is expected
    for code, expected in ((0, True), (5, True), (14, False)):
        assert good(policy, Outcome(OK, code, grpc=True)) is expected
    assert good(policy, Outcome(OutcomeKind.CONNECT)) is False
    assert good(policy, Outcome(OutcomeKind.CANCELLED)) is None
