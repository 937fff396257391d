"""Programs under real gevent: `python -m tests.support.gevent_calls NAME JSON`, where JSON is its argument.

Everything is patched before anything else is imported. A program gives what it found, which is printed as a line of JSON.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import contextlib  # noqa: E402
import contextvars  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import ssl  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from collections import Counter  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Self  # noqa: E402

import gevent  # noqa: E402
import greenlet  # noqa: E402
from gevent.fileobject import FileObject  # noqa: E402

import meshlib  # noqa: E402
import meshlib_requests  # noqa: E402
from meshlib.observe.peer import ask  # noqa: E402
from meshlib.testing.orders import ORDER_HEADER  # noqa: E402
from meshlib_requests.urllib3 import PoolManager  # noqa: E402
from tests.support.watch import Watch  # noqa: E402


def told(**order: Any) -> dict[str, str]:
    """The header with which an upstream is told what to do, if it is told anything."""
    return {ORDER_HEADER: json.dumps(order)} if order else {}


class Ticks:
    """A greenlet that wakes every 10 ms, as long as nobody keeps the hub from it. ``worst``: the longest it waited."""

    def __enter__(self) -> Self:
        self.count, self.worst, self._on = 0, 0.0, True
        self._greenlet = gevent.spawn(self._run)
        gevent.sleep(0)
        return self

    def __exit__(self, *exception: object) -> None:
        self._on = False
        self._greenlet.join()

    def _run(self) -> None:
        last = time.monotonic()
        while self._on:
            gevent.sleep(0.01)
            now = time.monotonic()
            self.count, self.worst, last = self.count + 1, max(self.worst, now - last), now


class Faces:
    """The blocking clients of one mesh, and the ways in which each is used."""

    def __init__(self, mesh: meshlib.Mesh) -> None:
        self.client = meshlib.Client(mesh=mesh)
        self.session = meshlib_requests.Session(mesh=mesh)
        self.manager = PoolManager(mesh=mesh)
        self.ways = {
            "httpx": self.httpx,
            "httpx stream": self.httpx_stream,
            "requests": self.requests,
            "requests stream": self.requests_stream,
            "urllib3": self.urllib3,
        }

    def httpx(self, url: str, **order: Any) -> int:
        return self.client.get(url, headers=told(**order)).status_code

    def httpx_stream(self, url: str, **order: Any) -> int:
        with self.client.stream("GET", url, headers=told(**order)) as response:
            for _ in response.iter_bytes():
                gevent.sleep(0)
            return response.status_code

    def requests(self, url: str, **order: Any) -> int:
        return self.session.get(url, headers=told(**order)).status_code

    def requests_stream(self, url: str, **order: Any) -> int:
        with self.session.get(url, headers=told(**order), stream=True) as response:
            for _ in response.iter_content(64):
                gevent.sleep(0)
            return response.status_code

    def urllib3(self, url: str, **order: Any) -> int:
        return int(self.manager.request("GET", url, headers=told(**order)).status)

    def close(self) -> None:
        self.client.close()
        self.session.close()
        self.manager.clear()


def live(mesh: meshlib.Mesh) -> Any:
    return mesh._runtime().clusters.get("static", "reviews")


def held(mesh: meshlib.Mesh) -> list[int]:
    """What must be 0 when no call is under way."""
    cluster = live(mesh)
    return [
        cluster.active,
        cluster.pending,
        cluster.retries,
        *(endpoint.active for endpoint in cluster.endpoints),
    ]


class Stop(BaseException):
    """What a greenlet is ended with; as gevent.Timeout, it is no Exception."""


def ended_at(number: int, call: Any) -> tuple[str, bool]:
    """Run ``call`` in a greenlet that is ended where it gives way to the hub for the ``number``-th time. How it ended, and
    whether it came so far.
    """
    count = 0

    def run() -> str:
        try:
            return str(call())
        except Stop:
            return "stopped"

    mine = gevent.Greenlet(run)

    def look(event: str, greenlets: tuple[Any, Any]) -> None:
        nonlocal count
        if event in ("switch", "throw") and greenlets[0] is mine and not mine.dead:
            count += 1
            if count == number:
                mine.kill(Stop(), block=False)

    before = greenlet.settrace(look)
    try:
        mine.start()
        mine.join(30)
    finally:
        greenlet.settrace(before)
    if not mine.successful():
        raise AssertionError(f"ended at {number}: {mine!r} {mine.exception!r}")
    return mine.value, count >= number


def at_every_point(call: Any, after: Any) -> Counter[str]:
    """``ended_at`` for 1, 2, … until ``call`` comes to its end first; ``after`` each."""
    found: Counter[str] = Counter()
    number, reached = 0, True
    while reached:
        number += 1
        how, reached = ended_at(number, call)
        found[how] += 1
        after()
    return found


# --- the programs -----------------------------------------------------------------------------------------------------


def crowd(argument: dict[str, Any]) -> Any:
    """200 greenlets at once, with each face."""
    mesh = meshlib.Mesh({"services": {"reviews": {"endpoints": argument["addresses"], "timeout": 20.0}}})
    faces = Faces(mesh)
    found: dict[str, Any] = {}
    with Ticks() as ticks:
        for name, way in faces.ways.items():
            greenlets = [gevent.spawn(way, "http://reviews/", delay=0.05) for _ in range(200)]
            gevent.joinall(greenlets, timeout=60)
            found[name] = Counter(str(one.value) for one in greenlets)
    at_rest = held(mesh)
    faces.close()
    open_after = live(mesh).connections
    mesh.close()
    return {"found": found, "held": at_rest, "connections": open_after, "ticks": ticks.count}


def killed(argument: dict[str, Any]) -> Any:
    """Each way of calling ended at each of the points where it waits, with new connections and with old ones."""
    service = {
        "endpoints": argument["addresses"],
        "timeout": 20.0,
        "retry": {"attempts": 2, "on": ["5xx"], "budget": 1.0},
        "limits": {"max_connections": 40},
    }
    found: dict[str, Any] = {}
    with meshlib.Mesh({"services": {"reviews": service}}) as mesh:
        for name in Faces(mesh).ways:
            for kind, order in ORDERS.items():
                found[f"{name}, {kind}, new"] = at_every_point(*fresh(mesh, name, order))
                faces = Faces(mesh)
                faces.ways[name]("http://reviews/")
                found[f"{name}, {kind}, warm"] = at_every_point(*kept(mesh, faces.ways[name], order))
                faces.close()
                assert live(mesh).connections == 0, (name, kind, live(mesh).connections)
    return found


ORDERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "slow body": {"chunks": 3, "chunk_delay": 0.02},
    "retried": {"status": 503},
}


def fresh(mesh: meshlib.Mesh, name: str, order: dict[str, Any]) -> tuple[Any, Any]:
    """A call by a client of its own, which has to connect; and what must hold after it."""

    def call() -> Any:
        faces = Faces(mesh)
        try:
            return faces.ways[name]("http://reviews/", **order)
        finally:
            faces.close()

    def after() -> None:
        assert not any(held(mesh)), (name, order, held(mesh))
        assert live(mesh).connections == 0, (name, order, live(mesh).connections)

    return call, after


def kept(mesh: meshlib.Mesh, way: Any, order: dict[str, Any]) -> tuple[Any, Any]:
    """A call by a client that goes on; and what must hold after it."""

    def after() -> None:
        assert not any(held(mesh)), (order, held(mesh))

    return lambda: way("http://reviews/", **order), after


def crossfire(argument: dict[str, Any]) -> Any:
    """Many calls at once on few connections, half of them ended by a Timeout or a kill at some moment."""
    service = {
        "endpoints": argument["addresses"],
        "timeout": 20.0,
        "limits": {"max_connections": 6, "max_pending": 1000},
    }
    mesh = meshlib.Mesh({"services": {"reviews": service}})
    faces = Faces(mesh)
    ways = list(faces.ways.values())
    found: Counter[str] = Counter()

    def one(number: int) -> None:
        seconds = 20.0 if number % 4 else 0.001 * (number % 37)
        try:
            with gevent.Timeout(seconds):
                status = ways[number % len(ways)]("http://reviews/", delay=0.002 * (number % 5))
        except gevent.Timeout:
            found["timeout"] += 1
        except gevent.GreenletExit:
            found["killed"] += 1
        else:
            found[str(status)] += 1

    for since in range(0, 600, 60):
        greenlets = [gevent.spawn(one, number) for number in range(since, since + 60)]
        for number, mine in enumerate(greenlets):
            if number % 4 == 2:
                gevent.spawn_later(0.001 * (number % 41), mine.kill)
        gevent.joinall(greenlets, timeout=60)
        assert all(mine.dead for mine in greenlets)
    at_rest = held(mesh)
    faces.close()
    left = live(mesh).connections
    mesh.close()
    return {"found": found, "held": at_rest, "connections": left}


def probe(argument: dict[str, Any]) -> Any:
    """A breaker's one call on trial is killed: the next one may try."""
    breaker = {"consecutive_failures": 1, "open_for": 0.01}
    service = {"endpoints": argument["addresses"], "timeout": 20.0, "breaker": breaker}
    found: Counter[str] = Counter()
    with meshlib.Mesh({"services": {"reviews": service}}) as mesh:
        faces = Faces(mesh)
        for way in faces.ways.values():
            number, reached = 0, True
            while reached:
                number += 1
                with contextlib.suppress(meshlib.MeshError):
                    way("http://reviews/", status=500)
                while live(mesh)._breakers.one.would_permit(time.monotonic()) is False:
                    gevent.sleep(0)
                how, reached = ended_at(number, lambda way=way: way("http://reviews/"))
                found[how] += 1
                found[f"then {way('http://reviews/')}"] += 1
        found["held"] = sum(held(mesh))
        faces.close()
    return found


