"""Which filter chain takes a connection: random chains, random connections, a real Envoy and the core.

Each chain of the Envoy's says its name and closes; of ours its name is that of its only cluster.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from meshlib.core.chains import Chains
from meshlib.model.route import Forward
from meshlib.xds import decode
from tests.e2e.oracle.connections import ADDRESSES, INSPECTORS, at, connected, forwarded, listening, told
from tests.support.envoy_validate import refusal
from tests.support.ports import Ports
from tests.support.xds_kit import raw

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(170)]

TABLES, CONNECTIONS = 40, 25
#: Without 0.0.0.0/0: which of it and of no range at all Envoy takes is left to its hash map.
RANGES = (("127.0.0.0", 8), ("127.0.0.1", 32), ("127.1.0.0", 16), ("127.1.2.0", 24))
NAMES = ("www.a.test", "*.a.test", "*.test", "b.test", "WWW.B.test")
PROTOCOLS = ("h2", "http/1.1", "h2c", "x")
Match = dict[str, Any]


def make_match(draw: random.Random, port: int) -> Match:
    match: Match = {}
    if draw.random() < 0.2:
        match["destination_port"] = draw.choice((port, port, 1))
    if draw.random() < 0.5:
        ranges = draw.sample(RANGES, draw.randint(1, 2))
        match["prefix_ranges"] = [{"address_prefix": a, "prefix_len": n} for a, n in ranges]
    if draw.random() < 0.4:
        match["server_names"] = draw.sample(NAMES, draw.randint(1, 2))
    if draw.random() < 0.4:
        match["transport_protocol"] = draw.choice(("tls", "raw_buffer"))
    if draw.random() < 0.4:
        match["application_protocols"] = draw.sample(PROTOCOLS, draw.randint(1, 2))
    if draw.random() < 0.2:
        match["source_type"] = draw.choice(("SAME_IP_OR_LOOPBACK", "EXTERNAL"))
    return match


def resource(name: str, port: int, matches: list[Match], filters: Any, *, default: bool) -> dict[str, Any]:
    made = {
        "name": name,
        **at(port),
        "listener_filters": INSPECTORS,
        "filter_chains": [
            {"name": str(index), "filter_chain_match": match, "filters": filters(str(index))}
            for index, match in enumerate(matches)
        ],
    }
    if default:
        made["default_filter_chain"] = {"name": "default", "filters": filters("default")}
    return made


def ours(port: int, matches: list[Match], *, default: bool = False) -> bytes:
    kind = {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener"}
    return raw(kind | resource("l", port, matches, forwarded, default=default))


def make_table(seed: int, port: int) -> tuple[list[Match], bool]:
    """Chains that do not overlap, by our own judgement: Envoy must share it."""
    draw = random.Random(seed)
    chains: list[Match] = []
    for _ in range(draw.randint(1, 9)):
        more = [*chains, make_match(draw, port)]
        if not decode.listener(ours(port, more)).problems:
            chains = more
    return chains, draw.random() < 0.5


def compiled(port: int, chains: list[Match], *, default: bool) -> Chains[str]:
    found = decode.listener(ours(port, chains, default=default))
    assert found.value is not None, found.problems
    made = []
    last = None
    for chain in found.value.chains:
        assert chain.tcp is not None
        assert chain.tcp.routes is not None
        action = chain.tcp.routes.virtual_hosts[0].routes[0].action
        assert isinstance(action, Forward)
        if chain.default:
            last = action.cluster
        else:
            made.append((chain.match, action.cluster))
    return Chains(made, last)


def test_envoy_and_core_choose_the_same(tmp_path: Path) -> None:
    ports = Ports(TABLES, ADDRESSES)
    try:
        tables = [make_table(seed, port) for seed, port in enumerate(ports.numbers)]
        listeners = [
            resource(str(port), port, chains, told, default=default)
            for port, (chains, default) in zip(ports.numbers, tables, strict=True)
        ]
        with listening(listeners, tmp_path):
            chosen = {
                name
                for port, (chains, default) in zip(ports.numbers, tables, strict=True)
                for name in _compare(port, chains, default=default)
            }
    finally:
        ports.close()
    assert {"", "default", "0", "1", "2", "3"} <= chosen


def _compare(port: int, chains: list[Match], *, default: bool) -> set[str]:
    draw, seen = random.Random(port), set()
    made = compiled(port, chains, default=default)
    for _ in range(CONNECTIONS):
        to, got = connected(draw, port)
        assert got == (made.choose(to) or ""), (chains, to)
        seen.add(got)
    return seen


@pytest.mark.parametrize("seed", range(4))
def test_envoy_refuses_the_same_overlaps(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed + 1000)
    for _ in range(12):
        matches = [make_match(draw, 80) for _ in range(3)]
        found = decode.listener(ours(80, matches))
        file = tmp_path / "envoy.json"
        made = {"static_resources": {"listeners": [resource("l", 80, matches, told, default=False)]}}
        file.write_text(json.dumps(made))
        assert bool(found.problems) == bool(refusal(file)), matches
