"""A request as httpcore's connections read it.

They look at these attributes and at nothing else. httpcore's own classes check and convert each value once more, which
costs more than making the request; what stands here is in its final form already.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Message", "Target"]


class Target:
    """Where a request goes: the attributes of ``httpcore.URL``. ``origin`` is the connection's own."""

    __slots__ = ("host", "origin", "port", "scheme", "target")

    def __init__(self, origin: Any, target: bytes) -> None:
        self.origin = origin
        self.scheme: bytes = origin.scheme
        self.host: bytes = origin.host
        self.port: int = origin.port
        self.target = target

    def __bytes__(self) -> bytes:
        return b"%b://%b:%d%b" % (self.scheme, self.host, self.port, self.target)


class Message:
    """The attributes of ``httpcore.Request``. ``headers`` begin with Host."""

    __slots__ = ("extensions", "headers", "method", "stream", "url")

    def __init__(
        self,
        method: bytes,
        url: Target,
        headers: list[tuple[bytes, bytes]],
        stream: Any,
        extensions: dict[str, Any],
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.stream = stream
        self.extensions = extensions

    def __repr__(self) -> str:
        return f"<Request [{self.method!r}]>"
