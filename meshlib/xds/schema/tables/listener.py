"""Wire table: listener, filter chain, HTTP connection manager.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["LISTENER"]

LISTENER = """
package envoy.config.listener.v3

message Listener
   1 name                                       string
   2 address                                    core.Address
  33 additional_addresses                       [AdditionalAddress]
  28 stat_prefix                                string
   3 filter_chains                              [FilterChain]
  36 fcds_config                                .FcdsConfig
  32 filter_chain_matcher                       xds.type.matcher.v3.Matcher
   4 use_original_dst                           pb.BoolValue
  25 default_filter_chain                       FilterChain
   5 per_connection_buffer_limit_bytes          pb.UInt32Value
   6 metadata                                   core.Metadata
   7 deprecated_v1                              .DeprecatedV1
   8 drain_type                                 .DrainType
   9 listener_filters                           [ListenerFilter]
  15 listener_filters_timeout                   pb.Duration
  17 continue_on_listener_filters_timeout       bool
  10 transparent                                pb.BoolValue
  11 freebind                                   pb.BoolValue
  13 socket_options                             [opaque]
  12 tcp_fast_open_queue_length                 pb.UInt32Value
  16 traffic_direction                          core.TrafficDirection
  18 udp_listener_config                        opaque
  19 api_listener                               ApiListener
  20 connection_balance_config                  opaque
  21 reuse_port                                 bool
  29 enable_reuse_port                          pb.BoolValue
  22 access_log                                 [opaque]
  24 tcp_backlog_size                           pb.UInt32Value
  34 max_connections_to_accept_per_socket_event pb.UInt32Value
  26 bind_to_port                               pb.BoolValue
  27 internal_listener                          opaque @listener_specifier
  30 enable_mptcp                               bool
  31 ignore_global_conn_limit                   bool
  35 bypass_overload_manager                    bool
  enum DrainType DEFAULT=0 MODIFY_ONLY=1

message Listener.FcdsConfig
   1 name          string
   2 config_source core.ConfigSource

message Listener.DeprecatedV1
   1 bind_to_port pb.BoolValue

message AdditionalAddress
   1 address        core.Address
   2 socket_options opaque

message ApiListener
   1 api_listener pb.Any

message FilterChain
   1 filter_chain_match               FilterChainMatch
   3 filters                          [Filter]
   4 use_proxy_proto                  pb.BoolValue
   5 metadata                         core.Metadata
   6 transport_socket                 core.TransportSocket
   9 transport_socket_connect_timeout pb.Duration
   7 name                             string

message FilterChainMatch
   8 destination_port            pb.UInt32Value
   3 prefix_ranges               [core.CidrRange]
   4 address_suffix              string
   5 suffix_len                  pb.UInt32Value
  13 direct_source_prefix_ranges [core.CidrRange]
  12 source_type                 .ConnectionSourceType
   6 source_prefix_ranges        [core.CidrRange]
   7 source_ports                [uint32]
  11 server_names                [string]
   9 transport_protocol          string
  10 application_protocols       [string]
  enum ConnectionSourceType ANY=0 SAME_IP_OR_LOOPBACK=1 EXTERNAL=2

message Filter
   1 name             string
   4 typed_config     pb.Any @config_type
   5 config_discovery core.ExtensionConfigSource @config_type

message ListenerFilter
   1 name             string
   3 typed_config     pb.Any @config_type
   5 config_discovery opaque @config_type
   4 filter_disabled  ListenerFilterChainMatchPredicate

message ListenerFilterChainMatchPredicate
   1 or_match               .MatchSet @rule
   2 and_match              .MatchSet @rule
   3 not_match              ListenerFilterChainMatchPredicate @rule
   4 any_match              bool @rule
   5 destination_port_range type.Int32Range @rule

message ListenerFilterChainMatchPredicate.MatchSet
   1 rules [ListenerFilterChainMatchPredicate]

package envoy.extensions.filters.network.http_connection_manager.v3

