"""How the connections of a cluster speak: HTTP/1.1 or HTTP/2, how long they idle, how much they carry."""

from __future__ import annotations

from meshlib.xds.decode.filters import GUARDS_HERE, label
from meshlib.xds.decode.guards import is_guard
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.values import number, seconds, unpacked
from meshlib.xds.schema import WireMessage

__all__ = ["upstream_options"]

_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

Options = tuple[bool, float | None, int | None]


def upstream_options(cluster: WireMessage, path: str, report: Report) -> Options:
    """(HTTP/2, idle timeout in seconds, requests a connection). The extension wins over the deprecated fields."""
    idle, most = _common(cluster, path, report)
    http2 = cluster.HasField("http2_protocol_options")
    most = number(cluster, "max_requests_per_connection") or most
    here = join(path, "typed_extension_protocol_options")
    for key in sorted(cluster.typed_extension_protocol_options):
        if key != _KEY:
            report.ignore(f"{here}[{key!r}]", key)
            continue
        inner = unpacked(cluster.typed_extension_protocol_options[key], f"{here}[{key!r}]", report, _KEY)
        if inner is not None:
            walk(inner, f"{here}[{key!r}]", report)
            _no_guards(inner, f"{here}[{key!r}]", report)
            http2, own_idle, own_most = _extension(inner, f"{here}[{key!r}]", report)
            idle, most = (own_idle if own_idle is not None else idle), own_most or most
    return http2, idle, most


def _extension(message: WireMessage, path: str, report: Report) -> Options:
    which = message.WhichOneof("upstream_protocol_options")
    if which is None:
        report.problem(
            path, "one of explicit_http_config, use_downstream_protocol_config, auto_config must be set"
        )
    http2 = False
    if which == "explicit_http_config":
        chosen = message.explicit_http_config.WhichOneof("protocol_config")
        if chosen is None:
            report.problem(join(path, which), "a protocol must be set")
        http2 = chosen == "http2_protocol_options"
    return http2, *_common(message, path, report)


def _no_guards(message: WireMessage, path: str, report: Report) -> None:
    """A guard on the way to the endpoints covers the cluster whole, also one that only some routes enable."""
    for index, item in enumerate(message.http_filters):
        if is_guard(item):
            report.problem(f"{join(path, 'http_filters')}[{index}]", f"{label(item)} {GUARDS_HERE}")


def _common(owner: WireMessage, path: str, report: Report) -> tuple[float | None, int | None]:
    held, path = owner.common_http_protocol_options, join(path, "common_http_protocol_options")
    return seconds(held, "idle_timeout", path, report), number(held, "max_requests_per_connection") or None
