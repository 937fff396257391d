"""Who we are by SPIRE's own server and agent: identities fetched, renewed by the agent, with other roots, of several domains, and withdrawn."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from meshlib.model.tls import SecretKind, SecretName
from meshlib.sources.identity_spiffe import SpiffeProvider
from meshlib.testing import Authority
from tests.interop.support.identity import Identity
from tests.support.identity_kit import CERTIFICATE

PATIENCE = 60.0
#: Seconds; the agent renews in the half-life, and looks once a second.
SHORT = 10
ID = "spiffe://example.org/app"


@pytest.fixture
def identity(spire):
    def make(worker):
        return SpiffeProvider(worker, lambda: 0.5, socket=spire.socket)

    with Identity(make, PATIENCE) as running:
        yield running


def roots(pem):
    return x509.load_pem_x509_certificates(pem.data)


def test_an_identity_comes_as_soon_as_there_is_one(spire, identity):
    status = identity.until(lambda: identity.provider.status().last_error and identity.provider.status())
    assert "the Workload API has no identity for this process (PERMISSION_DENIED" in status.last_error
    assert identity.provider.secret(CERTIFICATE) is None
    spire.register("/app")
    identity.ready()
    names = identity.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [ID]
    identity.leaf.verify_directly_issued_by(roots(identity.validation.domains["example.org"])[0])


def test_it_is_renewed_before_it_ends(spire, identity):
    spire.register("/app", ttl=SHORT)
    identity.ready()
    seen = []
    for _ in range(3):
        leaf = identity.leaf
        life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        assert life.total_seconds() <= SHORT + 15  # SPIRE backdates by ten seconds
        seen.append(leaf.serial_number)
        identity.until(lambda: identity.leaf.serial_number not in seen)
        assert identity.provider.status().state == "ready"


def test_another_root_is_trusted_before_it_signs_for_us(spire, identity):
    spire.register("/app", ttl=SHORT)
    identity.ready()
    before = identity.validation.domains["example.org"]
    spire.rotate()
    identity.until(lambda: len(roots(identity.validation.domains["example.org"])) == 2)
    new = next(
        each for each in roots(identity.validation.domains["example.org"]) if each not in roots(before)
    )
    identity.until(lambda: identity.leaf.issuer == new.subject and _signed(identity.leaf, new))


def _signed(leaf, root):
    try:
        leaf.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError):  # of another root, with the same name or not
        return False
    return True


def test_bundles_of_several_domains(spire, identity):
    other = Authority("other.org")
    spire.ask("bundle", "set", "-id", "spiffe://other.org", given=other.roots_pem.decode())
    spire.register("/app", federates=("spiffe://other.org",))
    identity.ready()
    assert sorted(identity.validation.domains) == ["example.org", "other.org"]
    assert roots(identity.validation.domains["other.org"]) == other.roots


def test_one_that_is_withdrawn_is_used_no_more(spire, identity):
    entry = spire.register("/app")
    identity.ready()
    spire.ask("entry", "delete", "-entryID", entry)
    words = identity.until(
        lambda: (
            isinstance(identity.provider.secret(CERTIFICATE), str) and identity.provider.secret(CERTIFICATE)
        )
    )
    assert words.startswith("was withdrawn: the Workload API has no identity for this process")


def test_several_identities_go_by_their_ids(spire, identity):
    for path in ("/app", "/batch"):
        spire.register(path)
    name = SecretName("spiffe://example.org/batch", SecretKind.CERTIFICATE)
    identity.until(lambda: not isinstance(identity.provider.secret(name), str | None))


def test_an_agent_that_is_away_takes_nothing(spire, identity):
    spire.register("/app", ttl=600)
    identity.ready()
    certificate = identity.provider.secret(CERTIFICATE)
    spire.stop("agent")
    identity.until(lambda: identity.provider.status().state == "stale")
    assert identity.provider.secret(CERTIFICATE) is certificate
    spire.start_agent()
    identity.ready()
