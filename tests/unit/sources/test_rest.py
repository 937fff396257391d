"""What is REST's own of a control plane that is polled: JSON, statuses of HTTP, and one kept connection."""

from __future__ import annotations

import json
import ssl

import pytest
import trustme

from meshlib.sources.polling import TIMEOUT
from meshlib.sources.rest_wire import LARGEST
from meshlib.testing import ControlPlane, build, rest_server
from meshlib.testing.upstream import Upstream
from meshlib.xds import schema
from tests.support.polling_kit import REFRESH, REST, SOONEST, Noted, Plane, resources
from tests.support.raw_server import RawServer
from tests.support.xds_kit import simple

CERTIFICATE, KEY = (
    f"-----BEGIN {label}-----\nMAA=\n-----END {label}-----" for label in ("CERTIFICATE", "PRIVATE KEY")
)


class TestPolls:
    def test_a_field_that_nobody_knows_is_reported(self):
        resource = {**resources(source=REST)["listener"], "of_a_later_envoy": 1}
        with (
            RawServer(answer=http(200, {"version_info": "1", "resources": [resource]})) as raw,
            Plane(f"http://{raw.address}") as plane,
        ):
            plane.want("reviews")
            plane.until(
                lambda: [each for each in plane.xds.ignored if each.field == "resources[0].of_a_later_envoy"]
            )

    def test_over_a_unix_socket(self, tmp_path):
        with RawServer(str(tmp_path / "s"), http(200, {"version_info": "7"})) as raw:
            with Plane(f"unix:{tmp_path / 's'}") as plane:
                plane.want("reviews")
                plane.until(lambda: plane.xds.versions == {"listener": "7"})
            assert raw.heads[0].startswith(b"POST /v3/discovery:listeners HTTP/1.1\r\nHost: localhost\r\n")
            assert b"User-Agent: meshlib/" in raw.heads[0]


