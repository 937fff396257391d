"""Wire table: rate limits, of routes and of filters, and what a rate limit service is asked.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["LIMITS"]

LIMITS = """
package envoy.config.ratelimit.v3

message RateLimitServiceConfig
   2 grpc_service          core.GrpcService
   4 transport_api_version core.ApiVersion

package envoy.config.route.v3

message RateLimit
   1 stage                pb.UInt32Value
   2 disable_key          string
   3 actions              [.Action]
   4 limit                opaque
   5 hits_addend          .HitsAddend
   6 apply_on_stream_done bool

message RateLimit.HitsAddend
   1 number pb.UInt64Value
   2 format string

message RateLimit.Action
   1 source_cluster              .SourceCluster @action_specifier
   2 destination_cluster         .DestinationCluster @action_specifier
   3 request_headers             .RequestHeaders @action_specifier
  12 query_parameters            .QueryParameters @action_specifier
   4 remote_address              .RemoteAddress @action_specifier
   5 generic_key                 .GenericKey @action_specifier
   6 header_value_match          .HeaderValueMatch @action_specifier
   7 dynamic_metadata            .DynamicMetaData @action_specifier
   8 metadata                    .MetaData @action_specifier
   9 extension                   core.TypedExtensionConfig @action_specifier
  10 masked_remote_address       .MaskedRemoteAddress @action_specifier
  11 query_parameter_value_match .QueryParameterValueMatch @action_specifier
  13 remote_address_match        .RemoteAddressMatch @action_specifier

message RateLimit.Action.RemoteAddressMatch
   1 descriptor_value string
   2 descriptor_key   string
   3 default_value    string
   4 address_matcher  matcher.AddressMatcher

message RateLimit.Action.SourceCluster

message RateLimit.Action.DestinationCluster

message RateLimit.Action.RequestHeaders
   1 header_name    string
   2 descriptor_key string
   3 skip_if_absent bool

message RateLimit.Action.QueryParameters
   1 query_parameter_name string
   2 descriptor_key       string
   3 skip_if_absent       bool

message RateLimit.Action.RemoteAddress

message RateLimit.Action.MaskedRemoteAddress
   1 v4_prefix_mask_len pb.UInt32Value
   2 v6_prefix_mask_len pb.UInt32Value

message RateLimit.Action.GenericKey
   1 descriptor_value string
   2 descriptor_key   string

message RateLimit.Action.HeaderValueMatch
   4 descriptor_key   string
   1 descriptor_value string
   2 expect_match     pb.BoolValue
   3 headers          [HeaderMatcher]

message RateLimit.Action.DynamicMetaData
   1 descriptor_key string
   2 metadata_key   envoy.type.metadata.v3.MetadataKey
   3 default_value  string

message RateLimit.Action.MetaData
   1 descriptor_key string
   2 metadata_key   envoy.type.metadata.v3.MetadataKey
   3 default_value  string
   4 source         .Source
   5 skip_if_absent bool
  enum Source DYNAMIC=0 ROUTE_ENTRY=1

message RateLimit.Action.QueryParameterValueMatch
   4 descriptor_key   string
   1 descriptor_value string
   2 expect_match     pb.BoolValue
   3 query_parameters [QueryParameterMatcher]

package envoy.extensions.common.ratelimit.v3

enum XRateLimitHeadersRFCVersion OFF=0 DRAFT_VERSION_03=1

enum VhRateLimitsOptions OVERRIDE=0 INCLUDE=1 IGNORE=2

message RateLimitDescriptor
   1 entries     [.Entry]
   2 limit       opaque
   3 hits_addend pb.UInt64Value

message RateLimitDescriptor.Entry
   1 key   string
   2 value string

message LocalRateLimitDescriptor
   1 entries      [RateLimitDescriptor.Entry]
   2 token_bucket type.TokenBucket

message LocalClusterRateLimit

package envoy.extensions.filters.http.admission_control.v3

message AdmissionControl
   1 enabled                   core.RuntimeFeatureFlag
   2 success_criteria          .SuccessCriteria @evaluation_criteria
   3 sampling_window           pb.Duration
   4 aggression                core.RuntimeDouble
   5 sr_threshold              core.RuntimePercent
   6 rps_threshold             core.RuntimeUInt32
   7 max_rejection_probability core.RuntimePercent

message AdmissionControl.SuccessCriteria
   1 http_criteria .HttpCriteria
   2 grpc_criteria .GrpcCriteria

message AdmissionControl.SuccessCriteria.HttpCriteria
   1 http_success_status [type.Int32Range]

message AdmissionControl.SuccessCriteria.GrpcCriteria
   1 grpc_success_status [uint32]

package envoy.extensions.filters.http.local_ratelimit.v3

