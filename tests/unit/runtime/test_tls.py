"""TLS as the mesh demands it: real handshakes in memory and over sockets, with certificates made for the test."""

import copy
import gc
import hashlib
import logging
import os
import pickle
import socket
import ssl
import threading
import weakref
from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.sans import PeerName
from meshlib.errors import ConfigError
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import Certificate, Pem, San, SanKind, SecretKind, SecretName, Tls, Validation
from meshlib.runtime.tls import context_for, offered, peer
from meshlib.wire.stream_tls import Handshakes
from tests.support.asking import asked
from tests.support.certificates import Authority, handshake, replaced
from tests.support.mesh_tls import demanded, exactly

SPIFFE = "spiffe://mesh.example/ns/a/sa/reviews"
UPN = "1.3.6.1.4.1.311.20.2.3"
#: A UTF8String in DER.
USER = x509.OtherName(x509.ObjectIdentifier(UPN), b"\x0c\x07me@here")
CA = Authority("Mesh")
SERVER = CA.issue("reviews.internal", "*.wild.internal", "10.0.0.1", "me@mesh.example", SPIFFE, USER)
CLIENT = CA.issue("client")
ELSEWHERE = Authority("Elsewhere")
STRANGER = ELSEWHERE.issue("reviews.internal", SPIFFE)
MESH = demanded(CA.pem)


def validating(**fields):
    return Tls(validation=Validation(**{"roots": Pem(CA.pem), **fields}))


def meet(tls, issued=SERVER, host="some.other.name", **options):
    """The client's side of a handshake with a server that shows ``issued``."""
    client, _ = handshake(context_for(tls), issued.server(), host, **options)
    return client


def refused(tls, issued=SERVER, host="some.other.name", **options):
    """The words of the refusal."""
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        meet(tls, issued, host, **options)
    return str(caught.value)


