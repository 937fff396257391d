"""Instrumentations of ``http.client`` (Sentry's is one) see the attempts of calls that do not come by it.

They replace ``HTTPConnection.putrequest`` and ``getresponse``, time what is between, and add lines to the request. Where somebody
has, each attempt passes through both, on a connection that has no socket.
"""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.model.call import Head
    from meshlib_requests.request import Request

__all__ = ["observed"]


class _Answer(http.client.HTTPResponse):
    """What ``getresponse`` finds: a head, and no body."""

    def __init__(self, incoming: Any) -> None:
        self.fp = None  # type: ignore[assignment]
        self.debuglevel = 0
        self.version = 11
        self.status = self.code = incoming.status
        self.reason = incoming.reason.decode("latin-1")
        self.headers = self.msg = http.client.HTTPMessage()
        for name, value in incoming.headers:
            self.headers.add_header(name.decode("latin-1"), value.decode("latin-1"))
        self.chunked = self.will_close = False
        self.length = 0

    def begin(self) -> None:
        """It is there."""


class _Observed(http.client.HTTPConnection):
    """One attempt. ``added``: the lines that somebody wants to be sent."""

    def __init__(self, request: Request, head: Head) -> None:
        pool = request.pool
        super().__init__(pool.host, pool.port)
        if pool.scheme == "https":
            self.default_port = http.client.HTTPS_PORT
        self.added: list[tuple[bytes, bytes]] = []
        self.putrequest(head.method, request.sent_target(head), skip_host=True, skip_accept_encoding=True)

    def putheader(self, header: Any, *values: Any) -> None:
        name, value = (
            part.encode("latin-1") if isinstance(part, str) else part for part in (header, values[0])
        )
        self.added.append((name, value))

    def connect(self) -> None:
        """Never: it has no socket."""

    def answered(self, incoming: Any) -> None:
        """The head of the response is there."""
        self.endheaders()
        self.response_class = lambda *_, **__: _Answer(incoming)  # type: ignore[assignment]
        self.getresponse()

    def send(self, data: Any) -> None:
        """Nothing leaves from here."""


def observed(request: Request, head: Head) -> _Observed | None:
    """The attempt as it is shown, None where nobody looks."""
    if getattr(http.client.HTTPConnection.putrequest, "__globals__", None) is vars(http.client):
        return None
    return _Observed(request, head)
