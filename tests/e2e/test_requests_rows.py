"""What other in-process meshes get wrong under requests, row by row of the reference; each is right here."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

import meshlib
import meshlib_requests
from meshlib.testing import ControlPlane, build
from meshlib.testing.upstream import Upstream
from tests.support.late import again_if_late, soon
from tests.support.watch import until

UpstreamFactory = Any
SessionFactory = Callable[..., meshlib_requests.Session]


@pytest.fixture
def session() -> Any:
    """Makes sessions of a mesh with this configuration; both are closed in the end."""
    opened: list[Any] = []

    def make(config: Any) -> meshlib_requests.Session:
        mesh = meshlib.Mesh(config)
        made = meshlib_requests.Session(mesh=mesh)
        opened.extend((mesh, made))
        return made

    yield make
    for one in reversed(opened):
        one.close()


def service(*upstreams: Upstream, **policies: Any) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": [up.address for up in upstreams], **policies}}}


def xds(plane: ControlPlane) -> dict[str, Any]:
    return {"xds": {"server": plane.address}}


def reviews(*clusters: Any, name: str = "c") -> list[Any]:
    routes = build.route_config("r", build.virtual_host("v", build.route("/", cluster=name)))
    return [build.api_listener("reviews", routes), *clusters]


def names(client: Any, count: int, url: str = "http://reviews/") -> Counter[str]:
    return Counter(client.get(url).json()["name"] for _ in range(count))


def dead_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"127.0.0.1:{closed.getsockname()[1]}"


def test_row_1_no_control_plane_is_needed(session: SessionFactory, upstream: UpstreamFactory) -> None:
    one = upstream("v1")
    assert session(service(one)).get("http://reviews/").json()["name"] == "v1"
    with meshlib_requests.Session() as plain:
        assert plain.get(one.url).json()["name"] == "v1"


def test_row_2_a_control_plane_that_comes_late_is_used(
    session: SessionFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    plane = ControlPlane().start()
    plane.set(*reviews(build.cluster("c", [one.address])))
    plane.kill()
    try:
        client = session(xds(plane))
        with pytest.raises(requests.ConnectionError):
            client.get("http://reviews/", timeout=0.3)
        plane.restart()

        mesh = client._mesh
        assert mesh is not None
        until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == one.address)
        assert client.get("http://reviews/").json()["name"] == "v1"
    finally:
        plane.stop()


def test_row_3_calls_go_on_while_the_control_plane_is_away(
    session: SessionFactory, upstream: UpstreamFactory, control_plane: ControlPlane
) -> None:
    one = upstream("v1")
    control_plane.set(*reviews(build.cluster("c", [one.address])))
    client = session(xds(control_plane))
    assert names(client, 1) == {"v1": 1}
    control_plane.kill()
    begun = time.monotonic()
    assert names(client, 200) == {"v1": 200}
    assert time.monotonic() - begun < 10


def test_row_4_streams_that_end_at_once_are_not_opened_in_a_rush(
    session: SessionFactory, upstream: UpstreamFactory, control_plane: ControlPlane
) -> None:
    one = upstream("v1")
    control_plane.set(*reviews(build.cluster("c", [one.address])))
    client = session(xds(control_plane))
    assert names(client, 1) == {"v1": 1}
    before = control_plane.opened
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        control_plane.drop_streams()
        assert names(client, 1) == {"v1": 1}
    assert control_plane.opened - before < 10


def test_row_6_a_control_plane_behind_tls_is_never_asked_in_plain_text(
    session: SessionFactory, control_plane: ControlPlane
) -> None:
    client = session({"xds": {"server": control_plane.address, "tls": {}}})
    with pytest.raises(requests.ConnectionError):
        client.get("http://reviews/", timeout=0.5)
    assert not control_plane.requests


def test_rows_5_7_and_8_istios_shape_and_least_request(
    session: SessionFactory, upstream: UpstreamFactory, control_plane: ControlPlane
) -> None:
    """Several virtual hosts, the most exact wins; names of clusters mean nothing. The server is of grpc-core: it sends its
    headers with its first message.
    """
    one, two = upstream("v1"), upstream("v2")
    long = "outbound|80||reviews.default.svc.cluster.local"
    routes = build.route_config(
        "80",
        build.virtual_host("rest", build.route("/", cluster="outbound|80||other"), domains=["*"]),
        build.virtual_host("mine", build.route("/", cluster=long), domains=["reviews", "reviews:80"]),
    )
    control_plane.set(
        build.api_listener("reviews", routes),
        build.cluster(long, [one.address], lb_policy="LEAST_REQUEST"),
        build.cluster("outbound|80||other", [two.address]),
    )
    assert names(session(xds(control_plane)), 5) == {"v1": 5}


def test_row_9_weights_of_endpoints_count(
    session: SessionFactory, upstream: UpstreamFactory, control_plane: ControlPlane
) -> None:
    one, two = upstream("v1"), upstream("v2")
    members = [build.endpoint(one.address, weight=9), build.endpoint(two.address, weight=1)]
    control_plane.set(*reviews(build.cluster("c", members)))
    assert names(session(xds(control_plane)), 40) == {"v1": 36, "v2": 4}


def test_row_10_health_and_priority_count(
    session: SessionFactory, upstream: UpstreamFactory, control_plane: ControlPlane
) -> None:
    good, bad, spare = upstream("good"), upstream("bad"), upstream("spare")
    first = build.locality(good.address, build.endpoint(bad.address, health="UNHEALTHY"))
    cluster = build.cluster(
        "c",
        [first, build.locality(spare.address, priority=1)],
        common_lb_config={"healthy_panic_threshold": {}},
    )
    control_plane.set(*reviews(cluster))
    found = names(session(xds(control_plane)), 250)  # 70 to 30, drawn: not so once in 10¹⁰ runs
    assert found["bad"] == 0
    assert found["good"] > found["spare"]


def test_row_11_a_dead_endpoint_is_ejected(session: SessionFactory, upstream: UpstreamFactory) -> None:
    alive = upstream("alive")
    config = {
        "services": {
            "reviews": {
                "endpoints": [alive.address, dead_address()],
                "outlier": {"consecutive_5xx": 2, "max_ejection_percent": 50},
            }
        }
    }
    client = session(config)
    failed = 0
    for _ in range(40):
        try:
            client.get("http://reviews/")
        except requests.ConnectionError:
            failed += 1
    assert failed == 2


def test_row_12_retries_go_to_another_endpoint(session: SessionFactory, upstream: UpstreamFactory) -> None:
    alive = upstream("alive")
    retry = {"attempts": 2, "on": ["connect-failure"]}
    endpoints = [alive.address, dead_address()]
    client = session(
        {"services": {"reviews": {"endpoints": endpoints, "retry": retry, "limits": {"max_retries": 100}}}}
    )
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: client.get("http://reviews/").status_code, range(160)))
    assert found == [200] * 160


def test_row_13_hosts_without_a_route_are_called_as_they_are(
    session: SessionFactory, upstream: UpstreamFactory, control_plane: ControlPlane
) -> None:
    one = upstream("v1")
    client = session(xds(control_plane))
    response = client.get(one.url)
    assert response.json()["name"] == "v1"
    info = meshlib.call_info(response)
    assert info is not None
    assert (info.via, info.endpoint) == ("direct", one.address)


def test_row_14_what_fails_is_requests_and_meshlibs(
    session: SessionFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    config = service(one, timeout=1.5, breaker={"consecutive_failures": 3, "open_for": 60.0})
    config["services"]["empty"] = {"endpoints": [dead_address()]}
    client = session(config)
    with pytest.raises(requests.ConnectionError) as connect:
        client.get("http://empty/")
    assert isinstance(connect.value, meshlib.ConnectFailed)
    assert connect.value.info.cluster == "empty"
    assert not connect.value.sent
    assert isinstance(connect.value.args[0], urllib3.exceptions.MaxRetryError)
    assert connect.value.request.url == "http://empty/"
    one.hang(times=1)
    with pytest.raises(requests.ReadTimeout) as late:
        client.get("http://reviews/")
    assert isinstance(late.value, meshlib.DeadlineExceeded)
    assert "1.5 s" in str(late.value)
    one.reset(times=2)
    for _ in range(2):
        with pytest.raises(requests.ConnectionError) as broken:
            client.get("http://reviews/")
        assert isinstance(broken.value, meshlib.TransportFailed)
    with pytest.raises(requests.ConnectionError) as refused:
        client.get("http://reviews/")
    assert isinstance(refused.value, meshlib.CircuitOpen)
    again = pickle.loads(pickle.dumps(connect.value))
    assert type(again) is type(connect.value)
    assert again.info.cluster == "empty"


@again_if_late
def test_row_15_the_callers_timeout_covers_finding_out_whom_to_call(session: SessionFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = session({"xds": {"server": f"127.0.0.1:{silent.getsockname()[1]}"}})
        begun = time.monotonic()
        with pytest.raises(requests.ConnectionError):
            client.get("http://nobody-has-this-name/", timeout=0.5)
        soon(time.monotonic() - begun, 2.0)


def test_row_16_host_is_what_was_asked(session: SessionFactory, upstream: UpstreamFactory) -> None:
    one = upstream("v1")
    config = {
        "services": {"reviews:9080": {"endpoints": [one.address]}, "shop": {"endpoints": [one.address]}}
    }
    client = session(config)

    def host(url: str, **options: Any) -> list[str]:
        lines = client.get(url, **options).json()["headers"]
        return [value for name, value in lines if name.lower() == "host"]

    assert host("http://reviews:9080/") == ["reviews:9080"]
    assert host("http://shop/", headers={"Host": "other:1"}) == ["other:1"]
    assert client.headers == requests.Session().headers
    manager = client.get_adapter("http://").poolmanager
    assert not manager.headers


def test_row_17_cert_and_proxies_are_honoured(
    session: SessionFactory, upstream: UpstreamFactory, caplog: pytest.LogCaptureFixture
) -> None:
    one, proxy = upstream("v1"), upstream("proxy")
    client = session(service(one))
    with pytest.raises(OSError, match="invalid path: /nowhere"):
        client.get("http://reviews/", cert="/nowhere/me.pem")
    with caplog.at_level(logging.WARNING, "meshlib"):
        for _ in range(3):
            said = client.get("http://reviews/x", proxies={"http": proxy.url}).json()
            assert (said["name"], said["path"]) == ("proxy", "http://reviews/x")
    assert [
        record.message
        for record in caplog.records
        if "proxy" in record.message and "reviews" in record.message
    ]
    assert len(caplog.records) == 1


def test_row_18_the_whole_public_surface_is_there() -> None:
    missing = [name for name in requests.__all__ if not hasattr(meshlib_requests, name)]
    assert not missing
    code = """
