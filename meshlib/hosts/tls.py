"""TLS that the mesh demands of connections to an endpoint: its context, the name that is asked for, and the names that are checked."""

from __future__ import annotations

import logging
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from meshlib.errors import ConfigError
from meshlib.runtime.process import Local
from meshlib.runtime.tls import MeshContext, context_for, rotations, watch
from meshlib.runtime.tls.peer import is_address
from meshlib.wire.errors import TlsUnusable

if TYPE_CHECKING:
    from meshlib.core.attempt import Send
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import Leaf
    from meshlib.model.cluster import Cluster
    from meshlib.model.tls import Tls
    from meshlib.runtime.worker import Worker

__all__ = [
    "NONE",
    "Made",
    "Names",
    "asked_of",
    "host_of",
    "is_rotated",
    "made_context",
    "mesh_context",
    "names_for",
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


#: Warnings that are remembered, of all clusters.
_MOST_SAID = 4096
#: Demands of one cluster that are remembered as good.
_MOST_GOOD = 64


class _Here:
    """What one process knows. ``lock`` guards ``good``.

    Attributes:
        warned: What was said once.
        good: By cluster, the contexts that could be made last, by what is demanded but for the material.
    """

    def __init__(self) -> None:
        self.warned: set[tuple[str, str]] = set()
        self.lock = threading.Lock()
        self.good: weakref.WeakKeyDictionary[Leaf, dict[_Slot, MeshContext]] = weakref.WeakKeyDictionary()


_here = Local(_Here)
_Slot = tuple["Tls", bool, bool]


def asked_of(tls: Tls, attempt: Send, host: str) -> str | tuple[str, str]:
    """What of the request the names of a connection for it depend on; the same for all where they do not. ``host`` as of ``names_of``."""
    cluster = attempt.upstream.cluster
    if cluster.auto_sni or cluster.auto_san:
        return host, _said(attempt)
    return "" if tls.sni or attempt.endpoint.hostname else host or attempt.head.authority


def names_of(tls: Tls, attempt: Send, host: str) -> Names:
    """The names of a connection for ``attempt``. ``host``: of an https URL, ``""`` of another."""
    return names_for(tls, attempt.endpoint, attempt.upstream.cluster, host, _said(attempt))


def _said(attempt: Send) -> str:
    """The authority that names are taken from, or the header that the cluster has in its place."""
    head, header = attempt.head, attempt.upstream.cluster.auto_sni_header
    return (head.headers.get(header) if header else None) or head.authority


def names_for(tls: Tls, endpoint: LiveEndpoint, cluster: Cluster, host: str, authority: str) -> Names:
    """The names of a connection for calls to ``authority``; ``host``: of an https URL, ``""`` of another.

    What the cluster takes from the request goes before what its TLS says, as in Envoy; an address is asked for by nobody, but may have
    to be in the certificate.
    """
    sni = server_name(tls, endpoint, host or host_of(authority))
    if not (cluster.auto_sni or cluster.auto_san):
        return Names(sni)
    name = host_of(authority)
    return Names(
        name if cluster.auto_sni and not is_address(name) else sni, (name,) if cluster.auto_san else ()
    )


def server_name(tls: Tls, endpoint: LiveEndpoint, host: str) -> str:
    """The name that ``endpoint`` is asked for: its own where ``auto_host_sni`` says so, the mesh's ``sni``, its own (TL-05); and where
    Envoy would ask for none, the ``host`` of the call.
    """
    own = endpoint.hostname
    if own and (tls.auto_host_sni or not tls.sni):
        return host_of(own)
    return tls.sni or host


def host_of(authority: str) -> str:
    """Without its port, the brackets of an address, and the root's dot, which no certificate has (RFC 6066, 3)."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    host, _, port = authority.partition(":")
    return authority if ":" in port else host.removesuffix(".")


def mesh_context(
    worker: Worker, upstream: Leaf, tls: Tls, *, http2: bool = False, named: bool = False
) -> Made:
    """As ``made_context``. Raises TlsUnusable that names the cluster."""
    try:
        return made_context(worker, upstream, tls, http2=http2, named=named)
    except ConfigError as error:
        raise TlsUnusable(f"cluster {upstream.cluster.name!r}: {error}") from error


def made_context(worker: Worker, upstream: Leaf, tls: Tls, *, http2: bool, named: bool) -> Made:
    """The context for ``tls``, or for the material before it where this cannot be used (SD-03): a certificate and a key that are no
    pair are known for that only now. Its files are looked at from now on. Raises ConfigError.
    """
    if tls.proxied:  # a context has nothing of it
        tls = replace(tls, proxied=False, proxy=None)
    here, slot = _here.get(), (replace(tls, certificate=None, validation=None), http2, named)
    name = upstream.cluster.name
    try:
        context = context_for(tls, http2=http2, named=named)
    except ConfigError as error:
        with here.lock:
            last = here.good.get(upstream, {}).get(slot)
        if last is None:
            raise
        _say_once(name, f"its TLS changed and cannot be used; what was there before stays in use: {error}")
        context = last
    else:
        with here.lock:
            good = here.good.setdefault(upstream, {})
            if len(good) >= _MOST_GOOD:
                good.clear()
            good[slot] = context
    epoch = context.epoch
    watch(worker, context)
    if context.tls.unverified:
        _say_once(
            name,
            "its TLS verifies nobody, so that anybody may be on the other end. Remedy: give it a validation_context with a"
            ' trusted_ca, or set verify = "always" in [identity]',
        )
    return context, epoch


def _say_once(cluster: str, words: str) -> None:
    warned = _here.get().warned
    if (cluster, words) not in warned:
        if len(warned) >= _MOST_SAID:
            warned.clear()
        warned.add((cluster, words))
        _log.warning("meshlib: cluster %r: %s", cluster, words)


def is_rotated(made: Made | None) -> bool:
    """Whether the material has changed since."""
    return made is not None and made[0].epoch != made[1]
