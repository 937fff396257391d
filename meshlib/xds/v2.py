"""xDS v2 at the wire's edge: requests become v2, responses become v3; all that is behind it knows v3 alone.

The messages of v2 have their v3 numbers, and so the same bytes; what differs is

    type URLs                     also in what an Any holds
    fields that v3 took away      they arrive as unknown fields, and are read by number: ``hosts`` and ``tls_context`` of a
                                  cluster, ``config`` of filters and sockets (a Struct), regular expressions of old
    fields that v3 renamed        nothing to do on the wire (``host_rewrite``); a Struct has names, so they are renamed in it
    filters without a type        only their names tell them: ``envoy.router``, ``envoy.tcp_proxy``

What is left of v2 alone stays an unknown field, which is reported, or a type that nobody knows, which is judged by its name.

And Kato's and Rainbond's ways, which an Envoy of that time would have taken or refused as written:

    a timeout to connect that is meant in ms and sent in s   Envoy's default in its place, reported
    virtual hosts that share a domain                        become one (`meshlib.xds.v2_hosts`)
    "not ready" (of Kato's own assignments)                  nobody is there, reported

Pure. Total: what is no message keeps its bytes, and whoever decodes it says why; what of v2 alone cannot be read keeps its
type of v2, which is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from google.protobuf.unknown_fields import UnknownFieldSet

from meshlib.model.status import Ignored
from meshlib.xds import schema
from meshlib.xds.schema import WireMessage
from meshlib.xds.v2_hosts import merge_virtual_hosts

__all__ = ["TYPES", "request", "response", "url_of"]

_PREFIX = "type.googleapis.com/"
_STRUCT = "google.protobuf.Struct"
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TCP = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"
_FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"
_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_DOWNSTREAM = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"

#: The v3 name of a message by its v2 name.
TYPES: Mapping[str, str] = {
    "envoy.api.v2.Listener": schema.type_name(schema.LISTENER),
    "envoy.api.v2.RouteConfiguration": schema.type_name(schema.ROUTE),
    "envoy.api.v2.Cluster": schema.type_name(schema.CLUSTER),
    "envoy.api.v2.ClusterLoadAssignment": schema.type_name(schema.ENDPOINT),
    "envoy.api.v2.auth.Secret": schema.type_name(schema.SECRET),
    "envoy.api.v2.auth.UpstreamTlsContext": _TLS,
    "envoy.api.v2.auth.DownstreamTlsContext": _DOWNSTREAM,
    "envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager": _HCM,
    "envoy.config.filter.network.tcp_proxy.v2.TcpProxy": _TCP,
    "envoy.config.filter.http.router.v2.Router": _ROUTER,
    "envoy.config.filter.http.fault.v2.HTTPFault": _FAULT,
}
_BACK = {v3: v2 for v2, v3 in TYPES.items()}

#: What a filter or a socket is whose name alone says it; a prefix of ``envoy.filters.…`` or ``envoy.`` is the same.
_NAMED: Mapping[str, str] = {
    "http_connection_manager": _HCM,
    "tcp_proxy": _TCP,
    "router": _ROUTER,
    "fault": _FAULT,
    "tls": _TLS,
}
_NAME_STARTS = ("envoy.filters.network.", "envoy.filters.http.", "envoy.transport_sockets.", "envoy.")
#: Names in the JSON of a Struct that v3 has otherwise.
_RENAMED = {"host_rewrite": "host_rewrite_literal", "hostRewrite": "hostRewriteLiteral"}

#: Seconds. Kato sends the number of its milliseconds as seconds (250): no connection is waited for that long.
LONGEST_CONNECT = 60
#: Envoy's default.
_CONNECT = 5
#: envoy.api.v2.Cluster.LbPolicy: ORIGINAL_DST_LB, which v3 has as CLUSTER_PROVIDED.
_ORIGINAL_DST, _PROVIDED = 4, 6

_LENGTH_DELIMITED = 2  # of the wire's types

_Tell = Callable[[str, object], None]


def url_of(url: str) -> str:
    """The v2 type URL of a v3 one, or itself where v2 has no such type."""
    name = url.rpartition("/")[2]
    return _PREFIX + _BACK[name] if name in _BACK else url


def request(message: WireMessage) -> bytes:
    """A DiscoveryRequest as v2 has it; ``message`` is changed."""
    message.type_url = url_of(str(message.type_url))
    return message.SerializeToString(deterministic=True)


def response(message: WireMessage, ours: str) -> tuple[Ignored, ...]:
    """Changes a DiscoveryResponse of v2 to v3. ``ours``: node.cluster. Gives what was left out or put right on the way."""
    told: list[Ignored] = []
    message.type_url = _v3_url(str(message.type_url))
    for resource in message.resources:
        told += _resource(resource, ours)
    return tuple(told)


def _v3_url(url: str) -> str:
    name = url.rpartition("/")[2]
    return _PREFIX + TYPES[name] if name in TYPES else url


def _resource(packed: WireMessage, ours: str) -> list[Ignored]:
    came_as, packed.type_url = packed.type_url, _v3_url(str(packed.type_url))
    inner = _opened(packed)
    if inner is None:
        return []
    name = str(getattr(inner, "cluster_name", "") or getattr(inner, "name", ""))
    short = schema.SHORT_NAMES.get(packed.type_url, "")
    told: list[Ignored] = []

    def tell(path: str, value: object) -> None:
        told.append(Ignored(name, short, path, str(value)))

    try:
        changed = _drop_unready(inner, ours, tell) if short == "endpoint" else _renew(inner, "", tell)
    except (ValueError, RecursionError, schema.DecodeError) as problem:
        packed.type_url = came_as  # half of it would say something else: the type refuses it
        return [Ignored(name, short, "", f"could not be read as v2: {problem}"[:200])]
    if changed:
        packed.value = inner.SerializeToString(deterministic=True)
    return told


def _opened(packed: WireMessage) -> WireMessage | None:
    try:
        return schema.message(schema.type_name(str(packed.type_url))).FromString(packed.value)
    except (KeyError, ValueError, RecursionError, schema.DecodeError):
        return None


# --- one message and all in it


def _renew(message: WireMessage, path: str, tell: _Tell) -> bool:
    """Whether anything of it changed."""
    kind = schema.full_name(message)
    if kind == "google.protobuf.Any":
        return _renew_any(message, path, tell)
    if kind.startswith("google.protobuf."):
        return False
    changed: bool = False
    for field, value in message.ListFields():
        for here, each in _messages(field, value, f"{path}.{field.name}" if path else str(field.name)):
            changed = _renew(each, here, tell) or changed
    old = _OLD.get(kind)
    if old is not None:
        changed = _take_up(message, old, path, tell) or changed
    mend = _MENDS.get(kind)
    if mend is not None:
        changed = mend(message, path, tell) or changed
    return changed


def _messages(field: Any, value: Any, path: str) -> Iterator[tuple[str, WireMessage]]:
    if field.message_type is None or schema.is_opaque(field):
        return
    if field.message_type.GetOptions().map_entry:
        if field.message_type.fields_by_name["value"].message_type is not None:
            yield from ((f"{path}[{key}]", value[key]) for key in sorted(value))
    elif schema.is_repeated(field):
        yield from ((f"{path}[{index}]", each) for index, each in enumerate(value))
    else:
        yield path, value


def _renew_any(packed: WireMessage, path: str, tell: _Tell) -> bool:
    came_as = str(packed.type_url)
    packed.type_url = _v3_url(came_as)
    changed = packed.type_url != came_as
    inner = _opened(packed)
    if inner is not None and _renew(inner, path, tell):
        packed.value = inner.SerializeToString(deterministic=True)
        return True
    return bool(changed)


_Read = Callable[[WireMessage, Any, str, _Tell], None]


def _take_up(message: WireMessage, old: Mapping[int, _Read], path: str, tell: _Tell) -> bool:
    """Reads the fields that v3 does not have; the others of them stay. All are messages or text: another wire type is neither."""
    held: list[tuple[int, Any]] = []
    rest = _known(message)
    for each in cast("Any", UnknownFieldSet(message)):
        mine = each.field_number in old and each.wire_type == _LENGTH_DELIMITED
        if mine:
            held.append((each.field_number, each.data))
        else:
            rest.MergeFromString(_encoded(each.field_number, each.wire_type, each.data))
    if held:
        message.CopyFrom(rest)
    for number, data in held:
        old[number](message, data, path, tell)
    return bool(held)


def _known(message: WireMessage) -> WireMessage:
    """A copy without the fields that it does not know itself; what it holds keeps its own."""
    made = type(message)()
    for field, value in message.ListFields():
        schema.copy_field(made, field, value)
    return made


def _encoded(number: int, wire_type: int, data: Any) -> bytes:
    head = schema.varint(number << 3 | wire_type)
    if wire_type == 0:
        return head + schema.varint(int(data))
    if wire_type == _LENGTH_DELIMITED:
        return head + schema.varint(len(data)) + bytes(data)
    if wire_type in (1, 5):
        return head + int(data).to_bytes(8 if wire_type == 1 else 4, "little")
    return b""  # a group, which no message of xDS has


# --- the fields that v3 does not have


def _hosts(cluster: WireMessage, data: Any, _path: str, _tell: _Tell) -> None:
    address = schema.message("envoy.config.core.v3.Address").FromString(bytes(data))
    assignment = cluster.load_assignment
    assignment.cluster_name = assignment.cluster_name or cluster.name
    if not len(assignment.endpoints):
        assignment.endpoints.add()
    assignment.endpoints[0].lb_endpoints.add().endpoint.address.CopyFrom(address)


def _tls_context(kind: str) -> _Read:
    def read(owner: WireMessage, data: Any, _path: str, _tell: _Tell) -> None:
        inner = schema.message(kind).FromString(bytes(data)) if schema.knows(kind) else None
        owner.transport_socket.name = "envoy.transport_sockets.tls"
        packed = owner.transport_socket.typed_config
        packed.type_url = _PREFIX + kind
        packed.value = inner.SerializeToString(deterministic=True) if inner is not None else bytes(data)

    return read


def _config(owner: WireMessage, data: Any, path: str, tell: _Tell) -> None:
    """The settings of a filter or a socket as a Struct: of its own type where its name tells it."""
    held = schema.message(_STRUCT).FromString(bytes(data))
    kind = _NAMED.get(_bare(str(owner.name)))
    if kind is None:
        owner.typed_config.CopyFrom(schema.pack(held))
        return
    unknown: list[tuple[str, str]] = []
    made = schema.from_json(kind, _as_v3(schema.to_json(held)), path=f"{path}.config", unknown=unknown)
    _renew(made, f"{path}.config", tell)
    owner.typed_config.CopyFrom(schema.pack(made))
    for place, value in unknown:
        tell(place, value)


def _as_v3(value: object) -> object:
    """The JSON of a Struct with the names of v3; the settings of filters in it have their types."""
    if isinstance(value, list):
        return [_as_v3(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {_RENAMED.get(key, key): _as_v3(each) for key, each in value.items()}
    name, held = made.get("name"), made.get("config")
    if isinstance(name, str) and isinstance(held, dict):
        kind = _NAMED.get(_bare(name))
        del made["config"]
        typed = (
            {"@type": _PREFIX + _STRUCT, "value": held} if kind is None else {"@type": _PREFIX + kind, **held}
        )
        made.setdefault("typed_config", typed)
    return made


def _bare(name: str) -> str:
    return next((name.removeprefix(start) for start in _NAME_STARTS if name.startswith(start)), name)


def _regex(field: str) -> _Read:
    """A regular expression that stood by itself. ECMAScript's then, RE2 now: what RE2 does not take is refused."""

    def read(owner: WireMessage, data: Any, _path: str, _tell: _Tell) -> None:
        getattr(owner, field).regex = bytes(data).decode()

    return read


