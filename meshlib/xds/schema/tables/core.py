"""Wire table: node, address, header, configuration source, protocol options.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["CORE"]

CORE = """
package envoy.config.core.v3

enum ApiVersion AUTO=0 V2=1 V3=2

enum HealthStatus UNKNOWN=0 HEALTHY=1 UNHEALTHY=2 DRAINING=3 TIMEOUT=4 DEGRADED=5

enum RoutingPriority DEFAULT=0 HIGH=1

enum RequestMethod METHOD_UNSPECIFIED=0 GET=1 HEAD=2 POST=3 PUT=4 DELETE=5 CONNECT=6 OPTIONS=7 TRACE=8 PATCH=9

enum TrafficDirection UNSPECIFIED=0 INBOUND=1 OUTBOUND=2

message BuildVersion
   1 version  type.SemanticVersion
   2 metadata pb.Struct

message Extension
   1 name            string
   2 category        string
   3 type_descriptor string
   4 version         BuildVersion
   5 disabled        bool
   6 type_urls       [string]

message Node
   1 id                       string
   2 cluster                  string
   3 metadata                 pb.Struct
  12 dynamic_parameters       map:opaque
   4 locality                 Locality
   6 user_agent_name          string
   7 user_agent_version       string @user_agent_version_type
   8 user_agent_build_version BuildVersion @user_agent_version_type
   9 extensions               [Extension]
  10 client_features          [string]
  11 listening_addresses      [Address]

message Locality
   1 region   string
   2 zone     string
   3 sub_zone string

message ControlPlane
   1 identifier string

message Metadata
   1 filter_metadata       map:pb.Struct
   2 typed_filter_metadata map:pb.Any

message RuntimeUInt32
   2 default_value uint32
   3 runtime_key   string

message RuntimePercent
   1 default_value type.Percent
   2 runtime_key   string

message RuntimeDouble
   1 default_value double
   2 runtime_key   string

message RuntimeFeatureFlag
   1 default_value pb.BoolValue
   2 runtime_key   string

message RuntimeFractionalPercent
   1 default_value type.FractionalPercent
   2 runtime_key   string

message QueryParameter
   1 key   string
   2 value string

message HeaderValue
   1 key       string
   2 value     string
   3 raw_value bytes

message HeaderValueOption
   1 header           HeaderValue
   2 append           pb.BoolValue
   3 append_action    .HeaderAppendAction
   4 keep_empty_value bool
  enum HeaderAppendAction APPEND_IF_EXISTS_OR_ADD=0 ADD_IF_ABSENT=1 OVERWRITE_IF_EXISTS_OR_ADD=2
      OVERWRITE_IF_EXISTS=3

message WatchedDirectory
   1 path string

message DataSource
   1 filename             string @specifier
   2 inline_bytes         bytes @specifier
   3 inline_string        string @specifier
   4 environment_variable string @specifier
   5 watched_directory    WatchedDirectory

message TransportSocket
   1 name         string
   3 typed_config pb.Any @config_type

message TypedExtensionConfig
   1 name         string
   2 typed_config pb.Any

message HealthStatusSet
   1 statuses [HealthStatus]

message HealthCheck
   1 timeout                          pb.Duration
   2 interval                         pb.Duration
  20 initial_jitter                   pb.Duration
   3 interval_jitter                  pb.Duration
  18 interval_jitter_percent          uint32
   4 unhealthy_threshold              pb.UInt32Value
   5 healthy_threshold                pb.UInt32Value
   6 alt_port                         pb.UInt32Value
   7 reuse_connection                 pb.BoolValue
   8 http_health_check                .HttpHealthCheck @health_checker
   9 tcp_health_check                 .TcpHealthCheck @health_checker
  11 grpc_health_check                .GrpcHealthCheck @health_checker
  13 custom_health_check              .CustomHealthCheck @health_checker
  12 no_traffic_interval              pb.Duration
  24 no_traffic_healthy_interval      pb.Duration
  14 unhealthy_interval               pb.Duration
  15 unhealthy_edge_interval          pb.Duration
  16 healthy_edge_interval            pb.Duration
  17 event_log_path                   string
  25 event_logger                     [TypedExtensionConfig]
  22 event_service                    opaque
  19 always_log_health_check_failures bool
  26 always_log_health_check_success  bool
  21 tls_options                      .TlsOptions
  23 transport_socket_match_criteria  pb.Struct

message HealthCheck.Payload
   1 text   string @payload
   2 binary bytes @payload

