"""Header edits of one level (weighted cluster, route, virtual host, route configuration), compiled (RW-01).

Within a level, as Envoy: first the removals; then every format is evaluated against the lines as they are then; then those
that overwrite; then those that add.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.core.formats import Values, compile_format
from meshlib.core.strings import fold, wire
from meshlib.model.route import NO_EDITS, Edit, EditAction, HeaderEdits

__all__ = ["INLINE", "EditPlan", "EditSet", "add_line", "compile_edits", "set_line"]

_Lines = list[tuple[bytes, bytes]]

_ONE_LINE = """
    connection content-length content-type expect grpc-accept-encoding grpc-timeout keep-alive proxy-connection
    proxy-status te transfer-encoding upgrade user-agent via x-client-trace-id x-forwarded-for x-forwarded-host
    x-forwarded-port x-forwarded-proto x-request-id date server location grpc-message grpc-status
    x-envoy-attempt-count x-envoy-decorator-operation x-envoy-downstream-service-cluster
    x-envoy-downstream-service-node x-envoy-expected-rq-timeout-ms x-envoy-external-address
    x-envoy-force-trace x-envoy-hedge-on-per-try-timeout x-envoy-internal x-envoy-ip-tags x-envoy-is-timeout-retry
    x-envoy-max-retries x-envoy-original-host x-envoy-original-path x-envoy-retriable-header-names
    x-envoy-retriable-status-codes x-envoy-retry-grpc-on x-envoy-retry-on x-envoy-upstream-alt-stat-name
    x-envoy-upstream-rq-per-try-timeout-ms x-envoy-upstream-rq-timeout-alt-response x-envoy-upstream-rq-timeout-ms
    x-envoy-upstream-stream-duration-ms x-envoy-degraded x-envoy-immediate-health-check-fail
    x-envoy-overloaded x-envoy-ratelimited x-envoy-upstream-canary x-envoy-upstream-healthchecked-cluster
    x-envoy-upstream-service-time
"""
#: Headers of which Envoy keeps one line: more is joined with a comma to it, never a line of its own.
INLINE = frozenset(_ONE_LINE.encode().split())


class _CompiledEdit:
    __slots__ = ("action", "constant", "format", "keep_empty", "key", "name")

    def __init__(self, edit: Edit) -> None:
        name = fold(wire(edit.name))
        self.name = self.key = name.encode("latin-1")
        self.format = compile_format(edit.value)
        self.constant = self.format.constant
        self.action = edit.action
        self.keep_empty = edit.keep_empty


class EditPlan:
    """What one level does to one direction's lines. Immutable; safe to share."""

    __slots__ = ("_add", "_remove", "notes")

    def __init__(self, add: Sequence[Edit], remove: Sequence[str]) -> None:
        self._add = tuple(_CompiledEdit(edit) for edit in add)
        self._remove = frozenset(fold(wire(name)).encode("latin-1") for name in remove)
        self.notes = tuple(
            f"header {edit.name.decode('latin-1')}: %{command}% has no value in a client"
            for edit in self._add
            for command in edit.format.unsupported
        )

    def apply(self, lines: _Lines, values: Values) -> _Lines:
        """The edited lines; ``lines`` may be changed. ``values`` must hold the lines that the formats read."""
        if self._remove:
            # In place: the formats read the lines without what is removed.
            lines[:] = [line for line in lines if line[0].lower() not in self._remove]
        if not self._add:
            return lines
        present = {name.lower() for name, _ in lines}
        overwrite: _Lines = []
        append: _Lines = []
        for edit in self._add:
            value = edit.format.render(values) if edit.constant is None else edit.constant
            if not value and not edit.keep_empty:
                continue
            if edit.action is EditAction.APPEND:
                append.append((edit.name, value))
            elif edit.action is EditAction.OVERWRITE:
                overwrite.append((edit.name, value))
            elif (edit.key in present) is (edit.action is EditAction.OVERWRITE_IF_EXISTS):
                (append if edit.action is EditAction.ADD_IF_ABSENT else overwrite).append((edit.name, value))
        for name, value in overwrite:
            set_line(lines, name, value)
        for name, value in append:
            add_line(lines, name, value)
        return lines


class EditSet:
    """Both directions of one level; None where there is nothing to do."""

    __slots__ = ("notes", "request", "response")

    def __init__(self, edits: HeaderEdits) -> None:
        self.request = _plan(edits.request_add, edits.request_remove)
        self.response = _plan(edits.response_add, edits.response_remove)
        self.notes = tuple(
            note for plan in (self.request, self.response) if plan is not None for note in plan.notes
        )


def compile_edits(edits: HeaderEdits) -> EditSet | None:
    """One level's edits, None where it has none."""
    return None if edits is NO_EDITS or edits == NO_EDITS else EditSet(edits)


def _plan(add: Sequence[Edit], remove: Sequence[str]) -> EditPlan | None:
    return EditPlan(add, remove) if add or remove else None


def set_line(lines: _Lines, name: bytes, value: bytes) -> None:
    """Exactly one line of that name (lower case), in the place of the first that was there."""
    at = -1
    for number in range(len(lines) - 1, -1, -1):
        if lines[number][0].lower() == name:
            if at >= 0:
                del lines[at]
            at = number
    if at < 0:
        lines.append((name, value))
    else:
        lines[at] = (lines[at][0], value)


def add_line(lines: _Lines, name: bytes, value: bytes) -> None:
    """One line more; to the one that is there, of a header that has one line only."""
    if name in INLINE or name == b"cookie":
        for number, (key, present) in enumerate(lines):
            if key.lower() == name:
                lines[number] = (key, present + (b"; " if name == b"cookie" else b",") + value)
                return
    lines.append((name, value))
