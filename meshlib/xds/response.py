"""A DiscoveryResponse, sorted out: what is good, what is wrong and why, what the server says it does not have."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from meshlib.model.status import Rejected
from meshlib.xds import schema
from meshlib.xds.cache import Cache
from meshlib.xds.decode import Decoded, ResourceType
from meshlib.xds.schema import WireMessage

__all__ = ["Batch", "detail", "named", "sort"]

_WRAPPER = "envoy.service.discovery.v3.Resource"
# A refusal names everything that is wrong, within what a server will want to log.
_MAX_DETAIL = 16 * 1024


@dataclass(slots=True)
class Batch:
    """By name: ``good`` (bytes, and the decoding, or None where the bytes are in the cache already), ``bad`` (what is
    wrong), ``closed`` (values of those among them that refuse what they cover), ``errors`` (code and words of the
    server). ``unnamed``: what is wrong with resources whose name is unknown.
    """

    good: dict[str, tuple[bytes, Decoded[Any] | None]] = field(default_factory=dict)
    bad: dict[str, tuple[str, ...]] = field(default_factory=dict)
    closed: dict[str, object] = field(default_factory=dict)
    unnamed: list[tuple[str, ...]] = field(default_factory=list)
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)


def sort(response: WireMessage, kind: ResourceType, cache: Cache) -> Batch:
    """Reads every resource of a response for `kind`; the cache tells which are known already. Never raises."""
    batch = Batch()
    twice: set[str] = set()
    for index, outer in enumerate(response.resources):
        name, raw, found, problems = _read(outer, kind, cache)
        if not name:
            problems = problems or ("the name is missing",)
            batch.unnamed.append(tuple(f"resources[{index}]: {text}" for text in problems))
        elif name in batch.good or name in batch.bad:
            twice.add(name)
        elif problems:
            batch.bad[name] = problems
            if found is not None and found.closed is not None:
                batch.closed[name] = named(found, found.closed, name)
        else:
            batch.good[name] = (raw, found)
    for name in sorted(twice):  # DV-10: none of them is applied
        batch.good.pop(name, None)
        batch.closed.pop(name, None)
        batch.bad[name] = (*batch.bad.get(name, ()), "is in the response more than once")
    _sort_errors(response, batch)
    return batch


def _sort_errors(response: WireMessage, batch: Batch) -> None:
    for index, item in enumerate(response.resource_errors):
        name = str(item.resource_name.name)
        if not name or not item.error_detail.code:
            text = "must have the name of a resource and a code other than OK"
            batch.unnamed.append((f"resource_errors[{index}]: {text}",))
        else:
            batch.errors[name] = (int(item.error_detail.code), str(item.error_detail.message)[:1000])


def _read(
    outer: WireMessage, kind: ResourceType, cache: Cache
) -> tuple[str, bytes, Decoded[Any] | None, tuple[str, ...]]:
    """(name, bytes, decoding, problems); the decoding is None where the bytes are those that are here already."""
    name, url, raw = "", str(outer.type_url), bytes(outer.value)
    if url == schema.type_url(_WRAPPER):  # SW-10
        try:
            wrapper = schema.message(_WRAPPER).FromString(raw)
        except (schema.DecodeError, RecursionError, TypeError, ValueError) as error:
            return "", raw, None, (f"is no Resource: {error}",)
        name, url, raw = str(wrapper.name), str(wrapper.resource.type_url), bytes(wrapper.resource.value)
        if not wrapper.HasField("resource"):
            return name, raw, None, ("the wrapped resource is missing",)
    if url != kind.url:  # SW-09
        return name, raw, None, (f"is of type {url[:200]!r}, not {kind.url!r}",)
    known = cache.known(kind.short, raw)
    if known is not None and name in ("", known.name):
        return known.name, raw, None, ()
    found = _decode(kind, raw)
    return name or found.name, raw, found, found.problems


def _decode(kind: ResourceType, raw: bytes) -> Decoded[Any]:
    """ER-11: what goes wrong in a decoder is the resource's problem, and not the stream's."""
    try:
        return kind.decode(raw)
    except Exception as error:  # noqa: BLE001 - see above
        return Decoded("", None, (f"could not be decoded: {type(error).__name__}: {error}",))


def named(found: Decoded[Any], value: Any, name: str) -> object:
    """The value under the name by which it is known: a wrapper's wins over its own (SW-10)."""
    return value if found.name == name else replace(value, name=name)


def detail(rejected: tuple[Rejected, ...]) -> str:
    """SW-06: every resource that is wrong, with everything that is wrong with it."""
    lines = [
        f"{item.type} {item.resource!r}: {'; '.join(item.problems)}"
        if item.resource
        else f"{item.type}: {'; '.join(item.problems)}"
        for item in rejected
    ]
    text = "\n".join(lines)
    return text if len(text) <= _MAX_DETAIL else f"{text[:_MAX_DETAIL]}… ({len(rejected)} resources in all)"
