"""What the documentation shows is true: its configurations are read, its programs compile, its files are there."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib

import pytest

import meshlib
from tests.support.pages import PAGES, ROOT, blocks


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_a_configuration_that_is_shown_is_read(block):
    mapping = tomllib.loads(block.body)
    mapping.pop("services_file", None)  # the file that it names is the reader's
    assert meshlib.Config.from_mapping(mapping)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_program_that_is_shown_uses_public_names_only(block):
    tree = ast.parse(block.body)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "meshlib"
    }
    submodules = {"grpc", "httpx2", "testing"}
    assert used - submodules <= set(meshlib.__all__)


def test_there_are_blocks_to_check():
    assert len(blocks("toml")) >= 8
    assert len(blocks("python")) >= 8


def test_every_page_of_the_navigation_is_there_and_every_page_is_in_it():
    navigation = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r"([\w/-]+\.md)$", navigation, re.MULTILINE))
    there = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert named == there


def test_the_readme_begins_with_its_title_and_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert lines[0] == "# meshlib"
    assert [line.split()[1:3] for line in lines if line.startswith("$ ")][:2] == [
        ["make", "demo"],
        ["make", "test"],
    ]


def test_the_lines_that_install_work_before_the_first_release():
    """The first page and the quick start install from the clone, and say what comes with a release."""
    for page in ("README.md", "docs/quickstart.md"):
        shown = [
            block.body for block in blocks("console") if block.page == page and "pip install" in block.body
        ]
        assert shown == ["$ python -m pip install '.[cli]'\n"]
        assert "no release yet" in (ROOT / page).read_text()


def test_the_summary_promises_what_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = f"{project['description']} {' '.join(project['keywords'])}".lower()
    assert "grpc" not in said  # comes in a later release
    for library in ("requests", "urllib3", "httpx", "aiohttp"):
        assert library in said


def test_the_pages_stand_in_the_order_in_which_people_join():
    pages = re.findall(r"tasks/([\w-]+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert pages[:3] == ["join", "requests", "aiohttp"]
    ways = pages.index("static-services")
    assert {"django", "flask", "fastapi", "celery", "gunicorn"} <= set(pages[:ways])
    index = (ROOT / "docs" / "index.md").read_text()
    assert (
        index.index("tasks/join.md")
        < index.index("tasks/requests.md")
        < index.index("tasks/control-plane.md")
    )


def test_the_site_says_which_version_it_is_of():
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "scripts" / "docs_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    config = hooks.on_config({"site_name": "meshlib"})
    assert config["site_name"] == f"meshlib {meshlib.__version__}"
    assert "scripts/docs_hooks.py" in (ROOT / "mkdocs.yml").read_text()


@pytest.mark.parametrize(
    ("page", "target"),
    [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.relative_to(ROOT)),
)
def test_a_link_leads_somewhere(page, target):
    assert (page.parent / target).exists()


def test_every_target_that_the_documentation_names_is_in_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text())}
    assert named <= targets
    assert {
        "demo",
        "test",
        "check",
        "bench",
        "docs",
        "oracle",
        "interop",
        "interop-istio",
        "drift",
        "storm",
    } <= targets


def test_fragments_have_the_names_that_their_readme_tells():
    for fragment in (ROOT / "changes.d").iterdir():
        if fragment.name != "README.md":
            assert re.fullmatch(r"\+[a-z0-9-]+\.(added|changed|fixed|removed)(\.\d+)?\.md", fragment.name), (
                fragment
            )
            assert fragment.read_text().strip()
