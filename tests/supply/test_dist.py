"""What is shipped has the same bytes wherever and whenever it is built, and a build of which that is not true is told from one."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from scripts.dist import twice

ROOT = Path(__file__).resolve().parents[2]
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "small"
version = "1"
requires-python = ">=3.11"
[tool.hatch.build.targets.sdist]
only-include = ["hatch_build.py", "small"]
{more}
"""
#: Asks the clock what to ship.
HOOK = """
import time
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
class Hook(BuildHookInterface):
    def initialize(self, version, build_data):
        open(self.root + "/small/made.py", "w").write(f"BUILT = {time.time()}")
"""


def tree(folder: Path, more: str = "") -> Path:
    (folder / "small").mkdir(parents=True)
    for name in ("__init__", "b", "a"):
        (folder / "small" / f"{name}.py").write_text(f"# {name}")
    (folder / "hatch_build.py").write_text(HOOK)
    (folder / "pyproject.toml").write_text(PROJECT.format(more=more))
    return folder


def test_the_same_bytes(tmp_path):
    assert twice(tree(tmp_path / "tree"), tmp_path / "dist") == []
    assert sorted(file.name for file in (tmp_path / "dist").iterdir()) == ["small-1-py3-none-any.whl", "small-1.tar.gz"]  # fmt: skip


@pytest.mark.parametrize(
    "more", ["[tool.hatch.build]\nreproducible = false", "[tool.hatch.build.hooks.custom]"]
)
def test_dates_of_files_and_the_clock_are_seen(tmp_path, more):
    found = twice(tree(tmp_path / "tree", more), tmp_path / "dist")
    assert "small-1-py3-none-any.whl: not the same bytes when it is built elsewhere" in found


def test_the_wheel_holds_the_packages_and_nothing_else():
    wheel = next((ROOT / "dist").glob("*.whl"))
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    adapters = {folder.name for folder in (ROOT / "adapters").iterdir() if (folder / "__init__.py").exists()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"meshlib", *adapters}
