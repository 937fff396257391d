"""The kernel's listening sockets by way of netlink, as `ss` asks for them. Pure: bytes out, bytes in.

``/proc/net/tcp`` says the same, and takes 4 to 10 ms for it where few connections are open: it goes through the whole table of
connections that all network namespaces share, to find the end. This goes through those that listen, in some 50 µs.

``struct inet_diag_req_v2``: family, protocol, extensions, states, and a socket's identity that a dump leaves empty.
``struct inet_diag_msg``: family, state, two bytes, the identity (ports and addresses in network byte order, interface, cookie),
then expires, receive queue, send queue, uid, inode. Both follow a ``struct nlmsghdr``: length, type, flags, number, port.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

from meshlib.sidecar.evidence import Listening

__all__ = ["PROTOCOL", "Failed", "listening", "request"]

PROTOCOL = 4  # NETLINK_SOCK_DIAG

_BY_FAMILY, _ERROR, _DONE = 20, 2, 3
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_TCP, _LISTEN = 6, 10
_FAMILIES = {2: 4, 10: 16}  # AF_INET, AF_INET6 → bytes of an address

_HEADER = struct.Struct("=IHHII")
_ASK = struct.Struct("=BBBxI48x")
_TOLD = struct.Struct("=BBxx2s2s16s16sI8sIIIII")


class Failed(Exception):
    """The kernel refused, or said what is no answer."""


def request(family: int) -> bytes:
    """What asks for the TCP sockets of ``family`` that listen."""
    body = _ASK.pack(family, _TCP, 0, 1 << _LISTEN)
    return _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + body


def listening(datagram: bytes) -> Iterator[Listening | None]:
    """The sockets of a datagram, and None at the end of them all. Raises Failed."""
    at = 0
    while at < len(datagram):
        if len(datagram) - at < _HEADER.size:
            raise Failed("half a message")
        length, kind, *_ = _HEADER.unpack_from(datagram, at)
        if not _HEADER.size <= length <= len(datagram) - at or kind == _ERROR:
            raise Failed("no answer")
        if kind == _DONE:
            yield None
            return
        if kind == _BY_FAMILY:
            if length < _HEADER.size + _TOLD.size:
                raise Failed("half a socket")
            yield _listening(datagram, at + _HEADER.size)
        at += (length + 3) & ~3


def _listening(datagram: bytes, at: int) -> Listening:
    family, _, port, _, source, *_, uid, _ = _TOLD.unpack_from(datagram, at)
    if family not in _FAMILIES:
        raise Failed("no family that was asked for")
    address = ipaddress.ip_address(source[: _FAMILIES[family]])
    mapped = getattr(address, "ipv4_mapped", None)
    return Listening(str(mapped or address), int.from_bytes(port, "big"), uid)
