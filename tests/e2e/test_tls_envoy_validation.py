"""Which certificates are accepted: a real Envoy's answer and ours, matcher by matcher, demand by demand."""

from __future__ import annotations

import hashlib
import ssl
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from meshlib.core.sans import compile_sans
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import Pem, San, SanKind, Tls, Validation
from meshlib.runtime.tls import context_for, peer
from tests.support.certificates import Authority, Issued, handshake, key_usage
from tests.support.envoy_validation import accepted_by_envoy
from tests.support.tls_server import TlsServer

UPN = "1.3.6.1.4.1.311.20.2.3"
CA = Authority("Mesh")
SERVER = CA.issue(
    "plain.example",
    "UPPER.example",
    "*.wild.example",
    "f*r.part.example",
    "xn--*.ace.example",
    "*.*.twice.example",
    "a.*.inner.example",
    "one",
    "*",
    "spiffe://td.example/ns/a/sa/b",
    "https://UPPER.example/Path",
    "Me@mail.example",
    "10.0.0.1",
    "2001:db8::1",
    "::ffff:10.0.0.2",
    x509.OtherName(x509.ObjectIdentifier(UPN), b"\x0c\x07me@here"),
    x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x02\x02\x01\x00"),
)
DNS, URI, EMAIL, IP, OTHER = (
    SanKind.DNS,
    SanKind.URI,
    SanKind.EMAIL,
    SanKind.IP,
    SanKind.OTHER_NAME,
)
EXACT, PREFIX, SUFFIX, CONTAINS, REGEX = StringKind
TYPES = {DNS: "DNS", URI: "URI", EMAIL: "EMAIL", IP: "IP_ADDRESS", OTHER: "OTHER_NAME"}
WORDS = {EXACT: "exact", PREFIX: "prefix", SUFFIX: "suffix", CONTAINS: "contains"}


def san(
    kind: SanKind, value: str, how: StringKind = EXACT, oid: str = "", *, ignore_case: bool = False
) -> San:
    return San(kind, StringMatch(how, value, ignore_case), oid)


CASES = [
    *(
        san(DNS, value)
        for value in (
            *("plain.example", "PLAIN.example", "upper.example", "plain.example.org", "lain.example"),
            *(
                "a.wild.example",
                "A.WILD.example",
                "wild.example",
                "a.b.wild.example",
                "*.wild.example",
            ),
            *(
                "for.part.example",
                "fr.part.example",
                "foooor.part.example",
                "fo.part.example",
                "f.part.example",
            ),
            *(
                "xn--a.ace.example",
                "xn--*.ace.example",
                "a.b.twice.example",
                "*.*.twice.example",
                "a.x.inner.example",
            ),
            *("one", "ONE", "two", "two.example", "", "10.0.0.1", "spiffe://td.example/ns/a/sa/b"),
        )
    ),
    *(
        san(DNS, value, how)
        for how, value in (
            *(
                (PREFIX, "plain."),
                (PREFIX, "PLAIN."),
                (SUFFIX, ".example"),
                (SUFFIX, "wild.example"),
                (CONTAINS, "lain"),
            ),
            *(
                (REGEX, "plain\\.exam.*"),
                (REGEX, "plain"),
                (REGEX, "a\\.wild\\.example"),
                (REGEX, "\\*\\.wild\\.example"),
            ),
        )
    ),
    san(DNS, "PLAIN.", PREFIX, ignore_case=True),
    *(
        san(URI, value)
        for value in (
            "spiffe://td.example/ns/a/sa/b",
            "spiffe://TD.example/ns/a/sa/b",
            "https://upper.example/Path",
            "",
        )
    ),
    san(URI, "spiffe://td.example/ns/a/", PREFIX),
    san(URI, "spiffe://td.example/ns/b/", PREFIX),
    san(URI, "/SA/B", SUFFIX, ignore_case=True),
    san(URI, "SPIFFE://td.example/ns/a/sa/b", ignore_case=True),
    san(URI, "spiffe://[a-z.]+/ns/a/sa/b", REGEX),
    san(URI, "ns/a", REGEX),
    *(san(EMAIL, value) for value in ("Me@mail.example", "me@mail.example", "Me@MAIL.example")),
    san(EMAIL, "me@MAIL.example", ignore_case=True),
    san(EMAIL, "@mail.example", SUFFIX),
    *(
        san(IP, value)
        for value in ("10.0.0.1", "10.0.0.2", "2001:db8::1", "::ffff:10.0.0.2", "plain.example")
    ),
    san(IP, "10.0.", PREFIX),
    san(IP, "2001:db8::", PREFIX),
    san(IP, "2001:db8:0", PREFIX),
    san(IP, "::ffff:10.0.0.2", PREFIX),
    san(OTHER, "me@here", oid=UPN),
    san(OTHER, "ME@HERE", oid=UPN),
    san(OTHER, "me@here", oid="1.2.3"),
    san(OTHER, "me@", PREFIX, UPN),
    san(OTHER, "256", oid="1.2.3"),
    san(OTHER, "256", oid="1.2.4"),
]
#: Envoy compares addresses as text, and we as addresses; what is more than Envoy's is written in differences.md.
SPELLED = [san(IP, "2001:DB8::1"), san(IP, "2001:db8:0:0:0:0:0:1")]
#: A name may end in the root's dot, which Envoy takes for a part of it.
DOTTED = [san(DNS, "plain.example.")]
#: A label has a character.
NO_LABEL = san(DNS, ".wild.example")


