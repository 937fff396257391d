"""Describes upstream's messages as JSON. Runs in the drift environment, which has xds-protos and not meshlib.

Standard input: a JSON list of message names. Standard output: {name: {"fields": {field: facts}, "enums": {...}}}, null
for a message that upstream does not have.
"""

import importlib
import json
import pkgutil
import sys

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor

KINDS = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}


def load(package):
    """Imports every generated module of a protobuf package, so that the default pool has its messages."""
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError:
        return
    for module in pkgutil.iter_modules(found.__path__):
        if module.name.endswith("_pb2"):
            importlib.import_module(f"{package}.{module.name}")


def repeated(field):
    return (
        field.is_repeated if hasattr(field, "is_repeated") else field.label == FieldDescriptor.LABEL_REPEATED
    )


def type_of(field):
    """The name of a field's type: a scalar's kind, a message's or enum's full name, `map:` and the value's."""
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        key, value = (message.fields_by_name[part] for part in ("key", "value"))
        return "map:" + type_of(value) if type_of(key) == "string" else f"map from {type_of(key)}"
    named = message or field.enum_type
    return named.full_name if named is not None else KINDS[field.type]


def facts(field):
    oneof = field.containing_oneof
    return {
        "number": field.number,
        "type": type_of(field),
        "message": field.message_type is not None,
        "repeated": bool(repeated(field)),
        "oneof": oneof.name if oneof is not None else None,
    }


def values(enum):
    return {value.name: value.number for value in enum.values}


def describe(message):
    enums = {
        field.enum_type.full_name: values(field.enum_type) for field in message.fields if field.enum_type
    }
    for field in message.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            enum = field.message_type.fields_by_name["value"].enum_type
            if enum is not None:
                enums[enum.full_name] = values(enum)
    return {"fields": {field.name: facts(field) for field in message.fields}, "enums": enums}


def find(pool, name):
    try:
        return describe(pool.FindMessageTypeByName(name))
    except KeyError:
        return None


def main():
    names = json.load(sys.stdin)
    packages = {".".join(part for part in name.split(".") if part[0].islower()) for name in names}
    for package in sorted(packages):
        load(package)
    json.dump({name: find(descriptor_pool.Default(), name) for name in names}, sys.stdout)


if __name__ == "__main__":
    main()
