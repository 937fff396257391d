"""The pytest plugin: the test kit as fixtures. Each fixture loads what it needs when a test asks for it.

`control_plane`: a started `ControlPlane`, stopped after the test.
`upstream`: a function that starts an `Upstream`, such as `upstream("v1")`; all are stopped after the test.
`virtual_clock`: a new `VirtualClock`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshlib.testing.clock import VirtualClock
    from meshlib.testing.control_plane import ControlPlane
    from meshlib.testing.upstream import Upstream

__all__ = ["UpstreamFactory", "control_plane", "upstream", "virtual_clock"]


class UpstreamFactory(Protocol):
    """Starts a server that says that it is `name`; further arguments are those of `Upstream`."""

    def __call__(self, name: str = "upstream", **options: Any) -> Upstream: ...


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    """A control plane on 127.0.0.1 with nothing in it yet."""
    from meshlib.testing.control_plane import ControlPlane

    with ControlPlane() as running:
        yield running


@pytest.fixture
def upstream() -> Iterator[UpstreamFactory]:
    """A function that starts HTTP servers on 127.0.0.1."""
    from meshlib.testing.upstream import Upstream

    started: list[Upstream] = []

    def start(name: str = "upstream", **options: Any) -> Upstream:
        server = Upstream(name, **options)
        started.append(server)
        return server.start()

    try:
        yield start
    finally:
        for server in reversed(started):
            server.stop()


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A clock that stands still until the test moves it."""
    from meshlib.testing.clock import VirtualClock

    return VirtualClock()
