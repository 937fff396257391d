"""gRPC channels of the mesh that are made, and used, before gunicorn forks its workers (``--preload``): each worker's calls arrive, one
that is killed has a successor whose calls arrive, and the master ends in time. Each worker class.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.grpc_channels import told
from tests.support.late import again_if_late, soon
from tests.support.web_servers import WebServer, gunicorn

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tasks" / "gunicorn.md"
CONF = dict(
    re.findall(
        r'^```python\n"""gunicorn.conf.py for (\w+)"""\n(.*?)^```$',
        PAGE.read_text(),
        re.DOTALL | re.MULTILINE,
    )
)
WSGI = '''
import json, os
import meshlib, meshlib.grpc

mesh = meshlib.Mesh(json.loads(os.environ["TEST_SITE_MESHLIB"]))
channel = meshlib.grpc.channel("stock", mesh=mesh)
unary, stream = channel.unary_unary("/s/m"), channel.unary_stream("/s/UnaryStream")

def called():
    """Who answered, in each way of calling."""
    answers = [unary(b"", timeout=20), unary.future(b"", timeout=20).result(), *stream(b"", timeout=20)]
    return [json.loads(answer)["name"] for answer in answers]

called()  # in the master, where the application is preloaded

def app(environ, start_response):
    body = json.dumps([os.getpid(), called()]).encode()
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]
'''
ASGI = """
import asyncio, json, os
import meshlib, meshlib.grpc.aio

mesh = meshlib.Mesh(json.loads(os.environ["TEST_SITE_MESHLIB"]))
channel = meshlib.grpc.aio.channel("stock", mesh=mesh)
unary, stream = channel.unary_unary("/s/m"), channel.unary_stream("/s/UnaryStream")

async def called():
    answers = [await unary(b"", timeout=20), *[answer async for answer in stream(b"", timeout=20)]]
    return [json.loads(answer)["name"] for answer in answers]

asyncio.run(called())  # in the master, where the application is preloaded

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = json.dumps([os.getpid(), await called()]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def config(source: str, meshlib_grpc_upstream: Any) -> Iterator[Any]:
    with told(source, meshlib_grpc_upstream("a"), meshlib_grpc_upstream("b")) as made:
        yield made


def asked(server: WebServer, count: int = 40) -> Counter[int]:
    """Requests by eight callers, each on a connection of its own: how many each worker served. Every call behind them arrived."""

    def one(_: int) -> int:
        answer = httpx.get(server.url, timeout=30)
        assert answer.status_code == 200, server.log
        pid, names = answer.json()
        assert set(names) <= {"a", "b"}
        return int(pid)

    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(one, range(count)))


def workers(server: WebServer) -> set[int]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return {int(pid) for pid in children}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("worker", "source", "support"),
    [
        ("sync", "file", ""),
        ("sync", "file", "0"),
        ("sync", "xds", ""),
        ("gthread", "xds", ""),
        ("gevent", "xds", ""),
        ("uvicorn", "file", "0"),
        ("uvicorn", "xds", ""),
    ],
)
@again_if_late
def test_a_channel_of_before_the_fork_works_in_each_worker(
    tmp_path: Path, worker: str, config: Any, support: str
) -> None:
    """``support``: GRPC_ENABLE_FORK_SUPPORT. Without grpc's own a connection of before the fork would hang its child."""
    (tmp_path / "shop.py").write_text(ASGI if worker == "uvicorn" else WSGI)
    (tmp_path / "gunicorn.conf.py").write_text(CONF[worker])
    conf = str(tmp_path / "gunicorn.conf.py")
    settings = ["--preload", "--chdir", str(tmp_path), "-c", conf, "--timeout", "60"]
    more = {"GRPC_ENABLE_FORK_SUPPORT": support} if support else {}
    with gunicorn(
        "shop:app", tmp_path / "log", *settings, mesh=config, calls="", name=worker, **more
    ) as server:
        served = asked(server)
        assert server.pid not in served
        assert set(served) <= workers(server)
        victim = min(workers(server))
        os.kill(victim, signal.SIGKILL)
        until = time.monotonic() + 30
        while victim in workers(server) or len(workers(server)) < 2:
            assert time.monotonic() < until, server.log
            asked(server, 1)
        assert set(asked(server)) <= workers(server)
        ended = server.stop()
        for unwanted in ("Traceback", "skipping fork() handlers", "MonkeyPatchWarning"):
            assert unwanted not in server.log, server.log
        soon(ended, 6.0, "the end")
