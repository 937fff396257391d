"""Real web servers, and what happens to them in a mesh whose parts die: `make fleet`.

``MESHLIB_FLEET_REQUESTS`` (5,000): made for each framework under each server. ``MESHLIB_FLEET_RUNS`` (3): how often each
server is started, robbed of a worker and stopped.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from meshlib.testing import ControlPlane, Upstream, build
from tests.support.fleet import Crowd, Fleet, PoolCrowd, broken_traces, hops_of
from tests.support.web_servers import gunicorn, uwsgi

REQUESTS = int(os.environ.get("MESHLIB_FLEET_REQUESTS", "5000"))
RUNS = int(os.environ.get("MESHLIB_FLEET_RUNS", "3"))
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def under_gunicorn(application, *options, early=False):
    more = {"FLEET_EARLY": "1"} if early else {}

    def make(log, workers, **site):
        return gunicorn(application, log, "--workers", str(workers), *options, **site, **more)

    return make


def under_uwsgi(application, *options, early=False):
    more = {"FLEET_EARLY": "1"} if early else {}

    def make(log, workers, **site):
        return uwsgi(application, log, "--processes", str(workers), *options, **site, **more)

    return make


# Those that are "early" load the application before they fork, and the application runs the mesh there: the worst that
# one can do.
SERVERS = {
    "sync-preload": ("app", partial(under_gunicorn, early=True), ("--preload",)),
    "gthread": ("app", under_gunicorn, ("--worker-class", "gthread", "--threads", "4")),
    "gevent": ("app", under_gunicorn, ("--worker-class", "gevent")),
    "uvicorn": ("asgi", under_gunicorn, ("--worker-class", "uvicorn_worker.UvicornWorker")),
    "uwsgi": ("app", under_uwsgi, ("--lazy-apps", "--enable-threads")),
    "uwsgi-fork": ("app", partial(under_uwsgi, early=True), ("--enable-threads",)),
}

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]
each = pytest.mark.parametrize(
    ("framework", "server"), [(framework, server) for server in SERVERS for framework in ("flask", "django")]
)


def maker(framework, server):
    """A maker of servers, and the path at which the application calls the next service."""
    face, under, options = SERVERS[server]
    path = "/async" if (framework, face) == ("django", "asgi") else "/"
    return under(f"tests.support.fleet_{framework}:{face}", *options), path


@each
def test_no_request_fails_and_each_is_one_trace(tmp_path, framework, server):
    make, path = maker(framework, server)
    with Fleet(make, tmp_path, graceful=not server.startswith("uwsgi")) as fleet:
        began = time.monotonic()
        with Crowd(fleet.servers["gateway"].address, path, REQUESTS) as crowd:
            fleet.upset(crowd)
            crowd.finish()
        took = time.monotonic() - began
        assert not crowd.failures, "\n".join([*crowd.failures[:5], fleet.logs()])
        assert len(crowd.cut_off) <= crowd.threads * len(crowd.mortal), crowd.cut_off
        served = Counter(hop["pid"] for _, answer in crowd.answers for hop in hops_of(answer))
        # Two workers of the gateway, two instances of each service, and one more of each after it was killed.
        assert len(served) >= 8, served
        assert max(fleet.stop().values()) < 5, fleet.logs()
        early = isinstance(SERVERS[server][1], partial)
        warned = [
            name
            for name, each in fleet.servers.items()
            if "a control-plane stream ran before fork" in each.log
        ]
        # Stock calls nobody, so its mesh never ran.
        assert sorted(warned) == (["gateway", "orders-1", "orders-2"] if early else []), fleet.logs()
    broken = broken_traces(crowd.answers, fleet.spans())
    assert not broken, broken[:5]
    print(
        f"\n{framework} under {server}: {len(crowd.answers)} requests in {took:.1f} s, 0 failed, one trace each"
        f"; {len(crowd.cut_off)} responses cut off by SIGKILL"
    )


@each
def test_no_run_hangs_and_a_killed_worker_leaves_nothing(tmp_path, framework, server):
    make, path = maker(framework, server)
    with Upstream("orders-a") as first, Upstream("orders-b") as second, ControlPlane() as plane:
        routes = build.virtual_host("orders", build.route(cluster="orders"), domains=["orders"])
        plane.set(
            build.api_listener("orders", build.route_config("orders", routes)),
            build.cluster("orders"),
            build.endpoints("orders", first.address, second.address),
        )
        mesh = {"xds": {"server": plane.address, "view": "target"}, "node": {"id": "fleet"}}
        for run in range(RUNS):
            site = make(tmp_path / f"{run}.log", 2, mesh=mesh, calls="orders", name="gateway")
            with site:
                rob(site, path)
                crew = [os.pidfd_open(worker) for worker in workers(site.pid)]
                assert site.stop() < 5
                left = [worker for worker in crew if not select.select([worker], [], [], 10.0)[0]]
                for worker in crew:
                    os.close(worker)
                assert not left, "a worker outlived its server"
            plane.wait_for_streams(0)
    print(f"\n{framework} under {server}: {RUNS} of {RUNS} runs ended well")


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_no_request_of_a_pool_fails_and_each_is_one_trace(tmp_path, method):
    make, _ = maker("flask", "gthread")
    with Fleet(make, tmp_path, gateway=False) as fleet:
        with PoolCrowd(fleet, method, REQUESTS, tmp_path / "pool.log") as crowd:
            fleet.upset(crowd)
            crowd.finish()
        said = (tmp_path / "pool.log").read_text()
        assert not crowd.failures, "\n".join([*crowd.failures[:5], said, fleet.logs()])
        assert len({answer["pid"] for _, answer in crowd.answers}) == 4
        assert said.count("a control-plane stream ran before fork") == (1 if method == "fork" else 0), said
    broken = broken_traces(crowd.answers, fleet.spans())
    assert not broken, broken[:5]
    print(f"\na pool by {method}: {len(crowd.answers)} requests, 0 failed, one trace each")


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_no_pool_hangs(tmp_path, method):
    make, _ = maker("flask", "gthread")
    with Fleet(make, tmp_path, gateway=False) as fleet:
        for run in range(RUNS):
            with PoolCrowd(fleet, method, 40, tmp_path / f"{run}.log") as crowd:
                crowd.finish()
            assert not crowd.failures, "\n".join([*crowd.failures[:5], (tmp_path / f"{run}.log").read_text()])
    print(f"\na pool by {method}: {RUNS} of {RUNS} runs ended well")


def rob(site, path):
    """Take one of two workers away by SIGKILL: both serve before, and the other and a new one after it."""
    crew = serving(site, path)
    victim = max(crew)
    os.kill(victim, signal.SIGKILL)
    assert victim not in serving(site, path)


def serving(site, path):
    """Ask the site until two of its processes and both upstreams have answered, at most 2,000 times; the processes."""
    processes, names = set(), set()
    for _ in range(2000):
        connection = http.client.HTTPConnection(site.address, timeout=20)
        with closing(connection):
            connection.request("GET", path, headers={"traceparent": PARENT, "connection": "close"})
            response = connection.getresponse()
            body = response.read()
        assert response.status == 200, (response.status, body[:500], site.log)
        answer = json.loads(body)
        assert dict(answer["next"]["headers"])["traceparent"].split("-")[1] == PARENT.split("-")[1]
        names.add(answer["next"]["name"])
        processes.add(answer["pid"])
        if len(processes) == 2 and len(names) == 2:
            return processes
    raise AssertionError(f"{processes} answered, by {names}:\n{site.log}")


def workers(pid):
    """The processes that a server has forked, oldest first."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
