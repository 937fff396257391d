"""What a listener does to every response last, before its caller has it: Envoy's ``via`` and ``always_set_request_id_in_response``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.lines import add_via, set_line
from meshlib.core.strings import wire

if TYPE_CHECKING:
    from meshlib.core.lines import Lines
    from meshlib.model.call import Head
    from meshlib.model.listener import HttpManager

__all__ = ["Departure", "compile_departure"]

_REQUEST_ID = "x-request-id"


class Departure:
    """Compiled. Immutable; safe to share between threads."""

    __slots__ = ("_tells_id", "_via")

    def __init__(self, manager: HttpManager) -> None:
        self._via = wire(manager.via).strip().encode("latin-1")
        self._tells_id = manager.tells_request_id

    def mark(self, lines: Lines, request: Head | None) -> None:
        """Add to the lines of the response to ``request``, as it was sent. None: there is none."""
        if self._tells_id and request is not None:
            said = request.headers.get(_REQUEST_ID)
            if said is not None:
                set_line(lines, b"x-request-id", said.encode("latin-1", "replace"))
        if self._via:
            add_via(lines, self._via)


def compile_departure(manager: HttpManager) -> Departure | None:
    """None where nothing is to be done, as a rule."""
    return Departure(manager) if manager.via or manager.tells_request_id else None
