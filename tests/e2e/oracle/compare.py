"""What meshlib's core says would become of a request, and how far an exchange with Envoy may differ from it.

Each allowed difference is named here and stands, with its reason, in docs/differences.md. Nothing else may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace

from meshlib.core.answers import own_answer
from meshlib.core.lines import ONE_LINE_REQUEST, ONE_LINE_RESPONSE, add_line
from meshlib.core.match import Match
from meshlib.core.replies import PLAIN
from meshlib.core.resolution import Resolution
from meshlib.core.rewrite import ResponseContext
from meshlib.model.call import Head, Response
from meshlib.model.headers import Headers
from meshlib.model.match import HeaderMatch
from meshlib.model.route import Action, ClusterWeight, DirectResponse, Forward, HeaderEdits, Redirect
from tests.e2e.oracle.exchange import Arrived, Exchange, Request
from tests.e2e.oracle.tables import CLUSTERS

__all__ = [
    "ALLOWED_REQUEST",
    "ALLOWED_RESPONSE",
    "UPSTREAM_HEADERS",
    "Expected",
    "expectations",
    "normal",
    "tags",
    "words",
]

#: What the upstreams add to each response.
UPSTREAM_HEADERS = (("x-up", "1"), ("x-multi", "a"), ("x-multi", "b"))

#: Header of a request as it arrived → why it may differ.
ALLOWED_REQUEST = {
    "x-request-id": "Envoy makes one; a library passes on what the application has",
    "x-forwarded-proto": "a proxy says how it was called; a library was not called",
    "x-envoy-expected-rq-timeout-ms": "belongs to an attempt, with what is left of its time",
    "x-envoy-attempt-count": "belongs to an attempt",
}
#: Header of a response → why it may differ.
ALLOWED_RESPONSE = {
    "date": "a proxy's own clock",
    "server": "a proxy names itself",
    "x-envoy-upstream-service-time": "a proxy's own measurement",
}
_REDIRECT_FIELDS = (
    "https",
    "scheme",
    "host",
    "port",
    "path",
    "prefix_rewrite",
    "regex_rewrite",
    "strip_query",
)
_ENVOY = "envoy"
_FRAMING = ("content-length", "transfer-encoding", "connection")


@dataclass(frozen=True, slots=True)
class Expected:
    """One outcome that the configuration allows for a request, and the match that led to it. ``marks``: what the listener
    had a part in.
    """

    exchange: Exchange
    match: Match | None
    weight: ClusterWeight | None = None
    marks: tuple[str, ...] = ()


def _on_the_wire(request: Request) -> Headers:
    """As they are on the wire: a value has no space around it (RFC 9110, 5.5)."""
    return Headers.of(*((name, value.strip()) for name, value in request.headers))


def head_of(request: Request) -> Head:
    return Head(request.method, "http", request.authority, request.path, _on_the_wire(request))


def expectations(resolution: Resolution, request: Request, upstreams: dict[str, str]) -> list[Expected]:
    """Every outcome that some draw of the dice gives. ``upstreams``: address of each cluster's endpoint."""
    asked = head_of(request)
    head = resolution.seen(asked)
    assert resolution.routes is not None
    seen: dict[int, Match | None] = {}
    for drawn in (0.0, 0.2, 0.3, 0.6, 0.999999):
        match = resolution.routes.match(head, _always(drawn))
        seen[id(match)] = match
    changed = (
        name for name in ("path", "authority", "scheme") if getattr(asked, name) != getattr(head, name)
    )
    added = {name for name, _ in head.headers} - {name for name, _ in asked.headers}
    marks = (*(f"listener's {name}" for name in changed), *(f"listener's {name}" for name in added))
    if any("_" in name for name in {name for name, _ in asked.headers} - {name for name, _ in head.headers}):
        marks += ("underscore dropped",)
    return [
        replace(outcome, marks=(*outcome.marks, *marks))
        for match in seen.values()
        for outcome in _outcomes(resolution, asked, head, match, len(request.body), upstreams)
    ]


def _always(value: float) -> Callable[[], float]:
    return lambda: value


def _outcomes(
    resolution: Resolution,
    asked: Head,
    head: Head,
    match: Match | None,
    length: int,
    upstreams: dict[str, str],
) -> Iterator[Expected]:
    answer = own_answer(resolution, asked, head, match, None)
    if answer is not None:
        response, words = answer
        marks = [mark for mark in ("escaped slash", "underscore") if mark in words]
        marks = [f"{mark} {response.status}" for mark in marks]
        if resolution.replies is not PLAIN:
            plain = own_answer(_plain(resolution), asked, head, match, None)
            assert plain is not None
            marks += _rewritten(response, plain[0])
        yield Expected(_local(response), match, marks=tuple(marks))
        return
    assert match is not None
    action = match.route.action
    assert isinstance(action, Forward)
    for cluster, weight in _choices(match, action, head):
        sent = _forwarded(resolution, match, action, weight, cluster, head, length, upstreams)
        yield Expected(sent, match, weight)


