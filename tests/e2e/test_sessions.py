"""Sessions stay with their endpoint by a header that the server chose, while replicas come and go."""

from __future__ import annotations

import json
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import meshlib
from meshlib.testing import ControlPlane, build

pytestmark = pytest.mark.timeout(900)

#: ``MESHLIB_SESSION_CALLS=100000`` is the whole of it.
CALLS = int(os.environ.get("MESHLIB_SESSION_CALLS", "2000"))
THREADS = 8
HEADER = "mcp-session-id"


class _Answers(BaseHTTPRequestHandler):
    """Begins a session for who has none; counts calls of sessions that it did not begin."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65_536  # head and body at once
    server: Replica

    def do_GET(self) -> None:
        replica, session = self.server, self.headers.get(HEADER)
        status = 200
        if session is None:
            session = f"{replica.name}-{next(replica.numbers)}"
            replica.sessions.add(session)
        elif session not in replica.sessions:
            replica.wrong.append(session)
            status = 404
        body = replica.name.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if status == 200:
            self.send_header(HEADER, session)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Replica(ThreadingHTTPServer):
    """One of a service, on a port of its own."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.name = name
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.sessions: set[str] = set()
        self.wrong: list[str] = []
        self.numbers = iter(range(10**9))
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join(20)
        self.server_close()


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    found = [Replica(name) for name in "abc"]
    yield found
    for each in found:
        each.stop()


def service(replicas: list[Replica], present: set[int]) -> str:
    here = [replica.address for number, replica in enumerate(replicas) if number in present]
    return json.dumps({"services": {"tools": {"endpoints": here, "session": {"header": HEADER}}}})


def resources(replicas: list[Replica], present: set[int]) -> list[Any]:
    here = [replica.address for number, replica in enumerate(replicas) if number in present]
    return [build.endpoints("tools", *here)]


ENVELOPE = "envoy.extensions.http.stateful_session.envelope.v3.EnvelopeSessionState"
FILTER = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"


class Coming:
    """Sessions that are called while replicas leave the configuration and return."""

    def __init__(self, replicas: list[Replica], put: Any) -> None:
        self.replicas = replicas
        self.put = put
        self.present = {0, 1, 2}
        self.lock = threading.Lock()
        self.seen: Counter[str] = Counter()

    def step(self, chance: random.Random) -> None:
        """One replica leaves, or returns; one always stays."""
        with self.lock:
            if len(self.present) > 1 and chance.random() < 0.5:
                self.present.discard(chance.choice(sorted(self.present)))
            else:
                self.present.add(chance.randrange(3))
            self.put(set(self.present))

    def work(self, get: Any, calls: int, seed: int) -> None:
        """``get(session)`` gives status, answering replica and the session's id."""
        chance = random.Random(seed)
        sessions: list[tuple[str, str]] = []
        for number in range(calls):
            if number % 50 == seed * 5 % 50:
                self.step(chance)
            if len(sessions) < 5:
                status, name, value = get(None)
                assert status == 200
                sessions.append((value, name))
                self.seen["begun"] += 1
                continue
            value, name = chance.choice(sessions)
            status, answered, _ = get(value)
            if status == 200:
                assert answered == name
                self.seen["right"] += 1
            else:
                # Its endpoint is gone: said here, and no other was asked. The session is begun anew.
                assert status == 404
                sessions.remove((value, name))
                self.seen["gone"] += 1


def plane_of(replicas: list[Replica]) -> ControlPlane:
    state = build.any_of(ENVELOPE, {"header": {"name": HEADER}})
    kept = {
        "session_state": {"name": "envoy.http.stateful_session.envelope", "typed_config": state},
        "strict": True,
        "status_on_strict_destination_not_found": 404,
    }
    filters = [{"name": "envoy.filters.http.stateful_session", "typed_config": build.any_of(FILTER, kept)}]
    routes = build.route_config("r", build.virtual_host("v", build.route(cluster="tools"), domains=["*"]))
    return ControlPlane(
        build.listener("l", routes, filters=filters, address="127.0.0.1:18080"),
        build.cluster("tools"),
        *resources(replicas, {0, 1, 2}),
    )


def run(coming: Coming, get: Any) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            coming.work(get, CALLS // THREADS, seed)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert [replica.wrong for replica in coming.replicas] == [[], [], []]
    assert coming.seen["right"] > CALLS // 2
    assert coming.seen["gone"] > CALLS // 500


def test_no_call_of_a_session_comes_to_another_replica(replicas: list[Replica], tmp_path: Path) -> None:
    """Remembered here, from the configuration file alone, which changes meanwhile."""
    file = tmp_path / "mesh.json"
    file.write_text(service(replicas, {0, 1, 2}))
    with ExitStack() as stack:
        mesh = stack.enter_context(meshlib.Mesh(file))
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=60))
        static: Any = next(each for each in mesh._runtime().feed.sources if each.name == "static")  # type: ignore[attr-defined]
        worker = mesh._runtime().worker

        def put(present: set[int]) -> None:
            """What the watch of the file would do, at once."""
            services = meshlib.Config.from_mapping(json.loads(service(replicas, present))).services
            worker.call(lambda: static.reconfigure(services), 20)

        def get(session: str | None) -> tuple[int, str, str]:
            answer = client.get("http://tools/", headers={HEADER: session} if session else {})
            return answer.status_code, answer.text, answer.headers.get(HEADER, "")

        run(Coming(replicas, put), get)


def test_nor_by_an_envelope(replicas: list[Replica]) -> None:
    """What a control plane orders, and takes away."""
    with ExitStack() as stack:
        plane = stack.enter_context(plane_of(replicas))
        mesh = stack.enter_context(meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}}))
        mesh.wait_ready("127.0.0.1:18080", timeout=30)
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=60))

        def put(present: set[int]) -> None:
            seen = plane.seen
            plane.update(*resources(replicas, present))
            plane.wait_for_ack("endpoint", after=seen, timeout=20)

        def get(session: str | None) -> tuple[int, str, str]:
            answer = client.get("http://127.0.0.1:18080/", headers={HEADER: session} if session else {})
            return answer.status_code, answer.text, answer.headers.get(HEADER, "")

        run(Coming(replicas, put), get)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_goes_on_with_its_parents_sessions(replicas: list[Replica], tmp_path: Path) -> None:
    file = tmp_path / "mesh.json"
    file.write_text(service(replicas, {0, 1, 2}))
    with meshlib.Mesh(file) as mesh, meshlib.Client(mesh=mesh, timeout=30) as client:
        begun = [client.get("http://tools/") for _ in range(6)]
        child = os.fork()
        if not child:
            code = 1
            try:
                again = [client.get("http://tools/", headers={HEADER: one.headers[HEADER]}) for one in begun]
                code = 0 if [one.text for one in again] == [one.text for one in begun] else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    assert [replica.wrong for replica in replicas] == [[], [], []]
