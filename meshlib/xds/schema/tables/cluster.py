"""Wire table: cluster, circuit breakers, outlier detection, cluster extensions, upstream HTTP options.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["CLUSTER"]

CLUSTER = """
package envoy.extensions.clusters.common.dns.v3

enum DnsLookupFamily UNSPECIFIED=0 AUTO=1 V4_ONLY=2 V6_ONLY=3 V4_PREFERRED=4 ALL=5

package envoy.config.cluster.v3

message Cluster
  43 transport_socket_matches                  [.TransportSocketMatch]
  59 transport_socket_matcher                  opaque
   1 name                                      string
  28 alt_stat_name                             string
   2 type                                      .DiscoveryType @cluster_discovery_type
  38 cluster_type                              .CustomClusterType @cluster_discovery_type
   3 eds_cluster_config                        .EdsClusterConfig
   4 connect_timeout                           pb.Duration
   5 per_connection_buffer_limit_bytes         pb.UInt32Value
   6 lb_policy                                 .LbPolicy
  33 load_assignment                           endpoint.ClusterLoadAssignment
   8 health_checks                             [core.HealthCheck]
   9 max_requests_per_connection               pb.UInt32Value
  10 circuit_breakers                          CircuitBreakers
  46 upstream_http_protocol_options            core.UpstreamHttpProtocolOptions
  29 common_http_protocol_options              core.HttpProtocolOptions
  13 http_protocol_options                     core.Http1ProtocolOptions
  14 http2_protocol_options                    core.Http2ProtocolOptions
  36 typed_extension_protocol_options          map:pb.Any
  16 dns_refresh_rate                          pb.Duration
  58 dns_jitter                                pb.Duration
  44 dns_failure_refresh_rate                  .RefreshRate
  39 respect_dns_ttl                           bool
  17 dns_lookup_family                         .DnsLookupFamily
  18 dns_resolvers                             [core.Address]
  45 use_tcp_for_dns_lookups                   bool
  53 dns_resolution_config                     core.DnsResolutionConfig
  55 typed_dns_resolver_config                 core.TypedExtensionConfig
  54 wait_for_warm_on_init                     pb.BoolValue
  19 outlier_detection                         OutlierDetection
  20 cleanup_interval                          pb.Duration
  21 upstream_bind_config                      core.BindConfig
  22 lb_subset_config                          .LbSubsetConfig
  23 ring_hash_lb_config                       .RingHashLbConfig @lb_config
  52 maglev_lb_config                          .MaglevLbConfig @lb_config
  34 original_dst_lb_config                    Cluster.OriginalDstLbConfig @lb_config
  37 least_request_lb_config                   .LeastRequestLbConfig @lb_config
  56 round_robin_lb_config                     .RoundRobinLbConfig @lb_config
  27 common_lb_config                          .CommonLbConfig
  24 transport_socket                          core.TransportSocket
  25 metadata                                  core.Metadata
  26 protocol_selection                        .ClusterProtocolSelection
  30 upstream_connection_options               UpstreamConnectionOptions
  31 close_connections_on_host_health_failure  bool
  32 ignore_health_on_host_removal             bool
  40 filters                                   [opaque]
  41 load_balancing_policy                     LoadBalancingPolicy
  42 lrs_server                                core.ConfigSource
  57 lrs_report_endpoint_metrics               [string]
  47 track_timeout_budgets                     bool
  48 upstream_config                           core.TypedExtensionConfig
  49 track_cluster_stats                       opaque
  50 preconnect_policy                         Cluster.PreconnectPolicy
  51 connection_pool_per_downstream_connection bool
  enum DiscoveryType STATIC=0 STRICT_DNS=1 LOGICAL_DNS=2 EDS=3 ORIGINAL_DST=4
  enum LbPolicy ROUND_ROBIN=0 LEAST_REQUEST=1 RING_HASH=2 RANDOM=3 MAGLEV=5 CLUSTER_PROVIDED=6
      LOAD_BALANCING_POLICY_CONFIG=7
  enum DnsLookupFamily AUTO=0 V4_ONLY=1 V6_ONLY=2 V4_PREFERRED=3 ALL=4
  enum ClusterProtocolSelection USE_CONFIGURED_PROTOCOL=0 USE_DOWNSTREAM_PROTOCOL=1

message UpstreamConnectionOptions
   1 tcp_keepalive                                   core.TcpKeepalive
   2 set_local_interface_name_on_upstream_connections bool
   3 happy_eyeballs_config                           UpstreamConnectionOptions.HappyEyeballsConfig
  enum FirstAddressFamilyVersion DEFAULT=0 V4=1 V6=2

message UpstreamConnectionOptions.HappyEyeballsConfig
   1 first_address_family_version UpstreamConnectionOptions.FirstAddressFamilyVersion
   2 first_address_family_count   pb.UInt32Value

