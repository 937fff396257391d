"""Wire table: route configuration, virtual host, route, matchers, route action, retry policy.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["ROUTE"]

ROUTE = """
package envoy.config.route.v3

message RouteConfiguration
   1 name                                    string
   2 virtual_hosts                           [VirtualHost]
   9 vhds                                    opaque
   3 internal_only_headers                   [string]
   4 response_headers_to_add                 [core.HeaderValueOption]
   5 response_headers_to_remove              [string]
   6 request_headers_to_add                  [core.HeaderValueOption]
   8 request_headers_to_remove               [string]
  10 most_specific_header_mutations_wins     bool
   7 validate_clusters                       pb.BoolValue
  11 max_direct_response_body_size_bytes     pb.UInt32Value
  12 cluster_specifier_plugins               [ClusterSpecifierPlugin]
  13 request_mirror_policies                 [RouteAction.RequestMirrorPolicy]
  14 ignore_port_in_host_matching            bool
  18 vhost_header                            string
  15 ignore_path_parameters_in_path_matching bool
  16 typed_per_filter_config                 map:pb.Any
  17 metadata                                core.Metadata

message VirtualHost
   1 name                              string
   2 domains                           [string]
   3 routes                            [Route]
  21 matcher                           opaque
   4 require_tls                       .TlsRequirementType
   5 virtual_clusters                  [opaque]
   6 rate_limits                       [RateLimit]
   7 request_headers_to_add            [core.HeaderValueOption]
  13 request_headers_to_remove         [string]
  10 response_headers_to_add           [core.HeaderValueOption]
  11 response_headers_to_remove        [string]
   8 cors                              opaque
  15 typed_per_filter_config           map:pb.Any
  14 include_request_attempt_count     bool
  19 include_attempt_count_in_response bool
  16 retry_policy                      RetryPolicy
  20 retry_policy_typed_config         pb.Any
  17 hedge_policy                      HedgePolicy
  23 include_is_timeout_retry_header   bool
  18 per_request_buffer_limit_bytes    pb.UInt32Value
  25 request_body_buffer_limit         pb.UInt64Value
  22 request_mirror_policies           [RouteAction.RequestMirrorPolicy]
  24 metadata                          core.Metadata
  enum TlsRequirementType NONE=0 EXTERNAL_ONLY=1 ALL=2

message Route
  14 name                           string
   1 match                          RouteMatch
   2 route                          RouteAction @action
   3 redirect                       RedirectAction @action
   7 direct_response                DirectResponseAction @action
  17 filter_action                  opaque @action
  18 non_forwarding_action          NonForwardingAction @action
   4 metadata                       core.Metadata
   5 decorator                      opaque
  13 typed_per_filter_config        map:pb.Any
   9 request_headers_to_add         [core.HeaderValueOption]
  12 request_headers_to_remove      [string]
  10 response_headers_to_add        [core.HeaderValueOption]
  11 response_headers_to_remove     [string]
  15 tracing                        opaque
  16 per_request_buffer_limit_bytes pb.UInt32Value
  19 stat_prefix                    string
  20 request_body_buffer_limit      pb.UInt64Value

message RouteMatch
   1 prefix                string @path_specifier
   2 path                  string @path_specifier
  10 safe_regex            matcher.RegexMatcher @path_specifier
  12 connect_matcher       .ConnectMatcher @path_specifier
  14 path_separated_prefix string @path_specifier
  15 path_match_policy     core.TypedExtensionConfig @path_specifier
   4 case_sensitive        pb.BoolValue
   9 runtime_fraction      core.RuntimeFractionalPercent
   6 headers               [HeaderMatcher]
   7 query_parameters      [QueryParameterMatcher]
   8 grpc                  .GrpcRouteMatchOptions
  11 tls_context           .TlsContextMatchOptions
  13 dynamic_metadata      [matcher.MetadataMatcher]
  16 filter_state          [matcher.FilterStateMatcher]
  17 cookies               [CookieMatcher]

message RouteMatch.GrpcRouteMatchOptions

message RouteMatch.TlsContextMatchOptions
   1 presented pb.BoolValue
   2 validated pb.BoolValue

message RouteMatch.ConnectMatcher

