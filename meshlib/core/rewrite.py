"""What becomes of a head on a route: its cluster, its edits, its path and host; what becomes of a response (RA, RW).

Envoy's order for a request: the weighted cluster's header edits and host literal; the edits of route, virtual host and
route configuration (the other way round with ``most_specific_header_mutations_wins``); the host; the path. Everything is
compiled with the routes; a route that changes nothing costs a copy of the head.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING

from meshlib.core.bodies import Body, compile_body
from meshlib.core.conditions import header_value, unsigned
from meshlib.core.edits import EditPlan, EditSet, compile_edits
from meshlib.core.formats import Values
from meshlib.core.hashing import RouteHash
from meshlib.core.lines import CONTROLS, Lines, add_line, first_value, set_line
from meshlib.core.paths import path_only
from meshlib.core.regex import Regex, compile_regex
from meshlib.core.replies import PLAIN, Replies, Reply, location, own_host
from meshlib.core.strings import fold, wire
from meshlib.model.call import Head, Response
from meshlib.model.headers import Headers
from meshlib.model.match import PathKind
from meshlib.model.route import (
    DirectResponse,
    Forward,
    HostRewrite,
    HostRewriteKind,
    Redirect,
    RegexRewrite,
    Route,
)

if TYPE_CHECKING:
    from meshlib.model.route import ClusterWeight, Mirror, RouteConfiguration, VirtualHost

__all__ = ["ResponseContext", "RouteRewrite", "compile_edits", "compile_rewrite", "named_cluster"]

_ORIGINAL_PATH = b"x-envoy-original-path"
_ORIGINAL_HOST = b"x-envoy-original-host"
_FORWARDED_HOST = b"x-forwarded-host"
_ATTEMPT_COUNT = b"x-envoy-attempt-count"
_SPACE = frozenset(b" \t\n\r\x0b\x0c")
_TEXT = "text/plain"


class ResponseContext:
    """What the formats of response edits may read beside the response's lines. All optional. ``code``: the status as
    ``%RESPONSE_CODE%``, if it is another: a response of our own has 0 there, as in Envoy. ``attempts``: how many were made,
    0 where none was to be; ``cookie``: one that is set beside.
    """

    __slots__ = ("attempts", "cluster", "code", "cookie", "endpoint", "protocol", "request", "status")

    def __init__(
        self,
        request: Head | None = None,
        *,
        status: int = 0,
        code: int | None = None,
        cluster: str = "",
        endpoint: str = "",
        protocol: str = "HTTP/1.1",
        attempts: int = 0,
        cookie: str = "",
    ) -> None:
        self.cookie = cookie
        self.request = request
        self.attempts = attempts
        self.status = status
        self.code = status if code is None else code
        self.cluster = cluster
        self.endpoint = endpoint
        self.protocol = protocol


# --- compiled ---------------------------------------------------------------------------------------------------------


class _PathRewrite:
    """Prefix or regex rewrite. ``matched`` is the length of what a prefix rewrite replaces; None: all but the query."""

    __slots__ = ("_matched", "_prefix", "_regex", "_substitution")

    def __init__(self, route: Route, prefix: str, regex: RegexRewrite | None) -> None:
        path = route.match.path
        self._matched = None if path.kind is PathKind.REGEX else len(wire(path.value))
        self._prefix = wire(prefix)
        self._regex: Regex | None = None if regex is None else compile_regex(regex.pattern)
        self._substitution = regex.substitution if regex is not None else ""

    def rewrite(self, path: str) -> str:
        """The new path with its query, or ``""`` where nothing is rewritten."""
        if self._prefix:
            at = len(path_only(path)) if self._matched is None else self._matched
            return _escaped(self._prefix + path[at:])
        if self._regex is None:
            return ""
        only = path_only(path)
        new = self._regex.replace_all(only, self._substitution)
        return _escaped(new + path[len(only) :]) if new else ""


class RouteRewrite:
    """What a route does to heads and responses, compiled. Immutable; safe to share between threads."""

    __slots__ = (
        "_append_host",
        "_body",
        "_counts",
        "_hash",
        "_host",
        "_host_regex",
        "_path",
        "_plain",
        "_requests",
        "_responses",
        "_route",
        "_says_share",
        "_sends_as_made",
        "_steps",
        "_virtual_host",
        "_weights",
        "edits_responses",
        "mirrors",
    )

    def __init__(self, route: Route, host: VirtualHost, levels: tuple[EditSet | None, ...]) -> None:
        """``levels`` in the order in which they are applied."""
        action = route.action
        self._route = route
        self.mirrors: tuple[Mirror, ...] = ()
        self._virtual_host = host.name
        self._append_host = isinstance(action, Forward) and action.append_forwarded_host
        self._counts = host.attempt_count_in_response
        self._body: Body | None = compile_body(action.format) if isinstance(action, DirectResponse) else None
        self._requests: tuple[EditPlan, ...] = tuple(
            level.request for level in levels if level is not None and level.request is not None
        )
        self._responses: tuple[EditPlan, ...] = tuple(
            level.response for level in levels if level is not None and level.response is not None
        )
        self._weights: dict[int, EditSet] = {}
        self._steps: tuple[int, ...] = ()
        self._says_share = False
        self._hash: RouteHash | None = None
        self._host: HostRewrite | None = None
        self._host_regex: Regex | None = None
        self._path: _PathRewrite | None = None
        if isinstance(action, Forward):
            self._forward(route, action)
        elif isinstance(action, Redirect) and (action.prefix_rewrite or action.regex_rewrite):
            self._path = _PathRewrite(route, action.prefix_rewrite or "", action.regex_rewrite)
        self._plain = self._changes_nothing()
        self._sends_as_made = self._plain and all(share.host_rewrite is None for share in route.shares)
        self.edits_responses = (
            bool(self._responses) or self._counts or any(level.response for level in self._weights.values())
        )

    def _changes_nothing(self) -> bool:
        return not (self._requests or self._weights) and self._host is None and self._path is None

    def _forward(self, route: Route, action: Forward) -> None:
        if action.prefix_rewrite or action.regex_rewrite is not None:
            self._path = _PathRewrite(route, action.prefix_rewrite, action.regex_rewrite)
        self._host = action.host_rewrite
        if self._host is not None and self._host.regex is not None:
            self._host_regex = compile_regex(self._host.regex.pattern)
        self._steps = tuple(accumulate(weight.weight for weight in action.weighted))
        by_hash = action.share_by_hash and bool(action.hash_policy)
        self._says_share = by_hash or bool(action.share_header)
        self._hash = RouteHash(action.hash_policy) if by_hash else None
        for weight in action.weighted:
            edits = compile_edits(weight.edits)
            if edits is not None:
                self._weights[id(weight)] = edits

    def choose_cluster(
        self, head: Head, random: Callable[[], float], trace: list[str] | None = None
    ) -> tuple[str, ClusterWeight | None]:
        """The cluster's name and, of a weighted split, the share that was drawn. ``""``: a header should have named it, and
        is missing (RA-03).
        """
        action = self._route.action
        if not isinstance(action, Forward):
            return "", None
        if action.weighted:
            steps = self._steps
            total = steps[-1]
            said = self._said_share(head, random) if self._says_share else None
            drawn = int(random() * total) if said is None else said % total
            weight = action.weighted[bisect_right(steps, drawn)]
            cluster = weight.cluster or named_cluster(head, weight.cluster_header)
            if trace is not None:
                trace.append(f"drew {drawn} of {total}: cluster {cluster} has {weight.weight}")
            return cluster, weight
        if action.cluster:
            return action.cluster, None
        cluster = named_cluster(head, action.cluster_header)
        if trace is not None:
            trace.append(f"header {action.cluster_header} names cluster {cluster!r}")
        return cluster, None

    def _said_share(self, head: Head, random: Callable[[], float]) -> int | None:
        """The number that chooses a share, where the call has it: in its header, or as its hash."""
        if self._hash is not None:
            return self._hash.of(head, 0, random).value
        action = self._route.action
        assert isinstance(action, Forward)
        text = header_value(head, action.share_header)
        # Of several lines none counts, as in Envoy: joined they are no number.
        return None if text is None else unsigned(text)

    def request_head(self, weight: ClusterWeight | None, head: Head, *, cluster: str) -> Head:
        """The head as the route sends it, a new one; the host of ``auto_host_rewrite`` comes with the endpoint
        (:meth:`auto_host`).
        """
        new = head.copy()
        if self._plain and (weight is None or weight.host_rewrite is None):
            return new
        lines = new.headers.raw
        if self._requests or self._weights:
            values = Values(new, cluster=cluster, route=self._route.name, virtual_host=self._virtual_host)
            level = self._weights.get(id(weight)) if weight is not None else None
            if level is not None and level.request is not None:
                level.request.apply(lines, values)
            if weight is not None and weight.host_rewrite is not None:
                new.authority = _host(wire(weight.host_rewrite.value))
            for plan in self._requests:
                plan.apply(lines, values)
        elif weight is not None and weight.host_rewrite is not None:
            new.authority = _host(wire(weight.host_rewrite.value))
        if self._host is not None and (host := _host(self._rewritten_host(new))):
            _set_host(new, host, append=self._append_host)
        if self._path is not None and (path := self._path.rewrite(new.path)):
            set_line(lines, _ORIGINAL_PATH, new.path.encode("latin-1", "replace"))
            new.path = path
        new.headers = Headers(lines)
        return new

    def auto_host(self, head: Head, hostname: str) -> Head:
        """The head with the endpoint's ``hostname`` as its host, where the route says so (RW-03); ``head`` itself where it
        does not, or the endpoint has no name.
        """
        rewrite = self._host
        if not hostname or rewrite is None or rewrite.kind is not HostRewriteKind.AUTO:
            return head
        new = head.copy()
        _set_host(new, wire(hostname), append=self._append_host)
        new.headers = Headers(new.headers.raw)
        return new

    def sent(self, head: Head) -> Head:
        """``head``, as this route made it, as it is sent: white space around a value is not part of it (RFC 9110, 5.5).
        Formats of the response's edits still see it, as in Envoy.
        """
        if self._sends_as_made or not (_padded(head.authority.encode("latin-1", "replace")) or _pads(head)):
            return head
        new = head.copy()
        new.authority = head.authority.strip()
        _trim(new.headers.raw)
        return new

    def response_edits(
        self, weight: ClusterWeight | None, headers: Headers, ctx: ResponseContext | None = None
    ) -> Headers | None:
        """The response's lines as the route edits them, or None where it edits none. ``headers`` stays as it is."""
        context = ctx or ResponseContext()
        if not (self.edits_responses or context.cookie):
            return None
        level = self._weights.get(id(weight)) if weight is not None and self._weights else None
        own = level.response if level is not None else None
        counts = self._counts and context.attempts > 0
        if own is None and not (self._responses or counts or context.cookie):
            return None
        head = context.request or Head("", "", "", "")
        values = Values(
            head, cluster=context.cluster, route=self._route.name, virtual_host=self._virtual_host
        )
        values.status, values.code = context.status, context.code
        values.endpoint, values.protocol = context.endpoint, context.protocol
        lines = list(headers.raw)
        if context.cookie:
            lines.append((b"set-cookie", context.cookie.encode("latin-1", "replace")))
        values.response = lines
        for plan in self._responses if own is None else (own, *self._responses):
            plan.apply(lines, values)
        if counts:
            set_line(lines, _ATTEMPT_COUNT, str(context.attempts).encode())
        _trim(lines)
        return Headers(lines)

    def direct_response(self, head: Head, replies: Replies = PLAIN) -> Response:
        """The response that the route orders (RA-04)."""
        action = self._route.action
        assert isinstance(action, DirectResponse)
        lines: tuple[tuple[str, str], ...] = ()
        if action.status == 201 or 300 <= action.status < 400:
            lines = (("location", f"{head.scheme}://{own_host(head, head.scheme, '')}{head.path}"),)
        reply = Reply(
            head,
            Response(action.status, lines, action.body),
            content_type=action.content_type,
            route=self._route.name,
        )
        made = self._body
        if made is None:
            return replies.give(self._edited(reply))
        values = Values(head, cluster="", route=self._route.name, virtual_host="")
        values.body = reply.body
        reply.body = made.render(values)
        self._edited(reply)
        if made.content_type != _TEXT:
            reply.set(b"content-type", made.content_type)
        return replies.give(reply)

    def redirect(self, head: Head, replies: Replies = PLAIN) -> Response:
        """The redirect that the route orders (RA-04)."""
        action = self._route.action
        assert isinstance(action, Redirect)
        rewrite = self._path
        if rewrite is not None and not action.path and (path := rewrite.rewrite(head.path)):
            # The edits' formats see the path as it is rewritten.
            head, old = head.copy(), head.path
            set_line(head.headers.raw, _ORIGINAL_PATH, old.encode("latin-1", "replace"))
            head.path = path
        response = Response(action.status, (("location", location(action, head)),))
        return replies.give(self._edited(Reply(head, response, route=self._route.name)))

    def failure_reply(
        self,
        weight: ClusterWeight | None,
        head: Head,
        response: Response,
        replies: Replies = PLAIN,
        *,
        cluster: str = "",
        endpoint: str = "",
        flags: str = "",
        attempts: int = 0,
        seconds: float = 0.0,
    ) -> Response:
        """``response``, which tells of a failure on this route, as a sidecar gives it: with the route's response edits.
        ``flags`` are Envoy's for the failure; ``attempts``: how many were made, the one counted that could not be;
        ``seconds``: since the call began.
        """
        reply = Reply(head, response, cluster=cluster, endpoint=endpoint, flags=flags, seconds=seconds)
        reply.route = self._route.name
        return replies.give(self._edited(reply, weight, attempts))

    def _rewritten_host(self, head: Head) -> str:
        rewrite = self._host
        assert rewrite is not None
        if rewrite.kind is HostRewriteKind.LITERAL:
            return wire(rewrite.value)
        if rewrite.kind is HostRewriteKind.HEADER:
            name = fold(wire(rewrite.value))
            if name.startswith(":") or name == "host":
                return header_value(head, name) or ""
            key = name.encode("latin-1")
            return (first_value(head.headers.raw, key) or b"").decode("latin-1")
        if (
            rewrite.kind is HostRewriteKind.PATH_REGEX
            and self._host_regex is not None
            and rewrite.regex is not None
        ):
            return self._host_regex.replace_all(path_only(head.path), rewrite.regex.substitution)
        return ""

    def _edited(self, reply: Reply, weight: ClusterWeight | None = None, attempts: int = 0) -> Reply:
        """A reply of our own gets the route's response edits, as any response."""
        context = ResponseContext(
            reply.head,
            status=reply.status,
            code=0,
            cluster=reply.cluster,
            endpoint=reply.endpoint,
            attempts=attempts,
        )
        edited = self.response_edits(weight, Headers(reply.lines), context)
        if edited is not None:
            reply.lines = edited.raw
        return reply


