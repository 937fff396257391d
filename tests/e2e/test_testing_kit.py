"""The test kit against independent peers: grpcio, httpx, and pytest itself. (Envoy and grpcio's xds: `oracle/test_kit.py`.)"""

import http.client
import json
import os
import queue
import select
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time

import grpc
import httpx
import pytest
import trustme

from meshlib.testing import ControlPlane, Order, Raw, Upstream, UpstreamProcess, VirtualClock, build
from meshlib.xds import schema
from tests.support.asking import asked

DISCOVERY = "envoy.service.discovery.v3."


class AdsClient:
    """A bare client of the aggregated discovery service, as a test writes one: bytes in, messages out."""

    def __init__(self, address, *, delta=False, credentials=None):
        self.kind = "Delta" if delta else ""
        self._outgoing = queue.SimpleQueue()
        self._channel = (
            grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
        )
        method = schema.ADS_DELTA if delta else schema.ADS_SOTW
        self._call = self._channel.stream_stream(method)(iter(self._outgoing.get, None), timeout=20)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._call.cancel()
        self._outgoing.put(None)
        self._channel.close()

    def send(self, **fields):
        self._outgoing.put(
            schema.message(f"{DISCOVERY}{self.kind}DiscoveryRequest")(**fields).SerializeToString()
        )

    def send_bytes(self, data):
        self._outgoing.put(data)

    def next_bytes(self):
        return next(self._call)

    def next(self):
        return schema.message(f"{DISCOVERY}{self.kind}DiscoveryResponse").FromString(self.next_bytes())

    def ack(self, response):
        self.send(
            type_url=response.type_url, version_info=response.version_info, response_nonce=response.nonce
        )

    def status(self):
        """The status with which the stream ends."""
        with pytest.raises(grpc.RpcError) as caught:
            list(self._call)
        return caught.value.code(), caught.value.details()


def names(response):
    if response.DESCRIPTOR.name == "DeltaDiscoveryResponse":
        return [resource.name for resource in response.resources]
    return [schema.unpack(resource).name for resource in response.resources]


