"""The service of these examples: its messages, its stub and its servers.

An application has these from `python -m grpc_tools.protoc`, as two modules. Such modules hold for some versions of protobuf, so that
here they are made at run time, of the table below.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "examples.Guide"
PLACES = {(1, 1): "a well", (2, 5): "an inn", (4, 4): "a bridge"}

#: Message → its fields; those that name a message are of it.
MESSAGES = {
    "Point": {"x": "int32", "y": "int32"},
    "Area": {"low": "Point", "high": "Point"},
    "Feature": {"name": "string", "at": "Point", "guide": "string"},
    "Walk": {"points": "int32", "length": "int32"},
    "Note": {"at": "Point", "text": "string"},
}
#: Method → what it takes, what it gives, and which of the two are streams.
METHODS = {
    "Lookup": ("Point", "Feature", False, False),
    "Browse": ("Area", "Feature", False, True),
    "Record": ("Point", "Walk", True, False),
    "Chat": ("Note", "Note", True, True),
}


def _described() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="guide.proto", package="examples", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in MESSAGES.items():
        made = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), 1):
            field = made.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
            if kind in MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".examples.{kind}"
            else:
                field.type = kinds.TYPE_INT32 if kind == "int32" else kinds.TYPE_STRING
    service = file.service.add(name="Guide")
    for method, (taken, given, sends, answers) in METHODS.items():
        service.method.add(
            name=method,
            input_type=f".examples.{taken}",
            output_type=f".examples.{given}",
            client_streaming=sends,
            server_streaming=answers,
        )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_pool = _described()
_classes = {
    name: message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"examples.{name}"))
    for name in MESSAGES
}
Point: Any = _classes["Point"]
Area: Any = _classes["Area"]
Feature: Any = _classes["Feature"]
Walk: Any = _classes["Walk"]
Note: Any = _classes["Note"]


def _kind(method: str) -> str:
    _, _, sends, answers = METHODS[method]
    return f"{'stream' if sends else 'unary'}_{'stream' if answers else 'unary'}"


class GuideStub:
    """As a generated stub: on any channel, also one of asyncio."""

    Lookup: Any
    Browse: Any
    Record: Any
    Chat: Any

    def __init__(self, channel: Any) -> None:
        for method, (taken, given, *_) in METHODS.items():
            make = getattr(channel, _kind(method))
            path = f"/{SERVICE}/{method}"
            serialize, read = _classes[taken].SerializeToString, _classes[given].FromString
            setattr(self, method, make(path, request_serializer=serialize, response_deserializer=read))


class Guide:
    """A guide who knows the places; `name` says which of several answers."""

    def __init__(self, name: str) -> None:
        self.name = name

    def lookup(self, point: Any, context: grpc.ServicerContext) -> Any:
        found = PLACES.get((point.x, point.y))
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"nothing is at {point.x}, {point.y}")
        return Feature(name=found, at=point, guide=self.name)

    def browse(self, area: Any, _: grpc.ServicerContext) -> Iterator[Any]:
        for (x, y), name in PLACES.items():
            if area.low.x <= x <= area.high.x and area.low.y <= y <= area.high.y:
                yield Feature(name=name, at=Point(x=x, y=y), guide=self.name)

    def record(self, points: Iterator[Any], _: grpc.ServicerContext) -> Any:
        walked = [(point.x, point.y) for point in points]
        length = sum(abs(a - c) + abs(b - d) for (a, b), (c, d) in itertools.pairwise(walked))
        return Walk(points=len(walked), length=length)

    def chat(self, notes: Iterator[Any], _: grpc.ServicerContext) -> Iterator[Any]:
        """For each note those that were left at its place before it."""
        left: dict[tuple[int, int], list[Any]] = {}
        for note in notes:
            there = left.setdefault((note.at.x, note.at.y), [])
            yield from there
            there.append(note)


@contextlib.contextmanager
def serving(name: str, add: Any = None) -> Iterator[str]:
    """A guide on loopback; gives its address. `add` adds further services to the server."""
    guide = Guide(name)
    handlers = {
        method: getattr(grpc, f"{_kind(method)}_rpc_method_handler")(
            getattr(guide, method.lower()), _classes[taken].FromString, _classes[given].SerializeToString
        )
        for method, (taken, given, *_) in METHODS.items()
    }
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        if add is not None:
            add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
