"""Messages from the JSON shape that Envoy's own configuration files have (protobuf's JSON mapping).

Differences from protobuf's `json_format`: every problem is reported, each with its path; an Any is resolved by
`@type` within the private pool, and one whose type the schema does not have becomes the TypedStruct that xDS
provides for that (https://github.com/cncf/xds, xds/type/v3/typed_struct.proto), so that a decoder can still name
and judge it; what is inside an opaque field is not read. Field names may be snake_case or camelCase.
"""

from __future__ import annotations

import base64
import binascii
import difflib
from collections.abc import Callable, Mapping
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from meshlib.xds.schema.messages import (
    WireMessage,
    full_name,
    is_opaque,
    is_repeated,
    knows,
    message,
    type_name,
)

__all__ = ["FLOATS", "MAX_DEPTH", "STRUCTS", "TIMES", "WRAPPERS", "JsonError", "from_json"]

# Messages within messages. Protobuf itself refuses to parse what is nested deeper than 100.
MAX_DEPTH = 100
# Each level of a Struct is three messages of its own on the wire, so fewer fit in protobuf's hundred.
_STRUCT_DEPTH = 30

_TYPED_STRUCT = "xds.type.v3.TypedStruct"
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
FLOATS = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}
WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
)
TIMES = frozenset({"google.protobuf.Duration", "google.protobuf.Timestamp"})
STRUCTS = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"})


