"""The kernel's tables of sockets, read: ``/proc/net/tcp``, ``tcp6`` and ``unix``. Pure.

A line of the first two: number, local address and port in hexadecimal (each 32-bit word of the address in the machine's byte
order), remote address, state (``0A`` listens), queues, timers, retransmits, owner's user id, … What does not look so is passed
over: these are the kernel's files, and yet a container may have mounted anything there.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator

from meshlib.sidecar.evidence import Listening

__all__ = ["interfaces", "listening", "unix_listening"]

_LISTENS = b"0A"
_ACCEPTS = 0x10000  # __SO_ACCEPTCON
_STREAM = b"0001"
_WORDS = {8: 4, 32: 16}  # hexadecimal digits → bytes


def listening(table: bytes, order: str = sys.byteorder) -> Iterator[Listening]:
    """The listening sockets of a table, or of a part of one."""
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 8 or fields[3] != _LISTENS:
            continue
        host, _, port = fields[1].partition(b":")
        try:
            yield Listening(_host(host, order), _number(port, 16, 0xFFFF), _number(fields[7], 10, 0xFFFFFFFF))
        except ValueError:
            continue


def _host(digits: bytes, order: str) -> str:
    raw = bytes.fromhex(digits.decode("ascii"))
    if len(raw) != _WORDS.get(len(digits)):
        raise ValueError("no address")
    if order == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _number(digits: bytes, base: int, most: int) -> int:
    if not digits.isalnum() or len(digits) > 10:
        raise ValueError("no number")
    number = int(digits, base)
    if number > most:
        raise ValueError("no such number")
    return number


def unix_listening(table: bytes) -> frozenset[str]:
    """The paths on which stream sockets listen. A line: number, references, protocol, flags, type, state, inode, path."""
    found = set()
    for line in table.splitlines():
        fields = line.split(maxsplit=7)
        try:
            if len(fields) == 8 and fields[4] == _STREAM and int(fields[3], 16) & _ACCEPTS:
                found.add(fields[7].decode("utf-8", "surrogateescape"))
        except ValueError:
            continue
    return frozenset(found)


def interfaces(table: bytes) -> tuple[str, ...]:
    """The names in ``/proc/net/dev``: two lines of titles, then ``name: counters``."""
    names = (line.partition(b":")[0].strip() for line in table.splitlines()[2:])
    return tuple(name.decode("ascii", "replace") for name in names if name)
