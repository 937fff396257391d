"""What a route does: forward, redirect, answer (RA, RW, TO)."""

from __future__ import annotations

from meshlib.model.route import (
    Action,
    ClusterWeight,
    DirectResponse,
    Forward,
    HostRewrite,
    HostRewriteKind,
    Mirror,
    NonForwarding,
    Redirect,
)
from meshlib.model.subset import Labels
from meshlib.xds.decode.guards import switches
from meshlib.xds.decode.headers import header_edits, mutations
from meshlib.xds.decode.hedge import hedge_policy
from meshlib.xds.decode.limits import descriptor_rules
from meshlib.xds.decode.redirects import internal_redirects
from meshlib.xds.decode.replies import body_format, inline_body
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.retry import hash_policies, retry_policy
from meshlib.xds.decode.subset import call_labels
from meshlib.xds.decode.values import (
    boolean,
    header_name,
    header_value,
    number,
    rewrite,
    runtime_fraction,
    seconds,
)
from meshlib.xds.names import canonical
from meshlib.xds.schema import WireMessage

__all__ = ["action", "mirrors"]

_MAX_UINT32 = 2**32 - 1
_NOT_FOUND = {0: 503, 1: 404, 2: 500}
_REDIRECTS = {0: 301, 1: 302, 2: 303, 3: 307, 4: 308}
_MAX_PORT = 65535


def action(route: WireMessage, path: str, report: Report, longest: int = 0) -> Action | None:
    """The action of a Route, or None: the route cannot be used here and is left out (RA-03), or it is wrong.

    `longest`: how many bytes the body of a direct response may have; 0 is any number.
    """
    which = route.WhichOneof("action")
    if which == "route":
        return _forward(route.route, join(path, which), report)
    if which == "redirect":
        return _redirect(route.redirect, join(path, which), report)
    if which == "direct_response":
        return _direct_response(route.direct_response, join(path, which), report, longest)
    if which == "non_forwarding_action":
        return NonForwarding()
    if which is None:
        report.problem(path, "one of route, redirect, direct_response and non_forwarding_action must be set")
    return None


def _forward(message: WireMessage, path: str, report: Report) -> Forward | None:
    which = message.WhichOneof("cluster_specifier")
    if which is None:
        report.problem(path, "one of cluster, cluster_header and weighted_clusters must be set")
        return None
    labels = call_labels(message)
    cluster, weighted, header = _target(message, which, path, report, labels)
    status = _NOT_FOUND.get(message.cluster_not_found_response_code)
    if status is None:
        report.problem(
            join(path, "cluster_not_found_response_code"),
            f"{message.cluster_not_found_response_code} is not known",
        )
    edit = None
    if message.HasField("regex_rewrite"):
        edit = rewrite(message.regex_rewrite, join(path, "regex_rewrite"), report)
        if message.prefix_rewrite:
            report.problem(join(path, "prefix_rewrite"), "cannot stand beside regex_rewrite")
    limit, grpc_limit, offset = _stream_limits(message, path, report)
    split = message.weighted_clusters
    number_from = str(split.header_name)
    if number_from:
        number_from = header_name(number_from, join(path, "weighted_clusters.header_name"), report)
    made = Forward(
        cluster=cluster,
        weighted=weighted,
        cluster_header=header,
        prefix_rewrite=header_value(str(message.prefix_rewrite), join(path, "prefix_rewrite"), report),
        regex_rewrite=edit,
        host_rewrite=_host_rewrite(message, path, report),
        append_forwarded_host=bool(message.append_x_forwarded_host),
        timeout=seconds(message, "timeout", path, report),
        idle_timeout=seconds(message, "idle_timeout", path, report),
        max_stream_duration=limit,
        grpc_timeout_header_max=grpc_limit,
        grpc_timeout_offset=offset,
        retry=retry_policy(message, path, report),
        hedge=hedge_policy(message, path, report),
        hash_policy=hash_policies(message, path, report),
        mirrors=mirrors(message, path, report),
        not_found_status=status or 503,
        share_header=number_from,
        share_by_hash=bool(split.use_hash_policy.value),
        labels=labels,
        rate_limits=descriptor_rules(message, path, report),
        include_host_limits=boolean(message, "include_vh_rate_limits", False),
        high=_is_high(message, path, report),
        redirects=internal_redirects(message, path, report),
    )
    return made if cluster or weighted or header else None


def _is_high(message: WireMessage, path: str, report: Report) -> bool:
    if message.priority not in (0, 1):
        report.problem(join(path, "priority"), f"{message.priority} is not known")
    if message.priority and report.target:
        report.ignore(join(path, "priority"), "gRPC does not read it")
    return message.priority == 1 and not report.target


def _target(
    message: WireMessage, which: str, path: str, report: Report, labels: Labels
) -> tuple[str, tuple[ClusterWeight, ...], str]:
    if which == "cluster":
        if not message.cluster:
            report.problem(join(path, which), "must not be empty")
        return canonical(str(message.cluster)), (), ""
    if which == "cluster_header":
        return "", (), header_name(message.cluster_header, join(path, which), report)
    if which == "weighted_clusters":
        return "", _weighted(message.weighted_clusters, join(path, which), report, labels), ""
    return "", (), ""  # a cluster specifier plugin: reported by the table


