"""Writes one HTTP/1.1 response as an order says."""

from __future__ import annotations

import http
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from meshlib.testing.http_connection import Connection, Gone, RequestHead
from meshlib.testing.orders import Order

__all__ = ["Answer", "response_head"]

_BODILESS = {204, 304}


class Answer:
    """Writes one response as an order says."""

    def __init__(
        self, connection: Connection, head: RequestHead, order: Order, hold: Callable[[Connection], None]
    ) -> None:
        self._connection = connection
        self._request = head
        self._order = order
        self._hold = hold
        broken = bool(order.reset or order.truncate or order.garbage is not None)
        self.reusable = head.keeps_alive and not (order.close or order.early or broken)

    def send(self, described: bytes) -> None:
        """A whole response."""
        order = self._order
        self._before_head()
        body = described if order.body is None else order.body.encode()
        chunked = order.chunks > 0
        length = [("transfer-encoding", "chunked")] if chunked else [("content-length", len(body))]
        head = self._head(length)
        if self._request.method == "HEAD" or order.status in _BODILESS:
            self._connection.write(head)
            return
        parts = list(_split(body, max(order.chunks, 2 if self._breaks else 1)))
        self._connection.write(head + self._framed(parts[0], chunked))
        for part in parts[1:]:
            self._between()
            self._connection.write(self._framed(part, chunked))
        if chunked:
            self._connection.write(b"0\r\n\r\n")

    def open(self) -> None:
        """The head of a response whose chunks follow."""
        self._before_head()
        self._connection.write(self._head([("transfer-encoding", "chunked")]))

    def chunk(self, part: bytes) -> None:
        """One chunk of it."""
        self._connection.write(self._framed(part, chunked=True))

    def end(self) -> None:
        """The end of it."""
        self._connection.write(b"0\r\n\r\n")

    @property
    def _breaks(self) -> bool:
        return self._order.reset == "body" or self._order.hold == "body" or self._order.truncate

    def _before_head(self) -> None:
        order = self._order
        if order.delay:
            self._connection.pause(order.delay)
        if order.hold == "head":
            self._hold(self._connection)
        if order.reset == "head":
            self._connection.reset()
            raise Gone("reset by order")
        if order.garbage is not None:
            self._connection.write(order.garbage.encode("latin-1", "replace"))
            raise Gone("ended by order")

    def _between(self) -> None:
        """What is ordered to happen between two parts of the body."""
        order = self._order
        if order.hold == "body":
            self._hold(self._connection)
        if order.reset == "body":
            self._connection.reset()
            raise Gone("reset by order")
        if order.truncate:
            raise Gone("truncated by order")
        if order.chunk_delay:
            self._connection.pause(order.chunk_delay)

    def _head(self, length: list[tuple[str, Any]]) -> bytes:
        headers: list[tuple[str, Any]] = [("content-type", "application/json"), *length]
        if not self.reusable:
            headers.append(("connection", "close"))
        return response_head(self._order.status, [*headers, *self._order.headers])

    @staticmethod
    def _framed(part: bytes, chunked: bool) -> bytes:
        return b"%x\r\n%b\r\n" % (len(part), part) if chunked and part else part


def response_head(status: int, headers: list[tuple[str, Any]]) -> bytes:
    """The bytes of a response's head."""
    try:
        reason = http.HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace")


def _split(body: bytes, parts: int) -> Iterator[bytes]:
    """The body in that many parts of nearly the same size."""
    bounds = [len(body) * index // parts for index in range(parts + 1)]
    return (body[start:end] for start, end in itertools.pairwise(bounds))
