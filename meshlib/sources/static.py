"""The services of a configuration file: each a listener with its routes, and a cluster where it has endpoints.

A service gets what is written and nothing else: no timeout, no retry, no breaker, no ejection, no limit (the contract).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from meshlib.config.identity import IdentityConfig
from meshlib.core.trust import named
from meshlib.model.cluster import Cluster, Discovery, DnsTarget
from meshlib.model.endpoint import Assignment, Endpoint, Locality, LocalityEndpoints
from meshlib.model.listener import FilterChain, FilterKind, HttpFilter, HttpManager, Listener
from meshlib.model.snapshot import Part
from meshlib.model.tls import SecretFrom
from meshlib.runtime import policies
from meshlib.sources import static_routes, static_tls
from meshlib.sources.base import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.config import EndpointConfig, ServiceConfig
    from meshlib.model.status import SourceStatus
    from meshlib.sources.base import Sink

__all__ = ["StaticSource", "build", "kept"]

T = TypeVar("T")


#: Nothing is told of it.
NOBODY = IdentityConfig()


def build(
    services: Mapping[str, ServiceConfig],
    previous: Part | None = None,
    source: str = "static",
    identity: IdentityConfig = NOBODY,
) -> Part:
    """The part that ``services`` are. What did not change since ``previous`` is the same object as there. ``identity``: what is
    told of it.
    """
    listeners: dict[str, Listener] = {}
    clusters: dict[str, Cluster] = {}
    for key, service in services.items():
        old = previous.services.get(key) if previous is not None else None
        listeners[key] = kept(_listener(key, service), old)
        if _has_cluster(service):
            before = previous.clusters.get(key) if previous is not None else None
            clusters[key] = kept(_cluster(key, service, identity), before)
    identified = frozenset(key for key, cluster in clusters.items() if named(cluster, SecretFrom.IDENTITY))
    return Part(source, services=listeners, clusters=clusters, identified=identified)


def kept(made: T, old: T | None) -> T:
    """What is made anew, or, where that is no other, what was there before: what is compiled from it is kept then."""
    return old if old is not None and old == made else made


def _has_cluster(service: ServiceConfig) -> bool:
    """A service that only has routes which go elsewhere has no endpoints; one that has nothing has none to call."""
    placed = service.endpoints is not None or service.dns is not None or service.srv is not None
    return placed or not service.routes


def _listener(key: str, service: ServiceConfig) -> Listener:
    routes = static_routes.build(key, service, own_cluster=_has_cluster(service))
    kept = policies.session(service.session)
    filters = () if kept is None else (HttpFilter("session", FilterKind.SESSION, session=kept),)
    chain = FilterChain(name=key, http=HttpManager(routes=routes, filters=filters))
    return Listener(name=key, chains=(chain,), from_file=True)


def _cluster(key: str, service: ServiceConfig, identity: IdentityConfig) -> Cluster:
    discovery, assignment, targets = _placed(key, service)
    breaker, endpoint_breaker = policies.breakers(service)
    return Cluster(
        name=key,
        discovery=discovery,
        assignment=assignment,
        dns=targets,
        dns_family="all",
        balancing=policies.balancing(service),
        connect_timeout=None,
        limits=policies.limits(service.limits),
        outlier=None if service.outlier is None else policies.outlier(service.outlier),
        breaker=breaker,
        endpoint_breaker=endpoint_breaker,
        health_check=policies.health_check(service.health_check),
        max_connection_age=service.max_connection_age,
        rate_limit=policies.rate_limit(service.rate_limit),
        adaptive=policies.adaptive(service.adaptive),
        tls=None if service.tls is None else static_tls.build(service.tls, identity),
        token=service.token or "",
    )


def _placed(key: str, service: ServiceConfig) -> tuple[Discovery, Assignment, tuple[DnsTarget, ...]]:
    group = Assignment(key, (LocalityEndpoints(Locality(), ()),))
    if service.srv is not None:
        return Discovery.SRV, group, (DnsTarget(service.srv),)
    if service.dns is not None and not service.dns.is_ip:
        target = DnsTarget(service.dns.host, service.dns.port, hostname=service.dns.host)
        return Discovery.STRICT_DNS, group, (target,)
    if service.dns is not None:
        return (
            Discovery.STATIC,
            Assignment(key, (LocalityEndpoints(Locality(), (Endpoint(service.dns),)),)),
            (),
        )
    return Discovery.STATIC, _assignment(key, service.endpoints or ()), ()


def _assignment(key: str, endpoints: tuple[EndpointConfig, ...]) -> Assignment:
    """Endpoints by locality and priority, each group in the order in which it was first named."""
    groups: dict[tuple[int, Locality], list[Endpoint]] = {}
    for item in endpoints:
        locality = Locality(item.region or "", item.zone or "", item.sub_zone or "")
        hostname = "" if item.address.is_ip or item.address.unix else item.address.host
        endpoint = Endpoint(item.address, item.weight, hostname=hostname)
        groups.setdefault((item.priority, locality), []).append(endpoint)
    return Assignment(
        key,
        tuple(
            LocalityEndpoints(locality, tuple(members), priority=priority)
            for (priority, locality), members in groups.items()
        ),
    )


class StaticSource(Source):
    """Publishes the services of a configuration; ``reconfigure`` when that was edited. ``identity``: what is told of it."""

    def __init__(
        self, sink: Sink, services: Mapping[str, ServiceConfig], identity: IdentityConfig = NOBODY
    ) -> None:
        super().__init__("static", "static", sink)
        self._services = services
        self._identity = identity
        self.part = build(services, identity=identity)

    def open(self, inherited: Part | None) -> None:
        if inherited is not None:
            self.part = build(self._services, inherited, identity=self._identity)
        self.sink.publish(self.part)
        self.good()

    def start(self) -> None:
        self.good()

    def status(self) -> SourceStatus:
        resources = {"service": len(self.part.services), "cluster": len(self.part.clusters)}
        return replace(super().status(), resources=resources)

    def reconfigure(self, services: Mapping[str, ServiceConfig]) -> None:
        """Other services are in force from now on."""
        self._services = services
        part = build(services, self.part, identity=self._identity)
        if part != self.part:
            self.part = part
            self.sink.publish(part)