def matcher(wanted: San) -> dict[str, Any]:
    match: dict[str, Any] = {"ignore_case": True} if wanted.match.ignore_case else {}
    if wanted.match.kind is REGEX:
        match["safe_regex"] = {"regex": wanted.match.value}
    else:
        match[WORDS[wanted.match.kind]] = wanted.match.value
    found = {"san_type": TYPES[wanted.kind], "matcher": match}
    return {**found, "oid": wanted.oid} if wanted.oid else found


def ours(wanted: San) -> bool:
    der = SERVER.der
    names = [*NAMES, *peer.other_names(der)]
    return compile_sans([wanted])(names)


NAMES = peer.names(
    {
        "subjectAltName": [
            (kind, str(name.value))
            for name in SERVER.certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value
            for of, kind in (
                (x509.DNSName, "DNS"),
                (x509.UniformResourceIdentifier, "URI"),
                (x509.RFC822Name, "email"),
                (x509.IPAddress, "IP Address"),
            )
            if isinstance(name, of)
        ]
    }
)


def test_the_same_names_are_accepted(tmp_path: Path) -> None:  # TL-04
    cases = [*CASES, *SPELLED, *DOTTED, NO_LABEL]
    roots = {"inline_string": CA.pem.decode()}
    with TlsServer(SERVER.server()) as server:
        demanded = [
            (server.address, {"trusted_ca": roots, "match_typed_subject_alt_names": [matcher(wanted)]})
            for wanted in cases
        ]
        theirs = accepted_by_envoy(tmp_path, demanded)
    found = dict(zip(cases, theirs, strict=True))
    assert {wanted: found[wanted] for wanted in CASES} == {wanted: ours(wanted) for wanted in CASES}
    assert sum(theirs) > 20
    for wanted in SPELLED + DOTTED:
        assert (ours(wanted), found[wanted]) == (True, False)
    assert (ours(NO_LABEL), found[NO_LABEL]) == (False, True)


# --- who signed, what was revoked, what is pinned -----------------------------------------------------------------------

MIDDLE = Authority("Middle", CA)
LOWEST = Authority("Lowest", MIDDLE)
ELSEWHERE = Authority("Elsewhere")
SERVERS = {
    "leaf": CA.issue("a.example"),
    "revoked": CA.issue("a.example"),
    "expired": CA.issue("a.example", expired=True),
    "deep": LOWEST.issue("a.example"),
    "elsewhere": ELSEWHERE.issue("a.example"),
}
LEAF, DEEP = SERVERS["leaf"], SERVERS["deep"]
REVOKED = CA.revoking(SERVERS["revoked"])
WRONG = b"x" * 32
SHA = hashlib.sha256(LEAF.der).digest()
KEY = hashlib.sha256(peer.public_key(LEAF.der)).digest()


def pem(*authorities: Authority) -> Pem:
    return Pem(b"".join(one.pem for one in authorities))


#: Each is asked of every server.
DEMANDS = {
    "roots": Validation(pem(CA)),
    "both roots": Validation(pem(CA, ELSEWHERE)),
    "an authority between": Validation(Pem(MIDDLE.certificate.public_bytes(Encoding.PEM))),
    "the lowest": Validation(Pem(LOWEST.certificate.public_bytes(Encoding.PEM))),
    "the leaf itself": Validation(Pem(LEAF.certificate.public_bytes(Encoding.PEM))),
    "expired": Validation(pem(CA), expired=True),
    "revoked": Validation(pem(CA), crl=Pem(REVOKED)),
    "revoked, of all": Validation(pem(CA), crl=Pem(REVOKED + MIDDLE.revoking() + LOWEST.revoking())),
    "an authority is": Validation(
        pem(CA), crl=Pem(CA.revoking(MIDDLE) + MIDDLE.revoking() + LOWEST.revoking())
    ),
    "the same, leaf alone": Validation(
        pem(CA), crl=Pem(CA.revoking(MIDDLE) + LOWEST.revoking()), crl_leaf=True
    ),
    "revoked among roots": Validation(Pem(CA.pem + REVOKED)),
    "a hash": Validation(pem(CA), hashes=(WRONG, SHA)),
    "a key": Validation(pem(CA), spki=(KEY,)),
    "a hash or a key": Validation(pem(CA), hashes=(WRONG,), spki=(KEY,)),
    "neither": Validation(pem(CA), hashes=(WRONG,), spki=(WRONG,)),
    "a hash alone": Validation(hashes=(hashlib.sha256(SERVERS["elsewhere"].der).digest(),)),
    "a name": Validation(pem(CA), sans=(san(DNS, "a.example"),)),
    "another name": Validation(pem(CA), sans=(san(DNS, "b.example"),)),
    "anybody": Validation(pem(CA), untrusted=True),
    "depth 0": Validation(pem(CA), depth=0),
    "depth 1": Validation(pem(CA), depth=1),
    "depth 2": Validation(pem(CA), depth=2),
    "nothing": Validation(),
}