def first_call(argument: dict[str, Any]) -> Any:
    """The first call of a process is killed at each of its points: the next one works, and nothing is left at the end."""
    found: Counter[str] = Counter()
    number, reached = 0, True
    while reached:
        number += 1
        mesh = meshlib.Mesh({"services": {"reviews": {"endpoints": argument["addresses"]}}})
        client = meshlib.Client(mesh=mesh)
        how, reached = ended_at(number, lambda client=client: client.get("http://reviews/").status_code)
        found[how] += 1
        found[f"then {client.get('http://reviews/').status_code}"] += 1
        client.close()
        mesh.close()
        left = [one.name for one in threading.enumerate() if one.name.startswith("meshlib")]
        assert not left, (number, left)
    return found


def policies(argument: dict[str, Any]) -> Any:
    """Retries, ejection, a timeout, a deadline; meanwhile others run."""
    good, bad, gone = argument["good"], argument["bad"], argument["gone"]
    config = {
        "services": {
            "retried": {"endpoints": [gone, good], "retry": {"attempts": 4, "on": ["connect-failure"]}},
            "ejecting": {
                "endpoints": [bad, good],
                "outlier": {"consecutive_5xx": 3, "base_ejection": 60.0, "max_ejection_percent": 50},
            },
            "slow": {"endpoints": [good], "timeout": 0.3},
            "patient": {"endpoints": [good]},
        }
    }
    mesh = meshlib.Mesh(config)
    faces = Faces(mesh)
    found: dict[str, Any] = {}

    def timed(url: str) -> list[Any]:
        since = time.monotonic()
        try:
            faces.httpx(url, delay=5.0)
        except meshlib.DeadlineExceeded as error:
            return [type(error).__name__, time.monotonic() - since]
        return ["no error", 0.0]

    def bounded(url: str) -> list[Any]:
        with meshlib.deadline(0.3):
            return timed(url)

    with Ticks() as ticks:
        greenlets = [gevent.spawn(faces.httpx, "http://retried/") for _ in range(20)]
        gevent.joinall(greenlets, timeout=30)
        found["retried"] = Counter(str(one.value) for one in greenlets)
        first = Counter(str(faces.requests("http://ejecting/")) for _ in range(12))
        later = Counter(str(faces.requests("http://ejecting/")) for _ in range(12))
        found["ejecting"], found["ejected"] = first, later
        greenlets = [gevent.spawn(timed, "http://slow/") for _ in range(10)]
        greenlets += [gevent.spawn(bounded, "http://patient/") for _ in range(10)]
        gevent.joinall(greenlets, timeout=30)
        found["slow"] = [one.value for one in greenlets]
    found["outside"] = faces.httpx("http://patient/")
    faces.close()
    mesh.close()
    return {**found, "ticks": ticks.count}


