"""What the clients and transports of httpx and httpx2 have in common: each module mixes these with its library's classes."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

from meshlib.mesh import only_by_name, runtime_of
from meshlib.transports.build import async_transport, default_timeout, noticing, sync_transport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.mesh import Mesh
    from meshlib.transports.kit import Kit

__all__ = ["AsyncClientFace", "AsyncTransportFace", "ClientFace", "TransportFace"]


def _options_of(kind: type, positional: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
    """What a transport was given, by name; raises the TypeError that one of the host library's ``kind`` would."""
    wanted = signature(kind)
    wanted.bind(*positional, **options)
    return dict(zip(wanted.parameters, positional, strict=False)) | options


class TransportFace:
    """A blocking transport."""

    kit: ClassVar[Kit]

    def __init__(self, *positional: Any, mesh: Mesh | None = None, **options: Any) -> None:
        only_by_name(self, *positional)
        given = _options_of(self.kit.httpx.HTTPTransport, positional, options)
        self._logic = sync_transport(self.kit, runtime_of(mesh), given)

    def handle_request(self, request: Any) -> Any:
        return self._logic.handle_request(request)

    def close(self) -> None:
        self._logic.close()


class AsyncTransportFace:
    """An async transport."""

    kit: ClassVar[Kit]

    def __init__(self, *positional: Any, mesh: Mesh | None = None, **options: Any) -> None:
        only_by_name(self, *positional)
        given = _options_of(self.kit.httpx.AsyncHTTPTransport, positional, options)
        self._logic = async_transport(self.kit, runtime_of(mesh), given)

    async def handle_async_request(self, request: Any) -> Any:
        return await self._logic.handle_async_request(request)

    async def aclose(self) -> None:
        await self._logic.aclose()


class ClientFace:
    """A blocking client: its transport is the mesh's unless the caller brings one; proxies win over the mesh."""

    transport_class: ClassVar[type]
    _timeout: Any

    def __init__(self, *positional: Any, mesh: Mesh | None = None, **options: Any) -> None:
        only_by_name(self, *positional)
        runtime_of(mesh)  # looked at now, used when a transport is made
        self._mesh = mesh
        self._limited = "limits" in options
        super().__init__(*positional, **options)
        if "timeout" not in options:
            self._timeout = default_timeout(self.transport_class.kit)  # type: ignore[attr-defined]

    def _init_transport(self, transport: Any = None, **options: Any) -> Any:
        if transport is not None:
            return transport
        # What the application did not say is httpx's default, which gives way to what the mesh orders.
        given = {name: value for name, value in options.items() if name != "limits" or self._limited}
        return self.transport_class(mesh=self._mesh, **given)

    def _init_proxy_transport(self, proxy: Any, **options: Any) -> Any:
        inner = super()._init_proxy_transport(proxy, **options)  # type: ignore[misc]
        return noticing(inner, runtime_of(self._mesh), "handle_request")


class AsyncClientFace(ClientFace):
    """An async client."""

    def _init_proxy_transport(self, proxy: Any, **options: Any) -> Any:
        inner = super(ClientFace, self)._init_proxy_transport(proxy, **options)  # type: ignore[misc]
        return noticing(inner, runtime_of(self._mesh), "handle_async_request")