class TestWhoIsAccepted:
    def test_the_meshs_ca_decides_not_the_name(self):  # TL-04
        meet(MESH)
        said = refused(MESH, STRANGER)
        assert "certificate verify failed: unable to get local issuer certificate" in said
        assert f'the certificate of dns "reviews.internal", uri "{SPIFFE}", signed by' in said
        assert "commonName=Elsewhere" in said

    def test_without_a_word_on_it_anybody_is(self):
        for tls in (Tls(), Tls(validation=Validation())):
            context = context_for(tls)
            assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_NONE)
            meet(tls, STRANGER)

    def test_the_system_is_trusted_where_that_is_said_and_the_name_counts(self, monkeypatch):
        system = Tls(validation=Validation(system=True))
        context = context_for(system)
        assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
        assert "unable to get local issuer" in refused(system)

    def test_the_name_with_the_systems_roots(self, tmp_path, monkeypatch):
        (tmp_path / "ca.pem").write_bytes(CA.pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        system = Tls(validation=Validation(system=True, depth=7))  # a value that nobody else has
        meet(system, host="reviews.internal")
        said = refused(system, host="ratings.internal")
        assert "Hostname mismatch, certificate is not valid for 'ratings.internal'" in said
        assert 'dns "reviews.internal"' in said
        with_sans = replace(system, validation=replace(system.validation, sans=(exactly(SPIFFE),)))
        meet(with_sans, host="ratings.internal")
        # The name that was sent, by another way; an address is sent to nobody, and counts all the same.
        by_sni = replace(system, auto_sni_san=True)
        meet(by_sni, host="reviews.internal")
        assert 'none of the names dns exact "ratings.internal"' in refused(by_sni, host="ratings.internal")
        meet(by_sni, host="10.0.0.1")
        assert 'none of the names exact "10.0.0.2"' in refused(by_sni, host="10.0.0.2")

    def test_who_trusts_nobody_in_particular_may_demand_no_names(self):
        with pytest.raises(ConfigError, match="names of a certificate are demanded that anybody may have"):
            context_for(Tls(validation=Validation(sans=(exactly("a"),))))

    def test_an_authority_between_is_enough_to_trust(self):  # Envoy's X509_V_FLAG_PARTIAL_CHAIN
        middle = Authority("Middle", CA)
        leaf = middle.issue("a.internal")
        meet(MESH, leaf)
        meet(validating(roots=Pem(middle.certificate.public_bytes(Encoding.PEM))), leaf)
        meet(validating(roots=Pem(leaf.chain_pem)), leaf)
        assert "verify failed" in refused(validating(roots=Pem(middle.pem)), SERVER)

    def test_who_shows_no_certificate_is_nobody(self):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.maximum_version = ssl.TLSVersion.TLSv1_2
        server.set_ciphers("ADH-AES256-GCM-SHA384:@SECLEVEL=0")
        demands = replace(MESH, ciphers=("ADH-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"))
        with pytest.raises(ssl.SSLError):
            handshake(context_for(demands), server)

    def test_untrusted(self):
        anybody = validating(untrusted=True)
        meet(anybody, STRANGER)
        meet(anybody, ELSEWHERE.issue("a", expired=True))
        named = validating(untrusted=True, sans=(exactly(SPIFFE),))
        meet(named, STRANGER)
        assert f'none of the names exact "{SPIFFE}"' in refused(named, ELSEWHERE.issue("a"))
        pinned = validating(untrusted=True, hashes=(hashlib.sha256(STRANGER.der).digest(),))
        meet(pinned, STRANGER)
        assert "none of those that are pinned" in refused(pinned, SERVER)

    def test_expired(self):
        late = CA.issue("reviews.internal", expired=True)
        said = refused(MESH, late)
        assert "certificate has expired" in said
        assert f"to {late.certificate.not_valid_after_utc:%b}" in said
        meet(validating(expired=True), late)
        assert "unable to get local issuer" in refused(validating(expired=True), STRANGER)

    def test_depth(self):
        leaf = Authority("Two", Authority("One", CA)).issue("a.internal")
        meet(validating(depth=2), leaf)
        said = refused(validating(depth=1), leaf)
        assert "2 certificates are between the peer's and the one that is trusted; 1 may be" in said
        meet(validating(depth=0), SERVER)
        meet(validating(depth=0, roots=Pem(SERVER.chain_pem)), SERVER)


class TestRevocation:
    def test_of_the_leaf(self):
        revoked, good = CA.issue("a.internal"), CA.issue("b.internal")
        tls = validating(crl=Pem(CA.revoking(revoked)))
        said = refused(tls, revoked)
        assert 'certificate revoked; the certificate of dns "a.internal", signed by' in said
        meet(tls, good)

    def test_among_the_roots(self):  # Envoy takes both from one file
        revoked = CA.issue("a.internal")
        tls = validating(roots=Pem(CA.pem + CA.revoking(revoked)))
        assert "certificate revoked" in refused(tls, revoked)
        meet(tls, SERVER)

    def test_of_an_authority(self):
        middle = Authority("Middle", CA)
        leaf = middle.issue("a.internal")
        whole = CA.revoking(middle) + middle.revoking()
        assert "certificate revoked" in refused(validating(crl=Pem(whole)), leaf)
        meet(validating(crl=Pem(whole), crl_leaf=True), leaf)
        # Whoever's list is not there may have revoked it.
        assert "unable to get certificate CRL" in refused(validating(crl=Pem(middle.revoking())), leaf)


class TestNames:
    @pytest.mark.parametrize(
        "san",
        ["reviews.internal", "REVIEWS.internal.", "a.wild.internal", "10.0.0.1", "me@mesh.example", SPIFFE],
    )
    def test_one_of_them_must_be_there(self, san):
        meet(demanded(CA.pem, "nobody", san))

    @pytest.mark.parametrize(
        "san", ["ratings.internal", "a.b.wild.internal", "wild.internal", "10.0.0.2", "internal", SPIFFE[:-1]]
    )
    def test_a_certificate_without_the_name_is_refused_in_the_handshake(self, san):
        said = refused(demanded(CA.pem, san))
        assert f'the certificate has none of the names exact "{san}"; it has dns "reviews.internal"' in said
        assert f'uri "{SPIFFE}"' in said

    def test_by_kind_and_pattern(self):
        prefix = San(SanKind.URI, StringMatch(StringKind.PREFIX, "spiffe://mesh.example/ns/a/"))
        meet(validating(sans=(prefix,)))
        other = San(SanKind.URI, StringMatch(StringKind.PREFIX, "spiffe://mesh.example/ns/b/"))
        assert 'none of the names uri prefix "spiffe://mesh' in refused(validating(sans=(other,)))
        assert "none of the names" in refused(validating(sans=(exactly("reviews.internal", SanKind.URI),)))
        with pytest.raises(ConfigError, match="a name of the certificate: missing"):
            context_for(validating(sans=(San(SanKind.DNS, StringMatch(StringKind.REGEX, "(")),)))

    def test_of_other_types(self):
        def wanting(value, oid=UPN):
            return validating(sans=(San(SanKind.OTHER_NAME, StringMatch(StringKind.EXACT, value), oid),))

        meet(wanting("me@here"))
        said = refused(wanting("you@here"))
        assert f'none of the names other_name {UPN} exact "you@here"' in said
        assert f'other_name {UPN} "me@here"' in said
        assert "none of the names" in refused(wanting("me@here", "1.2.3"))
        assert "none of the names" in refused(wanting("me@here"), CA.issue("a"))

    @pytest.mark.parametrize(
        ("der", "text"),
        [
            (b"\x0c\x01a", "a"),
            (b"\x0c\x02\xc3\xbc", "ü"),
            (b"\x16\x02ab", "ab"),
            (b"\x04\x01\xff", "\xff"),
            (b"\x03\x02\x00a", "a"),
            (b"\x1e\x04\x00a\x00b", "ab"),
            (b"\x1c\x04\x00\x00\x00a", "a"),
            (b"\x01\x01\xff", "true"),
            (b"\x01\x01\x00", "false"),
            (b"\x02\x02\x01\x00", "256"),
            (b"\x02\x01\xff", "-1"),
            (b"\x06\x03\x2a\x03\x04", "1.2.3.4"),
            (b"\x06\x02\x88\x37", "2.999"),
            (b"\x05\x00", ""),
            (b"\x0c\x81\xc8" + b"x" * 200, "x" * 200),
        ],
    )
    def test_a_value_of_another_type_in_words(self, der, text):
        certificate = CA.issue(x509.OtherName(x509.ObjectIdentifier("1.2.3"), der))
        assert peer.other_names(certificate.der) == [PeerName(SanKind.OTHER_NAME, text, "1.2.3")]

    def test_a_certificate_that_cannot_be_read_is_refused_and_no_crash(self, monkeypatch):
        def broken(der):
            raise LookupError("what nobody thought of")

        monkeypatch.setattr(peer, "other_names", broken)
        tls = validating(sans=(San(SanKind.OTHER_NAME, StringMatch(StringKind.EXACT, "a"), "1.2.3"),))
        assert "the certificate cannot be read: what nobody thought of" in refused(tls)

    @pytest.mark.parametrize("signed", [True, False])
    def test_nor_is_it_where_its_own_names_are_no_text(self, signed):
        """Whether OpenSSL refused it before or not: asyncio knows no other error of a handshake."""
        broken = (CA if signed else ELSEWHERE).issue(
            raw=b"\x30\x05\x82\x03a\xff."
        )  # a DNS name that is not UTF-8
        said = refused(demanded(CA.pem, "a"), broken)
        assert "the certificate cannot be read: 'utf-8' codec can't decode" in said
        assert ("unable to get local issuer certificate" in said) is not signed

    def test_a_certificate_without_names_has_none(self):
        assert "; it has none" in refused(demanded(CA.pem, "a"), CA.issue())

    def test_of_many_names_a_few_are_told(self):
        said = refused(demanded(CA.pem, "a"), CA.issue(*(f"n{number}.internal" for number in range(50))))
        assert "and 42 more" in said
        assert "n8.internal" not in said

    def test_the_name_that_was_sent(self):  # TL-05
        tls = replace(demanded(CA.pem, "ratings.internal"), auto_sni_san=True)
        meet(tls, host="reviews.internal")
        said = refused(tls, host="ratings.internal")
        assert 'none of the names dns exact "ratings.internal"' in said
        # None was sent: the mesh's own hold.
        assert 'none of the names exact "ratings.internal"' in refused(tls, host="10.0.0.1")

    @pytest.mark.parametrize(("san", "accepted"), [("reviews.internal", True), ("ratings.internal", False)])
    def test_they_are_checked_on_sockets_too(self, san, accepted):
        ours, theirs = socket.socketpair()
        came = []

        def serve():
            try:
                with SERVER.server().wrap_socket(theirs, server_side=True) as secured:
                    came.append(secured.recv(1))
            except OSError as error:
                came.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        context = context_for(demanded(CA.pem, san))
        with ours:
            if accepted:
                context.wrap_socket(ours, server_hostname="any").close()
            else:
                with pytest.raises(ssl.SSLCertVerificationError, match="has none of the names"):
                    context.wrap_socket(ours, server_hostname="any")
        thread.join(10)
        assert not thread.is_alive()
        assert not [one for one in came if isinstance(one, bytes) and one]
        theirs.close()


class TestKeyUsage:
    @given(st.lists(st.booleans(), min_size=7, max_size=7).filter(any))
    def test_as_cryptography_reads_it(self, bits):
        names = [
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
        ]
        usage = x509.KeyUsage(**dict(zip(names, bits, strict=True)), encipher_only=False, decipher_only=False)
        found = peer.key_usage(CA.issue("a.example", usage=usage, key=SERVER.key).der)
        assert found == sum(128 >> index for index, bit in enumerate(bits) if bit)
        assert (bool(found & peer.SIGNATURE), bool(found & peer.ENCIPHERMENT)) == (bits[0], bits[2])

    def test_who_does_not_say(self):
        assert peer.key_usage(SERVER.der) is None

    @given(st.integers(0, len(SERVER.der) - 1), st.integers(0, 255), st.integers(0, len(SERVER.der)))
    def test_what_cannot_be_read_is_a_value_error(self, at, byte, end):
        der = bytearray(CA.certificate.public_bytes(Encoding.DER))
        der[at % len(der)] = byte
        for data in (bytes(der), bytes(der[:end])):
            with suppress(ValueError):
                found = peer.key_usage(data)
                assert found is None or 0 <= found <= 255


class TestPins:
    OWN = hashlib.sha256(SERVER.der).digest()
    KEY = hashlib.sha256(
        SERVER.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()
    OTHER = hashlib.sha256(b"another").digest()

    @pytest.mark.parametrize(
        "pins",
        [
            {"hashes": (OTHER, OWN)},
            {"spki": (OTHER, KEY)},
            {"hashes": (OTHER,), "spki": (KEY,)},
            {"hashes": (OWN,), "spki": (OTHER,)},
        ],
    )
    def test_one_of_them_is_enough(self, pins):
        meet(validating(**pins))
        meet(validating(roots=Pem(), **pins))  # whoever signed it
        assert "verify failed" in refused(
            validating(hashes=(hashlib.sha256(STRANGER.der).digest(),)), STRANGER
        )

    def test_what_is_pinned_and_what_came_is_told(self):
        said = refused(validating(hashes=(self.OTHER,)))
        assert f"its SHA-256 is {self.OWN.hex()}; pinned: {self.OTHER.hex()}" in said
        said = refused(validating(roots=Pem(), spki=(self.OTHER,)))
        assert f"its key's {b64encode(self.KEY).decode()}" in said
        assert f"pinned: the key's {b64encode(self.OTHER).decode()}" in said

    def test_names_are_demanded_beside(self):
        pinned = validating(hashes=(self.OWN,), sans=(exactly("nobody"),))
        assert "none of the names" in refused(pinned)


class TestTrustDomains:
    """gRFC A87."""

    ONE, TWO = Authority("One"), Authority("Two")
    BOTH = Tls(validation=Validation(domains={"one.example": Pem(ONE.pem), "two.example": Pem(TWO.pem)}))

    def test_the_domain_of_the_certificate_chooses_the_roots(self):
        meet(self.BOTH, self.ONE.issue("spiffe://one.example/a"))
        meet(self.BOTH, self.TWO.issue("spiffe://TWO.example/a"))
        meet(self.BOTH, Authority("Between", self.ONE).issue("spiffe://one.example/a"))
        said = refused(self.BOTH, self.TWO.issue("spiffe://one.example/a"))
        assert "'commonName=Two' signed a certificate of the trust domain 'one.example'" in said
        assert "verify failed" in refused(self.BOTH, ELSEWHERE.issue("spiffe://one.example/a"))

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (("spiffe://three.example/a",), "nothing is known of the trust domain 'three.example'"),
            (("one.example",), "no one SPIFFE ID; its URIs: none"),
            (("https://one.example/a",), "no one SPIFFE ID"),
            (("spiffe://one.example/a", "spiffe://two.example/a"), "no one SPIFFE ID"),
        ],
    )
    def test_who_is_of_no_domain_that_is_known_is_refused(self, names, words):
        assert words in refused(self.BOTH, self.ONE.issue(*names))

    def test_names_hold_beside(self):
        named = Tls(validation=replace(self.BOTH.validation, sans=(exactly("spiffe://one.example/a"),)))
        meet(named, self.ONE.issue("spiffe://one.example/a"))
        assert "none of the names" in refused(named, self.ONE.issue("spiffe://one.example/b"))


