"""How a connection to an endpoint is made where the mesh's TLS holds: the place and the context of its tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshlib.hosts.endpoints import place_to
from meshlib.hosts.grpc.tunnel import Tunnel, tunnel_to
from meshlib.hosts.tls import made_context, names_for
from meshlib.wire.dial import Place

if TYPE_CHECKING:
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import Leaf
    from meshlib.model.tls import Tls
    from meshlib.runtime.tls import MeshContext
    from meshlib.runtime.worker import Worker

__all__ = ["Way", "way_to"]


class Way(NamedTuple):
    """How the mesh demands that connections to an endpoint are made. ``seconds``: at most; ``epoch``: of the files of TLS."""

    place: Place
    seconds: float | None
    epoch: int
    context: MeshContext

    def tunnel(self) -> Tunnel:
        """For one user of it. Raises ConfigError."""
        return tunnel_to(self.place, self.seconds, self.epoch)

    @property
    def stale(self) -> bool:
        """Whether files of TLS changed since."""
        return self.context.epoch != self.epoch


def way_to(tls: Tls, endpoint: LiveEndpoint, upstream: Leaf, authority: str, worker: Worker) -> Way:
    """To ``endpoint``, for channels whose calls have ``authority``. Raises ConfigError."""
    cluster = upstream.cluster
    names = names_for(tls, endpoint, cluster, "", authority)
    # The epoch is that of before the first handshake: files that change in it are of the next.
    context, epoch = made_context(worker, upstream, tls, http2=True, named=bool(names.sans))
    place = place_to(endpoint.address, cluster.connecting, tls, context, names, http1=False, http2=True)
    return Way(place, cluster.connect_timeout, epoch, context)
