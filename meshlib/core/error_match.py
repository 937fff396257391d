"""Which responses of a cluster count as errors of the endpoint, where the cluster says (Envoy's ``error_matcher``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.classify import Verdict, verdict
from meshlib.core.conditions import header_values_match
from meshlib.core.strings import wire
from meshlib.model.call import OK
from meshlib.model.policy import MatchKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.model.call import Outcome
    from meshlib.model.headers import Headers
    from meshlib.model.policy import ResponseMatch

    _Test = Callable[[int, Headers | None], bool]

__all__ = ["ErrorMatch"]

#: As Envoy: what is matched counts as a 500, all else as a 200.
_ERROR, _SUCCESS = Verdict(False, 500), Verdict(True, 200)


class ErrorMatch:
    """Compiled. Immutable; safe to share between threads."""

    __slots__ = ("_test",)

    def __init__(self, match: ResponseMatch) -> None:
        self._test = _compiled(match)

    def verdict(self, outcome: Outcome) -> Verdict:
        """As :func:`meshlib.core.classify.verdict`; of an attempt without an HTTP response it is that."""
        if outcome.kind is not OK or outcome.grpc:
            return verdict(outcome)
        return _ERROR if self._test(outcome.status or 0, outcome.headers) else _SUCCESS


def _compiled(match: ResponseMatch) -> _Test:
    kind = match.kind
    if kind is MatchKind.EVERYTHING:
        return lambda status, headers: True  # noqa: ARG005 - as the others
    if kind is MatchKind.HEADERS:
        tests = tuple((wire(each.name), header_values_match(each)) for each in match.headers)
        return lambda status, headers: all(test(_value(name, status, headers)) for name, test in tests)
    inner = tuple(map(_compiled, match.inner))
    if kind is MatchKind.NOT:
        return lambda status, headers: not inner[0](status, headers)
    if kind is MatchKind.ALL:
        return lambda status, headers: all(test(status, headers) for test in inner)
    return lambda status, headers: any(test(status, headers) for test in inner)


def _value(name: str, status: int, headers: Headers | None) -> str | None:
    if name == ":status":
        return str(status)
    return None if headers is None else headers.get(name)
