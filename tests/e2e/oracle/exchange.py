"""One HTTP/1.1 request as raw lines, and what came of it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from meshlib.testing.upstream import Upstream

__all__ = ["Arrived", "Client", "Exchange", "Request", "Upstreams"]


@dataclass(frozen=True, slots=True)
class Request:
    """``headers`` without Host: that is ``authority``."""

    method: str
    authority: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Arrived:
    """What an upstream got. ``headers``: lower-case names, without Host."""

    upstream: str
    method: str
    authority: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body_length: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a caller got; ``arrived`` is None where no upstream was asked, and then ``body`` is the answer's own."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    arrived: Arrived | None = field(default=None)


def described(body: bytes) -> Arrived | None:
    """What an ``Upstream`` says of the request that it answers."""
    try:
        told = json.loads(body)
    except ValueError:
        return None
    if not isinstance(told, dict) or "name" not in told:
        return None
    return _arrived(told["name"], told["method"], told["path"], told["headers"], told["body_length"])


def _arrived(
    upstream: str, method: str, path: str, headers: Iterable[tuple[str, str]], length: int
) -> Arrived:
    lines = [(name.lower(), value) for name, value in headers]
    return Arrived(
        upstream,
        method,
        next((value for name, value in lines if name == "host"), ""),
        path,
        tuple(line for line in lines if line[0] != "host"),
        length,
    )


class Client:
    """A connection that sends lines as they are given."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def send(self, request: Request, told: Callable[[], Arrived | None] = lambda: None) -> Exchange:
        """``told``: what arrived, for a response that has no body to tell it."""
        connection = self._connection
        connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", request.authority)
        for name, value in request.headers:
            connection.putheader(name, value.encode("latin-1"))
        if request.body:
            connection.putheader("content-length", str(len(request.body)))
        connection.endheaders(request.body or None)
        response = connection.getresponse()
        body = response.read()
        lines = tuple((name.lower(), value) for name, value in response.getheaders())
        arrived = described(body)
        if arrived is not None:
            return Exchange(response.status, lines, b"", arrived)
        return Exchange(response.status, lines, body, None if body else told())


class Upstreams:
    """One upstream a cluster, all with the same header lines on their responses."""

    def __init__(self, names: Iterable[str], headers: tuple[tuple[str, str], ...]) -> None:
        self._servers = [Upstream(name) for name in names]
        self._totals = [0] * len(self._servers)
        for server in self._servers:
            server.order(headers=headers)

    def __enter__(self) -> Self:
        for server in self._servers:
            server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for server in self._servers:
            server.stop()

    @property
    def addresses(self) -> dict[str, str]:
        return {server.name: server.address for server in self._servers}

    def mark(self) -> None:
        """From here on :meth:`latest` looks."""
        self._totals = [server.requests_total for server in self._servers]

    def latest(self) -> Arrived | None:
        """The request that arrived since the mark, if one did."""
        for server, before in zip(self._servers, self._totals, strict=True):
            if server.requests_total > before:
                got = server.requests[-1]
                return _arrived(server.name, got.method, got.path, got.headers, got.body_length)
        return None
