"""One form of a host, whoever wrote it: a key of the configuration, a URL, a listener's address.

What two spellings of one host have in common is decided here and nowhere else. Names that a control plane sends (domains of
virtual hosts) are not hosts in this sense: they are compared with the bytes of the Host header, as Envoy does.
"""

from __future__ import annotations

import ipaddress

__all__ = ["ascii_host", "canonical_host"]


def ascii_host(text: str) -> str:
    """``text`` in lower case, its labels as DNS has them: ``bücher.example`` is ``xn--bcher-kva.example`` (UTS 46, as requests
    and aiohttp encode it). Raises ValueError for a label that cannot be one.
    """
    if text.isascii():
        return text.lower()
    import idna  # 4 ms, and few have use for it

    labels = idna.uts46_remap(text, std3_rules=False).split(".")
    return ".".join(label if label.isascii() else idna.encode(label).decode("ascii") for label in labels)


def canonical_host(text: str) -> str:
    """The form in which hosts are compared: an IP address without brackets in the spelling of RFC 5952, one that maps an IPv4
    address as that address, a zone after a bare ``%``; a name as :func:`ascii_host` gives it, without the root's dot.

    Raises ValueError for what can be no host at all: a bad IPv6 address, a label that cannot be encoded.
    """
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" not in host:
        return ascii_host(host).removesuffix(".")
    address, percent, zone = host.partition("%")
    if zone.startswith("25") and len(zone) > 2:
        zone = zone[2:]  # as it is written in a URL (RFC 6874)
    found = ipaddress.IPv6Address(address)
    mapped = found.ipv4_mapped
    return str(found) + percent + zone if mapped is None or zone else str(mapped)
