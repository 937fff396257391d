"""Envoy's format text: literals, ``%%``, and commands such as ``%REQ(X-Tier?:authority):8%``.

A format is parsed once. Commands fall in three classes: those that mean something in a client; those that Envoy knows and
a client has no value for (their value is empty, as where Envoy has none; :attr:`Format.unsupported` names them, so that
somebody is told); and unknown ones, which Envoy refuses and :func:`check_format` reports.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from meshlib.core.lines import CONTROLS, ONE_LINE_REQUEST, Lines, first_value
from meshlib.core.paths import path_only
from meshlib.core.strings import fold, wire
from meshlib.model.call import Head

__all__ = ["Format", "Values", "check_format", "compile_format"]

_HEX = frozenset(b"0123456789abcdefABCDEF")
_MAX_TEXT = 16_384
#: Commands of one format, each of which may have a whole head as its value.
_MAX_COMMANDS = 100
_CACHED = 1024


class Values:
    """What commands read. ``request`` holds the request's lines as they are now; ``response`` is None on the way out.
    ``status`` is the response's own, ``code`` what an upstream's response had (0 for a response of our own). ``body`` and
    ``flags`` are of a reply of our own whose body is formatted.
    """

    __slots__ = (
        "body",
        "cluster",
        "code",
        "endpoint",
        "flags",
        "head",
        "protocol",
        "request",
        "response",
        "route",
        "status",
        "virtual_host",
    )

    def __init__(self, head: Head, *, cluster: str, route: str, virtual_host: str) -> None:
        self.head = head
        self.request: Lines = head.headers.raw
        self.response: Lines | None = None
        self.status = 0
        self.code = 0
        self.cluster = cluster
        self.route = route
        self.virtual_host = virtual_host
        self.endpoint = ""
        self.protocol = "HTTP/1.1"
        self.body = b""
        self.flags = ""

    def request_value(self, name: bytes) -> bytes | None:
        """Of a header with several lines the first; of one that has one line only, all of it."""
        if name not in ONE_LINE_REQUEST:
            return first_value(self.request, name)
        found = [value for key, value in self.request if key.lower() == name]
        return b",".join(found) if found else None


#: None: there is no such value.
_Render = Callable[[Values], bytes | None]

# Envoy's commands that have no value in a client, or none that may be read here (clock, environment, connection).
_KNOWN_NAMES = """
    ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_RETRANSMITTED BYTES_SENT CEL CLUSTER_METADATA COMMON_DURATION CONNECTION_ID
    CONNECTION_TERMINATION_DETAILS CUSTOM_FLAGS DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_DIRECT_LOCAL_ADDRESS
    DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_LOCAL_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS
    DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_HANDSHAKE_DURATION
    DOWNSTREAM_HEADER_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_LOCAL_ADDRESS
    DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_CLOSE_REASON
    DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_LOCAL_EMAIL_SAN DOWNSTREAM_LOCAL_IP_SAN DOWNSTREAM_LOCAL_OTHERNAME_SAN
    DOWNSTREAM_LOCAL_PORT DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_CERT
    DOWNSTREAM_PEER_CERT_V_END DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1
    DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256 DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_PEER_DNS_SAN
    DOWNSTREAM_PEER_EMAIL_SAN DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_IP_SAN
    DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_OTHERNAME_SAN DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_SUBJECT
    DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_ENDPOINT_ID
    DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT DOWNSTREAM_SSL_CURVE DOWNSTREAM_TLS_CIPHER
    DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_TLS_VERSION DOWNSTREAM_TRANSPORT_FAILURE_REASON
    DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_WIRE_BYTES_SENT DURATION DYNAMIC_METADATA EMIT_TIME EMIT_TIME_LOCAL
    ENVIRONMENT FILTER_CHAIN_NAME FILTER_STATE GRPC_STATUS GRPC_STATUS_NUMBER HOSTNAME LISTENER_METADATA
    LOCAL_REPLY_BODY METADATA PER_REQUEST_STATE QUERY_PARAMS REQUESTED_SERVER_NAME REQUEST_DURATION
    REQUEST_HEADERS_BYTES REQUEST_TX_DURATION RESPONSE_CODE_DETAILS RESPONSE_DURATION RESPONSE_FLAGS
    RESPONSE_FLAGS_LONG RESPONSE_HEADERS_BYTES RESPONSE_TRAILERS_BYTES RESPONSE_TX_DURATION ROUNDTRIP_DURATION
    SPAN_ID START_TIME START_TIME_LOCAL STREAM_ID TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT TRACE_ID TRAILER
    TRAILERS_BYTES RESPONSE_TRAILER UNIQUE_ID UPSTREAM_CLUSTER_METADATA UPSTREAM_CONNECTION_ID
    UPSTREAM_CONNECTION_POOL_READY_DURATION UPSTREAM_DETECTED_CLOSE_TYPE UPSTREAM_FILTER_STATE
    UPSTREAM_HEADER_BYTES_RECEIVED UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HOSTS_ATTEMPTED
    UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT UPSTREAM_HOST_NAMES_ATTEMPTED UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT
    UPSTREAM_CONNECTION_IDS_ATTEMPTED UPSTREAM_HOST_NAME UPSTREAM_HOST_NAME_WITHOUT_PORT UPSTREAM_LOCAL_ADDRESS
    UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_CLOSE_REASON UPSTREAM_LOCAL_DNS_SAN UPSTREAM_LOCAL_IP_SAN
    UPSTREAM_LOCAL_PORT UPSTREAM_LOCAL_SUBJECT UPSTREAM_LOCAL_URI_SAN UPSTREAM_METADATA UPSTREAM_PEER_CERT
    UPSTREAM_PEER_CERT_V_END UPSTREAM_PEER_CERT_V_START UPSTREAM_PEER_DNS_SAN UPSTREAM_PEER_IP_SAN
    UPSTREAM_PEER_ISSUER UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_URI_SAN UPSTREAM_PROTOCOL UPSTREAM_REMOTE_PORT
    UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_SERVER_NAME UPSTREAM_TLS_CIPHER UPSTREAM_TLS_SESSION_ID
    UPSTREAM_TLS_VERSION UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_WIRE_BYTES_SENT
    VIRTUAL_CLUSTER_NAME
