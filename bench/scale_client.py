"""The application of the case ``scale``, in a process of its own: a mesh, and threads that call a small service of it.

``python -m bench.scale_client SERVER PROTOCOL URL``. Then each line of its input is an order, answered with a line of JSON:

    open      the mesh is made
    call      the threads begin
    calls     the seconds of each call since the last time this was asked
    memory    KiB that are resident
    used      seconds of processor time so far
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import threading
import time
from collections import deque
from pathlib import Path

import meshlib

_THREADS = 4


def main(arguments: list[str]) -> None:
    server, protocol, url = arguments
    told: deque[float] = deque()
    stop = threading.Event()
    threads: list[threading.Thread] = []
    importlib.import_module("grpc")  # what is imported is none of the load
    importlib.import_module("meshlib.xds.session")
    xds = {"server": server, "view": "sidecar", "protocol": protocol}
    with meshlib.Mesh({"xds": xds}) as mesh, meshlib.Client(mesh=mesh) as client:

        def work() -> None:
            while not stop.is_set():
                began = time.perf_counter()
                client.get(url).raise_for_status()
                told.append(time.perf_counter() - began)

        for line in sys.stdin:
            order = line.strip()
            answer: object = None
            if order == "open":
                mesh.snapshot()
            elif order == "call":
                mesh.wait_ready(url.split("/")[2], timeout=60)
                threads = [threading.Thread(target=work) for _ in range(_THREADS)]
                for thread in threads:
                    thread.start()
            elif order == "calls":
                answer = [told.popleft() for _ in range(len(told))]
            elif order == "used":
                answer = time.process_time()
            else:
                gc.collect()
                answer = resident("self")
            print(json.dumps(answer), flush=True)
        stop.set()
        for thread in threads:
            thread.join()


def used(process: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int | str) -> int:
    """KiB of memory that a process has in use."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4


if __name__ == "__main__":
    main(sys.argv[1:])
