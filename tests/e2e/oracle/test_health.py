"""What a row of health checks makes of an endpoint: meshlib and a real Envoy, each on a server that answers its checks by the same script.

A check waits at the server until the one before has been heard of: so what each holds the endpoint for is known after every single check,
and edges are compared by the number of the check.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

import meshlib
from meshlib.testing import build
from meshlib.testing.control_plane import ControlPlane
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(180)]

_WAIT = 30.0
#: Of a check that is kept waiting while the state is read: that takes no time, save on a busy machine.
_TIMEOUT = "1.5s"

#: By what is told of it: the check's configuration, and how its server answers.
SCRIPTS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "the first decides alone, then two of two": (
        {"unhealthy_threshold": 2, "healthy_threshold": 2},
        [503, 200, 200, 503, 200, 503, 200, 200],
    ),
    "answers at once, lost connections by the threshold": (
        {"unhealthy_threshold": 3, "healthy_threshold": 1},
        [200, "reset", "reset", 200, "reset", "reset", "reset", 200, "reset", 404, 200, "garbage", "garbage", "garbage", 200],
    ),
    "retriable statuses count as lost connections": (
        {
            "unhealthy_threshold": 2,
            "healthy_threshold": 3,
            "retriable": [{"start": 500, "end": 504}],
            "expected": [{"start": 200, "end": 205}],
        },
        [204, 503, 204, 503, 502, 204, 204, 503, 204, 204, 204, 205, 204, 204, 204],
    ),
    "time over": (
        {"unhealthy_threshold": 2, "healthy_threshold": 1, "timeout": _TIMEOUT},
        [200, "hang", 200, "hang", "hang", 200, "hang", 503],
    ),
    "degraded": (
        {"unhealthy_threshold": 2, "healthy_threshold": 2},
        [200, "degraded", "reset", "degraded", 200, "degraded", 503, "degraded", "degraded", 200],
    ),
    "the body": (
        {"unhealthy_threshold": 2, "healthy_threshold": 1, "receive": [{"text": b"good".hex()}]},
        [200, "good", 200, "good"],
    ),
}  # fmt: skip


class Gate:
    """Lets checks through one by one, and says by what each is to be answered."""

    def __init__(self, script: list[Any]) -> None:
        self._script = script
        self._changed = threading.Condition()
        self._arrived = self._let = 0
        self._ended = False

    def wait_for(self, number: int) -> None:
        """Until the check of that number, from 1 on, is here."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._arrived >= number, _WAIT), (
                f"check {number} never came"
            )

    def let(self) -> None:
        """The next is answered."""
        with self._changed:
            self._let += 1
            self._changed.notify_all()

    def enter(self) -> Any:
        """A check is here; how it is answered, once it is let through; None: not at all."""
        with self._changed:
            self._arrived += 1
            number = self._arrived
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._let >= number or self._ended)
        return None if self._ended or number > len(self._script) else self._script[number - 1]

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Server(Gate):
    """Of HTTP/1.1: answers checks by ``script``, and calls at once."""

    def __init__(self, script: list[Any]) -> None:
        super().__init__(script)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self.end()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(0.2)
        with sock, suppress(OSError):
            while not self._ended:
                try:
                    head = sock.recv(65536)
                except TimeoutError:
                    continue
                if not head:
                    return
                if b"/HC" not in head:
                    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                elif not self._answer(sock):
                    return

    def _answer(self, sock: socket.socket) -> bool:
        what = self.enter()
        if what is None:
            return False
        if what == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if what == "garbage":
            sock.sendall(b"nonsense\r\n\r\n")
            return False
        if what == "hang":
            while not self._ended:
                with suppress(TimeoutError):
                    return bool(sock.recv(1))
            return False
        status, line, body = (what, b"", b"no") if isinstance(what, int) else (200, b"", what.encode())
        if what == "degraded":
            line = b"x-envoy-degraded: true\r\n"
        if status == 204:
            body = b""
        length = b"" if status == 204 else b"content-length: %d\r\n" % len(body)
        sock.sendall(b"HTTP/1.1 %d X\r\n%s%s\r\n%s" % (status, length, line, body))
        return True


class TcpServer(Server):
    """Answers ``ping``."""

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(0.2)
        with sock, suppress(OSError):
            while not self._ended:
                try:
                    if not sock.recv(65536).startswith(b"ping"):
                        return
                except TimeoutError:
                    continue
                what = self.enter()
                if what in (None, "close"):
                    return
                sock.sendall(what.encode())


class GrpcServer(Gate):
    """Answers ``grpc.health.v1.Health/Check`` with bytes, or with a code."""

    def __init__(self, script: list[Any]) -> None:
        super().__init__(script)
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        handler = grpc.unary_unary_rpc_method_handler(self._check)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self.end()
        self._server.stop(None).wait(20)

    def _check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        assert health_pb2.HealthCheckRequest.FromString(request).service == "shop.Cart"
        what = self.enter()
        if isinstance(what, bytes):
            return what
        context.abort(what or grpc.StatusCode.CANCELLED, "by the script")
        raise AssertionError("abort raises")


def _said(status: int) -> bytes:
    made: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return made


