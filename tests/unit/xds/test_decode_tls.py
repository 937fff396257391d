"""Transport sockets: every field into the model, in the sidecar view with Envoy's verdicts, in the target view with gRPC's."""

from __future__ import annotations

import base64
import hashlib

import pytest

from meshlib.model.address import Address
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import (
    Certificate,
    Pem,
    San,
    SanKind,
    SecretFrom,
    SecretKind,
    SecretName,
    Tls,
    Validation,
)
from meshlib.testing import build
from meshlib.xds import decode
from tests.support.mesh_tls import exactly
from tests.support.xds_kit import raw

TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
RAW = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
PROXIED = "envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport"
SPIFFE = "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
HERE = "transport_socket.typed_config.common_tls_context"
ADS = {"ads": {}}


def pem(label, body=b"\x30\x03\x02\x01\x05"):
    return f"-----BEGIN {label}-----\n{base64.b64encode(body).decode()}\n-----END {label}-----\n"


def inline(text):
    return {"inline_string": text}


CERT, KEY, CRL = pem("CERTIFICATE"), pem("PRIVATE KEY"), pem("X509 CRL")
CA = {"trusted_ca": inline(CERT)}
PAIR = {"certificate_chain": inline(CERT), "private_key": inline(KEY)}
BY_INSTANCE = {"ca_certificate_provider_instance": {"instance_name": "x"}}
HASH = hashlib.sha256(b"certificate").digest()


def demanding(common=None, **context):
    """A cluster that demands TLS."""
    typed = build.any_of(TLS, {"common_tls_context": common or {}, **context})
    return build.cluster("c", ["10.0.0.1:80"], transport_socket={"name": "tls", "typed_config": typed})


def validating(**validation):
    return demanding({"validation_context": validation})


def good(resource, view="auto", **options):
    found = decode.cluster(raw(resource), view, **options)
    assert found.problems == ()
    return found.value.tls


def problems(resource, view="auto", **options):
    found = decode.cluster(raw(resource), view, **options)
    assert found.value is None
    return found.problems


def ignored(resource, view="auto"):
    found = decode.cluster(raw(resource), view)
    assert found.problems == ()
    return dict(found.ignored)


