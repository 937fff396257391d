"""Errors of two families: what they are made of, what they mean, and that they can be carried about."""

from __future__ import annotations

import copy
import pickle

import httpcore
import httpx
import pytest

from meshlib.errors import ConnectFailed, DeadlineExceeded, MeshError, NotReady, Overloaded, TransportFailed
from meshlib.hosts.errors import join
from meshlib.hosts.httpx.host import HttpxHost
from meshlib.model.call import Attempt, CallInfo, Outcome, OutcomeKind
from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.wire import errors as wire

ERRORS = HttpxHost(httpx, httpcore).errors


def info(outcome: str = "reset") -> CallInfo:
    attempt = Attempt(1, "127.0.0.1:80", outcome, None, True, 0.1)
    return CallInfo(
        via="mesh", cluster="c", endpoint="127.0.0.1:80", attempts=(attempt,), lines=lambda: ("a", "b")
    )


def test_there_is_one_class_for_each_pair() -> None:
    assert join(Overloaded, httpx.PoolTimeout) is join(Overloaded, httpx.PoolTimeout)
    assert join(Overloaded, httpx.PoolTimeout).__name__ == "Overloaded"


@pytest.mark.parametrize("carry", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("failure", [ConnectFailed, NotReady, Overloaded, DeadlineExceeded])
def test_an_error_can_be_pickled_and_copied(failure: type[MeshError], carry) -> None:  # type: ignore[no-untyped-def]
    error = ERRORS.made(failure, "because", info=info(), sent=True, phase="body")
    found = carry(error)
    assert type(found) is type(error)
    assert isinstance(found, httpx.TransportError)
    assert isinstance(found, failure)
    assert str(found) == "because"
    assert found.sent is True
    assert found.phase == "body"
    assert found.info == error.info  # type: ignore[attr-defined]
    assert found.info.trace() == ("a", "b")


@pytest.mark.parametrize(
    ("error", "kind", "host"),
    [
        (wire.ConnectTimeout(), OutcomeKind.CONNECT, httpx.ConnectTimeout),
        (wire.ConnectError(), OutcomeKind.CONNECT, httpx.ConnectError),
        (wire.StreamRefused(), OutcomeKind.REFUSED, httpx.RemoteProtocolError),
        (wire.RemoteProtocolError(), OutcomeKind.PROTOCOL, httpx.RemoteProtocolError),
        (wire.Disconnected(), OutcomeKind.RESET, httpx.RemoteProtocolError),
        (wire.ReadTimeout(), OutcomeKind.TIMEOUT, httpx.ReadTimeout),
        (wire.ReadError(), OutcomeKind.RESET, httpx.ReadError),
        (wire.WriteError(), OutcomeKind.RESET, httpx.WriteError),
    ],
)
def test_what_the_network_said_is_the_callers_class(error, kind, host) -> None:  # type: ignore[no-untyped-def]
    outcome = ERRORS.outcome(error, Bounds(MonotonicClock()))
    assert outcome is not None
    assert outcome.kind is kind
    assert isinstance(ERRORS.made(TransportFailed, "so", info=info(), cause=outcome), host)


@pytest.mark.parametrize(
    ("error", "kind"), [(Overloaded("full"), OutcomeKind.OVERFLOW), (TimeoutError(), OutcomeKind.NO_TIME)]
)
def test_waits_of_our_own_are_kinds_of_their_own(error: BaseException, kind: OutcomeKind) -> None:
    outcome = ERRORS.outcome(error, Bounds(MonotonicClock()))
    assert outcome is not None
    assert outcome.kind is kind


@pytest.mark.parametrize("error", [wire.LocalProtocolError("no"), ValueError(), KeyboardInterrupt()])
def test_what_is_the_callers_own_is_no_outcome(error: BaseException) -> None:
    assert ERRORS.outcome(error, Bounds(MonotonicClock())) is None


def test_the_callers_own_error_is_in_the_librarys_words() -> None:
    assert isinstance(ERRORS.own(wire.LocalProtocolError("no")), httpx.LocalProtocolError)
    problem = ValueError()
    assert ERRORS.own(problem) is problem


@pytest.mark.parametrize(
    ("cause", "last", "host"),
    [
        (None, "connect", httpx.ConnectTimeout),
        (Outcome(OutcomeKind.NO_TIME), "timeout", httpx.ConnectTimeout),
        (Outcome(OutcomeKind.TIMEOUT, error=wire.WriteTimeout()), "timeout", httpx.WriteTimeout),
        (Outcome(OutcomeKind.TIMEOUT, error=wire.ReadTimeout()), "timeout", httpx.ReadTimeout),
        (None, "status", httpx.ReadTimeout),
    ],
)
def test_a_deadline_is_the_timeout_of_what_was_done_when_it_ended(cause, last, host) -> None:  # type: ignore[no-untyped-def]
    error = ERRORS.made(DeadlineExceeded, "over", info=info(last), cause=cause)
    assert type(error).__mro__[-1] is object
    assert isinstance(error, host)
