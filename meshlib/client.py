"""``Client`` and ``AsyncClient``: httpx's clients, whose calls go through the mesh; and their transports."""

from __future__ import annotations

import httpcore
import httpx

from meshlib.faces import AsyncClientFace, AsyncTransportFace, ClientFace, TransportFace
from meshlib.transports.kit import Kit

__all__ = ["AsyncClient", "AsyncTransport", "Client", "Transport"]


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

    kit = Kit(httpx, httpcore)


class AsyncTransport(AsyncTransportFace, httpx.AsyncBaseTransport):
    """``httpx.AsyncClient(transport=meshlib.AsyncTransport())``; as :class:`Transport`, for any number of loops."""

    kit = Transport.kit


class Client(ClientFace, httpx.Client):  # type: ignore[misc]  # the mixin is of both libraries
    """An ``httpx.Client`` in the mesh. ``mesh=`` names whose rules hold; all other arguments are httpx's.

    A ``transport=`` of the caller's own is used as it is, without the mesh. Proxies and ``mounts`` win over the mesh.
    Thread-safe as httpx's is.
    """

    transport_class = Transport


class AsyncClient(AsyncClientFace, httpx.AsyncClient):  # type: ignore[misc]  # the mixin is of both libraries
    """An ``httpx.AsyncClient`` in the mesh; as :class:`Client`."""

    transport_class = AsyncTransport
