"""What the product imports is declared, and what is declared is imported."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = {path.name for path in (ROOT / "adapters").iterdir()} | {"meshlib"}

#: What is there whenever the line that imports it runs, whoever brought it.
HOSTS = {
    "pytest": "its plugin is loaded by it",
    "gevent": "asked only where it has patched the process",
    "trio": "asked for inside of its own event loop",
    "sitecustomize": "another's, which ours stands in front of",
}
#: Extras that stand for what a program brings itself, or that others import for us.
UNSEEN = {"redis", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"}


def imported() -> dict[str, str]:
    """The top-level modules of others that the product imports, and a file that does."""
    found = {}
    for package in ("meshlib", "adapters"):
        for path in (ROOT / package).rglob("*.py*"):
            if path.suffix in {".py", ".pyi"}:
                for name in modules(ast.parse(path.read_text())):
                    found[name.partition(".")[0]] = str(path.relative_to(ROOT))
    return found


def modules(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "find_spec")):
            yield from (word.value for word in node.args if isinstance(word, ast.Constant))


def distributions() -> dict[str, str]:
    """The distribution of each module that is not Python's or ours, and a file that imports it."""
    there = packages_distributions()
    found = {}
    for module, path in imported().items():
        if module not in sys.stdlib_module_names | PACKAGES | HOSTS.keys():
            # Those that share a namespace (opentelemetry) count as the one that we declare.
            names = {canonicalize_name(name) for name in there.get(module, [module])}
            found[min(names & DECLARED or names)] = path
    return found


def requirements(lines) -> dict[str, Requirement]:
    parsed = map(Requirement, lines)
    return {canonicalize_name(one.name): one for one in parsed if one.name != PROJECT["name"]}


ALWAYS = requirements(PROJECT["dependencies"])
EXTRAS = requirements(
    line for extra, lines in PROJECT["optional-dependencies"].items() if extra != "dev" for line in lines
)
DECLARED = {*ALWAYS, *EXTRAS}


def test_what_is_imported_is_declared():
    missing = {name: path for name, path in distributions().items() if name not in DECLARED}
    assert not missing


def test_what_is_declared_is_imported():
    assert DECLARED - distributions().keys() == UNSEEN


@pytest.mark.parametrize("requirement", [*ALWAYS.values(), *EXTRAS.values()], ids=str)
def test_each_has_a_lowest_version(requirement):
    assert any(one.operator == ">=" for one in requirement.specifier)


def test_dev_asks_for_no_less_than_the_product():
    """`dev` names some of the same: it may not hide that a bound is too low."""
    dev = requirements(PROJECT["optional-dependencies"]["dev"])
    both = dev.keys() & DECLARED
    assert {name: str(dev[name].specifier) for name in both} == {
        name: str({**EXTRAS, **ALWAYS}[name].specifier) for name in both
    }
