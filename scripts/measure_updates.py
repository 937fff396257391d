#!/usr/bin/env python3
"""How calls fare while endpoints of a large cluster arrive: their latency before and meanwhile.

A control plane and an upstream run in processes of their own. Threads of this one call a small cluster through the mesh, while
the first load assignment of another one comes into force. ``python scripts/measure_updates.py [ENDPOINTS] [THREADS]``.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import meshlib
from meshlib.testing import ControlPlane, build
from meshlib.testing.control_plane import Raw
from meshlib.testing.upstream_process import UpstreamProcess
from meshlib.xds import schema

__all__ = ["main"]

_BEFORE = 4.0  # seconds of calls before the update
_LOCALITIES = 10


def main(arguments: list[str]) -> int:
    """Measure, print, and give the exit code."""
    if arguments[:1] == ["serve"]:
        return _serve(arguments[1], int(arguments[2]))
    endpoints = int(arguments[0]) if arguments else 100_000
    threads = int(arguments[1]) if len(arguments) > 1 else 4
    with UpstreamProcess("small") as upstream:
        command = [sys.executable, __file__, "serve", upstream.address, str(endpoints)]
        plane = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert plane.stdin is not None
        assert plane.stdout is not None
        try:
            _measure(plane.stdout.readline().strip(), plane.stdin, endpoints, threads)
        finally:
            plane.stdin.close()
            plane.wait(20)
    return 0


def _serve(upstream: str, endpoints: int) -> int:
    """The control plane: its large cluster's endpoints come with the first line of the input."""
    routes = build.route_config(
        "r",
        build.virtual_host("small", build.route(cluster="small"), domains=["small"]),
        build.virtual_host("large", build.route(cluster="large"), domains=["large"]),
    )
    resources = [
        build.listener("l", routes),
        build.cluster("small", [upstream]),
        build.cluster("large", lb_policy="LEAST_REQUEST"),
        build.endpoints("large", "127.0.0.1:1"),
    ]
    each = endpoints // _LOCALITIES
    large = build.endpoints(
        "large",
        *(build.locality(*_addresses(zone * each, each), zone=f"z{zone}") for zone in range(_LOCALITIES)),
    )
    # Made before it is asked for, so that it takes no processor from what is measured.
    message = schema.from_json("envoy.config.endpoint.v3.ClusterLoadAssignment", build.without_type(large))
    ready = Raw("endpoint", "large", message.SerializeToString())
    with ControlPlane(*resources) as plane:
        print(plane.address, flush=True)
        for _ in sys.stdin:
            plane.update(ready)
    return 0


def _addresses(start: int, count: int) -> list[str]:
    numbers = range(start, start + count)
    return [f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:8080" for number in numbers]


def _measure(server: str, order: object, endpoints: int, threads: int) -> None:
    told: list[tuple[float, float]] = []
    stop = threading.Event()
    with (
        meshlib.Mesh({"xds": {"server": server, "view": "sidecar"}}) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        mesh.wait_ready("small", timeout=30)

        def call() -> None:
            while not stop.is_set():
                began = time.perf_counter()
                client.get("http://small/").raise_for_status()
                told.append((began, time.perf_counter() - began))

        with ThreadPoolExecutor(threads) as pool:
            for _ in range(threads):
                pool.submit(call)
            time.sleep(_BEFORE)
            began = time.perf_counter()
            order.write("\n")  # type: ignore[attr-defined]
            order.flush()  # type: ignore[attr-defined]
            runtime = mesh._runtime()

            def there(_: object) -> bool:
                part = runtime.store.snapshot.clusters.get("large")
                return (
                    part is not None
                    and part.assignment is not None
                    and len(part.assignment.endpoints) >= endpoints
                )

            assert runtime.store.wait(there, 120)
            ended = time.perf_counter()
            stop.set()
    before = [seconds for at, seconds in told if at + seconds < began]
    during = [seconds for at, seconds in told if at + seconds >= began and at < ended]
    print(f"{endpoints} endpoints in force after {ended - began:.2f} s; {threads} threads")
    for words, found in (("before", before[len(before) // 4 :]), ("meanwhile", during)):
        found.sort()
        shares = ", ".join(
            f"p{share:g} {1e3 * found[min(len(found) - 1, int(len(found) * share / 100))]:.1f} ms"
            for share in (50, 90, 99, 99.9, 100)
        )
        print(f"{words:10} {len(found):6} calls: {shares}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
