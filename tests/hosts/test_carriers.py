"""Who carries a call: every rung from "switched off" to "directly", the same for every host."""

from __future__ import annotations

from typing import Any

import pytest

import meshlib
from meshlib.testing import ControlPlane, build
from tests.hosts.kit import names, service, serving

UpstreamFactory = Any
Open = Any


def test_a_service_is_carried_by_the_mesh(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    one = meshlib_upstream("one")
    answer = open_client(service(one)).call(url="http://reviews/a%20b?q=1")
    assert (answer.said["name"], answer.said["path"]) == ("one", "/a%20b?q=1")
    assert answer.sent("host") == ["reviews"]
    info = answer.info
    assert info is not None
    assert (info.via, info.cluster, info.endpoint) == ("mesh", "reviews", one.address)
    assert [(one.number, one.outcome, one.status, one.sent) for one in info.attempts] == [
        (1, "ok", 200, True)
    ]


@pytest.mark.parametrize("key", ["reviews", "reviews:8080", "*.internal"])
def test_keys_of_services(open_client: Open, meshlib_upstream: UpstreamFactory, key: str) -> None:
    one = meshlib_upstream("one")
    client = open_client({"services": {key: {"endpoints": [one.address]}}})
    host = {"*.internal": "a.b.internal:81", "reviews": "reviews:7"}.get(key, key)
    answer = client.call(url=f"http://{host}/")
    assert answer.said["name"] == "one"
    assert answer.sent("host") == [host]


def test_a_bypassed_host_is_called_as_if_meshlib_were_not_there(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    one, other = meshlib_upstream("one"), meshlib_upstream("other")
    config = {"services": {"127.0.0.1": {"endpoints": [other.address]}}, "bypass": ["127.0.0.1"]}
    answer = open_client(config).call(url=one.url)
    assert answer.said["name"] == "one"
    assert answer.info is None


def test_switched_off(
    open_client: Open, meshlib_upstream: UpstreamFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = meshlib_upstream("one"), meshlib_upstream("other")
    monkeypatch.setenv("MESHLIB_DISABLED", "1")
    answer = open_client({"services": {"127.0.0.1": {"endpoints": [other.address]}}}).call(url=one.url)
    assert answer.said["name"] == "one"
    assert answer.info is None


def test_a_host_that_nobody_knows_is_called_directly(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    one = meshlib_upstream("one")
    answer = open_client(service(meshlib_upstream("other"))).call(url=one.url)
    assert answer.said["name"] == "one"
    assert answer.info is not None
    assert (answer.info.via, [attempt.outcome for attempt in answer.info.attempts]) == ("direct", ["ok"])


def test_a_host_that_nobody_knows_is_refused_where_that_is_ordered(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    one = meshlib_upstream("one")
    client = open_client({**service(meshlib_upstream("other")), "unknown_hosts": "refuse"})
    with pytest.raises(meshlib.UnknownService) as caught:
        client.call(url=one.url)
    assert isinstance(caught.value, client.errors["connect"])
    assert caught.value.info is not None
    assert one.requests_total == 0


def test_a_refused_host_is_a_response_where_failures_are(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    one = meshlib_upstream("one")
    config = {**service(meshlib_upstream("other")), "unknown_hosts": "refuse", "failures": "respond"}
    answer = open_client(config).call(url=one.url)
    assert (answer.status, one.requests_total) == (503, 0)
    assert answer.info is not None


def test_a_listener_made_for_an_envoy_has_a_url_by_its_address(
    open_client: Open, meshlib_upstream: UpstreamFactory, meshlib_control_plane: ControlPlane
) -> None:
    one = meshlib_upstream("one")
    meshlib_control_plane.set(*serving("127.0.0.1", 15999, "*", one))
    client = open_client({"xds": {"server": meshlib_control_plane.address}})
    client.mesh.wait_ready("127.0.0.1:15999", timeout=10)
    answer = client.call(url="http://127.0.0.1:15999/")
    assert answer.said["name"] == "one"
    assert answer.info is not None
    assert answer.info.listener == "outbound"


def test_a_listener_made_for_an_envoy_has_a_url_by_its_port_and_host(
    open_client: Open, meshlib_upstream: UpstreamFactory, meshlib_control_plane: ControlPlane
) -> None:
    one = meshlib_upstream("one")
    meshlib_control_plane.set(*serving("0.0.0.0", 80, "reviews", one))
    client = open_client({"xds": {"server": meshlib_control_plane.address, "view": "sidecar"}})
    assert client.call().said["name"] == "one"


def test_a_listener_is_asked_for_by_name(
    open_client: Open, meshlib_upstream: UpstreamFactory, meshlib_control_plane: ControlPlane
) -> None:
    one = meshlib_upstream("one")
    routes = build.route_config("r", build.virtual_host("v", build.route("/", cluster="c")))
    meshlib_control_plane.set(build.api_listener("reviews", routes), build.cluster("c", [one.address]))
    client = open_client({"xds": {"server": meshlib_control_plane.address}})
    assert client.call().said["name"] == "one"


def test_a_route_to_a_pass_through_cluster_is_direct(
    open_client: Open, meshlib_upstream: UpstreamFactory, meshlib_control_plane: ControlPlane
) -> None:
    one = meshlib_upstream("one")
    port = int(one.address.rpartition(":")[2])
    passing = build.cluster("c", [], type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED")
    passing.pop("load_assignment", None)
    meshlib_control_plane.set(*serving("127.0.0.1", port, "*", passing))
    client = open_client({"xds": {"server": meshlib_control_plane.address}})
    client.mesh.wait_ready(one.address, timeout=10)
    answer = client.call(url=one.url)
    assert answer.said["name"] == "one"
    assert answer.info is not None
    assert answer.info.via == "direct"


def test_a_proxy_wins(
    open_client: Open, meshlib_upstream: UpstreamFactory, caplog: pytest.LogCaptureFixture, right: str
) -> None:
    """And a line says so, once, where the mesh knows the host."""
    proxy, one = meshlib_upstream("proxy"), meshlib_upstream("one")
    client = open_client(service(one), proxy=proxy.url)
    for _ in range(2):
        assert client.call().said["name"] == "proxy"
    assert proxy.requests[0].path == "http://reviews/"
    said = [record.message for record in caplog.records if "a proxy is set for it and wins" in record.message]
    assert len(said) == (0 if right == "silent" else 1)


def test_calls_are_balanced_and_connections_kept(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    servers = [meshlib_upstream("a"), meshlib_upstream("b"), meshlib_upstream("c")]
    client = open_client(service(*servers, balancer="round_robin"))
    assert names(client, 9) == {"a": 3, "b": 3, "c": 3}
    assert [server.connections_total for server in servers] == [1, 1, 1]


def test_what_the_configuration_orders_is_a_response(
    open_client: Open, meshlib_upstream: UpstreamFactory, meshlib_control_plane: ControlPlane, right: str
) -> None:
    one = meshlib_upstream("one")
    meshlib_control_plane.set(
        *serving(
            "127.0.0.1", 15998, "*", one,
            build.route("/said", respond=(418, "tea")),
            build.route("/moved", redirect={"path_redirect": "/there"}),
            build.route("/there", cluster="c"),
        )
    )  # fmt: skip
    client = open_client({"xds": {"server": meshlib_control_plane.address}})
    client.mesh.wait_ready("127.0.0.1:15998", timeout=10)
    said = client.call(url="http://127.0.0.1:15998/said")
    assert (said.status, said.body) == (418, b"tea")
    moved = client.call(url="http://127.0.0.1:15998/moved")
    assert (moved.status, moved.headers["location"]) == (301, "http://127.0.0.1:15998/there")
    if right != "given":
        followed = client.call(url="http://127.0.0.1:15998/moved", follow=True)
        assert followed.said["path"] == "/there"
    lost = client.call(url="http://127.0.0.1:15998/nowhere")
    assert lost.status == 404
    for answer in (said, moved, lost):
        assert answer.info is not None
        assert (answer.info.via, answer.info.attempts) == ("mesh", ())