def contexts(argument: dict[str, Any]) -> Any:
    """What a greenlet's request says reaches its own calls only."""
    from meshlib.inbound import current
    from meshlib_wsgi import Middleware

    mesh = meshlib.Mesh({"services": {"reviews": {"endpoints": argument["addresses"]}}})
    client = meshlib.Client(mesh=mesh)
    found: Counter[str] = Counter()

    def sent(response: Any) -> str:
        return next((value for name, value in response.json()["headers"] if name == "x-request-id"), "")

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        mine = environ["HTTP_X_REQUEST_ID"]
        answer = client.get("http://reviews/", headers=told(delay=0.02))
        gevent.sleep(0)
        seen = current()
        found["kept" if seen is not None and seen.request_id == mine else "lost"] += 1
        found["carried" if sent(answer) == mine else "not carried"] += 1
        start_response("200 OK", [])
        return [b""]

    middleware = Middleware(application, mesh=mesh)

    def serve(number: int) -> None:
        """As a connection that is kept: several requests in one greenlet, and one without an id of its own between them."""
        for turn in range(3):
            list(middleware({"HTTP_X_REQUEST_ID": f"r{number}.{turn}"}, lambda *_: None))
            found["clean" if current() is None else "left behind"] += 1
        found["plain" if not sent(client.get("http://reviews/")) else "leaked"] += 1

    def bounded(number: int) -> None:
        with meshlib.deadline(30.0 + number):
            gevent.sleep(0)
            left = meshlib.deadlines.current_deadline() - time.monotonic()
            found["own deadline" if 29 + number < left <= 30 + number else "another's deadline"] += 1
            spawned = gevent.spawn(meshlib.deadlines.current_deadline).get()
            handed = gevent.spawn(contextvars.copy_context().run, meshlib.deadlines.current_deadline).get()
            found["spawned with none"] += spawned is None
            found["spawned with it"] += handed is not None

    greenlets = [gevent.spawn(serve, number) for number in range(50)]
    greenlets += [gevent.spawn(bounded, number) for number in range(50)]
    gevent.joinall(greenlets, timeout=60, raise_error=True)
    client.close()
    mesh.close()
    return found


