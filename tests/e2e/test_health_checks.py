"""Active health checks on real servers that die, hang, lie and return; who pays for them, and when they end."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import meshlib
from meshlib.config import Config
from meshlib.core.upstream import PickContext, Refusal
from meshlib.hosts.health import prober
from meshlib.model.events import EndpointChecked
from meshlib.runtime.live_health import LiveHealth
from meshlib.sources.static import build
from meshlib.testing import Upstream
from tests.support.certificates import Authority

#: Seconds between checks here; a row of three takes so long.
INTERVAL = 0.1


_turns = threading.Condition()
#: How often the prober has put into force what it heard of each.
_settled: Counter[LiveHealth] = Counter()


@pytest.fixture(autouse=True)
def _turns_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is woken whenever the prober has put into force what it heard."""
    settle = LiveHealth.settle

    def told(health: LiveHealth) -> None:
        settle(health)
        with _turns:
            _settled[health] += 1
            _turns.notify_all()

    monkeypatch.setattr(LiveHealth, "settle", told)
    _settled.clear()


def eventually(holds: Callable[[], Any], seconds: float = 10.0) -> Any:
    until = time.monotonic() + seconds
    with _turns:
        while not (found := holds()):
            left = until - time.monotonic()
            assert left > 0, "it never held"
            _turns.wait(left)
    return found


class Service:
    """A mesh with one service whose endpoints are checked."""

    def __init__(self, addresses: list[str], check: dict[str, Any], **policies: Any) -> None:
        # A busy machine answers within that time, too.
        checked = {"interval": INTERVAL, "timeout": 2.0, **check}
        self.mesh = meshlib.Mesh(
            {"services": {"reviews": {"endpoints": addresses, "health_check": checked, **policies}}}
        )
        self.client = meshlib.Client(mesh=self.mesh)

    def close(self) -> None:
        self.client.close()
        self.mesh.close()

    def get(self) -> Any:
        return self.client.get("http://reviews/")

    def wake(self) -> Service:
        """The first call; who answers it is not asked."""
        with suppress(meshlib.MeshError):
            self.get()
        return self

    def rouse(self) -> Service:
        """As a call does that picks, and goes nowhere."""
        live = self.mesh._runtime().clusters.get("static", "reviews")
        assert live is not None
        picked = live.pick(PickContext(), time.monotonic())
        assert not isinstance(picked, Refusal)
        picked.release(time.monotonic())
        return self

    def endpoints(self) -> dict[str, Any]:
        return {each.address: each for each in self.mesh.status().clusters["reviews"].endpoints}

    def health(self) -> list[str]:
        return [each.health for each in self.endpoints().values()]

    def become(self, *health: str) -> None:
        """And calls go by it."""
        eventually(lambda: self.health() == list(health))
        live = self.mesh._runtime().clusters.get("static", "reviews")
        assert live is not None
        before = _settled[live.health]
        eventually(lambda: _settled[live.health] > before)

    def checked(self, more: int = 1) -> None:
        """So many more checks of each have ended."""
        before = [each.checks for each in self.endpoints().values()]
        eventually(
            lambda: all(
                each.checks >= old + more for each, old in zip(self.endpoints().values(), before, strict=True)
            )
        )


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    with ExitStack() as stack:

        def make(addresses: list[str], check: dict[str, Any] | None = None, **policies: Any) -> Service:
            made = Service(addresses, check or {"path": "/healthz"}, **policies)
            stack.callback(made.close)
            return made

        yield make


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("meshlib-health")]


# --- HTTP -------------------------------------------------------------------------------------------------------------


def test_one_that_says_503_is_out_at_once_and_back_after_two(service, upstream) -> None:
    good, bad = upstream("good"), upstream("bad")
    here = service([good.address, bad.address]).wake()
    here.checked(2)
    assert here.health() == ["healthy", "healthy"]
    bad.fail(503)
    here.become("healthy", "unhealthy")
    assert here.endpoints()[bad.address].check == "failing: status 503"
    assert {here.get().json()["name"] for _ in range(6)} == {"good"}
    bad.fail(200)
    here.become("healthy", "healthy")
    request = next(one for one in bad.requests if one.path == "/healthz")
    assert (request.method, request.header("host"), request.header("user-agent")) == (
        "GET",
        "reviews",
        "meshlib/HC",
    )
    checks = [one for one in bad.requests if one.path == "/healthz"]
    assert len({one.connection for one in checks}) == 1  # it is kept


