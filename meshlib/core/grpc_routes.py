"""A route configuration as gRPC reads it: what its clients pass over is taken out, once, before it is compiled.

So the same matching serves both kinds of calls. What differs (RM-02, RM-07, RM-08, HM-05, RA-03, RW-01, RW-03, RW-04):

    a route that looks at query parameters or cookies, or takes its cluster from a header   is passed over
    a condition on a header that gRPC does not show (``:path``, ``host``, …)                is one on an absent header
    a condition on ``content-type``                                                         is one on application/grpc
    several values of one key                                                               are one text, with commas (HM-01)
    the ``grpc`` condition, edits of headers, path and host, mirrors, TLS demands           do not apply
    hash policies of a cookie, a query parameter, the source's address (HP-02)              do not apply
    the endpoint's name as the host (``auto_host_rewrite``)                                 applies if its source is trusted
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.core.conditions import header_values_match
from meshlib.model.policy import HashKind
from meshlib.model.route import NO_EDITS, Forward, HostRewriteKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshlib.model.match import HeaderMatch
    from meshlib.model.route import Route, RouteConfiguration, VirtualHost

__all__ = ["for_grpc"]

_HIDDEN = frozenset((":method", ":path", ":authority", ":scheme", "host"))
_CONTENT_TYPE = "application/grpc"
_HASHED = frozenset((HashKind.HEADER, HashKind.FILTER_STATE))


def for_grpc(config: RouteConfiguration) -> RouteConfiguration:
    """``config`` with what a gRPC client honours of it."""
    hosts = tuple(_host(host) for host in config.virtual_hosts)
    return replace(config, virtual_hosts=hosts, edits=NO_EDITS, mirrors=(), ignore_path_parameters=False)


def _host(host: VirtualHost) -> VirtualHost:
    return replace(
        host,
        routes=tuple(_routes(host)),
        edits=NO_EDITS,
        mirrors=(),
        include_attempt_count=False,
        attempt_count_in_response=False,
        require_tls="",
    )


def _routes(host: VirtualHost) -> Iterator[Route]:
    for number, route in enumerate(host.routes):
        match, action = route.match, route.action
        if match.query or match.cookies or (isinstance(action, Forward) and _by_header(action)):
            continue
        decided = [(header, _known(header)) for header in match.headers]
        if any(known is False for _, known in decided):
            continue
        headers = tuple(replace(header, joined=True) for header, known in decided if known is None)
        yield replace(
            route,
            name=route.name or f"{host.name}/{number}",  # as in the configuration, whatever was passed over
            match=replace(match, headers=headers, grpc=False),
            action=_plain(action) if isinstance(action, Forward) else action,
            edits=NO_EDITS,
        )


def _by_header(action: Forward) -> bool:
    return bool(action.cluster_header) or any(share.cluster_header for share in action.weighted)


def _known(match: HeaderMatch) -> bool | None:
    """What the condition says of every gRPC call; None where it depends on the call."""
    name = match.name.lower()
    if name == "content-type":
        return header_values_match(match)(_CONTENT_TYPE)
    return header_values_match(match)(None) if name in _HIDDEN or name.endswith("-bin") else None


def _plain(action: Forward) -> Forward:
    weighted = tuple(replace(share, edits=NO_EDITS, host_rewrite=None) for share in action.weighted)
    host = action.host_rewrite
    trusted = host is not None and host.kind is HostRewriteKind.AUTO and host.trusted
    return replace(
        action,
        weighted=weighted,
        prefix_rewrite="",
        regex_rewrite=None,
        host_rewrite=host if trusted else None,
        append_forwarded_host=False,
        mirrors=(),
        hash_policy=tuple(policy for policy in action.hash_policy if policy.kind in _HASHED),
    )
