#!/usr/bin/env python3
"""House rules that no linter knows, read from the syntax trees of the files that git would commit.

    pure       model, core, xds and what decides in sidecar import no clock, randomness, thread, event loop, socket,
               environment, file or log
    circle     no modules of the product import each other in a circle, whether for types or inside functions
    module     a module of the product stops at 500 lines
    function   a function of the product stops at 60 lines
    swallowed  the product passes over no exception in silence
    nap        a test waits for an event or on the virtual clock; it neither sleeps nor looks again every few milliseconds
    place      no file names a path of somebody's machine or the host of a package registry
    syntax     every Python file parses

Exit code 0 when all hold, 1 with one line for each finding. ``python scripts/check_house.py [ROOT]``.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_FUNCTION", "MAX_MODULE", "Finding", "check_file", "check_tree", "main"]

MAX_MODULE = 500
MAX_FUNCTION = 60

PURE_ROOMS = ("meshlib/model/", "meshlib/core/", "meshlib/xds/")
#: In a room that is not pure as a whole.
PURE_MODULES = tuple(
    f"meshlib/sidecar/{name}.py"
    for name in ("course", "detect", "environment", "evidence", "proc", "signatures", "sock_diag")
)
PRODUCT = ("meshlib/", "adapters/")

# Everything through which a decision could depend on more than its arguments, by the root of the module's name.
IMPURE = {
    "clock": {"time", "sched"},
    "randomness": {"random", "secrets", "uuid"},
    "thread": {"threading", "_thread", "concurrent", "multiprocessing", "queue"},
    "event loop": {"asyncio", "anyio", "trio", "selectors", "select"},
    "socket": {"socket", "ssl", "http", "urllib", "socketserver", "grpc", "httpx", "httpx2", "dns"},
    "environment": {"os", "posix", "signal", "subprocess", "platform"},
    "file": {"pathlib", "tempfile", "shutil", "glob"},
    "log": {"logging", "warnings", "syslog"},
}
#: Folders of caches and environments.
LEFT = {"__pycache__", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", "build"}
KINDS = {name: kind for kind, names in IMPURE.items() for name in names}

# The package itself hands everybody's names on, and ``Config.load`` is the way in to what makes a Config.
CIRCLES = {("meshlib.config.values", "meshlib.config.layers")}
FACE = "meshlib"

#: Modules that have a ``sleep``. In all but the first, one of 0 seconds lets others run, and is none.
SLEEPERS = ("time", "asyncio", "anyio", "trio", "gevent", "eventlet")
#: Seconds below which ``wait`` waits for nothing, and only lets the time pass until the next look.
LOOK = 1.0
#: Who may all the same: path::function, with the classes and functions that it is in, and why.
NAPS = {
    "tests/e2e/oracle/envoy_process.py::EnvoyProcess._wait": "Envoy's admin address answers, and tells nothing by itself",
    "tests/e2e/test_fork_table.py::busy_plane.push": "a control plane that pushes all the time on purpose",
    "tests/e2e/test_requests.py::test_the_deadline_ends_a_body_that_trickles.trickle": "a server that is slow on purpose",
    "tests/interop/support/calling.py::Calls.pause": "paces a load; nothing is waited for",
    "tests/interop/support/calling.py::calling_async.work": "paces a load; nothing is waited for",
    "tests/support/asking.py::asked": "asks other programs and the kernel for what they tell nobody",
    "tests/support/gevent_calls.py::Ticks._run": "measures how late the hub wakes who sleeps",
    "tests/support/gevent_xds.py::Program.caller": "paces a load; nothing is waited for",
    "tests/support/gevent_xds.py::Program.tick": "measures how late the hub wakes who sleeps",
    "tests/support/handoff_program.py::call": "paces a load; nothing is waited for",
    "tests/support/handoff_program.py::acall": "paces a load; nothing is waited for",
    "tests/support/trust_soak.py::Load.pace_async": "paces a load; nothing is waited for",
    "tests/unit/wire/test_dial.py::TestLateLoops.stand_still": "a loop that stands still on purpose",
    "tests/unit/test_house.py::test_a_sleeping_test_is_found": "what the rule must find",
}

# A bracket around one letter keeps this file from finding itself.
PLACE = re.compile(
    r"(?<![\w.])/(?:[w]ork|[f]arm)/"
    r"|/[r]oot/"
    r"|(?<![\w.~-])/(?:[h]ome|[U]sers)/\w"
    r"|/tmp/[b]ash_jobs"
    r"|[p]ypi[.]org|[r]egistry[.]npmjs|[p]roxy[.]golang|repo1?[.][m]aven"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule: ``path`` relative to the root, ``line`` from 1, the rule's name, and what is wrong."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


def check_tree(root: Path) -> list[Finding]:
    """Every finding in the files that git knows or would add under `root`."""
    paths = tracked(root)
    found = [finding for path in paths for finding in check_path(root, path)]
    return [*found, *_circles(root, [path for path in paths if path.startswith(PRODUCT)])]


def tracked(root: Path) -> list[str]:
    if not (root / ".git").exists():  # a source distribution: all of it, without what running it left
        names = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
        return sorted(str(name) for name in names if not LEFT.intersection(name.parts))
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    return sorted({name for name in listing.stdout.decode().split("\0") if name})


def check_path(root: Path, path: str) -> Iterator[Finding]:
    file = root / path
    if file.is_symlink() or not file.is_file():
        return
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:  # an image, a certificate: nothing to read
        return
    yield from check_file(path, text)


def check_file(path: str, text: str) -> Iterator[Finding]:
    """The findings in one file; `path` is relative to the root and decides which rules apply."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := PLACE.search(line):
            yield Finding(path, number, "place", f"names {found[0]!r}")
    if not path.endswith(".py"):
        return
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield Finding(path, error.lineno or 1, "syntax", error.msg)
        return
    if path.startswith(PRODUCT):
        yield from _sizes(path, text, tree)
        yield from _swallowed(path, tree)
    if path.startswith(PURE_ROOMS) or path in PURE_MODULES:
        yield from _impure(path, tree)
    if path.startswith("tests/"):
        yield from _naps(path, tree)