def in_envoys_words(validation: Validation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, given in (("trusted_ca", validation.roots), ("crl", validation.crl)):
        if given:
            found[field] = {"inline_string": given.data.decode()}
    if validation.hashes:
        found["verify_certificate_hash"] = [one.hex() for one in validation.hashes]
    if validation.spki:
        found["verify_certificate_spki"] = [b64encode(one).decode() for one in validation.spki]
    if validation.sans:
        found["match_typed_subject_alt_names"] = list(map(matcher, validation.sans))
    if validation.untrusted:
        found["trust_chain_verification"] = "ACCEPT_UNTRUSTED"
    if validation.depth is not None:
        found["max_verify_depth"] = validation.depth
    found["allow_expired_certificate"] = validation.expired
    found["only_verify_leaf_cert_crl"] = validation.crl_leaf
    return found


def accepted_by_us(validation: Validation, issued: Issued) -> bool:
    try:
        handshake(context_for(Tls(validation=validation)), issued.server())
    except ssl.SSLCertVerificationError:
        return False
    return True


def test_the_same_peers_are_accepted(tmp_path: Path) -> None:
    with ExitStack() as stack:
        addresses = {
            name: stack.enter_context(TlsServer(issued.server())).address for name, issued in SERVERS.items()
        }
        keys = [(demand, name) for demand in DEMANDS for name in SERVERS]
        cases = [(addresses[name], in_envoys_words(DEMANDS[demand])) for demand, name in keys]
        theirs = dict(zip(keys, accepted_by_envoy(tmp_path, cases), strict=True))
    own = {(demand, name): accepted_by_us(DEMANDS[demand], SERVERS[name]) for demand, name in keys}
    # Envoy 1.40 does not look at max_verify_depth there.
    for key in (("depth 0", "deep"), ("depth 1", "deep")):
        assert (own.pop(key), theirs.pop(key)) == (False, True)
    assert own == theirs
    assert 20 < sum(own.values()) < len(own) - 20


# --- what a certificate's key is for ------------------------------------------------------------------------------------

#: Suites as OpenSSL and Envoy call them; the second has the server decipher with its key, and not sign.
SIGNING, DECIPHERING = "ECDHE-RSA-AES128-GCM-SHA256", "AES128-GCM-SHA256"
USAGES = {
    "nothing said": None,
    "signatures": key_usage(digital_signature=True),
    "encipherment": key_usage(key_encipherment=True),
    "both": key_usage(digital_signature=True, key_encipherment=True),
    "certificates": key_usage(signs=True),
}


def spoken(issued: Issued, suite: str) -> ssl.SSLContext:
    """A server of TLS 1.3, or of 1.2 with this suite."""
    context = issued.server()
    if not suite:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    else:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(suite)
    return context


def test_keys_are_used_for_what_they_are_for(tmp_path: Path) -> None:
    """Envoy ``enforce_rsa_key_usage``, which Envoy 1.40 does whatever is said."""
    key = rsa.generate_private_key(65537, 2048)
    issued = {usage: CA.issue("a.example", key=key, usage=held) for usage, held in USAGES.items()}
    keys = [(usage, suite) for usage in USAGES for suite in ("", SIGNING, DECIPHERING)]
    with ExitStack() as stack:
        cases, more = [], []
        for usage, suite in keys:
            server = stack.enter_context(TlsServer(spoken(issued[usage], suite)))
            cases.append((server.address, {"trusted_ca": {"inline_string": CA.pem.decode()}}))
            params = {"tls_maximum_protocol_version": "TLSv1_3", "cipher_suites": [suite or SIGNING]}
            more.append({"enforce_rsa_key_usage": True, "tls_params": params})
        theirs = dict(zip(keys, accepted_by_envoy(tmp_path, cases, more), strict=True))

    def ours(usage: str, suite: str, *, enforced: bool) -> bool:
        tls = Tls(validation=Validation(pem(CA)), ciphers=(suite,) if suite else (), usage=enforced)
        try:
            handshake(context_for(tls), spoken(issued[usage], suite))
        except ssl.SSLCertVerificationError:
            return False
        return True

    assert {key: ours(*key, enforced=True) for key in keys} == theirs
    assert sum(theirs.values()) == 9
    assert sum(ours(*key, enforced=False) for key in keys) == 12