class TestControlPlane:
    def test_state_of_the_world(self, control_plane):
        control_plane.set(build.cluster("a"), build.cluster("b"))
        with AdsClient(control_plane.address) as client:
            client.send(type_url=schema.CLUSTER, node={"id": "me", "cluster": "mine"})
            first = client.next()
            assert (names(first), first.version_info) == (["a", "b"], control_plane.version("cluster"))
            assert first.control_plane.identifier == "meshlib.testing"
            client.ack(first)
            control_plane.wait_for_ack("cluster")
            control_plane.remove("cluster", "a")
            second = client.next()
            assert names(second) == ["b"]
            assert second.version_info != first.version_info
            assert second.nonce != first.nonce
        request, ack = control_plane.requests[:2]
        assert (request.node.id, request.kind, request.names, request.nonce) == ("me", "cluster", (), "")
        assert (ack.node, ack.version, ack.nonce, ack.is_ack) == (None, first.version_info, first.nonce, True)
        control_plane.wait_for_streams(0)

    def test_incremental(self, control_plane):
        control_plane.set(build.cluster("a"))
        with AdsClient(control_plane.address, delta=True) as client:
            client.send(type_url=schema.CLUSTER, resource_names_subscribe=["a", "b"])
            first = client.next()
            assert names(first) == ["a"]
            assert list(first.removed_resources) == ["b"]
            control_plane.update(build.cluster("b"))
            second = client.next()
            assert names(second) == ["b"]
            assert second.resources[0].version.startswith(f"{control_plane.version('cluster')}-")
            client.send(
                type_url=schema.CLUSTER, response_nonce=second.nonce, resource_names_unsubscribe=["a"]
            )
            ack = control_plane.wait_for_ack("cluster")
            assert (ack.protocol, ack.unsubscribe) == ("delta", ("a",))
            control_plane.remove("cluster", "a")
            control_plane.remove("cluster", "b")
            assert list(client.next().removed_resources) == ["b"]

    def test_types_have_their_own_versions_and_only_subscribed_ones_are_sent(self, control_plane):
        control_plane.set(build.cluster("a"), build.endpoints("a", "127.0.0.1:1"), build.listener("l", "r"))
        assert len({control_plane.version(kind) for kind in ("cluster", "endpoint", "listener")}) == 3
        before = control_plane.version("cluster")
        with AdsClient(control_plane.address) as client:
            client.send(type_url=schema.ENDPOINT, resource_names=["a"])
            assert client.next().type_url == schema.ENDPOINT
            control_plane.update(build.listener("l", "other"))
            control_plane.update(build.endpoints("a", "127.0.0.1:2"))
            assert client.next().type_url == schema.ENDPOINT
        assert control_plane.version("cluster") == before
        assert control_plane.version("secret") == ""
        assert control_plane.names("endpoint") == ("a",)

    def test_a_rejection_is_told(self, control_plane):
        control_plane.set(build.cluster("a"))
        with AdsClient(control_plane.address) as client:
            client.send(type_url=schema.CLUSTER)
            response = client.next()
            error = {"code": 3, "message": "bad cluster a"}
            client.send(type_url=schema.CLUSTER, response_nonce=response.nonce, error_detail=error)
            nack = control_plane.wait_for_nack("cluster")
            assert (nack.error, nack.error_code, nack.version, nack.is_ack) == ("bad cluster a", 3, "", False)
            assert control_plane.wait_for_request("cluster", after=nack.index) == nack

    def test_waiting_for_what_does_not_come_tells_what_came(self, control_plane):
        with AdsClient(control_plane.address) as client:
            client.send(type_url=schema.CLUSTER, resource_names=["zzz"])
            control_plane.wait_for_request("cluster")
            with pytest.raises(TimeoutError, match=r"cluster names=\['zzz'\]"):
                control_plane.wait_for_ack("cluster", timeout=0.01)

    def test_holding_delaying_and_pushing(self, control_plane):
        control_plane.set(build.cluster("a"), build.listener("l", "r"))
        control_plane.hold("cluster")
        with AdsClient(control_plane.address) as client:
            client.send(type_url=schema.CLUSTER)
            client.send(type_url=schema.LISTENER)
            assert client.next().type_url == schema.LISTENER
            control_plane.release("cluster")
            first = client.next()
            assert first.type_url == schema.CLUSTER
            control_plane.delay(0.05, "cluster")
            before = time.monotonic()
            control_plane.push("cluster")
            again = client.next()
            assert time.monotonic() - before >= 0.04
            assert again.resources == first.resources
            assert again.version_info == first.version_info
            assert again.nonce != first.nonce

    def test_streams_dropped_and_refused(self, control_plane):
        with AdsClient(control_plane.address) as client:
            client.send(type_url=schema.CLUSTER)
            assert client.next().type_url == schema.CLUSTER
            control_plane.drop_streams(grpc.StatusCode.INTERNAL, "why not")
            assert client.status() == (grpc.StatusCode.INTERNAL, "why not")
        control_plane.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        with AdsClient(control_plane.address) as client:
            assert client.status() == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        control_plane.accept()
        with AdsClient(control_plane.address) as client:
            client.send(type_url=schema.CLUSTER)
            assert client.next().type_url == schema.CLUSTER
        assert control_plane.opened == 3

    def test_garbage_in_both_directions(self, control_plane):
        control_plane.set(Raw("cluster", "broken", b"\xff\xff"))
        with AdsClient(control_plane.address) as client:
            client.send(type_url=schema.CLUSTER)
            with pytest.raises(schema.DecodeError):
                schema.unpack(client.next().resources[0])
            control_plane.send_bytes(b"\xff\xffgarbage")
            assert client.next_bytes() == b"\xff\xffgarbage"
            own = schema.message(f"{DISCOVERY}DiscoveryResponse")(version_info="x", nonce="y", type_url="z/z")
            control_plane.send(own)
            assert client.next() == own
            client.send_bytes(b"\xff\xff")
            assert client.status()[0] is grpc.StatusCode.INVALID_ARGUMENT

    def test_a_client_that_closes_its_side_ends_the_stream(self, control_plane):
        with AdsClient(control_plane.address) as client:
            client.send(type_url=schema.CLUSTER)
            client.next()
            client.send_bytes(None)
            with pytest.raises(StopIteration):
                client.next()
        control_plane.wait_for_streams(0)

    def test_restart_at_the_same_port_with_the_same_state(self, control_plane):
        control_plane.set(build.cluster("a"))
        address, version = control_plane.address, control_plane.version("cluster")
        for _ in range(3):
            with AdsClient(address) as client:
                client.send(type_url=schema.CLUSTER)
                assert client.next().version_info == version
                control_plane.restart()
                assert client.status()[0] in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert control_plane.address == address
        control_plane.kill()
        assert not control_plane.running
        with pytest.raises(OSError, match="in use"), socket.socket() as other:  # nobody else gets the port
            other.bind(("127.0.0.1", control_plane.port))
        with AdsClient(address) as client:
            assert client.status()[0] is grpc.StatusCode.UNAVAILABLE

    def test_wrapped_resources_and_a_client_that_needs_no_answer(self):
        with ControlPlane(build.cluster("a"), wrap=True, resend=False) as control_plane:
            with AdsClient(control_plane.address) as client:  # SW-10
                client.send(type_url=schema.CLUSTER)
                wrapper = schema.unpack(client.next().resources[0], f"{DISCOVERY}Resource")
                assert (wrapper.name, schema.unpack(wrapper.resource).name) == ("a", "a")
            with AdsClient(control_plane.address) as client:  # EX-04
                client.send(type_url=schema.CLUSTER, version_info=control_plane.version("cluster"))
                control_plane.wait_for_request("cluster", lambda each: each.stream == 2)
                control_plane.update(build.cluster("b"))
                assert names(client.next()) == ["a", "b"]

    def test_tls(self):
        authority = trustme.CA()
        own = authority.issue_cert("127.0.0.1")
        key, chain = own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()
        credentials = grpc.ssl_server_credentials([(key, chain)])
        trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with (
            ControlPlane(build.cluster("a"), credentials=credentials) as control_plane,
            AdsClient(control_plane.address, credentials=trusted) as client,
        ):
            client.send(type_url=schema.CLUSTER)
            assert names(client.next()) == ["a"]

    def test_many_streams_and_changes_from_many_threads(self, control_plane):
        control_plane.set(build.cluster("a"))
        failed = []

        def follow():
            try:
                with AdsClient(control_plane.address) as client:
                    client.send(type_url=schema.CLUSTER)
                    while "last" not in names(response := client.next()):
                        client.ack(response)
            except BaseException as error:
                failed.append(error)
                raise

        followers = [threading.Thread(target=follow) for _ in range(20)]
        for thread in followers:
            thread.start()
        control_plane.wait_for_streams(20, timeout=40)
        changers = [
            threading.Thread(
                target=lambda n=n: [control_plane.update(build.cluster(f"{n}.{i}")) for i in range(10)]
            )
            for n in range(4)
        ]
        for thread in changers:
            thread.start()
        for thread in changers:
            thread.join(40)
        control_plane.update(build.cluster("last"))
        for thread in followers:
            thread.join(40)
        assert failed == []
        control_plane.wait_for_streams(0, timeout=20)
        assert len(control_plane.names("cluster")) == 42

    def test_nothing_is_left_after_it_stops(self):
        before = set(threading.enumerate())
        with ControlPlane(build.cluster("a")) as control_plane, AdsClient(control_plane.address) as client:
            client.send(type_url=schema.CLUSTER)
            client.next()
        left = {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("ads")}
        for thread in left:
            thread.join(5)
        assert not any(thread.is_alive() for thread in left)

    def test_what_is_no_resource(self, control_plane):
        for wrong in ({"name": "a"}, {"@type": "x/a.Unknown"}, build.any_of("envoy.type.v3.Percent")):
            with pytest.raises(ValueError, match=r"@type|no resource"):
                control_plane.set(wrong)
        with pytest.raises(schema.JsonError, match=r"a\.lb_polcy: is no field"):
            control_plane.set(build.cluster("a", lb_polcy="X"))
        with pytest.raises(ValueError, match="a type is a type URL or one of listener"):
            control_plane.version("clusters")

    def test_a_taken_port_is_an_error_and_not_shared(self, control_plane):
        with pytest.raises(OSError, match="somebody listens on"):
            ControlPlane(port=control_plane.port).start()


