"""Addresses: of endpoints (IP or Unix socket), of DNS clusters (a name), of listeners."""

from __future__ import annotations

import ipaddress

from meshlib.model.address import Address
from meshlib.model.hosts import ipv6_host
from meshlib.xds.decode.report import Report, join
from meshlib.xds.schema import WireMessage

__all__ = ["UDP", "cidr", "named", "numeric"]

_MAX_PORT = 65535
_MAX_NAME = 255
#: ``SocketAddress.Protocol``.
UDP = 1


def numeric(
    message: WireMessage, path: str, report: Report, *, least_port: int | None = None
) -> Address | None:
    """An address that needs no resolving: an IP with a port, or a Unix socket (ED-03).

    ``least_port``: 1 unless it is given, and 0 in the sidecar view.
    """
    found = named(message, path, report, least_port=least_port)
    if found is None or found.unix:
        return found
    try:
        ip = ipaddress.ip_address(found.host)
    except ValueError:
        report.problem(join(path, "socket_address.address"), f"{_short(found.host)} is no IP address")
        return None
    return (
        found if ip.version == 4 else Address(ipv6_host(found.host), found.port)
    )  # there are several spellings


def named(
    message: WireMessage, path: str, report: Report, *, least_port: int | None = None
) -> Address | None:
    """An address whose host may be a DNS name."""
    which = message.WhichOneof("address")
    if which == "pipe":
        if not message.pipe.path or "\0" in message.pipe.path:
            report.problem(join(path, "pipe.path"), "must be the path of a socket")
            return None
        return Address(str(message.pipe.path), 0, True)
    if which != "socket_address":
        if which is None:
            report.problem(path, "one of socket_address and pipe must be set")
        return None
    held, path = message.socket_address, join(path, "socket_address")
    if held.protocol == UDP:
        report.stricter(join(path, "protocol"), "UDP is not supported", "calls go over TCP")
    host, port = str(held.address), int(held.port_value)
    if held.WhichOneof("port_specifier") is None:
        report.problem(join(path, "port_value"), "is missing")
        return None
    if least_port is None:
        least_port = int(report.target)
    if held.WhichOneof("port_specifier") != "named_port" and not least_port <= port <= _MAX_PORT:
        report.problem(join(path, "port_value"), f"must be {least_port} to {_MAX_PORT}, not {port}")
        return None
    if not host or len(host) > _MAX_NAME or not host.isprintable() or any(c in host for c in " /@?#"):
        report.problem(join(path, "address"), f"{_short(host)} is neither an IP address nor a name")
        return None
    return Address(host, port)


def cidr(message: WireMessage, path: str, report: Report) -> str:
    """A CidrRange as ``10.0.0.0/8``."""
    try:
        address = ipaddress.ip_address(str(message.address_prefix))
        length = min(int(message.prefix_len.value), address.max_prefixlen)  # as Envoy
        return str(ipaddress.ip_network((address, length), strict=False))
    except ValueError as error:
        report.problem(path, str(error)[:200])
        return ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