def _query_value(matcher: WireMessage, data: Any, _path: str, _tell: _Tell) -> None:
    matcher.string_match.exact = bytes(data).decode()


def _query_regex(matcher: WireMessage, data: Any, _path: str, _tell: _Tell) -> None:
    if data == b"\x08\x01" and matcher.string_match.WhichOneof("match_pattern") == "exact":
        matcher.string_match.safe_regex.regex = str(matcher.string_match.exact)


def _mirror(action: WireMessage, data: Any, _path: str, _tell: _Tell) -> None:
    action.request_mirror_policies.add().MergeFromString(bytes(data))


def _subject(owner: WireMessage, data: Any, _path: str, _tell: _Tell) -> None:
    """verify_subject_alt_name: a name as it stands."""
    owner.match_subject_alt_names.add().exact = bytes(data).decode()


_OLD: Mapping[str, Mapping[int, _Read]] = {
    "envoy.config.cluster.v3.Cluster": {7: _hosts, 11: _tls_context(_TLS)},
    "envoy.config.listener.v3.FilterChain": {2: _tls_context(_DOWNSTREAM)},
    "envoy.config.listener.v3.Filter": {2: _config},
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": {2: _config},
    "envoy.config.core.v3.TransportSocket": {2: _config},
    "envoy.config.route.v3.RouteMatch": {3: _regex("safe_regex")},
    "envoy.config.route.v3.HeaderMatcher": {5: _regex("safe_regex_match")},
    "envoy.config.route.v3.QueryParameterMatcher": {3: _query_value, 4: _query_regex},
    "envoy.config.route.v3.RouteAction": {10: _mirror},
    "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext": {4: _subject},
    "envoy.type.matcher.v3.StringMatcher": {4: _regex("safe_regex")},
}


