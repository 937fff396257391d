"""Wire table: the HTTP filters and retry extensions that have a meaning in a client.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["FILTERS"]

FILTERS = """
package envoy.extensions.filters.common.fault.v3

message FaultDelay
   3 fixed_delay  pb.Duration @fault_delay_secifier
   5 header_delay .HeaderDelay @fault_delay_secifier
   4 percentage   type.FractionalPercent

message FaultDelay.HeaderDelay

message FaultRateLimit
   1 fixed_limit  .FixedLimit @limit_type
   3 header_limit .HeaderLimit @limit_type
   2 percentage   type.FractionalPercent

message FaultRateLimit.FixedLimit
   1 limit_kbps uint64

message FaultRateLimit.HeaderLimit

package envoy.extensions.filters.http.ext_authz.v3

message ExtAuthzPerRoute
   1 disabled       bool @override
   2 check_settings opaque @override

package envoy.extensions.filters.http.fault.v3

message FaultAbort
   2 http_status  uint32 @error_type
   5 grpc_status  uint32 @error_type
   4 header_abort .HeaderAbort @error_type
   3 percentage   type.FractionalPercent

message FaultAbort.HeaderAbort

message HTTPFault
   1 delay                               fault.FaultDelay
   2 abort                               FaultAbort
   3 upstream_cluster                    string
   4 headers                             [route.HeaderMatcher]
   5 downstream_nodes                    [string]
   6 max_active_faults                   pb.UInt32Value
   7 response_rate_limit                 fault.FaultRateLimit
   8 delay_percent_runtime               string
   9 abort_percent_runtime               string
  10 delay_duration_runtime              string
  11 abort_http_status_runtime           string
  12 max_active_faults_runtime           string
  13 response_rate_limit_percent_runtime string
  14 abort_grpc_status_runtime           string
  15 disable_downstream_cluster_stats    bool
  16 filter_metadata                     pb.Struct

package envoy.extensions.filters.http.jwt_authn.v3

message PerRouteConfig
   1 disabled         bool @requirement_specifier
   2 requirement_name string @requirement_specifier

package envoy.extensions.filters.http.rbac.v3

message RBACPerRoute
   2 rbac opaque

package envoy.extensions.filters.http.router.v3

message Router
   1 dynamic_stats                            pb.BoolValue
   2 start_child_span                         bool
   3 upstream_log                             [opaque]
   9 upstream_log_options                     opaque
   4 suppress_envoy_headers                   bool
   5 strict_check_headers                     [string]
   6 respect_expected_rq_timeout              bool
   7 suppress_grpc_request_failure_code_stats bool
   8 upstream_http_filters                    [hcm.HttpFilter]

package envoy.extensions.filters.http.stateful_session.v3

message StatefulSession
   1 session_state                          core.TypedExtensionConfig
   2 strict                                 bool
   3 stat_prefix                            string
   4 status_on_strict_destination_not_found uint32

message StatefulSessionPerRoute
   1 disabled         bool @override
   2 stateful_session StatefulSession @override

package envoy.extensions.http.stateful_session.cookie.v3

message CookieBasedSessionState
   1 cookie envoy.type.http.v3.Cookie

package envoy.extensions.http.stateful_session.envelope.v3

message EnvelopeSessionState
   1 header .Header

message EnvelopeSessionState.Header
   1 name string

package envoy.extensions.http.stateful_session.header.v3

message HeaderBasedSessionState
   1 name string

package envoy.type.http.v3

message Cookie
   1 name       string
   2 ttl        pb.Duration
   3 path       string
   4 attributes [CookieAttribute]

message CookieAttribute
   1 name  string
   2 value string

package envoy.extensions.http.header_formatters.preserve_case.v3

message PreserveCaseFormatterConfig
   1 forward_reason_phrase            bool
   2 formatter_type_on_envoy_headers  .FormatterTypeOnEnvoyHeaders
  enum FormatterTypeOnEnvoyHeaders DEFAULT=0 PROPER_CASE=1

package envoy.extensions.http.original_ip_detection.custom_header.v3

message CustomHeaderConfig
   1 header_name                               string
   2 allow_extension_to_set_address_as_trusted bool
   3 reject_with_status                        opaque

package envoy.extensions.retry.host.previous_hosts.v3

message PreviousHostsPredicate

package envoy.extensions.retry.host.omit_canary_hosts.v3

message OmitCanaryHostsPredicate

package envoy.extensions.retry.host.omit_host_metadata.v3

message OmitHostMetadataConfig
   1 metadata_match core.Metadata

package envoy.extensions.retry.priority.previous_priorities.v3

message PreviousPrioritiesConfig
   1 update_frequency int32
"""
