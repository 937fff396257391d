"""Decoders: an Any's bytes → a value of the model, or every problem with its path, and what is not honoured.

    found = decode.listener(raw)
    found.value        None if it is refused
    found.problems     ("virtual_hosts[1].routes[3].match: one of prefix, … must be set", …)
    found.ignored      (("filter_chains[0].transport_socket", "…"), …)

Nothing here raises, whatever the bytes are. What becomes of each field is written in `decode.fields`.
"""

from __future__ import annotations

from meshlib.xds.decode.report import Decoded, Report
from meshlib.xds.decode.resource import (
    TYPES,
    ResourceType,
    cluster,
    endpoint,
    extension,
    filter_chain,
    listener,
    read,
    route,
    secret,
    types,
)

__all__ = [
    "TYPES",
    "Decoded",
    "Report",
    "ResourceType",
    "cluster",
    "decoded",
    "endpoint",
    "extension",
    "filter_chain",
    "listener",
    "read",
    "route",
    "secret",
    "types",
]
