"""Values that pass between a stream's machine, the graph of references and who drives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshlib.model.status import Ignored, Rejected

__all__ = ["RARE", "AdsStatus", "Interest", "Received", "ServerFeatures", "told_counts"]


@dataclass(frozen=True, slots=True)
class Interest:
    """What is wanted of one type. ``wildcard``: all there is. ``names``: these, by name. ``expected``: names that the
    wildcard should bring; they are not sent, but have the same time to come as those that are.
    """

    wildcard: bool = False
    names: frozenset[str] = frozenset()
    expected: frozenset[str] = frozenset()

    def __contains__(self, name: str) -> bool:
        return self.wildcard or name in self.names


@dataclass(frozen=True, slots=True)
class ServerFeatures:
    """What the bootstrap says of the server (BS-06): ER-03, EX-07, ER-04, RW-03."""

    ignore_resource_deletion: bool = False
    resource_timer_is_transient_error: bool = False
    fail_on_data_errors: bool = False
    trusted_xds_server: bool = False

    @classmethod
    def of(cls, names: Iterable[object]) -> ServerFeatures:
        """From the bootstrap's list; entries that are not known are skipped."""
        given = set(filter(lambda name: isinstance(name, str), names))
        return cls(**{name: name in given for name in cls.__dataclass_fields__})

    @property
    def keeps_deleted(self) -> bool:
        """ER-03; ER-04: beside `fail_on_data_errors` the older feature says nothing (gRFC A88)."""
        return self.ignore_resource_deletion and not self.fail_on_data_errors


@dataclass(frozen=True, slots=True)
class Received:
    """What a message from the server came to. ``type`` is "" if it was no answer to anything that was asked.

    ``accepted``: it will be ACKed. ``updated`` and ``removed``: names whose value changed. ``error``: in words. ``full_name``: the
    type's; ``valid``: how many of its resources were, unchanged ones included.
    """

    type: str = ""
    version: str = ""
    accepted: bool = False
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    error: str = ""
    full_name: str = ""
    valid: int = 0


#: Types that most meshes have nothing of.
RARE = frozenset({"extension", "filter_chain", "secret"})


def told_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """As many as there are of each type, as a status tells it."""
    return {short: count for short, count in counts.items() if count or short not in RARE}


@dataclass(frozen=True, slots=True)
class AdsStatus:
    """What there is to say of a stream. ``answered``: since it was opened. Types by their short names; one of ``RARE`` of which there is
    nothing is left out of ``resources``.
    """

    connected: bool
    answered: bool
    versions: Mapping[str, str]
    resources: Mapping[str, int]
    waiting: tuple[str, ...]
    last_error: str
    rejected: tuple[Rejected, ...]
    ignored: tuple[Ignored, ...]

    @property
    def owes(self) -> bool:
        """Whether anything has not come that a start waits for: not for secrets, for which the calls wait that need them."""
        return any(not each.startswith("secret ") for each in self.waiting)
