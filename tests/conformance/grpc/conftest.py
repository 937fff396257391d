"""What each case gets: a control plane, servers, and a channel of each kind in turn.

``grpcio`` is grpcio's own channel of ``xds:///``, the oracle; ``sync`` and ``aio`` are ours. ``MESHLIB_TEST_CONFORMANCE=8`` tries every
eighth case of each file, on all three.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import meshlib
import meshlib.grpc
from meshlib.testing import ControlPlane, build
from tests.conformance.support.caller import AioCalls, Caller, Loop, SyncCalls
from tests.conformance.support.scene import Scene
from tests.conformance.support.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ["grpcio", "sync", "aio"]

# An endpoint that was away is looked for again soon.
OPTIONS = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200))

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    for marker in (
        "plane(**arguments): further arguments of the case's control plane",
        "oracle_differs(reason): grpcio's channel does not do as the case says",
        "ours_differs(reason): our channels do not, by intent; the reason says where that is written",
        "sotw(reason): the case is of state of the world",
    ):
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    every = int(os.environ.get("MESHLIB_TEST_CONFORMANCE", "1"))
    here = Path(__file__).parent
    mine = [item for item in items if item.path.parent == here]  # pytest gives those of other folders, too
    files: dict[Path, dict[str, None]] = defaultdict(dict)
    for item in mine:
        files[item.path].setdefault(_case(item))
    chosen = {(path, case) for path, cases in files.items() for case in list(cases)[::every]}
    left = {item for item in mine if (item.path, _case(item)) not in chosen}
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


def _case(item: pytest.Item) -> str:
    """What it is called, but for the channel."""
    kind = item.callspec.params["kind"] if hasattr(item, "callspec") else ""
    return item.name.replace(f"[{kind}]", "").replace(f"[{kind}-", "[")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Whose channel the case is tried on."""
    chosen = str(request.param)
    for mark in request.node.iter_markers("oracle_differs" if chosen == "grpcio" else "ours_differs"):
        request.applymarker(pytest.mark.xfail(reason=mark.args[0]))
    return chosen


@pytest.fixture
def plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """A control plane with nothing in it; a mark ``plane`` has further arguments of ``ControlPlane``."""
    mark = request.node.get_closest_marker("plane")
    with ControlPlane(**(mark.kwargs if mark else {})) as running:
        yield running


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """A function that starts a server of this name. Arguments as of ``Server``."""
    started: list[Server] = []

    def start(name: str, **options: Any) -> Server:
        started.append(Server(name, **options).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture(scope="session")
def grpcios_advance() -> float:
    """Seconds by which grpcio ends a call too early whose limit comes from a configuration.

    It counts such limits by its cycle counter from a moment that lies one to two seconds before what it takes it for:
    as long in each call of a process, so that it can be measured once, and be added.
    """
    config = {"methodConfig": [{"name": [{}], "timeout": "3s"}]}
    server = Server("clock").start()
    server.hold()
    with grpc.insecure_channel(
        server.address, options=[("grpc.service_config", json.dumps(config))]
    ) as channel:
        answer = Caller(SyncCalls(channel)).call(timeout=5)
    server.stop()
    assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED
    return 3 - answer.seconds


@pytest.fixture
def limit(kind: str, request: pytest.FixtureRequest) -> Callable[[float], str]:
    """A function that says a limit of so many seconds as a configuration does."""
    advance = request.getfixturevalue("grpcios_advance") if kind == "grpcio" else 0.0
    return lambda seconds: build.duration(seconds + advance)


@pytest.fixture
def scene(plane: ControlPlane, serve: Callable[[str], Server]) -> Scene:
    """The resources of one target, of a name that no other case has."""
    return Scene(f"target-{os.getpid()}-{next(_numbers)}", plane, serve)


class _Channels:
    """Makes the callers of one case, and closes them."""

    def __init__(self, kind: str, scene: Scene, loop: Loop, bootstrap: Path, protocol: str) -> None:
        self._kind = kind
        self._protocol = protocol
        self._scene = scene
        self._loop = loop
        self._bootstrap = bootstrap
        self._mesh: meshlib.Mesh | None = None
        self._made: list[Caller] = []

    def __call__(self, target: str | None = None, *, authority: str | None = None) -> Caller:
        target = target or self._scene.name
        options = list(OPTIONS)
        if authority is not None:
            options.append(("grpc.default_authority", authority))
        self._made.append(Caller(self._calls(target, options)))
        return self._made[-1]

    def _calls(self, target: str, options: list[tuple[str, Any]]) -> SyncCalls | AioCalls:
        self._bootstrap.write_text(json.dumps(self._scene.bootstrap()))
        if self._kind == "grpcio":
            return SyncCalls(grpc.insecure_channel(f"xds:///{target}", options=options))
        if self._mesh is None:
            xds = {"bootstrap": str(self._bootstrap), "view": "target", "protocol": self._protocol}
            self._mesh = meshlib.Mesh({"xds": xds, "unknown_hosts": "refuse"})
        mesh = self._mesh
        if self._kind == "sync":
            return SyncCalls(meshlib.grpc.channel(target, options=options, mesh=mesh))
        return AioCalls(self._loop, lambda: meshlib.grpc.aio.channel(target, options=options, mesh=mesh))

    def close(self) -> None:
        for caller in self._made:
            caller.close()
        if self._mesh is not None:
            self._mesh.close()


@pytest.fixture
def connect(
    kind: str,
    scene: Scene,
    loop: Loop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., Caller]]:
    """A function that opens a channel to the scene's target; ``authority`` is what virtual hosts are matched against.

    grpcio reads the bootstrap whenever a channel to a target begins that no other channel has. ``sync`` is asked by state
    of the world, ``aio`` by delta, and the same answers are due.
    """
    sotw = kind == "sync" or request.node.get_closest_marker("sotw") is not None
    bootstrap = tmp_path / "bootstrap.json"
    monkeypatch.setenv("GRPC_XDS_BOOTSTRAP", str(bootstrap))
    channels = _Channels(kind, scene, loop, bootstrap, "sotw" if sotw else "delta")
    yield channels
    channels.close()
