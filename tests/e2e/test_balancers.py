"""Balancers of a file, against real servers, on httpx and httpx2, sync and async: what is alike goes to one endpoint, load steers, shares trip."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import meshlib
from tests.e2e.test_client import service
from tests.support.faces import FaceFactory
from tests.support.grpc_channels import Channel
from tests.support.grpc_channels import service as grpc_service

HASHING = pytest.mark.parametrize("balancer", ["ring_hash", "maglev"])


def name_of(client: Any, path: str = "/", **options: Any) -> str:
    return client.get(f"http://reviews{path}", **options).json()["name"]


@HASHING
def test_what_is_alike_goes_to_the_same_endpoint(face: FaceFactory, upstream: Any, balancer: str) -> None:
    servers = [upstream(f"v{number}") for number in range(3)]
    hashed = [{"header": "x-user"}, {"cookie": "sid"}, {"query": "user"}]
    client = face(service(*servers, balancer=balancer, hash=hashed))
    by_header = [name_of(client, headers={"x-user": f"u{number}"}) for number in range(60)]
    assert len(set(by_header)) == 3
    assert by_header == [name_of(client, headers={"x-user": f"u{number}"}) for number in range(60)]
    # The first that is there counts, and a value leads to the same place from wherever it comes.
    both = [name_of(client, f"/?user=x{number}", headers={"x-user": f"u{number}"}) for number in range(60)]
    assert both == by_header
    assert [name_of(client, headers={"cookie": f"sid=u{number}"}) for number in range(60)] == by_header
    assert [name_of(client, f"/?user=u{number}") for number in range(60)] == by_header
    options = [meshlib.CallOptions(hash_key=f"u{number}") for number in range(60)]
    asked = [
        name_of(client, f"/?user={number}", extensions={"meshlib": each})
        for number, each in enumerate(options)
    ]
    assert asked == by_header


@HASHING
def test_an_endpoint_that_is_gone_moves_nobody_elses_keys(
    face: FaceFactory, upstream: Any, balancer: str
) -> None:
    servers = [upstream(f"v{number}") for number in range(3)]
    retry = {"attempts": 2, "on": ["connect-failure"]}
    client = face(service(*servers, balancer=balancer, hash=[{"header": "x-user"}], retry=retry))
    before = [name_of(client, headers={"x-user": f"u{number}"}) for number in range(30)]
    servers[1].kill()
    after = [name_of(client, headers={"x-user": f"u{number}"}) for number in range(30)]
    assert "v1" not in after
    assert all(now == then for now, then in zip(after, before, strict=True) if then != "v1")


def test_explain_says_where_a_key_leads(face: FaceFactory, upstream: Any) -> None:
    servers = [upstream(f"v{number}") for number in range(3)]
    client = face(service(*servers, balancer="ring_hash", hash=[{"header": "x-user"}]))
    for number in range(10):
        headers = {"x-user": f"u{number}"}
        decided = client.mesh.explain("GET", "http://reviews/", headers)  # type: ignore[attr-defined]
        response = client.get("http://reviews/", headers=headers)
        info = meshlib.call_info(response)
        assert info is not None
        assert decided.endpoint == info.endpoint


def test_reports_of_load_in_answers_steer_the_next_calls(face: FaceFactory, upstream: Any) -> None:
    """ORCA, as LLM servers send it: after the blackout, which a control plane may shorten, and the file has as it is by default."""
    from meshlib.testing import ControlPlane, build

    servers = [upstream(f"v{number}") for number in range(2)]
    for server, rps in zip(servers, (300, 100), strict=True):
        line = f"TEXT application_utilization=0.5, rps_fractional={rps}"
        server.order(headers=(("endpoint-load-metrics", line),))
    kind = "envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
    policy = build.any_of(kind, {"blackout_period": "0s", "weight_update_period": "0.1s"})
    config = {"policies": [{"typed_extension_config": {"name": "orca", "typed_config": policy}}]}
    routes = build.route_config("r", build.virtual_host("v", build.route(cluster="c"), domains=["*"]))
    addresses = [server.address for server in servers]
    cluster = build.cluster("c", addresses, load_balancing_policy=config)
    with ControlPlane(build.api_listener("reviews", routes), cluster) as plane:
        client = face({"xds": {"server": plane.address, "view": "target", "domains": ["reviews"]}})
        shares = Counter(name_of(client) for _ in range(400))
        while not 0.7 < shares["v0"] / shares.total() < 0.8:
            shares = Counter(name_of(client) for _ in range(400))


def test_the_breaker_opens_at_a_share_of_failures(face: FaceFactory, upstream: Any) -> None:
    one = upstream()
    breaker = {"failure_rate": 0.3, "window": 20, "minimum": 10, "open_for": 60.0}
    client = face(service(one, breaker=breaker))

    def called(number: int) -> bool:
        if number % 3 == 0:
            one.fail(500, times=1)
        try:
            client.get("http://reviews/")
        except meshlib.CircuitOpen:
            return False
        return True

    assert 10 <= next(number for number in range(100) if not called(number)) <= 20


def test_a_breaker_of_each_endpoint_leaves_the_others(face: FaceFactory, upstream: Any) -> None:
    bad, good = upstream("bad"), upstream("good")
    bad.fail(500)
    breaker = {"consecutive_failures": 2, "scope": "endpoint", "open_for": 60.0}
    client = face(service(bad, good, breaker=breaker))
    statuses = [client.get("http://reviews/").status_code for _ in range(20)]
    assert statuses.count(500) == 2
    assert bad.requests_total == 2


@pytest.mark.parametrize("balancer", ["peak_ewma", "pick_first", "maglev"])
def test_grpc_calls_have_the_same_balancers(meshlib_grpc_upstream: Any, balancer: str) -> None:
    servers = [meshlib_grpc_upstream(f"v{number}") for number in range(3)]
    config = grpc_service(*servers, balancer=balancer)
    with meshlib.Mesh(config) as mesh, Channel("sync", "stock", mesh) as here:
        for _ in range(24):
            here.unary()
    requests = [server.requests_total for server in servers]
    assert sum(requests) == 24
    if balancer == "pick_first":
        assert requests == [24, 0, 0]
    if balancer == "maglev":
        assert sum(bool(count) for count in requests) >= 2, "each call without a hash goes by chance"


def test_over_the_rate_limit_calls_are_answered_429(face: FaceFactory, upstream: Any) -> None:
    one = upstream()
    client = face(service(one, rate_limit={"rate": 0.001, "burst": 3}))
    responses = [client.get("http://reviews/") for _ in range(5)]
    assert [response.status_code for response in responses] == [200, 200, 200, 429, 429]
    assert responses[-1].text == "local_rate_limited"
    assert one.requests_total == 3
    info = meshlib.call_info(responses[-1])
    assert info is not None
    assert any("rate limit" in line for line in info.trace())


def test_a_route_has_limits_of_its_own(face: FaceFactory, upstream: Any) -> None:
    """Its breaker, its rate and what it may have in flight are no other route's, and hold beside the service's."""
    one = upstream()
    routes = [
        {"name": "few", "match": {"prefix": "/few"}, "rate_limit": {"rate": 0.001, "burst": 1}},
        {
            "name": "fragile",
            "match": {"prefix": "/fragile"},
            "breaker": {"consecutive_failures": 2, "open_for": 60.0},
            "retry": {"attempts": 2, "on": ["5xx"], "backoff_base": 0.001},
        },
    ]
    client = face(service(one, routes=routes, breaker={"consecutive_failures": 4, "open_for": 60.0}))
    assert [client.get("http://reviews/few").status_code for _ in range(2)] == [200, 429]
    one.fail(500, times=4)
    assert client.get("http://reviews/fragile").status_code == 500, "each attempt counts"
    with pytest.raises(meshlib.CircuitOpen, match="the breaker of route fragile is open"):
        client.get("http://reviews/fragile")
    assert [client.get("http://reviews/").status_code for _ in range(2)] == [500, 500]
    with pytest.raises(meshlib.CircuitOpen, match="the breaker of cluster 'reviews' is open"):
        client.get("http://reviews/")
    assert one.requests_total == 5


def test_faults_delay_and_answer_before_anything_is_sent(face: FaceFactory, upstream: Any) -> None:
    one = upstream()
    routes = [
        {"match": {"prefix": "/late"}, "fault": {"delay": 0.05}},
        {"match": {"prefix": "/gone"}, "fault": {"abort": 503}},
        {"match": {"prefix": "/over"}, "fault": {"delay": 30.0}, "timeout": 0.05},
    ]
    client = face(service(one, routes=routes, breaker={"consecutive_failures": 1}))
    late = client.get("http://reviews/late")
    info = meshlib.call_info(late)
    assert info is not None
    assert any("a fault delays the call by 0.05 s" in line for line in info.trace())
    gone = client.get("http://reviews/gone")
    assert (gone.status_code, gone.text) == (503, "fault filter abort")
    with pytest.raises(meshlib.DeadlineExceeded):
        client.get("http://reviews/over")
    assert one.requests_total == 1
    assert client.get("http://reviews/").status_code == 200, "a fault opens no breaker"


def test_grpc_calls_have_faults_and_limits(meshlib_grpc_upstream: Any) -> None:
    import grpc

    one = meshlib_grpc_upstream("v1")
    config = grpc_service(one, rate_limit={"rate": 0.001, "burst": 2})
    with meshlib.Mesh(config) as mesh, Channel("sync", "stock", mesh) as here:
        here.unary()
        here.unary()
        with pytest.raises(grpc.RpcError) as refused:
            here.unary()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "rate limit" in refused.value.details()
    assert one.requests_total == 2
