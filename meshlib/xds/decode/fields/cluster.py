"""Rules for clusters, balancing, TLS and endpoints."""

from __future__ import annotations

from meshlib.xds.decode.fields.rules import rules

__all__ = ["CLUSTER"]

_CLUSTER = "envoy.config.cluster.v3."
_ENDPOINT = "envoy.config.endpoint.v3."
_LB = "envoy.extensions.load_balancing_policies."
_TLS = "envoy.extensions.transport_sockets.tls.v3."
_TABLES = "a table has at most 1,048,573 slots"
_RINGS = "a ring has at most 1,048,576 places, and 4,096 for gRPC calls (gRFC A42)"
_SLOW = "since an endpoint came, or since its health checks pass again"
_UNDONE = "what cannot be done yet closes the endpoints behind it: they are never called in plain text"
_SUBSETS = "100 of 20 keys at most, and 10,000 subsets"
_ZONES = (
    "where this process's locality is known; where no local cluster is told, as if callers were spread evenly"
)
_AGGREGATES = "aggregates among them are followed, 16 deep; of an aggregate's own settings hold its panic threshold, `max_retries` and `retry_budget`"


CLUSTER = {
    f"{_CLUSTER}Cluster": rules(
        honoured="transport_socket_matches name type cluster_type eds_cluster_config connect_timeout lb_policy"
        " load_assignment circuit_breakers common_http_protocol_options"
        " http_protocol_options http2_protocol_options typed_extension_protocol_options dns_refresh_rate respect_dns_ttl dns_lookup_family"
        " dns_failure_refresh_rate dns_jitter dns_resolvers use_tcp_for_dns_lookups dns_resolution_config"
        " typed_dns_resolver_config upstream_bind_config upstream_connection_options max_requests_per_connection"
        " outlier_detection round_robin_lb_config least_request_lb_config ring_hash_lb_config maglev_lb_config lb_subset_config common_lb_config transport_socket metadata load_balancing_policy"
        " lrs_server lrs_report_endpoint_metrics upstream_http_protocol_options protocol_selection upstream_config"
        " health_checks ignore_health_on_host_removal close_connections_on_host_health_failure original_dst_lb_config"
        " preconnect_policy",
        reported="transport_socket_matcher",
        void="alt_stat_name filters wait_for_warm_on_init cleanup_interval"
        " track_timeout_budgets track_cluster_stats per_connection_buffer_limit_bytes connection_pool_per_downstream_connection",
        variants={"common_http_protocol_options": "upstream", "lrs_server": "lrs"},
        notes={
            "transport_socket_matcher": "`transport_socket_matches` is honoured; a matching tree is not evaluated",
            "per_connection_buffer_limit_bytes": "bodies are passed on as they come, and not held",
            "original_dst_lb_config": "without it a call goes to its URL, which is the original destination",
            "close_connections_on_host_health_failure": "what is idle ends at once, what carries a call with that, as Envoy's own of HTTP; of a"
            " TCP proxy Envoy breaks those, too. Not of gRPC channels",
            "ignore_health_on_host_removal": "an endpoint that the control plane does not name any more is gone, as in an Envoy with this;"
            " without it, Envoy calls one whose checks pass on",
            "upstream_config": "pools of HTTP; others are reported",
            "preconnect_policy": "not of aiohttp's own connections, of grpc's, nor under trio",
            "connection_pool_per_downstream_connection": "there is no downstream connection",
            "type": "EDS, STATIC, STRICT_DNS, LOGICAL_DNS, ORIGINAL_DST",
            "cluster_type": "`envoy.clusters.dns` and `envoy.clusters.aggregate` are honoured; others are rejected",
            "load_balancing_policy": "the first entry that is known holds",
            "transport_socket": _UNDONE,
            "health_checks": "while calls use the cluster; gRPC calls of the target view pass over them, as gRPC's clients do",
            "lrs_server": "`self` is honoured, where the control plane is asked over gRPC; the target view refuses others",
            "lrs_report_endpoint_metrics": "`cpu_utilization`, `mem_utilization`, `application_utilization`, `named_metrics.X` and"
            " `named_metrics.*`",
            "filters": "network filters of an Envoy's own connection; none that Envoy has changes a call",
            "upstream_http_protocol_options": "not read in the target view, as by gRPC",
            "protocol_selection": "USE_DOWNSTREAM_PROTOCOL means HTTP/1.1",
            "dns_jitter": "beside the tenth by which every refresh may come early",
            "typed_dns_resolver_config": "`CaresDnsResolverConfig` is honoured; others are reported",
            "upstream_bind_config": "connections of aiohttp's own and of grpc's come from where they do",
            "upstream_connection_options": "connections of aiohttp's own and of grpc's keep their options",
            "max_requests_per_connection": "not of gRPC channels, which grpc keeps",
        },
    ),
    f"{_CLUSTER}Cluster.PreconnectPolicy": rules(
        honoured="per_upstream_preconnect_ratio",
        reported="predictive_preconnect_ratio",
        notes={
            "per_upstream_preconnect_ratio": "one more at a time, while a call is on its way to the endpoint",
            "predictive_preconnect_ratio": "who will be picked next is not known before",
        },
    ),
    f"{_CLUSTER}Cluster.OriginalDstLbConfig": rules(
        honoured="use_http_header http_header_name upstream_port_override",
        void="metadata_key",
        notes={"metadata_key": "calls have no dynamic metadata"},
    ),
    f"{_CLUSTER}Cluster.TransportSocketMatch": rules(honoured="name match transport_socket"),
    f"{_CLUSTER}Cluster.CustomClusterType": rules(honoured="name typed_config"),
    f"{_CLUSTER}Cluster.EdsClusterConfig": rules(honoured="eds_config service_name"),
    f"{_CLUSTER}Cluster.RefreshRate": rules(honoured="base_interval max_interval"),
    f"{_CLUSTER}UpstreamConnectionOptions": rules(
        honoured="tcp_keepalive happy_eyeballs_config",
        void="set_local_interface_name_on_upstream_connections",
        notes={
            "happy_eyeballs_config": "not of connections of aiohttp's own, nor of grpc's, which go to an endpoint's first address"
        },
    ),
    f"{_CLUSTER}UpstreamConnectionOptions.HappyEyeballsConfig": rules(
        honoured="first_address_family_version first_address_family_count"
    ),
    "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig": rules(
        honoured="resolvers use_resolvers_as_fallback dns_resolver_options rotate_nameservers query_timeout_seconds query_tries"
        " filter_unroutable_families",
        void="edns0_max_payload_size udp_max_queries max_udp_channel_duration reinit_channel_on_timeout",
        notes={
            "query_timeout_seconds query_tries": "where neither is set a look-up takes 4 s at most, a try 1.5 s",
            "edns0_max_payload_size": "an answer that is too long comes over TCP",
            "filter_unroutable_families": "where the system tells of its interfaces: on Linux",
        },
    ),
    f"{_CLUSTER}Cluster.SlowStartConfig": rules(
        honoured="slow_start_window aggression min_weight_percent", notes={"slow_start_window": _SLOW}
    ),
    f"{_CLUSTER}Cluster.RoundRobinLbConfig": rules(honoured="slow_start_config"),
    f"{_CLUSTER}Cluster.LeastRequestLbConfig": rules(
        honoured="choice_count active_request_bias slow_start_config",
    ),
    f"{_CLUSTER}Cluster.LbSubsetConfig": rules(
        honoured="fallback_policy default_subset subset_selectors locality_weight_aware scale_locality_weight panic_mode_any"
        " list_as_any metadata_fallback_policy",
        notes={"subset_selectors": _SUBSETS},
    ),
    f"{_CLUSTER}Cluster.LbSubsetConfig.LbSubsetSelector": rules(
        honoured="keys single_host_per_subset fallback_policy fallback_keys_subset"
    ),
    f"{_CLUSTER}Cluster.RingHashLbConfig": rules(
        honoured="minimum_ring_size hash_function maximum_ring_size", notes={"maximum_ring_size": _RINGS}
    ),
    f"{_CLUSTER}Cluster.MaglevLbConfig": rules(honoured="table_size", notes={"table_size": _TABLES}),
    f"{_CLUSTER}Cluster.CommonLbConfig": rules(
        honoured="healthy_panic_threshold zone_aware_lb_config locality_weighted_lb_config"
        " consistent_hashing_lb_config override_host_status ignore_new_hosts_until_first_hc",
        void="close_connections_on_host_set_change update_merge_window",
        notes={
            "zone_aware_lb_config": _ZONES,
            "update_merge_window": "how long an Envoy gathers updates of endpoints to save itself work; here each is in force as soon as it is there",
            "close_connections_on_host_set_change": "each call chooses its endpoint anew, whatever connections there are",
        },
    ),
    f"{_CLUSTER}Cluster.CommonLbConfig.ZoneAwareLbConfig": rules(
        honoured="routing_enabled min_cluster_size fail_traffic_on_panic"
    ),
    f"{_CLUSTER}Cluster.CommonLbConfig.LocalityWeightedLbConfig": rules(),
    f"{_CLUSTER}Cluster.CommonLbConfig.ConsistentHashingLbConfig": rules(
        honoured="use_hostname_for_hashing hash_balance_factor"
    ),
    "envoy.config.core.v3.HealthStatusSet": rules(honoured="statuses"),
    f"{_CLUSTER}LoadBalancingPolicy": rules(honoured="policies"),
    f"{_CLUSTER}LoadBalancingPolicy.Policy": rules(honoured="typed_extension_config"),
    f"{_CLUSTER}CircuitBreakers": rules(
        honoured="thresholds per_host_thresholds",
        variants={"per_host_thresholds": "per_host"},
        notes={
            "thresholds": "the first of each priority; those of HIGH not in the target view, as by gRPC",
            "per_host_thresholds": "the first of priority DEFAULT; those of HIGH, which Envoy does not read, are reported",
        },
    ),
    f"{_CLUSTER}CircuitBreakers.Thresholds": rules(
        honoured="priority max_connections max_pending_requests max_requests max_retries retry_budget",
        reported="max_connection_pools",
        void="track_remaining",
        notes={
            "max_requests": "4294967295 means no limit, as for the other three",
            "max_connection_pools": "pools are an endpoint's, and end with it",
        },
    ),
    f"{_CLUSTER}CircuitBreakers.Thresholds#per_host": rules(
        honoured="priority max_connections",
        void="track_remaining max_pending_requests max_requests max_retries retry_budget max_connection_pools",
        notes={
            "max_pending_requests max_requests max_retries retry_budget max_connection_pools": "not implemented in Envoy either: of an"
            " endpoint only connections are counted",
            "max_connections": "over all clients of the process; for gRPC of each channel, 10 at most",
        },
    ),
    f"{_CLUSTER}CircuitBreakers.Thresholds.RetryBudget": rules(
        honoured="budget_percent min_retry_concurrency"
    ),
    f"{_CLUSTER}OutlierDetection": rules(
        honoured="consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx"
        " consecutive_gateway_failure enforcing_consecutive_gateway_failure split_external_local_origin_errors"
        " consecutive_local_origin_failure enforcing_consecutive_local_origin_failure max_ejection_time"
        " max_ejection_time_jitter always_eject_one_host enforcing_success_rate success_rate_minimum_hosts"
        " success_rate_request_volume success_rate_stdev_factor enforcing_local_origin_success_rate"
        " failure_percentage_threshold enforcing_failure_percentage enforcing_failure_percentage_local_origin"
        " failure_percentage_minimum_hosts failure_percentage_request_volume"
        " successful_active_health_check_uneject_host",
        reported="monitors",
        notes={
            "monitors": "extensions of Envoy's are not run",
            "enforcing_local_origin_success_rate": "with split_external_local_origin_errors, as for Envoy",
            "enforcing_failure_percentage_local_origin": "with split_external_local_origin_errors, as for Envoy",
        },
    ),
    "envoy.extensions.clusters.aggregate.v3.ClusterConfig": rules(
        honoured="clusters", notes={"clusters": _AGGREGATES}
    ),
    "envoy.extensions.clusters.dns.v3.DnsCluster": rules(
        honoured="dns_refresh_rate respect_dns_ttl dns_lookup_family all_addresses_in_single_endpoint"
        " dns_failure_refresh_rate dns_jitter typed_dns_resolver_config",
    ),
    "envoy.extensions.clusters.dns.v3.DnsCluster.RefreshRate": rules(honoured="base_interval max_interval"),
    "envoy.config.core.v3.HttpProtocolOptions#upstream": rules(
        honoured="idle_timeout max_connection_duration max_requests_per_connection max_headers_count max_response_headers_kb"
        " max_stream_duration",
        void="headers_with_underscores_action",
        notes={
            "max_headers_count": "not of connections of aiohttp's own, nor of grpc's",
            "max_response_headers_kb": "not of connections of aiohttp's own, nor of grpc's",
            "max_stream_duration": "of HTTP calls",
            "headers_with_underscores_action": "of a cluster Envoy does not read it either",
        },
    ),
    "envoy.config.core.v3.UpstreamHttpProtocolOptions": rules(
        honoured="auto_sni auto_san_validation override_auto_sni_header",
    ),
    "envoy.config.core.v3.Http1ProtocolOptions": rules(
        honoured="header_key_format send_fully_qualified_url",
        notes={
            "default_host_for_http_10": "a call always has a host",
            "header_key_format": "without it names are as the application spells them; not on connections of aiohttp's own",
            "send_fully_qualified_url": "not on connections of aiohttp's own",
        },
        void="default_host_for_http_10 allow_absolute_url accept_http_10 enable_trailers allow_chunked_length"
        " override_stream_error_on_invalid_http_message use_balsa_parser allow_custom_methods ignore_http_11_upgrade",
    ),
    "envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat": rules(
        honoured="proper_case_words stateful_formatter",
        notes={
            "stateful_formatter": "`preserve_case`, which is how names are sent anyway; others are reported"
        },
    ),
    "envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat.ProperCaseWords": rules(),
    "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig": rules(
        reported="formatter_type_on_envoy_headers",
        void="forward_reason_phrase",
        notes={
            "forward_reason_phrase": "an answer's reason is the application's to read",
            "formatter_type_on_envoy_headers": "names of lines that are added are as the configuration spells them",
        },
    ),
    "envoy.config.core.v3.Http2ProtocolOptions": rules(
        honoured="max_concurrent_streams custom_settings_parameters connection_keepalive",
        notes={
            "max_concurrent_streams": "1,024 at most; not of gRPC channels, which grpc keeps",
            "allow_connect": "no call is a CONNECT",
            "custom_settings_parameters": "those that are told of no named field; the sizes of frames and heads are this library's own,"
            " and reported; not of gRPC channels, which grpc keeps",
            "connection_keepalive": "not of gRPC channels, whose keepalive is the application's to order",
        },
        void="allow_connect hpack_table_size initial_stream_window_size initial_connection_window_size allow_metadata"
        " max_outbound_frames max_outbound_control_frames max_consecutive_inbound_frames_with_empty_payload"
        " max_inbound_priority_frames_per_stream max_inbound_window_update_frames_per_data_frame_sent"
        " stream_error_on_invalid_http_messaging override_stream_error_on_invalid_http_message use_oghttp2_codec"
        " max_metadata_size",
    ),
    "envoy.config.core.v3.Http2ProtocolOptions.SettingsParameter": rules(honoured="identifier value"),
    "envoy.config.core.v3.KeepaliveSettings": rules(
        honoured="interval timeout interval_jitter connection_idle_interval",
        notes={"connection_idle_interval": "since the last request ended"},
    ),
    f"{_LB}common.v3.SlowStartConfig": rules(
        honoured="slow_start_window aggression min_weight_percent", notes={"slow_start_window": _SLOW}
    ),
    f"{_LB}common.v3.LocalityLbConfig": rules(
        honoured="zone_aware_lb_config locality_weighted_lb_config", notes={"zone_aware_lb_config": _ZONES}
    ),
    f"{_LB}common.v3.LocalityLbConfig.ZoneAwareLbConfig": rules(
        honoured="routing_enabled min_cluster_size fail_traffic_on_panic force_locality_direct_routing"
        " force_local_zone locality_basis",
    ),
    f"{_LB}common.v3.LocalityLbConfig.ZoneAwareLbConfig.ForceLocalZone": rules(honoured="min_size"),
    f"{_LB}common.v3.LocalityLbConfig.LocalityWeightedLbConfig": rules(),
    f"{_LB}round_robin.v3.RoundRobin": rules(honoured="locality_lb_config slow_start_config"),
    f"{_LB}least_request.v3.LeastRequest": rules(
        honoured="choice_count active_request_bias locality_lb_config enable_full_scan selection_method"
        " slow_start_config",
    ),
    f"{_LB}common.v3.ConsistentHashingLbConfig": rules(
        honoured="use_hostname_for_hashing hash_balance_factor hash_policy"
    ),
    f"{_LB}ring_hash.v3.RingHash": rules(
        honoured="hash_function minimum_ring_size maximum_ring_size use_hostname_for_hashing hash_balance_factor"
        " consistent_hashing_lb_config locality_weighted_lb_config",
        notes={"maximum_ring_size": _RINGS},
    ),
    f"{_LB}maglev.v3.Maglev": rules(
        honoured="table_size consistent_hashing_lb_config locality_weighted_lb_config",
        notes={"table_size": _TABLES},
    ),
    f"{_LB}override_host.v3.OverrideHost": rules(
        honoured="override_host_sources fallback_policy",
        void="selected_host_key",
        notes={"selected_host_key": "a call has no dynamic metadata, of whatever name"},
    ),
    f"{_LB}override_host.v3.OverrideHost.OverrideHostSource": rules(
        honoured="header", reported="metadata", reason="calls have no dynamic metadata"
    ),
    f"{_LB}pick_first.v3.PickFirst": rules(
        honoured="shuffle_address_list", notes={"shuffle_address_list": "once, and not at each update"}
    ),
    f"{_LB}client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin": rules(
        honoured="enable_oob_load_report oob_reporting_period blackout_period weight_expiration_period"
        " weight_update_period error_utilization_penalty metric_names_for_computing_utilization slow_start_config",
        reported="oob_reporting_config",
        notes={
            "enable_oob_load_report": "of endpoints that gRPC calls go to",
            "oob_reporting_config": "the endpoint itself is asked",
        },
    ),
    f"{_LB}random.v3.Random": rules(honoured="locality_lb_config"),
    f"{_LB}wrr_locality.v3.WrrLocality": rules(honoured="endpoint_picking_policy"),
    f"{_LB}cluster_provided.v3.ClusterProvided": rules(),
    f"{_LB}random_subsetting.v3.RandomSubsetting": rules(
        honoured="subset_size child_policy",
        notes={"subset_size": "in the target view: Envoy does not know the policy"},
    ),
    f"{_LB}subset.v3.Subset": rules(
        honoured="fallback_policy default_subset subset_selectors locality_weight_aware scale_locality_weight panic_mode_any"
        " list_as_any metadata_fallback_policy subset_lb_policy allow_redundant_keys",
        notes={"subset_selectors": _SUBSETS},
    ),
    f"{_LB}subset.v3.Subset.LbSubsetSelector": rules(
        honoured="keys single_host_per_subset fallback_policy fallback_keys_subset"
    ),
    f"{_ENDPOINT}ClusterLoadAssignment": rules(
        honoured="cluster_name endpoints policy",
        rejected="named_endpoints",
        reason="endpoints by name would be missing",
    ),
    f"{_ENDPOINT}ClusterLoadAssignment.Policy": rules(
        honoured="drop_overloads overprovisioning_factor weighted_priority_health endpoint_stale_after",
        notes={
            "endpoint_stale_after": "of assignments by EDS; of one that an earlier process left, once it comes again",
            "weighted_priority_health": "gRPC calls have no overprovisioning (gRFC A27), and no health in parts",
        },
    ),
    f"{_ENDPOINT}ClusterLoadAssignment.Policy.DropOverload": rules(honoured="category drop_percentage"),
    f"{_ENDPOINT}LocalityLbEndpoints": rules(
        honoured="locality metadata lb_endpoints load_balancer_endpoints load_balancing_weight priority",
        rejected="leds_cluster_locality_config",
        notes={
            "leds_cluster_locality_config": "endpoints by LEDS would be missing",
            "proximity": "not implemented in Envoy either",
        },
        void="proximity",
    ),
    f"{_ENDPOINT}LocalityLbEndpoints.LbEndpointList": rules(honoured="lb_endpoints"),
    f"{_ENDPOINT}LbEndpoint": rules(
        honoured="endpoint health_status metadata load_balancing_weight",
        rejected="endpoint_name",
        reason="endpoints by name would be missing",
    ),
    f"{_ENDPOINT}Endpoint": rules(
        honoured="address hostname additional_addresses health_check_config",
    ),
    f"{_ENDPOINT}Endpoint.HealthCheckConfig": rules(
        honoured="port_value hostname address disable_active_health_check"
    ),
    f"{_ENDPOINT}Endpoint.AdditionalAddress": rules(honoured="address"),
    f"{_TLS}UpstreamTlsContext": rules(
        honoured="common_tls_context sni auto_host_sni auto_sni_san_validation max_session_keys"
        " allow_renegotiation enforce_rsa_key_usage",
        notes={
            "allow_renegotiation": "of TLS 1.2; 1.3 has none",
            "enforce_rsa_key_usage": "keys of any kind, unless it is false; Envoy 1.40 does so whatever it is",
            "max_session_keys": "8 where it is not set; Envoy keeps 1",
        },
    ),
    f"{_TLS}CommonTlsContext": rules(
        honoured="tls_certificates tls_certificate_sds_secret_configs tls_certificate_provider_instance"
        " validation_context validation_context_sds_secret_config combined_validation_context alpn_protocols"
        " validation_context_certificate_provider validation_context_certificate_provider_instance custom_handshaker"
        " tls_certificate_certificate_provider tls_certificate_certificate_provider_instance"
        " custom_tls_certificate_selector tls_params",
        void="key_log",
        notes={
            "tls_certificates tls_certificate_sds_secret_configs": "one; several are refused, as in Envoy. The target view refuses both"
            " where no provider's instance is given, as gRPC",
            "tls_certificate_provider_instance": "of the process's identity; in the target view the bootstrap must have it",
            "tls_certificate_certificate_provider_instance validation_context_certificate_provider_instance": "as the fields that gRFC"
            " A29 has now",
            "validation_context_sds_secret_config": "refused in the target view",
            "tls_params": "refused in the target view, as by gRPC",
            "alpn_protocols": "in the place of those of the cluster; not in the target view",
            "custom_handshaker custom_tls_certificate_selector tls_certificate_certificate_provider"
            " validation_context_certificate_provider": _UNDONE,
            "key_log": "keys are never written",
        },
    ),
    f"{_TLS}TlsParameters": rules(
        honoured="tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites ecdh_curves",
        reported="signature_algorithms compliance_policies",
        notes={
            "tls_minimum_protocol_version": "TLS 1.2 is the oldest that is spoken",
            "tls_maximum_protocol_version": "not set: TLS 1.3, where Envoy goes up to 1.2",
            "cipher_suites": "names, and groups of them in brackets; those that OpenSSL does not know are left out, and with none left no"
            " connection is made",
            "ecdh_curves": "one: Python's `ssl` takes no list, and of several OpenSSL's own are offered",
            "signature_algorithms": "Python's `ssl` has none to set",
            "compliance_policies": "Python's `ssl` has none to set",
        },
    ),
    f"{_TLS}CommonTlsContext.CertificateProviderInstance": rules(
        honoured="instance_name", void="certificate_name"
    ),
    f"{_TLS}CommonTlsContext.CombinedCertificateValidationContext": rules(
        honoured="default_validation_context validation_context_sds_secret_config"
        " validation_context_certificate_provider validation_context_certificate_provider_instance"
    ),
    f"{_TLS}CertificateProviderPluginInstance": rules(honoured="instance_name", void="certificate_name"),
    f"{_TLS}TlsCertificate": rules(
        honoured="certificate_chain private_key pkcs12 private_key_provider password watched_directory",
        void="ocsp_staple signed_certificate_timestamp",
        notes={
            "private_key_provider": _UNDONE,
            "watched_directory": "files are looked at before each handshake, and read again when they changed",
        },
    ),
    f"{_TLS}CertificateValidationContext": rules(
        honoured="trusted_ca system_root_certs match_typed_subject_alt_names match_subject_alt_names"
        " ca_certificate_provider_instance verify_certificate_spki verify_certificate_hash"
        " require_signed_certificate_timestamp crl custom_validator_config trust_chain_verification"
        " watched_directory allow_expired_certificate only_verify_leaf_cert_crl max_verify_depth",
        notes={
            "watched_directory": "files are looked at before each handshake, and read again when they changed",
            "allow_expired_certificate only_verify_leaf_cert_crl": "not read in the target view, as by gRPC",
            "max_verify_depth": "Envoy reads it of clients' certificates alone",
            "trusted_ca": "without any CA nobody is verified, as in Envoy, and it is reported; names, revocations and dates without one are"
            " refused. The target view does not read it, and needs a provider's instance or `system_root_certs`",
            "system_root_certs": "with no names to match the name that is asked for must be in the certificate; Envoy verifies nobody by it",
            "match_subject_alt_names": "not read where typed ones are there",
            "verify_certificate_spki verify_certificate_hash crl": "refused in the target view, as by gRPC",
            "require_signed_certificate_timestamp": _UNDONE,
            "custom_validator_config": "`envoy.tls.cert_validator.spiffe` with `trust_domains`; others close the endpoints",
            "trust_chain_verification": "ACCEPT_UNTRUSTED is honoured and reported; names and pins are held all the same. Not read in the"
            " target view",
        },
    ),
    f"{_TLS}CertificateValidationContext.SystemRootCerts": rules(),
    f"{_TLS}SPIFFECertValidatorConfig": rules(
        honoured="trust_domains trust_bundles",
        notes={"trust_bundles": "bundles in JSON close the endpoints"},
    ),
    f"{_TLS}SPIFFECertValidatorConfig.TrustDomain": rules(honoured="name trust_bundle"),
    f"{_TLS}SubjectAltNameMatcher": rules(honoured="san_type matcher oid"),
    f"{_TLS}SdsSecretConfig": rules(
        honoured="name sds_config",
        variants={"sds_config": "sds"},
        notes={
            "name": "`file-cert:chain~key` and `file-root:ca` are files, as with Istio's agent",
            "sds_config": "without it the secret is a static one: read from a file in Envoy's shape; from a control plane it closes the endpoints",
        },
    ),
    "envoy.config.core.v3.ConfigSource#sds": rules(
        honoured="ads self api_config_source",
        void="path path_config_source authorities initial_fetch_timeout resource_api_version",
        notes={
            "initial_fetch_timeout": "the timer is 15 s for every resource (gRFC A57)",
            "path path_config_source": "followed in resources that are read from files (`xds.protocol`); what is not there is the process's"
            " identity; else reported, and the endpoints are closed",
            "api_config_source": "the cluster `sds-grpc`, a unix socket that is not there, and `default` and `ROOTCA` of any cluster are the"
            " process's identity; else as for other resources",
        },
    ),
    f"{_TLS}Secret": rules(
        honoured="name tls_certificate validation_context",
        void="session_ticket_keys generic_secret",
        notes={
            "session_ticket_keys": "they are a TLS server's",
            "generic_secret": "it is for filters that are not run, and reported",
            "tls_certificate": "certificate and key that are inline must be PEM; whether they belong together a handshake finds out",
            "validation_context": "a CA that is inline must be PEM",
        },
    ),
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer": rules(),
    "envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport": rules(
        honoured="transport_socket default_proxy_address",
        notes={
            "transport_socket": "TLS only: plain text through a proxy is reported, and nobody is called so"
        },
    ),
}