message HealthCheck.HttpHealthCheck
   1 host                      string
   2 path                      string
   3 send                      HealthCheck.Payload
   4 receive                   [HealthCheck.Payload]
  14 response_buffer_size      pb.UInt64Value
   6 request_headers_to_add    [HeaderValueOption]
   8 request_headers_to_remove [string]
   9 expected_statuses         [type.Int64Range]
  12 retriable_statuses        [type.Int64Range]
  10 codec_client_type         type.CodecClientType
  11 service_name_matcher      matcher.StringMatcher
  13 method                    RequestMethod

message HealthCheck.TcpHealthCheck
   1 send                  HealthCheck.Payload
   2 receive               [HealthCheck.Payload]
   3 proxy_protocol_config opaque

message HealthCheck.GrpcHealthCheck
   1 service_name     string
   2 authority        string
   3 initial_metadata [HeaderValueOption]

message HealthCheck.CustomHealthCheck
   1 name         string
   3 typed_config pb.Any @config_type

message HealthCheck.TlsOptions
   1 alpn_protocols [string]

message Pipe
   1 path string
   2 mode uint32

message EnvoyInternalAddress
   1 server_listener_name string @address_name_specifier
   2 endpoint_id          string

message SocketAddress
   1 protocol                   .Protocol
   2 address                    string
   3 port_value                 uint32 @port_specifier
   4 named_port                 string @port_specifier
   5 resolver_name              string
   6 ipv4_compat                bool
   7 network_namespace_filepath string
  enum Protocol TCP=0 UDP=1

message TcpKeepalive
   1 keepalive_probes   pb.UInt32Value
   2 keepalive_time     pb.UInt32Value
   3 keepalive_interval pb.UInt32Value

message SocketOption
   1 description string
   2 level       int64
   3 name        int64
   4 int_value   int64 @value
   5 buf_value   bytes @value
   6 state       .SocketState
   7 type        opaque
  enum SocketState STATE_PREBIND=0 STATE_BOUND=1 STATE_LISTENING=2

message SocketOptionsOverride
   1 socket_options [SocketOption]

message ExtraSourceAddress
   1 address        SocketAddress
   2 socket_options SocketOptionsOverride

message BindConfig
   1 source_address              SocketAddress
   2 freebind                    pb.BoolValue
   3 socket_options              [SocketOption]
   5 extra_source_addresses      [ExtraSourceAddress]
   4 additional_source_addresses [SocketAddress]
   6 local_address_selector      TypedExtensionConfig

message DnsResolverOptions
   1 use_tcp_for_dns_lookups  bool
   2 no_default_search_domain bool

message DnsResolutionConfig
   1 resolvers            [Address]
   2 dns_resolver_options DnsResolverOptions

message CidrRange
   1 address_prefix string
   2 prefix_len     pb.UInt32Value

message Address
   1 socket_address         SocketAddress @address
   2 pipe                   Pipe @address
   3 envoy_internal_address EnvoyInternalAddress @address

message GrpcService
   1 envoy_grpc       .EnvoyGrpc @target_specifier
   2 google_grpc      .GoogleGrpc @target_specifier
   3 timeout          pb.Duration
   5 initial_metadata [HeaderValue]
   6 retry_policy     opaque

message GrpcService.EnvoyGrpc
   1 cluster_name               string
   2 authority                  string
   3 retry_policy               opaque
   4 max_receive_message_length pb.UInt32Value
   5 skip_envoy_headers         bool

message GrpcService.GoogleGrpc
   1 target_uri                    string
   2 channel_credentials           opaque
   3 call_credentials              [opaque]
   4 stat_prefix                   string
   5 credentials_factory_name      string
   6 config                        opaque
   7 per_stream_buffer_limit_bytes pb.UInt32Value
   8 channel_args                  opaque
   9 channel_credentials_plugin    [pb.Any]
  10 call_credentials_plugin       [pb.Any]

message ApiConfigSource
   1 api_type                       .ApiType
   8 transport_api_version          ApiVersion
   2 cluster_names                  [string]
   4 grpc_services                  [GrpcService]
   3 refresh_delay                  pb.Duration
   5 request_timeout                pb.Duration
   6 rate_limit_settings            opaque
   7 set_node_on_first_message_only bool
   9 config_validators              [TypedExtensionConfig]
  enum ApiType DEPRECATED_AND_UNAVAILABLE_DO_NOT_USE=0 REST=1 GRPC=2 DELTA_GRPC=3 AGGREGATED_GRPC=5
      AGGREGATED_DELTA_GRPC=6

