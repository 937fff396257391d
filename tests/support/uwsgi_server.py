"""uWSGI with the Flask service of ``uwsgi_site``, on 127.0.0.1, on a port that was bound before it starts."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.late import Late
from tests.support.log import Log

__all__ = ["Uwsgi", "workers_ready"]

ROOT = Path(__file__).resolve().parents[2]
_START, _END = 30.0, 15.0

#: A worker takes its own handlers of signals when it begins to serve: of SIGUSR2 last, of which the master has none.
_READY = 1 << signal.SIGUSR2 - 1


def workers_ready(master: int) -> bool:
    """Whether every worker of uWSGI's master has handlers of its own for signals. uWSGI tells a worker only once to end, and
    what comes before it is ready runs the handler that it has from the master: such a worker serves on for ever, whatever
    the application is.
    """
    caught = (
        re.search(r"^SigCgt:\t(\w+)$", Path(f"/proc/{worker}/status").read_text(), re.MULTILINE)
        for worker in _children(master)
    )
    return all(found and int(found[1], 16) & _READY for found in caught)


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


class Uwsgi:
    """A master with its workers. ``options`` are uWSGI's, ``module`` the application (none: the options
    say it); ``variables`` go into its environment.
    """

    program: tuple[str, ...] = (str(Path(sys.executable).with_name("uwsgi")),)

    def __init__(
        self, log: Path, *options: str, module: str = "tests.support.uwsgi_site:app", **variables: str
    ) -> None:
        self._options = ([f"--module={module}"] if module else []) + list(options)
        self._log = log
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("MESHLIB_", "GRPC_", "OTEL_"))
        }
        # Where it is reloaded, pyuwsgi starts the interpreter that the environment was made from, without its packages.
        packages = [path for path in sys.path if path.endswith("site-packages")]
        path = os.pathsep.join([str(ROOT), str(ROOT / "adapters"), *packages])
        self._environment = {**kept, "PYTHONPATH": path, **variables}
        self._process: subprocess.Popen[bytes] | None = None
        self._said: Log | None = None
        self.url = ""

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers that live, as the kernel has them."""
        return _children(self.pid)

    def __enter__(self) -> Self:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(128)
            listening.set_inheritable(True)
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            number = listening.fileno()
            self._process = subprocess.Popen(
                [
                    *self.program,
                    f"--http-socket=fd://{number}",
                    "--master",
                    "--need-app",
                    "--die-on-term",
                    "--disable-logging",
                    *self._options,
                ],
                env=self._environment,
                cwd=ROOT,
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        self._said = Log(self._log, self._process.stdout)
        try:
            self.get("/left", timeout=_START)
        except BaseException:
            self._kill()
            raise
        return self

    def get(self, path: str = "/", timeout: float = 15.0) -> Any:
        """The JSON that the service answers. An AssertionError that has the log, where it does not within ``timeout``."""
        until = time.monotonic() + timeout
        try:
            response = httpx.get(self.url + path, timeout=max(0.1, until - time.monotonic()))
        except httpx.HTTPError as error:
            raise AssertionError(f"{path}: {error!r}\n{self.log}") from error
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text}\n{self.log}"
        return response.json()

    def wait_for(self, words: str, count: int = 1, timeout: float = 15.0) -> None:
        """Until the log has ``words`` (a regular expression) ``count`` times."""
        assert self._said is not None
        if not self._said.wait(lambda text: len(re.findall(words, text)) >= count, timeout):
            raise AssertionError(f"{words!r} is not in the log {count} times:\n{self.log}")

    def settle(self, timeout: float = 15.0) -> None:
        """Until every worker can be told to end."""
        until = time.monotonic() + timeout
        while not workers_ready(self.pid):
            assert time.monotonic() < until, f"a worker does not come up:\n{self.log}"
            self.get("/left")

    def signal(self, number: signal.Signals) -> None:
        """Send it to the master, once the workers are ready for what it tells them."""
        self.settle()
        os.kill(self.pid, number)

    def stop(self) -> float:
        """Ask it to end, once the workers are ready; the seconds that it took. Late where it does not."""
        assert self._process is not None
        self.settle()
        since = time.monotonic()
        self._process.terminate()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._kill()
            raise Late(f"uWSGI did not end:\n{self.log}") from None
        took = time.monotonic() - since
        self._heard()
        return took

    def __exit__(self, *exception: object) -> None:
        if self._process is not None and self._process.poll() is None:
            # A test that failed has its own error to tell.
            self._kill() if any(exception) else self.stop()

    def _kill(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            # The group is its own: it was started as the leader of a session.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_START)
        self._heard()

    def _heard(self) -> None:
        assert self._said is not None
        self._said.close()
