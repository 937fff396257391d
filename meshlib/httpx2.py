"""The same clients and transports on httpx2, which has the shape of httpx and classes of its own."""

from __future__ import annotations

from meshlib.extras import needed
from meshlib.faces import AsyncClientFace, AsyncTransportFace, ClientFace, TransportFace
from meshlib.transports.kit import Kit

with needed("httpx2", "meshlib.httpx2"):
    import httpcore2
    import httpx2

__all__ = ["AsyncClient", "AsyncTransport", "Client", "Transport"]


class Transport(TransportFace, httpx2.BaseTransport):
    """As :class:`meshlib.Transport`, for ``httpx2.Client``."""

    kit = Kit(httpx2, httpcore2)


class AsyncTransport(AsyncTransportFace, httpx2.AsyncBaseTransport):
    """As :class:`meshlib.AsyncTransport`, for ``httpx2.AsyncClient``."""

    kit = Transport.kit


class Client(ClientFace, httpx2.Client):  # type: ignore[misc]  # the mixin is of both libraries
    """As :class:`meshlib.Client`: an ``httpx2.Client`` in the mesh."""

    transport_class = Transport


class AsyncClient(AsyncClientFace, httpx2.AsyncClient):  # type: ignore[misc]  # the mixin is of both libraries
    """As :class:`meshlib.AsyncClient`: an ``httpx2.AsyncClient`` in the mesh."""

    transport_class = AsyncTransport
