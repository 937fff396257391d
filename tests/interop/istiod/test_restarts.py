"""Istio's discovery server is restarted in the midst of calls, and has less than before: no call fails for it (CA-01)."""

from __future__ import annotations

import meshlib
from tests.interop.support import istio
from tests.interop.support.calling import PATIENCE, calling, said
from tests.interop.support.istio import PORT, to
from tests.interop.support.meshes import READY, xds
from tests.support.watch import until

URL = f"http://reviews:{PORT}"


def test_several_times_with_new_versions_each(view, istiod, join, reviews):
    istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=100)}))
    mesh = join(view)
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        for subset in ("v1", "v2", "v1"):
            istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", **{subset: 100})}))
            calls.only(subset)
            istiod.restart()
            said(istiod.streams, "a new stream")
            calls.more(100)
    assert calls.failures == []


def test_it_comes_back_with_other_services(view, istiod, join, reviews, upstream):
    # What it does not have any more is gone, and what it still has is served all the while.
    ratings = istio.service_entry("ratings", upstream("ratings"))
    istiod.apply(ratings)
    mesh = join(view, f"reviews:{PORT}", f"ratings:{PORT}")
    gone = f"outbound|{PORT}||{istio.fqdn('ratings')}"
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        calls.only("v1", "v2")
        istiod.kill()
        istiod.delete(ratings)
        istiod.start()
        until(mesh, lambda: gone not in mesh.status().clusters, PATIENCE)
        calls.more(100)
        istiod.apply(ratings)
        mesh.wait_ready(f"ratings:{PORT}", timeout=READY)
        until(mesh, lambda: gone in mesh.status().clusters, PATIENCE)
        assert client.get(f"http://ratings:{PORT}/").json()["name"] == "ratings"
    assert calls.failures == []


def test_it_comes_back_with_nothing(view, istiod, join, reviews, upstream):
    # An empty cluster, as of a control plane that lost its store. The service is gone from it; what is asked of it then is not its to
    # answer, and once it is back so are calls.
    mesh = join(view, f"reviews:{PORT}")
    with meshlib.Client(mesh=mesh) as client:
        assert client.get(URL).json()["name"] in reviews
        objects = istiod.objects
        istiod.kill()
        istiod.clear()
        istiod.start()
        cluster = f"outbound|{PORT}||{istio.fqdn('reviews')}"
        until(mesh, lambda: cluster not in mesh.status().clusters, PATIENCE)
        istiod.apply(*objects)
        until(mesh, lambda: cluster in mesh.status().clusters, PATIENCE)
        mesh.wait_ready(f"reviews:{PORT}", timeout=READY)  # by way of routes, which come after their clusters
        with calling(lambda: client.get(URL)) as calls:
            calls.only("v1", "v2")
        assert calls.failures == []
    assert xds(mesh).state == "ready"
