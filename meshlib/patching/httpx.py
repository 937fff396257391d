"""httpx and httpx2: the transports that their clients make by themselves go through the mesh.

A transport of the application's own, a proxy's, and one to a Unix socket are left alone.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import TYPE_CHECKING, Any

from meshlib.patched import replace, when_imported
from meshlib.patching.active import OFF, runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["patch"]

_OURS = "_meshlib"
_NOTICE = "_meshlib_notice"
_CORES = {"httpx": ("httpcore", "meshlib.client"), "httpx2": ("httpcore2", "meshlib.httpx2")}


def patch(httpx: ModuleType) -> None:
    """Patch the library."""
    name = httpx.__name__
    core, ours = _CORES[name]
    for kind, pool, method, close in (
        ("HTTPTransport", "ConnectionPool", "handle_request", "close"),
        ("AsyncHTTPTransport", "AsyncConnectionPool", "handle_async_request", "aclose"),
    ):
        cls, shown = getattr(httpx, kind), f"{name}.{kind}"
        face = _Face(ours, kind, pool, method)
        when_imported(core, face.note)
        if method == "handle_request":
            replace(cls, method, face.handle, shown)
            replace(cls, close, face.close, shown)
            replace(cls, "__exit__", face.close, shown)
        else:
            replace(cls, method, face.handle_async, shown)
            replace(cls, close, face.aclose, shown)
            replace(cls, "__aexit__", face.aclose, shown)


class _Face:
    """One transport class of one library."""

    def __init__(self, ours: str, kind: str, pool: str, method: str) -> None:
        self._ours = ours
        self._kind = kind
        self._pool_name = pool
        self._method = method
        self._pool: Any = None

    def note(self, core: ModuleType) -> None:
        """Httpcore is there, and nobody has touched it yet."""
        self._pool = getattr(core, self._pool_name)

    def handle(self, original: Callable[..., Any]) -> Any:
        @functools.wraps(original)
        def handle_request(transport: Any, request: Any) -> Any:
            ours = self._companion(transport, original)
            if ours is None:
                self._notice(transport, request)
                return original(transport, request)
            return ours.call(request)

        return handle_request

    def handle_async(self, original: Callable[..., Any]) -> Any:
        @functools.wraps(original)
        async def handle_async_request(transport: Any, request: Any) -> Any:
            ours = self._companion(transport, original)
            if ours is None:
                self._notice(transport, request)
                return await original(transport, request)
            return await ours.call(request)

        return handle_async_request

    def close(self, original: Callable[..., Any]) -> Any:
        @functools.wraps(original)
        def close(transport: Any, *args: Any, **options: Any) -> Any:
            ours = vars(transport).get(_OURS)
            if ours is not None:
                ours.close()
            return original(transport, *args, **options)

        return close

    def aclose(self, original: Callable[..., Any]) -> Any:
        @functools.wraps(original)
        async def aclose(transport: Any, *args: Any, **options: Any) -> Any:
            ours = vars(transport).get(_OURS)
            if ours is not None:
                await ours.aclose()
            return await original(transport, *args, **options)

        return aclose

    def _notice(self, transport: Any, request: Any) -> None:
        """Say so where a transport of a proxy carries a call to a host of the mesh."""
        state = vars(transport)
        if state.get("_meshlib_plain") or not type(state.get("_pool")).__name__.endswith("Proxy"):
            return
        mesh = runtime()
        if mesh is OFF:
            return
        notice = state.get(_NOTICE)
        if notice is None:
            from meshlib.hosts.httpx.transport import Notice

            host = import_module(self._ours).Transport.host
            notice = state.setdefault(_NOTICE, Notice(host))
        notice.look(mesh, request)

    def _companion(self, transport: Any, original: Callable[..., Any]) -> Any:
        """What carries the transport's calls; None: they are its own."""
        state = vars(transport)
        pool = state.get("_pool")
        if (
            type(pool) is not self._pool
            or state.get("_meshlib_plain")
            or getattr(pool, "_uds", None) is not None
        ):
            return None
        if runtime() is OFF:
            return None
        ours = state.get(_OURS)
        if ours is None:
            # setdefault is atomic: threads that come at once get the same one.
            ours = state.setdefault(_OURS, self._make(transport, pool, original))
        return ours

    def _make(self, transport: Any, pool: Any, original: Callable[..., Any]) -> Any:
        from meshlib.hosts.httpx.transport import around

        host = import_module(self._ours).Transport.host
        return around(host, runtime, pool, functools.partial(original, transport), self._method)
