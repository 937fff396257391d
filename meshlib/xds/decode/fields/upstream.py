"""Rules for what a cluster says of HTTP to its endpoints, and of the calls to it."""

from __future__ import annotations

from meshlib.xds.decode.fields.rules import rules

__all__ = ["UPSTREAM"]

_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_UNHEARD = "as in Envoy, which looks at the headers of responses alone, it never holds"

UPSTREAM = {
    _HTTP: rules(
        honoured="common_http_protocol_options explicit_http_config use_downstream_protocol_config upstream_http_protocol_options auto_config http_filters"
        " outlier_detection request_mirror_policies hash_policy retry_policy",
        reported="header_validation_config",
        variants={"common_http_protocol_options": "upstream"},
        notes={
            "use_downstream_protocol_config": "means HTTP/1.1",
            "http_filters": "the codec; others are reported, and one that decides who may pass refuses the cluster",
            "outlier_detection retry_policy": "of HTTP calls; not read in the target view, as by gRPC",
            "hash_policy": "not read in the target view, as by gRPC",
            "request_mirror_policies": "of HTTP calls; a cluster that is named here alone is not asked for by its name; not read in the target view",
            "header_validation_config": "the wire has its own checks",
            "auto_config": "HTTP/1.1 is offered and spoken; gRPC calls, whose protocol it is, speak HTTP/2",
            "upstream_http_protocol_options": "not read in the target view, as by gRPC",
        },
    ),
    f"{_HTTP}.OutlierDetection": rules(honoured="error_matcher"),
    "envoy.config.common.matcher.v3.MatchPredicate": rules(
        honoured="or_match and_match not_match any_match http_response_headers_match",
        void="http_request_headers_match http_request_trailers_match http_response_trailers_match"
        " http_request_generic_body_match http_response_generic_body_match",
        notes={
            "http_request_headers_match http_request_trailers_match http_response_trailers_match": _UNHEARD,
            "http_request_generic_body_match http_response_generic_body_match": _UNHEARD,
        },
    ),
    "envoy.config.common.matcher.v3.MatchPredicate.MatchSet": rules(honoured="rules"),
    "envoy.config.common.matcher.v3.HttpHeadersMatch": rules(honoured="headers"),
    f"{_HTTP}.ExplicitHttpConfig": rules(
        honoured="http_protocol_options http2_protocol_options",
        rejected="http3_protocol_options",
        reason="HTTP/3 is not spoken",
    ),
    f"{_HTTP}.UseDownstreamHttpConfig": rules(
        honoured="http_protocol_options",
        void="http2_protocol_options http3_protocol_options",
        notes={"http2_protocol_options": "calls go as HTTP/1.1"},
    ),
    f"{_HTTP}.AutoHttpConfig": rules(
        honoured="http_protocol_options",
        void="http2_protocol_options http3_protocol_options alternate_protocols_cache_options",
        notes={
            "http2_protocol_options": "calls go as HTTP/1.1",
            "http3_protocol_options alternate_protocols_cache_options": "HTTP/3 is not spoken",
        },
    ),
}
