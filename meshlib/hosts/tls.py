"""TLS that the mesh demands of connections to an endpoint: its context, the name that is asked for, and the names that are checked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from meshlib.errors import ConfigError
from meshlib.runtime.process import Local
from meshlib.runtime.tls import MeshContext, context_for, rotations, watch
from meshlib.runtime.tls.peer import is_address
from meshlib.wire.errors import TlsUnusable

if TYPE_CHECKING:
    from meshlib.core.attempt import Send
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.cluster import Cluster
    from meshlib.model.tls import Tls
    from meshlib.runtime.worker import Worker

__all__ = [
    "NONE",
    "Made",
    "Names",
    "host_of",
    "is_rotated",
    "look_after",
    "mesh_context",
    "names_of",
    "rotations",
    "server_name",
]

_log = logging.getLogger("meshlib")


class Names(NamedTuple):
    """``sni``: what is asked for, ``""`` without TLS. ``sans``: of which the certificate must have one, in the place of the mesh's own."""

    sni: str
    sans: tuple[str, ...] = ()


NONE = Names("")

#: A context, and its epoch when connections of a pool were begun to be made with it.
Made = tuple[MeshContext, int]


class _Warned:
    """Clusters of this process of which it was said that nobody is verified."""

    def __init__(self) -> None:
        self.clusters: set[str] = set()


_here = Local(_Warned)


def names_of(tls: Tls, attempt: Send, host: str) -> Names:
    """The names of a connection for ``attempt``. ``host``: of an https URL, ``""`` of another.

    What the cluster takes from the request goes before what its TLS says, as in Envoy; an address is asked for by nobody, but may have
    to be in the certificate.
    """
    head, cluster = attempt.head, attempt.upstream.cluster
    sni = server_name(tls, attempt.endpoint, host or host_of(head.authority))
    if not (cluster.auto_sni or cluster.auto_san):
        return Names(sni)
    said = head.headers.get(cluster.auto_sni_header) if cluster.auto_sni_header else None
    name = host_of(said or head.authority)
    return Names(
        name if cluster.auto_sni and not is_address(name) else sni, (name,) if cluster.auto_san else ()
    )


def server_name(tls: Tls, endpoint: LiveEndpoint, host: str) -> str:
    """The name that ``endpoint`` is asked for: its own where ``auto_host_sni`` says so, the mesh's ``sni``, its own (TL-05); and where
    Envoy would ask for none, the ``host`` of the call.
    """
    own = endpoint.hostname
    return (own if tls.auto_host_sni else "") or tls.sni or own or host


def host_of(authority: str) -> str:
    """Without its port, and without the brackets of an address."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def mesh_context(
    worker: Worker, cluster: Cluster, tls: Tls, *, http2: bool = False, named: bool = False
) -> Made:
    """The context for ``tls``, which is looked after from now on. Raises TlsUnusable that names the cluster."""
    try:
        context = context_for(tls, http2=http2, named=named)
    except ConfigError as error:
        raise TlsUnusable(f"cluster {cluster.name!r}: {error}") from error
    epoch = context.epoch
    look_after(worker, cluster, context)
    return context, epoch


def look_after(worker: Worker, cluster: Cluster, context: MeshContext) -> None:
    """Have changes of its files known, and say once of a cluster that it verifies nobody."""
    watch(worker, context)
    if context.tls.unverified:
        warned = _here.get().clusters
        if cluster.name not in warned:
            warned.add(cluster.name)
            _log.warning(
                "meshlib: cluster %r: its TLS verifies nobody, so that anybody may be on the other end. Remedy: give it a"
                ' validation_context with a trusted_ca, or set verify = "always" in [identity]',
                cluster.name,
            )


def is_rotated(made: Made | None) -> bool:
    """Whether the material has changed since."""
    return made is not None and made[0].epoch != made[1]
