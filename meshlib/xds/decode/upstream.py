"""How the connections of a cluster speak: HTTP/1.1 or HTTP/2, how long they idle and live, how much they carry and read."""

from __future__ import annotations

from typing import NamedTuple

from meshlib.xds.decode.filters import GUARDS_HERE, UPSTREAM_CODEC, label
from meshlib.xds.decode.guards import is_guard
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.spoken import Spoken, spoken_http1, spoken_http2
from meshlib.xds.decode.values import header_name, number, seconds, unpacked
from meshlib.xds.schema import WireMessage

__all__ = ["Options", "upstream_options"]

#: Envoy's bound.
_MOST_KB = 8192
_DOWNSTREAM = 1
_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class _Common(NamedTuple):
    """What all protocols have. Times in seconds; None: nothing is said."""

    idle: float | None
    age: float | None
    requests: int | None
    head: int | None
    lines: int | None
    stream: float | None

    def over(self, other: _Common) -> _Common:
        """What is said here, and else what ``other`` says."""
        return _Common(
            other.idle if self.idle is None else self.idle,
            other.age if self.age is None else self.age,
            self.requests or other.requests,
            self.head or other.head,
            self.lines or other.lines,
            other.stream if self.stream is None else self.stream,
        )


class Names(NamedTuple):
    """UpstreamHttpProtocolOptions: as of `Cluster`."""

    sni: bool = False
    san: bool = False
    header: str = ""


class Options(NamedTuple):
    """``http2``: what connections speak; ``idle``: seconds after which an idle one ends, ``age``: after which any is replaced;
    ``requests``: how many one carries at most; ``head``, ``lines``: the bytes and lines of a response's head that are read at most; ``stream``: seconds of a stream; ``spoken``: what
    it says of the protocol itself; ``names``: those of TLS.
    """

    http2: bool
    names: Names
    idle: float | None
    age: float | None
    requests: int | None
    head: int | None
    lines: int | None
    stream: float | None
    spoken: Spoken


def upstream_options(cluster: WireMessage, path: str, report: Report) -> Options:
    """The extension wins over the deprecated fields."""
    common = _common(cluster, path, report)
    # As the caller speaks: to us that is HTTP/1.1, as by `use_downstream_protocol_config`.
    http2 = cluster.HasField("http2_protocol_options") and cluster.protocol_selection != _DOWNSTREAM
    common = common._replace(requests=number(cluster, "max_requests_per_connection") or common.requests)
    names = _names(cluster, path, report)
    spoken = _spoken(cluster, path, report)
    here = join(path, "typed_extension_protocol_options")
    for key in sorted(cluster.typed_extension_protocol_options):
        if key != _KEY:
            report.ignore(f"{here}[{key!r}]", key)
            continue
        inner = unpacked(cluster.typed_extension_protocol_options[key], f"{here}[{key!r}]", report, _KEY)
        if inner is not None:
            walk(inner, f"{here}[{key!r}]", report)
            _no_guards(inner, f"{here}[{key!r}]", report)
            http2 = _speaks_http2(inner, f"{here}[{key!r}]", report)
            which = inner.WhichOneof("upstream_protocol_options")
            if which is not None:
                spoken = _spoken(getattr(inner, which), f"{here}[{key!r}].{which}", report)
            common = _common(inner, f"{here}[{key!r}]", report).over(common)
            # As in Envoy, all that it says counts, and all that it does not.
            names = _names(inner, f"{here}[{key!r}]", report)
    return Options(http2, names, *common, spoken)


def _names(owner: WireMessage, path: str, report: Report) -> Names:
    field = "upstream_http_protocol_options"
    if not owner.HasField(field):
        return Names()
    held, path = owner.upstream_http_protocol_options, join(path, field)
    if report.grpc_tls:
        report.ignore(path, "gRPC does not read it")
        return Names()
    header = str(held.override_auto_sni_header)
    if header:
        header = header_name(header, join(path, "override_auto_sni_header"), report)
    return Names(bool(held.auto_sni), bool(held.auto_san_validation), header)


def _speaks_http2(message: WireMessage, path: str, report: Report) -> bool:
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
    return http2


def _spoken(owner: WireMessage, path: str, report: Report) -> Spoken:
    """Of both protocols, of which one is spoken. Where the caller's is, HTTP/2 has no meaning."""
    first, second = spoken_http1(owner, path, report), spoken_http2(owner, path, report)
    return first._replace(streams=second.streams, settings=second.settings, pings=second.pings)


def _no_guards(message: WireMessage, path: str, report: Report) -> None:
    """A guard on the way to the endpoints covers the cluster whole, also one that only some routes enable; other filters are not run."""
    for index, item in enumerate(message.http_filters):
        if is_guard(item):
            report.problem(f"{join(path, 'http_filters')}[{index}]", f"{label(item)} {GUARDS_HERE}")
        elif label(item) != UPSTREAM_CODEC:
            report.ignore(f"{join(path, 'http_filters')}[{index}]", label(item))


def _common(owner: WireMessage, path: str, report: Report) -> _Common:
    held, path = owner.common_http_protocol_options, join(path, "common_http_protocol_options")
    idle, age, stream = (
        seconds(held, name, path, report)
        for name in ("idle_timeout", "max_connection_duration", "max_stream_duration")
    )
    head, lines = number(held, "max_response_headers_kb"), number(held, "max_headers_count")
    if head is not None and not 1 <= head <= _MOST_KB:
        report.problem(join(path, "max_response_headers_kb"), f"must be 1 to {_MOST_KB}, not {head}")
    if lines == 0:
        report.problem(join(path, "max_headers_count"), "must be at least 1")
    requests = number(held, "max_requests_per_connection") or None
    return _Common(idle, age, requests, None if head is None else head * 1024, lines, stream)
