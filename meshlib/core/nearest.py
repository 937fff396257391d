"""The host that was meant, where the one asked for is nobody's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from string import ascii_lowercase, digits

from meshlib.core.domains import without_port

__all__ = ["nearest"]

_LETTERS = ascii_lowercase + digits + "-."
#: With fewer letters everything is a slip of everything else.
_FEWEST = 3
#: The longest label of a host: longer is no slip of the pen, and looking would take long.
_MOST = 63


def nearest(host: str, names: Iterable[str]) -> str:
    """Of ``names`` (``host`` or ``host:port``, in lower case) the one that a caller of ``host`` may have meant, or ``""``:
    the same host with a port, one whose first label it is, or either a slip away: a letter too many, too few or wrong, or
    two that changed places. Costs a walk over ``names``.
    """
    hosts: dict[str, str] = {}
    labels: dict[str, str] = {}
    for name in names:
        known = without_port(name)
        hosts.setdefault(known, name)
        labels.setdefault(known.partition(".")[0], name)
    for table in (hosts, labels) if "." not in host else (hosts,):
        for spelling in (host, *_slips(host)):
            if spelling in table:
                return table[spelling]
    return ""


def _slips(host: str) -> Iterator[str]:
    if not _FEWEST <= len(host) <= _MOST:
        return
    for at in range(len(host)):
        before, after = host[:at], host[at:]
        if len(after) > 1:
            yield before + after[1] + after[0] + after[2:]
        yield before + after[1:]
    for at in range(len(host) + 1):
        before, after = host[:at], host[at:]
        for letter in _LETTERS:
            yield before + letter + after
            yield before + letter + after[1:]
