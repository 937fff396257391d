"""Which filter chain a matcher tree leads to: random trees, random connections, a real Envoy and the core."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from meshlib.core.matched import MatchedChains
from meshlib.xds import decode
from tests.e2e.oracle.connections import (
    ADDRESSES,
    INSPECTORS,
    SERVERS,
    at,
    connected,
    forwarded,
    listening,
    told,
)
from tests.support.envoy_validate import refusal
from tests.support.matchers import INPUTS, chain_named, extension
from tests.support.ports import Ports
from tests.support.xds_kit import raw

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(170)]

TABLES, CONNECTIONS, CHAINS = 60, 25, 4
NETWORKS = (
    ("127.0.0.0", 8),
    ("127.0.0.1", 32),
    ("127.1.0.0", 16),
    ("127.1.2.0", 24),
    ("0.0.0.0", 0),
    ("::", 0),
)
DOMAINS = ("www.a.test", "*.a.test", "*.test", "b.test", "*", "*.www.a.test")
#: Input → texts that it may have.
TEXTS = {
    "DestinationIPInput": ADDRESSES,
    "DestinationPortInput": ("1", "65535"),
    "ServerNameInput": SERVERS[1:],
    "TransportProtocolInput": ("tls", "raw_buffer"),
    "ApplicationProtocolInput": ("'http/1.1'", "'h2','http/1.1'", "'y','x','h2'"),
    "SourceTypeInput": ("local", "external"),
}
Tree = dict[str, Any]


def given(draw: random.Random, name: str = "") -> tuple[Tree, tuple[str, ...]]:
    chosen = name or draw.choice(list(TEXTS))
    return extension(f"{INPUTS}{chosen}"), TEXTS[chosen]


def then(draw: random.Random, depth: int) -> Tree:
    if depth and draw.random() < 0.35:
        return {"matcher": tree(draw, depth - 1)}
    # One more than there are chains: a name that no chain has. Not `keep_matching`: of a match that has it Envoy 1.40 dies.
    return chain_named(str(draw.randint(0, CHAINS)))


def text(draw: random.Random, texts: tuple[str, ...]) -> Tree:
    whole = draw.choice(texts)
    cut = draw.randint(1, len(whole))
    return draw.choice(
        (
            {"exact": whole},
            {"exact": whole.upper(), "ignore_case": draw.random() < 0.7},
            {"prefix": whole[:cut]},
            {"suffix": whole[-cut:]},
            {"contains": whole[cut - 1 : cut + 1]},
            {"safe_regex": {"google_re2": {}, "regex": f"{whole[: cut - 1].replace('.', '[.]')}.*"}},
        )
    )


def predicate(draw: random.Random, depth: int) -> Tree:
    kind = draw.random()
    if not depth or kind < 0.6:
        source, texts = given(draw)
        return {"single_predicate": {"input": source, "value_match": text(draw, texts)}}
    if kind < 0.75:
        return {"not_matcher": predicate(draw, depth - 1)}
    parts = [predicate(draw, depth - 1) for _ in range(draw.randint(2, 3))]
    return {draw.choice(("or_matcher", "and_matcher")): {"predicate": parts}}


def tree(draw: random.Random, depth: int) -> Tree:
    made: Tree = {"on_no_match": then(draw, depth)} if draw.random() < 0.4 else {}
    kind = draw.choice(("list", "exact", "prefix", "ip", "names"))
    if kind == "list":
        rules = [
            {"predicate": predicate(draw, 2), "on_match": then(draw, depth)}
            for _ in range(draw.randint(1, 3))
        ]
        return made | {"matcher_list": {"matchers": rules}}
    if kind in ("exact", "prefix"):
        source, texts = given(draw)
        keys = draw.sample(texts, draw.randint(1, len(texts)))
        if kind == "prefix":
            keys = [each[: draw.randint(1, len(each))] for each in keys]
        table = {"map": {key: then(draw, depth) for key in keys}}
        return made | {"matcher_tree": {"input": source, f"{kind}_match_map": table}}
    if kind == "ip":
        entries = [
            {
                "ranges": [
                    {"address_prefix": a, "prefix_len": n}
                    for a, n in draw.sample(NETWORKS, draw.randint(1, 2))
                ],
                "on_match": then(draw, depth),
                "exclusive": draw.random() < 0.3,
            }
            for _ in range(draw.randint(1, 4))
        ]
        custom = extension("xds.type.matcher.v3.IPMatcher", range_matchers=entries)
        source, _ = given(draw, "DestinationIPInput")
        return made | {"matcher_tree": {"input": source, "custom_match": custom}}
    names = draw.sample(DOMAINS, draw.randint(1, len(DOMAINS)))
    cut = draw.randint(0, len(names) - 1)
    parts = [part for part in (names[:cut], names[cut:]) if part]
    entries = [{"domains": part, "on_match": then(draw, depth)} for part in parts]
    custom = extension("xds.type.matcher.v3.ServerNameMatcher", domain_matchers=entries)
    source, _ = given(draw, "ServerNameInput")
    return made | {"matcher_tree": {"input": source, "custom_match": custom}}


def resource(name: str, port: int, matcher: Tree, filters: Any, *, default: bool) -> dict[str, Any]:
    made = {
        "name": name,
        **at(port),
        "listener_filters": INSPECTORS,
        "filter_chains": [{"name": str(each), "filters": filters(str(each))} for each in range(CHAINS)],
        "filter_chain_matcher": matcher,
    }
    if default:
        made["default_filter_chain"] = {"name": "default", "filters": filters("default")}
    return made


def compiled(port: int, matcher: Tree, *, default: bool) -> MatchedChains[str]:
    kind = {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener"}
    found = decode.listener(raw(kind | resource("l", port, matcher, forwarded, default=default)))
    assert found.value is not None, found.problems
    assert found.value.matcher is not None, found.ignored
    return MatchedChains(
        {str(each): str(each) for each in range(CHAINS)}, found.value.matcher, "default" if default else None
    )


def test_envoy_and_core_choose_the_same(tmp_path: Path) -> None:
    ports = Ports(TABLES, ADDRESSES)
    try:
        tables = [(tree(random.Random(seed), 2), bool(seed % 2)) for seed in range(TABLES)]
        listeners = [
            resource(str(port), port, matcher, told, default=default)
            for port, (matcher, default) in zip(ports.numbers, tables, strict=True)
        ]
        with listening(listeners, tmp_path):
            chosen = {
                name
                for port, (matcher, default) in zip(ports.numbers, tables, strict=True)
                for name in _compare(port, matcher, default=default)
            }
    finally:
        ports.close()
    assert {"", "default", *map(str, range(CHAINS))} == chosen


def _compare(port: int, matcher: Tree, *, default: bool) -> set[str]:
    draw, seen = random.Random(port), set()
    made = compiled(port, matcher, default=default)
    for _ in range(CONNECTIONS):
        to, got = connected(draw, port)
        assert got == (made.choose(to) or ""), (json.dumps(matcher), to)
        seen.add(got)
    return seen


_ONE = then(random.Random(0), 0)
_PORT = extension(f"{INPUTS}DestinationPortInput")
_SINGLE = {"single_predicate": {"input": _PORT, "value_match": {"exact": "1"}}}


@pytest.mark.parametrize(
    "matcher",
    [
        {},
        {"matcher_list": {}},
        {"matcher_list": {"matchers": [{"predicate": _SINGLE}]}},
        {"matcher_list": {"matchers": [{"on_match": _ONE}]}},
        {
            "matcher_list": {
                "matchers": [{"predicate": {"or_matcher": {"predicate": [_SINGLE]}}, "on_match": _ONE}]
            }
        },
        {
            "matcher_list": {
                "matchers": [{"predicate": {"single_predicate": {"input": _PORT}}, "on_match": _ONE}]
            }
        },
        {"matcher_tree": {"input": _PORT}},
        {"matcher_tree": {"input": _PORT, "exact_match_map": {}}},
        {"matcher_tree": {"exact_match_map": {"map": {"1": _ONE}}}},
        {
            "matcher_tree": {
                "input": extension(f"{INPUTS}ServerNameInput"),
                "custom_match": extension(
                    "xds.type.matcher.v3.ServerNameMatcher",
                    domain_matchers=[{"domains": ["a.test", "a.test"], "on_match": _ONE}],
                ),
            }
        },
        {
            "matcher_tree": {
                "input": extension(f"{INPUTS}ServerNameInput"),
                "custom_match": extension(
                    "xds.type.matcher.v3.ServerNameMatcher",
                    domain_matchers=[{"domains": ["a.*"], "on_match": _ONE}],
                ),
            }
        },
        {"on_no_match": _ONE, "matcher_tree": {"input": _PORT, "exact_match_map": {"map": {"1": _ONE}}}},
    ],
)
def test_envoy_refuses_the_same(matcher: Tree, tmp_path: Path) -> None:
    kind = {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener"}
    found = decode.listener(raw(kind | resource("l", 80, matcher, forwarded, default=False)))
    file = tmp_path / "envoy.json"
    file.write_text(
        json.dumps({"static_resources": {"listeners": [resource("l", 80, matcher, told, default=False)]}})
    )
    assert bool(found.problems) == bool(refusal(file)), found.problems
