"""A Flask service with a control plane in a real uWSGI: however it forks, whatever it runs, whoever dies."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meshlib.testing import ControlPlane, Upstream, build
from tests.support.late import again_if_late, soon
from tests.support.uwsgi_server import Uwsgi

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def upstream():
    with Upstream("stock") as server:
        yield server


@pytest.fixture
def plane(upstream):
    host = build.virtual_host("stock", build.route("/", cluster="c1"), domains=["stock"])
    with ControlPlane(
        build.api_listener("stock", build.route_config("r", host)),
        build.cluster("c1"),
        build.endpoints("c1", upstream.address),
    ) as running:
        yield running


@pytest.fixture
def site(plane, tmp_path):
    def make(*options, processes=2, **variables):
        return Uwsgi(
            tmp_path / "uwsgi.log",
            f"--processes={processes}",
            *options,
            MESHLIB_XDS_SERVER=plane.address,
            SERVICE_CALLS="stock",
            **variables,
        )

    return make


def calls(server, count=12):
    """Calls at once: each was answered, by the service behind the mesh. ``stock`` is a name that only the mesh knows."""
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: server.get("/"), range(count)))
    assert {answer["next"]["name"] for answer in answers} == {"stock"}


THREADS, LAZY, HOOKS = "--enable-threads", "--lazy-apps", "--py-call-uwsgi-fork-hooks"


@pytest.mark.parametrize(
    ("options", "at_import", "fork_support"),
    [
        ([], False, ""),
        ([LAZY], True, ""),
        ([THREADS], True, ""),
        ([THREADS], True, "0"),
        ([THREADS], True, "1"),
        ([THREADS, HOOKS], True, ""),
        ([THREADS, HOOKS], True, "1"),
        (["--threads=4"], True, ""),
        ([THREADS, "--skip-atexit"], True, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
@again_if_late
def test_both_workers_serve_and_so_does_one_that_takes_a_killed_ones_place(
    site, options, at_import, fork_support
):
    """A use in the master, without lazy-apps, is told in one line; the workers are as good."""
    variables = {"CALL_AT_IMPORT": "1"} if at_import else {}
    if fork_support:
        variables["GRPC_ENABLE_FORK_SUPPORT"] = fork_support
    with site(*options, **variables) as server:
        calls(server)
        server.wait_for("spawned uWSGI worker", 2)  # one of them may have answered all
        workers = server.workers
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        server.wait_for("Respawned uWSGI worker")
        calls(server)
        assert set(server.workers) != set(workers)
        ended = server.stop()
        log = server.log
    in_master = at_import and LAZY not in options
    lines = [line for line in log.splitlines() if "ran before fork" in line]
    assert len(lines) == (1 if in_master else 0), log
    assert all("meshlib" in line and "lazy-apps" in line for line in lines)
    assert "Traceback" not in log
    assert "without threads" not in log, "uWSGI has had them on since 2.0.27"
    soon(ended, 5.0, "the end")


def heard_by_all(plane):
    """Whether each stream has accepted the newest endpoints: two of each of two workers."""
    newest = plane.version("endpoint")
    accepted = [each for each in plane.requests if each.kind == "endpoint" and each.is_ack]
    there = {each.number for each in plane.streams}
    return len(there) == 4 and there <= {each.stream for each in accepted if each.version == newest}


def test_each_worker_has_a_stream_of_its_own_and_gets_updates(plane, site, upstream):
    with Upstream("stock 2") as second, site(THREADS, CALL_AT_IMPORT="1") as server:
        calls(server, 40)
        plane.wait_for(lambda: len(plane.streams) == 4, timeout=15)  # two workers, two views
        plane.update(build.endpoints("c1", second.address))
        plane.wait_for(lambda: heard_by_all(plane), timeout=15)
        served = second.requests_total
        for _ in range(100):
            if server.get("/")["next"]["name"] == "stock 2":
                break
        else:
            raise AssertionError("the update is not in force")
        assert second.requests_total > served


@pytest.mark.parametrize("options", [[], [LAZY]], ids=["master", "lazy"])
@again_if_late
def test_a_graceful_reload(site, options):
    with site(THREADS, *options, CALL_AT_IMPORT="1") as server:
        calls(server)
        before = server.get("/left")["pid"]
        server.signal(signal.SIGHUP)
        loads = 2 if options else 1
        server.wait_for("WSGI app 0", 2 * loads)
        calls(server)
        assert server.get("/left")["pid"] != before
        ended = server.stop()
        assert "Traceback" not in server.log
        soon(ended, 5.0, "the end")


PAGE = Path(__file__).resolve().parents[2] / "docs" / "tasks" / "uwsgi.md"


@pytest.mark.parametrize("warmed", [False, True], ids=["as it stands", "warmed after the fork"])
@again_if_late
def test_what_the_page_shows(plane, tmp_path, warmed):
    """Its uwsgi.ini and its application, with a port of ours; and what it shows for the time after a fork."""
    text = PAGE.read_text()
    (ini,) = re.findall(r"^```ini\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    application, postfork = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    if warmed:
        ini, application = ini.replace("lazy-apps = true\n", ""), f"{application}\n\n{postfork}"
    # The server's tests wait for /left.
    left = '\n\n@app.get("/left")\ndef left():\n    return {}\n'
    tmp_path.joinpath("shop.py").write_text(application + left)
    tmp_path.joinpath("uwsgi.ini").write_text(ini)
    with Uwsgi(
        tmp_path / "log",
        f"--ini={tmp_path / 'uwsgi.ini'}",
        f"--chdir={tmp_path}",
        module="",
        MESHLIB_XDS_SERVER=plane.address,
    ) as server:
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: server.get("/"), range(12)))
        assert {answer["name"] for answer in answers} == {"stock"}
        server.wait_for("spawned uWSGI worker", 4)
        assert len(server.workers) == 4
        ended = server.stop()
        assert "meshlib" not in server.log
        assert "Traceback" not in server.log
        soon(ended, 5.0, "the end")
