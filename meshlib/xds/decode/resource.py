"""From a resource's bytes to its value, or to the list of everything that is wrong with it.

These are total: whatever the bytes are, they return. A panic in a decoder becomes a problem too (ER-11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Assignment
from meshlib.model.listener import Extension, FilterChain, Listener
from meshlib.model.route import RouteConfiguration
from meshlib.model.tls import Secret
from meshlib.xds import schema
from meshlib.xds.decode import cluster as _cluster
from meshlib.xds.decode import endpoint as _endpoint
from meshlib.xds.decode import extension as _extension
from meshlib.xds.decode import listener as _listener
from meshlib.xds.decode import route as _route
from meshlib.xds.decode import secret as _secret
from meshlib.xds.decode.report import NOWHERE, Decoded, Elsewhere, Report, join, walk
from meshlib.xds.schema import WireMessage

__all__ = [
    "TYPES",
    "ResourceType",
    "cluster",
    "endpoint",
    "extension",
    "filter_chain",
    "listener",
    "read",
    "route",
    "secret",
    "types",
]

T = TypeVar("T")

_LISTENER = "envoy.config.listener.v3.Listener"
_ROUTE = "envoy.config.route.v3.RouteConfiguration"
_CLUSTER = "envoy.config.cluster.v3.Cluster"
_ENDPOINT = "envoy.config.endpoint.v3.ClusterLoadAssignment"
_TYPED_CONFIG = "envoy.config.core.v3.TypedExtensionConfig"
_FILTER_CHAIN = "envoy.config.listener.v3.FilterChain"
_SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One type of resource on a stream. ``full_state``: a response is everything there is (SW-14). ``removable``: one that the server says
    is gone is, though others name it. ``give_way`` is called at each resource of a response.
    """

    short: str
    url: str
    full_state: bool
    decode: Callable[[bytes], Decoded[Any]]
    give_way: Callable[[], object] = bool
    removable: bool = False

    @property
    def full_name(self) -> str:
        """Of the message, as in ``"envoy.config.listener.v3.Listener"``."""
        return self.url.rpartition("/")[2]


def listener(
    raw: bytes,
    view: str = "auto",
    give_way: Callable[[], object] = bool,
    *,
    trusted: bool = False,
    elsewhere: Elsewhere | None = None,
) -> Decoded[Listener]:
    """A Listener. `view`: see `decode.listener`. `give_way` is called at each element of what may be long. `elsewhere`: see `Report`."""
    read = partial(_listener_value, view=view)
    return _decoded(_LISTENER, raw, read, view, give_way, trusted=trusted, elsewhere=elsewhere)


def route(
    raw: bytes, view: str = "auto", give_way: Callable[[], object] = bool, *, trusted: bool = False
) -> Decoded[RouteConfiguration]:
    """A RouteConfiguration."""
    return _decoded(_ROUTE, raw, _route_value, view, give_way, trusted=trusted)


def cluster(
    raw: bytes,
    view: str = "auto",
    give_way: Callable[[], object] = bool,
    *,
    server: str = "",
    elsewhere: Elsewhere | None = None,
    instances: frozenset[str] | None = None,
    envoy_tls: bool = False,
) -> Decoded[Cluster]:
    """A Cluster. `server`, `elsewhere`, `instances`, `envoy_tls`: see `Report`."""
    return _decoded(
        _CLUSTER,
        raw,
        _cluster_value,
        view,
        give_way,
        server=server,
        elsewhere=elsewhere,
        instances=instances,
        envoy_tls=envoy_tls,
    )


def endpoint(raw: bytes, view: str = "auto", give_way: Callable[[], object] = bool) -> Decoded[Assignment]:
    """A ClusterLoadAssignment, named as its cluster."""
    return _decoded(_ENDPOINT, raw, _endpoint_value, view, give_way)


def extension(raw: bytes, view: str = "auto", give_way: Callable[[], object] = bool) -> Decoded[Extension]:
    """A TypedExtensionConfig: the configuration of an HTTP filter that comes by itself."""
    return _decoded(_TYPED_CONFIG, raw, _extension_value, view, give_way)


def filter_chain(
    raw: bytes,
    view: str = "sidecar",
    give_way: Callable[[], object] = bool,
    *,
    elsewhere: Elsewhere | None = None,
) -> Decoded[FilterChain]:
    """A FilterChain that comes by itself, judged as Envoy would."""
    return _decoded(_FILTER_CHAIN, raw, _filter_chain_value, view, give_way, elsewhere=elsewhere)


def secret(raw: bytes, view: str = "auto", give_way: Callable[[], object] = bool) -> Decoded[Secret]:
    """A Secret: a certificate with its key, or a CA."""
    return _decoded(_SECRET, raw, _secret_value, view, give_way, envoy_tls=True)  # gRPC has none


