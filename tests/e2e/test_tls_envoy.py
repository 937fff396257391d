"""TLS with a real Envoy on the other end, whose listener tells the mesh from others by ALPN, as Istio's PERMISSIVE servers do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import meshlib
from meshlib.testing import ControlPlane, build
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.certificates import Authority
from tests.support.faces import FaceFactory
from tests.support.ports import Ports
from tests.support.watch import arrived

ADDRESS = "127.0.0.9:9080"
SPIFFE = "spiffe://mesh.example/ns/a/sa/reviews"
CA = Authority("Mesh")
SERVER = CA.issue("reviews", SPIFFE)
CLIENT = CA.issue("spiffe://mesh.example/ns/a/sa/me")
TLS = "envoy.extensions.transport_sockets.tls.v3."


def inline(data: bytes) -> dict[str, str]:
    return {"inline_string": data.decode()}


def pair(issued: Any) -> dict[str, Any]:
    return {"certificate_chain": inline(issued.chain_pem), "private_key": inline(issued.key_pem)}


def answering(words: str, match: dict[str, Any], tls: dict[str, Any] | None) -> dict[str, Any]:
    """A filter chain that answers everything with ``words``, and the protocol and the peer that it sees."""
    text = {"inline_string": f"{words} %PROTOCOL% %DOWNSTREAM_PEER_URI_SAN% %REQUESTED_SERVER_NAME%"}
    routes = {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": []}]}
    routes["virtual_hosts"][0]["routes"] = [  # type: ignore[index]
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x"}}}
    ]
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "s",
        "route_config": routes,
        "http_filters": [
            {
                "name": "router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
        "local_reply_config": {"body_format": {"text_format_source": text}},
    }
    chain: dict[str, Any] = {
        "filter_chain_match": match,
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
    }
    if tls is not None:
        chain["transport_socket"] = {
            "name": "tls",
            "typed_config": {"@type": f"type.googleapis.com/{TLS}DownstreamTlsContext", **tls},
        }
    return chain


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    common = {"tls_certificates": [pair(SERVER)], "alpn_protocols": ["h2", "http/1.1"]}
    mutual = {
        "require_client_certificate": True,
        "common_tls_context": {**common, "validation_context": {"trusted_ca": inline(CA.pem)}},
    }
    ports = Ports(1)
    listener = {
        "name": "permissive",
        "enable_reuse_port": True,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": ports.numbers[0]}},
        "listener_filters": [
            {
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
                },
            }
        ],
        "filter_chains": [
            answering("mesh", {"transport_protocol": "tls", "application_protocols": ["istio"]}, mutual),
            answering("tls", {"transport_protocol": "tls"}, {"common_tls_context": common}),
            answering("plain", {"transport_protocol": "raw_buffer"}, None),
        ],
    }
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    bootstrap = {"admin": admin, "static_resources": {"listeners": [listener]}}
    with EnvoyProcess(bootstrap, tmp_path_factory.mktemp("envoy")) as process:
        process.wait_for_listeners(1)
        yield f"127.0.0.1:{ports.numbers[0]}"
    ports.close()


HTTP2 = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": build.any_of(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            {"explicit_http_config": {"http2_protocol_options": {}}},
        )
    }
}


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize(
    ("alpn", "seen"),
    [(["istio-peer-exchange", "istio"], "mesh"), (["istio"], "mesh"), ([], "tls"), (None, "plain")],
    ids=["old-istio", "istio", "tls", "plain"],
)
def test_a_permissive_server_knows_the_mesh(
    face: FaceFactory, envoy: str, alpn: list[str] | None, seen: str, http2: bool
) -> None:
    fields: dict[str, Any] = dict(HTTP2) if http2 else {}
    if alpn is not None:
        names = [{"san_type": "URI", "matcher": {"exact": SPIFFE}}]
        validation = {"trusted_ca": inline(CA.pem), "match_typed_subject_alt_names": names}
        common = {
            "tls_certificates": [pair(CLIENT)],
            "validation_context": validation,
            "alpn_protocols": alpn,
        }
        demanded = {"sni": "outbound_.80_._.reviews", "common_tls_context": common}
        fields["transport_socket"] = {
            "name": "tls",
            "typed_config": build.any_of(f"{TLS}UpstreamTlsContext", demanded),
        }
    hosts = build.virtual_host("v", build.route("/", cluster="c"), domains=["*"])
    listener = build.listener("l", build.route_config("r", hosts), address=ADDRESS)
    with ControlPlane(listener, build.cluster("c", [envoy], **fields)) as plane:
        client = face(meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}}))
        client.mesh.wait_ready(timeout=20)  # type: ignore[attr-defined]
        arrived(client.mesh, ADDRESS)  # type: ignore[attr-defined]
        for _ in range(2):
            said = client.get(f"http://{ADDRESS}/").text.split()
            assert said[:2] == [seen, "HTTP/2" if http2 else "HTTP/1.1"]
            if alpn is not None:
                assert said[3] == "outbound_.80_._.reviews"
            if seen == "mesh":
                assert said[2] == "spiffe://mesh.example/ns/a/sa/me"
        client.mesh.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_files_that_are_rotated_are_shown_by_new_connections(
    face: FaceFactory, envoy: str, tmp_path: Path, http2: bool
) -> None:
    """Files that the control plane names. Those in HTTP/2 are shared by all calls of a client, and end as others do."""

    def write(name: str) -> str:
        uri = f"spiffe://mesh.example/ns/a/sa/{name}"
        CA.issue(uri).write(tmp_path)
        return uri

    uri = write("first")
    files = {
        "certificate_chain": {"filename": f"{tmp_path}/cert.pem"},
        "private_key": {"filename": f"{tmp_path}/key.pem"},
        "watched_directory": {"path": str(tmp_path)},
    }
    common = {
        "tls_certificates": [files],
        "validation_context": {"trusted_ca": inline(CA.pem)},
        "alpn_protocols": ["istio"],
    }
    demanded = build.any_of(f"{TLS}UpstreamTlsContext", {"sni": "reviews", "common_tls_context": common})
    fields: dict[str, Any] = {"transport_socket": {"name": "tls", "typed_config": demanded}}
    hosts = build.virtual_host("v", build.route("/", cluster="c"), domains=["*"])
    listener = build.listener("l", build.route_config("r", hosts), address=ADDRESS)
    cluster = build.cluster("c", [envoy], **fields, **(HTTP2 if http2 else {}))
    with ControlPlane(listener, cluster) as plane:
        mesh = meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}})
        mesh.wait_ready(timeout=20)
        arrived(mesh, ADDRESS)
        client = face(mesh)
        for name in ("second", "third", "fourth"):
            said = client.get(f"http://{ADDRESS}/").text.split()
            assert said[:3] == ["mesh", "HTTP/2" if http2 else "HTTP/1.1", uri]
            uri = write(name)
            with meshlib.Client(mesh=mesh) as another:  # whose handshake finds it
                another.get(f"http://{ADDRESS}/")
        assert client.get(f"http://{ADDRESS}/").text.split()[2] == uri
        mesh.close()
