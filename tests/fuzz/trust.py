"""Whom a peer's certificate is accepted of, and what issues ours: names, material, answers of CAs."""

from __future__ import annotations

import ipaddress
import json
import ssl
from base64 import b64encode
from contextlib import suppress
from functools import cache
from types import SimpleNamespace

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from meshlib.core.sans import PeerName, canonical, compile_sans, describe_name, describe_san, dns_matches
from meshlib.errors import ConfigError
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import Certificate, Pem, San, SanKind, Secret, Tls, Validation
from meshlib.runtime.tls import context_for, peer
from meshlib.sources.identity_facts import check_pair, check_roots, domains, facts_of
from meshlib.sources.identity_issued import Unusable, of_pem
from meshlib.sources.identity_istio import _read, _subject, _uri
from meshlib.sources.identity_spiffe import SpiffeProvider, target
from meshlib.sources.identity_wire import message
from meshlib.testing import Authority
from meshlib.testing.authority import Pair
from tests.fuzz.target import BETWEEN, Target, pieces

__all__ = ["TARGETS"]

_SANS, _KINDS = tuple(SanKind), tuple(StringKind)
_PASSWORD = b"secret words"


def _names(data: bytes) -> None:
    """A matcher and names: one that is refused is refused at once; a kind that differs never matches; words are words."""
    how, wanted, oid, *held = pieces(data, 4)
    how = (how + b"\0\0\0")[:3]
    match = StringMatch(
        _KINDS[how[1] % len(_KINDS)], wanted.decode("utf-8", "replace"), ignore_case=bool(how[2] & 1)
    )
    san = San(_SANS[how[0] % len(_SANS)], match, oid.decode("utf-8", "replace"))
    names = [
        PeerName(_SANS[each[0] % len(_SANS)], each[1:].decode("utf-8", "replace"), san.oid)
        for each in held
        if each
    ]
    try:
        test = compile_sans([san])
    except ValueError:
        assert match.kind is StringKind.REGEX
        return
    for name in names:
        found = test([name])
        assert not found or san.kind in (SanKind.ANY, name.kind), (san, name)
        if (
            found
            and match.kind is StringKind.EXACT
            and not match.ignore_case
            and name.kind in (SanKind.URI, SanKind.EMAIL)
        ):
            assert name.value == match.value
        assert describe_name(name)
    assert test(names) == any(test([name]) for name in names)
    assert describe_san(san)
    for name in names:
        if dns_matches(match.value, name.value) and "*" not in name.value:
            assert match.value.lower().rstrip(".") == name.value.lower().rstrip(".")
        address = canonical(name.value)
        assert address is None or ipaddress.ip_address(address) == ipaddress.ip_address(name.value)


def _material(data: bytes) -> None:
    """Certificates, keys, roots and lists of what was revoked: a context, or what is wrong with which, without a byte of a key."""
    chain, key, pkcs12, password, roots, crl = pieces(data, 6)[:6]
    certificate = Certificate(Pem(chain), Pem(key), Pem(pkcs12), Pem(password)) if chain or pkcs12 else None
    tls = Tls(
        certificate=certificate,
        validation=Validation(roots=Pem(roots or _authority().roots_pem), crl=Pem(crl)),
    )
    try:
        assert isinstance(context_for(tls), ssl.SSLContext)
    except ConfigError as error:
        assert len(str(error)) < 4096
        assert _PASSWORD not in str(error).encode()
        for secret in (key, pkcs12):
            assert len(secret) < 24 or secret[-24:].decode("latin-1") not in str(error)


# --- who issues ours -------------------------------------------------------------------------------------------------------------------

#: Within the validity of what `Authority` makes.
_NOW = 0.0


@cache
def _authority() -> Authority:
    return Authority("example.org")


@cache
def _pair() -> Pair:
    return _authority().issue(_authority().uri("/app"))


def _facts(data: bytes) -> None:
    """What files of an identity are: facts, or words in which nothing of them is."""
    chain, key = pieces(data, 2)[:2]
    for read in (
        lambda: check_pair(chain, key),
        lambda: facts_of(chain),
        lambda: check_roots(chain),
        lambda: domains(chain),
    ):
        try:
            read()
        except ValueError as error:
            assert len(str(error)) < 1024
            assert len(key) < 24 or key[-24:].decode("latin-1") not in str(error)


