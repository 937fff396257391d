"""What is told of a call is put together when somebody asks, and is then what it would have been at once."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest

from meshlib.model.call import Attempt, CallInfo

INFO = CallInfo(
    via="mesh",
    listener="l",
    route="r",
    cluster="c",
    endpoint="10.0.0.1:80",
    attempts=(Attempt(1, "10.0.0.1:80", "ok", 200, True, 0.1),),
    seconds=0.2,
    lines=("GET http://reviews/",),
)


def test_it_is_made_once_and_not_before_it_is_asked_for() -> None:
    made: list[CallInfo] = []
    info = CallInfo.later(lambda: made.append(INFO) or INFO)  # type: ignore[func-returns-value]
    assert not made
    assert (info.via, info.route, info.seconds, info.trace()) == ("mesh", "r", 0.2, INFO.lines)
    assert made == [INFO]


@pytest.mark.parametrize(
    "same",
    [
        lambda info: info == INFO,
        lambda info: INFO == info,  # noqa: SIM300 - the other way round
        lambda info: hash(info) == hash(INFO),
        lambda info: repr(info) == repr(INFO),
        lambda info: info.to_dict() == INFO.to_dict(),
        lambda info: pickle.loads(pickle.dumps(info)) == INFO,
        lambda info: copy.copy(info) == INFO,
        lambda info: copy.deepcopy(info) == INFO,
        lambda info: replace(info, route="x") == replace(INFO, route="x"),
    ],
)
def test_it_is_as_one_that_was_made_at_once(same) -> None:
    assert same(CallInfo.later(lambda: INFO))


def test_it_has_no_other_attributes_and_none_can_be_set() -> None:
    for info in (INFO, CallInfo.later(lambda: INFO)):
        with pytest.raises(AttributeError, match="'CallInfo' object has no attribute 'rout'"):
            info.rout  # type: ignore[attr-defined]  # noqa: B018
        assert not hasattr(info, "__wrapped__")
        with pytest.raises(AttributeError):
            info.route = "x"  # type: ignore[misc]
