"""Every row runs on every column; ``differences.py`` says where libraries rightly differ, and what is known to be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import meshlib
from meshlib import patching
from meshlib.mesh import configure
from tests.hosts.columns import COLUMNS, Column, Options, column_of
from tests.hosts.differences import RIGHT, faults_of

Open = Callable[..., Column]


#: Python and aiohttp warn of connections that nobody closed, as some rows have it: in whatever test the collector comes by.
_LOST = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <(function Connection.__del__|socket.socket):pytest.PytestUnraisableExceptionWarning"
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        call = getattr(item, "callspec", None)
        name = call.params.get("column") if call is not None else None
        if name is None:
            continue
        item.add_marker(_LOST)
        row = item.originalname  # type: ignore[attr-defined]
        kinds = [value for key, value in call.params.items() if key != "column"]
        for reason in faults_of(row, name, kinds[0] if kinds else None):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture(params=COLUMNS)
def column(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def right(request: pytest.FixtureRequest, column: str) -> str:
    """How this library rightly differs in this row, in the word that the row knows; ``""`` where it does not."""
    found = RIGHT.get(request.node.originalname, {}).get(column.removesuffix(" run"), ("", ""))
    return found[0]


@pytest.fixture
def open_client(column: str) -> Iterator[Open]:
    """Makes a client of the column: ``open_client({"services": …}, read=0.2)``."""
    opened: list[Column] = []
    meshes: list[meshlib.Mesh] = []
    run = column.endswith(" run")

    def make(config: Any, **options: Any) -> Column:
        mesh = config if isinstance(config, meshlib.Mesh) else meshlib.Mesh(config)
        meshes.append(mesh)
        if run:
            configure(lambda: mesh)
            patching.install()
        client = column_of(column)(mesh, Options(**options))
        opened.append(client)
        return client

    try:
        yield make
    finally:
        for client in opened:
            client.close()
        if run:
            patching.remove()
            configure(None)
        for mesh in meshes:
            mesh.close()
