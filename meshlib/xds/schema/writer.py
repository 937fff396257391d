"""Messages in the JSON shape that Envoy's own configuration files have (protobuf's JSON mapping)."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from meshlib.xds.schema.messages import WireMessage, is_repeated, message, type_name
from meshlib.xds.schema.reader import FLOATS, MAX_DEPTH, TIMES, WRAPPERS

__all__ = ["to_json", "varint"]


def varint(value: int) -> bytes:
    """A number that is not negative, as protobuf has it on the wire."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def to_json(of: WireMessage) -> Any:
    """The JSON shape of a message: only what is set, names in snake_case, 64-bit integers as text.

    It gives a shape for every message, also for one that came from a hostile peer. An Any whose type the schema does
    not have, whose bytes are no such message, or that is nested too deep keeps its bytes: in base64, under `value`.
    A Duration or Timestamp out of its range, which has no JSON form, is written as its fields.
    """
    return _written_message(of, 0)


def _written_message(of: WireMessage, depth: int) -> Any:
    writer = _WRITERS.get(of.DESCRIPTOR.full_name)
    if writer is not None:
        return writer(of, depth)
    return {field.name: _written(field, value, depth) for field, value in of.ListFields()}


def _written(field: FieldDescriptor, value: Any, depth: int) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        kind = field.message_type.fields_by_name["value"]
        return {key: _written_one(kind, value[key], depth) for key in sorted(value)}
    if is_repeated(field):
        return [_written_one(field, each, depth) for each in value]
    return _written_one(field, value, depth)


def _written_one(field: FieldDescriptor | Any, value: Any, depth: int) -> Any:
    if field.message_type is not None:
        return _written_message(value, depth + 1)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    if field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64):
        return str(value)
    if field.type in FLOATS:
        return _written_number(value)
    return base64.b64encode(value).decode() if field.type == FieldDescriptor.TYPE_BYTES else value


def _written_number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _written_any(of: WireMessage, depth: int) -> dict[str, Any]:
    """Anys hide their depth from protobuf's limit: each is parsed on its own, so it is counted here."""
    url = of.type_url
    if not url and not of.value:
        return {}
    as_bytes = {"@type": url, "value": base64.b64encode(of.value).decode()}
    if depth > MAX_DEPTH:
        return as_bytes
    try:
        inner = message(type_name(url)).FromString(of.value)
    except (KeyError, ValueError, DecodeError):
        return as_bytes
    written = _written_message(inner, depth + 1)
    special = inner.DESCRIPTOR.full_name in _WRITERS
    return {"@type": url, "value": written} if special else {"@type": url, **written}


def _written_value(of: WireMessage, depth: int) -> Any:
    kind = of.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    value = getattr(of, kind)
    if kind in {"struct_value", "list_value"}:
        return _written_message(value, depth)
    return _written_number(value) if kind == "number_value" else value


def _written_struct(of: WireMessage, depth: int) -> dict[str, Any]:
    return {key: _written_value(of.fields[key], depth) for key in sorted(of.fields)}


def _written_list(of: WireMessage, depth: int) -> list[Any]:
    return [_written_value(each, depth) for each in of.values]


def _written_time(of: WireMessage, _depth: int) -> str | dict[str, Any]:
    try:
        return str(of.ToJsonString())
    except (ValueError, OverflowError):
        return {"seconds": str(of.seconds), "nanos": of.nanos}


def _written_wrapper(of: WireMessage, depth: int) -> Any:
    return _written_one(of.DESCRIPTOR.fields_by_name["value"], of.value, depth)


_WRITERS: dict[str, Callable[[WireMessage, int], Any]] = {
    "google.protobuf.Any": _written_any,
    "google.protobuf.ListValue": _written_list,
    "google.protobuf.Struct": _written_struct,
    "google.protobuf.Value": _written_value,
    **dict.fromkeys(TIMES, _written_time),
    **dict.fromkeys(WRAPPERS, _written_wrapper),
}
