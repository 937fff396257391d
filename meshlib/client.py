"""``Client`` and ``AsyncClient``: httpx's clients, whose calls go through the mesh; and their transports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Never, TypedDict

import httpcore
import httpx

from meshlib.faces import AsyncClientFace, AsyncTransportFace, ClientFace, TransportFace
from meshlib.hosts.httpx.host import HttpxHost

__all__ = ["AsyncClient", "AsyncTransport", "Client", "Transport"]


if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping
    from typing import Unpack

    from httpx import _types as types

    from meshlib.mesh import Mesh

    class _Shared(TypedDict, total=False):
        """What clients and transports of httpx take alike."""

        verify: ssl.SSLContext | str | bool
        cert: types.CertTypes | None
        trust_env: bool
        http1: bool
        http2: bool
        limits: httpx.Limits
        proxy: types.ProxyTypes | None

    class TransportOptions(_Shared, total=False):
        """What httpx's transports take."""

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
        base_url: httpx.URL | str
        default_encoding: str | Callable[[bytes], str]

    class ClientOptions(_Both, total=False):
        """What ``httpx.Client`` takes."""

        mounts: Mapping[str, httpx.BaseTransport | None] | None
        transport: httpx.BaseTransport | None

    class AsyncClientOptions(_Both, total=False):
        """What ``httpx.AsyncClient`` takes."""

        mounts: Mapping[str, httpx.AsyncBaseTransport | None] | None
        transport: httpx.AsyncBaseTransport | None


class Transport(TransportFace, httpx.BaseTransport):
    """``httpx.Client(transport=meshlib.Transport())``: calls that the mesh knows go through it, others as they are.

    Args:
        mesh: Whose rules hold; without it ``meshlib.default()``.
        options: Those of ``httpx.HTTPTransport``. ``limits`` hold for each endpoint, within the mesh's own
            ``max_connections``, which takes the place of httpx's default of 100. ``retries`` (to connect) hold where the mesh
            orders no retry, and each goes to another endpoint if there is one. ``proxy`` and ``uds`` say where every call goes,
            and win over the mesh.

    Thread-safe. What fails is meshlib's error and httpx's at once (see :mod:`meshlib.errors`).
    """

    host = HttpxHost(httpx, httpcore)

    def __init__(
        self, *positional: Never, mesh: Mesh | None = None, **options: Unpack[TransportOptions]
    ) -> None:
        super().__init__(*positional, mesh=mesh, **options)


class AsyncTransport(AsyncTransportFace, httpx.AsyncBaseTransport):
    """``httpx.AsyncClient(transport=meshlib.AsyncTransport())``; as :class:`Transport`, for any number of loops."""

    host = Transport.host

    def __init__(
        self, *positional: Never, mesh: Mesh | None = None, **options: Unpack[TransportOptions]
    ) -> None:
        super().__init__(*positional, mesh=mesh, **options)


class Client(ClientFace, httpx.Client):  # type: ignore[misc]  # the mixin is of both libraries
    """An ``httpx.Client`` in the mesh. ``mesh=`` names whose rules hold; all other arguments are httpx's.

    A ``transport=`` of the caller's own is used as it is, without the mesh. Proxies and ``mounts`` win over the mesh.
    Thread-safe as httpx's is.
    """

    transport_class = Transport

    def __init__(
        self, *positional: Never, mesh: Mesh | None = None, **options: Unpack[ClientOptions]
    ) -> None:
        super().__init__(*positional, mesh=mesh, **options)


class AsyncClient(AsyncClientFace, httpx.AsyncClient):  # type: ignore[misc]  # the mixin is of both libraries
    """An ``httpx.AsyncClient`` in the mesh; as :class:`Client`."""

    transport_class = AsyncTransport

    def __init__(
        self, *positional: Never, mesh: Mesh | None = None, **options: Unpack[AsyncClientOptions]
    ) -> None:
        super().__init__(*positional, mesh=mesh, **options)
