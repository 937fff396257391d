"""Builds the private descriptor pool from the wire tables.

The notation of a table, one declaration a line:

    package envoy.config.core.v3      the upstream package of what follows
    message SocketAddress             a message; a nested one has its dotted name
       3 port_value uint32 @specifier a field: number, name, type, and the oneof that it is a member of
    enum Protocol TCP=0 UDP=1         an enum of the message above (indented) or of the package; it may run on

A type is a scalar, `[T]` (repeated), `map:T` (a map from string), `.T` (nested in the message at hand), `T` (of the
package at hand), `alias.T` (see `ALIASES`), a full upstream name, or `opaque`: a message whose presence and name we
must know, to report it, but whose inside we never read.

Every message lives under `ROOT` in a pool of our own, so nothing here can clash with a copy of the same
upstream messages that another package registers in protobuf's default pool. Upstream packages become empty outer
messages in one file: that keeps the upstream name readable after the root, and lets packages refer to each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

__all__ = ["ALIASES", "OPAQUE", "ROOT", "build"]

ROOT = "meshlib.wire"
FILE = "meshlib/wire.proto"
OPAQUE = f"{ROOT}.Opaque"

ALIASES: Mapping[str, str] = {
    "accesslog": "envoy.config.accesslog.v3",
    "cluster": "envoy.config.cluster.v3",
    "core": "envoy.config.core.v3",
    "dns": "envoy.extensions.clusters.common.dns.v3",
    "endpoint": "envoy.config.endpoint.v3",
    "fault": "envoy.extensions.filters.common.fault.v3",
    "hcm": "envoy.extensions.filters.network.http_connection_manager.v3",
    "lb": "envoy.extensions.load_balancing_policies.common.v3",
    "limits": "envoy.extensions.common.ratelimit.v3",
    "listener": "envoy.config.listener.v3",
    "matcher": "envoy.type.matcher.v3",
    "pb": "google.protobuf",
    "route": "envoy.config.route.v3",
    "rpc": "google.rpc",
    "tls": "envoy.extensions.transport_sockets.tls.v3",
    "type": "envoy.type.v3",
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}
# protobuf's own types keep their names: its JSON mapping and its Any, Struct and Duration helpers know them by name.
_WELL_KNOWN = (any_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)


def build(tables: Iterable[str]) -> descriptor_pool.DescriptorPool:
    """A pool with protobuf's well-known types and every message of `tables`, under `ROOT`.

    Raises ValueError for a line that does not follow the notation; protobuf raises TypeError for a table that
    contradicts itself (a number used twice, a type that no table declares).
    """
    pool = descriptor_pool.DescriptorPool()
    for module in _WELL_KNOWN:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_Builder(tables).file.SerializeToString())
    for name in (FILE, *(module.DESCRIPTOR.name for module in _WELL_KNOWN)):
        _kept.extend(_classes(pool.FindFileByName(name).message_types_by_name.values()))
    return pool


#: The class of every message of every pool, for the life of the process. protobuf makes the class of a nested message when one is first
#: read, and holds it weakly: class and descriptor are a cycle, so Python's collector frees a class that nobody holds. A thread
#: that reads such a message meanwhile gets the half-freed class, and the process dies of a segmentation fault.
_kept: list[type] = []


def _classes(descriptors: Iterable[Any]) -> Iterator[type]:
    for descriptor in descriptors:
        yield message_factory.GetMessageClass(descriptor)
        yield from _classes(descriptor.nested_types)


class _Builder:
    """One pass over the lines; enums are collected first, because a field must know which kind its type is."""

    def __init__(self, tables: Iterable[str]) -> None:
        self.file = descriptor_pb2.FileDescriptorProto(name=FILE, package=ROOT, syntax="proto3")
        self.file.dependency.extend(module.DESCRIPTOR.name for module in _WELL_KNOWN)
        self.file.message_type.add(name="Opaque")
        self._messages: dict[str, descriptor_pb2.DescriptorProto] = {}
        lines = list(_lines(tables))
        self._enums = {
            _join(package, message, words[1]) for package, message, words in lines if words[0] == "enum"
        }
        for package, message, words in lines:
            self._declare(package, message, words)

    def _declare(self, package: str, message: str, words: list[str]) -> None:
        if words[0] == "message":
            self._message(_join(package, message))
        elif words[0] == "enum":
            enum = self._message(_join(package, message)).enum_type.add(name=words[1])
            for name, _, number in (word.partition("=") for word in words[2:]):
                enum.value.add(name=name, number=int(number))
        else:
            self._field(package, message, words)

    def _message(self, name: str) -> descriptor_pb2.DescriptorProto:
        """The message of that upstream name, made with the outer ones when it is first named."""
        found = self._messages.get(name)
        if found is None:
            outer, _, own = name.rpartition(".")
            into = self._message(outer).nested_type if outer else self.file.message_type
            found = self._messages[name] = into.add(name=own)
        return found

    def _field(self, package: str, message: str, words: list[str]) -> None:
        number, name, kind, *oneof = words
        owner = self._message(_join(package, message))
        field = owner.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
        if kind.startswith("["):
            field.label, kind = _Field.LABEL_REPEATED, kind.strip("[]")
        if kind.startswith("map:"):
            field.label, field.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
            field.type_name = self._map_entry(package, message, name, kind.removeprefix("map:"))
        else:
            self._set_type(field, package, message, kind)
        if oneof:
            field.oneof_index = _oneof(owner, oneof[0].removeprefix("@"))

    def _map_entry(self, package: str, message: str, field: str, kind: str) -> str:
        name = "".join(part.capitalize() for part in field.split("_")) + "Entry"
        entry = self._message(_join(package, message)).nested_type.add(name=name)
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
        value = entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL)
        self._set_type(value, package, message, kind)
        return f".{ROOT}.{_join(package, message, name)}"

    def _set_type(
        self, field: descriptor_pb2.FieldDescriptorProto, package: str, message: str, kind: str
    ) -> None:
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
            return
        if kind == "opaque":
            field.type, field.type_name = _Field.TYPE_MESSAGE, f".{OPAQUE}"
            return
        upstream = _resolve(package, message, kind)
        field.type = _Field.TYPE_ENUM if upstream in self._enums else _Field.TYPE_MESSAGE
        field.type_name = f".{upstream}" if upstream.startswith("google.protobuf.") else f".{ROOT}.{upstream}"


def _lines(tables: Iterable[str]) -> Iterator[tuple[str, str, list[str]]]:
    """(package, message, words) of each declaration; a run-on enum line is joined to its first."""
    package = message = ""
    enum: tuple[str, str, list[str]] | None = None
    for line in (line for table in tables for line in table.splitlines() if line.strip()):
        words = line.split()
        if enum and "=" in words[0]:
            enum[2].extend(words)
            continue
        if enum:
            yield enum
            enum = None
        if words[0] == "package":
            package, message = words[1], ""
        elif words[0] == "enum":
            enum = (package, message if line[0] == " " else "", words)
        elif words[0] == "message":
            message = words[1]
            yield package, message, words
        elif words[0].isdecimal() and len(words) in (3, 4):
            yield package, message, words
        else:
            raise ValueError(f"wire table: {line.strip()!r} is no declaration")
    if enum:
        yield enum


def _resolve(package: str, message: str, kind: str) -> str:
    if kind.startswith("."):
        return _join(package, message, kind[1:])
    head, _, rest = kind.partition(".")
    if head in ALIASES:
        return f"{ALIASES[head]}.{rest}"
    return _join(package, kind) if head[0].isupper() else kind


def _oneof(owner: descriptor_pb2.DescriptorProto, name: str) -> int:
    for index, oneof in enumerate(owner.oneof_decl):
        if oneof.name == name:
            return index
    owner.oneof_decl.add(name=name)
    return len(owner.oneof_decl) - 1


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)
