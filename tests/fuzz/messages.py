"""Messages of the wire schema by chance, quickly: what may stand in each place, or anything, and real ones with a few places changed."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import cache
from typing import Any

from meshlib.testing import build
from meshlib.xds import schema
from tests.support.matchers import INPUTS, chain_named, extension
from tests.support.xds_kit import istio, raw
from tests.support.xds_trees import ROOTS, held, ways

__all__ = ["ANY", "KINDS", "altered", "grown", "made", "mutated", "reached", "seeds"]

ANY = schema.message("google.protobuf.Any")
#: The message of each type of resource.
KINDS = {
    **ROOTS,
    **{short: schema.type_name(schema.TYPE_URLS[short]) for short in ("extension", "filter_chain", "secret")},
}
_DEEPEST = 6
TEXTS = [
    "", "a", "b", "*", "/", "%", "(", "\0", "é", "x" * 300, "127.0.0.1", "::1", "10.0.0.0/8", "a:80", "%REQ(x)%", "%PROTOCOL%", "*.a", "a.*",
    ":path", "Host", "5xx", "envoy.filters.http.router", "envoy.filters.http.rbac", "^a+$", "\\1", "TRACE", "-1", "1e999",
]  # fmt: skip
NUMBERS = [0, 1, 2, 3, 80, 100, 200, 503, 65_535, 65_536, 2**31 - 1]
FLOATS = [0.0, 1.0, 50.5, -1.0, float("nan"), float("inf"), 5e-324]


def _pem(label: str) -> str:
    return f"-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n"


def _matched() -> list[dict[str, Any]]:
    """Listeners whose chains a matcher chooses, each in another way."""
    then = chain_named("f")
    networks = [{"ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}], "on_match": then}]
    names = [{"domains": ["a.test", "*.test"], "on_match": {"matcher": {"on_no_match": then}}}]
    port = extension(f"{INPUTS}DestinationPortInput")
    holds = {"single_predicate": {"input": port, "value_match": {"exact": "80"}}}
    both = {"and_matcher": {"predicate": [holds, {"not_matcher": holds}]}}
    trees = (
        {"matcher_list": {"matchers": [{"predicate": both, "on_match": then}]}, "on_no_match": then},
        {"matcher_tree": {"input": port, "prefix_match_map": {"map": {"8": then}}}},
        *(
            {
                "matcher_tree": {
                    "input": extension(f"{INPUTS}{source}"),
                    "custom_match": extension(f"xds.type.matcher.v3.{kind}", **held),
                }
            }
            for source, kind, held in (
                ("DestinationIPInput", "IPMatcher", {"range_matchers": networks}),
                ("ServerNameInput", "ServerNameMatcher", {"domain_matchers": names}),
            )
        ),
    )
    source = {"config_source": build.ADS}
    return [build.listener("l", "r", filter_chain_matcher=tree, fcds_config=source) for tree in trees]


@cache
def seeds(short: str) -> tuple[bytes, ...]:
    """Real resources: what an istiod sent, and what the kit builds."""
    host = build.virtual_host("v", build.route(cluster="c"), build.route("/a", weights={"a": 1, "b": 2}))
    own = {
        "listener": [
            build.listener("l", build.route_config("r", host)),
            build.api_listener("l", "r"),
            *_matched(),
        ],
        "route": [build.route_config("r", host)],
        "cluster": [
            build.cluster("c", ["a.example:80"], type="STRICT_DNS", outlier_detection={}),
            build.cluster(
                "c", circuit_breakers={"thresholds": [{"max_requests": 1}]}, lb_policy="LEAST_REQUEST"
            ),
        ],
        "endpoint": [
            build.endpoints("c", build.locality("10.0.0.1:80", region="r", priority=1), "10.0.0.2:80")
        ],
        "extension": [
            build.any_of(
                KINDS["extension"],
                {"name": "f", "typed_config": build.any_of(f"envoy.extensions.filters.http.{kind}", {})},
            )
            for kind in ("router.v3.Router", "rbac.v3.RBAC", "fault.v3.HTTPFault")
        ],
        "filter_chain": [build.filter_chain("f", "r")],
        "secret": [
            build.secret("s", certificate=_pem("CERTIFICATE"), key=_pem("PRIVATE KEY")),
            build.secret("s", ca=_pem("CERTIFICATE")),
        ],
    }[short]
    real = [each.value for name in ("grpc", "envoy") for each in istio(name).get(short, ())]
    return (*real, *map(raw, own))


@cache
def reached() -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Each message that a resource can hold: (root's short name, the steps to it)."""
    return tuple(ways().values())


def made(chance: random.Random, name: str, way: tuple[tuple[str, str], ...] = (), depth: int = 0) -> Any:
    """A message ``name`` of fields by chance, in which each step of ``way`` is taken."""
    found = schema.message(name)()
    fields = found.DESCRIPTOR.fields
    if fields and depth < _DEEPEST:
        for field in chance.sample(list(fields), min(len(fields), chance.randint(0, max(1, 4 - depth)))):
            _fill(chance, found, field, name, depth)
    if way:
        field, inner = found.DESCRIPTOR.fields_by_name[way[0][0]], made(chance, way[0][1], way[1:], depth + 1)
        _put(found, field, inner if _value(field).message_type == inner.DESCRIPTOR else schema.pack(inner))
    return found


