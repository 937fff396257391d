"""Active health checks: how endpoints are asked whether they can serve.

gRPC's clients do not read them (gRFC A27 names what of a Cluster is used): so in the target view what is wrong with them refuses no
cluster, and gRPC calls pass over what they say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.model.health import CheckedAt, GrpcCheck, HealthCheck, HttpCheck, TcpCheck
from meshlib.model.route import HeaderEdits
from meshlib.xds.decode.headers import added, removed
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.values import boolean, header_value, number, seconds, string_match, struct
from meshlib.xds.schema import WireMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.model.address import Address

    _Resolve = Callable[[WireMessage, str, Report], Address | None]

__all__ = ["checked_at", "health_check"]

_METHODS = ("GET", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
#: Those whose requests have no body, to Envoy.
_BODILESS = ("GET", "HEAD", "DELETE", "TRACE")
_HTTP2, _HTTP3 = 1, 2
#: Bytes of a body that are looked at where nothing is said, and at most.
_BUFFER, _MOST_BUFFER = 1024, 1 << 20
#: What is sent, or looked for, at most.
_MOST_PAYLOAD = 1 << 16
_MOST_PORT = 65_535


def health_check(cluster: WireMessage, path: str, report: Report, *, http2: bool) -> HealthCheck | None:
    """The one of a Cluster; None: its endpoints are not asked. ``http2``: its calls speak that."""
    if not len(cluster.health_checks):
        return None
    if not report.target:
        return _one(cluster, path, report, http2=http2)
    inner = Report(trusted=report.trusted, give_way=report.give_way)
    made = _one(cluster, path, inner, http2=http2)
    for place, value in inner.ignored:
        report.ignore(place, value)
    if inner.failed:
        report.ignore(join(path, "health_checks"), "; ".join(inner.problems))
        return None
    return None if made is None else replace(made, grpc=False)


def _one(cluster: WireMessage, path: str, report: Report, *, http2: bool) -> HealthCheck | None:
    here = join(path, "health_checks")
    if len(cluster.health_checks) > 1:
        report.problem(here, "more than one is not supported, as in Envoy")
        return None
    held, here = cluster.health_checks[0], f"{here}[0]"
    how = _how(held, here, report)
    if isinstance(how, GrpcCheck) and not http2:
        report.problem(join(here, "grpc_health_check"), "needs a cluster of HTTP/2, as in Envoy")
    made = HealthCheck(
        TcpCheck() if how is None else how,
        interval=_positive(held, "interval", here, report, needed=True) or 1.0,
        timeout=_positive(held, "timeout", here, report, needed=True) or 1.0,
        healthy=_threshold(held, "healthy_threshold", here, report),
        unhealthy=_threshold(held, "unhealthy_threshold", here, report),
        initial_jitter=seconds(held, "initial_jitter", here, report) or 0.0,
        jitter=seconds(held, "interval_jitter", here, report) or 0.0,
        jitter_percent=int(held.interval_jitter_percent),
        reuse=boolean(held, "reuse_connection", True),
        alpn=_alpn(held.tls_options, join(here, "tls_options"), report),
        labels=tuple(sorted(struct(held.transport_socket_match_criteria).items(), key=lambda item: item[0])),
        new_count_not=bool(cluster.common_lb_config.ignore_new_hosts_until_first_hc),
        log_failures=bool(held.always_log_health_check_failures),
        log_successes=bool(held.always_log_health_check_success),
        unhealthy_interval=_positive(held, "unhealthy_interval", here, report),
        unhealthy_edge=_positive(held, "unhealthy_edge_interval", here, report),
        healthy_edge=_positive(held, "healthy_edge_interval", here, report),
        no_traffic=_positive(held, "no_traffic_interval", here, report),
        no_traffic_healthy=_positive(held, "no_traffic_healthy_interval", here, report),
    )
    return None if how is None else made


def checked_at(endpoint: WireMessage, path: str, report: Report, address: _Resolve) -> CheckedAt | None:
    """Of an Endpoint, where it is not asked as others are."""
    if not endpoint.HasField("health_check_config"):
        return None
    here = join(path, "health_check_config")
    inner = Report(trusted=report.trusted, give_way=report.give_way) if report.target else report
    made = _checked_at(endpoint.health_check_config, here, inner, address)
    if report.target and inner.failed:
        report.ignore(here, "; ".join(inner.problems))
        return None
    return made


def _checked_at(held: WireMessage, path: str, report: Report, address: _Resolve) -> CheckedAt | None:
    port = int(held.port_value)
    if port > _MOST_PORT:
        report.problem(join(path, "port_value"), f"must be 0 to {_MOST_PORT}, not {port}")
    place = address(held.address, join(path, "address"), report) if held.HasField("address") else None
    hostname = header_value(str(held.hostname), join(path, "hostname"), report)
    off = bool(held.disable_active_health_check)
    if place is None:
        made = CheckedAt(port=port, hostname=hostname, off=off)
    else:
        made = CheckedAt(place.host, place.unix, port or place.port, hostname, off)
    return None if made == CheckedAt() else made


def _how(held: WireMessage, path: str, report: Report) -> HttpCheck | GrpcCheck | TcpCheck | None:
    which = held.WhichOneof("health_checker")
    if which == "http_health_check":
        return _http(held.http_health_check, join(path, which), report)
    if which == "grpc_health_check":
        inner, here = held.grpc_health_check, join(path, which)
        edits = HeaderEdits(added(inner, "initial_metadata", here, report))
        authority = header_value(str(inner.authority), join(here, "authority"), report)
        return GrpcCheck(str(inner.service_name), authority, edits)
    if which == "tcp_health_check":
        tcp, here = held.tcp_health_check, join(path, which)
        send = _payload(tcp.send, join(here, "send"), report) if tcp.HasField("send") else b""
        return TcpCheck(send, _payloads(tcp.receive, join(here, "receive"), report))
    if which is None:
        report.problem(
            path,
            "one of http_health_check, tcp_health_check, grpc_health_check and custom_health_check must be set",
        )
    return None


def _http(held: WireMessage, path: str, report: Report) -> HttpCheck | None:
    target = header_value(str(held.path), join(path, "path"), report)
    if not target:
        report.problem(join(path, "path"), "must not be empty")
    method = _METHODS[held.method] if held.method < len(_METHODS) else ""
    if not method or method == "CONNECT":
        report.problem(join(path, "method"), f"{held.method} is no method of a health check")
    send = _payload(held.send, join(path, "send"), report) if held.HasField("send") else b""
    if held.HasField("send") and method in _BODILESS:
        report.problem(join(path, "send"), f"a request of {method} has no body")
    receive = _payloads(held.receive, join(path, "receive"), report)
    buffer = number(held, "response_buffer_size")
    size = sum(map(len, receive))
    most = _BUFFER if buffer is None else min(buffer or _MOST_BUFFER, _MOST_BUFFER)
    if size > most:
        report.problem(
            join(path, "receive"), f"{size} bytes are looked for, and {most} of a response are looked at"
        )
    service = None
    if held.HasField("service_name_matcher"):
        service = string_match(held.service_name_matcher, join(path, "service_name_matcher"), report)
    made = HttpCheck(
        target,
        host=header_value(str(held.host), join(path, "host"), report),
        method=method,
        expected=_ranges(held.expected_statuses, join(path, "expected_statuses"), report) or ((200, 201),),
        retriable=_ranges(held.retriable_statuses, join(path, "retriable_statuses"), report),
        edits=HeaderEdits(
            added(held, "request_headers_to_add", path, report),
            removed(held, "request_headers_to_remove", path, report),
        ),
        http2=held.codec_client_type == _HTTP2,
        service=service,
        send=send,
        receive=receive,
        most=most,
    )
    if held.codec_client_type >= _HTTP3:
        report.ignore(join(path, "codec_client_type"), "HTTP/3 is not spoken: endpoints are not asked")
        return None
    if not target.isascii() or not target.isprintable() or " " in target or target[:1] != "/":
        report.ignore(join(path, "path"), "it cannot be asked for: endpoints are not asked")
        return None
    return made


def _ranges(held: Sequence[WireMessage], path: str, report: Report) -> tuple[tuple[int, int], ...]:
    found = []
    for index, item in enumerate(held):
        start, end = int(item.start), int(item.end)
        if not 100 <= start < end <= 600:
            report.problem(
                f"{path}[{index}]", f"must be within 100 to 600, its end not included, not {start} to {end}"
            )
        found.append((start, end))
    return tuple(found)


def _payloads(held: Sequence[WireMessage], path: str, report: Report) -> tuple[bytes, ...]:
    return tuple(_payload(item, f"{path}[{index}]", report) for index, item in enumerate(held))


def _payload(held: WireMessage, path: str, report: Report) -> bytes:
    """Bytes, or their digits in hexadecimal."""
    which = held.WhichOneof("payload")
    data = bytes(held.binary)
    if which == "text":
        text = str(held.text)
        try:
            data = bytes.fromhex(text)
        except ValueError:
            data = b""
        if not text or len(data) * 2 != len(text):
            report.problem(join(path, "text"), "must be bytes in hexadecimal")
    elif which is None:
        report.problem(path, "one of text and binary must be set")
    if len(data) > _MOST_PAYLOAD:
        report.problem(path, f"must have at most {_MOST_PAYLOAD} bytes")
    return data


def _positive(
    held: WireMessage, field: str, path: str, report: Report, *, needed: bool = False
) -> float | None:
    value = seconds(held, field, path, report)
    if value == 0:
        report.problem(join(path, field), "must be more than 0")
    elif needed and not held.HasField(field):
        report.problem(join(path, field), "is missing")
    return value


def _threshold(held: WireMessage, field: str, path: str, report: Report) -> int:
    value = number(held, field)
    if value is None:
        report.problem(join(path, field), "is missing")
    return value or 0


def _alpn(held: WireMessage, path: str, report: Report) -> tuple[str, ...]:
    for index, name in enumerate(held.alpn_protocols):
        if not (0 < len(name) < 256 and name.isascii()):
            report.problem(f"{join(path, 'alpn_protocols')}[{index}]", "must be 1 to 255 characters of ASCII")
    return tuple(str(name) for name in held.alpn_protocols)
