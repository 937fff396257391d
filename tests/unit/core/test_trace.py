"""The words for how an attempt ended: what somebody who knows none of our names reads in a trace or an exception."""

from __future__ import annotations

import errno
import socket
import ssl

import httpcore
import pytest
from aiohttp import ClientConnectorError, ClientPayloadError
from urllib3.exceptions import NewConnectionError, ProtocolError

from meshlib.core.trace import attempt_line, broken, ending
from meshlib.errors import Overloaded
from meshlib.model.call import Attempt, Outcome, OutcomeKind
from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib_aiohttp.errors import AiohttpErrors

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
RESET = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def caused(error, cause):
    error.__cause__ = cause
    return error


def verification():
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


def circle():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        # the same by each library that makes attempts
        (OutcomeKind.CONNECT, REFUSED, "connection refused (errno 111)"),
        (OutcomeKind.CONNECT, caused(httpcore.ConnectError("x"), REFUSED), "connection refused (errno 111)"),
        (OutcomeKind.CONNECT, caused(NewConnectionError(None, "x"), REFUSED), "connection refused (errno 111)"),
        (
            OutcomeKind.CONNECT,
            ClientConnectorError(None, OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 9)")),
            "connection refused (errno 111)",
        ),
        (OutcomeKind.RESET, ProtocolError("Connection aborted.", RESET), "connection reset by the peer (errno 104)"),
        (OutcomeKind.RESET, caused(httpcore.ReadError("x"), RESET), "connection reset by the peer (errno 104)"),
        # what the system says, in words of ours where they are known
        (OutcomeKind.CONNECT, OSError(errno.EHOSTUNREACH, "x"), "no route to the host (errno 113)"),
        (OutcomeKind.CONNECT, OSError(errno.ENETUNREACH, "x"), "network unreachable (errno 101)"),
        (OutcomeKind.CONNECT, OSError(errno.ENOENT, "x"), "no such socket (errno 2)"),
        (OutcomeKind.CONNECT, OSError(errno.EMFILE, "Too many open files"), "too many open files (errno 24)"),
        (OutcomeKind.RESET, BrokenPipeError(errno.EPIPE, "x"), "connection closed by the peer (errno 32)"),
        (OutcomeKind.CONNECT, socket.gaierror(-2, "Name or service not known"), "name not resolved (Name or service not known)"),
        (OutcomeKind.CONNECT, verification(), "TLS failed (self-signed certificate)"),
        (OutcomeKind.CONNECT, caused(httpcore.ConnectError("x"), verification()), "TLS failed (self-signed certificate)"),
        # time
        (OutcomeKind.CONNECT, httpcore.ConnectTimeout("timed out"), "no connection in time"),
        (OutcomeKind.CONNECT, TimeoutError(), "no connection in time"),
        (OutcomeKind.TIMEOUT, httpcore.ReadTimeout("timed out"), "no answer in time"),
        (OutcomeKind.TIMEOUT, None, "no answer in time"),
        # what only a library says
        (OutcomeKind.RESET, httpcore.RemoteProtocolError("Server disconnected"), "connection lost (Server disconnected)"),
        (OutcomeKind.RESET, httpcore.ReadError(""), "connection lost (ReadError)"),
        (OutcomeKind.RESET, None, "connection lost"),
        (OutcomeKind.CONNECT, None, "no connection"),
        (OutcomeKind.REFUSED, httpcore.RemoteProtocolError("REFUSED_STREAM"), "request refused (REFUSED_STREAM)"),
        (OutcomeKind.CANCELLED, None, "given up by the caller"),
        (OutcomeKind.REFUSED, Overloaded("no free connection within 0.1 s"), "no free connection within 0.1 s"),
        (OutcomeKind.RESET, circle(), "connection lost (one)"),
    ],
)  # fmt: skip
def test_an_ending_in_words(kind, error, words):
    assert ending(Outcome(kind, error=error)) == words


def test_an_attempt_that_failed_says_what_was_sent():
    attempt = Attempt(1, "127.0.0.1:9", "connect", None, sent=False, seconds=0.001)
    assert attempt_line(attempt, "connection refused (errno 111)") == (
        "attempt 1: connection refused (errno 111) at 127.0.0.1:9 after 1.0 ms; no byte was sent"
    )
    attempt = Attempt(2, "127.0.0.1:9", "reset", None, sent=True, seconds=0.0214)
    assert attempt_line(attempt, "connection reset by the peer (errno 104)") == (
        "attempt 2: connection reset by the peer (errno 104) at 127.0.0.1:9 after 21.4 ms; the request may have been sent"
    )


@pytest.mark.parametrize(("outcome", "status"), [("ok", 200), ("status", 503)])
def test_an_attempt_that_was_answered_says_so(outcome, status):
    attempt = Attempt(3, "[::1]:9", outcome, status, sent=True, seconds=1.5)
    assert attempt_line(attempt, "") == f"attempt 3: status {status} from [::1]:9 after 1500.0 ms"


def test_what_aiohttp_writes_behind_its_errors_is_left_out():
    error = ClientPayloadError(
        "Response payload is not completed: <ContentLengthError: 400, message='x'>. OSError()"
    )
    bounds = Bounds(MonotonicClock())
    bounds.sent = True
    outcome = AiohttpErrors().outcome(error, bounds)
    assert outcome is not None
    assert broken(outcome, "127.0.0.1:9") == (
        "the response broke off in its body: connection lost (Response payload is not completed) at 127.0.0.1:9"
    )