import meshlib_requests as requests
import requests as own
import meshlib_requests.exceptions, meshlib_requests.adapters, meshlib_requests.sessions, meshlib_requests.models
import meshlib_requests.auth, meshlib_requests.cookies, meshlib_requests.structures, meshlib_requests.utils
from meshlib_requests.auth import HTTPBasicAuth
from meshlib_requests.packages import urllib3
from meshlib_requests.status_codes import codes
assert requests.exceptions is own.exceptions and requests.exceptions.Timeout is own.Timeout
assert issubclass(requests.Session, own.Session) and issubclass(requests.adapters.HTTPAdapter, own.adapters.HTTPAdapter)
assert requests.sessions.Session is requests.Session and isinstance(requests.session(), requests.Session)
assert requests.codes.ok == 200 and requests.__version__ == own.__version__
assert set(dir(own)) - {"sys"} <= set(dir(requests))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=_env())


def test_row_19_sessions_are_pickled(session: SessionFactory, upstream: UpstreamFactory) -> None:
    client = session(service(upstream("v1")))
    client.headers["X-Mine"] = "1"
    client.cookies.set("a", "b")
    client.get("http://reviews/")
    with pickle.loads(pickle.dumps(client)) as again:
        said = again.get("http://reviews/").json()
        assert said["name"] == "v1"
        assert ["X-Mine", "1"] in said["headers"]
        assert ["Cookie", "a=b"] in said["headers"]
        assert again._mesh is client._mesh
    response = pickle.loads(pickle.dumps(client.get("http://reviews/")))
    assert response.json()["name"] == "v1"