message HeaderMatcher
   1 name                          string
   4 exact_match                   string @header_match_specifier
  11 safe_regex_match              matcher.RegexMatcher @header_match_specifier
   6 range_match                   type.Int64Range @header_match_specifier
   7 present_match                 bool @header_match_specifier
   9 prefix_match                  string @header_match_specifier
  10 suffix_match                  string @header_match_specifier
  12 contains_match                string @header_match_specifier
  13 string_match                  matcher.StringMatcher @header_match_specifier
   8 invert_match                  bool
  14 treat_missing_header_as_empty bool

message QueryParameterMatcher
   1 name          string
   5 string_match  matcher.StringMatcher @query_parameter_match_specifier
   6 present_match bool @query_parameter_match_specifier

message CookieMatcher
   1 name         string
   2 string_match matcher.StringMatcher
   3 invert_match bool

message WeightedCluster
   1 clusters           [.ClusterWeight]
   3 total_weight       pb.UInt32Value
   2 runtime_key_prefix string
   4 header_name        string @random_value_specifier
   5 use_hash_policy    pb.BoolValue @random_value_specifier

message WeightedCluster.ClusterWeight
   1 name                       string
  12 cluster_header             string
   2 weight                     pb.UInt32Value
   3 metadata_match             core.Metadata
   4 request_headers_to_add     [core.HeaderValueOption]
   9 request_headers_to_remove  [string]
   5 response_headers_to_add    [core.HeaderValueOption]
   6 response_headers_to_remove [string]
  10 typed_per_filter_config    map:pb.Any
  11 host_rewrite_literal       string @host_rewrite_specifier

message ClusterSpecifierPlugin
   1 extension   core.TypedExtensionConfig
   2 is_optional bool

message RouteAction
   1 cluster                         string @cluster_specifier
   2 cluster_header                  string @cluster_specifier
   3 weighted_clusters               WeightedCluster @cluster_specifier
  37 cluster_specifier_plugin        string @cluster_specifier
  39 inline_cluster_specifier_plugin ClusterSpecifierPlugin @cluster_specifier
  20 cluster_not_found_response_code .ClusterNotFoundResponseCode
   4 metadata_match                  core.Metadata
   5 prefix_rewrite                  string
  32 regex_rewrite                   matcher.RegexMatchAndSubstitute
  41 path_rewrite_policy             core.TypedExtensionConfig
  45 path_rewrite                    string
   6 host_rewrite_literal            string @host_rewrite_specifier
   7 auto_host_rewrite               pb.BoolValue @host_rewrite_specifier
  29 host_rewrite_header             string @host_rewrite_specifier
  35 host_rewrite_path_regex         matcher.RegexMatchAndSubstitute @host_rewrite_specifier
  44 host_rewrite                    string @host_rewrite_specifier
  38 append_x_forwarded_host         bool
   8 timeout                         pb.Duration
  24 idle_timeout                    pb.Duration
  42 flush_timeout                   pb.Duration
  40 early_data_policy               core.TypedExtensionConfig
   9 retry_policy                    RetryPolicy
  33 retry_policy_typed_config       pb.Any
  30 request_mirror_policies         [.RequestMirrorPolicy]
  11 priority                        core.RoutingPriority
  13 rate_limits                     [RateLimit]
  14 include_vh_rate_limits          pb.BoolValue
  15 hash_policy                     [.HashPolicy]
  17 cors                            opaque
  23 max_grpc_timeout                pb.Duration
  28 grpc_timeout_offset             pb.Duration
  25 upgrade_configs                 [.UpgradeConfig]
  34 internal_redirect_policy        InternalRedirectPolicy
  26 internal_redirect_action        .InternalRedirectAction
  31 max_internal_redirects          pb.UInt32Value
  27 hedge_policy                    HedgePolicy
  36 max_stream_duration             .MaxStreamDuration
  enum ClusterNotFoundResponseCode SERVICE_UNAVAILABLE=0 NOT_FOUND=1 INTERNAL_SERVER_ERROR=2
  enum InternalRedirectAction PASS_THROUGH_INTERNAL_REDIRECT=0 HANDLE_INTERNAL_REDIRECT=1

message RouteAction.RequestMirrorPolicy
   1 cluster                           string
   5 cluster_header                    string
   3 runtime_fraction                  core.RuntimeFractionalPercent
   4 trace_sampled                     pb.BoolValue
   6 disable_shadow_host_suffix_append bool
   7 request_headers_mutations         [envoy.config.common.mutation_rules.v3.HeaderMutation]
   8 host_rewrite_literal              string

