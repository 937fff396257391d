"""How the connections of a cluster are made: from which address, with which options of their sockets.

Options are numbers of Linux, and a control plane may send any. Those are taken that do no more than shape a connection of this
process; what could lead it past a firewall, into another routing table or name space is reported.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.model.cluster import Connecting, Eyeballs, Keepalive
from meshlib.xds.decode.address import numeric
from meshlib.xds.decode.guards import filter_type
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.values import number
from meshlib.xds.schema import WireMessage, message

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ahead", "connecting"]

_SOCKET, _IP, _TCP, _IPV6 = 1, 0, 6, 41
_FREEBIND, _FREEBIND6 = 15, 78
_SELECTOR = "envoy.config.upstream.local_address_selector.v3.DefaultLocalAddressSelector"
#: ``setsockopt`` of Linux: level, and the names that are taken there.
_TAKEN = {
    _SOCKET: frozenset({7, 8, 9, 12}),  # SO_SNDBUF, SO_RCVBUF, SO_KEEPALIVE, SO_PRIORITY
    _IP: frozenset({1, 24}),  # IP_TOS, IP_BIND_ADDRESS_NO_PORT
    _TCP: frozenset({1, 4, 5, 6, 12, 18}),  # NODELAY, KEEPIDLE, KEEPINTVL, KEEPCNT, QUICKACK, USER_TIMEOUT
    _IPV6: frozenset({67}),  # IPV6_TCLASS
}
_INTEGER = (-(2**31), 2**31 - 1)
#: What Linux takes for TCP_KEEPCNT, and for TCP_KEEPIDLE and TCP_KEEPINTVL in seconds.
_MOST_PROBES, _MOST_SECONDS = 127, 32767
#: Envoy's bound.
_MOST_AHEAD = 3.0
#: ``UpstreamConnectionOptions.FirstAddressFamilyVersion``.
_FAMILIES = {0: "", 1: "v4", 2: "v6"}

_Options = tuple[tuple[int, int, int], ...]


def connecting(cluster: WireMessage, path: str, report: Report) -> Connecting:
    """`upstream_bind_config` and `upstream_connection_options`."""
    made = Connecting()
    if cluster.HasField("upstream_bind_config"):
        made = _bound(cluster.upstream_bind_config, join(path, "upstream_bind_config"), report)
    if cluster.upstream_connection_options.HasField("tcp_keepalive"):
        here = join(path, "upstream_connection_options.tcp_keepalive")
        held = cluster.upstream_connection_options.tcp_keepalive
        made = replace(made, keepalive=_keepalive(held, here, report))
    if cluster.upstream_connection_options.HasField("happy_eyeballs_config"):
        here = join(path, "upstream_connection_options.happy_eyeballs_config")
        held = cluster.upstream_connection_options.happy_eyeballs_config
        made = replace(made, eyeballs=_eyeballs(held, here, report))
    return made


def ahead(cluster: WireMessage, path: str, report: Report) -> float:
    """Of `preconnect_policy` how many connections to its endpoint are made for each request."""
    held, path = cluster.preconnect_policy, join(path, "preconnect_policy")
    for field in ("per_upstream_preconnect_ratio", "predictive_preconnect_ratio"):
        value = getattr(held, field).value
        if held.HasField(field) and not 1.0 <= value <= _MOST_AHEAD:
            report.problem(join(path, field), f"must be 1 to {_MOST_AHEAD:g}, not {value:g}")
    return float(held.per_upstream_preconnect_ratio.value) or 1.0


def _eyeballs(held: WireMessage, path: str, report: Report) -> Eyeballs:
    first = _FAMILIES.get(held.first_address_family_version)
    if first is None:
        place = join(path, "first_address_family_version")
        report.problem(place, f"{held.first_address_family_version} is not known")
    count = number(held, "first_address_family_count")
    if count == 0:
        report.problem(join(path, "first_address_family_count"), "must be at least 1")
    return Eyeballs(first or "", count or 1)


def _bound(config: WireMessage, path: str, report: Report) -> Connecting:
    given = [(config.source_address, "source_address")] if config.HasField("source_address") else []
    own: list[_Options | None] = [None] * len(given)
    always: _Options = ((_IP, _FREEBIND, 1), (_IPV6, _FREEBIND6, 1)) if config.freebind.value else ()
    if len(config.extra_source_addresses):
        for index, item in enumerate(config.extra_source_addresses):
            place = f"extra_source_addresses[{index}]"
            given.append((item.address, f"{place}.address"))
            own.append(None)
            if item.HasField("socket_options"):
                held = item.socket_options.socket_options
                own[-1] = _options(held, join(path, f"{place}.socket_options.socket_options"), report)
    else:
        given += [
            (item, f"additional_source_addresses[{index}]")
            for index, item in enumerate(config.additional_source_addresses)
        ]
    if len(given) > 1 and not config.HasField("source_address"):
        report.problem(join(path, "source_address"), "is missing, where there are further ones")
    own += [None] * (len(given) - len(own))
    sources = [
        (_source(item, join(path, place), report), None if options is None else options + always)
        for (item, place), options in zip(given, own, strict=True)
    ]
    if config.HasField("local_address_selector"):
        _judge_selector(config.local_address_selector, join(path, "local_address_selector"), report)
    kept = [(source, options) for source, options in sources if source]
    return Connecting(
        sources=tuple(source for source, _ in kept),
        socket_options=_options(config.socket_options, join(path, "socket_options"), report) + always,
        source_options=tuple(options for _, options in kept) if any(each is not None for each in own) else (),
    )


def _options(items: Sequence[WireMessage], path: str, report: Report) -> _Options:
    found = [_option(item, f"{path}[{index}]", report) for index, item in enumerate(items)]
    return tuple(option for option in found if option is not None)


def _judge_selector(held: WireMessage, path: str, report: Report) -> None:
    """The first address of a family is a connection's: Envoy's default."""
    kind = filter_type(held.typed_config)
    if kind != _SELECTOR:
        report.ignore(path, kind[:100] or "a type that cannot be read")


def _source(held: WireMessage, path: str, report: Report) -> str:
    outer = message("envoy.config.core.v3.Address")()
    outer.socket_address.CopyFrom(held)
    if held.port_value:
        # Only one connection could come from it.
        report.ignore(join(path, "port_value"), held.port_value)
        outer.socket_address.port_value = 0
    if held.WhichOneof("port_specifier") is None:
        outer.socket_address.port_value = 0
    found = numeric(outer, path.removesuffix(".socket_address"), report, least_port=0)
    return found.host if found is not None else ""


def _option(item: WireMessage, path: str, report: Report) -> tuple[int, int, int] | None:
    if item.WhichOneof("value") is None:
        report.problem(path, "one of int_value and buf_value must be set")
        return None
    level, name, value = int(item.level), int(item.name), int(item.int_value)
    if (
        item.WhichOneof("value") != "int_value"
        or name not in _TAKEN.get(level, frozenset())
        or not _INTEGER[0] <= value <= _INTEGER[1]
        or item.state
        or item.HasField("type")
    ):
        report.ignore(path, item)
        return None
    return level, name, value


def _keepalive(held: WireMessage, path: str, report: Report) -> Keepalive:
    def least(field: str, most: int) -> int | None:
        value = number(held, field)
        if value is not None and not 1 <= value <= most:
            report.ignore(join(path, field), f"{value}: a socket takes 1 to {most}")
            return None
        return value

    return Keepalive(
        least("keepalive_probes", _MOST_PROBES),
        least("keepalive_time", _MOST_SECONDS),
        least("keepalive_interval", _MOST_SECONDS),
    )
