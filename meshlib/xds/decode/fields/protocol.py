"""Rules for the messages of the protocol itself. No decoder walks these; the rules are for the reader."""

from __future__ import annotations

from meshlib.xds.decode.fields.rules import rules

__all__ = ["PROTOCOL"]

_SERVICE = "envoy.service.discovery.v3."

PROTOCOL = {
    "envoy.config.bootstrap.v3.Bootstrap": rules(
        honoured="static_resources node cluster_manager use_tcp_for_dns_lookups dns_resolution_config typed_dns_resolver_config",
        reported="node_context_params dynamic_resources layered_runtime header_prefix"
        " bootstrap_extensions config_sources default_config_source certificate_provider_instances xds_delegate_extension",
        void="hds_config flags_path stats_sinks deferred_stat_options stats_config stats_flush_interval stats_flush_on_admin"
        " stats_eviction_interval watchdog watchdogs tracing admin overload_manager enable_dispatcher_stats"
        " stats_server_version_override fatal_actions default_socket_interface inline_headers perf_tracing_file_path"
        " default_regex_engine xds_config_tracker_extension listener_manager application_log_config"
        " grpc_async_client_manager_config memory_allocator_manager enable_worker_cpu_affinity",
        reason="an Envoy's own process: this one is told by meshlib's configuration",
        notes={
            "static_resources": "read from a file in Envoy's shape",
            "use_tcp_for_dns_lookups dns_resolution_config typed_dns_resolver_config": "of the file's clusters that say nothing of the kind",
            "node": "its locality; the rest is reported: `node` of the configuration says who we are",
            "node_context_params": "`node` of the configuration says who we are",
            "dynamic_resources config_sources default_config_source": "`xds` of the configuration says where the control plane is",
            "cluster_manager": "`local_cluster_name`; what else it says is reported",
            "layered_runtime": "there is no runtime: the defaults of fields that have a runtime key hold",
            "header_prefix": "headers of Envoy's keep the prefix `x-envoy`",
            "bootstrap_extensions": "extensions of Envoy's are not run",
            "certificate_provider_instances": "the providers are those of gRPC's bootstrap and of `identity`",
            "xds_delegate_extension": "what serves while a control plane is away is `xds.last_good`",
            "hds_config": "whom an Envoy probes on behalf of others",
            "tracing": "spans are made as OpenTelemetry is set up in this process",
            "overload_manager": "what an Envoy does when its own memory, or its own connections, run out",
            "default_regex_engine": "patterns are RE2's",
            "default_socket_interface": "sockets are this process's",
        },
    ),
    "envoy.config.bootstrap.v3.Bootstrap.StaticResources": rules(honoured="listeners clusters secrets"),
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
        honoured="name resource_name aliases version resource",
        void="ttl cache_control metadata",
        notes={"ttl": "support for it is not advertised (checklist SW-21)"},
    ),
    f"{_SERVICE}Resource.CacheControl": rules(void="do_not_cache"),
    f"{_SERVICE}ResourceLocator": rules(void="name dynamic_parameters"),
    f"{_SERVICE}DeltaDiscoveryRequest": rules(
        honoured="node type_url resource_names_subscribe resource_names_unsubscribe initial_resource_versions"
        " response_nonce error_detail",
        void="resource_locators_subscribe resource_locators_unsubscribe",
    ),
    f"{_SERVICE}DeltaDiscoveryResponse": rules(
        honoured="system_version_info resources type_url removed_resources removed_resource_names nonce"
        " resource_errors",
        void="control_plane",
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
    "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate": rules(),
    "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig": rules(
        honoured="metadata_match", notes={"metadata_match": "under `envoy.lb`"}
    ),
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig": rules(
        honoured="update_frequency"
    ),
}
