"""The transports, and how their calls leave."""

from __future__ import annotations

import ssl
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pyqwest
from pyqwest._pyqwest import get_sync_timeout, set_sync_timeout

from meshlib.deadlines import deadline
from meshlib.hosts.base import AsyncBaseWire, BaseWire
from meshlib.hosts.endpoints import WireSettings
from meshlib.hosts.run import Caller
from meshlib.hosts.run_async import AsyncCaller
from meshlib.interceptors import CallPath
from meshlib.mesh import runtime_of
from meshlib.pools import PoolSettings
from meshlib_pyqwest.host import PyqwestHost, read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.mesh import Mesh

__all__ = ["SyncTransport", "Transport"]

#: As of pyqwest's own transports, in seconds.
_TIMEOUTS: Mapping[str, float | None] = {"connect": 30.0, "pool": 30.0}
_SETTINGS = WireSettings(lambda _: ssl.create_default_context(), PoolSettings(keepalive=90.0))


class _Wire(BaseWire):
    def call(self, request: Any, seconds: float | None) -> Any:
        with nullcontext() if seconds is None else set_sync_timeout(seconds):
            return self.own.execute_sync(request)


class _AsyncWire(AsyncBaseWire):
    async def call(self, request: Any) -> Any:
        return await self.own.execute(request)


class _Transport:
    _parts: ClassVar[tuple[Any, Any, Any]]

    def __init__(
        self,
        *,
        mesh: Mesh | None = None,
        direct: Any = None,
        settings: WireSettings | None = None,
        timeouts: Mapping[str, float | None] | None = None,
    ) -> None:
        caller, wire, default = self._parts
        self._timeouts = _TIMEOUTS if timeouts is None else timeouts
        # pyqwest's own types cannot be replaced by a tool: calls come by none.
        wires = partial(wire, settings or _SETTINGS, direct or default())
        self._caller = caller(PyqwestHost(), runtime_of(mesh), wires, CallPath())


class SyncTransport(_Transport):
    """A ``pyqwest.SyncTransport``. Thread-safe.

    Args:
        mesh: Whose rules hold; without it ``meshlib.default()``.
        direct: The transport for calls that are not the mesh's; without it pyqwest's default one.
        settings, timeouts: Of connections to endpoints: pools, TLS of ``https`` URLs; ``connect``, ``pool``, ``read``, ``write``.
    """

    _parts = Caller, _Wire, pyqwest.get_default_sync_transport

    def execute_sync(self, request: pyqwest.SyncRequest) -> pyqwest.SyncResponse:
        """One call, all of it within the ``timeout`` of the client's method."""
        left = get_sync_timeout()
        with nullcontext() if left is None else deadline(max(0.0, left.total_seconds())):
            return self._caller.call(read(request, self._timeouts))  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close what is idle now, and what is in use when it is done."""
        self._caller.close()


class Transport(_Transport):
    """A ``pyqwest.Transport``, for any number of event loops; arguments as of :class:`SyncTransport`."""

    _parts = AsyncCaller, _AsyncWire, pyqwest.get_default_transport

    async def execute(self, request: pyqwest.Request) -> pyqwest.Response:
        """One call."""
        return await self._caller.call(read(request, self._timeouts))  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Close what this loop holds; what is in use closes when it is done."""
        await self._caller.aclose()