SERVING, NOT_SERVING, UNKNOWN = map(_said, (1, 2, 0))
#: The same of other protocols.
OTHERS: dict[str, tuple[type[Server | GrpcServer], dict[str, Any], list[Any]]] = {
    "grpc": (
        GrpcServer,
        {"grpc_health_check": {"service_name": "shop.Cart"}, "unhealthy_threshold": 3, "healthy_threshold": 2},
        [
            SERVING, NOT_SERVING, SERVING, SERVING, grpc.StatusCode.UNAVAILABLE, SERVING, SERVING,
            grpc.StatusCode.UNIMPLEMENTED, SERVING, UNKNOWN, SERVING, SERVING, b"\xff\xff", SERVING, SERVING, _said(3),
        ],
    ),
    "tcp": (
        TcpServer,
        {
            "tcp_health_check": {"send": {"text": b"ping".hex()}, "receive": [{"text": b"po".hex()}, {"text": b"g".hex()}]},
            "unhealthy_threshold": 2,
            "healthy_threshold": 2,
            "timeout": _TIMEOUT,
        },
        ["pong", "close", "pong", "close", "close", "pong", "poing", "pon", "pong", "pon", "pin", "pong", "pong"],
    ),
}  # fmt: skip


def resources(server: Server | GrpcServer, port: int, config: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    to_c = build.route_config("r", build.virtual_host("v", build.route(cluster="c"), domains=["*"]))
    config = dict(config)
    request = {"path": "/healthz"}
    for field, name in (("retriable", "retriable_statuses"), ("expected", "expected_statuses")):
        if field in config:
            request[name] = config.pop(field)
    if "receive" in config:
        request["receive"] = config.pop("receive")
    check: dict[str, Any] = {"timeout": "5s", "interval": "0.05s", "no_traffic_interval": "0.05s"}
    if not {"grpc_health_check", "tcp_health_check"} & set(config):
        check["http_health_check"] = request
    return (
        build.listener("l", to_c, address=f"127.0.0.1:{port}"),
        build.cluster(
            "c",
            [server.address],
            health_checks=[check | config],
            **({"http2_protocol_options": {}} if "grpc_health_check" in config else {}),
        ),
    )


#: What an endpoint is held for: whether it fails, whether it is degraded.
Held = tuple[bool, bool]


def by_envoy(
    server: Server | GrpcServer, config: dict[str, Any], folder: Path, stack: ExitStack
) -> Callable[[], Held]:
    held = Ports(1)
    stack.callback(held.close)
    control_plane = stack.enter_context(ControlPlane(*resources(server, held.numbers[0], config)))
    envoy = stack.enter_context(EnvoyProcess(control_plane.address, folder))

    def state() -> Held:
        for line in envoy.admin("/clusters").splitlines():
            fields = line.split("::")
            if fields[0] == "c" and fields[2:3] == ["health_flags"]:
                return "/failed_active_hc" in fields[3], "/degraded_active_hc" in fields[3]
        raise AssertionError("it has no such cluster")

    return state


def by_meshlib(
    server: Server | GrpcServer, config: dict[str, Any], _folder: Path, stack: ExitStack
) -> Callable[[], Held]:
    held = Ports(1)
    stack.callback(held.close)
    port = held.numbers[0]
    control_plane = stack.enter_context(ControlPlane(*resources(server, port, config)))
    mesh = stack.enter_context(meshlib.Mesh({"xds": {"server": control_plane.address, "view": "sidecar"}}))
    mesh.wait_ready(f"127.0.0.1:{port}", timeout=20)
    client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))
    with suppress(meshlib.MeshError):  # a call wakes it, whatever its server makes of that
        client.get(f"http://127.0.0.1:{port}/", timeout=1.0)

    def state() -> Held:
        runtime = mesh._runtime()
        (endpoint,) = next(
            live.endpoints for (_, name), live in runtime.clusters._known[0].items() if name == "c"
        )
        check = endpoint.check
        assert check is not None
        return check.failed, endpoint.degraded

    return state


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_check_makes_of_an_endpoint_what_it_makes_of_envoys(name, stack, tmp_path, capsys) -> None:
    config, script = SCRIPTS[name]
    compare(name, Server, config, script, stack, tmp_path, capsys)


@pytest.mark.parametrize("name", OTHERS)
def test_each_check_of_another_protocol_does(name, stack, tmp_path, capsys) -> None:
    kind, config, script = OTHERS[name]
    compare(name, kind, config, script, stack, tmp_path, capsys)


def compare(name, kind, config, script, stack, folder, capsys) -> None:
    def run(begin, own: ExitStack) -> list[Held]:
        server = kind(script)
        own.callback(server.close)
        state = begin(server, config, folder, own)
        states: list[Held] = []
        for number in range(1, len(script) + 1):
            server.wait_for(number)
            server.let()
            server.wait_for(number + 1)  # so the one before has been heard of
            states.append(state())
        return states

    with futures.ThreadPoolExecutor(2) as pool:  # both at once: each has to wait for its timeouts
        begun = {
            side: pool.submit(run, begin, stack.enter_context(ExitStack()))
            for side, begin in (("envoy", by_envoy), ("meshlib", by_meshlib))
        }
        found = {side: future.result() for side, future in begun.items()}
    with capsys.disabled():
        print(f"\n{name}\n  {'check':>28}  envoy     meshlib")
        for what, one, other in zip(script, found["envoy"], found["meshlib"], strict=True):
            print(f"  {what!s:>28}  {_words(one):<8}  {_words(other)}")
    assert found["meshlib"] == found["envoy"]
    assert len(set(found["envoy"])) > 1  # there were edges


def _words(held: Held) -> str:
    return "failing" if held[0] else "degraded" if held[1] else "passing"
