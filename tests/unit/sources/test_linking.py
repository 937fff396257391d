"""Clusters that name secrets of the process's identity, linked with them: what a rotation touches, and what it does not."""

from __future__ import annotations

from dataclasses import replace

from meshlib.model.address import Address
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Assignment, Endpoint, Locality, LocalityEndpoints
from meshlib.model.snapshot import Part
from meshlib.model.tls import (
    Certificate,
    Pem,
    Secret,
    SecretFrom,
    SecretKind,
    SecretName,
    Tls,
    TlsMatch,
    Validation,
)
from meshlib.sources.linking import Linker

MINE = SecretName("default", SecretKind.CERTIFICATE, SecretFrom.IDENTITY)
ROOTS = SecretName("ROOTCA", SecretKind.CA, SecretFrom.IDENTITY)


def pair(text):
    return Secret("default", SecretKind.CERTIFICATE, certificate=Certificate(Pem(text), Pem(b"key")))


def roots(text):
    return Secret("ROOTCA", SecretKind.CA, validation=Validation(roots=Pem(text)))


def assigned(name, *addresses):
    endpoints = tuple(Endpoint(Address.parse(text)) for text in addresses)
    return Assignment(name, (LocalityEndpoints(Locality(), endpoints),))


def cluster(name, *names, **other):
    held = {("certificates" if each.kind is SecretKind.CERTIFICATE else "roots"): each for each in names}
    return Cluster(name, tls=Tls(sni=name, **held), **other)


def part(*clusters, source="xds", **other):
    found = {each.name: each for each in clusters}
    named = frozenset(name for name, each in found.items() if each.tls is not None and each.tls.secrets)
    return Part(source, clusters=found, identified=named, **other)


class Kit:
    def __init__(self, **known):
        self.known = {MINE: known.get("mine"), ROOTS: known.get("roots")}
        self.asked = []
        self.linker = Linker(self.find, self.secrets)

    def find(self, name):
        self.asked.append(name)
        return self.known[name]

    def secrets(self):
        return {name: each for name, each in self.known.items() if isinstance(each, Secret)}


def test_a_part_without_such_clusters_is_itself():
    kit = Kit()
    said = part(Cluster("plain"))
    assert kit.linker.part(said) is said
    assert kit.linker.again(said) is said
    assert kit.asked == []


def test_one_whose_secrets_may_yet_come_is_not_there_and_calls_wait():
    kit = Kit(mine=pair(b"1"))
    made = kit.linker.part(part(cluster("a", MINE, ROOTS), Cluster("b"), lacking={"c": "is gone"}))
    assert list(made.clusters) == ["b"]
    assert made.lacking == {"c": "is gone", "a": ""}


def test_it_is_linked_when_they_came():
    kit = Kit(mine=pair(b"1"))
    said = part(cluster("a", MINE, ROOTS))
    kit.linker.part(said)
    kit.known[ROOTS] = roots(b"r")
    made = kit.linker.again(said)
    tls = made.clusters["a"].tls
    assert (tls.certificate.chain.data, tls.validation.roots.data, tls.lacking) == (b"1", b"r", "")
    assert made.lacking == {}


def test_one_that_will_not_come_closes_it_in_words():
    kit = Kit(mine=pair(b"1"), roots="has not come within 15 s")
    tls = kit.linker.part(part(cluster("a", MINE, ROOTS))).clusters["a"].tls
    assert tls.lacking == "secret 'ROOTCA' has not come within 15 s"


def test_a_rotation_touches_only_those_that_use_it():
    kit = Kit(mine=pair(b"1"), roots=roots(b"r"))
    said = part(cluster("a", MINE), cluster("b", ROOTS), Cluster("c"))
    before = kit.linker.part(said)
    kit.known[MINE] = pair(b"2")
    after = kit.linker.again(said)
    assert after.clusters["a"].tls.certificate.chain.data == b"2"
    assert after.clusters["b"] is before.clusters["b"]
    assert after.clusters["c"] is before.clusters["c"]


