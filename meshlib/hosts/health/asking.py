"""Where an endpoint's health is asked for and with which request, from what its cluster says."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from meshlib.core.edits import compile_edits
from meshlib.core.formats import Values
from meshlib.core.roster import tls_of
from meshlib.extras import INSTALL
from meshlib.hosts.endpoints import place_to
from meshlib.hosts.health.flows import Asking
from meshlib.hosts.tls import NONE, made_context, names_for
from meshlib.model.address import Address
from meshlib.model.call import Head
from meshlib.model.endpoint import LocalityEndpoints
from meshlib.model.headers import Headers
from meshlib.model.health import GrpcCheck, HttpCheck, TcpCheck
from meshlib.wire.stream_tls import Handshakes

if TYPE_CHECKING:
    import ssl

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.cluster import Cluster
    from meshlib.model.health import HealthCheck
    from meshlib.model.tls import Tls
    from meshlib.runtime.live_health import Asked
    from meshlib.runtime.worker import Worker
    from meshlib.wire.message import Lines

__all__ = ["asking", "cannot"]

_AGENT = b"meshlib/HC"
_SOCKET_MATCH = "envoy.transport_socket_match"


def cannot(cluster: Cluster) -> str:
    """Why a cluster's endpoints cannot be asked in this process, in words; ``""``: they can."""
    check = cluster.health_check
    if check is None or not _http2(check, cluster) or find_spec("h2") is not None:
        return ""
    return f"its health checks need h2: {INSTALL.format('http2')}"


def asking(upstream: Asked, endpoint: LiveEndpoint, check: HealthCheck, worker: Worker) -> Asking:
    """What is asked now. Raises ConfigError where TLS cannot be had."""
    cluster, at = upstream.cluster, endpoint.endpoint.check
    host = _host(check, endpoint, cluster)
    tls = _tls(check, endpoint, cluster)
    address = endpoint.address
    if at is not None and at.host:
        address = Address(at.host, at.port or address.port, unix=at.unix)
    elif at is not None and at.port and not address.unix:
        address = replace(address, port=at.port)
    http2 = _http2(check, cluster)
    if http2:
        import meshlib.wire.http2  # noqa: F401 - here, where what hinders that is not taken for an answer of the endpoint
    names, context = NONE, None
    if tls is not None:
        names = names_for(tls, endpoint, cluster, "", host)
        context, _ = made_context(worker, upstream, tls, http2=http2, named=bool(names.sans))
    place = place_to(address, cluster.connecting, tls, context, names, http1=not http2, http2=http2)
    if context is not None and (check.alpn or isinstance(check.how, TcpCheck)):
        object.__setattr__(place, "handshakes", _offering(context, check.alpn, names.sans))
    return Asking(check.how, place, _lines(check, host, cluster, endpoint), check.reuse)


def _offering(context: ssl.SSLContext, alpn: tuple[str, ...], names: tuple[str, ...]) -> Handshakes:
    return Handshakes.of(context, alpn, names)


def _host(check: HealthCheck, endpoint: LiveEndpoint, cluster: Cluster) -> str:
    """Envoy's order: the endpoint's own for checks, the check's, the cluster's name; that of a wildcard in the file is nobody's."""
    at, how = endpoint.endpoint.check, check.how
    said = how.host if isinstance(how, HttpCheck) else how.authority if isinstance(how, GrpcCheck) else ""
    own = endpoint.hostname or endpoint.name if "*" in cluster.name else cluster.name
    return (at.hostname if at is not None else "") or said or own


def _http2(check: HealthCheck, cluster: Cluster) -> bool:
    how = check.how
    if isinstance(how, GrpcCheck):
        return True
    return isinstance(how, HttpCheck) and (cluster.http2 if how.http2 is None else how.http2)


def _tls(check: HealthCheck, endpoint: LiveEndpoint, cluster: Cluster) -> Tls | None:
    if not check.labels:
        return endpoint.tls
    labelled = replace(endpoint.endpoint, metadata={_SOCKET_MATCH: dict(check.labels)})
    return tls_of(cluster, labelled, LocalityEndpoints(endpoint.locality, ()))


def _lines(check: HealthCheck, host: str, cluster: Cluster, endpoint: LiveEndpoint) -> Lines:
    how = check.how
    if isinstance(how, TcpCheck):
        return []
    lines: Lines = [(b"Host", host.encode("utf-8", "surrogatepass"))]
    method, path = "POST", "/grpc.health.v1.Health/Check"
    if isinstance(how, HttpCheck):
        method, path = how.method, how.path
        lines += [(b"User-Agent", _AGENT)]
        if how.send:
            lines.append((b"Content-Length", str(len(how.send)).encode("ascii")))
    else:
        timeout = str(max(1, round(check.timeout * 1000))).encode("ascii") + b"m"
        lines += [
            (b"user-agent", _AGENT),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-timeout", timeout),
        ]
    edits = compile_edits(how.edits)
    if edits is not None and edits.request is not None:
        scheme = "http" if endpoint.tls is None else "https"
        head = Head(method, scheme, host, path, Headers(lines))
        values = Values(head, cluster=cluster.name, route="", virtual_host="")
        values.endpoint = endpoint.name
        lines = edits.request.apply(lines, values)
    return lines
