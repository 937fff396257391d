"""Replies made locally: nobody sent them, and they look as Envoy's do.

Envoy's order: the route's edits (`core.rewrite`); the first mapper of the listener whose test holds; the format of the
body; what HTTP or gRPC needs around it; the name of the server; what every response gets; what failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshlib.core.bodies import Body, compile_body
from meshlib.core.conditions import compile_header, is_grpc, unsigned
from meshlib.core.departure import compile_departure
from meshlib.core.edits import ONE_LINE_RESPONSE, EditPlan
from meshlib.core.formats import Values
from meshlib.core.lines import set_line
from meshlib.core.proxy_status import compile_status_line
from meshlib.core.strings import wire
from meshlib.model.call import Head, Response
from meshlib.model.replies import (
    AllOf,
    AnyOf,
    Anything,
    Comparison,
    DurationTest,
    FlagTest,
    GrpcStatusTest,
    HeaderTest,
    StatusTest,
)
from meshlib.model.route import Redirect

if TYPE_CHECKING:
    from meshlib.core.lines import Lines
    from meshlib.model.listener import HttpManager
    from meshlib.model.replies import ReplyMapper, ReplyTest

__all__ = ["PLAIN", "Replies", "Reply", "compile_replies", "local_reply", "location", "own_host"]

#: HTTP status to gRPC status; every other is UNKNOWN.
_GRPC_STATUS = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_GRPC_UNKNOWN = 2
_JSON = "application/json"
_BODILESS = frozenset((204, 304))
_COMPARE: dict[Comparison, Callable[[int, int], bool]] = {
    Comparison.EQ: lambda one, other: one == other,
    Comparison.GE: lambda one, other: one >= other,
    Comparison.LE: lambda one, other: one <= other,
    Comparison.NE: lambda one, other: one != other,
}


class Reply:
    """A reply as it is made: what formats and tests may read of it. ``flags`` are Envoy's (``"UH"``, ``"URX,UF"``); ``seconds``: since the call
    began.
    """

    __slots__ = (
        "body",
        "cluster",
        "content_type",
        "endpoint",
        "flags",
        "head",
        "lines",
        "route",
        "seconds",
        "status",
    )

    def __init__(
        self,
        head: Head,
        response: Response,
        *,
        content_type: str = "",
        route: str = "",
        cluster: str = "",
        endpoint: str = "",
        flags: str = "",
        seconds: float = 0.0,
    ) -> None:
        self.head = head
        self.seconds = seconds
        self.status = response.status
        self.lines: Lines = [
            (name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in response.headers
        ]
        self.body = response.body
        self.content_type = content_type
        self.route = route
        self.cluster = cluster
        self.endpoint = endpoint
        self.flags = flags

    def values(self) -> Values:
        made = Values(self.head, cluster=self.cluster, route=self.route, virtual_host="")
        made.response, made.status, made.code = self.lines, self.status, self.status
        made.endpoint, made.flags, made.body = self.endpoint, self.flags, self.body
        return made

    def line(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.lines if key.lower() == name), None)

    def set(self, name: bytes, value: str) -> None:
        set_line(self.lines, name, value.encode("latin-1", "replace"))

    def drop(self, *names: bytes) -> None:
        self.lines = [line for line in self.lines if line[0].lower() not in names]


class _Mapper:
    __slots__ = ("_add", "_body", "_status", "format", "test")

    def __init__(self, mapper: ReplyMapper) -> None:
        self.test = _test(mapper.test)
        self._status = mapper.status
        self._body = mapper.body
        self._add = EditPlan(mapper.add, (), ONE_LINE_RESPONSE)
        self.format = compile_body(mapper.format)

    def apply(self, reply: Reply) -> None:
        if self._body is not None:
            reply.body = self._body
        reply.lines = self._add.apply(reply.lines, reply.values())
        if self._status is not None:
            reply.status = self._status


class Replies:
    """What a listener makes of replies, compiled. Immutable; safe to share between threads."""

    __slots__ = ("_departure", "_format", "_mappers", "_server", "_server_only_if_absent", "_status_line")

    def __init__(self, manager: HttpManager | None = None, node: str = "") -> None:
        self._departure = compile_departure(manager) if manager is not None else None
        self._status_line = compile_status_line(manager, node) if manager is not None else None
        local = manager.local_replies if manager is not None else None
        self._mappers = tuple(_Mapper(each) for each in local.mappers) if local is not None else ()
        self._format: Body | None = compile_body(local.format) if local is not None else None
        self._server = wire(manager.server_name).strip().encode("latin-1") if manager is not None else b""
        self._server_only_if_absent = manager is not None and manager.keeps_server

    def give(self, reply: Reply) -> Response:
        """The reply as it is given to its request: its lines fit its body, a HEAD request gets no body, and a gRPC request is
        told in gRPC's way (trailers only).
        """
        body, content_type = reply.body, reply.line(b"content-type")
        self._rewrite(reply)
        overwrite = body != reply.body and content_type == reply.line(b"content-type")
        if is_grpc(reply.head):
            _as_grpc(reply)
        else:
            _as_http(reply, overwrite=overwrite)
        if self._server and not (self._server_only_if_absent and reply.line(b"server") is not None):
            reply.drop(b"server")
            reply.lines.append((b"server", self._server))
        if self._departure is not None:
            self._departure.mark(reply.lines, reply.head)
        if self._status_line is not None:
            reply.status = self._status_line.mark(reply.lines, reply.flags) or reply.status
        lines = tuple(
            (name.decode("latin-1"), value.strip().decode("latin-1")) for name, value in reply.lines
        )
        return Response(reply.status, lines, reply.body)

    def _rewrite(self, reply: Reply) -> None:
        chosen = next((each for each in self._mappers if each.test(reply)), None)
        if chosen is not None:
            chosen.apply(reply)
        body = chosen.format if chosen is not None and chosen.format is not None else self._format
        if body is not None:
            reply.body = body.render(reply.values())
            reply.content_type = body.content_type


#: Of a listener that orders nothing.
PLAIN = Replies()


def compile_replies(manager: HttpManager, node: str = "") -> Replies:
    """Its values are already checked. ``node``: the id of this process's."""
    orders = (
        manager.local_replies is not None,
        manager.server_name,
        manager.via,
        manager.tells_request_id,
        manager.proxy_status is not None,
    )
    return Replies(manager, node) if any(orders) else PLAIN


