"""Programs that know nothing of meshlib, run as processes of their own, with and without ``meshlib run``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "meshlib", "run"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")]), **more}


class RunWorld:
    """Servers, a configuration that has them as ``reviews``, and a directory of programs."""

    retried: str  # the word for what ``reviews`` retries

    def __init__(self, place: Path, *servers: Any) -> None:
        self.place = place
        self.servers = servers
        self.config = place / "mesh.toml"
        endpoints = json.dumps([server.address for server in servers])
        self.config.write_text(
            f'[services.reviews]\nendpoints = {endpoints}\nbalancer = "round_robin"\n'
            f'retry = {{ attempts = 2, on = ["{self.retried}"] }}\n'
        )

    def program(self, text: str, name: str = "program.py") -> str:
        path = self.place / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    def run(
        self, *command: str, configured: bool = True, env: dict[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Under ``meshlib run``, with our configuration if ``configured``."""
        chosen = ("--config", str(self.config)) if configured else ()
        return self.plainly(*RUN, *chosen, "--", *command, env=env, stdin=stdin)

    def plainly(
        self, *command: str, env: dict[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """As it is."""
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            cwd=self.place,
            env=environment(**env or {}),
            input=stdin,
        )
