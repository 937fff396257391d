"""Configurations of HTTP filters that come by themselves (ECDS)."""

from __future__ import annotations

from meshlib.model.listener import Extension, FilterKind
from meshlib.xds.decode.guards import GUARDS_HERE, ROUTER, filter_type, is_guard
from meshlib.xds.decode.report import Report, join
from meshlib.xds.schema import WireMessage, message

__all__ = ["extension", "kind_of"]

_FILTER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter"


def extension(config: WireMessage, path: str, report: Report) -> Extension:
    """A TypedExtensionConfig. What is not run here is reported."""
    here = join(path, "typed_config")
    if not config.HasField("typed_config"):
        report.problem(here, "is missing")
    kind = kind_of(str(config.name), config.typed_config)
    name = filter_type(config.typed_config)
    if kind is FilterKind.GUARD:
        report.ignore(here, f"{name or config.name} {GUARDS_HERE}: what it covers is answered 403")
    elif kind is not FilterKind.ROUTER:
        report.ignore(here, name)
    return Extension(str(config.name), name, kind)


def kind_of(name: str, config: WireMessage) -> FilterKind:
    """What a filter with this configuration is to a client."""
    item = message(_FILTER)()
    item.name = name
    item.typed_config.CopyFrom(config)
    if is_guard(item):
        return FilterKind.GUARD
    return FilterKind.ROUTER if filter_type(config) == ROUTER else FilterKind.OTHER
