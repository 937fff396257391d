"""An upstream as a process of its own: for tests that kill it in earnest."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

from meshlib.testing.orders import Order
from meshlib.testing.ports import reserve
from meshlib.testing.upstream import CONTROL_PATH

__all__ = ["ServerProcess", "UpstreamProcess"]

END = 5.0  # seconds for a process to end in order


class ServerProcess(ABC):
    """Runs `python -m MODULE`; the process ends with this one, however this one ends. Not for use from several threads."""

    MODULE: str

    def __init__(self, name: str = "upstream", *, port: int = 0) -> None:
        self.name = name
        self.port = port
        self._process: subprocess.Popen[str] | None = None
        self._reserved: socket.socket | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Of the running process; None if there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> Self:
        """Starts it, and returns when it listens. Raises RuntimeError if it does not come up."""
        if self._process is not None:
            return self
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
        command = [
            "-m",
            self.MODULE,
            "--name",
            self.name,
            "--port",
            str(self.port),
            "--follow-stdin",
        ]
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        self._process = process
        if not line:
            self.kill()
            raise RuntimeError(f"the upstream {self.name} did not start at port {self.port}")
        self.port = int(line.rpartition(":")[2])
        if self._reserved is None:  # so that the port is still ours when the process has been killed
            self._reserved = reserve(self.port)
        return self

    def stop(self) -> None:
        """Ends it in order, or kills it if that takes too long."""
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):  # it has ended already
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END)
            self.kill()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def kill(self) -> None:
        """Kills it (SIGKILL) and waits for its end. The port stays reserved for the next `start`, until `stop`."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was left to flush has no reader
                if pipe is not None:
                    pipe.close()

    def restart(self) -> None:
        """Kills it and starts it again at the same port. Orders are forgotten."""
        self.kill()
        self.start()

    @abstractmethod
    def behave(self) -> None:
        """Forgets all orders and releases what is held."""

    @abstractmethod
    def release(self) -> None:
        """Lets go on all that is held now."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """The counts of the server."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class UpstreamProcess(ServerProcess):
    """An `Upstream`. It is told what to do over HTTP, at a path of its own that counts in no number."""

    MODULE = "meshlib.testing.upstream"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return f"http://{self.address}"

    def order(self, order: Order | None = None, *, times: int | None = None, **parts: Any) -> None:
        """As `Upstream.order`."""
        made = (order or Order()).to_dict() | Order.from_dict(parts).to_dict()
        self._ask("PUT", made if times is None else made | {"times": times})

    def behave(self) -> None:
        self._ask("DELETE")

    def release(self) -> None:
        self._ask("POST")

    def counts(self) -> dict[str, int]:
        """As `Upstream.counts`; the connection that asks is among them."""
        return self._ask("GET")

    def _ask(self, method: str, value: dict[str, Any] | None = None) -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=END)
        try:
            connection.request(method, CONTROL_PATH, None if value is None else json.dumps(value))
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(body.decode("latin-1"))
        counts: dict[str, int] = json.loads(body)
        return counts