def _weighted(message: WireMessage, path: str, report: Report, labels: Labels) -> tuple[ClusterWeight, ...]:
    """RA-01: a weight each; those of 0 are dropped; one must be left."""
    kept: list[ClusterWeight] = []
    for index, item in enumerate(message.clusters):
        here = f"{join(path, 'clusters')}[{index}]"
        weight = number(item, "weight")
        if weight is None:
            report.problem(join(here, "weight"), "is missing")
        if bool(item.name) == bool(item.cluster_header):
            report.problem(here, "exactly one of name and cluster_header must be set")
        header = item.cluster_header and header_name(
            item.cluster_header, join(here, "cluster_header"), report
        )
        host = None
        if item.WhichOneof("host_rewrite_specifier"):
            text = header_value(str(item.host_rewrite_literal), join(here, "host_rewrite_literal"), report)
            host = HostRewrite(HostRewriteKind.LITERAL, text) if text else None
        edits = header_edits(item, here, report)
        if weight:
            filters = switches(item, here, report)
            name, own = canonical(str(item.name)), call_labels(item, labels)
            kept.append(ClusterWeight(name, weight, edits, host, header, filters, own))
    if not kept and not report.failed:
        report.problem(join(path, "clusters"), "the weights add up to 0")
    if sum(entry.weight for entry in kept) > _MAX_UINT32:
        report.problem(join(path, "clusters"), f"the weights add up to more than {_MAX_UINT32}")
    return tuple(kept)


def _host_rewrite(message: WireMessage, path: str, report: Report) -> HostRewrite | None:
    which = message.WhichOneof("host_rewrite_specifier")
    if which == "host_rewrite_literal":
        text = header_value(str(message.host_rewrite_literal), join(path, which), report)
        return HostRewrite(HostRewriteKind.LITERAL, text) if text else None
    if which == "host_rewrite_header":
        if not message.host_rewrite_header:
            return None
        name = header_name(message.host_rewrite_header, join(path, which), report)
        return HostRewrite(HostRewriteKind.HEADER, name)
    if which == "host_rewrite_path_regex":
        edit = rewrite(message.host_rewrite_path_regex, join(path, which), report)
        return HostRewrite(HostRewriteKind.PATH_REGEX, "", edit)
    if which == "auto_host_rewrite" and message.auto_host_rewrite.value:
        return HostRewrite(HostRewriteKind.AUTO, trusted=report.trusted)
    return None


def _stream_limits(
    message: WireMessage, path: str, report: Report
) -> tuple[float | None, float | None, float]:
    """Of any call, of gRPC calls, and how much earlier than their callers say those end."""
    if not message.HasField("max_stream_duration"):
        # Deprecated, and read by Envoy alone (gRFC A31).
        if report.target:
            if message.HasField("grpc_timeout_offset"):
                report.ignore(join(path, "grpc_timeout_offset"), "gRPC does not honour it (gRFC A31)")
            return None, None, 0.0
        return (
            None,
            seconds(message, "max_grpc_timeout", path, report),
            seconds(message, "grpc_timeout_offset", path, report) or 0.0,
        )
    for name in ("max_grpc_timeout", "grpc_timeout_offset"):
        if message.HasField(name) and not report.target:
            report.ignore(join(path, name), "max_stream_duration is set")
    held, path = message.max_stream_duration, join(path, "max_stream_duration")
    offset = seconds(held, "grpc_timeout_header_offset", path, report) or 0.0
    if offset and report.target:
        report.ignore(join(path, "grpc_timeout_header_offset"), "gRPC does not honour it (gRFC A31)")
        offset = 0.0
    return (
        seconds(held, "max_stream_duration", path, report),
        seconds(held, "grpc_timeout_header_max", path, report),
        offset,
    )


def mirrors(owner: WireMessage, path: str, report: Report) -> tuple[Mirror, ...]:
    """`owner.request_mirror_policies` (RW-04)."""
    found: list[Mirror] = []
    for index, item in enumerate(owner.request_mirror_policies):
        here = f"{join(path, 'request_mirror_policies')}[{index}]"
        if bool(item.cluster) == bool(item.cluster_header):
            report.problem(here, "exactly one of cluster and cluster_header must be set")
        header = item.cluster_header and header_name(
            item.cluster_header, join(here, "cluster_header"), report
        )
        share = runtime_fraction(item, "runtime_fraction", here, report)
        found.append(
            Mirror(
                canonical(str(item.cluster)),
                share,
                header,
                not item.disable_shadow_host_suffix_append,
                header_value(str(item.host_rewrite_literal), join(here, "host_rewrite_literal"), report),
                mutations(item, "request_headers_mutations", here, report),
            )
        )
    return tuple(found)


def _redirect(message: WireMessage, path: str, report: Report) -> Redirect:
    status = _REDIRECTS.get(message.response_code)
    if status is None:
        report.problem(join(path, "response_code"), f"{message.response_code} is not known")
    port = int(message.port_redirect)
    which = message.WhichOneof("path_rewrite_specifier")
    for field in ("scheme_redirect", "host_redirect", "path_redirect", "prefix_rewrite"):
        header_value(str(getattr(message, field)), join(path, field), report)
    edit = None
    if which == "regex_rewrite":
        edit = rewrite(message.regex_rewrite, join(path, which), report)
    return Redirect(
        status=status or 301,
        https=bool(message.https_redirect),
        scheme=str(message.scheme_redirect),
        host=str(message.host_redirect),
        port=port or None,
        path=str(message.path_redirect) if which == "path_redirect" else None,
        prefix_rewrite=str(message.prefix_rewrite) if which == "prefix_rewrite" else None,
        regex_rewrite=edit,
        strip_query=bool(message.strip_query),
    )


def _direct_response(message: WireMessage, path: str, report: Report, longest: int) -> DirectResponse:
    if not 200 <= message.status <= 599:
        report.problem(join(path, "status"), f"must be 200 to 599, not {message.status}")
    body = inline_body(message, "body", path, report) or b""
    if longest and len(body) > longest:
        report.problem(join(path, "body"), f"must have no more than {longest} bytes, not {len(body)}")
    return DirectResponse(
        int(message.status),
        body,
        format=body_format(message, "body_format", path, report),
    )