def http(status, value=b"", **headers):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class TestTrouble:
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (http(500, b"no\nsnapshot"), "answered 500: no snapshot"),
            (http(404), "answered 404"),
            (http(301, Location="http://127.0.0.1:1/"), "answered 301"),
            (http(200, b"{"), "is no DiscoveryResponse: Expecting"),
            (http(200, b""), "is no DiscoveryResponse"),
            (http(200, b"\xff"), "is no DiscoveryResponse"),
            (http(200, b"[]"), "must be a mapping"),
            (http(200, b"NaN"), "NaN is no number of JSON"),
            (http(200, b'{"resources":' * 100_000), "nested too deeply"),
            (http(200, {"resources": 5}), "resources[0]"),
            (http(200, {"version_info": {}}), "version_info"),
            (http(200, b"{}", Content_Encoding="gzip"), "is encoded (gzip)"),
            (b"SSH-2.0-x\r\n\r\n", "SSH-2.0"),
            (b"SSH-2.0-\x0b\r" + b"x" * 9000 + b"\r\n\r\n", "SSH-2.0"),
            (b"HTTP/1.1 200 X\r\n" + b"a: b\r\n" * 200 + b"\r\n", "more than 100 headers"),
        ],
    )  # fmt: skip
    def test_what_is_no_answer_is_told_and_what_was_good_stays(self, answer, words):
        with (
            RawServer(answer=http(200, {"version_info": "1", "resources": []})) as raw,
            Plane(f"http://{raw.address}") as plane,
        ):
            plane.want("reviews")
            plane.until(lambda: plane.xds.versions.get("listener") == "1")
            raw.answer = answer
            plane.step(SOONEST)
            plane.in_state("stale")
            assert words in plane.xds.last_error
            assert "/v3/discovery:listeners" in plane.xds.last_error
            assert len(plane.xds.last_error) < 512
            assert plane.xds.last_error.isprintable()
            raw.answer = http(200, {"version_info": "2", "resources": []})
            plane.step(1.0)  # enough for the pause, and less than a poll may take
            plane.in_state("ready")
            assert plane.xds.last_error == ""

    def test_a_server_without_secrets_is_not_lost(self, monkeypatch):
        """SD-01: that it has no such path is told, and asked for again with the next poll."""
        config = {"name": "s", "sds_config": {"ads": {}}}
        context = {"common_tls_context": {"tls_certificate_sds_secret_configs": [config]}}
        kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        socket = {"name": "tls", "typed_config": build.any_of(kind, context)}
        control = ControlPlane(*resources().values())
        control.update(simple("reviews")["cluster"] | {"transport_socket": socket})
        monkeypatch.delitem(rest_server._TYPES, "/v3/discovery:secrets")
        with control.rest() as server, Plane(server.url, "sidecar") as plane:
            told = plane.until(lambda: [each for each in plane.xds.ignored if each.type == "secret"])
            assert [each.field for each in told] == ["/v3/discovery:secrets"]
            assert "answered 404" in told[0].value
            assert (plane.in_state("ready"), plane.xds.last_error) == (True, "")
            plane.until(lambda: plane.parts["xds"].awaited)
            assert plane.parts["xds"].awaited == {"reviews": "waits for the secret 's'"}
            monkeypatch.setitem(rest_server._TYPES, "/v3/discovery:secrets", schema.SECRET)
            control.update(build.secret("s", certificate=CERTIFICATE, key=KEY))
            plane.step(REFRESH)
            plane.until(lambda: plane.xds.resources.get("secret"))
            assert plane.parts["xds"].clusters["reviews"].tls.closed == ""
            assert not [each for each in plane.xds.ignored if each.type == "secret"]

    def test_a_body_that_is_none_is_refused_with_the_next_poll(self):
        with RawServer(answer=http(200, b"{")) as raw:
            with Plane(f"http://{raw.address}") as plane:
                plane.want("reviews")
                plane.lost()
                plane.step(1.0)  # as above
                plane.until(lambda: len(raw.bodies) > 1)
            first, second, *_ = map(json.loads, raw.bodies)
            assert "error_detail" not in first
            assert second["error_detail"]["code"] == 3
            assert second["error_detail"]["details"] == []  # sovereign answers 422 without it
            assert "is no DiscoveryResponse" in second["error_detail"]["message"]

    def test_an_answer_that_does_not_end_is_given_up(self):
        """The server sends a byte of it now and then: what bounds the poll is its own time, not the pauses."""
        with (
            RawServer(answer=b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{") as raw,
            Plane(f"http://{raw.address}") as plane,
        ):
            raw.bodies = Noted(plane.posted)
            plane.want("reviews")
            plane.until(lambda: raw.bodies)
            plane.step(TIMEOUT)
            plane.lost()
            assert f"no whole answer within {TIMEOUT:g} s" in plane.xds.last_error

    def test_an_answer_that_is_too_large(self):
        head = f"HTTP/1.1 200 X\r\nContent-Length: {LARGEST + 1}\r\n\r\n".encode()
        with RawServer(answer=head + b" " * (LARGEST + 1)) as raw, Plane(f"http://{raw.address}") as plane:
            plane.want("reviews")
            plane.lost()
            assert "larger than 64 MiB" in plane.xds.last_error

    def test_a_server_that_closes_idle_connections_is_asked_on_another(self):
        answer = http(200, {"version_info": "1"}, Keep_Alive="timeout=0")
        with RawServer(answer=answer) as raw, Plane(f"http://{raw.address}") as plane:
            plane.want("reviews")
            plane.until(lambda: plane.xds.versions.get("listener") == "1")
            for each in list(raw._open):
                each.shutdown(2)
            seen = len(raw.bodies)
            plane.step(SOONEST)
            plane.until(lambda: len(raw.bodies) > seen)
            assert plane.xds.last_error == ""


class TestTls:
    @pytest.fixture
    def authority(self, tmp_path):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        return authority

    @pytest.mark.parametrize("mutual", [False, True])
    def test_https(self, tmp_path, authority, mutual):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        tls = {"ca": str(tmp_path / "ca.pem")}
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            authority.configure_trust(context)
            mine = authority.issue_cert("me@example.org")
            mine.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
            mine.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
            tls |= {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
        with Upstream(tls=context) as upstream:
            port = upstream.address.rpartition(":")[2]
            with Plane(f"https://localhost:{port}", tls=tls) as plane:
                plane.want("reviews")
                plane.lost()
                # The upstream is no control plane, and what it says has come.
                assert "name: is no field of" in plane.xds.last_error
                assert upstream.requests[0].path == "/v3/discovery:listeners"

    def test_a_token_is_a_bearer_of_each_poll(self, tmp_path, authority):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        token = tmp_path / "token"
        token.write_text("mine\n")
        with Upstream(tls=context) as upstream:
            port = upstream.address.rpartition(":")[2]
            more = {"tls": {"ca": str(tmp_path / "ca.pem")}, "token": str(token)}
            with Plane(f"https://localhost:{port}", **more) as plane:
                plane.want("reviews")
                plane.lost()
                said = {name.lower(): value for name, value in upstream.requests[0].headers}
                assert said["authorization"] == "Bearer mine"
                token.unlink()
                plane.step(5.0)
                plane.until(lambda: "cannot be read" in plane.xds.last_error)
                assert "mine" not in plane.xds.last_error

    def test_a_certificate_that_is_not_trusted(self, tmp_path, authority):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost").configure_cert(context)
        with Upstream(tls=context) as upstream:
            port = upstream.address.rpartition(":")[2]
            with Plane(f"https://localhost:{port}", tls={"ca": str(tmp_path / "ca.pem")}) as plane:
                plane.lost()
                assert "CERTIFICATE_VERIFY_FAILED" in plane.xds.last_error
                assert not upstream.requests