# --- what is put right


def _typed(owner: WireMessage, _path: str, _tell: _Tell) -> bool:
    """A filter without settings: v3 wants a type all the same."""
    if owner.WhichOneof("config_type") is not None or not owner.name:
        return False
    kind = _NAMED.get(_bare(str(owner.name)), _STRUCT)
    owner.typed_config.CopyFrom(schema.pack(schema.message(kind)()))
    return True


def _mend_cluster(cluster: WireMessage, _path: str, tell: _Tell) -> bool:
    original = cluster.lb_policy == _ORIGINAL_DST
    if original:
        cluster.lb_policy = _PROVIDED
    sent = cluster.connect_timeout.seconds
    if sent <= LONGEST_CONNECT:
        return bool(original)
    tell("connect_timeout", f"{sent} s are more than {LONGEST_CONNECT} s: {_CONNECT} s hold, Envoy's default")
    cluster.connect_timeout.seconds, cluster.connect_timeout.nanos = _CONNECT, 0
    return True


def _mend_routes(routes: WireMessage, _path: str, _tell: _Tell) -> bool:
    return merge_virtual_hosts(routes)


def _drop_unready(assignment: WireMessage, ours: str, tell: _Tell) -> bool:
    """Kato's sign: of a service none of which is ready it sends one address, and that without a port for health checks.

    Its assignments are told by their names, ``<namespace>_<our alias>_…``, where node.cluster is ``<namespace>_<plugin>_<our alias>``.
    """
    parts = ours.split("_")
    if len(parts) < 3 or not assignment.cluster_name.startswith(f"{parts[0]}_{parts[-1]}_"):
        return False
    found = [each for group in assignment.endpoints for each in group.lb_endpoints]
    if len(found) != 1 or found[0].endpoint.health_check_config.port_value:
        return False
    where = found[0].endpoint.address.socket_address
    tell(
        "endpoints",
        f"{where.address}:{where.port_value} is not ready, the control plane says, nor is any other",
    )
    assignment.ClearField("endpoints")
    return True


_Mend = Callable[[WireMessage, str, _Tell], bool]
_MENDS: Mapping[str, _Mend] = {
    "envoy.config.cluster.v3.Cluster": _mend_cluster,
    "envoy.config.listener.v3.Filter": _typed,
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": _typed,
    "envoy.config.route.v3.RouteConfiguration": _mend_routes,
}
