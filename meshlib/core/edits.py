"""Header edits of one level (weighted cluster, route, virtual host, route configuration), compiled (RW-01).

Within a level, as Envoy: first the removals; then every format is evaluated against the lines as they are then; then those
that overwrite; then those that add.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from meshlib.core.formats import Values, compile_format
from meshlib.core.lines import (
    CONTROLS,
    OF_THE_CONNECTION,
    ONE_LINE_REQUEST,
    ONE_LINE_RESPONSE,
    Lines,
    add_line,
    set_line,
)
from meshlib.core.strings import compile_string, fold, wire
from meshlib.model.route import NO_EDITS, Edit, EditAction, HeaderEdits

if TYPE_CHECKING:
    from meshlib.model.call import Head
    from meshlib.model.edits import Mutation
    from meshlib.model.match import StringMatch

__all__ = [
    "ONE_LINE_REQUEST",
    "ONE_LINE_RESPONSE",
    "EditPlan",
    "EditSet",
    "Mutations",
    "add_line",
    "compile_edits",
    "set_line",
]


class _CompiledEdit:
    __slots__ = ("action", "constant", "format", "keep_empty", "key", "name")

    def __init__(self, edit: Edit) -> None:
        name = fold(wire(edit.name))
        self.name = self.key = name.encode("latin-1")
        self.format = compile_format(edit.value)
        constant = self.format.constant
        self.constant = None if constant is None else constant.translate(None, CONTROLS)
        self.action = edit.action
        self.keep_empty = edit.keep_empty


def _compiled(edits: Sequence[Edit]) -> Iterator[_CompiledEdit]:
    """A format that Envoy refuses should not have come so far: it is left out, as is what only the connection says."""
    for edit in edits:
        with suppress(ValueError):
            made = _CompiledEdit(edit)
            if made.key not in OF_THE_CONNECTION:
                yield made


class EditPlan:
    """What one level does to one direction's lines. Immutable; safe to share."""

    __slots__ = ("_add", "_one_line", "_remove")

    def __init__(self, add: Sequence[Edit], remove: Sequence[str], one_line: frozenset[bytes]) -> None:
        self._one_line = one_line
        self._remove = frozenset(fold(wire(name)).encode("latin-1") for name in remove) - OF_THE_CONNECTION
        self._add = tuple(_compiled(add))

    def apply(self, lines: Lines, values: Values) -> Lines:
        """The edited lines; ``lines`` may be changed. ``values`` must hold the lines that the formats read."""
        if self._remove:
            # In place: the formats read the lines without what is removed.
            lines[:] = [line for line in lines if line[0].lower() not in self._remove]
        if not self._add:
            return lines
        present = {name.lower() for name, _ in lines}
        overwrite: Lines = []
        append: Lines = []
        for edit in self._add:
            value = edit.constant
            if value is None:
                # Names, and what a caller or an upstream sent, may have what would end the line.
                value = edit.format.render(values).translate(None, CONTROLS)
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
            add_line(lines, name, value, self._one_line)
        return lines


class _Removing:
    """Every header whose name is matched, but what only the connection says."""

    __slots__ = ("_test",)

    def __init__(self, matching: StringMatch) -> None:
        self._test = compile_string(matching)

    def apply(self, lines: Lines, values: Values) -> Lines:
        del values
        lines[:] = [line for line in lines if not self._goes(line[0].lower())]
        return lines

    def _goes(self, key: bytes) -> bool:
        return key not in OF_THE_CONNECTION and key != b"host" and self._test(key.decode("latin-1"))


class Mutations:
    """Edits of a request one after the other, of which each sees what those before it made. Immutable; safe to share."""

    __slots__ = ("_steps",)

    def __init__(self, mutations: Sequence[Mutation]) -> None:
        self._steps = tuple(map(_step, mutations))

    def apply(self, head: Head, values: Values) -> None:
        """Edit the lines of ``head``. ``values`` must be made of it."""
        for step in self._steps:
            step.apply(head.headers.raw, values)


def _step(mutation: Mutation) -> EditPlan | _Removing:
    if isinstance(mutation, Edit):
        return EditPlan((mutation,), (), ONE_LINE_REQUEST)
    if mutation.matching is not None:
        return _Removing(mutation.matching)
    return EditPlan((), (mutation.name,), ONE_LINE_REQUEST)


class EditSet:
    """Both directions of one level; None where there is nothing to do."""

    __slots__ = ("request", "response")

    def __init__(self, edits: HeaderEdits) -> None:
        self.request = _plan(edits.request_add, edits.request_remove, ONE_LINE_REQUEST)
        self.response = _plan(edits.response_add, edits.response_remove, ONE_LINE_RESPONSE)


def compile_edits(edits: HeaderEdits) -> EditSet | None:
    """One level's edits, None where it has none."""
    return None if edits is NO_EDITS or edits == NO_EDITS else EditSet(edits)


def _plan(add: Sequence[Edit], remove: Sequence[str], one_line: frozenset[bytes]) -> EditPlan | None:
    return EditPlan(add, remove, one_line) if add or remove else None
