"""The words of OpenTelemetry's semantic conventions for an attempt (v1.44.0, ``http-spans.md``). Pure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from meshlib.model.call import OutcomeKind

if TYPE_CHECKING:
    from meshlib.model.call import CallInfo, Outcome
    from meshlib.model.events import AttemptStarted

__all__ = [
    "error_type",
    "host_port",
    "known_methods",
    "mesh_attributes",
    "peer",
    "place_attributes",
    "redacted",
    "start_attributes",
]

Attributes = dict[str, str | int]

_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_PORTS = {"http": 80, "https": 443}

#: Query parameters whose value is a secret by their name, as the conventions list them.
_SECRET = frozenset({"AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"})
_HIDDEN = "REDACTED"


def known_methods() -> frozenset[str]:
    """Methods that may name a span; ``OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS`` replaces the list."""
    said = os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "")
    return frozenset(method.strip() for method in said.split(",") if method.strip()) or _METHODS


def start_attributes(event: AttemptStarted, methods: frozenset[str]) -> Attributes:
    """What a sampler sees: everything that is known before the attempt is made."""
    method = event.head.method
    attributes: Attributes = {"http.request.method": method if method in methods else "_OTHER"}
    if method not in methods:
        attributes["http.request.method_original"] = method
    host, port = host_port(event.asked, event.scheme)
    attributes["server.address"] = host
    if port:
        attributes["server.port"] = port
    attributes["url.full"] = redacted(event.url)
    attributes.update(mesh_attributes(event))
    return attributes


def mesh_attributes(event: AttemptStarted) -> Attributes:
    """What is known only here: also for a span that somebody else made around the call."""
    attributes = place_attributes(event)
    if event.number > 1:
        attributes["http.request.resend_count"] = event.number - 1
    attributes.update(peer(event.endpoint))
    return attributes


def place_attributes(of: AttemptStarted | CallInfo) -> Attributes:
    """Where the mesh sent it."""
    attributes: Attributes = {"meshlib.via": of.via}
    if of.cluster:
        attributes["meshlib.cluster"] = of.cluster
    if of.route:
        attributes["meshlib.route"] = of.route
    attributes.update((f"meshlib.{kind}.version", version) for kind, version in of.versions.items())
    return attributes


def peer(endpoint: str) -> Attributes:
    """``network.peer.*`` of an endpoint as it is written; nothing where it is not known."""
    if not endpoint:
        return {}
    if endpoint.startswith("unix:"):
        return {"network.peer.address": endpoint.removeprefix("unix:"), "network.transport": "unix"}
    host, port = host_port(endpoint, "")
    found: Attributes = {"network.peer.address": host}
    if port:
        found["network.peer.port"] = port
    return found


def host_port(authority: str, scheme: str) -> tuple[str, int]:
    """Host and port of an authority; the scheme's port where it has none, 0 where that is not known either. What is no
    authority (a Host header may be anything) is a host as a whole.
    """
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        digits = rest.removeprefix(":")
        if not bracket or rest == digits != "":
            return authority, _PORTS.get(scheme, 0)
    else:
        host, colon, digits = authority.rpartition(":")
        if not colon or ":" in host:
            host, digits = authority, ""
    if not digits:
        return host, _PORTS.get(scheme, 0)
    if digits.isascii() and digits.isdigit() and len(digits) <= 5:
        return host, int(digits)
    return authority, _PORTS.get(scheme, 0)


def redacted(url: str) -> str:
    """``url`` without credentials: neither in front of its host nor in query parameters that are known to be some."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    ends = [index for index in map(rest.find, "/?#") if index >= 0]
    cut = min(ends, default=len(rest))
    authority, path = rest[:cut], rest[cut:]
    credentials, at, host = authority.rpartition("@")
    if at:
        hidden = f"{_HIDDEN}:{_HIDDEN}" if ":" in credentials else _HIDDEN
        authority = f"{hidden}@{host}"
    return f"{scheme}://{authority}{_without_secrets(path)}"


def _without_secrets(path: str) -> str:
    before, mark, query = path.partition("?")
    if not mark or not any(name in query for name in _SECRET):
        return path
    query, hash_mark, fragment = query.partition("#")
    pieces = query.split("&")
    for index, piece in enumerate(pieces):
        name, equals, _ = piece.partition("=")
        if equals and name in _SECRET:
            pieces[index] = f"{name}={_HIDDEN}"
    return f"{before}?{'&'.join(pieces)}{hash_mark}{fragment}"


def error_type(outcome: Outcome) -> str:
    """``error.type``: the status as text, the exception's name, or how it ended; ``""`` for what is no error, which a
    cancellation by the caller is not.
    """
    if outcome.status is not None and outcome.kind in (OutcomeKind.OK, OutcomeKind.STATUS):
        return str(outcome.status) if outcome.status >= 400 else ""
    if outcome.kind is OutcomeKind.CANCELLED and not isinstance(outcome.error, Exception):
        return ""
    if outcome.error is not None:
        return type(outcome.error).__qualname__
    return "" if outcome.kind is OutcomeKind.OK else outcome.kind.value