class TestWhoWeAre:
    def shown(self, certificate, roots=CA):
        tls = replace(MESH, certificate=certificate)
        _, seen = handshake(context_for(tls), SERVER.server(clients=roots))
        return seen.getpeercert()["subjectAltName"]

    def test_a_chain_and_a_key(self):
        assert self.shown(Certificate(Pem(CLIENT.chain_pem), Pem(CLIENT.key_pem))) == (("DNS", "client"),)
        assert self.shown(Certificate(Pem(CLIENT.chain_pem + CLIENT.key_pem))) == (("DNS", "client"),)
        between = Authority("Middle", CA).issue("far")
        assert self.shown(Certificate(Pem(between.chain_pem), Pem(between.key_pem))) == (("DNS", "far"),)

    def test_a_key_under_a_password(self):
        chain, locked = Pem(CLIENT.chain_pem), Pem(CLIENT.encrypted(b"open sesame"))
        assert self.shown(Certificate(chain, locked, password=Pem(b"open sesame\n"))) == (("DNS", "client"),)
        with pytest.raises(ConfigError, match="is the password right"):
            self.shown(Certificate(chain, locked, password=Pem(b"wrong")))
        with pytest.raises(ConfigError, match="the private key is encrypted, and no password is given"):
            self.shown(Certificate(chain, locked))  # and no question at the terminal

    def test_pkcs12(self):
        between = Authority("Middle", CA).issue("packed")
        assert self.shown(Certificate(pkcs12=Pem(between.pkcs12()))) == (("DNS", "packed"),)
        locked = Pem(between.pkcs12(b"pw"))
        assert self.shown(Certificate(pkcs12=locked, password=Pem(b"pw"))) == (("DNS", "packed"),)
        for wrong in (Certificate(pkcs12=locked), Certificate(pkcs12=Pem(b"no"), password=Pem(b"pw"))):
            with pytest.raises(ConfigError, match=r"TLS: the PKCS #12: cannot be read"):
                self.shown(wrong)


