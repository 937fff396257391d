"""TLS by the URL's scheme, Unix sockets, proxies and HTTP/2, each as in the host library."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

import meshlib
from meshlib.testing.upstream import Upstream
from tests.support.faces import FaceFactory

UpstreamFactory = Any


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_https_is_verified_against_the_host_that_was_asked_for(
    face: FaceFactory, upstream: UpstreamFactory, authority: trustme.CA
) -> None:
    one = upstream("secure", tls=server_context(authority, "reviews"))
    config = {"services": {"reviews": {"endpoints": [one.address]}, "other": {"endpoints": [one.address]}}}
    client = face(config, verify=trusting(authority))
    said = client.get("https://reviews/x").json()
    assert (said["name"], said["sni"]) == ("secure", "reviews")
    with pytest.raises(meshlib.ConnectFailed) as caught:
        client.get("https://other/")
    assert isinstance(caught.value, client.library.ConnectError)
    assert "certificate" in str(caught.value).lower()
    untrusting = face(config)
    with pytest.raises(client.library.ConnectError):
        untrusting.get("https://reviews/")
    assert face(config, verify=False).get("https://other/").status_code == 200


def test_the_applications_certificate_is_shown(
    face: FaceFactory, upstream: UpstreamFactory, authority: trustme.CA, tmp_path: Path
) -> None:
    context = server_context(authority, "reviews")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    one = upstream("mutual", tls=context)
    mine = authority.issue_cert("me.test")
    cert, key = tmp_path / "me.pem", tmp_path / "me.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in mine.cert_chain_pems))
    key.write_bytes(mine.private_key_pem.bytes())
    config = {"services": {"reviews": {"endpoints": [one.address]}}}
    trust = trusting(authority)
    # TLS 1.3: the client has done its part before it hears that a certificate is asked for.
    with pytest.raises(
        meshlib.TransportFailed, match=r"(?i)certificate.required|reset|disconnected|closed|EOF"
    ):
        face(config, verify=trust).get("https://reviews/")
    trust.load_cert_chain(cert, key)
    assert face(config, verify=trust).get("https://reviews/").json()["name"] == "mutual"


def test_a_wrong_certificate_path_is_the_host_librarys_error_at_once() -> None:
    with pytest.raises(Exception) as plain:  # noqa: PT011 - whatever httpx raises
        httpx.Client(cert="/nowhere/me.pem")
    with pytest.raises(type(plain.value)):
        meshlib.Client(mesh=meshlib.Mesh({}), cert="/nowhere/me.pem")


@pytest.fixture
def unix_server(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "up.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nunix"
                    )

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_an_endpoint_can_be_a_unix_socket(face: FaceFactory, unix_server: str) -> None:
    client = face({"services": {"reviews": {"endpoints": [f"unix:{unix_server}"]}}})
    response = client.get("http://reviews/")
    assert response.text == "unix"
    assert meshlib.call_info(response).endpoint == f"unix:{unix_server}"


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_proxy_wins_over_the_mesh_and_that_is_said_once(
    face: FaceFactory,
    upstream: UpstreamFactory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    proxy, service = upstream("proxy"), upstream("service")
    options: dict[str, Any] = {}
    if how == "argument":
        options["proxy"] = proxy.url
    else:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
    client = face({"services": {"reviews": {"endpoints": [service.address]}}}, **options)
    with caplog.at_level(logging.WARNING, "meshlib"):
        for _ in range(3):
            said = client.get("http://reviews/x").json()
            assert (said["name"], said["path"]) == ("proxy", "http://reviews/x")
    assert [
        record.message
        for record in caplog.records
        if "proxy" in record.message and "reviews" in record.message
    ] != []
    assert len([record for record in caplog.records if "proxy" in record.message]) == 1
    assert service.requests_total == 0


def test_no_proxy_lets_the_mesh_have_it(
    face: FaceFactory, upstream: UpstreamFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, service = upstream("proxy"), upstream("service")
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "reviews")
    client = face({"services": {"reviews": {"endpoints": [service.address]}}})
    assert client.get("http://reviews/x").json()["name"] == "service"


def test_https_straight_through(face: FaceFactory, upstream: UpstreamFactory, authority: trustme.CA) -> None:
    one: Upstream = upstream("direct", tls=server_context(authority, "127.0.0.1"))
    client = face({}, verify=trusting(authority))
    response = client.get(one.url)
    assert response.json()["name"] == "direct"
    assert meshlib.call_info(response).via == "direct"
