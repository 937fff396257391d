"""What an endpoint says of its own load with an answer (ORCA): read from the answer's metadata, by gRPC's form and by Envoy's. Pure.

    endpoint-load-metrics-bin  a serialized ``xds.data.orca.v3.OrcaLoadReport``; base64 where headers are text
    endpoint-load-metrics      "TEXT cpu_utilization=0.3,named_metrics.q=7", "JSON {…}" or "BIN …" with the same in base64 (Envoy's)

grpc's core reads the first for its own balancers and shows it to nobody (`kPublishToApp` is false): of a gRPC call there is the second.

What is none of these is no report: it costs the answer nothing. Numbers that are not finite, or negative where they cannot be, are
left out, and names beyond what anybody reports.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from meshlib.core.loads import Metrics
from meshlib.xds import schema

if TYPE_CHECKING:
    from meshlib.model.headers import Headers

__all__ = ["BINARY", "TEXT", "of_bytes", "of_headers", "of_message", "of_metadata"]

BINARY = "endpoint-load-metrics-bin"
TEXT = "endpoint-load-metrics"
#: Bytes of a report; a head has no more than that of all.
_LONGEST = 65_536
#: Names of one kind in a report.
_MOST_NAMES = 200
#: Characters of a name.
_LONGEST_NAME = 256

_NUMBERS = ("cpu_utilization", "mem_utilization", "application_utilization", "eps")
_MAPS = ("named_metrics", "utilization", "request_cost")


def of_headers(headers: Headers) -> Metrics | None:
    """The report in the head of an HTTP response."""
    packed = headers.get(BINARY)
    if packed is not None:
        return _of_base64(packed)
    text = headers.get(TEXT)
    return None if text is None else _of_form(text)


def of_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Metrics | None:
    """The report in the trailing metadata of an RPC."""
    for key, value in metadata:
        if key == BINARY and isinstance(value, bytes):
            return of_bytes(value)
        if key == TEXT and isinstance(value, str):
            return _of_form(value)
    return None


def _of_form(text: str) -> Metrics | None:
    if len(text) > _LONGEST:
        return None
    form, _, rest = text.strip().partition(" ")
    reader = _FORMS.get(form)
    return reader(rest) if reader is not None else None


def of_bytes(raw: bytes) -> Metrics | None:
    """A serialized OrcaLoadReport."""
    if len(raw) > _LONGEST:
        return None
    try:
        found = schema.message("xds.data.orca.v3.OrcaLoadReport").FromString(raw)
    except schema.DecodeError:
        return None
    return of_message(found)


def of_message(report: schema.WireMessage) -> Metrics:
    """An OrcaLoadReport."""
    numbers = [(name, float(getattr(report, name))) for name in _NUMBERS]
    numbers.append(("rps_fractional", float(report.rps_fractional or report.rps)))
    maps = {name: list(getattr(report, name).items()) for name in _MAPS}
    return _made(numbers, maps)


def _of_base64(text: str) -> Metrics | None:
    text = text.strip()
    if len(text) > 2 * _LONGEST:
        return None
    try:
        # gRPC leaves the padding out; whoever joins lines of one header with commas has sent two reports.
        raw = base64.b64decode(text.partition(",")[0] + "==", validate=False)
    except (binascii.Error, ValueError):
        return None
    return of_bytes(raw)


def _of_text(text: str) -> Metrics | None:
    return _of_pairs(pair.partition("=")[::2] for pair in text.split(",", _MOST_NAMES) if "=" in pair)


def _of_json(text: str) -> Metrics | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    pairs: list[tuple[str, object]] = []
    for given, value in found.items():
        # protobuf's JSON has camelCase
        name = "".join(f"_{char.lower()}" if char.isupper() else char for char in given)
        if isinstance(value, dict):
            pairs += [(f"{name}.{key}", each) for key, each in value.items()]
        else:
            pairs.append((name, value))
    return _of_pairs(pairs)


def _of_pairs(pairs: Iterable[tuple[str, object]]) -> Metrics | None:
    """``name`` or ``map.name`` and its number, as text or not; None where there is none at all."""
    numbers: list[tuple[str, float]] = []
    maps: dict[str, list[tuple[str, float]]] = {}
    for written, given in pairs:
        name = written.strip()
        try:
            value = float(given)  # type: ignore[arg-type]  # whatever JSON has
        except (TypeError, ValueError, OverflowError):
            continue
        kind, dot, key = name.partition(".")
        if dot and kind in _MAPS:
            maps.setdefault(kind, []).append((key, value))
        elif name in _NUMBERS or name in ("rps", "rps_fractional"):
            numbers.append((name, value))
    return _made(numbers, maps) if numbers or maps else None


def _made(numbers: Iterable[tuple[str, float]], maps: Mapping[str, Iterable[tuple[str, float]]]) -> Metrics:
    found = {name: value for name, value in numbers if math.isfinite(value) and value >= 0}
    held = {name: _kept(pairs) for name, pairs in maps.items()}
    return Metrics(
        found.get("cpu_utilization"),
        found.get("mem_utilization"),
        found.get("application_utilization"),
        found.get("rps_fractional", found.get("rps")),
        found.get("eps"),
        held.get("named_metrics", {}),
        held.get("utilization", {}),
        held.get("request_cost", {}),
    )


def _kept(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    kept: dict[str, float] = {}
    for name, value in pairs:
        if len(kept) == _MOST_NAMES:
            break
        if name and len(name) <= _LONGEST_NAME and math.isfinite(value):
            kept[name] = value
    return kept


_FORMS: Mapping[str, Callable[[str], Metrics | None]] = {
    "TEXT": _of_text,
    "JSON": _of_json,
    "BIN": _of_base64,
}
