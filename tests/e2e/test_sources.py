"""Sources against real servers on loopback: a control plane, a DNS server, files."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from dataclasses import replace

import grpc
import pytest
import trustme

import meshlib
from meshlib.config import from_settings, resolve
from meshlib.sources import dns_query
from meshlib.testing import ControlPlane, build
from tests.support.asking import asked
from tests.support.dns_server import DnsServer
from tests.support.watch import until


def soon(mesh, condition, timeout=15.0):
    """Wait for something that a source or the configuration tells of."""
    assert mesh._runtime().store.wait(lambda view: condition(), timeout), mesh.status().to_dict()["sources"]


def service(name="reviews", *addresses, cluster="c1"):
    """The resources of one target."""
    host = build.virtual_host(name, build.route("/", cluster=cluster), domains=[name])
    return (
        build.api_listener(name, f"{name}-routes"),
        build.route_config(f"{name}-routes", host),
        build.cluster(cluster),
        build.endpoints(cluster, *(addresses or ("127.0.0.1:9001",))),
    )


def source(mesh, kind):
    return next(source for source in mesh.status().sources if source.kind == kind)


def xds(mesh):
    return source(mesh, "xds")


def addresses(mesh, cluster="c1"):
    found = mesh.snapshot().clusters.get(cluster)
    return (
        None
        if found is None or found.assignment is None
        else {str(e.address) for e in found.assignment.endpoints}
    )


def not_reachable(mesh):
    """Wait until the control plane is known to be away; the words for it."""
    mesh.snapshot()
    until(mesh, lambda: xds(mesh).state == "failed")
    with pytest.raises(meshlib.NotReady, match="not reachable") as caught:
        mesh.wait_ready("reviews", timeout=0.1)
    assert xds(mesh).last_error
    return str(caught.value)


def ours():
    """meshlib's own threads in this process."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("meshlib")]


@pytest.fixture
def mesh_of():
    with contextlib.ExitStack() as stack:
        yield lambda config: stack.enter_context(meshlib.Mesh(config))
    assert set(ours()) <= {"meshlib-dns"}
    # Those that ask for names end by themselves, and tell nobody.
    assert asked(lambda: ours() == []), ours()


@pytest.fixture
def plane():
    with ControlPlane(*service()) as running:
        yield running


