"""``ClientSession``: aiohttp's session, whose calls run through the whole call plan.

aiohttp builds a chain of middlewares around connecting and sending. Ours is the innermost: what the application put there
sees one call, however often it was tried.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import aiohttp

from meshlib.errors import MeshError
from meshlib.mesh import only_by_name, runtime_of
from meshlib.model.call import CallOptions
from meshlib_aiohttp.connectors import CHOSEN, Connector, adopt

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from typing import Self, TypedDict, Unpack

    from aiohttp.client import _RequestContextManager, _RequestOptions
    from aiohttp.typedefs import LooseCookies, LooseHeaders, StrOrURL

    from meshlib.mesh import Mesh
    from meshlib.runtime.runtime import Runtime

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


__all__ = ["ClientSession", "through"]

_NO_OPTIONS = CallOptions()
#: What aiohttp's session hands to the connector that it makes.
_OF_CONNECTORS = frozenset({"loop", "ssl_shutdown_timeout"})


class _OneCall:
    """The middleware of one call; with redirects it is asked for each of them. ``chosen``: see ``connectors.CHOSEN``."""

    __slots__ = ("_chosen", "_failed")

    def __init__(self, chosen: tuple[Callable[[], Runtime], CallOptions]) -> None:
        self._chosen = chosen
        self._failed: tuple[Any, BaseException] | None = None

    async def __call__(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        failed, self._failed = self._failed, None
        if failed is not None and failed[0] is not request:
            # aiohttp's own second try after a broken connection. The plan has decided that there is none.
            raise failed[1]
        setattr(request, CHOSEN, self._chosen)
        try:
            return await handler(request)
        except MeshError as error:
            self._failed = request, error
            raise


def through(session: Any, options: dict[str, Any], runtime: Callable[[], Runtime]) -> dict[str, Any]:
    """The keyword arguments of ``_request`` for a call through the mesh; ``options`` are those that were given. Raises TypeError for
    ``meshlib=`` that is no CallOptions.
    """
    chosen = options.pop("meshlib", None)
    if chosen is not None and not isinstance(chosen, CallOptions):
        raise TypeError(f"meshlib=: expected meshlib.CallOptions, not {type(chosen).__name__}")
    # An instrumentation (ddtrace's) may have put an object of its own around it.
    if not adopt(getattr(session._connector, "__wrapped__", session._connector)):
        return options
    middlewares = options.get("middlewares")
    if middlewares is None:
        middlewares = session._middlewares
    mine = _OneCall((runtime, _NO_OPTIONS if chosen is None else chosen))
    return {**options, "middlewares": (*middlewares, mine)}


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
                given: dict[str, Any] = {**options}
                handed = {name: value for name, value in given.items() if name in _OF_CONNECTORS}
                options["connector"] = Connector(mesh=mesh, **handed)
            super().__init__(base_url, **options)

        async def _request(self, method: str, str_or_url: Any, **options: Any) -> Any:
            return await super()._request(method, str_or_url, **through(self, options, self._mesh_runtime))