def _in_child(client: Any, answers: Any) -> None:
    answers.put([client.get("http://reviews/").json()["name"] for _ in range(5)])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_row_20_a_session_works_in_a_child(
    session: SessionFactory, upstream: UpstreamFactory, method: str
) -> None:
    client = session(service(upstream("v1")))
    client.get("http://reviews/")
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    child = context.Process(target=_in_child, args=(client, answers))
    child.start()
    assert answers.get(timeout=40) == ["v1"] * 5
    child.join(20)
    assert child.exitcode == 0
    assert client.get("http://reviews/").json()["name"] == "v1"


def test_row_21_ipv6_endpoints(session: SessionFactory, upstream: UpstreamFactory) -> None:
    one = upstream("v1")
    port = one.address.rpartition(":")[2]
    client = session({"services": {"reviews": {"endpoints": [f"[::ffff:127.0.0.1]:{port}"]}}})
    assert names(client, 3) == {"v1": 3}


def test_row_22_nothing_is_said_when_everything_is_dropped(upstream: UpstreamFactory) -> None:
    one = upstream("v1")
    code = f"""
import gc, meshlib, meshlib_requests
mesh = meshlib.Mesh({{"services": {{"reviews": {{"endpoints": [{one.address!r}]}}}}}})
session = meshlib_requests.Session(mesh=mesh)
session.get("http://reviews/")
kept = session.get("http://reviews/", stream=True)
del session, mesh
gc.collect()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        env=_env(),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stdout, done.stderr) == ("", "")


def _env() -> dict[str, str]:
    import os

    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "adapters")])}
