"""Web servers as processes: gunicorn and uvicorn on 127.0.0.1, on a port that was bound before they start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx

__all__ = ["WebServer", "gunicorn", "uvicorn"]

ROOT = Path(__file__).resolve().parents[2]

#: Seconds for a server to answer, and to end.
_START, _END = 30.0, 10.0


class WebServer:
    """One server process with its workers. ``command`` is given the number of the listening socket as ``{fd}``."""

    def __init__(self, command: list[str], log: Path, *, mesh: dict[str, Any], calls: str, name: str) -> None:
        self._command = command
        self._log = log
        path = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("MESHLIB_", "GRPC_", "OTEL_"))
        }
        self._environment = {
            **kept,
            "PYTHONPATH": path,
            "SERVICE_CALLS": calls,
            "SERVICE_NAME": name,
            "TEST_SITE_MESHLIB": json.dumps(mesh),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        with socket.socket() as listening, self._log.open("wb") as log:
            listening.bind(("127.0.0.1", 0))
            listening.listen(128)
            listening.set_inheritable(True)
            self.address = f"127.0.0.1:{listening.getsockname()[1]}"
            command = [part.replace("{fd}", str(listening.fileno())) for part in self._command]
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self._environment,
                cwd=ROOT,
                pass_fds=[listening.fileno()],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait()
        return self

    def _wait(self) -> None:
        """Until it answers anything: the socket listens from the start, so one request waits for the worker."""
        assert self._process is not None
        until = time.monotonic() + _START
        while True:
            try:
                httpx.get(self.url + "/not-there", timeout=max(0.1, until - time.monotonic()))
            except httpx.HTTPError:
                if self._process.poll() is not None or time.monotonic() > until:
                    self._kill()
                    raise AssertionError(f"the server did not start:\n{self.log}") from None
            else:
                return

    def stop(self) -> float:
        """Ask it to end; the seconds that it took. An AssertionError where it does not."""
        assert self._process is not None
        since = time.monotonic()
        self._process.terminate()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._kill()
            raise AssertionError(f"the server did not end:\n{self.log}") from None
        return time.monotonic() - since

    def __exit__(self, *exception: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()

    def _kill(self) -> None:
        assert self._process is not None
        # The group is this server's own: it was started as the leader of a session.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_END)


def gunicorn(application: str, log: Path, *options: str, **site: Any) -> WebServer:
    """gunicorn with one worker unless ``options`` say otherwise."""
    command = [
        "gunicorn",
        "--bind",
        "fd://{fd}",
        "--no-control-socket",
        "--graceful-timeout",
        "1",
        *options,
        application,
    ]
    return WebServer(command, log, **site)


def uvicorn(application: str, log: Path, *options: str, **site: Any) -> WebServer:
    """uvicorn in one process."""
    return WebServer(["uvicorn", "--fd", "{fd}", *options, application], log, **site)
