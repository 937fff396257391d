"""Who the process is to other workloads: shown to real servers that demand it, by every client, over rotations and forks."""

from __future__ import annotations

import base64
import json
import os
import ssl
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import meshlib
import meshlib.grpc
from meshlib.sources.identity_facts import facts_of
from meshlib.testing import ControlPlane, VirtualClock, build
from tests.support.certificates import Authority, replaced
from tests.support.dns_server import DnsServer
from tests.support.faces import FaceFactory
from tests.support.grpc_tls import Witness
from tests.support.tls_server import TlsServer
from tests.support.watch import Watch, arrived

MINE, THEIRS = "spiffe://td/ns/shop/sa/me", "spiffe://td/ns/shop/sa/reviews"
CA = Authority("Mesh")


@pytest.fixture
def server() -> Iterator[TlsServer]:
    """It demands a certificate that the mesh's CA signed."""
    with TlsServer(CA.issue(THEIRS).server(clients=CA)) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    CA.issue(MINE).write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    return tmp_path


def config(server: TlsServer, folder: Path, **tls: Any) -> dict[str, Any]:
    """Identity is of files, and the service says no word of it."""
    files = {name: str(folder / f"{name}.pem") for name in ("cert", "key", "ca")}
    demanded = {"sans": [THEIRS], **tls}
    return {"identity": files, "services": {"reviews": {"endpoints": [server.address], "tls": demanded}}}


def test_it_is_shown_and_others_are_known_by_its_roots(
    face: FaceFactory, server: TlsServer, folder: Path
) -> None:
    client = face(config(server, folder))
    assert client.get("http://reviews/").text.split()[0] == MINE


def test_whoever_its_roots_do_not_know_gets_nothing(face: FaceFactory, folder: Path) -> None:
    with TlsServer(Authority("Elsewhere").issue(THEIRS).server(clients=CA)) as server:
        client = face(config(server, folder))
        with pytest.raises(meshlib.ConnectFailed) as refused:
            client.get("http://reviews/")
        assert not refused.value.sent
        assert server.requests == 0


def test_an_identity_that_is_broken_is_an_error_that_names_it_at_once(
    face: FaceFactory, server: TlsServer, folder: Path
) -> None:
    (folder / "cert.pem").write_text("nonsense")
    client = face(config(server, folder))
    with pytest.raises(meshlib.NoHealthyEndpoint) as refused:
        client.get("http://reviews/")
    assert isinstance(refused.value, client.library.ConnectError)
    assert not refused.value.sent
    text = str(refused.value)
    assert "cluster 'reviews'" in text
    assert "secret 'default' cannot be used: " in text
    assert (server.requests, server.refused, +server.open) == (0, [], {})


def test_nobody_who_gives_an_identity_is_an_error_that_says_what_there_could_be(
    face: FaceFactory, server: TlsServer
) -> None:
    identity = {"provider": "spiffe"}
    services = {"reviews": {"endpoints": [server.address], "tls": {"sans": [THEIRS]}}}
    client = face({"identity": identity, "services": services})
    with pytest.raises(
        meshlib.NoHealthyEndpoint, match=r"'default' cannot be had: identity.socket is not given"
    ):
        client.get("http://reviews/")
    assert server.requests == 0


def test_an_identity_that_does_not_come_in_time_is_an_error_that_names_it(
    face: FaceFactory, server: TlsServer, folder: Path
) -> None:
    (folder / "key.pem").unlink()
    client = face(config(server, folder), timeout=0.5)
    mesh = client.mesh  # type: ignore[attr-defined]
    Watch(mesh).until(lambda: mesh.status().identity[0].last_error)
    with pytest.raises(meshlib.NoHealthyEndpoint) as refused:
        client.get("http://reviews/")
    words = (
        f"which waits for secret 'default' of files ({folder}/cert.pem, {folder}/key.pem, {folder}/ca.pem): "
    )
    assert f"{words}{folder}/key.pem is not there" in str(refused.value)
    assert (server.requests, server.refused, +server.open) == (0, [], {})


def test_it_is_waited_for_fifteen_seconds_and_then_calls_fail_at_once(
    server: TlsServer, folder: Path
) -> None:
    (folder / "key.pem").unlink()
    clock = VirtualClock()
    with meshlib.Mesh(config(server, folder), clock=clock) as mesh, meshlib.Client(mesh=mesh) as client:
        watch = Watch(mesh)
        watch.until(lambda: mesh.status().identity[0].last_error)
        clock.advance(14.9)
        assert "waits for secret 'default'" in str(mesh.explain("GET", "http://reviews/").trace())
        clock.advance(0.2)
        watch.until(lambda: mesh.snapshot().clusters.get("reviews"))
        with pytest.raises(
            meshlib.NoHealthyEndpoint,
            match=r"'default' has not come within 15 s from files .*key.pem is not there",
        ):
            client.get("http://reviews/")
        assert server.requests == 0