message HttpConnectionManager
   1 codec_type                                        .CodecType
   2 stat_prefix                                       string
   3 rds                                               Rds @route_specifier
   4 route_config                                      route.RouteConfiguration @route_specifier
  31 scoped_routes                                     opaque @route_specifier
   5 http_filters                                      [HttpFilter]
   6 add_user_agent                                    pb.BoolValue
   7 tracing                                           opaque
  35 common_http_protocol_options                      core.HttpProtocolOptions
  58 http1_safe_max_connection_duration                bool
   8 http_protocol_options                             core.Http1ProtocolOptions
   9 http2_protocol_options                            core.Http2ProtocolOptions
  44 http3_protocol_options                            opaque
  10 server_name                                       string
  34 server_header_transformation                      .ServerHeaderTransformation
  48 scheme_header_transformation                      core.SchemeHeaderTransformation
  29 max_request_headers_kb                            pb.UInt32Value
  24 stream_idle_timeout                               pb.Duration
  59 stream_flush_timeout                              pb.Duration
  28 request_timeout                                   pb.Duration
  41 request_headers_timeout                           pb.Duration
  12 drain_timeout                                     pb.Duration
  26 delayed_close_timeout                             pb.Duration
  13 access_log                                        [opaque]
  54 access_log_flush_interval                         pb.Duration
  55 flush_access_log_on_new_request                   bool
  56 access_log_options                                opaque
  14 use_remote_address                                pb.BoolValue
  19 xff_num_trusted_hops                              uint32
  46 original_ip_detection_extensions                  [core.TypedExtensionConfig]
  52 early_header_mutation_extensions                  [core.TypedExtensionConfig]
  25 internal_address_config                           .InternalAddressConfig
  21 skip_xff_append                                   bool
  22 via                                               string
  15 generate_request_id                               pb.BoolValue
  32 preserve_external_request_id                      bool
  37 always_set_request_id_in_response                 bool
  16 forward_client_cert_details                       .ForwardClientCertDetails
  17 set_current_client_cert_details                   opaque
  60 forward_client_cert_matcher                       opaque
  18 proxy_100_continue                                bool
  20 represent_ipv4_remote_address_as_ipv4_mapped_ipv6 bool
  23 upgrade_configs                                   [.UpgradeConfig]
  30 normalize_path                                    pb.BoolValue
  33 merge_slashes                                     bool
  45 path_with_escaped_slashes_action                  .PathWithEscapedSlashesAction
  36 request_id_extension                              opaque
  38 local_reply_config                                LocalReplyConfig
  39 strip_matching_host_port                          bool
  42 strip_any_host_port                               bool @strip_port_mode
  40 stream_error_on_invalid_http_message              pb.BoolValue
  43 path_normalization_options                        opaque
  47 strip_trailing_host_dot                           bool
  49 proxy_status_config                               .ProxyStatusConfig
  50 typed_header_validation_config                    core.TypedExtensionConfig
  51 append_x_forwarded_port                           bool
  57 append_local_overload                             bool
  53 add_proxy_protocol_connection_state               pb.BoolValue
  enum CodecType AUTO=0 HTTP1=1 HTTP2=2 HTTP3=3
  enum ServerHeaderTransformation OVERWRITE=0 APPEND_IF_ABSENT=1 PASS_THROUGH=2
  enum ForwardClientCertDetails SANITIZE=0 FORWARD_ONLY=1 APPEND_FORWARD=2 SANITIZE_SET=3
      ALWAYS_FORWARD_ONLY=4
  enum PathWithEscapedSlashesAction IMPLEMENTATION_SPECIFIC_DEFAULT=0 KEEP_UNCHANGED=1 REJECT_REQUEST=2
      UNESCAPE_AND_REDIRECT=3 UNESCAPE_AND_FORWARD=4

message HttpConnectionManager.UpgradeConfig
   1 upgrade_type string
   2 filters      [HttpFilter]
   3 enabled      pb.BoolValue

message HttpConnectionManager.InternalAddressConfig
   1 unix_sockets bool
   2 cidr_ranges  [core.CidrRange]

message HttpConnectionManager.ProxyStatusConfig
   1 remove_details                        bool
   2 remove_connection_termination_details bool
   3 remove_response_flags                 bool
   4 set_recommended_response_code         bool
   5 use_node_id                           bool @proxy_name
   6 literal_proxy_name                    string @proxy_name

message LocalReplyConfig
   1 mappers     [ResponseMapper]
   2 body_format core.SubstitutionFormatString

message ResponseMapper
   1 filter               accesslog.AccessLogFilter
   2 status_code          pb.UInt32Value
   3 body                 core.DataSource
   4 body_format_override core.SubstitutionFormatString
   5 headers_to_add       [core.HeaderValueOption]

message Rds
   1 config_source     core.ConfigSource
   2 route_config_name string

message HttpFilter
   1 name             string
   4 typed_config     pb.Any @config_type
   5 config_discovery core.ExtensionConfigSource @config_type
   6 is_optional      bool
   7 disabled         bool

package envoy.extensions.http.early_header_mutation.header_mutation.v3

message HeaderMutation
   1 mutations [envoy.config.common.mutation_rules.v3.HeaderMutation]

package envoy.config.common.mutation_rules.v3

message HeaderMutation
   1 remove          string @action
   2 append          core.HeaderValueOption @action
   3 remove_on_match .RemoveOnMatch @action

