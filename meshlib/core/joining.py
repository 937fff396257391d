"""How far services have joined the mesh.

Theory. A service is ``off`` (plain), ``on``, or between: observed, or joined by a share of its calls. A call's part is drawn from a
text that it carries (a header's value, else the node's id), hashed to a number below ``PARTS``; it is in if that number is below
the share. So it does not depend on the process, and a larger share has everybody in it whom a smaller one had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshlib.core.domains import DomainIndex, by_key
from meshlib.core.hashing import hash_text

if TYPE_CHECKING:
    from meshlib.model.call import Head

__all__ = ["WHOLE", "Adoption", "Joining", "Joinings", "joining"]

#: How finely a share is told.
PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Joining:
    """How far ``service`` has joined. ``mode``: as the configuration writes it; ``share``: of ``PARTS``; ``named``: the configuration
    names it, else it is the host that was called.
    """

    service: str
    mode: str
    share: int
    named: bool = True

    def includes(self, text: str) -> bool:
        """Whether calls that carry ``text`` are in."""
        return hash_text(text) % PARTS < self.share

    @property
    def words(self) -> str:
        if self.mode == "observe":
            return f"{self.service} is observed: the call goes the old way"
        return f"{self.mode} of the calls to {self.service} are in the mesh, and this one is not: it goes the old way"


@dataclass(frozen=True, slots=True)
class Adoption:
    """What the configuration orders. ``services``: keys as those of services, with their modes; ``key``: the header whose value
    a share sticks to, ``""`` for none; ``node``: what it sticks to otherwise.
    """

    default: str = "on"
    services: tuple[tuple[str, str], ...] = ()
    key: str = ""
    node: str = ""

    def text_of(self, head: Head) -> str:
        """What the call's share is drawn from."""
        said = head.headers.get(self.key) if self.key else None
        return self.node if said is None else said


#: Every service is on.
WHOLE = Adoption()


class Joinings:
    """An ``Adoption``, ready to be asked. Immutable."""

    def __init__(self, adoption: Adoption) -> None:
        self._default = adoption.default
        self._services = DomainIndex((key, (key, joining(key, mode))) for key, mode in adoption.services)

    def of(self, host: str, port: int) -> Joining:
        """How far ``host:port`` has joined."""
        found = by_key(self._services, host, port)
        return joining(host, self._default, named=False) if found is None else found[1]


def joining(service: str, mode: str, *, named: bool = True) -> Joining:
    """What ``mode`` (``"off"``, ``"observe"``, ``"on"``, ``"25%"``) means."""
    share = round(float(mode.removesuffix("%")) * PARTS / 100) if mode.endswith("%") else 0
    return Joining(service, mode, share, named)
