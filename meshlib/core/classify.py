"""What an attempt's outcome says of the host that it went to.

Theory. Everything below the attempt reads one verdict: the breaker whether it was good, outlier detection which HTTP
status it counts as. The table is Envoy's router's: a status stands for itself, of which 5xx is bad; whatever happened
without a status counts as the answer that Envoy would have given in its place (503 for a connection that failed or
broke, 502 for bytes that are no response, 504 for time that ran out) and is of local origin. An attempt that its caller
cancelled, or that a limit, a wait or credentials of our own ended, says nothing of the host. A gRPC code counts as the HTTP status that
Envoy's outlier detection takes it for; only OK is 200, so that who counts every other code as a failure (gRPC, OD-05)
can tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meshlib.model.call import OK, OutcomeKind

if TYPE_CHECKING:
    from meshlib.model.call import Outcome

__all__ = ["CANCELLED", "GATEWAY_ERRORS", "Verdict", "verdict"]

#: Envoy ``gateway-error`` and ``consecutive_gateway_failure``.
GATEWAY_ERRORS = frozenset((502, 503, 504))


@dataclass(frozen=True, slots=True)
class Verdict:
    """``good``: True, False, or None where nothing can be said. ``status``: what it counts as, 0 for none; ``local``:
    no answer came, so the status is what Envoy would have answered; ``grpc``: of a gRPC call.
    """

    good: bool | None
    status: int
    local: bool = False
    grpc: bool = False

    @property
    def gateway(self) -> bool:
        """Whether it counts as a gateway failure."""
        return self.status in GATEWAY_ERRORS


CANCELLED = Verdict(None, 0)

_LOCAL = {
    OutcomeKind.CONNECT: Verdict(False, 503, True),
    OutcomeKind.RESET: Verdict(False, 503, True),
    OutcomeKind.REFUSED: Verdict(False, 503, True),
    OutcomeKind.TIMEOUT: Verdict(False, 504, True),
    OutcomeKind.PROTOCOL: Verdict(False, 502, True),
    OutcomeKind.CANCELLED: CANCELLED,
    OutcomeKind.OVERFLOW: CANCELLED,
    OutcomeKind.NO_TIME: CANCELLED,
    OutcomeKind.OWN: CANCELLED,
    OutcomeKind.NO_TOKEN: CANCELLED,
    OutcomeKind.UNHEALTHY: CANCELLED,
}
#: Values are shared: a call makes none.
_ANSWERED = {status: Verdict(not 500 <= status <= 599, status) for status in range(100, 600)}
_LOCAL_GRPC = {kind: replace(judged, grpc=True) for kind, judged in _LOCAL.items()}
#: HTTP statuses of gRPC's codes 0 to 16 (Envoy ``Grpc::Utility::grpcToHttpStatus``).
_CODES = tuple(
    Verdict(not 500 <= status <= 599, status, grpc=True)
    for status in (200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)
)
_UNKNOWN_CODE = _CODES[2]


def verdict(outcome: Outcome) -> Verdict:
    """The one verdict on an attempt. A break in the body (a RESET or TIMEOUT whose ``status`` is set, too) is a
    failure of the host, whatever its status was.
    """
    if outcome.kind is not OK:  # the usual one first: to look up an Enum costs a call of Python's
        local = (_LOCAL_GRPC if outcome.grpc else _LOCAL).get(outcome.kind)
        if local is not None:
            return local
    status = outcome.status or 0
    if outcome.grpc:
        return _CODES[status] if 0 <= status < len(_CODES) else _UNKNOWN_CODE
    return _ANSWERED.get(status) or Verdict(True, status)