def test_ready_is_who_has_its_identity(server: TlsServer, folder: Path) -> None:
    (folder / "key.pem").rename(folder / "held.pem")
    with meshlib.Mesh(config(server, folder)) as mesh:
        Watch(mesh).until(lambda: mesh.status().identity[0].last_error)
        for names in ((), ("reviews",)):
            with pytest.raises(
                meshlib.NotReady, match=r"waits for secret 'default' of files .*key.pem is not there"
            ):
                mesh.wait_ready(*names, timeout=0.1)
        (folder / "held.pem").rename(folder / "key.pem")
        mesh.wait_ready(timeout=20)
        mesh.wait_ready("reviews", timeout=1)


def test_a_first_call_waits_for_files_that_are_written_later(server: TlsServer, folder: Path) -> None:
    (folder / "key.pem").rename(folder / "held.pem")
    with meshlib.Mesh(config(server, folder)) as mesh, meshlib.Client(mesh=mesh, timeout=20) as client:
        watch = Watch(mesh)
        watch.until(lambda: mesh.status().identity[0].last_error.endswith("key.pem is not there"))
        (folder / "held.pem").rename(folder / "key.pem")
        assert client.get("http://reviews/").text.split()[0] == MINE


def test_a_rotation_is_taken_up_and_a_broken_one_takes_nothing_away(server: TlsServer, folder: Path) -> None:
    with meshlib.Mesh(config(server, folder)) as mesh, meshlib.Client(mesh=mesh) as client:
        watch = Watch(mesh)

        def who() -> str:
            return client.get("http://reviews/").text.split()[0]

        assert who() == MINE
        CA.issue("spiffe://td/ns/shop/sa/renewed").write(folder)
        watch.until(lambda: who() == "spiffe://td/ns/shop/sa/renewed")
        assert server.wait_for(lambda: server.open[MINE] == 0)
        replaced(folder / "cert.pem", b"nonsense")
        watch.until(lambda: mesh.status().identity[0].state == "stale")
        with meshlib.Client(mesh=mesh) as another:
            assert another.get("http://reviews/").text.split()[0] == "spiffe://td/ns/shop/sa/renewed"
        status = mesh.status().identity[0]
        assert (status.name, status.roots) == ("spiffe://td/ns/shop/sa/renewed", 1)
        assert status.expires_in is not None
        assert 863_000 < status.expires_in < 864_001


def test_a_root_that_is_replaced_is_taken_up(server: TlsServer, folder: Path) -> None:
    other = Authority("Next")
    with meshlib.Mesh(config(server, folder)) as mesh:
        with meshlib.Client(mesh=mesh) as client:
            assert client.get("http://reviews/").status_code == 200
        replaced(folder / "ca.pem", other.pem)
        watch = Watch(mesh)

        def refused() -> bool:
            with meshlib.Client(mesh=mesh) as client:
                try:
                    return client.get("http://reviews/").status_code != 200
                except meshlib.ConnectFailed:
                    return True

        watch.until(refused)
        replaced(folder / "ca.pem", other.pem + CA.pem)
        watch.until(lambda: not refused())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")
