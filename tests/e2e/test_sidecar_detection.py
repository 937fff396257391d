"""Detection with real parts: network namespaces with a redirect, a real Envoy of each mesh's user, and what only looks like one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import meshlib
from tests.support import netns
from tests.support.late import again_if_late, soon
from tests.support.netns import EnvoySidecar, Namespace, Program

ROOT = Path(__file__).resolve().parents[2]
SERVED = "served"  # by the upstream

#: What a listener's owner is, by the way of a process of any user: a socket belongs to whoever made it.
SQUAT = """
import os, socket, sys, time
os.seteuid(int(sys.argv[1]))
held = [socket.create_server(("0.0.0.0", int(port))) for port in sys.argv[2:]]
print("listening", flush=True)
sys.stdin.read()
"""

UPSTREAM = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "6"); self.end_headers(); self.wfile.write(b"served")
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 9080), Handler)
print("listening", flush=True)
server.serve_forever()
"""

REDIRECTED = "from meshlib.sidecar.collect import redirected; print(redirected())"


class Watching(Program):
    """`tests.support.sidecar_program` in a pod."""

    def __init__(self, pod, *, uid=None, environ=None, **sidecar):
        words = [json.dumps({"sidecar": sidecar})] + ([] if uid is None else [str(uid)])
        super().__init__(pod, "tests.support.sidecar_program", *words, environ=environ)
        self._seen = 0
        self.first = self.next()

    def next(self, seconds=30.0):
        with self.new:
            assert self.new.wait_for(lambda: len(self.told) > self._seen, seconds), self.told[-3:]
            self._seen += 1
            return self.told[self._seen - 1]

    def until(self, state, seconds=30.0):
        """The next value in that state."""
        told = self.first if self.first["state"] == state else None
        while told is None or told["state"] != state:
            told = self.next(seconds)
        return told

    def now(self):
        self.order("now")
        return self.next()


@pytest.fixture
def pod():
    netns.needed()
    with Namespace({"reviews": "10.96.0.10"}) as made:
        yield made


@pytest.fixture
def sidecar(request, pod, tmp_path):
    """Of the shape that the test names, behind its redirect; the default is Istio's."""
    shape = getattr(request, "param", netns.ISTIO)
    listening(pod, UPSTREAM)
    with EnvoySidecar(pod, shape, {"reviews": 9080}, tmp_path) as made:
        pod.redirect(shape)
        yield made


