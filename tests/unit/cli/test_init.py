"""`meshlib init` writes a file that is right as it is, and right with each of its comments taken away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

import meshlib
from meshlib.cli.app import app
from meshlib.cli.check import inspect
from meshlib.cli.init import TEXT

runner = CliRunner()


def invoke(*arguments: str):
    return runner.invoke(app, ["init", *arguments])


def test_it_writes_a_file_that_is_fine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke()
    assert result.exit_code == 0
    assert "meshlib check mesh.toml" in result.stdout
    report = inspect(tmp_path / "mesh.toml")
    assert (report.problems, report.warnings, report.ignored, report.findings) == ((), (), (), ())
    assert list(meshlib.Config.from_file("mesh.toml").services) == ["reviews"]


def test_what_it_comments_out_is_right_too(tmp_path):
    lines = [line.removeprefix("#") if line[:2] != "# " else line for line in TEXT.splitlines()]
    path = tmp_path / "all.toml"
    path.write_text("\n".join(lines))
    report = inspect(path)
    assert (report.problems, report.warnings, report.ignored, report.findings) == ((), (), (), ())
    config = meshlib.Config.from_file(path)
    assert config.xds.server is not None
    assert config.services["reviews"].breaker is not None
    assert len(config.services["reviews"].routes) == 1
    assert set(config.services) == {"reviews", "ratings"}


def test_its_name_is_in_what_it_says(tmp_path):
    path = tmp_path / "shop.toml"
    assert json.loads(invoke(str(path), "--json").stdout) == {"file": str(path)}
    assert "meshlib check shop.toml" in path.read_text()
    assert "mesh.toml" not in path.read_text()


def test_a_file_that_is_there_is_left_as_it_is(tmp_path):
    path = tmp_path / "mesh.toml"
    path.write_text("# mine\n")
    result = invoke(str(path))
    assert result.exit_code == 1
    assert f"{path} is there already" in "".join(result.stderr.splitlines())
    assert path.read_text() == "# mine\n"


def test_a_link_that_leads_nowhere_is_there_too(tmp_path):
    path = tmp_path / "mesh.toml"
    path.symlink_to(tmp_path / "elsewhere")
    assert invoke(str(path)).exit_code == 1
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["nowhere/mesh.toml", "mesh.yaml", "mesh"])
def test_what_cannot_be_written_is_said(tmp_path: Path, name):
    result = invoke(os.fspath(tmp_path / name))
    assert result.exit_code in {1, 2}
    assert "init: " in result.stderr
    assert list(tmp_path.iterdir()) == []