message RouteAction.HashPolicy
   1 header                .Header @policy_specifier
   2 cookie                .Cookie @policy_specifier
   3 connection_properties .ConnectionProperties @policy_specifier
   5 query_parameter       .QueryParameter @policy_specifier
   6 filter_state          .FilterState @policy_specifier
   4 terminal              bool

message RouteAction.HashPolicy.Header
   1 header_name   string
   2 regex_rewrite matcher.RegexMatchAndSubstitute

message RouteAction.HashPolicy.Cookie
   1 name       string
   2 ttl        pb.Duration
   3 path       string
   4 attributes [RouteAction.HashPolicy.CookieAttribute]

message RouteAction.HashPolicy.CookieAttribute
   1 name  string
   2 value string

message RouteAction.HashPolicy.ConnectionProperties
   1 source_ip bool

message RouteAction.HashPolicy.QueryParameter
   1 name string

message RouteAction.HashPolicy.FilterState
   1 key string

message RouteAction.UpgradeConfig
   1 upgrade_type   string
   2 enabled        pb.BoolValue
   3 connect_config opaque

message RouteAction.MaxStreamDuration
   1 max_stream_duration        pb.Duration
   2 grpc_timeout_header_max    pb.Duration
   3 grpc_timeout_header_offset pb.Duration

message RetryPolicy
   1 retry_on                          string
   2 num_retries                       pb.UInt32Value
   3 per_try_timeout                   pb.Duration
  13 per_try_idle_timeout              pb.Duration
   4 retry_priority                    .RetryPriority
   5 retry_host_predicate              [.RetryHostPredicate]
  12 retry_options_predicates          [core.TypedExtensionConfig]
   6 host_selection_retry_max_attempts int64
   7 retriable_status_codes            [uint32]
   8 retry_back_off                    .RetryBackOff
  11 rate_limited_retry_back_off       .RateLimitedRetryBackOff
   9 retriable_headers                 [HeaderMatcher]
  10 retriable_request_headers         [HeaderMatcher]
  enum ResetHeaderFormat SECONDS=0 UNIX_TIMESTAMP=1

message RetryPolicy.RetryPriority
   1 name         string
   3 typed_config pb.Any @config_type

message RetryPolicy.RetryHostPredicate
   1 name         string
   3 typed_config pb.Any @config_type

message RetryPolicy.RetryBackOff
   1 base_interval pb.Duration
   2 max_interval  pb.Duration

message RetryPolicy.ResetHeader
   1 name   string
   2 format RetryPolicy.ResetHeaderFormat

message RetryPolicy.RateLimitedRetryBackOff
   1 reset_headers [RetryPolicy.ResetHeader]
   2 max_interval  pb.Duration

message HedgePolicy
   1 initial_requests          pb.UInt32Value
   2 additional_request_chance type.FractionalPercent
   3 hedge_on_per_try_timeout  bool

message RedirectAction
   4 https_redirect  bool @scheme_rewrite_specifier
   7 scheme_redirect string @scheme_rewrite_specifier
   1 host_redirect   string
   8 port_redirect   uint32
   2 path_redirect   string @path_rewrite_specifier
   5 prefix_rewrite  string @path_rewrite_specifier
   9 regex_rewrite   matcher.RegexMatchAndSubstitute @path_rewrite_specifier
   3 response_code   .RedirectResponseCode
   6 strip_query     bool
  enum RedirectResponseCode MOVED_PERMANENTLY=0 FOUND=1 SEE_OTHER=2 TEMPORARY_REDIRECT=3
      PERMANENT_REDIRECT=4

message DirectResponseAction
   1 status      uint32
   2 body        core.DataSource
   3 body_format core.SubstitutionFormatString

message NonForwardingAction

message InternalRedirectPolicy
   1 max_internal_redirects      pb.UInt32Value
   2 redirect_response_codes     [uint32]
   3 predicates                  [core.TypedExtensionConfig]
   4 allow_cross_scheme_redirect bool
   5 response_headers_to_copy    [string]

message FilterConfig
   1 config      pb.Any
   2 is_optional bool
   3 disabled    bool

package envoy.extensions.internal_redirect.previous_routes.v3

message PreviousRoutesConfig

package envoy.extensions.internal_redirect.safe_cross_scheme.v3

message SafeCrossSchemeConfig

package envoy.extensions.internal_redirect.allow_listed_routes.v3

message AllowListedRoutesConfig
   1 allowed_route_names [string]
"""
