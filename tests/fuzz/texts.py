"""What a configuration or a request says in text: formats, expressions, addresses, names, URLs, lines of headers."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from functools import cache

from meshlib import inbound
from meshlib.config.hosts import check_address, check_host, check_pattern
from meshlib.core import regex
from meshlib.core.formats import Values, check_format, compile_format
from meshlib.core.match import CompiledRoutes, compile_routes
from meshlib.core.normalize import Entrance
from meshlib.core.retry import reset_interval
from meshlib.core.retry_grpc import PUSHBACK, GrpcRetries
from meshlib.hosts.grpc.own_retries import OwnRetries
from meshlib.hosts.grpc.settings import _own_retries
from meshlib.hosts.grpc.target import read_target
from meshlib.hosts.urls import asked
from meshlib.model.address import Address
from meshlib.model.call import Head, Outcome, OutcomeKind
from meshlib.model.headers import Headers
from meshlib.model.hosts import canonical_host, ip_of
from meshlib.model.listener import EscapedSlashes, HttpManager, Underscores
from meshlib.model.policy import RetryPolicy
from meshlib.model.route import DirectResponse, Redirect
from meshlib.observe.spans import host_port, redacted
from meshlib.testing import build
from meshlib.xds import decode
from tests.fuzz.target import BETWEEN, Target, pieces
from tests.support.xds_kit import raw

__all__ = ["TARGETS"]

#: What may stand in no line of a head, and in no name or path of one.
_BREAKS = b"\r\n\0"
#: What a format or a substitution may make of one input, which is small.
_MOST = 1 << 20


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _line(data: bytes) -> bytes:
    """What a host library lets into a line."""
    return data.translate(None, _BREAKS)


def _lines(parts: list[bytes]) -> list[tuple[bytes, bytes]]:
    pairs = zip(parts[::2], parts[1::2], strict=False)
    return [(_line(name).lower() or b"x", _line(value)) for name, value in pairs]


def _unbroken(*values: bytes) -> None:
    for value in values:
        assert not set(_BREAKS) & set(value), value


# --- formats and expressions -----------------------------------------------------------------------------------------------------


def _format(data: bytes) -> None:
    """What is refused is refused in words; what is taken makes no line of two, whatever the request has."""
    written, path, *rest = pieces(data, 2)
    text = _text(written)
    for body in (False, True):
        problem = check_format(text, body=body)
        if problem is not None:
            assert problem
            continue
        made = compile_format(text, body=body)
        head = Head("GET", "http", "a:80", "/" + _line(path).decode("latin-1"), Headers(_lines(rest)))
        values = Values(head, cluster="c", route="r", virtual_host="v")
        values.response = _lines(rest)
        found = made.render(values)
        assert len(found) < _MOST
        if not set(_BREAKS) & set(written):
            _unbroken(found)


def _expression(data: bytes) -> None:
    pattern, substitution, text = (_text(each) for each in pieces(data, 3)[:3])
    problem = regex.problem(pattern, substitution)
    if problem is not None:
        assert len(problem) < 2 * regex.MAX_PATTERN
        return
    made = regex.compile_regex(pattern)
    if made.full(text):
        assert text.encode("latin-1", "replace").startswith(made.prefix.encode("latin-1"))
    assert len(made.replace_all(text, substitution)) <= (len(text) + 1) * (
        len(text) + len(substitution) * 4 + 1
    )


# --- addresses, names and URLs ---------------------------------------------------------------------------------------------------


def _host(data: bytes) -> None:
    text = _text(data)
    for check in (check_host, check_address, check_pattern, canonical_host):
        with suppress(ValueError):
            check(text)
    ip_of(text)
    host_port(text, "http")
    with suppress(ValueError):
        address = Address.parse(text, 80)
        # A host of the name "unix" is written as the path of a socket is.
        assert address.host == "unix" or Address.parse(str(address)) == address
    for secure in (False, True):
        read_target(text, (), secure=secure)


def _url(data: bytes) -> None:
    """The head of a URL is one that can be sent."""
    text = _text(data)
    assert isinstance(redacted(text), str)
    try:
        place, head = asked("GET", text, ())
    except ValueError:
        return
    assert place[0] in ("http", "https")
    assert head.path.startswith("/")
    _unbroken(head.path.encode(), head.authority.encode())
    assert " " not in head.path


# --- what a request says -----------------------------------------------------------------------------------------------------------


def _inbound(data: bytes) -> None:
    """A header of a caller is read or is as good as absent; what is handed on is one line."""
    parts = pieces(data, 1)
    lines = [(name.lower(), value) for name, value in zip(parts[::2], parts[1::2], strict=False)]
    metadata = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in lines]
    for found in (inbound.of_scope(lines, 100.0), inbound.of_metadata(metadata, None, 100.0)):
        assert found.deadline is None or 100.0 <= found.deadline <= 100.0 + inbound.MAX_SECONDS
        assert found.attempt is None or found.attempt > 0
        handed = (
            found.traceparent,
            found.tracestate,
            found.baggage,
            found.request_id,
            *found.forwarded.values(),
        )
        for text in handed:
            assert len(text) <= 8192
            _unbroken(text.encode("ascii"))


_POLICY = RetryPolicy(
    reset_headers=(
        ("retry-after", "retry_after"),
        ("a", "unix_timestamp"),
        ("b", "milliseconds"),
        ("c", "seconds"),
    )
)


def _waits(data: bytes) -> None:
    """What a server says of the next try: a wait that is a bounded number, or nothing."""
    names = ("retry-after", "a", "b", "c", PUSHBACK)
    headers = Headers.of(
        *((name, value.decode("latin-1")) for name, value in zip(names, pieces(data, 5), strict=False))
    )
    wait = reset_interval(_POLICY, headers, lambda: 1e9)
    assert wait is None or 0.0 < wait <= _POLICY.max_reset_interval
    outcome = Outcome(OutcomeKind.STATUS, status=14, headers=headers)
    after = GrpcRetries(RetryPolicy(retries=1), frozenset({14}), lambda: 0.5, lambda: True).after(
        outcome, 0.0, 0.0
    )
    assert after is None or 0.0 <= after.delay < 1e8


def _service_config(data: bytes) -> None:
    """What grpc's own configuration says of retries; None where it says nothing of use."""
    found = _own_retries(data.decode("utf-8", "replace"))
    assert found is None or isinstance(found, OwnRetries)
    if found is not None:
        policy = found.policy("/a.B/C")
        assert policy is None or (policy.retries > 0 and 0 < policy.base_interval < math.inf)