def answer(upstream, path="/", method="GET", **options):
    response = httpx.request(method, upstream.url + path, **options)
    response.raise_for_status()
    return response.json()


class TestUpstream:
    def test_it_says_who_it_is_and_what_it_got(self, upstream):
        v1 = upstream("v1")
        told = answer(
            v1, "/a?b=c", "POST", content=b"12345", headers=[("X-B", "1"), ("X-A", "2"), ("X-B", "3")]
        )
        assert (told["name"], told["method"], told["path"], told["body_length"]) == (
            "v1",
            "POST",
            "/a?b=c",
            5,
        )
        assert [header for header in told["headers"] if header[0].startswith("X-")] == [
            ["X-B", "1"],
            ["X-A", "2"],
            ["X-B", "3"],
        ]
        (received,) = v1.requests
        assert (received.body, received.header("x-a"), received.complete) == (b"12345", "2", True)

    def test_bodies_in_chunks_both_ways(self, upstream):
        server = upstream()
        parts = [b"a" * 70_000, b"b" * 5]
        assert answer(server, method="PUT", content=iter(parts))["body_length"] == 70_005
        server.order(chunks=4)
        response = httpx.get(server.url)
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.json()["name"] == server.name
        server.order(echo=True)
        assert httpx.post(server.url, content=iter(parts)).content == b"".join(parts)

    def test_status_headers_and_body_to_order(self, upstream):
        server = upstream()
        server.order(Order(status=429, headers=(("retry-after", "1"),)), body="slow down", times=1)
        response = httpx.get(server.url)
        assert (response.status_code, response.headers["retry-after"], response.text) == (
            429,
            "1",
            "slow down",
        )
        assert httpx.get(server.url).status_code == 200
        server.fail(204)
        assert httpx.get(server.url).content == b""
        server.behave()
        assert httpx.head(server.url).content == b""

    def test_the_newest_order_that_applies_holds(self, upstream):
        server = upstream()
        server.fail(500)
        server.order(status=404, where=lambda head: head.path == "/x")
        server.fail(503, times=1)
        statuses = [httpx.get(server.url + path).status_code for path in ("/x", "/x", "/", "/")]
        assert statuses == [503, 404, 500, 500]

    def test_a_request_brings_its_own_order(self, upstream):
        server = upstream()
        assert httpx.get(server.url, headers={"x-upstream-order": '{"status": 418}'}).status_code == 418
        wrong = httpx.get(server.url, headers={"x-upstream-order": '{"stats": 418}'})
        assert wrong.status_code == 400
        assert "no 'stats'" in wrong.text

    @pytest.mark.parametrize(
        ("order", "error"),
        [
            (Order(reset="head"), httpx.ReadError),
            (Order(reset="body"), httpx.ReadError),
            (Order(truncate=True), httpx.RemoteProtocolError),
            (Order(truncate=True, chunks=3), httpx.RemoteProtocolError),
            (Order(garbage="\x00\x01 nothing\r\n\r\n"), httpx.RemoteProtocolError),
            (Order(garbage=""), httpx.RemoteProtocolError),
        ],
    )
    def test_breaking_off(self, upstream, order, error):
        server = upstream()
        server.order(order, times=1)
        with pytest.raises(error):
            httpx.get(server.url)
        assert answer(server)["name"] == server.name
        server.wait_for(lambda: server.connections_open == 0)

    def test_a_reset_in_the_body_comes_after_the_head(self, upstream):
        server = upstream()
        server.reset_body()
        with httpx.stream("GET", server.url) as response:
            parts = response.iter_raw()
            first = next(parts)
            with pytest.raises(httpx.ReadError):
                next(parts)
        assert response.status_code == 200
        assert 0 < len(first) < int(response.headers["content-length"])

    def test_hanging_until_released(self, upstream):
        server = upstream()
        server.hang(times=1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(server.url, timeout=0.05)
        # Where it came late, it would take the next order.
        server.wait_for(lambda: server.requests and server.connections_open == 0)
        server.order(hold="body", times=1)
        with httpx.stream("GET", server.url) as response:
            parts = response.iter_raw()
            first = next(parts)
            server.wait_for(lambda: server.held == 1)
            server.release()
            assert json.loads(first + b"".join(parts))["name"] == server.name

    def test_a_late_answer(self, upstream):
        server = upstream()
        server.delay(0.05)
        before = time.monotonic()
        assert answer(server)["name"] == server.name
        assert time.monotonic() - before >= 0.05

    def test_connections_are_kept_and_counted(self, upstream):
        server = upstream()
        with httpx.Client() as client:
            for _ in range(3):
                client.get(server.url)
            assert server.counts() == {
                "connections_open": 1,
                "connections_total": 1,
                "requests_total": 3,
                "held": 0,
            }
            server.order(close=True, times=1)
            assert client.get(server.url).headers["connection"] == "close"
            client.get(server.url)
            assert server.connections_total == 2
            server.close_connections()
            assert server.connections_open == 0
            # A FIN that has arrived tells nobody.
            assert asked(lambda: all(each.has_expired() for each in client._transport._pool.connections))
            assert client.get(server.url).json()["connection"] == 3
        server.wait_for(lambda: server.connections_open == 0)

    def test_an_early_answer_does_not_wait_for_the_body(self, upstream):
        server = upstream()
        server.order(status=413, early=True)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.putrequest("PUT", "/")
        connection.putheader("content-length", "1000000")
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()

    def test_a_request_cut_off_is_recorded_as_such(self, upstream):
        server = upstream()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"PUT / HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc")
        server.wait_for(lambda: server.requests)
        (received,) = server.requests
        assert (received.body, received.complete) == (b"abc", False)

    def test_killed_and_restarted_at_the_same_port(self, upstream):
        server = upstream()
        port = server.port
        with httpx.Client() as client:
            client.get(server.url)
            server.hang()
            failed = []

            def call():
                with pytest.raises(httpx.ReadError) as caught:
                    httpx.get(server.url, timeout=20)
                failed.append(caught.value)

            thread = threading.Thread(target=call)
            thread.start()
            server.wait_for(lambda: server.requests_total == 2)
            server.kill()
            thread.join(5)
            assert len(failed) == 1
            with pytest.raises(httpx.TransportError):
                client.get(server.url)
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)
        with pytest.raises(OSError, match="in use"), socket.socket() as other:  # nobody else gets the port
            other.bind(("127.0.0.1", port))
        server.behave()
        server.start()
        assert server.port == port
        assert answer(server)["name"] == server.name

    def test_tls_and_the_name_asked_for(self, upstream):
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("reviews.test", "127.0.0.1").configure_cert(context)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        server = upstream("secure", tls=context)
        asked = {"extensions": {"sni_hostname": "reviews.test"}}
        with httpx.Client(verify=trusting) as client:
            assert client.get(server.url, **asked).json()["sni"] == "reviews.test"
            server.hang(times=1)
            with pytest.raises(httpx.ReadTimeout):
                client.get(server.url, timeout=0.05)
        server.wait_for(lambda: server.connections_open == 0)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{server.address}")
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)
        server.wait_for(lambda: server.connections_open == 0)

    def test_many_at_once(self, upstream):
        server = upstream()
        statuses = queue.SimpleQueue()

        def calls():
            with httpx.Client() as client:
                for _ in range(50):
                    statuses.put(client.get(server.url).status_code)

        threads = [threading.Thread(target=calls) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert [statuses.get_nowait() for _ in range(500)] == [200] * 500
        server.wait_for(lambda: server.connections_open == 0)
        assert server.counts() == {
            "connections_open": 0,
            "connections_total": 10,
            "requests_total": 500,
            "held": 0,
        }

    def test_a_client_that_does_not_read_cannot_keep_it_from_stopping(self, upstream):
        server = upstream()
        server.order(body="x" * 20_000_000)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            server.wait_for(lambda: server.requests)
            server.kill()
            assert server.connections_open == 0

    def test_nothing_is_left_after_it_stops(self):
        before = set(threading.enumerate())
        with Upstream() as server, httpx.Client() as client:
            client.get(server.url)
        # That of a connection which has ended already is not waited for.
        left = set(threading.enumerate()) - before
        for thread in left:
            thread.join(5)
        assert not any(thread.is_alive() for thread in left)

    def test_a_taken_port_is_an_error_and_not_shared(self, upstream):
        with pytest.raises(OSError, match="somebody listens on"):
            Upstream(port=upstream().port).start()


class TestUpstreamProcess:
    def test_killed_in_earnest_and_started_again(self):
        with UpstreamProcess("v3") as server:
            assert answer(server)["name"] == "v3"
            server.order(status=503, times=1)
            assert [httpx.get(server.url).status_code for _ in range(2)] == [503, 200]
            assert server.counts()["requests_total"] == 3
            port = server.port
            os.kill(server.pid, signal.SIGKILL)
            server.kill()
            assert server.pid is None
            with pytest.raises(httpx.ConnectError):
                httpx.get(server.url)
            server.start()
            assert server.port == port
            assert answer(server)["name"] == "v3"

    def test_orders_from_afar(self):
        with UpstreamProcess() as server:
            server.order(Order(hold="head"))
            got = queue.SimpleQueue()
            thread = threading.Thread(target=lambda: got.put(httpx.get(server.url, timeout=20).status_code))
            thread.start()
            _until(lambda: server.counts()["held"] == 1)
            server.release()
            assert got.get(timeout=10) == 200
            thread.join(5)
            server.behave()
            assert answer(server)["name"] == server.name
            with pytest.raises(ValueError, match="no order"):
                server._ask("PUT", {"stats": 1})

    def test_it_ends_with_its_parent(self):
        code = (
            "from meshlib.testing import UpstreamProcess; import os, sys\n"
            "server = UpstreamProcess().start(); print(server.port, server.pid, flush=True)\n"
            "sys.stdin.read(); os._exit(0)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as parent:
            assert parent.stdin is not None
            assert parent.stdout is not None
            port, pid = map(int, parent.stdout.readline().split())
            assert _listens(port)
            server = os.pidfd_open(pid)
            parent.stdin.close()
            ended, _, _ = select.select([server], [], [], 10.0)
            os.close(server)
        assert ended
        assert not _listens(port)

    def test_a_port_that_cannot_be_had(self, upstream):
        with pytest.raises(RuntimeError, match="did not start"):
            UpstreamProcess(port=upstream().port).start()


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(predicate, timeout=10.0):
    """Of an Upstream's own process, which answers and tells nothing by itself."""
    assert asked(predicate, timeout), "it did not come to pass"


@pytest.fixture
def pytester_like(tmp_path):
    """A function that runs a file of tests in a process of its own, whose environment has what it is given; whether all is well."""

    def run(text, **environment):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(text))
        path = os.pathsep.join(sys.path)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "--rootdir",
                str(tmp_path),
                str(tmp_path),
            ],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return True

    return run


