"""Messages from the JSON shape that Envoy's own configuration files have (protobuf's JSON mapping).

What is accepted is what Envoy accepts, whose parser (protobuf's for C++) lets more pass than `json_format` does: a
number, a truth value or an enum's number as text, an enum's name in any case, a Duration or a wrapper as its fields,
one value where a list is wanted, null for a value left out, base64 of either alphabet without its padding, a field
twice (the last holds; of a oneof it is refused). Field names may be snake_case or camelCase.

Other differences from `json_format`: every problem is reported, each with its path; an Any is resolved by `@type`
within the private pool, and one whose type the schema does not have becomes the TypedStruct that xDS provides for
that (https://github.com/cncf/xds, xds/type/v3/typed_struct.proto), so that a decoder can still name and judge it;
what is inside an opaque field is not read.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import re
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

# google.protobuf.Duration: its text, and its range in seconds.
_DURATION = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s", re.ASCII)
_MOST_SECONDS = 315_576_000_000
_WHOLE = re.compile(r"[-+]?[0-9]{1,20}", re.ASCII)
_HEX = re.compile(r"[-+]?0[xX][0-9a-fA-F.]{1,40}(?:[pP][-+]?[0-9]{1,4})?", re.ASCII)
_TRUE = frozenset(("true", "t", "yes", "y", "1"))
_FALSE = frozenset(("false", "f", "no", "n", "0"))
_URL_SAFE = str.maketrans("-_", "+/")

_TYPED_STRUCT = "xds.type.v3.TypedStruct"
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
# What null stands for in a list; 0 for the others.
_EMPTY: dict[int, object] = {
    FieldDescriptor.TYPE_STRING: "",
    FieldDescriptor.TYPE_BYTES: b"",
    FieldDescriptor.TYPE_BOOL: False,
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


def from_json(
    name: str,
    value: Any,
    *,
    path: str = "",
    typed: bool = False,
    unknown: list[tuple[str, str]] | None = None,
) -> WireMessage:
    """The message `name` (an upstream name) that `value` describes: a mapping as a JSON or YAML reader gives it.

    `path` stands before the path in each problem; `typed`: `@type` may stand beside the fields; `unknown`: fields that the
    schema does not have are no problem, and are put there by path and value. Raises JsonError with every problem, KeyError for
    a name that the schema does not have.
    """
    made = message(name)()
    reader = _Reader(unknown)
    reader.fill(made, value, path, 0, typed=typed)
    if reader.problems:
        raise JsonError(tuple(reader.problems))
    return made


class _Reader:
    """Fills messages and gathers what is wrong on the way."""

    def __init__(self, unknown: list[tuple[str, str]] | None) -> None:
        self.problems: list[str] = []
        self._unknown = unknown

    def fill(self, into: WireMessage, value: Any, path: str, depth: int, *, typed: bool = False) -> None:
        if depth > MAX_DEPTH:
            self._problem(path, f"is nested deeper than {MAX_DEPTH} messages")
            return
        name = into.DESCRIPTOR.full_name
        if name == "google.protobuf.Any":
            self._fill_any(into, value, path, depth)
        elif name in WRAPPERS and not isinstance(value, Mapping):
            self._set(into, into.DESCRIPTOR.fields_by_name["value"], value, path, depth)
        elif name in STRUCTS:
            self._attempt(path, _fill_struct, into, value)
        elif name in TIMES and not isinstance(value, Mapping):
            self._attempt(path, _fill_time, into, value)
        elif not isinstance(value, Mapping):
            self._problem(path, f"must be a mapping ({full_name(into)}), not {_shown(value)}")
        else:
            self._fill_fields(into, value, path, depth, typed=typed)

    def _fill_fields(
        self, into: WireMessage, value: Mapping[Any, Any], path: str, depth: int, *, typed: bool
    ) -> None:
        fields = _fields(into.DESCRIPTOR)
        taken: dict[str, str] = {}  # a oneof → which of it is set
        for key, given in value.items():
            if typed and key == "@type":
                continue
            field = fields.get(key) if isinstance(key, str) else None
            here = _below(path, key)
            if field is None and self._unknown is not None and isinstance(key, str):
                self._unknown.append((here, _shown(given)))
                continue
            if field is None:
                self._problem(here, f"is no field of {full_name(into)}{_nearest(key, into.DESCRIPTOR)}")
                continue
            if given is None and not _takes_null(field):
                continue
            if field.containing_oneof is not None:
                slot = field.containing_oneof.name
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
            value = (value,)
        for index, each in enumerate(value):
            here = f"{path}[{index}]"
            if isinstance(each, list | tuple) and not _takes_list(field):
                if depth > MAX_DEPTH:
                    self._problem(here, f"is nested deeper than {MAX_DEPTH} lists")
                    return
                self._fill_list(into, field, each, here, depth + 1)
            elif field.message_type is None:
                self._attempt(here, lambda each=each: into.append(_scalar(field, each)))
            else:
                inner = into.add()
                if not is_opaque(field) and (each is not None or _takes_null(field)):
                    self.fill(inner, each, here, depth + 1)

    def _fill_map(self, into: Any, field: FieldDescriptor, value: Any, path: str, depth: int) -> None:
        if not isinstance(value, Mapping):
            self._problem(path, f"must be a mapping, not {_shown(value)}")
            return
        kind = cast("Descriptor", field.message_type).fields_by_name["value"]
        for key, each in value.items():
            here = f"{path}[{_shown(key)}]"
            if not isinstance(key, str):
                self._problem(here, "needs a text as its key")
            elif key in into:
                self._problem(here, "is there twice")
            elif kind.message_type is None:
                self._attempt(here, lambda key=key, each=each: into.__setitem__(key, _scalar(kind, each)))
            elif is_opaque(kind) or (each is None and not _takes_null(kind)):
                into.get_or_create(key)
            else:
                self.fill(into.get_or_create(key), each, here, depth + 1)

    def _fill_any(self, into: WireMessage, value: Any, path: str, depth: int) -> None:
        if isinstance(value, Mapping) and not value:
            return  # an Any that is set and empty, as protobuf writes it
        if not isinstance(value, Mapping) or not isinstance(value.get("@type"), str):
            self._problem(path, "must be a mapping with the text '@type'")
            return
        url: str = value["@type"]
        rest: Any = value
        try:
            name = type_name(url)
        except ValueError as error:
            self._problem(f"{path}.@type", str(error))
            return
        if url.startswith("/"):
            self._problem(f"{path}.@type", f"type URL {url[:200]!r} has nothing before its slash")
            return
        if not knows(name):
            held = {key: each for key, each in value.items() if key != "@type"}
            name, rest = _TYPED_STRUCT, {"type_url": url, "value": held}
            url = f"type.googleapis.com/{_TYPED_STRUCT}"
        elif name in WRAPPERS or name in TIMES or name in STRUCTS:
            rest = value.get("value")
        inner = message(name)()
        before = len(self.problems)
        self.fill(inner, rest, path, depth + 1, typed=rest is value)
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
    if value is None:  # in a list
        return _EMPTY.get(field.type, 0)
    if field.enum_type is not None:
        return _enum(field, value)
    if field.type in _INTEGERS:
        return _integer(value, *_INTEGERS[field.type])
    if field.type in FLOATS:
        return _number(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(value)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _truth(value)
    if not isinstance(value, str):
        raise _Problem(f"must be a text, not {_shown(value)}")
    return value


def _enum(field: FieldDescriptor, value: Any) -> int:
    values = cast("Any", field.enum_type).values_by_name
    if isinstance(value, str):
        found = values.get(value) or values.get(value.upper())
        if found is not None:
            return int(found.number)
        if len(value) <= 11 and _WHOLE.fullmatch(value):
            return int(value)
    elif not isinstance(value, bool) and (
        isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    ):
        return int(value)
    raise _Problem(f"must be one of {', '.join(values)}, not {_shown(value)}")


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) and len(value) <= 5 else ""
    if word not in _TRUE and word not in _FALSE:
        raise _Problem(f"must be true or false, not {_shown(value)}")
    return word in _TRUE


def _integer(value: Any, low: int, high: int) -> int:
    number: Any = value
    if isinstance(value, str):
        number = (
            int(value) if _WHOLE.fullmatch(value) else _read_number(value) if value == value.strip() else None
        )
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise _Problem(f"must be a whole number from {low} to {high}, not {_shown(value)}")
    return number


def _number(value: Any) -> float:
    number = _read_number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _Problem(f"must be a number, not {_shown(value)}")
    try:
        return float(number)
    except OverflowError:
        raise _Problem("must be a number that fits a double") from None


def _read_number(text: str) -> float | None:
    """As C reads one: decimal or hexadecimal, `NaN` and `Infinity` in any case, spaces around it. None: it is none."""
    if len(text) > 400 or "_" in text or not text.isascii():
        return None
    try:
        return float.fromhex(text) if _HEX.fullmatch(text.strip()) else float(text)
    except ValueError:
        return None
    except OverflowError:
        return float("inf")


def _bytes(value: Any) -> bytes:
    """Either alphabet, with its padding or without."""
    if isinstance(value, str):
        digits = value.translate(_URL_SAFE)
        bare = digits.rstrip("=")
        if bare == digits or len(digits) % 4 == 0:
            with contextlib.suppress(ValueError):
                return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    raise _Problem(f"must be bytes in base64, not {_shown(value)}")


def _fill_time(into: WireMessage, value: Any) -> None:
    kind = full_name(into).rpartition(".")[2].lower()
    if not isinstance(value, str):
        raise _Problem(f"must be a {kind} such as {_EXAMPLES[kind]!r}, not {_shown(value)}")
    if kind == "timestamp":
        into.FromJsonString(value)
        return
    found = _DURATION.fullmatch(value)
    if found is None or int(found[2]) > _MOST_SECONDS:
        raise _Problem(f"must be a {kind} such as {_EXAMPLES[kind]!r}, not {_shown(value)}")
    sign = -1 if found[1] else 1
    into.seconds, into.nanos = sign * int(found[2]), sign * int((found[3] or "").ljust(9, "0"))


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
        if key in into.fields:
            raise _Problem(f"has the key {_shown(key)} twice")
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


def _takes_list(field: FieldDescriptor) -> bool:
    """Whether an item may be a list itself; elsewhere a list in a list is as if its items stood there."""
    return field.message_type is not None and field.message_type.full_name in STRUCTS


def _below(path: str, key: Any) -> str:
    text = key if isinstance(key, str) else _shown(key)
    text = text if len(text) <= 80 else text[:77] + "..."
    return f"{path}.{text}" if path else text


def _nearest(key: Any, of: Descriptor) -> str:
    close = difflib.get_close_matches(str(key)[:100], list(of.fields_by_name), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
