"""Heads, written and read fast where they are plain.

``http.client`` reads the lines of a response with the parser for mail, which is a sixth of a call. A head that is there at once
and whose lines are of the plain kind is read here, to the same message; every other is left to ``http.client``. So it is with
each line of a request, which urllib3 and ``http.client`` would look at piece by piece.
"""

from __future__ import annotations

import http.client
import re
from typing import Any

from urllib3.util import SKIP_HEADER

__all__ = ["Head", "line"]

# RFC 9112: a status line and field lines, of printable ASCII only; no line that continues another.
_PLAIN = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2})(?: ([ -~]*))?\r\n((?:[!-9;-~]+:[\t -~]*\r\n)*)\r\n")
_PLAIN_LINE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~]*")


def line(name: object, values: tuple[Any, ...]) -> bytes | None:
    """The line of a request as ``putheader`` writes it; None where that has to look at it."""
    if len(values) != 1 or type(values[0]) is not str or type(name) is not str or values[0] == SKIP_HEADER:
        return None
    text = f"{name}: {values[0]}"
    return text.encode("ascii") if _PLAIN_LINE.fullmatch(text) else None


class Head(http.client.HTTPResponse):
    """``http.client``'s response."""

    fp: Any
    headers: Any
    msg: Any
    _method: str | None

    def begin(self) -> None:
        if self.headers is not None or self.debuglevel > 0:
            super().begin()
            return
        peek = getattr(self.fp, "peek", None)
        # The first look waits for the first bytes, which are the whole head as a rule.
        found = _PLAIN.match(peek(1)) if peek is not None else None
        # The empty line counts there. It is a number that applications set.
        if found is None or found[3].count(b"\n") >= http.client._MAXHEADERS:  # type: ignore[attr-defined]
            super().begin()
            return
        self.fp.read(found.end())
        self._take(int(found[1]), (found[2] or b"").decode("ascii").strip(), found[3].decode("ascii"))

    def _take(self, status: int, reason: str, lines: str) -> None:
        message = http.client.HTTPMessage()
        for line in lines.split("\r\n")[:-1]:
            name, _, value = line.partition(":")
            message[name] = value.lstrip(" \t")
        self.version = 11
        self.code = self.status = status
        self.reason = reason
        self.headers = self.msg = message
        encoding = message.get("transfer-encoding")
        self.chunked = encoding is not None and encoding.lower() == "chunked"
        self.chunk_left: int | None = None
        self.length = None if self.chunked else _length(message.get("content-length"))
        if status in {204, 304} or self._method == "HEAD":
            self.length = 0
        connection = message.get("connection")
        self.will_close = connection is not None and "close" in connection.lower()
        if not self.will_close and not self.chunked and self.length is None:
            self.will_close = True


def _length(text: str | None) -> int | None:
    """The number of bytes of a body, or None where the line says no such thing."""
    try:
        length = int(text) if text else None
    except ValueError:
        return None
    return None if length is not None and length < 0 else length
