"""TLS that the mesh orders, through real clients: who is refused and how that is told, and rotations."""

from __future__ import annotations

import asyncio
import os
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import httpx
import httpx2
import pytest
import requests
import urllib3

import meshlib
from meshlib.runtime.tls import contexts
from meshlib.testing import ControlPlane, build
from tests.support.certificates import Authority, Issued, replaced
from tests.support.faces import FaceFactory
from tests.support.libraries import LIBRARIES, Caller
from tests.support.tls_server import TlsServer
from tests.support.watch import Watch, arrived

SPIFFE = "spiffe://mesh.example/ns/a/sa/reviews"
CA = Authority("Mesh")
SERVER = CA.issue("reviews", "other", SPIFFE)
ELSEWHERE = Authority("Elsewhere")
#: A long run says more.
ROTATIONS = int(os.environ.get("TLS_ROTATIONS", "4"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    CA.issue("me").write(tmp_path)
    return tmp_path


def service(address: str, folder: Path, **tls: Any) -> dict[str, Any]:
    demanded = {"ca": f"{folder}/ca.pem", "cert": f"{folder}/cert.pem", "key": f"{folder}/key.pem", **tls}
    return {"endpoints": [address], "tls": demanded}


@pytest.fixture
def server() -> Iterator[TlsServer]:
    with TlsServer(SERVER.server(clients=CA)) as made:
        yield made


class TestWhoIsRefused:
    """By HTTP's clients; before the first byte of a request, as the server says."""

    def refused(self, face: FaceFactory, issued: Issued, folder: Path, **tls: Any) -> str:
        with TlsServer(issued.server(clients=CA)) as server:
            client = face({"services": {"reviews": service(server.address, folder, **tls)}})
            with pytest.raises(meshlib.ConnectFailed) as caught:
                client.get("http://reviews/")
            assert isinstance(caught.value, client.library.ConnectError)
            assert not caught.value.sent
            assert server.requests == 0
            return str(caught.value)

    def test_nobody_who_is_right(self, face: FaceFactory, server: TlsServer, folder: Path) -> None:
        client = face({"services": {"reviews": service(server.address, folder, sans=[SPIFFE])}})
        assert client.get("http://reviews/").text == "me reviews None"

    def test_another_authority(self, face: FaceFactory, folder: Path) -> None:
        said = self.refused(face, ELSEWHERE.issue("reviews", SPIFFE), folder)
        assert "unable to get local issuer certificate" in said
        assert "signed by 'commonName=Elsewhere'" in said

    def test_another_name(self, face: FaceFactory, folder: Path) -> None:
        said = self.refused(face, CA.issue("reviews"), folder, sans=[SPIFFE])
        assert f'none of the names exact "{SPIFFE}"; it has dns "reviews"' in said

    def test_what_has_ended(self, face: FaceFactory, folder: Path) -> None:
        assert "certificate has expired" in self.refused(face, CA.issue("reviews", expired=True), folder)

    def test_tls_that_cannot_be_had(self, face: FaceFactory, server: TlsServer, folder: Path) -> None:
        """Nobody is asked, and nobody is to blame."""
        (folder / "key.pem").unlink()
        client = face({"services": {"reviews": service(server.address, folder)}})
        for _ in range(10):
            with pytest.raises(
                meshlib.NoHealthyEndpoint, match=r"cluster .*the private key .*cannot be read"
            ) as caught:
                client.get("http://reviews/")
            assert isinstance(caught.value, client.library.ConnectError)
        assert (server.requests, server.refused) == (0, [])
        CA.issue("me").write(folder)
        assert client.get("http://reviews/").status_code == 200


#: What a connection that cannot be made is in each library.
CONNECT = {
    "httpx": httpx.ConnectError,
    "httpx-async": httpx.ConnectError,
    "httpx2": httpx2.ConnectError,
    "httpx2-async": httpx2.ConnectError,
    "requests": requests.exceptions.ConnectionError,
    "urllib3": urllib3.exceptions.HTTPError,
    "aiohttp": aiohttp.ClientConnectorError,
    "aiohttp-connector": aiohttp.ClientConnectorError,
}


@pytest.mark.parametrize("library", LIBRARIES)
class TestEachLibrary:
    def test_who_is_right_is_called_and_resumed_by_none_of_the_old_material(
        self, server: TlsServer, folder: Path, library: str
    ) -> None:
        config = {"services": {"reviews": service(server.address, folder, sans=[SPIFFE])}}
        with meshlib.Mesh(config) as mesh, Caller(library, mesh) as call:
            for name in ("me", "me", "renewed"):
                if name == "renewed":
                    CA.issue("renewed").write(folder)
                    httpx_call("GET", mesh)  # whose handshake finds it
                status, body, _ = call("GET", "http://reviews/")
                assert (status, body.split()[:2]) == (200, [name.encode(), b"reviews"])

    def test_sessions_are_resumed(self, server: TlsServer, folder: Path, library: str) -> None:
        config = {"services": {"reviews": service(server.address, folder, sans=[SPIFFE])}}
        with meshlib.Mesh(config) as mesh, Caller(library, mesh) as call:
            for _ in range(4):
                assert call("GET", "http://reviews/", headers={"connection": "close"})[0] == 200
        assert server.resumed == [False, True, True, True]

    def test_who_is_not_hears_nothing(self, folder: Path, library: str) -> None:
        with TlsServer(CA.issue("reviews").server(clients=CA)) as server:
            config = {"services": {"reviews": service(server.address, folder, sans=[SPIFFE])}}
            with meshlib.Mesh(config) as mesh, Caller(library, mesh) as call:
                with pytest.raises(CONNECT[library], match="none of the names") as caught:
                    call("GET", "http://reviews/")
                assert isinstance(caught.value, meshlib.ConnectFailed)
            assert server.requests == 0

    def test_a_name_that_is_none(self, server: TlsServer, library: str) -> None:
        """A control plane may ask for whatever it likes."""
        with (
            ordering(ordered(server.address, CA.issue("me"), sni="x" * 64 + ".example")) as (_, mesh),
            Caller(library, mesh) as call,
        ):
            with pytest.raises(CONNECT[library]) as caught:
                call("GET", f"http://{ADDRESS}/")
            assert isinstance(caught.value, meshlib.ConnectFailed)
        assert server.requests == 0

    def test_what_cannot_be_had_asks_nobody(self, server: TlsServer, folder: Path, library: str) -> None:
        (folder / "key.pem").unlink()
        config = {"services": {"reviews": service(server.address, folder)}}
        with meshlib.Mesh(config) as mesh, Caller(library, mesh) as call:
            with pytest.raises(
                CONNECT[library], match=r"cluster .*the private key .*cannot be read"
            ) as caught:
                call("GET", "http://reviews/")
            assert isinstance(caught.value, meshlib.NoHealthyEndpoint)
        assert (server.requests, server.refused) == (0, [])


def httpx_call(method: str, mesh: meshlib.Mesh) -> None:
    with meshlib.Client(mesh=mesh) as client:
        client.request(method, "http://reviews/").raise_for_status()


def test_a_thousand_calls_make_two_contexts_at_most(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the endpoints that demand the same, for clients that offer HTTP/2 and for those that do not."""
    made: list[object] = []
    original = contexts.make

    def counted(*arguments: Any, **options: Any) -> Any:
        made.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(contexts, "make", counted)
    with ExitStack() as stack:
        servers = [stack.enter_context(TlsServer(SERVER.server(clients=CA))) for _ in range(5)]
        demanded = service("", folder)
        demanded["endpoints"] = [server.address for server in servers]
        mesh = stack.enter_context(meshlib.Mesh({"services": {"reviews": demanded, "other": demanded}}))
        clients = [meshlib.Client(mesh=mesh, http2=http2) for http2 in (False, True)]
        for number in range(1000):
            host = ("reviews", "other")[number % 3 % 2]
            assert clients[number % 2].get(f"http://{host}/").status_code == 200
        for client in clients:
            client.close()
        assert sum(server.requests for server in servers) == 1000
        assert all(server.requests for server in servers)
    assert len(made) <= 2


@pytest.mark.parametrize("library", ["httpx", "requests", "urllib3"])
def test_why_the_server_refuses_is_told_whenever_it_says_so(
    library: str, server: TlsServer, folder: Path
) -> None:
    """In TLS 1.3 it does after the handshake, as we see it: before, while or after the request is sent."""
    shown = service(server.address, folder)
    del shown["tls"]["cert"], shown["tls"]["key"]
    with meshlib.Mesh({"services": {"reviews": shown}}) as mesh:
        for _ in range(40):
            with Caller(library, mesh) as call, pytest.raises(Exception, match="CERTIFICATE_REQUIRED"):
                call("GET", "http://reviews/")
    assert server.requests == 0


def test_hosts_that_share_an_endpoint_ask_for_their_own_names(
    face: FaceFactory, server: TlsServer, folder: Path
) -> None:
    shared = {name: service(server.address, folder) for name in ("reviews", "other")}
    client = face({"services": shared})
    for name in ("reviews", "other", "reviews"):
        assert client.get(f"http://{name}/").text.split()[1] == name


class _Load:
    """20 threads and 100 tasks that call without a pause."""

    def __init__(self, mesh: meshlib.Mesh) -> None:
        self._mesh = mesh
        self._stop = threading.Event()
        self.failed: list[BaseException] = []
        self.calls = 0
        self._threads = [threading.Thread(target=self._run_tasks)]
        self._client = meshlib.Client(mesh=mesh, timeout=30)
        self._threads += [threading.Thread(target=self._call) for _ in range(20)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        self._client.close()

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                self._client.get("http://reviews/", headers={"x-caller": "thread"}).raise_for_status()
            except Exception as error:  # noqa: BLE001 - counted
                self.failed.append(error)
            self.calls += 1

    def _run_tasks(self) -> None:
        async def call(client: Any) -> None:
            while not self._stop.is_set():
                try:
                    answer = await client.get("http://reviews/", headers={"x-caller": "task"})
                    answer.raise_for_status()
                except Exception as error:  # noqa: BLE001 - counted
                    self.failed.append(error)
                self.calls += 1

        async def run() -> None:
            async with meshlib.AsyncClient(mesh=self._mesh, timeout=30) as client:
                await asyncio.gather(*(call(client) for _ in range(100)))

        asyncio.run(run())


def test_no_call_fails_through_rotations(server: TlsServer, folder: Path) -> None:
    """Under 20 threads and 100 tasks. New connections are made after each, and the old ones end."""
    mesh = meshlib.Mesh({"services": {"reviews": service(server.address, folder, sans=[SPIFFE])}})
    with mesh, _Load(mesh) as load:
        # Whose first call finds a certificate and the key of another has none to go on with.
        for kind in ("thread", "task"):
            assert server.wait_for(lambda kind=kind: server.seen["me", kind] > 0)  # type: ignore[misc]
        for number in range(ROTATIONS):
            name = f"me-{number}"
            if number % 4 == 3:
                replaced(folder / "ca.pem", Authority(f"Next {number}").pem + CA.pem)
            CA.issue(name).write(folder)
            with meshlib.Client(mesh=mesh) as another:  # whose handshake finds it
                assert another.get("http://reviews/").text.split()[0] == name
            for kind in ("thread", "task"):
                assert server.wait_for(lambda name=name, kind=kind: server.seen[name, kind] > 0)  # type: ignore[misc]
            assert load.failed == []
        last = name
        assert server.wait_for(lambda: sum(server.open.values()) == server.open[last])
    assert load.failed == []
    assert load.calls > 1000


def test_a_connection_that_is_idle_at_a_rotation_is_closed_and_not_used(
    face: FaceFactory, server: TlsServer, folder: Path
) -> None:
    client = face({"services": {"reviews": service(server.address, folder)}})
    assert client.get("http://reviews/").text.startswith("me ")
    assert server.open["me"] == 1
    CA.issue("renewed").write(folder)
    with meshlib.Client(mesh=client.mesh) as another:  # type: ignore[attr-defined]
        another.get("http://reviews/")  # whose handshake finds it
    client.run_until(lambda: server.wait_for(lambda: server.open["me"] == 0))
    assert server.open["me"] == 0
    assert client.get("http://reviews/").text.startswith("renewed ")


TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ADDRESS = "127.0.0.9:9080"


def ordered(
    address: str,
    shown: Issued,
    *,
    validation: dict[str, Any] | None = None,
    protocol: dict[str, Any] | None = None,
    **demanded: Any,
) -> dict[str, Any]:
    """A cluster behind TLS that the control plane orders. ``protocol``: what the cluster takes of a request."""
    pair = {
        "certificate_chain": {"inline_string": shown.chain_pem.decode()},
        "private_key": {"inline_string": shown.key_pem.decode()},
    }
    roots = {"trusted_ca": {"inline_string": CA.pem.decode()}}
    common = {"tls_certificates": [pair], "validation_context": {**roots, **(validation or {})}}
    socket = {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": common, **demanded})}
    fields: dict[str, Any] = {"transport_socket": socket}
    if protocol is not None:
        options = {
            "upstream_http_protocol_options": protocol,
            "explicit_http_config": {"http_protocol_options": {}},
        }
        fields["typed_extension_protocol_options"] = {HTTP: build.any_of(HTTP, options)}
    return build.cluster("c", [address], **fields)


@contextmanager
def ordering(*clusters: dict[str, Any]) -> Iterator[tuple[ControlPlane, meshlib.Mesh]]:
    hosts = build.virtual_host("v", build.route("/", cluster="c"), domains=["*"])
    resources = [build.listener("l", build.route_config("r", hosts), address=ADDRESS), *clusters]
    with (
        ControlPlane(*resources) as plane,
        meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}}) as mesh,
    ):
        mesh.wait_ready(timeout=20)
        arrived(mesh, ADDRESS)
        yield plane, mesh


def test_a_rotated_value_ends_the_connections_of_the_old_one(server: TlsServer) -> None:
    """As a secret of a control plane that changes does."""
    url = f"http://{ADDRESS}/"
    with ordering(ordered(server.address, CA.issue("one"))) as (plane, mesh):
        watch = Watch(mesh)
        with meshlib.Client(mesh=mesh) as client:
            assert client.get(url).text.startswith("one ")
            plane.update(ordered(server.address, CA.issue("two")))
            watch.until(lambda: client.get(url).text.startswith("two "))
        assert server.wait_for(lambda: server.open["one"] == 0)


class TestWhatAControlPlaneOrders:
    URL = f"http://{ADDRESS}/"

    @pytest.mark.parametrize(
        ("validation", "words"),
        [
            ({"verify_certificate_hash": ["00" * 32]}, "none of those that are pinned"),
            ({"verify_certificate_spki": [b64encode(b"x" * 32).decode()]}, "none of those that are pinned"),
            ({"crl": {"inline_string": CA.revoking(SERVER).decode()}}, "certificate revoked"),
            (
                {
                    "match_typed_subject_alt_names": [
                        {"san_type": "URI", "matcher": {"prefix": "spiffe://mesh.example/ns/b/"}}
                    ]
                },
                'none of the names uri prefix "spiffe://mesh.example/ns/b/"',
            ),
        ],
        ids=["hash", "key", "revoked", "names"],
    )
    def test_who_is_refused(
        self, face: FaceFactory, server: TlsServer, validation: dict[str, Any], words: str
    ) -> None:
        with ordering(ordered(server.address, CA.issue("me"), validation=validation)) as (_, mesh):
            client = face(mesh)
            with pytest.raises(meshlib.ConnectFailed, match=words) as caught:
                client.get(self.URL)
            assert not caught.value.sent
        assert server.requests == 0

    def test_the_name_of_the_request(self, face: FaceFactory, server: TlsServer) -> None:
        """auto_sni, auto_san_validation and override_auto_sni_header."""
        protocol = {"auto_sni": True, "auto_san_validation": True, "override_auto_sni_header": "x-name"}
        cluster = ordered(server.address, CA.issue("me"), protocol=protocol, sni="mesh.example")
        with ordering(cluster) as (_, mesh):
            client = face(mesh)
            for name in ("reviews", "other"):
                for headers in ({"host": name}, {"host": "nobody", "x-name": name}):
                    assert client.get(self.URL, headers=headers).text.split()[1] == name
            with pytest.raises(meshlib.ConnectFailed, match='none of the names exact "nobody"'):
                client.get(self.URL, headers={"host": "nobody"})
            with pytest.raises(meshlib.ConnectFailed, match=r'none of the names exact "127\.0\.0\.9"'):
                client.get(
                    self.URL
                )  # nobody is asked for an address, which must be in the certificate all the same
        assert server.requests == 4

    def test_a_pair_that_is_none_leaves_the_one_before_in_use(
        self, server: TlsServer, caplog: pytest.LogCaptureFixture
    ) -> None:  # SD-03
        one, two = CA.issue("one"), CA.issue("two")
        with ordering(ordered(server.address, one)) as (plane, mesh):
            watch = Watch(mesh)
            with meshlib.Client(mesh=mesh) as client:
                assert client.get(self.URL).text.startswith("one ")
                plane.update(ordered(server.address, Issued(two.certificate, one.key, ())))
                with caplog.at_level("WARNING", "meshlib"):
                    watch.until(lambda: client.get(self.URL).text and "stays in use" in caplog.text)
                assert client.get(self.URL).text.startswith("one ")
                plane.update(ordered(server.address, two))
                watch.until(lambda: client.get(self.URL).text.startswith("two "))
