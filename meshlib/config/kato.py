"""What Kato and Rainbond tell a container of itself, as defaults of ``api = "v2"``: who it is, and where the agent of its host is.

==================  ============================================================================================
node.cluster, .id   ``ENVOY_NODE_ID``; else three parts and ``_`` between: the namespace (Rainbond ``NAMESPACE``, Kato
                    ``TENANT_ID``), the plugin (``PLUGIN_ID``, which only plugins have; else ``def-mesh`` and ``SERVICE_ID``),
                    the alias (Rainbond ``SERVICE_ALIAS``, Kato ``SERVICE_NAME``)
xds.server          ``XDS_HOST_IP``, which only plugins have, else ``HOST_IP``; ``XDS_HOST_PORT``, else 6101
==================  ============================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["PORT", "identity", "server"]

#: Where the agent serves discovery unless it is told otherwise.
PORT = "6101"


def identity(environ: Mapping[str, str]) -> tuple[str, str]:
    """Our node.cluster, and the variables that it is of; ``("", "")`` where they do not tell it."""
    if environ.get("ENVOY_NODE_ID", "").strip():
        return environ["ENVOY_NODE_ID"].strip(), "ENVOY_NODE_ID"
    plugin = ("PLUGIN_ID", "") if environ.get("PLUGIN_ID", "").strip() else ("SERVICE_ID", "def-mesh")
    # In Rainbond SERVICE_NAME is the workload's; Kato has no SERVICE_ALIAS.
    for namespace, alias in (
        ("NAMESPACE", "SERVICE_ALIAS"),
        ("TENANT_ID", "SERVICE_ALIAS"),
        ("TENANT_ID", "SERVICE_NAME"),
    ):
        names = (namespace, plugin[0], alias)
        values = [environ.get(name, "").strip() for name in names]
        if all(values):
            return f"{values[0]}_{plugin[1]}{values[1]}_{values[2]}", ", ".join(names)
    return "", ""


def server(environ: Mapping[str, str]) -> tuple[str, str]:
    """The address of the agent, and the variables that it is of; ``("", "")`` where there is none."""
    for name in ("XDS_HOST_IP", "HOST_IP"):
        host = environ.get(name, "").strip()
        if host:
            port = environ.get("XDS_HOST_PORT", "").strip()
            shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
            return f"{shown}:{port or PORT}", f"{name}, XDS_HOST_PORT" if port else name
    return "", ""
