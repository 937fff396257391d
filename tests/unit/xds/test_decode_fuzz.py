"""Decoders are total: whatever the bytes are, there is a value or a problem, and never an exception."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.testing import build
from meshlib.xds import decode, schema
from meshlib.xds.secrets import presentable
from tests.support.xds_kit import istio, raw

SHORTS = ("listener", "route", "cluster", "endpoint", "secret")
SEEDS = {
    short: [each.value for name in ("grpc", "envoy") for each in istio(name).get(short, ())]
    for short in SHORTS
}
SEEDS["secret"] = [
    raw(
        build.secret(
            "s",
            certificate="-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
            key="-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----",
        )
    )
]
SEEDS["cluster"].append(raw(build.cluster("c", ["a.example:80"], type="STRICT_DNS", outlier_detection={})))
SEEDS["listener"].append(
    raw(build.listener("l", build.route_config("r", build.virtual_host("v", build.route()))))
)


def check(short, data):
    found = getattr(decode, short)(data)
    assert (found.value is None) == bool(found.problems)
    assert all(isinstance(text, str) and text for text in found.problems)
    assert not any("could not be decoded" in text for text in found.problems), found.problems
    assert all(len(value) <= 200 for _, value in found.ignored)
    check_kept(short, data, found)
    return found


def check_kept(short, data, found):
    """What may be written of it to the file of the last good state means the same, or nothing is written."""
    made, secret = presentable(short, data)
    assert bool(secret) <= (made == b"")
    if found.value is not None and not secret:
        again = getattr(decode, short)(made)
        assert again.problems == ()
        assert repr(again.value) == repr(found.value)


@pytest.mark.parametrize("short", SHORTS)
@given(data=st.binary(max_size=200))
def test_random_bytes(short, data):
    check(short, data)


def _fields(kind, depth=0):
    """Messages of a type with random fields set to random values."""
    entries = [field for field in kind.fields if depth < 4 or field.message_type is None]

    @st.composite
    def build_one(draw):
        made = schema.message(schema.full_name(kind))()
        for field in (
            draw(st.lists(st.sampled_from(entries), max_size=5, unique_by=lambda f: f.name))
            if entries
            else []
        ):
            _set(draw, made, field, depth)
        return made

    return build_one()


_SCALARS = {
    "str": st.text(max_size=12)
    | st.sampled_from(["*", "a", "/", "10.0.0.1", "envoy.filters.http.router", "("]),
    "int": st.integers(0, 5) | st.integers(0, 2**31 - 1),
    "float": st.floats(),
}


def _scalar(draw, field):
    if field.cpp_type == field.CPPTYPE_STRING:
        text = draw(_SCALARS["str"])
        return text.encode() if field.type == field.TYPE_BYTES else text
    if field.cpp_type == field.CPPTYPE_BOOL:
        return draw(st.booleans())
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return draw(_SCALARS["float"])
    return draw(_SCALARS["int"])


def _set(draw, made, field, depth):
    if field.message_type is None:
        if schema.is_repeated(field):
            getattr(made, field.name).append(_scalar(draw, field))
        else:
            setattr(made, field.name, _scalar(draw, field))
        return
    if field.message_type.GetOptions().map_entry:
        return
    name = field.message_type.full_name
    if name == "google.protobuf.Any":
        inner = _any(draw, depth)
    elif name.startswith("google.protobuf.") or schema.is_opaque(field):
        inner = _known(draw, field.message_type)
    else:
        inner = draw(_fields(field.message_type, depth + 1))
    if schema.is_repeated(field):
        getattr(made, field.name).add().CopyFrom(inner)
    else:
        getattr(made, field.name).CopyFrom(inner)


def _known(draw, kind):
    from google.protobuf import message_factory

    made = message_factory.GetMessageClass(kind)()
    for field in kind.fields:
        if field.message_type is None and not schema.is_repeated(field) and field.containing_oneof is None:
            if field.name in ("seconds", "nanos"):
                setattr(made, field.name, draw(st.integers(-5, 2**31 - 1)))
            else:
                setattr(made, field.name, _scalar(draw, field))
    return made


def _any(draw, depth):
    name = draw(st.sampled_from(schema.names()))
    if depth > 3 or draw(st.booleans()):
        return schema.message("google.protobuf.Any")(
            type_url=draw(st.sampled_from(["", "/", "x/" + name, "type.googleapis.com/" + name])),
            value=draw(st.binary(max_size=20)),
        )
    return schema.pack(draw(_fields(schema.descriptor(name), depth + 1)))


@pytest.mark.parametrize("short", SHORTS)
@given(data=st.data())
def test_random_messages(short, data):
    kind = schema.descriptor(schema.type_name(schema.TYPE_URLS[short]))
    check(short, data.draw(_fields(kind)).SerializeToString())


@pytest.mark.parametrize("short", SHORTS)
@given(data=st.data())
def test_mutations_of_what_is_real(short, data):
    seed = bytearray(data.draw(st.sampled_from(SEEDS[short])))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(seed) - 1))
        how = data.draw(st.sampled_from(["flip", "drop", "insert", "repeat"]))
        if how == "flip":
            seed[place] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "drop" and len(seed) > 1:
            del seed[place : place + data.draw(st.integers(1, 8))]
        elif how == "insert":
            seed[place:place] = data.draw(st.binary(min_size=1, max_size=4))
        else:
            seed[place:place] = seed[place : place + 16]
        if not seed:
            break
    check(short, bytes(seed))
