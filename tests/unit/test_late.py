"""A bound that one of a few tries has to keep: chance is forgiven once, and what is late by itself is not."""

from __future__ import annotations

import pytest

from tests.support.late import TRIES, Late, again_if_late, soon, within


def test_what_is_late_once_is_tried_again_and_what_is_late_each_time_is_late() -> None:
    left, tried = [3.0, 1.0], []

    @again_if_late
    def once() -> None:
        tried.append(1)
        soon(left.pop(0), 2.0, "the end")

    once()
    assert len(tried) == 2
    left[:] = [2.0] * TRIES
    with pytest.raises(Late, match="the end: 2, at most 2"):
        once()
    assert left == []


def test_no_other_error_is_tried_again() -> None:
    tried = []

    @again_if_late
    def wrong() -> None:
        tried.append(1)
        assert not tried

    with pytest.raises(AssertionError):
        wrong()
    assert len(tried) == 1


def test_the_least_holds_each_time_and_the_most_once() -> None:
    within(1.0, 2.0, iter([3.0, 1.5]).__next__)
    with pytest.raises(AssertionError):
        within(1.0, 2.0, iter([3.0, 0.5]).__next__)
    with pytest.raises(AssertionError):
        within(1.0, 2.0, iter([2.0] * TRIES).__next__)
