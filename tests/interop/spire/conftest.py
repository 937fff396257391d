"""SPIRE's server and agent, as processes of ours: a trust domain of its own for each test, on loopback and unix sockets."""

from __future__ import annotations

import json
import os
import subprocess
from typing import IO, TYPE_CHECKING, Any

import pytest

from tests.interop.conftest import built
from tests.support.asking import asked
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START = 60.0  # seconds; a loaded machine is slow
_STOP = 10.0

_SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{folder}/server.sock"
  trust_domain = "example.org"
  data_dir = "{folder}"
  log_level = "INFO"
  ca_ttl = "1h"
}}
plugins {{
  DataStore "sql" {{ plugin_data {{
    database_type = "sqlite3"
    connection_string = "{folder}/datastore.sqlite3"
  }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
}}
"""

_AGENT = """
agent {{
  data_dir = "{folder}/agent"
  log_level = "INFO"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{folder}/api.sock"
  trust_bundle_path = "{folder}/bundle.pem"
  trust_domain = "example.org"
  experimental {{ sync_interval = "1s" }}
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


class Spire:
    """A server with its agent, which attested itself by a token. ``entries``: the ids of those that were made. Used from one thread."""

    NODE = "spiffe://example.org/node"

    def __init__(self, server: Path, agent: Path, folder: Path) -> None:
        self._binaries = server, agent
        self._folder = folder
        self.entries: list[str] = []
        self._processes: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        settings = {"port": free_port(), "folder": folder}
        (folder / "server.conf").write_text(_SERVER.format(**settings))
        (folder / "agent.conf").write_text(_AGENT.format(**settings))

    @property
    def socket(self) -> str:
        """As SPIFFE_ENDPOINT_SOCKET has it."""
        return f"unix://{self._folder}/api.sock"

    def start(self) -> None:
        server, _ = self._binaries
        self._run("server", [str(server), "run", "-config", str(self._folder / "server.conf")])
        self._wait("server")
        self.start_agent()

    def start_agent(self) -> None:
        """With a new token: its keys were in its memory."""
        _, agent = self._binaries
        (self._folder / "bundle.pem").write_text(self.ask("bundle", "show"))
        token = self.ask("token", "generate", "-spiffeID", self.NODE).split()[-1]
        config = str(self._folder / "agent.conf")
        self._run("agent", [str(agent), "run", "-config", config, "-joinToken", token])
        self._wait("agent")

    def stop(self, *names: str) -> None:
        """As an operator would; all of them, the agent first, unless some are named."""
        for name in names or tuple(reversed(self._processes)):
            process, log = self._processes.pop(name)
            process.terminate()
            try:
                process.wait(_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_STOP)
            log.close()

    def register(self, path: str, *, ttl: int = 60, federates: tuple[str, ...] = ()) -> str:
        """An entry for this process's user; its id."""
        more = [word for each in federates for word in ("-federatesWith", each)]
        made = self.ask(
            *("entry", "create", "-output", "json", "-parentID", self.NODE),
            *("-spiffeID", f"spiffe://example.org{path}", "-selector", f"unix:uid:{os.getuid()}"),
            *("-x509SVIDTTL", str(ttl), *more),
        )
        self.entries.append(json.loads(made)["results"][0]["entry"]["id"])
        return self.entries[-1]

    def ask(self, *words: str, given: str = "") -> str:
        """A command of the server's; what it said. Raises AssertionError."""
        command = [str(self._binaries[0]), *words, "-socketPath", str(self._folder / "server.sock")]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def rotate(self) -> None:
        """Another root signs, and that before it is in the bundle as long as its certificates are good."""
        prepared = json.loads(self.ask("localauthority", "x509", "prepare", "-output", "json"))
        wanted = prepared["prepared_authority"]["authority_id"]
        self.ask("localauthority", "x509", "activate", "-authorityID", wanted)

    def log(self, name: str) -> str:
        """What it said on standard error and output."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def _run(self, name: str, command: list[str]) -> None:
        log = (self._folder / f"{name}.log").open("ab")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes[name] = process, log

    def _wait(self, name: str) -> None:
        """Until it is healthy by its own word."""
        binary = self._binaries[name == "agent"]
        socket = self._folder / ("server.sock" if name == "server" else "api.sock")
        process, _ = self._processes[name]
        command = [str(binary), "healthcheck", "-socketPath", str(socket)]

        def over() -> bool:
            healthy = subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
            return healthy or process.poll() is not None

        assert asked(over, _START), f"the {name} is not healthy after {_START:g} s:\n{self.log(name)[-4000:]}"
        assert process.poll() is None, f"the {name} ended:\n{self.log(name)[-4000:]}"


@pytest.fixture
def spire(tmp_path: Path) -> Iterator[Spire]:
    running = Spire(built("spire-server"), built("spire-agent"), tmp_path)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def settings(spire: Spire) -> dict[str, Any]:
    """`[identity]` of a mesh."""
    return {"provider": "spiffe", "socket": spire.socket}
