"""A process that watches its sidecar and tells each value in a line of JSON; a line on its standard input is an order.

    python -m tests.support.sidecar_program '{"sidecar": {…}}' [UID]

``suspect``: a call could not connect. ``fork``: a child looks anew, and tells what it saw. ``UID``: the user that it becomes.
"""

from __future__ import annotations

import json
import os
import sys
import time

from meshlib.config import Config
from meshlib.runtime.clock import MonotonicClock
from meshlib.runtime.worker import Worker
from meshlib.sidecar.watch import Watch


def tell(sidecar, **more):
    facts = {**sidecar.status(sidecar.since).to_dict(), "state": sidecar.state, "at": time.monotonic()}
    facts["address"] = sidecar.address and str(sidecar.address)
    facts["upstreams"] = {name: str(address) for name, address in sidecar.upstreams.items()}
    print(json.dumps({**facts, **more}), flush=True)


def main():
    settings = Config.from_mapping(json.loads(sys.argv[1])).sidecar
    if len(sys.argv) > 2:
        os.seteuid(int(sys.argv[2]))
    clock = MonotonicClock()
    began = time.perf_counter()
    watch = Watch(settings, clock, tell)
    tell(watch.current, seconds=time.perf_counter() - began)
    worker = Worker(clock)
    worker.start()
    watch.start(worker)
    for order in sys.stdin:
        match order.strip():
            case "suspect":
                watch.suspect()
            case "now":
                worker.call(bool, 5.0)  # after what was suspected before
                tell(watch.current)
            case "fork":
                worker.call(watch.stop, 5.0)
                worker.stop(5.0)
                child = os.fork()
                if not child:
                    tell(Watch(settings, clock, tell).current, pid=os.getpid())
                    os._exit(0)
                os.waitpid(child, 0)
                worker.start()
                watch.start(worker)
    assert worker.call(watch.stop, 5.0)
    assert worker.stop(5.0)


if __name__ == "__main__":
    main()
