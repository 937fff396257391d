"""What the control plane of the case ``scale`` serves: one small cluster that is called, and many large ones."""

from __future__ import annotations

from typing import Any

from meshlib.testing import build
from meshlib.testing.control_plane import Raw
from meshlib.xds import schema

__all__ = ["CLUSTERS", "ENDPOINTS", "HOST", "Shape"]

CLUSTERS, ENDPOINTS = 1000, 100
HOST = "small"
#: The large cluster of which an endpoint changes.
_CHANGES = 7


class Shape:
    """``upstream``: the address behind ``HOST``; ``listener``: that of the one listener, through which all are called."""

    def __init__(self, clusters: int, endpoints: int, upstream: str, listener: str) -> None:
        self.clusters = clusters
        self.endpoints = endpoints
        self._upstream = upstream
        self._listener = listener

    def small(self) -> list[Raw]:
        """Before the large ones come."""
        return [*self._always(), self._routes(0)]

    def large(self) -> list[Raw]:
        """All."""
        return [
            *self._always(),
            self._routes(self.clusters),
            *(
                made("cluster", build.cluster(name(one), lb_policy="LEAST_REQUEST"))
                for one in range(self.clusters)
            ),
            *(self._assignment(one) for one in range(self.clusters)),
        ]

    def changed(self, turn: int) -> Raw:
        """A large cluster's endpoints, of which the first is another each turn."""
        return self._assignment(_CHANGES, turn)

    def _always(self) -> list[Raw]:
        return [
            made("listener", build.listener("in", "routes", address=self._listener)),
            made("cluster", build.cluster(HOST, [self._upstream])),
        ]

    def _routes(self, count: int) -> Raw:
        hosts = [HOST, *map(name, range(count))]
        port = self._listener.rpartition(":")[2]
        return made(
            "route",
            build.route_config(
                "routes",
                *(
                    build.virtual_host(host, build.route(cluster=host), domains=[host, f"{host}:{port}"])
                    for host in hosts
                ),
            ),
        )

    def _assignment(self, number: int, turn: int = 0) -> Raw:
        first = number * self.endpoints
        found = [address(each) for each in range(first, first + self.endpoints)]
        if turn:
            found[0] = f"10.255.{turn}.1:8080"
        return made("endpoint", build.endpoints(name(number), *found))


def name(number: int) -> str:
    return f"service-{number}"


def address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:8080"


def made(kind: str, resource: dict[str, Any]) -> Raw:
    """As bytes."""
    message = schema.from_json(schema.type_name(resource["@type"]), build.without_type(resource))
    called = str(resource.get("name") or resource["cluster_name"])
    return Raw(kind, called, message.SerializeToString())