class TestLimits:
    def meet(self, *, server=None, **fields):
        return handshake(context_for(replace(MESH, **fields)), server or SERVER.server())[0]

    def test_versions(self):
        assert self.meet().version() == "TLSv1.3"
        assert self.meet(newest="TLSv1.2").version() == "TLSv1.2"
        old = SERVER.server()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert self.meet(oldest="TLSv1.0", server=old).version() == "TLSv1.2"
        with pytest.raises(ssl.SSLError, match=r"(?i)version|unsupported protocol"):
            self.meet(oldest="TLSv1.3", server=old)

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"newest": "TLSv1.1"}, "nothing below TLSv1.2 is"),
            ({"oldest": "TLSv1.3", "newest": "TLSv1.2"}, "nothing is from TLSv1.3 to TLSv1.2"),
            ({"oldest": "SSL"}, "'SSL' is no version"),
            ({"ciphers": ("NONSENSE",)}, "no cipher of NONSENSE"),
            ({"curve": "P-1"}, "the curve 'P-1'"),
            ({"alpn": ("",)}, "what ALPN is to offer"),
            ({"alpn": ("x" * 300,)}, "what ALPN is to offer"),
            ({"alpn": ("ü",)}, "what ALPN is to offer"),
        ],
    )
    def test_what_cannot_be_is_named(self, fields, words):
        with pytest.raises(ConfigError, match=words):
            context_for(replace(MESH, **fields))

    def test_ciphers_and_the_curve(self):
        chosen = self.meet(newest="TLSv1.2", ciphers=("ECDHE-ECDSA-AES256-GCM-SHA384",))
        assert chosen.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
        self.meet(curve="P-384")
        other = SERVER.server()
        other.set_ecdh_curve("secp384r1")
        self.meet(curve="P-384", server=other)
        with pytest.raises(ssl.SSLError):
            self.meet(curve="X25519", server=other)

    @pytest.mark.parametrize(
        ("alpn", "spoken", "offers"),
        [
            ((), ("h2", "http/1.1"), ["h2", "http/1.1"]),
            (("istio",), ("http/1.1",), ["istio", "http/1.1"]),
            (("istio-peer-exchange", "istio", "h2"), ("h2",), ["istio", "h2"]),
            (("istio", "h2"), ("http/1.1",), ["istio", "http/1.1"]),  # it is not spoken
            (("http/1.1", "h2"), ("h2", "http/1.1"), ["http/1.1", "h2"]),
            (("h3", "http/1.0", "h2"), ("h2",), ["h2"]),
            (("istio",), (), ["istio"]),
        ],
    )
    def test_what_is_offered(self, alpn, spoken, offers):
        assert offered(alpn, spoken) == offers

    def test_what_the_transport_speaks_is_offered_behind_the_meshs(self):
        context = context_for(replace(MESH, alpn=("istio-peer-exchange", "istio")))
        istio = SERVER.server(alpn=("istio-peer-exchange", "istio", "http/1.1"))
        assert handshake(context, istio)[0].selected_alpn_protocol() == "istio"
        context.set_alpn_protocols(["http/1.1"])
        assert handshake(context, istio)[0].selected_alpn_protocol() == "istio"
        plain = SERVER.server(alpn=("h2", "http/1.1"))
        assert handshake(context, plain)[0].selected_alpn_protocol() == "http/1.1"


