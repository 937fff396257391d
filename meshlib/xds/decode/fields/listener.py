"""Rules for listeners, filter chains, the HTTP connection manager and its filters."""

from __future__ import annotations

from typing import Any

from meshlib.xds.decode.fields.rules import rules

__all__ = ["LISTENER"]

_LISTENER = "envoy.config.listener.v3."
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3."
_FAULT = "envoy.extensions.filters.http.fault.v3."
_COMMON_FAULT = "envoy.extensions.filters.common.fault.v3."
_SESSION = "envoy.extensions.filters.http.stateful_session.v3."
_STATE = "envoy.extensions.http.stateful_session."
_RUNTIME = "there is no runtime: what the filter itself says holds"
_GUARDS = "one that decides who may pass refuses what it covers: see [differences](../differences.md)"
_PLACE = "only whether a filter that decides who may pass is in force here"
_LOG = "envoy.config.accesslog.v3."

_OF_CONNECTIONS = (
    "idle_timeout upstream_idle_timeout max_downstream_connection_duration"
    " max_downstream_connection_duration_jitter_percentage upstream_connect_mode"
)
_SANITIZE, _ALWAYS_FORWARD_ONLY = 0, 4


def _changes_certificates(message: Any) -> bool:
    """A header about a client's certificate is passed on, whoever wrote it."""
    return message.forward_client_cert_details not in (_SANITIZE, _ALWAYS_FORWARD_ONLY)


