"""Which pool a connection to an endpoint comes from, for one transport.

A pool belongs to an endpoint, to what the control plane demands of connections to it (its TLS context) and to what the
caller's URL demands (TLS and the name to verify). When one of these changes, the new calls use a new pool; the old one
closes what is idle at once and the rest as it comes back.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshlib.extras import INSTALL
from meshlib.runtime.tls import context_for
from meshlib.transports.wire.limit import OwnLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.effects import Send
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import Connections
    from meshlib.model.cluster import Tls
    from meshlib.model.policy import RetryPolicy
    from meshlib.transports.kit import Kit

__all__ = ["Lane", "PoolKey", "Pools", "Settings"]

P = TypeVar("P")
PoolKey = tuple["LiveEndpoint", "Tls | None", str]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the application gave its transport. ``ssl`` makes the context for ``https`` URLs; ``chosen``: whether
    ``max_connections`` is the application's word and not the host library's default, which gives way to what the mesh
    orders; ``retry``: the retries that it asked for.
    """

    ssl: Callable[[], ssl.SSLContext]
    http1: bool = True
    http2: bool = False
    max_connections: int | None = None
    chosen: bool = False
    max_idle: int | None = None
    keepalive: float | None = 5.0
    local_address: str | None = None
    socket_options: tuple[Any, ...] | None = None
    retry: RetryPolicy | None = None


class Lane(Generic[P]):
    """A pool with what a request through it needs: ``origin`` is the core's scheme, host and port that connections are
    for, ``sni`` the name for TLS, ``""`` in plain text.
    """

    __slots__ = ("origin", "pool", "sni")

    def __init__(self, pool: P, origin: Any, sni: str) -> None:
        self.pool = pool
        self.origin = origin
        self.sni = sni


class Pools(Generic[P]):
    """The lanes of one transport. Thread-safe; the lock guards making and removing, never a look-up.

    ``make_pool(connect, upstream, multiplexed, gone)`` makes an empty pool; ``connection`` is the core's connection class
    and ``backend`` its network backend.
    """

    def __init__(
        self,
        kit: Kit,
        settings: Settings,
        connection: Callable[..., Any],
        backend: Any,
        make_pool: Callable[..., P],
    ) -> None:
        self._kit = kit
        self._settings = settings
        self._connection = connection
        self._backend = backend
        self._make_pool = make_pool
        self._lock = threading.Lock()
        self._lanes: dict[PoolKey, Lane[P]] = {}
        self._view: object = None

    def lane(self, effect: Send, scheme: str, asked: str) -> Lane[P]:
        """The lane to ``effect.endpoint`` for a URL of ``scheme`` whose host is ``asked``."""
        endpoint = effect.endpoint
        name = asked if scheme == "https" else ""
        key = (endpoint, endpoint.tls, name)
        lane = self._lanes.get(key)
        if lane is not None:
            return lane
        with self._lock:
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = self._make(effect, name, asked)
            return lane

    def sweep(self, view: object) -> list[P]:
        """Take out the pools that no new call will use, if the configuration changed since the last look; the caller
        closes them.
        """
        if view is self._view:
            return []
        with self._lock:
            self._view = view
            ended = [key for key in self._lanes if key[0].gone or key[0].tls is not key[1]]
            return [self._lanes.pop(key).pool for key in ended]

    def drain(self) -> list[P]:
        """Take out every pool."""
        with self._lock:
            lanes, self._lanes = self._lanes, {}
        return [lane.pool for lane in lanes.values()]

    def __len__(self) -> int:
        return len(self._lanes)

    def all(self) -> list[P]:
        """Every pool there is now."""
        return [lane.pool for lane in list(self._lanes.values())]

    def _make(self, effect: Send, name: str, asked: str) -> Lane[P]:
        endpoint, settings, cluster = effect.endpoint, self._settings, effect.upstream.cluster
        address, tls = endpoint.address, endpoint.tls
        secure = bool(name) or tls is not None
        http2 = cluster.http2 or settings.http2
        if http2 and find_spec("h2") is None:
            text = f"cluster {cluster.name!r} wants HTTP/2, which needs h2: {INSTALL.format('http2')}"
            raise self._kit.core.UnsupportedProtocol(text)
        context: ssl.SSLContext | None = None
        if secure:
            context = context_for(tls, http2=http2) if tls is not None else settings.ssl()
        sni = name if tls is None else (tls.sni or endpoint.hostname or asked)
        scheme = b"https" if secure else b"http"
        host = b"localhost" if address.unix else address.host.encode("ascii")
        port = address.port or (443 if secure else 80)
        prior_knowledge = cluster.http2 or not settings.http1
        origin = self._kit.core.Origin(scheme, host, port)

        def connect() -> Any:
            return self._connection(
                origin=origin,
                ssl_context=context,
                keepalive_expiry=settings.keepalive if cluster.idle_timeout is None else cluster.idle_timeout,
                http1=not prior_knowledge,
                http2=http2,
                uds=address.host if address.unix else None,
                local_address=settings.local_address,
                network_backend=self._backend,
                socket_options=settings.socket_options,
            )

        limits: Connections = effect.upstream  # type: ignore[assignment]  # a live cluster is both
        most = settings.max_connections
        if most is not None and (settings.chosen or cluster.limits.max_connections is None):
            limits = OwnLimit(limits, most)
        multiplexed = prior_knowledge or (http2 and secure)
        pool = self._make_pool(
            connect,
            limits,
            multiplexed=multiplexed,
            max_idle=settings.max_idle,
            gone=lambda: endpoint.gone or endpoint.tls is not tls,
        )
        return Lane(pool, origin, sni)
