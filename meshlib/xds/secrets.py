"""What of a resource may lie on a disk: everything that meshlib reads, unless a secret is among it. Pure.

Theory. A resource is written whole or not at all: one without its key would mean something else. What nobody here reads is
not written in any case: unknown fields, what is inside fields whose inside the schema does not know, and the insides of
extensions that it does not have. So only what it has is to be looked at:

    a resource with                                                               is
    ----------------------------------------------------------------------------  -----------
    the type Secret, whatever is in it                                            not written
    a certificate's private key (in its chain, too), PKCS #12 or password given   not written
    inline, or a provider of keys
    a header, or a metadata entry, of a credential's name with a value            not written
    a match on the value of such a header                                         not written
    a key by file name or environment variable, a CA, a certificate               written
    a header whose value is all placeholders (``%REQ(authorization)%``)           written

A credential has a name of `model.hidden.NAME`. That is searched for in the bytes first: most resources have none, and their metadata
need not be walked then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor

from meshlib.model.hidden import NAME
from meshlib.xds import schema
from meshlib.xds.schema import WireMessage

__all__ = ["presentable", "without_credentials"]

_NAME_IN_BYTES = re.compile(NAME.pattern.encode(), re.IGNORECASE)
_PLACEHOLDERS = re.compile(r"(?:%[^%]*%\s*)*")
# An Any in an Any, and so on, deeper than anything that is meant so.
_MOST_NESTED = 32

_ANY = "google.protobuf.Any"
_STRUCT = "google.protobuf.Struct"
_CERTIFICATE = "envoy.extensions.transport_sockets.tls.v3.TlsCertificate"
_SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"
_HEADER = "envoy.config.core.v3.HeaderValue"
_MATCHER = "envoy.config.route.v3.HeaderMatcher"
# Where there can be something to find or to leave out: always, and only where the bytes have a credential's name.
_ALWAYS = frozenset({_ANY, _CERTIFICATE, _SECRET})
_NAMED = frozenset({_STRUCT, _HEADER, _MATCHER})


class _Found(Exception):
    """A secret; ``path`` grows while it leaves the walk, the innermost step first."""

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []


def presentable(short: str, raw: bytes, give_way: Callable[[], object] = bool) -> tuple[bytes, str]:
    """The bytes to write for a resource of that type, and "": `raw` itself where nothing was left out. Or no bytes, and
    the path of what forbids it. `give_way` is called at each element of a list. Never raises.
    """
    try:
        message = schema.message(schema.type_name(schema.TYPE_URLS[short])).FromString(raw)
        message.DiscardUnknownFields()
        walk = _Walk(_ALWAYS | _NAMED if _NAME_IN_BYTES.search(raw) else _ALWAYS, give_way)
        walk.into(message, 0)
        made = message.SerializeToString(deterministic=True)
    except _Found as found:
        return b"", "".join(reversed(found.path)).lstrip(".") or short
    except (schema.DecodeError, RecursionError, KeyError, TypeError, ValueError) as error:
        return b"", f"it cannot be looked into: {type(error).__name__}"
    return (raw if made == raw else made), ""


def without_credentials(struct: WireMessage) -> None:
    """Takes out of a Struct, at every depth, what has a credential's name and a value."""
    for key, value in list(struct.fields.items()):
        if NAME.search(key) and _has_value(value):
            del struct.fields[key]
        elif value.WhichOneof("kind") == "struct_value":
            without_credentials(value.struct_value)
        elif value.WhichOneof("kind") == "list_value":
            for item in value.list_value.values:
                if item.WhichOneof("kind") == "struct_value":
                    without_credentials(item.struct_value)


