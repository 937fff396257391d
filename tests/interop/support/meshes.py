"""Meshes of the control planes here: how they are configured, and what they say of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.interop.support.snapshots import PORT, Service

if TYPE_CHECKING:
    import meshlib
    from tests.interop.support.programs import SnapshotServer
    from tests.interop.support.upstreams import Upstream

NODE = "interop"
URL = f"http://reviews:{PORT}/api"
READY = 10.0  # seconds until hosts can be called


def config(plane: SnapshotServer, view: str, **settings: Any) -> dict[str, Any]:
    """``settings``: more of ``xds``; with a bootstrap, server and node are in that."""
    xds = {"view": view, "protocol": plane.protocol, **plane.transport, **settings}
    if "bootstrap" in settings:
        return {"xds": xds}
    return {"node": {"id": NODE}, "xds": {"server": plane.server, **xds}}


def reviews(shares: dict[str, int], **clusters: list[Upstream]) -> Service:
    return Service("reviews", clusters, shares)


def xds(mesh: meshlib.Mesh) -> Any:
    """The status of the mesh's control plane."""
    (source,) = [source for source in mesh.status().sources if source.kind == "xds"]
    return source
