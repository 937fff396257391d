"""Who we are by Istio's own CA, on a port with istiod's own authentication (security/pkg/server/ca, security/pkg/pki/ca)."""

from __future__ import annotations

import pytest
from cryptography import x509

from meshlib.sources import identity_istio
from meshlib.sources.identity_istio import IstioProvider
from tests.interop.support.identity import Identity
from tests.support.identity_kit import CERTIFICATE

PATIENCE = 30.0
ID = "spiffe://cluster.local/ns/default/sa/app"


@pytest.fixture
def identity(authority):
    def make(worker):
        return IstioProvider(worker, lambda: 0.5, **authority.settings)

    with Identity(make, PATIENCE) as running:
        yield running


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(identity_istio, "VALIDITY", 6)


def signed_by(identity):
    """Which of the roots that are trusted signed our certificate."""
    roots = x509.load_pem_x509_certificates(identity.validation.roots.data)
    return next(root for root in roots if _signed(identity.leaf, root))


def _signed(leaf, root):
    try:
        leaf.verify_directly_issued_by(root)
    except Exception:  # noqa: BLE001 - of another root, in whatever way
        return False
    return True


def test_a_token_gives_an_identity(authority, identity):
    identity.ready()
    names = identity.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [ID]
    assert identity.validation.roots.data.strip() == authority.roots_file.read_bytes().strip()
    assert signed_by(identity)
    assert authority.issued == 1


@pytest.mark.parametrize(
    "claims",
    [{"aud": ["somebody"]}, {"exp": 1}, {"iss": "https://somebody"}, {"sub": "somebody"}],
    ids=["audience", "expired", "issuer", "subject"],
)
def test_a_token_that_is_refused(authority, claims):
    authority.tokens.write(**claims)
    provider = lambda worker: IstioProvider(worker, lambda: 0.5, **authority.settings)  # noqa: E731
    with Identity(provider, PATIENCE) as identity:
        status = identity.until(lambda: identity.provider.status().last_error and identity.provider.status())
        assert status.state == "failed"
        assert status.last_error == f"{authority.secure}: UNAUTHENTICATED: request authenticate failure"
        authority.tokens.write()
        identity.ready()


def test_it_is_renewed_before_it_ends(short, authority, identity):
    identity.ready()
    seen = []
    for _ in range(3):
        seen.append(identity.leaf.serial_number)
        identity.until(lambda: identity.leaf.serial_number not in seen)
        assert identity.provider.status().state == "ready"
    assert authority.issued >= 4


def test_another_root_is_trusted_before_it_signs_for_us(short, authority, identity):
    identity.ready()
    before, old = identity.leaf.serial_number, signed_by(identity)
    authority.rotate()
    identity.until(lambda: identity.validation.roots.data.count(b"BEGIN") == 2)
    identity.until(lambda: identity.leaf.serial_number != before and signed_by(identity) != old)
    assert (
        identity.validation.roots.data.count(b"BEGIN") == 2
    )  # who still has a certificate of the old root is trusted


def test_a_ca_that_lost_its_root(short, authority, identity):
    identity.ready()
    old = signed_by(identity)
    authority.restart()
    identity.until(lambda: signed_by(identity) != old)


def test_a_ca_that_is_away_takes_nothing(short, authority, identity):
    identity.ready()
    authority.kill()  # which could renew it until then
    held = identity.provider.secret(CERTIFICATE)
    identity.until(lambda: identity.provider.status().state == "stale")
    assert identity.provider.secret(CERTIFICATE) is held
    identity.until(lambda: isinstance(identity.provider.secret(CERTIFICATE), str))
    assert identity.provider.secret(CERTIFICATE).startswith("has expired: ")
    authority.start()
    identity.ready()