class _Walk:
    """Through one message, down to where the types of `goals` can be."""

    __slots__ = ("_give_way", "_goals")

    def __init__(self, goals: frozenset[str], give_way: Callable[[], object]) -> None:
        self._goals = goals
        self._give_way = give_way

    def into(self, message: WireMessage, depth: int) -> None:
        name = schema.full_name(message)
        if name == _ANY:
            self._any(message, depth)
            return
        rule = _RULES.get(name) if name in self._goals else None
        if rule is not None and rule(message):
            raise _Found
        for field, kind in _ways(message.DESCRIPTOR, self._goals):
            if kind == "one":
                if message.HasField(field):
                    self._step(getattr(message, field), f".{field}", depth)
                continue
            held = getattr(message, field)
            items: Iterable[tuple[object, Any]] = enumerate(held) if kind == "list" else list(held.items())
            for key, item in items:
                self._give_way()
                self._step(item, f".{field}[{str(key)[:100]}]", depth)

    def _step(self, message: WireMessage, label: str, depth: int) -> None:
        try:
            self.into(message, depth)
        except _Found as found:
            found.path.append(label)
            raise

    def _any(self, outer: WireMessage, depth: int) -> None:
        """What is in it stays if it is known, looked through like the rest."""
        if depth >= _MOST_NESTED:
            raise _Found
        try:
            inner = schema.unpack(outer)
        except (schema.DecodeError, KeyError, ValueError):
            outer.value = b""
            return
        inner.DiscardUnknownFields()
        self.into(inner, depth + 1)
        outer.value = inner.SerializeToString(deterministic=True)


@cache
def _ways(of: Descriptor, goals: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """The fields by which a message of `goals` may be reached, each with what it is: "one", "list", "map"."""
    found = []
    for field in of.fields:
        kind = field.message_type
        if kind is None:
            continue
        is_map = kind.GetOptions().map_entry
        inner = kind.fields_by_name["value"].message_type if is_map else kind
        if inner is not None and _reached(inner) & goals:
            found.append((field.name, "map" if is_map else "list" if schema.is_repeated(field) else "one"))
    return tuple(found)


@cache
def _reached(of: Descriptor) -> frozenset[str]:
    """The names of all messages that can be in one, its own included."""
    seen = {of.full_name: of}
    to_do = [of]
    while to_do:
        for field in to_do.pop().fields:
            kind = field.message_type
            if kind is not None and kind.full_name not in seen:
                seen[kind.full_name] = kind
                to_do.append(kind)
    return frozenset(map(schema.full_name, seen.values()))


# --- what is a secret


def _certificate(message: WireMessage) -> bool:
    given = (getattr(message, field) for field in ("private_key", "pkcs12", "password"))
    inline = any(source.WhichOneof("specifier") in ("inline_bytes", "inline_string") for source in given)
    chain = message.certificate_chain
    with_key = b"PRIVATE KEY" in chain.inline_bytes or "PRIVATE KEY" in chain.inline_string
    return inline or with_key or bool(message.HasField("private_key_provider"))


def _header(message: WireMessage) -> bool:
    if not NAME.search(message.key):
        return False
    return bool(message.raw_value) or not _PLACEHOLDERS.fullmatch(message.value)


def _matcher(message: WireMessage) -> bool:
    by_value = message.WhichOneof("header_match_specifier") not in (None, "present_match", "range_match")
    # What a cookie is looked for by is a word in it.
    return bool(NAME.search(message.name)) and by_value and message.name.lower() != "cookie"


def _struct(message: WireMessage) -> bool:
    """What has further entries is walked by itself; but not where they only say that this one's value stands here."""
    return any(NAME.search(key) and _has_value(value) for key, value in message.fields.items())


def _has_value(value: WireMessage) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return any(key.startswith("inline") for key in value.struct_value.fields)
    if kind == "list_value":
        return any(map(_has_value, value.list_value.values))
    return bool(value.string_value) or kind == "number_value"


_RULES: dict[str, Callable[[WireMessage], bool]] = {
    _CERTIFICATE: _certificate,
    _SECRET: lambda _: True,
    _HEADER: _header,
    _MATCHER: _matcher,
    _STRUCT: _struct,
}
