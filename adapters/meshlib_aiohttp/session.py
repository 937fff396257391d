"""``ClientSession``: aiohttp's session, whose calls run through the whole call plan.

aiohttp builds a chain of middlewares around connecting and sending. Ours is the innermost: what the application put there
sees one call, however often it was tried.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client import DEFAULT_TIMEOUT

from meshlib.core.effects import Pass
from meshlib.deadlines import current_deadline
from meshlib.errors import MeshError
from meshlib.mesh import only_by_name, runtime_of
from meshlib.transports.drive import drive_async
from meshlib_aiohttp.calls import Direct, Performance, known, refusal
from meshlib_aiohttp.connectors import Connector, adopt, call_path
from meshlib_aiohttp.messages import options_type, target_of

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from typing import Self, TypedDict, Unpack

    from aiohttp.client import _RequestContextManager, _RequestOptions
    from aiohttp.typedefs import LooseCookies, LooseHeaders, StrOrURL

    from meshlib.core.resolution import Resolution
    from meshlib.mesh import Mesh
    from meshlib.model.call import CallOptions
    from meshlib.runtime.runtime import Runtime
    from meshlib_aiohttp.calls import Handler

if TYPE_CHECKING:

    class RequestOptions(_RequestOptions, total=False):
        """What a call takes."""

        meshlib: CallOptions | None

    class SessionOptions(TypedDict, total=False):
        """What aiohttp's sessions take."""

        connector: aiohttp.BaseConnector | None
        loop: AbstractEventLoop | None
        cookies: LooseCookies | None
        headers: LooseHeaders | None
        proxy: StrOrURL | None
        proxy_auth: aiohttp.BasicAuth | None
        skip_auto_headers: Iterable[str] | None
        auth: aiohttp.BasicAuth | None
        json_serialize: Callable[[Any], str]
        json_serialize_bytes: Callable[[Any], bytes] | None
        request_class: type[aiohttp.ClientRequest]
        response_class: type[aiohttp.ClientResponse]
        ws_response_class: type[aiohttp.ClientWebSocketResponse]
        version: aiohttp.HttpVersion
        cookie_jar: aiohttp.abc.AbstractCookieJar | None
        connector_owner: bool
        raise_for_status: bool | Callable[[aiohttp.ClientResponse], Awaitable[None]]
        read_timeout: float
        conn_timeout: float | None
        timeout: aiohttp.ClientTimeout
        auto_decompress: bool
        trust_env: bool
        requote_redirect_url: bool
        trace_configs: list[aiohttp.TraceConfig] | None
        read_bufsize: int
        max_line_size: int
        max_field_size: int
        max_headers: int
        fallback_charset_resolver: Callable[[aiohttp.ClientResponse, bytes], str]
        middlewares: Sequence[aiohttp.ClientMiddlewareType]
        ssl_shutdown_timeout: float | None


__all__ = ["ClientSession", "OneCall", "patience", "request_through"]

#: How long a call waits for the configuration where its session's timeout is aiohttp's default; httpx's. Seconds.
_PATIENCE = 5.0

_log = logging.getLogger("meshlib")
_noticed: set[str] = set()


def patience(timeout: Any) -> float:
    """Seconds for which a call with this timeout may wait for the control plane: what it may take to connect."""
    if timeout is DEFAULT_TIMEOUT or timeout is None:
        return _PATIENCE
    if not isinstance(timeout, aiohttp.ClientTimeout):
        return float(timeout) if isinstance(timeout, int | float) else _PATIENCE
    given = [
        seconds for seconds in (timeout.sock_connect, timeout.connect, timeout.total) if seconds is not None
    ]
    return min(given, default=_PATIENCE)


class OneCall:
    """The middleware of one call of ``request``: with redirects it is asked for each of them."""

    __slots__ = ("_connector", "_failed", "_options", "_resend", "_runtime", "_wait")

    def __init__(
        self,
        runtime: Callable[[], Runtime],
        connector: Any,
        options: CallOptions,
        *,
        wait: float,
        resend: bool,
    ) -> None:
        self._runtime = runtime
        self._connector = connector
        self._options = options
        self._wait = wait
        self._resend = resend
        self._failed: tuple[Any, BaseException] | None = None

    async def __call__(self, request: Any, handler: Handler) -> Any:
        failed, self._failed = self._failed, None
        if failed is not None and failed[0] is not request:
            # aiohttp's own second try after a broken connection. The plan has decided that there is none.
            raise failed[1]
        try:
            return await self._handle(request, handler)
        except MeshError as error:
            self._failed = request, error
            raise

    async def _handle(self, request: Any, handler: Handler) -> Any:
        runtime = self._runtime()
        if runtime.config.disabled or call_path.intercepted():
            return await handler(request)
        if request.proxy is not None:
            _notice(runtime, request)
            return await handler(request)
        resolution = await known(runtime, request, self._wait)
        if resolution.via == "mesh":
            return await self._call(runtime, resolution, request, handler)
        if resolution.plain:
            return await handler(request)
        if resolution.via != "direct":
            raise refusal(resolution, request)
        return await Direct(runtime, request, resolution.words, current_deadline(runtime.clock)).run(handler)

    async def _call(self, runtime: Runtime, resolution: Resolution, request: Any, handler: Handler) -> Any:
        performance = Performance(
            runtime,
            resolution,
            request,
            handler,
            self._connector,
            options=self._options,
            wait=self._wait,
            resend=self._resend,
        )
        end, response = await drive_async(performance.plan, performance)
        if isinstance(end, Pass):
            performance.plan.close(performance.now())
            reason = "the route goes to a pass-through cluster"
            return await Direct(runtime, request, reason, end.deadline).run(handler)
        return await performance.finish(end, response)