def _sizes(path: str, text: str, tree: ast.Module) -> Iterator[Finding]:
    lines = len(text.splitlines())
    if lines > MAX_MODULE:
        yield Finding(path, 1, "module", f"{lines} lines, at most {MAX_MODULE}")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                yield Finding(
                    path, node.lineno, "function", f"{node.name} has {length} lines, at most {MAX_FUNCTION}"
                )


def _swallowed(path: str, tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and all(_says_nothing(line) for line in node.body):
            yield Finding(
                path, node.lineno, "swallowed", "an exception is passed over; handle it, or say why by name"
            )
        elif isinstance(node, ast.Call) and _called(node).split(".")[-1] == "suppress":
            broad = {"Exception", "BaseException"} & {ast.unparse(argument) for argument in node.args}
            if broad:
                yield Finding(
                    path, node.lineno, "swallowed", f"suppresses {broad.pop()}; name what may be passed over"
                )


def _says_nothing(line: ast.stmt) -> bool:
    return isinstance(line, ast.Pass) or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))


def _impure(path: str, tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt | ast.expr):
            continue
        for name in _imported(node):
            if kind := KINDS.get(name.split(".")[0]):
                yield Finding(path, node.lineno, "pure", f"imports {name} ({kind}); take it as an argument")
        if isinstance(node, ast.Call) and _called(node) in {"open", "input", "print"}:
            yield Finding(path, node.lineno, "pure", f"calls {_called(node)}()")


def _imported(node: ast.AST) -> list[str]:
    """The modules that a statement or a call by constant name imports; relative imports stay in the house."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module] if node.module and not node.level else []
    if isinstance(node, ast.Call) and _called(node).split(".")[-1] in {"__import__", "import_module"}:
        first = node.args[0] if node.args else None
        return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    return []


def _circles(root: Path, paths: list[str]) -> Iterator[Finding]:
    """One circle of modules, if there is any: each imports the next, and the last the first."""
    modules = {_module(path): path for path in paths if path.endswith(".py") and (root / path).is_file()}
    graph = {
        name: _imports(name, (root / path).read_text("utf-8"), modules) for name, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        yield Finding(modules[circle[0]], 1, "circle", " -> ".join(circle))


def _module(path: str) -> str:
    return path.removeprefix("adapters/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(module: str, text: str, modules: dict[str, str]) -> set[str]:
    """The modules among `modules` that `module` imports anywhere: at its head, for types, inside a function."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # told by the rule of that name
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        found.update(_imported(node))
        if isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
            if all(f"{node.module}.{alias.name}" in modules for alias in node.names):
                found.discard(node.module or "")
    return {name for name in found & set(modules) if (module, name) not in CIRCLES} - {module, FACE}


