"""Secrets as resources: what is one, which are asked for, and what calls are told of those that are not there."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.tls import Certificate, Pem, SanKind, Secret, SecretKind, SecretName, Validation
from meshlib.testing import build
from meshlib.xds import decode, schema
from meshlib.xds.bootstrap import Bootstrap, CertificateProvider, Server
from meshlib.xds.decode.pem import certificate_problem, key_problem
from tests.support.mesh_tls import exactly
from tests.support.xds_kit import Wire, raw

TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
ADS = {"ads": {}}


def pem(label, body=b"\x30\x03\x02\x01\x05"):
    return f"-----BEGIN {label}-----\n{base64.b64encode(body).decode()}\n-----END {label}-----\n"


CERTIFICATE, KEY = pem("CERTIFICATE"), pem("PRIVATE KEY")
OTHER = pem("PRIVATE KEY", b"\x30\x03\x02\x01\x07")
PAIR = build.secret("s", certificate=CERTIFICATE, key=KEY)
ROOTS = build.secret("s", ca=CERTIFICATE)


def demanding(*certificates, **common):
    """A transport socket of TLS with certificates by SDS."""
    configs = [item if isinstance(item, dict) else {"name": item, "sds_config": ADS} for item in certificates]
    common = {"tls_certificate_sds_secret_configs": configs, **common}
    return {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": common})}


def cluster(name, *certificates, **common):
    return build.cluster(name, ["10.0.0.1:80"], transport_socket=demanding(*certificates, **common))


def problems(resource):
    found = decode.secret(raw(resource))
    assert (found.value is None) == bool(found.problems)
    return found.problems


class TestPem:
    def real(self, form, how=None):
        return ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, form, how or NoEncryption()
        )

    @pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    def test_a_key_that_a_library_writes(self, form):
        assert key_problem(self.real(form), password=False) == ""
        locked = self.real(form, BestAvailableEncryption(b"x"))
        assert key_problem(locked, password=False) == "is encrypted, and there is no password"
        assert key_problem(locked, password=True) == ""

    def test_what_stands_around_a_block(self):
        text = f"subject=/CN=x\r\n{KEY}\n{CERTIFICATE}".replace("\n", "\r\n").encode()
        assert (certificate_problem(text), key_problem(text, password=False)) == ("", "")
        assert (
            key_problem(pem("EC PARAMETERS").encode() + pem("EC PRIVATE KEY").encode(), password=False) == ""
        )

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "x",
            KEY,
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\nMAA=\n",
            "-----BEGIN " * 9,
        ],
    )
    def test_no_certificate(self, text):
        assert certificate_problem(text.encode()) == "has no certificate in PEM"

    @pytest.mark.parametrize("body", ["", "MAA", "*", "MAA=MAA=", "AAAA"])
    def test_a_block_with_something_else(self, body):
        text = CERTIFICATE + f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----"
        assert certificate_problem(text.encode()) == "certificate 2 cannot be read"
        assert (
            key_problem(text.replace("CERTIFICATE", "PRIVATE KEY").encode(), password=False) == ""
        )  # the first

    @given(st.lists(st.sampled_from([b"-----BEGIN ", b"-----END ", b"-----", b"A", b"PRIVATE KEY", b"\n"])))
    def test_anything(self, pieces):
        text = b"".join(pieces)
        assert isinstance(certificate_problem(text) + key_problem(text, password=False), str)

    def test_a_long_text_costs_as_much_as_it_is_long(self):
        """No block is looked for again: half a megabyte of beginnings is done at once."""
        for text in (b"-----BEGIN A-----" * 30_000, b"-----BEGIN ----------END -----" * 30_000):
            assert certificate_problem(text) == "has no certificate in PEM"


class TestDecoding:
    def test_a_certificate(self):
        found = decode.secret(raw(PAIR))
        assert found.problems == found.ignored == ()
        pair = Certificate(Pem(CERTIFICATE.encode()), Pem(KEY.encode()))
        made = Secret("s", SecretKind.CERTIFICATE, certificate=pair)
        assert found.value == made

    def test_a_ca(self):
        names = [{"san_type": "URI", "matcher": {"exact": "spiffe://a"}}]
        held = {"trusted_ca": {"inline_string": CERTIFICATE}, "match_typed_subject_alt_names": names}
        found = decode.secret(raw(build.secret("s", validation_context=held)))
        ca = Validation(Pem(CERTIFICATE.encode()), sans=(exactly("spiffe://a", SanKind.URI),))
        made = Secret("s", SecretKind.CA, validation=ca)
        assert (found.value, found.problems, found.ignored) == (made, (), ())

    def test_files_are_not_read_here(self):
        pair = {"certificate_chain": {"filename": "/c"}, "private_key": {"filename": "/k"}}
        found = decode.secret(raw(build.secret("s", tls_certificate=pair))).value
        assert found.certificate == Certificate(Pem(file="/c"), Pem(file="/k"))

    @pytest.mark.parametrize(
        ("resource", "words"),
        [
            (build.secret("s"), "one of tls_certificate and validation_context must be set"),
            (build.secret("", ca=CERTIFICATE), "name: must not be empty"),
            (build.secret("s", tls_certificate={}), "certificate_chain and private_key must be set"),
            (build.secret("s", validation_context={}), "validation_context: must not be empty"),
            (build.secret("s", certificate=CERTIFICATE), "must be set together"),
            (build.secret("s", key=KEY), "must be set together"),
            (build.secret("s", certificate=KEY, key=KEY), "certificate_chain: has no certificate in PEM"),
            (build.secret("s", certificate=CERTIFICATE, key=CERTIFICATE), "private_key: has no private key"),
            (
                build.secret("s", certificate=CERTIFICATE, key=pem("PRIVATE KEY", b"x")),
                "private_key: cannot be",
            ),
            (build.secret("s", ca="x"), "validation_context.trusted_ca: has no certificate in PEM"),
            (
                build.secret("s", validation_context={"trusted_ca": {"inline_bytes": ""}}),
                "trusted_ca: has no",
            ),
            (build.secret("s", validation_context={"trusted_ca": {}}), "must be set"),
            (
                build.secret("s", validation_context={"trusted_ca": {"environment_variable": "HOME"}}),
                "environment_variable",
            ),
        ],
    )
    def test_sd_03_what_is_none_is_refused(self, resource, words):
        assert any(words in text for text in problems(resource)), problems(resource)

    def test_an_encrypted_key(self):
        locked = pem("ENCRYPTED PRIVATE KEY")
        [found] = problems(build.secret("s", certificate=CERTIFICATE, key=locked))
        assert found == "tls_certificate.private_key: is encrypted, and there is no password"
        pair = build.secret("s", certificate=CERTIFICATE, key=locked)["tls_certificate"]
        resource = build.secret("s", tls_certificate=pair | {"password": {"inline_string": "hunter2"}})
        made = decode.secret(raw(resource))
        assert made.value.certificate.password == Pem(b"hunter2")
        assert (made.value.unsupported, made.ignored) == ("", ())

    @pytest.mark.parametrize(
        ("held", "kind", "words"),
        [
            ({"tls_certificate": {"private_key_provider": {}}}, SecretKind.CERTIFICATE, "a provider of private keys"),
            (
                {"validation_context": {"ca_certificate_provider_instance": {"instance_name": "x"}}},
                SecretKind.CA,
                "a CA from a provider",
            ),
        ],
    )  # fmt: skip
    def test_what_cannot_be_done_closes_who_names_it_and_is_told(self, held, kind, words):
        """Else a CA that is not there would let everybody in."""
        found = decode.secret(raw(build.secret("s", **held)))
        assert (found.value.kind, found.value.unsupported) == (kind, words)
        assert found.ignored[-1] == (next(iter(held)), words)

    @pytest.mark.parametrize("kind", ["session_ticket_keys", "generic_secret"])
    def test_of_another_type_it_is_nothing_that_can_be_named(self, kind):
        made = schema.message(schema.type_name(schema.SECRET))(name="s")
        getattr(made, kind).SetInParent()
        found = decode.secret(made.SerializeToString())
        assert found.value == Secret("s", SecretKind.OTHER)
        assert found.ignored == ()


MARKER = "TVkgTUFSS0VS"


class TestDiscretion:
    """A key is nowhere but in the value, whatever is wrong with the rest."""

    @pytest.mark.parametrize(
        "resource",
        [
            build.secret("s", certificate=CERTIFICATE, key=MARKER),
            build.secret("s", certificate=MARKER, key=MARKER),
            build.secret("s", ca=MARKER),
            build.secret("s", certificate=CERTIFICATE, key=KEY.replace("MA", MARKER)),
            build.secret("s", certificate=CERTIFICATE + KEY + MARKER, key=KEY + MARKER),
            build.secret("", certificate=CERTIFICATE, key=KEY + MARKER),
            build.secret("s", tls_certificate={"password": {"inline_string": MARKER}}),
            build.secret("s", tls_certificate={"pkcs12": {"inline_string": MARKER}}),
        ],
    )
    def test_in_no_words_and_no_repr(self, resource):
        data = raw(resource)
        assert MARKER.encode() in data
        # As it is, cut off, and with a field of another number in it.
        for text in (data, data[:-1], data + b"\xfa\x07" + bytes([len(MARKER)]) + MARKER.encode()):
            found = decode.secret(text)
            told = (found, found.value, found.problems, found.ignored)
            assert MARKER not in "".join(map(repr, told))

    def test_of_a_type_whose_inside_is_not_known(self):
        """Its bytes are fields that the schema does not have."""
        for number in (b"\x1a", b"\x2a"):
            inner = b"\x0a" + bytes([len(MARKER)]) + MARKER.encode()
            found = decode.secret(b"\x0a\x01s" + number + bytes([len(inner)]) + inner)
            assert found.value.kind is SecretKind.OTHER
            assert MARKER not in repr((found, found.value, found.ignored))

    def test_in_no_repr_of_what_is_known_of_it(self):
        wire = wire_of(cluster("c", "s"))
        wire.send("secret", build.secret("s", certificate=CERTIFICATE, key=KEY + MARKER))
        wire.send("secret", build.secret("s", key=KEY + MARKER))
        entry = wire.session.cache.get("secret", "s")
        assert MARKER.encode() in entry.raw
        assert MARKER.encode() in entry.failure.raw
        assert MARKER not in repr((entry, wire.session.status(0.0), wire.part))


def wire_of(*clusters, view="sidecar", **options):
    wire = Wire(view, **options)
    wire.open()
    wire.send("cluster", *clusters)
    return wire


def asked(wire):
    """The names of the secrets that the last requests asked for; None: there was none."""
    return next((sorted(names) for short, names, *_ in reversed(wire.asked) if short == "secret"), None)


def lacking(wire, name="c"):
    return wire.part.clusters[name].tls.lacking


def waits(wire, name="c"):
    """Whether calls to the cluster wait."""
    return name not in wire.part.clusters and wire.part.lacking.get(name) == ""


def shown(wire, name="c"):
    """The key that is shown to the cluster."""
    tls = wire.part.clusters[name].tls
    assert tls.closed == ""
    return tls.certificate.key.data.decode()


def roots_by(name, source=ADS):
    return {"validation_context_sds_secret_config": {"name": name, "sds_config": source}}


def test_no_pem_of_a_cluster_is_in_its_repr():
    """The certificate of a file may be followed by its key."""
    pair = PAIR["tls_certificate"] | {"certificate_chain": {"inline_string": CERTIFICATE + KEY + MARKER}}
    made = decode.cluster(raw(build.cluster("c", transport_socket=demanding(tls_certificates=[pair])))).value
    assert MARKER.encode() in made.tls.certificate.chain.data
    assert MARKER not in repr(made)


class TestGraph:
    def test_names_of_each_place(self):
        """SD-01."""
        matches = [{"name": "x", "match": {}, "transport_socket": demanding(**roots_by("m", {"self": {}}))}]
        combined = {"default_validation_context": {}, **roots_by("b")}
        made = cluster("c", "a", combined_validation_context=combined) | {"transport_socket_matches": matches}
        wire = wire_of(made)
        assert asked(wire) == ["a", "b", "m"]
        assert waits(wire)
        found = wire.session.cache.value("cluster", "c")
        assert found.tls.secrets == (
            SecretName("a", SecretKind.CERTIFICATE),
            SecretName("b", SecretKind.CA),
        )
        assert found.tls_matches[0].tls.secrets == (SecretName("m", SecretKind.CA),)

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"name": "s"}, "'s' has no source"),
            ({"name": "s", "sds_config": {}}, "'s' has no source"),
            ({"name": "s", "sds_config": {"path_config_source": {"path": "/x"}}}, "'s' is in a file"),
            ({"name": "s", "sds_config": {"path": "/x"}}, "'s' is in a file"),
        ],
    )
    def test_what_is_not_asked_for_is_reported(self, given, words):
        wire = wire_of(cluster("c", given))
        assert asked(wire) is None
        assert wire.part.clusters["c"].tls.unsupported
        [told] = [each for each in wire.session.status(0.0).ignored if "sds_secret_configs[0]" in each.field]
        assert words in told.value

    def test_without_a_name(self):
        found = decode.cluster(raw(cluster("c", "")))
        [text] = found.problems
        assert text.endswith("tls_certificate_sds_secret_configs[0].name: must not be empty")

    def test_calls_wait_and_then_go(self):
        """SD-02: until it is there, or known not to come."""
        wire = wire_of(cluster("c", "s"))
        assert waits(wire)
        wire.send("secret", PAIR)
        assert shown(wire) == KEY
        assert wire.part.clusters["c"].tls.secrets == ()

    def test_one_that_never_comes(self):
        """SD-02: the cluster is in force after 15 s, and closed; one that comes late opens it."""
        wire = wire_of(cluster("c", "s"))
        wire.pass_time(14.9)
        assert waits(wire)
        wire.pass_time(0.1)
        assert lacking(wire) == "secret 's' does not exist: the server did not send it within 15 s"
        wire.send("secret", PAIR)
        assert shown(wire) == KEY

    def test_one_of_another_kind(self):
        wire = wire_of(cluster("c", "s"))
        wire.send("secret", ROOTS)
        assert lacking(wire) == "secret 's' is no certificate"
        wire.send("secret", PAIR)
        assert shown(wire) == KEY

    def test_a_rotation(self):
        """SD-03: a new one is in force at once, and a bad one leaves the old; a server that does not send it any more, too."""
        wire = wire_of(cluster("c", "s"))
        wire.send("secret", PAIR)
        wire.send("secret", build.secret("s", certificate=CERTIFICATE, key=OTHER))
        assert shown(wire) == OTHER
        wire.send("secret", build.secret("s", key=KEY))
        assert shown(wire) == OTHER
        wire.send("secret")
        assert shown(wire) == OTHER

    def test_one_that_was_never_good(self):
        wire = wire_of(cluster("c", "s"))
        wire.send("secret", build.secret("s", key=KEY))
        assert lacking(wire).startswith("secret 's' was refused: tls_certificate: certificate_chain and")

    def test_what_cannot_be_done_with_it(self):
        wire = wire_of(cluster("c", "s"))
        pair = PAIR["tls_certificate"] | {"private_key_provider": {}}
        wire.send("secret", build.secret("s", tls_certificate=pair))
        assert lacking(wire) == "secret 's' has a provider of private keys"

    def test_of_endpoints_by_their_labels(self):
        matches = [{"name": "x", "match": {}, "transport_socket": demanding("s")}]
        wire = wire_of(build.cluster("c", ["10.0.0.1:80"], transport_socket_matches=matches))
        assert waits(wire)
        wire.send("secret", PAIR)
        [match] = wire.part.clusters["c"].tls_matches
        assert match.tls.certificate.key.data.decode() == KEY
        assert match.tls.closed == ""

    def test_with_endpoints_that_come(self):
        """The same object as long as nothing of it changed, and the newest of both."""
        wire = wire_of(build.cluster("c", transport_socket=demanding("s")))
        wire.send("endpoint", build.endpoints("c", "10.0.0.1:80"))
        assert waits(wire)
        wire.send("secret", PAIR)
        first = wire.part.clusters["c"]
        wire.send("cluster", build.cluster("c", transport_socket=demanding("s")))
        wire.send("secret", PAIR, version="9")
        assert wire.part.clusters["c"] is first
        wire.send("endpoint", build.endpoints("c", "10.0.0.2:80"))
        [endpoint] = wire.part.clusters["c"].assignment.endpoints
        assert (str(endpoint.address), shown(wire)) == ("10.0.0.2:80", KEY)

    def test_a_newer_cluster_waits_for_what_it_names(self):
        """CA-08: as for endpoints. What is in force has what it names, in its newest version, until then."""
        wire = wire_of(cluster("c", "s"))
        wire.send("secret", PAIR)
        wire.send("cluster", cluster("c", "t"))
        assert asked(wire) == ["s", "t"]
        assert shown(wire) == KEY
        wire.send("secret", build.secret("s", certificate=CERTIFICATE, key=OTHER))
        assert shown(wire) == OTHER
        wire.send("secret", build.secret("t", certificate=CERTIFICATE, key=KEY))
        assert shown(wire) == KEY
        assert asked(wire) == ["t"]

    def test_plain_text_stays_until_the_secret_is_there(self):
        wire = wire_of(build.cluster("c", ["10.0.0.1:80"]))
        wire.send("cluster", cluster("c", "s"))
        assert wire.part.clusters["c"].tls is None
        wire.send("secret", PAIR)
        assert shown(wire) == KEY

    def test_what_is_said_of_others_changes_nothing(self):
        wire = wire_of(cluster("c", "s", **roots_by("t")), cluster("d", "u"))
        wire.send("secret", PAIR, build.secret("t", ca=CERTIFICATE))
        first = wire.part.clusters["c"]
        wire.send("secret", build.secret("u", certificate=CERTIFICATE, key=KEY))
        wire.send("cluster", cluster("c", "s", **roots_by("t")), cluster("d", "u"))
        assert wire.part.clusters["c"] is first

    def test_a_cluster_that_is_deleted_stays_as_it_was(self):
        """CA-03: until the routes that name it are replaced, and no more is asked for."""
        wire = Wire("auto")
        wire.open()
        wire.want("a")
        wire.send("listener", build.api_listener("a", build.route_config("r", build.virtual_host("a", build.route(cluster="c")))))  # fmt: skip
        wire.send("cluster", cluster("c", "s"))
        wire.send("secret", PAIR)
        wire.send("cluster", build.cluster("other"))
        assert asked(wire) == []
        assert shown(wire) == KEY
        wire.pass_time(2.0)
        assert "c" not in wire.part.clusters

    def test_what_is_awaited_is_told(self):
        wire = wire_of(cluster("c", "s", **roots_by("t")))
        assert wire.session.status(0.0).waiting == ("secret s", "secret t")
        wire.send("secret", PAIR)
        assert wire.session.status(0.0).waiting == ("secret t",)

    def test_grpc_asks_for_none(self):
        """TL-03."""
        found = decode.cluster(raw(cluster("c", "s")), "target").problems
        assert any(
            "tls_certificate_sds_secret_configs[0]: gRPC shows no certificate" in text for text in found
        )
        found = decode.cluster(raw(cluster("c", **roots_by("t"))), "target").problems
        assert any("validation_context_sds_secret_config: gRPC takes no CA" in text for text in found)

    @pytest.mark.parametrize(("name", "identified"), [("x", False), ("y", False), ("y", True)])
    def test_instances_of_the_bootstrap(self, name, identified):
        """TL-02: one that it does not have refuses the cluster, unless the process has an identity that answers for all."""
        providers = {"x": CertificateProvider("file_watcher")}
        bootstrap = Bootstrap((Server("127.0.0.1:1"),), providers=providers, identified=identified)
        wire = Wire("target", bootstrap=bootstrap)
        wire.open()
        wire.want("a")
        wire.send("listener", build.api_listener("a", build.route_config("r", build.virtual_host("a", build.route(cluster="c")))))  # fmt: skip
        context = {"ca_certificate_provider_instance": {"instance_name": name}}
        typed = build.any_of(TLS, {"common_tls_context": {"validation_context": context}})
        wire.send("cluster", build.cluster("c", transport_socket={"name": "tls", "typed_config": typed}))
        wire.send("endpoint", build.endpoints("c", "10.0.0.1:80"))
        if name == "x" or identified:
            assert wire.part.identified == {"c"}
        else:
            [refused] = wire.session.status(0.0).rejected
            assert "'y' is no certificate provider of the bootstrap" in refused.problems[0]

    def test_two_clusters_of_one_secret(self):
        wire = wire_of(cluster("c", "s"), cluster("d", "s"))
        wire.send("secret", PAIR)
        assert shown(wire, "c") == shown(wire, "d") == KEY
        wire.send("cluster", cluster("d", "s"))
        assert asked(wire) is None
        wire.send("cluster", cluster("d", "t"))
        assert asked(wire) == ["s", "t"]  # what is in force names the old one
        wire.send("secret", build.secret("t", certificate=CERTIFICATE, key=KEY))
        assert asked(wire) == ["t"]

    def test_a_rotation_touches_its_users_alone(self):
        """Of 1,000 clusters with 500 secrets, two."""
        wire = wire_of(*(cluster(f"c{number}", f"s{number % 500}") for number in range(1000)))
        wire.send(
            "secret", *(build.secret(f"s{number}", certificate=CERTIFICATE, key=KEY) for number in range(500))
        )
        before, looked = dict(wire.part.clusters), []
        assert len(before) == 1000
        wire.session._graph._links.give_way = lambda: looked.append(1)
        wire.send("secret", build.secret("s7", certificate=CERTIFICATE, key=OTHER))
        changed = {name for name, made in wire.part.clusters.items() if made is not before[name]}
        assert changed == {"c7", "c507"}
        assert len(looked) < 10
        assert shown(wire, "c507") == OTHER

    def test_a_server_that_sends_all_that_it_has(self):
        """What nobody asked for is neither taken nor refused (SW-12), of whatever type it is."""
        wire = wire_of(cluster("c", "s"))
        other = build.secret("t", generic_secret={})
        assert wire.send("secret", PAIR, other).error == ""
        assert wire.session.cache.get("secret", "t") is None

    def test_counts_are_told_where_there_is_one(self):
        wire = wire_of(cluster("c", "s"))
        assert "secret" not in wire.session.status(0.0).resources
        wire.send("secret", PAIR, version="7")
        status = wire.session.status(0.0)
        assert (status.resources["secret"], status.versions["secret"]) == (1, "7")

    def test_it_is_in_no_file(self):
        wire = wire_of(cluster("c", "s"))
        wire.send("listener")
        kept = {each.short for each in wire.session.contents().resources}
        assert kept == {"cluster"}
        wire.send("secret", PAIR)
        found = wire.session.contents()
        assert {each.short for each in found.resources} == {"cluster"}
        assert "secret" not in found.versions
