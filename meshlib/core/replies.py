"""Replies made locally: nobody sent them, and they look as Envoy's do."""

from __future__ import annotations

from meshlib.core.conditions import is_grpc
from meshlib.core.strings import wire
from meshlib.model.call import Head, Response
from meshlib.model.route import Redirect

__all__ = ["local_reply", "location", "own_host"]

#: HTTP status to gRPC status; every other is UNKNOWN.
_GRPC_STATUS = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_GRPC_UNKNOWN = 2
_OF_BODY = frozenset(("content-type", "content-length"))


def local_reply(head: Head, response: Response, content_type: str = "") -> Response:
    """A response of our own as it is given to this request: its lines fit its body, a HEAD request gets no body, and a
    gRPC request is told in gRPC's way (trailers only), as by Envoy.
    """
    if is_grpc(head):
        return _grpc_reply(head, response)
    lines = [line for line in response.headers if line[0].lower() != "content-length"]
    if response.body:
        lines.append(("content-length", str(len(response.body))))
        if not any(name.lower() == "content-type" for name, _ in lines):
            lines.append(("content-type", content_type or "text/plain"))
    else:
        lines = [line for line in lines if line[0].lower() != "content-type"]
    return Response(response.status, tuple(lines), b"" if head.method == "HEAD" else response.body)


def _grpc_reply(head: Head, response: Response) -> Response:
    status = _GRPC_STATUS.get(response.status, _GRPC_UNKNOWN)
    lines = [line for line in response.headers if line[0].lower() not in _OF_BODY]
    lines += [("content-type", "application/grpc"), ("grpc-status", str(status))]
    if response.body and head.method != "HEAD":
        lines.append(("grpc-message", _percent_encoded(response.body)))
    return Response(200, tuple(lines))


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
