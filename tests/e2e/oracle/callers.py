"""Calls to one cluster of a control plane: by every library in the mesh, and through a real Envoy."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import httpx

import meshlib
from meshlib.testing import ControlPlane, build
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.libraries import LIBRARIES, Caller
from tests.support.ports import Ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["CALLERS", "Call", "calling"]

CALLERS = ("envoy", *LIBRARIES)


class Call(Protocol):
    def __call__(self, headers: Mapping[str, str] | None = None) -> int:
        """The status of one call for ``/path``."""
        ...


@contextmanager
def calling(caller: str, cluster: Any, place: Path) -> Iterator[Call]:
    """``cluster`` is named ``c``; Envoy's files go to ``place``."""
    with ExitStack() as stack:
        held = Ports(1)
        stack.callback(held.close)
        address = f"127.0.0.1:{held.numbers[0]}"
        host = build.virtual_host("v", build.route("/", cluster="c"), domains=["*"])
        listener = build.listener("l", build.route_config("r", host), address=address)
        control_plane = stack.enter_context(ControlPlane(listener, cluster))
        url = f"http://{address}/path"
        if caller == "envoy":
            envoy = stack.enter_context(EnvoyProcess(control_plane.address, place))
            envoy.wait_for_listeners(1)
            client = stack.enter_context(httpx.Client(timeout=20))
            yield lambda headers=None: client.get(url, headers=headers).status_code
            return
        config = {"xds": {"server": control_plane.address, "view": "sidecar"}, "failures": "respond"}
        mesh = stack.enter_context(meshlib.Mesh(config))
        mesh.wait_ready(address, timeout=20)
        called = stack.enter_context(Caller(caller, mesh))
        yield lambda headers=None: called("GET", url, headers=dict(headers or {}))[0]
