"""Celery as processes: a Redis of the test's own, a worker, and the web application that sends tasks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import redis

from tests.support.log import Log
from tests.support.ports import free_port
from tests.support.web_servers import WebServer, gunicorn

__all__ = ["MISSING", "Redis", "Results", "Worker", "page_blocks", "site"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tasks" / "celery.md"
SERVER = shutil.which("redis-server")
MISSING = "redis-server is not here: apt-get install -y redis-server"

#: Seconds for a process to be there, and to end.
_START, _END = 30.0, 20.0


def page_blocks() -> list[str]:
    """The programs of the page."""
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


class Redis:
    """A server on a free port of 127.0.0.1, which keeps nothing."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None
        self._said: Log | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        for _ in range(5):  # between our look and its start the port may be taken
            self.port = free_port()
            if self._began():
                return self
        raise RuntimeError("redis-server does not start")

    def _began(self) -> bool:
        assert SERVER is not None
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [SERVER, *options, "--dir", str(self._place)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self._process.stdout is not None
        self._said = Log(self._place / "redis.log", self._process.stdout)
        if self._said.wait(lambda text: "eady to accept connections" in text, _START):
            return True
        self.__exit__()
        return False

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._said is not None:
            self._said.close()

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)


class Results:
    """What became of tasks, as Celery's backend keeps it."""

    def __init__(self, server: Redis, explain: Callable[[], str] = str) -> None:
        self._redis = server.client()
        self._explain = explain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._redis.close()

    def ended(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """Of those that have ended: id → what is kept (``status``, ``result``)."""
        if not ids:
            return {}
        found = self._redis.mget([f"celery-task-meta-{one}" for one in ids])
        kept = {one: json.loads(text) for one, text in zip(ids, found, strict=True) if text is not None}
        final = ("SUCCESS", "FAILURE", "REVOKED")
        return {one: meta for one, meta in kept.items() if meta["status"] in final}

    def wait(self, ids: list[str], seconds: float = 30.0) -> list[dict[str, Any]]:
        """All of them, in order, once they have ended."""
        until = time.monotonic() + seconds
        with self._redis.pubsub() as told:
            # The backend publishes each change of what it keeps under the name of the key.
            told.subscribe(*(f"celery-task-meta-{one}" for one in ids))
            while len(found := self.ended(ids)) < len(ids):
                left = until - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"not ended: {set(ids) - set(found)}\n{self._explain()}")
                told.get_message(timeout=left)
        return [found[one] for one in ids]

    def values(self, ids: list[str], seconds: float = 30.0) -> list[Any]:
        """What they returned; an AssertionError where one failed."""
        found = self.wait(ids, seconds)
        failed = [one for one in found if one["status"] != "SUCCESS"]
        assert not failed, failed[0]
        return [one["result"] for one in found]

    def pending(self) -> int:
        return self._redis.llen("celery")


class Worker:
    """``celery worker`` on the site, as a process that leads a group of its own."""

    def __init__(self, log: Path, environment: dict[str, str], *options: str, pool: str = "prefork") -> None:
        self._log = log
        self._environment = environment
        self._command = [
            *(sys.executable, "-m", "celery", "--app", "tests.support.celery_site:app", "worker"),
            *("--pool", pool, "--loglevel", "INFO", "--without-mingle", "--without-gossip"),
            *options,
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self._said: Log | None = None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            cwd=self._log.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self._said = Log(self._log, self.process.stdout)
        if not self._said.wait(lambda text: " ready." in text, _START):
            self.kill()
            raise AssertionError(f"the worker did not start:\n{self.log}")
        return self

    def stacks(self) -> str:
        """The log, with what every thread of every process does now at its end."""
        assert self.process is not None
        assert self._said is not None
        before = self.log
        for pid in sorted({self.process.pid, *self.children()}):
            os.kill(pid, signal.SIGUSR2)
            self._said.wait(before.__ne__, 2.0)
            before = self.log
        return self.log

    def children(self) -> set[int]:
        """Its pool's processes, as the system lists them."""
        assert self.process is not None
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in listed.split()}

    def stop(self, within: float = _END) -> float:
        """Warm shutdown; the seconds that it took. An AssertionError where it takes longer than ``within``."""
        assert self.process is not None
        since = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the worker did not end within {within} s:\n{self.log}") from None
        took = time.monotonic() - since
        self._heard()
        return took

    def kill(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            # The group is this worker's own: it was started as the leader of a session.
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(_END)
        self._heard()

    def _heard(self) -> None:
        assert self._said is not None
        self._said.close()

    def __exit__(self, *exception: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()


def site(place: Path, environment: dict[str, str], *options: str) -> WebServer:
    """The web application under gunicorn."""
    server = gunicorn(
        "tests.support.celery_site:application", place / "web.log", *options, mesh={}, calls="", name="shop"
    )
    server._environment = environment
    return server