def test_one_that_dies_is_out_after_three_and_calls_do_not_meet_it(service, upstream) -> None:
    good, bad = upstream("good"), upstream("bad")
    here = service([good.address, bad.address]).wake()
    here.checked()
    bad.kill()
    here.become("healthy", "unhealthy")
    assert here.endpoints()[bad.address].check.startswith("failing: ")
    assert {here.get().json()["name"] for _ in range(6)} == {"good"}
    bad.restart()
    here.become("healthy", "healthy")


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"hold": "head"}, "no answer in 0.5 s"),
        ({"garbage": "\x00\x01 nonsense"}, "not the beginning of a response"),
        ({"hold": "body"}, "no answer in 0.5 s"),
        ({"reset": "head"}, "reset"),
        ({"truncate": True}, "before the end of the body"),
        ({"chunks": 100, "chunk_delay": 0.05, "body": "x" * 1000}, "no answer in 0.5 s"),  # drip by drip
        ({"body": "x" * 1_100_000}, "more than 1048576 bytes"),
        ({"headers": [("x-long", "x" * 70_000)]}, "head of more than"),
    ],
)
def test_answers_that_are_none(service, upstream, order: dict[str, Any], words: str) -> None:
    good, bad = upstream("good"), upstream("bad")
    bad.order(**order)
    here = service([good.address, bad.address], {"path": "/healthz", "timeout": 0.5}).wake()
    here.become("healthy", "unhealthy")
    assert words in here.endpoints()[bad.address].check
    before = here.endpoints()[good.address].checks
    here.checked()
    assert here.endpoints()[good.address].checks > before  # nobody is held up by it
    bad.release()


def test_a_body_without_end_is_read_to_a_bound_only(service, upstream) -> None:
    good = upstream("good")
    listener = socket.create_server(("127.0.0.1", 0))
    sent: list[int] = []

    def flood() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            count = 0
            with sock:
                try:
                    sock.recv(4096)
                    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while count < 1 << 28:
                        count += sock.send(b"x" * 65536)
                except OSError:
                    pass
            sent.append(count)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        here = service([good.address, f"127.0.0.1:{listener.getsockname()[1]}"]).rouse()
        here.become("healthy", "unhealthy")
        eventually(lambda: sent)
        assert sent[0] < 1 << 26
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_degraded_ones_are_called_where_nobody_else_is(service, upstream) -> None:
    good, slow = [upstream("good") for _ in range(3)], upstream("slow")
    slow.order(headers=[("x-envoy-degraded", "true")])
    here = service([*(one.address for one in good), slow.address]).wake()
    eventually(lambda: here.endpoints()[slow.address].check.startswith("degraded"))
    here.checked()
    assert {here.get().json()["name"] for _ in range(12)} == {"good"}
    for one in good:
        one.fail(503)
    here.become("unhealthy", "unhealthy", "unhealthy", "healthy")
    # A quarter of them is well: that is below the panic threshold, and 35 % of health: all are called.
    assert "slow" in {here.client.get("http://reviews/").json().get("name") for _ in range(12)}


def test_a_call_may_be_told_that_its_endpoint_goes(service, upstream) -> None:
    one, other = upstream("one"), upstream("other")
    here = service([one.address, other.address], {"path": "/healthz", "interval": 30.0}).wake()
    eventually(lambda: all(each.checks for each in here.endpoints().values()))
    one.order(headers=[("x-envoy-immediate-health-check-fail", "true")])
    for _ in range(2):
        here.get()
    assert here.health() == ["unhealthy", "healthy"]
    assert {here.get().json()["name"] for _ in range(6)} == {"other"}


def test_a_check_that_passes_ends_an_ejection(service, upstream) -> None:
    """Its time is not waited for: `successful_active_health_check_uneject_host`."""
    good, bad = upstream("good"), upstream("bad")
    here = service(
        [good.address, bad.address],
        {"tcp": True, "interval": 0.5},
        outlier={"consecutive_5xx": 2, "base_ejection": 600.0, "max_ejection_percent": 50},
    ).wake()
    eventually(lambda: all(each.checks for each in here.endpoints().values()))
    bad.fail(500)
    for _ in range(4):
        here.get()
    status = here.mesh.status().clusters["reviews"]
    assert status.ejections == 1
    bad.fail(200)
    here.become("healthy", "healthy")


# --- gRPC, TCP, TLS -----------------------------------------------------------------------------------------------------


