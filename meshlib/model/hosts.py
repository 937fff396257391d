"""One form of a host, whoever wrote it: a key of the configuration, a URL, a listener's address.

What two spellings of one host have in common is decided here and nowhere else. Names that a control plane sends (domains of
virtual hosts) are not hosts in this sense: they are compared with the bytes of the Host header, as Envoy does.
"""

from __future__ import annotations

import ipaddress

__all__ = ["ascii_host", "canonical_host", "ip_of", "ipv6_host", "is_ip", "is_loopback"]

_MAPPED = "::ffff:"
_UNPRINTABLE = "a host has a character that cannot be printed"


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that ``host``, without brackets, is; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_ip(host: str) -> bool:
    """Whether ``host``, without brackets, is an IP address, so that nothing is left to resolve."""
    return ip_of(host) is not None


def is_loopback(host: str) -> bool:
    """Whether ``host``, without brackets, can only be this machine: ``localhost`` (RFC 6761, 6.3) or an address of loopback."""
    found = ip_of(host)
    return host == "localhost" if found is None else found.is_loopback


def ascii_host(text: str) -> str:
    """``text`` in lower case, its labels as DNS has them: ``bücher.example`` is ``xn--bcher-kva.example`` (UTS 46, as requests
    and aiohttp encode it). Raises ValueError for a label that cannot be one, and for a control character.
    """
    if not text.isprintable():
        raise ValueError(_UNPRINTABLE)
    if text.isascii():
        return text.lower()
    import idna  # 4 ms, and few have use for it

    labels = idna.uts46_remap(text, std3_rules=False).split(".")
    return ".".join(label if label.isascii() else idna.encode(label).decode("ascii") for label in labels)


def ipv6_host(text: str) -> str:
    """An IPv6 address without brackets in the spelling of RFC 5952, its zone after a bare ``%``. Raises ValueError."""
    address, percent, zone = text.partition("%")
    if zone.startswith("25") and len(zone) > 2:
        zone = zone[2:]  # as it is written in a URL (RFC 6874)
    if not zone.isprintable():
        raise ValueError(_UNPRINTABLE)
    found = ipaddress.IPv6Address(address)
    # Python's own spelling of these is another from 3.13 on.
    shown = str(found) if found.ipv4_mapped is None else f"{_MAPPED}{found.ipv4_mapped}"
    return shown + percent + zone


def canonical_host(text: str) -> str:
    """The form in which hosts are compared: an IPv6 address as :func:`ipv6_host` gives it, without brackets, one that maps an
    IPv4 address as that address; a name as :func:`ascii_host` gives it, without the root's dot.

    Raises ValueError for what can be no host at all: a bad IPv6 address, a label that cannot be encoded.
    """
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" not in host:
        return ascii_host(host).removesuffix(".")
    shown = ipv6_host(host)
    # Only an address that maps one of IPv4 has a dot, and a zone may.
    return shown.removeprefix(_MAPPED) if "." in shown and "%" not in shown else shown
