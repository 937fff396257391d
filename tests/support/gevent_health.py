"""Health checks under real gevent: `python -m tests.support.gevent_health NAME JSON`, as `tests.support.gevent_calls`."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

import meshlib  # noqa: E402
from tests.support.gevent_calls import Ticks  # noqa: E402


def checks(argument: dict[str, Any]) -> Any:
    """Two that serve, one that is dead and one that never answers, over plain text and by name; then a fork."""
    check = {"path": "/healthz", "interval": 0.1, "timeout": 0.3}
    # Nothing is known of any when a process calls first: two of four do not serve, and that call finds one that does.
    retry = {"attempts": 4, "on": ["5xx", "connect-failure", "reset"], "per_try_timeout": 0.3}
    service = {"endpoints": argument["endpoints"], "health_check": check, "retry": retry}
    config = {"services": {"reviews": service}}
    with meshlib.Mesh(config) as mesh, meshlib.Client(mesh=mesh) as client:

        def health() -> list[str]:
            return [each.health for each in mesh.status().clusters["reviews"].endpoints]

        def wait() -> list[str]:
            changed = threading.Event()
            forget = mesh._runtime().observe(lambda _: changed.set(), calls=False)
            until = time.monotonic() + 20
            while health() != argument["expected"] and changed.wait(until - time.monotonic()):
                changed.clear()
            forget()
            return health()

        with Ticks() as ticks:
            first = client.get("http://reviews/").status_code
            found = wait()
            statuses = {client.get("http://reviews/").status_code for _ in range(10)}
        threads = sorted(one.name for one in threading.enumerate() if one.name.startswith("meshlib-health"))
        child = os.fork()
        if not child:
            client.get("http://reviews/")
            os._exit(0 if wait() == argument["expected"] else 1)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        client.get("http://reviews/")
        again = wait()
    left = [one.name for one in threading.enumerate() if one.name.startswith("meshlib-health")]
    return {
        "first": first,
        "found": found,
        "statuses": sorted(statuses),
        "threads": threads,
        "child": ended,
        "again": again,
        "left": left,
        "worst": ticks.worst,
        "ticks": ticks.count,
    }


if __name__ == "__main__":
    print(json.dumps({"checks": checks}[sys.argv[1]](json.loads(sys.argv[2]))))
