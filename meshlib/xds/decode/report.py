"""What a decoder finds besides the value: problems, and settings that are not honoured.

`walk` judges a whole message by the table in `decode.fields`; decoders add what only they can see. Paths are those
of the resource's JSON shape: ``virtual_hosts[1].routes[3].match.prefix``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.unknown_fields import UnknownFieldSet

from meshlib.xds import schema
from meshlib.xds.decode.fields import DEFAULT, TABLE, Kind, Rule
from meshlib.xds.schema import WireMessage

__all__ = ["MAX_ENTRIES", "MAX_PROGRAMS", "NOWHERE", "Decoded", "Elsewhere", "Report", "join", "walk"]

T = TypeVar("T")

# A hostile resource can be wrong in a million places; nobody reads more than these.
MAX_ENTRIES = 200
#: Instructions of all regular expressions of a resource: some 10,000 of the usual size, and 50 of the largest.
MAX_PROGRAMS = 1_000_000
_MAX_VALUE = 200
# Elements of a list that are looked at in one step; one of them may hold a hundred bytes or a hundred thousand.
_PIECE = 128
# Present but empty, these say what absence says.
_SCALAR_MESSAGES = frozenset(
    f"google.protobuf.{kind}"
    for kind in (
        "BoolValue", "BytesValue", "DoubleValue", "FloatValue", "Int32Value", "Int64Value", "StringValue",
        "UInt32Value", "UInt64Value", "Duration",
    )
)  # fmt: skip


class Decoded(Generic[T]):
    """What came of one resource. ``value`` is None exactly when there are ``problems``; ``name`` is "" if unreadable.

    ``ignored``: (path, value) of each setting that is not honoured. ``closed``: the value of a resource whose problems are
    only that something decides who may pass: it refuses what that covers. Read-only once made.
    """

    __slots__ = ("closed", "ignored", "name", "problems", "value")

    def __init__(
        self,
        name: str,
        value: T | None,
        problems: tuple[str, ...] = (),
        ignored: tuple[tuple[str, str], ...] = (),
        closed: T | None = None,
    ) -> None:
        self.closed = closed
        self.name = name
        self.value = value
        self.problems = problems
        self.ignored = ignored

    def __repr__(self) -> str:
        return f"Decoded({self.name!r}, problems={self.problems!r}, ignored={self.ignored!r})"


class Elsewhere(Protocol):
    """Knows of other servers than the one that a resource comes from."""

    def refuses(self, service: WireMessage) -> str:
        """Why what this GrpcService says may not be asked, in words; ``""`` where it may."""
        ...

    def put(self, short: str, name: str, service: WireMessage | None) -> None:
        """The resource of that name comes from there from now on; None: from the server that named it."""
        ...

    def absent(self, path: str) -> bool:
        """Whether there is no file and no socket at that path."""
        ...


class Nowhere:
    """There are none."""

    def refuses(self, service: WireMessage) -> str:
        del service
        return "another control plane is not asked from here"

    def put(self, short: str, name: str, service: WireMessage | None) -> None:
        """Nothing is anywhere else."""

    def absent(self, path: str) -> bool:
        del path
        return False


NOWHERE = Nowhere()


class Report:
    """Gathers while one resource is decoded. Not thread-safe: each decoding has its own.

    ``target``: the resource is of the target view, where gRPC's verdict holds; Envoy's holds in the sidecar view.
    ``trusted``: the bootstrap says so of the server (``trusted_xds_server``, gRFC A81). ``give_way`` is called at each element of
    a list that may be long, so that others may run meanwhile. ``server``: where load reports of what it has can go, "" where they cannot.
    ``elsewhere`` is told of sources when the resource is good. ``instances``: the certificate providers of the bootstrap, by name; None:
    whether there is one is known elsewhere. ``envoy_tls``: of TLS Envoy's verdict holds in the target view, too, since a cluster is the
    same in both; else ``grpc_tls``, gRPC's. ``statics``: secrets without a source are beside it, in the file that it comes from.
    """

    __slots__ = (
        "_ignored",
        "_instructions",
        "_problems",
        "_skipped",
        "_sources",
        "closes",
        "elsewhere",
        "give_way",
        "grpc_tls",
        "instances",
        "server",
        "statics",
        "target",
        "trusted",
    )

    def __init__(
        self,
        *,
        target: bool = False,
        trusted: bool = False,
        give_way: Callable[[], object] = bool,
        server: str = "",
        elsewhere: Elsewhere = NOWHERE,
        instances: frozenset[str] | None = None,
        envoy_tls: bool = False,
        statics: bool = False,
    ) -> None:
        self.statics = statics
        self.instances = instances
        self.grpc_tls = target and not envoy_tls
        self.server = server
        self.elsewhere = elsewhere
        self._sources: list[tuple[str, str, WireMessage | None]] = []
        self.closes = True
        self.target = target
        self.trusted = trusted
        self.give_way = give_way
        self._problems: list[str] = []
        self._ignored: dict[str, str] = {}
        self._skipped = 0
        self._instructions = 0

    def affords(self, instructions: int) -> bool:
        """Whether one more regular expression of so many instructions is not too much for one resource."""
        self._instructions += instructions
        return self._instructions <= MAX_PROGRAMS

    def problem(self, path: str, text: str, *, closes: bool = False) -> None:
        """The resource is refused, for this reason among others. ``closes``: its value refuses by itself what the reason
        is about.
        """
        self.closes = self.closes and closes
        if len(self._problems) < MAX_ENTRIES:
            self._problems.append(f"{path}: {text}" if path else text)
        else:
            self._skipped += 1

    def source(self, short: str, name: str, service: WireMessage | None) -> None:
        """Where the resource of that name comes from; None: from here."""
        self._sources.append((short, name, service))

    def settle(self) -> None:
        """The resource is good: what it says of others holds."""
        for source in self._sources:
            self.elsewhere.put(*source)

    def stricter(self, path: str, text: str, without: str) -> None:
        """What gRPC refuses and Envoy takes: a problem in the target view; in the sidecar view it is reported what it does
        not do (``without``), if anything.
        """
        if self.target:
            self.problem(path, text)
        elif without:
            self.ignore(path, without)

    def ignore(self, path: str, value: object = "") -> None:
        """This setting is not honoured; the rest of the resource is. The first report of a path holds."""
        if len(self._ignored) < MAX_ENTRIES:
            self._ignored.setdefault(path, shown(value))

    @property
    def failed(self) -> bool:
        return bool(self._problems)

    @property
    def problems(self) -> tuple[str, ...]:
        more = (f"… and {self._skipped} more",) if self._skipped else ()
        return (*self._problems, *more)

    @property
    def ignored(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._ignored.items())


def join(path: str, field: str) -> str:
    """`path.field`; the top of a resource has no path."""
    return f"{path}.{field}" if path else field


def shown(value: object) -> str:
    """A value as short text: a message as its JSON."""
    if isinstance(value, str):
        text = value
    elif hasattr(value, "DESCRIPTOR"):
        text = json.dumps(schema.to_json(value), ensure_ascii=False)  # type: ignore[arg-type]
    else:
        text = str(value)
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"


def walk(message: WireMessage, path: str, report: Report, variant: str = "") -> None:
    """Reports every field of `message`, and of all it holds, that is not honoured or that refuses the resource.

    What is in an Any is not entered: whoever unpacks it walks it.
    """
    _walk(message, path, report, variant)
    if _holds_unknown(message, report):  # rare, and dear to look for
        _walk_unknown(message, path, report)


def _holds_unknown(message: WireMessage, report: Report) -> bool:
    """Whether a field that the schema does not have is anywhere in the message. Long lists are looked at piece by piece:
    a copy is one step, in which nobody else runs.
    """
    lists = [field for field, value in message.ListFields() if _is_list(field) and _is_long(value)]
    if not lists:
        known = type(message)()
        known.CopyFrom(message)
        return _discards(known, message)
    if len(UnknownFieldSet(message)):
        return True
    rest = type(message)()
    for field, value in message.ListFields():
        if field not in lists:
            schema.copy_field(rest, field, value)
    return _holds_unknown(rest, report) or any(_list_holds_unknown(message, field, report) for field in lists)


def _list_holds_unknown(message: WireMessage, field: Any, report: Report) -> bool:
    items = getattr(message, field.name)
    if any(_is_long(inner) for item in items[:_PIECE] for each, inner in item.ListFields() if _is_list(each)):
        return any(_holds_unknown(item, report) for item in items)
    for start in range(0, len(items), _PIECE):
        report.give_way()
        piece, known = type(message)(), type(message)()
        for made in (piece, known):
            getattr(made, field.name).extend(items[start : start + _PIECE])
        if _discards(known, piece):
            return True
    return False


def _discards(known: WireMessage, message: WireMessage) -> bool:
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()


def _is_list(field: Any) -> bool:
    kind = field.message_type
    return kind is not None and schema.is_repeated(field) and not kind.GetOptions().map_entry


def _is_long(items: Any) -> bool:
    """Long by itself, or of elements that are."""
    return len(items) > _PIECE or any(
        len(inner) > _PIECE for item in items for field, inner in item.ListFields() if _is_list(field)
    )


def _walk(message: WireMessage, path: str, report: Report, variant: str) -> None:
    steps = _steps(message.DESCRIPTOR.full_name, variant)
    for field, value in message.ListFields():
        step = steps[field.name]
        if step.plain:
            continue
        here = join(path, field.name)
        rule = step.rule
        if rule.kind is Kind.REJECTED:
            report.problem(here, rule.note or "is not supported")
        elif rule.kind is not Kind.HONOURED and _counts(field, value, rule, message):
            report.ignore(here, _text(field, value))
        if step.enter is _Enter.ONE:
            _walk(value, here, report, rule.variant)
        elif step.enter is _Enter.LIST:
            for index, item in enumerate(value):
                report.give_way()
                _walk(item, f"{here}[{index}]", report, rule.variant)


class _Enter(Enum):
    """How what is in a field is reached."""

    NOT = 0
    ONE = 1
    LIST = 2


@dataclass(frozen=True, slots=True)
class _Step:
    """What to do with one field. ``plain``: nothing."""

    rule: Rule
    enter: _Enter
    plain: bool


@lru_cache(maxsize=1024)
def _steps(full_name: str, variant: str) -> dict[str, _Step]:
    """The steps of a message of the pool, by field; both arguments come from the tables, not from the network."""
    kind = schema.POOL.FindMessageTypeByName(full_name)
    name = schema.full_name(kind)
    rules = TABLE.get(f"{name}#{variant}" if variant else name, {})
    return {field.name: _step(field, rules.get(field.name, DEFAULT)) for field in kind.fields}


def _step(field: Any, rule: Rule) -> _Step:
    enter = _Enter.NOT
    kept = rule.kind in (Kind.HONOURED, Kind.CARRIED)
    if kept and field.message_type is not None and not schema.is_opaque(field):
        inside = field.message_type
        if not inside.full_name.startswith("google.protobuf.") and not inside.GetOptions().map_entry:
            enter = _Enter.LIST if schema.is_repeated(field) else _Enter.ONE
    plain = enter is _Enter.NOT and rule.kind in (Kind.HONOURED, Kind.VOID)
    return _Step(rule, enter, plain)


def _walk_unknown(message: WireMessage, path: str, report: Report) -> None:
    """Reports fields by number that the schema does not have: settings newer than it."""
    for unknown in UnknownFieldSet(message):  # type: ignore[attr-defined]
        report.ignore(join(path, f"#{unknown.field_number}"), "a field that is not known")
    for field, value in message.ListFields():
        if field.message_type is None or schema.is_opaque(field) or field.message_type.GetOptions().map_entry:
            continue
        here = join(path, field.name)
        if schema.is_repeated(field):
            for index, item in enumerate(value):
                _walk_unknown(item, f"{here}[{index}]", report)
        else:
            _walk_unknown(value, here, report)


def _counts(field: Any, value: Any, rule: Rule, message: WireMessage) -> bool:
    """Whether the value says more than leaving it out would."""
    if rule.when is not None and not rule.when(message):
        return False
    if field.message_type is None or schema.is_repeated(field):
        return True
    return field.message_type.full_name not in _SCALAR_MESSAGES or bool(value.ByteSize())


def _text(field: Any, value: Any) -> str:
    if not schema.is_repeated(field):
        if field.enum_type is not None:
            known = field.enum_type.values_by_number.get(value)
            return known.name if known else str(value)
        return shown(value)
    if hasattr(value, "items"):
        return shown(", ".join(sorted(value)))
    items = [shown(item) for item in value[:10]]
    return shown(", ".join(items))
