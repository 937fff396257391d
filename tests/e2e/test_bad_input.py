"""What arrives is wrong, late or nothing: a clear word, no hang, and the last good state serves."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import build
from meshlib.testing.control_plane import ControlPlane
from tests.support.late import again_if_late, soon, within
from tests.support.watch import Watch, until

UpstreamFactory = Any


def source(mesh: meshlib.Mesh, name: str = "xds") -> Any:
    return next((one for one in mesh.status().sources if one.name == name), None)


@contextmanager
def silent_server(reply: bytes = b"") -> Iterator[str]:
    """A port that accepts connections and sends ``reply``, or nothing, for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                accepted.append(connection)
                if reply:
                    connection.sendall(reply)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for connection in accepted:
            connection.close()
    thread.join(5)


def resources(*addresses: str, version: str = "good") -> list[Any]:
    return [
        build.api_listener(
            "reviews", build.route_config("r", build.virtual_host("v", build.route("/", cluster="c")))
        ),
        build.cluster("c", list(addresses), connect_timeout=1.0),
    ]


@pytest.mark.parametrize(
    "reply",
    [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64],
    ids=["dead", "silent", "http1", "zeros"],
)
@again_if_late
def test_a_control_plane_that_does_not_work_costs_one_connect_timeout(reply: bytes | None) -> None:
    """CA-09, and the contract: no hang beyond the caller's connect timeout; a name then goes by rule 6."""
    with silent_server(reply or b"") as address:
        server = address
        if reply is None:
            with socket.create_server(("127.0.0.1", 0)) as closed:
                server = f"127.0.0.1:{closed.getsockname()[1]}"
        with meshlib.Mesh({"xds": {"server": server}}) as mesh, meshlib.Client(mesh=mesh) as client:
            begun = time.monotonic()
            with pytest.raises(httpx.ConnectError):
                client.get("http://reviews/", timeout=httpx.Timeout(5.0, connect=0.5))
            soon(time.monotonic() - begun, 2.5)
            begun = time.monotonic()
            with pytest.raises(httpx.ConnectError):
                client.get("http://reviews/", timeout=httpx.Timeout(5.0, connect=0.5))
            soon(time.monotonic() - begun, 0.5, "the wait is not repeated")
            with pytest.raises(meshlib.NotReady, match="reviews") as caught:
                mesh.wait_ready("reviews", timeout=0.3)
            assert server in str(caught.value)
            assert source(mesh).state in ("connecting", "failed")
            if reply != b"":
                until(mesh, lambda: source(mesh).last_error)


