"""xDS's matcher tree, of connections: it leads to the name of a filter chain, or to nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Union

from meshlib.model.match import StringMatch

__all__ = [
    "AllOf",
    "AnyOf",
    "Entry",
    "Fact",
    "FactMatch",
    "Matcher",
    "MatcherList",
    "MatcherTable",
    "Not",
    "Predicate",
    "TableKind",
    "Then",
]


class Fact(Enum):
    """What is looked at, as text. CALLER: the caller's own address or port, which is not known here."""

    ADDRESS = "destination IP"
    PORT = "destination port"
    SERVER_NAME = "server name"
    TRANSPORT = "transport protocol"
    PROTOCOLS = "application protocols"
    LOCAL = "source type"
    CALLER = "the caller's address or port"


class TableKind(Enum):
    """How a text is looked up: whole; by the longest key that it begins with; as an address, by the longest network that has it; as a
    domain, whole, then by the wildcards that have it (``*.example.com``), then by ``*``.
    """

    EXACT = "exact"
    PREFIX = "prefix"
    NETWORKS = "networks"
    DOMAINS = "domains"


@dataclass(frozen=True, slots=True)
class FactMatch:
    """``fact`` is there, and its text matches."""

    fact: Fact
    text: StringMatch


@dataclass(frozen=True, slots=True)
class AnyOf:
    of: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    of: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    of: Predicate


Predicate = Union[FactMatch, AnyOf, AllOf, Not]  # noqa: UP007 - of names that come later

#: What follows a match: the chain of that name, another matcher, or nothing, as if it had not matched.
Then = Union[str, "MatcherList", "MatcherTable", None]


@dataclass(frozen=True, slots=True)
class MatcherList:
    """The first whose predicate holds and that leads to something; else ``otherwise``."""

    rules: tuple[tuple[Predicate, Then], ...]
    otherwise: Then = None


@dataclass(frozen=True, slots=True)
class Entry:
    """``key``: as ``MatcherTable.kind`` has it. ``exclusive``: of a network, only where no longer one has the address."""

    key: str
    then: Then
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class MatcherTable:
    """The entry that has ``fact``, and leads to something; then the next best one, but with EXACT; else ``otherwise``."""

    fact: Fact
    kind: TableKind
    entries: tuple[Entry, ...]
    otherwise: Then = None


Matcher = MatcherList | MatcherTable
