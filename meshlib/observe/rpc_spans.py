"""The words of OpenTelemetry's semantic conventions for an RPC (v1.44.0, ``rpc-spans.md`` and ``grpc.md``), and of gRFC A72 for its
attempts. Pure.

The conventions' names before v1.38 (``rpc.system``, ``rpc.service``, ``rpc.grpc.status_code``) are added where
``OTEL_SEMCONV_STABILITY_OPT_IN`` has ``rpc/dup``; they are never alone, since nobody had them from here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from meshlib.model.call import OutcomeKind
from meshlib.observe.spans import host_port, peer, place_attributes

if TYPE_CHECKING:
    from meshlib.model.call import Outcome
    from meshlib.model.events import AttemptStarted, CallStarted
    from meshlib.observe.spans import Attributes

__all__ = [
    "attempt_attributes",
    "attempt_name",
    "call_attributes",
    "code_name",
    "code_number",
    "dup",
    "failure",
    "failure_words",
    "service_and_method",
]

#: gRPC's codes, by number.
_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)

#: What an RPC ends with that has neither an answer nor an error that names a code.
_BY_KIND = {
    OutcomeKind.CANCELLED: "CANCELLED",
    OutcomeKind.TIMEOUT: "DEADLINE_EXCEEDED",
    OutcomeKind.NO_TIME: "DEADLINE_EXCEEDED",
}


def dup() -> bool:
    """Whether the old names are wanted beside the new ones."""
    said = os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "")
    return "rpc/dup" in (word.strip() for word in said.split(","))


def service_and_method(method: str) -> tuple[str, str]:
    """The parts of ``"package.Service/Method"``."""
    service, _, name = method.rpartition("/")
    return service, name


def call_attributes(event: CallStarted, *, old: bool) -> Attributes:
    """What a sampler sees of a call. ``old``: by the old names, too, of which ``rpc.method`` is as in the new ones."""
    attributes: Attributes = {"rpc.system.name": "grpc", "rpc.method": event.method}
    host, port = host_port(event.asked, "")
    attributes["server.address"] = host
    if port:
        attributes["server.port"] = port
    if old:
        attributes["rpc.system"] = "grpc"
        attributes["rpc.service"] = service_and_method(event.method)[0]
    return attributes


def attempt_name(method: str) -> str:
    """The name of an attempt's span, by gRFC A72."""
    return f"Attempt.{method.replace('/', '.')}"


def attempt_attributes(event: AttemptStarted, *, transparent: bool) -> dict[str, str | int | bool]:
    """``transparent``: it is made again since the one before never left, not because a policy says so."""
    return {
        "previous-rpc-attempts": event.number - 1,
        "transparent-retry": transparent,
        **place_attributes(event),
        **peer(event.endpoint),
    }


def code_name(outcome: Outcome) -> str:
    """The code as the caller sees it; ``""`` where it sees an exception that has none."""
    error = outcome.error
    code = getattr(error, "code", None)
    if callable(code):
        return str(getattr(code(), "name", ""))
    if outcome.status is not None:
        return _CODES[outcome.status] if 0 <= outcome.status < len(_CODES) else "UNKNOWN"
    if outcome.kind is OutcomeKind.CANCELLED and isinstance(error, Exception):
        return ""
    return _BY_KIND.get(outcome.kind, "UNAVAILABLE")


def code_number(name: str) -> int:
    """UNKNOWN's for what is none."""
    return _CODES.index(name) if name in _CODES else 2


def failure(outcome: Outcome, code: str) -> str:
    """``error.type`` of an RPC that ended with ``code``: that, or the exception's name; ``""`` for what is no error, which a
    cancellation by the caller is not.
    """
    if code == "OK" or (code == "CANCELLED" and outcome.kind is OutcomeKind.CANCELLED):
        return ""
    return code or type(outcome.error).__qualname__


def failure_words(outcome: Outcome) -> str | None:
    """What went wrong, in words; None where the server said it by a code."""
    if outcome.status is not None:
        return None
    details = getattr(outcome.error, "details", None)
    words = details() if callable(details) else outcome.detail or str(outcome.error or "")
    return words or None
