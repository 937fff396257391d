"""One connection of a channel of ours: a channel of grpc's own to an endpoint, and what is known of it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc

from meshlib.hosts.grpc.credentials import of_https

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import Leaf
    from meshlib.hosts.grpc.out_of_band import LoadStream
    from meshlib.hosts.grpc.request import Method
    from meshlib.hosts.grpc.tunnel import Tunnel
    from meshlib.hosts.grpc.way import Way
    from meshlib.model.cluster import Cluster
    from meshlib.model.tls import Tls

__all__ = ["Subchannel", "limits_of"]

C = TypeVar("C")


def limits_of(upstream: Leaf) -> tuple[int | None, int]:
    """Of connections to an endpoint, as far as grpc is told of them."""
    limits = upstream.cluster.limits
    return limits.max_connections_per_endpoint, limits.grpc_connections


class Subchannel(Generic[C]):
    """A channel of grpc's own, with its callables by method. ``began``: when its connections may have been; ``tls``: what the mesh
    demands of them, and ``way``: how that is done; None where it demands nothing, or the application does it; ``tunnel``: they go through it;
    ``checked``: grpc asks whether the endpoint serves.
    """

    __slots__ = (
        "_callables",
        "began",
        "channel",
        "checked",
        "direct",
        "endpoint",
        "leaving",
        "limits",
        "made_for",
        "marked",
        "reports",
        "seen_ready",
        "since",
        "tls",
        "told",
        "tunnel",
        "until",
        "upstream",
        "users",
        "way",
    )

    def __init__(
        self,
        channel: C,
        endpoint: LiveEndpoint | None,
        upstream: Leaf | None,
        began: float = 0.0,
        *,
        tls: Tls | None = None,
        way: Way | None = None,
        tunnel: Tunnel | None = None,
        checked: bool = False,
    ) -> None:
        self.channel = channel
        self.checked = checked
        self.way = way
        self.tunnel = tunnel
        self.endpoint = endpoint
        self.upstream = upstream
        self.began = began
        self.limits = None if upstream is None else limits_of(upstream)
        self.confirm(tls)
        self.bound_age()
        self.leaving = False  # it is closed once no call uses it
        self.marked = False
        self.seen_ready = False
        self.since = 0.0  # connecting
        self.told = ""  # the last change that observers were told of
        self.reports: LoadStream | None = None  # what the endpoint says of its load, beside calls
        self.users: dict[object, None] = {}  # calls under way
        self._callables: dict[Method, Any] = {}
        #: What makes a method's RPCs past grpc's layer of Python; None where it cannot.
        self.direct: dict[Method, Callable[..., Any] | None] = {}

    @property
    def idle(self) -> bool:
        """Whether no call uses it."""
        return not self.users

    def shut(self) -> None:
        """Its channel is about to be closed."""
        if self.reports is not None:
            self.reports.close()
        if self.tunnel is not None:
            self.tunnel.close()

    def serves(self, tls: Tls | None, began: float) -> bool:
        """Whether a call that ``began`` then may use it, where ``tls`` is to be made: surely, without a look at what would be made."""
        if began >= self.until or self.tls is not tls:
            return False
        # Of a cluster that changed its timeout or its names may be others.
        return self.way is None or not (self.way.stale or self.made_for is not self._cluster())

    def confirm(self, tls: Tls | None) -> None:
        """It is what would be made for ``tls`` and the cluster as they are now."""
        self.tls, self.made_for = tls, self._cluster()

    def _cluster(self) -> Cluster | None:
        return None if self.upstream is None else self.upstream.cluster

    def outdated(self, tls: Tls | None) -> bool:
        """Whether its connections are not what is to be made, or not of the files that there are now."""
        if self.tls is not tls and self.tls != tls:
            return True
        return self.way is not None and self.way.stale

    def why(self, details: str | None) -> str:
        """Why it cannot connect: in the tunnel's words, where grpc knows only that it does not."""
        return (self.tunnel.error if self.tunnel is not None else "") or details or ""

    def credentials(self, of_call: Any) -> Any:
        """The credentials that a call brings, as they are sent."""
        if self.tunnel is None or of_call is None:
            return of_call
        return grpc.CallCredentials(of_https(of_call._credentials))

    def bound_age(self) -> None:
        """``until``: when another is to take its place, as its cluster says now."""
        age = None if self.upstream is None else self.upstream.cluster.max_connection_age
        self.until = inf if age is None else self.began + age

    def callable(self, method: Method) -> Any:
        """The method's, as a stub would have it."""
        found = self._callables.get(method)
        if found is None:
            make = getattr(self.channel, method.kind)
            # setdefault is atomic: threads that come at once get the same one.
            found = self._callables.setdefault(
                method, make(method.path, method.serializer, method.deserializer, method.registered)
            )
        return found
