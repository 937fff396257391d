"""How the endpoints of a cluster are asked whether they can serve (Envoy ``core.v3.HealthCheck``)."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshlib.model.match import StringMatch
from meshlib.model.route import NO_EDITS, HeaderEdits

__all__ = ["CheckedAt", "GrpcCheck", "HealthCheck", "HttpCheck", "TcpCheck"]


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A request, and which answers to it are good. ``host``: its Host, ``""``: the cluster's name. ``expected``: ranges of statuses, the
    ends not included, that are good; ``retriable``: others that count as a lost connection does, and not at once. ``edits``: of the
    request's headers. ``http2``: it is spoken; None: as the cluster's calls have it. ``service``: what the answer's
    ``x-envoy-upstream-healthchecked-cluster`` must be. ``send``: a body; ``receive``: what the first ``most`` bytes of the answer's
    body must hold, in this order.
    """

    path: str
    host: str = ""
    method: str = "GET"
    expected: tuple[tuple[int, int], ...] = ((200, 201),)
    retriable: tuple[tuple[int, int], ...] = ()
    edits: HeaderEdits = NO_EDITS
    http2: bool | None = None
    service: StringMatch | None = None
    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    most: int = 1024


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """``grpc.health.v1.Health/Check``. ``service``: whose health is asked for, ``""``: the server's. ``authority``: ``""``: the cluster's
    name.
    """

    service: str = ""
    authority: str = ""
    edits: HeaderEdits = NO_EDITS


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """A connection. ``send`` goes over it, and what comes must hold all of ``receive`` in this order; with nothing to receive it is
    enough that it is made.
    """

    send: bytes = b""
    receive: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Times in seconds. ``healthy`` and ``unhealthy``: so many checks in a row change what an endpoint is held for.

    None in ``unhealthy_interval``, ``unhealthy_edge`` and ``healthy_edge`` is Envoy's default: ``interval``, ``unhealthy_interval`` and
    ``interval``. ``no_traffic``: how often endpoints are asked once no call uses the cluster any more, and ``no_traffic_healthy`` those
    of them that pass; None: not at all. ``jitter`` and ``jitter_percent`` are added to each interval by chance, up to so much;
    ``initial_jitter`` is waited before the first. ``reuse``: a connection is kept for the next check. ``alpn``: what TLS offers in the
    place of what is spoken. ``labels``: those by which TLS is chosen in the place of an endpoint's own. ``new_count_not``: an endpoint
    that was not checked yet does not count as one that fails (Envoy ``ignore_new_hosts_until_first_hc``). ``grpc``: gRPC calls heed it;
    gRPC's own clients do not know of it. ``log_failures`` and ``log_successes``: each is logged, not only changes.
    """

    how: HttpCheck | GrpcCheck | TcpCheck
    interval: float = 5.0
    timeout: float = 1.0
    healthy: int = 2
    unhealthy: int = 3
    unhealthy_interval: float | None = None
    unhealthy_edge: float | None = None
    healthy_edge: float | None = None
    no_traffic: float | None = None
    no_traffic_healthy: float | None = None
    initial_jitter: float = 0.0
    jitter: float = 0.0
    jitter_percent: int = 0
    reuse: bool = True
    alpn: tuple[str, ...] = ()
    labels: tuple[tuple[str, object], ...] = field(default=(), hash=False)
    new_count_not: bool = False
    grpc: bool = True
    log_failures: bool = False
    log_successes: bool = False


@dataclass(frozen=True, slots=True)
class CheckedAt:
    """Of one endpoint (Envoy ``Endpoint.HealthCheckConfig``): another ``host`` or path of a Unix socket and another ``port`` to ask at,
    ``""`` and 0 for its own; ``hostname``: the Host or authority of the request; ``off``: it is not asked.
    """

    host: str = ""
    unix: bool = False
    port: int = 0
    hostname: str = ""
    off: bool = False
