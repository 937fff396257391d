"""Web servers as processes: gunicorn, uvicorn and uWSGI on 127.0.0.1, on a port that was bound before they start."""

from __future__ import annotations

import contextlib
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

from meshlib.testing.ports import bind, reserve
from tests.support.late import Late
from tests.support.uwsgi_server import workers_ready

__all__ = ["WebServer", "gunicorn", "uvicorn", "uwsgi"]

ROOT = Path(__file__).resolve().parents[2]

#: Seconds for a server to answer, and to end.
_START, _END = 30.0, 10.0


class WebServer:
    """One server process with its workers. ``command`` is given the number of the listening socket as ``{fd}``.

    Its port is taken when it first starts and kept: killed, it starts again at the same one. ``more``: further variables
    of its environment.
    """

    def __init__(
        self, command: list[str], log: Path, *, mesh: dict[str, Any], calls: str, name: str, **more: str
    ) -> None:
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
            **more,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""
        self._port = 0
        self._reserved: socket.socket | None = None

    @property
    def pid(self) -> int:
        """Of the server itself: the parent of its workers."""
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        """Start the process, and wait for nothing. What it said before stays in its log."""
        with bind(self._port) as listening, self._log.open("ab") as log:
            listening.listen(128)
            listening.set_inheritable(True)
            self._port = listening.getsockname()[1]
            self.address = f"127.0.0.1:{self._port}"
            if self._reserved is None:
                self._reserved = reserve(self._port)
            command = [part.replace("{fd}", str(listening.fileno())) for part in self._command]
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=ROOT,
                pass_fds=[listening.fileno()],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers anything: the socket listens from the start, so one request waits for the worker."""
        assert self._process is not None
        until = time.monotonic() + _START
        while True:
            try:
                httpx.get(self.url + "/not-there", timeout=max(0.1, until - time.monotonic()))
            except httpx.HTTPError:
                if self._process.poll() is not None or time.monotonic() > until:
                    self.kill()
                    raise AssertionError(f"the server did not start:\n{self.log}") from None
            else:
                return

    def stop(self) -> float:
        """Ask it to end; the seconds that it took. Late where it does not, and killed."""
        assert self._process is not None
        since = time.monotonic()
        self._process.terminate()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Late(f"the server did not end:\n{self.log}") from None
        return time.monotonic() - since

    def __exit__(self, *exception: object) -> None:
        try:
            if self._process is not None and self._process.poll() is None:
                # A test that failed has its own error to tell.
                self.kill() if any(exception) else self.stop()
        finally:
            if self._reserved is not None:
                self._reserved.close()

    def kill(self) -> None:
        """SIGKILL to it and its workers: no connection is closed in order."""
        assert self._process is not None
        # The group is this server's own: it was started as the leader of a session. It may be gone already.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_START)


class _Uwsgi(WebServer):
    def stop(self) -> float:
        """As the others, once its workers can be told to."""
        until = time.monotonic() + _START
        while not workers_ready(self.pid) and time.monotonic() < until:
            httpx.get(self.url + "/not-there", timeout=_START)
        return super().stop()


def gunicorn(application: str, log: Path, *options: str, **site: Any) -> WebServer:
    """gunicorn with one worker unless ``options`` say otherwise."""
    command = [
        sys.executable,
        "-m",
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
    return WebServer([sys.executable, "-m", "uvicorn", "--fd", "{fd}", *options, application], log, **site)


def uwsgi(application: str, log: Path, *options: str, **site: Any) -> WebServer:
    """uWSGI with a master and one worker unless ``options`` say otherwise; SIGTERM ends it, as it does the others."""
    command = [
        str(Path(sys.executable).with_name("uwsgi")),
        "--master",
        "--die-on-term",
        "--need-app",
        "--http-socket",
        "fd://{fd}",
        "--wsgi",
        application,
        *options,
    ]
    return _Uwsgi(command, log, **site)
