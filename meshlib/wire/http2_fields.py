"""The header blocks of HTTP/2: what is written of a request, and what is read of a response (RFC 9113, 8.2 and 8.3).

Every check is one look over all bytes of a block, since a call pays for it. What it finds is said as a ValueError; whose fault
that is, and what becomes of it, is the connection's matter (:mod:`meshlib.wire.http2`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpack import NeverIndexedHeaderTuple

from meshlib.wire.heads import TEXT

if TYPE_CHECKING:
    from meshlib.wire.message import Lines, Outgoing

__all__ = ["read_head", "read_trailers", "write_head"]

#: What a name may consist of: a token (RFC 9110, 5.6.2) without upper case (RFC 9113, 8.2.1).
_NAME = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_DIGITS = b"0123456789"
_BLANKS = (0x20, 0x09)
#: Of one connection, so no field of a message (RFC 9113, 8.2.2).
_OF_THE_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
#: Not put into the table that both sides keep, where guesses could be tried against them (RFC 7541, 7.1.3; as nghttp2 and h2).
_SECRET = frozenset((b"authorization", b"proxy-authorization"))
_SHORT_COOKIE = 20


def write_head(request: Outgoing) -> tuple[Lines, int | None]:
    """The fields of ``request``, and its Content-Length. Raises ValueError for what HTTP/2 cannot say."""
    target = request.target
    if request.method == b"CONNECT":
        raise ValueError("CONNECT makes a tunnel of a connection, and this one is shared")
    if not target.startswith(b"/") and not (target == b"*" and request.method == b"OPTIONS"):
        raise ValueError(f"the target of a request over HTTP/2 is a path, not {target[:100]!r}")
    if request.method.translate(None, _NAME + _NAME.upper()) or not request.method:
        raise ValueError(f"{request.method[:100]!r} is no method")
    authority = None
    length: int | None = None
    fields: Lines = []
    dropped = _of_the_connection(request.headers)
    for spelled, written in request.headers:
        name, value = spelled.lower(), written.strip(b" \t")
        if name in dropped:
            continue
        if name == b"host":
            if authority is not None:
                raise ValueError("more than one Host line")
            authority = value
            continue
        if name == b"te" and value.lower() != b"trailers":
            continue
        if name == b"content-length":
            length = _length(value, length)
        if name in _SECRET or (name == b"cookie" and len(value) < _SHORT_COOKIE):
            fields.append(NeverIndexedHeaderTuple(name, value))
        else:
            fields.append((name, value))
    _check(fields, target, authority or b"")
    if b" " in target or b"\t" in target or b" " in (authority or b"") or b"\t" in (authority or b""):
        raise ValueError(
            f"a blank in the path {target[:100]!r} or the authority {(authority or b'')[:100]!r}"
        )
    pseudo = [(b":method", request.method), (b":scheme", b"https" if request.secure else b"http")]
    if authority:
        pseudo.append((b":authority", authority))
    pseudo.append((b":path", target))
    return pseudo + fields, length


def _of_the_connection(lines: Lines) -> frozenset[bytes]:
    """The names of the lines that end here: those that are always so, and those that a Connection line names."""
    for name, value in lines:
        if len(name) == 10 and name.lower() == b"connection":
            named = {part.strip(b" \t").lower() for part in value.split(b",")}
            # What HTTP/2 says by itself is not dropped on the word of a line.
            return _OF_THE_CONNECTION | (named - {b"host", b"content-length", b"te"})
    return _OF_THE_CONNECTION


def read_head(lines: Lines) -> tuple[int, Lines, int | None]:
    """Status, fields and Content-Length of a response. Raises ValueError where it is malformed."""
    if not lines or lines[0][0] != b":status":
        raise ValueError("the head does not begin with :status")
    status = lines[0][1]
    if len(status) != 3 or status.translate(None, _DIGITS) or status < b"100":
        raise ValueError(f":status is {status[:20]!r}")
    length: int | None = None
    fields: Lines = []
    for name, value in lines[1:]:
        if name == b"content-length":
            length = _length(value, length)
        elif name in _OF_THE_CONNECTION:
            raise ValueError(f"{name.decode()} is a matter of connections, and no field of a response")
        fields.append((name, value))
    _check(fields)
    return int(status), fields, length


def read_trailers(lines: Lines) -> Lines:
    """The fields behind a body. Raises ValueError where they are malformed."""
    fields = [(name, value) for name, value in lines]
    for name, _ in fields:
        if name in _OF_THE_CONNECTION:
            raise ValueError(f"{name.decode()} is a matter of connections, and no trailer")
    _check(fields)
    return fields


def _check(fields: Lines, *more: bytes) -> None:
    """Names are tokens in lower case; values are text, as in HTTP/1.1, and have no blank at an end (RFC 9113, 8.2.1)."""
    if b"".join([name for name, _ in fields]).translate(None, _NAME):
        wrong = next(name for name, _ in fields if name.translate(None, _NAME))
        raise ValueError(f"{wrong[:100]!r} is no name of a field")
    if b"".join([value for _, value in fields] + list(more)).translate(None, TEXT):
        raise ValueError("a value with NUL, CR, LF or another control character")
    for name, value in fields:
        if not name:
            raise ValueError("a field without a name")
        if value and (value[0] in _BLANKS or value[-1] in _BLANKS):
            raise ValueError(f"the value of {name[:100].decode()} begins or ends with a blank")


def _length(value: bytes, other: int | None) -> int:
    """A Content-Length. ``other``: what an earlier one said."""
    if not value or value.translate(None, _DIGITS) or len(value) > 19:
        raise ValueError(f"Content-Length is {value[:100]!r}")
    length = int(value)
    if other is not None and other != length:
        raise ValueError(f"Content-Length is {other} and {length}")
    return length
