"""Three services deep under each kind of server, while endpoints and the control plane are killed: `make fleet`.

``MESHLIB_FLEET_REQUESTS`` (5,000) are made per framework and server; ``MESHLIB_FLEET_RUNS`` (1) repeats each.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial

import pytest

from tests.support.fleet import Crowd, Fleet, broken_traces, hops_of
from tests.support.web_servers import gunicorn, uwsgi

REQUESTS = int(os.environ.get("MESHLIB_FLEET_REQUESTS", "5000"))
RUNS = int(os.environ.get("MESHLIB_FLEET_RUNS", "1"))


def under_gunicorn(application, *options, early=False):
    def make(log, workers, **site):
        more = {"FLEET_EARLY": "1"} if early else {}
        return gunicorn(application, log, "--workers", str(workers), *options, **site, **more)

    return make


def under_uwsgi(application, *options, early=False):
    def make(log, workers, **site):
        more = {"FLEET_EARLY": "1"} if early else {}
        return uwsgi(application, log, "--processes", str(workers), *options, **site, **more)

    return make


SERVERS = {
    # The application, loaded before the fork, has run the mesh there: the worst that one can do.
    "sync-preload": ("app", partial(under_gunicorn, early=True), ("--preload",)),
    "gthread": ("app", under_gunicorn, ("--worker-class", "gthread", "--threads", "4")),
    "gevent": ("app", under_gunicorn, ("--worker-class", "gevent")),
    "uvicorn": ("asgi", under_gunicorn, ("--worker-class", "uvicorn.workers.UvicornWorker")),
    "uwsgi": ("app", under_uwsgi, ("--lazy-apps", "--enable-threads")),
    "uwsgi-fork": ("app", partial(under_uwsgi, early=True), ("--enable-threads",)),
}


@pytest.mark.fleet
@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", range(RUNS))
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("framework", ["flask", "django"])
def test_no_request_fails_and_each_is_one_trace(tmp_path, framework, server, run):
    face, under, options = SERVERS[server]
    make = under(f"tests.support.fleet_{framework}:{face}", *options)
    path = "/async" if (framework, face) == ("django", "asgi") else "/"
    with Fleet(make, tmp_path) as fleet:
        with Crowd(fleet.servers["gateway"].address, path, REQUESTS) as crowd:
            fleet.upset(crowd)
            crowd.finish()
        assert not crowd.failures, "\n".join([*crowd.failures[:5], fleet.logs()])
        served = Counter(hop["pid"] for _, answer in crowd.answers for hop in hops_of(answer))
        # Two workers of the gateway, two instances of each service, and one more of each after it was killed.
        assert len(served) >= 8, served
        assert max(fleet.stop().values()) < 5, fleet.logs()
    broken = broken_traces(crowd.answers, fleet.spans())
    assert not broken, broken[:5]
    print(f"{framework} under {server}: {len(crowd.answers)} requests, 0 failed, one trace each")