def _peer(data: bytes) -> None:
    """A certificate that a peer has shown; what cannot be read of one is told by the caller, whatever is raised."""
    for read in (peer.other_names, peer.public_key, peer._text):
        with suppress(
            ValueError,
            x509.InvalidVersion,
            x509.DuplicateExtension,
            x509.UnsupportedGeneralNameType,
            UnsupportedAlgorithm,
        ):
            assert isinstance(read(data), list | bytes | str)
    found = peer.names(
        {"subjectAltName": tuple((kind, data.decode("latin-1")) for kind in ("DNS", "URI", "IP Address"))}
    )
    assert len(found) == 3
    assert len(peer.words(((("commonName", data.decode("latin-1")),),))) < 1024


def _istio(data: bytes) -> None:
    """An answer of Istio's CA: one in force, or why not."""
    try:
        held, roots = _read(data, _pair().key, _NOW)
    except Unusable as problem:
        assert str(problem)
        return
    assert held.certificate.chain.data.startswith(b"-----BEGIN CERTIFICATE-----")
    assert roots


def _jwt(data: bytes) -> None:
    """A token names who we are, or nobody does."""
    bearer = "Bearer " + data.decode("latin-1")
    assert all(isinstance(each, str) for each in _subject(bearer))
    assert _uri({}, (("authorization", bearer),)).startswith("spiffe://cluster.local/ns/")


def _workload(data: bytes) -> None:
    """A message of the Workload API: all of it is in force, or nothing is."""
    worker = SimpleNamespace(clock=SimpleNamespace(wall=lambda: _NOW))
    provider = SpiffeProvider(worker, lambda: 0.5, socket="unix:///x")  # type: ignore[arg-type]
    provider.trust = provider.good = lambda *_: None  # type: ignore[method-assign,assignment]
    try:
        provider._read(data)
    except Unusable as problem:
        assert str(problem)
        assert not provider._named
        return
    assert all(isinstance(secret, Secret) for secret, _ in provider._named.values())


def _socket(data: bytes) -> None:
    with suppress(ValueError):
        assert target(data.decode("utf-8", "replace")).startswith(("unix:/", "ipv4:", "ipv6:"))


def _der(text: bytes) -> bytes:
    return b"".join(each.public_bytes(Encoding.DER) for each in of_pem(text))


def _made() -> dict[str, tuple[bytes, ...]]:
    authority, pair = _authority(), _pair()
    chain, key, roots = pair.chain_pem, pair.key_pem, authority.roots_pem
    answers, workload = message("istio.v1.auth.IstioCertificateResponse"), message("X509SVIDResponse")
    svid = {
        "spiffe_id": authority.uri("/app"), "x509_svid": _der(chain), "bundle": _der(roots),
        "x509_svid_key": pair.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    }  # fmt: skip
    # Of a version that there is not, and with two lists of names: cryptography has errors of their own for them.
    strange = [
        _der(chain).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"),
        _der(chain).replace(b"\x55\x1d\x13", b"\x55\x1d\x11"),
    ]
    armoured = [ssl.DER_cert_to_PEM_cert(each).encode() for each in strange]
    federated = {"spiffe://other.org": _der(roots)}
    packed = serialize_key_and_certificates(
        b"a", pair.key, pair.chain[0], None, BestAvailableEncryption(_PASSWORD)
    )
    revoked = b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"
    return {
        "istio": tuple(
            answers(cert_chain=texts).SerializeToString()
            for texts in (*([each.decode(), roots.decode()] for each in armoured), [chain.decode(), roots.decode()], ["x", "y"], [], [chain.decode(), chain.decode(), roots.decode()])
        ),
        "workload": (
            *(workload(svids=[{**svid, "x509_svid": each}]).SerializeToString() for each in strange),
            workload(svids=[svid]).SerializeToString(), workload(svids=[svid], federated_bundles=federated).SerializeToString(),
            workload().SerializeToString(),
        ),
        "facts": (
            BETWEEN.join((chain, key)), BETWEEN.join((chain, b"x")), roots, *(BETWEEN.join((each, key)) for each in armoured),
            json.dumps({"trust_domains": {"a.b": {"keys": [
                {"kty": "EC", "use": "x509-svid", "x5c": [b64encode(_der(roots)).decode()]},
            ]}}}).encode(),
        ),
        "peer": (*strange, _der(chain), b"\x0c\x03abc", b"\x02\x01\xff", b"\x06\x03\x2a\x03\x04", b"\x1e\x04\0a\0b"),
        "material": tuple(
            BETWEEN.join(each)
            for each in (
                (chain, key), (chain, key, b"", b"", roots), (b"", b"", packed, _PASSWORD), (b"", b"", packed, b""), (chain, b""), (b"", key),
                (b"", b"", b"", b"", roots, revoked),
            )
        ),
    }  # fmt: skip


