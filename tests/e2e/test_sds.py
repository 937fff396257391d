"""Secrets over real streams: who is asked for them, what calls meet meanwhile, and that no key is told to anybody."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

import meshlib
from meshlib.testing import ControlPlane, build
from meshlib.xds import schema
from tests.support.watch import Watch, arrived

RESPONSE = schema.message("envoy.service.status.v3.ClientStatusResponse")
TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
ADDRESS = "127.0.0.9:9080"
PAIR = trustme.CA().issue_cert("client.example")
CERTIFICATE = PAIR.cert_chain_pems[0].bytes().decode()
KEY = PAIR.private_key_pem.bytes().decode()
#: Of the key; each of its lines is looked for.
MARKERS = tuple(line for line in KEY.splitlines() if line and not line.startswith("-----"))


def resources(upstream: str) -> list[dict[str, Any]]:
    ads: dict[str, Any] = {"ads": {}}
    common = {
        "tls_certificate_sds_secret_configs": [{"name": "pair", "sds_config": ads}],
        "validation_context_sds_secret_config": {"name": "roots", "sds_config": ads},
    }
    socket = {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": common})}
    hosts = (
        build.virtual_host("closed", build.route("/", cluster="closed"), domains=["*"]),
        build.virtual_host("open", build.route("/", cluster="open"), domains=["open"]),
    )
    return [
        build.listener("l", build.route_config("r", *hosts), address=ADDRESS),
        build.cluster("closed", [upstream], transport_socket=socket),
        build.cluster("open", [upstream]),
    ]


def good() -> list[dict[str, Any]]:
    return [
        build.secret("pair", certificate=CERTIFICATE, key=KEY),
        build.secret("roots", ca=CERTIFICATE),
    ]


def bad() -> dict[str, Any]:
    """A certificate whose key is none."""
    return build.secret("pair", certificate=CERTIFICATE, key=KEY.replace("-----END", "-----OND"))


def told(mesh: meshlib.Mesh) -> Any:
    return next(each for each in mesh.status().sources if each.kind == "xds")


def refusal(client: meshlib.Client) -> str:
    """What a call to the cluster raises that demands what it lacks, in all its words."""
    with pytest.raises((meshlib.NoHealthyEndpoint, meshlib.ConnectFailed)) as caught:
        client.get(f"http://{ADDRESS}/")
    return f"{caught.value!r} {caught.value} {caught.value.info!r}"


@pytest.mark.parametrize("streams", ["aggregated", "separate"])
@pytest.mark.parametrize("protocol", ["sotw", "delta"])
def test_calls_are_refused_in_words(upstream: Any, meshlib_mesh: Any, protocol: str, streams: str) -> None:
    """SD-01, SD-02, SD-03."""
    server = upstream("v1")
    with ControlPlane(*resources(server.address)) as plane:
        xds = {"server": plane.address, "view": "sidecar", "protocol": protocol, "streams": streams}
        mesh = meshlib_mesh({"xds": xds})
        watch = Watch(mesh)
        with meshlib.Client(mesh=mesh) as client:
            mesh.wait_ready(timeout=20)  # though the secrets are not there
            arrived(mesh, ADDRESS)
            plane.wait_for_request("secret", timeout=20)
            told_to_calls = refusal(client)
            assert "cluster 'closed', which waits for the secrets 'pair', 'roots'" in told_to_calls
            assert client.get(f"http://{ADDRESS}/", headers={"host": "open"}).json()["name"] == "v1"

            seen = plane.seen
            plane.update(*good())
            plane.wait_for_ack("secret", after=seen, timeout=20)
            watch.until(lambda: told(mesh).resources.get("secret") == 2)
            assert told(mesh).versions["secret"]
            assert "no connection in time" in refusal(client)  # what it asks does not speak TLS

            seen = plane.seen
            plane.update(bad())
            assert "secret 'pair'" in plane.wait_for_nack("secret", after=seen, timeout=20).error
            watch.until(lambda: told(mesh).rejected)
            assert [(each.type, each.resource) for each in told(mesh).rejected] == [("secret", "pair")]
            assert told(mesh).resources["secret"] == 2

            seen = plane.seen
            plane.update(build.cluster("closed", [server.address]))
            plane.wait_for_request(
                "secret",
                lambda each: (
                    set(each.unsubscribe) == {"pair", "roots"} if protocol == "delta" else not each.names
                ),
                after=seen,
                timeout=20,
            )
            assert client.get(f"http://{ADDRESS}/").json()["name"] == "v1"
            assert "secret" not in told(mesh).resources
    assert len(server.requests) == 2


def test_by_rest(upstream: Any, meshlib_mesh: Any) -> None:
    """SD-01: of a control plane that is polled."""
    with ControlPlane(*resources(upstream("v1").address), *good()) as plane, plane.rest() as server:
        mesh = meshlib_mesh({"xds": {"server": server.url, "view": "sidecar", "protocol": "rest"}})
        watch = Watch(mesh)
        watch.until(lambda: told(mesh).resources.get("secret") == 2)
        arrived(mesh, ADDRESS)
        with meshlib.Client(mesh=mesh) as client:
            assert "no connection in time" in refusal(client)


@pytest.mark.parametrize("protocol", ["sotw", "delta"])
def test_no_key_is_told(
    upstream: Any, meshlib_mesh: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    caplog.set_level(logging.DEBUG)
    kept, socket = tmp_path / "last-good", f"unix:{tmp_path}/csds.sock"
    said: list[bytes] = []
    with ControlPlane(*resources(upstream("v1").address), *good()) as plane:
        xds = {"server": plane.address, "view": "sidecar", "protocol": protocol, "last_good": str(kept)}
        mesh = meshlib_mesh({"xds": xds, "admin": {"csds": socket}})
        watch = Watch(mesh)
        with meshlib.Client(mesh=mesh) as client:
            for secret in (good()[0], bad()):
                seen = plane.seen
                plane.update(secret)
                answer = plane.wait_for_nack if secret == bad() else plane.wait_for_ack
                said.append(repr(answer("secret", after=seen, timeout=20)).encode())
                watch.until(lambda: told(mesh).resources.get("secret") == 2)
                arrived(mesh, ADDRESS)
                said.append(refusal(client).encode())
                said.append(json.dumps(mesh.status().to_dict()).encode() + repr(mesh.status()).encode())
                with grpc.insecure_channel(socket) as channel:
                    ask = channel.unary_unary(f"{schema.CSDS}/FetchClientStatus")
                    said.append(ask(b"", timeout=20))
                [config] = RESPONSE.FromString(said[-1]).config
                [found] = [each for each in config.generic_xds_configs if each.name == "pair"]
                assert (found.type_url, found.HasField("xds_config")) == (schema.SECRET, False)
                assert not found.error_state.HasField("failed_configuration")
            watch.until(
                lambda: any(
                    each.kind == "last_good" and each.state == "ready" for each in mesh.status().sources
                )
            )
    said.append(kept.read_bytes())
    said.append("\n".join(f"{each.getMessage()} {each.exc_text}" for each in caplog.records).encode())
    assert b"closed" in said[-2]
    assert b"secret 'pair'" in said[-1]
    assert len(MARKERS) > 1
    for marker in MARKERS:
        for text in said:
            assert marker.encode() not in text
            assert marker[:32].encode() not in text
