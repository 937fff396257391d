"""What aiohttp's errors mean, and errors that are meshlib's and aiohttp's at once."""

from __future__ import annotations

import copy
import pickle
import ssl
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import TransferEncodingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from meshlib.errors import (
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    MeshError,
    NoHealthyEndpoint,
    NotReady,
    Overloaded,
    ProtocolError,
    TransportFailed,
    UnknownService,
)
from meshlib.model.call import CallInfo, Outcome, OutcomeKind
from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib_aiohttp.errors import AiohttpErrors, named

KEY = ConnectionKey("h", 80, False, True, *[None] * (len(ConnectionKey._fields) - 4))
HEADERS = CIMultiDictProxy(CIMultiDict([("Host", "h"), ("a", "1"), ("a", "2")]))
ASKED = aiohttp.RequestInfo(URL("http://h/"), "GET", HEADERS, URL("http://h/#x"))
UNREADABLE = aiohttp.ClientResponseError(ASKED, (), status=400, message="bad", headers=HEADERS)
ERRORS = AiohttpErrors()


def bounds_of(*, sent: bool = True, expired: bool = False) -> Bounds:
    bounds = Bounds(MonotonicClock())
    bounds.sent, bounds.expired = sent, expired
    return bounds


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aiohttp.ClientConnectorError(KEY, OSError(111, "refused")), OutcomeKind.CONNECT),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "bad")), OutcomeKind.CONNECT),
        (aiohttp.ServerFingerprintMismatch(b"a", b"b", "h", 443), OutcomeKind.CONNECT),
        (aiohttp.ConnectionTimeoutError("slow"), OutcomeKind.CONNECT),
        (Overloaded("full"), OutcomeKind.OVERFLOW),
        (aiohttp.SocketTimeoutError("slow"), OutcomeKind.TIMEOUT),
        (UNREADABLE, OutcomeKind.PROTOCOL),
        (TransferEncodingError("no chunk"), OutcomeKind.PROTOCOL),
        (aiohttp.ServerDisconnectedError(), OutcomeKind.RESET),
        (aiohttp.ClientOSError(104, "reset"), OutcomeKind.RESET),
        (aiohttp.ClientPayloadError("cut"), OutcomeKind.RESET),
        (ConnectionResetError("while written"), OutcomeKind.RESET),
    ],
)
def test_what_an_error_means(error: BaseException, kind: OutcomeKind) -> None:
    outcome = ERRORS.outcome(error, bounds_of())
    assert outcome is not None
    assert (outcome.kind, outcome.sent, outcome.error, outcome.late) == (kind, True, error, False)
    assert outcome.detail


@pytest.mark.parametrize(("sent", "kind"), [(False, OutcomeKind.NO_TIME), (True, OutcomeKind.TIMEOUT)])
def test_a_deadline_that_is_over(sent: bool, kind: OutcomeKind) -> None:
    outcome = ERRORS.outcome(TimeoutError(), bounds_of(sent=sent, expired=True))
    assert outcome is not None
    assert (outcome.kind, outcome.late) == (kind, True)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        aiohttp.ClientConnectionError("Connector is closed."),
        ValueError("of the caller's body"),
    ],
)
def test_what_is_the_callers(error: BaseException) -> None:
    assert ERRORS.outcome(error, bounds_of()) is None
    assert ERRORS.own(error) is error


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (ConnectFailed, aiohttp.ClientConnectorError(KEY, OSError(111, "refused"))),
        (TransportFailed, aiohttp.ServerDisconnectedError("gone")),
        (TransportFailed, aiohttp.ClientOSError(104, "reset")),
        (TransportFailed, aiohttp.ClientPayloadError("cut")),
        (DeadlineExceeded, aiohttp.SocketTimeoutError("slow")),
        (ProtocolError, UNREADABLE),
    ],
)
def test_an_error_keeps_what_it_was(failure: type[MeshError], error: aiohttp.ClientError) -> None:
    outcome = Outcome(OutcomeKind.RESET, error=error)
    text, info = "reviews at 10.0.0.1:80: gone", CallInfo("mesh", cluster="reviews")
    both: Any = ERRORS.made(failure, text, info=info, cause=outcome, sent=True, phase="body")
    assert isinstance(both, failure)
    assert isinstance(both, type(error))
    assert both.args == error.args
    assert (str(both), both.sent, both.phase) == (text, True, "body")
    if isinstance(error, OSError):
        assert (both.errno, both.strerror) == (error.errno, error.strerror)
    for again in (pickle.loads(pickle.dumps(both)), copy.copy(both)):
        assert (type(again), str(again), again.info) == (type(both), text, info)
        assert repr(again.args) == repr(both.args)
        if isinstance(error, aiohttp.ClientResponseError):
            assert (again.status, again.headers) == (400, HEADERS)
            assert again.request_info.headers.getall("a") == ["1", "2"]
    assert type(ERRORS.made(failure, "", info=None, cause=outcome)) is type(both)


def test_what_no_other_process_has_is_not_pickled() -> None:
    """TLS contexts, and the responses that led here."""
    key = KEY._replace(ssl=ssl.create_default_context())
    refused = Outcome(OutcomeKind.CONNECT, error=aiohttp.ClientConnectorError(key, OSError(111, "refused")))
    again: Any = pickle.loads(pickle.dumps(ERRORS.made(ConnectFailed, "no", info=None, cause=refused)))
    assert (again.host, again.ssl) == ("h", True)
    redirected = aiohttp.ClientResponseError(ASKED, (object.__new__(aiohttp.ClientResponse),))
    unreadable = Outcome(OutcomeKind.PROTOCOL, error=redirected)
    again = pickle.loads(pickle.dumps(ERRORS.made(ProtocolError, "no", info=None, cause=unreadable)))
    assert again.history == ()


@pytest.mark.parametrize(
    ("failure", "base"),
    [
        (NoHealthyEndpoint, aiohttp.ClientConnectorError),
        (CircuitOpen, aiohttp.ClientConnectorError),
        (UnknownService, aiohttp.ClientConnectorError),
        (NotReady, aiohttp.ClientConnectorError),
        (Overloaded, aiohttp.ConnectionTimeoutError),
        (DeadlineExceeded, aiohttp.SocketTimeoutError),
        (TransportFailed, aiohttp.ServerDisconnectedError),
    ],
)
def test_errors_that_no_socket_reported(failure: type[MeshError], base: type[Exception]) -> None:
    request = SimpleNamespace(connection_key=KEY)
    error = named(ERRORS.made(failure, "why", info=None), request)
    assert isinstance(error, failure)
    assert isinstance(error, base)
    assert (str(error), error.phase) == ("why", failure.default_phase)
    if isinstance(error, aiohttp.ClientConnectorError):
        assert error.host == "h"


def test_a_deadline_before_any_connection_is_a_connect_timeout() -> None:
    error = ERRORS.made(DeadlineExceeded, "why", info=CallInfo("mesh"))
    assert isinstance(error, aiohttp.ConnectionTimeoutError)
    assert isinstance(error, TimeoutError)
