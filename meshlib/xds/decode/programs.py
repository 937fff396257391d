"""Filters that are programs: somebody's own code, which Envoy runs and we cannot, and which may refuse calls.

What becomes of calls without the program is what an Envoy does that cannot run it:

    external processing        fails them, unless `failure_mode_allow` (of the filter or of a place)
    Wasm                       fails them, unless `fail_open` or `failure_policy: FAIL_OPEN`; the `null` runtime is what the
                               Envoy itself brings (Istio's statistics and exchange of metadata), which refuses nothing
    Go, dynamic modules        does not begin to serve
    Lua                        lets them pass, as after any error of a script; but a script that can answer a call itself
                               calls `respond`, and one that does may refuse

Where calls do not pass without it, a program decides who may pass: it is a guard as the others (`decode.guards`).

The schema does not have these filters: of each a few settings matter, which are read from the message's bytes by their
numbers, and by their names from the Struct that stands for it in a file or in a TypedStruct.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

from meshlib.xds import schema
from meshlib.xds.schema import WireMessage

__all__ = ["KINDS", "decides", "holds", "is_program", "lifted"]

#: Parts of a type's name.
KINDS = frozenset({"dynamic_modules", "ext_proc", "golang", "lua", "wasm"})
_INSIDE = tuple((f".filters.http.{kind}.v".encode(), kind == "lua") for kind in sorted(KINDS))
_RESPOND = b"respond"


@dataclass(frozen=True, slots=True)
class _Setting:
    """Where a setting is, by names and by numbers, and the values that mean yes: of JSON, and of the bytes."""

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    yes: tuple[Any, ...] = (True,)

    def of(self, outer: WireMessage) -> bool | None:
        """Whether it says yes; None where it is not set. Raises ValueError, DecodeError for what cannot be read."""
        found = _written(outer, self.names) if _is_struct(outer) else _wired(outer.value, self.numbers)
        return None if found is None else any(found == each for each in self.yes)


_HTTP = "envoy.extensions.filters.http."
_NETWORK = "envoy.extensions.filters.network."
_FAILURE_MODE = (_Setting(("failure_mode_allow",), (2,)),)
_PLUGIN = (
    _Setting(("config", "fail_open"), (1, 5)),
    _Setting(("config", "failure_policy"), (1, 7), (3, "FAIL_OPEN")),
    _Setting(
        ("config", "vm_config", "runtime"),
        (1, 3, 2),
        ("envoy.wasm.runtime.null", b"envoy.wasm.runtime.null"),
    ),
)
#: By what calls pass without the program.
_PASSES: Mapping[str, tuple[_Setting, ...]] = {
    f"{_HTTP}ext_proc.v3.ExternalProcessor": _FAILURE_MODE,
    f"{_HTTP}wasm.v3.Wasm": _PLUGIN,
    f"{_NETWORK}ext_proc.v3.NetworkExternalProcessor": _FAILURE_MODE,
    f"{_NETWORK}wasm.v3.Wasm": _PLUGIN,
}
_PROCESSING_HERE = f"{_HTTP}ext_proc.v3.ExtProcPerRoute"
_FAILURE_MODE_HERE = _Setting(("overrides", "failure_mode_allow"), (2, 8), (True, b"\x08\x01"))
_DISABLED_HERE = _Setting(("disabled",), (1,))
#: By what they pass at one place.
_LIFTED: Mapping[str, tuple[_Setting, ...]] = {
    _PROCESSING_HERE: (_DISABLED_HERE, _FAILURE_MODE_HERE),
    f"{_HTTP}lua.v3.LuaPerRoute": (_DISABLED_HERE,),
}


def is_program(kind: str) -> bool:
    """Whether a type's name is that of a program's filter, in any version."""
    return not KINDS.isdisjoint(kind.split("."))


def decides(kind: str, outer: WireMessage) -> bool:
    """Whether calls do not pass without the program. One whose configuration cannot be read decides."""
    if "lua" in kind.split("."):
        return _RESPOND in outer.value
    try:
        if kind == _PROCESSING_HERE:  # where it does not say, a less specific place does
            return _FAILURE_MODE_HERE.of(outer) is False
        return not any(setting.of(outer) for setting in _PASSES.get(kind, ()))
    except (KeyError, ValueError, schema.DecodeError):
        return True


def lifted(kind: str, outer: WireMessage) -> bool:
    """Whether these settings for one place let every call pass there."""
    try:
        return any(setting.of(outer) for setting in _LIFTED.get(kind, ()))
    except (KeyError, ValueError, schema.DecodeError):
        return False


def holds(outer: WireMessage) -> bool:
    """Whether a filter that runs others names a program inside. How it fails is not looked for, but for Lua's scripts."""
    return any(part in outer.value and (not lua or _RESPOND in outer.value) for part, lua in _INSIDE)


def _is_struct(outer: WireMessage) -> bool:
    return schema.type_name(outer.type_url) in ("xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct")


def _written(outer: WireMessage, names: tuple[str, ...]) -> Any:
    """In a TypedStruct, by names in either of JSON's spellings."""
    held: Any = schema.to_json(schema.unpack(outer)).get("value")
    for name in names:
        first, *rest = name.split("_")
        camel = first + "".join(word.capitalize() for word in rest)
        held = held.get(name, held.get(camel)) if isinstance(held, Mapping) else None
    return held


def _wired(value: bytes, numbers: tuple[int, ...]) -> Any:
    """In a message's bytes: an int, bytes or None. As in protobuf, the last one holds, and messages are merged."""
    *outside, last = numbers
    for number in outside:
        value = b"".join(each for each in _fields(value, number) if isinstance(each, bytes))
    return next(reversed(_fields(value, last)), None)


def _fields(value: bytes, number: int) -> list[Any]:
    fields: Any = UnknownFieldSet(schema.message("google.protobuf.Empty").FromString(value))
    return [each.data for each in fields if each.field_number == number]
