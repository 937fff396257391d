"""What a configuration and its bootstrap say together: where the control plane is, who this process is to it, how hosts are resolved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.config import Config, bootstrap_text
from meshlib.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.core.resolve import Rules
    from meshlib.model.endpoint import Locality
    from meshlib.xds.bootstrap import Bootstrap

__all__ = ["bootstrap_of", "described", "place_of", "rules_of"]


def bootstrap_of(config: Config) -> Bootstrap | None:
    """Where the control plane is, or None without one. Reads the bootstrap file; raises ConfigError."""
    if config.disabled or not config.xds.configured:
        return None
    from meshlib.xds.bootstrap import bootstrap_of as understood

    text, origin = bootstrap_text(config)
    return understood(config, text, origin, _host_name())


def rules_of(config: Config, bootstrap: Bootstrap | None) -> Rules:
    """How hosts are resolved."""
    from meshlib.core.joining import Adoption
    from meshlib.core.resolve import Rules

    rules = Rules(
        bypass=config.bypass,
        disabled=config.disabled,
        view=config.xds.asked_view,
        domains=config.xds.domains,
        unknown=config.unknown_hosts,
        has_xds=bootstrap is not None,
        cold_start=config.xds.cold_start,
    )
    joined = config.adoption
    adoption = Adoption(
        default=joined.default,
        services=tuple(joined.services.items()),
        key=joined.key or "",
        node=(config.node.id or _host_name()) if bootstrap is None else bootstrap.node.id,
    )
    rules = replace(rules, adoption=adoption, fallback=config.sidecar.fallback)
    if bootstrap is None:
        return replace(rules, node=(config.node.cluster or "", config.node.id or ""))
    # Istio's generator for gRPC names its listeners host:port (CP-04), and has none for an Envoy.
    istio = bootstrap.node.metadata.get("GENERATOR") == "grpc"
    return replace(
        rules,
        server=", ".join(server.uri for server in bootstrap.servers),
        template=bootstrap.template,
        templates={name: authority.template for name, authority in bootstrap.authorities.items()},
        node=(bootstrap.node.cluster, bootstrap.node.id),
        with_port=istio,
        view="target" if istio and rules.view == "auto" else rules.view,
    )


def described(config: Config) -> Mapping[str, object]:
    """The node as it is told to control planes; as far as the configuration tells it where a bootstrap cannot be read."""
    from meshlib.sources.node import describe
    from meshlib.xds.bootstrap import Node

    try:
        bootstrap = bootstrap_of(config)
    except ConfigError:
        bootstrap = None
    if bootstrap is not None:
        return describe(bootstrap.node)
    mine = config.node
    metadata = mine.to_dict()["metadata"]
    assert isinstance(metadata, dict)
    return describe(Node(mine.id or _host_name(), mine.cluster or "", place_of(config, None), metadata))


def place_of(config: Config, bootstrap: Bootstrap | None) -> Locality:
    """Where this process is."""
    from meshlib.model.endpoint import Locality

    if bootstrap is not None:
        return bootstrap.node.locality
    mine = config.node
    return Locality(mine.region or "", mine.zone or "", mine.sub_zone or "")


def _host_name() -> str:
    import socket

    return socket.gethostname()
