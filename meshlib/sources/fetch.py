"""The unary methods of a control plane that is polled (``protocol = "fetch"``): for servers that have no streams, v3 and v2.

    FetchClusters, … ──OK───────────────────────────────► an answer
                     ├─UNKNOWN, "skip fetch: version …"─► not modified: go-control-plane has no other way to say so
                     └─else─────────────────────────────► an error

A channel serves until a poll fails; the next one has another, so that grpc's own backoff never matters (ST-04), certificates are
read anew, and a balancer may lead to another server. Whether there is a server at all is asked by grpc's method for health checks:
whatever is answered, that it is not there as well, somebody has answered.

What is v2's: no poll says a version. It is a counter that begins anew when a server or a node's configuration does, and equal
numbers may mean different states (`meshlib.sources.separate`); who said it would have no answer until the next change.

``_lock`` guards the channel and the call between the polling thread, which makes them, and ``abort``. A fork waits for
what is open here as for streams.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from meshlib.sources.channel import call_metadata, open_channel
from meshlib.sources.polling import TIMEOUT, NotServed, PollError, Read
from meshlib.sources.stream import closed, opened, words
from meshlib.xds import schema, v2
from meshlib.xds.discovery import RESPONSE
from meshlib.xds.services import method

if TYPE_CHECKING:
    import grpc

    from meshlib.xds.bootstrap import Server
    from meshlib.xds.schema import WireMessage

__all__ = ["FetchWire"]

_HEALTH = "/grpc.health.v1.Health/Check"
#: What go-control-plane says of a version that is the newest (``cache.SkipFetchError``).
_SKIPPED = "skip fetch"


class FetchWire:
    """See the header, and `meshlib.sources.polling.Wire`. ``ours``: node.cluster, by which a v2 server knows us."""

    def __init__(self, server: Server, *, api: str, ours: str) -> None:
        self._server = server
        self._api = api
        self._ours = ours
        self._lock = threading.Lock()
        self._ended = False
        self._aborted = False
        self._channel: grpc.Channel | None = None
        self._call: Any = None
        self._idle = threading.Event()  # no channel is open
        self._idle.set()

    def name(self, url: str) -> str:
        return method(self._api, schema.SHORT_NAMES[url], "Fetch")

    def write(self, request: WireMessage) -> bytes:
        if self._api != "v2":
            return request.SerializeToString(deterministic=True)
        request.version_info = ""
        return v2.request(request)

    def read(self, url: str, body: bytes) -> Read:
        """Raises DecodeError for what is no DiscoveryResponse."""
        response = schema.message(RESPONSE).FromString(body)
        ignored = v2.response(response, self._ours) if self._api == "v2" else ()
        response.type_url = response.type_url or url
        return Read(response.SerializeToString(deterministic=True), ignored)

    # --- the polling thread -------------------------------------------------------------------------------------

    def connect(self) -> None:
        try:
            self._exchange(_HEALTH, b"")
        except Exception as problem:  # grpc's, or OSError of a file that cannot be read
            if _status(problem) in ("", "UNAVAILABLE", "DEADLINE_EXCEEDED") or self._aborted:
                self.close()
                raise PollError(f"cannot connect to {self._server.uri}: {self._words(problem)}") from problem

    def ask(self, url: str, body: bytes) -> bytes | None:
        name = self.name(url)
        try:
            return self._exchange(name, body)
        except Exception as problem:  # as above
            if _skipped(problem):
                return None
            self.close()
            kind = NotServed if _status(problem) == "UNIMPLEMENTED" else PollError
            raise kind(f"{name}: {self._words(problem)}") from problem

    def close(self) -> None:
        with self._lock:
            channel, self._channel, self._call = self._channel, None, None
        if channel is not None:
            channel.close()
        closed(self)
        self._idle.set()

    def _exchange(self, name: str, body: bytes) -> bytes:
        metadata = call_metadata(self._server)
        with self._lock:
            self._aborted = self._ended
            if self._aborted:
                raise TimeoutError
            if self._channel is None:
                self._idle.clear()
                opened(self)
                self._channel = open_channel(self._server)
            # None: bytes as they are.
            asked = self._channel.unary_unary(name, None, None)
            self._call = asked.future(body, timeout=TIMEOUT, metadata=metadata or None)
        answer: bytes = self._call.result()
        return answer

    def _words(self, problem: Exception) -> str:
        if self._aborted or _status(problem) == "DEADLINE_EXCEEDED":
            return f"no whole answer within {TIMEOUT:g} s"
        return words(problem)

    # --- any thread ---------------------------------------------------------------------------------------------

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            call = self._call
        if call is not None:
            call.cancel()

    def end(self) -> None:
        self._ended = True
        self.abort()

    def cancel(self, timeout: float) -> None:
        """Before a fork: end, and wait at most that many seconds until nothing of grpc's is left here."""
        self.end()
        self._idle.wait(timeout)


def _status(problem: Exception) -> str:
    """The name of the status that a call ended with; ``""`` for what is none."""
    code = getattr(problem, "code", None)
    return str(getattr(code(), "name", "")) if callable(code) else ""


def _skipped(problem: Exception) -> bool:
    details: Any = getattr(problem, "details", None)
    return _status(problem) == "UNKNOWN" and _SKIPPED in str(details()).lower()
