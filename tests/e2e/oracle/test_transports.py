"""Files and REST: a real Envoy and meshlib read the same, and serve the same."""

from __future__ import annotations

import contextlib
import functools
import http.client
import time

import pytest

import meshlib
from meshlib.testing import ControlPlane, Upstream, build
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.envoy_dir import EnvoyDir, by_path
from tests.support.ports import Ports
from tests.support.watch import Watch

pytestmark = pytest.mark.timeout(120)

_AGREED = 20.0  # seconds

REST = {
    "api_config_source": {
        "api_type": "REST",
        "transport_api_version": "V3",
        "cluster_names": ["control-plane"],
        "refresh_delay": "0.05s",
    },
    "resource_api_version": "V3",
}


@pytest.fixture
def port():
    ports = Ports(1)
    yield ports.numbers[0]
    ports.close()


@pytest.fixture
def upstreams():
    with Upstream("a") as a, Upstream("b") as b:
        yield a, b


def bootstrap(source, *clusters, cds=None):
    return {
        "node": {"id": "oracle", "cluster": "oracle"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {"lds_config": source, "cds_config": cds or source},
        "static_resources": {"clusters": list(clusters)},
    }


def routes(**where):
    """Paths to clusters."""
    given = [build.route(f"/{path}", cluster=cluster) for path, cluster in where.items()]
    return build.route_config("r", build.virtual_host("reviews", *given, domains=["*"]))


def listener(port, source):
    made = build.listener("out", "r", address=f"127.0.0.1:{port}")
    made["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["config_source"] = source
    return made


def eds(name, source):
    return build.cluster(name, eds_cluster_config={"eds_config": source})


def of_envoy(port, path):
    """(status, upstream) of a call by way of Envoy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": "reviews"})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    return answer.status, name_of(body)


def of_meshlib(client, port, path):
    response = client.get(f"http://127.0.0.1:{port}{path}")
    return response.status_code, name_of(response.content)


def name_of(body):
    return body.partition(b'"name": "')[2][:1].decode()


def agree(envoy_port, client, watch, expected):
    """Until Envoy and meshlib both serve what is expected."""
    deadline = time.monotonic() + _AGREED

    def same():
        found = {
            path: (of_meshlib(client, envoy_port, path), of_envoy(envoy_port, path)) for path in expected
        }
        assert time.monotonic() < deadline, found
        return all(found[path] == (outcome, outcome) for path, outcome in expected.items())

    # Each of the calls is something that happens, so that Envoy is looked at until it has read what was moved.
    watch.until(same)


@contextlib.contextmanager
def both(bootstrap, xds, port, place):
    """Envoy and meshlib, each by its own configuration. Gives the mesh, its watch, and what waits until both serve the same."""
    config = {"xds": {"view": "sidecar", **xds}}
    with (
        EnvoyProcess(bootstrap, place) as envoy,
        meshlib.Mesh(config) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        envoy.wait_for_listeners(1)
        mesh.wait_ready(f"127.0.0.1:{port}", timeout=20)
        watch = Watch(mesh)
        yield mesh, watch, functools.partial(agree, port, client, watch)


@pytest.mark.parametrize("form", ["yaml", "json", "pb"])
def test_files(tmp_path, port, upstreams, form):
    a, b = upstreams
    (tmp_path / "xds").mkdir()
    files = EnvoyDir(tmp_path / "xds", form)
    files.put("eds", build.endpoints("one", a.address))
    files.put("eds2", build.endpoints("two", b.address))
    files.put("rds", routes(one="one", two="two"))
    files.put(
        "cds",
        eds("one", by_path(files.path("eds"))),
        eds("two", {"path": str(files.path("eds2"))}),
    )
    files.put(
        "lds", listener(port, by_path(files.path("rds"), watched_directory={"path": str(files.folder)}))
    )
    source = bootstrap(by_path(files.path("lds")), cds=by_path(files.path("cds")))
    xds_config = {"protocol": "files", "path": str(files.folder)}
    with both(source, xds_config, port, tmp_path) as (mesh, watch, agree):
        agree({"/one": (200, "a"), "/two": (200, "b"), "/three": (404, "")})
        files.put("eds", build.endpoints("one", b.address))
        agree({"/one": (200, "b"), "/two": (200, "b")})
        files.put("rds", routes(one="two", three="one"))
        agree({"/three": (200, "b"), "/two": (404, "")})
        # What is wrong changes nothing in either.
        files.path("broken").write_bytes(b"\xff resources: [")
        files.path("broken").replace(files.path("rds"))
        watch.until(lambda: xds(mesh).state == "stale")
        assert str(files.path("rds")) in xds(mesh).last_error
        agree({"/three": (200, "b"), "/two": (404, "")})


def test_rest(tmp_path, port, upstreams):
    a, b = upstreams
    plane = ControlPlane(
        build.endpoints("one", a.address),
        build.endpoints("two", b.address),
        routes(one="one", two="two"),
        eds("one", REST),
        eds("two", REST),
        listener(port, REST),
    )
    with plane.rest() as server:
        own = build.without_type(build.cluster("control-plane", [server.address]))
        xds_config = {"protocol": "rest", "server": server.url, "refresh": 0.05}
        with both(bootstrap(REST, own), xds_config, port, tmp_path) as (mesh, watch, agree):
            agree({"/one": (200, "a"), "/two": (200, "b"), "/three": (404, "")})
            plane.update(build.endpoints("one", b.address))
            agree({"/one": (200, "b"), "/two": (200, "b")})
            plane.update(routes(one="two", three="one"))
            agree({"/three": (200, "b"), "/two": (404, "")})
            plane.refuse()
            watch.until(lambda: xds(mesh).state == "stale")
            assert "503: refused by the test" in xds(mesh).last_error
            agree({"/three": (200, "b"), "/two": (404, "")})
            plane.accept()
            watch.until(lambda: xds(mesh).state == "ready")
        nodes = {each.node.user_agent_name for each in plane.requests}
        assert nodes == {"envoy", "meshlib"}


def xds(mesh):
    return next(source for source in mesh.status().sources if source.kind == "xds")


def test_a_target_by_rest(upstreams):
    """The view of gRPC: names of listeners, one poll each time something new is called."""
    a, b = upstreams
    plane = ControlPlane(
        *(
            build.api_listener(
                name, build.route_config(name, build.virtual_host(name, build.route("/", cluster=name)))
            )
            for name in ("reviews", "ratings")
        ),
        build.cluster("reviews", [a.address]),
        build.cluster("ratings", [b.address]),
    )
    with (
        plane.rest() as server,
        meshlib.Mesh({"xds": {"protocol": "rest", "server": server.url}}) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        assert name_of(client.get("http://reviews/").content) == "a"
        assert name_of(client.get("http://ratings/").content) == "b"