def test_a_fork_has_what_its_parent_had_and_then_its_own(server: TlsServer, folder: Path) -> None:
    """At once, though the files are broken by then; and what is written later is taken up by the child itself."""
    mesh = meshlib.Mesh(config(server, folder))
    with mesh, meshlib.Client(mesh=mesh) as client:
        assert client.get("http://reviews/").text.split()[0] == MINE
        replaced(folder / "cert.pem", b"nonsense")
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.write(writing, json.dumps(_in_child(mesh, folder)).encode())
            except BaseException:  # noqa: BLE001 - told to the parent
                os.write(writing, json.dumps([traceback.format_exc()]).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as told:
            said = json.loads(told.read())
        os.waitpid(pid, 0)
        assert said == [MINE, "spiffe://td/ns/shop/sa/renewed"]


def _in_child(mesh: meshlib.Mesh, folder: Path) -> list[str]:
    with meshlib.Client(mesh=mesh) as client:
        first = client.get("http://reviews/").text.split()[0]
    CA.issue("spiffe://td/ns/shop/sa/renewed").write(folder)

    def second() -> str:
        with meshlib.Client(mesh=mesh) as client:
            return str(client.get("http://reviews/").text.split()[0])

    Watch(mesh).until(lambda: second() != first)
    return [first, second()]


@pytest.mark.parametrize("where", ["endpoints", "dns", "srv"])
def test_services_by_every_kind_of_place(where: str, server: TlsServer, folder: Path) -> None:
    port = int(server.address.rpartition(":")[2])
    records = {
        ("reviews.internal", "A"): ["127.0.0.1"],
        ("_https._tcp.reviews.internal", "SRV"): [f"0 1 {port} reviews.internal."],
    }
    with DnsServer(records) as dns:
        place: dict[str, Any] = {
            "endpoints": {"endpoints": [server.address]},
            "dns": {"dns": f"reviews.internal:{port}"},
            "srv": {"srv": "_https._tcp.reviews.internal"},
        }[where]
        made = config(server, folder)
        made["services"]["reviews"] = {**place, "tls": {"sans": [THEIRS]}}
        made["dns"] = dns.settings
        with meshlib.Mesh(made) as mesh, meshlib.Client(mesh=mesh, timeout=20) as client:
            assert client.get("http://reviews/").text.split()[0] == MINE


def test_no_word_of_the_key_is_told(
    server: TlsServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with meshlib.Mesh(config(server, folder)) as mesh, meshlib.Client(mesh=mesh) as client:
        client.get("http://reviews/")
        told = json.dumps(mesh.status().to_dict()) + json.dumps(mesh.snapshot().to_dict())
        told += repr(mesh.snapshot()) + repr(mesh.status()) + caplog.text
    for line in (folder / "key.pem").read_text().splitlines()[1:-1]:
        assert line not in told


def test_a_grpc_channel_shows_it_and_takes_up_a_rotation(folder: Path) -> None:
    issued = CA.issue(THEIRS)
    pair = (issued.key_pem, issued.chain_pem)
    credentials = grpc.ssl_server_credentials([pair], CA.pem, require_client_auth=True)
    files = {name: str(folder / f"{name}.pem") for name in ("cert", "key", "ca")}
    with Witness(credentials) as server:
        services = {"stock": {"endpoints": [server.address], "tls": {"sans": [THEIRS]}}}
        with meshlib.Mesh({"identity": files, "services": services}) as mesh:
            watch = Watch(mesh)

            def shown() -> str:
                with meshlib.grpc.channel("stock", mesh=mesh) as channel:
                    pem = channel.unary_unary("/a.B/Unary")(b"", timeout=20, wait_for_ready=True)
                return facts_of(pem).name

            assert shown() == MINE
            CA.issue("spiffe://td/ns/shop/sa/renewed").write(folder)
            watch.until(lambda: shown() == "spiffe://td/ns/shop/sa/renewed")


# --- as a control plane names it


TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
ADDRESS = "127.0.0.9:9080"


def sds(name: str) -> dict[str, Any]:
    """As Istio writes it for an Envoy: the agent beside it has the secret."""
    service = {"envoy_grpc": {"cluster_name": "sds-grpc"}}
    source = {"api_config_source": {"api_type": "GRPC", "grpc_services": [service]}}
    return {"name": name, "sds_config": source}


def istios(address: str) -> dict[str, Any]:
    names = [{"san_type": "URI", "matcher": {"exact": THEIRS}}]
    common = {
        "tls_certificate_sds_secret_configs": [sds("default")],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": sds("ROOTCA"),
        },
    }
    socket = {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": common})}
    return build.cluster("c", [address], transport_socket=socket)


def grpcs(address: str) -> list[dict[str, Any]]:
    """As gRPC reads it: instances of the bootstrap's providers (A29)."""
    common = {
        "tls_certificate_provider_instance": {"instance_name": "mine"},
        "validation_context": {
            "ca_certificate_provider_instance": {"instance_name": "theirs"},
            "match_subject_alt_names": [{"exact": THEIRS}],
        },
    }
    socket = {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": common})}
    return [build.cluster("c", transport_socket=socket), build.endpoints("c", address)]


def listener(cluster: str = "c") -> dict[str, Any]:
    hosts = build.virtual_host("v", build.route("/", cluster=cluster), domains=["*"])
    return build.listener("l", build.route_config("r", hosts), address=ADDRESS)


def test_what_istios_agent_has_is_of_identity(face: FaceFactory, server: TlsServer, folder: Path) -> None:
    with ControlPlane(listener(), istios(server.address)) as plane:
        told = {"xds": {"server": plane.address, "view": "sidecar"}}
        client = face({**told, "identity": config(server, folder)["identity"]})
        client.mesh.wait_ready(timeout=20)  # type: ignore[attr-defined]
        arrived(client.mesh, ADDRESS)  # type: ignore[attr-defined]
        assert client.get(f"http://{ADDRESS}/").text.split()[0] == MINE


def test_a_rotation_reaches_the_clusters_of_a_control_plane(server: TlsServer, folder: Path) -> None:
    with ControlPlane(listener(), istios(server.address)) as plane:
        made = {
            "xds": {"server": plane.address, "view": "sidecar"},
            "identity": config(server, folder)["identity"],
        }
        with meshlib.Mesh(made) as mesh, meshlib.Client(mesh=mesh) as client:
            watch = Watch(mesh)
            mesh.wait_ready(timeout=20)
            arrived(mesh, ADDRESS)
            assert client.get(f"http://{ADDRESS}/").text.split()[0] == MINE
            CA.issue("spiffe://td/ns/shop/sa/renewed").write(folder)
            watch.until(lambda: client.get(f"http://{ADDRESS}/").text.split()[0].endswith("/renewed"))
            assert server.wait_for(lambda: server.open[MINE] == 0)


def test_without_an_identity_such_a_cluster_is_closed_in_words(face: FaceFactory, server: TlsServer) -> None:
    with ControlPlane(listener(), istios(server.address)) as plane:
        client = face({"xds": {"server": plane.address, "view": "sidecar"}})
        client.mesh.wait_ready(timeout=20)  # type: ignore[attr-defined]
        arrived(client.mesh, ADDRESS)  # type: ignore[attr-defined]
        with pytest.raises(
            meshlib.NoHealthyEndpoint, match=r"'default' cannot be had: nobody gives an identity"
        ):
            client.get(f"http://{ADDRESS}/")
        assert (server.requests, server.refused, +server.open) == (0, [], {})


def bootstrap(plane: ControlPlane, **providers: dict[str, Any]) -> str:
    told = {
        "xds_servers": [{"server_uri": plane.address, "channel_creds": [{"type": "insecure"}]}],
        "certificate_providers": {
            name: {"plugin_name": "file_watcher", "config": {**files, "refresh_interval": "0.2s"}}
            for name, files in providers.items()
        },
    }
    return json.dumps(told)


def reviews() -> dict[str, Any]:
    hosts = build.virtual_host("v", build.route("/", cluster="c"), domains=["reviews"])
    return build.api_listener("reviews", build.route_config("r", hosts))


@pytest.mark.parametrize("roots", ["ca_certificate_file", "spiffe_trust_bundle_map_file"])
def test_instances_of_a_bootstrap_answer_to_their_names(server: TlsServer, folder: Path, roots: str) -> None:
    """A29, A65, A87."""
    der = base64.b64encode(ssl.PEM_cert_to_DER_cert(CA.pem.decode())).decode()
    keys = [{"kty": "EC", "use": "x509-svid", "x5c": [der]}]
    (folder / "map.json").write_text(json.dumps({"trust_domains": {"td": {"keys": keys}}}))
    theirs = {roots: str(folder / ("ca.pem" if roots.startswith("ca") else "map.json"))}
    mine = {"certificate_file": str(folder / "cert.pem"), "private_key_file": str(folder / "key.pem")}
    with ControlPlane(reviews(), *grpcs(server.address)) as plane:
        made = {"xds": {"bootstrap_config": bootstrap(plane, mine=mine, theirs=theirs), "view": "target"}}
        with meshlib.Mesh(made) as mesh, meshlib.Client(mesh=mesh) as client:
            watch = Watch(mesh)
            assert client.get("http://reviews/").text.split()[0] == MINE
            found = {one.found: one for one in mesh.status().identity}
            assert found["certificate_providers['mine'] of the bootstrap"].name == MINE
            assert found["certificate_providers['theirs'] of the bootstrap"].roots == 1
            CA.issue("spiffe://td/ns/shop/sa/renewed").write(folder)
            watch.until(lambda: client.get("http://reviews/").text.split()[0].endswith("/renewed"))


def test_a_map_of_bundles_refuses_who_is_of_another_domain(server: TlsServer, folder: Path) -> None:
    """A87: the domain in the certificate chooses the roots, and one that is not there has none."""
    der = base64.b64encode(ssl.PEM_cert_to_DER_cert(CA.pem.decode())).decode()
    keys = [{"kty": "EC", "use": "x509-svid", "x5c": [der]}]
    (folder / "map.json").write_text(json.dumps({"trust_domains": {"elsewhere": {"keys": keys}}}))
    mine = {"certificate_file": str(folder / "cert.pem"), "private_key_file": str(folder / "key.pem")}
    with ControlPlane(reviews(), *grpcs(server.address)) as plane:
        told = bootstrap(plane, mine=mine, theirs={"spiffe_trust_bundle_map_file": str(folder / "map.json")})
        with (
            meshlib.Mesh({"xds": {"bootstrap_config": told, "view": "target"}}) as mesh,
            meshlib.Client(mesh=mesh) as client,
            pytest.raises(meshlib.ConnectFailed, match="td"),
        ):
            client.get("http://reviews/")
        assert server.requests == 0


def test_a_file_in_envoys_shape_names_it_as_a_control_plane_does(server: TlsServer, folder: Path) -> None:
    resources = {"listeners": [listener()], "clusters": [istios(server.address)]}
    (folder / "envoy.json").write_text(json.dumps({"static_resources": _untyped(resources)}))
    made = {"services_file": str(folder / "envoy.json"), "identity": config(server, folder)["identity"]}
    with meshlib.Mesh(made) as mesh, meshlib.Client(mesh=mesh) as client:
        mesh.wait_ready(timeout=20)
        assert client.get(f"http://{ADDRESS}/").text.split()[0] == MINE


def _untyped(resources: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {
        kind: [{key: value for key, value in each.items() if key != "@type"} for each in row]
        for kind, row in resources.items()
    }


def test_what_is_told_answers_for_an_instance_that_the_bootstrap_does_not_have(
    server: TlsServer, folder: Path
) -> None:
    with ControlPlane(reviews(), *grpcs(server.address)) as plane:
        xds = {"bootstrap_config": bootstrap(plane), "view": "target"}
        made = {"xds": xds, "identity": config(server, folder)["identity"]}
        with meshlib.Mesh(made) as mesh, meshlib.Client(mesh=mesh) as client:
            assert client.get("http://reviews/").text.split()[0] == MINE


def test_nobody_answers_for_an_instance_that_the_bootstrap_does_not_have(
    server: TlsServer, folder: Path
) -> None:
    """TL-02: the cluster is refused."""
    with ControlPlane(reviews(), *grpcs(server.address)) as plane:
        xds = {"bootstrap_config": bootstrap(plane), "view": "target"}
        with meshlib.Mesh({"xds": xds}) as mesh, meshlib.Client(mesh=mesh) as client:
            with pytest.raises(meshlib.NoHealthyEndpoint):
                client.get("http://reviews/")
            assert any(
                "mine" in line
                for source in mesh.status().sources
                for each in source.rejected
                for line in each.problems
            )
        assert (server.requests, server.refused) == (0, [])


# --- whom nobody verifies


def blind(address: str, name: str = "c") -> dict[str, Any]:
    """TLS is ordered, and no word of whom it is with."""
    socket = {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": {}})}
    return build.cluster(name, [address], transport_socket=socket)


@pytest.fixture
def anybody() -> Iterator[TlsServer]:
    with TlsServer(Authority("Nobody").issue("reviews").server()) as made:
        yield made


def test_whoever_answers_is_accepted_and_told_of(
    face: FaceFactory, anybody: TlsServer, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    name = request.node.name  # it is said once in a process
    with ControlPlane(listener(name), blind(anybody.address, name)) as plane:
        client = face({"xds": {"server": plane.address, "view": "sidecar"}})
        mesh = client.mesh  # type: ignore[attr-defined]
        mesh.wait_ready(timeout=20)
        arrived(mesh, ADDRESS)
        assert client.get(f"http://{ADDRESS}/").status_code == 200
        client.get(f"http://{ADDRESS}/")
        assert caplog.text.count(f"cluster {name!r}: its TLS verifies nobody") == 1
        fields = [item.field for source in mesh.status().sources for item in source.ignored]
        assert [field for field in fields if field.startswith("transport_socket")]


def test_with_verify_always_nobody_is_called_who_is_not_known(face: FaceFactory, anybody: TlsServer) -> None:
    with ControlPlane(listener(), blind(anybody.address)) as plane:
        xds = {"server": plane.address, "view": "sidecar"}
        client = face({"xds": xds, "identity": {"verify": "always"}})
        client.mesh.wait_ready(timeout=20)  # type: ignore[attr-defined]
        arrived(client.mesh, ADDRESS)  # type: ignore[attr-defined]
        with pytest.raises(meshlib.ConnectFailed) as refused:
            client.get(f"http://{ADDRESS}/")
        assert not refused.value.sent
        assert anybody.requests == 0
