"""The tokens that calls bring to their services: whose, and whether a connection may carry one.

Theory. Whoever holds a token may call in its owner's name, so a service gets its own and nobody else any. Two say that calls bring
one: the application, by what it calls (:class:`Tokens`), and the configuration file, by the cluster that answers
(``Cluster.token``); the application's holds over the file's, and an ``Authorization`` that the call has already over both. It is
added to one attempt, below the host library: a redirect that the library follows is another call, which has the token of the
service that it leads to, or none.

It goes over TLS to a peer that is verified, and else the attempt fails: without its token a service would answer with an error that
nobody understands, and over plain text everybody on the way could read it. A sidecar on this machine is no exception: who else
listens on its address cannot be known.

    the mesh demands TLS        it says from whom a certificate is accepted ─► sent      it does not ─► the attempt fails
    it does not: an https URL   the application's own TLS ─► sent
    neither                     the attempt fails
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshlib.config.hosts import check_key
from meshlib.core.domains import DomainIndex, by_key
from meshlib.model.arguments import text
from meshlib.model.hosts import canonical_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.call import Head
    from meshlib.model.cluster import Cluster

    _Place = tuple[str, str, int | None, str]

__all__ = ["NO_TOKENS", "Demand", "TokenSource", "Tokens", "tokens_of"]

#: What gives a service's token, each time that one is sent.
TokenSource = Callable[[], str | Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Demand:
    """A token that an attempt is to bring.

    Attributes:
        service: Whose it is.
        source: What gives it, or the path of the file that has it. ``waits``: it gives an awaitable.
        barred: Why the connection may not carry it; ``""``: it may.
    """

    service: str
    source: str | TokenSource
    waits: bool = False
    barred: str = ""


class Tokens:
    """The application's, by the service that is called, whose names are as in ``[services]``. Immutable."""

    __slots__ = ("_services", "given")

    def __init__(self, sources: Mapping[str, TokenSource]) -> None:
        self.given = bool(sources)
        self._services = DomainIndex(
            (name, (name, (source, _waits(source)))) for name, source in sources.items()
        )

    def demand(
        self, place: _Place, cluster: Cluster, endpoint: LiveEndpoint, head: Head, *, own: bool
    ) -> Demand | None:
        """The token that ``head`` is to bring, of a call to ``place`` that goes to ``endpoint``. ``own``: over TLS of the application's."""
        scheme, host, port, _ = place
        found = None
        if self.given:
            found = by_key(self._services, canonical_host(host), port or (443 if scheme == "https" else 80))
        if found is None and not cluster.token:
            return None
        if b"authorization" in {name.lower() for name, _ in head.headers.raw}:
            return None
        barred = "" if own else _barred(endpoint)
        if found is None:
            return Demand(cluster.name, cluster.token, barred=barred)
        service, (source, waits) = found
        return Demand(service, source, waits, barred)


NO_TOKENS = Tokens({})


def tokens_of(sources: Mapping[str, TokenSource]) -> Tokens:
    """What an application gave. Raises TypeError and ValueError that name the service."""
    read: dict[str, TokenSource] = {}
    for name, source in sources.items():
        try:
            key = check_key(text(name, "tokens: a service's name"))
        except ValueError as problem:
            raise ValueError(f"tokens[{name!r}]: {problem}") from None
        given: object = source
        if not callable(given):
            kind = type(source).__name__
            raise TypeError(f"tokens[{name!r}]: expected what gives the token when it is called, not {kind}")
        read[key] = source
    return Tokens(read) if read else NO_TOKENS


def _waits(source: TokenSource) -> bool:
    call = getattr(source, "__call__", None)  # noqa: B004 - of an object whose call is asynchronous
    return inspect.iscoroutinefunction(source) or inspect.iscoroutinefunction(call)


def _barred(endpoint: LiveEndpoint) -> str:
    if endpoint.tls is None:
        return f"it goes over TLS only, and the connection to {endpoint.name} is in plain text"
    validation = endpoint.tls.validation
    if validation is not None and (validation.signed or validation.hashes or validation.spki):
        return ""
    return f"it goes to nobody who is not verified, and the mesh does not say who {endpoint.name} must be"
