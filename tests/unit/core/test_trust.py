"""Completing what a connection must use with the secrets that it names (SD-01 to SD-03)."""

import dataclasses

import pytest

from meshlib.core.trust import linked
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
    one = Validation(**{field: values.get(field, True)})
    for default, came in ((one, Validation()), (Validation(), one)):
        secret = Secret("ca", SecretKind.CA, validation=came)
        assert link(Tls(validation=default, roots=CA), ca=secret).validation == one