def altered(chance: random.Random, short: str) -> bytes:
    """A real resource, a few of whose messages have other fields."""
    found = schema.message(KINDS[short])()
    found.ParseFromString(chance.choice(seeds(short)))
    for _ in range(chance.randint(1, 4)):
        spot = _somewhere(chance, found)
        name = schema.full_name(spot.DESCRIPTOR)
        field = chance.choice(list(spot.DESCRIPTOR.fields))
        if chance.random() < 0.2:
            spot.ClearField(field.name)
        else:
            _fill(chance, spot, field, name, 2)
    return bytes(found.SerializeToString())


def grown(chance: random.Random, short: str, kinds: tuple[str, ...]) -> bytes:
    """A real resource, in some of whose messages there are fields with messages of these kinds that the schema does not have."""
    found = schema.message(KINDS[short])()
    found.ParseFromString(chance.choice(seeds(short)))
    for _ in range(chance.randint(1, 3)):
        body = bytes(made(chance, chance.choice(kinds)).SerializeToString())
        field = schema.varint(chance.randint(1, 60) << 3 | 2) + schema.varint(len(body)) + body
        with suppress(schema.DecodeError):  # where it has a field of that number, of another kind
            _somewhere(chance, found).MergeFromString(field)
    return bytes(found.SerializeToString())


def mutated(chance: random.Random, data: bytes) -> bytes:
    """These bytes with a few places changed."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        place = chance.randint(0, len(changed))
        how = chance.randrange(4)
        if how == 0 and place < len(changed):
            changed[place] ^= 1 << chance.randrange(8)
        elif how == 1:
            del changed[place : place + chance.randint(1, 8)]
        elif how == 2:
            changed[place:place] = chance.randbytes(chance.randint(1, 4))
        else:
            changed[place:place] = changed[place : place + 16]
    return bytes(changed)


def _somewhere(chance: random.Random, found: Any) -> Any:
    """A message within a message, or that one."""
    while True:
        inner = [
            each
            for field, value in found.ListFields()
            if _known(field)
            for each in (value if schema.is_repeated(field) else [value])
        ]
        if not inner or chance.random() < 0.25:
            return found
        found = chance.choice(inner)


def _known(field: Any) -> bool:
    kind = field.message_type
    return (
        kind is not None
        and not kind.GetOptions().map_entry
        and schema.knows(schema.full_name(kind))
        and bool(kind.fields)
    )


def _fill(chance: random.Random, found: Any, field: Any, owner: str, depth: int) -> None:
    for _ in range(chance.choice((1, 1, 2)) if schema.is_repeated(field) else 1):
        _put(found, field, _one(chance, _value(field), owner, depth))


def _value(field: Any) -> Any:
    """Of a map its values' field."""
    kind = field.message_type
    return kind.fields_by_name["value"] if kind is not None and kind.GetOptions().map_entry else field


def _put(found: Any, field: Any, value: Any) -> None:
    inside = _value(field)
    if inside is not field:
        held = getattr(found, field.name)
        if inside.message_type is None:
            held["a"] = value
        else:
            held["a"].CopyFrom(value)
    elif schema.is_repeated(field):
        if field.message_type is None:
            getattr(found, field.name).append(value)
        else:
            getattr(found, field.name).add().CopyFrom(value)
    elif field.message_type is None:
        setattr(found, field.name, value)
    else:
        getattr(found, field.name).CopyFrom(value)


def _one(chance: random.Random, field: Any, owner: str, depth: int) -> Any:
    kind = field.message_type
    if kind is None:
        return _scalar(chance, field)
    if kind.full_name == "google.protobuf.Any":
        return _any(chance, owner, depth)
    if kind.full_name.startswith("google.protobuf.") or schema.is_opaque(field):
        return _plain(chance, kind)
    return made(chance, schema.full_name(kind), (), depth + 1)


def _scalar(chance: random.Random, field: Any) -> Any:
    if field.enum_type is not None:
        return chance.choice([*(value.number for value in field.enum_type.values), 99])
    if field.cpp_type == field.CPPTYPE_STRING:
        text = chance.choice(TEXTS)
        return text.encode() if field.type == field.TYPE_BYTES else text
    if field.cpp_type == field.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return chance.choice(FLOATS)
    return chance.choice(NUMBERS)


def _any(chance: random.Random, owner: str, depth: int) -> Any:
    names = held(owner)
    if chance.random() < 0.1 or depth >= _DEEPEST:
        url = chance.choice(["", "/", "x/a.B", *(schema.type_url(each) for each in names)])
        return ANY(type_url=url, value=chance.randbytes(chance.randint(0, 20)))
    return schema.pack(made(chance, chance.choice(names), (), depth + 1))


def _plain(chance: random.Random, kind: Any) -> Any:
    """A message of protobuf's own: a duration, a wrapper, a struct."""
    from google.protobuf import message_factory

    found = message_factory.GetMessageClass(kind)()
    for field in kind.fields:
        if field.message_type is None and not schema.is_repeated(field) and chance.random() < 0.7:
            spread = [-(2**63), -1, 0, 1, 999_999_999, 1_000_000_000, 2**31 - 1, 315_576_000_001, 2**63 - 1]
            if field.name == "seconds":
                setattr(found, field.name, chance.choice(spread))
            elif field.name == "nanos":
                setattr(found, field.name, chance.choice([-1, 0, 1, 999_999_999, 1_000_000_000, -(2**31)]))
            else:
                setattr(found, field.name, _scalar(chance, field))
    return found
