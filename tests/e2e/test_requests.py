"""meshlib_requests against real servers: what requests' own tests do not ask."""

from __future__ import annotations

import gc
import inspect
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

import meshlib
import meshlib_requests
from meshlib.testing.upstream import Upstream
from meshlib_requests import urllib3 as ours
from meshlib_requests.urllib3 import PoolManager
from tests.support.watch import Watch

UpstreamFactory = Any
SessionFactory = Callable[..., meshlib_requests.Session]


@pytest.fixture
def session() -> Iterator[SessionFactory]:
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


def active(client: Any) -> int:
    return sum(cluster.active for cluster in client._mesh.status().clusters.values())


def dead_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"127.0.0.1:{closed.getsockname()[1]}"


# --- the request and its response ---------------------------------------------------------------------------------------


def test_the_response_is_of_what_was_asked(session: SessionFactory, upstream: UpstreamFactory) -> None:
    one = upstream("v1")
    response = session(service(one)).get("http://reviews/a?b=1", headers={"X-A": "1"})
    assert isinstance(response, requests.Response)
    assert response.url == response.request.url == "http://reviews/a?b=1"
    assert "Host" not in response.request.headers
    assert isinstance(response.raw, urllib3.HTTPResponse)
    info = meshlib.call_info(response)
    assert info is not None
    assert (info.via, info.cluster, info.endpoint) == ("mesh", "reviews", one.address)
    assert response.elapsed.total_seconds() > 0


