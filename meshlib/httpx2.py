"""The same clients and transports on httpx2, which has the shape of httpx and classes of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Never, TypedDict

from meshlib.extras import needed
from meshlib.faces import AsyncClientFace, AsyncTransportFace, ClientFace, TransportFace
from meshlib.hosts.httpx.host import HttpxHost

with needed("httpx2", "meshlib.httpx2"):
    import httpcore2
    import httpx2

__all__ = ["AsyncClient", "AsyncTransport", "Client", "Transport"]


if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping
    from typing import Unpack

    from httpx2 import _types as types

    from meshlib.mesh import Mesh

    class _Shared(TypedDict, total=False):
        """What clients and transports of httpx2 take alike."""

        verify: ssl.SSLContext | str | bool
        cert: types.CertTypes | None
        trust_env: bool
        http1: bool
        http2: bool
        limits: httpx2.Limits
        proxy: types.ProxyTypes | None

    class TransportOptions(_Shared, total=False):
        """What httpx2's transports take."""

        uds: str | None
        local_address: str | None
        retries: int
        socket_options: Iterable[Any] | None

    class _Both(_Shared, total=False):
        auth: types.AuthTypes | None
        params: types.QueryParamTypes | None
        headers: types.HeaderTypes | None
        cookies: types.CookieTypes | None
        timeout: types.TimeoutTypes
        follow_redirects: bool
        max_redirects: int
        event_hooks: Mapping[str, list[Callable[..., Any]]] | None
        base_url: httpx2.URL | str
        default_encoding: str | Callable[[bytes], str | None]

    class ClientOptions(_Both, total=False):
        """What ``httpx2.Client`` takes."""

        mounts: Mapping[str, httpx2.BaseTransport | None] | None
        transport: httpx2.BaseTransport | None

    class AsyncClientOptions(_Both, total=False):
        """What ``httpx2.AsyncClient`` takes."""

        mounts: Mapping[str, httpx2.AsyncBaseTransport | None] | None
        transport: httpx2.AsyncBaseTransport | None


class Transport(TransportFace, httpx2.BaseTransport):
    """As :class:`meshlib.Transport`, for ``httpx2.Client``."""

    host = HttpxHost(httpx2, httpcore2)

    def __init__(
        self, *positional: Never, mesh: Mesh | None = None, **options: Unpack[TransportOptions]
    ) -> None:
        super().__init__(*positional, mesh=mesh, **options)


class AsyncTransport(AsyncTransportFace, httpx2.AsyncBaseTransport):
    """As :class:`meshlib.AsyncTransport`, for ``httpx2.AsyncClient``."""

    host = Transport.host

    def __init__(
        self, *positional: Never, mesh: Mesh | None = None, **options: Unpack[TransportOptions]
    ) -> None:
        super().__init__(*positional, mesh=mesh, **options)


class Client(ClientFace, httpx2.Client):  # type: ignore[misc]  # the mixin is of both libraries
    """As :class:`meshlib.Client`: an ``httpx2.Client`` in the mesh."""

    transport_class = Transport

    def __init__(
        self, *positional: Never, mesh: Mesh | None = None, **options: Unpack[ClientOptions]
    ) -> None:
        super().__init__(*positional, mesh=mesh, **options)


class AsyncClient(AsyncClientFace, httpx2.AsyncClient):  # type: ignore[misc]  # the mixin is of both libraries
    """As :class:`meshlib.AsyncClient`: an ``httpx2.AsyncClient`` in the mesh."""

    transport_class = AsyncTransport

    def __init__(
        self, *positional: Never, mesh: Mesh | None = None, **options: Unpack[AsyncClientOptions]
    ) -> None:
        super().__init__(*positional, mesh=mesh, **options)
