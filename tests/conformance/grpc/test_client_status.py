"""CSDS: what a client says of its resources; grpcio's own client is asked by what its package of that service asks (CS-01, CS-02)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpc._cython import cygrpc

from meshlib.testing import build
from meshlib.xds import csds, schema
from tests.support.asking import asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.testing import ControlPlane
    from tests.conformance.support.scene import Scene

_RESPONSE = schema.message("envoy.service.status.v3.ClientStatusResponse")
_STATES = {number: value.name for number, value in (
    schema.message("envoy.service.status.v3.ClientConfig.GenericXdsConfig")
    .DESCRIPTOR.fields_by_name["client_status"].enum_type.values_by_number.items()
)}  # fmt: skip


@pytest.fixture
def status(kind: str, connect: Any, scene: Scene) -> Callable[[], dict[tuple[str, str], Any]]:
    """A function that gives what the client says, by type and name."""

    def said() -> dict[tuple[str, str], Any]:
        if kind == "grpcio":
            raw = cygrpc.dump_xds_configs()
        else:
            sources = connect._mesh._runtime().feed.sources
            raw = csds.answer(b"", lambda: [[each for source in sources for each in source.xds_states()]])
        found = {}
        for config in _RESPONSE.FromString(raw).config:
            for each in config.generic_xds_configs:
                found[schema.SHORT_NAMES[each.type_url], each.name] = each
        return found

    return said


def facts(each: Any) -> tuple[str, str, bytes, str]:
    """State, version, the resource's own bytes, and the version that was refused."""
    return (
        _STATES[each.client_status],
        each.version_info,
        each.xds_config.value,
        each.error_state.version_info,
    )


def same(status: Callable[..., Any], facts_of: dict[tuple[str, str], tuple[Any, ...]]) -> None:
    """What is said of those resources of the target becomes this."""
    last: dict[Any, Any] = {}

    def is_so() -> bool:
        found = status()
        last.update({key: facts(found[key]) if key in found else None for key in facts_of})
        return last == facts_of

    assert asked(is_so, 20.0), last


@pytest.mark.sotw("a version is the response's")
def test_states(
    scene: Scene, plane: ControlPlane, connect: Callable[..., Any], status: Callable[..., Any]
) -> None:
    name = scene.name
    cluster = (
        f"c-{name}"  # grpcio has one client for all channels to a server: names of other cases are there, too
    )
    (server,) = [scene.serve("a")]
    good = [scene.listener(), scene.routes(build.route(cluster=cluster)), *scene.cluster(cluster, server)]
    plane.update(*good)
    connect().becomes("a")
    keys = {"listener": name, "route": name, "cluster": cluster, "endpoint": cluster}
    kept = {short: _raw(made) for short, made in zip(keys, good, strict=True)}
    acked = {(short, of): ("ACKED", plane.version(short), kept[short], "") for short, of in keys.items()}
    same(status, acked)
    before = plane.version("cluster")
    plane.update(build.cluster(cluster, eds_cluster_config={}), version="bad")
    same(status, {("cluster", cluster): ("NACKED", before, kept["cluster"], "bad")})
    plane.update(good[2], version="mended")
    same(status, {("cluster", cluster): ("ACKED", "mended", kept["cluster"], "")})


@pytest.mark.sotw("a version is the response's")
def test_what_is_not_there(
    scene: Scene, plane: ControlPlane, connect: Callable[..., Any], status: Callable[..., Any]
) -> None:
    plane.hold("listener")
    pending = connect().start(timeout=30)
    same(status, {("listener", scene.name): ("REQUESTED", "", b"", "")})
    plane.update(build.api_listener(f"other-{scene.name}", "x"))
    plane.release("listener")
    same(status, {("listener", scene.name): ("DOES_NOT_EXIST", "", b"", "")})
    pending.cancel()


def _raw(resource: dict[str, Any]) -> bytes:
    kind = schema.type_name(resource["@type"])
    made = schema.from_json(kind, build.without_type(resource))
    return bytes(made.SerializeToString(deterministic=True))
