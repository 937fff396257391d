"""What aiohttp's errors mean, and errors that are meshlib's and aiohttp's at once."""

from __future__ import annotations

import pickle
import ssl
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from meshlib.errors import (
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    MeshError,
    NoHealthyEndpoint,
    NotReady,
    Overloaded,
    TransportFailed,
    UnknownService,
)
from meshlib.model.call import OutcomeKind
from meshlib_aiohttp.failures import is_outcome, join, made, outcome_of

KEY = ConnectionKey("h", 80, False, True, *[None] * (len(ConnectionKey._fields) - 4))
REQUEST = SimpleNamespace(connection_key=KEY)


@pytest.mark.parametrize(
    ("error", "dialed", "kind"),
    [
        (aiohttp.ClientConnectorError(KEY, OSError(111, "refused")), True, OutcomeKind.CONNECT),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "bad")), True, OutcomeKind.CONNECT),
        (aiohttp.ConnectionTimeoutError("slow"), True, OutcomeKind.CONNECT),
        (aiohttp.ConnectionTimeoutError("the pool was full"), False, OutcomeKind.OVERFLOW),
        (Overloaded("full"), False, OutcomeKind.OVERFLOW),
        (aiohttp.SocketTimeoutError("slow"), True, OutcomeKind.TIMEOUT),
        (TimeoutError(), True, OutcomeKind.TIMEOUT),
        (aiohttp.ServerDisconnectedError(), True, OutcomeKind.RESET),
        (aiohttp.ClientOSError(104, "reset"), True, OutcomeKind.RESET),
        (aiohttp.ClientPayloadError("cut"), True, OutcomeKind.RESET),
    ],
)
def test_what_an_error_means(error: BaseException, dialed: bool, kind: OutcomeKind) -> None:
    outcome = outcome_of(error, dialed=dialed, sent=True, seconds=1.0)
    assert (outcome.kind, outcome.sent, outcome.error) == (kind, True, error)
    assert outcome.detail


def test_what_is_not_the_upstreams() -> None:
    assert not is_outcome(TimeoutError())
    assert not is_outcome(aiohttp.ClientConnectionError("Connector is closed."))
    assert is_outcome(aiohttp.SocketTimeoutError())
    assert is_outcome(aiohttp.ServerDisconnectedError())


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ClientConnectorError(KEY, OSError(111, "refused")),
        aiohttp.ServerDisconnectedError("gone"),
        aiohttp.ClientOSError(104, "reset"),
        aiohttp.ClientPayloadError("cut"),
        aiohttp.SocketTimeoutError("slow"),
    ],
)
def test_an_error_keeps_what_it_was(error: aiohttp.ClientError) -> None:
    both = join(error, TransportFailed, "reviews at 10.0.0.1:80: gone", None, sent=True, phase="body")
    assert isinstance(both, TransportFailed)
    assert isinstance(both, type(error))
    assert both.args == error.args
    assert (str(both), both.sent, both.phase) == ("reviews at 10.0.0.1:80: gone", True, "body")
    if isinstance(error, OSError):
        assert (both.errno, both.strerror) == (error.errno, error.strerror)
    again = pickle.loads(pickle.dumps(both))
    assert (type(again), str(again), repr(again.args)) == (type(both), str(both), repr(both.args))
    assert type(join(error, TransportFailed, "", None, sent=True)) is type(both)


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (NoHealthyEndpoint, aiohttp.ClientConnectorError),
        (CircuitOpen, aiohttp.ClientConnectorError),
        (UnknownService, aiohttp.ClientConnectorError),
        (NotReady, aiohttp.ClientConnectorError),
        (ConnectFailed, aiohttp.ClientConnectorError),
        (Overloaded, aiohttp.ConnectionTimeoutError),
        (DeadlineExceeded, aiohttp.SocketTimeoutError),
        (TransportFailed, aiohttp.ServerDisconnectedError),
    ],
)
def test_errors_that_no_socket_reported(kind: type[MeshError], base: type[Exception]) -> None:
    error = made(kind, "why", None, REQUEST, sent=False)
    assert isinstance(error, kind)
    assert isinstance(error, base)
    assert (str(error), error.phase) == ("why", kind.default_phase)


def test_a_deadline_before_any_connection_is_a_connect_timeout() -> None:
    error = made(DeadlineExceeded, "why", None, REQUEST, sent=False, connected=False)
    assert isinstance(error, aiohttp.ConnectionTimeoutError)
    assert isinstance(error, TimeoutError)
