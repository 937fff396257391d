"""What the first pages say of their programs is true. That every block runs is in test_snippets.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from meshlib.testing import Upstream

ROOT = Path(__file__).resolve().parents[2]


def fenced(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def two_servers(tmp_path):
    """Two upstreams, and mesh.toml of the page with their addresses in the place of its own."""

    def write(page: str):
        text = fenced(page, "toml")[0]
        shown = re.findall(r"127\.0\.0\.1:808\d", text)
        assert len(shown) == 2
        for address, server in zip(shown, servers, strict=True):
            text = text.replace(address, server.address)
        (tmp_path / "mesh.toml").write_text(text)
        return servers

    with Upstream("a") as one, Upstream("b") as other:
        servers = (one, other)
        yield write


def run(program: str, directory: Path) -> list[str]:
    command = [sys.executable, "-W", "error", "-c", program]
    env_free = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=directory, env=env_free, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


def test_the_quick_start_takes_turns_and_passes_over_a_dead_server(two_servers, tmp_path):
    one, other = two_servers("docs/quickstart.md")
    program = next(code for code in fenced("docs/quickstart.md", "python") if "for _ in range(4)" in code)
    rows = [line.split() for line in run(program, tmp_path)]
    assert [row[0] for row in rows] == ["200"] * 4
    assert {row[2] for row in rows} == {one.address, other.address}
    one.kill()
    rows = [line.split() for line in run(program, tmp_path)]
    assert [row[0] for row in rows] == ["200"] * 4
    assert {row[2] for row in rows} == {other.address}
    assert "2" in {row[3] for row in rows}


def test_the_asynchronous_quick_start(two_servers, tmp_path):
    two_servers("docs/quickstart.md")
    program = next(code for code in fenced("docs/quickstart.md", "python") if "asyncio.run" in code)
    assert [line.split()[0] for line in run(program, tmp_path)] == ["200"]


def test_the_program_of_the_readme(two_servers, tmp_path):
    one, other = two_servers("README.md")
    lines = run(fenced("README.md", "python")[0], tmp_path)
    status, endpoint, attempts = lines[0].split()
    assert (status, attempts) == ("200", "1")
    assert endpoint in {one.address, other.address}
    assert len(lines) > 1  # the trace
