"""gRPC channels, and a real Envoy that demands certificates: calls, and refusals of either side before a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import meshlib
from meshlib.testing import GrpcUpstream
from tests.support.certificates import Authority
from tests.support.grpc_channels import FACES, Channel, Channels
from tests.support.grpc_tls import CLIENT, SERVER, Mesh, socket_of, world
from tests.support.tls_envoy import TlsEnvoy, file_secret, inline, write_secret

OTHER = "spiffe://mesh/ns/shop/sa/other"


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def upstream() -> Iterator[GrpcUpstream]:
    with GrpcUpstream("v1") as made:
        yield made


@pytest.fixture(scope="module")
def envoy(mesh: Mesh, upstream: GrpcUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsEnvoy]:
    folder = tmp_path_factory.mktemp("envoy")
    held = mesh.authority.issue(SERVER)
    pair = {"certificate_chain": inline(held.chain_pem), "private_key": inline(held.key_pem)}
    write_secret("server", {"tls_certificate": pair}, folder)
    write_secret("roots", {"validation_context": {"trusted_ca": inline(mesh.authority.pem)}}, folder)
    secrets = file_secret("server", folder), file_secret("roots", folder)
    with TlsEnvoy(folder, *secrets, CLIENT, grpc=upstream) as made:
        yield made


@pytest.fixture(params=FACES)
def channel(request: pytest.FixtureRequest, mesh: Mesh) -> Iterator[Callable[..., Channel]]:
    with Channels(request.param) as channels:
        yield lambda **options: channels.make(mesh.config, **options)


def test_it_knows_who_calls(channel: Any, mesh: Mesh, envoy: TlsEnvoy) -> None:
    mesh.say(envoy.address)
    before = envoy.tls()
    here = channel()
    for _ in range(10):
        assert here.who(timeout=20.0) == "v1"
    assert here.both_streams([b"a", b"b"], timeout=20.0)
    counted = envoy.tls() - before
    assert counted["handshake"] == 1
    assert counted["no_certificate"] == 0


@pytest.mark.parametrize(
    ("shown", "words", "counter"),
    [
        ("nothing", "certificate required", "fail_verify_no_cert"),
        ("another root's", "unknown ca", "fail_verify_error"),
        ("another name", "certificate", "fail_verify_san"),
    ],
)
def test_it_refuses_us_before_a_call(
    channel: Any, mesh: Mesh, envoy: TlsEnvoy, shown: str, words: str, counter: str
) -> None:
    held = {
        "nothing": None,
        "another root's": Authority("other").issue(CLIENT),
        "another name": mesh.authority.issue(OTHER),
    }[shown]
    mesh.say(envoy.address, socket=socket_of(mesh.authority.pem, ("URI", SERVER), shown=held))
    requests, before = envoy.requests(), envoy.tls()
    with pytest.raises(meshlib.ConnectFailed, match=words):
        channel().unary(timeout=20.0)
    assert envoy.requests() == requests
    assert (envoy.tls() - before)[counter] >= 1


@pytest.mark.parametrize("refusal", ["root", "name"])
def test_we_refuse_it_before_a_call(channel: Any, mesh: Mesh, envoy: TlsEnvoy, refusal: str) -> None:
    root = Authority("other").pem if refusal == "root" else mesh.authority.pem
    sans = ("URI", OTHER if refusal == "name" else SERVER)
    mesh.say(envoy.address, socket=socket_of(root, sans, shown=mesh.shown))
    requests = envoy.requests()
    with pytest.raises(meshlib.ConnectFailed, match=r"verify failed|none of the names"):
        channel().unary(timeout=20.0)
    assert envoy.requests() == requests