message LocalRateLimit
   1 stat_prefix                                string
   2 status                                     type.HttpStatus
   3 token_bucket                               type.TokenBucket
   4 filter_enabled                             core.RuntimeFractionalPercent
   5 filter_enforced                            core.RuntimeFractionalPercent
  10 request_headers_to_add_when_not_enforced   [core.HeaderValueOption]
   6 response_headers_to_add                    [core.HeaderValueOption]
   8 descriptors                                [limits.LocalRateLimitDescriptor]
   9 stage                                      uint32
  11 local_rate_limit_per_downstream_connection bool
  16 local_cluster_rate_limit                   limits.LocalClusterRateLimit
  12 enable_x_ratelimit_headers                 limits.XRateLimitHeadersRFCVersion
  13 vh_rate_limits                             limits.VhRateLimitsOptions
  14 always_consume_default_token_bucket        pb.BoolValue
  15 rate_limited_as_resource_exhausted         bool
  17 rate_limits                                [route.RateLimit]
  18 max_dynamic_descriptors                    pb.UInt32Value

package envoy.extensions.filters.http.ratelimit.v3

message RateLimit
   1 domain                             string
   2 stage                              uint32
   3 request_type                       string
   4 timeout                            pb.Duration
   5 failure_mode_deny                  bool
   6 rate_limited_as_resource_exhausted bool
   7 rate_limit_service                 envoy.config.ratelimit.v3.RateLimitServiceConfig
   8 enable_x_ratelimit_headers         .XRateLimitHeadersRFCVersion
   9 disable_x_envoy_ratelimited_header bool
  10 rate_limited_status                type.HttpStatus
  11 response_headers_to_add            [core.HeaderValueOption]
  12 status_on_error                    type.HttpStatus
  13 stat_prefix                        string
  14 filter_enabled                     core.RuntimeFractionalPercent
  15 filter_enforced                    core.RuntimeFractionalPercent
  16 failure_mode_deny_percent          core.RuntimeFractionalPercent
  17 rate_limits                        [route.RateLimit]
  enum XRateLimitHeadersRFCVersion OFF=0 DRAFT_VERSION_03=1

message RateLimitPerRoute
   1 vh_rate_limits  .VhRateLimitsOptions
   2 override_option .OverrideOptions
   3 rate_limits     [route.RateLimit]
   4 domain          string
  enum VhRateLimitsOptions OVERRIDE=0 INCLUDE=1 IGNORE=2
  enum OverrideOptions DEFAULT=0 OVERRIDE_POLICY=1 INCLUDE_POLICY=2 IGNORE_POLICY=3

package envoy.service.ratelimit.v3

message RateLimitRequest
   1 domain      string
   2 descriptors [limits.RateLimitDescriptor]
   3 hits_addend uint32

message RateLimitResponse
   1 overall_code            .Code
   2 statuses                [.DescriptorStatus]
   3 response_headers_to_add [core.HeaderValue]
   4 request_headers_to_add  [core.HeaderValue]
   5 raw_body                bytes
   6 dynamic_metadata        opaque
   7 quota                   opaque
  enum Code UNKNOWN=0 OK=1 OVER_LIMIT=2

message RateLimitResponse.RateLimit
   3 name              string
   1 requests_per_unit uint32
   2 unit              .Unit
  enum Unit UNKNOWN=0 SECOND=1 MINUTE=2 HOUR=3 DAY=4 MONTH=5 YEAR=6 WEEK=7

message RateLimitResponse.DescriptorStatus
   1 code                 RateLimitResponse.Code
   2 current_limit        RateLimitResponse.RateLimit
   3 limit_remaining      uint32
   4 duration_until_reset pb.Duration
   5 quota                opaque

package envoy.type.metadata.v3

message MetadataKey
   1 key  string
   2 path [.PathSegment]

message MetadataKey.PathSegment
   1 key string @segment

package envoy.type.v3

message HttpStatus
   1 code StatusCode

enum StatusCode Empty=0 Continue=100 OK=200 Created=201 Accepted=202 NonAuthoritativeInformation=203
  NoContent=204 ResetContent=205 PartialContent=206 MultiStatus=207 AlreadyReported=208 IMUsed=226
  MultipleChoices=300 MovedPermanently=301 Found=302 SeeOther=303 NotModified=304 UseProxy=305
  TemporaryRedirect=307 PermanentRedirect=308 BadRequest=400 Unauthorized=401 PaymentRequired=402
  Forbidden=403 NotFound=404 MethodNotAllowed=405 NotAcceptable=406 ProxyAuthenticationRequired=407
  RequestTimeout=408 Conflict=409 Gone=410 LengthRequired=411 PreconditionFailed=412 PayloadTooLarge=413
  URITooLong=414 UnsupportedMediaType=415 RangeNotSatisfiable=416 ExpectationFailed=417 MisdirectedRequest=421
  UnprocessableEntity=422 Locked=423 FailedDependency=424 UpgradeRequired=426 PreconditionRequired=428
  TooManyRequests=429 RequestHeaderFieldsTooLarge=431 InternalServerError=500 NotImplemented=501 BadGateway=502
  ServiceUnavailable=503 GatewayTimeout=504 HTTPVersionNotSupported=505 VariantAlsoNegotiates=506
  InsufficientStorage=507 LoopDetected=508 NotExtended=510 NetworkAuthenticationRequired=511

message TokenBucket
   1 max_tokens      uint32
   2 tokens_per_fill pb.UInt32Value
   3 fill_interval   pb.Duration
"""
