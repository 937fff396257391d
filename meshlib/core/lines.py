"""Header lines in bytes, and which headers have one line only."""

from __future__ import annotations

from meshlib.model.headers import OF_THE_CONNECTION as _OF_THE_CONNECTION

__all__ = [
    "CONTROLS",
    "OF_THE_CONNECTION",
    "ONE_LINE_REQUEST",
    "ONE_LINE_RESPONSE",
    "Lines",
    "add_line",
    "add_via",
    "first_value",
    "set_line",
]

Lines = list[tuple[bytes, bytes]]

_REQUEST = """
    accept accept-encoding access-control-request-headers access-control-request-method
    access-control-request-private-network authorization cache-control connection content-encoding content-length
    content-type expect grpc-accept-encoding grpc-timeout if-match if-modified-since if-none-match if-range
    if-unmodified-since keep-alive origin pragma proxy-connection proxy-status referer te transfer-encoding upgrade
    user-agent via x-client-trace-id x-envoy-attempt-count x-envoy-decorator-operation
    x-envoy-downstream-service-cluster x-envoy-downstream-service-node x-envoy-expected-rq-timeout-ms
    x-envoy-external-address x-envoy-force-trace x-envoy-internal x-envoy-ip-tags x-envoy-is-timeout-retry
    x-envoy-original-host x-envoy-original-path x-envoy-upstream-alt-stat-name x-envoy-upstream-rq-timeout-ms
    x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-request-id
"""
_RESPONSE = """
    access-control-allow-credentials access-control-allow-headers access-control-allow-methods
    access-control-allow-origin access-control-expose-headers access-control-max-age cache-control connection
    content-encoding content-length content-type date etag grpc-message grpc-status keep-alive last-modified location
    proxy-connection proxy-status server transfer-encoding upgrade vary via x-envoy-attempt-count
    x-envoy-decorator-operation x-envoy-degraded x-envoy-immediate-health-check-fail x-envoy-ratelimited
    x-envoy-upstream-canary x-envoy-upstream-healthchecked-cluster x-envoy-upstream-service-time x-request-id
"""
#: Headers of which Envoy (1.40) keeps one line: more is joined with a comma to it, never a line of its own.
ONE_LINE_REQUEST = frozenset(_REQUEST.encode().split())
ONE_LINE_RESPONSE = frozenset(_RESPONSE.encode().split())
#: What no edit touches (:data:`meshlib.model.headers.OF_THE_CONNECTION`).
OF_THE_CONNECTION = frozenset(name.encode() for name in _OF_THE_CONNECTION)
#: What no value has (RFC 9110, 5.5): all controls of ASCII but the tab.
CONTROLS = bytes(code for code in (*range(32), 127) if code != 9)


def set_line(lines: Lines, name: bytes, value: bytes) -> None:
    """Exactly one line of that name (lower case), in the place of the first that was there."""
    at = -1
    for number in range(len(lines) - 1, -1, -1):
        if lines[number][0].lower() == name:
            if at >= 0:
                del lines[at]
            at = number
    if at < 0:
        lines.append((name, value))
    else:
        lines[at] = (lines[at][0], value)


def add_line(lines: Lines, name: bytes, value: bytes, one_line: frozenset[bytes] = ONE_LINE_REQUEST) -> None:
    """One line more; or more in the line that is there, of a header that has one line only."""
    if name in one_line:
        for number in range(len(lines) - 1, -1, -1):
            key, present = lines[number]
            if key.lower() == name:
                lines[number] = (key, present + b"," + value if present and value else present or value)
                return
    lines.append((name, value))


def add_via(lines: Lines, name: bytes) -> None:
    """One more that a message came by: all of them stand in one line, as Envoy writes it."""
    present = b",".join(value for key, value in lines if key.lower() == b"via" and value)
    set_line(lines, b"via", present + b", " + name if present else name)


def first_value(lines: Lines, name: bytes) -> bytes | None:
    """The value of the first line of that name (lower case)."""
    for key, value in lines:
        if key.lower() == name:
            return value
    return None
