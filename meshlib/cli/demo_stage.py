"""What the demo plays with: a control plane, three versions of a service as processes, and a client. All on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from meshlib.client import Client
from meshlib.mesh import Mesh
from meshlib.model.events import EndpointEjected, EndpointReturned, Event
from meshlib.testing import ControlPlane, UpstreamProcess, build

if TYPE_CHECKING:
    from meshlib.config.shapes import ConfigDict
    from meshlib.model.status import ClusterStatus, EndpointStatus, SourceStatus

__all__ = ["EJECTED_FOR", "NEXT", "SERVICE", "VERSIONS", "Stage"]

SERVICE = "reviews"
VERSIONS = ("v1", "v2", "v3")
#: The cluster of the header route: what comes next, beside what it falls back on.
NEXT = f"{SERVICE}-next"
#: Seconds that a server which failed three times in a row is left out.
EJECTED_FOR = 5

#: Variables that would bring another configuration into the demo.
_FOREIGN = ("MESHLIB_", "GRPC_XDS_")

_RETRY = {
    "retry_on": "connect-failure,refused-stream,reset",
    "num_retries": 2,
    "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.05s"},
}
_OUTLIER = {
    "consecutive_5xx": 3,
    "interval": "0.5s",
    "base_ejection_time": f"{EJECTED_FOR}s",
    "max_ejection_percent": 50,
}


class Stage:
    """Enter it to start everything; leaving it ends every process and thread. One thread directs; calls may come from
    others.
    """

    def __init__(self) -> None:
        self.versions = {name: UpstreamProcess(name) for name in VERSIONS}
        self.control_plane = ControlPlane(identifier="demo")
        #: Ejections and returns so far, with the monotonic time at which they happened.
        self.events: list[tuple[float, EndpointEjected | EndpointReturned]] = []
        self._routes: list[str] = []
        self._ending = contextlib.ExitStack()
        self.mesh: Mesh
        self.client: Client

    def __enter__(self) -> Self:
        with self._ending:
            # The servers' interpreters take most of the start: side by side.
            with ThreadPoolExecutor(len(self.versions)) as pool:
                for server in self.versions.values():
                    self._ending.callback(server.stop)
                list(pool.map(lambda server: server.start(), self.versions.values()))
            self._ending.enter_context(self.control_plane)
            self._ending.callback(_without_foreign_settings())
            config: ConfigDict = {"node": {"id": "demo"}, "xds": {"server": self.control_plane.address}}
            self.mesh = self._ending.enter_context(Mesh(config))
            self.mesh._runtime().observe(self._heard)
            self.client = self._ending.enter_context(Client(mesh=self.mesh, trust_env=False))
            self._ending = self._ending.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending.close()

    # --- what the control plane says --------------------------------------------------------------------------------

    def publish(self, split: Mapping[str, int], *, gold: bool) -> None:
        """Calls are split between versions by weight; ``gold``: those with ``x-tier: gold`` go to v2 and v3."""
        shares = {f"{SERVICE}-{version}": weight for version, weight in split.items()}
        name = "split-" + "-".join(str(weight) for weight in split.values())
        routes = [build.route(weights=shares, timeout=10.0, retry=_RETRY, name=name)]
        clusters: dict[str, tuple[str, ...]] = {f"{SERVICE}-{version}": (version,) for version in split}
        if gold:
            header = {"x-tier": "gold"}
            routes.insert(
                0, build.route(headers=header, cluster=NEXT, timeout=10.0, retry=_RETRY, name="gold")
            )
            clusters[NEXT] = ("v2", "v3")
        host = build.virtual_host(SERVICE, *routes, domains=[SERVICE])
        self._routes = [route["name"] for route in routes]
        self.control_plane.set(
            build.api_listener(SERVICE, SERVICE),
            build.route_config(SERVICE, host),
            *(build.cluster(cluster, outlier_detection=_OUTLIER) for cluster in clusters),
            *(
                build.endpoints(cluster, *(self.versions[version].address for version in versions))
                for cluster, versions in clusters.items()
            ),
        )

    def applied(self) -> bool:
        """Whether everything that the control plane says now is in force at the client."""
        versions = self.source().versions
        if not versions or any(
            version != self.control_plane.version(kind) for kind, version in versions.items()
        ):
            return False
        return self._routes_in_force() == self._routes

    def _routes_in_force(self) -> list[str]:
        """The names of the service's routes, as a call would find them now."""
        for part in self.mesh.snapshot().parts:
            listener = part.targets.get(SERVICE)
            if listener is not None and listener.http is not None and listener.http.routes is not None:
                return [route.name for host in listener.http.routes.virtual_hosts for route in host.routes]
        return []

    # --- what the client knows ----------------------------------------------------------------------------------------

    def source(self) -> SourceStatus:
        """The control plane as the client sees it."""
        return next(source for source in self.mesh.status().sources if source.kind == "xds")

    def clusters(self) -> Mapping[str, ClusterStatus]:
        return self.mesh.status().clusters

    def endpoint(self, version: str, cluster: str = NEXT) -> EndpointStatus | None:
        """A version's server in a cluster, as the client sees it; None where it is not in it."""
        status = self.clusters().get(cluster)
        address = self.versions[version].address
        return next((each for each in status.endpoints if each.address == address), None) if status else None

    def version_at(self, address: str) -> str:
        """Which version serves at an address, ``""`` if none."""
        return next((name for name, server in self.versions.items() if server.address == address), "")

    def ejected(self, version: str, since: float) -> tuple[float, EndpointEjected] | None:
        """The version's ejection since a time, with its own time; None if there was none."""
        address = self.versions[version].address
        for at, event in list(self.events):
            if at >= since and isinstance(event, EndpointEjected) and event.endpoint == address:
                return at, event
        return None

    def _heard(self, event: Event) -> None:
        if isinstance(event, EndpointEjected | EndpointReturned):
            self.events.append((time.monotonic(), event))


def _without_foreign_settings() -> Any:
    """Take the user's own settings out of the environment; what is returned puts them back."""
    taken = {name: value for name, value in os.environ.items() if name.startswith(_FOREIGN)}
    for name in taken:
        del os.environ[name]
    return lambda: os.environ.update(taken)