def _plain(resolution: Resolution) -> Resolution:
    """As if the listener made nothing of its replies."""
    made = copy(resolution)
    made.replies = PLAIN
    return made


def _rewritten(one: Response, plain: Response) -> Iterator[str]:
    if one.status != plain.status:
        yield "reply's status"
    if one.body != plain.body:
        kind = "json" if one.body.endswith(b"}\n") else "text"
        yield f"reply's body as {kind}"
    yield from (
        f"reply's {name}" for name in {name for name, _ in one.headers} - {n for n, _ in plain.headers}
    )


def _choices(match: Match, action: Forward, head: Head) -> Iterator[tuple[str, ClusterWeight | None]]:
    if not action.weighted:
        yield match.compiled.choose_cluster(head, _always(0.0))
        return
    total, before = sum(weight.weight for weight in action.weighted), 0
    for weight in action.weighted:
        if weight.weight:
            yield match.compiled.choose_cluster(head, _always((before + 0.5) / total))
        before += weight.weight


def _local(response: Response) -> Exchange:
    return Exchange(response.status, response.headers, response.body)


def _forwarded(
    resolution: Resolution,
    match: Match,
    action: Forward,
    weight: ClusterWeight | None,
    cluster: str,
    head: Head,
    length: int,
    upstreams: dict[str, str],
) -> Exchange:
    if cluster not in upstreams:
        told = Response(action.not_found_status)
        return _local(match.compiled.failure_reply(weight, head, told, resolution.replies, flags="NC"))
    sent = match.compiled.request_head(weight, head, cluster=cluster)
    sent = match.compiled.auto_host(sent, CLUSTERS[cluster])
    wire = match.compiled.sent(sent)
    lines = tuple((name.lower(), value) for name, value in wire.headers)
    arrived = Arrived(cluster, wire.method, wire.authority, wire.path, lines, length)
    answered = Headers.of(("content-type", "application/json"), *UPSTREAM_HEADERS)
    context = ResponseContext(sent, status=200, cluster=cluster, endpoint=upstreams[cluster], attempts=1)
    edited = match.compiled.response_edits(weight, answered, context)
    return Exchange(200, tuple(edited if edited is not None else answered), b"", arrived)


def normal(exchange: Exchange) -> Exchange:
    """The exchange without what may differ, its lines in order of names (lines of one name keep theirs)."""
    arrived = exchange.arrived
    if arrived is not None:
        arrived = replace(arrived, headers=_lines(arrived.headers, ALLOWED_REQUEST, ONE_LINE_REQUEST))
    allowed = dict(ALLOWED_RESPONSE)
    if arrived is None and ("server", _ENVOY) not in exchange.headers:
        del allowed["server"]  # a name that the configuration gives, in a reply that is Envoy's own
    headers = _lines(exchange.headers, allowed, ONE_LINE_RESPONSE)
    return replace(exchange, headers=headers, arrived=arrived)


def _lines(
    lines: tuple[tuple[str, str], ...], allowed: dict[str, str], one_line: frozenset[bytes]
) -> tuple[tuple[str, str], ...]:
    kept: list[tuple[bytes, bytes]] = []
    for name, value in lines:
        if name.lower() not in allowed and name.lower() not in _FRAMING:
            add_line(kept, name.lower().encode("latin-1"), value.strip(" \t").encode("latin-1"), one_line)
    return tuple(
        sorted(
            ((name.decode("latin-1"), value.decode("latin-1")) for name, value in kept),
            key=lambda line: line[0],
        )
    )


def _differences(one: object, other: object, where: str = "") -> Iterator[str]:
    if one == other:
        return
    if is_dataclass(one) and type(one) is type(other):
        for item in fields(one):
            yield from _differences(
                getattr(one, item.name), getattr(other, item.name), f"{where}.{item.name}"
            )
    elif isinstance(one, tuple) and isinstance(other, tuple):
        yield f"{where}: Envoy has {sorted(set(one) - set(other))}, meshlib {sorted(set(other) - set(one))}"
    else:
        yield f"{where}: Envoy has {one!r}, meshlib {other!r}"


