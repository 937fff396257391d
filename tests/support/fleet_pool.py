"""``fleet_hop`` in the processes of a ``multiprocessing`` pool: a line of headers in is a line of an answer out.

``python -m tests.support.fleet_pool METHOD``: fork, forkserver or spawn. The parent runs the mesh, with a stream open, before
it makes the pool. The environment says which mesh.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import threading
import time

import meshlib
from meshlib.inbound import enter, leave, read
from tests.support.fleet_hop import NEXT, call, get_ready

__all__ = ["main", "work"]

PROCESSES = 4


def work(number: int, headers: dict[str, str]) -> tuple[int, int, object]:
    environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers.items()}
    token = enter(read(environ.get, time.monotonic()))
    try:
        return number, 200, call(headers)
    except Exception as error:  # noqa: BLE001 - counted by who asked
        return number, 500, repr(error)
    finally:
        leave(token)


def main(method: str) -> None:
    get_ready()
    meshlib.default().wait_ready(NEXT, timeout=20.0)
    context = multiprocessing.get_context(method)
    lock = threading.Lock()  # guards standard output: a line is whole

    def answer(result: tuple[int, int, object]) -> None:
        with lock:
            print(json.dumps(result), flush=True)

    # A forked process has what the parent has set up; the others begin anew.
    with context.Pool(PROCESSES, None if method == "fork" else get_ready) as pool:
        for line in sys.stdin:
            pool.apply_async(work, json.loads(line), callback=answer)
        pool.close()
        pool.join()
    meshlib.default().close()


if __name__ == "__main__":
    main(sys.argv[1])
