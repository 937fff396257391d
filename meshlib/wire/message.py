"""Requests and the heads of responses, as connections read and give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Head", "Outgoing"]

Lines = list[tuple[bytes, bytes]]


class Outgoing:
    """One request.

    Args:
        method: As it is sent.
        target: As it is sent, the path with its query as a rule.
        headers: Every line in its order and spelling, Host included. They say how the body is framed: ``Content-Length``,
            ``Transfer-Encoding: chunked``, or no body.
        body: The whole of it, or its parts to be iterated (with ``async for`` where the driver is async); None: there is none.
        secure: Whether the scheme is https. HTTP/2 says it; HTTP/1.1 does not.
        trace: What is told of each step, with httpcore's names of them (``http11.send_request_headers.started``, …); async
            where the driver is.
    """

    __slots__ = ("body", "headers", "method", "secure", "target", "trace")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Lines,
        body: Any = None,
        *,
        secure: bool = False,
        trace: Callable[[str, dict[str, Any]], Any] | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.secure = secure
        self.trace = trace


class Head:
    """The head of a response, or of an interim one. ``headers`` in their order and spelling; ``version``: ``b"HTTP/1.1"``,
    ``b"HTTP/1.0"`` or ``b"HTTP/2"``; ``reason`` is empty in HTTP/2.
    """

    __slots__ = ("headers", "reason", "status", "version")

    def __init__(self, status: int, reason: bytes, headers: Lines, version: bytes) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.version = version

    def __repr__(self) -> str:
        return f"Head({self.status}, {self.version.decode('ascii', 'replace')})"