def _short(value: object) -> str:
    """A value of the model, without what is as by default."""
    if is_dataclass(value):
        shown = (
            f"{item.name}={_short(getattr(value, item.name))}"
            for item in fields(value)
            if item.default is MISSING or getattr(value, item.name) != item.default
        )
        return f"{type(value).__name__}({', '.join(shown)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    return repr(value)


def tags(one: Expected) -> Iterator[str]:
    """What of a configuration had a part in this outcome."""
    yield from one.marks
    match = one.match
    if match is None:
        yield "no route"
        return
    if match.virtual_host.attempt_count_in_response and one.exchange.arrived is not None:
        yield "attempts told"
    if (
        match.config.ignore_path_parameters
        and one.exchange.arrived is not None
        and ";" in one.exchange.arrived.path
    ):
        yield "path parameters ignored"
    wanted = match.route.match
    yield f"path {wanted.path.kind.value}{'' if wanted.path.case_sensitive else ' any case'}"
    yield from (f"header {tag}" for item in wanted.headers for tag in _header_tags(item))
    for query in wanted.query:
        yield f"query {query.string.kind.value if query.string is not None else f'present {query.present}'}"
    if wanted.per_million is not None:
        yield f"fraction {wanted.per_million}"
    for cookie in wanted.cookies:
        yield f"cookie {cookie.string.kind.value}{' inverted' if cookie.invert else ''}"
    if wanted.grpc:
        yield "grpc"
    if one.exchange.arrived is not None and match.config.most_specific_wins:
        yield "most specific wins"
    levels = {"config": match.config.edits, "host": match.virtual_host.edits, "route": match.route.edits}
    if one.weight is not None:
        levels["share"] = one.weight.edits
    for level, edits in levels.items():
        yield from _edit_tags(level, edits)
    yield from _action_tags(match.route.action, one)


def _header_tags(item: HeaderMatch) -> Iterator[str]:
    kind = "range" if item.range is not None else f"present {item.present}"
    if item.string is not None:
        kind = f"{item.string.kind.value}{' any case' if item.string.ignore_case else ''}"
    yield kind
    if item.invert:
        yield f"{kind.removesuffix(' any case')} inverted"
    if item.missing_as_empty:
        yield "missing as empty"
    if item.name.startswith(":") or item.name == "host":
        yield item.name


def _edit_tags(level: str, edits: HeaderEdits) -> Iterator[str]:
    for direction, added, removed in (
        ("request", edits.request_add, edits.request_remove),
        ("response", edits.response_add, edits.response_remove),
    ):
        yield from (f"{direction} {edit.action.value}" for edit in added)
        if added:
            yield f"{direction} add by {level}"
        if removed:
            yield f"{direction} remove by {level}"


def _action_tags(action: Action, one: Expected) -> Iterator[str]:
    if isinstance(action, DirectResponse):
        yield f"direct response {action.status}"
    elif isinstance(action, Redirect):
        yield f"redirect {action.status}"
        set_fields = (name for name in _REDIRECT_FIELDS if getattr(action, name) not in (None, "", False))
        yield from (f"redirect {name}" for name in set_fields)
    elif isinstance(action, Forward):
        which = "weighted" if action.weighted else "cluster" if action.cluster else "cluster header"
        yield f"{which}{'' if one.exchange.arrived is not None else ', not there'}"
        if one.weight is not None and one.weight.host_rewrite is not None:
            yield "share's host"
        if one.exchange.arrived is None:
            return
        if action.prefix_rewrite:
            yield "prefix rewrite"
        if action.regex_rewrite is not None:
            yield "regex rewrite"
        if action.host_rewrite is not None:
            yield f"{action.host_rewrite.kind.value}{', host appended' if action.append_forwarded_host else ''}"


def words(request: Request, expected: list[Expected], got: Exchange) -> str:
    """A difference, told: from the outcome that is least different."""
    wanted = normal(got)
    nearest = min(expected, key=lambda one: len("".join(_differences(wanted, normal(one.exchange)))))
    told = [f"request {request}", *_differences(wanted, normal(nearest.exchange))]
    if got.arrived is None or nearest.match is None or got.status != nearest.exchange.status:
        told.append(f"   Envoy    {wanted}")
    if nearest.match is not None:
        told.append(f"   by {nearest.match.name}: {_short(nearest.match.route)}")
        told.append(f"   share {_short(nearest.weight)}")
        told.append(f"   virtual host {_short(nearest.match.virtual_host.edits)}")
        told.append(
            f"   configuration {_short(nearest.match.config.edits)}, {nearest.match.config.most_specific_wins}"
        )
    return "\n".join(told)
