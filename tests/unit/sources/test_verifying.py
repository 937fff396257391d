"""``[identity] verify = "always"``: nobody is called without being verified."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshlib.config import Config
from meshlib.model.cluster import Cluster
from meshlib.model.snapshot import Part
from meshlib.model.tls import Pem, Tls, TlsMatch, Validation
from meshlib.sources.identity import Identity
from meshlib.sources.merge import Merge
from meshlib.sources.verifying import Verifier
from tests.support.mesh_tls import exactly
from tests.support.sources_kit import Bench
from tests.unit.sources.test_merge import Told

ROOTS = Pem(b"roots")
BLANK = Tls(sni="a")


def part(*clusters):
    return Part("xds", clusters={each.name: each for each in clusters})


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (None, Validation(system=True)),
        (Validation(), Validation(system=True)),
        (Validation(untrusted=True), Validation(system=True)),
        (Validation(roots=ROOTS, untrusted=True), Validation(roots=ROOTS)),
        (Validation(domains={"td": ROOTS}, untrusted=True), Validation(domains={"td": ROOTS})),
        (
            Validation(sans=(exactly("a"),), untrusted=True),
            Validation(sans=(exactly("a"),), system=True),
        ),
    ],
)
def test_who_would_accept_anybody_has_the_systems_roots(said, means):
    tls = Tls(sni="a", validation=said)
    assert tls.unverified
    made = Verifier().part(part(Cluster("a", tls=tls))).clusters["a"].tls
    assert made == replace(tls, validation=means)
    assert not made.unverified


@pytest.mark.parametrize(
    "said",
    [
        Validation(roots=ROOTS),
        Validation(domains={"td": ROOTS}),
        Validation(system=True),
        Validation(hashes=(b"1",)),
        Validation(spki=(b"1",), untrusted=True),
    ],
)
def test_who_verifies_is_left_alone(said):
    held = part(Cluster("a", tls=Tls(validation=said)), Cluster("plain"))
    assert Verifier().part(held) is held


def test_the_demands_of_some_endpoints_are_no_exception():
    match = TlsMatch("m", {}, BLANK)
    plain = TlsMatch("p", {}, None)
    made = Verifier().part(part(Cluster("a", tls_matches=(match, plain)))).clusters["a"].tls_matches
    assert made == (replace(match, tls=replace(BLANK, validation=Validation(system=True))), plain)


def test_what_did_not_change_is_the_same_object():
    verifier = Verifier()
    one, other = Cluster("a", tls=BLANK), Cluster("b", tls=BLANK)
    said = part(one, other)
    before = verifier.part(said)
    assert verifier.part(said) is before
    after = verifier.part(part(one, replace(other, connect_timeout=1.0))).clusters
    assert after["a"] is before.clusters["a"]
    assert after["b"].connect_timeout == 1.0
    assert after["b"].tls is before.clusters["b"].tls


@pytest.mark.parametrize(("verify", "verifies"), [("when_told", False), ("always", True)])
def test_the_configuration_says_whether(verify, verifies):
    config = Config.from_mapping({"identity": {"verify": verify}})

    def build(merge: Merge, bench: Bench):
        bench.source = Told("xds", merge)
        identity = Identity(merge, config, None, lambda: 0.5, merge.relink)
        merge.link(identity, verify=config.identity.verify == "always")
        return [bench.source, identity]

    bench = Bench(build)
    bench.merge.publish(part(Cluster("a", tls=BLANK)))
    bench.step()
    assert bench.parts["xds"].clusters["a"].tls.unverified is not verifies