# --- a head on its way ---------------------------------------------------------------------------------------------------------------


@cache
def _routes() -> tuple[CompiledRoutes, Entrance]:
    """A table whose routes look at all that a head has."""
    edits = {
        "request_headers_to_add": [
            {"header": {"key": "x-query", "value": "%QUERY_PARAM(a)%"}},
            {"header": {"key": "x-path", "value": "%REQ(:path)% %REQ(x-a?:authority):9% %PATH(NQ)%"}},
        ],
        "response_headers_to_add": [{"header": {"key": "x-r", "value": "%RESP(x-a)%%QUERY_PARAM(b)%"}}],
    }
    regex_of = {"google_re2": {}, "regex": "/r/([^/]*)/(.*)"}
    hosts = build.virtual_host(
        "v",
        {
            "match": {"safe_regex": regex_of},
            "route": {"cluster": "c", "regex_rewrite": {"pattern": regex_of, "substitution": "/\\2/\\1"}},
        },
        {
            "match": {"prefix": "/p", "case_sensitive": False},
            "route": {"cluster": "c", "prefix_rewrite": "/n"},
        },
        {
            "match": {"prefix": "/", "query_parameters": [{"name": "q", "string_match": {"prefix": "1"}}]},
            "redirect": {"prefix_rewrite": "/elsewhere", "https_redirect": True},
        },
        {
            "match": {"prefix": "/", "headers": [{"name": "cookie", "string_match": {"contains": "k="}}]},
            "route": {
                "cluster_header": "x-cluster",
                "host_rewrite_header": "x-host",
                "hash_policy": [{"cookie": {"name": "k"}}, {"query_parameter": {"name": "q"}}],
            },
        },
        {
            "match": {
                "prefix": "/",
                "headers": [{"name": "x-number", "range_match": {"start": 1, "end": 9}}],
            },
            "direct_response": {"status": 201, "body": {"inline_string": "made"}},
        },
        {
            "match": {"path_separated_prefix": "/s"},
            "route": {
                "cluster": "c",
                "host_rewrite_path_regex": {
                    "pattern": {"google_re2": {}, "regex": "^/s/([^/]*).*"},
                    "substitution": "\\1",
                },
            },
        },
        {"match": {"prefix": "/"}, "route": {"cluster": "c"}},
        **edits,
    )
    kind = next(each for each in decode.types("auto") if each.short == "route")
    found = kind.decode(raw(build.route_config("r", hosts)))
    assert not found.problems, found.problems
    return compile_routes(found.value), Entrance(_manager())


