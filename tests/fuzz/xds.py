"""What a control plane or a file may say, and what must hold for it: there is a value, or a list of problems, and soon.

Resources of each type in each view, responses of both protocols to a session, responses of v2, bootstraps, files in Envoy's shape,
answers in JSON, files of a last good state, names, reports of load, and requests of the client status service: random bytes, real ones with bytes changed, real ones with fields changed, messages made of the
schema's descriptors so that each that a resource can hold is reached, and, now and then, one that is as deep, as wide or as
long as it can be.

    python -m tests.fuzz.xds --inputs N        so many, chosen by Hypothesis
    python -m tests.fuzz.xds --seed S          the one that failed
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import any_pb2
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from meshlib.errors import ConfigError
from meshlib.xds import csds, decode, last_good, orca, rls, schema, v2
from meshlib.xds.bootstrap import parse_bootstrap
from meshlib.xds.cache import Cache
from meshlib.xds.decode.limits import LIMITS
from meshlib.xds.decode.report import Report
from meshlib.xds.discovery import settle_sources
from meshlib.xds.envoy_file import read
from meshlib.xds.lrs import LoadMachine
from meshlib.xds.names import authority_of, canonical, misfit
from meshlib.xds.response import sort
from meshlib.xds.secrets import presentable
from meshlib.xds.session import VIEWS, Session
from tests.fuzz.messages import ANY, KINDS, altered, grown, made, mutated, reached, seeds
from tests.support.xds_kit import DELTA_RESPONSE, NODE, RESPONSE, WRAPPER
from tests.support.xds_trees import ROOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["one_input", "run"]

PROJECT = Path(__file__).resolve().parents[2]
SHORTS = tuple(KINDS)
#: Seconds of computing that one input may take, whatever it is, on a slow machine.
MOST_SECONDS = 5.0
#: MiB that a process of ours may need in all.
MOST_MEMORY = 1024
#: Of what is told of one resource: entries, with that there are more and what is wrong with its place, and letters of one.
MOST_ENTRIES = 203
MOST_LETTERS = 4096
#: Bytes of a request, beside names.
MOST_WORDS = 32 * 1024
JOBS = min(2, os.cpu_count() or 1)
#: Inputs for each seed that Hypothesis draws, which takes as long as one of them.
_ROW = 10


# --- one input -----------------------------------------------------------------------------------------------------


def one_input(chance: random.Random) -> None:
    """Draws what it is, and sees that what must hold does."""
    begun = time.process_time()
    check = chance.choices(*zip(*CHECKS, strict=True))[0]
    check(chance)
    spent = time.process_time() - begun
    assert spent < MOST_SECONDS, f"{check.__name__} took {spent:.1f} s"


def _bytes(chance: random.Random, short: str) -> bytes:
    """A resource of this type, or something that is none."""
    how = chance.random()
    if how < 0.1:
        return chance.randbytes(chance.randint(0, 200))
    if how < 0.4:
        return mutated(chance, chance.choice(seeds(short)))
    if how < 0.7:
        return altered(chance, short)
    if how < 0.995:
        way = chance.choice([way for of, way in reached() if of == short] or [()])
        return bytes(made(chance, KINDS[short], way).SerializeToString())
    return chance.choice(EXTREMES)(chance, short)


def _resource(chance: random.Random) -> None:
    short = chance.choice(SHORTS)
    data = _bytes(chance, short)
    view, trusted = chance.choice(VIEWS), chance.random() < 0.5
    kind = next(each for each in decode.types(view, trusted=trusted) if each.short == short)
    found = kind.decode(data)
    assert (found.value is None) == bool(found.problems)
    _told(found.problems)
    _told(value for _, value in found.ignored)
    _told(path for path, _ in found.ignored)
    clean, secret = presentable(short, data)
    assert bool(secret) <= (clean == b"")


def _told(lines: Any) -> None:
    lines = list(lines)
    assert len(lines) <= MOST_ENTRIES, len(lines)
    for line in lines:
        assert isinstance(line, str), line
        assert len(line) <= MOST_LETTERS, (len(line), line[:200])
        assert "could not be decoded" not in line, line


def _stream(chance: random.Random) -> None:
    """Responses to a session that asks for everything, and what it has in the end."""
    protocol = chance.choice(("sotw", "delta"))
    session = Session(NODE, view=chance.choice(VIEWS), protocol=protocol, jitter=lambda: 0.5)
    for name in "ab":
        session.want(name)
    session.opened(0.0)
    session.outgoing(0.0)
    came = 0
    for now in range(chance.randint(1, 4)):
        short = chance.choice(SHORTS)
        raw = _response(chance, protocol, short).SerializeToString()
        raw = mutated(chance, raw) if chance.random() < 0.3 else raw
        came += len(raw)
        received = session.received(raw, float(now))
        assert received.accepted == (not received.error)
        for message in session.outgoing(float(now)):
            assert len(message) <= came + MOST_WORDS  # names that came are asked for
    assert session.part is session.part
    session.tick(20.0)
    session.outgoing(20.0)
    for refusal in session.status(20.0).rejected:
        _told(refusal.problems)


def _response(chance: random.Random, protocol: str, short: str) -> Any:
    url = schema.TYPE_URLS[short]
    bodies = [ANY(type_url=url, value=_bytes(chance, short)) for _ in range(chance.randint(0, 4))]
    names = [chance.choice(["a", "b", "", "é"]) for _ in bodies]
    errors = [made(chance, "envoy.service.discovery.v3.ResourceError") for _ in range(chance.randint(0, 2))]
    nonce, version = chance.choice(["", "1", "2"]), chance.choice(["", "1", "2"])
    wrapped = [
        WRAPPER(name=name, resource=body, version=version) for name, body in zip(names, bodies, strict=True)
    ]
    if protocol == "delta":
        removed = chance.sample(["a", "b", "c", ""], chance.randint(0, 3))
        return DELTA_RESPONSE(
            type_url=url, nonce=nonce, resources=wrapped, removed_resources=removed, resource_errors=errors
        )
    given = [schema.pack(each) for each in wrapped] if chance.random() < 0.3 else bodies
    return RESPONSE(type_url=url, nonce=nonce, version_info=version, resources=given, resource_errors=errors)


def _json(chance: random.Random) -> None:
    """A tree as a file or an answer by REST has it."""
    short = chance.choice(tuple(ROOTS))
    message = schema.message(ROOTS[short])()
    message.ParseFromString(altered(chance, short))
    tree = schema.to_json(message)
    _spoil(chance, tree)
    try:
        schema.from_json(ROOTS[short], tree)
    except schema.JsonError as error:
        _told(error.problems)
    key = {"listener": "listeners", "route": "routes", "cluster": "clusters", "endpoint": "endpoints"}[short]
    found = read({key: [tree], **({"static_resources": {key: [tree]}} if chance.random() < 0.3 else {})})
    _told(found.problems)


WRONG: tuple[Any, ...] = (
    None,
    True,
    5,
    -1,
    1.5,
    "x",
    "1",
    [],
    {},
    [None],
    {"x": 1},
    {"@type": "x/y"},
    2**70,
    "NaN",
)


def _spoil(chance: random.Random, tree: Any) -> None:
    places = list(_places(tree))
    for holder, key in chance.sample(places, min(len(places), chance.randint(0, 2))):
        holder[key] = chance.choice(WRONG)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield tree, key
        yield from _places(value)


BOOTSTRAP = {
    "xds_servers": [
        {
            "server_uri": "x:1",
            "channel_creds": [
                {"type": "tls", "config": {"refresh_interval": "600s", "ca_certificate_file": "/x"}}
            ],
            "server_features": ["xds_v3", "ignore_resource_deletion"],
        }
    ],
    "node": {"id": "n", "cluster": "c", "locality": {"region": "r"}, "metadata": {"a": [1, {"b": None}]}},
    "authorities": {
        "x": {"client_listener_resource_name_template": "xdstp://x/envoy.config.listener.v3.Listener/%s"}
    },
    "certificate_providers": {"d": {"plugin_name": "file_watcher", "config": {}}},
    "client_default_listener_resource_name_template": "%s",
}


def _bootstrap(chance: random.Random) -> None:
    tree = json.loads(json.dumps(BOOTSTRAP))
    _spoil(chance, tree)
    text = json.dumps(tree)
    if chance.random() < 0.4:
        text = mutated(chance, text.encode()).decode("utf-8", "replace")
    problems: tuple[str, ...] = ()
    try:
        parse_bootstrap(text, "boot.json")
    except ConfigError as error:
        problems = error.problems
    assert all(line.startswith("boot.json: ") for line in problems), problems


def _kept(chance: random.Random) -> None:
    """A file of the last good state: damaged, or with sections that are no responses."""
    short = chance.choice(SHORTS)
    kept = last_good.Kept(short, "a", "1", _bytes(chance, short))
    contents = last_good.Contents({"a": ""}, frozenset((short,)), {short: "1"}, (kept,))
    raw = b"".join(last_good.encode("node", "server", 1.0, {"auto": contents}))
    if chance.random() < 0.7:
        raw = mutated(chance, raw)
    try:
        held = last_good.decode(raw)
    except last_good.Unreadable:
        return
    _, refused = last_good.restore(held, "auto", Cache(SHORTS), decode.types("auto"))
    for each in refused:
        _told(each.problems)


#: What v2 has where v3 has nothing, and what a Struct may be.
OLD = (
    "envoy.config.core.v3.Address",
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "envoy.type.matcher.v3.StringMatcher",
    "envoy.config.route.v3.HeaderMatcher",
    "envoy.config.core.v3.ConfigSource",
    "google.protobuf.Struct",
)


def _old(chance: random.Random) -> None:
    """A response of v2, which becomes one of v3."""
    short = chance.choice(tuple(ROOTS))
    back = {v3: old for old, v3 in v2.TYPES.items()}
    url = f"type.googleapis.com/{back[ROOTS[short]]}"
    bodies = (grown(chance, short, OLD) if chance.random() < 0.6 else _bytes(chance, short) for _ in range(3))
    made_of = [
        ANY(type_url=url, value=body.replace(b".v3.", b".v2.") if chance.random() < 0.1 else body)
        for body in bodies
    ]
    response = RESPONSE(type_url=url, resources=made_of)
    _told(each.value for each in v2.response(response, "ours"))
    settle_sources(
        response, lambda _short, _name, source: source.WhichOneof("config_source_specifier") is not None
    )
    assert response.type_url == schema.TYPE_URLS[short]
    for problems in sort(response, decode.types("auto")[SHORTS.index(short)], Cache(SHORTS)).bad.values():
        _told(problems)


def _name(chance: random.Random) -> None:
    pieces = [
        "xdstp:",
        "//",
        "/",
        "?",
        "&",
        "=",
        "#",
        "%",
        "%2",
        "%2F",
        "%zz",
        "a",
        "b=1",
        "é",
        "*",
        "",
        ROOTS["listener"],
    ]
    text = "".join(chance.choices(pieces, k=chance.randint(0, 9)))
    name = f"xdstp://{text}" if chance.random() < 0.7 else text
    assert canonical(canonical(name)) == canonical(name)
    assert misfit(canonical(name), ROOTS["listener"]) == misfit(name, ROOTS["listener"])
    assert isinstance(authority_of(name), str)


def _state(chance: random.Random) -> None:
    request = bytes(made(chance, "envoy.service.status.v3.ClientStatusRequest").SerializeToString())
    if chance.random() < 0.5:
        request = mutated(chance, request)
    answered = b""
    with suppress(csds.Refused):
        answered = csds.answer(request, lambda: [[]])
    assert answered == b""


REPORTS = (
    "cpu_utilization",
    "named_metrics.a",
    "rps",
    "eps",
    "=",
    ",",
    ":",
    "1",
    "-1",
    "nan",
    "1e999",
    "{",
    "}",
    '"',
    "TEXT ",
    "JSON ",
    "BIN ",
    "a",
)


def _load(chance: random.Random) -> None:
    """What an endpoint says of its load, and what a server asks of reports."""
    report = bytes(made(chance, "xds.data.orca.v3.OrcaLoadReport").SerializeToString())
    raw = mutated(chance, report) if chance.random() < 0.5 else report
    text = "".join(chance.choices(REPORTS, k=chance.randint(0, 12)))
    told: tuple[tuple[str, str | bytes], ...] = (
        ((orca.BINARY, raw),) if chance.random() < 0.5 else ((orca.TEXT, text),)
    )
    found = orca.of_metadata(told)
    if found is not None:
        numbers = (found.cpu_utilization, found.rps, found.eps, *found.named_metrics.values())
        assert all(number is None or math.isfinite(number) for number in numbers), numbers
    machine = LoadMachine(schema.message("envoy.config.core.v3.Node")(), lambda: 0.5)
    machine.opened()
    answer = bytes(made(chance, "envoy.service.load_stats.v3.LoadStatsResponse").SerializeToString())
    machine.received(mutated(chance, answer) if chance.random() < 0.5 else answer, 0.0)
    due = machine.next_timer()
    assert due is None or 1.0 <= due < math.inf, due


def _limited(chance: random.Random) -> None:
    """What a rate limit service says, and the filters by which it is asked."""
    answer = bytes(made(chance, "envoy.service.ratelimit.v3.RateLimitResponse").SerializeToString())
    verdict = rls.verdict(mutated(chance, answer) if chance.random() < 0.5 else answer)
    if verdict is not None:
        lines = (*verdict.request, *verdict.response, *verdict.limits)
        assert not any({13, 10} & {*name, *value} for name, value in lines), lines
    kind = chance.choice(sorted(LIMITS))
    held = bytes(made(chance, kind).SerializeToString())
    outer = any_pb2.Any(type_url=f"type.googleapis.com/{kind}", value=held)
    LIMITS[kind](outer, "f", Report(target=False))


CHECKS: tuple[tuple[Callable[[random.Random], None], int], ...] = (
    (_resource, 70),
    (_stream, 8),
    (_old, 8),
    (_json, 5),
    (_bootstrap, 3),
    (_kept, 2),
    (_load, 2),
    (_limited, 2),
    (_name, 1),
    (_state, 1),
)


# --- as deep, as wide, as long as can be ---------------------------------------------------------------------------


def _deep(chance: random.Random, short: str) -> bytes:
    """Messages in messages: conditions of a filter, rules of a guard, structs, an Any in an Any."""
    field = chance.randint(1, 15)
    inner = chance.choice(seeds(short))
    for _ in range(chance.choice((60, 95, 105, 2000))):
        inner = bytes((field << 3 | 2,)) + schema.varint(len(inner)) + inner
    return inner


def _wide(chance: random.Random, short: str) -> bytes:
    """One field of the top again and again."""
    found = schema.message(KINDS[short])()
    found.ParseFromString(chance.choice(seeds(short)))
    lists = [
        (field, value)
        for field, value in found.ListFields()
        if field.message_type and schema.is_repeated(field)
    ]
    lists = [(field, value) for field, value in lists if not field.message_type.GetOptions().map_entry]
    if not lists:
        return bytes(found.SerializeToString())
    field, values = chance.choice(lists)
    body = values[0].SerializeToString()
    piece = schema.varint(field.number << 3 | 2) + schema.varint(len(body)) + body
    return bytes(found.SerializeToString()) + piece * chance.choice(
        (100, min(3000, 400_000 // max(1, len(piece))))
    )


def _long(chance: random.Random, short: str) -> bytes:
    """A name of a megabyte."""
    found = schema.message(KINDS[short])()
    found.ParseFromString(chance.choice(seeds(short)))
    setattr(found, "cluster_name" if short == "endpoint" else "name", chance.choice("a*%(\0é") * 1_000_000)
    return bytes(found.SerializeToString())


def _unknown(chance: random.Random, short: str) -> bytes:
    """Fields that the schema does not have."""
    pieces = (schema.varint((1000 + number) << 3) + b"\x01" for number in range(chance.choice((10, 10_000))))
    return chance.choice(seeds(short)) + b"".join(pieces)


EXTREMES: tuple[Callable[[random.Random, str], bytes], ...] = (_deep, _wide, _long, _unknown)


# --- many ----------------------------------------------------------------------------------------------------------


def some(inputs: int, first: int) -> None:
    """So many inputs in this process, in rows whose seeds Hypothesis chooses, the same each time; one that fails is told."""

    @settings(
        max_examples=-(-inputs // _ROW),
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**64 - 1))
    def try_each(drawn: int) -> None:
        begin = first << 72 | drawn << 4
        for each in range(begin, begin + _ROW):
            try:
                one_input(random.Random(each))
            except BaseException:
                print(f"fuzz: fails: python -m tests.fuzz.xds --seed {each}", flush=True)
                raise

    try_each()


def run(inputs: int, seed: int) -> int:
    """So many inputs, in as many processes as there are processors, of two. The exit code."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.xds", "--alone", "--inputs", str(-(-inputs // JOBS))]
    started = [
        subprocess.Popen([*command, "--first", str(seed * JOBS + job)], cwd=PROJECT) for job in range(JOBS)
    ]
    codes = [process.wait() for process in started]
    if not any(codes):
        print(f"fuzz: {inputs} inputs hold, {time.monotonic() - begun:.0f} s")
    return max(codes)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=1, help="others than by default")
    parser.add_argument("--alone", action="store_true", help="in this process")
    parser.add_argument("--seed", type=int, help="this one alone")
    options = parser.parse_args()
    if options.seed is not None:
        one_input(random.Random(options.seed))
        return 0
    if not options.alone:
        return run(options.inputs, options.first)
    some(options.inputs, options.first)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (
        1 << 20 if sys.platform == "darwin" else 1 << 10
    )
    print(f"fuzz: {memory} MiB at most", flush=True)
    return 0 if memory <= MOST_MEMORY else 1


if __name__ == "__main__":
    sys.exit(main())
