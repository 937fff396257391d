"""A connection that reads what is given, as the tests and the fuzzer look at it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from meshlib.wire import heads_h11, heads_llhttp
from meshlib.wire.errors import Disconnected, RemoteProtocolError
from meshlib.wire.http1 import END, SIZES, Http1, Interim, Sizes
from meshlib.wire.message import Head
from tests.unit.wire.responses import No, Read

__all__ = ["HOST", "PARSERS", "cut", "read"]

PARSERS = {"llhttp": heads_llhttp.parse_head, "h11": heads_h11.parse_head}
HOST = (b"Host", b"shop")


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """``data`` in segments that begin at these places; no segment is empty."""
    edges = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges) if end > begin]


def read(
    segments: list[bytes],
    *,
    parse,
    method: bytes = b"GET",
    asked: tuple[tuple[bytes, bytes], ...] = (),
    closed: bool = False,
    sizes: Sizes = SIZES,
) -> tuple[Read | No, str]:
    """What the machine makes of the segments, and what it says where it refuses."""
    wire = Http1(sizes, parse)
    wire.request(method, b"/", [HOST, *asked])
    final, parts, interim, ended, fed = None, [], 0, False, 0
    try:
        for segment in [*segments, *([b""] if closed else [])]:
            wire.feed(segment)
            fed += len(segment)
            while (event := wire.next()) is not None:
                if isinstance(event, Interim):
                    assert final is None
                    interim += 1
                elif isinstance(event, Head):
                    assert final is None
                    final = event
                elif event is END:
                    ended = True
                else:
                    assert event
                    assert final is not None
                    parts.append(event)
                assert not ended or event is END
            # It holds no more than one head that is not whole, or a line of the chunked coding.
            assert ended or len(wire.leftover) <= max(sizes.head, sizes.extensions + 32)
    except RemoteProtocolError as error:
        assert not wire.reusable
        return No.REFUSED, str(error)
    except Disconnected as error:
        assert closed
        assert not wire.reusable
        return No.CUT, str(error)
    if not ended:
        assert not wire.reusable
        return No.WAITS, ""
    body = b"".join(parts)
    assert len(body) <= fed
    found = Read(
        final.status,
        body,
        interim,
        wire.reusable,
        tuple(final.headers),
        tuple(wire.trailers),
        wire.leftover if wire.upgraded else None,
    )
    return found, ""
