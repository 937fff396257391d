"""Configurations that many rows need."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from meshlib.testing import Upstream, build
from tests.support.asking import asked

__all__ = ["active", "ended_here", "names", "service", "serving"]


def service(*upstreams: Upstream | str, **policies: Any) -> dict[str, Any]:
    """``reviews`` at these servers."""
    addresses = [one if isinstance(one, str) else one.address for one in upstreams]
    return {"services": {"reviews": {"endpoints": addresses, **policies}}}


def serving(host: str, port: int, domain: str, cluster: Any, *routes: Any) -> list[Any]:
    """A listener for an Envoy with one virtual host, and the cluster ``c``: a server's, or as given."""
    made = build.cluster("c", [cluster.address]) if isinstance(cluster, Upstream) else cluster
    config = build.route_config(
        "r", build.virtual_host("v", *(routes or (build.route("/", cluster="c"),)), domains=[domain])
    )
    return [build.listener("outbound", config, address=f"{host}:{port}"), made]


def names(client: Any, count: int) -> Counter[str]:
    """Who answered so many calls."""
    return Counter(client.call().said["name"] for _ in range(count))


def active(client: Any) -> int:
    """Calls that are counted as in flight."""
    return sum(cluster.active for cluster in client.mesh.status().clusters.values())


def ended_here(server: Upstream) -> bool:
    """Wait until no connection to it is open on the client's side: a FIN or RST that has arrived tells nobody."""
    port = f":{server.port:04X}"

    def ended() -> bool:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return not any(row[2].endswith(port) and row[3] == "01" for row in rows)

    return asked(ended)
