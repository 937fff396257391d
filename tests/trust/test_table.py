"""Materials × faults × clients: who is right is answered, and nobody else is sent a byte of a request (TL-01 … TL-06).

    python -m pytest tests/trust -s      shows the table

Each client goes through all cells. The server says that nothing arrived; the error says why, and comes soon.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import meshlib
from tests.hosts.columns import COLUMNS, Ask, Options, column_of
from tests.support.grpc_channels import FACES, Channel
from tests.trust.material import FAULTS, MATERIALS
from tests.trust.world import Cell, World, cells

#: Seconds that a refusal may take, on a machine that does other things as well.
SOON = 5.0
HTTP = tuple(name for name in COLUMNS if not name.endswith(" run"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("trust")) as made:
        yield made


Call = Callable[[meshlib.Mesh, Cell], None]


@pytest.fixture
def http(request: pytest.FixtureRequest) -> Iterator[Call]:
    """Clients of one library, one for each mesh."""
    clients: dict[int, Any] = {}

    def call(mesh: meshlib.Mesh, cell: Cell) -> None:
        if id(mesh) not in clients:
            clients[id(mesh)] = column_of(request.param)(mesh, Options(connect=10.0, read=10.0))
        assert clients[id(mesh)].call(Ask(url=f"http://{cell.name}/")).status == 200

    yield call
    for client in clients.values():
        client.close()


@pytest.fixture
def rpc(request: pytest.FixtureRequest) -> Iterator[Call]:
    """Channels of one kind, one for each cell."""
    channels: list[Channel] = []

    def call(mesh: meshlib.Mesh, cell: Cell) -> None:
        channels.append(Channel(request.param, f"{cell.name}:80", mesh))
        assert channels[-1].who(timeout=10.0)

    yield call
    for channel in channels:
        channel.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("http", HTTP, indirect=True)
def test_http(http: Call, world: World, request: pytest.FixtureRequest) -> None:
    seen(request.node.callspec.params["http"], http, world, cells("python", "envoy"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("rpc", FACES, indirect=True)
def test_grpc(rpc: Call, world: World, request: pytest.FixtureRequest) -> None:
    seen(f"grpc {request.node.callspec.params['rpc']}", rpc, world, cells("grpcio", "envoy"))


def seen(client: str, call: Call, world: World, asked: list[Cell]) -> None:
    """Go through the cells, show the table, and tell of every one that is not as it should be."""
    wrong, marks, arrived = [], {}, Counter()  # type: ignore[var-annotated]
    before = {
        cell: world.count(cell) for cell in {(each.peer, each.fault.server): each for each in asked}.values()
    }
    begun = time.monotonic()
    for cell in asked:
        problem = trouble(call, world, cell)
        marks[cell] = "!" if problem else "R" if cell.words else "+"
        arrived[cell.peer, cell.fault.server] += not cell.words
        if problem:
            wrong.append(f"{cell.name}: {problem}")
    for cell, count in before.items():
        new, right = world.count(cell) - count, arrived[cell.peer, cell.fault.server]
        if new != right:
            wrong.append(f"the {cell.peer} server {cell.fault.server!r} had {new} requests, not {right}")
    show(client, marks, time.monotonic() - begun)
    assert not wrong, "\n".join(wrong)


def trouble(call: Call, world: World, cell: Cell) -> str:
    """What is wrong with what came of a call; ``""``: nothing."""
    begun = time.monotonic()
    try:
        call(world.mesh(cell), cell)
    except Exception as error:  # noqa: BLE001 - each library has its own
        text = words(error)
        spent = time.monotonic() - begun
        if not cell.words:
            return f"refused: {text}"
        if not any(word in text.lower() for word in cell.words):
            return f"refused in words that do not say {cell.words[0]!r}: {text}"
        return f"took {spent:.1f} s" if spent > SOON else ""
    return "answered" if cell.words else ""


def words(error: BaseException | None) -> str:
    """All that an error says, and those under it."""
    said = []
    while error is not None and len(said) < 10:
        said.append(error.details() or "" if isinstance(error, grpc.RpcError) else str(error))
        error = error.__cause__ or error.__context__
    return " | ".join(said)


def show(client: str, marks: dict[Cell, str], seconds: float) -> None:
    """``+`` answered, ``R`` refused, ``!`` neither as it should be."""
    print(f"\n{client}: {len(marks)} cells in {seconds:.1f} s")
    for peer in dict.fromkeys(cell.peer for cell in marks):
        for material in MATERIALS:
            row = {
                cell.fault.name: mark
                for cell, mark in marks.items()
                if (cell.peer, cell.material) == (peer, material)
            }
            if row:
                print(
                    f"  {peer:7}{material.name:14}" + " ".join(row.get(fault.name, " ") for fault in FAULTS)
                )
    print(f"  {'':21}" + " ".join(fault.name[0] for fault in FAULTS))
    print(f"  {'':21}" + ", ".join(fault.name for fault in FAULTS))
