"""Where a call of a pass-through cluster goes, where that is not its URL (Envoy ``OriginalDstLbConfig``).

A header that says it may say any address: it is read only where the cluster orders so, and nothing but an IP address and a port is taken
from it, as in Envoy. What is no such is passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.override import Override, spelled
from meshlib.model.address import Address

if TYPE_CHECKING:
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.call import Head
    from meshlib.model.cluster import Destination

__all__ = ["Bound", "bound_for"]

#: Any, to have a host parsed that comes without one.
_PORT = 80


class Bound:
    """The endpoint at ``address`` is the one of every attempt (see `core.override`)."""

    __slots__ = ("_override", "address")

    def __init__(self, address: Address) -> None:
        self.address = address
        self._override = Override((spelled(address),), strict=True, anybody=True)

    def override(self, number: int) -> Override:  # noqa: ARG002 - it is the same of all
        return self._override

    def picked(self, endpoint: LiveEndpoint) -> None:
        """It goes there again."""


def bound_for(rule: Destination, head: Head) -> Bound | None:
    """Where a call with ``head`` goes; None: to its URL."""
    found = _said(head, rule.header) if rule.header else None
    if rule.port:
        try:
            host = found.host if found is not None else Address.parse(head.authority, _PORT).host
        except ValueError:
            return None
        found = Address(host, rule.port)
    return None if found is None else Bound(found)


def _said(head: Head, header: str) -> Address | None:
    """By the first line of that name."""
    text = next((value for name, value in head.headers if name.lower() == header), "")
    try:
        found = Address.parse(text)
    except ValueError:
        return None
    return found if found.is_ip else None
