"""Resources as JSON trees that hold what they hold by chance, made from the wire schema: each message of it is reached.

A tree is right as far as the schema tells: each value has its field's type, and any field may be missing. ``spoiled`` puts
something else into one.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from meshlib.xds import schema

ROOTS = {
    short: schema.type_name(schema.TYPE_URLS[short]) for short in ("listener", "route", "cluster", "endpoint")
}
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3."
_ANY = "google.protobuf.Any"
_VALUES = ("Struct", "Value", "ListValue", "Duration", "Timestamp", "Empty")

#: What a message holds in its Any → what may be there: names that begin so.
_HELD = {
    "envoy.config.listener.v3.Filter": ("envoy.extensions.filters.network.",),
    "envoy.config.listener.v3.ApiListener": (f"{_HCM}HttpConnectionManager",),
    f"{_HCM}HttpFilter": ("envoy.extensions.filters.http.", "xds.type.", "udpa.type."),
    "envoy.config.core.v3.TransportSocket": ("envoy.extensions.transport_sockets.",),
    "envoy.config.core.v3.TypedExtensionConfig": (
        "envoy.extensions.load_balancing_policies.",
        "xds.type.",
    ),
    "xds.core.v3.TypedExtensionConfig": ("xds.type.matcher.", "envoy.extensions.matching."),
    "envoy.config.cluster.v3.Cluster": ("envoy.extensions.upstreams.http.",),
    "envoy.config.cluster.v3.Cluster.CustomClusterType": ("envoy.extensions.clusters.",),
    **{
        f"envoy.config.route.v3.{name}": (
            "envoy.config.route.v3.FilterConfig",
            "envoy.extensions.filters.http.",
        )
        for name in ("RouteConfiguration", "VirtualHost", "Route", "WeightedCluster.ClusterWeight")
    },
    "envoy.config.route.v3.RetryPolicy.RetryHostPredicate": ("envoy.extensions.retry.",),
}

#: Fields of a message at most, beside the one that leads on, by depth: trees stay small.
_FIELDS = (4, 3, 2, 1, 1, 0)
_TEXTS = st.sampled_from(
    ["", "a", "b", "*", "/", "127.0.0.1", "::1", "10.0.0.0/8", "envoy.filters.http.router", "(", "%", "%REQ(x)%", "é", "\0", "x" * 300]
)  # fmt: skip
_WRONG = st.sampled_from(
    [None, True, 5, -1, 1.5, "x", "1", [], {}, [None], {"x": 1}, {"@type": "x/y"}, 2**70, "NaN"]
)


def held(name: str) -> tuple[str, ...]:
    """What may be in the Anys of message ``name``."""
    begins = _HELD.get(name, ("envoy.extensions.",))
    return tuple(known for known in schema.names() if known.startswith(begins))


def _inside(field: Any) -> Any:
    """The message in a field, or in the values of a map; None where there is none to enter."""
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        field = kind.fields_by_name["value"]
        kind = field.message_type
    return None if kind is None or schema.is_opaque(field) else kind


def _steps(name: str) -> Iterator[tuple[str, str]]:
    """(field, message in it) for all that message ``name`` can hold."""
    for field in schema.descriptor(name).fields:
        kind = _inside(field)
        if kind is None:
            continue
        if kind.full_name == _ANY:
            yield from ((field.name, known) for known in held(name))
        elif schema.knows(schema.full_name(kind)):
            yield field.name, schema.full_name(kind)


def ways() -> dict[str, tuple[str, tuple[tuple[str, str], ...]]]:
    """Message of the schema → (root's short name, the steps from that root to it), for all that a root can hold."""
    found: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
        name: (short, ()) for short, name in ROOTS.items()
    }
    waiting = deque(found)
    while waiting:
        name = waiting.popleft()
        short, before = found[name]
        for field, inside in _steps(name):
            if inside not in found:
                found[inside] = (short, (*before, (field, inside)))
                waiting.append(inside)
    return found


