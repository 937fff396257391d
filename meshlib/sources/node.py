"""Who we are to a control plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.model.hidden import without_credentials

if TYPE_CHECKING:
    from meshlib.xds.bootstrap import Node
    from meshlib.xds.schema import WireMessage

__all__ = ["USER_AGENT", "describe", "node_message"]

USER_AGENT = "meshlib"

#: ST-03: only what is done. Overprovisioning is, so ``does_not_support_overprovisioning`` is not said.
CLIENT_FEATURES = ("xds.config.resource-in-sotw",)


def node_message(node: Node) -> WireMessage:
    """The message of the first request of a stream. User agent and features are ours to say (BS-07)."""
    from meshlib import __version__
    from meshlib.xds import schema

    said: dict[str, Any] = {
        "id": node.id,
        "cluster": node.cluster,
        "metadata": dict(node.metadata),
        "user_agent_name": USER_AGENT,
        "user_agent_version": __version__,
        "client_features": list(CLIENT_FEATURES),
    }
    place = node.locality
    if place.region or place.zone or place.sub_zone:
        said["locality"] = {"region": place.region, "zone": place.zone, "sub_zone": place.sub_zone}
    return schema.from_json("envoy.config.core.v3.Node", said)


def describe(node: Node) -> dict[str, object]:
    """For a status: what others may see."""
    return {
        "id": node.id,
        "cluster": node.cluster,
        "locality": str(node.locality),
        "metadata": without_credentials(node.metadata),
    }