class TestOneContext:
    def test_for_equal_values_and_another_for_those_who_offer_http2(self):
        assert context_for(MESH) is context_for(replace(MESH))
        assert context_for(MESH) is not context_for(MESH, http2=True)
        assert context_for(MESH) is not context_for(demanded(CA.pem, "a"))
        assert len({id(context_for(replace(MESH), http2=bool(n % 2))) for n in range(1000)}) == 2

    def test_whatever_name_is_asked_for(self):
        one = context_for(replace(MESH, sni="a.example"))
        assert one is context_for(replace(MESH, sni="b.example", auto_host_sni=True))
        assert one is context_for(MESH)
        assert one is not context_for(replace(MESH, auto_sni_san=True))

    def test_however_many_are_in_use_and_few_that_are_not(self):
        values = [demanded(CA.pem, f"{number}.example") for number in range(300)]
        used = [context_for(tls) for tls in values]
        assert [context_for(tls) for tls in values] == used
        known = [weakref.ref(context) for context in used]
        used.clear()
        gc.collect()
        left = [reference for reference in known if reference() is not None]
        assert len(left) <= 64
        assert context_for(values[-1]) is known[-1]()

    def test_in_all_threads(self):
        fresh, found = demanded(Authority("Fresh").pem), []
        go = threading.Barrier(8)

        def take():
            go.wait()
            found.append(context_for(fresh))

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, found))) == 1

    def test_it_is_neither_copied_nor_pickled(self):
        context = context_for(
            replace(MESH, certificate=Certificate(Pem(CLIENT.chain_pem), Pem(CLIENT.key_pem)))
        )
        for attempt in (lambda: pickle.dumps(context), lambda: copy.deepcopy(context)):
            with pytest.raises(TypeError):
                attempt()
        assert "PRIVATE" not in repr(context) + repr(vars(context))


