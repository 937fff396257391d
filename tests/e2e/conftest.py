"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import meshlib
from tests.support.celery_kit import MISSING, SERVER, Redis
from tests.support.faces import FACES, Face, FaceFactory


@pytest.fixture
def at_once() -> Iterator[None]:
    """The test does not wait in earnest for what is due in minutes."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 30.0


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of the test's own."""
    if SERVER is None:
        pytest.skip(MISSING)
    with Redis(tmp_path) as server:
        yield server


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> Iterator[FaceFactory]:
    """A function that makes a client of each face in turn: ``face({"services": …})``, or with a Mesh."""
    made: list[Face] = []
    meshes: list[meshlib.Mesh] = []

    def make(mesh: meshlib.Mesh | dict[str, Any], **options: Any) -> Face:
        if not isinstance(mesh, meshlib.Mesh):
            mesh = meshlib.Mesh(mesh)
            meshes.append(mesh)
        client = Face(request.param, mesh, **options)
        client.mesh = mesh  # type: ignore[attr-defined]
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()
    for mesh in meshes:
        mesh.close()