def test_all_of_it():
    typed = [{"san_type": "URI", "matcher": {"exact": "spiffe://a"}}]
    common = {
        "tls_certificates": [{"certificate_chain": inline(CERT), "private_key": {"filename": "/key.pem"}}],
        "validation_context": CA | {"match_typed_subject_alt_names": typed},
        "alpn_protocols": ["istio", "h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
    }
    resource = demanding(
        common,
        sni="s.example",
        auto_host_sni=True,
        auto_sni_san_validation=True,
        max_session_keys=0,
        allow_renegotiation=True,
        enforce_rsa_key_usage=False,
    )
    assert good(resource) == Tls(
        sni="s.example",
        auto_host_sni=True,
        auto_sni_san=True,
        certificate=Certificate(Pem(CERT.encode()), Pem(file="/key.pem")),
        validation=Validation(Pem(CERT.encode()), sans=(exactly("spiffe://a", SanKind.URI),)),
        alpn=("istio", "h2"),
        oldest="TLSv1.2",
        newest="TLSv1.3",
        sessions=0,
        renegotiates=True,
        usage=False,
    )
    assert ignored(resource) == {}


class TestSockets:
    def test_tl_01_dv_12_plain_text(self):
        plain = {"name": "r", "typed_config": build.any_of(RAW)}
        assert good(build.cluster("c", ["10.0.0.1:80"], transport_socket=plain)) is None
        assert good(build.cluster("c", ["10.0.0.1:80"])) is None

    def test_another_one_closes_the_cluster(self):
        other = {"name": "x", "typed_config": build.any_of("google.protobuf.Empty")}
        resource = build.cluster("c", ["10.0.0.1:80"], transport_socket=other)
        assert "google.protobuf.Empty" in good(resource).unsupported
        assert ignored(resource) == {"transport_socket.typed_config": "google.protobuf.Empty"}

    @pytest.mark.parametrize("kind", [RAW, "google.protobuf.Empty"])
    def test_tl_02_grpc_has_one(self, kind):
        socket = {"name": "x", "typed_config": build.any_of(kind)}
        [text] = problems(build.cluster("c", ["10.0.0.1:80"], transport_socket=socket), "target")
        assert text == f"transport_socket.typed_config: {kind} is no transport socket of gRPC"

    @pytest.mark.parametrize("view", ["auto", "target"])
    def test_one_that_only_its_name_tells(self, view):
        named = build.cluster("c", ["10.0.0.1:80"], transport_socket={"name": "envoy.transport_sockets.tls"})
        assert problems(named, view) == ("transport_socket.typed_config: is missing",)
        plain = build.cluster("c", ["10.0.0.1:80"], transport_socket={"name": "raw_buffer"})
        if view == "auto":
            assert good(plain) is None
        else:
            assert problems(plain, view)

    def test_by_endpoint(self):
        matches = [
            {"name": "mtls", "match": {"tlsMode": "istio"}, **_socket(TLS)},
            {"name": "plain", "match": {}, **_socket(RAW)},
        ]
        resource = build.cluster("c", ["10.0.0.1:80"], transport_socket_matches=matches)
        found = decode.cluster(raw(resource)).value.tls_matches
        assert [(each.name, dict(each.match), each.tls is None) for each in found] == [
            ("mtls", {"tlsMode": "istio"}, False),
            ("plain", {}, True),
        ]
        assert problems(resource, "target") == ("transport_socket_matches: is not supported by gRPC",)

    def test_tl_07_through_a_proxy(self):
        """What is inside holds, through the proxy. Plain text inside is called by nobody."""
        inner = _socket(TLS, sni="a", common_tls_context={"validation_context": CA})["transport_socket"]
        default = {"socket_address": {"address": "10.9.9.9", "port_value": 3128}}
        for fields, proxy in (({}, None), ({"default_proxy_address": default}, Address("10.9.9.9", 3128))):
            proxied = _socket(PROXIED, transport_socket=inner, **fields)
            found = good(build.cluster("c", ["10.0.0.1:80"], **proxied))
            assert (found.sni, found.closed, found.proxied, found.proxy) == ("a", "", True, proxy)
            assert found.validation.roots
        for fields in ({}, _socket(RAW)):
            result = decode.cluster(raw(build.cluster("c", ["10.0.0.1:80"], **_socket(PROXIED, **fields))))
            assert result.value.tls.closed == "plain text through a proxy is not supported"
            assert result.value.tls.closed in dict(result.ignored).values()
        wrong = {"socket_address": {"address": "proxy.name", "port_value": 3128}}
        proxied = _socket(PROXIED, transport_socket=inner, default_proxy_address=wrong)
        [problem] = problems(build.cluster("c", ["10.0.0.1:80"], **proxied))
        assert problem.startswith(
            "transport_socket.typed_config.default_proxy_address.socket_address.address: "
        )


def _socket(kind, **fields):
    return {"transport_socket": {"name": "s", "typed_config": build.any_of(kind, fields)}}


class TestNames:
    """TL-05."""

    def test_at_most_255_bytes(self):
        assert good(demanding({"validation_context": CA}, sni="é" * 127 + "a")).sni
        for view in ("auto", "target"):
            assert any("sni: is longer than 255" in text for text in problems(demanding(sni="é" * 128), view))

    @pytest.mark.parametrize("evil", ["a\r\nb", "a\nb", "a\0b"])
    def test_one_that_can_be_none(self, evil):
        assert problems(demanding({"validation_context": CA}, sni=evil)) == (
            "transport_socket.typed_config.sni: must not hold a line break or NUL",
        )

    def test_one_that_is_to_be_in_the_certificate_needs_a_ca(self):
        words = f"{HERE}: has no CA, and the name that was sent is to be in the certificate"
        assert problems(demanding(auto_sni_san_validation=True)) == (words,)
        resource = demanding(
            {"validation_context": {"verify_certificate_hash": [HASH.hex()]}}, auto_sni_san_validation=True
        )
        assert problems(resource)


class TestParameters:
    def limits(self, **params):
        return good(demanding({"tls_params": params, "validation_context": CA}))

    def test_versions(self):
        found = [
            self.limits(tls_minimum_protocol_version=name).oldest
            for name in ("TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3")
        ]
        assert found == ["", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]
        [text] = problems(
            demanding({"tls_params": {"tls_maximum_protocol_version": 9}, "validation_context": CA})
        )
        assert text == f"{HERE}.tls_params.tls_maximum_protocol_version: 9 is not known"

    def test_ciphers(self):
        given = [
            "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
            "ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_RSA_WITH_AES_256_CBC_SHA",
        ]
        assert self.limits(cipher_suites=given).ciphers == (
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "AES128-SHA",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "AES256-SHA",
        )

    @pytest.mark.parametrize("text", ["!aNULL", "ECDHE+AESGCM", "", "a b", "[A|]", "@STRENGTH"])
    def test_what_is_no_name_of_a_cipher(self, text):
        resource = demanding({"tls_params": {"cipher_suites": [text]}, "validation_context": CA})
        [found] = problems(resource)
        assert found.startswith(f"{HERE}.tls_params.cipher_suites[0]: ")

    def test_one_curve(self):
        assert self.limits(ecdh_curves=["P-256"]).curve == "P-256"
        several = demanding({"tls_params": {"ecdh_curves": ["X25519", "P-256"]}, "validation_context": CA})
        assert good(several).curve == ""
        assert f"{HERE}.tls_params.ecdh_curves" in ignored(several)

    def test_what_ssl_has_no_word_for_is_told(self):
        params = {"signature_algorithms": ["ecdsa_secp256r1_sha256"], "compliance_policies": ["FIPS_202205"]}
        told = ignored(demanding({"tls_params": params, "validation_context": CA}))
        assert sorted(told) == [
            f"{HERE}.tls_params.compliance_policies",
            f"{HERE}.tls_params.signature_algorithms",
        ]

    def test_tl_03_grpc_refuses_them(self):
        common = {"tls_params": {}, "validation_context": BY_INSTANCE}
        assert problems(demanding(common), "target") == (f"{HERE}.tls_params: is not supported by gRPC",)


class TestCertificates:
    def shown(self, *given):
        return demanding({"tls_certificates": list(given), "validation_context": CA})

    def test_pkcs12(self):
        held = {
            "pkcs12": {"inline_bytes": base64.b64encode(b"\x30\x01").decode()},
            "password": {"filename": "/p"},
        }
        found = good(self.shown(held)).certificate
        assert found == Certificate(pkcs12=Pem(b"\x30\x01"), password=Pem(file="/p"))
        [text] = problems(self.shown({"pkcs12": inline("no")}))
        assert text == f"{HERE}.tls_certificates[0].pkcs12: is no PKCS #12"

    @pytest.mark.parametrize("beside", ["certificate_chain", "private_key"])
    def test_pkcs12_stands_alone(self, beside):
        held = {"pkcs12": {"filename": "/p12"}, beside: {"filename": "/x"}}
        assert problems(self.shown(held)) == (
            f"{HERE}.tls_certificates[0].pkcs12: cannot stand beside {beside}",
        )

    def test_an_encrypted_key(self):
        locked = PAIR | {"private_key": inline(pem("ENCRYPTED PRIVATE KEY"))}
        [text] = problems(self.shown(locked))
        assert text == f"{HERE}.tls_certificates[0].private_key: is encrypted, and there is no password"
        found = good(self.shown(locked | {"password": inline("p")})).certificate
        assert found.password == Pem(b"p")

    @pytest.mark.parametrize("lacking", ["certificate_chain", "private_key"])
    def test_both_or_none(self, lacking):
        held = {name: value for name, value in PAIR.items() if name != lacking}
        [text] = problems(self.shown(held))
        assert text.endswith("tls_certificates[0]: certificate_chain and private_key must be set together")
        assert good(self.shown({})).certificate is None

    def test_what_is_inline_must_be_pem(self):
        found = problems(self.shown({"certificate_chain": inline("CERT"), "private_key": inline("KEY")}))
        assert found == (
            f"{HERE}.tls_certificates[0].certificate_chain: has no certificate in PEM",
            f"{HERE}.tls_certificates[0].private_key: has no private key in PEM",
        )

    def test_a_directory_that_is_watched(self):
        assert ignored(self.shown(PAIR | {"watched_directory": {"path": "/d"}})) == {}

    def test_several_are_refused_as_by_envoy(self):
        assert problems(self.shown(PAIR, PAIR)) == (
            f"{HERE}.tls_certificates[1]: a client has one certificate",
        )
        secrets = {"tls_certificate_sds_secret_configs": [{"name": "s", "sds_config": ADS}]}
        both = demanding({"tls_certificates": [PAIR], "validation_context": CA, **secrets})
        assert problems(both) == (
            f"{HERE}.tls_certificate_sds_secret_configs[0]: a client has one certificate",
        )

    @pytest.mark.parametrize("path", ["", "/ca\0.pem"])
    def test_what_is_no_path_of_a_file(self, path):
        words = "validation_context.trusted_ca.filename: must be the path of a file"
        assert problems(validating(trusted_ca={"filename": path})) == (f"{HERE}.{words}",)

    def test_the_environment_is_not_read(self):
        [text] = problems(validating(trusted_ca={"environment_variable": "HOME"}))
        assert "environment_variable" in text

    @pytest.mark.parametrize(
        ("common", "words"),
        [
            ({"custom_handshaker": {"name": "x"}}, "a handshaker of its own"),
            ({"custom_tls_certificate_selector": {"name": "x"}}, "a selector of certificates"),
            ({"tls_certificates": [PAIR | {"private_key_provider": {}}]}, "a provider of private keys"),
            ({"tls_certificate_certificate_provider": {}}, "certificates from a provider of the control plane's"),
            ({"validation_context_certificate_provider": {}}, "a CA from a provider of the control plane's"),
            ({"validation_context": CA | {"require_signed_certificate_timestamp": True}}, "signed certificate timestamps"),
            ({"validation_context": {"custom_validator_config": {"name": "x"}}}, "a validator of its own"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_done_closes_the_cluster_and_is_told(self, common, words):
        resource = demanding(
            {"validation_context": CA, **common}
            if "validation_context_certificate_provider" not in common
            else common
        )
        assert good(resource).unsupported == f"TLS with {words} is not supported"
        assert ignored(resource)[HERE] == words


class TestValidation:
    def test_nobody_is_verified_without_a_ca_and_that_is_told(self):
        for resource, place in ((demanding(), HERE), (validating(), f"{HERE}.validation_context")):
            assert good(resource).closed == ""
            assert ignored(resource) == {place: "there is no CA: nobody is verified, as in Envoy"}

    @pytest.mark.parametrize(
        ("context", "words"),
        [
            ({"match_subject_alt_names": [{"exact": "a"}]}, "has names to look for and no CA"),
            (
                {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a"}}]},
                "has names",
            ),
            ({"crl": inline(CRL)}, "has a revocation list and no CA"),
            ({"allow_expired_certificate": True}, "lets certificates expire and has no CA"),
        ],
    )
    def test_what_says_nothing_without_a_ca_is_refused_as_by_envoy(self, context, words):
        [text] = problems(validating(**context))
        assert text.startswith(f"{HERE}.validation_context: {words}")
        assert good(validating(**context, **CA)).validation.roots
        assert good(validating(**context, system_root_certs={})).validation.system

    def test_the_systems_roots_are_the_last(self):
        assert good(validating(system_root_certs={})).validation == Validation(system=True)
        assert not good(validating(system_root_certs={}, **CA)).validation.system

    def test_switches(self):
        found = good(
            validating(
                crl=inline(CRL),
                only_verify_leaf_cert_crl=True,
                allow_expired_certificate=True,
                max_verify_depth=3,
                watched_directory={"path": "/d"},
                **CA,
            )
        ).validation
        assert found == Validation(
            Pem(CERT.encode()), crl=Pem(CRL.encode()), crl_leaf=True, expired=True, depth=2
        )

    @pytest.mark.parametrize(("given", "between"), [(0, 0), (1, 0), (100, 99)])
    def test_the_root_counts(self, given, between):
        assert good(validating(max_verify_depth=given, **CA)).validation.depth == between
        assert problems(validating(max_verify_depth=101, **CA))

    def test_anybody_may_have_signed_it_and_that_is_told(self):
        resource = validating(trust_chain_verification="ACCEPT_UNTRUSTED", **CA)
        assert good(resource).validation.untrusted
        assert f"{HERE}.validation_context.trust_chain_verification" in ignored(resource)
        assert problems(validating(trust_chain_verification=7, **CA))

    @pytest.mark.parametrize(
        ("text", "words"), [("no PEM", "has no revocation list in PEM"), (CERT, "has no revocation list")]
    )
    def test_a_revocation_list_that_is_none(self, text, words):
        [found] = problems(validating(crl=inline(text), **CA))
        assert found.startswith(f"{HERE}.validation_context.crl: {words}")

    def test_hashes(self):
        plain, colons = HASH.hex(), ":".join(f"{byte:02X}" for byte in HASH)
        assert good(validating(verify_certificate_hash=[plain, colons])).validation.hashes == (HASH, HASH)
        assert ignored(validating(verify_certificate_hash=[plain])) == {}

    @pytest.mark.parametrize(
        "text", ["", "aa", "zz" * 32, HASH.hex() + "00", HASH.hex()[:-1] + " ", ":" * 95, HASH.hex() + "\n"]
    )
    def test_a_hash_that_is_none(self, text):
        [found] = problems(validating(verify_certificate_hash=[text]))
        assert found == f"{HERE}.validation_context.verify_certificate_hash[0]: must be a SHA-256 in hex"

    def test_pins(self):
        text = base64.b64encode(HASH).decode()
        assert good(validating(verify_certificate_spki=[text])).validation.spki == (HASH,)

    @pytest.mark.parametrize(
        "text", ["", "AAAA", HASH.hex(), base64.b64encode(HASH).decode().rstrip("="), "ä" * 44, " " * 44]
    )
    def test_a_pin_that_is_none(self, text):
        [found] = problems(validating(verify_certificate_spki=[text]))
        assert found == f"{HERE}.validation_context.verify_certificate_spki[0]: must be a SHA-256 in base64"


class TestSans:
    """TL-04."""

    @pytest.mark.parametrize(
        ("given", "kind"),
        [
            ({"exact": "a"}, StringKind.EXACT),
            ({"prefix": "a", "ignore_case": True}, StringKind.PREFIX),
            ({"suffix": "a"}, StringKind.SUFFIX),
            ({"contains": "a"}, StringKind.CONTAINS),
            ({"safe_regex": {"regex": "a"}}, StringKind.REGEX),
        ],
    )
    def test_matchers(self, given, kind):
        expected = StringMatch(kind, "a", "ignore_case" in given)
        old = good(validating(match_subject_alt_names=[given], **CA)).validation.sans
        assert old == (San(SanKind.ANY, expected),)
        typed = good(validating(match_typed_subject_alt_names=[{"san_type": "DNS", "matcher": given}], **CA))
        assert typed.validation.sans == (San(SanKind.DNS, expected),)

    @pytest.mark.parametrize(
        ("given", "kind"),
        [("EMAIL", SanKind.EMAIL), ("DNS", SanKind.DNS), ("URI", SanKind.URI), ("IP_ADDRESS", SanKind.IP)],
    )
    def test_kinds(self, given, kind):
        item = {"san_type": given, "matcher": {"exact": "a"}}
        found = good(validating(match_typed_subject_alt_names=[item], **CA)).validation.sans
        assert found == (exactly("a", kind),)

    def test_other_names_have_an_oid(self):
        item = {"san_type": "OTHER_NAME", "matcher": {"exact": "a"}, "oid": "1.3.6.1.4.1.311.20.2.3"}
        [found] = good(validating(match_typed_subject_alt_names=[item], **CA)).validation.sans
        assert (found.kind, found.oid) == (SanKind.OTHER_NAME, "1.3.6.1.4.1.311.20.2.3")
        for oid in ("", "msUPN", "1", "1..2", "9.1", "1.2."):
            [text] = problems(validating(match_typed_subject_alt_names=[item | {"oid": oid}], **CA))
            assert ".match_typed_subject_alt_names[0].oid: must be" in text

    @pytest.mark.parametrize(
        "item",
        [
            {"matcher": {"exact": "a"}},
            {"san_type": 9, "matcher": {"exact": "a"}},
            {"san_type": "DNS"},
            {"san_type": "DNS", "matcher": {}},
            {"san_type": "DNS", "matcher": {"prefix": ""}},
            {"san_type": "DNS", "matcher": {"safe_regex": {"regex": "("}}},
        ],
    )
    def test_what_is_none(self, item):
        [text] = problems(validating(match_typed_subject_alt_names=[item], **CA))
        assert text.startswith(f"{HERE}.validation_context.match_typed_subject_alt_names[0].")

    def test_the_typed_ones_hold(self):
        typed = [{"san_type": "DNS", "matcher": {"exact": "a"}}]
        resource = validating(
            match_typed_subject_alt_names=typed, match_subject_alt_names=[{"exact": "b"}], **CA
        )
        assert good(resource).validation.sans == (exactly("a", SanKind.DNS),)
        assert f"{HERE}.validation_context.match_subject_alt_names" in ignored(resource)


class TestSpiffe:
    """gRFC A87's rule, as Envoy's validator has it."""

    def context(self, *domains, **fields):
        config = build.any_of(SPIFFE, {"trust_domains": list(domains), **fields.pop("config", {})})
        return validating(custom_validator_config={"name": "spiffe", "typed_config": config}, **fields)

    def test_trust_domains(self):
        domains = [
            {"name": "a", "trust_bundle": inline(CERT)},
            {"name": "b", "trust_bundle": {"filename": "/b.pem"}},
        ]
        names = [{"exact": "spiffe://a/x"}]
        found = good(self.context(*domains, match_subject_alt_names=names)).validation
        assert found == Validation(
            domains={"a": Pem(CERT.encode()), "b": Pem(file="/b.pem")},
            sans=(exactly("spiffe://a/x", SanKind.URI),),
        )

    def test_a_ca_beside_them_does_not_count(self):
        found = good(self.context({"name": "a", "trust_bundle": inline(CERT)}, **CA)).validation
        assert found == Validation(domains={"a": Pem(CERT.encode())})

    def test_only_uris_count(self):
        typed = [{"san_type": "DNS", "matcher": {"exact": "a"}}]
        resource = self.context(
            {"name": "a", "trust_bundle": inline(CERT)}, match_typed_subject_alt_names=typed
        )
        assert good(resource).validation.sans == ()
        assert f"{HERE}.validation_context.match_typed_subject_alt_names" in ignored(resource)

    @pytest.mark.parametrize(
        ("domains", "words"),
        [
            ([], "trust_domains: must not be empty"),
            ([{"trust_bundle": inline(CERT)}], "trust_domains[0].name: must not be empty"),
            ([{"name": "a"}], "trust_domains[0].trust_bundle: must be set"),
            ([{"name": "a", "trust_bundle": inline("x")}], "trust_bundle: has no certificate in PEM"),
            ([{"name": "a", "trust_bundle": inline(CERT)}] * 2, "trust_domains[1].name: is there already"),
        ],
    )
    def test_what_is_none(self, domains, words):
        assert any(text.endswith(words) for text in problems(self.context(*domains)))

    def test_bundles_in_json_close_the_cluster(self):
        resource = self.context(config={"trust_bundles": {"filename": "/b.json"}})
        assert good(resource).unsupported == "TLS with SPIFFE bundles in JSON is not supported"


def named(name, **source):
    return {"name": name, "sds_config": source}


def grpc(**service):
    return {"api_config_source": {"api_type": "GRPC", "grpc_services": [service]}}


class Others:
    """Other servers, of which `asked` may be asked; nothing is at the paths of `missing`."""

    def __init__(self, *missing, asked=True):
        self.missing, self.asked, self.told = missing, asked, []

    def refuses(self, service):
        return "" if self.asked else "it may not be asked"

    def put(self, short, name, service):
        self.told.append((short, name, service.google_grpc.target_uri if service is not None else None))

    def absent(self, path):
        return path in self.missing


class TestSecrets:
    def common(self, config, **more):
        return {"tls_certificate_sds_secret_configs": [config], "validation_context": CA, **more}

    @pytest.mark.parametrize(
        ("config", "source"),
        [
            (named("s", ads={}), SecretFrom.CONTROL_PLANE),
            (named("default", ads={}), SecretFrom.CONTROL_PLANE),
            (named("s", self={}), SecretFrom.CONTROL_PLANE),
            (named("s", **grpc(envoy_grpc={"cluster_name": "xds-grpc"})), SecretFrom.CONTROL_PLANE),
            (named("s", **grpc(envoy_grpc={"cluster_name": "sds-grpc"})), SecretFrom.IDENTITY),
            (named("default", **grpc(envoy_grpc={"cluster_name": "sds-grpc"})), SecretFrom.IDENTITY),
            (named("default", **grpc(envoy_grpc={"cluster_name": "other"})), SecretFrom.IDENTITY),
            (named("s", **grpc(google_grpc={"target_uri": "unix:/gone", "stat_prefix": "x"})), SecretFrom.IDENTITY),
            (named("s", **grpc(google_grpc={"target_uri": "unix:///gone", "stat_prefix": "x"})), SecretFrom.IDENTITY),
            (named("s", **grpc(google_grpc={"target_uri": "unix:/there", "stat_prefix": "x"})), SecretFrom.CONTROL_PLANE),
            (named("s", **grpc(google_grpc={"target_uri": "x:1", "stat_prefix": "x"})), SecretFrom.CONTROL_PLANE),
            (named("s", **grpc(google_grpc={"target_uri": "dns:///gone", "stat_prefix": "x"})), SecretFrom.CONTROL_PLANE),
            (named("s", path="/gone"), SecretFrom.IDENTITY),
            (named("default", path_config_source={"path": "/there"}), SecretFrom.IDENTITY),
        ],
    )  # fmt: skip
    def test_who_has_it(self, config, source):
        found = good(demanding(self.common(config)), elsewhere=Others("/gone"))
        assert found.certificates == SecretName(config["name"], SecretKind.CERTIFICATE, source)
        assert (found.certificate, found.unsupported) == (None, "")
        assert found.closed == f"secret {config['name']!r} has not come yet"

    def test_another_server(self):
        """FE-04: it is told when the resource is good, and refused as for every type."""
        others = Others()
        service = {"google_grpc": {"target_uri": "x:1", "stat_prefix": "x"}}
        resource = demanding(self.common(named("s", **grpc(**service))))
        good(resource, elsewhere=others)
        assert others.told == [("secret", "s", "x:1")]
        [text] = problems(resource, elsewhere=Others(asked=False))
        assert text.endswith("grpc_services[0].google_grpc: it may not be asked")

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"name": "s"}, "a static secret"),
            ({"name": "s", "sds_config": {}}, "no source"),
            (named("s", path="/x"), "a secret in a file"),
        ],
    )
    def test_whom_nobody_is_asked_for(self, config, words):
        resource = demanding(self.common(config))
        assert good(resource).unsupported == f"TLS with {words} is not supported"

    def test_files_by_their_name(self):
        by_agent = grpc(envoy_grpc={"cluster_name": "sds-grpc"})
        common = {
            "tls_certificate_sds_secret_configs": [named("file-cert:/c~/k", **by_agent)],
            "combined_validation_context": {
                "default_validation_context": {"match_subject_alt_names": [{"exact": "a"}]},
                "validation_context_sds_secret_config": named("file-root:/r~/crl", **by_agent),
            },
        }
        found = good(demanding(common))
        assert found.certificate == Certificate(Pem(file="/c"), Pem(file="/k"))
        assert found.validation == Validation(Pem(file="/r"), sans=(exactly("a"),), crl=Pem(file="/crl"))
        assert found.secrets == ()
        for name in ("file-cert:", "file-cert:/c", "file-cert:~/k"):
            assert problems(demanding(self.common(named(name, **by_agent))))

    def test_a_ca_beside_what_is_said_here(self):
        combined = {
            "default_validation_context": {"match_subject_alt_names": [{"exact": "a"}]},
            "validation_context_sds_secret_config": named("r", ads={}),
        }
        found = good(demanding({"combined_validation_context": combined}))
        assert found.validation == Validation(sans=(exactly("a"),))  # judged with the rest of it
        assert found.roots == SecretName("r", SecretKind.CA)
        for lacking in combined:
            less = {name: value for name, value in combined.items() if name != lacking}
            [text] = problems(demanding({"combined_validation_context": less}))
            assert text.endswith(f"{lacking}: must be set")


NOW = {
    "tls_certificate_provider_instance": {"instance_name": "x", "certificate_name": "y"},
    "combined_validation_context": {"default_validation_context": BY_INSTANCE},
}
PLAIN = {"validation_context": BY_INSTANCE}
BEFORE = {
    "tls_certificate_certificate_provider_instance": {"instance_name": "x"},
    "combined_validation_context": {
        "default_validation_context": {"match_subject_alt_names": [{"exact": "spiffe://a"}]},
        "validation_context_certificate_provider_instance": {"instance_name": "x"},
    },
}
ROOTS_ONLY = {"validation_context_certificate_provider_instance": {"instance_name": "x"}}


class TestInstances:
    """gRFC A29, in the fields that it has now and in those of before, which Istio sends."""

    @pytest.mark.parametrize("view", ["auto", "target"])
    @pytest.mark.parametrize("common", [PLAIN, BEFORE, ROOTS_ONLY], ids=["plain", "before", "roots only"])
    def test_they_are_of_the_identity(self, view, common):
        found = good(demanding(common), view, instances=frozenset({"x"}))
        assert found.roots == SecretName("x", SecretKind.CA, SecretFrom.IDENTITY)
        if common is BEFORE:
            assert found.certificates == SecretName("x", SecretKind.CERTIFICATE, SecretFrom.IDENTITY)
            assert found.validation.sans == (exactly("spiffe://a"),)

    @pytest.mark.parametrize(
        "beside",
        [
            {"validation_context_sds_secret_config": named("r", ads={})},
            {"validation_context_certificate_provider_instance": {"instance_name": "y"}},
        ],
    )
    def test_that_of_the_context_goes_before_what_stands_beside_it(self, beside):
        combined = {"default_validation_context": BY_INSTANCE, **beside}
        found = good(demanding({"combined_validation_context": combined}))
        assert found.roots == SecretName("x", SecretKind.CA, SecretFrom.IDENTITY)

    def test_now(self):
        found = good(demanding(NOW), "target")
        assert [each.kind for each in found.secrets] == [SecretKind.CERTIFICATE, SecretKind.CA]

    def test_tl_02_the_bootstrap_must_have_it(self):
        for common in (PLAIN, BEFORE, ROOTS_ONLY):
            found = problems(demanding(common), "target", instances=frozenset({"other"}))
            assert all("'x' is no certificate provider of the bootstrap" in text for text in found)
            assert good(demanding(common), "auto", instances=frozenset()).roots
        nameless = {"validation_context": {"ca_certificate_provider_instance": {}}}
        [text] = problems(demanding(nameless), "target")
        assert text.endswith("instance_name: must not be empty")

    @pytest.mark.parametrize("common", [{}, {"validation_context": {}}, {"validation_context": CA}])
    def test_tl_02_grpc_needs_a_ca(self, common):
        assert problems(demanding(common), "target") == (
            f"{HERE}: gRPC needs a ca_certificate_provider_instance, or system_root_certs",
        )

    def test_tl_02_the_systems(self):
        found = good(demanding({"validation_context": {"system_root_certs": {}}}), "target")
        assert found.validation == Validation(system=True)
        both = {"validation_context": {"system_root_certs": {}, **BY_INSTANCE}}
        assert good(demanding(both), "target").validation == Validation()

    @pytest.mark.parametrize(
        ("context", "field"),
        [
            ({"verify_certificate_spki": [base64.b64encode(HASH).decode()]}, "verify_certificate_spki"),
            ({"verify_certificate_hash": [HASH.hex()]}, "verify_certificate_hash"),
            ({"require_signed_certificate_timestamp": True}, "require_signed_certificate_timestamp"),
            ({"crl": inline(CRL)}, "crl"),
            ({"custom_validator_config": {"name": "x"}}, "custom_validator_config"),
        ],
    )
    def test_tl_03_what_grpc_refuses(self, context, field):
        common = {"validation_context": BY_INSTANCE | context}
        assert problems(demanding(common), "target") == (
            f"{HERE}.validation_context.{field}: is not supported by gRPC",
        )

    @pytest.mark.parametrize(
        "common",
        [
            {"tls_certificates": [PAIR]},
            {"tls_certificate_sds_secret_configs": [named("s", ads={})]},
            {"custom_handshaker": {"name": "x"}},
        ],
    )
    def test_tl_03_of_the_certificate(self, common):
        assert problems(demanding(PLAIN | common), "target")
        instance = {"tls_certificate_provider_instance": {"instance_name": "x"}}
        if "custom_handshaker" not in common:
            assert good(demanding(PLAIN | common | instance), "target").certificates

    def test_tl_03_what_grpc_does_not_read(self):
        context = (
            BY_INSTANCE
            | CA
            | {"allow_expired_certificate": True, "trust_chain_verification": "ACCEPT_UNTRUSTED"}
        )
        common = {"validation_context": context, "alpn_protocols": ["istio"]}
        found = good(demanding(common), "target")
        assert (found.validation, found.alpn) == (Validation(), ())
        assert len(ignored(demanding(common), "target")) == 4

    def test_a_context_must_be_there(self):
        typed = build.any_of(TLS, {"sni": "a"})
        resource = build.cluster(
            "c", ["10.0.0.1:80"], transport_socket={"name": "tls", "typed_config": typed}
        )
        assert f"{HERE}: must be set" in problems(resource, "target")
