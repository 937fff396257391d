"""What the fields page calls honoured is drawn: no field of a route, a virtual host or a connection manager is left to chance.

Needs no Envoy: it looks at what the first hundred tables and connection managers are made of.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.testing import build
from meshlib.xds import schema
from meshlib.xds.decode.fields import TABLE, Kind
from tests.e2e.oracle.managers import make_filters, make_manager
from tests.e2e.oracle.seeds import BATCH
from tests.e2e.oracle.tables import make_table

_ROUTES = "envoy.config.route.v3.RouteConfiguration"
_MANAGER = build.HTTP_CONNECTION_MANAGER
_CORE = "envoy.config.core.v3."
_ROUTE = "envoy.config.route.v3."
_ACCESS = "envoy.config.accesslog.v3."
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3."

#: Honoured, and drawn by nobody, for a reason.
EXEMPT = {
    (
        f"{_CORE}ConfigSource",
        "self",
    ): "means what `ads` does, and Envoy takes it only from a management server's answer",
    (f"{_CORE}DataSource", "filename"): "in certificates only",
    **dict.fromkeys(
        (
            (_MANAGER, "max_request_headers_kb"),
            (_MANAGER, "request_timeout"),
            (_MANAGER, "stream_idle_timeout"),
            (f"{_CORE}HttpProtocolOptions", "max_headers_count"),
            (f"{_ROUTE}RetryPolicy", "per_try_idle_timeout"),
            (f"{_ROUTE}RouteAction", "idle_timeout"),
            (f"{_ROUTE}RouteAction", "max_stream_duration"),
            (f"{_ROUTE}RouteAction.MaxStreamDuration", "max_stream_duration"),
        ),
        "of time and size: test_stream_limits.py compares them",
    ),
    (f"{_ROUTE}RouteAction.MaxStreamDuration", "grpc_timeout_header_max"): "of gRPC calls",
    (f"{_ROUTE}RouteAction", "max_grpc_timeout"): "of gRPC calls",
    (f"{_ROUTE}RouteAction", "hash_policy"): "which endpoint is chosen: test_hashing.py compares that",
    (
        f"{_HCM}HttpFilter",
        "config_discovery",
    ): "only whether a filter is a guard: tests/e2e/test_extensions.py",
    **dict.fromkeys(
        (
            (f"{_ROUTE}RouteConfiguration", "typed_per_filter_config"),
            (f"{_ROUTE}VirtualHost", "typed_per_filter_config"),
            (f"{_ROUTE}Route", "typed_per_filter_config"),
            (f"{_ROUTE}WeightedCluster.ClusterWeight", "typed_per_filter_config"),
        ),
        "of filters: test_guards.py and test_faults.py compare them",
    ),
    (f"{_CORE}SchemeHeaderTransformation", "match_upstream"): "no scheme is sent over HTTP/1.1",
    (f"{_CORE}DataSource", "watched_directory"): "in certificates only",
    **dict.fromkeys(
        (
            (f"{_ROUTE}RouteAction", "metadata_match"),
            (f"{_ROUTE}WeightedCluster.ClusterWeight", "metadata_match"),
        ),
        "which endpoint is chosen: test_subsets.py compares that",
    ),
    **dict.fromkeys(
        ((f"{_ROUTE}RouteAction", "hedge_policy"), (f"{_ROUTE}VirtualHost", "hedge_policy")),
        "which attempts are made: test_hedges.py compares them",
    ),
    **dict.fromkeys(
        (
            (f"{_ROUTE}RouteAction", "rate_limits"),
            (f"{_ROUTE}RouteAction", "include_vh_rate_limits"),
            (f"{_ROUTE}VirtualHost", "rate_limits"),
        ),
        "what a service is asked: test_rate_limits.py compares it",
    ),
    **dict.fromkeys(
        (
            (f"{_ROUTE}{owner}", field)
            for owner in ("Route", "VirtualHost")
            for field in ("per_request_buffer_limit_bytes", "request_body_buffer_limit")
        ),
        "which attempts are made: test_body_limits.py compares them",
    ),
    (f"{_ROUTE}RetryPolicy", "retry_priority"): "which endpoint is tried: test_retry_hosts.py compares that",
    (f"{_ROUTE}RouteAction", "priority"): "whose limits hold: test_limits.py compares that",
    **dict.fromkeys(
        (
            (f"{_ROUTE}{owner}", "request_mirror_policies")
            for owner in ("RouteConfiguration", "VirtualHost", "RouteAction")
        ),
        "what is sent beside a call: test_mirrors.py compares that",
    ),
    **dict.fromkeys(
        (
            (_MANAGER, "via"),
            (_MANAGER, "always_set_request_id_in_response"),
            (_MANAGER, "early_header_mutation_extensions"),
            (_MANAGER, "proxy_status_config"),
        ),
        "lines of the listener's own: test_manager_lines.py compares them",
    ),
    **dict.fromkeys(
        (
            (_MANAGER, "internal_address_config"),
            (f"{_ROUTE}RouteConfiguration", "internal_only_headers"),
            (f"{_ROUTE}VirtualHost", "include_is_timeout_retry_header"),
        ),
        "what the router makes of lines: test_router_lines.py compares it",
    ),
    **dict.fromkeys(
        (
            (f"{_ROUTE}RouteAction", name)
            for name in ("internal_redirect_policy", "internal_redirect_action", "max_internal_redirects")
        ),
        "what follows a redirect: test_redirects.py compares it",
    ),
    (f"{_ACCESS}AccessLogFilter", "duration_filter"): "of time: test_manager_lines.py compares it",
    **dict.fromkeys(
        (
            (f"{_ROUTE}RouteAction", "grpc_timeout_offset"),
            (f"{_ROUTE}RouteAction.MaxStreamDuration", "grpc_timeout_header_offset"),
        ),
        "of gRPC calls",
    ),
    (f"{_ROUTE}VirtualHost", "metadata"): "what is ours in it is no Envoy's",
    (f"{_CORE}ConfigSource", "api_config_source"): "the tables come from one control plane",
}
#: Messages that are only inside of those.
_EXEMPT_INSIDE = tuple(
    f"{_CORE}{name}"
    for name in (
        "ApiConfigSource",
        "CidrRange",
        "GrpcService",
        "ExtensionConfigSource",
        "Metadata",
        "TypedExtensionConfig",
    )
)
_EXEMPT_INSIDE += (
    f"{_ACCESS}DurationFilter",
    f"{_HCM}HttpConnectionManager.InternalAddressConfig",
    f"{_HCM}HttpConnectionManager.ProxyStatusConfig",
    "envoy.config.common.mutation_rules.v3.HeaderMutation",
    "envoy.type.matcher.v3.AddressMatcher",
    "envoy.type.metadata.v3.MetadataKey",
    "xds.core.v3.CidrRange",
)
_EXEMPT_INSIDE += tuple(
    f"{_ROUTE}{name}"
    for name in (
        "RouteAction.HashPolicy",
        "HedgePolicy",
        "InternalRedirectPolicy",
        "RateLimit",
        "RetryPolicy.RetryPriority",
        "RouteAction.RequestMirrorPolicy",
    )
)


def honoured(entry: str, seen: set[str] | None = None) -> Iterator[tuple[str, str]]:
    """(message, field) of all that can be set under a message, through honoured fields alone."""
    seen = set() if seen is None else seen
    if entry in seen:
        return
    seen.add(entry)
    name = entry.partition("#")[0]
    for field in schema.descriptor(name).fields:
        rule = TABLE[entry].get(field.name)
        if rule is None or rule.kind is not Kind.HONOURED:
            continue
        yield name, field.name
        inside = field.message_type
        if inside is None or schema.is_opaque(field) or inside.full_name.startswith("google.protobuf."):
            continue
        if inside.GetOptions().map_entry:
            continue
        inner = schema.full_name(inside)
        yield from honoured(f"{inner}#{rule.variant}" if rule.variant else inner, seen)


def drawn(message: schema.WireMessage) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        yield schema.full_name(message), field.name
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for inner in value if schema.is_repeated(field) else (value,):
            yield from drawn(inner)


def everything_drawn() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for seed in range(BATCH):
        table = make_table(seed, f"table-{seed}")
        found.update(drawn(schema.from_json(_ROUTES, build.without_type(table))))
        for routes in (table["name"], table):  # as a table has it, and as the gate does
            manager = build.http_connection_manager(routes, filters=make_filters(seed), **make_manager(seed))
            found.update(drawn(schema.from_json(_MANAGER, build.without_type(manager))))
    return found


def test_every_honoured_field_is_drawn():
    wanted = {*honoured(_ROUTES), *honoured(_MANAGER)}
    found = everything_drawn()
    missing = {
        f"{message}.{field}"
        for message, field in wanted - found - set(EXEMPT)
        if not message.startswith(_EXEMPT_INSIDE)
    }
    assert missing == set(), "honoured, and never drawn by tables.py or managers.py"
    assert wanted > {(_ROUTES, "ignore_path_parameters_in_path_matching"), (_MANAGER, "local_reply_config")}


def test_what_is_exempt_is_honoured_and_not_drawn():
    assert set(EXEMPT) <= {*honoured(_ROUTES), *honoured(_MANAGER)}
    assert not set(EXEMPT) & everything_drawn()