def types(
    view: str,
    give_way: Callable[[], object] = bool,
    *,
    trusted: bool = False,
    server: str = "",
    elsewhere: Elsewhere | None = None,
    instances: frozenset[str] | None = None,
    envoy_tls: bool = False,
) -> tuple[ResourceType, ...]:
    """The types in the order in which they are asked for, as a stream of that view reads them: in "target" gRPC's verdict
    holds, in "sidecar" and "auto" Envoy's. A listener says by itself which view it is of. `trusted`, `server`, `elsewhere`,
    `instances`, `envoy_tls`: see `Report`.
    """
    make = partial(ResourceType, give_way=give_way)
    common = partial(partial, give_way=give_way)
    of_clusters = common(
        cluster, view=view, server=server, elsewhere=elsewhere, instances=instances, envoy_tls=envoy_tls
    )
    return (
        make("listener", schema.LISTENER, True, common(listener, trusted=trusted, elsewhere=elsewhere)),
        make("route", schema.ROUTE, False, common(route, view=view, trusted=trusted)),
        make("cluster", schema.CLUSTER, True, of_clusters),
        make("endpoint", schema.ENDPOINT, False, common(endpoint, view=view)),
        make("extension", schema.EXTENSION, False, common(extension, view=view)),
        make(
            "filter_chain",
            schema.FILTER_CHAIN,
            False,
            common(filter_chain, elsewhere=elsewhere),
            removable=True,  # as in Envoy
        ),
        make("secret", schema.SECRET, False, common(secret, view=view)),
    )


TYPES = types("auto")


def _decoded(
    name: str,
    raw: bytes,
    read: Callable[[WireMessage, str, Report], T],
    view: str,
    give_way: Callable[[], object] = bool,
    *,
    trusted: bool = False,
    server: str = "",
    elsewhere: Elsewhere | None = None,
    instances: frozenset[str] | None = None,
    envoy_tls: bool = False,
) -> Decoded[T]:
    try:
        message = schema.message(name).FromString(raw)
    except (schema.DecodeError, RecursionError, TypeError, ValueError) as error:
        return Decoded("", None, (f"is no {name}: {error}",))
    others = NOWHERE if elsewhere is None else elsewhere
    report = Report(
        target=view == "target",
        trusted=trusted,
        give_way=give_way,
        server=server,
        elsewhere=others,
        instances=instances,
        envoy_tls=envoy_tls,
    )
    return _judged(message, "", read, report)


def read(short: str, message: WireMessage, path: str = "") -> Decoded[Any]:
    """What comes of a message that is parsed already, of the type with that short name, in the view "auto"; `path` stands
    before every path. It comes from a file of the application's own, which it trusts.
    """
    return _judged(message, path, _READERS[short], Report(trusted=True, statics=True))


def _judged(
    message: WireMessage, path: str, read: Callable[[WireMessage, str, Report], T], report: Report
) -> Decoded[T]:
    name = ""
    value: T | None = None
    try:
        name = str(message.cluster_name if hasattr(message, "cluster_name") else message.name)
        value = read(message, path, report)
    except Exception as error:  # noqa: BLE001 - whatever a peer sends may not end the stream
        report.problem(path, f"could not be decoded: {type(error).__name__}: {str(error)[:200]}")
    if report.failed:
        closed = value if report.closes else None
        return Decoded(name, None, report.problems, report.ignored, closed)
    report.settle()
    return Decoded(name, value, (), report.ignored)


def _listener_value(message: WireMessage, path: str, report: Report, view: str = "auto") -> Listener:
    made = _listener.listener(message, path, report, view)
    if made.outbound:
        _walk_listener(message, path, report, api=made.api)
    return made


def _walk_listener(message: WireMessage, path: str, report: Report, *, api: bool) -> None:
    """An api_listener's own address is judged by nobody: it has no meaning there."""
    if api and (message.HasField("address") or len(message.filter_chains)):
        only = schema.message(_LISTENER)()
        only.CopyFrom(message)
        for field in ("address", "additional_addresses", "filter_chains", "default_filter_chain"):
            only.ClearField(field)
        message = only
    walk(message, path, report)


def _route_value(message: WireMessage, path: str, report: Report) -> RouteConfiguration:
    if not message.name:
        report.problem(join(path, "name"), "must not be empty")
    walk(message, path, report)
    return _route.route_configuration(message, path, report)


def _cluster_value(message: WireMessage, path: str, report: Report) -> Cluster:
    walk(message, path, report)
    return _cluster.cluster(message, path, report)


def _endpoint_value(message: WireMessage, path: str, report: Report) -> Assignment:
    if not message.cluster_name:
        report.problem(join(path, "cluster_name"), "must not be empty")
    return _endpoint.load_assignment(message, path, report)


def _extension_value(message: WireMessage, path: str, report: Report) -> Extension:
    if not message.name:
        report.problem(join(path, "name"), "must not be empty")
    walk(message, path, report)
    return _extension.extension(message, path, report)


def _filter_chain_value(message: WireMessage, path: str, report: Report) -> FilterChain:
    if not message.name:
        report.problem(join(path, "name"), "must not be empty")
    walk(message, path, report)
    return _listener.filter_chain(message, path, report)


def _secret_value(message: WireMessage, path: str, report: Report) -> Secret:
    if not message.name:
        report.problem(join(path, "name"), "must not be empty")
    made = _secret.secret(message, path, report)
    walk(message, path, report)  # what the decoder says of a field stands before its value
    return made


_READERS: Mapping[str, Callable[[WireMessage, str, Report], Any]] = {
    "listener": _listener_value,
    "route": _route_value,
    "cluster": _cluster_value,
    "endpoint": _endpoint_value,
    "extension": _extension_value,
    "filter_chain": _filter_chain_value,
    "secret": _secret_value,
}
