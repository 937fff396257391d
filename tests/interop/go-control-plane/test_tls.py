"""The control plane over TLS, with and without a certificate of ours (BS-05)."""

from __future__ import annotations

import pytest

import meshlib
from tests.interop.support.calling import PATIENCE, calling
from tests.interop.support.meshes import NODE, READY, URL, config, reviews, xds
from tests.interop.support.pki import Pki
from tests.interop.support.snapshots import PORT, snapshot
from tests.support.watch import until

VIEWS = pytest.mark.parametrize(("view", "protocol"), [("target", "delta"), ("sidecar", "sotw")])
MUTUAL = pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mtls"])


@pytest.fixture
def pki(tmp_path):
    return Pki(tmp_path)


@pytest.fixture
def secure(launch, pki, protocol):
    def start(*, mutual):
        plane = launch(*pki.server(mutual=mutual))
        plane.protocol, plane.transport = protocol, {"tls": pki.client(mutual=mutual)}
        return plane

    return start


@VIEWS
@MUTUAL
def test_calls_go_on_over_changes_and_renewed_certificates(view, mutual, secure, pki, make_mesh, upstream):
    plane = secure(mutual=mutual)
    a, b, c = (upstream(name) for name in "abc")
    plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
    mesh = make_mesh(config(plane, view))
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        calls.only("a")
        plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
        calls.only("b")
        plane.kill()
        pki.renew()  # all of it, the authority too: files are read anew for each stream
        plane.put(snapshot(view, NODE, "3", reviews({"v1": 1}, v1=[c])))
        plane.start()
        calls.only("c")
    assert calls.failures == []


@pytest.mark.parametrize("protocol", ["auto"])
@pytest.mark.parametrize("lacking", ["another authority", "no certificate", "plain text"])
def test_what_is_not_trusted_is_told(lacking, secure, pki, make_mesh, upstream, tmp_path):
    plane = secure(mutual=True)
    plane.put(snapshot("target", NODE, "1", reviews({"v1": 1}, v1=[upstream("a")])))
    right = config(plane, "target")
    if lacking == "another authority":
        (tmp_path / "other").mkdir()
        plane.transport = {"tls": {**pki.client(mutual=True), "ca": Pki(tmp_path / "other").path("ca")}}
    else:
        plane.transport = {"tls": pki.client()} if lacking == "no certificate" else {}
    mesh = make_mesh(config(plane, "target"))
    with pytest.raises(meshlib.NotReady, match="reviews"):
        mesh.wait_ready(f"reviews:{PORT}", timeout=1)
    error = until(mesh, lambda: xds(mesh).last_error, PATIENCE)
    assert "UNAVAILABLE" in error
    if lacking == "another authority":
        assert "CERTIFICATE_VERIFY_FAILED" in error
    make_mesh(right).wait_ready(f"reviews:{PORT}", timeout=READY)
