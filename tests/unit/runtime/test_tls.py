"""TLS as a control plane demands it: real handshakes in memory, with certificates made for the test."""

import logging
import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from meshlib.errors import ConfigError
from meshlib.model.tls import Tls
from meshlib.runtime.tls import context_for, san_matches
from tests.support.mesh_tls import demanded

CA = trustme.CA()
SERVER = CA.issue_cert("reviews.internal", "*.wild.internal", "10.0.0.1", "spiffe@mesh.example")
CLIENT = CA.issue_cert("client")
STRANGER = trustme.CA().issue_cert("reviews.internal")


def pem(blob) -> bytes:
    return blob.bytes()


ROOTS = pem(CA.cert_pem)
MESH = demanded(ROOTS)
CHAIN, KEY = pem(CLIENT.cert_chain_pems[0]), pem(CLIENT.private_key_pem)


def server(certificate=SERVER, *, wants_client=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if wants_client:
        CA.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def handshake(context, host="reviews.internal", *, at=None):
    """Both sides in memory, as asyncio does it. Gives the server's side; raises what the client raises."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=host)
    other = (at or server()).wrap_bio(to_server, to_client, server_side=True)
    left = [client, other]
    for _ in range(20):
        for side in list(left):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            left.remove(side)
        if not left:
            return other
    raise AssertionError("the handshake does not end")


def test_the_meshs_ca_decides_not_the_name():  # TL-04
    handshake(context_for(MESH), "some.other.name")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context_for(MESH), at=server(STRANGER))


@pytest.mark.parametrize(
    "san", ["reviews.internal", "REVIEWS.internal.", "a.wild.internal", "10.0.0.1", "spiffe@mesh.example"]
)
def test_one_of_the_names_must_be_there(san):
    handshake(context_for(demanded(ROOTS, "nobody", san)), "some.other.name")


@pytest.mark.parametrize(
    "san", ["ratings.internal", "a.b.wild.internal", "wild.internal", "10.0.0.2", "internal"]
)
def test_a_certificate_without_the_name_is_refused_in_the_handshake(san):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"has none of the names .*reviews\.internal"):
        handshake(context_for(demanded(ROOTS, san)))


@pytest.mark.parametrize(("san", "accepted"), [("reviews.internal", True), ("ratings.internal", False)])
def test_names_are_checked_on_sockets_too(san, accepted):
    ours, theirs = socket.socketpair()
    refused = []

    def serve():
        try:
            server().wrap_socket(theirs, server_side=True).close()
        except OSError as error:
            refused.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    with ours:
        if accepted:
            context_for(demanded(ROOTS, san)).wrap_socket(ours, server_hostname="any").close()
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match="has none of the names"):
                context_for(demanded(ROOTS, san)).wrap_socket(ours, server_hostname="any")
    thread.join(10)
    assert not thread.is_alive()
    theirs.close()


@pytest.mark.parametrize(
    ("wanted", "kind", "value", "same"),
    [
        ("::1", "IP Address", "0:0:0:0:0:0:0:1", True),
        ("not-an-ip", "IP Address", "10.0.0.1", False),
        ("spiffe://a/ns/b", "URI", "spiffe://a/ns/b", True),
        ("spiffe://a/ns/b", "URI", "spiffe://A/ns/b", False),
        ("x.foo.com", "DNS", "*.foo.com", True),
        (".foo.com", "DNS", "*.foo.com", False),
        ("*.foo.com", "DNS", "*.foo.com", True),
    ],
)
def test_names_by_kind(wanted, kind, value, same):
    assert san_matches((wanted,), {"subjectAltName": ((kind, value),)}) is same


def test_a_certificate_without_names_matches_none():
    assert not san_matches(("a",), {})
    assert not san_matches(("a",), {"subjectAltName": (("DirName", (("x",),)),)})


def test_without_a_ca_the_system_is_trusted_and_the_name_counts():
    context = context_for(Tls())
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context)


def test_who_we_are():
    ours = demanded(ROOTS, chain=CHAIN, key=KEY)
    seen = handshake(context_for(ours), at=server(wants_client=True))
    assert ("DNS", "client") in seen.getpeercert()["subjectAltName"]


def test_what_the_transport_offers_is_offered():
    context = context_for(MESH)
    context.set_alpn_protocols(["http/1.1"])
    assert handshake(context).selected_alpn_protocol() == "http/1.1"


def test_equal_values_share_a_context_and_those_who_offer_http2_another():
    assert context_for(MESH) is context_for(replace(MESH))
    assert context_for(MESH) is not context_for(MESH, http2=True)
    assert context_for(MESH) is not context_for(demanded(ROOTS, "a"))


@pytest.fixture
def files(tmp_path):
    CA.cert_pem.write_to_path(tmp_path / "ca.pem")
    CLIENT.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    CLIENT.private_key_pem.write_to_path(tmp_path / "key.pem")
    return tmp_path


def of_files(folder):
    return demanded(f"{folder}/ca.pem", chain=f"{folder}/cert.pem", key=f"{folder}/key.pem")


def renew(folder, authority, name):
    """As a rotation does: new files under the old names."""
    certificate = authority.issue_cert(name)
    for blob, file in (
        (authority.cert_pem, "ca.pem"),
        (certificate.cert_chain_pems[0], "cert.pem"),
        (certificate.private_key_pem, "key.pem"),
    ):
        blob.write_to_path(folder / "new")
        (folder / "new").replace(folder / file)


def test_files_are_read_again_when_they_change(files):  # TL-06
    context = context_for(of_files(files))
    context.set_alpn_protocols(["http/1.1"])
    handshake(context, at=server(wants_client=True))
    renew(files, CA, "renewed")
    seen = handshake(context, at=server(wants_client=True))
    assert ("DNS", "renewed") in seen.getpeercert()["subjectAltName"]
    assert seen.selected_alpn_protocol() == "http/1.1"
    # A new authority: the old is not trusted any more.
    renew(files, trustme.CA(), "elsewhere")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context)
    assert context_for(of_files(files)) is context


@pytest.mark.parametrize("damage", ["garbage", "gone"])
def test_files_that_cannot_be_read_leave_the_old_in_force(files, damage, caplog):
    context = context_for(of_files(files))
    if damage == "garbage":
        (files / "cert.pem").write_bytes(b"half a certif")
    else:
        (files / "cert.pem").unlink()
    with caplog.at_level(logging.WARNING, "meshlib"):
        for _ in range(3):
            handshake(context, at=server(wants_client=True))
    assert len(caplog.records) == 1
    assert "cert_file" in caplog.text
    renew(files, CA, "repaired")
    seen = handshake(context, at=server(wants_client=True))
    assert ("DNS", "repaired") in seen.getpeercert()["subjectAltName"]


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (demanded("/nowhere/ca.pem"), r"ca_file '/nowhere/ca.pem' cannot be read"),
        (demanded("nul\0byte"), r"ca_file .* cannot be read"),
        (demanded(b"\xff\xfe"), "ca_pem is not PEM"),
        (demanded(b"hello"), "ca_pem has no usable certificate"),
        (demanded(chain=b"hello", key=b"hello"), "cert_pem and key_pem are no pair"),
        (demanded(chain="/nowhere/c.pem", key=b"x"), "cert_file '/nowhere/c.pem' cannot be read"),
        (demanded(chain=CHAIN), "are no pair"),
        (
            demanded(chain=CHAIN, key=pem(SERVER.private_key_pem)),
            "cert_pem and key_pem are no pair",
        ),
        (
            demanded(chain=CHAIN, key="/nowhere/k.pem"),
            "key_file '/nowhere/k.pem' cannot",
        ),
        (Tls(unsupported="secrets by SDS are not supported"), "secrets by SDS are not supported"),
    ],
)
def test_what_is_wrong_is_named(tls, words):
    with pytest.raises(ConfigError, match=words):
        context_for(tls)


def test_an_encrypted_key_is_an_error_and_no_question_at_the_terminal():
    key = load_pem_private_key(pem(CLIENT.private_key_pem), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(ConfigError, match="key_pem cannot be loaded: the private key is encrypted"):
        context_for(demanded(chain=CHAIN, key=locked))


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left():
    before = descriptors()
    for number in range(20):
        context_for(demanded(b"", str(number), chain=CHAIN, key=KEY))
        with pytest.raises(ConfigError):
            context_for(demanded(b"", str(number), chain=CHAIN, key=b"no"))
    assert descriptors() == before
