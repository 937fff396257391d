"""Rules for the messages of the protocol itself. No decoder walks these; the rules are for the reader."""

from __future__ import annotations

from meshlib.xds.decode.fields.rules import rules

__all__ = ["PROTOCOL"]

_SERVICE = "envoy.service.discovery.v3."
_DELTA = "delta xDS is not there yet"

PROTOCOL = {
    f"{_SERVICE}DiscoveryRequest": rules(
        honoured="version_info node resource_names type_url response_nonce error_detail",
        void="resource_locators",
    ),
    f"{_SERVICE}DiscoveryResponse": rules(
        honoured="version_info resources type_url nonce resource_errors", void="canary control_plane"
    ),
    f"{_SERVICE}ResourceError": rules(honoured="resource_name error_detail"),
    f"{_SERVICE}ResourceName": rules(honoured="name", void="dynamic_parameter_constraints"),
    f"{_SERVICE}Resource": rules(
        honoured="name resource",
        void="resource_name aliases version ttl cache_control metadata",
        notes={"ttl": "support for it is not advertised (checklist SW-21)"},
    ),
    f"{_SERVICE}Resource.CacheControl": rules(void="do_not_cache"),
    f"{_SERVICE}ResourceLocator": rules(void="name dynamic_parameters"),
    f"{_SERVICE}DeltaDiscoveryRequest": rules(
        void="node type_url resource_names_subscribe resource_names_unsubscribe resource_locators_subscribe"
        " resource_locators_unsubscribe initial_resource_versions response_nonce error_detail",
        notes={"type_url": _DELTA},
    ),
    f"{_SERVICE}DeltaDiscoveryResponse": rules(
        void="system_version_info resources type_url removed_resources removed_resource_names nonce control_plane"
        " resource_errors",
        notes={"type_url": _DELTA},
    ),
    "google.rpc.Status": rules(honoured="code message", void="details"),
    "envoy.config.core.v3.Node": rules(
        honoured="id cluster metadata locality user_agent_name user_agent_version client_features",
        void="dynamic_parameters user_agent_build_version extensions listening_addresses",
    ),
    "envoy.config.core.v3.ControlPlane": rules(void="identifier"),
    "envoy.config.core.v3.BuildVersion": rules(void="version metadata"),
    "envoy.config.core.v3.Extension": rules(void="name category type_descriptor version disabled type_urls"),
    "envoy.type.v3.SemanticVersion": rules(void="major_number minor_number patch"),
    "xds.type.v3.TypedStruct": rules(
        honoured="type_url", void="value", notes={"value": "a filter's settings"}
    ),
    "udpa.type.v1.TypedStruct": rules(
        honoured="type_url", void="value", notes={"value": "a filter's settings"}
    ),
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate": rules(),
}