def _naps(path: str, tree: ast.Module) -> Iterator[Finding]:
    """Where a test sleeps, or waits less than ``LOOK``; also in programs that it holds as text. A place that is let off
    and does neither is found, too: it would let off what comes there next.
    """
    unused = {place for place in NAPS if place.startswith(f"{path}::")}
    finder = _Naps(tree)
    finder.visit(tree)
    for name, line, text in finder.found:
        used = {place for place in NAPS if f"{path}::{name}.".startswith(f"{place}.")}
        unused -= used
        if not used:
            yield Finding(path, line, "nap", f"{text}; wait for the event, or use the virtual clock")
    for place in sorted(unused):
        yield Finding(path, 1, "nap", f"{place} does not sleep, and is let off in NAPS")


class _Naps(ast.NodeVisitor):
    """``found``: the function with what it is in, the line (of a text's program: counted from where it begins), the words."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[tuple[str, int, str]] = []
        self._place: list[str] = []
        self._sleeps = {
            f"{module}.sleep": module for module in SLEEPERS
        }  # how the file calls it → whose it is
        self._numbers: dict[str, float] = {}  # of the names that the module gives to numbers
        for node in ast.walk(tree):
            self._learn(node)

    def _learn(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            renamed = (alias for alias in node.names if alias.name in SLEEPERS and alias.asname)
            self._sleeps.update((f"{alias.asname}.sleep", alias.name) for alias in renamed)
        elif isinstance(node, ast.ImportFrom) and node.module in SLEEPERS:
            taken = (alias for alias in node.names if alias.name == "sleep")
            self._sleeps.update((alias.asname or alias.name, node.module) for alias in taken)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, int | float):
                names = (target.id for target in node.targets if isinstance(target, ast.Name))
                self._numbers.update(dict.fromkeys(names, value))

    def _visit_named(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self._place.append(node.name)
        self.generic_visit(node)
        self._place.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _visit_named  # noqa: N815

    def visit_Call(self, node: ast.Call) -> None:
        name, seconds = _called(node), self._seconds(node)
        if name in self._sleeps:
            if seconds != 0 or self._sleeps[name] == "time":
                self._tell(node.lineno, "sleeps")
        elif name.split(".")[-1] in {"wait", "join"} and seconds is not None and 0 < seconds < LOOK:
            self._tell(node.lineno, f"waits {seconds:g} s to look again")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        text = node.value
        if isinstance(text, str) and "\n" in text and re.search(r"sleep|[.]wait|[.]join", text):
            try:
                program = ast.parse(textwrap.dedent(text))
            except SyntaxError:
                return
            inner = _Naps(program)
            inner.visit(program)
            for place, line, what in inner.found:
                self.found.append(
                    (".".join([*self._place, *filter(None, [place])]), node.lineno + line - 1, what)
                )

    def _tell(self, line: int, what: str) -> None:
        self.found.append((".".join(self._place), line, what))

    def _seconds(self, node: ast.Call) -> float | None:
        """The constant that the call waits for; None where it is no constant, or there is none."""
        given = [
            word.value for word in node.keywords if word.arg in ("timeout", "seconds", "delay")
        ] or node.args
        first = given[0] if len(given) == 1 else None
        if isinstance(first, ast.Name):
            return self._numbers.get(first.id)
        value = first.value if isinstance(first, ast.Constant) else None
        return value if isinstance(value, int | float) else None


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def main(arguments: list[str]) -> int:
    """Print the findings and give the exit code."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    findings = check_tree(root)
    for finding in findings:
        print(finding)
    print(f"house rules: {len(findings)} broken" if findings else "house rules: all hold")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
