"""What a cluster says of HTTP/1.1 and HTTP/2 themselves: how requests are spelled, settings, PINGs."""

from __future__ import annotations

from typing import NamedTuple

from meshlib.model.cluster import Pings
from meshlib.xds.decode.guards import filter_type
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.values import number, percent, seconds, unpacked
from meshlib.xds.schema import WireMessage

__all__ = ["Spoken", "spoken_http1", "spoken_http2"]

_PRESERVE = "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"
#: Of settings (RFC 9113, 6.5.2 and RFC 8441): those whose fields of their own mean nothing here, and those that our connections live by.
_PUSH, _LISTED, _OURS = 2, frozenset({1, 3, 4, 8}), frozenset({2, 5, 6})
_MOST_SETTINGS = 64
_MOST_IDENTIFIER = 2**16 - 1
_LEAST = 0.001
#: Envoy's bound.
_MOST_STREAMS = 2**31 - 1


class Spoken(NamedTuple):
    """See the fields of :class:`meshlib.model.cluster.Connecting` that are called so."""

    streams: int | None = None
    settings: tuple[tuple[int, int], ...] = ()
    pings: Pings | None = None
    proper_case: bool = False
    whole_urls: bool = False


def spoken_http1(owner: WireMessage, path: str, report: Report) -> Spoken:
    """Of ``owner.http_protocol_options``."""
    held, path = owner.http_protocol_options, join(path, "http_protocol_options")
    proper = False
    if held.HasField("header_key_format"):
        proper = _proper_case(held.header_key_format, join(path, "header_key_format"), report)
    return Spoken(proper_case=proper, whole_urls=bool(held.send_fully_qualified_url))


def _proper_case(held: WireMessage, path: str, report: Report) -> bool:
    which = held.WhichOneof("header_format")
    if which is None:
        report.problem(path, "one of proper_case_words, stateful_formatter must be set")
    if which != "stateful_formatter":
        return bool(which == "proper_case_words")
    outer, path = held.stateful_formatter.typed_config, join(path, which)
    kind = filter_type(outer)
    if kind != _PRESERVE:
        report.ignore(path, kind[:100] or "a type that cannot be read")
        return False
    inner = unpacked(outer, join(path, "typed_config"), report, _PRESERVE)
    if inner is not None:  # names are as the application spells them
        walk(inner, join(path, "typed_config"), report)
    return False


def spoken_http2(owner: WireMessage, path: str, report: Report) -> Spoken:
    """Of ``owner.http2_protocol_options``."""
    held, path = owner.http2_protocol_options, join(path, "http2_protocol_options")
    most = number(held, "max_concurrent_streams")
    if most is not None and not 1 <= most <= _MOST_STREAMS:
        report.problem(join(path, "max_concurrent_streams"), f"must be 1 to {_MOST_STREAMS}, not {most}")
    pings = None
    if held.HasField("connection_keepalive"):
        pings = _pings(held.connection_keepalive, join(path, "connection_keepalive"), report)
    return Spoken(most, _settings(held, path, report), pings)


def _settings(held: WireMessage, path: str, report: Report) -> tuple[tuple[int, int], ...]:
    found: dict[int, int] = {}
    for index, item in enumerate(held.custom_settings_parameters):
        here = f"{join(path, 'custom_settings_parameters')}[{index}]"
        for field in ("identifier", "value"):
            if not item.HasField(field):
                report.problem(join(here, field), "must be set")
        identifier, value = item.identifier.value, item.value.value
        if identifier > _MOST_IDENTIFIER:
            report.problem(join(here, "identifier"), f"must be at most {_MOST_IDENTIFIER}")
        elif found.setdefault(identifier, value) != value:
            report.problem(here, f"{identifier} has another value before")
        elif identifier == _PUSH and value:
            report.problem(here, "pushes are not taken")
        elif (identifier in _OURS and (identifier, value) != (_PUSH, 0)) or index >= _MOST_SETTINGS:
            report.ignore(here, f"{identifier}: {value}")
    sent = found.keys() - _OURS - _LISTED
    return tuple((identifier, found[identifier]) for identifier in sorted(sent)[:_MOST_SETTINGS])


def _pings(held: WireMessage, path: str, report: Report) -> Pings | None:
    found = {
        field: seconds(held, field, path, report)
        for field in ("interval", "timeout", "connection_idle_interval")
    }
    for field, value in found.items():
        if value is not None and value < _LEAST:
            report.problem(join(path, field), f"must be at least {_LEAST} s")
    timeout, jitter = found["timeout"], percent(held, "interval_jitter", path, report)
    if timeout is None:
        report.problem(join(path, "timeout"), "must be set")
        return None
    if found["interval"] is None and found["connection_idle_interval"] is None:
        return None
    share = 0.15 if jitter is None else jitter / 100.0
    return Pings(timeout, found["interval"], share, found["connection_idle_interval"])
