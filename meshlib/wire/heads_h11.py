"""Heads taken apart by h11, where no wheel of httptools is."""

from __future__ import annotations

import h11

from meshlib.wire.errors import RemoteProtocolError
from meshlib.wire.message import Head

__all__ = ["parse_head"]

#: One for which every status is an answer, 101 included.
_REQUEST = h11.Request(
    method="GET", target="/", headers=[("Host", ""), ("Connection", "upgrade"), ("Upgrade", "any")]
)


def parse_head(block: bytes) -> Head:
    """The head, with its empty line. Raises RemoteProtocolError."""
    if b"\r\n " in block or b"\r\n\t" in block:
        raise RemoteProtocolError("a folded line")
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=len(block))
    parser.send(_REQUEST)
    parser.receive_data(block)
    try:
        found = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise RemoteProtocolError(f"{error}, in the head {block[:64]!r}") from None
    if not isinstance(found, h11.Response | h11.InformationalResponse):
        raise RemoteProtocolError(f"no response: {block[:64]!r}")
    # h11 has checked the lines. It gives equal lengths as one, so they are not taken from it.
    lines = [line.partition(b":") for line in block.split(b"\r\n")[1:-2]]
    return Head(
        found.status_code,
        bytes(found.reason).rstrip(),
        [(name, value.strip(b" \t")) for name, _, value in lines],
        block[:8],
    )
