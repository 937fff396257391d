"""Sessions that a filter keeps (SS-01)."""

from __future__ import annotations

from meshlib.model.session import Session, SessionKind
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.values import header_name, header_value, seconds, typed, unpacked
from meshlib.xds.schema import WireMessage, type_name

__all__ = ["SESSION", "SESSION_HERE", "session", "session_here"]

_FILTERS = "envoy.extensions.filters.http.stateful_session.v3."
SESSION = f"{_FILTERS}StatefulSession"
SESSION_HERE = f"{_FILTERS}StatefulSessionPerRoute"
_STATES = "envoy.extensions.http.stateful_session."
_COOKIE = f"{_STATES}cookie.v3.CookieBasedSessionState"
_HEADER = f"{_STATES}header.v3.HeaderBasedSessionState"
_ENVELOPE = f"{_STATES}envelope.v3.EnvelopeSessionState"
_KNOWN = (_COOKIE, _HEADER, _ENVELOPE)


def session(outer: WireMessage, path: str, report: Report) -> Session | None:
    """What an Any that means a StatefulSession keeps; None: nothing, or it cannot be told."""
    message = typed(outer, path, report, SESSION)
    if message is None:
        return None
    walk(message, path, report)
    return _session(message, path, report)


def session_here(outer: WireMessage, path: str, report: Report) -> tuple[bool, Session | None]:
    """Whether an Any that means a StatefulSessionPerRoute keeps sessions, and what it keeps."""
    message = typed(outer, path, report, SESSION_HERE)
    if message is None:
        return True, None
    walk(message, path, report)
    which = message.WhichOneof("override")
    if which is None or (which == "disabled" and not message.disabled):
        report.problem(path, "one of disabled, which must be true, and stateful_session must be set")
        return False, None
    if which == "disabled":
        return False, None
    made = _session(message.stateful_session, join(path, which), report)
    return made is not None, made


def _session(message: WireMessage, path: str, report: Report) -> Session | None:
    if not message.HasField("session_state"):
        return None
    outer, here = message.session_state.typed_config, join(path, "session_state.typed_config")
    known = (_COOKIE,) if report.target else _KNOWN  # gRFC A55
    inner = unpacked(outer, here, report, *known)
    if inner is None:
        return None
    walk(inner, here, report)
    made = _kept(type_name(outer.type_url), inner, here, report)
    if report.target or made is None:
        return made
    status = int(message.status_on_strict_destination_not_found) if message.strict else 0
    if status and not 100 <= status < 600:
        place = join(path, "status_on_strict_destination_not_found")
        report.problem(place, f"must be 100 to 599, not {status}")
    return Session(
        made.kind,
        made.name,
        made.ttl,
        made.path,
        made.attributes,
        strict=bool(message.strict),
        status=status,
    )


def _kept(name: str, message: WireMessage, path: str, report: Report) -> Session | None:
    if name == _COOKIE:
        return _cookie(message, path, report)
    if name == _HEADER:
        return Session(SessionKind.HEADER, header_name(str(message.name), join(path, "name"), report))
    if not message.HasField("header"):
        report.problem(join(path, "header"), "is missing")
        return None
    kept = header_name(str(message.header.name), join(path, "header.name"), report)
    return Session(SessionKind.ENVELOPE, kept)


def _cookie(owner: WireMessage, path: str, report: Report) -> Session | None:
    if not owner.HasField("cookie"):
        report.problem(join(path, "cookie"), "is missing")
        return None
    message, path = owner.cookie, join(path, "cookie")
    name = header_value(str(message.name), join(path, "name"), report)
    if not name:
        report.problem(join(path, "name"), "must not be empty")
    held = seconds(message, "ttl", path, report) or 0.0
    return Session(
        SessionKind.COOKIE,
        name,
        float(int(held)),
        header_value(str(message.path), join(path, "path"), report),
        tuple(
            (
                header_value(str(item.name), f"{join(path, 'attributes')}[{index}].name", report),
                header_value(str(item.value), f"{join(path, 'attributes')}[{index}].value", report),
            )
            for index, item in enumerate(message.attributes)
        ),
    )
