"""How a request of HTTP/1.1 is spelled where the mesh says more than the application: names of headers, and the target."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from meshlib.wire.message import Lines, Outgoing

__all__ = ["Spelling"]


class Spelling(NamedTuple):
    """Envoy ``Http1ProtocolOptions``. ``proper_case``: each word of a name begins with a capital (``header_key_format``);
    ``whole_urls``: the target is the URL (``send_fully_qualified_url``), as proxies want it.
    """

    proper_case: bool = False
    whole_urls: bool = False

    def of(self, request: Outgoing) -> tuple[bytes, Lines]:
        """Its target and its lines."""
        target, lines = request.target, request.headers
        if self.whole_urls and target[:1] == b"/":
            host = next((value for name, value in lines if name.lower() == b"host"), b"")
            target = b"%b://%b%b" % (b"https" if request.secure else b"http", host, target)
        if self.proper_case:
            lines = [(_proper(name), value) for name, value in lines]
        return target, lines


@lru_cache(maxsize=1024)
def _proper(name: bytes) -> bytes:
    """A letter is large at the beginning, and behind what is neither letter nor digit."""
    made = bytearray()
    begins = True
    for code in name:
        made += bytes((code,)).upper() if begins else bytes((code,))
        begins = not bytes((code,)).isalnum()
    return bytes(made)