LISTENER = {
    f"{_LISTENER}Listener": rules(
        honoured="name address additional_addresses filter_chains default_filter_chain api_listener traffic_direction"
        " use_original_dst bind_to_port deprecated_v1 listener_filters filter_chain_matcher fcds_config",
        void="stat_prefix per_connection_buffer_limit_bytes metadata drain_type"
        " listener_filters_timeout continue_on_listener_filters_timeout transparent freebind"
        " socket_options tcp_fast_open_queue_length udp_listener_config connection_balance_config reuse_port"
        " enable_reuse_port access_log tcp_backlog_size max_connections_to_accept_per_socket_event"
        " enable_mptcp ignore_global_conn_limit bypass_overload_manager internal_listener",
        notes={
            "address": "in the target view it has no meaning beside api_listener",
            "traffic_direction": "INBOUND: kept without its filter chains, which no call of a client enters",
            "use_original_dst": "an IP address that a filter chain of the listener names is the listener's",
            "bind_to_port": "false: an IP address on the port is the listener's, and loopback is not",
            "listener_filters": "`original_dst` as use_original_dst; `http_inspector` tells `application_protocols` of"
            " plain text; TLS is always looked into. Others have no meaning",
            "fcds_config": "the filter chains that `filter_chain_matcher` leads to and that are not in the listener are asked for by name",
            "internal_listener": "nobody but the Envoy that it is in can call it",
            "access_log": "logs and spans are this library's own",
        },
    ),
    f"{_LISTENER}Listener.FcdsConfig": rules(
        honoured="config_source", void="name", notes={"name": "each filter chain is asked for by its own"}
    ),
    f"{_LISTENER}Listener.DeprecatedV1": rules(honoured="bind_to_port"),
    f"{_LISTENER}ListenerFilter": rules(
        honoured="name typed_config filter_disabled",
        void="config_discovery",
        notes={"filter_disabled": "of `http_inspector`, by the listener's own port"},
    ),
    f"{_LISTENER}ListenerFilterChainMatchPredicate": rules(
        honoured="or_match and_match not_match any_match destination_port_range"
    ),
    f"{_LISTENER}ListenerFilterChainMatchPredicate.MatchSet": rules(honoured="rules"),
    f"{_LISTENER}AdditionalAddress": rules(honoured="address", void="socket_options"),
    f"{_LISTENER}ApiListener": rules(
        honoured="api_listener", notes={"api_listener": "must hold an HttpConnectionManager"}
    ),
    f"{_LISTENER}FilterChain": rules(
        honoured="filter_chain_match filters name",
        reported="transport_socket",
        void="use_proxy_proto metadata transport_socket_connect_timeout",
        notes={
            "transport_socket": "it is between the application and an Envoy",
            "filters": "HttpConnectionManager and TcpProxy; other network filters as unknown HTTP filters",
        },
    ),
    f"{_LISTENER}FilterChainMatch": rules(
        honoured="destination_port prefix_ranges server_names transport_protocol application_protocols source_type",
        rejected="address_suffix suffix_len",
        reported="direct_source_prefix_ranges source_prefix_ranges source_ports",
        notes={
            **dict.fromkeys(
                ("direct_source_prefix_ranges", "source_prefix_ranges", "source_ports"),
                "which a sidecar's caller would have is not known: the chain takes no call",
            ),
            **dict.fromkeys(("address_suffix", "suffix_len"), "is not implemented in Envoy either"),
            "application_protocols": "plain text is `http/1.1`, of gRPC `h2c`; over TLS `http/1.1` is offered",
            "server_names": "the host of an https call, where it is a name",
            "source_type": "a call to loopback is of the same host, any other external",
        },
    ),
    f"{_LISTENER}Filter": rules(
        honoured="name typed_config config_discovery",
        notes={
            "typed_config": _GUARDS,
            "config_discovery": f"the filter is reported, whatever may come; {_GUARDS}",
        },
    ),
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": rules(
        honoured="cluster weighted_clusters max_connect_attempts backoff_options hash_policy metadata_match",
        reported="on_demand tunneling_config",
        void="stat_prefix downstream_idle_timeout access_log access_log_flush_interval flush_access_log_on_connected"
        " access_log_options max_early_data_bytes idle_timeout upstream_idle_timeout max_downstream_connection_duration"
        " max_downstream_connection_duration_jitter_percentage proxy_protocol_tlvs upstream_connect_mode",
        notes={
            "cluster": "an HTTP call to the address of the listener goes there, without any policy but the cluster's",
            "tunneling_config": "no tunnel is made",
            "on_demand": "a cluster that is named is asked for anyway, but not by this source",
            "max_connect_attempts backoff_options": "attempts of a call that no connection was made for",
            _OF_CONNECTIONS: "it is for pairs of connections through a proxy; a call has one, of its cluster",
            "proxy_protocol_tlvs": "of a transport socket that closes the endpoints",
        },
    ),
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster": rules(honoured="clusters"),
    "envoy.config.core.v3.BackoffStrategy": rules(honoured="base_interval max_interval"),
    "envoy.type.v3.HashPolicy": rules(honoured="source_ip filter_state"),
    "envoy.type.v3.HashPolicy.SourceIp": rules(),
    "envoy.type.v3.HashPolicy.FilterState": rules(
        honoured="key", notes={"key": "there is no filter state here: nothing is hashed"}
    ),
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight": rules(
        honoured="name weight metadata_match",
    ),
    f"{_HCM}HttpConnectionManager": rules(
        honoured="rds route_config http_filters common_http_protocol_options strip_matching_host_port"
        " strip_any_host_port strip_trailing_host_dot merge_slashes normalize_path path_with_escaped_slashes_action"
        " scheme_header_transformation add_user_agent append_x_forwarded_port server_name server_header_transformation"
        " local_reply_config request_timeout stream_idle_timeout max_request_headers_kb generate_request_id via"
        " always_set_request_id_in_response proxy_status_config early_header_mutation_extensions internal_address_config",
        rejected="scoped_routes",
        reported="typed_header_validation_config use_remote_address forward_client_cert_details"
        " forward_client_cert_matcher",
        void="original_ip_detection_extensions xff_num_trusted_hops path_normalization_options http_protocol_options codec_type stat_prefix tracing upgrade_configs request_headers_timeout request_id_extension http1_safe_max_connection_duration"
        " http2_protocol_options http3_protocol_options"
        " stream_flush_timeout drain_timeout delayed_close_timeout access_log access_log_flush_interval"
        " flush_access_log_on_new_request access_log_options skip_xff_append"
        " preserve_external_request_id set_current_client_cert_details proxy_100_continue"
        " represent_ipv4_remote_address_as_ipv4_mapped_ipv6"
        " stream_error_on_invalid_http_message append_local_overload"
        " add_proxy_protocol_connection_state",
        variants={"common_http_protocol_options": "downstream"},
        when={
            "use_remote_address": lambda message: bool(message.use_remote_address.value),
            "forward_client_cert_details": _changes_certificates,
        },
        notes={
            "request_timeout": "the answer to a call whose request is not sent in time is 408; not of aiohttp's own connections",
            "stream_idle_timeout": "where it is set: 5 min are Envoy's default, and none is ours; not of aiohttp's own connections",
            "request_headers_timeout": "a head is sent at once",
            "max_request_headers_kb": "where it is set: 60 is Envoy's default, and none is ours",
            "early_header_mutation_extensions": "`header_mutation`; others are reported; not of gRPC calls",
            "path_normalization_options": "not implemented in Envoy either",
            "typed_header_validation_config": "the host library checks what it builds",
            "via always_set_request_id_in_response": "not of gRPC calls",
            "proxy_status_config": "of replies of our own",
            "forward_client_cert_matcher": "there is no downstream certificate",
            "rds": "`config_source` must be `ads` or `self`",
            "scoped_routes": "routes chosen by a scope are not supported",
            "tracing": "spans are made as OpenTelemetry is set up in this process",
            "use_remote_address": "true is reported: no `x-forwarded-for`, no `x-envoy-external-address` is added",
            "internal_address_config": "as `x-forwarded-for` of the call says; no address counts as internal by itself",
            "skip_xff_append": "no `x-forwarded-for` is added anyway",
            "forward_client_cert_details": "an `x-forwarded-client-cert` of the application's own is passed on, as by"
            " ALWAYS_FORWARD_ONLY; other values than this and the default are reported",
            "set_current_client_cert_details": "there is no downstream certificate",
            "generate_request_id": "where it is set: true is Envoy's default, and none is ours; not of gRPC calls",
            "request_id_extension": "an id is a UUID, in which nothing is packed",
            "preserve_external_request_id": "one is always passed on",
            "http_protocol_options": "there is no downstream connection",
            "proxy_100_continue": "the application's own connection is the endpoint's",
            "upgrade_configs": "an upgrade that a call asks for is never refused",
            "append_local_overload": "nothing here is overloaded as an Envoy is",
            "codec_type": "there is no downstream connection",
            "server_name": "in replies of our own only: a response of an endpoint keeps its `server`",
            "server_header_transformation": "in replies of our own, where `server_name` is set",
            "add_user_agent": "the names are those of our node",
            "append_x_forwarded_port": "the port is the listener's",
            "xff_num_trusted_hops": "nothing here asks for a caller's address; rejected in an api_listener (gRFC A41)",
            "original_ip_detection_extensions": "nothing here asks for a caller's address; one that may refuse calls refuses what it covers; rejected in an"
            " api_listener (gRFC A41)",
            "path_with_escaped_slashes_action": "IMPLEMENTATION_SPECIFIC_DEFAULT is KEEP_UNCHANGED",
        },
    ),
    f"{_HCM}HttpConnectionManager.InternalAddressConfig": rules(
        honoured="cidr_ranges",
        void="unix_sockets",
        notes={"unix_sockets": "there is no downstream connection"},
    ),
    f"{_HCM}HttpConnectionManager.ProxyStatusConfig": rules(
        honoured="remove_details remove_response_flags set_recommended_response_code use_node_id literal_proxy_name",
        void="remove_connection_termination_details",
        notes={"remove_connection_termination_details": "nothing is said of how a connection ended"},
    ),
    "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation": rules(
        honoured="mutations"
    ),
    "envoy.config.common.mutation_rules.v3.HeaderMutation": rules(honoured="remove append remove_on_match"),
    "envoy.config.common.mutation_rules.v3.HeaderMutation.RemoveOnMatch": rules(honoured="key_matcher"),
    f"{_HCM}LocalReplyConfig": rules(
        honoured="mappers body_format",
        notes={
            "mappers": "for all replies that are ours: of routes, of listeners, of failures that are told as responses"
        },
    ),
    f"{_HCM}ResponseMapper": rules(
        honoured="filter status_code body body_format_override headers_to_add",
        notes={"filter": "a mapper whose filter holds one that is reported is left out"},
    ),
    f"{_LOG}AccessLogFilter": rules(
        honoured="status_code_filter duration_filter not_health_check_filter runtime_filter and_filter or_filter header_filter"
        " response_flag_filter traceable_filter grpc_status_filter metadata_filter log_type_filter",
        reported="extension_filter",
        notes={
            "runtime_filter": "of 0 % and 100 %; others are reported",
            "traceable_filter": "without `tracing` no call is; with it, a mapper with one is left out and reported",
            "metadata_filter": "a call has no dynamic metadata: `match_if_key_not_found` holds",
            "duration_filter": "of the time since the call began, as the reply is made",
            "extension_filter": "extensions of Envoy's are not run: a mapper with one is left out",
        },
    ),
    f"{_LOG}StatusCodeFilter": rules(honoured="comparison"),
    f"{_LOG}ComparisonFilter": rules(honoured="op value"),
    f"{_LOG}DurationFilter": rules(honoured="comparison"),
    f"{_LOG}NotHealthCheckFilter": rules(),
    f"{_LOG}TraceableFilter": rules(),
    f"{_LOG}GrpcStatusFilter": rules(honoured="statuses exclude"),
    f"{_LOG}MetadataFilter": rules(honoured="match_if_key_not_found", void="matcher"),
    f"{_LOG}LogTypeFilter": rules(
        honoured="types exclude", notes={"types": "a reply is of the type `NotSet`, as in Envoy"}
    ),
    f"{_LOG}RuntimeFilter": rules(
        honoured="percent_sampled",
        void="runtime_key use_independent_randomness",
        notes={"runtime_key": "there is no runtime: the share holds"},
    ),
    f"{_LOG}AndFilter": rules(honoured="filters"),
    f"{_LOG}OrFilter": rules(honoured="filters"),
    f"{_LOG}HeaderFilter": rules(honoured="header"),
    f"{_LOG}ResponseFlagFilter": rules(honoured="flags"),
    "envoy.config.core.v3.HttpProtocolOptions#downstream": rules(
        honoured="headers_with_underscores_action max_headers_count max_stream_duration",
        void="idle_timeout max_connection_duration max_response_headers_kb max_requests_per_connection",
        notes={
            "idle_timeout": "there is no downstream connection",
            "max_headers_count": "where it is set: 100 is Envoy's default, and none is ours",
            "max_stream_duration": "of calls whose route does not say",
        },
    ),
    f"{_HCM}Rds": rules(honoured="config_source route_config_name"),
    f"{_HCM}HttpFilter": rules(
        honoured="name typed_config is_optional disabled config_discovery",
        notes={
            "typed_config": f"the router is honoured; others are reported, and {_GUARDS}",
            "config_discovery": "a filter that may decide who may pass covers its calls until its configuration has come",
            "disabled": "until a route configuration enables it",
        },
    ),
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute": rules(
        honoured="disabled",
        void="check_settings",
        notes={"disabled": _PLACE, "check_settings": "nobody is asked: what is covered is refused"},
    ),
    "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig": rules(
        honoured="disabled",
        void="requirement_name",
        notes={"disabled": _PLACE, "requirement_name": "nothing is looked for: what is covered is refused"},
    ),
    "envoy.extensions.filters.http.rbac.v3.RBACPerRoute": rules(honoured="rbac", notes={"rbac": _PLACE}),
    "envoy.extensions.filters.http.router.v3.Router": rules(
        honoured="upstream_http_filters strict_check_headers suppress_envoy_headers respect_expected_rq_timeout",
        notes={
            "strict_check_headers": "of internal calls; what else such lines say is not obeyed",
            "upstream_http_filters": f"the codec; others are reported, and {_GUARDS}",
            "suppress_envoy_headers": "not of gRPC calls",
            "respect_expected_rq_timeout": "of internal calls",
        },
        void="dynamic_stats start_child_span upstream_log upstream_log_options suppress_grpc_request_failure_code_stats",
    ),
    f"{_SESSION}StatefulSession": rules(
        honoured="session_state strict status_on_strict_destination_not_found",
        void="stat_prefix",
        notes={
            "strict": "a call is tried again at its own endpoint only",
            "session_state": "a cookie, a header or an envelope; of a gRPC target a cookie",
        },
    ),
    f"{_SESSION}StatefulSessionPerRoute": rules(honoured="disabled stateful_session"),
    f"{_STATE}cookie.v3.CookieBasedSessionState": rules(honoured="cookie"),
    f"{_STATE}header.v3.HeaderBasedSessionState": rules(honoured="name"),
    f"{_STATE}envelope.v3.EnvelopeSessionState": rules(honoured="header"),
    f"{_STATE}envelope.v3.EnvelopeSessionState.Header": rules(honoured="name"),
    "envoy.type.http.v3.Cookie": rules(honoured="name ttl path attributes"),
    "envoy.type.http.v3.CookieAttribute": rules(honoured="name value"),
    f"{_FAULT}HTTPFault": rules(
        honoured="delay abort upstream_cluster headers downstream_nodes max_active_faults response_rate_limit",
        void="disable_downstream_cluster_stats filter_metadata"
        " delay_percent_runtime abort_percent_runtime delay_duration_runtime abort_http_status_runtime"
        " max_active_faults_runtime response_rate_limit_percent_runtime abort_grpc_status_runtime",
        notes={
            "downstream_nodes": "calls that say so (`x-envoy-downstream-service-node`), as all do with `add_user_agent`",
            "response_rate_limit": "of HTTP calls; not of aiohttp's own connections",
            "delay_percent_runtime": _RUNTIME,
            "abort_percent_runtime delay_duration_runtime abort_http_status_runtime": _RUNTIME,
            "max_active_faults_runtime response_rate_limit_percent_runtime abort_grpc_status_runtime": _RUNTIME,
            "max_active_faults": "of calls that are delayed, in this process (FI-04)",
        },
    ),
    f"{_FAULT}FaultAbort": rules(honoured="http_status grpc_status header_abort percentage"),
    f"{_FAULT}FaultAbort.HeaderAbort": rules(),
    f"{_COMMON_FAULT}FaultRateLimit": rules(honoured="fixed_limit header_limit percentage"),
    f"{_COMMON_FAULT}FaultRateLimit.FixedLimit": rules(honoured="limit_kbps"),
    f"{_COMMON_FAULT}FaultRateLimit.HeaderLimit": rules(),
    f"{_COMMON_FAULT}FaultDelay": rules(honoured="fixed_delay header_delay percentage"),
    f"{_COMMON_FAULT}FaultDelay.HeaderDelay": rules(),
}
