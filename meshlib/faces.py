"""What the clients and transports of httpx and httpx2 have in common: each module mixes these with its library's classes."""

from __future__ import annotations

from inspect import signature
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

from meshlib.hosts.httpx.transport import async_caller, caller, default_timeout, elsewhere, noticing, plain
from meshlib.mesh import only_by_name, runtime_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.hosts.httpx.host import HttpxHost
    from meshlib.mesh import Mesh

__all__ = ["AsyncClientFace", "AsyncTransportFace", "ClientFace", "TransportFace"]


def _options_of(kind: type, positional: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
    """What a transport was given, by name; raises the TypeError that one of the host library's ``kind`` would."""
    wanted = signature(kind)
    wanted.bind(*positional, **options)
    return dict(zip(wanted.parameters, positional, strict=False)) | options


class TransportFace:
    """A blocking transport."""

    host: ClassVar[HttpxHost]

    def __init__(self, *positional: Any, mesh: Mesh | None = None, **options: Any) -> None:
        only_by_name(self, *positional)
        given = _options_of(self.host.httpx.HTTPTransport, positional, options)
        runtime = runtime_of(mesh)
        if why := elsewhere(given):
            other = plain(self.host.httpx.HTTPTransport, given)
            noticing(self.host, other, runtime, "handle_request", why)
            self._handle, self._close = other.handle_request, other.close
        else:
            self._caller = made = caller(self.host, runtime, given)
            self._handle, self._close = made.call, made.close

    def handle_request(self, request: Any) -> Any:
        return self._handle(request)

    def close(self) -> None:
        self._close()


class AsyncTransportFace:
    """An async transport."""

    host: ClassVar[HttpxHost]

    def __init__(self, *positional: Any, mesh: Mesh | None = None, **options: Any) -> None:
        only_by_name(self, *positional)
        given = _options_of(self.host.httpx.AsyncHTTPTransport, positional, options)
        runtime = runtime_of(mesh)
        if why := elsewhere(given):
            other = plain(self.host.httpx.AsyncHTTPTransport, given)
            noticing(self.host, other, runtime, "handle_async_request", why)
            self._handle, self._close = other.handle_async_request, other.aclose
        else:
            self._caller = made = async_caller(self.host, runtime, given)
            self._handle, self._close = made.call, made.aclose

    async def handle_async_request(self, request: Any) -> Any:
        return await self._handle(request)

    async def aclose(self) -> None:
        await self._close()


class ClientFace:
    """A blocking client: its transport is the mesh's unless the caller brings one; proxies win over the mesh."""

    transport_class: ClassVar[type]
    #: Whether what the library does at each call, and need not, is left out (:mod:`meshlib.hosts.httpx.shortcuts`).
    shortcuts = True
    _timeout: Any

    def __init__(self, *positional: Any, mesh: Mesh | None = None, **options: Any) -> None:
        only_by_name(self, *positional)
        runtime_of(mesh)  # looked at now, used when a transport is made
        self._mesh = mesh
        self._limited = "limits" in options
        super().__init__(*positional, **options)
        if "timeout" not in options:
            self._timeout = default_timeout(self.transport_class.host.httpx)  # type: ignore[attr-defined]

    def _init_transport(self, transport: Any = None, **options: Any) -> Any:
        if transport is not None:
            return transport
        # What the application did not say is httpx's default, which gives way to what the mesh orders.
        given = {name: value for name, value in options.items() if name != "limits" or self._limited}
        return self.transport_class(mesh=self._mesh, **given)

    def _init_proxy_transport(self, proxy: Any, **options: Any) -> Any:
        inner = super()._init_proxy_transport(proxy, **options)  # type: ignore[misc]
        return noticing(self.transport_class.host, inner, runtime_of(self._mesh), "handle_request")  # type: ignore[attr-defined]

    if not TYPE_CHECKING:  # the library's own say what they take

        def build_request(self, method: str, url: Any, **options: Any) -> Any:
            usual = super().build_request
            short = self.transport_class.host.shortcuts
            plain = None
            if self.shortcuts and type(url) is str and short.are_own(usual, self._merge_url):
                plain = short.url(url)
            if plain is None:
                return usual(method, url, **options)
            if not short.is_bodiless(self, method, options):
                return usual(method, plain, **options)
            return short.request(self, method, plain, options)

        def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            usual = super().send
            short = self.transport_class.host.shortcuts
            if stream or not self.shortcuts or not short.is_plain(self, request, options, usual):
                return usual(request, stream=stream, **options)
            self._set_timeout(request)
            follow = short.follows(self, options)
            response = self._send_handling_redirects(request, follow_redirects=follow, history=[])
            try:
                if not short.is_whole(response, short.timed):
                    response.read()
                    return response
                response.is_stream_consumed = True
                content = response.stream.read()
                response._num_bytes_downloaded = len(content)
                response.is_closed = True
                response.stream.close()
                response._content = content
                return response
            except BaseException as error:
                if isinstance(error, short.error):
                    error.request = response.request
                response.close()
                raise

        def _send_single_request(self, request: Any) -> Any:
            usual = super()._send_single_request
            short = self.transport_class.host.shortcuts
            if not self.shortcuts or not short.may_send(request, usual):
                return usual(request)
            transport = self._transport_for_url(request.url)
            started = perf_counter()
            try:
                response = transport.handle_request(request)
            except short.error as error:
                error.request = request
                raise
            return short.arrived(self, request, response, short.timed(response.stream, response, started))


class AsyncClientFace(ClientFace):
    """An async client."""

    def _init_proxy_transport(self, proxy: Any, **options: Any) -> Any:
        inner = super(ClientFace, self)._init_proxy_transport(proxy, **options)  # type: ignore[misc]
        return noticing(self.transport_class.host, inner, runtime_of(self._mesh), "handle_async_request")  # type: ignore[attr-defined]

    if not TYPE_CHECKING:

        async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            usual = super(ClientFace, self).send
            short = self.transport_class.host.shortcuts
            if stream or not self.shortcuts or not short.is_plain(self, request, options, usual):
                return await usual(request, stream=stream, **options)
            self._set_timeout(request)
            follow = short.follows(self, options)
            response = await self._send_handling_redirects(request, follow_redirects=follow, history=[])
            try:
                if not short.is_whole(response, short.async_timed):
                    await response.aread()
                    return response
                response.is_stream_consumed = True
                content = await response.stream.aread()
                response._num_bytes_downloaded = len(content)
                response.is_closed = True
                await response.stream.aclose()
                response._content = content
                return response
            except BaseException as error:
                if isinstance(error, short.error):
                    error.request = response.request
                await response.aclose()
                raise

        async def _send_single_request(self, request: Any) -> Any:
            usual = super(ClientFace, self)._send_single_request
            short = self.transport_class.host.shortcuts
            if not self.shortcuts or not short.may_send(request, usual, awaited=True):
                return await usual(request)
            transport = self._transport_for_url(request.url)
            started = perf_counter()
            try:
                response = await transport.handle_async_request(request)
            except short.error as error:
                error.request = request
                raise
            timed = short.async_timed(response.stream, response, started)
            return short.arrived(self, request, response, timed)
