"""Connectors: ``Connector`` brings the mesh to a plain ``aiohttp.ClientSession``; ``adopt`` teaches any TCP connector to go
where attempts go.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from meshlib.core.effects import Finish, Pass, Reply, Send, Wait
from meshlib.hosts.info import attach
from meshlib.interceptors import CallPath
from meshlib.mesh import runtime_of
from meshlib.model.call import CallOptions, Outcome, OutcomeKind
from meshlib.runtime.signal import bound
from meshlib_aiohttp.calls import Performance, known, refusal
from meshlib_aiohttp.failures import OUTCOMES, is_outcome
from meshlib_aiohttp.lanes import LEG, canned, lanes_of
from meshlib_aiohttp.messages import edited_message, headers_of, write

if TYPE_CHECKING:
    from meshlib.core.effects import Effect
    from meshlib.core.resolution import Resolution
    from meshlib.mesh import Mesh
    from meshlib.runtime.runtime import Runtime

__all__ = ["Connector", "adopt", "call_path", "connector"]

_NO_RETRY = CallOptions(retry=False)

#: Tools that replace ``ClientSession._request`` stand above ours; left are those beneath.
call_path = CallPath((aiohttp.TCPConnector, "connect"))


def connector(mesh: Mesh | None = None, **options: Any) -> Connector:
    """A connector for ``aiohttp.ClientSession``. ``options`` are those of ``aiohttp.TCPConnector``."""
    return Connector(mesh=mesh, **options)


class Connector(aiohttp.TCPConnector):
    """An ``aiohttp.TCPConnector`` that connects to the endpoints of the mesh.

    In a plain ``aiohttp.ClientSession`` each call is one attempt of a call plan: routed, rewritten, balanced, bounded by
    the route's timeout and the deadline, counted by breakers and outlier detection; ordered responses are given. There
    are no retries other than aiohttp's own, once after a broken connection where the method allows it.
    ``meshlib_aiohttp.ClientSession`` retries. What times out while connecting is aiohttp's ``ConnectionTimeoutError`` there,
    and meshlib's error is its cause.
    """

    def __init__(self, *, mesh: Mesh | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._mesh_runtime = runtime_of(mesh)

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        leg = getattr(req, LEG, None)
        if leg is not None:
            return await leg.connect(self, super().connect, req, traces, timeout)
        runtime = self._mesh_runtime()
        if runtime.config.disabled or req.proxy is not None or call_path.intercepted():
            return await super().connect(req, traces, timeout)
        wait = timeout.sock_connect or timeout.connect or 5.0
        resolution = await known(runtime, req, min(wait, 5.0))
        if resolution.via == "direct":
            return await super().connect(req, traces, timeout)
        if resolution.via != "mesh":
            raise refusal(resolution, req)
        alone = _Alone(self, runtime, resolution, req)
        return await alone.connect(super().connect, traces, timeout)

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        leg = getattr(req, LEG, None)
        if leg is None:
            return await super()._create_connection(req, traces, timeout)
        return await leg.create(self, super()._create_connection, req, traces, timeout)


def adopt(found: Any) -> bool:
    """Make a connector go where attempts go; whether it can. Calls that are no attempts go through it as ever."""
    if isinstance(found, Connector) or "_meshlib_adopted" in getattr(found, "__dict__", ()):
        return True
    if not isinstance(found, aiohttp.TCPConnector):
        return False
    connect, create = found.connect, found._create_connection

    async def through(req: Any, traces: Any, timeout: Any) -> Any:
        leg = getattr(req, LEG, None)
        if leg is None:
            return await connect(req, traces, timeout)
        return await leg.connect(found, connect, req, traces, timeout)

    async def made(req: Any, traces: Any, timeout: Any) -> Any:
        leg = getattr(req, LEG, None)
        if leg is None:
            return await create(req, traces, timeout)
        return await leg.create(found, create, req, traces, timeout)

    found.__dict__.update(connect=through, _create_connection=made, _meshlib_adopted=True)
    return True


class _Alone:
    """A call of a session that knows nothing of the mesh: one attempt, of which the connector sees the connection."""

    def __init__(self, owner: Connector, runtime: Runtime, resolution: Resolution, request: Any) -> None:
        self._owner = owner
        self._runtime = runtime
        self._request = request
        self._response: Any = None
        self._since = 0.0
        # A copy: aiohttp puts the response on the request, and the connection, which holds the call, must not hold that.
        asked = copy.copy(request)
        self._call = Performance(
            runtime, resolution, asked, None, owner, options=_NO_RETRY, wait=5.0, resend=False
        )

    async def connect(self, original: Any, traces: Any, timeout: Any) -> Any:
        call = self._call
        try:
            effect = call.plan.start(call.now())
            while isinstance(effect, Wait):
                await call.changed(effect.until)
                effect = call.plan.woke(call.now())
            if isinstance(effect, Send):
                found = await self._dial(effect, original, traces, timeout)
                if not isinstance(found, Finish):
                    return found
                effect = found
        except BaseException as error:
            call.plan.cancel(Outcome(OutcomeKind.CANCELLED, error=error), call.now())
            raise
        return await self._end(effect, original, traces, timeout)

    async def _end(self, effect: Effect, original: Any, traces: Any, timeout: Any) -> Any:
        call = self._call
        call.plan.close(call.now())
        if isinstance(effect, Pass):
            return await original(self._request, traces, timeout)
        assert isinstance(effect, Finish | Reply)
        info = call.plan.info(call.now())
        response = call.ordered(effect, info)
        self._request.response_class = partial(_with_info, self._request.response_class, info)
        return canned(self._owner, self._request, response)

    async def _dial(self, effect: Send, original: Any, traces: Any, timeout: Any) -> Any:
        """The connection, or how the plan ends."""
        call = self._call
        self._since = call.now()
        call.started(effect)
        call.begin(effect)
        leg = lanes_of(self._owner).leg(self._runtime, effect)
        setattr(self._request, LEG, leg)
        left = None if effect.deadline is None else max(0.0, effect.deadline - call.now())
        within = bound(self._runtime.clock, left)
        call.leg = leg
        try:
            async with within:
                connection = await leg.connect(self._owner, original, self._request, traces, timeout)
        except OUTCOMES as error:
            if isinstance(error, TimeoutError) and not within.expired():
                error = aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._request.url}")
            return call.plan.outcome(call.failed(effect, error, self._since), call.now())
        finally:
            delattr(self._request, LEG)
        write(self._request, effect.head)
        self._request.response_class = partial(self._respond, self._request.response_class)
        protocol: Any = connection.protocol
        call.hold(connection)
        protocol.read = partial(self._read, effect, protocol)
        return connection

    def _respond(self, response_class: Any, *args: Any, **options: Any) -> Any:
        self._response = response_class(*args, **options)
        return self._response

    async def _read(self, effect: Send, protocol: Any) -> Any:
        """The response's head, of which the plan hears."""
        call = self._call
        try:
            message, body = await type(protocol).read(protocol)
        except BaseException as error:
            del protocol.read
            self._failed(effect, error)
            raise
        if 100 <= message.code < 200 and message.code != 101:
            return message, body
        del protocol.read
        outcome = call.arrived(effect, message.code, headers_of(message.headers.items()), self._since)
        call.plan.outcome(outcome, call.now())
        edited = call.plan.response_headers(headers_of(message.headers.items()))
        if edited is not None:
            message = edited_message(message, edited)
        call.watch(body, message.code)
        if self._response is not None:
            attach(self._response, call.plan.info(call.now()))
            self._response = None
        return message, body

    def _failed(self, effect: Send, error: BaseException) -> None:
        call = self._call
        if isinstance(error, HttpProcessingError) or (
            isinstance(error, OUTCOMES) and (call.expired or is_outcome(error))
        ):
            end = call.plan.outcome(call.failed(effect, error, self._since), call.now())
            if isinstance(end, Finish) and not isinstance(error, HttpProcessingError):
                raise call.error(end, call.plan.info(call.now())) from error
        else:
            call.plan.cancel(Outcome(OutcomeKind.CANCELLED, sent=True, error=error), call.now())
        attach(error, call.plan.info(call.now()))


def _with_info(response_class: Any, info: Any, *args: Any, **options: Any) -> Any:
    response = response_class(*args, **options)
    attach(response, info)
    return response