@st.composite
def trees(draw: Any, name: str, way: tuple[tuple[str, str], ...] = (), depth: int = 0) -> Any:
    """A tree of message ``name`` in which each step of ``way`` is taken."""
    kind = schema.descriptor(name)
    made: dict[str, Any] = {}
    fields = list(kind.fields)
    few = (
        draw(st.lists(st.sampled_from(fields), max_size=_FIELDS[min(depth, 5)], unique_by=lambda f: f.name))
        if fields
        else []
    )
    must = way[0] if way else None
    taken = {
        field.containing_oneof.name
        for field in fields
        if must and field.name == must[0] and field.containing_oneof
    }
    for field in few:
        oneof = field.containing_oneof.name if field.containing_oneof else None
        if (must and field.name == must[0]) or (oneof and oneof in taken):
            continue
        taken.add(oneof)
        made[field.name] = draw(_values(name, field, depth))
    if must:
        field = kind.fields_by_name[must[0]]
        inner = draw(trees(must[1], way[1:], depth + 1))
        made[field.name] = _placed(field, _typed(field, must[1], inner))
    return made


def _typed(field: Any, name: str, inner: Any) -> Any:
    return {"@type": schema.type_url(name), **inner} if _inside(field).full_name == _ANY else inner


def _placed(field: Any, one: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {"a": one}
    return [one] if schema.is_repeated(field) else one


def _values(owner: str, field: Any, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        one = _one(owner, field.message_type.fields_by_name["value"], depth)
        return st.dictionaries(_TEXTS, one, max_size=2)
    one = _one(owner, field, depth)
    return st.lists(one, max_size=2) if schema.is_repeated(field) else one


def _one(owner: str, field: Any, depth: int) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([value.name for value in field.enum_type.values] + [99])
    if field.message_type is None:
        return (
            _SCALARS[field.cpp_type]
            if field.type != field.TYPE_BYTES
            else st.sampled_from(["", "YWI=", "YWI"])
        )
    kind = field.message_type.full_name
    if schema.is_opaque(field):
        return st.just({})
    if kind == _ANY:
        return st.sampled_from(held(owner)).flatmap(
            lambda name: trees(name, (), depth + 1).map(lambda tree: {"@type": schema.type_url(name), **tree})
        )
    if kind.startswith("google.protobuf."):
        return _KNOWN.get(kind.rpartition(".")[2], st.sampled_from([0, 1, 80]))
    return trees(schema.full_name(field.message_type), (), depth + 1)


_NUMBERS = st.sampled_from([0, 1, 2, 80, 200, 2**31 - 1])
_SCALARS = {
    schema.descriptor("google.protobuf.StringValue").fields[0].CPPTYPE_STRING: _TEXTS,
    schema.descriptor("google.protobuf.BoolValue").fields[0].CPPTYPE_BOOL: st.booleans(),
    **dict.fromkeys(range(1, 5), _NUMBERS),
    **dict.fromkeys((5, 6), st.sampled_from([0.0, 1.0, 50.5, -1.0, "NaN", "Infinity"])),
}
_KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "Duration": st.sampled_from(["0s", "1s", "0.000000001s", "-1s", "315576000000s", {"seconds": 1}]),
    "Timestamp": st.just("2026-01-31T12:00:00Z"),
    "Struct": st.just({"a": 1}),
    "Value": st.just(1),
    "ListValue": st.just([1]),
    "Empty": st.just({}),
    "BoolValue": st.booleans(),
    "StringValue": _TEXTS,
}


@st.composite
def spoiled(draw: Any, tree: Any) -> Any:
    """``tree`` with something else in one place, or without what is there."""
    tree = copy.deepcopy(tree)  # what was drawn may hold one value in two places, or in two draws
    places = list(_places(tree))
    if not places:
        return tree
    holder, key = draw(st.sampled_from(places))
    if isinstance(holder, dict) and draw(st.booleans()):
        del holder[key]
    else:
        holder[key] = copy.deepcopy(draw(_WRONG))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    ):
        yield tree, key
        yield from _places(inner)
