"""Load reports to a real control plane, of real calls: LR-01 to LR-05, OR-01."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

import meshlib
import meshlib.grpc
from meshlib.testing import ControlPlane, build
from meshlib.testing.grpc_upstream import GrpcUpstream
from meshlib.testing.upstream import Upstream
from meshlib.xds import schema
from meshlib.xds.orca import BINARY, TEXT
from tests.support.asking import asked
from tests.support.watch import until

SELF: dict[str, Any] = {"lrs_server": {"self": {}}}
REPORT = schema.message("xds.data.orca.v3.OrcaLoadReport")(named_metrics={"q": 2.5}, cpu_utilization=0.25)
SAID = (TEXT, "TEXT named_metrics.q=2.5,cpu_utilization=0.25")
METRICS = ["named_metrics.*", "cpu_utilization"]
KINDS = ["http", "unary", "with_call", "future", "stream", "aio unary", "aio stream"]


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        yield running


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    kind = request.getfixturevalue("kind") if "kind" in request.fixturenames else "http"
    with Upstream() if kind == "http" else GrpcUpstream() as running:
        yield running


def put(plane: ControlPlane, server: Any, *, zone: str = "z", endpoints: Any = None, **cluster: Any) -> None:
    host = build.virtual_host("reviews", build.route("/", cluster="c"), domains=["reviews"])
    members = build.locality(server.address, region="r", zone=zone)
    plane.update(
        build.api_listener("reviews", build.route_config("r", host)),
        build.cluster("c", **(SELF | cluster)),
        build.endpoints("c", members, **(endpoints or {})),
    )


@contextmanager
def mesh_of(plane: ControlPlane, view: str = "target") -> Iterator[meshlib.Mesh]:
    with meshlib.Mesh({"xds": {"server": plane.address, "view": view}, "unknown_hosts": "refuse"}) as mesh:
        yield mesh


def call(mesh: meshlib.Mesh, kind: str, count: int = 1) -> None:
    """Calls of that kind, read to their ends, however these are."""
    if kind == "http":
        with meshlib.Client(mesh=mesh) as client:
            for _ in range(count):
                with suppress(httpx.HTTPError, meshlib.MeshError):
                    client.get("http://reviews/")
    elif kind.startswith("aio"):
        asyncio.run(_aio(mesh, kind, count))
    else:
        with meshlib.grpc.channel("reviews", mesh=mesh) as channel:
            for _ in range(count):
                with suppress(grpc.RpcError):
                    _rpc(channel, kind)


def _rpc(channel: grpc.Channel, kind: str) -> None:
    if kind == "stream":
        list(channel.stream_stream("/a.B/StreamStream")(iter([b"a", b"b"])))
        return
    made = channel.unary_unary("/a.B/C")
    if kind == "unary":
        made(b"x")
    elif kind == "future":
        made.future(b"x").result()
    else:
        made.with_call(b"x")


async def _aio(mesh: meshlib.Mesh, kind: str, count: int) -> None:
    async with meshlib.grpc.aio.channel("reviews", mesh=mesh) as channel:
        for _ in range(count):
            with suppress(grpc.RpcError):
                if kind == "aio unary":
                    await channel.unary_unary("/a.B/C")(b"x")
                else:
                    async for _ in channel.stream_stream("/a.B/StreamStream")(iter([b"a", b"b"])):
                        pass


def total(plane: ControlPlane, wanted: dict[str, int]) -> Any:
    """Wait until the reports on the cluster come to that; the last of them in which there is anything."""
    plane.loads.wait_for(lambda: plane.loads.total("c") == wanted, timeout=10.0)
    reports = plane.loads.reports("c")
    return next(
        each for each in reversed(reports) if each.upstream_locality_stats or each.total_dropped_requests
    )


def places(plane: ControlPlane) -> list[Any]:
    """What the reports so far say of localities: calls that follow each other may be in several."""
    return [place for stats in plane.loads.reports("c") for place in stats.upstream_locality_stats]


def dropped(plane: ControlPlane) -> dict[str, int]:
    """By category, in all reports so far."""
    found: Counter[str] = Counter()
    for stats in plane.loads.reports("c"):
        found.update({each.category: each.dropped_count for each in stats.dropped_requests})
    return dict(found)


def wants(mesh: meshlib.Mesh, cluster: str) -> bool:
    """Whether it has heard that the server wants to be told of that cluster, of which it says nothing."""
    [lrs] = [source for source in mesh._runtime().feed.sources if source.kind == "lrs"]
    return any(cluster in each._machine._clusters for each in tuple(lrs._servers.values()))


def counts(issued: int, succeeded: int, failed: int, active: int = 0, dropped: int = 0) -> dict[str, int]:
    return {"issued": issued, "succeeded": succeeded, "failed": failed, "active": active, "dropped": dropped}


@pytest.mark.parametrize("kind", KINDS)
def test_calls_are_reported(plane: ControlPlane, server: Any, kind: str) -> None:
    """LR-01, LR-02, LR-03."""
    put(plane, server)
    with mesh_of(plane) as mesh:
        call(mesh, kind, 3)
        plane.loads.wait_for(lambda: plane.loads.requests)
        first = plane.loads.requests[0]
        assert first.node.client_features[-1] == "envoy.lrs.supports_send_all_clusters"
        assert not len(first.cluster_stats)
        server.fail(500 if kind == "http" else grpc.StatusCode.INTERNAL, times=2)
        call(mesh, kind, 2)
        plane.loads.ask()
        stats = total(plane, counts(5, 3, 2))
        [place] = stats.upstream_locality_stats
        assert (place.locality.region, place.locality.zone) == ("r", "z")
        assert stats.load_report_interval.ToNanoseconds() >= 1e9
        assert plane.loads.opened == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_endpoints_say_of_their_load_is_passed_on(plane: ControlPlane, server: Any, kind: str) -> None:
    """LR-05, OR-01."""
    put(plane, server, lrs_report_endpoint_metrics=METRICS)
    server.order(**{"headers" if kind == "http" else "trailers": (SAID,)})
    plane.loads.ask()
    with mesh_of(plane) as mesh:
        call(mesh, kind, 2)
        total(plane, counts(2, 2, 0))
    metrics = [metric for place in places(plane) for metric in place.load_metric_stats]
    assert {metric.metric_name for metric in metrics} == {"named_metrics.q"}
    assert sum(metric.num_requests_finished_with_metric for metric in metrics) == 2
    assert sum(metric.total_metric_value for metric in metrics) == 5.0
    used = [place.cpu_utilization for place in places(plane)]
    assert sum(each.num_requests_finished_with_metric for each in used) == 2
    assert sum(each.total_metric_value for each in used) == 0.5


@pytest.mark.parametrize("kind", ["unary", "future", "stream", "aio unary"])
def test_an_rpc_that_fails_says_so_too(plane: ControlPlane, server: Any, kind: str) -> None:
    """OR-01: with whatever status."""
    put(plane, server, lrs_report_endpoint_metrics=METRICS)
    server.order(code=grpc.StatusCode.INTERNAL, trailers=(SAID,))
    plane.loads.ask()
    with mesh_of(plane) as mesh:
        call(mesh, kind)
        total(plane, counts(1, 0, 1))
    metrics = [metric for place in places(plane) for metric in place.load_metric_stats]
    assert [each.metric_name for each in metrics] == ["named_metrics.q"]


def test_grpcs_core_keeps_the_binary_form_for_itself() -> None:
    """Why that of a gRPC call is not reported: once this fails, it can be."""
    with GrpcUpstream() as server, grpc.insecure_channel(server.address) as channel:
        server.order(trailers=((BINARY, REPORT.SerializeToString()), SAID))
        _, made = channel.unary_unary("/a.B/C").with_call(b"x")
        assert dict(made.trailing_metadata()) == dict([SAID])


@pytest.mark.parametrize(
    "said", [(BINARY, b"\xff\xff\xff"), (TEXT, "JSON {"), (TEXT, "TEXT named_metrics.q=x")]
)
def test_what_is_no_report_costs_the_call_nothing(plane: ControlPlane, said: Any) -> None:
    """OR-01."""
    with GrpcUpstream() as server:
        put(plane, server, lrs_report_endpoint_metrics=METRICS)
        server.order(trailers=(said,))
        with mesh_of(plane) as mesh, meshlib.grpc.channel("reviews", mesh=mesh) as channel:
            for _ in range(3):
                assert channel.unary_unary("/a.B/C")(b"x")


@pytest.mark.parametrize("kind", ["http", "unary"])
def test_drops_and_limits(plane: ControlPlane, server: Any, kind: str) -> None:
    """LR-03: both are in the total, the categories by themselves."""
    share = {"category": "throttle", "drop_percentage": {"numerator": 100}}
    put(plane, server, endpoints={"policy": {"drop_overloads": [share]}})
    plane.loads.ask()
    with mesh_of(plane) as mesh:
        call(mesh, kind, 3)
        total(plane, counts(0, 0, 0, dropped=3))
        assert dropped(plane) == {"throttle": 3}
        put(plane, server, circuit_breakers={"thresholds": [{"max_requests": 0}]})
        mesh._runtime().store.wait(lambda view: mesh.snapshot().clusters["c"].limits.max_requests == 0, 5.0)
        plane.wait_for_ack("endpoint")
        call(mesh, kind, 2)
        total(plane, counts(0, 0, 0, dropped=5))
        assert dropped(plane) == {"throttle": 3}, "these two are of no category"


def test_only_clusters_that_the_server_wants(plane: ControlPlane, server: Any) -> None:
    """LR-02: what was counted while nobody asked is not told later."""
    put(plane, server)
    plane.loads.ask("another")
    with mesh_of(plane) as mesh:
        call(mesh, "http", 3)
        plane.loads.wait_for(lambda: len(plane.loads.requests) == 2, timeout=10.0)  # the node, and no cluster
        assert not len(plane.loads.requests[1].cluster_stats)
        plane.loads.ask("c")
        assert asked(lambda: wants(mesh, "c"))
        call(mesh, "http", 1)
        total(plane, counts(1, 1, 0))


def test_there_is_no_stream_as_long_as_no_cluster_asks(plane: ControlPlane, server: Any) -> None:
    """LR-01, LR-04: nor once none does any more, after a last report."""
    put(plane, server, lrs_server=None)
    plane.loads.ask()
    with mesh_of(plane) as mesh:
        call(mesh, "http")
        assert plane.loads.opened == 0
        put(plane, server)
        plane.loads.wait_for(lambda: plane.loads.streams == 1)
        call(mesh, "http", 2)
        put(plane, server, lrs_server=None)
        total(plane, counts(2, 2, 0))
        plane.loads.wait_for(lambda: plane.loads.streams == 0, timeout=10.0)
        assert plane.loads.opened == 1


def test_a_stream_that_ends_is_opened_anew_and_nothing_is_lost(plane: ControlPlane, server: Any) -> None:
    """LR-04."""
    put(plane, server)
    plane.loads.ask()
    with mesh_of(plane) as mesh:
        call(mesh, "http", 2)
        total(plane, counts(2, 2, 0))
        plane.loads.drop()
        plane.loads.wait_for(
            lambda: plane.loads.streams == 0 or plane.loads.opened == 2
        )  # it may be back already
        call(mesh, "http", 3)
        total(plane, counts(5, 5, 0))
        assert plane.loads.opened == 2


def test_a_cluster_that_an_earlier_process_kept_is_reported(
    plane: ControlPlane, server: Any, tmp_path: Path
) -> None:
    """The server sends it as it was: it is not read anew."""
    put(plane, server)
    plane.loads.ask()
    xds = {"server": plane.address, "view": "target", "last_good": str(tmp_path / "kept")}
    with meshlib.Mesh({"xds": xds}) as mesh:
        call(mesh, "http")
        total(plane, counts(1, 1, 0))
        until(
            mesh,
            lambda: any(each.name == "last_good" and each.state == "ready" for each in mesh.status().sources),
        )
    with meshlib.Mesh({"xds": xds}) as mesh:
        call(mesh, "http", 2)
        assert mesh.status().sources
        assert not any(source.ignored for source in mesh.status().sources)
        total(plane, counts(3, 3, 0))


def test_both_views_of_a_server_have_one_stream(plane: ControlPlane, server: Any) -> None:
    put(plane, server)
    plane.loads.ask()
    with mesh_of(plane, "auto") as mesh:
        call(mesh, "http", 2)
        total(plane, counts(2, 2, 0))
        assert plane.loads.opened == 1


def test_a_control_plane_without_the_service_hinders_nothing(server: Any) -> None:
    class Without(ControlPlane):
        def _install(self, grpc_server: grpc.Server) -> None:
            from meshlib.testing.control_plane import _method

            methods = {
                name.rpartition("/")[2]: _method(self._serve, protocol)
                for name, protocol in ((schema.ADS_SOTW, "sotw"), (schema.ADS_DELTA, "delta"))
            }
            service = schema.ADS_SOTW.rpartition("/")[0].removeprefix("/")
            grpc_server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))

    with Without() as plane:
        put(plane, server)
        with mesh_of(plane) as mesh, meshlib.Client(mesh=mesh) as client:
            assert client.get("http://reviews/").status_code == 200
            assert all(source.state == "ready" for source in mesh.status().sources)


FORKS = """
import os, sys
import meshlib
mesh = meshlib.Mesh({"xds": {"server": sys.argv[1], "view": "target"}})

def call():
    with meshlib.Client(mesh=mesh) as client:
        return client.get("http://reviews/").status_code

print(call(), flush=True)
input()
reading, writing = os.pipe()
pid = os.fork()
if not pid:
    os.close(writing)
    call()
    os.read(reading, 1)  # until the parent was told that all is reported
    os._exit(0)
os.close(reading)
print(call(), flush=True)
input()
os.close(writing)
print(os.waitpid(pid, 0)[1], flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here: run it on Linux")
def test_a_fork_has_a_stream_of_its_own(plane: ControlPlane, server: Any) -> None:
    put(plane, server)
    plane.loads.ask()
    command = [sys.executable, "-c", FORKS, plane.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = [process.stdout.readline()]
        total(plane, counts(1, 1, 0))
        for wanted in (3, 3):
            process.stdin.write("\n")
            process.stdin.flush()
            said.append(process.stdout.readline())
            total(plane, counts(wanted, wanted, 0))
        assert said == ["200\n", "200\n", "0\n"]
    assert plane.loads.opened == 3  # the parent's, the child's, the parent's again
