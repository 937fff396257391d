"""gRPC channels where the mesh demands TLS: what is shown and checked, whose credentials hold, and what a refusal says."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.experimental
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import meshlib
from meshlib.testing import build
from tests.support.certificates import Authority, Issued
from tests.support.grpc_channels import FACES, Channel, Channels
from tests.support.grpc_tls import CLIENT, SERVER, Listener, Mesh, Witness, socket_of, tunnels, world

Code = grpc.StatusCode
OTHER = "spiffe://mesh/ns/shop/sa/other"


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with world() as made:
        yield made


@pytest.fixture(params=FACES)
def channel(request: pytest.FixtureRequest, mesh: Mesh) -> Iterator[Callable[..., Channel]]:
    """A function that makes channels of one kind to ``stock``."""
    with Channels(request.param) as channels:
        yield lambda **options: channels.make(mesh.config, **options)


def test_calls_of_every_kind_go_over_it(channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any) -> None:
    one = meshlib_grpc_upstream("v1", credentials=mesh.server())
    mesh.say(one.address)
    here = channel()
    said = here.said()
    assert (said["name"], said["authority"]) == ("v1", "stock")
    assert len(here.server_stream(b"x", metadata=(("x-upstream-order", '{"messages": 3}'),))) == 3
    assert here.client_stream([b"a", b"b"])
    assert len(here.both_streams([b"a", b"b"])) == 2
    _, call = here.call()
    info = meshlib.call_info(call)
    assert info is not None
    assert info.endpoint == one.address
    assert one.connections_total == 1


def test_large_messages_and_a_reader_that_waits(channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any) -> None:
    one = meshlib_grpc_upstream("v1", credentials=mesh.server())
    mesh.say(one.address)
    here = channel()
    whole = bytes(range(256)) * 4096  # 1 MiB, beyond what sockets and the tunnel hold
    order = (("x-upstream-order", '{"echo": true}'),)
    assert here.unary(whole, metadata=order) == whole
    assert here.both_streams([whole, whole[::-1], b""], metadata=order) == [whole, whole[::-1], b""]


# --- refusals ------------------------------------------------------------------------------------------------------------

REFUSALS = {
    "another root": "certificate verify failed",
    "another name": "none of the names",
    "no names, but a common one": "none of the names",
    "expired": "certificate has expired",
    "another key than the pinned": "pinned",
    "another certificate than the pinned": "pinned",
    "revoked": "certificate revoked",
}


def demanded(mesh: Mesh, refusal: str, held: Issued) -> dict[str, Any]:
    """What the mesh demands of a server that shows ``held``, and does not get where there is that ``refusal``."""
    root = Authority("other").pem if refusal == "another root" else mesh.authority.pem
    sans = {"another name": ("URI", OTHER), "no names, but a common one": ("DNS", "stock")}
    other, more = mesh.authority.issue(SERVER), {}
    if refusal in ("another key than the pinned", "no other than the pinned"):
        pinned = other if refusal.startswith("another") else held
        more["verify_certificate_spki"] = [base64.b64encode(spki(pinned)).decode()]
    elif refusal == "another certificate than the pinned":
        more["verify_certificate_hash"] = [hashlib.sha256(other.der).hexdigest()]
    elif refusal == "revoked":
        more["crl"] = {"inline_string": mesh.authority.revoking(held).decode()}
    return socket_of(root, sans.get(refusal, ("URI", SERVER)), shown=mesh.shown, validation=more)


def spki(held: Issued) -> bytes:
    public = held.certificate.public_key()
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


@pytest.mark.parametrize(("refusal", "words"), REFUSALS.items(), ids=REFUSALS)
def test_who_is_not_who_it_must_be_gets_no_byte(channel: Any, mesh: Mesh, refusal: str, words: str) -> None:
    """TL-04; the server says so itself."""
    names = () if refusal.startswith("no names") else (SERVER,)
    held = mesh.authority.issue(*names, subject="stock", expired=refusal == "expired")
    with Listener(held) as server:
        address = server.address
        mesh.say(address, socket=demanded(mesh, refusal, held))
        with pytest.raises(meshlib.ConnectFailed, match=words) as caught:
            channel().unary(timeout=20.0)
        server.ends.get(timeout=20)
        assert server.received == b""
    error: Any = caught.value
    assert error.code() is Code.UNAVAILABLE
    assert re.search(words, error.details())
    assert address in error.details()


@pytest.mark.parametrize("accepted", ["no other than the pinned", "what it must be"])
def test_who_is_it_answers(channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any, accepted: str) -> None:
    held = mesh.authority.issue(SERVER)
    demands = grpc.ssl_server_credentials(
        [(held.key_pem, held.chain_pem)], mesh.authority.pem, require_client_auth=True
    )
    one = meshlib_grpc_upstream("v1", credentials=demands)
    mesh.say(one.address, socket=demanded(mesh, accepted, held))
    assert channel().who() == "v1"


@pytest.mark.parametrize(
    ("shown", "words"),
    [("nothing", "certificate required"), ("another root's", "unknown ca")],
)
def test_a_server_that_refuses_our_certificate_is_sent_no_call(
    channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any, shown: str, words: str
) -> None:
    """The handshake of TLS 1.3 is over for a client before the server looked; grpc waits for its SETTINGS, and they never come."""
    one = meshlib_grpc_upstream("v1", credentials=mesh.server())
    held = None if shown == "nothing" else Authority("other").issue(CLIENT)
    socket = socket_of(mesh.authority.pem, ("URI", SERVER), shown=held)
    mesh.say(one.address, socket=socket)
    here = channel()
    with pytest.raises(
        meshlib.ConnectFailed, match="it may refuse the certificate that it is shown, or want one"
    ):
        here.unary(timeout=20.0)
    assert one.requests_total == 0
    with Listener(mesh.authority.issue(SERVER), mesh.authority.pem) as server:
        mesh.say(server.address, socket=socket)
        # grpcio's servers say nothing; OpenSSL and BoringSSL do.
        with pytest.raises(meshlib.ConnectFailed, match=words):
            _until_at(here, server.address)
        assert server.received == b""


def test_an_endpoint_without_TLS_is_sent_nothing_of_a_call(
    channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any
) -> None:
    one = meshlib_grpc_upstream("v1")
    mesh.say(one.address)
    with pytest.raises(meshlib.ConnectFailed, match=r"(?i)wrong.version.number"):
        channel().unary(timeout=20.0)
    assert one.requests_total == 0


def test_an_endpoint_that_speaks_no_HTTP_2_is_said_to(channel: Any, mesh: Mesh) -> None:
    with Listener(mesh.authority.issue(SERVER), protocols=("http/1.1",)) as server:
        mesh.say(server.address)
        with pytest.raises(meshlib.ConnectFailed, match="does not choose HTTP/2 by ALPN"):
            channel().unary(timeout=20.0)
        server.ends.get(timeout=20)
        assert server.received == b""


def test_one_that_cannot_be_had_is_passed_over(channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any) -> None:
    good = meshlib_grpc_upstream("good", credentials=mesh.server())
    with Listener(mesh.authority.issue(OTHER)) as bad:
        mesh.say(bad.address, good.address)
        here = channel()
        assert {here.who(timeout=20.0) for _ in range(20)} == {"good"}
        assert bad.received == b""


# --- whose credentials hold (gRFC A29) -----------------------------------------------------------------------------------

LOCAL = grpc.local_channel_credentials()
PLAIN = grpc.experimental.insecure_channel_credentials()


@pytest.mark.parametrize("given", [None, PLAIN, LOCAL, grpc.xds_channel_credentials(PLAIN)])
def test_tl01_the_mesh_s_hold_where_the_application_has_none(
    channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any, given: Any
) -> None:
    one = meshlib_grpc_upstream("v1", credentials=mesh.server())
    mesh.say(one.address)
    assert channel(credentials=given).who() == "v1"


@pytest.mark.parametrize("given", [None, PLAIN, grpc.xds_channel_credentials(PLAIN)])
def test_tl01_elsewhere_it_is_plain_text(
    channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any, given: Any
) -> None:
    one = meshlib_grpc_upstream("v1")
    mesh.say(one.address, socket={})
    assert channel(credentials=given).who() == "v1"


def test_tl01_elsewhere_it_is_what_xds_credentials_fall_back_on(
    channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any
) -> None:
    its_own = Authority("its own")
    held = its_own.issue("stock")
    one = meshlib_grpc_upstream(
        "v1", credentials=grpc.ssl_server_credentials([(held.key_pem, held.chain_pem)])
    )
    mesh.say(one.address, socket={})
    fallback = grpc.ssl_channel_credentials(its_own.pem)
    here = channel(credentials=grpc.xds_channel_credentials(fallback))
    assert here.who() == "v1"
    # The cluster demands TLS from now on: of another root, which this server's certificate is not of.
    mesh.say(one.address)
    with pytest.raises(meshlib.ConnectFailed, match="certificate verify failed"):
        _until_refused(here)


def _until_at(here: Channel, address: str) -> None:
    """Calls until the control plane's word has come."""
    while True:
        try:
            here.unary(timeout=20.0)
        except meshlib.ConnectFailed as error:
            if address in str(error):
                raise


