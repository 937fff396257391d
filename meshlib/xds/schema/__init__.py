"""The wire schema: xDS messages in a protobuf descriptor pool of our own.

Only what meshlib honours, or must recognise to reject or report it; a drift test compares every field with
upstream. Nothing is registered globally: another package may load its own copy of the same messages.

    Listener = schema.message("envoy.config.listener.v3.Listener")
    listener = Listener.FromString(data)            # DecodeError if `data` is no Listener
    listener = schema.from_json("envoy.config.listener.v3.Listener", {"name": "a", ...})

Messages are protobuf messages: mutable, and to be shared between threads only while nobody writes. Everything else
here is read-only after import and safe from every thread. Importing this package imports protobuf (not grpc).
"""

from __future__ import annotations

from collections.abc import Mapping

from meshlib.xds.schema.messages import (
    POOL,
    DecodeError,
    WireMessage,
    copy_field,
    descriptor,
    full_name,
    is_opaque,
    is_repeated,
    knows,
    message,
    names,
    pack,
    spelled,
    type_name,
    type_url,
    unpack,
)
from meshlib.xds.schema.reader import MAX_DEPTH, JsonError, from_json
from meshlib.xds.schema.writer import to_json, varint

__all__ = [
    "ADS_DELTA",
    "ADS_SOTW",
    "CLUSTER",
    "CSDS",
    "ENDPOINT",
    "EXTENSION",
    "FILTER_CHAIN",
    "LISTENER",
    "LRS",
    "MAX_DEPTH",
    "ORCA",
    "POOL",
    "ROUTE",
    "SECRET",
    "SHORT_NAMES",
    "TYPE_URLS",
    "DecodeError",
    "JsonError",
    "WireMessage",
    "copy_field",
    "descriptor",
    "from_json",
    "full_name",
    "is_opaque",
    "is_repeated",
    "knows",
    "message",
    "names",
    "pack",
    "spelled",
    "to_json",
    "type_name",
    "type_url",
    "unpack",
    "varint",
]

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
FILTER_CHAIN = "type.googleapis.com/envoy.config.listener.v3.FilterChain"

# Type URL of each resource type by the short name that status and messages use, and back.
TYPE_URLS: Mapping[str, str] = {
    "listener": LISTENER,
    "route": ROUTE,
    "cluster": CLUSTER,
    "endpoint": ENDPOINT,
    "secret": SECRET,
    "extension": EXTENSION,
    "filter_chain": FILTER_CHAIN,
}
SHORT_NAMES: Mapping[str, str] = {url: short for short, url in TYPE_URLS.items()}

# gRPC methods that a client calls: load reports (LR-01), an endpoint's own metrics (OR-02).
LRS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
ORCA = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics"
# gRPC methods that others call here (CS-01).
CSDS = "/envoy.service.status.v3.ClientStatusDiscoveryService"

# gRPC methods of the aggregated discovery service (checklist ST-01).
ADS_SOTW = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
ADS_DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