def handed_on(argument: dict[str, Any]) -> Any:
    """One connection, two who wait for it: the first is ended at the moment in which it is told, the second gets it."""
    service = {
        "endpoints": argument["addresses"][:1],
        "timeout": 20.0,
        "limits": {"max_connections": 1, "max_pending": 9},
    }
    found: Counter[str] = Counter()
    with meshlib.Mesh({"services": {"reviews": service}}) as mesh, meshlib.Client(mesh=mesh) as client:
        for _ in range(20):
            with client.stream("GET", "http://reviews/") as holding:
                first, second = (gevent.spawn(client.get, "http://reviews/") for _ in range(2))
                while live(mesh).pending < 2:
                    gevent.sleep(0)
                first.kill(Stop(), block=False)
                holding.read()  # all of it is there: the hub comes to the killing once the connection is free
            since = time.monotonic()
            found[str(second.get(timeout=10).status_code)] += 1
            found["in time" if time.monotonic() - since < 2 else "late"] += 1
        found["held"] = sum(held(mesh))
    return found


def sources(argument: dict[str, Any]) -> Any:
    """Names that DNS tells and a file that is edited, while calls go on."""
    first, second = argument["addresses"]
    path = Path(argument["folder"]) / "mesh.json"

    def write(endpoint: str) -> None:
        early = path.with_suffix(".new")
        named = {"dns": f"named.test:{first.rpartition(':')[2]}"}
        services = {"reviews": {"endpoints": [endpoint]}, "named": named}
        early.write_text(json.dumps({"services": services, "dns": argument["dns"]}))
        early.rename(path)

    write(first)
    found: dict[str, Any] = {}
    with Ticks() as ticks, meshlib.Mesh(str(path)) as mesh, meshlib.Client(mesh=mesh) as client:
        mesh.wait_ready("named", "reviews", timeout=20)
        found["named"] = client.get("http://named/").json()["name"]
        found["before"] = client.get("http://reviews/").json()["name"]
        write(second)
        store = mesh._runtime().store
        store.wait(lambda _: client.get("http://reviews/").json()["name"] != found["before"], 20.0)
        found["after"] = client.get("http://reviews/").json()["name"]
    return {**found, "ticks": ticks.count}