class TestSessions:
    """What was checked once is resumed, by whoever checks the same."""

    def resumed(self, tls, server, times=3, between=lambda: None):
        """Of handshakes one after the other, which were resumed."""
        handshakes = Handshakes.of(context_for(tls), ["http/1.1"])
        found = []
        for _ in range(times):
            client, other = handshake(handshakes, server, session=None)
            found.append(client.session_reused)
            other.write(b"x")
            client.read(1)
            handshakes.remember(client)
            between()
        return found

    def test_the_checks_that_need_a_chain_were_made_before(self):
        leaf = Authority("Between", CA).issue(SPIFFE)
        domains = {"mesh.example": Pem(CA.pem)}
        for fields in ({"depth": 1}, {"roots": Pem(), "domains": domains}, {"sans": (exactly(SPIFFE),)}):
            tls = validating(**fields)
            assert self.resumed(tls, leaf.server()) == [False, True, True]

    def test_as_many_as_the_mesh_says(self):
        assert self.resumed(replace(MESH, sessions=0), SERVER.server()) == [False] * 3

    def test_none_of_other_material(self, files):
        tls = of_files(files)
        server = SERVER.server(clients=CA)
        assert self.resumed(tls, server) == [False, True, True]
        fresh = iter([CA.issue("a"), CA.issue("b"), CA.issue("c")])
        assert self.resumed(tls, server, between=lambda: next(fresh).write(files)) == [False] * 3