message AggregatedConfigSource

message SelfConfigSource
   1 transport_api_version ApiVersion

message PathConfigSource
   1 path              string
   2 watched_directory WatchedDirectory

message ConfigSource
   7 authorities           [opaque]
   1 path                  string @config_source_specifier
   8 path_config_source    PathConfigSource @config_source_specifier
   2 api_config_source     ApiConfigSource @config_source_specifier
   3 ads                   AggregatedConfigSource @config_source_specifier
   5 self                  SelfConfigSource @config_source_specifier
   4 initial_fetch_timeout pb.Duration
   6 resource_api_version  ApiVersion

message ExtensionConfigSource
   1 config_source                        ConfigSource
   2 default_config                       pb.Any
   3 apply_default_config_without_warming bool
   4 type_urls                            [string]

message SubstitutionFormatString
   1 text_format         string @format
   2 json_format         pb.Struct @format
   5 text_format_source  DataSource @format
   3 omit_empty_values   bool
   4 content_type        string
   6 formatters          [TypedExtensionConfig]
   7 json_format_options JsonFormatOptions

message JsonFormatOptions
   1 sort_properties bool

message BackoffStrategy
   1 base_interval pb.Duration
   2 max_interval  pb.Duration

message SchemeHeaderTransformation
   1 scheme_to_overwrite string @transformation
   2 match_upstream      bool

message HttpProtocolOptions
   1 idle_timeout                    pb.Duration
   3 max_connection_duration         pb.Duration
   2 max_headers_count               pb.UInt32Value
   7 max_response_headers_kb         pb.UInt32Value
   4 max_stream_duration             pb.Duration
   5 headers_with_underscores_action .HeadersWithUnderscoresAction
   6 max_requests_per_connection     pb.UInt32Value
  enum HeadersWithUnderscoresAction ALLOW=0 REJECT_REQUEST=1 DROP_HEADER=2

message Http1ProtocolOptions
   1 allow_absolute_url                            pb.BoolValue
   2 accept_http_10                                bool
   3 default_host_for_http_10                      string
   4 header_key_format                             Http1ProtocolOptions.HeaderKeyFormat
   5 enable_trailers                               bool
   6 allow_chunked_length                          bool
   7 override_stream_error_on_invalid_http_message pb.BoolValue
   8 send_fully_qualified_url                      bool
   9 use_balsa_parser                              pb.BoolValue
  10 allow_custom_methods                          bool
  11 ignore_http_11_upgrade                        [matcher.StringMatcher]

message Http1ProtocolOptions.HeaderKeyFormat
   1 proper_case_words  .ProperCaseWords     @header_format
   8 stateful_formatter TypedExtensionConfig @header_format

message Http1ProtocolOptions.HeaderKeyFormat.ProperCaseWords

message Http2ProtocolOptions
   1 hpack_table_size                                     pb.UInt32Value
   2 max_concurrent_streams                               pb.UInt32Value
   3 initial_stream_window_size                           pb.UInt32Value
   4 initial_connection_window_size                       pb.UInt32Value
   5 allow_connect                                        bool
   6 allow_metadata                                       bool
   7 max_outbound_frames                                  pb.UInt32Value
   8 max_outbound_control_frames                          pb.UInt32Value
   9 max_consecutive_inbound_frames_with_empty_payload    pb.UInt32Value
  10 max_inbound_priority_frames_per_stream               pb.UInt32Value
  11 max_inbound_window_update_frames_per_data_frame_sent pb.UInt32Value
  12 stream_error_on_invalid_http_messaging               bool
  14 override_stream_error_on_invalid_http_message        pb.BoolValue
  13 custom_settings_parameters                           [Http2ProtocolOptions.SettingsParameter]
  15 connection_keepalive                                 KeepaliveSettings
  16 use_oghttp2_codec                                    pb.BoolValue
  17 max_metadata_size                                    pb.UInt64Value

message Http2ProtocolOptions.SettingsParameter
   1 identifier pb.UInt32Value
   2 value      pb.UInt32Value

message KeepaliveSettings
   1 interval                 pb.Duration
   2 timeout                  pb.Duration
   3 interval_jitter          type.Percent
   4 connection_idle_interval pb.Duration

message UpstreamHttpProtocolOptions
   1 auto_sni                 bool
   2 auto_san_validation      bool
   3 override_auto_sni_header string
"""