_SEEDS = _made()
_X509 = (
    b"\x30\x82",
    b"\x30\x84\xff\xff\xff\xff",
    b"\xa0\x03\x02\x01\x02",
    b"\xa0\x03\x02\x01\x07",
    b"\x06\x03\x55\x1d\x11",
    b"\x86",
    b"\x82",
    b"\x02\x01\xff",
    b"\x18\x0f",
    b"\x17\x0d",
)
_PEM = (
    b"-----BEGIN ",
    b"-----END ",
    b"CERTIFICATE-----\n",
    b"PRIVATE KEY-----\n",
    b"ENCRYPTED ",
    b"X509 CRL-----\n",
    b"MAA=\n",
    b"\n",
    b"=",
)

TARGETS = (
    Target(
        "names_of_peers", ("core/sans.py",), _names,
        (
            BETWEEN.join((b"\x03\0\0", b"spiffe://a/b", b"", b"\x03spiffe://a/b")), BETWEEN.join((b"\x02\0\0", b"a.example", b"", b"\x02*.example")),
            BETWEEN.join((b"\x04\0\0", b"::1", b"", b"\x040:0:0:0:0:0:0:1")), BETWEEN.join((b"\x05\0\0", b"x", b"1.2.3", b"\x05x")),
            BETWEEN.join((b"\0\x01\x01", b"spiffe://", b"", b"\x03SPIFFE://a", b"\x02b")), BETWEEN.join((b"\0\x04\0", b".*a+", b"", b"\x02a")),
        ),
        (b"*.", b"*", b"..", b"xn--", b"spiffe://", b"::ffff:1.2.3.4", b"127.0.0.1", b"%eth0", b"\0", b"(", b".*", "ß".encode(), "İ".encode(), BETWEEN),
    ),
    Target("material", ("runtime/tls/contexts.py", "runtime/tls/making.py", "runtime/tls/material.py"), _material, _SEEDS["material"], (*_PEM, BETWEEN), share=1),
    Target("facts", ("sources/identity_facts.py",), _facts, _SEEDS["facts"], (*_PEM, b'"trust_domains"', b'"keys"', b'"x5c"', b"[", b"]", b"{", b"}", BETWEEN), share=1),
    Target("peer", ("runtime/tls/peer.py",), _peer, _SEEDS["peer"], _X509, share=1),
    Target("istio", ("sources/identity_istio.py", "sources/identity_issued.py"), _istio, _SEEDS["istio"], (*_PEM, b"\x0a\x01"), share=1),
    Target("token_of_istio", ("sources/identity_istio.py",), _jwt, (
        b"x.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6YTpiIn0.y", b"x.e30.y", b"x.W10.y", b"..", b"x.bnVsbA.y",
    ), (b".", b"=", b"eyJzdWIi", b"W1tb" * 400, b"\xff"), share=1),
    Target("workload", ("sources/identity_spiffe.py", "sources/identity_issued.py"), _workload, _SEEDS["workload"], _X509, share=1),
    Target("workload_socket", ("sources/identity_spiffe.py",), _socket, (b"unix:///run/x", b"tcp://127.0.0.1:80", b"tcp://[::1]:80", b"unix:/x?y"), (b"unix:", b"tcp://", b"//", b":", b"[", b"]", b"?", b"#", b"@", b"99999"), share=1),
)  # fmt: skip
