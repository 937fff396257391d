"""Istio's discovery server over TLS and mTLS, restarted in the midst of calls with everything renewed (BS-05, CA-01)."""

from __future__ import annotations

import pytest

import meshlib
from tests.interop.support import istio
from tests.interop.support.calling import PATIENCE, calling
from tests.interop.support.istio import PORT, to
from tests.interop.support.meshes import READY, xds
from tests.interop.support.pki import Pki
from tests.support.watch import until

URL = f"http://reviews:{PORT}"


@pytest.fixture
def pki(tmp_path):
    return Pki(tmp_path)


@pytest.fixture(params=[False, True], ids=["tls", "mtls"])
def security(request, pki):
    return pki.server(mutual=request.param), pki.client(mutual=request.param)


def test_calls_go_on_over_changes_and_renewed_certificates(view, istiod, join, reviews, pki):
    istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=100)}))
    mesh = join(view)
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        calls.only("v1")
        istiod.kill()
        until(mesh, lambda: xds(mesh).state == "stale", PATIENCE)
        pki.renew()
        istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v2=100)}))
        istiod.start()
        calls.only("v2")
        istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=50, v2=50)}))
        calls.only("v1", "v2")
    assert calls.failures == []


@pytest.mark.parametrize("security", [True], indirect=True, ids=["mtls"])
@pytest.mark.parametrize("protocol", ["delta"])
def test_who_has_no_certificate_is_not_answered(view, istiod, join, reviews, pki, make_mesh):
    node = {"id": istio.NODE_ID, "metadata": istio.METADATA}
    mesh = make_mesh({"node": node, "xds": {"server": istiod.server, "view": view, "tls": pki.client()}})
    with pytest.raises(meshlib.NotReady):
        mesh.wait_ready(f"reviews:{PORT}", timeout=1)
    assert until(mesh, lambda: xds(mesh).last_error, PATIENCE)
    join(view).wait_ready(f"reviews:{PORT}", timeout=READY)
