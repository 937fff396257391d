"""What the control planes' tests share: upstreams, meshes, and programs that are built when they are first needed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop import build
from tests.interop.support.programs import SnapshotServer
from tests.interop.support.upstreams import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import meshlib


@functools.cache
def built(name: str) -> Path:
    """The program's binary; without what builds it the test is skipped with the way to get it."""
    try:
        return build.PROGRAMS[name]()
    except build.ToolMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def binary(request: pytest.FixtureRequest) -> Path:
    """The program of the folder that the test is in."""
    return built(request.path.parent.name)


@pytest.fixture(params=["target", "sidecar"])
def view(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def launch(binary: Path, tmp_path: Path) -> Iterator[Callable[..., SnapshotServer]]:
    """A control plane that takes snapshots, with these options, running; stopped at the end."""
    programs: list[SnapshotServer] = []

    def start(*options: str) -> SnapshotServer:
        folder = tmp_path / f"control-plane-{len(programs)}"
        folder.mkdir()
        programs.append(SnapshotServer(binary, folder, *options))
        programs[-1].start()
        return programs[-1]

    yield start
    for program in programs:
        program.stop()


@pytest.fixture
def protocol() -> str:
    """How it is asked: by default as our own default has it, by delta."""
    return "auto"


@pytest.fixture
def plane(launch: Callable[..., SnapshotServer], protocol: str) -> SnapshotServer:
    running = launch()
    running.protocol = protocol
    return running


@pytest.fixture
def upstream() -> Iterator[Callable[..., Upstream]]:
    """Starts an upstream by name, and address if it matters; all are closed at the end."""
    running: list[Upstream] = []

    def start(name: str, host: str = "127.0.0.1") -> Upstream:
        running.append(Upstream(name, host))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture
def make_mesh() -> Iterator[Callable[[Any], meshlib.Mesh]]:
    """A Mesh of a configuration; all are closed at the end."""
    import meshlib

    open_meshes: list[meshlib.Mesh] = []

    def make(config: Any) -> meshlib.Mesh:
        open_meshes.append(meshlib.Mesh(config))
        return open_meshes[-1]

    yield make
    for mesh in open_meshes:
        mesh.close()