def test_grpc_health(service) -> None:
    servicer = health.HealthServicer()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    states = health_pb2.HealthCheckResponse
    servicer.set("reviews.v1.Reviews", states.SERVING)
    try:
        here = service([f"127.0.0.1:{port}"], {"grpc": "reviews.v1.Reviews"})
        address = f"127.0.0.1:{port}"

        def says(words: str) -> None:
            eventually(lambda: here.endpoints()[address].check == words)

        here.wake()
        says("passing: SERVING")
        servicer.set("reviews.v1.Reviews", states.NOT_SERVING)
        says("failing: NOT_SERVING")
        assert here.health() == ["unhealthy"]
        servicer.set("reviews.v1.Reviews", states.SERVING)
        says("passing: SERVING")
        other = service([f"127.0.0.1:{port}"], {"grpc": "nobody.knows.It"}).wake()
        eventually(lambda: "grpc-status 5" in other.endpoints()[address].check)
        whole = service([f"127.0.0.1:{port}"], {"grpc": ""}).wake()
        eventually(lambda: whole.endpoints()[address].check == "passing: SERVING")
    finally:
        server.stop(None).wait(5)


@pytest.mark.parametrize("secure", [False, True])
def test_grpc_health_over_connections_that_the_server_ends(service, tmp_path: Path, secure: bool) -> None:
    """A GOAWAY between two checks, or in the middle of one, is nobody's failure."""
    servicer = health.HealthServicer()
    options = (("grpc.max_connection_age_ms", 300), ("grpc.max_connection_age_grace_ms", 10_000))
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    tls: dict[str, Any] = {}
    if secure:
        authority = Authority()
        issued = authority.issue("reviews")
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        tls = {"tls": {"ca": str(tmp_path / "ca.pem"), "sni": "reviews"}}
        given = grpc.ssl_server_credentials([(issued.key_pem, issued.chain_pem)])
        port = server.add_secure_port("127.0.0.1:0", given)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        here = service([f"127.0.0.1:{port}"], {"grpc": "", "unhealthy": 1, "timeout": 5.0}, **tls).rouse()
        events: list[EndpointChecked] = []
        here.mesh._runtime().observe(
            lambda event: events.append(event) if isinstance(event, EndpointChecked) else None, calls=False
        )
        eventually(
            lambda: here.health() == ["healthy"] and all(each.checks for each in here.endpoints().values())
        )
        here.checked(20)
        assert [event for event in events if not event.passed] == []
        assert here.health() == ["healthy"]
    finally:
        server.stop(None).wait(5)


def test_grpc_health_of_a_server_that_speaks_http1(service, upstream) -> None:
    here = service([upstream("v1").address], {"grpc": ""}).wake()
    here.become("unhealthy")


def test_tcp(service, upstream) -> None:
    listener, dead = socket.create_server(("127.0.0.1", 0)), upstream("dead")
    dead.kill()
    addresses = [f"127.0.0.1:{listener.getsockname()[1]}", dead.address]
    try:
        here = service(addresses, {"tcp": True, "timeout": 0.2}).rouse()
        here.become("healthy", "unhealthy")
        assert "refused" in here.endpoints()[addresses[1]].check
    finally:
        listener.close()


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_is_the_clusters(service, upstream, tmp_path: Path, trusted: bool) -> None:
    authority, stranger = Authority(), Authority("Stranger")
    pem = tmp_path / "ca.pem"
    pem.write_bytes((authority if trusted else stranger).pem)
    with Upstream("tls", tls=authority.issue("reviews").server()) as server:
        here = service([server.address], tls={"ca": str(pem), "sni": "reviews"}).wake()
        here.become("healthy" if trusted else "unhealthy")
        if not trusted:
            assert "certificate" in here.endpoints()[server.address].check.lower()
            assert not server.requests


def test_names_are_resolved_elsewhere(service, upstream) -> None:
    port = upstream("v1").address.rpartition(":")[2]
    here = service([f"localhost:{port}"]).wake()
    here.checked(2)
    assert here.health() == ["healthy"]


# --- who is asked, and by whom --------------------------------------------------------------------------------------------


def test_nobody_is_asked_before_a_call_and_after_the_mesh(service, upstream) -> None:
    one = upstream("v1")
    here = service([one.address])
    here.mesh.status()
    assert not one.requests
    assert not threads()
    here.get()
    here.checked(2)
    assert threads() == ["meshlib-health"]
    more = service([one.address]).wake()
    more.checked(2)
    assert threads() == ["meshlib-health"]  # one for all
    here.close()
    assert threads() == ["meshlib-health"]
    more.close()
    assert not threads()


