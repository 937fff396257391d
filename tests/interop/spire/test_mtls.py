"""Calls between two identities of SPIRE's: ours by the Workload API, and that of a real Envoy by the agent's SDS, as SPIRE's own users have it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import meshlib
import meshlib.grpc
from meshlib.testing import GrpcUpstream
from tests.interop.support.calling import calling
from tests.interop.support.identity import ends
from tests.support.tls_envoy import ANSWER, TlsEnvoy, agent_secret
from tests.support.watch import until

PATIENCE = 60.0
APP, SERVER = "spiffe://example.org/app", "spiffe://example.org/server"
#: Seconds; the agent renews in the half-life.
SHORT = 10


@pytest.fixture
def envoy(spire, tmp_path):
    """Whoever of this process's user calls it is one of the two: which comes first is the agent's."""
    spire.register("/app", ttl=SHORT)
    spire.register("/server", ttl=SHORT)
    certificate, roots = agent_secret(SERVER), agent_secret("spiffe://example.org")
    folder = tmp_path / "envoy"
    folder.mkdir()
    socket = spire.socket.removeprefix("unix://")
    with (
        GrpcUpstream("stock") as behind,
        TlsEnvoy(folder, certificate, roots, APP, SERVER, grpc=behind, agent=socket) as running,
    ):
        yield running


def configuration(settings, envoy, *sans):
    service = {"endpoints": [envoy.address], "tls": {"sans": list(sans)}}
    return {"identity": settings, "services": {"reviews": service}}


def test_calls_go_on_while_certificates_live_for_seconds_and_the_root_changes(
    spire, envoy, settings, make_mesh
):
    mesh = make_mesh(configuration(settings, envoy, SERVER))
    with meshlib.Client(mesh=mesh) as client:
        answer = client.get("http://reviews/")
        assert (answer.text, answer.headers["x-peer"] in {APP, SERVER}) == (ANSWER, True)

        def identity():
            return mesh.status().identity[0]

        def call():
            answer = client.get("http://reviews/")
            assert answer.text == ANSWER, answer.text
            return SimpleNamespace(status_code=answer.status_code, json=lambda: {"name": answer.text})

        with calling(call) as calls:
            assert identity().roots == 1
            spire.rotate()
            until(mesh, lambda: identity().roots == 2, PATIENCE)
            for _ in range(3):  # half a life each
                before = ends(mesh)
                until(mesh, lambda before=before: ends(mesh) > before + 1, PATIENCE)
            calls.more()
    assert calls.failures == []
    assert identity().provider == "spiffe"
    assert identity().name in {APP, SERVER}
    counted = envoy.tls()
    assert counted["handshake"] >= 4
    assert counted["fail_verify_error"] == counted["fail_verify_no_cert"] == counted["fail_verify_san"] == 0


def test_rpcs_go_on_too(spire, envoy, settings, make_mesh):
    mesh = make_mesh(configuration(settings, envoy, SERVER))
    with meshlib.grpc.channel("reviews", mesh=mesh) as channel:
        get = channel.unary_unary("/shop.Stock/Get")

        def call():
            name = json.loads(get(b"x"))["name"]
            return SimpleNamespace(status_code=200, json=lambda: {"name": name})

        with calling(call) as calls:
            spire.rotate()
            until(mesh, lambda: mesh.status().identity and mesh.status().identity[0].roots == 2, PATIENCE)
            for _ in range(2):
                before = ends(mesh)
                until(mesh, lambda before=before: ends(mesh) > before + 1, PATIENCE)
            calls.only("stock")
    assert calls.failures == []


def test_who_is_somebody_else_gets_no_request(envoy, settings, make_mesh):
    mesh = make_mesh(configuration(settings, envoy, "spiffe://example.org/other"))
    with meshlib.Client(mesh=mesh) as client, pytest.raises(meshlib.ConnectFailed, match="none of the names"):
        client.get("http://reviews/")
    assert envoy.requests() == 0


def test_an_identity_that_is_withdrawn_calls_nobody(spire, envoy, settings, make_mesh):
    mesh = make_mesh(configuration(settings, envoy, SERVER))
    with meshlib.Client(mesh=mesh) as client:
        assert client.get("http://reviews/").text == ANSWER
        for entry in spire.entries:
            spire.ask("entry", "delete", "-entryID", entry)
        until(mesh, lambda: mesh.status().identity[0].state == "failed", PATIENCE)
        for _ in range(2):  # the worker that has said so, and then has the clusters go without
            mesh._runtime().worker.call(lambda: None, PATIENCE)
        arrived = envoy.requests()
        with pytest.raises(
            meshlib.NoHealthyEndpoint, match="was withdrawn: the Workload API has no identity"
        ):
            client.get("http://reviews/")
    assert envoy.requests() == arrived
