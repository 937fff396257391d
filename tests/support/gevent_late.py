"""gevent patches the process after meshlib was imported, or used: `python -m tests.support.gevent_late WHEN JSON`."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections import Counter

import meshlib
import meshlib_requests


def main() -> None:
    when, argument = sys.argv[1], json.loads(sys.argv[2])
    config = {"services": {"reviews": {"endpoints": argument["addresses"]}}}
    mesh = meshlib.Mesh(config)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("meshlib").addHandler(handler)
    if when == "used":
        with meshlib.Client(mesh=mesh) as client:
            client.get("http://reviews/")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gevent's own, of ssl
        from gevent import monkey

        monkey.patch_all()
    import gevent

    found: dict[str, object] = {}
    with meshlib.Client(mesh=mesh) as client, meshlib_requests.Session(mesh=mesh) as session:
        order = {"x-upstream-order": '{"delay": 0.1}'}
        since = time.monotonic()
        calls = [
            gevent.spawn(one.get, "http://reviews/", headers=order)
            for one in (client, session)
            for _ in range(20)
        ]
        gevent.joinall(calls, timeout=30)
        found["statuses"] = Counter(str(one.value.status_code) for one in calls)
        found["seconds"] = time.monotonic() - since
        runtime = mesh._runtime()
        runtime.worker.call(runtime._sweep, 5.0)
    mesh.close()
    print(json.dumps({**found, "said": said}))


if __name__ == "__main__":
    main()