def request_through(session: Any, options: dict[str, Any], runtime: Callable[[], Runtime]) -> dict[str, Any]:
    """The keyword arguments of ``_request`` for a call through the mesh; ``options`` are those that were given."""
    chosen = options_type(options.pop("meshlib", None))
    # An instrumentation (ddtrace's) may have put an object of its own around it.
    connector = getattr(session._connector, "__wrapped__", session._connector)
    if not adopt(connector):
        return options
    middlewares = options.get("middlewares")
    if middlewares is None:
        middlewares = session._middlewares
    wait = patience(options.get("timeout", session._timeout))
    mine = OneCall(runtime, connector, chosen, wait=wait, resend=session._retry_connection)
    return {**options, "middlewares": (*middlewares, mine)}


def _notice(runtime: Runtime, request: Any) -> None:
    """Say once a host that it is of the mesh, but a proxy carries its calls."""
    asked = target_of(request)
    if asked[3] in _noticed or runtime.view.resolve(*asked).via != "mesh":
        return
    _noticed.add(asked[3])
    _log.warning(
        "meshlib: %s is of the mesh, but a proxy is set for it and wins (argument, session or environment); "
        "unset it or add the host to NO_PROXY to call it through the mesh",
        asked[3],
    )


with warnings.catch_warnings():
    # aiohttp advises against subclasses because they depend on its inner names; this one does, and is tested with them.
    warnings.simplefilter("ignore", DeprecationWarning)

    class ClientSession(aiohttp.ClientSession):
        """An ``aiohttp.ClientSession`` in the mesh. All arguments but ``mesh`` are aiohttp's.

        Args:
            mesh: Whose rules hold; without it ``meshlib.default()``.
            options: ``connector=`` may be any ``TCPConnector``, whose settings then hold for connections to endpoints.
                With another kind of connector, calls do not go through the mesh.

        A call may say ``meshlib=meshlib.CallOptions(…)``. As aiohttp's, a session belongs to one event loop.
        """

        ATTRS = aiohttp.ClientSession.ATTRS | {"_mesh_runtime"}

        if TYPE_CHECKING:
            # aiohttp says the same of a session and options of its own, which know no `meshlib=`.
            async def __aenter__(self) -> Self: ...

            def request(
                self, method: str, url: StrOrURL, **options: Unpack[RequestOptions]
            ) -> _RequestContextManager: ...

            def get(self, url: StrOrURL, **options: Unpack[RequestOptions]) -> _RequestContextManager: ...

            def options(self, url: StrOrURL, **options: Unpack[RequestOptions]) -> _RequestContextManager: ...

            def head(self, url: StrOrURL, **options: Unpack[RequestOptions]) -> _RequestContextManager: ...

            def post(self, url: StrOrURL, **options: Unpack[RequestOptions]) -> _RequestContextManager: ...

            def put(self, url: StrOrURL, **options: Unpack[RequestOptions]) -> _RequestContextManager: ...

            def patch(self, url: StrOrURL, **options: Unpack[RequestOptions]) -> _RequestContextManager: ...

            def delete(self, url: StrOrURL, **options: Unpack[RequestOptions]) -> _RequestContextManager: ...

        def __init__(
            self,
            base_url: StrOrURL | None = None,
            *,
            mesh: Mesh | None = None,
            **options: Unpack[SessionOptions],
        ) -> None:
            only_by_name(self, base_url)
            self._mesh_runtime = runtime_of(mesh)
            if options.get("connector") is None:
                loop = options.get("loop")
                options["connector"] = (
                    Connector(mesh=mesh) if loop is None else Connector(mesh=mesh, loop=loop)
                )
            super().__init__(base_url, **options)

        async def _request(self, method: str, str_or_url: Any, **options: Any) -> Any:
            through = request_through(self, options, self._mesh_runtime)
            return await super()._request(method, str_or_url, **through)