def _until_refused(here: Channel) -> None:
    """Calls until the control plane's word has come."""
    for _ in range(10_000):
        here.unary(timeout=20.0)


def test_tl01_the_application_s_own_hold(channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any) -> None:
    its_own = Authority("its own")
    held = its_own.issue("stock")
    one = meshlib_grpc_upstream(
        "v1", credentials=grpc.ssl_server_credentials([(held.key_pem, held.chain_pem)])
    )
    mesh.say(one.address)
    assert channel(credentials=grpc.ssl_channel_credentials(its_own.pem)).who() == "v1"


class Told(grpc.AuthMetadataPlugin):
    """Keeps what it is told of each call."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        self.told.append((context.service_url, context.method_name))
        callback((("authorization", "Bearer of-today"),), None)


@pytest.mark.parametrize("of", ["the call", "the channel", "both of one call"])
def test_credentials_of_calls_go_over_it(
    channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any, of: str
) -> None:
    one = meshlib_grpc_upstream("v1", credentials=mesh.server())
    mesh.say(one.address)
    told = Told()
    token = grpc.metadata_call_credentials(told)
    if of == "the channel":
        both = grpc.composite_channel_credentials(grpc.xds_channel_credentials(PLAIN), token)
        said = channel(credentials=both).said()
    else:
        given = token if of == "the call" else grpc.composite_call_credentials(token, token)
        said = channel(options=[("grpc.default_authority", "stock:443")]).said(credentials=given)
    times = 2 if of == "both of one call" else 1
    assert [value for key, value in said["metadata"] if key == "authorization"] == ["Bearer of-today"] * times
    # As over grpc's own TLS: JSON web tokens are made out to it.
    assert told.told == [("https://stock/shop.Stock", "Get")] * times


@pytest.mark.parametrize("kind", FACES)
def test_the_token_of_a_service_goes_over_it(kind: str, mesh: Mesh, meshlib_grpc_upstream: Any) -> None:
    one = meshlib_grpc_upstream("v1", credentials=mesh.server())
    mesh.say(one.address)
    tokens = {"stock": lambda: "of-today"}
    with meshlib.Mesh(mesh.config, tokens=tokens) as running, Channel(kind, "stock", running) as here:
        assert ["authorization", "Bearer of-today"] in here.said(timeout=20.0)["metadata"]


def test_credentials_of_calls_go_over_nothing_else(
    channel: Any, mesh: Mesh, meshlib_grpc_upstream: Any
) -> None:
    one = meshlib_grpc_upstream("v1")
    mesh.say(one.address, socket={})
    here, told = channel(), Told()
    refusal: Any = grpc.RpcError if here.kind == "sync" else grpc.aio.UsageError  # grpc's own
    with pytest.raises(refusal):
        here.unary(credentials=grpc.metadata_call_credentials(told), timeout=20.0)
    assert (told.told, one.requests_total) == ([], 0)


# --- names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sni", "hostname", "asked"),
    [
        ("outbound_.80_._.stock", "", "outbound_.80_._.stock"),
        ("as.the.cluster.says", "pod-1.stock", "as.the.cluster.says"),
        ("", "pod-1.stock", "pod-1.stock"),
        ("", "", "stock"),
    ],
)
def test_the_server_is_asked_for_the_cluster_s_name(
    channel: Any, mesh: Mesh, sni: str, hostname: str, asked: str
) -> None:
    with Listener(mesh.authority.issue(OTHER)) as server:
        socket = socket_of(mesh.authority.pem, ("URI", SERVER), shown=mesh.shown, sni=sni)
        mesh.say(build.endpoint(server.address, hostname=hostname), socket=socket)
        with pytest.raises(meshlib.ConnectFailed, match="none of the names"):
            channel().unary(timeout=20.0)
        assert set(server.names) == {asked}


def test_a_cluster_that_changes_has_other_connections(channel: Any, mesh: Mesh) -> None:
    """Also where its TLS is the same, and only how to connect is not."""
    socket = socket_of(mesh.authority.pem, ("URI", SERVER), shown=mesh.shown)
    with Witness(mesh.server()) as one:
        mesh.say(one.address, socket=socket)
        here = channel()
        here.unary(timeout=20.0)
        before = tunnels().sockets
        mesh.say(one.address, socket=socket, connect_timeout="30s")
        assert _changed(here, before) != before


def _changed(here: Channel, before: frozenset[str]) -> frozenset[str]:
    """Calls until there are other connections."""
    for _ in range(10_000):
        here.unary(timeout=20.0)
        if before.isdisjoint(now := tunnels().sockets) and now:
            return now
    return before
