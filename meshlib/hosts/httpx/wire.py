"""How the calls of one httpx transport leave: over our own wire to endpoints, and by the library's transport to URLs as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.hosts.endpoints import AsyncEndpoints, Endpoints
from meshlib.wire.message import Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.attempt import Send
    from meshlib.core.effects import Direct
    from meshlib.hosts.endpoints import WireSettings
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["AsyncHttpxWire", "HttpxWire"]

#: What is left of an answer that is not wanted is read up to here, so that its connection can be kept; more would cost more
#: than a new one. Bytes.
SMALL = 65_536


class HttpxWire:
    """Of one transport in one process. ``whole``: the library's ``ByteStream``; ``own``: makes its transport."""

    _own: Any = None  # once a call goes to its URL as it is

    def __init__(self, runtime: Runtime, settings: WireSettings, whole: type, own: Callable[[], Any]) -> None:
        self._endpoints = Endpoints(runtime, settings)
        self._whole = whole
        self._make_own = own

    def send(self, request: Any, attempt: Send, bounds: Bounds) -> Any:
        return self._endpoints.open(_outgoing(request, attempt, self._whole), attempt, _name(request), bounds)

    def direct(self, request: Any, call: Direct, bounds: Bounds) -> Any:
        own = self._own
        if own is None:
            made = self._make_own()
            own = self.__dict__.setdefault("_own", made)
            if own is not made:  # another thread came first, too
                made.close()
        return own.handle_request(_bounded(request, call, bounds))

    def discard(self, response: Any) -> None:
        response.drain(SMALL)
        response.close()

    def close(self) -> None:
        self._endpoints.close()
        if self._own is not None:
            self._own.close()


class AsyncHttpxWire:
    """Of one transport in one event loop. Arguments as for ``HttpxWire``."""

    def __init__(self, runtime: Runtime, settings: WireSettings, whole: type, own: Callable[[], Any]) -> None:
        self._endpoints = AsyncEndpoints(runtime, settings)
        self._whole = whole
        self._make_own = own
        self._own: Any = None

    async def send(self, request: Any, attempt: Send, bounds: Bounds) -> Any:
        return await self._endpoints.open(
            _outgoing(request, attempt, self._whole), attempt, _name(request), bounds
        )

    async def direct(self, request: Any, call: Direct, bounds: Bounds) -> Any:
        own = self._own
        if own is None:
            own = self._own = self._make_own()
        return await own.handle_async_request(_bounded(request, call, bounds))

    async def discard(self, response: Any) -> None:
        await response.adrain(SMALL)
        await response.aclose()

    async def aclose(self) -> None:
        await self._endpoints.aclose()
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()


def _outgoing(request: Any, attempt: Send, whole: type) -> Outgoing:
    head, stream = attempt.head, request.stream
    body = stream
    if isinstance(stream, whole):
        body = stream._stream or None  # type: ignore[attr-defined]  # the bytes that it was made of
    return Outgoing(
        head.method.encode("ascii"),
        head.path.encode("latin-1"),
        [(b"Host", head.authority.encode("latin-1")), *head.headers.raw],
        body,
        secure=head.scheme == "https",
        trace=request.extensions.get("trace"),
    )


def _name(request: Any) -> str:
    """The name to verify, of an https URL."""
    url = request.url
    if url.scheme != "https":
        return ""
    name = request.extensions.get("sni_hostname") or url.raw_host
    return name if isinstance(name, str) else name.decode("ascii")


def _bounded(request: Any, call: Direct, bounds: Bounds) -> Any:
    """The request for the library's own transport: with what observers made of it, within the deadline."""
    if call.head is None:
        return request
    gone, changed = call.changes
    for name in gone:
        del request.headers[name.decode("latin-1")]
    for name, value in changed:
        request.headers[name.decode("latin-1")] = value.decode("latin-1")
    if bounds.deadline is not None:
        timeouts = _Timeouts(request.extensions.get("timeout", {}), bounds)
        request.extensions = {**request.extensions, "timeout": timeouts}
    return request


class _Timeouts(dict[str, float | None]):
    """Timeouts that are cut to what is left of the deadline when they are looked up, which is before each operation."""

    def __init__(self, timeouts: Any, bounds: Bounds) -> None:
        super().__init__(timeouts)
        self._bounds = bounds

    def get(self, key: str, default: Any = None) -> Any:
        """The nearer of the timeout and what is left; a spent deadline gives the shortest timeout that is one."""
        own = super().get(key, default)
        bounds = self._bounds
        assert bounds.deadline is not None
        left = max(bounds.deadline - bounds.clock.now(), 1e-6)
        return left if own is None else min(own, left)
