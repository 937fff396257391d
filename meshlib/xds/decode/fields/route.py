"""Rules for route configurations: virtual hosts, matches, actions, retries."""

from __future__ import annotations

from meshlib.xds.decode.fields.rules import rules

__all__ = ["ROUTE"]

_ROUTE = "envoy.config.route.v3."
_EDITS = "request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove"
_LABELS = "under `envoy.lb`"
_FILTERS = (
    "of filters that are honoured, and of those that decide who may pass: where one is in force what is here is refused; others are"
    " reported"
)
_BUFFER = "per_request_buffer_limit_bytes request_body_buffer_limit"

_LIMITS = "for the rate limit filters of the listener; gRPC's view has none"
_CORS = "the browser decides, and no browser calls"

ROUTE = {
    f"{_ROUTE}RouteConfiguration": rules(
        honoured=f"name virtual_hosts {_EDITS} typed_per_filter_config most_specific_header_mutations_wins ignore_port_in_host_matching"
        " ignore_path_parameters_in_path_matching validate_clusters max_direct_response_body_size_bytes request_mirror_policies"
        " internal_only_headers",
        rejected="vhds vhost_header",
        void="metadata cluster_specifier_plugins",
        notes={
            "request_mirror_policies": "of HTTP calls whose body is at hand whole (RW-04)",
            "internal_only_headers": "of HTTP calls; internal are those of the listener's `internal_address_config`",
            "validate_clusters": "of a file: whether a cluster that it names must be in it",
            "vhds": "virtual hosts are not asked for on demand",
            "vhost_header": "virtual hosts chosen by another header than the host",
            "typed_per_filter_config": _FILTERS,
            "cluster_specifier_plugins": "a route that uses one is left out and reported",
            "max_direct_response_body_size_bytes": "a greater body refuses the resource, as in Envoy; gRPC's view has no limit",
        },
    ),
    f"{_ROUTE}VirtualHost": rules(
        honoured=f"{_BUFFER} name domains routes require_tls {_EDITS} include_request_attempt_count include_attempt_count_in_response"
        " retry_policy hedge_policy metadata typed_per_filter_config rate_limits request_mirror_policies"
        " include_is_timeout_retry_header",
        rejected="matcher",
        void="virtual_clusters cors retry_policy_typed_config",
        notes={
            "metadata": "`meshlib.adoption`: how far clients have joined",
            "request_mirror_policies": "of HTTP calls whose body is at hand whole (RW-04)",
            "retry_policy_typed_config": "not implemented in Envoy either",
            "hedge_policy": "of HTTP calls; gRPC has none by xDS",
            "include_is_timeout_retry_header": "of HTTP calls",
            "rate_limits": _LIMITS,
            "cors": _CORS,
            _BUFFER: "a call with a longer body is not retried; bodies are not held",
            "matcher": "matching trees are not supported, and without them the host would have other routes",
            "typed_per_filter_config": _FILTERS,
        },
    ),
    f"{_ROUTE}Route": rules(
        honoured=f"name match route redirect direct_response non_forwarding_action typed_per_filter_config {_EDITS} {_BUFFER}",
        rejected="filter_action",
        void="metadata decorator tracing stat_prefix",
        notes={
            "typed_per_filter_config": _FILTERS,
            "filter_action": "an action that only a filter gives",
            _BUFFER: "a call with a longer body is not retried; bodies are not held",
        },
    ),
    f"{_ROUTE}RouteMatch": rules(
        honoured="prefix path safe_regex path_separated_prefix case_sensitive runtime_fraction headers"
        " query_parameters cookies grpc tls_context connect_matcher dynamic_metadata filter_state",
        rejected="path_match_policy",
        notes={
            "connect_matcher": "no call is a CONNECT: the route is left out and reported",
            "dynamic_metadata filter_state": "a call has none: a route that demands some is left out and reported; one that is for calls without"
            " is for all",
            "tls_context": "calls come without TLS: a route for clients with a certificate is left out and reported",
            "path_match_policy": "URI templates are not supported, and without them the route would match otherwise",
        },
    ),
    f"{_ROUTE}RouteMatch.GrpcRouteMatchOptions": rules(),
    f"{_ROUTE}RouteMatch.TlsContextMatchOptions": rules(honoured="presented validated"),
    f"{_ROUTE}RouteMatch.ConnectMatcher": rules(),
    f"{_ROUTE}HeaderMatcher": rules(
        honoured="name exact_match safe_regex_match range_match present_match prefix_match suffix_match contains_match"
        " string_match invert_match treat_missing_header_as_empty"
    ),
    f"{_ROUTE}QueryParameterMatcher": rules(honoured="name string_match present_match"),
    f"{_ROUTE}CookieMatcher": rules(honoured="name string_match invert_match"),
    f"{_ROUTE}WeightedCluster": rules(
        honoured="clusters header_name use_hash_policy",
        void="total_weight runtime_key_prefix",
        notes={
            "total_weight": "deprecated; the sum of the weights holds",
            "use_hash_policy": "what nothing in the call is hashed for is drawn",
        },
    ),
    f"{_ROUTE}WeightedCluster.ClusterWeight": rules(
        honoured=f"name cluster_header weight metadata_match {_EDITS} host_rewrite_literal typed_per_filter_config",
        notes={"metadata_match": _LABELS, "typed_per_filter_config": _FILTERS},
    ),
    f"{_ROUTE}ClusterSpecifierPlugin": rules(honoured="is_optional", void="extension"),
    f"{_ROUTE}RouteAction": rules(
        honoured="cluster cluster_header weighted_clusters cluster_not_found_response_code prefix_rewrite regex_rewrite"
        " host_rewrite_literal auto_host_rewrite host_rewrite_header host_rewrite_path_regex append_x_forwarded_host"
        " timeout retry_policy hedge_policy idle_timeout max_stream_duration max_grpc_timeout hash_policy metadata_match rate_limits"
        " include_vh_rate_limits request_mirror_policies priority internal_redirect_policy"
        " internal_redirect_action max_internal_redirects grpc_timeout_offset",
        rejected="path_rewrite_policy path_rewrite host_rewrite",
        reported="cluster_specifier_plugin inline_cluster_specifier_plugin",
        void="upgrade_configs cors flush_timeout early_data_policy retry_policy_typed_config",
        notes={
            "auto_host_rewrite": "for a gRPC call where the control plane is a trusted_xds_server (gRFC A81)",
            "timeout": "15 s where a control plane's route sets none, as in Envoy; 0 switches it off",
            "request_mirror_policies": "of HTTP calls whose body is at hand whole (RW-04)",
            "metadata_match": _LABELS,
            "flush_timeout": "what is written to a caller is in its own process",
            "early_data_policy": "no request is sent before a handshake is over",
            "retry_policy_typed_config": "not implemented in Envoy either",
            "priority": "not in the target view, as by gRPC",
            "hedge_policy": "of HTTP calls; gRPC has none by xDS",
            "internal_redirect_policy": "of HTTP calls; a redirect by 303 of a call that is no GET is the caller's",
            "internal_redirect_action max_internal_redirects": "deprecated; where internal_redirect_policy is not set",
            "grpc_timeout_offset": "of gRPC calls, where max_grpc_timeout is set and max_stream_duration is not; not in the target view (gRFC A31)",
            "rate_limits": _LIMITS,
            "cors": _CORS,
            "cluster_specifier_plugin": "the route is left out and reported",
            "inline_cluster_specifier_plugin": "the route is left out and reported",
            "path_rewrite_policy": "URI templates are not supported",
            "path_rewrite": "format text in a path is not supported",
            "host_rewrite": "format text in a host is not supported",
            "upgrade_configs": "an upgrade that a call asks for is never refused",
            "max_grpc_timeout": "of gRPC calls, where max_stream_duration is not set; not in the target view (gRFC A31)",
            "idle_timeout": "not of aiohttp's own connections, nor of gRPC calls",
        },
    ),
    f"{_ROUTE}RouteAction.RequestMirrorPolicy": rules(
        honoured="cluster cluster_header runtime_fraction disable_shadow_host_suffix_append host_rewrite_literal"
        " request_headers_mutations",
        void="trace_sampled",
    ),
    f"{_ROUTE}InternalRedirectPolicy": rules(
        honoured="max_internal_redirects redirect_response_codes predicates allow_cross_scheme_redirect response_headers_to_copy",
        notes={
            "predicates": "`previous_routes`, `safe_cross_scheme`, `allow_listed_routes`; with another nothing is followed, which is reported"
        },
    ),
    "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig": rules(),
    "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig": rules(),
    "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig": rules(
        honoured="allowed_route_names"
    ),
    f"{_ROUTE}RouteAction.HashPolicy": rules(
        honoured="header cookie connection_properties query_parameter filter_state terminal"
    ),
    f"{_ROUTE}RouteAction.HashPolicy.Header": rules(honoured="header_name regex_rewrite"),
    f"{_ROUTE}RouteAction.HashPolicy.Cookie": rules(honoured="name ttl path attributes"),
    f"{_ROUTE}RouteAction.HashPolicy.CookieAttribute": rules(honoured="name value"),
    f"{_ROUTE}RouteAction.HashPolicy.ConnectionProperties": rules(
        honoured="source_ip",
        notes={"source_ip": "calls come from this process: all of its own go the same way"},
    ),
    f"{_ROUTE}RouteAction.HashPolicy.QueryParameter": rules(honoured="name"),
    f"{_ROUTE}RouteAction.HashPolicy.FilterState": rules(
        honoured="key", notes={"key": "`io.grpc.channel_id`; there is no other filter state here"}
    ),
    f"{_ROUTE}RouteAction.UpgradeConfig": rules(void="upgrade_type enabled connect_config"),
    f"{_ROUTE}RouteAction.MaxStreamDuration": rules(
        honoured="max_stream_duration grpc_timeout_header_max grpc_timeout_header_offset",
        notes={
            "max_stream_duration": "of gRPC calls where grpc_timeout_header_max is not set, and of all others",
            "grpc_timeout_header_max": "of gRPC calls; 0 is no limit",
            "grpc_timeout_header_offset": "of gRPC calls, where grpc_timeout_header_max is set; not in the target view (gRFC A31)",
        },
    ),
    f"{_ROUTE}RetryPolicy": rules(
        honoured="retry_on num_retries per_try_timeout retry_priority retry_host_predicate"
        " retriable_status_codes retry_back_off rate_limited_retry_back_off retriable_headers"
        " retriable_request_headers per_try_idle_timeout",
        reported="retry_options_predicates",
        void="host_selection_retry_max_attempts",
        notes={
            "retry_priority": "`previous_priorities`, for HTTP calls; others are reported",
            "retry_options_predicates": "extensions of Envoy's are not run",
            "retry_on": "a condition that is not known is reported, the others hold",
            "retry_host_predicate": "another host first is always the rule; `omit_canary_hosts`, `omit_host_metadata`; others are reported",
        },
    ),
    f"{_ROUTE}RetryPolicy.RetryPriority": rules(honoured="name typed_config"),
    f"{_ROUTE}RetryPolicy.RetryHostPredicate": rules(honoured="name typed_config"),
    f"{_ROUTE}RetryPolicy.RetryBackOff": rules(honoured="base_interval max_interval"),
    f"{_ROUTE}RetryPolicy.ResetHeader": rules(honoured="name format"),
    f"{_ROUTE}RetryPolicy.RateLimitedRetryBackOff": rules(honoured="reset_headers max_interval"),
    f"{_ROUTE}HedgePolicy": rules(
        honoured="hedge_on_per_try_timeout",
        void="initial_requests additional_request_chance",
        notes={"initial_requests additional_request_chance": "Envoy reads them, and does nothing by them"},
    ),
    f"{_ROUTE}RedirectAction": rules(
        honoured="https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite regex_rewrite"
        " response_code strip_query"
    ),
    f"{_ROUTE}DirectResponseAction": rules(honoured="status body body_format"),
    f"{_ROUTE}NonForwardingAction": rules(),
    f"{_ROUTE}FilterConfig": rules(
        honoured="config disabled",
        void="is_optional",
        notes={"is_optional": "it is for an Envoy that does not know the filter"},
    ),
}