def compile_rewrite(
    route: Route, host: VirtualHost, config: RouteConfiguration, outer: tuple[EditSet | None, EditSet | None]
) -> RouteRewrite:
    """``outer``: the compiled edits of virtual host and route configuration."""
    levels = (compile_edits(route.edits), *outer)
    made = RouteRewrite(route, host, levels[::-1] if config.most_specific_wins else levels)
    if isinstance(route.action, Forward):  # the most specific list that is not empty (RW-04)
        made.mirrors = route.action.mirrors or host.mirrors or config.mirrors
    return made


def _host(text: str) -> str:
    """Without what cannot stand in a line."""
    return text.encode("latin-1", "replace").translate(None, CONTROLS).decode("latin-1")


def _escaped(path: str) -> str:
    """What may not stand in a request's first line (RFC 3986, 3.3), or would end it, as escapes of its bytes."""
    if path.isascii() and path.isprintable() and " " not in path:
        return path
    return "".join(char if "!" <= char <= "~" else f"%{ord(char):02X}" for char in path)


def _padded(value: bytes) -> bool:
    return bool(value) and (value[0] in _SPACE or value[-1] in _SPACE)


def _pads(head: Head) -> bool:
    return any(_padded(value) for _, value in head.headers.raw)


def _trim(lines: Lines) -> None:
    for at, (name, value) in enumerate(lines):
        if _padded(value):
            lines[at] = (name, value.strip())


def named_cluster(head: Head, header: str) -> str:
    """The header's first line only: nobody else vouches for it."""
    name = fold(wire(header))
    if name.startswith(":") or name == "host":
        return header_value(head, name) or ""
    key = name.encode("latin-1")
    return (first_value(head.headers.raw, key) or b"").decode("utf-8", "replace")


def _set_host(head: Head, host: str, *, append: bool) -> None:
    """The host that was goes to ``x-envoy-original-host``, and to ``x-forwarded-host`` unless it is the last one there."""
    lines, old = head.headers.raw, head.authority.encode("latin-1", "replace")
    if append and old:
        present = first_value(lines, _FORWARDED_HOST)
        if not present or present.rsplit(b",", 1)[-1] != old:
            add_line(lines, _FORWARDED_HOST, old)
    if old:
        set_line(lines, _ORIGINAL_HOST, old)
    head.authority = host
