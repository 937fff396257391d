"""What gRPC counts of more than calls, over real servers and a control plane: gRFC A78, A88, A89, A91, A94, A118. Off until chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

import meshlib
from meshlib.testing import ControlPlane, build
from tests.support.rpc_server import METHODS, Asyncio, Blocking, RpcServer
from tests.support.telemetry import Recorded, sdk
from tests.support.watch import Watch

ALL = {
    "metrics": [
        "grpc.xds_client",
        "grpc.lb.outlier_detection",
        "grpc.subchannel",
        "grpc.client.tls.handshakes",
    ],
    "labels": [
        "grpc.lb.locality",
        "grpc.lb.backend_service",
        "grpc.disconnect_error",
        "grpc.security_level",
    ],
}
CLUSTER = "envoy.config.cluster.v3.Cluster"
ENDPOINTS = "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "envoy.config.listener.v3.Listener"
OFF = ("grpc.xds_client.", "grpc.lb.", "grpc.subchannel.", "grpc.client.tls.")
METHOD = METHODS["unary_unary"]
BACKEND = {
    "grpc.lb.backend_service": "c",
    "grpc.lb.locality": '{region="eu", zone="eu-1", sub_zone=""}',
}


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with sdk(tracing=False) as found:
        yield found


@pytest.fixture(params=[Blocking, Asyncio], ids=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def resources(*addresses: str, **fields: Any) -> list[Any]:
    route = build.route_config("r", build.virtual_host("v", build.route(cluster="c")))
    members = [build.locality(*addresses, region="eu", zone="eu-1")] if addresses else []
    return [
        build.api_listener("reviews", route),
        build.cluster("c", **fields),
        build.endpoints("c", *members),
    ]


def mesh_of(plane: ControlPlane, telemetry: Any = ALL) -> meshlib.Mesh:
    return meshlib.Mesh({"xds": {"server": plane.address, "view": "target"}, "telemetry": telemetry})


def values(recorded: Recorded, name: str) -> dict[tuple[tuple[str, Any], ...], Any]:
    return {tuple(sorted(point.attributes.items())): point.value for point in recorded.points(name)}


def of(mapping: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(mapping.items()))


def test_the_stream_to_a_control_plane_is_measured(recorded: Recorded, kind: Any) -> None:
    """MX-01."""
    server = {"grpc.target": "#mesh"}
    with RpcServer() as upstream, ControlPlane(*resources(upstream.address)) as plane:
        at = server | {"grpc.xds.server": plane.address}
        with mesh_of(plane) as mesh:
            channel = kind("xds:///reviews", mesh)
            channel.call("unary_unary")
            watch = Watch(mesh)
            assert values(recorded, "grpc.xds_client.connected") == {of(at): 1}
            valid = values(recorded, "grpc.xds_client.resource_updates_valid")
            assert valid == {
                of(at | {"grpc.xds.resource_type": name}): 1 for name in (LISTENER, CLUSTER, ENDPOINTS)
            }
            held = at_state(recorded)
            assert held == {(name, "#old", "acked"): 1 for name in (LISTENER, CLUSTER, ENDPOINTS)}

            plane.update(build.cluster("c", connect_timeout="-1s"))
            watch.until(lambda: at_state(recorded).get((CLUSTER, "#old", "nacked_but_cached")))
            refused = of(at | {"grpc.xds.resource_type": CLUSTER})
            invalid = "grpc.xds_client.resource_updates_invalid"
            watch.until(lambda: values(recorded, invalid).get(refused) == 1)

            assert values(recorded, "grpc.xds_client.server_failure") == {}
            plane.stop()
            watch.until(lambda: values(recorded, "grpc.xds_client.connected") == {of(at): 0})
            watch.until(lambda: values(recorded, "grpc.xds_client.server_failure") == {of(at): 1})
            plane.start()
            watch.until(lambda: values(recorded, "grpc.xds_client.connected") == {of(at): 1})
            assert values(recorded, "grpc.xds_client.server_failure") == {of(at): 1}
            channel.close()


def at_state(recorded: Recorded) -> dict[tuple[str, str, str], int]:
    names = ("grpc.xds.resource_type", "grpc.xds.authority", "grpc.xds.cache_state")
    return {
        tuple(point.attributes[name] for name in names): point.value
        for point in recorded.points("grpc.xds_client.resources")
    }


def test_attempts_have_the_labels_that_were_chosen(recorded: Recorded, kind: Any) -> None:
    """MX-02."""
    common = {"grpc.method": METHOD, "grpc.target": "xds:///reviews"}
    with RpcServer() as upstream, ControlPlane(*resources(upstream.address)) as plane, mesh_of(plane) as mesh:
        channel = kind("xds:///reviews", mesh)
        channel.call("unary_unary")
        [ended] = recorded.points("grpc.client.attempt.duration")
        assert dict(ended.attributes) == {**common, **BACKEND, "grpc.status": "OK"}
        [started] = recorded.points("grpc.client.attempt.started")
        assert dict(started.attributes) == common
        [call] = recorded.points("grpc.client.call.duration")
        assert dict(call.attributes) == {**common, "grpc.status": "OK"}
        channel.close()


def test_a_pick_that_failed_is_an_attempt_with_labels(recorded: Recorded, kind: Any) -> None:
    """MX-02."""
    common = {"grpc.method": METHOD, "grpc.target": "xds:///reviews"}
    with ControlPlane(*resources()) as plane, mesh_of(plane) as mesh:
        channel = kind("xds:///reviews", mesh)
        with pytest.raises(grpc.RpcError):
            channel.call("unary_unary")
        [ended] = recorded.points("grpc.client.attempt.duration")
        found = {"grpc.lb.backend_service": "c", "grpc.lb.locality": "", "grpc.status": "UNAVAILABLE"}
        assert dict(ended.attributes) == {**common, **found}
        [started] = recorded.points("grpc.client.attempt.started")
        assert started.value == 1
        channel.close()


def test_ejections_are_told_enforced_or_not(recorded: Recorded, kind: Any) -> None:
    detection = {
        "consecutive_5xx": 2,
        "enforcing_consecutive_5xx": 100,
        "consecutive_gateway_failure": 1,
        "enforcing_consecutive_gateway_failure": 0,
        "max_ejection_percent": 50,
    }
    at = {"grpc.target": "#mesh", "grpc.lb.backend_service": "c"}
    method, why = "grpc.lb.outlier_detection.detection_method", "grpc.lb.outlier_detection.unenforced_reason"
    with (
        RpcServer() as one,
        RpcServer() as two,
        ControlPlane(*resources(one.address, two.address, outlier_detection=detection)) as plane,
        mesh_of(plane) as mesh,
    ):
        channel = kind("xds:///reviews", mesh)
        one.codes = [grpc.StatusCode.UNAVAILABLE] * 6
        two.codes = [grpc.StatusCode.UNAVAILABLE] * 6
        for _ in range(6):
            with pytest.raises(grpc.RpcError):
                channel.call("unary_unary")
        channel.close()
    [enforced] = recorded.points("grpc.lb.outlier_detection.ejections_enforced")
    assert (dict(enforced.attributes), enforced.value) == ({**at, method: "consecutive_5xx"}, 1)
    unenforced = values(recorded, "grpc.lb.outlier_detection.ejections_unenforced")
    by_chance = {**at, method: "consecutive_gateway_failure", why: "enforcement_percentage"}
    overflow = {**at, method: "consecutive_5xx", why: "max_ejection_overflow"}
    assert unenforced == {of(by_chance): 6, of(overflow): 2}


def waits(channel: Any, watch: Watch, condition: Callable[[], object]) -> None:
    """Until it holds; a channel of a loop looks at its connections there."""
    if isinstance(channel, Asyncio):
        channel._loop.run_until_complete(asyncio.to_thread(watch.until, condition))
    else:
        watch.until(condition)


def test_connections_are_counted(recorded: Recorded, kind: Any) -> None:
    at = {"grpc.target": "xds:///reviews", **BACKEND}
    plain = {"grpc.security_level": "none"}
    opened = "grpc.subchannel.open_connections"
    with RpcServer() as upstream, ControlPlane(*resources(upstream.address)) as plane, mesh_of(plane) as mesh:
        channel, watch = kind("xds:///reviews", mesh), Watch(mesh)
        channel.call("unary_unary")
        waits(channel, watch, lambda: values(recorded, opened) == {of(at | plain): 1})
        assert values(recorded, "grpc.subchannel.connection_attempts_succeeded") == {of(at): 1}
        assert values(recorded, "grpc.client.tls.handshakes") == {}
        upstream.__exit__()
        waits(channel, watch, lambda: values(recorded, opened) == {of(at | plain): 0})
        lost = {"grpc.disconnect_error": "unknown"}
        assert values(recorded, "grpc.subchannel.disconnections") == {of(at | lost): 1}
        with pytest.raises(grpc.RpcError):
            channel.call("unary_unary")
        assert values(recorded, "grpc.subchannel.connection_attempts_failed") == {of(at): 1}
        channel.close()


@pytest.mark.parametrize(
    ("named", "flaw", "result"),
    [
        ("stock", "", "SUCCESS"),
        ("other", "", "CERTIFICATE_HOSTNAME_MISMATCH"),
        ("stock", "not trusted", "CERTIFICATE_AUTHORITY_INVALID"),
        ("stock", "expired", "CERTIFICATE_EXPIRED"),
        ("stock", "plain", "UNKNOWN_FAILURE"),
    ],
)
@pytest.mark.parametrize("whose", ["the application's", "the mesh's"])
def test_handshakes_have_their_result(
    recorded: Recorded,
    kind: Any,
    meshlib_grpc_upstream: Any,
    tmp_path: Path,
    whose: str,
    named: str,
    flaw: str,
    result: str,
) -> None:
    authority = trustme.CA()
    over = datetime(2020, 1, 1, tzinfo=UTC) if flaw == "expired" else None
    issued = authority.issue_cert(named, not_before=over, not_after=over)
    pair = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
    credentials = None if flaw == "plain" else grpc.ssl_server_credentials([pair])
    upstream = meshlib_grpc_upstream("v1", credentials=credentials)
    known = trustme.CA() if flaw == "not trusted" else authority
    config: Any = {
        "services": {"stock": {"endpoints": [upstream.address]}},
        "telemetry": {"metrics": ["grpc.client.tls.handshakes"]},
    }
    mine = None
    if whose == "the mesh's":
        known.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        config["services"]["stock"]["tls"] = {"ca": str(tmp_path / "ca.pem"), "sans": ["stock"]}
    else:
        mine = grpc.ssl_channel_credentials(known.cert_pem.bytes())
    with meshlib.Mesh(config) as mesh:
        channel, watch = kind("stock", mesh, credentials=mine), Watch(mesh)
        if result == "SUCCESS":
            channel.call("unary_unary")
        else:
            with pytest.raises(grpc.RpcError):
                channel.call("unary_unary")
        found = {"grpc.target": "dns:///stock", "grpc.tls.handshake.result": result}
        waits(channel, watch, lambda: values(recorded, "grpc.client.tls.handshakes") == {of(found): 1})
        channel.close()


def test_what_nobody_chose_is_not_made(recorded: Recorded, kind: Any) -> None:
    with (
        RpcServer() as upstream,
        ControlPlane(*resources(upstream.address)) as plane,
        mesh_of(plane, {}) as mesh,
    ):
        channel = kind("xds:///reviews", mesh)
        channel.call("unary_unary")
        [ended] = recorded.points("grpc.client.attempt.duration")
        assert set(ended.attributes) == {"grpc.method", "grpc.target", "grpc.status"}
        names = {metric.name for metric in recorded.metrics}
        assert not [name for name in names if name.startswith(OFF)]
        channel.close()