def _manager() -> HttpManager:
    listener = build.listener("l", build.route_config("r", build.virtual_host("v", build.route(cluster="c"))))
    kind = next(each for each in decode.types("auto") if each.short == "listener")
    return replace(
        kind.decode(raw(listener)).value.http, normalize_path=True, merge_slashes=True, strip_any_port=True,
        strip_trailing_dot=True, escaped_slashes=EscapedSlashes.FORWARD, underscores=Underscores.DROP,
    )  # fmt: skip


def _head(data: bytes) -> None:
    """Whatever a head has, no line that comes of it is two, and its path begins as one."""
    flags, authority, path, *rest = pieces(data, 3)
    lines = _lines(rest)
    asked_for = Head(
        "GET", "http", _line(authority).decode("latin-1"), "/" + _line(path).decode("latin-1"), Headers(lines)
    )
    routes, entrance = _routes()
    seen = entrance.seen(asked_for) if flags[:1] >= b"a" else asked_for
    match = routes.match(seen, lambda: 0.5)
    if match is None:
        return
    action = match.route.action
    if isinstance(action, Redirect | DirectResponse):
        made = (
            match.compiled.redirect(seen)
            if isinstance(action, Redirect)
            else match.compiled.direct_response(seen)
        )
        for name, value in made.headers:
            _unbroken(name.encode("latin-1"), value.encode("latin-1"))
        return
    cluster, weight = match.compiled.choose_cluster(seen, lambda: 0.5)
    sent = match.compiled.sent(match.compiled.request_head(weight, seen, cluster=cluster))
    _unbroken(sent.path.encode("latin-1"), sent.authority.encode("latin-1"))
    for name, value in sent.headers.raw:
        _unbroken(name, value)
    edited = match.compiled.response_edits(weight, Headers(lines))
    for name, value in edited.raw if edited is not None else ():
        _unbroken(name, value)


def _joined(*parts: bytes) -> bytes:
    return BETWEEN.join(parts)


_TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