message HeaderMutation.RemoveOnMatch
   1 key_matcher matcher.StringMatcher

package envoy.config.accesslog.v3

message AccessLogFilter
   1 status_code_filter      StatusCodeFilter @filter_specifier
   2 duration_filter         DurationFilter @filter_specifier
   3 not_health_check_filter NotHealthCheckFilter @filter_specifier
   4 traceable_filter        TraceableFilter @filter_specifier
   5 runtime_filter          RuntimeFilter @filter_specifier
   6 and_filter              AndFilter @filter_specifier
   7 or_filter               OrFilter @filter_specifier
   8 header_filter           HeaderFilter @filter_specifier
   9 response_flag_filter    ResponseFlagFilter @filter_specifier
  10 grpc_status_filter      GrpcStatusFilter @filter_specifier
  11 extension_filter        opaque @filter_specifier
  12 metadata_filter         MetadataFilter @filter_specifier
  13 log_type_filter         LogTypeFilter @filter_specifier

message ComparisonFilter
   1 op    .Op
   2 value core.RuntimeUInt32
  enum Op EQ=0 GE=1 LE=2 NE=3

message StatusCodeFilter
   1 comparison ComparisonFilter

message DurationFilter
   1 comparison ComparisonFilter

message NotHealthCheckFilter

message TraceableFilter

message GrpcStatusFilter
   1 statuses [.Status]
   2 exclude  bool
  enum Status OK=0 CANCELED=1 UNKNOWN=2 INVALID_ARGUMENT=3 DEADLINE_EXCEEDED=4 NOT_FOUND=5 ALREADY_EXISTS=6 PERMISSION_DENIED=7 RESOURCE_EXHAUSTED=8 FAILED_PRECONDITION=9 ABORTED=10 OUT_OF_RANGE=11 UNIMPLEMENTED=12 INTERNAL=13 UNAVAILABLE=14 DATA_LOSS=15 UNAUTHENTICATED=16

message MetadataFilter
   1 matcher                matcher.MetadataMatcher
   2 match_if_key_not_found pb.BoolValue

message LogTypeFilter
   1 types   [envoy.data.accesslog.v3.AccessLogType]
   2 exclude bool

message RuntimeFilter
   1 runtime_key                string
   2 percent_sampled            type.FractionalPercent
   3 use_independent_randomness bool

message AndFilter
   1 filters [AccessLogFilter]

message OrFilter
   2 filters [AccessLogFilter]

message HeaderFilter
   1 header route.HeaderMatcher

message ResponseFlagFilter
   1 flags [string]

package envoy.data.accesslog.v3

enum AccessLogType NotSet=0 TcpUpstreamConnected=1 TcpPeriodic=2 TcpConnectionEnd=3 DownstreamStart=4 DownstreamPeriodic=5 DownstreamEnd=6 UpstreamPoolReady=7 UpstreamPeriodic=8 UpstreamEnd=9 DownstreamTunnelSuccessfullyEstablished=10 UdpTunnelUpstreamConnected=11 UdpPeriodic=12 UdpSessionEnd=13

package envoy.extensions.filters.network.tcp_proxy.v3

message TcpProxy
   1 stat_prefix                                          string
   2 cluster                                              string @cluster_specifier
  10 weighted_clusters                                    .WeightedCluster @cluster_specifier
  14 on_demand                                            opaque
   9 metadata_match                                       core.Metadata
   8 idle_timeout                                         pb.Duration
   3 downstream_idle_timeout                              pb.Duration
   4 upstream_idle_timeout                                pb.Duration
   5 access_log                                           [opaque]
   7 max_connect_attempts                                 pb.UInt32Value
  18 backoff_options                                      core.BackoffStrategy
  11 hash_policy                                          [type.HashPolicy]
  12 tunneling_config                                     opaque
  13 max_downstream_connection_duration                   pb.Duration
  20 max_downstream_connection_duration_jitter_percentage type.Percent
  15 access_log_flush_interval                            pb.Duration
  16 flush_access_log_on_connected                        bool
  17 access_log_options                                   opaque
  19 proxy_protocol_tlvs                                  [opaque]
  21 upstream_connect_mode                                UpstreamConnectMode
  22 max_early_data_bytes                                 pb.UInt32Value

enum UpstreamConnectMode IMMEDIATE=0 ON_DOWNSTREAM_DATA=1 ON_DOWNSTREAM_TLS_HANDSHAKE=2

message TcpProxy.WeightedCluster
   1 clusters [TcpProxy.WeightedCluster.ClusterWeight]

message TcpProxy.WeightedCluster.ClusterWeight
   1 name           string
   2 weight         uint32
   3 metadata_match core.Metadata
"""