"""
_KNOWN = frozenset(_KNOWN_NAMES.split())


class Format:
    """A parsed format. ``constant`` is its text where it has no command; ``command`` the name of the one that it is;
    ``unsupported`` names commands that have no value here.
    """

    __slots__ = ("_parts", "command", "constant", "unsupported")

    def __init__(self, parts: list[bytes | _Render], names: list[str], unsupported: list[str]) -> None:
        self._parts = tuple(parts)
        self.unsupported = tuple(unsupported)
        self.command = names[0] if len(parts) == len(names) == 1 else ""
        literal = not names
        self.constant = b"".join(part for part in parts if isinstance(part, bytes)) if literal else None

    def render(self, values: Values, missing: bytes = b"") -> bytes:
        """``missing`` stands for what there is not."""
        made = (part if isinstance(part, bytes) else part(values) for part in self._parts)
        return b"".join(missing if part is None else part for part in made)

    def value(self, values: Values) -> bytes | None:
        """Of a format that is one command: None where it has no value."""
        [part] = self._parts
        return part if isinstance(part, bytes) else part(values)


def check_format(text: str, *, body: bool = False) -> str | None:
    """What Envoy would refuse in this format, or None."""
    try:
        compile_format(text, body=body)
    except ValueError as error:
        return str(error)
    return None


@lru_cache(maxsize=_CACHED)
def compile_format(text: str, *, body: bool = False) -> Format:
    """``body``: of a reply of our own, whose own body and flags it may read. Raises ValueError that says what is wrong and
    where.
    """
    if len(text) > _MAX_TEXT:
        raise ValueError(f"a format has at most {_MAX_TEXT} characters")
    parts: list[bytes | _Render] = []
    names: list[str] = []
    unsupported: list[str] = []
    at = 0
    while at < len(text):
        percent = text.find("%", at)
        if percent < 0:
            parts.append(text[at:].encode())
            break
        if percent > at:
            parts.append(text[at:percent].encode())
        if text.startswith("%%", percent):
            parts.append(b"%")
            at = percent + 2
            continue
        if len(names) == _MAX_COMMANDS:
            raise ValueError(f"a format has at most {_MAX_COMMANDS} commands")
        render, name, at = _command(text, percent, body)
        if render is None:
            unsupported.append(name)
        parts.append(render or _nothing)
        names.append(name)
    return Format(parts, names, unsupported)


def _nothing(values: Values) -> None:
    """The value of a command that has none here."""
    del values


def _command(text: str, start: int, body: bool) -> tuple[_Render | None, str, int]:
    """The command whose ``%`` is at ``start``, its name, and where the text goes on."""
    at = start + 1
    while at < len(text) and (text[at].isupper() or text[at].isdigit() or text[at] == "_"):
        at += 1
    name = text[start + 1 : at]
    argument: str | None = None
    if name and text.startswith("(", at):
        close = text.find(")", at)
        if close < 0:
            raise ValueError(f"%{name} at position {start}: the bracket is not closed")
        argument, at = text[at + 1 : close], close + 1
    limit: int | None = None
    if name and text.startswith(":", at):
        end = text.find("%", at)
        digits = text[at + 1 : end] if end > 0 else ""
        if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
            raise ValueError(f"%{name} at position {start}: a length is a number")
        limit, at = int(digits), end
    if not name or not text.startswith("%", at):
        raise ValueError(f"a % at position {start} that begins no command; a % itself is written %%")
    return _renderer(name, argument, limit, body), name, at + 1


def _renderer(name: str, argument: str | None, limit: int | None, body: bool) -> _Render | None:
    plain = _OF_BODIES.get(name) if body else None
    if plain is None and name in _KNOWN:
        return None
    plain = plain or _PLAIN.get(name)
    if plain is not None:
        if argument is not None:
            raise ValueError(f"%{name}% takes no argument")
        return plain
    make = _WITH_ARGUMENT.get(name)
    if make is None:
        raise ValueError(f"%{name}% is not a command that Envoy knows")
    render = make(name, argument or "")
    return render if limit is None else lambda values: _cut(render(values), limit)


def _cut(value: bytes | None, limit: int) -> bytes | None:
    return value if value is None else value[:limit]


# --- commands ---------------------------------------------------------------------------------------------------------


def _of_head(head: Head, name: str) -> bytes | None:
    if name in (":authority", "host"):
        return head.authority.encode("latin-1", "replace")
    text = {":method": head.method, ":path": head.path, ":scheme": head.scheme}.get(name)
    return None if not text else text.encode("latin-1", "replace")


def _names(command: str, argument: str) -> list[str]:
    names = [fold(wire(name)) for name in argument.split("?")]
    if not names[0] or len(names) > 2:
        raise ValueError(f"%{command}(X?Y)% takes a header's name and at most one other")
    return [name for name in names if name]


def _request_header(command: str, argument: str) -> _Render:
    names = [(name, name.encode("latin-1")) for name in _names(command, argument)]

    def render(values: Values) -> bytes | None:
        for name, raw in names:
            found = _of_head(values.head, name)
            if found is None:
                found = values.request_value(raw)
            if found is not None:
                return found
        return None

    return render


def _response_header(command: str, argument: str) -> _Render:
    names = [name.encode("latin-1") for name in _names(command, argument)]

    def render(values: Values) -> bytes | None:
        if values.response is None:
            return None
        for name in names:
            found = str(values.status).encode() if name == b":status" else first_value(values.response, name)
            if found is not None:
                return found
        return None

    return render


def _query_parameter(command: str, argument: str) -> _Render:
    if not argument:
        raise ValueError(f"%{command}(X)% takes a parameter's name")
    name = argument.encode()

    def render(values: Values) -> bytes | None:
        query = values.head.path.partition("?")[2].encode("latin-1", "replace")
        for piece in query.split(b"&"):
            key, _, value = piece.partition(b"=")
            if _decoded(key) == name:
                return _decoded(value).translate(None, CONTROLS)
        return None

    return render


def _decoded(text: bytes) -> bytes:
    """Percent-decoded; what is no escape stays."""
    first, *rest = text.split(b"%")
    out = [first]
    for piece in rest:
        code = piece[:2]
        is_escape = len(code) == 2 and all(byte in _HEX for byte in code)
        out.append(bytes((int(code, 16),)) + piece[2:] if is_escape else b"%" + piece)
    return b"".join(out)


def _path(command: str, argument: str) -> _Render:
    query, _, which = argument.partition(":")
    if query not in ("", "WQ", "NQ") or which not in ("", "ORIG", "PATH", "ORIG_OR_PATH"):
        raise ValueError(f"%{command}% takes WQ or NQ, and ORIG, PATH or ORIG_OR_PATH")

    def render(values: Values) -> bytes | None:
        original = first_value(values.request, b"x-envoy-original-path") if which != "PATH" else None
        if original is None and which == "ORIG":
            return None
        path = values.head.path if original is None else original.decode("latin-1")
        return (path_only(path) if query == "NQ" else path).encode("latin-1", "replace")

    return render


def _host_only(values: Values) -> bytes | None:
    host, _, _ = values.endpoint.rpartition(":")
    return host.strip("[]").encode() or None


_PLAIN: dict[str, _Render] = {
    "PROTOCOL": lambda values: values.protocol.encode(),
    "RESPONSE_CODE": lambda values: str(values.code).encode(),
    "ROUTE_NAME": lambda values: wire(values.route).encode("latin-1") or None,
    "UPSTREAM_CLUSTER": lambda values: wire(values.cluster).encode("latin-1") or None,
    "UPSTREAM_CLUSTER_RAW": lambda values: wire(values.cluster).encode("latin-1") or None,
    "UPSTREAM_HOST": lambda values: values.endpoint.encode() or None,
    "UPSTREAM_REMOTE_ADDRESS": lambda values: values.endpoint.encode() or None,
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": _host_only,
    "VIRTUAL_HOST_NAME": lambda values: wire(values.virtual_host).encode("latin-1"),
}
_OF_BODIES: dict[str, _Render] = {
    "LOCAL_REPLY_BODY": lambda values: values.body,
    "RESPONSE_FLAGS": lambda values: values.flags.encode() or b"-",
}
_WITH_ARGUMENT: dict[str, Callable[[str, str], _Render]] = {
    "REQ": _request_header,
    "REQUEST_HEADER": _request_header,
    "REQ_WITHOUT_QUERY": _request_header,
    "RESP": _response_header,
    "RESPONSE_HEADER": _response_header,
    "QUERY_PARAM": _query_parameter,
    "PATH": _path,
}
