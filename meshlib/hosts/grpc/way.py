"""How a connection to an endpoint is made where the mesh's TLS holds: the place and the context of its tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from meshlib.hosts.endpoints import server_name, socket_options
from meshlib.hosts.grpc.tunnel import Tunnel, tunnel_to
from meshlib.hosts.runtime import context_for
from meshlib.wire.dial import Place

if TYPE_CHECKING:
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.cluster import Cluster
    from meshlib.model.tls import Tls

__all__ = ["Way", "way_to"]


class Way(NamedTuple):
    """How the mesh demands that connections to an endpoint are made. ``seconds``: at most; ``epoch``: of the files of TLS."""

    place: Place
    seconds: float | None
    epoch: int

    def tunnel(self) -> Tunnel:
        """For one user of it. Raises ConfigError."""
        return tunnel_to(self.place, self.seconds, self.epoch)

    @property
    def stale(self) -> bool:
        """Whether files of TLS changed since."""
        return bool(self.epoch != _epoch(self.place.context))


def way_to(tls: Tls, endpoint: LiveEndpoint, cluster: Cluster, authority: str) -> Way:
    """To ``endpoint``, for channels whose calls have ``authority``. Raises ConfigError."""
    address, connecting = endpoint.address, cluster.connecting
    context = context_for(tls, http2=True)
    epoch = _epoch(context)  # before the first handshake: files that change in it are of the next
    place = Place(
        host="" if address.unix else address.host,
        port=address.port or 443,
        uds=address.host if address.unix else None,
        context=context,
        server_hostname=server_name(tls, endpoint, authority.rpartition(":")[0] or authority),
        http1=False,
        http2=True,
        sources=connecting.sources,
        socket_options=socket_options(connecting, address),
        keepalive=connecting.keepalive,
    )
    return Way(place, cluster.connect_timeout, epoch)


def _epoch(context: Any) -> int:
    return getattr(context, "epoch", 0)