class TestPlugin:
    def test_the_fixtures(
        self, meshlib_control_plane, meshlib_upstream, meshlib_grpc_upstream, meshlib_clock, meshlib_mesh
    ):
        assert meshlib_control_plane.running
        assert meshlib_grpc_upstream("g").running
        one = meshlib_upstream("a")
        assert answer(one)["name"] == "a"
        assert isinstance(meshlib_clock, VirtualClock)
        mesh = meshlib_mesh({"services": {"a": {"endpoints": [one.address]}}}, clock=meshlib_clock)
        assert mesh.explain("GET", "http://a/").endpoint == one.address
        assert meshlib_mesh().explain("GET", "http://a/").via == "direct"

    def test_a_mesh_of_the_fixture_depends_on_nothing_outside(self, meshlib_mesh, monkeypatch, tmp_path):
        monkeypatch.setenv("MESHLIB_CONFIG", str(tmp_path / "nowhere.toml"))
        monkeypatch.setenv("MESHLIB_XDS_SERVER", "127.0.0.1:1")
        monkeypatch.setenv("MESHLIB_DISABLED", "1")
        mesh = meshlib_mesh({"services": {"a": {"endpoints": ["127.0.0.1:9"]}}})
        assert mesh.explain("GET", "http://a/").endpoint == "127.0.0.1:9"
        assert [source.kind for source in mesh.status().sources] == ["static"]

    def test_the_fixtures_for_the_environment_and_their_end(self, pytester_like):
        assert pytester_like(
            """
            import os
            import meshlib

            made = []

            def test_before(monkeypatch):
                made.append(meshlib.default())

            def test_inside(meshlib_environment, meshlib_mesh):
                assert not [name for name in os.environ if name.startswith(("MESHLIB_", "GRPC_XDS_"))]
                assert "MESHLIBS" in os.environ
                meshlib_environment.setenv("MESHLIB_NODE_ID", "mine")
                assert meshlib.default().status().node["id"] == "mine"
                made.extend((meshlib.default(), meshlib_mesh()))

            def test_after():
                assert os.environ["MESHLIB_NODE_ID"] == "shell"
                assert all(mesh.closed for mesh in made)
                assert meshlib.default().status().node["id"] == "shell"
            """,
            MESHLIB_NODE_ID="shell",
            GRPC_XDS_BOOTSTRAP_CONFIG="",
            MESHLIBS="x",
        )

    def test_loading_it_loads_nothing_heavy(self):
        code = """
import sys, pytest
before = set(sys.modules)
import meshlib.testing, meshlib.testing.plugin
new = {name.partition('.')[0] for name in set(sys.modules) - before}
print(sorted(new & {'asyncio', 'google', 'grpc', 'http', 'httpx', 'ssl'}))
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout.strip() == "[]"

    def test_pytest_leaves_the_modules_of_meshlib_as_they_are(self, pytester_like):
        assert pytester_like(
            """
            import sys
            from importlib.machinery import SourceFileLoader

            import meshlib.wire.multiplexed

            def test_none_is_compiled_anew():
                own = [name for name in sys.modules if name.startswith(("meshlib.wire.", "meshlib.pools."))]
                assert "meshlib.wire.multiplexed" in own
                assert {type(sys.modules[name].__loader__) for name in own} == {SourceFileLoader}
                assert type(sys.modules[__name__].__loader__) is not SourceFileLoader  # the tests' own are
            """
        )

    def test_every_public_name_is_there(self):
        import meshlib.testing

        assert set(meshlib.testing.__all__) == set(dir(meshlib.testing))
        assert all(getattr(meshlib.testing, name) for name in meshlib.testing.__all__)
        with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
            meshlib.testing.Nothing  # noqa: B018
