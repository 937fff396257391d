"""What the documentation shows is true: its configurations are read, its programs compile, its files are there."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from tests.support.pages import PAGES, ROOT, blocks


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_a_configuration_that_is_shown_is_read(block):
    import meshlib

    mapping = tomllib.loads(block.body)
    mapping.pop("services_file", None)  # the file that it names is the reader's
    assert meshlib.Config.from_mapping(mapping)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_program_that_is_shown_uses_public_names_only(block):
    import meshlib

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


def test_the_readme_begins_with_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert lines[1].split()[1:3] == ["make", "demo"]
    assert lines[2].split()[1:3] == ["make", "test"]


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
