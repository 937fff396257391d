"""Names that come and go on one stream: what Istio keeps of a subscription, by each protocol and in each view.

Of listeners and clusters that its generator for gRPC is asked for by delta, Istio keeps only those that its last answer had.
"""

from __future__ import annotations

import pytest

import meshlib
from tests.interop.support import istio
from tests.interop.support.calling import PATIENCE, calling
from tests.interop.support.istio import PORT, to
from tests.interop.support.meshes import READY
from tests.support.watch import until

URL = f"http://reviews:{PORT}"


def cluster(name: str) -> str:
    return f"outbound|{PORT}||{istio.fqdn(name)}"


def limited(name: str, requests: int):
    """What only the cluster of a service says."""
    made = istio.destination_rule(name)
    made["spec"]["trafficPolicy"] = {"connectionPool": {"http": {"http2MaxRequests": requests}}}
    return made


def wait_limit(mesh, name: str, requests: int) -> None:
    clusters = mesh._runtime().store
    until(mesh, lambda: clusters.clusters[cluster(name)].limits.max_requests == requests, PATIENCE)


def goes_to(mesh, name: str) -> str:
    return mesh.explain("GET", f"http://{name}:{PORT}/", headers={}).cluster


def test_what_was_asked_for_first_is_kept_up_to_date(view, istiod, join, reviews, upstream):
    mesh = join(view, f"reviews:{PORT}")
    for number, later in enumerate(("ratings", "details"), 500):
        istiod.apply(istio.service_entry(later, upstream(later)))
        mesh.wait_ready(f"{later}:{PORT}", timeout=READY)
        istiod.apply(limited("reviews", number))
        wait_limit(mesh, "reviews", number)
    istiod.apply(limited("ratings", 502))
    wait_limit(mesh, "ratings", 502)
    with meshlib.Client(mesh=mesh) as client:
        for name in ("ratings", "details"):
            assert client.get(f"http://{name}:{PORT}/").json()["name"] == name


def test_a_name_is_asked_for_before_it_is_there(view, istiod, join, reviews, upstream):
    mesh = join(view, f"reviews:{PORT}")
    with pytest.raises(meshlib.NotReady, match="ratings"):
        mesh.wait_ready(f"ratings:{PORT}", timeout=1)
    istiod.apply(istio.service_entry("ratings", upstream("ratings")))
    mesh.wait_ready(f"ratings:{PORT}", timeout=READY)
    with meshlib.Client(mesh=mesh) as client:
        assert client.get(f"http://ratings:{PORT}/").json()["name"] == "ratings"


def test_a_service_that_goes_and_returns(view, istiod, join, reviews, upstream):
    ratings = istio.service_entry("ratings", upstream("ratings"))
    istiod.apply(ratings)
    mesh = join(view, f"reviews:{PORT}", f"ratings:{PORT}")
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        for _ in range(2):
            assert client.get(f"http://ratings:{PORT}/").json()["name"] == "ratings"
            istiod.delete(ratings)
            until(mesh, lambda: goes_to(mesh, "ratings") != cluster("ratings"), PATIENCE)
            istiod.apply(ratings)
            until(mesh, lambda: goes_to(mesh, "ratings") == cluster("ratings"), PATIENCE)
        istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v2=100)}))
        calls.only("v2")
    assert calls.failures == []


def test_a_name_that_nobody_wants_any_more(view, istiod, join, reviews, upstream):
    # A route that moves gives one cluster up and wants another, back and forth: what stays is kept up to date.
    istiod.apply(istio.service_entry("ratings", upstream("ratings")))
    mesh = join(view, f"ratings:{PORT}", f"reviews:{PORT}")
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        for number, subset in enumerate(("v1", "v2", "v1"), 500):
            istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", **{subset: 100})}))
            calls.only(subset)
            istiod.apply(limited("ratings", number))
            wait_limit(mesh, "ratings", number)
    assert calls.failures == []