class JsonError(ValueError):
    """What was wrong: `problems` has one line each, which begins with the path of the value at fault."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class _Problem(Exception):
    """A value that cannot be what its field needs; carries the words only, the reader knows the path."""


def from_json(name: str, value: Any, *, path: str = "") -> WireMessage:
    """The message `name` (an upstream name) that `value` describes: a mapping as a JSON or YAML reader gives it.

    `path` stands before the path in each problem. Raises JsonError with every problem, KeyError for a name that the
    schema does not have.
    """
    made = message(name)()
    reader = _Reader()
    reader.fill(made, value, path, 0)
    if reader.problems:
        raise JsonError(tuple(reader.problems))
    return made


class _Reader:
    """Fills messages and gathers what is wrong on the way."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def fill(self, into: WireMessage, value: Any, path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._problem(path, f"is nested deeper than {MAX_DEPTH} messages")
            return
        name = into.DESCRIPTOR.full_name
        if name == "google.protobuf.Any":
            self._fill_any(into, value, path, depth)
        elif name in WRAPPERS:
            self._set(into, into.DESCRIPTOR.fields_by_name["value"], value, path, depth)
        elif name in TIMES or name in STRUCTS:
            self._attempt(path, _fill_time if name in TIMES else _fill_struct, into, value)
        elif not isinstance(value, Mapping):
            self._problem(path, f"must be a mapping ({full_name(into)}), not {_shown(value)}")
        else:
            self._fill_fields(into, value, path, depth)

    def _fill_fields(self, into: WireMessage, value: Mapping[Any, Any], path: str, depth: int) -> None:
        fields = _fields(into.DESCRIPTOR)
        taken: dict[str, str] = {}
        for key, given in value.items():
            field = fields.get(key) if isinstance(key, str) else None
            here = f"{path}.{key}" if path else str(key)
            if field is None:
                self._problem(here, f"is no field of {full_name(into)}{_nearest(key, into.DESCRIPTOR)}")
                continue
            if given is None and not _takes_null(field):
                continue
            slot = field.containing_oneof.name if field.containing_oneof else field.name
            if slot in taken:
                self._problem(here, f"cannot stand beside {taken[slot]}: only one of them may be set")
                continue
            taken[slot] = key
            self._field(into, field, given, here, depth)

    def _field(self, into: WireMessage, field: FieldDescriptor, value: Any, path: str, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._fill_map(getattr(into, field.name), field, value, path, depth)
        elif is_repeated(field):
            self._fill_list(getattr(into, field.name), field, value, path, depth)
        else:
            self._set(into, field, value, path, depth)

    def _set(self, into: WireMessage, field: FieldDescriptor, value: Any, path: str, depth: int) -> None:
        if field.message_type is None:
            self._attempt(path, lambda: setattr(into, field.name, _scalar(field, value)))
            return
        inner = getattr(into, field.name)
        inner.SetInParent()
        if not is_opaque(field):
            self.fill(inner, value, path, depth + 1)

    def _fill_list(self, into: Any, field: FieldDescriptor, value: Any, path: str, depth: int) -> None:
        if not isinstance(value, list | tuple):
            self._problem(path, f"must be a list, not {_shown(value)}")
            return
        for index, each in enumerate(value):
            here = f"{path}[{index}]"
            if field.message_type is None:
                self._attempt(here, lambda each=each: into.append(_scalar(field, each)))
                continue
            inner = into.add()
            if not is_opaque(field):
                self.fill(inner, each, here, depth + 1)

    def _fill_map(self, into: Any, field: FieldDescriptor, value: Any, path: str, depth: int) -> None:
        if not isinstance(value, Mapping):
            self._problem(path, f"must be a mapping, not {_shown(value)}")
            return
        kind = cast("Descriptor", field.message_type).fields_by_name["value"]
        for key, each in value.items():
            here = f"{path}[{key!r}]"
            if not isinstance(key, str):
                self._problem(here, "needs a text as its key")
            elif kind.message_type is None:
                self._attempt(here, lambda key=key, each=each: into.__setitem__(key, _scalar(kind, each)))
            elif is_opaque(kind):
                into.get_or_create(key)
            else:
                self.fill(into.get_or_create(key), each, here, depth + 1)

    def _fill_any(self, into: WireMessage, value: Any, path: str, depth: int) -> None:
        if isinstance(value, Mapping) and not value:
            return  # an Any that is set and empty, as protobuf writes it
        if not isinstance(value, Mapping) or not isinstance(value.get("@type"), str):
            self._problem(path, "must be a mapping with the text '@type'")
            return
        url = value["@type"]
        rest: Any = {key: each for key, each in value.items() if key != "@type"}
        try:
            name = type_name(url)
        except ValueError as error:
            self._problem(f"{path}.@type", str(error))
            return
        if not knows(name):
            name, rest = _TYPED_STRUCT, {"type_url": url, "value": rest}
            url = f"type.googleapis.com/{_TYPED_STRUCT}"
        elif name in WRAPPERS or name in TIMES or name in STRUCTS:
            rest = rest.get("value")
        inner = message(name)()
        before = len(self.problems)
        self.fill(inner, rest, path, depth + 1)
        if len(self.problems) == before:
            into.type_url, into.value = url, inner.SerializeToString(deterministic=True)

    def _attempt(self, path: str, step: Callable[..., None], *arguments: Any) -> None:
        try:
            step(*arguments)
        except (_Problem, ValueError, TypeError) as error:  # protobuf says ValueError or TypeError itself
            self._problem(path, str(error))

    def _problem(self, path: str, text: str) -> None:
        self.problems.append(f"{path or '(top)'}: {text}")


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        return _enum(field, value)
    if field.type in _INTEGERS:
        return _integer(value, *_INTEGERS[field.type])
    if field.type in FLOATS:
        return _number(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(value)
    kind, words = (bool, "true or false") if field.type == FieldDescriptor.TYPE_BOOL else (str, "a text")
    if not isinstance(value, kind):
        raise _Problem(f"must be {words}, not {_shown(value)}")
    return value


def _enum(field: FieldDescriptor, value: Any) -> int:
    values = cast("Any", field.enum_type).values_by_name
    if isinstance(value, str) and value in values:
        return int(values[value].number)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _Problem(f"must be one of {', '.join(values)}, not {_shown(value)}")


def _integer(value: Any, low: int, high: int) -> int:
    number: int | None = None
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdecimal():
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if number is None or not low <= number <= high:
        raise _Problem(f"must be a whole number from {low} to {high}, not {_shown(value)}")
    return number


def _number(value: Any) -> float:
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Problem(f"must be a number, not {_shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise _Problem("must be a number that fits a double") from None


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise _Problem(f"must be bytes in base64, not {_shown(value)}") from None


def _fill_time(into: WireMessage, value: Any) -> None:
    if not isinstance(value, str):
        kind = full_name(into).rpartition(".")[2].lower()
        raise _Problem(f"must be a {kind} such as {_EXAMPLES[kind]!r}, not {_shown(value)}")
    into.FromJsonString(value)


_EXAMPLES = {"duration": "1.5s", "timestamp": "2026-01-31T12:00:00Z"}


def _fill_struct(into: WireMessage, value: Any) -> None:
    name = into.DESCRIPTOR.full_name
    if name == "google.protobuf.Value":
        _fill_value(into, value, 0)
    elif not isinstance(value, Mapping if name == "google.protobuf.Struct" else list | tuple):
        raise _Problem(
            f"must be a {'mapping' if name == 'google.protobuf.Struct' else 'list'}, not {_shown(value)}"
        )
    elif isinstance(value, Mapping):
        _fill_entries(into, value, 0)
    else:
        for each in value:
            _fill_value(into.values.add(), each, 1)


def _fill_entries(into: WireMessage, value: Mapping[Any, Any], depth: int) -> None:
    for key, each in value.items():
        if not isinstance(key, str):
            raise _Problem(f"needs a text as its key, not {_shown(key)}")
        _fill_value(into.fields[key], each, depth + 1)


def _fill_value(into: WireMessage, value: Any, depth: int) -> None:
    if depth > _STRUCT_DEPTH:
        raise _Problem(f"is nested deeper than {_STRUCT_DEPTH} levels")
    if value is None:
        into.null_value = 0
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int | float):
        into.number_value = _number(value)
    elif isinstance(value, str):
        into.string_value = value
    elif isinstance(value, Mapping):
        into.struct_value.SetInParent()
        _fill_entries(into.struct_value, value, depth)
    elif isinstance(value, list | tuple):
        into.list_value.SetInParent()
        for each in value:
            _fill_value(into.list_value.values.add(), each, depth + 1)
    else:
        raise _Problem(f"cannot hold {_shown(value)}")


def _fields(of: Descriptor) -> dict[str, FieldDescriptor]:
    found = {field.camelcase_name: field for field in of.fields}
    found.update((field.name, field) for field in of.fields)
    return found


def _takes_null(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.Value"


def _nearest(key: Any, of: Descriptor) -> str:
    close = difflib.get_close_matches(str(key)[:100], list(of.fields_by_name), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
