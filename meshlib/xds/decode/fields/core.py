"""Rules for small shared messages: addresses, headers, percentages, matchers, metadata, extensions."""

from __future__ import annotations

from typing import Any

from meshlib.xds.decode.fields.rules import rules

__all__ = ["CORE"]

_CORE = "envoy.config.core.v3."
_TYPE = "envoy.type.v3."
_MATCHER = "envoy.type.matcher.v3."


def _elsewhere(message: Any) -> bool:
    """Not on the stream of the listener."""
    return message.config_source.WhichOneof("config_source_specifier") not in ("ads", "self")


CORE = {
    f"{_CORE}Address": rules(
        honoured="socket_address pipe",
        rejected="envoy_internal_address",
        notes={"envoy_internal_address": "an endpoint inside an Envoy cannot be called by another process"},
    ),
    f"{_CORE}SocketAddress": rules(
        honoured="protocol address port_value",
        rejected="named_port",
        reported="network_namespace_filepath",
        void="ipv4_compat resolver_name",
        notes={
            "protocol": "UDP is rejected in the target view, and reported in the other",
            "named_port": "ports are numbers",
            "resolver_name": "rejected in clusters that DNS resolves; elsewhere an address needs no resolver",
            "network_namespace_filepath": "a process may not enter another name space",
        },
    ),
    f"{_CORE}HealthCheck": rules(
        honoured="timeout interval initial_jitter interval_jitter interval_jitter_percent unhealthy_threshold"
        " healthy_threshold reuse_connection http_health_check tcp_health_check grpc_health_check"
        " no_traffic_interval no_traffic_healthy_interval unhealthy_interval unhealthy_edge_interval"
        " healthy_edge_interval always_log_health_check_failures always_log_health_check_success tls_options"
        " transport_socket_match_criteria",
        reported="custom_health_check event_log_path event_logger event_service",
        void="alt_port",
        notes={
            "interval": "50 ms at least; where no jitter is written up to 5 % longer, by chance",
            "no_traffic_interval no_traffic_healthy_interval": "of a cluster that calls used and use no more; where they are not"
            " written nobody is asked then",
            "custom_health_check": "extensions of Envoy's are not run: endpoints are not asked",
            "event_log_path event_logger event_service": "changes are in this library's log, events and metrics",
            "alt_port": "not implemented in Envoy either",
            "reuse_connection": "128 connections of a process are kept",
        },
    ),
    f"{_CORE}HealthCheck.Payload": rules(honoured="text binary"),
    f"{_CORE}HealthCheck.HttpHealthCheck": rules(
        honoured="host path send receive response_buffer_size request_headers_to_add request_headers_to_remove"
        " expected_statuses retriable_statuses codec_client_type service_name_matcher method",
        notes={
            "codec_client_type": "HTTP/1.1 and HTTP/2; of HTTP/3 endpoints are not asked, which is reported",
            "response_buffer_size": "a mebibyte at most",
        },
    ),
    f"{_CORE}HealthCheck.TcpHealthCheck": rules(
        honoured="send receive",
        reported="proxy_protocol_config",
        notes={"proxy_protocol_config": "the PROXY protocol is not spoken"},
    ),
    f"{_CORE}HealthCheck.GrpcHealthCheck": rules(honoured="service_name authority initial_metadata"),
    f"{_CORE}HealthCheck.CustomHealthCheck": rules(void="name typed_config"),
    f"{_CORE}HealthCheck.TlsOptions": rules(honoured="alpn_protocols"),
    f"{_CORE}TcpKeepalive": rules(honoured="keepalive_probes keepalive_time keepalive_interval"),
    f"{_CORE}BindConfig": rules(
        honoured="source_address socket_options extra_source_addresses additional_source_addresses freebind local_address_selector",
        notes={
            "source_address": "the application's own `local_address` goes before",
            "freebind": "on Linux",
            "local_address_selector": "the default, by which the first address of a family is a connection's; others are reported",
        },
    ),
    f"{_CORE}ExtraSourceAddress": rules(
        honoured="address socket_options",
    ),
    f"{_CORE}SocketOptionsOverride": rules(honoured="socket_options"),
    f"{_CORE}SocketOption": rules(
        honoured="level name int_value",
        reported="buf_value",
        void="description state type",
        notes={
            "buf_value": "names of devices and the like: not taken from a control plane",
            "name": "keepalive, buffers, priority, TOS and the like; what leads past a firewall or into another"
            " routing table is reported. Elsewhere than on Linux the numbers mean nothing, and none is set",
        },
    ),
    f"{_CORE}DnsResolverOptions": rules(honoured="use_tcp_for_dns_lookups no_default_search_domain"),
    f"{_CORE}DnsResolutionConfig": rules(honoured="resolvers dns_resolver_options"),
    f"{_CORE}Pipe": rules(honoured="path", void="mode"),
    f"{_CORE}CidrRange": rules(honoured="address_prefix prefix_len"),
    f"{_CORE}Locality": rules(honoured="region zone sub_zone"),
    f"{_CORE}Metadata": rules(
        honoured="filter_metadata typed_filter_metadata",
        notes={
            "typed_filter_metadata": "of endpoints and localities the address of the proxy on the way"
            " (`envoy.http11_proxy_transport_socket.proxy_address`); nothing else in a client reads it"
        },
    ),
    f"{_CORE}HeaderValue": rules(
        honoured="key value",
        void="raw_value",
        notes={
            "key": "`Host` and names that begin with `:` are rejected",
            "raw_value": "Envoy does not look at it in edits of routes either (measured, 1.40)",
        },
    ),
    f"{_CORE}HeaderValueOption": rules(
        honoured="header append append_action keep_empty_value",
        notes={"append": "deprecated: false means OVERWRITE_IF_EXISTS_OR_ADD"},
    ),
    f"{_CORE}DataSource": rules(
        honoured="filename inline_bytes inline_string watched_directory",
        rejected="environment_variable",
        notes={
            "watched_directory": "files are looked at before each handshake, and read again when they changed",
            "filename": "in certificates only; a direct response's body must be inline",
            "environment_variable": "a control plane may not read this process's environment",
        },
    ),
    f"{_CORE}SubstitutionFormatString": rules(
        honoured="text_format json_format text_format_source omit_empty_values content_type",
        reported="formatters",
        void="json_format_options",
        notes={
            "formatters": "extensions of formats are not known",
            "json_format_options": "properties are sorted, as by Envoy 1.40 (measured)",
            "text_format": "a command that has no value in a client is reported, and `-`",
        },
    ),
    f"{_CORE}JsonFormatOptions": rules(void="sort_properties"),
    f"{_CORE}SchemeHeaderTransformation": rules(
        honoured="scheme_to_overwrite match_upstream",
        notes={"match_upstream": "an endpoint sees the scheme of its own connection, with it and without"},
    ),
    f"{_CORE}RuntimeUInt32": rules(
        honoured="default_value",
        void="runtime_key",
        notes={"runtime_key": "there is no runtime: the default holds"},
    ),
    f"{_CORE}RuntimeFractionalPercent": rules(
        honoured="default_value",
        void="runtime_key",
        notes={"runtime_key": "there is no runtime: the default holds"},
    ),
    f"{_CORE}RuntimeDouble": rules(honoured="default_value", void="runtime_key"),
    f"{_CORE}RuntimePercent": rules(honoured="default_value", void="runtime_key"),
    f"{_CORE}RuntimeFeatureFlag": rules(honoured="default_value", void="runtime_key"),
    f"{_CORE}TransportSocket": rules(honoured="name typed_config"),
    f"{_CORE}TypedExtensionConfig": rules(honoured="name typed_config"),
    f"{_CORE}ConfigSource": rules(
        honoured="ads self api_config_source",
        rejected="path path_config_source",
        void="authorities initial_fetch_timeout resource_api_version",
        notes={
            "initial_fetch_timeout": "the timer is 15 s for every resource (gRFC A57)",
            "path": "followed in resources that are read from files (`xds.protocol`)",
            "path_config_source": "followed in resources that are read from files (`xds.protocol`)",
            "api_config_source": "a cluster that it names is the server that it came from; of type REST: followed where the control plane is "
            "polled by REST (`xds.protocol`)",
        },
    ),
    f"{_CORE}ApiConfigSource": rules(
        honoured="api_type grpc_services",
        void="transport_api_version cluster_names refresh_delay request_timeout rate_limit_settings "
        "set_node_on_first_message_only config_validators",
    ),
    f"{_CORE}GrpcService": rules(
        honoured="envoy_grpc google_grpc initial_metadata",
        void="timeout retry_policy",
        notes={
            "google_grpc": "asked where the bootstrap allows it: by `allowed_grpc_services`, or where the server is trusted (gRFC A102)",
            "initial_metadata": "of a trusted server, for google_grpc",
        },
    ),
    f"{_CORE}GrpcService.GoogleGrpc": rules(
        honoured="target_uri channel_credentials channel_credentials_plugin",
        reported="call_credentials call_credentials_plugin channel_args",
        void="stat_prefix credentials_factory_name config per_stream_buffer_limit_bytes",
        notes={
            "channel_credentials": "of a trusted server; others than those of `allowed_grpc_services` refuse the resource, and none are plain text",
            "channel_credentials_plugin": "of a trusted server: InsecureCredentials",
            "call_credentials": "tokens are the bootstrap's to give",
            "call_credentials_plugin": "tokens are the bootstrap's to give",
            "channel_args": "options are the application's to give",
        },
    ),
    f"{_CORE}GrpcService.EnvoyGrpc": rules(
        honoured="cluster_name", void="authority retry_policy max_receive_message_length skip_envoy_headers"
    ),
    f"{_CORE}ConfigSource#lrs": rules(
        honoured="self",
        void="ads path path_config_source api_config_source authorities initial_fetch_timeout resource_api_version",
        notes={"ads": "what is not `self` is reported, and refused in the target view"},
    ),
    f"{_CORE}AggregatedConfigSource": rules(),
    f"{_CORE}ExtensionConfigSource": rules(
        honoured="default_config type_urls apply_default_config_without_warming",
        reported="config_source",
        when={"config_source": _elsewhere},
        notes={
            "default_config": "in force where no configuration comes, or until it comes if it says so",
            "type_urls": "what may come decides whether it is asked for: a filter that cannot decide who may pass is not run anyway",
            "config_source": "of HTTP filters `ads` and `self` are honoured: by another nothing is asked for",
        },
    ),
    f"{_CORE}WatchedDirectory": rules(void="path"),
    f"{_CORE}SelfConfigSource": rules(void="transport_api_version"),
    f"{_TYPE}Percent": rules(honoured="value"),
    f"{_TYPE}FractionalPercent": rules(honoured="numerator denominator"),
    f"{_TYPE}Int32Range": rules(honoured="start end"),
    f"{_TYPE}Int64Range": rules(honoured="start end"),
    f"{_MATCHER}RegexMatcher": rules(
        honoured="regex",
        void="google_re2",
        notes={"regex": "RE2, a full match; what RE2 does not take is rejected"},
    ),
    f"{_MATCHER}FilterStateMatcher": rules(
        void="key string_match address_match", notes={"key": "a call has no filter state, of whatever name"}
    ),
    f"{_MATCHER}MetadataMatcher": rules(
        honoured="invert",
        void="filter path value",
        notes={"filter path value": "a call has no dynamic metadata, of whatever name"},
    ),
    f"{_MATCHER}RegexMatchAndSubstitute": rules(honoured="pattern substitution"),
    f"{_MATCHER}StringMatcher": rules(
        honoured="exact prefix suffix safe_regex contains ignore_case",
        rejected="custom",
        notes={
            "ignore_case": "has no effect on safe_regex, as in Envoy",
            "custom": "an extension: without it the matcher would match otherwise",
        },
    ),
}
