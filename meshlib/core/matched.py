"""Which filter chain of a listener takes a call's connection, where a matcher tree decides it.

A matcher leads to the name of a chain, or to nothing: then its listener's default chain takes the connection, or none. What leads to
nothing further down is as if it had not matched, and the next best match is looked at, as in Envoy. A name that no chain has takes
nobody.

Two things are not known of a call here. Where its URL has a name, its address is not: each chain that some address leads to may take
it. And which address and port its caller would have at a sidecar is not: what depends on that takes no call. So an evaluation gives all
outcomes that there may be, and what told each from others.
"""

from __future__ import annotations

import ipaddress
from enum import Enum
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from meshlib.core.strings import compile_string
from meshlib.model.listener import Source
from meshlib.model.matcher import AllOf, AnyOf, Fact, FactMatch, MatcherList, Not, TableKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from meshlib.core.chains import Connection
    from meshlib.model.matcher import Matcher, MatcherTable, Predicate, Then

__all__ = ["MatchedChains"]

T = TypeVar("T")


class _Unknown(Enum):
    """Why a fact is not known: the call's address, or its caller's."""

    ADDRESS = "address"
    CALLER = "caller"


_Truth = bool | _Unknown


class _Outcome(NamedTuple):
    """``chain`` None: nothing. ``by``: the facts that told the connection from others. ``known``: that it is one of these."""

    chain: str | None
    by: frozenset[Fact] = frozenset()
    known: bool = True


_NOTHING = _Outcome(None)
_NOT_KNOWN = _Outcome(None, known=False)


class MatchedChains(Generic[T]):
    """The chains of a listener by name, and what chooses among them; ``default``: what else takes a connection. Immutable. As
    :class:`meshlib.core.chains.Chains`.
    """

    __slots__ = ("_chains", "_default", "_root")

    def __init__(self, chains: Mapping[str, T], matcher: Matcher, default: T | None = None) -> None:
        self._chains = chains
        self._default = default
        self._root = _compiled(matcher)

    def choose(self, to: Connection) -> T | None:
        """What the connection is taken to; None: nobody takes it, and an Envoy closes it."""
        only = self._only(to)
        return None if only is None else self._taken(only)

    def named(self, to: Connection) -> T | None:
        """What the connection is taken to by a chain to which its address leads."""
        only = self._only(to)
        led = only is not None and only.chain is not None and Fact.ADDRESS in only.by
        return self._taken(only) if only is not None and led else None

    def possible(self, to: Connection) -> Iterator[T]:
        """What a connection may be taken to whose address is not known; the default last."""
        for each in sorted(self._outcomes(to), key=lambda each: each.chain is None):
            taken = self._taken(each)
            if taken is not None:
                yield taken

    def with_name(self, to: Connection) -> T | None:
        """What a connection whose address is not known is taken to by a chain to which its server's name leads."""
        led = (each for each in self._outcomes(to) if each.chain is not None and Fact.SERVER_NAME in each.by)
        return next((taken for taken in map(self._taken, led) if taken is not None), None)

    def _outcomes(self, to: Connection) -> list[_Outcome]:
        """All that there may be; none where that depends on the caller."""
        found = self._root(to)
        return found if all(each.known for each in found) else []

    def _only(self, to: Connection) -> _Outcome | None:
        found = self._outcomes(to)
        return found[0] if len({each.chain for each in found}) == 1 else None

    def _taken(self, outcome: _Outcome) -> T | None:
        return self._default if outcome.chain is None else self._chains.get(outcome.chain)


def _compiled(then: Then) -> Callable[[Connection], list[_Outcome]]:
    if then is None:
        return lambda _: [_NOTHING]
    if isinstance(then, str):
        return lambda _: [_Outcome(then)]
    return _rules(then) if isinstance(then, MatcherList) else _table(then)


def _after(found: list[_Outcome], more: list[_Outcome], facts: frozenset[Fact], *, may: bool) -> bool:
    """Put what a match by ``facts`` came to into ``found``; whether what stands behind it counts, too. ``may``: it is not known whether
    it matched.
    """
    behind = may
    for each in more:
        if each.chain is None and each.known:
            behind = True
        else:
            found.append(each._replace(by=each.by | facts))
    return behind


def _rules(matcher: MatcherList) -> Callable[[Connection], list[_Outcome]]:
    rules = [(_holds(predicate), _facts(predicate), _compiled(then)) for predicate, then in matcher.rules]
    otherwise = _compiled(matcher.otherwise)

    def outcomes(to: Connection) -> list[_Outcome]:
        found: list[_Outcome] = []
        for holds, facts, then in rules:
            truth = holds(to)
            if truth is False:
                continue
            if truth is _Unknown.CALLER:
                return [_NOT_KNOWN]
            if not _after(found, then(to), facts, may=truth is not True):
                return found
        return found + otherwise(to)

    return outcomes


