"""The pytest plugin: the test kit as fixtures. Each fixture loads what it needs when a test asks for it.

`meshlib_control_plane`: a started `ControlPlane`, stopped after the test.
`meshlib_upstream`: a function that starts an `Upstream`, such as `meshlib_upstream("v1")`; all are stopped after the test.
`meshlib_grpc_upstream`: the same for a `GrpcUpstream`.
`meshlib_clock`: a new `VirtualClock`.
`meshlib_mesh`: a function that makes a hermetic `Mesh`, such as `meshlib_mesh({"services": …})`; all are closed after the test.
`meshlib_environment`: no variable of the shell that configures a mesh is there during the test.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from meshlib.mesh import Mesh
    from meshlib.testing.clock import VirtualClock
    from meshlib.testing.control_plane import ControlPlane
    from meshlib.testing.grpc_upstream import GrpcUpstream
    from meshlib.testing.upstream import Upstream

__all__ = [
    "GrpcUpstreamFactory",
    "MeshFactory",
    "UpstreamFactory",
    "meshlib_clock",
    "meshlib_control_plane",
    "meshlib_environment",
    "meshlib_grpc_upstream",
    "meshlib_mesh",
    "meshlib_upstream",
]

#: What of the environment says something to a mesh.
_PREFIXES = ("MESHLIB_", "GRPC_XDS_")


class _AsItIs:
    """A finder of meshlib's modules before pytest's, which rewrites the assertions of all that a plugin is distributed with.

    A module that is needed first in the middle of a call would be compiled there, by each thread that needs another:
    Python before 3.11.9 fails at times when two threads parse (python/cpython#106905), and the call with it.
    """

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, path, target) if name.startswith("meshlib.") else None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    sys.meta_path.insert(0, _AsItIs)
    early_config.add_cleanup(lambda: sys.meta_path.remove(_AsItIs))


class UpstreamFactory(Protocol):
    """Starts a server that says that it is `name`; further arguments are those of `Upstream`."""

    def __call__(self, name: str = "upstream", **options: Any) -> Upstream: ...


class GrpcUpstreamFactory(Protocol):
    """Starts a gRPC server that says that it is `name`; further arguments are those of `GrpcUpstream`."""

    def __call__(self, name: str = "upstream", **options: Any) -> GrpcUpstream: ...


class MeshFactory(Protocol):
    """Makes a mesh of what is given and of nothing else: no file and no variable counts. `clock`: a `VirtualClock`."""

    def __call__(self, config: Mapping[str, object] = ..., *, clock: VirtualClock | None = None) -> Mesh: ...


@pytest.fixture
def meshlib_control_plane() -> Iterator[ControlPlane]:
    """A control plane on 127.0.0.1 with nothing in it yet."""
    from meshlib.testing.control_plane import ControlPlane

    with ControlPlane() as running:
        yield running


@pytest.fixture
def meshlib_upstream() -> Iterator[UpstreamFactory]:
    """A function that starts HTTP servers on 127.0.0.1."""
    from meshlib.testing.upstream import Upstream

    with _started(Upstream) as start:
        yield start


@pytest.fixture
def meshlib_grpc_upstream() -> Iterator[GrpcUpstreamFactory]:
    """A function that starts gRPC servers on 127.0.0.1."""
    from meshlib.testing.grpc_upstream import GrpcUpstream

    with _started(GrpcUpstream) as start:
        yield start


@contextmanager
def _started(kind: Any) -> Iterator[Any]:
    servers: list[Any] = []

    def start(name: str = "upstream", **options: Any) -> Any:
        server = kind(name, **options)
        servers.append(server)
        return server.start()

    try:
        yield start
    finally:
        for server in reversed(servers):
            server.stop()


@pytest.fixture
def meshlib_clock() -> VirtualClock:
    """A clock that stands still until the test moves it."""
    from meshlib.testing.clock import VirtualClock

    return VirtualClock()


@pytest.fixture
def meshlib_mesh() -> Iterator[MeshFactory]:
    """A function that makes meshes that depend on nothing outside."""
    from meshlib.config import Config
    from meshlib.mesh import Mesh

    made: list[Mesh] = []

    def make(config: Mapping[str, object] | None = None, *, clock: VirtualClock | None = None) -> Mesh:
        mesh = Mesh(Config.from_mapping({} if config is None else config), clock=clock)
        made.append(mesh)
        return mesh

    try:
        yield make
    finally:
        for mesh in reversed(made):
            mesh.close()


@pytest.fixture
def meshlib_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No variable that configures a mesh; the process's own mesh (`meshlib.default()`) is made anew in the test, and again after
    it. Gives pytest's `monkeypatch`, to set variables of the test's own. For `@pytest.mark.usefixtures`, or for a fixture
    of yours with `autouse=True`.
    """
    import os

    from meshlib.mesh import close_default

    for name in [name for name in os.environ if name.startswith(_PREFIXES)]:
        monkeypatch.delenv(name)
    close_default()
    yield monkeypatch
    close_default()
