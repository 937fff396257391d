"""How the bodies of HTTP/1.1 are framed, by the header lines: of requests as they are written, of responses as they are read.

A body of a response is framed by the first of these that holds (RFC 9112, 6.3): there is none after HEAD, a 204 or a 304, nor
after a 2xx to CONNECT or a 101, behind which another protocol begins; chunks; a length; the end of the connection. Where the
lines contradict each other, or say what readers take differently, the response is refused: both a length and a transfer
coding, two lengths, be they equal, a coding other than one ``chunked``, a coding from a server of HTTP/1.0 (RFC 9112, 6.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from meshlib.wire.errors import LocalProtocolError, RemoteProtocolError
from meshlib.wire.heads import TEXT
from meshlib.wire.message import Head, Lines

__all__ = ["CHUNKED", "UNTIL_CLOSE", "Asked", "check_switch", "frame_response", "write_head"]

#: In the place of a body's length.
CHUNKED = -1
UNTIL_CLOSE = -2

_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS = b"0123456789"
#: Digits of a length: what fits into 64 bits with a sign, as every reader can count.
_MOST_DIGITS = 18

_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"host", b"expect"))
_LENGTHS = frozenset(
    len(name) for name in (b"content-length", b"transfer-encoding", b"connection", b"upgrade")
)


@dataclass(slots=True)
class Asked:
    """What a request says of itself and of the connection.

    Attributes:
        length: Of its body; or :data:`CHUNKED`.
        close: It is the connection's last.
        upgrade: It offers to go on in another protocol.
        expect: The body waits for ``100 Continue``.
    """

    length: int = 0
    close: bool = False
    upgrade: bool = False
    expect: bool = False


#: Of a request without a body, and without a wish.
_PLAIN = Asked()


def write_head(method: bytes, target: bytes, headers: Lines) -> tuple[bytes, Asked]:
    """A request's head. Raises LocalProtocolError for bytes that may not be there, or lines that contradict each other."""
    _kind(method)
    if not target or not target.isascii() or b" " in target or b"\t" in target:
        raise LocalProtocolError(f"no target of a request: {target[:64]!r}")
    framing: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        kind = _kind(name)
        if kind and (value != b"keep-alive" or kind != b"connection"):
            framing.append((kind, value))
    head = b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), *map(b": ".join, headers), b"", b""))
    # All that is not text must be the ends of the lines, which were put there.
    if head.translate(None, TEXT) != b"\r\n" * (len(headers) + 2):
        raise LocalProtocolError(_bad_character(target, headers))
    return head, _read_request(framing)


@lru_cache(maxsize=1024)
def _kind(name: bytes) -> bytes | None:
    """A name that the application gave, in small letters if it is one of those that frame. Raises LocalProtocolError."""
    if not name or name.translate(None, _TOKEN):
        raise LocalProtocolError(f"no name of a header or a method: {name[:64]!r}")
    key = name.lower()
    return key if key in _FRAMING else None


def _bad_character(target: bytes, headers: Lines) -> str:
    places = [
        ("the target", target),
        *((f"the value of the header {name!r}", value) for name, value in headers),
    ]
    place, value = next((place, value) for place, value in places if value.translate(None, TEXT))
    return f"{place} holds a character that may not be there: {value[:64]!r}"


def _read_request(framing: list[tuple[bytes, bytes]]) -> Asked:
    if len(framing) == 1 and framing[0][0] == b"host":
        return _PLAIN
    asked = Asked()
    hosts = lengths = codings = 0
    for key, value in framing:
        if key == b"host":
            hosts += 1
        elif key == b"content-length":
            lengths += 1
            asked.length = _length(value, LocalProtocolError)
        elif key == b"transfer-encoding":
            codings += 1
            if value.strip(b" \t").lower() != b"chunked":
                raise LocalProtocolError(
                    f"Transfer-Encoding: {value[:64]!r}, of which only chunked can be sent"
                )
            asked.length = CHUNKED
        elif key == b"connection":
            asked.close = asked.close or b"close" in _tokens(value)
        elif key == b"upgrade":
            asked.upgrade = True
        else:
            asked.expect = value.strip(b" \t").lower() == b"100-continue"
    if hosts != 1:
        raise LocalProtocolError(f"{hosts} Host headers, where there must be one")
    if lengths + codings > 1:
        raise LocalProtocolError("more than one of Content-Length and Transfer-Encoding")
    asked.expect = asked.expect and asked.length != 0
    return asked


def frame_response(head: Head, method: bytes) -> tuple[int, bool]:
    """The length of its body, or :data:`CHUNKED` or :data:`UNTIL_CLOSE`, and whether the connection may carry another request
    after it, if it is still there. An interim head has none. Raises RemoteProtocolError.
    """
    length = UNTIL_CLOSE
    modern = keep = head.version == b"HTTP/1.1"
    close = False
    for name, value in head.headers:
        if len(name) not in _LENGTHS:
            continue
        key = name.lower()
        if key == b"content-length":
            if length != UNTIL_CLOSE:
                raise RemoteProtocolError("Content-Length beside another, or beside Transfer-Encoding")
            length = _length(value, RemoteProtocolError)
        elif key == b"transfer-encoding":
            if length != UNTIL_CLOSE or value.lower() != b"chunked" or not modern:
                raise RemoteProtocolError(
                    f"Transfer-Encoding: {value[:64]!r}, beside a length or another, or in 1.0"
                )
            length = CHUNKED
        elif key == b"connection":
            tokens = _tokens(value)
            close = close or b"close" in tokens
            keep = keep or b"keep-alive" in tokens
    keep = keep and not close
    status = head.status
    if status < 200:
        if length not in (UNTIL_CLOSE, 0):
            raise RemoteProtocolError(f"an interim response, {status}, that has a body")
        return 0, keep
    if status == 204:
        # It has no body whatever it says (RFC 9112, 6.3). A server that speaks of one might send it.
        return 0, keep and length in (UNTIL_CLOSE, 0)
    if method == b"HEAD" or status == 304:
        return 0, keep
    return length, keep


def check_switch(head: Head) -> None:
    """Whether a 101 says that and to what it switches (RFC 9110, 7.8 and 15.2.2). Raises RemoteProtocolError."""
    lines = [(name.lower(), value) for name, value in head.headers]
    named = any(name == b"upgrade" and value for name, value in lines)
    if not named or not any(name == b"connection" and b"upgrade" in _tokens(value) for name, value in lines):
        raise RemoteProtocolError("101 Switching Protocols, without Connection: upgrade and Upgrade")


def _length(value: bytes, refuse: type[Exception]) -> int:
    if not value or len(value) > _MOST_DIGITS or value.translate(None, _DIGITS):
        raise refuse(f"no Content-Length: {value[:64]!r}")
    return int(value)


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip(b" \t") for token in value.lower().split(b",")]
