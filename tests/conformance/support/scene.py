"""The resources of one target on a control plane, in few words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.testing import build
from tests.conformance.support.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.testing import ControlPlane

__all__ = ["Scene", "endpoint", "locality"]


class Scene:
    """A target: its listener takes its routes from a route configuration of the same name, by RDS.

    Servers stand for their addresses. ``features`` are the ``server_features`` of the bootstrap, to be set before the
    first channel.
    """

    def __init__(self, name: str, plane: ControlPlane, serve: Callable[[str], Server]) -> None:
        self.name = name
        self.plane = plane
        self.serve = serve
        self.features: list[str] = []

    def bootstrap(self) -> dict[str, Any]:
        made = self.plane.bootstrap()
        made["xds_servers"][0]["server_features"] += self.features
        return made

    # ------------------------------------------------------------------------------------------------- resources

    def listener(self, routes: Mapping[str, Any] | str | None = None, **fields: Any) -> dict[str, Any]:
        """Its listener, with these routes inline or by this name."""
        return build.api_listener(self.name, routes or self.name, **fields)

    def routes(self, *routes: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        """Its route configuration: one virtual host, for every authority."""
        return self.hosts(build.virtual_host("all", *routes, **fields))

    def hosts(self, *hosts: Mapping[str, Any]) -> dict[str, Any]:
        """Its route configuration of these virtual hosts."""
        return build.route_config(self.name, *hosts)

    def cluster(self, name: str, *members: Any, **fields: Any) -> list[dict[str, Any]]:
        """A cluster by EDS, and its endpoints: servers, addresses, or what ``build`` makes of them."""
        return [build.cluster(name, **fields), self.endpoints(name, *members)]

    @staticmethod
    def endpoints(name: str, *members: Any, **fields: Any) -> dict[str, Any]:
        """The endpoints of a cluster."""
        return build.endpoints(name, *map(_member, members), **fields)

    # ---------------------------------------------------------------------------------------------------- at once

    def route(self, *routes: Mapping[str, Any], **fields: Any) -> None:
        """Sets its listener and these routes."""
        self.plane.update(self.listener(), self.routes(*routes, **fields))

    def named(self, *names: str, **fields: Any) -> list[Server]:
        """Starts a server of each name, alone in a cluster of the same name."""
        servers = [self.serve(name) for name in names]
        for server in servers:
            self.plane.update(*self.cluster(server.name, server, **fields))
        return servers

    def simple(self, *names: str, **fields: Any) -> list[Server]:
        """Starts servers of these names as the endpoints of cluster ``main``, which every call is routed to."""
        servers = [self.serve(name) for name in names]
        self.plane.update(*self.cluster("main", *servers, **fields))
        self.route(build.route(cluster="main"))
        return servers


def _member(member: Any) -> Any:
    return member.address if isinstance(member, Server) else member


def locality(zone: str, *members: Any, **fields: Any) -> dict[str, Any]:
    """A locality of this zone, of servers or of what ``build`` makes."""
    return build.locality(*map(_member, members), region="region", zone=zone, **fields)


def endpoint(server: Server, **fields: Any) -> dict[str, Any]:
    """An endpoint that is this server."""
    return build.endpoint(server.address, **fields)