def children(argument: dict[str, Any]) -> Any:
    """Programs that are executed, and a fork in the midst of calls whose child calls, too; the admin socket of both."""
    folder = argument["folder"]
    config = {
        "services": {"reviews": {"endpoints": argument["addresses"]}},
        "admin": {"enabled": True, "runtime_dir": folder},
    }
    mesh = meshlib.Mesh(config)
    client = meshlib.Client(mesh=mesh)
    client.get("http://reviews/")
    worker = mesh._runtime().worker._thread
    found: dict[str, Any] = {"true": [subprocess.run(["true"], check=False).returncode for _ in range(20)]}
    found["same worker"] = mesh._runtime().worker._thread is worker
    found["dumped"] = gevent.spawn(dumped, os.getpid(), folder).get(timeout=20)
    watch = Watch(mesh)
    busy = [gevent.spawn(client.get, "http://reviews/", headers=told(delay=0.2)) for _ in range(10)]
    watch.until(lambda: live(mesh).active >= len(busy))
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        answer = client.get("http://reviews/").status_code
        os.write(
            writing, json.dumps([answer, dumped(os.getpid(), folder), mesh.status().process.forked]).encode()
        )
        mesh.close()
        os._exit(0)
    os.close(writing)
    with FileObject(reading, "rb") as pipe:
        found["child"] = json.loads(pipe.read())
    found["ended"] = os.waitpid(pid, 0)[1]
    gevent.joinall(busy, timeout=30)
    found["meanwhile"] = Counter(str(one.value.status_code) for one in busy)
    found["dumped again"] = dumped(os.getpid(), folder)
    client.close()
    mesh.close()
    found["left"] = sorted(path.name for path in Path(folder).glob("*.sock"))
    return found


def dumped(pid: int, folder: str) -> int:
    """How many clusters the process shows at its socket."""
    return len(ask(pid, "status", [Path(folder)])[0]["clusters"])


def secured(argument: dict[str, Any]) -> Any:
    """TLS that the URL asks for, and TLS that the mesh demands, with a name that is in the certificate and one that is not."""
    found: dict[str, Any] = {}
    ca, cases = argument["ca"], argument["cases"]
    trusting = ssl.create_default_context(cafile=ca)
    order = told(delay=0.1)
    with Ticks() as ticks:
        for name, case in cases.items():
            mesh = meshlib.Mesh(case["config"])
            client = meshlib.Client(mesh=mesh, verify=trusting)
            session = meshlib_requests.Session(mesh=mesh)
            session.trust_env, session.verify = False, ca

            def call(one: Any, url: str = case["url"]) -> str:
                try:
                    return str(one.get(url, headers=order).status_code)
                except meshlib.MeshError as error:
                    return (
                        f"{type(error).__name__}, {'names' if 'none of the names' in str(error) else error}"
                    )

            since = time.monotonic()
            calls = [gevent.spawn(call, one) for one in (client, session) for _ in range(20)]
            gevent.joinall(calls, timeout=60)
            found[name] = [Counter(one.value for one in calls), time.monotonic() - since]
            client.close()
            session.close()
            mesh.close()
    return {"cases": found, "ticks": ticks.count}


def exits(argument: dict[str, Any]) -> Any:
    """The end of a program that closes nothing, with greenlets in calls and with bodies that nobody reads."""
    mesh = meshlib.Mesh({"services": {"reviews": {"endpoints": argument["addresses"]}}})
    client = meshlib.Client(mesh=mesh)
    argument["kept"] = client.send(client.build_request("GET", "http://reviews/"), stream=True)
    watch = Watch(mesh)
    for _ in range(10):
        gevent.spawn(client.get, "http://reviews/", headers=told(hold="head"), timeout=None)
    watch.until(lambda: live(mesh).active >= 11)
    return {"at": time.time()}


PROGRAMS = {
    program.__name__: program
    for program in (
        crowd,
        killed,
        crossfire,
        handed_on,
        probe,
        first_call,
        policies,
        contexts,
        sources,
        children,
        secured,
        exits,
    )
}


def main() -> None:
    print(json.dumps(PROGRAMS[sys.argv[1]](json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
