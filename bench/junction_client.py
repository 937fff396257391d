"""Junction's session, in an environment of its own. Run by ``bench/peers/junction_requests.py``; needs nothing of this package.

Arguments: the control plane's URL, the server's port, and the paths that are asked for. For each line of standard input, a number
of calls, it makes these calls and prints the seconds of one.
"""

import gc
import os
import sys
import time
from itertools import cycle, islice

control_plane, port, *paths = sys.argv[1:]
os.environ["JUNCTION_ADS_SERVER"] = control_plane

import junction.requests  # noqa: E402 - it reads the variable

backend = {"type": "dns", "hostname": "localhost", "port": int(port)}
session = junction.requests.Session(
    static_routes=[
        {"id": "all", "hostnames": ["localhost"], "rules": [{"matches": [], "backends": [backend]}]}
    ],
    static_backends=[{"id": backend, "lb": {"type": "RoundRobin"}}],
)
base = f"http://localhost:{port}"
for line in sys.stdin:
    calls = int(line)
    urls = list(islice(cycle(base + path for path in paths), calls))
    gc.collect()
    began = time.perf_counter()
    for url in urls:
        response = session.get(url)
        if response.status_code != 200 or len(response.content) != 1024:
            raise SystemExit(f"{response!r}")
    print((time.perf_counter() - began) / calls, flush=True)
