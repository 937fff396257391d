"""The recipes of docs/tasks/gunicorn.md, as they stand there: each worker class, with and without preloading."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from meshlib.testing import ControlPlane, UpstreamProcess, build
from tests.support.asking import asked
from tests.support.late import again_if_late, soon
from tests.support.web_servers import WebServer, gunicorn

pytestmark = pytest.mark.timeout(180)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tasks" / "gunicorn.md"
BLOCKS = dict(
    re.findall(r'^```python\n("""[^\n]*""")\n(.*?)^```$', PAGE.read_text(), re.DOTALL | re.MULTILINE)
)
WORKERS = ["sync", "gthread", "gevent", "uvicorn"]
AT_IMPORT = '\nmeshlib.default().wait_ready("stock", timeout=10.0)\n'
FORKED = "a control-plane stream ran before fork"


@pytest.fixture
def upstreams() -> Iterator[list[UpstreamProcess]]:
    with UpstreamProcess("a") as one, UpstreamProcess("b") as other:
        yield [one, other]


@pytest.fixture
def plane(upstreams: list[UpstreamProcess]) -> Iterator[ControlPlane]:
    retry = {"retry_on": "connect-failure,reset", "num_retries": 3}
    host = build.virtual_host("stock", build.route("/", cluster="c1", retry=retry), domains=["stock"])
    with ControlPlane(
        build.api_listener("stock", build.route_config("r", host)),
        build.cluster("c1"),
        build.endpoints("c1", *(one.address for one in upstreams)),
    ) as running:
        yield running


@pytest.fixture
def serve(tmp_path: Path, plane: ControlPlane) -> Callable[..., WebServer]:
    """A server that is not started: the recipe of the page for ``worker``, with ``more`` at the end of the application. Each has a log
    of its own.
    """
    numbers = itertools.count()

    def make(worker: str, *options: str, conf: str = "", more: str = "") -> WebServer:
        application = BLOCKS['"""shop.py for ASGI"""' if worker == "uvicorn" else '"""shop.py"""']
        (tmp_path / "shop.py").write_text(application + more)
        (tmp_path / "gunicorn.conf.py").write_text(conf or BLOCKS[f'"""gunicorn.conf.py for {worker}"""'])
        settings = ["--chdir", str(tmp_path), "-c", str(tmp_path / "gunicorn.conf.py"), "--timeout", "60"]
        site = {"mesh": {}, "calls": "", "name": worker, "MESHLIB_XDS_SERVER": plane.address}
        return gunicorn("shop:app", tmp_path / f"log-{next(numbers)}", *settings, *options, **site)

    return make


def workers(server: WebServer) -> set[int]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return {int(pid) for pid in children}


def both(server: WebServer) -> set[int]:
    """Two workers, once they are there: nobody tells when the second is forked, and the first answers before."""
    assert asked(lambda: len(workers(server)) == 2, 30.0), server.log
    return workers(server)


def replaced(server: WebServer, pid: int, count: int) -> None:
    """Wait until as many workers are there again, without ``pid``, and all of them answer."""
    until = time.monotonic() + 30
    while pid in workers(server) or len(workers(server)) < count:
        assert time.monotonic() < until, server.log
        httpx.get(server.url, timeout=30)


def crowd(server: WebServer, least: int, over: threading.Event | None = None) -> Counter[str]:
    """At least so many requests, and until it is over, by eight callers, each request on a connection of its own. Who
    answered, or what went wrong.
    """
    found: Counter[str] = Counter()

    def one() -> str:
        try:
            answer = httpx.get(server.url, timeout=30)
        except httpx.HTTPError as error:
            return repr(error)
        return str(answer.json()["name"]) if answer.status_code == 200 else f"{answer.status_code}"

    def caller(_: int) -> list[str]:
        said = []
        while len(said) * 8 < least or not (over is None or over.is_set()):
            said.append(one())
        return said

    with ThreadPoolExecutor(8) as pool:
        for said in pool.map(caller, range(8)):
            found.update(said)
    return found


@pytest.mark.fleet
@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("worker", WORKERS)
@again_if_late
def test_it_serves_while_all_around_it_is_restarted(
    serve: Callable[..., WebServer],
    plane: ControlPlane,
    upstreams: list[UpstreamProcess],
    worker: str,
    preload: bool,
) -> None:
    with serve(worker, *(["--preload"] if preload else [])) as server:
        assert set(crowd(server, 40)) == {"a", "b"}
        with ThreadPoolExecutor(1) as pool:
            over = threading.Event()
            calls = pool.submit(crowd, server, 100, over)
            try:
                upstreams[0].restart()
                plane.kill()
                upstreams[1].restart()
                plane.start()
            finally:
                over.set()
            assert set(calls.result(timeout=90)) <= {"a", "b"}, server.log
        victim = min(both(server))
        os.kill(victim, signal.SIGKILL)
        replaced(server, victim, 2)
        assert set(crowd(server, 40)) == {"a", "b"}
        ended = server.stop()
        for unwanted in (FORKED, "init_gevent", "MonkeyPatchWarning", "Traceback"):
            assert unwanted not in server.log
        soon(ended, 6.0, "the end")


@pytest.mark.parametrize("worker", WORKERS)
@again_if_late
def test_a_call_while_the_application_is_preloaded_is_told_once_and_harms_nothing(
    serve: Callable[..., WebServer], worker: str
) -> None:
    with serve(worker, "--preload", more=AT_IMPORT) as server:
        assert set(crowd(server, 40)) == {"a", "b"}
        victim = min(workers(server))
        os.kill(victim, signal.SIGKILL)
        replaced(server, victim, 2)
        assert set(crowd(server, 40)) == {"a", "b"}
        ended = server.stop()
        assert server.log.count(FORKED) == 1
        soon(ended, 6.0, "the end")


def warm(plane: ControlPlane) -> bool:
    """Whether two workers have all that the control plane has. Each has two streams, on which endpoints come last."""
    served = {each.stream for each in plane.requests if each.kind == "endpoint" and each.is_ack}
    return len(served & {each.number for each in plane.streams}) == 4


@again_if_late
def test_workers_that_are_warm_before_their_first_request(
    serve: Callable[..., WebServer], plane: ControlPlane
) -> None:
    conf = BLOCKS['"""gunicorn.conf.py that warms each worker"""']
    with serve("sync", "--preload", conf=conf) as server:
        plane.wait_for(lambda: warm(plane), timeout=30.0, what="what each worker needs")
        plane.kill()
        assert set(crowd(server, 40)) == {"a", "b"}
        plane.start()
        ended = server.stop()
        assert FORKED not in server.log
        soon(ended, 6.0, "the end")


@again_if_late
def test_gevent_without_init_gevent_says_what_to_do(serve: Callable[..., WebServer]) -> None:
    conf = "worker_class = 'gevent'\nworkers = 2\n"
    with serve("gevent", conf=conf) as server:
        assert set(crowd(server, 20)) == {"500"}
        ended = server.stop()
        assert "grpc.experimental.gevent.init_gevent()" in server.log
        soon(ended, 6.0, "the end")


@again_if_late
def test_gevent_prepared_when_a_worker_has_loaded_the_application(serve: Callable[..., WebServer]) -> None:
    """The other place that the page names."""
    conf = (
        "worker_class = 'gevent'\nworkers = 2\n\n\ndef post_worker_init(worker):\n"
        "    import grpc.experimental.gevent\n\n    grpc.experimental.gevent.init_gevent()\n"
    )
    with serve("gevent", conf=conf) as server:
        assert set(crowd(server, 40)) == {"a", "b"}
        ended = server.stop()
        assert "init_gevent" not in server.log
        soon(ended, 6.0, "the end")
