"""The header ``proxy-status`` (RFC 9209): which failure a reply of our own tells of, as Envoy says it.

The error follows from the response flags, the first of them in the order of ``_ERRORS``; a reply without such a flag (a direct response, an
injected fault) has none. Measured with Envoy 1.40.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.lines import first_value, set_line
from meshlib.core.strings import wire

if TYPE_CHECKING:
    from meshlib.core.lines import Lines
    from meshlib.model.listener import HttpManager, ProxyStatus

__all__ = ["StatusLine", "compile_status_line"]

#: Flag → its error, and what more is said of it.
_ERRORS = {
    "UH": ("destination_unavailable", "no_healthy_upstream"),
    "UT": ("http_response_timeout", "response_timeout"),
    "LR": ("connection_timeout", "upstream_reset_before_response_started{local_reset}"),
    "UR": ("connection_terminated", "upstream_reset_before_response_started{remote_refused_stream_reset}"),
    "UF": ("connection_refused", "upstream_reset_before_response_started{remote_connection_failure}"),
    "UC": ("connection_terminated", "upstream_reset_before_response_started{connection_termination}"),
    "UO": ("connection_limit_reached", "upstream_reset_before_response_started{overflow}"),
    "NR": ("destination_not_found", "route_not_found"),
    "RL": ("connection_limit_reached", "request_rate_limited"),
    "RLSE": ("connection_limit_reached", "rate_limiter_error"),
    "SI": ("http_response_timeout", "stream_idle_timeout"),
    "UPE": ("http_protocol_error", "upstream_reset_before_response_started{protocol_error}"),
    "NC": ("destination_unavailable", "cluster_not_found"),
}
#: RFC 9209, 2.3: the status that goes with an error.
_RECOMMENDED = {
    "connection_limit_reached": 503,
    "connection_refused": 502,
    "connection_terminated": 502,
    "connection_timeout": 504,
    "destination_not_found": 500,
    "destination_unavailable": 503,
    "http_protocol_error": 502,
    "http_response_timeout": 504,
}
_NAME = "envoy"


class StatusLine:
    """Compiled. Immutable; safe to share between threads."""

    __slots__ = ("_name", "_says")

    def __init__(self, says: ProxyStatus, server: str, node: str) -> None:
        self._says = says
        self._name = wire(says.name or (node if says.node_id else server) or _NAME)

    def mark(self, lines: Lines, flags: str) -> int | None:
        """Say it in the lines of a reply with these flags, if it tells of a failure; the status that it is to have, None: its own."""
        raised = flags.split(",")
        found = next((told for flag, told in _ERRORS.items() if flag in raised), None)
        if found is None:
            return None
        says, (error, details) = self._says, found
        parts = [self._name, f"error={error}"]
        if says.details:
            told = f"{details}; {flags}" if says.flags else details
            parts.append(f'details="{told}"')
        before = first_value(lines, b"proxy-status")
        text = "; ".join(parts).encode("latin-1", "replace")
        set_line(lines, b"proxy-status", before + b", " + text if before else text)
        return _RECOMMENDED[error] if says.recommended else None


def compile_status_line(manager: HttpManager, node: str) -> StatusLine | None:
    """``node``: the id of this process's. None where nothing is said, as a rule."""
    says = manager.proxy_status
    return None if says is None else StatusLine(says, manager.server_name.strip(), node)
