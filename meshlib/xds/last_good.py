"""The last good state as bytes: what a control plane's resources look like in a file, and back. Pure.

A file is

    magic     the line "meshlib last good state 1": the format, in its version
    digest    32 bytes, the SHA-256 of all that follows
    length    4 bytes, big-endian: of the header
    header    JSON: when it was written, for which node, from which server; of each view its targets and types
    sections  each a DiscoveryResponse, as many and as long as the header says

The resources are those that the server sent, as `secrets.presentable` leaves them, in the message in which servers send
them; so they are read by the decoders that read a server's, within the same limits. A digest is against accidents: whoever
may write the file may also write a digest, so nothing here trusts one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshlib.model.status import Rejected
from meshlib.xds import schema
from meshlib.xds.cache import Holds
from meshlib.xds.decode import ResourceType
from meshlib.xds.response import Batch, named, sort

__all__ = ["MOST", "Contents", "Held", "Kept", "Unreadable", "decode", "encode", "restore"]

#: Bytes of a file at most: some ten times what 1,000 clusters with 100 endpoints each need.
MOST = 128 * 2**20
_FORMAT = b"meshlib last good state "
_MAGIC = _FORMAT + b"1\n"
_DIGEST = 32
_LENGTH = 4
_MOST_HEADER = 8 * 2**20
# Bytes of resources in a section: parsing one holds the interpreter for about a millisecond.
_SECTION = 256 * 2**10

_RESPONSE = "envoy.service.discovery.v3.DiscoveryResponse"
_RESOURCE = "envoy.service.discovery.v3.Resource"
# What the decoder of a header may raise; RecursionError for one that is nested too deep.
_WRONG = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)


class Unreadable(ValueError):
    """Why a file is not one of ours, or not as it was written."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One resource, by its type's short name."""

    short: str
    name: str
    version: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """What one view holds. ``targets``: the names that were wanted, each with its authority. ``listed``: types of which
    this is all that there is; ``versions``: of each type.
    """

    targets: Mapping[str, str] = field(default_factory=dict)
    listed: frozenset[str] = frozenset()
    versions: Mapping[str, str] = field(default_factory=dict)
    resources: tuple[Kept, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A file that was read. ``written``: seconds since the epoch. ``views``: ``contents`` without resources; ``sections`` have
    those: the view, the type's short name, the response's bytes.
    """

    node: str
    server: str
    written: float
    views: Mapping[str, Contents]
    sections: tuple[tuple[str, str, bytes], ...]


def encode(node: str, server: str, written: float, views: Mapping[str, Contents]) -> list[bytes]:
    """The file, in pieces; what a view's resources are must be presentable. Raises ValueError where it is too large."""
    sections = [
        (view, short, made)
        for view, contents in views.items()
        for short in schema.SHORT_NAMES.values()
        for made in _sections(short, contents)
    ]
    header = {
        "node": node,
        "server": server,
        "written": written,
        "views": {
            view: {
                "targets": dict(contents.targets),
                "listed": sorted(contents.listed),
                "versions": dict(contents.versions),
            }
            for view, contents in views.items()
        },
        "sections": [[view, short, len(made)] for view, short, made in sections],
    }
    head = json.dumps(header).encode()
    pieces = [len(head).to_bytes(_LENGTH, "big"), head, *(made for _, _, made in sections)]
    size = len(_MAGIC) + _DIGEST + sum(map(len, pieces))
    if size > MOST or len(head) > _MOST_HEADER:
        raise ValueError(f"it would have {size} bytes; the most are {MOST}")
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return [_MAGIC, digest.digest(), *pieces]


def _sections(short: str, contents: Contents) -> Iterator[bytes]:
    """Responses, one after the other. Messages written one behind the other are one message with all their elements."""
    head = schema.message(_RESPONSE)(
        type_url=schema.TYPE_URLS[short], version_info=contents.versions.get(short, "")
    ).SerializeToString()
    pieces: list[bytes] = []
    size = 0
    for kept in contents.resources:
        if kept.short != short:
            continue
        piece = _element(kept)
        if pieces and size + len(piece) > _SECTION:
            yield b"".join((head, *pieces))
            pieces, size = [], 0
        pieces.append(piece)
        size += len(piece)
    if pieces:
        yield b"".join((head, *pieces))


def _element(kept: Kept) -> bytes:
    inner = schema.message("google.protobuf.Any")(type_url=schema.TYPE_URLS[kept.short], value=kept.raw)
    outer = schema.message(_RESOURCE)(name=kept.name, version=kept.version, resource=inner)
    return schema.message(_RESPONSE)(resources=[schema.pack(outer)]).SerializeToString()


def decode(raw: bytes) -> Held:
    """What a file says; its sections are not looked into. Raises Unreadable."""
    if not raw.startswith(_MAGIC):
        if raw.startswith(_FORMAT) and b"\n" in raw[:64]:
            version = raw[len(_FORMAT) : 64].partition(b"\n")[0].decode("ascii", "replace")
            raise Unreadable(f"it has the format {version[:20]!r}, and this version reads 1")
        raise Unreadable("it is no file of a last good state")
    body = memoryview(raw)[len(_MAGIC) + _DIGEST :]
    if len(raw) > MOST:
        raise Unreadable(f"it has more than {MOST} bytes")
    if hashlib.sha256(body).digest() != raw[len(_MAGIC) : len(_MAGIC) + _DIGEST]:
        raise Unreadable("it is damaged: its checksum is wrong")
    try:
        return _held(body)
    except _WRONG as error:
        raise Unreadable(f"its header is wrong: {type(error).__name__}: {str(error)[:200]}") from None


def _held(body: memoryview) -> Held:
    size = int.from_bytes(body[:_LENGTH], "big")
    if size > min(_MOST_HEADER, len(body)):
        raise ValueError(f"{size} bytes")
    header = json.loads(bytes(body[_LENGTH : _LENGTH + size]))
    views = {_text(view): _contents(given) for view, given in header["views"].items()}
    sections = []
    at = _LENGTH + size
    for view, short, length in header["sections"]:
        if view not in views or short not in schema.TYPE_URLS or type(length) is not int or length < 0:
            raise ValueError("a section is wrong")
        sections.append((view, short, bytes(body[at : at + length])))
        at += length
    if at != len(body):
        raise ValueError("its sections are not as long as it says")
    written = header["written"]
    if type(written) is not float:
        raise TypeError("written")
    return Held(_text(header["node"]), _text(header["server"]), written, views, tuple(sections))


def _contents(given: Any) -> Contents:
    return Contents(
        {_text(name): _text(authority) for name, authority in given["targets"].items()},
        frozenset(map(_text, given["listed"])) & schema.TYPE_URLS.keys(),
        {_text(short): _text(version) for short, version in given["versions"].items()},
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, not {type(value).__name__}")
    return value


def restore(
    held: Held,
    view: str,
    cache: Holds,
    types: Iterable[ResourceType],
    give_way: Callable[[], object] = bool,
) -> tuple[dict[str, set[str]], list[Rejected]]:
    """Puts what a file holds of a view into the cache, until the server says what it has: the names by type, and what of
    it the decoders refuse. Never raises.
    """
    found: dict[str, set[str]] = {}
    refused: list[Rejected] = []
    by_short = {kind.short: kind for kind in types}
    for of, short, raw in held.sections:
        kind = by_short.get(short)
        if of != view or kind is None:
            continue
        give_way()
        try:
            response = schema.message(_RESPONSE).FromString(raw)
            batch, versions = sort(response, kind, cache), _versions(response)
        except (schema.DecodeError, RecursionError, TypeError, ValueError) as error:
            refused.append(Rejected("", short, (f"a section is no DiscoveryResponse: {error}",)))
            continue
        refused.extend(Rejected("", short, problems) for problems in batch.unnamed)
        refused.extend(Rejected(name, short, problems) for name, problems in batch.bad.items())
        found.setdefault(short, set()).update(_hold(batch, short, cache, versions))
    refused_types = {item.type for item in refused}
    cache.listed |= (
        (held.views[view].listed & by_short.keys()) - refused_types if view in held.views else set()
    )
    return found, refused


def _versions(response: schema.WireMessage) -> dict[str, str]:
    """Of each resource its own, which `sort` does not read: it is the response's in state of the world."""
    url = schema.type_url(_RESOURCE)
    wrappers = (schema.unpack(outer) for outer in response.resources if outer.type_url == url)
    return {str(wrapper.name): str(wrapper.version) for wrapper in wrappers}


def _hold(batch: Batch, short: str, cache: Holds, versions: Mapping[str, str]) -> Iterator[str]:
    for name, (raw, found, _) in batch.good.items():
        if found.value is not None:
            value = named(found, found.value, name, versions.get(name, ""))
            cache.hold(short, name, value, raw=raw, ignored=found.ignored)
            yield name
