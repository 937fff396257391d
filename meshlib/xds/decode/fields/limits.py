"""What becomes of the fields of rate limits."""

from __future__ import annotations

from meshlib.xds.decode.fields.rules import rules

__all__ = ["LIMITS"]

_LOCAL = "envoy.extensions.filters.http.local_ratelimit.v3."
_GLOBAL = "envoy.extensions.filters.http.ratelimit.v3."
_ADMISSION = "envoy.extensions.filters.http.admission_control.v3."
_COMMON = "envoy.extensions.common.ratelimit.v3."
_RULE = "envoy.config.route.v3.RateLimit"
_NO_METADATA = "no filter of a client sets metadata: the default holds"

LIMITS = {
    _RULE: rules(
        honoured="stage actions hits_addend",
        reported="apply_on_stream_done",
        void="disable_key limit",
        notes={
            "hits_addend": "of the rules that a filter has itself, as in Envoy",
            "limit": "a call has no dynamic metadata, of whatever name",
            "apply_on_stream_done": "nothing is counted at the end of a call: the rule makes no descriptor",
        },
    ),
    f"{_RULE}.HitsAddend": rules(honoured="number format"),
    f"{_RULE}.Action": rules(
        honoured="source_cluster destination_cluster request_headers query_parameters remote_address generic_key"
        " header_value_match masked_remote_address query_parameter_value_match metadata dynamic_metadata remote_address_match",
        reported="extension",
        notes={
            "remote_address_match": "of the loopback address",
            "source_cluster": "the node's cluster",
            "remote_address": "the loopback address: what a sidecar sees of an application beside it",
            "masked_remote_address": "the loopback address's network",
            "metadata": "a call has no dynamic metadata: the default holds; of the route's see its `source`",
            "dynamic_metadata": _NO_METADATA,
            "extension": "extensions of Envoy's are not run: the rule makes no descriptor",
        },
    ),
    f"{_RULE}.Action.RemoteAddressMatch": rules(
        honoured="descriptor_value descriptor_key address_matcher",
        void="default_value",
        notes={
            "default_value": "for a format that gives nothing",
            "descriptor_value": "a text: with a format the rule makes no descriptor, which is reported",
        },
    ),
    "envoy.type.matcher.v3.AddressMatcher": rules(honoured="ranges invert_match"),
    "xds.core.v3.CidrRange": rules(honoured="address_prefix prefix_len"),
    f"{_RULE}.Action.SourceCluster": rules(),
    f"{_RULE}.Action.DestinationCluster": rules(),
    f"{_RULE}.Action.RemoteAddress": rules(),
    f"{_RULE}.Action.RequestHeaders": rules(honoured="header_name descriptor_key skip_if_absent"),
    f"{_RULE}.Action.QueryParameters": rules(honoured="query_parameter_name descriptor_key skip_if_absent"),
    f"{_RULE}.Action.MaskedRemoteAddress": rules(honoured="v4_prefix_mask_len v6_prefix_mask_len"),
    f"{_RULE}.Action.GenericKey": rules(honoured="descriptor_value descriptor_key"),
    f"{_RULE}.Action.HeaderValueMatch": rules(
        honoured="descriptor_key descriptor_value expect_match headers"
    ),
    f"{_RULE}.Action.QueryParameterValueMatch": rules(
        honoured="descriptor_key descriptor_value expect_match query_parameters"
    ),
    f"{_RULE}.Action.DynamicMetaData": rules(honoured="descriptor_key default_value", void="metadata_key"),
    f"{_RULE}.Action.MetaData": rules(
        honoured="metadata_key descriptor_key default_value skip_if_absent source",
        notes={
            "source": "of rules of routes and virtual hosts; in a filter's own it is reported, and the default holds"
        },
    ),
    f"{_COMMON}RateLimitDescriptor": rules(honoured="entries", void="limit hits_addend"),
    f"{_COMMON}RateLimitDescriptor.Entry": rules(honoured="key value"),
    f"{_COMMON}LocalRateLimitDescriptor": rules(
        honoured="entries token_bucket", notes={"entries": "one without a value has no limit"}
    ),
    f"{_COMMON}LocalClusterRateLimit": rules(),
    "envoy.type.v3.TokenBucket": rules(
        honoured="max_tokens tokens_per_fill fill_interval",
        notes={"fill_interval": "tokens come evenly over it, as in Envoy"},
    ),
    "envoy.type.v3.HttpStatus": rules(honoured="code"),
    "envoy.type.metadata.v3.MetadataKey": rules(honoured="key path"),
    "envoy.type.metadata.v3.MetadataKey.PathSegment": rules(honoured="key"),
    f"{_LOCAL}LocalRateLimit": rules(
        honoured="status token_bucket filter_enabled filter_enforced response_headers_to_add"
        " request_headers_to_add_when_not_enforced descriptors stage enable_x_ratelimit_headers vh_rate_limits"
        " always_consume_default_token_bucket rate_limited_as_resource_exhausted rate_limits",
        reported="local_rate_limit_per_downstream_connection local_cluster_rate_limit",
        void="stat_prefix max_dynamic_descriptors",
        notes={
            "local_rate_limit_per_downstream_connection": "there is no connection to us: one bucket a process",
            "local_cluster_rate_limit": "how many processes there are is not known: each has the whole limit",
            "token_bucket": "of this process",
        },
    ),
    f"{_ADMISSION}AdmissionControl": rules(
        honoured="enabled success_criteria sampling_window aggression sr_threshold rps_threshold max_rejection_probability",
        notes={"sampling_window": "of this process, in tenths"},
    ),
    f"{_ADMISSION}AdmissionControl.SuccessCriteria": rules(honoured="http_criteria grpc_criteria"),
    f"{_ADMISSION}AdmissionControl.SuccessCriteria.HttpCriteria": rules(honoured="http_success_status"),
    f"{_ADMISSION}AdmissionControl.SuccessCriteria.GrpcCriteria": rules(honoured="grpc_success_status"),
    "envoy.config.ratelimit.v3.RateLimitServiceConfig": rules(
        honoured="grpc_service", void="transport_api_version"
    ),
    f"{_GLOBAL}RateLimit": rules(
        honoured="domain stage request_type timeout failure_mode_deny rate_limited_as_resource_exhausted"
        " rate_limit_service enable_x_ratelimit_headers disable_x_envoy_ratelimited_header rate_limited_status"
        " response_headers_to_add status_on_error filter_enabled filter_enforced failure_mode_deny_percent rate_limits",
        void="stat_prefix",
        notes={
            "request_type": "our calls are internal",
            "rate_limit_service": "a cluster (`envoy_grpc`)",
            "timeout": "20 ms by default, as in Envoy",
        },
    ),
    f"{_GLOBAL}RateLimitPerRoute": rules(
        honoured="vh_rate_limits rate_limits domain",
        void="override_option",
        notes={"override_option": "Envoy does nothing with it either"},
    ),
}
