"""Message classes of the private pool, by their upstream names; type URLs; Any."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from meshlib.xds.schema import pool as _pool
from meshlib.xds.schema.tables import TABLES

if TYPE_CHECKING:

    class WireMessage(Message):
        """A message of the schema: fields are attributes, whose types only the tables know."""

        DESCRIPTOR: Any

        def __init__(self, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...
else:
    WireMessage = Message

__all__ = [
    "POOL",
    "DecodeError",
    "WireMessage",
    "copy_field",
    "descriptor",
    "full_name",
    "is_opaque",
    "is_repeated",
    "knows",
    "message",
    "names",
    "pack",
    "spelled",
    "type_name",
    "type_url",
    "unpack",
]

# Built while the import lock is held, never changed afterwards: safe to read from every thread.
POOL = _pool.build(TABLES)
_PREFIX = "type.googleapis.com/"
_ROOT = _pool.ROOT + "."
_WELL_KNOWN = "google.protobuf."


@cache
def message(name: str) -> type[WireMessage]:
    """The class of the message that upstream calls `name`, such as `envoy.config.listener.v3.Listener`.

    Raises KeyError for a name that the schema does not have.
    """
    return cast("type[WireMessage]", message_factory.GetMessageClass(descriptor(name)))


def descriptor(name: str) -> Descriptor:
    """The descriptor behind `message(name)`. Raises KeyError for a name that the schema does not have."""
    ours = name if name.startswith(_WELL_KNOWN) else _ROOT + name
    try:
        found = POOL.FindMessageTypeByName(ours)
    except KeyError:
        raise KeyError(f"the schema has no message {name}") from None
    if not name or name.rpartition(".")[2][0].islower():  # a package stands in the pool as an empty message
        raise KeyError(f"the schema has no message {name}")
    return found


def knows(name: str) -> bool:
    """Whether the schema has a message of that upstream name."""
    try:
        descriptor(name)
    except KeyError:
        return False
    return True


@cache
def names() -> tuple[str, ...]:
    """The upstream names of all messages of the schema, sorted; without protobuf's own."""
    found: list[str] = []
    _collect(POOL.FindFileByName(_pool.FILE).message_types_by_name.values(), found)
    return tuple(sorted(found))


def _collect(descriptors: Any, found: list[str]) -> None:
    for each in descriptors:
        if each.name[0].isupper() and each.full_name != _pool.OPAQUE and not each.GetOptions().map_entry:
            found.append(each.full_name.removeprefix(_ROOT))
        _collect(each.nested_types, found)


def spelled(name: str) -> dict[str, str]:
    """The fields of a message (an upstream name) by each way to write one in JSON: snake_case and camelCase."""
    return {
        key: field.name for field in descriptor(name).fields for key in (field.camelcase_name, field.name)
    }


def full_name(of: Message | Descriptor) -> str:
    """The upstream name of a message's (or descriptor's) type."""
    return (of if isinstance(of, Descriptor) else of.DESCRIPTOR).full_name.removeprefix(_ROOT)


def is_opaque(field: FieldDescriptor) -> bool:
    """Whether the schema knows this field's name but not what is inside it."""
    return field.message_type is not None and field.message_type.full_name == _pool.OPAQUE


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether the field is a list or a map. (`FieldDescriptor.label` is going away, `is_repeated` is recent.)"""
    try:
        return bool(field.is_repeated)
    except AttributeError:  # protobuf before 6
        older: Any = field
        return bool(older.label == FieldDescriptor.LABEL_REPEATED)


def type_name(url: str) -> str:
    """The message name in a type URL: all after the last slash. Raises ValueError where there is none."""
    _, slash, name = url.rpartition("/")
    if not slash or not name:
        raise ValueError(f"type URL {url[:200]!r} has no type name after a slash")
    return name


def type_url(of: str | Message) -> str:
    """The type URL of an upstream message name, or of a message."""
    return _PREFIX + (of if isinstance(of, str) else full_name(of))


def copy_field(into: WireMessage, field: FieldDescriptor, value: Any) -> None:
    """Give `into` a field's `value`, as `ListFields` tells both of another message of that kind."""
    if is_repeated(field):
        getattr(into, field.name).MergeFrom(value)
    elif field.message_type is not None:
        getattr(into, field.name).CopyFrom(value)
    else:
        setattr(into, field.name, value)


def pack(inner: Message) -> WireMessage:
    """An Any that holds `inner` under its upstream type URL; equal messages give equal bytes."""
    return message("google.protobuf.Any")(
        type_url=type_url(inner), value=inner.SerializeToString(deterministic=True)
    )


def unpack(outer: WireMessage, name: str | None = None) -> WireMessage:
    """The message in an Any.

    `name`: the upstream message name that must be in it. Raises ValueError if it holds another type or its type
    URL is malformed, KeyError if the schema does not have the type, DecodeError if the bytes are not such a message.
    """
    held = type_name(outer.type_url)
    if name is not None and held != name:
        raise ValueError(f"expected {name}, not {held[:200]}")
    return message(held).FromString(outer.value)