def test_redirects_cookies_and_history_are_of_the_host_that_was_asked(
    session: SessionFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    one.order(status=302, headers=[("Location", "/next"), ("Set-Cookie", "a=b; Path=/")], times=1)
    client = session(service(one))
    response = client.get("http://reviews/first")
    assert [old.url for old in response.history] == ["http://reviews/first"]
    assert response.url == "http://reviews/next"
    assert ["Cookie", "a=b"] in response.json()["headers"]
    assert client.cookies.get_dict(domain="reviews.local") == {"a": "b"}


def test_an_unread_body_holds_its_pick_until_it_is_closed_or_lost(
    session: SessionFactory, upstream: UpstreamFactory
) -> None:
    client = session(service(upstream("v1")))
    assert client._mesh is not None
    watch = Watch(client._mesh)
    response = client.get("http://reviews/", stream=True)
    assert active(client) == 1
    response.close()
    assert active(client) == 0
    response = client.get("http://reviews/", stream=True)
    assert active(client) == 1
    del response
    gc.collect()
    watch.until(lambda: active(client) == 0)
    with client.get("http://reviews/", stream=True) as response:
        assert b"".join(response.iter_content(7))
        assert active(client) == 0


def test_connections_are_kept_and_given_back(session: SessionFactory, upstream: UpstreamFactory) -> None:
    servers = [upstream("a"), upstream("b")]
    client = session(service(*servers))
    for _ in range(10):
        client.get("http://reviews/")
    assert [server.connections_total for server in servers] == [1, 1]
    client.close()
    for server in servers:
        server.wait_for(lambda server=server: not server.connections_open)
    assert client.get("http://reviews/").ok


def test_a_body_that_breaks_is_told_with_its_endpoint(
    session: SessionFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    one.reset_body(times=1)
    response = session(service(one)).get("http://reviews/", stream=True)
    with pytest.raises(requests.exceptions.ChunkedEncodingError) as caught:
        response.content  # noqa: B018
    assert isinstance(caught.value, meshlib.TransportFailed)
    assert caught.value.phase == "body"
    assert caught.value.info.endpoint == one.address


def test_the_deadline_ends_a_body_that_trickles(session: SessionFactory) -> None:
    stop = threading.Event()

    def trickle(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, args=(listener,), daemon=True)
        thread.start()
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        client = session({"services": {"reviews": {"endpoints": [endpoint], "timeout": 1.5}}})
        begun = time.monotonic()
        with pytest.raises(requests.ConnectionError) as caught:
            client.get("http://reviews/", timeout=5)
        assert time.monotonic() - begun < 30  # the body lasts 50 s
        assert isinstance(caught.value, meshlib.DeadlineExceeded)
        stop.set()
        thread.join(5)


# --- retries ------------------------------------------------------------------------------------------------------------


def test_the_mesh_retries_and_says_so(session: SessionFactory, upstream: UpstreamFactory) -> None:
    bad, good = upstream("bad"), upstream("good")
    bad.fail(503)
    client = session(service(bad, good, retry={"attempts": 3, "on": ["5xx"]}))
    client.mount(
        "http://",
        meshlib_requests.MeshAdapter(mesh=client._mesh, max_retries=Retry(5, status_forcelist=[503])),
    )
    for _ in range(4):
        response = client.post("http://reviews/", data=io.BytesIO(b"hello"))
        assert response.json()["name"] == "good"
        assert response.json()["body_length"] == 5
    assert (
        any(len(info.attempts) == 2 for info in [meshlib.call_info(response)] if info)
        or bad.requests_total >= 1
    )


def test_max_retries_holds_where_the_mesh_orders_none_and_goes_elsewhere(
    session: SessionFactory, upstream: UpstreamFactory
) -> None:
    bad, good = upstream("bad"), upstream("good")
    bad.fail(503)
    client = session({"services": {"reviews": {"endpoints": [bad.address, good.address, dead_address()]}}})
    retries = Retry(total=3, status_forcelist=[503], backoff_factor=0)
    client.mount("http://", meshlib_requests.MeshAdapter(mesh=client._mesh, max_retries=retries))
    seen = [client.get("http://reviews/") for _ in range(6)]
    assert {response.json()["name"] for response in seen} == {"good"}
    counts = [len(meshlib.call_info(response).attempts) for response in seen]  # type: ignore[union-attr]
    assert max(counts) > 1
    assert any(response.raw.retries.history for response in seen)


def test_max_retries_that_are_used_up_are_requests_error(
    session: SessionFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("bad")
    one.fail(503)
    client = session(service(one))
    retries = Retry(total=2, status_forcelist=[503], backoff_factor=0)
    client.mount("http://", meshlib_requests.MeshAdapter(mesh=client._mesh, max_retries=retries))
    with pytest.raises(requests.exceptions.RetryError) as caught:
        client.get("http://reviews/")
    assert len(meshlib.call_info(caught.value).attempts) == 3  # type: ignore[union-attr]
    assert one.requests_total == 3


def test_a_generator_is_sent_once(session: SessionFactory, upstream: UpstreamFactory) -> None:
    one = upstream("v1")
    one.fail(503, times=1)
    client = session(service(one, retry={"attempts": 3, "on": ["5xx"]}))
    assert client.post("http://reviews/", data=(part for part in (b"a", b"b"))).status_code == 503
    assert one.requests[0].body == b"ab"


# --- timeouts -----------------------------------------------------------------------------------------------------------


def test_the_applications_timeout_is_in_requests_words(
    session: SessionFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    one.hang()
    client = session(service(one, timeout=5.0))
    with pytest.raises(requests.ReadTimeout, match=r"Read timed out. \(read timeout=0.2\)") as caught:
        client.get("http://reviews/", timeout=(1, 0.2))
    assert isinstance(caught.value, meshlib.DeadlineExceeded)
    one.release()


def test_a_deadline_bounds_calls_of_the_mesh_and_others(
    session: SessionFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    one.hang()
    client = session(service(one))
    for url in ("http://reviews/", one.url):
        with meshlib.deadline(1.0), pytest.raises(requests.ReadTimeout) as caught:
            client.get(url)  # nothing but the deadline ends it
        assert isinstance(caught.value, meshlib.DeadlineExceeded), url
        with meshlib.deadline(0), pytest.raises(requests.ConnectTimeout):
            client.get(url)
    one.release()


# --- what a sidecar would answer --------------------------------------------------------------------------------------


def test_ordered_responses_are_responses(session: SessionFactory) -> None:
    config = {"services": {"reviews": {"endpoints": [dead_address()]}}, "failures": "respond"}
    response = session(config).get("http://reviews/")
    assert response.status_code == 503
    assert response.reason == "Service Unavailable"
    assert meshlib.call_info(response).attempts  # type: ignore[union-attr]


def test_unknown_hosts_can_be_refused(session: SessionFactory, upstream: UpstreamFactory) -> None:
    one = upstream()
    with pytest.raises(requests.ConnectionError) as caught:
        session({"unknown_hosts": "refuse"}).get(one.url)
    assert isinstance(caught.value, meshlib.UnknownService)
    assert one.requests_total == 0


def test_disabled_it_is_requests(upstream: UpstreamFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = upstream("one"), upstream("other")
    monkeypatch.setenv("MESHLIB_DISABLED", "1")
    with (
        meshlib.Mesh({"services": {"127.0.0.1": {"endpoints": [other.address]}}}) as mesh,
        meshlib_requests.Session(mesh=mesh) as client,
    ):
        response = client.get(one.url)
    assert response.json()["name"] == "one"
    assert type(response) is requests.Response
    assert meshlib.call_info(response) is None


# --- TLS and sockets ----------------------------------------------------------------------------------------------------


def test_https_is_verified_against_the_host_that_was_asked_for(
    session: SessionFactory, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("reviews").configure_cert(context)
    one = upstream("secure", tls=context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    client = session({"services": {name: {"endpoints": [one.address]} for name in ("reviews", "other")}})
    said = client.get("https://reviews/", verify=str(bundle)).json()
    assert (said["name"], said["sni"]) == ("secure", "reviews")
    with pytest.raises(requests.exceptions.SSLError) as caught:
        client.get("https://other/", verify=str(bundle))
    assert isinstance(caught.value, meshlib.ConnectFailed)
    with pytest.raises(requests.exceptions.SSLError):
        client.get("https://reviews/")
    with pytest.warns(urllib3.exceptions.InsecureRequestWarning):
        assert client.get("https://other/", verify=False).ok


def test_a_subclass_with_a_tls_context_of_its_own(session: SessionFactory, upstream: UpstreamFactory) -> None:
    authority = trustme.CA()
    server, mine = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("reviews").configure_cert(server)
    authority.configure_trust(mine)

    class Own(meshlib_requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, ssl_context=mine, **options)

    client = session(service(upstream("secure", tls=server)))
    client.mount("https://", Own(mesh=client._mesh))
    assert client.get("https://reviews/").json()["sni"] == "reviews"


def test_a_subclass_that_names_the_certificate_for_each_request(
    session: SessionFactory, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("inside").configure_cert(server)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)

    class Named(meshlib_requests.adapters.HTTPAdapter):  # as requests-toolbelt's HostHeaderSSLAdapter does
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            name = request.headers["Host"]
            self.poolmanager.connection_pool_kw |= {"assert_hostname": name, "server_hostname": name}
            return super().send(request, *args, **options)

    client = session(service(upstream("secure", tls=server)))
    client.mount("https://", Named(mesh=client._mesh))
    for _ in range(2):
        assert client.get("https://reviews/", headers={"Host": "inside"}, verify=str(bundle)).ok
        with pytest.raises(requests.exceptions.SSLError):
            client.get("https://reviews/", headers={"Host": "outside"}, verify=str(bundle))


def test_what_is_mounted_in_an_ordinary_session(upstream: UpstreamFactory) -> None:
    with meshlib.Mesh(service(upstream("v1"))) as mesh, requests.Session() as plain:
        plain.mount("http://reviews", meshlib_requests.MeshAdapter(mesh=mesh))
        assert plain.get("http://reviews/").json()["name"] == "v1"
        assert type(plain.get_adapter("http://other/")) is HTTPAdapter


def test_mocking_tools_stay_in_charge(session: SessionFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    made = requests.Response()
    made.status_code = 299
    made.raw = io.BytesIO(b"mocked")
    monkeypatch.setattr(HTTPAdapter, "send", lambda *_args, **_options: made)
    assert (
        session({"services": {"reviews": {"endpoints": [dead_address()]}}}).get("http://reviews/").content
        == b"mocked"
    )


# --- the environment ----------------------------------------------------------------------------------------------------


def test_the_environment_is_read_again_when_it_changed(
    session: SessionFactory, upstream: UpstreamFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, proxy = upstream("v1"), upstream("proxy")
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    client = session(service(one))
    for _ in range(2):
        assert client.get("http://reviews/").json()["name"] == "v1"
        monkeypatch.setenv("http_proxy", proxy.url)
        assert client.get("http://reviews/").json()["name"] == "proxy"
        monkeypatch.setenv("NO_PROXY", "reviews")
        assert client.get("http://reviews/").json()["name"] == "v1"
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.delenv("http_proxy")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    assert (
        client.merge_environment_settings("https://reviews/", {}, None, None, None)["verify"]
        == "/nowhere.pem"
    )


def test_netrc_is_read(
    session: SessionFactory, upstream: UpstreamFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = session(service(upstream("v1")))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert "Authorization" not in dict(client.get("http://reviews/").json()["headers"])
    (tmp_path / "netrc").write_text("machine reviews login me password secret\n")
    assert dict(client.get("http://reviews/").json()["headers"])["Authorization"].startswith("Basic ")


# --- urllib3 ------------------------------------------------------------------------------------------------------------


def test_a_pool_manager_goes_through_the_mesh(upstream: UpstreamFactory) -> None:
    one, two = upstream("a"), upstream("b")
    one.order(status=303, headers=[("Location", "/next")], times=1)
    two.order(status=303, headers=[("Location", "/next")], times=1)
    with meshlib.Mesh(service(one, two)) as mesh, PoolManager(mesh=mesh) as manager:
        response = manager.request("POST", "http://reviews/first", body=b"x")
        while response.json()["path"] != "/next":
            response = manager.request("POST", "http://reviews/first", body=b"x")
        assert response.json()["method"] == "GET"
        assert meshlib.call_info(response) is not None
        pool = manager.connection_from_url("http://reviews/")
        raw = pool.urlopen("GET", "/x", retries=False, preload_content=False)
        assert sum(cluster.active for cluster in mesh.status().clusters.values()) == 1
        raw.drain_conn()
        assert sum(cluster.active for cluster in mesh.status().clusters.values()) == 0
        assert {manager.request("GET", "http://reviews/").json()["name"] for _ in range(4)} == {"a", "b"}


@pytest.mark.parametrize("location", ["/next", "http://reviews/next#part"])
def test_a_redirect_followed_by_a_pool_keeps_what_is_sent(upstream: UpstreamFactory, location: str) -> None:
    one = upstream("a")
    one.order(status=307, headers=[("Location", location)], where=lambda head: head.path == "/first")
    with meshlib.Mesh(service(one)) as mesh, PoolManager(mesh=mesh) as manager:
        pool = manager.connection_from_url("http://reviews/")
        file = io.BytesIO(b"not this; the body")
        file.seek(10)
        response = pool.urlopen("PUT", "/first", body=file, chunked=True)
        said = response.json()
        # As urllib3 sends it: a whole URL where the location is one.
        assert (said["method"], said["path"]) == ("PUT", location.removesuffix("#part"))
        assert one.requests[-1].body == b"the body"
        assert ("transfer-encoding", "chunked") in [(name.lower(), value) for name, value in said["headers"]]
        assert meshlib.call_info(response).endpoint == one.address


def test_what_is_set_on_a_pool_holds_for_its_next_connections(
    upstream: UpstreamFactory, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("reviews").configure_cert(context)
    one = upstream("secure", tls=context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    with meshlib.Mesh(service(one)) as mesh, PoolManager(mesh=mesh, ca_certs=str(bundle)) as manager:
        pool = manager.connection_from_url("https://reviews/")
        assert pool.request("GET", "/", headers={"Connection": "close"}).status == 200
        pool.assert_fingerprint = "AA:" * 31 + "AA"
        with pytest.raises(urllib3.exceptions.SSLError, match="Fingerprints did not match"):
            pool.request("GET", "/", retries=False)


def test_the_function_has_urllib3s_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(ours._default, "request", lambda *_, **options: asked.update(options))
    ours.request("GET", "http://reviews/")
    theirs = inspect.signature(urllib3.request).parameters
    assert list(inspect.signature(ours.request).parameters) == list(theirs)
    assert asked == {name: one.default for name, one in theirs.items() if one.default is not one.empty}


def test_what_urllib3_raises_is_urllib3s_and_meshlibs() -> None:
    config = {"services": {"reviews": {"endpoints": [dead_address()]}}}
    with meshlib.Mesh(config) as mesh, PoolManager(mesh=mesh) as manager:
        with pytest.raises(urllib3.exceptions.MaxRetryError) as many:
            manager.request("GET", "http://reviews/", retries=Retry(2, backoff_factor=0))
        assert isinstance(many.value, meshlib.ConnectFailed)
        assert len(many.value.info.attempts) == 3
        with pytest.raises(urllib3.exceptions.NewConnectionError) as one:
            manager.request("GET", "http://reviews/", retries=False)
        assert isinstance(one.value, meshlib.ConnectFailed)


def test_max_connections_holds_and_waits(session: SessionFactory, upstream: UpstreamFactory) -> None:
    one = upstream("v1")
    client = session(service(one, limits={"max_connections": 1, "max_pending": 1}))
    held = client.get("http://reviews/", stream=True)
    with pytest.raises(requests.ConnectionError, match="no connection was free in time") as caught:
        client.get("http://reviews/", timeout=0.2)
    assert isinstance(caught.value, meshlib.Overloaded)
    assert one.requests_total == 1
    held.close()
    assert client.get("http://reviews/").ok
