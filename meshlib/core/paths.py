"""Which routes may match a path, without asking each of them.

A route's path is exact, a prefix, a prefix of whole segments, or an expression. All but an exact one begin with a known
text (an expression with what RE2 says that it begins with), so that two look-ups serve: the path itself, and its
beginnings of the lengths that occur. First match wins (RM-01): candidates come in the order of the configuration. A route
behind one that takes everything it could take is never asked; it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import merge

from meshlib.core.regex import compile_regex
from meshlib.core.strings import StringTest, fold, wire
from meshlib.model.match import PathKind, PathMatch

__all__ = ["PathIndex", "path_only", "path_test", "without_parameters"]

#: So many candidates are sorted at once; more are merged as they are asked for.
_FEW = 64


def path_only(path: str) -> str:
    """The path without query and fragment."""
    at = path.find("?")
    if at >= 0:
        path = path[:at]
    if "#" in path:
        path = path[: path.index("#")]
    return path


def without_parameters(path: str) -> str:
    """A path without the parameters of its segments (`/a;v=1/b` is `/a/b`)."""
    if ";" not in path:
        return path
    return "/".join(segment.partition(";")[0] for segment in path.split("/"))


def path_test(match: PathMatch) -> StringTest | None:
    """What the index cannot tell of a path that it gives the route for; None: nothing."""
    if match.kind is PathKind.REGEX:
        return compile_regex(match.value).full
    if match.kind is PathKind.SEPARATED_PREFIX:
        length = len(wire(match.value))
        return lambda path: len(path) == length or path[length] == "/"
    return None


class _Table:
    """Routes by what their path is (``exact``) or begins with (``prefixes``)."""

    __slots__ = ("exact", "lengths", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[str, list[int]] = {}
        self.prefixes: dict[str, list[int]] = {}
        self.lengths: tuple[int, ...] = ()

    def find(self, path: str, found: list[list[int]]) -> None:
        hit = self.exact.get(path)
        if hit is not None:
            found.append(hit)
        size, prefixes = len(path), self.prefixes
        for length in self.lengths:
            if length > size:
                return
            hit = prefixes.get(path[:length])
            if hit is not None:
                found.append(hit)


class PathIndex:
    """Immutable once made. ``routes``: the path of each route, and whether the path alone decides (no condition)."""

    __slots__ = ("_exactly", "_folded")

    def __init__(self, routes: Sequence[tuple[PathMatch, bool]]) -> None:
        self._exactly = _Table()
        folded = _Table()
        closed: set[tuple[bool, bool, str]] = set()
        for index, (match, decides) in enumerate(routes):
            _place(folded if _ignores_case(match) else self._exactly, index, match, closed, decides=decides)
        for table in (self._exactly, folded):
            table.lengths = tuple(sorted({len(prefix) for prefix in table.prefixes}))
        self._folded = folded if folded.exact or folded.prefixes else None

    def candidates(self, path: str) -> Iterable[int]:
        """The routes that may match ``path`` (without query), in order."""
        found: list[list[int]] = []
        self._exactly.find(path, found)
        if self._folded is not None:
            self._folded.find(fold(path), found)
        if len(found) == 1:
            return found[0]
        if not found:
            return ()
        if sum(map(len, found)) > _FEW:
            return merge(*found)
        joined = [index for part in found for index in part]
        joined.sort()
        return joined


def _ignores_case(match: PathMatch) -> bool:
    return not match.case_sensitive and match.kind is not PathKind.REGEX


def _place(
    table: _Table, index: int, match: PathMatch, closed: set[tuple[bool, bool, str]], *, decides: bool
) -> None:
    exact = match.kind is PathKind.EXACT
    ignores = _ignores_case(match)
    key = compile_regex(match.value).prefix if match.kind is PathKind.REGEX else wire(match.value)
    key = fold(key) if ignores else key
    mark = (exact, ignores, key)
    if mark in closed:
        return
    (table.exact if exact else table.prefixes).setdefault(key, []).append(index)
    if decides and match.kind in (PathKind.EXACT, PathKind.PREFIX):
        closed.add(mark)