def listening(pod, program, *arguments):
    process = pod.popen(
        sys.executable, "-c", program, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == "listening\n"


def call(pod):
    """What a plain program gets from ``http://reviews/``."""
    return pod.python(
        "import urllib.request; print(urllib.request.urlopen('http://reviews/', timeout=10).read().decode())"
    ).strip()


class TestTransparent:
    @pytest.mark.parametrize(
        ("sidecar", "kind"),
        [
            (netns.ISTIO, "istio"),
            (netns.LINKERD, "linkerd"),
            (netns.KUMA, "kuma"),
            (netns.CONSUL, "consul"),
            (netns.OSM, "envoy"),
        ],
        indirect=["sidecar"],
    )
    def test_each_is_found_as_what_it_is(self, pod, sidecar, kind):
        watching = Watching(pod)
        ready = watching.until("ready")
        assert (ready["kind"], ready["mode"], ready["confidence"]) == (kind, "transparent", "high")
        assert any("redirected" in line for line in ready["evidence"])
        assert watching.first["state"] in ("starting", "ready")  # nothing slips past
        watching.end()

    def test_what_this_redirect_does_is_what_a_sidecar_does(self, pod, sidecar):
        assert call(pod) == SERVED
        assert sidecar.stats("cluster.reviews.upstream_rq_total") == {"cluster.reviews.upstream_rq_total": 1}

    @pytest.mark.parametrize("suspected", [True, False])
    def test_killed_it_is_gone_within_a_second_and_back_within_ten(self, pod, sidecar, suspected):
        watching = Watching(pod)
        watching.until("ready")

        @again_if_late
        def killed_and_back():
            sidecar.kill()
            killed = time.monotonic()
            if suspected:
                watching.order("suspect")
            gone = watching.next()
            assert (gone["state"], gone["kind"], gone["mode"]) == ("gone", "istio", "transparent")
            sidecar.start()
            back = time.monotonic()
            ready = watching.next()
            assert ready["state"] == "ready"
            soon(gone["at"] - killed, 1.0, "it is gone")
            soon(ready["at"] - back, 10.0, "it is back")

        killed_and_back()
        watching.end()

    def test_one_that_drains_is_not_gone(self, pod, sidecar):
        watching = Watching(pod)
        watching.until("ready")
        sidecar.fail_health()
        watching.order("suspect")
        assert watching.now()["state"] == "ready"
        assert call(pod) == SERVED
        watching.end()

    def test_one_that_comes_late_is_found(self, pod, tmp_path):
        watching = Watching(pod)
        assert watching.first["state"] == "absent"
        pod.redirect(netns.ISTIO)
        with EnvoySidecar(pod, netns.ISTIO, {"reviews": 9080}, tmp_path):
            assert watching.until("ready")["kind"] == "istio"
        watching.end()

    def test_its_admin_interface_is_never_asked(self, pod, sidecar):
        key = "http.admin.downstream_rq_total"
        before = sidecar.stats(key)[key]
        watching = Watching(pod)
        watching.until("ready")
        sidecar.kill()
        watching.until("gone")
        sidecar.start()
        started = sidecar.stats(key)[key]
        watching.until("ready")
        watching.order("suspect")
        watching.now()
        assert sidecar.stats(key)[key] == started + 1  # our own question
        assert before > 0
        watching.end()

    def test_the_child_of_a_fork_looks_anew(self, pod, sidecar):
        watching = Watching(pod)
        watching.until("ready")
        sidecar.kill()
        watching.until("gone")
        watching.order("fork")
        child = watching.next()
        assert child["pid"] != watching.process.pid
        assert (child["kind"], child["state"]) == ("none", "absent")
        assert watching.now()["state"] == "gone"
        watching.end()

    def test_off_sees_nothing(self, pod, sidecar):
        watching = Watching(pod, mode="off")
        assert (watching.first["kind"], watching.first["state"]) == ("none", "absent")
        watching.end()


class TestLookAlikes:
    """What is not this process's sidecar is told of, and changes no call."""

    @staticmethod
    def not_taken(pod, words, **watching):
        made = Watching(pod, **watching)
        assert made.first["state"] == "absent"
        assert made.first["confidence"] in ("none", "low")
        assert not made.first["in_use"]
        made.order("suspect")
        assert (again := made.now())["state"] == "absent"
        assert words in " ".join(again["evidence"])
        made.end()

    def test_an_envoy_of_another_user(self, pod, tmp_path):
        with EnvoySidecar(pod, netns.ISTIO, {"reviews": 9080}, tmp_path, uid=1234):
            pod.redirect(netns.ISTIO)
            self.not_taken(pod, "15001 is listened on by user id 1234")

    def test_an_envoy_that_nothing_is_redirected_to(self, pod, tmp_path):
        with EnvoySidecar(pod, netns.ISTIO, {"reviews": 9080}, tmp_path):
            self.not_taken(pod, "nothing shows that connections are redirected")

    def test_a_process_that_squats_its_ports(self, pod):
        listening(pod, SQUAT, "1000", "15001", "15006", "15021")
        pod.redirect(netns.ISTIO)
        self.not_taken(pod, "user id 1000", uid=1000)

    def test_a_squatter_on_one_port_of_a_real_one(self, pod):
        listening(pod, SQUAT, "1337", "15001", "15006")
        listening(pod, SQUAT, "1000", "15021")
        pod.redirect(netns.ISTIO)
        self.not_taken(pod, "15021 is listened on by user id 1000")

    @pytest.mark.parametrize("sign", ["docker0", "cni0", "kubelet"])
    def test_the_network_of_a_node(self, pod, sidecar, sign):
        if sign == "kubelet":
            listening(pod, SQUAT, "0", "10250")
        else:
            pod.ip("link", "add", sign, "type", "bridge")
        self.not_taken(pod, "this is the network of a")

    def test_a_control_plane_on_a_developers_machine(self, pod):
        listening(pod, SQUAT, "1000", "15010", "15012", "15014", "15017", "8080")
        self.not_taken(pod, "")

    def test_a_process_of_the_sidecars_own_user(self, pod, sidecar):
        self.not_taken(pod, "this process runs as user id 1337 itself", uid=1337)

    def test_told_by_configuration_it_is_taken_all_the_same(self, pod, tmp_path):
        with EnvoySidecar(pod, netns.ISTIO, {"reviews": 9080}, tmp_path, uid=1234):
            pod.redirect(netns.ISTIO)
            watching = Watching(pod, mode="istio")
            ready = watching.until("ready")
            assert (ready["kind"], ready["confidence"]) == ("istio", "high")
            watching.end()


class TestExplicit:
    @pytest.mark.parametrize(
        ("address", "mode"),
        [("127.0.0.1:10000", "listener"), ("http://127.0.0.1:10000", "forward_proxy")],
    )
    def test_an_address_that_was_told(self, pod, tmp_path, address, mode):
        with EnvoySidecar(pod, netns.PLAIN, {"reviews": 9080}, tmp_path) as sidecar:
            watching = Watching(pod, address=address)
            ready = watching.until("ready")
            assert (ready["kind"], ready["mode"], ready["confidence"]) == ("envoy", mode, "high")
            assert ready["address"] == "127.0.0.1:10000"
            sidecar.kill()
            watching.order("suspect")
            assert watching.next()["state"] == "gone"
            watching.end()

    def test_a_unix_socket_that_was_told(self, pod, tmp_path):
        path = tmp_path / "sidecar.sock"
        with socket.socket(socket.AF_UNIX) as server:
            with pod.inside():
                server.bind(str(path))
            watching = Watching(pod, address=f"unix:{path}")
            assert watching.first["state"] == "starting"  # bound, and nobody listens
            assert watching.process.poll() is None
            watching.end()

    def test_consuls_upstreams(self, pod, tmp_path):
        environ = {"REVIEWS_V1_CONNECT_SERVICE_HOST": "127.0.0.1", "REVIEWS_V1_CONNECT_SERVICE_PORT": "10000"}
        with EnvoySidecar(pod, netns.PLAIN, {"*": 9080}, tmp_path) as sidecar:
            watching = Watching(pod, environ=environ)
            ready = watching.until("ready")
            assert (ready["kind"], ready["mode"], ready["confidence"]) == ("consul", "listener", "high")
            assert ready["upstreams"] == {"reviews-v1": "127.0.0.1:10000"}
            sidecar.kill()
            watching.order("suspect")
            assert watching.next()["state"] == "gone"
            sidecar.start()
            assert watching.next()["state"] == "ready"
            watching.end()

    def test_katos_dependencies(self, pod, tmp_path):
        kato = netns.Shape(1234, 8001, None, 65533)
        environ = {
            "TENANT_ID": "t",
            "SERVICE_ID": "s",
            "SERVICE_NAME": "gr000001",
            "DEPEND_SERVICE": "gr12238e:abc,gr99999e:def",
            "GR12238E80_HOST": "127.0.0.1",
            "GR12238E80_PORT": "8001",
            "GR99999E9090_HOST": "127.0.0.1",
            "GR99999E9090_PORT": "8002",
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": "6379",
        }
        with EnvoySidecar(pod, kato, {"*": 9080}, tmp_path, listeners=(8002,)) as sidecar:
            watching = Watching(pod, environ=environ)
            ready = watching.until("ready")
            assert (ready["kind"], ready["mode"], ready["confidence"]) == ("kato", "listener", "high")
            assert ready["upstreams"] == {
                "gr12238e": "127.0.0.1:8001",
                "gr12238e:80": "127.0.0.1:8001",
                "gr99999e": "127.0.0.1:8002",
                "gr99999e:9090": "127.0.0.1:8002",
            }
            sidecar.kill()
            watching.order("suspect")
            assert watching.next()["state"] == "gone"
            watching.end()

    def test_variables_of_a_sidecar_that_is_not_there(self, pod):
        environ = {"DAPR_HTTP_PORT": "3500", "DAPR_GRPC_PORT": "50001"}
        watching = Watching(pod, environ=environ, start_window=1.0)
        assert (watching.first["kind"], watching.first["state"]) == ("dapr", "starting")
        assert watching.next()["state"] == "absent"
        watching.end()


class TestTheKernelsTables:
    def test_what_netlink_tells_is_what_proc_tells(self, pod):
        listening(pod, SQUAT, "1000", "15001", "15006")
        listening(pod, SQUAT, "1337", "4140")
        told = pod.python(
            "from meshlib.config import Config\n"
            "from meshlib.sidecar import collect\n"
            "found = collect._asked()\n"
            "collect._asked = lambda: None\n"
            "read = collect.Collector(Config.from_mapping({}).sidecar)._listeners()\n"
            "assert sorted(found, key=str) == sorted(read, key=str), (found, read)\n"
            "print(sorted((one.port, one.uid) for one in found))"
        )
        assert json.loads(told.replace("(", "[").replace(")", "]")) == [
            [4140, 1337],
            [15001, 1000],
            [15006, 1000],
        ]

    def test_a_redirect_of_loopback_itself_is_seen(self, pod):
        assert pod.python(REDIRECTED).strip() == "False"
        pod.iptables("-A OUTPUT -p tcp -j REDIRECT --to-ports 15001")
        assert pod.python(REDIRECTED).strip() == "True"

    def test_a_redirect_of_ipv6_alone_is_seen(self, pod):
        assert pod.python(REDIRECTED).strip() == "False"
        pod.iptables("-A OUTPUT -p tcp ! -d ::1/128 -j REDIRECT --to-ports 15001", version=6)
        assert pod.python(REDIRECTED).strip() == "True"

    def test_a_firewall_without_such_a_rule_is_none(self, pod):
        pod.iptables("-A OUTPUT -p tcp --dport 25 -j DROP", table="filter")
        assert pod.python(REDIRECTED).strip() == "False"


GEVENT = """
import gevent.monkey; gevent.monkey.patch_all()
import gevent, gevent.event, gevent.pywsgi
from meshlib.config import SidecarConfig
from meshlib.runtime.clock import MonotonicClock
from meshlib.runtime.worker import Worker
from meshlib.sidecar.collect import Collector
from meshlib.sidecar.watch import Watch

def application(environ, start_response):
    start_response("204 No Content", [])
    return []

server = gevent.pywsgi.WSGIServer(("127.0.0.1", 0), application, log=None)
server.start()
settings, clock, told = SidecarConfig(), MonotonicClock(), gevent.event.AsyncResult()
collector = Collector(settings, {"DAPR_HTTP_PORT": str(server.server_port)})
watch = Watch(settings, clock, told.set, collector=collector)
print(watch.current.state)
worker = Worker(clock)
worker.start()
watch.start(worker)
print(told.get(timeout=10).state)
server.stop()
worker.call(watch.stop, 5.0)
worker.stop()
"""


def test_under_gevent_nothing_blocks_the_hub():
    """The server that is asked runs in the same thread as who asks."""
    done = subprocess.run(
        [sys.executable, "-c", GEVENT], capture_output=True, text=True, timeout=50, check=False, cwd=ROOT
    )
    assert done.stdout.split() == ["starting", "ready"], done.stderr


class TestRequired:
    """In a mesh: no call slips past a sidecar that must be there and is not found."""

    @pytest.mark.parametrize(("fallback", "served"), [("never", 0), ("when_allowed", 1)])
    def test_a_call_waits_for_it(self, upstream, fallback, served):
        server = upstream()
        mapping = {
            "sidecar": {"mode": "require", "start_window": 0.5, "fallback": fallback},
            "services": {"reviews": {"endpoints": [server.address]}},
        }
        began = time.monotonic()
        with meshlib.Mesh(mapping) as mesh, meshlib.Client(mesh=mesh) as client:
            if served:
                assert client.get("http://reviews/").status_code == 200
            else:
                with pytest.raises(meshlib.MeshError, match="sidecar") as failed:
                    client.get("http://reviews/")
                assert failed.value.info.via == "sidecar"
            assert mesh.status().sidecar.kind == "none"
        assert time.monotonic() - began > 0.5
        assert len(server.requests) == served
