"""meshlib_requests: where a call goes that is not plain HTTP to an address of a service; what observers see of it."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

import meshlib
import meshlib_requests
from meshlib.model.events import AttemptEnded, AttemptStarted, CallEnded
from tests.support import telemetry
from tests.support.http2_servers import go_server

UpstreamFactory = Any
SessionFactory = Callable[..., meshlib_requests.Session]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def session() -> Iterator[SessionFactory]:
    opened: list[Any] = []

    def make(config: Any) -> meshlib_requests.Session:
        mesh = meshlib.Mesh(config)
        made = meshlib_requests.Session(mesh=mesh)
        opened.extend((mesh, made))
        return made

    yield make
    for one in reversed(opened):
        one.close()


def envoy_file(path: Path, port: int, cluster: dict[str, Any], **route: Any) -> dict[str, Any]:
    """A configuration in Envoy's shape: a listener on ``port`` whose calls all go to ``cluster``."""
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    action = route or {"route": {"cluster": cluster["name"]}}
    host = {"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **action}]}
    manager = {"@type": kind, "stat_prefix": "x", "route_config": {"name": "r", "virtual_hosts": [host]}}
    manager["http_filters"] = [
        {
            "name": "router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }
    ]
    listener = {
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }
    path.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return {"services_file": str(path)}


def static(address: str, **fields: Any) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    assignment = {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}
    return {"name": "c", "type": "STATIC", "load_assignment": assignment, **fields}


def test_a_listener_that_nobody_serves_is_the_mesh(
    session: SessionFactory, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    one = upstream("v1")
    client = session(envoy_file(tmp_path / "e.json", 9, static(one.address)))
    assert client.get("http://127.0.0.1:9/").json()["name"] == "v1"


def test_the_route_edits_what_is_sent_and_answered(
    session: SessionFactory, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    one = upstream("v1")
    config = envoy_file(
        tmp_path / "e.json",
        9,
        static(one.address),
        route={"cluster": "c", "prefix_rewrite": "/new/", "host_rewrite_literal": "inner"},
        request_headers_to_add=[
            {"header": {"key": "x-a", "value": value}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}
            for value in "12"
        ],
        response_headers_to_add=[{"header": {"key": "set-cookie", "value": "m=1"}}],
    )
    client = session(config)
    response = client.get("http://127.0.0.1:9/path?q=1")
    said = response.json()
    assert said["path"] == "/new/path?q=1"
    assert ["Host", "inner"] in said["headers"]
    assert [value for name, value in said["headers"] if name == "x-a"] == ["1", "2"]
    assert response.url == "http://127.0.0.1:9/path?q=1"
    assert response.headers["set-cookie"] == "m=1"
    assert client.cookies.get_dict() == {"m": "1"}


def test_routes_see_a_header_as_its_receiver_does(session: SessionFactory, upstream: UpstreamFactory) -> None:
    """RFC 9110, 5.5: white space around a value is not part of it. Text is Latin-1; urllib3 takes numbers, too."""
    one, gold = upstream("one"), upstream("gold")
    tier = {"match": {"headers": {"x-tier": "gold"}}, "split": {"gold": 1}}
    seventh = {"match": {"headers": {"x-number": "7"}}, "split": {"gold": 1}}
    services = {
        "reviews": {"endpoints": [one.address], "routes": [tier, seventh]},
        "gold": {"endpoints": [gold.address]},
    }
    client = session({"services": services})
    said = client.get("http://reviews/", headers={"X-Tier": "gold \t", "X-Name": "caf\xe9"}).json()
    assert said["name"] == "gold"
    assert ["X-Tier", "gold"] in said["headers"]
    assert ["X-Name", "caf\xe9"] in said["headers"]
    manager = meshlib_requests.PoolManager(mesh=client._mesh)
    for lines in ({"X-Tier": b" gold "}, {"X-Number": 7}):
        assert manager.request("GET", "http://reviews/", headers=lines).json()["name"] == "gold"
    with pytest.raises(TypeError, match="float"):
        manager.request("GET", "http://reviews/", headers={"X-Number": 7.5})
    manager.clear()


def test_ordered_redirects_and_responses_are_followed_and_read(
    session: SessionFactory, tmp_path: Path
) -> None:
    ordered = {"direct_response": {"status": 418, "body": {"inline_string": "teapot"}}}
    client = session(envoy_file(tmp_path / "a.json", 9, static("127.0.0.1:9"), **ordered))
    response = client.get("http://127.0.0.1:9/")
    assert (response.status_code, response.text) == (418, "teapot")
    assert meshlib.call_info(response).attempts == ()  # type: ignore[union-attr]
    assert client.head("http://127.0.0.1:9/").content == b""
    moved = {"redirect": {"path_redirect": "/there"}}
    client = session(envoy_file(tmp_path / "b.json", 9, static("127.0.0.1:9"), **moved))
    response = client.get("http://127.0.0.1:9/", allow_redirects=False)
    assert (response.status_code, response.next.url) == (301, "http://127.0.0.1:9/there")  # type: ignore[union-attr]


def test_a_pass_through_cluster_is_called_as_it_is(
    session: SessionFactory, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    one = upstream("one")
    port = int(one.address.rpartition(":")[2])
    passing = {"name": "pass", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
    response = session(envoy_file(tmp_path / "e.json", port, passing)).get(one.url)
    assert response.json()["name"] == "one"
    assert meshlib.call_info(response).via == "direct"  # type: ignore[union-attr]


def test_tls_that_the_mesh_demands(
    session: SessionFactory, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    """TL-04: encrypted though the URL is plain; ``verify=False`` does not switch it off."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("inner.mesh").configure_cert(context)
    one = upstream("tls", tls=context)

    def config(san: str) -> dict[str, Any]:
        validation = {
            "trusted_ca": {"inline_string": authority.cert_pem.bytes().decode()},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": san}}],
        }
        tls = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "sni.mesh",
            "common_tls_context": {"validation_context": validation},
        }
        cluster = static(one.address, transport_socket={"name": "tls", "typed_config": tls})
        return envoy_file(tmp_path / f"{san}.json", 9, cluster)

    said = session(config("inner.mesh")).get("http://127.0.0.1:9/").json()
    assert (said["name"], said["sni"]) == ("tls", "sni.mesh")
    with pytest.raises(requests.exceptions.SSLError, match='none of the names dns exact "other') as caught:
        session(config("other.mesh")).get("http://127.0.0.1:9/", verify=False)
    assert isinstance(caught.value, meshlib.ConnectFailed)


def test_a_cluster_of_http2(session: SessionFactory, tmp_path: Path) -> None:
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        "@type": f"type.googleapis.com/{name}",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    with go_server() as port:
        cluster = static(f"127.0.0.1:{port}", typed_extension_protocol_options={name: options})
        client = session(envoy_file(tmp_path / "e.json", 9, cluster))
        for body, length in ((b"x" * 100_000, 100_000), (iter([b"a", b"b"]), 2)):
            response = client.post("http://127.0.0.1:9/echo", data=body)
            assert (response.status_code, response.raw.version, len(response.content)) == (200, 20, length)


def test_an_endpoint_can_be_a_unix_socket(session: SessionFactory, tmp_path: Path) -> None:
    path = str(tmp_path / "up.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nunix")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        client = session({"services": {"reviews": {"endpoints": [f"unix:{path}"]}}})
        response = client.get("http://reviews/")
        assert response.text == "unix"
        assert meshlib.call_info(response).endpoint == f"unix:{path}"  # type: ignore[union-attr]
        thread.join(5)
    Path(path).unlink()
    with pytest.raises(requests.ConnectionError, match="Failed to establish a new connection"):
        client.get("http://reviews/")


def test_observers_see_attempts_and_calls(session: SessionFactory, upstream: UpstreamFactory) -> None:
    bad, good = upstream("bad"), upstream("good")
    bad.fail(503)
    seen: list[Any] = []
    endpoints = [bad.address, good.address]
    retry = {"attempts": 2, "on": ["5xx"]}
    client = session(
        {"services": {"reviews": {"endpoints": endpoints, "retry": retry, "balancer": "round_robin"}}}
    )

    def look(event: Any) -> None:
        seen.append(event)
        if isinstance(event, AttemptStarted):
            event.head.headers.set("x-seen", str(event.number))

    client._mesh._observe(look)  # type: ignore[union-attr]
    for _ in range(2):
        response = client.get("http://reviews/")
    client.get(good.url)
    started = [event for event in seen if isinstance(event, AttemptStarted)]
    ended = [event for event in seen if isinstance(event, AttemptEnded)]
    assert [event.key for event in started] == [event.key for event in ended]
    assert {(event.via, event.endpoint) for event in started} >= {("mesh", bad.address), ("direct", "")}
    assert started[-1].url == good.url + "/"
    assert len([event for event in seen if isinstance(event, CallEnded)]) == 2
    assert any(name == "x-seen" for name, _ in response.json()["headers"])
    assert good.requests[-1].header("x-seen") == "1"


def test_calls_are_traced(upstream: UpstreamFactory) -> None:
    one = upstream("v1")
    config = {"services": {"reviews": {"endpoints": [one.address]}}}
    with (
        telemetry.sdk() as recorded,
        meshlib.Mesh(config) as mesh,
        meshlib_requests.Session(mesh=mesh) as client,
    ):
        client.get("http://reviews/a")
        span = recorded.client_spans[-1]
        assert span.attributes is not None
        assert span.attributes["url.full"] == "http://reviews/a"
        assert span.attributes["http.response.status_code"] == 200
        trace = one.requests[-1].header("traceparent")
        assert trace is not None
        assert trace.split("-")[1] == f"{span.context.trace_id:032x}"


def test_the_page_runs(upstream: UpstreamFactory, tmp_path: Path) -> None:
    one, two = upstream("a"), upstream("b")
    page = (ROOT / "docs/tasks/requests.md").read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    program = program.replace("127.0.0.1:8080", one.address).replace("127.0.0.1:8081", two.address)
    (tmp_path / "mesh.toml").write_text(
        f'[services.reviews]\nendpoints = ["{one.address}"]\n', encoding="utf-8"
    )
    checks = "assert response.status == 200\nassert session.get('http://reviews/').ok\nsession.close(); manager.clear(); mesh.close()\n"
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}", "MESHLIB_CONFIG": str(tmp_path / "mesh.toml")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program + checks],
        env=env,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert one.requests[0].path == "/api/1"