def local_reply(head: Head, response: Response, content_type: str = "") -> Response:
    """The response as a listener that orders nothing gives it."""
    return PLAIN.give(Reply(head, response, content_type=content_type))


def _test(test: ReplyTest) -> Callable[[Reply], bool]:
    if isinstance(test, StatusTest):
        compare, wanted = _COMPARE[test.comparison], test.value
        return lambda reply: compare(reply.status, wanted)
    if isinstance(test, DurationTest):
        weigh, most = _COMPARE[test.comparison], test.value
        return lambda reply: weigh(int(reply.seconds * 1000), most)
    if isinstance(test, HeaderTest):
        header = compile_header(test.header)
        return lambda reply: header(reply.head)
    if isinstance(test, FlagTest):
        flags = frozenset(test.flags)
        return lambda reply: bool(reply.flags) and (not flags or not flags.isdisjoint(reply.flags.split(",")))
    if isinstance(test, GrpcStatusTest):
        codes, exclude = test.codes, test.exclude
        return lambda reply: (_grpc_status(reply) in codes) is not exclude
    if isinstance(test, AllOf):
        every = tuple(map(_test, test.tests))
        return lambda reply: all(each(reply) for each in every)
    if isinstance(test, AnyOf):
        some = tuple(map(_test, test.tests))
        return lambda reply: any(each(reply) for each in some)
    assert isinstance(test, Anything)
    holds = test.holds
    return lambda _: holds


def _grpc_status(reply: Reply) -> int | None:
    """None: it says one that is none."""
    said = reply.line(b"grpc-status")
    if said is None:
        return _GRPC_STATUS.get(reply.status, _GRPC_UNKNOWN)
    return unsigned(said.decode("latin-1"))


def _as_http(reply: Reply, *, overwrite: bool) -> None:
    """``overwrite``: the body is not the one that its content type is about."""
    if not reply.body:
        reply.drop(b"content-length", b"content-type")
        return
    reply.drop(b"content-length")
    reply.lines.append((b"content-length", str(len(reply.body)).encode()))
    if overwrite or reply.line(b"content-type") is None:
        reply.set(b"content-type", reply.content_type or "text/plain")
    if reply.head.method == "HEAD" or reply.status in _BODILESS:
        reply.body = b""


def _as_grpc(reply: Reply) -> None:
    reply.drop(b"content-length", b"content-type")
    reply.lines.append((b"content-type", b"application/grpc"))
    if reply.line(b"grpc-status") is None:
        status = _GRPC_STATUS.get(reply.status, _GRPC_UNKNOWN)
        reply.lines.append((b"grpc-status", str(status).encode()))
    if reply.content_type == _JSON:
        reply.body = reply.body.removesuffix(b"\n")
    if reply.body and reply.head.method != "HEAD":
        reply.lines.append((b"grpc-message", _percent_encoded(reply.body).encode()))
    reply.status, reply.body = 200, b""


def _percent_encoded(raw: bytes) -> str:
    """As ``grpc-message`` is written."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x25 else f"%{byte:02X}" for byte in raw)


def location(action: Redirect, head: Head) -> str:
    """The ``location`` as Envoy builds it, of a head whose path is rewritten already."""
    scheme = wire(action.scheme) or ("https" if action.https else head.scheme)
    port = f":{action.port}" if action.port else ""
    host = wire(action.host) or own_host(head, scheme, port)
    path = head.path
    own_query = False
    if action.path:
        path = wire(action.path)
        own_query = "?" in path
        if not own_query and "?" in head.path:
            path += head.path[head.path.index("?") :]
    if not path.startswith("/"):
        path = "/" + path
    if action.strip_query and not own_query:
        path = path.partition("?")[0]
    return f"{scheme}://{host}{port}{path}"


def own_host(head: Head, scheme: str, port: str) -> str:
    """The host asked for, without a port that is another's or that the old scheme implied."""
    host = head.authority
    if host.startswith("["):
        at = host.rfind("]:")
        at = at + 1 if at >= 0 else -1
    else:
        at = host.rfind(":")
    if at < 0:
        return host
    implied = {"http": ":80", "https": ":443"}.get(head.scheme)
    return host[:at] if port or (scheme != head.scheme and host[at:] == implied) else host
