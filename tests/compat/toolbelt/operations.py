"""requests-toolbelt's parts in calls that reach a server, which its own tests replay from cassettes."""

from __future__ import annotations

import hashlib
import io
import socket
import ssl

import pytest
import requests
import requests_toolbelt
from requests_toolbelt import auth, sessions, threaded
from requests_toolbelt.adapters import fingerprint, host_header_ssl, socket_options, source
from requests_toolbelt.auth.handler import AuthHandler
from requests_toolbelt.cookies.forgetful import ForgetfulCookieJar
from requests_toolbelt.downloadutils import stream, tee
from requests_toolbelt.utils import dump


@pytest.fixture
def session():
    with requests.Session() as made:
        yield made


def test_a_multipart_body_is_streamed(httpbin, session):
    fields = {"field": "value", "file": ("name.txt", io.BytesIO(b"0123456789" * 20_000), "text/plain")}
    encoder = requests_toolbelt.MultipartEncoder(fields)
    response = session.post(
        httpbin.url + "/post", data=encoder, headers={"Content-Type": encoder.content_type}
    )
    said = response.json()
    assert said["form"] == {"field": "value"}
    assert said["files"]["file"] == "0123456789" * 20_000


def test_a_monitor_sees_all_of_a_body(httpbin, session):
    seen = []
    encoder = requests_toolbelt.MultipartEncoder({"file": ("name", io.BytesIO(b"x" * 100_000))})
    monitor = requests_toolbelt.MultipartEncoderMonitor(encoder, lambda one: seen.append(one.bytes_read))
    session.post(httpbin.url + "/post", data=monitor, headers={"Content-Type": monitor.content_type})
    assert seen[-1] == encoder.len
    assert len(seen) > 1


def test_an_iterator_of_known_length(httpbin, session):
    body = requests_toolbelt.StreamingIterator(6, iter([b"abc", b"def"]))
    said = session.post(httpbin.url + "/post", data=body).json()
    assert said["data"] == "abcdef"
    assert said["headers"]["Content-Length"] == "6"


@pytest.mark.parametrize("kind", ["basic-auth", "digest-auth/auth"])
def test_guessed_authentication(httpbin, session, kind):
    response = session.get(f"{httpbin.url}/{kind}/user/passwd", auth=auth.guess.GuessAuth("user", "passwd"))
    assert response.status_code == 200
    assert [one.status_code for one in response.history] == [401]


def test_authentication_by_host(httpbin, session):
    session.auth = AuthHandler({httpbin.url: ("user", "passwd")})
    assert session.get(httpbin.url + "/basic-auth/user/passwd").ok


def test_a_base_url(httpbin):
    with sessions.BaseUrlSession(httpbin.url + "/anything/") as session:
        assert session.get("a/b").json()["url"].endswith("/anything/a/b")


def test_cookies_are_forgotten(httpbin, session):
    session.cookies = ForgetfulCookieJar()
    assert session.get(httpbin.url + "/cookies/set?a=b", allow_redirects=False).cookies
    assert session.get(httpbin.url + "/cookies").json() == {"cookies": {}}


def test_a_dump_has_the_whole_conversation(httpbin, session):
    response = session.get(httpbin.url + "/redirect/2")
    text = dump.dump_all(response)
    assert text.count(b"< GET /") == 3
    assert text.count(b"> HTTP/1.1 302") == 2
    assert text.count(b"> HTTP/1.1 200") == 1
    assert f"< Host: {httpbin.host}:{httpbin.port}\r\n".encode() in text


def test_a_stream_to_a_file(httpbin, session, tmp_path):
    response = session.get(httpbin.url + "/bytes/100000?seed=1", stream=True)
    stream.stream_response_to_file(response, path=str(tmp_path / "file"))
    assert (tmp_path / "file").stat().st_size == 100_000


def test_a_body_that_is_read_is_told_elsewhere_too(httpbin, session):
    response = session.get(httpbin.url + "/bytes/100000?seed=1", stream=True)
    into = bytearray()
    assert b"".join(tee.tee_to_bytearray(response, into)) == bytes(into)
    assert len(into) == 100_000


def test_a_pool_of_threads(httpbin):
    answers, errors = threaded.map([{"method": "GET", "url": f"{httpbin.url}/get?n={n}"} for n in range(20)])
    assert sorted(int(one.json()["args"]["n"]) for one in answers) == list(range(20))
    assert not list(errors)


def test_socket_options_and_a_source_address(httpbin, session):
    session.mount("http://", socket_options.TCPKeepAliveAdapter(idle=60, interval=10))
    assert session.get(httpbin.url + "/get").ok
    session.mount("http://", source.SourceAddressAdapter(("127.0.0.1", 0)))
    assert session.get(httpbin.url + "/get").json()["origin"] == "127.0.0.1"
    session.mount("http://", socket_options.SocketOptionsAdapter(socket_options=[(socket.SOL_SOCKET, -1, 0)]))
    with pytest.raises(requests.ConnectionError):
        session.get(httpbin.url + "/get")


def test_a_fingerprint(httpbin_secure, httpbin_ca_bundle, session):
    where = (httpbin_secure.host, httpbin_secure.port)
    found = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(where))
    session.mount("https://", fingerprint.FingerprintAdapter(hashlib.sha256(found).hexdigest()))
    assert session.get(httpbin_secure.url + "/get").ok
    session.mount("https://", fingerprint.FingerprintAdapter("00" * 32))
    with pytest.raises(requests.exceptions.SSLError):
        session.get(httpbin_secure.url + "/get")


def test_a_host_header_is_the_name_on_the_certificate(httpbin_secure, httpbin_ca_bundle, session):
    session.mount("https://", host_header_ssl.HostHeaderSSLAdapter())
    where = f"https://127.0.0.1:{httpbin_secure.port}/get"
    assert session.get(where, headers={"Host": "localhost"}).ok
    with pytest.raises(requests.exceptions.SSLError):
        session.get(where, headers={"Host": "elsewhere"})