class TestControlPlane:
    @pytest.fixture(params=["delta", "sotw"])
    def mesh_of(self, request, mesh_of):
        """As everywhere, by each protocol in turn."""

        def made(config):
            given = resolve(config)
            return mesh_of(replace(given, xds=replace(given.xds, protocol=request.param)))

        return made

    def test_discovered_explained_updated(self, plane, mesh_of):
        mesh = mesh_of({"xds": {"server": plane.address}, "node": {"id": "me", "cluster": "shop"}})
        mesh.wait_ready("reviews", timeout=10)
        decision = mesh.explain("GET", "http://reviews/x")
        assert (decision.via, decision.cluster, decision.endpoint) == ("mesh", "c1", "127.0.0.1:9001")
        plane.update(build.endpoints("c1", "127.0.0.1:9002", "127.0.0.1:9003"))
        until(mesh, lambda: addresses(mesh) == {"127.0.0.1:9002", "127.0.0.1:9003"})
        status = xds(mesh)
        assert (status.state, status.server, status.last_error) == ("ready", plane.address, "")
        held = {short: count for short, count in status.resources.items() if count}
        assert held == {"listener": 1, "route": 1, "cluster": 1, "endpoint": 1}
        assert mesh.status().node["id"] == "me"
        assert mesh.status().clusters["c1"].endpoints[0].health == "healthy"

    def test_a_refusal_is_in_the_status_and_the_rest_serves(self, plane, mesh_of):
        mesh = mesh_of({"xds": {"server": plane.address}})
        mesh.wait_ready("reviews", timeout=10)
        seen = plane.seen
        plane.update(build.cluster("bad", ["127.0.0.1:1"], connect_timeout="-5s"), build.cluster("c1"))
        plane.wait_for_nack("cluster", after=seen, timeout=10)
        (rejected,) = until(mesh, lambda: xds(mesh).rejected)
        assert (rejected.resource, rejected.type) == ("bad", "cluster")
        assert addresses(mesh) == {"127.0.0.1:9001"}
        seen = plane.seen
        plane.remove("cluster", "bad")
        plane.wait_for_ack("cluster", after=seen, timeout=10)
        assert not xds(mesh).rejected

    def test_an_outage_is_survived_and_recovered_from(self, plane, mesh_of):
        """CA-01, ST-04, ST-07"""
        mesh = mesh_of({"xds": {"server": plane.address}})
        mesh.wait_ready("reviews", timeout=10)
        plane.kill()
        # A try that comes while the server ends is ended by it, and is an error of its own.
        until(mesh, lambda: (found := xds(mesh)).state == "stale" and "refused" in found.last_error)
        assert mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:9001"
        plane.update(build.endpoints("c1", "127.0.0.1:9009"))
        plane.start()
        until(mesh, lambda: addresses(mesh) == {"127.0.0.1:9009"})
        assert xds(mesh).state == "ready"
        assert xds(mesh).last_error == ""

    def test_streams_that_are_dropped_again_and_again_fail_nothing(self, plane, mesh_of):
        mesh = mesh_of({"xds": {"server": plane.address}})
        mesh.wait_ready("reviews", timeout=10)
        for _ in range(3):
            opened = plane.opened
            plane.drop_streams()
            assert mesh.explain("GET", "http://reviews/").via == "mesh"
            plane.wait_for(lambda opened=opened: plane.opened > opened, timeout=10)
            assert mesh.explain("GET", "http://reviews/").via == "mesh"
            until(mesh, lambda: xds(mesh).state == "ready")
            newest = plane.streams[-1].number
            plane.wait_for_request(
                "endpoint", lambda each, n=newest: each.stream == n and each.names == ("c1",)
            )

    def test_garbage_on_the_stream_changes_nothing(self, plane, mesh_of):
        mesh = mesh_of({"xds": {"server": plane.address}})
        mesh.wait_ready("reviews", timeout=10)
        plane.send_bytes(b"\xff\xfe\x00 garbage")
        plane.update(build.endpoints("c1", "127.0.0.1:9005"))
        until(mesh, lambda: addresses(mesh) == {"127.0.0.1:9005"})

    def test_a_response_of_many_megabytes_is_taken(self, plane, mesh_of):
        """ST-13: gRPC's own limit is 4 MB."""
        members = [
            build.endpoint(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:80", hostname="x" * 200)
            for n in range(25_000)
        ]
        mesh = mesh_of({"xds": {"server": plane.address}})
        mesh.wait_ready("reviews", timeout=10)
        plane.update(build.endpoints("c1", *members))
        until(mesh, lambda: len(addresses(mesh)) == 25_000, seconds=40)

    def test_a_bootstrap_file_and_the_inline_one(self, plane, mesh_of, tmp_path, monkeypatch):
        """BS-01"""
        text = json.dumps(plane.bootstrap(node="from-bootstrap"))
        path = tmp_path / "bootstrap.json"
        path.write_text(text)
        monkeypatch.setenv("GRPC_XDS_BOOTSTRAP", str(path))
        mesh = mesh_of(None)
        mesh.wait_ready("reviews", timeout=10)
        assert mesh.status().node["id"] == "from-bootstrap"
        monkeypatch.delenv("GRPC_XDS_BOOTSTRAP")
        monkeypatch.setenv("GRPC_XDS_BOOTSTRAP_CONFIG", text)
        mesh_of(None).wait_ready("reviews", timeout=10)

    def test_the_names_of_listeners_follow_the_template(self, plane, mesh_of):
        """BS-10"""
        plane.set(*service("xdstp://a/x/reviews"), *service())
        text = json.dumps(plane.bootstrap(client_default_listener_resource_name_template="prefix/%s"))
        plane.update(build.api_listener("prefix/reviews", "reviews-routes"))
        mesh = mesh_of({"xds": {"bootstrap_config": text}})
        mesh.wait_ready("reviews", timeout=10)
        assert plane.wait_for_request("listener", lambda each: "prefix/reviews" in each.names)

    def test_istios_listeners_are_named_with_their_port(self, plane, mesh_of):
        """CP-04"""
        host = build.virtual_host("r", build.route("/", cluster="c1"), domains=["reviews", "reviews:80"])
        plane.update(build.api_listener("reviews:80", build.route_config("r", host)))
        text = json.dumps(plane.bootstrap(node="me"))
        document = json.loads(text)
        document["node"]["metadata"] = {"GENERATOR": "grpc"}
        mesh = mesh_of({"xds": {"bootstrap_config": json.dumps(document)}})
        mesh.wait_ready("reviews", timeout=10)

    def test_names_out_of_use_are_let_go_of(self, plane, mesh_of):
        mesh = mesh_of({"xds": {"server": plane.address, "view": "target"}})
        mesh.wait_ready("reviews", timeout=10)
        runtime = mesh._runtime()
        runtime.interest._idle = 0.0
        runtime.interest._names["reviews"].used = False
        seen = plane.seen
        runtime.worker.post(runtime._sweep)
        given_up = plane.wait_for_request(
            "listener", lambda each: not each.nonce or not each.names, after=seen
        )
        assert (given_up.names, given_up.unsubscribe) == ((), ("reviews",) * (given_up.protocol == "delta"))
        mesh.wait_ready("reviews", timeout=10)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    mine = authority.issue_cert("me.test")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    mine.cert_chain_pems[0].write_to_path(folder / "me.pem")
    mine.private_key_pem.write_to_path(folder / "me.key")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    return folder


class TestCredentials:
    def plane(self, authority, *, mutual=False):
        server = authority.issue_cert("127.0.0.1", "localhost")
        pair = (server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())
        credentials = grpc.ssl_server_credentials(
            [pair],
            root_certificates=authority.cert_pem.bytes() if mutual else None,
            require_client_auth=mutual,
        )
        return ControlPlane(*service(), credentials=credentials)

    def test_tls(self, authority, files, mesh_of):
        with self.plane(authority) as plane:
            mesh = mesh_of({"xds": {"server": plane.address, "tls": {"ca": str(files / "ca.pem")}}})
            mesh.wait_ready("reviews", timeout=10)

    def test_mutual_tls(self, authority, files, mesh_of):
        tls = {"ca": str(files / "ca.pem"), "cert": str(files / "me.pem"), "key": str(files / "me.key")}
        with self.plane(authority, mutual=True) as plane:
            mesh_of({"xds": {"server": plane.address, "tls": tls}}).wait_ready("reviews", timeout=10)

    def test_mutual_tls_from_a_bootstrap(self, authority, files, mesh_of):
        """BS-05"""
        config = {
            "ca_certificate_file": str(files / "ca.pem"),
            "certificate_file": str(files / "me.pem"),
            "private_key_file": str(files / "me.key"),
        }
        with self.plane(authority, mutual=True) as plane:
            document = plane.bootstrap()
            document["xds_servers"][0]["channel_creds"] = [{"type": "tls", "config": config}]
            mesh_of({"xds": {"bootstrap_config": json.dumps(document)}}).wait_ready("reviews", timeout=10)

    @pytest.mark.parametrize("kind", ["plain", "wrong-ca", "no-certificate", "missing-file"])
    def test_a_wrong_credential_is_an_error_and_never_plain_text(self, authority, files, mesh_of, kind):
        tls = {
            "plain": None,
            "wrong-ca": {"ca": str(files / "other.pem")},
            "no-certificate": {"ca": str(files / "ca.pem")},
            "missing-file": {"ca": str(files / "nosuch.pem")},
        }[kind]
        with self.plane(authority, mutual=kind == "no-certificate") as plane:
            mesh = mesh_of({"xds": {"server": plane.address} | ({"tls": tls} if tls else {})})
            not_reachable(mesh)
            assert plane.requests == ()

    def test_tls_to_a_server_of_plain_text(self, plane, files, mesh_of):
        mesh = mesh_of({"xds": {"server": plane.address, "tls": {"ca": str(files / "ca.pem")}}})
        not_reachable(mesh)
        assert plane.requests == ()


class TestUnixSocket:
    def test_a_control_plane_behind_a_path(self, plane, mesh_of, tmp_path):
        path = tmp_path / "xds.sock"
        with _forwarded(path, plane.port):
            mesh_of({"xds": {"server": f"unix:{path}"}}).wait_ready("reviews", timeout=10)


@contextlib.contextmanager
def _forwarded(path, port):
    """A Unix socket that leads to a port of loopback."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    pairs = []

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", port))
                pairs.extend((near, far))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for each in pairs:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class TestBadServers:
    """A clear status, and no call that hangs beyond its own connect timeout."""

    @contextlib.contextmanager
    def tcp(self, greeting=None):
        """A server that takes connections and says `greeting`, or nothing."""
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        kept = []

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    kept.append(connection)
                    if greeting is not None:
                        connection.sendall(greeting)

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
            for each in kept:
                each.close()

    def test_a_dead_address_is_known_at_once_and_nobody_waits(self, mesh_of):
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{held.getsockname()[1]}"
            mesh = mesh_of({"xds": {"server": address}})
            assert f"reviews: control plane {address} not reachable: " in not_reachable(mesh)
            began = time.monotonic()
            resolution = mesh._runtime().wait_known("http", "ratings", None, "ratings", 5.0)
            assert resolution.via == "direct"
            assert time.monotonic() - began < 4.5

    def test_one_that_never_answers_delays_a_host_once(self, mesh_of):
        with self.tcp() as address:
            mesh = mesh_of({"xds": {"server": address}})
            runtime = mesh._runtime()
            until(mesh, lambda: xds(mesh).state == "connecting")
            began = time.monotonic()
            assert runtime.wait_known("http", "reviews", None, "reviews", 0.3).via == "direct"
            assert time.monotonic() - began > 0.2
            began = time.monotonic()
            for _ in range(20):
                runtime.wait_known("http", "reviews", None, "reviews", 0.3)
            assert time.monotonic() - began < 3.0  # each that waited would add 0.3 s
            assert xds(mesh).state == "connecting"

    def test_one_that_takes_the_stream_and_never_answers(self, plane, mesh_of):
        plane.hold()
        mesh = mesh_of({"xds": {"server": plane.address}})
        with pytest.raises(meshlib.NotReady, match="reviews"):
            mesh.wait_ready("reviews", timeout=0.5)
        until(mesh, lambda: xds(mesh).waiting)  # the worker may have begun later than that
        plane.release()
        mesh.wait_ready("reviews", timeout=10)

    @pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 4096])
    def test_one_that_speaks_something_else(self, mesh_of, greeting):
        with self.tcp(greeting) as address:
            not_reachable(mesh_of({"xds": {"server": address}}))

    def test_one_that_refuses_every_stream(self, plane, mesh_of):
        plane.refuse(details="not today")
        mesh = mesh_of({"xds": {"server": plane.address}})
        assert "not today" in not_reachable(mesh)
        plane.accept()
        mesh.wait_ready("reviews", timeout=10)

    def test_a_bootstrap_that_cannot_be_read_is_an_error_at_first_use(self, mesh_of, tmp_path):
        mesh = mesh_of({"xds": {"bootstrap": str(tmp_path / "nosuch.json")}})
        with pytest.raises(meshlib.ConfigError, match=r"nosuch\.json"):
            mesh.wait_ready("reviews", timeout=1)
        assert mesh.status().sources == ()


class TestProtocol:
    """``xds.protocol = "auto"`` against servers that have delta, or do not."""

    def test_delta_where_it_is_there(self, plane, mesh_of):
        mesh = mesh_of({"xds": {"server": plane.address}})
        mesh.wait_ready("reviews", timeout=10)
        assert {each.protocol for each in plane.requests} == {"delta"}
        assert xds(mesh).versions["endpoint"] == plane.version("endpoint")

    @pytest.mark.parametrize(
        ("code", "details"),
        [(grpc.StatusCode.UNIMPLEMENTED, "unknown method"), (grpc.StatusCode.UNKNOWN, "not implemented")],
    )
    def test_state_of_the_world_where_it_is_not(self, plane, mesh_of, code, details):
        plane.refuse(code, details, protocol="delta")
        mesh = mesh_of({"xds": {"server": plane.address, "view": "target"}})
        mesh.wait_ready("reviews", timeout=10)
        assert {each.protocol for each in plane.requests} == {"sotw"}
        assert (xds(mesh).state, xds(mesh).last_error) == ("ready", "")
        assert plane.opened == 2
        plane.drop_streams()
        plane.wait_for(lambda: plane.opened == 3, timeout=10)
        other = mesh_of({"xds": {"server": plane.address, "view": "target"}})
        other.wait_ready("reviews", timeout=10)
        plane.accept()
        plane.drop_streams()  # what it is has not changed for this process
        plane.wait_for(lambda: plane.opened == 6, timeout=10)
        plane.wait_for_streams(2, timeout=10)
        assert [stream.protocol for stream in plane.streams] == ["sotw", "sotw"]

    def test_delta_alone_says_what_to_do(self, plane, mesh_of):
        plane.refuse(grpc.StatusCode.UNIMPLEMENTED, "unknown method", protocol="delta")
        mesh = mesh_of({"xds": {"server": plane.address, "protocol": "delta"}})
        assert 'unknown method: the control plane does not have xds.protocol = "delta"' in not_reachable(mesh)

    def test_a_server_that_starts_anew_is_told_what_is_held(self, plane, mesh_of):
        """DL-02, DL-12: only what is different comes, and what is gone is named."""
        mesh = mesh_of({"xds": {"server": plane.address, "view": "target"}})
        mesh.wait_ready("reviews", timeout=10)
        until(mesh, lambda: addresses(mesh) == {"127.0.0.1:9001"})
        plane.kill()
        until(mesh, lambda: xds(mesh).state == "stale")
        seen = plane.seen
        plane.update(build.endpoints("c1", "127.0.0.1:9002"))
        plane.start()
        until(mesh, lambda: addresses(mesh) == {"127.0.0.1:9002"})
        plane.wait_for_ack("endpoint", after=seen, timeout=10)
        again = [each for each in plane.requests if each.index >= seen]
        assert {each.kind for each in again if each.is_ack} == {"endpoint"}
        assert [set(each.initial_versions) for each in again if each.kind == "route"] == [{"reviews-routes"}]
        assert xds(mesh).state == "ready"


class TestWaiting:
    def test_a_waiting_call_goes_on_as_soon_as_its_name_is_known(self, plane, mesh_of):
        plane.hold("listener")
        mesh = mesh_of({"xds": {"server": plane.address}})
        found = []
        thread = threading.Thread(
            target=lambda: found.append(mesh._runtime().wait_known("http", "reviews", None, "reviews", 20.0))
        )
        thread.start()
        plane.wait_for_request("listener", lambda each: "reviews" in each.names, timeout=10)
        plane.release()
        thread.join(10.0)
        assert found[0].via == "mesh"

    def test_the_twin_for_event_loops(self, plane, mesh_of):
        plane.hold("listener")
        mesh = mesh_of({"xds": {"server": plane.address}})
        told, known = [], threading.Event()
        runtime = mesh._runtime()
        cancel = runtime.on_known(
            "http", "reviews", None, "reviews", lambda found: (told.append(found.via), known.set())
        )
        assert told == []
        plane.release()
        assert known.wait(10.0)
        cancel()
        again = []
        runtime.on_known("http", "reviews", None, "reviews", lambda found: again.append(found.via))()
        assert again == ["mesh"]
        assert told == ["mesh"]


class TestDns:
    def test_a_service_by_name_follows_its_records(self, mesh_of):
        with DnsServer({("a.test", "A"): ["127.0.0.1"]}) as server:
            mesh = mesh_of({"services": {"reviews": {"dns": "a.test:81"}}, "dns": server.settings})
            mesh.wait_ready("reviews", timeout=10)
            assert addresses(mesh, "reviews") == {"127.0.0.1:81"}
            server.records["a.test", "A"] = ["127.0.0.2", "127.0.0.3"]
            until(mesh, lambda: addresses(mesh, "reviews") == {"127.0.0.2:81", "127.0.0.3:81"})
            server.mode = "servfail"
            until(mesh, lambda: next(s for s in mesh.status().sources if s.kind == "dns").state == "stale")
            assert addresses(mesh, "reviews") == {"127.0.0.2:81", "127.0.0.3:81"}

    def test_srv(self, mesh_of):
        records = {
            ("_http._tcp.a.test", "SRV"): ["1 3 81 one.test.", "2 1 82 two.test."],
            ("one.test", "A"): ["127.0.0.1"],
            ("two.test", "A"): ["127.0.0.2"],
        }
        with DnsServer(records) as server:
            mesh = mesh_of({"services": {"reviews": {"srv": "_http._tcp.a.test"}}, "dns": server.settings})
            mesh.wait_ready("reviews", timeout=10)
            shown = [(e.address, e.weight, e.priority) for e in mesh.status().clusters["reviews"].endpoints]
            assert shown == [("127.0.0.1:81", 3, 0), ("127.0.0.2:82", 1, 1)]

    def test_a_cluster_of_the_control_plane(self, plane, mesh_of):
        with DnsServer({("a.test", "A"): ["127.0.0.7"]}) as server:
            plane.update(build.cluster("c1", ["a.test:83"], type="STRICT_DNS"))
            mesh = mesh_of({"xds": {"server": plane.address}, "dns": server.settings})
            mesh.wait_ready("reviews", timeout=10)
            assert addresses(mesh) == {"127.0.0.7:83"}

    def test_a_name_that_nobody_knows_is_what_is_missing(self, mesh_of):
        with DnsServer() as server:
            mesh = mesh_of({"services": {"reviews": {"dns": "a.test:81"}}, "dns": server.settings})
            # The state is told before what it says of the cluster is in force.
            soon(mesh, lambda: mesh.snapshot().clusters["reviews"].unresolved)
            assert source(mesh, "dns").state == "failed"
            with pytest.raises(
                meshlib.NotReady, match=r"no healthy endpoint .*a\.test \(A, AAAA\): NXDOMAIN"
            ):
                mesh.wait_ready("reviews", timeout=0.1)

    @pytest.mark.parametrize(
        ("service", "mode", "said"),
        [
            ({"dns": "nope.test:81"}, "answer", "nope.test (A, AAAA): NXDOMAIN from {server}"),
            ({"dns": "bare.test:81"}, "answer", "bare.test (A, AAAA): no data from {server}"),
            ({"dns": "nope.test:81"}, "servfail", "nope.test (A, AAAA): SERVFAIL from {server}"),
            ({"dns": "nope.test:81"}, "silent", "nope.test (A, AAAA): no answer within 0.4 s from {server}"),
            ({"srv": "_http._tcp.nope.test"}, "answer", "_http._tcp.nope.test (SRV): NXDOMAIN from {server}"),
            ({"srv": "_http._tcp.a.test"}, "answer", "one.test (A, AAAA): NXDOMAIN from {server}"),
        ],
    )
    def test_what_the_resolver_said_is_in_status_error_and_trace(
        self, face, caplog, monkeypatch, service, mode, said
    ):
        if mode == "silent":
            monkeypatch.setattr(dns_query, "TRY", 0.2)
            monkeypatch.setattr(dns_query, "LIFETIME", 0.4)
        records = {("bare.test", "TXT"): ["x"], ("_http._tcp.a.test", "SRV"): ["0 1 80 one.test."]}
        with DnsServer(records) as server:
            server.mode = mode
            said = said.format(server=f"127.0.0.1:{server.port}")
            client = face({"services": {"nope": service}, "dns": server.settings})
            soon(client.mesh, lambda: source(client.mesh, "dns").state == "failed")
            with pytest.raises(meshlib.NoHealthyEndpoint) as caught:
                client.get("http://nope/")
            assert f"cluster 'nope' has no endpoint: {said}" in str(caught.value)
            assert any(said in line for line in caught.value.info.trace())
            status = source(client.mesh, "dns")
            assert status.last_error == said
            assert status.waiting == (service.get("srv") or service["dns"].partition(":")[0],)
            assert any(said in line for line in client.mesh.explain("GET", "http://nope/").trace())
            assert said in caplog.text

    def test_a_name_that_comes_into_being_is_found(self, mesh_of):
        with DnsServer() as server:
            mesh = mesh_of({"services": {"reviews": {"dns": "a.test:81"}}, "dns": server.settings})
            mesh.snapshot()
            soon(mesh, lambda: source(mesh, "dns").state == "failed")
            server.records["a.test", "A"] = ["127.0.0.1"]
            mesh.wait_ready("reviews", timeout=20)
            assert source(mesh, "dns").state == "ready"
            assert source(mesh, "dns").waiting == ()

    def test_a_family_that_cannot_be_asked_leaves_the_other(self, mesh_of):
        with DnsServer({("a.test", "A"): ["127.0.0.1"], ("a.test", "AAAA"): ["::1"]}) as server:
            mesh = mesh_of({"services": {"reviews": {"dns": "a.test:81"}}, "dns": server.settings})
            mesh.wait_ready("reviews", timeout=10)
            server.modes = {"AAAA": "servfail"}
            server.records["a.test", "A"] = ["127.0.0.2"]
            soon(mesh, lambda: addresses(mesh, "reviews") == {"127.0.0.2:81", "[::1]:81"})
            status = source(mesh, "dns")
            assert status.state == "stale"
            assert status.last_error == f"a.test (AAAA): SERVFAIL from 127.0.0.1:{server.port}"


class TestFiles:
    def test_an_edit_of_the_configuration_takes_effect(self, mesh_of, tmp_path):
        path = tmp_path / "mesh.toml"
        path.write_text('[services.reviews]\nendpoints = ["127.0.0.1:1"]\n')
        mesh = mesh_of(str(path))
        assert mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:1"
        path.write_text(
            'bypass = ["plain"]\n[services.reviews]\nendpoints = ["127.0.0.1:2"]\n[services.plain]\n'
        )
        until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:2")
        assert mesh.explain("GET", "http://plain/").via == "direct"
        path.write_text('[services.reviews]\nendpoint = ["127.0.0.1:3"]\n')
        status = until(mesh, lambda: next((s for s in mesh.status().sources if s.state == "stale"), None))
        assert "services.reviews.endpoint" in status.last_error
        assert "endpoints" in status.last_error
        assert mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:2"

    def test_what_a_framework_was_given_survives_an_edit_of_the_file(self, mesh_of, tmp_path, monkeypatch):
        path = tmp_path / "mesh.toml"
        path.write_text('[services.reviews]\nendpoints = ["127.0.0.1:1"]\n')
        monkeypatch.setenv("MESHLIB_CONFIG", str(path))
        settings = {"services": {"mine": {"endpoints": ["127.0.0.1:5"]}}}
        mesh = mesh_of(from_settings(settings, "settings.MESHLIB"))
        assert mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:1"
        path.write_text('[services.reviews]\nendpoints = ["127.0.0.1:2"]\n')
        until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:2")
        assert mesh.explain("GET", "http://mine/").endpoint == "127.0.0.1:5"

    def test_a_change_that_needs_a_new_process_is_said(self, mesh_of, tmp_path, caplog):
        path = tmp_path / "mesh.toml"
        path.write_text('[services.reviews]\nendpoints = ["127.0.0.1:1"]\n')
        mesh = mesh_of(str(path))
        mesh.snapshot()
        path.write_text('[node]\nid = "other"\n[services.reviews]\nendpoints = ["127.0.0.1:2"]\n')
        until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:2")
        assert any("node" in line and "new process" in line for line in caplog.messages)

    def test_a_file_in_envoys_shape(self, mesh_of, tmp_path):
        host = build.virtual_host("all", build.route("/", cluster="c1"), domains=["reviews"])
        document = {
            "listeners": [
                build.without_type(build.listener("l", build.route_config("r", host), address="0.0.0.0:80"))
            ],
            "clusters": [build.without_type(build.cluster("c1", ["127.0.0.1:7"]))],
        }
        path = tmp_path / "envoy.json"
        path.write_text(json.dumps(document))
        mesh = mesh_of({"services_file": str(path)})
        mesh.wait_ready("reviews", timeout=5)
        assert mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:7"
        document["clusters"] = [build.without_type(build.cluster("c1", ["127.0.0.1:8"]))]
        path.write_text(json.dumps(document))
        until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:8")


def test_two_meshes_share_one_worker_and_nothing_else(plane):
    with meshlib.Mesh({"xds": {"server": plane.address}}) as one:
        one.wait_ready("reviews", timeout=10)
        with meshlib.Mesh({"services": {"reviews": {"endpoints": ["127.0.0.1:1"]}}}) as two:
            assert two.explain("GET", "http://reviews/").endpoint == "127.0.0.1:1"
            assert ours().count("meshlib-worker") == 1
        assert one.explain("GET", "http://reviews/").endpoint == "127.0.0.1:9001"
        plane.update(build.endpoints("c1", "127.0.0.1:9002"))
        until(one, lambda: addresses(one) == {"127.0.0.1:9002"})
    assert ours() == []


def test_a_server_that_names_a_point_in_time_is_asked_again_then(upstream):  # RT-07
    limited = upstream()
    again = int(time.time()) + 2
    limited.order(status=503, headers=(("x-ratelimit-reset", str(again)),), times=1)
    back_off = {"reset_headers": [{"name": "x-ratelimit-reset", "format": "UNIX_TIMESTAMP"}]}
    retry = {"retry_on": "5xx", "rate_limited_retry_back_off": back_off}
    routes = build.route_config("r", build.virtual_host("v", build.route(cluster="c", retry=retry)))
    resources = (build.api_listener("reviews", routes), build.cluster("c", [limited.address]))
    with (
        ControlPlane(*resources) as plane,
        meshlib.Mesh({"xds": {"server": plane.address}}) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        assert client.get("http://reviews/").status_code == 200
        assert time.time() >= again
        assert limited.requests_total == 2