def test_a_child_has_contexts_of_its_own():
    context = context_for(MESH)
    child = os.fork()
    if not child:
        other = context_for(MESH)
        good = other is not context and other is context_for(MESH)
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert context_for(MESH) is context


@pytest.fixture
def files(tmp_path):
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    CLIENT.write(tmp_path)
    return tmp_path


def of_files(folder):
    return demanded(f"{folder}/ca.pem", chain=f"{folder}/cert.pem", key=f"{folder}/key.pem")


def seen_by(tls, roots=CA):
    return handshake(context_for(tls), SERVER.server(clients=roots))[1].getpeercert()["subjectAltName"]


class TestFiles:
    def test_they_are_read_again_when_they_change(self, files):  # TL-06
        context = context_for(of_files(files))
        context.set_alpn_protocols(["http/1.1"])
        assert seen_by(of_files(files)) == (("DNS", "client"),)
        CA.issue("renewed").write(files)
        assert seen_by(of_files(files)) == (("DNS", "renewed"),)
        assert context.epoch == 1
        seen = handshake(context, SERVER.server(clients=CA, alpn=("http/1.1",)))[1]
        assert seen.selected_alpn_protocol() == "http/1.1"
        # A new authority: the old is not trusted any more.
        replaced(files / "ca.pem", ELSEWHERE.pem)
        with pytest.raises(ssl.SSLCertVerificationError):
            seen_by(of_files(files))
        assert context_for(of_files(files)) is context
        assert context.epoch == 2

    def test_what_was_only_touched_is_no_change(self, files):
        context = context_for(of_files(files))
        replaced(files / "ca.pem", CA.pem)
        (files / "key.pem").touch()
        context.look()
        assert context.epoch == 0

    def test_a_change_that_looks_like_none_is_found(self, files):
        """Same size, same file, same tick of the clock."""
        context = context_for(of_files(files))
        path, fresh = files / "ca.pem", CA.pem + b"#"
        path.write_bytes(fresh)
        context.look()
        before = path.stat()
        path.write_bytes(CA.pem + b"!")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        epoch = context.epoch
        context.look()
        assert context.epoch == epoch + 1

    @pytest.mark.parametrize("damage", ["garbage", "gone", "torn", "folder"])
    def test_what_cannot_be_used_leaves_the_old_in_force_and_is_tried_again(self, files, damage, caplog):
        tls = of_files(files)
        context_for(tls)
        fresh = CA.issue("renewed")
        if damage == "garbage":
            (files / "cert.pem").write_bytes(b"half a certif")
        elif damage == "gone":
            (files / "cert.pem").unlink()
        elif damage == "torn":
            replaced(files / "cert.pem", fresh.chain_pem)
        else:
            (files / "cert.pem").unlink()
            (files / "cert.pem").mkdir()
        with caplog.at_level(logging.WARNING, "meshlib"):
            for _ in range(3):
                assert seen_by(tls) == (("DNS", "client"),)
        assert len(caplog.records) == 1
        assert f"the certificate '{files}/cert.pem'" in caplog.text
        if damage == "folder":
            (files / "cert.pem").rmdir()
        fresh.write(files)
        assert seen_by(tls) == (("DNS", "renewed"),)
        assert context_for(tls).epoch == 1

    def test_who_is_told_that_they_cannot_be_used_may_make_connections(self, files):
        """A handler of logging sends what it is told by HTTP, over this very context."""
        tls, told = of_files(files), []

        class Sending(logging.Handler):
            def emit(self, record):
                told.append(seen_by(tls))

        context, handler = context_for(tls), Sending()
        (files / "cert.pem").write_bytes(b"half a certif")
        logging.getLogger("meshlib").addHandler(handler)
        try:
            thread = threading.Thread(target=context.look, daemon=True)
            thread.start()
            thread.join(10)
            assert not thread.is_alive()
        finally:
            logging.getLogger("meshlib").removeHandler(handler)
        assert told == [(("DNS", "client"),)]

    def test_by_a_link_to_a_folder_as_kubernetes_does_it(self, tmp_path):
        for number, name in enumerate(("old", "new")):
            (tmp_path / str(number)).mkdir()
            (tmp_path / str(number) / "ca.pem").write_bytes(CA.pem)
            CA.issue(name).write(tmp_path / str(number))
        (tmp_path / "data").symlink_to("0")
        tls = of_files(tmp_path / "data")
        assert seen_by(tls) == (("DNS", "old"),)
        (tmp_path / "fresh").symlink_to("1")
        (tmp_path / "fresh").replace(tmp_path / "data")
        assert seen_by(tls) == (("DNS", "new"),)

    def test_a_pipe_is_no_file_and_is_not_waited_for(self, files):
        os.mkfifo(files / "pipe")
        with pytest.raises(ConfigError, match="cannot be read: it is no file"):
            context_for(demanded(str(files / "pipe")))

    def test_a_file_without_end_is_not_read_to_it(self, files):
        with (files / "large.pem").open("wb") as file:
            file.truncate(5 * 1024 * 1024)
        with pytest.raises(ConfigError, match="more than 4194304 bytes"):
            context_for(demanded(str(files / "large.pem")))


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (demanded("/nowhere/ca.pem"), "the roots '/nowhere/ca.pem' cannot be read"),
        (demanded("nul\0byte"), "the roots .* cannot be read"),
        (demanded(b"\xff\xfe"), "the roots: no usable certificate is in it"),
        (demanded(b"hello"), "the roots: no usable certificate is in it"),
        (
            demanded(CA.pem + b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"),
            "the roots: no usable",
        ),
        (demanded(CA.revoking()), "the roots: no usable certificate"),
        (validating(crl=Pem(b"no")), "the revocation list: no usable revocation list"),
        (validating(crl=Pem(CA.pem)), "the revocation list: no usable revocation list"),
        (validating(crl=Pem(file="/nowhere/crl")), "the revocation list '/nowhere/crl' cannot be read"),
        (Tls(validation=Validation(domains={"td": Pem(b"no")})), "the roots of 'td': no usable certificate"),
        (demanded(chain=b"hello", key=b"hello"), "the certificate and the private key: no pair"),
        (demanded(chain="/nowhere/c.pem", key=b"x"), "the certificate '/nowhere/c.pem' cannot be read"),
        (demanded(chain=CLIENT.chain_pem), "the certificate: no pair"),
        (demanded(chain=CLIENT.chain_pem, key=SERVER.key_pem), "no pair of certificate and key: KEY_VALUES"),
        (demanded(chain=CLIENT.chain_pem, key="/nowhere/k.pem"), "the private key '/nowhere/k.pem' cannot"),
        (Tls(certificate=Certificate(key=Pem(b"x"))), "a private key is given, and no certificate"),
        (Tls(unsupported="secrets by SDS are not supported"), "secrets by SDS are not supported"),
        (Tls(lacking="the secret 'x' is not there"), "the secret 'x' is not there"),
        (Tls(roots=SecretName("ROOTCA", SecretKind.CA)), "secret 'ROOTCA' has not come yet"),
        (
            replace(MESH, certificates=SecretName("me", SecretKind.CERTIFICATE)),
            "secret 'me' has not come yet",
        ),
    ],
)
def test_what_is_wrong_is_named(tls, words):
    with pytest.raises(ConfigError, match=words) as caught:
        context_for(tls)
    assert "PRIVATE KEY" not in str(caught.value)


def descriptors():
    """Each, and what it is of."""
    found = set()
    for each in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):  # that by which they were listed
            found.add((each.name, str(each.readlink())))
    return found


def test_no_descriptor_is_left():
    before = descriptors()
    for number in range(20):
        ours = demanded(CA.pem, str(number), chain=CLIENT.chain_pem, key=CLIENT.key_pem)
        context_for(ours)
        with pytest.raises(ConfigError):
            context_for(demanded(CA.pem, str(number), chain=CLIENT.chain_pem, key=b"no"))
    assert asked(lambda: descriptors() <= before), (
        descriptors() - before
    )  # others may have some open for a moment