def _table(matcher: MatcherTable) -> Callable[[Connection], list[_Outcome]]:
    fact, facts = matcher.fact, frozenset((matcher.fact,))
    entries = [_compiled(item.then) for item in matcher.entries]
    best = _BEST[matcher.kind](matcher)
    otherwise = _compiled(matcher.otherwise)

    def outcomes(to: Connection) -> list[_Outcome]:
        value = _value(fact, to)
        if value is _Unknown.CALLER:
            return [_NOT_KNOWN]
        found: list[_Outcome] = []
        if value is _Unknown.ADDRESS:
            found += otherwise(to)
            for then in entries:
                _after(found, then(to), facts, may=True)
            return found
        if value is not None:
            for index, tells in best(str(value)):
                if not _after(found, entries[index](to), facts if tells else frozenset(), may=False):
                    return found
        return found + otherwise(to)

    return outcomes


def _value(fact: Fact, to: Connection) -> str | _Unknown | None:
    """The text that is looked at; None: there is none."""
    if fact is Fact.CALLER:
        return _Unknown.CALLER
    if fact is Fact.ADDRESS:
        return _Unknown.ADDRESS if to.address is None else str(to.address)
    if fact is Fact.PORT:
        return str(to.port)
    if fact is Fact.SERVER_NAME:
        return to.server_name or None
    if fact is Fact.TRANSPORT:
        return to.transport
    if fact is Fact.LOCAL:
        return "local" if to.source is Source.SAME_IP_OR_LOOPBACK else None
    return ",".join(f"'{each}'" for each in to.protocols) or None


# ------------------------------------------------------------------------------------------------------------ predicates


def _holds(predicate: Predicate) -> Callable[[Connection], _Truth]:
    if isinstance(predicate, FactMatch):
        fact, test = predicate.fact, compile_string(predicate.text)

        def holds(to: Connection) -> _Truth:
            value = _value(fact, to)
            return value if isinstance(value, _Unknown) else value is not None and test(value)

        return holds
    if isinstance(predicate, Not):
        inner = _holds(predicate.of)

        def negated(to: Connection) -> _Truth:
            truth = inner(to)
            return truth if isinstance(truth, _Unknown) else not truth

        return negated
    parts, decides = [_holds(each) for each in predicate.of], isinstance(predicate, AnyOf)

    def joined(to: Connection) -> _Truth:
        truths = [part(to) for part in parts]
        if decides in truths:
            return decides
        return next((why for why in (_Unknown.CALLER, _Unknown.ADDRESS) if why in truths), not decides)

    return joined


def _facts(predicate: Predicate) -> frozenset[Fact]:
    """What tells a connection from others that the predicate holds for."""
    if isinstance(predicate, FactMatch):
        return frozenset((predicate.fact,))
    if isinstance(predicate, AllOf | AnyOf):
        return frozenset[Fact]().union(*map(_facts, predicate.of))
    return frozenset()


# ---------------------------------------------------------------------------------------------------------------- tables

# Each gives the entries that have a text, the best first: their places, and whether they tell it from others.


def _whole(matcher: MatcherTable) -> Callable[[str], Iterator[tuple[int, bool]]]:
    places = {item.key: index for index, item in enumerate(matcher.entries)}

    def best(text: str) -> Iterator[tuple[int, bool]]:
        if text in places:
            yield places[text], True

    return best


def _beginnings(matcher: MatcherTable) -> Callable[[str], Iterator[tuple[int, bool]]]:
    places = {item.key: index for index, item in enumerate(matcher.entries)}
    lengths = sorted({len(key) for key in places}, reverse=True)

    def best(text: str) -> Iterator[tuple[int, bool]]:
        for length in lengths:
            place = places.get(text[:length]) if length <= len(text) else None
            if place is not None:
                yield place, length > 0

    return best


def _networks(matcher: MatcherTable) -> Callable[[str], Iterator[tuple[int, bool]]]:
    places: dict[object, list[int]] = {}
    for index, item in enumerate(matcher.entries):
        places.setdefault(ipaddress.ip_network(item.key), []).append(index)
    lengths = sorted({ipaddress.ip_network(item.key).prefixlen for item in matcher.entries}, reverse=True)

    def best(text: str) -> Iterator[tuple[int, bool]]:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return
        first = True
        for length in lengths:
            if length > address.max_prefixlen:
                continue
            for index in places.get(ipaddress.ip_network((address, length), strict=False), ()):
                if first or not matcher.entries[index].exclusive:
                    first = False
                    yield index, length > 0

    return best


def _domains(matcher: MatcherTable) -> Callable[[str], Iterator[tuple[int, bool]]]:
    places = {item.key: index for index, item in enumerate(matcher.entries)}

    def best(text: str) -> Iterator[tuple[int, bool]]:
        if not text:
            return
        labels = text.split(".")
        names = [text, *(f"*.{'.'.join(labels[at:])}" for at in range(1, len(labels)))]
        for name in names:
            if name in places:
                yield places[name], True
        if "*" in places:
            yield places["*"], False

    return best


_BEST = {
    TableKind.EXACT: _whole,
    TableKind.PREFIX: _beginnings,
    TableKind.NETWORKS: _networks,
    TableKind.DOMAINS: _domains,
}
