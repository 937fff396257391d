"""A process without a sidecar as a citizen of Istio's mesh: its certificate from Istio's CA, xDS from Istio's server behind its authentication, and
calls to a real Envoy that demands certificates of that CA. In both views, by both protocols.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import meshlib
import meshlib.grpc
from meshlib.sources import identity_istio
from meshlib.testing import GrpcUpstream
from tests.interop.support import istio
from tests.interop.support.calling import PATIENCE, calling
from tests.interop.support.identity import ends
from tests.interop.support.istio import PORT
from tests.interop.support.meshes import READY
from tests.support.tls_envoy import ANSWER, TlsEnvoy, file_secret, inline, write_secret
from tests.support.watch import until

URL = f"http://reviews:{PORT}/"
APP, REVIEWS = (f"spiffe://cluster.local/ns/default/sa/{name}" for name in ("app", "reviews"))


class Reviews:
    """The Envoy that is the service, with a certificate of the CA."""

    def __init__(self, authority, folder, account=REVIEWS, grpc=None):
        folder.mkdir()
        self._authority, self._folder, self._account = authority, folder, account
        self.renew()
        secrets = file_secret("server", folder), file_secret("roots", folder)
        self.envoy = TlsEnvoy(folder, *secrets, APP, grpc=grpc)

    def renew(self):
        chain, key = self._authority.sign(self._account)
        pair = {"certificate_chain": inline(chain.encode()), "private_key": inline(key.encode())}
        write_secret("server", {"tls_certificate": pair}, self._folder)
        self.trust()

    def trust(self):
        roots = inline(self._authority.roots_file.read_bytes())
        write_secret("roots", {"validation_context": {"trusted_ca": roots}}, self._folder)

    def entry(self):
        """As its ServiceEntry, with who it runs as."""
        host, _, port = self.envoy.address.rpartition(":")
        made = istio.service_entry("reviews", SimpleNamespace(name="v1", host=host, port=int(port)))
        made["spec"]["endpoints"][0]["serviceAccount"] = "reviews"
        return made


@pytest.fixture
def reviews(authority, tmp_path):
    with GrpcUpstream("stock") as behind:
        made = Reviews(authority, tmp_path / "envoy", grpc=behind)
        with made.envoy:
            yield made


def mutual():
    rule = istio.destination_rule("reviews")
    rule["spec"]["trafficPolicy"]["tls"] = {"mode": "ISTIO_MUTUAL"}
    return rule


@pytest.fixture
def join(authority, make_mesh, protocol, view):
    def make():
        generator = {"GENERATOR": "grpc"} if view == "target" else {}
        settings = authority.settings
        xds = {
            "server": authority.secure,
            "tls": {"ca": settings["ca"]},
            "token": settings["token"],
            "view": view,
            "protocol": protocol,
        }
        node = {"id": istio.NODE_ID, "metadata": {**istio.METADATA, **generator}}
        return make_mesh({"node": node, "xds": xds, "identity": {"provider": "istio", **settings}})

    return make


def test_a_citizen_of_the_mesh(authority, reviews, join):
    authority.apply(reviews.entry(), mutual())
    mesh = join()
    mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
    with meshlib.Client(mesh=mesh) as client:
        answer = client.get(URL)
    assert (answer.text, answer.headers["x-peer"]) == (ANSWER, APP)
    with meshlib.grpc.channel(f"reviews:{PORT}", mesh=mesh) as channel:
        assert json.loads(channel.unary_unary("/shop.Stock/Get")(b"x"))["name"] == "stock"
    (identity,) = mesh.status().identity
    assert (identity.provider, identity.state, identity.name) == ("istio", "ready", APP)
    counted = reviews.envoy.tls()
    assert counted["handshake"] == 2
    assert counted["fail_verify_error"] == counted["fail_verify_no_cert"] == 0


@pytest.mark.parametrize("view", ["sidecar"])
def test_mutual_tls_by_the_labels_of_endpoints(authority, reviews, join):
    """Istio's auto mTLS, `tlsMode: istio` in an endpoint's metadata. Istio's generator for gRPC writes TLS for a DestinationRule only."""
    entry = reviews.entry()
    entry["spec"]["endpoints"][0]["labels"]["security.istio.io/tlsMode"] = "istio"
    authority.apply(entry, istio.destination_rule("reviews"))
    mesh = join()
    mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
    with meshlib.Client(mesh=mesh) as client:
        assert client.get(URL).headers["x-peer"] == APP
    assert reviews.envoy.tls()["handshake"] == 1


def test_who_runs_as_somebody_else_gets_no_request(authority, join, tmp_path):
    other = Reviews(authority, tmp_path / "envoy", account="spiffe://cluster.local/ns/default/sa/other")
    with other.envoy:
        authority.apply(other.entry(), mutual())
        mesh = join()
        mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
        with (
            meshlib.Client(mesh=mesh) as client,
            pytest.raises(meshlib.ConnectFailed, match="none of the names"),
        ):
            client.get(URL)
        assert other.envoy.requests() == 0


def test_without_a_token_there_is_neither_configuration_nor_identity(authority, reviews, join):
    authority.apply(reviews.entry(), mutual())
    authority.tokens.write(aud=["somebody"])
    mesh = join()
    with pytest.raises(meshlib.NotReady):
        mesh.wait_ready(f"reviews:{PORT}", timeout=2)
    assert authority.issued == 0
    authority.tokens.write()
    mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
    with meshlib.Client(mesh=mesh) as client:
        assert client.get(URL).text == ANSWER


def test_calls_go_on_while_certificates_live_for_seconds_and_the_root_changes(
    authority, reviews, join, monkeypatch
):
    monkeypatch.setattr(identity_istio, "VALIDITY", 6)
    authority.apply(reviews.entry(), mutual())
    mesh = join()
    mesh.wait_ready(f"reviews:{PORT}", timeout=READY)

    def identity():
        return mesh.status().identity[0]

    with meshlib.Client(mesh=mesh) as client:

        def call():
            answer = client.get(URL)
            return SimpleNamespace(
                status_code=answer.status_code if answer.text == ANSWER else 0,
                text=answer.text,
                json=lambda: {"name": answer.headers["x-peer"]},
            )

        call()
        with calling(call) as calls:
            authority.rotate()  # our next certificate is of the new root, which the Envoy is told of
            reviews.trust()
            until(mesh, lambda: identity().roots == 2, PATIENCE)
            reviews.renew()
            issued = authority.issued
            for _ in range(2):
                before = ends(mesh)
                until(mesh, lambda before=before: ends(mesh) > before + 1, PATIENCE)
            calls.more()
        assert authority.issued >= issued + 2
    assert calls.failures == []
    assert set(calls.names) == {APP}
