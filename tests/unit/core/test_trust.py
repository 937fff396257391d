"""Completing what a connection must use with the secrets that it names (SD-01 to SD-03)."""

import dataclasses

import pytest

from meshlib.core.trust import completed, linked, named
from meshlib.model.cluster import Cluster
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import (
    Certificate,
    Pem,
    San,
    SanKind,
    Secret,
    SecretFrom,
    SecretKind,
    SecretName,
    Tls,
    TlsMatch,
    Validation,
)

CERT = SecretName("cert", SecretKind.CERTIFICATE)
CA = SecretName("ca", SecretKind.CA)
MINE = SecretName("default", SecretKind.CERTIFICATE, SecretFrom.IDENTITY)
PAIR = Certificate(Pem(b"chain"), Pem(b"key"))
ROOTS = Validation(roots=Pem(b"roots"))
SECRETS = {
    CERT: Secret("cert", SecretKind.CERTIFICATE, certificate=PAIR),
    CA: Secret("ca", SecretKind.CA, validation=ROOTS),
    MINE: Secret("default", SecretKind.CERTIFICATE, certificate=PAIR),
}


def san(text):
    return San(SanKind.ANY, StringMatch(StringKind.EXACT, text))


def link(tls, source=SecretFrom.CONTROL_PLANE, **found):
    known = {**SECRETS, **{name: found[name.name] for name in SECRETS if name.name in found}}
    return linked(tls, known.__getitem__, source)


def test_what_names_no_secret_is_itself():
    tls = Tls(validation=ROOTS)
    assert link(tls) is tls


def test_a_certificate_and_a_ca_are_filled_in():
    tls = link(Tls(sni="a", certificates=CERT, roots=CA))
    assert (tls.sni, tls.certificate, tls.validation, tls.lacking) == ("a", PAIR, ROOTS, "")


def test_only_secrets_of_the_source_that_is_asked_for_are_looked_for():
    tls = link(Tls(certificates=MINE, roots=CA))
    assert (tls.certificate, tls.validation) == (None, ROOTS)
    tls = link(tls, SecretFrom.IDENTITY)
    assert (tls.certificate, tls.validation) == (PAIR, ROOTS)


def test_one_that_may_yet_come_is_awaited():
    assert link(Tls(certificates=CERT, roots=CA), ca=None) is None
    assert link(Tls(certificates=CERT, roots=CA), ca=None, cert="is refused") is None


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("does not exist", "secret 'ca' does not exist"),
        (SECRETS[CERT], "secret 'ca' is no CA"),
        (Secret("ca", SecretKind.CA, unsupported="a log of everybody"), "secret 'ca' has a log of everybody"),
    ],
)
def test_one_that_is_of_no_use_is_told_of(found, words):
    tls = link(Tls(certificates=CERT, roots=CA, lacking="secret 'x' is gone"), ca=found)
    assert tls.lacking == f"secret 'x' is gone; {words}"
    assert tls.validation is None


def test_the_validation_of_a_secret_is_merged_into_the_default_one():
    """SD-03, as protobuf's MergeFrom: what is set wins, lists grow."""
    default = Validation(
        roots=Pem(b"old"),
        sans=(san("a"),),
        hashes=(b"1",),
        spki=(b"1",),
        depth=3,
        crl=Pem(b"old"),
        expired=True,
    )
    came = Validation(
        roots=Pem(b"new"), domains={"td": Pem(b"x")}, sans=(san("b"),), hashes=(b"2",), crl_leaf=True
    )
    secret = Secret("ca", SecretKind.CA, validation=came)
    assert link(Tls(validation=default, roots=CA), ca=secret).validation == Validation(
        roots=Pem(b"new"),
        domains={"td": Pem(b"x")},
        sans=(san("a"), san("b")),
        hashes=(b"1", b"2"),
        spki=(b"1",),
        crl=Pem(b"old"),
        crl_leaf=True,
        expired=True,
        depth=3,
    )


@pytest.mark.parametrize("field", [item.name for item in dataclasses.fields(Validation)])
def test_each_field_comes_from_either_side(field):
    values = {
        "roots": Pem(b"r"),
        "domains": {"td": Pem(b"x")},
        "sans": (san("a"),),
        "hashes": (b"1",),
        "spki": (b"1",),
        "crl": Pem(b"c"),
        "depth": 2,
    }
    one = Validation(**{"roots": Pem(b"r"), field: values.get(field, True)})
    if field in ("domains", "system"):  # in the place of roots
        one = dataclasses.replace(one, roots=Pem())
    rest = Validation(roots=one.roots)
    for default, came in ((one, rest), (rest, one)):
        secret = Secret("ca", SecretKind.CA, validation=came)
        assert link(Tls(validation=default, roots=CA), ca=secret).validation == one