def test_nothing_is_made_where_nothing_is_new():
    kit = Kit(mine=pair(b"1"), roots="is not there")
    said = part(cluster("a", MINE, ROOTS))
    before = kit.linker.part(said)
    kit.known[ROOTS] = "is not there".replace("is", "is")
    assert kit.linker.again(said) is before


def test_an_update_looks_only_at_what_is_another():
    kit = Kit(mine=pair(b"1"))
    one, other = cluster("a", MINE), cluster("b", MINE)
    before = kit.linker.part(part(one, other))
    kit.asked.clear()
    after = kit.linker.part(part(one, replace(other, connect_timeout=1.0)))
    assert after.clusters["a"] is before.clusters["a"]
    assert after.clusters["b"].connect_timeout == 1.0
    assert len(kit.asked) == 1


def test_other_endpoints_leave_what_is_demanded_the_same_object():
    """A pool is stale as soon as its endpoint's Tls is another object."""
    kit = Kit(mine=pair(b"1"))
    match = TlsMatch("m", {}, Tls(sni="m", certificates=MINE))
    said = replace(cluster("a", MINE), tls_matches=(match,), assignment=assigned("a", "10.0.0.1:80"))
    before = kit.linker.part(part(said)).clusters["a"]
    after = kit.linker.part(part(replace(said, assignment=assigned("a", "10.0.0.2:80")))).clusters["a"]
    assert after.assignment.localities[0].endpoints[0].address == Address("10.0.0.2", 80)
    assert after.tls is before.tls
    assert after.tls_matches is before.tls_matches
    assert after.tls_matches[0].tls.certificate.chain.data == b"1"


def test_the_old_one_serves_while_what_a_new_one_names_may_yet_come():
    """SD-02: a cluster is active only once its secrets are there."""
    kit = Kit(mine=pair(b"1"))
    old, new = cluster("a", MINE), cluster("a", MINE, ROOTS)
    before = kit.linker.part(part(old)).clusters["a"]
    assert kit.linker.part(part(new)).clusters["a"] is before
    # Nor do other endpoints of the new one bring what the old one demands together with the new one's.
    moved = replace(new, assignment=assigned("a", "10.0.0.2:80"))
    said = part(moved)
    assert kit.linker.part(said).clusters["a"] is before
    kit.known[ROOTS] = roots(b"r")
    after = kit.linker.again(said).clusters["a"]
    assert (after.assignment, after.tls.validation.roots.data) == (moved.assignment, b"r")


def test_one_that_came_to_its_end_is_closed():
    kit = Kit(mine=pair(b"1"))
    said = part(cluster("a", MINE))
    kit.linker.part(said)
    kit.known[MINE] = "has expired"
    assert kit.linker.again(said).clusters["a"].tls.lacking == "secret 'default' has expired"


def test_what_keeps_one_from_being_there_is_known():
    kit = Kit(mine=pair(b"1"))
    said = part(cluster("a", MINE, ROOTS), cluster("b", MINE))
    kit.linker.part(said)
    assert kit.linker.awaits("xds", "a") == (ROOTS,)
    assert (
        kit.linker.awaits("xds", "b") == kit.linker.awaits("xds", "c") == kit.linker.awaits("file", "a") == ()
    )
    kit.known[ROOTS] = roots(b"r")
    kit.linker.again(said)
    assert kit.linker.awaits("xds", "a") == ()


def test_what_is_named_is_known():
    kit = Kit(mine=pair(b"1"))
    kit.linker.part(part(cluster("a", MINE), source="xds"))
    kit.linker.part(part(cluster("a", ROOTS), source="static"))
    assert kit.linker.names == {MINE, ROOTS}
    kit.linker.drop("static")
    assert kit.linker.names == {MINE}
    kit.linker.part(part(Cluster("a")))
    assert kit.linker.names == frozenset()


def test_what_it_was_made_of_is_kept_for_a_fork_and_told_to_nobody():
    kit = Kit(mine=pair(b"1"))
    said = part(cluster("a", MINE))
    made = kit.linker.part(said)
    assert made.linkage.raw is said
    assert made.linkage.secrets == {MINE: kit.known[MINE]}
    assert "linkage" not in repr(made)