message Cluster.PreconnectPolicy
   1 per_upstream_preconnect_ratio pb.DoubleValue
   2 predictive_preconnect_ratio   pb.DoubleValue

message Cluster.OriginalDstLbConfig
   1 use_http_header        bool
   2 http_header_name       string
   3 upstream_port_override pb.UInt32Value
   4 metadata_key           opaque

message Cluster.TransportSocketMatch
   1 name             string
   2 match            pb.Struct
   3 transport_socket core.TransportSocket

message Cluster.CustomClusterType
   1 name         string
   2 typed_config pb.Any

message Cluster.EdsClusterConfig
   1 eds_config   core.ConfigSource
   2 service_name string

message Cluster.RefreshRate
   1 base_interval pb.Duration
   2 max_interval  pb.Duration

message Cluster.SlowStartConfig
   1 slow_start_window  pb.Duration
   2 aggression         core.RuntimeDouble
   3 min_weight_percent type.Percent

message Cluster.RoundRobinLbConfig
   1 slow_start_config Cluster.SlowStartConfig

message Cluster.LeastRequestLbConfig
   1 choice_count        pb.UInt32Value
   2 active_request_bias core.RuntimeDouble
   3 slow_start_config   Cluster.SlowStartConfig

message Cluster.LbSubsetConfig
   1 fallback_policy          .LbSubsetFallbackPolicy
   2 default_subset           pb.Struct
   3 subset_selectors         [.LbSubsetSelector]
   4 locality_weight_aware    bool
   5 scale_locality_weight    bool
   6 panic_mode_any           bool
   7 list_as_any              bool
   8 metadata_fallback_policy .LbSubsetMetadataFallbackPolicy
  enum LbSubsetFallbackPolicy NO_FALLBACK=0 ANY_ENDPOINT=1 DEFAULT_SUBSET=2
  enum LbSubsetMetadataFallbackPolicy METADATA_NO_FALLBACK=0 FALLBACK_LIST=1

message Cluster.LbSubsetConfig.LbSubsetSelector
   1 keys                   [string]
   4 single_host_per_subset bool
   2 fallback_policy        .LbSubsetSelectorFallbackPolicy
   3 fallback_keys_subset   [string]
  enum LbSubsetSelectorFallbackPolicy NOT_DEFINED=0 NO_FALLBACK=1 ANY_ENDPOINT=2 DEFAULT_SUBSET=3 KEYS_SUBSET=4

message Cluster.RingHashLbConfig
   1 minimum_ring_size pb.UInt64Value
   3 hash_function     .HashFunction
   4 maximum_ring_size pb.UInt64Value
  enum HashFunction XX_HASH=0 MURMUR_HASH_2=1

message Cluster.MaglevLbConfig
   1 table_size pb.UInt64Value

message Cluster.CommonLbConfig
   1 healthy_panic_threshold              type.Percent
   2 zone_aware_lb_config                 .ZoneAwareLbConfig @locality_config_specifier
   3 locality_weighted_lb_config          .LocalityWeightedLbConfig @locality_config_specifier
   4 update_merge_window                  pb.Duration
   5 ignore_new_hosts_until_first_hc      bool
   6 close_connections_on_host_set_change bool
   7 consistent_hashing_lb_config         .ConsistentHashingLbConfig
   8 override_host_status                 core.HealthStatusSet

message Cluster.CommonLbConfig.ZoneAwareLbConfig
   1 routing_enabled       type.Percent
   2 min_cluster_size      pb.UInt64Value
   3 fail_traffic_on_panic bool

message Cluster.CommonLbConfig.LocalityWeightedLbConfig

message Cluster.CommonLbConfig.ConsistentHashingLbConfig
   1 use_hostname_for_hashing bool
   2 hash_balance_factor      pb.UInt32Value

message LoadBalancingPolicy
   1 policies [.Policy]

message LoadBalancingPolicy.Policy
   4 typed_extension_config core.TypedExtensionConfig

message CircuitBreakers
   1 thresholds          [.Thresholds]
   2 per_host_thresholds [.Thresholds]

message CircuitBreakers.Thresholds
   1 priority             core.RoutingPriority
   2 max_connections      pb.UInt32Value
   3 max_pending_requests pb.UInt32Value
   4 max_requests         pb.UInt32Value
   5 max_retries          pb.UInt32Value
   8 retry_budget         .RetryBudget
   6 track_remaining      bool
   7 max_connection_pools pb.UInt32Value

message CircuitBreakers.Thresholds.RetryBudget
   1 budget_percent        type.Percent
   2 min_retry_concurrency pb.UInt32Value