def test_endpoints_that_come_are_not_called_before_they_passed(service, upstream, tmp_path: Path) -> None:
    one, late = upstream("one"), upstream("late")
    late.fail(503)
    here = service([one.address]).wake()
    here.checked()
    runtime = here.mesh._runtime()
    fresh = Config.from_mapping(
        {
            "services": {
                "reviews": {
                    "endpoints": [one.address, late.address],
                    "health_check": {"path": "/healthz", "interval": INTERVAL},
                }
            }
        }
    )
    part = build(fresh.services)
    runtime.worker.call(lambda: runtime.publish((part,)), 5.0)
    assert here.health() == ["healthy", "unhealthy"]
    assert {here.get().json()["name"] for _ in range(6)} == {"one"}
    late.fail(200)
    here.become("healthy", "healthy")


def test_a_fork_begins_anew_and_the_parent_goes_on(service, upstream) -> None:
    one = upstream("v1")
    here = service([one.address]).wake()
    here.checked()
    with _turns:  # which the prober's thread holds now and then: it would stay so in the child
        child = os.fork()
    if not child:
        code = 1
        try:
            here.get()
            here.checked(2)
            code = 0 if threads() == ["meshlib-health"] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    here.get()
    here.checked(2)
    assert threads() == ["meshlib-health"]


def test_edges_are_logged(service, upstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="meshlib")
    one, other = upstream("one"), upstream("other")
    here = service([one.address, other.address]).wake()
    here.checked()
    one.fail(503)
    here.become("unhealthy", "healthy")
    one.fail(200)
    here.become("healthy", "healthy")
    lines = [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if "health check" in record.getMessage() and one.address in record.getMessage()
    ]
    assert lines == [
        ("DEBUG", f"meshlib: cluster reviews: {one.address} is healthy by its health check: status 200"),
        (
            "WARNING",
            f"meshlib: cluster reviews: {one.address} is unhealthy now by its health check: status 503",
        ),
        ("INFO", f"meshlib: cluster reviews: {one.address} is healthy now by its health check: status 200"),
    ]


def test_a_thousand_endpoints_one_thread_and_a_bound_of_connections(service, capsys) -> None:
    """Each of 1,000 is asked every 5 s; what that costs is printed."""
    listeners = socket.socket()
    listeners.setsockopt(
        socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo"
    )  # every address of loopback, and no other
    listeners.bind(("0.0.0.0", 0))
    listeners.listen(4096)
    port = listeners.getsockname()[1]
    addresses = [f"127.1.{number >> 8}.{number & 255}:{port}" for number in range(1000)]
    ended = threading.Event()
    server = threading.Thread(target=_serve_all, args=(listeners, ended), daemon=True)
    server.start()
    try:
        here = service(addresses, {"path": "/healthz", "interval": 5.0, "timeout": 3.0}).rouse()
        eventually(lambda: all(each.checks for each in here.endpoints().values()), 60.0)
        assert threads() == ["meshlib-health"]
        thread = next(one for one in threading.enumerate() if one.name == "meshlib-health")
        clock = time.pthread_getcpuclockid(thread.ident)
        before, wall, checks = time.clock_gettime(clock), time.monotonic(), _checks(here)
        eventually(lambda: _checks(here) - checks >= 2000, 60.0)
        spent, seconds = time.clock_gettime(clock) - before, time.monotonic() - wall
        done = _checks(here) - checks
        assert set(here.health()) == {"healthy"}
        held = prober._here.get().system
        assert held
        assert held._kept <= prober.KEPT
        with capsys.disabled():
            print(
                f"\n1,000 endpoints every 5 s: {done / seconds:.0f} checks a second, {spent / done * 1e6:.0f} µs each,"
                f" {100 * spent / seconds:.1f} % of a processor"
            )
        assert spent / seconds < 0.25
    finally:
        ended.set()
        server.join(5)
        listeners.close()


def _checks(here: Service) -> int:
    return sum(each.checks for each in here.endpoints().values())


def _serve_all(listener: socket.socket, ended: threading.Event) -> None:
    """Answers whoever sends a request, on one thread."""
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        selector.register(listener, selectors.EVENT_READ)
        while not ended.is_set():
            for key, _ in selector.select(0.2):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is listener:
                    accepted, _ = listener.accept()
                    stack.callback(accepted.close)
                    selector.register(accepted, selectors.EVENT_READ)
                    continue
                with suppress(OSError):
                    if sock.recv(4096):
                        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                        continue
                selector.unregister(sock)
                sock.close()
