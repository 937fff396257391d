"""Header edits: what a level of a route configuration adds and removes (RW-01)."""

from __future__ import annotations

from meshlib.core.formats import check_format, compile_format
from meshlib.model.edits import Mutation, Removal
from meshlib.model.headers import OF_THE_CONNECTION
from meshlib.model.route import NO_EDITS, Edit, EditAction, HeaderEdits
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.values import header_name, header_value, is_header_name, string_match
from meshlib.xds.schema import WireMessage

__all__ = ["added", "header_edits", "mutations", "removed"]

_ACTIONS = {
    0: EditAction.APPEND,
    1: EditAction.ADD_IF_ABSENT,
    2: EditAction.OVERWRITE,
    3: EditAction.OVERWRITE_IF_EXISTS,
}
_FIELDS = (
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
)


def header_edits(owner: WireMessage, path: str, report: Report) -> HeaderEdits:
    """The four lists of header edits that `owner` (of any level) holds."""
    if not any(len(getattr(owner, field)) for field in _FIELDS):
        return NO_EDITS
    request_add, request_remove, response_add, response_remove = _FIELDS
    return HeaderEdits(
        added(owner, request_add, path, report),
        removed(owner, request_remove, path, report),
        added(owner, response_add, path, report),
        removed(owner, response_remove, path, report),
    )


def added(owner: WireMessage, field: str, path: str, report: Report) -> tuple[Edit, ...]:
    """The HeaderValueOptions in `field`."""
    made = (
        _edit(option, f"{join(path, field)}[{index}]", report)
        for index, option in enumerate(getattr(owner, field))
    )
    return tuple(edit for edit in made if is_header_name(edit.name))  # Envoy's others have been reported


def mutations(owner: WireMessage, field: str, path: str, report: Report) -> tuple[Mutation, ...]:
    """The HeaderMutations in `field`."""
    made = (
        _mutation(item, f"{join(path, field)}[{index}]", report)
        for index, item in enumerate(getattr(owner, field))
    )
    return tuple(each for each in made if each is not None)


def _mutation(message: WireMessage, path: str, report: Report) -> Mutation | None:
    which = message.WhichOneof("action")
    if which == "remove":
        return Removal(_editable(message.remove, join(path, which), report))
    if which == "append":
        edit = _edit(message.append, join(path, which), report)
        return edit if is_header_name(edit.name) else None
    if which == "remove_on_match":
        place = join(path, f"{which}.key_matcher")
        if not message.remove_on_match.HasField("key_matcher"):
            report.problem(place, "is missing")
            return None
        return Removal(matching=string_match(message.remove_on_match.key_matcher, place, report))
    report.problem(path, "one of remove, append and remove_on_match must be set")
    return None


def _edit(option: WireMessage, path: str, report: Report) -> Edit:
    header = option.header
    name = _editable(header.key, join(path, "header.key"), report)
    value = _value(header, path, report)
    action = _ACTIONS.get(option.append_action)
    if action is None:
        report.problem(join(path, "append_action"), f"{option.append_action} is not known")
        action = EditAction.APPEND
    if option.HasField("append"):
        if option.append_action:
            report.problem(join(path, "append"), "cannot stand beside append_action")
        action = EditAction.APPEND if option.append.value else EditAction.OVERWRITE
    return Edit(name, value, action, bool(option.keep_empty_value))


def _value(header: WireMessage, path: str, report: Report) -> str:
    """The value's format text. Envoy refuses a format that it cannot read, and does not look at `raw_value` here."""
    place = join(path, "header.value")
    value = header_value(str(header.value), place, report)
    wrong = check_format(value)
    if wrong is not None:
        report.problem(place, wrong)
    for name in compile_format(value).unsupported if wrong is None else ():
        report.ignore(place, f"%{name}% has no value in a client")
    return value


def removed(owner: WireMessage, field: str, path: str, report: Report) -> tuple[str, ...]:
    """The names in `field`."""
    return tuple(
        _editable(name, f"{join(path, field)}[{index}]", report)
        for index, name in enumerate(getattr(owner, field))
        if name  # to remove nothing is no problem to Envoy
    )


def _editable(name: str, path: str, report: Report) -> str:
    name = header_name(name, path, report)
    if name.startswith(":") or name == "host":
        report.problem(path, f"{name!r} cannot be edited, as in Envoy")
    elif name in OF_THE_CONNECTION:
        report.ignore(path, f"{name} is for the connection to say")
    return name
