"""Order of arrival, with a real control plane and real calls of every library: what waits, what is answered meanwhile, and
what a control plane that is silent or away means. The whole table is in ``tests/unit/sources/test_arrival.py``.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import ControlPlane, build
from tests.support.libraries import LIBRARIES, call
from tests.support.watch import Waiters

TYPES = ("listener", "route", "cluster", "endpoint")
UpstreamFactory = Any
Calls = Callable[..., "Future[Any]"]


@pytest.fixture
def calls() -> Iterator[Calls]:
    """Begin a call in a thread of its own."""
    with ThreadPoolExecutor(8) as pool:
        yield lambda library, mesh, url, **options: pool.submit(call, library, mesh, "GET", url, **options)


def resources(direct: str, mesh: str) -> list[dict[str, Any]]:
    """A listener at the address of the upstream `direct`, and a target `reviews`; both lead to the upstream `mesh`."""
    host = build.virtual_host(
        "v",
        build.route("/forbidden", respond=(403, "no")),
        build.route("/gone", cluster="gone"),
        build.route("/", cluster="c"),
        domains=["reviews", direct],
    )
    return [
        build.listener("l", "r", address=direct),
        build.api_listener("reviews", "r"),
        build.route_config("r", host),
        build.cluster("c"),
        build.endpoints("c", mesh),
    ]


def settings(plane: ControlPlane, view: str, **xds: Any) -> dict[str, Any]:
    return {"xds": {"server": plane.address, "view": view, **xds}}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("view", "url"), [("sidecar", "http://reviews:{port}/a"), ("target", "http://reviews/a")]
)
@pytest.mark.parametrize("late", TYPES)
def test_a_call_by_name_waits_for_what_is_late(
    library: str, late: str, view: str, url: str, upstream: UpstreamFactory, calls: Calls
) -> None:
    direct, ours = upstream("direct"), upstream("mesh")
    port = direct.address.rpartition(":")[2]
    url = url.format(port=port)
    made = resources(direct.address, ours.address)
    if view == "sidecar":
        host = build.virtual_host("v", build.route("/", cluster="c"), domains=[f"reviews:{port}"])
        made[2] = build.route_config("r", host)
    with ControlPlane(*made) as plane, meshlib.Mesh(settings(plane, view)) as mesh:
        plane.hold(late)
        waiters = Waiters(mesh._runtime().store)
        waiting = calls(library, mesh, url)
        plane.wait_for_request(late, timeout=20)
        waiters.until(1)
        assert not waiting.done()
        plane.release(late)
        status, body, info = waiting.result(20)
        assert (status, json.loads(body)["name"], info.via) == (200, "mesh", "mesh")


@pytest.mark.parametrize("late", TYPES[1:])
def test_what_is_there_is_answered_while_the_rest_is_late(
    late: str, upstream: UpstreamFactory, calls: Calls
) -> None:
    """By address: the 403 that the routes order stands before every cluster, and nothing goes direct past it."""
    direct, ours = upstream("direct"), upstream("mesh")
    base = f"http://{direct.address}"
    with ControlPlane(*resources(direct.address, ours.address)) as plane:
        plane.hold(late)
        with meshlib.Mesh(settings(plane, "sidecar")) as mesh:
            mesh.snapshot()
            plane.wait_for_ack("listener", timeout=20)
            plane.wait_for_request(late, timeout=20)
            waiters = Waiters(mesh._runtime().store)
            waiting = calls("httpx", mesh, f"{base}/a")
            waiters.until(1)
            forbidden = calls("requests", mesh, f"{base}/forbidden")
            if late == "route":
                waiters.until(2)
                plane.release(late)
            assert forbidden.result(20)[0] == 403
            plane.release(late)
            status, body, _ = waiting.result(20)
            assert (status, json.loads(body)["name"]) == (200, "mesh")
    assert direct.requests_total == 0


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_address_is_called_directly_until_a_listener_has_it(
    library: str, upstream: UpstreamFactory
) -> None:
    direct, ours = upstream("direct"), upstream("mesh")
    with ControlPlane(*resources(direct.address, ours.address)) as plane:
        plane.hold()
        with meshlib.Mesh(settings(plane, "sidecar")) as mesh:
            began = time.monotonic()
            status, body, _ = call(library, mesh, "GET", f"http://{direct.address}/a")
            assert (status, json.loads(body)["name"]) == (200, "direct")
            assert time.monotonic() - began < 4.0  # less than any connect timeout: it did not wait
            plane.release()
            mesh.wait_ready(direct.address, timeout=20)
            assert json.loads(call(library, mesh, "GET", f"http://{direct.address}/a")[1])["name"] == "mesh"


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_route_whose_cluster_there_is_not_fails_as_in_envoy_and_alone(
    library: str, upstream: UpstreamFactory
) -> None:
    direct, ours = upstream("direct"), upstream("mesh")
    base = f"http://{direct.address}"
    with (
        ControlPlane(*resources(direct.address, ours.address)) as plane,
        meshlib.Mesh(settings(plane, "auto")) as mesh,
    ):
        mesh.wait_ready(direct.address, timeout=20)
        assert call(library, mesh, "GET", f"{base}/forbidden")[0] == 403
        assert json.loads(call(library, mesh, "GET", f"{base}/a")[1])["name"] == "mesh"
        with pytest.raises(meshlib.NoHealthyEndpoint, match="'gone', which is not among those that"):
            call(library, mesh, "GET", f"{base}/gone")
        assert any(words.startswith("cluster gone (") for words in mesh.status().sources[-1].missing)
        plane.remove("cluster", "c")
        assert mesh._runtime().store.wait(lambda view: "c" not in view.snapshot.clusters, 20)
        with pytest.raises(meshlib.NoHealthyEndpoint, match="'c', which was deleted by the server"):
            call(library, mesh, "GET", f"{base}/a")
        assert call(library, mesh, "GET", f"{base}/forbidden")[0] == 403
        assert "was deleted by the server" in "\n".join(mesh.explain("GET", f"{base}/a").trace())
    assert direct.requests_total == 0


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address that nobody listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


class TestAway:
    """A control plane that cannot be reached at the start."""

    def mesh(self, address: str, **more: Any) -> meshlib.Mesh:
        xds = {"server": address, "domains": ["localhost"], **more.pop("xds", {})}
        return meshlib.Mesh({"xds": xds, **more})

    @pytest.mark.parametrize("library", LIBRARIES)
    def test_the_call_is_made_directly_and_everything_says_why(
        self, library: str, nowhere: str, upstream: UpstreamFactory, caplog: pytest.LogCaptureFixture
    ) -> None:
        port = upstream("direct").address.rpartition(":")[2]
        url = f"http://localhost:{port}/a"
        with caplog.at_level(logging.WARNING, logger="meshlib"), self.mesh(nowhere) as mesh:
            for _ in range(3):
                status, body, info = call(library, mesh, "GET", url)
                assert (status, json.loads(body)["name"]) == (200, "direct")
            assert info.via == "direct"
            words = "\n".join(info.trace())
            assert f"the control plane {nowhere} is not reachable (" in words
            assert "has no listener" not in words
            decision = mesh.explain("GET", url)
            assert decision.via == "direct"
            assert f"the control plane {nowhere} is not reachable (" in "\n".join(decision.trace())
        assert len([line for line in caplog.messages if "a call to localhost" in line]) == 1

    @pytest.mark.parametrize("library", LIBRARIES)
    @pytest.mark.parametrize("more", [{"xds": {"cold_start": "fail"}}, {"unknown_hosts": "refuse"}])
    def test_where_no_such_call_may_be_made(
        self, library: str, more: dict[str, Any], nowhere: str, upstream: UpstreamFactory
    ) -> None:
        one = upstream("direct")
        port = one.address.rpartition(":")[2]
        with self.mesh(nowhere, **more) as mesh:
            with pytest.raises(
                meshlib.NotReady, match=f"{nowhere} is not reachable.*localhost:{port}"
            ) as caught:
                call(library, mesh, "GET", f"http://localhost:{port}/a")
            assert caught.value.info.via == "mesh"
            assert mesh.explain("GET", f"http://localhost:{port}/a").via == "mesh"
            # What is not for the control plane to say goes on.
            if "xds" in more:
                assert call(library, mesh, "GET", f"http://{one.address}/a")[0] == 200
        assert one.requests_total == (1 if "xds" in more else 0)

    def test_as_a_response(self, nowhere: str) -> None:
        with self.mesh(nowhere, xds={"cold_start": "fail"}, failures="respond") as mesh:
            assert call("httpx", mesh, "GET", "http://localhost:1/a")[:2] == (503, b"not ready")
            assert call("requests", mesh, "GET", "http://localhost:1/a")[:2] == (503, b"not ready")

    def test_one_that_takes_the_stream_and_says_nothing(self, upstream: UpstreamFactory) -> None:
        """A call waits for its own connect timeout; then it is told that nothing was answered."""
        port = upstream("direct").address.rpartition(":")[2]
        url = f"http://localhost:{port}/a"
        with ControlPlane() as plane:
            plane.hold()
            with self.mesh(plane.address) as mesh:
                timeout = httpx.Timeout(5.0, connect=0.5)
                _, body, info = call("httpx", mesh, "GET", url, timeout=timeout)
                assert json.loads(body)["name"] == "direct"
                assert "has not answered" in "\n".join(info.trace())
                trace = "\n".join(mesh.explain("GET", url).trace())
                assert "a call waits for that, else: the control plane" in trace
            with self.mesh(plane.address, xds={"cold_start": "fail", "protocol": "sotw"}) as mesh:
                with pytest.raises(meshlib.NotReady, match="has not answered"):
                    call("httpx", mesh, "GET", url, timeout=timeout)
                plane.release()
                with pytest.raises(meshlib.NotReady, match="has not answered"):
                    call("httpx", mesh, "GET", url, timeout=timeout)  # by name nobody says that there is none
            with self.mesh(plane.address, xds={"cold_start": "fail", "protocol": "delta"}) as mesh:
                # DL-06: here it is said, and at once: the host is of no mesh.
                timeout = httpx.Timeout(5.0, connect=20.0)
                _, body, info = call("httpx", mesh, "GET", url, timeout=timeout)
                assert (json.loads(body)["name"], info.via) == ("direct", "direct")