TARGETS = (
    Target(
        "format", ("core/formats.py", "core/strings.py"), _format,
        (
            b"plain %% text", b"%REQ(X-Tier?:authority):8%", b"%RESP(x)%%PROTOCOL%", _joined(b"%QUERY_PARAM(a)%", b"p?a=%0d%0ab"),
            b"%PATH(NQ:ORIG)%", b"%DYNAMIC_METADATA(a:b)%", b"%LOCAL_REPLY_BODY%%RESPONSE_FLAGS%", _joined(b"%REQ(x-a)%", b"", b"x-a", b"v"),
        ),
        (b"%", b"%%", b"(", b")", b":", b"?", b"REQ", b"RESP", b"PATH", b"QUERY_PARAM", b"UPSTREAM_HOST", b"9" * 12, b"%0d%0a", BETWEEN),
    ),
    Target(
        "expression", ("core/regex.py",), _expression,
        (
            _joined(b"^/a/(.*)$", b"/b/\\1", b"/a/c"), _joined(b"(a|b)*c{2,9}", b"\\\\\\0", b"abcc"), _joined(b"", b"-", b"abc"),
            _joined(b"(?i)[^x]+?", b"\\9", b"y"), _joined("ü+".encode(), b"", "üü".encode()),
        ),
        (b"(", b")", b"[", b"]", b"{1000}", b"*", b"+?", b"(?P<a>", b"\\", b"\\1", b"\\C", b"|", b"^", b"$", b"(?s)", BETWEEN),
    ),
    Target(
        "host", ("model/hosts.py", "model/address.py", "config/hosts.py", "hosts/grpc/target.py", "observe/spans.py"), _host,
        (b"10.0.0.1:80", b"[::1]:80", b"a.example:80", b"unix:/run/x.sock", b"*.a", "bücher.example".encode(), b"xds://x/a:1", b"dns:///a"),
        (b":", b"[", b"]", b"unix:", b"xn--", b"*.", b"..", b"0x7f", b"%", b"/", b"65536", b"//", b"::ffff:1.2.3.4"),
    ),
    Target(
        "url", ("hosts/urls.py",), _url,
        (b"http://a/b?c=d#e", b"https://u:p@[::1]:8443/%2e%2e/a b", b"http://a:80/./../x", "http://ü/ü".encode()),
        (b"http://", b"https://", b"/..", b"/.", b"%00", b"\r\n", b"@", b"#", b"?", b":", b"//", b"\\", b" "),
    ),
    Target(
        "inbound", ("inbound.py",), _inbound,
        (
            _joined(b"traceparent", _TRACE, b"tracestate", b"a=b,c=d"), _joined(b"grpc-timeout", b"10S", b"baggage", b"a=b"),
            _joined(b"x-envoy-expected-rq-timeout-ms", b"1000", b"x-request-id", b"r", b"x-envoy-attempt-count", b"2"),
            _joined(b"forwarded", b"for=1.2.3.4", b"x-forwarded-for", b"1.2.3.4"),
        ),
        (b"traceparent", _TRACE, b"tracestate", b"grpc-timeout", b"99999999H", b"baggage", b"x-request-id", b",", b"=", b"\r\n", BETWEEN),
    ),
    Target(
        "waits", ("core/retry.py", "core/retry_grpc.py", "model/headers.py"), _waits,
        (
            _joined(b"120", b"1000000100", b"500", b"3", b"1000"), _joined(b"Sun, 09 Sep 2001 01:47:40 GMT"), _joined(b"-1", b"x", b"", b"", b"-1"),
        ),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", b"9" * 20, b"9" * 21, b"-1", b"+1", b"1e9", "²".encode("latin-1"), BETWEEN),
    ),
    Target(
        "service_config", ("hosts/grpc/settings.py", "hosts/grpc/own_retries.py"), _service_config,
        (
            (b'{"methodConfig":[{"name":[{"service":"a.B"}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"1s","maxBackoff":"2s",'
            b'"backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE",14]}}],"retryThrottling":{"maxTokens":10,"tokenRatio":0.1}}'),
            b"{}", b"[]", b'{"methodConfig":[{"name":[{}]}]}',
        ),
        (b'"', b"{", b"}", b"[", b"]", b"null", b"1e999", b"NaN", b"true", b'"9s"', b"-1", b'"name":', b'"retryPolicy":', b"[" * 500),
    ),
    Target(
        "head",
        (
            "core/match.py", "core/conditions.py", "core/rewrite.py", "core/edits.py", "core/normalize.py", "core/paths.py", "core/domains.py",
            "core/lines.py", "core/replies.py",
        ), _head,
        (
            _joined(b"a", b"a.example:80", b"r/x/y?a=1"), _joined(b"", b"a", b"P/%2F..%2e/"), _joined(b"a", b"a.", b"?q=1&a=%0d%0ax"),
            _joined(b"", b"a", b"c", b"cookie", b'a=b; k="v"', b"x-cluster", b"c", b"x-host", b"h"), _joined(b"", b"a", b"n", b"x-number", b"5"),
            _joined(b"a", b"[::1]:80", b"s/host/x"),
        ),
        (
            b"/r/", b"/p", b"/s/", b"?q=1", b"&a=", b"%0d%0a", b"%00", b"%2f", b"%5c", b"//", b"/../", b"cookie", b"k=v", b"x-number", b"x-a",
            b"x_b", b":path", b"host", b"content-type", b"application/grpc", BETWEEN,
        ),
        share=8,
    ),
)  # fmt: skip