@again_if_late
def test_hosts_that_are_not_of_the_mesh_never_wait(upstream: UpstreamFactory) -> None:
    one = upstream()
    with (
        silent_server() as address,
        meshlib.Mesh({"xds": {"server": address}}) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        begun = time.monotonic()
        assert client.get(one.url).status_code == 200
        soon(time.monotonic() - begun, 1.0)


def test_garbage_on_the_stream_is_told_and_the_last_good_state_serves(
    control_plane: ControlPlane, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    control_plane.set(*resources(one.address))
    with (
        meshlib.Mesh({"xds": {"server": control_plane.address}}) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        assert client.get("http://reviews/").json()["name"] == "v1"
        for garbage in (b"\xff" * 40, b"", b"\x0a\xff\xff\xff\xff\x0f", b"not a message at all"):
            control_plane.send_bytes(garbage)
            assert client.get("http://reviews/").json()["name"] == "v1"
        two = upstream("v2")
        control_plane.set(*resources(two.address))
        until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == two.address)
        assert client.get("http://reviews/").json()["name"] == "v2"


def test_a_bad_resource_is_refused_with_every_problem_and_the_good_one_stays(
    control_plane: ControlPlane, upstream: UpstreamFactory
) -> None:
    """ER-01, ER-02: NACK with each field named; siblings come into force."""
    one = upstream("v1")
    control_plane.set(*resources(one.address))
    with (
        meshlib.Mesh({"xds": {"server": control_plane.address}}) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        mesh.wait_ready("reviews", timeout=5)
        bad = build.cluster(
            "c",
            [one.address],
            connect_timeout="-3s",
            circuit_breakers={"thresholds": [{"retry_budget": {"budget_percent": {"value": 400}}}]},
        )
        control_plane.update(bad)
        nack = control_plane.wait_for_nack("cluster")
        assert "connect_timeout" in nack.error
        (rejected,) = until(mesh, lambda: source(mesh).rejected)
        assert (rejected.type, rejected.resource) == ("cluster", "c")
        assert any("connect_timeout" in problem for problem in rejected.problems)
        assert client.get("http://reviews/").json()["name"] == "v1"
        watch = Watch(mesh)  # nothing of the configuration changes by it: what is corrected is what serves
        control_plane.update(build.cluster("c", [one.address]))
        watch.until(lambda: not source(mesh).rejected)
        assert client.get("http://reviews/").json()["name"] == "v1"


def test_a_first_version_that_is_bad_fails_its_host_with_the_reason(control_plane: ControlPlane) -> None:
    listener = build.api_listener(
        "reviews",
        build.route_config("r", build.virtual_host("v", build.route(regex="(unclosed", cluster="c"))),
    )
    control_plane.set(listener)
    with meshlib.Mesh({"xds": {"server": control_plane.address}}) as mesh:
        with pytest.raises(meshlib.NotReady, match="regex"):
            mesh.wait_ready("reviews", timeout=2)
        (rejected,) = source(mesh).rejected
        assert (rejected.type, rejected.resource) == ("listener", "reviews")


def test_what_is_not_honoured_is_told(control_plane: ControlPlane, upstream: UpstreamFactory) -> None:
    one = upstream()
    control_plane.set(
        *resources(one.address)[:1],
        build.cluster("c", [one.address], health_checks=[{"timeout": "1s", "interval": "1s"}]),
    )
    with meshlib.Mesh({"xds": {"server": control_plane.address}}) as mesh:
        mesh.wait_ready("reviews", timeout=5)
        ignored = source(mesh).ignored
        assert any(
            entry.type == "cluster" and entry.resource == "c" and "health_checks" in entry.field
            for entry in ignored
        )


def test_a_control_plane_that_goes_leaves_the_last_good_state(
    control_plane: ControlPlane, upstream: UpstreamFactory
) -> None:
    """CA-01; and it comes back without a restart of ours (CA-09)."""
    one, two = upstream("v1"), upstream("v2")
    control_plane.set(*resources(one.address))
    with (
        meshlib.Mesh({"xds": {"server": control_plane.address}}) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        mesh.wait_ready("reviews", timeout=5)
        control_plane.kill()
        until(mesh, lambda: source(mesh).state == "stale")

        def calls() -> float:
            begun = time.monotonic()
            assert [client.get("http://reviews/").json()["name"] for _ in range(20)] == ["v1"] * 20
            return time.monotonic() - begun

        within(0.0, 3.0, calls)
        control_plane.restart()
        control_plane.set(*resources(two.address))
        until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == two.address)
        assert client.get("http://reviews/").json()["name"] == "v2"
        assert source(mesh).state == "ready"


def test_an_upstream_that_sends_garbage_is_a_transport_error(upstream: UpstreamFactory) -> None:
    one = upstream()
    one.order(garbage="\x00\x01\x02 nonsense\r\n\r\n")
    with meshlib.Mesh({"services": {"reviews": {"endpoints": [one.address]}}}) as mesh:
        with meshlib.Client(mesh=mesh) as client, pytest.raises(meshlib.TransportFailed) as caught:
            client.get("http://reviews/")
        assert isinstance(caught.value, httpx.RemoteProtocolError)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"servces": {}}, ["servces", "services"]),
        ({"services": {"reviews": {"timeout": "soon"}}}, ["services.reviews.timeout"]),
        (
            {"services": {"reviews": {"endpoints": ["nowhere:99999"]}}},
            ["services.reviews.endpoints", "65535"],
        ),
        (
            {"services": {"reviews": {"endpoints": ["a:1"], "balancer": "fastest"}}},
            ["balancer", "least_request"],
        ),
        ({"xds": {"protocol": "carrier-pigeon"}}, ["xds.protocol", "sotw"]),
        ({"xds": {"server": "a:1", "api": "v2", "protocol": "delta"}}, ["xds.protocol", "v2"]),
        ({"sidecar": {"mode": "isto"}}, ["sidecar.mode", "istio"]),
        ({"sidecar": {"address": "10.0.0.1:15001"}}, ["sidecar.address", "loopback"]),
        ({"adoption": {"default": "most"}}, ["adoption.default", "observe"]),
        ({"adoption": {"reviews": "101%"}}, ["adoption.reviews", "100%"]),
    ],
)
def test_a_wrong_configuration_names_the_key_and_what_is_allowed(
    config: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(meshlib.ConfigError) as caught:
        meshlib.Mesh(config)
    for word in words:
        assert word in str(caught.value)
