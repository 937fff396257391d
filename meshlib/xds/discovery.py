"""DiscoveryResponses that come as text, and what their resources say of where others come from.

On a stream a listener says of its routes that they come on that same stream (``ads`` or ``self``). What is written for
Envoy's other transports says ``path_config_source``, or an ``api_config_source`` by REST. Who serves such resources takes
that out (`settle_sources`) and puts ``self`` there: from then on they are as if they had come on a stream, on which he
brings what they name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from meshlib.xds import schema
from meshlib.xds.schema import WireMessage

__all__ = [
    "DELTA_REQUEST",
    "DELTA_RESPONSE",
    "REQUEST",
    "RESPONSE",
    "Taken",
    "name_of",
    "read_response",
    "settle_sources",
]

REQUEST = "envoy.service.discovery.v3.DiscoveryRequest"
RESPONSE = "envoy.service.discovery.v3.DiscoveryResponse"
DELTA_REQUEST = "envoy.service.discovery.v3.DeltaDiscoveryRequest"
DELTA_RESPONSE = "envoy.service.discovery.v3.DeltaDiscoveryResponse"
_WRAPPER = "envoy.service.discovery.v3.Resource"
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_NAMES = {
    schema.LISTENER: "name",
    schema.ROUTE: "name",
    schema.CLUSTER: "name",
    schema.ENDPOINT: "cluster_name",
    schema.SECRET: "name",
}
_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"

Taken = Callable[[str, str, WireMessage], bool]
"""Is asked of each ConfigSource, with the short name of the type and the name of what is to come from there: whether it
comes on the stream itself.
"""


def read_response(value: object) -> tuple[WireMessage, tuple[tuple[str, str], ...]]:
    """The DiscoveryResponse that JSON or YAML describes, and by path and value the fields in it that nobody knows: as Envoy,
    which takes such in what is discovered. Where nothing else is there, it is something else and no empty response. Raises
    JsonError with every other problem, RecursionError where it is too deep.
    """
    unknown: list[tuple[str, str]] = []
    made = schema.from_json(RESPONSE, value, unknown=unknown)
    if unknown and not made.ListFields():
        raise schema.JsonError(
            (f"{unknown[0][0]}: is no field of {RESPONSE}, and none that is one is there",)
        )
    return made, tuple(unknown)


def name_of(resource: WireMessage) -> str:
    """The name under which a packed resource is asked for; ``""`` where it has none. A wrapper is opened once, as it is on a stream."""
    inner = _opened(resource)
    if inner is not None and schema.full_name(inner) == _WRAPPER:
        if inner.name:
            return str(inner.name)
        inner = _opened(inner.resource)
    field = _NAMES.get(schema.type_url(inner)) if inner is not None else None
    return str(getattr(inner, field)) if field is not None else ""


def settle_sources(response: WireMessage, taken: Taken) -> None:
    """Replaces each source that is `taken` in the resources of `response` (of either protocol) by ``self``. What cannot be read
    stays as it is.
    """
    wrapped = schema.full_name(response) == DELTA_RESPONSE
    for each in response.resources:
        _settle(each.resource if wrapped else each, taken, _IN_A_RESPONSE)


# Of a message, what has sources in it: whether one was replaced.
_Read = Callable[[WireMessage, Taken], bool]


def _settle(packed: WireMessage, taken: Taken, kinds: Mapping[str, _Read]) -> bool:
    """Settles what is packed if it is one of `kinds`: those that can stand there, so that nothing is opened deeper than it means."""
    inner = _opened(packed)
    read = None if inner is None else kinds.get(schema.full_name(inner))
    if inner is None or read is None or not read(inner, taken):
        return False
    packed.value = inner.SerializeToString(deterministic=True)
    return True


def _wrapper(wrapper: WireMessage, taken: Taken) -> bool:
    return _settle(wrapper.resource, taken, _RESOURCES)


def _listener(listener: WireMessage, taken: Taken) -> bool:
    settled = [_settle(each, taken, {_HCM: _manager}) for each in _managers(listener)]
    return any(settled)


def _manager(manager: WireMessage, taken: Taken) -> bool:
    held = manager.rds
    return bool(
        manager.HasField("rds") and _replace(held.config_source, "route", str(held.route_config_name), taken)
    )


def _cluster(cluster: WireMessage, taken: Taken) -> bool:
    sockets = (cluster, *cluster.transport_socket_matches)
    settled = [
        _settle(each.transport_socket.typed_config, taken, {_TLS: _context})
        for each in sockets
        if each.transport_socket.HasField("typed_config")
    ]
    if cluster.HasField("eds_cluster_config"):
        held = cluster.eds_cluster_config
        settled.append(_replace(held.eds_config, "endpoint", str(held.service_name or cluster.name), taken))
    return any(settled)


def _context(context: WireMessage, taken: Taken) -> bool:
    settled = [_replace(each.sds_config, "secret", str(each.name), taken) for each in _secrets(context)]
    return any(settled)


_RESOURCES = {schema.type_name(schema.LISTENER): _listener, schema.type_name(schema.CLUSTER): _cluster}
_IN_A_RESPONSE = {**_RESOURCES, _WRAPPER: _wrapper}


def _secrets(context: WireMessage) -> Iterator[WireMessage]:
    """Each SdsSecretConfig of a client's TLS."""
    common, field = context.common_tls_context, "validation_context_sds_secret_config"
    yield from common.tls_certificate_sds_secret_configs
    if common.HasField(field):
        yield common.validation_context_sds_secret_config
    if common.combined_validation_context.HasField(field):
        yield common.combined_validation_context.validation_context_sds_secret_config


def _managers(listener: WireMessage) -> Iterator[WireMessage]:
    """The packed configurations of network filters."""
    if listener.HasField("api_listener"):
        yield listener.api_listener.api_listener
    chains = list(listener.filter_chains)
    if listener.HasField("default_filter_chain"):
        chains.append(listener.default_filter_chain)
    for chain in chains:
        yield from (each.typed_config for each in chain.filters)


def _replace(source: WireMessage, short: str, name: str, taken: Taken) -> bool:
    if not taken(short, name, source):
        return False
    source.ClearField(source.WhichOneof("config_source_specifier"))
    source.self.SetInParent()
    return True


def _opened(packed: WireMessage) -> Any:
    try:
        return schema.message(schema.type_name(packed.type_url)).FromString(packed.value)
    except (KeyError, ValueError, RecursionError, schema.DecodeError):
        return None  # whoever decodes it says why