def test_roots_go_before_the_systems():
    secret = Secret("ca", SecretKind.CA, validation=Validation(system=True))
    assert link(Tls(validation=ROOTS, roots=CA), ca=secret).validation == ROOTS


def test_typed_names_go_before_those_of_any_kind():
    """As in one message of Envoy's: whichever side has them."""
    typed = San(SanKind.DNS, StringMatch(StringKind.EXACT, "b"))
    one, other = Validation(Pem(b"r"), sans=(san("a"),)), Validation(Pem(b"r"), sans=(typed,))
    for default, came in ((one, other), (other, one)):
        secret = Secret("ca", SecretKind.CA, validation=came)
        assert link(Tls(validation=default, roots=CA), ca=secret).validation.sans == (typed,)


@pytest.mark.parametrize(
    ("validation", "words"),
    [
        (
            Validation(sans=(san("a"),)),
            "has names to look for and no CA: anybody could have them in a certificate",
        ),
        (Validation(crl=Pem(b"c")), "has a revocation list and no CA"),
        (Validation(expired=True), "lets certificates expire and has no CA"),
    ],
)
def test_what_would_verify_nothing_is_of_no_use(validation, words):
    """Envoy refuses it; here whoever names it is closed, and told."""
    secret = Secret("ca", SecretKind.CA, validation=validation)
    found = link(Tls(roots=CA), ca=secret)
    assert (found.lacking, found.validation) == (f"secret 'ca' {words}", None)
    assert link(Tls(validation=ROOTS, roots=CA), ca=secret).lacking == ""


def test_the_name_that_was_sent_needs_a_ca():
    secret = Secret("ca", SecretKind.CA, validation=Validation(hashes=(b"1",)))
    words = "secret 'ca' has no CA, and the name that was sent is to be in the certificate"
    assert link(Tls(roots=CA, auto_sni_san=True), ca=secret).lacking == words
    assert link(Tls(roots=CA), ca=secret).closed == ""


def test_as_long_as_a_secret_is_named_nobody_is_called():
    tls = Tls(certificates=MINE, roots=CA)
    assert tls.closed == "secret 'default' has not come yet, secret 'ca' has not come yet"
    tls = link(tls)
    assert (tls.roots, tls.closed) == (None, "secret 'default' has not come yet")
    tls = link(tls, SecretFrom.IDENTITY)
    assert (tls.secrets, tls.closed) == ((), "")
    lacking = link(Tls(certificates=CERT, roots=CA), ca="is refused")
    assert (lacking.secrets, lacking.closed) == ((CERT, CA), "secret 'ca' is refused")


def test_what_cannot_be_done_waits_for_nothing():
    tls = Tls(certificates=CERT, unsupported="TLS with a token is not supported")
    assert link(tls, cert=None) is tls


class TestClusters:
    def cluster(self, tls, *matches):
        entries = tuple(TlsMatch(str(number), {}, each) for number, each in enumerate(matches))
        return Cluster("c", tls=tls, tls_matches=entries)

    def completed(self, cluster, **found):
        known = {**SECRETS, **{name: found[name.name] for name in SECRETS if name.name in found}}
        return completed(cluster, known.__getitem__, SecretFrom.CONTROL_PLANE)

    def test_each_demand(self):
        made = self.completed(self.cluster(Tls(certificates=CERT), Tls(roots=CA), None))
        assert made.tls.certificate == PAIR
        assert [each.tls and each.tls.validation for each in made.tls_matches] == [ROOTS, None]

    def test_nothing_to_do_is_the_same_object(self):
        for cluster in (self.cluster(None), self.cluster(Tls(validation=ROOTS), None)):
            assert self.completed(cluster) is cluster

    def test_one_that_is_awaited_keeps_all_waiting(self):
        assert self.completed(self.cluster(Tls(certificates=CERT)), cert=None) is None
        assert self.completed(self.cluster(None, Tls(roots=CA)), ca=None) is None

    def test_what_is_named(self):
        broken = Tls(roots=CA, unsupported="x")
        cluster = self.cluster(Tls(certificates=MINE), broken, Tls(certificates=CERT))
        assert named(cluster, SecretFrom.CONTROL_PLANE) == {CERT}
        assert named(cluster, SecretFrom.IDENTITY) == {MINE}
