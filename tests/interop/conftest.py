"""What both control planes' tests share: upstreams, meshes, and programs that are built when they are first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.interop import build
from tests.interop.support.upstreams import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import meshlib


def built(name: str) -> Path:
    """The program's binary; without Go the test is skipped with the way to get it."""
    try:
        return build.PROGRAMS[name]()
    except build.GoMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def go_control_plane_binary() -> Path:
    return built("go-control-plane")


@pytest.fixture(scope="session")
def istiod_binary() -> Path:
    return built("istiod")


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
