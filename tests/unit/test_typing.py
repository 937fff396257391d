"""What type checkers are told of the host libraries' arguments is what those take; and that a wrong line is noticed."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from pathlib import Path

import aiohttp
import httpx
import httpx2
import pytest

ROOT = Path(__file__).resolve().parents[2]


def keys(path, name):
    """The keys of a TypedDict and of those that it extends, read from its source: type checkers alone see it."""
    classes = {
        node.name: node
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.ClassDef)
    }
    node = classes[name]
    found = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
    for base in node.bases:
        if base.id in classes:
            found |= keys(path, base.id)
    return found


#: What the lowest version that is allowed does not take yet.
LATER = {aiohttp.ClientSession: {"json_serialize_bytes", "max_headers"}}


@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        ("meshlib/client.py", "ClientOptions", httpx.Client),
        ("meshlib/client.py", "AsyncClientOptions", httpx.AsyncClient),
        ("meshlib/client.py", "TransportOptions", httpx.HTTPTransport),
        ("meshlib/client.py", "TransportOptions", httpx.AsyncHTTPTransport),
        ("meshlib/httpx2.py", "ClientOptions", httpx2.Client),
        ("meshlib/httpx2.py", "AsyncClientOptions", httpx2.AsyncClient),
        ("meshlib/httpx2.py", "TransportOptions", httpx2.HTTPTransport),
        ("meshlib/httpx2.py", "TransportOptions", httpx2.AsyncHTTPTransport),
        ("adapters/meshlib_aiohttp/session.py", "SessionOptions", aiohttp.ClientSession),
    ],
)
def test_the_options_that_are_typed_are_those_that_the_library_takes(path, name, kind):
    typed, taken = keys(path, name), set(inspect.signature(kind).parameters)
    assert taken - {"base_url"} <= typed
    assert typed - taken <= LATER.get(kind, set())


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("check_types", ROOT / "scripts" / "check_types.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_line_that_a_checker_accepts_or_refuses_against_its_mark_is_a_finding(
    script, tmp_path, monkeypatch
):
    (tmp_path / "app.py").write_text(
        "one: int = 1  # wrong\ntwo: int = ''  # wrong\nthree: int = ''\nfour = 4\n"
    )
    said = {("app.py", 2): "no", ("app.py", 3): "no"}
    monkeypatch.setattr(script, "mypy", lambda files: said)
    monkeypatch.setattr(script, "pyright", lambda directory: {})
    assert list(script.findings(tmp_path)) == [
        "app.py:1: mypy finds nothing wrong",
        "app.py:3: mypy: no",
        "app.py:1: pyright finds nothing wrong",
        "app.py:2: pyright finds nothing wrong",
    ]


def test_there_are_lines_to_refuse_and_an_application_without_any():
    wrong = (ROOT / "tests/typing/wrong.py").read_text().splitlines()
    assert sum(line.endswith("# wrong") for line in wrong) >= 40
    assert "# wrong" not in (ROOT / "tests/typing/app.py").read_text()
