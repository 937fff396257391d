"""Connectors, which carry the calls of aiohttp's sessions: ``Connector`` brings the mesh to any session, ``adopt`` to ours any TCP
connector.

aiohttp's session asks its connector for a connection and has the request sent on it. For a call that may be the mesh's it gets
an :class:`~meshlib_aiohttp.host.Asked` in the place of a connection, and what it sends on that is made by the call engine.
"""

from __future__ import annotations

import logging
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp

from meshlib.errors import MeshError
from meshlib.hosts.run_async import AsyncCaller
from meshlib.interceptors import CallPath
from meshlib.mesh import runtime_of
from meshlib.model.call import CallOptions
from meshlib_aiohttp.errors import named
from meshlib_aiohttp.host import AiohttpHost, Asked
from meshlib_aiohttp.messages import place_of
from meshlib_aiohttp.wire import AiohttpWire

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.hosts.protocol import AsyncWire
    from meshlib.mesh import Mesh
    from meshlib.runtime.runtime import Runtime

    _Runtime = Callable[[], Runtime]

__all__ = ["CHOSEN", "Calls", "Connector", "adopt", "connector"]

#: The attribute of a request by which a session of ours says whose rules hold, and the call's options.
CHOSEN = "_meshlib_chosen"
_CALLS = "_meshlib_calls"
#: A session that knows nothing of the mesh repeats by itself.
_ONE_ATTEMPT = CallOptions(retry=False)

_log = logging.getLogger("meshlib")
_HOST = AiohttpHost()
#: Tools that replace ``ClientSession._request`` stand above ours; left are those beneath.
_PATH = CallPath((aiohttp.TCPConnector, "connect"))


class Calls:
    """The calls that come to one connector. Belongs to its event loop.

    ``default``: what holds for requests of sessions that are not ours; None: they are aiohttp's alone.
    """

    def __init__(self, owner: Any, default: _Runtime | None) -> None:
        self._owner = weakref.ref(owner)
        self._default = None if default is None else (default, _ONE_ATTEMPT)
        self._callers: dict[_Runtime, AsyncCaller[Asked, Any]] = {}
        self._wires: list[AiohttpWire] = []
        self._noticed: set[str] = set()

    async def connect(self, own: Callable[..., Any], request: Any, traces: Any, timeout: Any) -> Any:
        """``connect`` of the connector; ``own``: aiohttp's."""
        chosen = request.__dict__.get(CHOSEN, self._default)
        # A request that no session makes is sent by whoever asks for the connection.
        if chosen is None or not isinstance(request.session, aiohttp.ClientSession):
            return await own(request, traces, timeout)
        runtime, options = chosen
        if request.proxy is not None:
            if chosen is not self._default:
                self._notice(runtime(), request)
            return await own(request, traces, timeout)
        request.send = partial(self._send, runtime)
        return Asked(request, traces, timeout, own, options)

    def close(self) -> None:
        """Its connector closes: what is idle closes now, and what is in use is aiohttp's to close, and to wait for."""
        owner: Any = self._owner()
        for wire in self._wires:
            owner._acquired |= wire.protocols
            wire.close()

    async def _send(self, runtime: _Runtime, asked: Asked) -> Any:
        """What aiohttp has sent on the connection that it was given: the whole call, up to its response's head."""
        caller = self._callers.get(runtime)
        if caller is None:
            caller = self._callers[runtime] = AsyncCaller(_HOST, runtime, self._wire, _PATH)
        try:
            response = await caller.call(asked)
        except MeshError as error:
            raise named(error, asked.request) from error.__cause__
        response.start = _started
        return response

    def _wire(self, runtime: Runtime) -> AsyncWire[Asked, Any]:
        wire = AiohttpWire(self._owner, runtime)
        self._wires.append(wire)
        return wire

    def _notice(self, runtime: Runtime, request: Any) -> None:
        """Say once of a host that it is of the mesh, but a proxy carries its calls."""
        place = place_of(request)
        if runtime.config.disabled or place[3] in self._noticed or runtime.view.resolve(*place).via != "mesh":
            return
        self._noticed.add(place[3])
        _log.warning(
            "meshlib: %s is of the mesh, but a proxy is set for it and wins (argument, session or environment); "
            "unset it or add the host to NO_PROXY to call it through the mesh",
            place[3],
        )


async def _started(_: object) -> None:
    """The response's head is there."""


def connector(mesh: Mesh | None = None, **options: Any) -> Connector:
    """A connector for ``aiohttp.ClientSession``. ``options`` are those of ``aiohttp.TCPConnector``."""
    return Connector(mesh=mesh, **options)


class Connector(aiohttp.TCPConnector):
    """An ``aiohttp.TCPConnector`` that connects to the endpoints of the mesh.

    In a plain ``aiohttp.ClientSession`` each call is one attempt of a call plan: routed, rewritten, balanced, bounded by
    the route's timeout and the deadline, counted by breakers and outlier detection; ordered responses are given. There
    are no retries other than aiohttp's own, once after a broken connection where the method allows it.
    ``meshlib_aiohttp.ClientSession`` retries.
    """

    def __init__(self, *, mesh: Mesh | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._mesh_runtime = runtime_of(mesh)
        self._meshlib_calls = Calls(self, self._mesh_runtime)

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        return await self._meshlib_calls.connect(super().connect, req, traces, timeout)

    def close(self, **options: Any) -> Any:
        self._meshlib_calls.close()
        return super().close(**options)


def adopt(found: Any) -> bool:
    """Have a connector carry the calls of our sessions; whether it can. Other calls go through it as ever."""
    if _CALLS in getattr(found, "__dict__", ()):
        return True
    if not isinstance(found, aiohttp.TCPConnector) or "connect" in vars(
        found
    ):  # a mock, which stays in charge
        return False
    calls, itself = Calls(found, None), weakref.ref(found)

    async def own(req: Any, traces: Any, timeout: Any) -> Any:
        connector: Any = itself()
        return await type(connector).connect(connector, req, traces, timeout)

    def close(**options: Any) -> Any:
        calls.close()
        connector: Any = itself()
        return type(connector).close(connector, **options)

    vars(found).update({_CALLS: calls, "connect": partial(calls.connect, own), "close": close})
    return True
