"""Aggregates with real calls (CD-04): an update walk without a failed call, retries on another cluster, and what is told of it all."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import meshlib
import meshlib.grpc
from meshlib.testing import ControlPlane, Upstream, build
from meshlib.testing.grpc_upstream import GrpcUpstream
from tests.support.telemetry import sdk
from tests.support.watch import Watch, until

SELF = {"lrs_server": {"self": {}}}
VIEWS = ["target", "sidecar"]
#: Who is called: a name that is asked for, or where a listener for an Envoy is.
HOSTS = {"target": "reviews", "sidecar": "127.0.0.1:18099"}
HOST = HOSTS["target"]


def leaf(name: str, *servers: Any, health: str = "HEALTHY", **fields: Any) -> list[Any]:
    members = [build.endpoint(server.address, health=health) for server in servers]
    return [build.cluster(name, **fields), build.endpoints(name, *members)]


def way(view: str, **action: Any) -> list[Any]:
    """The listener and routes that lead to the aggregate `all`."""
    routes = build.route_config(
        "r", build.virtual_host("v", build.route("/", cluster="all", action=action), domains=["*"])
    )
    if view == "target":
        return [build.api_listener(HOST, "r"), routes]
    return [build.listener("l", "r", address=HOSTS[view]), routes]


@contextmanager
def mesh_of(plane: ControlPlane, view: str, **more: Any) -> Iterator[meshlib.Mesh]:
    xds = {"server": plane.address, "view": view, **more}
    with meshlib.Mesh({"xds": xds, "unknown_hosts": "refuse"}) as mesh:
        yield mesh


def http_caller(mesh: meshlib.Mesh) -> Any:
    return meshlib.Client(mesh=mesh, timeout=10)


class Rpcs:
    """A channel, called as a client of HTTP is; gives the name of who answered."""

    def __init__(self, mesh: meshlib.Mesh, host: str) -> None:
        self._channel = meshlib.grpc.channel(host, mesh=mesh)
        self._unary = self._channel.unary_unary("/shop.Stock/Get")

    def __call__(self) -> str:
        return str(json.loads(self._unary(b"", timeout=10, wait_for_ready=True))["name"])

    def close(self) -> None:
        self._channel.close()


class Gets:
    def __init__(self, mesh: meshlib.Mesh, host: str) -> None:
        self._client, self._url = http_caller(mesh), f"http://{host}/"

    def __call__(self) -> str:
        response = self._client.get(self._url)
        response.raise_for_status()
        return str(response.json()["name"])

    def close(self) -> None:
        self._client.close()


@contextmanager
def calling(call: Callable[[], str]) -> Iterator[Counter[str]]:
    """Inside, calls are made all the time; who answered how often. None may fail."""
    seen: Counter[str] = Counter()
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            seen[call()] += 1

    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(go_on)
        try:
            yield seen
        finally:
            over.set()
        going.result(30)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_an_update_walk_fails_no_call(kind: str, view: str) -> None:
    """CD-04: a cluster that comes late, becomes unhealthy, is well again, is deleted and returns; one that is put before the others."""
    make = Upstream if kind == "http" else GrpcUpstream
    with make("one") as one, make("two") as two, make("three") as three, ControlPlane() as plane:
        plane.update(
            *way(view), build.aggregate("all", "first", "second"), *leaf("second", two), *leaf("first")
        )
        with mesh_of(plane, view) as mesh:
            mesh.wait_ready(HOSTS[view], timeout=30)
            caller: Any = (Gets if kind == "http" else Rpcs)(mesh, HOSTS[view])
            watch = Watch(mesh)

            def become(name: str) -> None:
                seen.clear()
                watch.until(lambda: seen[name] and caller() == name and caller() == name)

            assert caller() == "two", "the first has nobody"
            with calling(caller) as seen:
                plane.update(*leaf("first", one))
                become("one")
                plane.update(*leaf("first", one, health="UNHEALTHY"))
                become("two")
                plane.update(*leaf("first", one))
                become("one")
                plane.remove("cluster", "first")
                become("two")
                plane.update(*leaf("first", one))
                become("one")
                plane.update(build.aggregate("all", "new", "first"), *leaf("new", three))
                become("three")
            assert not any(source.rejected for source in mesh.status().sources)
            caller.close()


def test_a_retry_may_go_to_another_cluster_and_the_record_says_where() -> None:
    """The load is shared 70 to 30: some calls begin and end at the second, some end at the first for all their retries."""
    retry = {"retry_on": "5xx", "num_retries": 8, "retry_back_off": {"base_interval": "0.001s"}}
    with Upstream("one") as one, Upstream("two") as two, ControlPlane() as plane, sdk() as recorded:
        members = [build.endpoint(one.address), build.endpoint("127.0.0.1:1", health="UNHEALTHY")]
        plane.update(
            *way("target", retry_policy=retry),
            build.aggregate("all", "first", "second"),
            build.cluster("first"),
            build.endpoints("first", *members),
            *leaf("second", two),
        )
        one.fail(503, times=None)
        with mesh_of(plane, "target") as mesh, http_caller(mesh) as client:
            info = None
            while info is None or len(info.attempts) < 2 or info.cluster == "first":
                response = client.get(f"http://{HOST}/")
                info = meshlib.call_info(response)
                assert (response.json()["name"] == "two") == (info.cluster == "second")
            assert info.cluster == "second"
            assert {attempt.endpoint for attempt in info.attempts} == {one.address, two.address}
            assert "cluster all: its leaf first, then second" in info.trace()
            status = mesh.status().clusters
            assert status["all"].leaves == ("first", "second")
            assert status["all"].retries >= 1
            assert status["first"].failures >= 1
            clusters = {span.attributes.get("meshlib.cluster") for span in recorded.spans}
            assert {"first", "second"} <= clusters


@pytest.mark.parametrize("view", VIEWS)
def test_explain_says_why(view: str) -> None:
    with Upstream("one") as one, Upstream("two") as two, ControlPlane() as plane:
        members = [build.endpoint(one.address), build.endpoint("127.0.0.1:1", health="UNHEALTHY")]
        plane.update(
            *way(view),
            build.aggregate("all", "ghost", "first", "second"),
            build.cluster("first"),
            build.endpoints("first", *members),
            *leaf("second", two),
        )
        with mesh_of(plane, view) as mesh:
            mesh.wait_ready(HOSTS[view], timeout=30)
            decision = mesh.explain("GET", f"http://{HOSTS[view]}/")
            why = f"leaf {decision.cluster}, by how usable each is: first 70 %, second 30 %"
            assert why in decision.lines
            assert decision.endpoint == (one if decision.cluster == "first" else two).address
            plane.update(build.endpoints("first"), build.endpoints("second"))
            until(mesh, lambda: not mesh.explain("GET", f"http://{HOSTS[view]}/").endpoint)
            lines = "\n".join(mesh.explain("GET", f"http://{HOSTS[view]}/").lines)
            assert "'first' has no endpoint" in lines
            with http_caller(mesh) as client, pytest.raises(meshlib.NoHealthyEndpoint, match="'ghost'"):
                client.get(f"http://{HOSTS[view]}/")


def test_loads_are_reported_of_the_leaf() -> None:
    """LR-01: and what the aggregate says of reports is not used (A37)."""
    with Upstream("one") as one, ControlPlane() as plane:
        plane.update(*way("target"), build.aggregate("all", "first", **SELF), *leaf("first", one, **SELF))
        with mesh_of(plane, "target") as mesh, http_caller(mesh) as client:
            for _ in range(3):
                client.get(f"http://{HOST}/")
            plane.loads.ask()
            plane.loads.wait_for(lambda: plane.loads.total("first")["succeeded"] == 3, timeout=10.0)
            assert not plane.loads.reports("all")


def test_what_an_earlier_process_kept_serves(tmp_path: Path) -> None:
    with Upstream("one") as one, Upstream("two") as two:
        with ControlPlane() as plane:
            address = plane.address
            plane.update(*way("target"), build.aggregate("all", "in", "second"), *leaf("second", two))
            plane.update(build.aggregate("in", "first"), *leaf("first", one))
            with (
                mesh_of(plane, "target", last_good=str(tmp_path / "kept")) as mesh,
                http_caller(mesh) as client,
            ):
                assert client.get(f"http://{HOST}/").json()["name"] == "one"
                until(
                    mesh,
                    lambda: any(
                        each.name == "last_good" and each.state == "ready" for each in mesh.status().sources
                    ),
                )
        xds = {"server": address, "view": "target", "last_good": str(tmp_path / "kept")}
        with meshlib.Mesh({"xds": xds, "unknown_hosts": "refuse"}) as mesh, http_caller(mesh) as client:
            assert client.get(f"http://{HOST}/").json()["name"] == "one"


def test_a_file_in_envoys_shape(tmp_path: Path) -> None:
    """And what it names that is not there is told, as it is skipped."""
    with Upstream("one") as one, Upstream("two") as two:
        resources = [
            *way("sidecar"),
            build.aggregate("all", "ghost", "first", "second"),
            build.cluster("first", [one.address]),
            build.cluster("second", [two.address]),
        ]
        kinds = {"Listener": "listeners", "RouteConfiguration": "routes", "Cluster": "clusters"}
        held: dict[str, list[Any]] = {}
        for each in resources:
            held.setdefault(kinds[each["@type"].rpartition(".")[2]], []).append(each)
        path = tmp_path / "envoy.json"
        path.write_text(json.dumps(held))
        with meshlib.Mesh(str(path)) as mesh, http_caller(mesh) as client:
            assert client.get(f"http://{HOSTS['sidecar']}/").json()["name"] == "one"
            told = [
                (each.resource, each.value) for source in mesh.status().sources for each in source.ignored
            ]
            assert ("all", "ghost is not in the file") in told


def test_a_channel_connects_and_has_its_state() -> None:
    """GRPC channels go by the leaf: its connections, and whether it can be reached."""
    with GrpcUpstream("one") as one, ControlPlane() as plane:
        plane.update(*way("target"), build.aggregate("all", "first"), *leaf("first", one))
        with mesh_of(plane, "target") as mesh, meshlib.grpc.channel(HOST, mesh=mesh) as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
            assert json.loads(channel.unary_unary("/shop.Stock/Get")(b"", timeout=10))["name"] == "one"
