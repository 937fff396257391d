"""The matcher tree by which a listener chooses a filter chain.

Envoy's own inputs, custom matchers and actions are many. What is not read here makes the whole tree one that is not evaluated: it is
reported, and no call is taken, for going another way than an Envoy could go past a guard.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.model.matcher import (
    AllOf,
    AnyOf,
    Entry,
    Fact,
    FactMatch,
    Matcher,
    MatcherList,
    MatcherTable,
    Not,
    Predicate,
    TableKind,
    Then,
)
from meshlib.xds.decode.address import cidr
from meshlib.xds.decode.guards import filter_type
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.values import string_match, unpacked
from meshlib.xds.names import canonical
from meshlib.xds.schema import WireMessage

__all__ = ["chains_of", "matcher"]

_INPUTS = "envoy.extensions.matching.common_inputs.network.v3."
_FACTS = {
    f"{_INPUTS}{name}": fact
    for name, fact in (
        ("DestinationIPInput", Fact.ADDRESS),
        ("DestinationPortInput", Fact.PORT),
        ("ServerNameInput", Fact.SERVER_NAME),
        ("TransportProtocolInput", Fact.TRANSPORT),
        ("ApplicationProtocolInput", Fact.PROTOCOLS),
        ("SourceTypeInput", Fact.LOCAL),
        ("SourceIPInput", Fact.CALLER),
        ("SourcePortInput", Fact.CALLER),
        ("DirectSourceIPInput", Fact.CALLER),
    )
}
_IP, _NAMES = "xds.type.matcher.v3.IPMatcher", "xds.type.matcher.v3.ServerNameMatcher"
_NAME = "google.protobuf.StringValue"
#: Matchers within matchers. A message ends at a hundred levels by itself, but begins anew in each custom matcher.
_DEEPEST = 32


class _Unread(Exception):
    """Something of it is not evaluated here."""


def matcher(message: WireMessage, path: str, report: Report) -> Matcher | None:
    """A Matcher whose actions are names of filter chains; None: something of it is wrong, or is not evaluated, and reported."""
    try:
        return _matcher(message, path, report, _DEEPEST)
    except _Unread:
        return None


def chains_of(then: Then) -> Iterator[str]:
    """The names of the filter chains that it leads to."""
    if isinstance(then, str):
        yield then
    elif then is not None:
        follows = (
            [each for _, each in then.rules]
            if isinstance(then, MatcherList)
            else [item.then for item in then.entries]
        )
        for each in (*follows, then.otherwise):
            yield from chains_of(each)


def _matcher(message: WireMessage, path: str, report: Report, depth: int) -> Matcher:
    if not depth:
        report.problem(path, f"holds more than {_DEEPEST} matchers within one another")
        raise _Unread
    otherwise: Then = None
    if message.HasField("on_no_match"):
        otherwise = _then(message.on_no_match, join(path, "on_no_match"), report, depth)
    which = message.WhichOneof("matcher_type")
    if which == "matcher_tree":
        return _table(message.matcher_tree, join(path, which), report, depth, otherwise)
    rules = []
    here = join(path, "matcher_list.matchers")
    # One of neither kind never matches, as in Envoy.
    if which and not len(message.matcher_list.matchers):
        report.problem(here, "must not be empty")
    for index, item in enumerate(message.matcher_list.matchers):
        place = f"{here}[{index}]"
        holds = _predicate(item.predicate, join(place, "predicate"), report, depth)
        rules.append((holds, _then(item.on_match, join(place, "on_match"), report, depth)))
    return MatcherList(tuple(rules), otherwise)


def _then(message: WireMessage, path: str, report: Report, depth: int) -> Then:
    report.give_way()
    which = message.WhichOneof("on_match")
    then: Then = None
    if which == "matcher":
        then = _matcher(message.matcher, join(path, which), report, depth - 1)
    elif which == "action":
        here = join(path, "action.typed_config")
        if filter_type(message.action.typed_config) != _NAME:
            _leave(report, here, message.action)
        held = unpacked(message.action.typed_config, here, report, _NAME)
        then = "" if held is None else canonical(str(held.value))
    else:
        report.problem(path, "one of matcher and action must be set")
    return None if message.keep_matching else then


def _predicate(message: WireMessage, path: str, report: Report, depth: int) -> Predicate:
    which = message.WhichOneof("match_type") or ""
    if not depth:
        report.problem(path, f"holds more than {_DEEPEST} predicates within one another")
        raise _Unread
    if which == "not_matcher":
        return Not(_predicate(message.not_matcher, join(path, which), report, depth - 1))
    if which in ("or_matcher", "and_matcher"):
        held = getattr(message, which).predicate
        here = join(path, f"{which}.predicate")
        if len(held) < 2:
            report.problem(here, f"must be at least two, not {len(held)}")
        parts = (_predicate(item, f"{here}[{index}]", report, depth - 1) for index, item in enumerate(held))
        return AnyOf(tuple(parts)) if which == "or_matcher" else AllOf(tuple(parts))
    if not which:
        report.problem(path, "one of single_predicate, or_matcher, and_matcher and not_matcher must be set")
        raise _Unread
    single, here = message.single_predicate, join(path, which)
    fact = _fact(single, here, report)
    if single.WhichOneof("matcher") is None:
        report.problem(here, "one of value_match and custom_match must be set")
    if single.HasField("custom_match"):
        _leave(report, join(here, "custom_match"), single.custom_match)
    if single.value_match.HasField("custom"):
        _leave(report, join(here, "value_match.custom"), single.value_match.custom)
    return FactMatch(fact, string_match(single.value_match, join(here, "value_match"), report))


def _fact(owner: WireMessage, path: str, report: Report) -> Fact:
    here = join(path, "input")
    if not owner.HasField("input"):
        report.problem(here, "must be set")
        raise _Unread
    fact = _FACTS.get(filter_type(owner.input.typed_config))
    if fact is None:
        _leave(report, here, owner.input)
    assert fact is not None
    return fact


def _leave(report: Report, path: str, held: WireMessage) -> None:
    """It is an extension that is not evaluated here."""
    report.ignore(path, filter_type(held.typed_config) or str(held.name))
    raise _Unread


def _table(message: WireMessage, path: str, report: Report, depth: int, otherwise: Then) -> MatcherTable:
    fact = _fact(message, path, report)
    which = message.WhichOneof("tree_type") or ""
    if which in ("exact_match_map", "prefix_match_map"):
        here = join(path, f"{which}.map")
        held = getattr(message, which).map
        if not len(held):
            report.problem(here, "must not be empty")
        entries = tuple(
            Entry(str(key), _then(held[key], f"{here}[{str(key)[:80]!r}]", report, depth))
            for key in sorted(held)
        )
        kind = TableKind.EXACT if which == "exact_match_map" else TableKind.PREFIX
        return MatcherTable(fact, kind, entries, otherwise)
    if not which:
        report.problem(path, "one of exact_match_map, prefix_match_map and custom_match must be set")
        raise _Unread
    kind_of = filter_type(message.custom_match.typed_config)
    if kind_of not in (_IP, _NAMES):
        _leave(report, join(path, which), message.custom_match)
    here = join(path, f"{which}.typed_config")
    custom = unpacked(message.custom_match.typed_config, here, report, _IP, _NAMES)
    if custom is None:
        raise _Unread
    walk(custom, here, report)
    if kind_of == _IP:
        return MatcherTable(
            fact, TableKind.NETWORKS, tuple(_networks(custom, here, report, depth)), otherwise
        )
    return MatcherTable(fact, TableKind.DOMAINS, tuple(_domains(custom, here, report, depth)), otherwise)


def _networks(message: WireMessage, path: str, report: Report, depth: int) -> Iterator[Entry]:
    for index, item in enumerate(message.range_matchers):
        here = f"{join(path, 'range_matchers')}[{index}]"
        if not len(item.ranges):
            report.problem(join(here, "ranges"), "must not be empty")
        then = _then(item.on_match, join(here, "on_match"), report, depth)
        for number, network in enumerate(item.ranges):
            report.give_way()
            yield Entry(
                cidr(network, f"{join(here, 'ranges')}[{number}]", report), then, bool(item.exclusive)
            )


def _domains(message: WireMessage, path: str, report: Report, depth: int) -> Iterator[Entry]:
    seen: set[str] = set()
    for index, item in enumerate(message.domain_matchers):
        here = f"{join(path, 'domain_matchers')}[{index}]"
        if not len(item.domains):
            report.problem(join(here, "domains"), "must not be empty")
        then = _then(item.on_match, join(here, "on_match"), report, depth)
        for number, name in enumerate(map(str, item.domains)):
            report.give_way()
            place = f"{join(here, 'domains')}[{number}]"
            if name in seen:
                report.problem(place, f"{name[:80]!r} is there twice")
            elif name != "*" and (not name or name == "*." or "*" in name.removeprefix("*.")):
                report.problem(
                    place, f"{name[:80]!r}: a wildcard is *, or stands for whole labels, as in *.example.com"
                )
            seen.add(name)
            yield Entry(name, then)
