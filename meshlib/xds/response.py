"""A response of either protocol, sorted out: what is good, what is wrong and why, what the server does not have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from meshlib.model.status import Rejected
from meshlib.xds import schema
from meshlib.xds.cache import Knows
from meshlib.xds.decode import Decoded, ResourceType
from meshlib.xds.names import canonical
from meshlib.xds.schema import WireMessage

__all__ = ["Batch", "detail", "named", "sort", "sort_delta"]

_WRAPPER = "envoy.service.discovery.v3.Resource"
# A refusal names everything that is wrong, within what a server will want to log.
_MAX_DETAIL = 16 * 1024


@dataclass(slots=True)
class Batch:
    """By name: ``good`` (bytes, the decoding and the version), ``again`` (the same bytes as the cache has, and the version), ``bad`` (what is
    wrong), ``refused`` (bytes and version of those), ``closed`` (values of those among them that refuse what they cover), ``errors``
    (code and words of the server). ``unnamed``: what is wrong with resources whose name is unknown. ``removed``: names that are said to be gone,
    in delta. ``version``: of all of it.
    """

    version: str = ""
    good: dict[str, tuple[bytes, Decoded[Any], str]] = field(default_factory=dict)
    again: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    bad: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refused: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    closed: dict[str, object] = field(default_factory=dict)
    unnamed: list[tuple[str, ...]] = field(default_factory=list)
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    removed: tuple[str, ...] = ()

    @property
    def there(self) -> set[str]:
        """Whatever it has, good or bad."""
        return {*self.good, *self.again, *self.bad}


# (name, bytes, decoding, problems); the decoding is None where the bytes are those that are here already.
_Read = tuple[str, bytes, Decoded[Any] | None, tuple[str, ...]]


def sort(response: WireMessage, kind: ResourceType, cache: Knows) -> Batch:
    """Reads every resource of a DiscoveryResponse for `kind`; the cache tells which are known already. Never raises."""
    batch = Batch(str(response.version_info))
    again, version, url, short, known = batch.again, batch.version, kind.url, kind.short, cache.known
    others: list[tuple[int, _Read, str]] = []
    for index, outer in enumerate(response.resources):
        kind.give_way()
        # Most of what comes is here already, to the byte: of that the least is done.
        entry = known(short, outer.value) if outer.type_url == url else None
        if entry is not None and entry.name not in again:
            again[entry.name] = (entry.raw, version)
        else:
            others.append((index, _read(outer, kind, cache), version))
    _fill(batch, response, others)
    return batch


def sort_delta(response: WireMessage, kind: ResourceType, cache: Knows, names: frozenset[str]) -> Batch:
    """The same of a DeltaDiscoveryResponse; `names` are those that are wanted, which may be aliases. Never raises."""
    batch = Batch(str(response.system_version_info))
    removed = dict.fromkeys(
        map(_name, (*response.removed_resources, *(each.name for each in response.removed_resource_names)))
    )
    _fill(batch, response, _delta_resources(response, kind, cache, names), removed.keys())
    batch.removed = tuple(name for name in removed if name not in batch.bad)
    return batch


def _fill(
    batch: Batch,
    response: WireMessage,
    read: Iterable[tuple[int, _Read, str]],
    removed: Collection[str] = (),
) -> None:
    twice: dict[str, str] = {}
    for index, (name, raw, found, problems), version in read:
        if not name:
            texts = problems or ("the name is missing",)
            batch.unnamed.append(tuple(f"resources[{index}]: {text}" for text in texts))
        elif name in removed:
            twice[name] = "is among the removed resources, too"
        elif name in batch.again or name in batch.good or name in batch.bad:
            twice[name] = "is in the response more than once"
        elif problems:
            batch.bad[name] = problems
            batch.refused[name] = (raw, version)
            if found is not None and found.closed is not None:
                batch.closed[name] = named(found, found.closed, name)
        elif found is None:
            batch.again[name] = (raw, version)
        else:
            batch.good[name] = (raw, found, version)
    for name in sorted(twice):  # DV-10, DL-07: none of them is applied
        fine = batch.good.pop(name, None) or batch.again.pop(name, None)
        if fine is not None:
            batch.refused[name] = (fine[0], fine[-1])
        batch.closed.pop(name, None)
        batch.bad[name] = (*batch.bad.get(name, ()), twice[name])
    _sort_errors(response, batch)


def _delta_resources(
    response: WireMessage, kind: ResourceType, cache: Knows, names: frozenset[str]
) -> Iterator[tuple[int, _Read, str]]:
    for index, outer in enumerate(response.resources):
        name = _name(outer.name or outer.resource_name.name)
        if not outer.HasField("resource"):
            if not outer.aliases:  # DL-11: with them it is an alias that leads nowhere yet
                yield index, (name, b"", None, ("the resource is missing",)), ""
            continue
        kind.give_way()
        read = _open(name, outer.resource, kind, cache)
        yield index, read, str(outer.version)
        for alias in names.intersection(map(_name, outer.aliases)) - {read[0]}:
            _, raw, found, problems = read
            yield index, (alias, raw, found or _decode(kind, raw), problems), str(outer.version)


def _sort_errors(response: WireMessage, batch: Batch) -> None:
    for index, item in enumerate(response.resource_errors):
        name = _name(item.resource_name.name)
        if not name or not item.error_detail.code:
            text = "must have the name of a resource and a code other than OK"
            batch.unnamed.append((f"resource_errors[{index}]: {text}",))
        else:
            batch.errors[name] = (int(item.error_detail.code), str(item.error_detail.message)[:1000])


def _read(outer: WireMessage, kind: ResourceType, cache: Knows) -> _Read:
    if outer.type_url != schema.type_url(_WRAPPER):
        return _open("", outer, kind, cache)
    raw = bytes(outer.value)  # SW-10
    try:
        wrapper = schema.message(_WRAPPER).FromString(raw)
    except (schema.DecodeError, RecursionError, TypeError, ValueError) as error:
        return "", raw, None, (f"is no Resource: {error}",)
    if not wrapper.HasField("resource"):
        return _name(wrapper.name), b"", None, ("the wrapped resource is missing",)
    return _open(_name(wrapper.name), wrapper.resource, kind, cache)


def _open(name: str, resource: WireMessage, kind: ResourceType, cache: Knows) -> _Read:
    url, raw = str(resource.type_url), bytes(resource.value)
    if url != kind.url:  # SW-09, DL-14
        return name, raw, None, (f"is of type {url[:200]!r}, not {kind.url!r}",)
    known = cache.known(kind.short, raw)
    if known is not None and name in ("", known.name):
        return known.name, known.raw, None, ()
    found = _decode(kind, raw)
    return name or canonical(found.name), raw, found, found.problems


def _name(text: object) -> str:
    return canonical(str(text))


def _decode(kind: ResourceType, raw: bytes) -> Decoded[Any]:
    """ER-11: what goes wrong in a decoder is the resource's problem, and not the stream's."""
    try:
        return kind.decode(raw)
    except Exception as error:  # noqa: BLE001 - see above
        return Decoded("", None, (f"could not be decoded: {type(error).__name__}: {error}",))


def named(found: Decoded[Any], value: Any, name: str, version: str = "") -> object:
    """The value with its version, under the name by which it is known: a wrapper's wins over its own (SW-10)."""
    if found.name == name and not version:
        return value
    return replace(value, name=name, version=version)


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
