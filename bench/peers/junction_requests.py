"""Junction's session for requests, where its wheel installs: one route and one endpoint, without policies.

It runs in a process of its own, since its environment is one of its own: ``build/bench/junction``.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import venv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.shapes import CALLS, Unavailable
from bench.world import World, end

_RELEASE = "junction-python==0.3.3"
_ROOT = Path(__file__).resolve().parents[2]
_HOME = _ROOT / "build" / "bench" / "junction"


@dataclass
class Junction:
    name: str = "Junction's Session"
    calls: int = CALLS
    _process: Any = field(default=None, repr=False)
    _server: Any = field(default=None, repr=False)

    def open(self, world: World) -> None:
        python = _environment()
        self._server, address = _control_plane()
        program = str(_ROOT / "bench" / "junction_client.py")
        self._process = subprocess.Popen(
            [python, program, f"http://{address}", str(world.ports[0]), *world.paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4):
            self.sample()

    def sample(self) -> float:
        self._process.stdin.write(f"{self.calls}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: the process ended with {self._process.wait()}")
        return float(line)

    def close(self) -> None:
        if self._process is not None:
            end(self._process)
        if self._server is not None:
            self._server.stop(None)


def _environment() -> str:
    """The interpreter that has Junction, and of requests and urllib3 the releases that are measured here."""
    python = _HOME / "bin" / "python"
    wanted = [_RELEASE, *(f"{name}=={importlib.metadata.version(name)}" for name in ("requests", "urllib3"))]
    made = _HOME / "made-of"
    if not made.exists() or made.read_text() != " ".join(wanted):
        venv.create(_HOME, with_pip=True, clear=True)
        command = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            *wanted,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"{_RELEASE} does not install: {done.stderr.strip().rpartition(chr(10))[2]}")
        made.write_text(" ".join(wanted))
    return str(python)


def _control_plane() -> tuple[Any, str]:
    """One that says nothing: without any, Junction makes no session; its routes are its own."""
    import grpc

    def serve(requests: Any, context: Any) -> Any:
        context.send_initial_metadata(())  # it waits for these before it asks
        yield from (b"" for _ in requests if False)

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            del details
            return grpc.stream_stream_rpc_method_handler(serve)

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


PEERS = (Junction(),)