message OutlierDetection
   1 consecutive_5xx                             pb.UInt32Value
   2 interval                                    pb.Duration
   3 base_ejection_time                          pb.Duration
   4 max_ejection_percent                        pb.UInt32Value
   5 enforcing_consecutive_5xx                   pb.UInt32Value
   6 enforcing_success_rate                      pb.UInt32Value
   7 success_rate_minimum_hosts                  pb.UInt32Value
   8 success_rate_request_volume                 pb.UInt32Value
   9 success_rate_stdev_factor                   pb.UInt32Value
  10 consecutive_gateway_failure                 pb.UInt32Value
  11 enforcing_consecutive_gateway_failure       pb.UInt32Value
  12 split_external_local_origin_errors          bool
  13 consecutive_local_origin_failure            pb.UInt32Value
  14 enforcing_consecutive_local_origin_failure  pb.UInt32Value
  15 enforcing_local_origin_success_rate         pb.UInt32Value
  16 failure_percentage_threshold                pb.UInt32Value
  17 enforcing_failure_percentage                pb.UInt32Value
  18 enforcing_failure_percentage_local_origin   pb.UInt32Value
  19 failure_percentage_minimum_hosts            pb.UInt32Value
  20 failure_percentage_request_volume           pb.UInt32Value
  21 max_ejection_time                           pb.Duration
  22 max_ejection_time_jitter                    pb.Duration
  23 successful_active_health_check_uneject_host pb.BoolValue
  24 monitors                                    [core.TypedExtensionConfig]
  25 always_eject_one_host                       pb.BoolValue

package envoy.extensions.clusters.aggregate.v3

message ClusterConfig
   1 clusters [string]

package envoy.extensions.clusters.dns.v3

message DnsCluster
   3 dns_refresh_rate                 pb.Duration
   4 dns_failure_refresh_rate         .RefreshRate
   5 respect_dns_ttl                  bool
   6 dns_jitter                       pb.Duration
   7 typed_dns_resolver_config        core.TypedExtensionConfig
   8 dns_lookup_family                dns.DnsLookupFamily
   9 all_addresses_in_single_endpoint bool

message DnsCluster.RefreshRate
   1 base_interval pb.Duration
   2 max_interval  pb.Duration

package envoy.extensions.network.dns_resolver.cares.v3

message CaresDnsResolverConfig
   1 resolvers                  [core.Address]
   3 use_resolvers_as_fallback  bool
   4 filter_unroutable_families bool
   2 dns_resolver_options       core.DnsResolverOptions
   5 udp_max_queries            pb.UInt32Value
   6 query_timeout_seconds      pb.UInt64Value
   7 query_tries                pb.UInt32Value
   8 rotate_nameservers         bool
   9 edns0_max_payload_size     pb.UInt32Value
  10 max_udp_channel_duration   pb.Duration
  11 reinit_channel_on_timeout  bool

package envoy.extensions.upstreams.http.v3

message HttpProtocolOptions
   1 common_http_protocol_options   core.HttpProtocolOptions
   2 upstream_http_protocol_options core.UpstreamHttpProtocolOptions
   3 explicit_http_config           .ExplicitHttpConfig @upstream_protocol_options
   4 use_downstream_protocol_config .UseDownstreamHttpConfig @upstream_protocol_options
   5 auto_config                    .AutoHttpConfig @upstream_protocol_options
   6 http_filters                   [hcm.HttpFilter]
   7 header_validation_config       core.TypedExtensionConfig
   8 outlier_detection              .OutlierDetection
   9 request_mirror_policies        [route.RouteAction.RequestMirrorPolicy]
  10 hash_policy                    [route.RouteAction.HashPolicy]
  11 retry_policy                   route.RetryPolicy

message HttpProtocolOptions.OutlierDetection
   1 error_matcher envoy.config.common.matcher.v3.MatchPredicate

message HttpProtocolOptions.ExplicitHttpConfig
   1 http_protocol_options  core.Http1ProtocolOptions @protocol_config
   2 http2_protocol_options core.Http2ProtocolOptions @protocol_config
   3 http3_protocol_options opaque @protocol_config

message HttpProtocolOptions.UseDownstreamHttpConfig
   1 http_protocol_options  core.Http1ProtocolOptions
   2 http2_protocol_options core.Http2ProtocolOptions
   3 http3_protocol_options opaque

message HttpProtocolOptions.AutoHttpConfig
   1 http_protocol_options             core.Http1ProtocolOptions
   2 http2_protocol_options            core.Http2ProtocolOptions
   3 http3_protocol_options            opaque
   4 alternate_protocols_cache_options opaque

package envoy.config.common.matcher.v3

message MatchPredicate
   1 or_match                         .MatchSet @rule
   2 and_match                        .MatchSet @rule
   3 not_match                        MatchPredicate @rule
   4 any_match                        bool @rule
   5 http_request_headers_match       opaque @rule
   6 http_request_trailers_match      opaque @rule
   7 http_response_headers_match      HttpHeadersMatch @rule
   8 http_response_trailers_match     opaque @rule
   9 http_request_generic_body_match  opaque @rule
  10 http_response_generic_body_match opaque @rule

message MatchPredicate.MatchSet
   1 rules [MatchPredicate]

message HttpHeadersMatch
   1 headers [route.HeaderMatcher]
"""
