"""The holder of identity: who gives it, from when on, how long it is waited for, and what is told of it."""

from __future__ import annotations

import json

import pytest

from meshlib.config import Config, resolve
from meshlib.model.cluster import Cluster
from meshlib.model.snapshot import Part
from meshlib.model.tls import (
    Certificate,
    Pem,
    Secret,
    SecretFrom,
    SecretKind,
    SecretName,
    Tls,
    Validation,
)
from meshlib.runtime.worker import Worker
from meshlib.sources import identity as module
from meshlib.sources.base import Source
from meshlib.sources.identity import WAIT, Identity
from meshlib.sources.identity_base import ProviderStatus
from meshlib.testing.clock import VirtualClock
from meshlib.xds.bootstrap import parse_bootstrap
from tests.support.certificates import Authority
from tests.support.sources_kit import Bench

MINE = "spiffe://td/ns/shop/sa/me"


def pair_of(name="default"):
    return SecretName(name, SecretKind.CERTIFICATE, SecretFrom.IDENTITY)


def roots_of(name="ROOTCA"):
    return SecretName(name, SecretKind.CA, SecretFrom.IDENTITY)


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def secrets(authority):
    return _Secrets(authority)


class _Secrets:
    def __init__(self, authority):
        self.authority = authority

    def pair(self, **other):
        leaf = self.authority.issue(MINE, **other)
        made = Certificate(Pem(leaf.chain_pem), Pem(leaf.key_pem))
        return Secret("default", SecretKind.CERTIFICATE, certificate=made)

    def roots(self):
        return Secret("ROOTCA", SecretKind.CA, validation=Validation(roots=Pem(self.authority.pem)))


class Scripted:
    """A provider that has what a test says."""

    def __init__(self, worker, random, **told):
        self.worker = worker
        self.given = told
        self.journal = []
        self.known = {}
        self.error = ""
        self.state = "connecting"
        self.told = None

    def start(self, told):
        self.journal.append("start")
        self.told = told
        told()

    def stop(self):
        self.journal.append("stop")
        self.told = None

    def secret(self, name):
        return self.known.get(name.kind)

    def status(self):
        return ProviderStatus("istiod:15012", self.state, self.error)

    def has(self, *secrets, error=""):
        for secret in secrets:
            self.known[secret.kind] = secret
        self.error = error
        self.state = "ready"
        self.told()

    def says(self, kind, words):
        self.known[kind] = words
        self.told()

    def fails(self, error):
        self.error = error
        self.told()


class Said(Source):
    """A source that says what a test says."""

    def __init__(self, sink, first):
        super().__init__("xds", "xds", sink)
        self.first = first

    def open(self, inherited):
        self.inherited = inherited
        if inherited is None and self.first is not None:
            self.sink.publish(self.first)


class Kit:
    """The holder in a merge, with scripted providers; ``made``: those that were made, by kind."""

    def __init__(self, config, *clusters, bootstrap=None, inherited=(), start=True, real=False):
        self.config = config if isinstance(config, Config) else Config.from_mapping(config)
        self.bootstrap = bootstrap
        self.made = {}
        self.real = real
        self.first = part(*clusters)
        self.bench = Bench(self.build, inherited, start)

    def build(self, merge, bench):
        kinds = ("files", "istio", "spiffe", "file_watcher")
        make = {kind: self.maker(kind) for kind in kinds}
        self.identity = Identity(
            merge, self.config, self.bootstrap, lambda: 0.5, merge.relink, None if self.real else make
        )
        merge.link(self.identity)
        self.source = Said(merge, self.first)
        return [self.source, self.identity]

    def maker(self, kind):
        def make(worker, random, **told):
            self.made.setdefault(kind, []).append(Scripted(worker, random, **told))
            return self.made[kind][-1]

        return make

    @property
    def one(self):
        ((provider,),) = self.made.values()
        return provider

    def publish(self, *clusters):
        self.bench.merge.publish(part(*clusters))
        self.bench.step()

    def tls(self, name="a"):
        """What of the cluster is in force; None while calls wait for it."""
        known = self.bench.parts["xds"]
        if name in known.clusters:
            return known.clusters[name].tls
        assert known.lacking[name] == ""
        return None

    @property
    def status(self):
        (status,) = self.bench.merge.identities()
        return status


def cluster(name, pair=None, roots=None):
    return Cluster(name, tls=Tls(certificates=pair, roots=roots))


def part(*clusters):
    named = frozenset(each.name for each in clusters if each.tls is not None and each.tls.secrets)
    return Part("xds", clusters={each.name: each for each in clusters}, identified=named)


def bootstrapped(**providers):
    told = {
        "xds_servers": [{"server_uri": "127.0.0.1:1", "channel_creds": [{"type": "insecure"}]}],
        "certificate_providers": {
            name: {"plugin_name": plugin, "config": config} for name, (plugin, config) in providers.items()
        },
    }
    return parse_bootstrap(json.dumps(told), "test")


ISTIO = {"identity": {"provider": "istio"}}


class TestLife:
    def test_a_provider_is_started_only_when_a_cluster_names_a_secret(self):
        kit = Kit(ISTIO, Cluster("plain"))
        assert kit.made == {}
        assert (kit.status.provider, kit.status.state) == ("istio", "idle")
        kit.publish(cluster("a", pair_of()))
        assert kit.one.journal == ["start"]

    def test_calls_wait_until_what_a_cluster_names_is_there(self, secrets):
        kit = Kit(ISTIO, cluster("a", pair_of(), roots_of()))
        assert kit.tls() is None
        pair, roots = secrets.pair(), secrets.roots()
        kit.one.has(pair)
        kit.bench.step()
        assert kit.tls() is None
        kit.one.has(roots)
        kit.bench.step()
        assert kit.tls().certificate is pair.certificate
        assert kit.tls().validation == roots.validation

    def test_they_wait_no_longer_than_fifteen_seconds_and_are_told_why(self):
        kit = Kit(ISTIO, cluster("a", pair_of()))
        kit.one.fails("connection refused")
        kit.bench.step(WAIT - 0.1)
        assert kit.tls() is None
        kit.bench.step(0.2)
        assert kit.tls().lacking == (
            "secret 'default' has not come within 15 s from istio (istiod:15012): connection refused"
        )

    def test_what_a_cluster_waits_for_is_told_in_words(self, secrets):
        kit = Kit(ISTIO, cluster("a", pair_of(), roots_of()), Cluster("b"))
        assert kit.bench.merge.awaits("xds", "a") == (
            "waits for secret 'default' of istio (istiod:15012) and secret 'ROOTCA' of istio (istiod:15012)"
        )
        kit.one.has(secrets.roots(), error="connection refused")
        kit.bench.step()
        assert kit.bench.merge.awaits("xds", "a") == (
            "waits for secret 'default' of istio (istiod:15012): connection refused"
        )
        assert kit.bench.merge.awaits("xds", "b") == "has not come yet"

    def test_what_comes_late_is_taken_up(self, secrets):
        kit = Kit(ISTIO, cluster("a", pair_of()))
        kit.bench.step(WAIT)
        kit.one.has(pair := secrets.pair())
        kit.bench.step()
        assert (kit.tls().certificate, kit.tls().lacking) == (pair.certificate, "")

    def test_the_time_of_each_begins_when_it_is_first_named(self):
        kit = Kit(ISTIO, cluster("a", pair_of()))
        kit.bench.step(WAIT - 1)
        kit.publish(cluster("a", pair_of()), cluster("b", roots=roots_of()))
        kit.bench.step(2)
        assert "has not come" in kit.tls("a").lacking
        assert kit.tls("b") is None
        kit.bench.step(WAIT)
        assert "has not come" in kit.tls("b").lacking
        assert kit.one.journal == ["start"]

    def test_what_will_not_come_is_told_at_once(self):
        kit = Kit(ISTIO, cluster("a", pair_of()))
        kit.one.says(SecretKind.CERTIFICATE, "was withdrawn")
        kit.bench.step()
        assert kit.tls().lacking == "secret 'default' was withdrawn"

    def test_a_rotation_changes_the_clusters_that_use_it_and_no_others(self, secrets):
        kit = Kit(ISTIO, cluster("a", pair_of()), cluster("b", roots=roots_of()), Cluster("c"))
        kit.one.has(secrets.pair(), secrets.roots())
        kit.bench.step()
        before = kit.bench.parts["xds"].clusters
        rows = len(kit.bench.published)
        kit.one.has(pair := secrets.pair())
        kit.bench.step()
        after = kit.bench.parts["xds"].clusters
        assert after["a"].tls.certificate is pair.certificate
        assert after["b"] is before["b"]
        assert after["c"] is before["c"]
        assert len(kit.bench.published) == rows + 1

    def test_trouble_that_takes_nothing_away_publishes_nothing(self, secrets):
        kit = Kit(ISTIO, cluster("a", pair_of()))
        kit.one.has(secrets.pair())
        kit.bench.step()
        rows = len(kit.bench.published)
        kit.one.fails("connection refused")
        kit.bench.step(2 * WAIT)
        assert len(kit.bench.published) == rows
        assert kit.status.last_error == "connection refused"

    def test_whoever_observes_sources_is_told_how_it_stands(self, secrets):
        kit = Kit(ISTIO, cluster("a", pair_of()))
        kit.one.has(secrets.pair())
        kit.one.fails("connection refused")
        kit.one.has(secrets.pair())
        kit.bench.step()
        kit.bench.merge.stop()
        assert kit.bench.changes == [
            ("identity", "connecting", ""),
            ("identity", "ready", ""),
            ("identity", "stale", "connection refused"),
            ("identity", "ready", ""),
            ("identity", "idle", ""),
        ]

    def test_one_that_nothing_demands_tells_nobody(self):
        assert Kit(ISTIO, Cluster("plain")).bench.changes == []

    def test_it_stops_and_goes_on(self, secrets):
        kit = Kit(ISTIO, cluster("a", pair_of()))
        assert kit.bench.merge.streaming
        kit.one.has(pair := secrets.pair())
        kit.bench.merge.stop()
        kit.bench.step(2 * WAIT)
        assert not kit.bench.merge.streaming
        assert kit.tls().certificate is pair.certificate
        kit.bench.start()
        assert kit.one.journal == ["start", "stop", "start"]
        assert kit.tls().certificate is pair.certificate

    def test_names_that_nobody_names_any_more_are_forgotten(self, secrets):
        kit = Kit(ISTIO, cluster("a", pair_of()))
        for index in range(50):
            kit.publish(cluster("a", pair_of(f"name-{index}")))
        assert len(kit.identity.secrets()) == 0
        kit.one.has(secrets.pair())
        kit.bench.step()
        assert list(kit.identity.secrets()) == [pair_of("name-49")]


class TestForks:
    """A fork asks anew, and has until then what its parent had."""

    @staticmethod
    def parts(secret):
        parent = Kit(ISTIO, cluster("a", pair_of()))
        parent.one.has(secret)
        parent.bench.step()
        return tuple(parent.bench.parts.values())

    def test_a_child_has_at_once_what_its_parent_had(self, secrets):
        pair = secrets.pair()
        child = Kit(ISTIO, inherited=self.parts(pair), start=False)
        assert child.tls().certificate is pair.certificate
        assert child.source.inherited.clusters["a"].tls.certificate is None  # as its source said it

    def test_until_it_has_its_own(self, secrets):
        pair, own = secrets.pair(), secrets.pair()
        child = Kit(ISTIO, inherited=self.parts(pair))
        child.one.fails("connection refused")
        child.bench.step(2 * WAIT)
        assert child.tls().certificate is pair.certificate
        child.one.has(own)
        child.bench.step()
        assert child.tls().certificate is own.certificate

    def test_and_no_longer_than_it_is_valid(self, authority):
        # The bench's clock shows the first hour of 1970.
        pair = _Secrets(authority).pair(seconds=10)
        child = Kit(ISTIO, inherited=self.parts(pair), start=False)
        want = child.identity._wants[pair_of()]
        want.facts = (MINE, child.bench.clock.wall() + 30, 0)
        child.bench.start()
        child.one.fails("connection refused")
        child.bench.step(29)
        assert child.tls().certificate is pair.certificate
        child.bench.step(2)
        assert child.tls().lacking == (
            "secret 'default' has expired, and a new one has not come within 15 s from istio (istiod:15012): connection refused"
        )


class TestWho:
    def test_what_is_told_holds_for_every_name(self, secrets):
        told = {"identity": {"cert": "c", "key": "k", "ca": "r"}}
        kit = Kit(
            told,
            cluster("a", pair_of("mine"), roots_of("theirs")),
            bootstrap=bootstrapped(mine=("file_watcher", {"ca_certificate_file": "x"})),
        )
        assert kit.one.given == {"cert": "c", "key": "k", "ca": "r"}
        kit.one.has(secrets.pair(), secrets.roots())
        kit.bench.step()
        assert kit.tls().lacking == ""

    def test_istio_is_told_what_is_told(self):
        keys = {"server": "ca.example:15012", "token": "/t", "ca": "/r"}
        kit = Kit({"identity": keys}, cluster("a", pair_of()))
        assert kit.one.given == {**keys, "metadata": {}}

    def test_what_is_not_told_is_left_to_it_with_the_nodes_metadata(self):
        told = {"xds_servers": [{"server_uri": "127.0.0.1:1", "channel_creds": [{"type": "insecure"}]}]}
        told["node"] = {"id": "me", "metadata": {"CLUSTER_ID": "east"}}
        kit = Kit(ISTIO, cluster("a", pair_of()), bootstrap=parse_bootstrap(json.dumps(told), "test"))
        assert kit.one.given == {"metadata": {"CLUSTER_ID": "east"}}

    @pytest.mark.parametrize(
        ("more", "given"),
        [
            ({}, {"server": "istiod-canary.istio-system:15012", "ca": "/root.pem"}),
            ({"ca": "/r"}, {"server": "istiod-canary.istio-system:15012", "ca": "/r"}),
            ({"server": "ca.example:443", "ca": "/r"}, {"server": "ca.example:443", "ca": "/r"}),
        ],
    )
    def test_where_the_ca_is_not_told_it_is_beside_the_control_plane(self, more, given):
        tls = {"type": "tls", "config": {"ca_certificate_file": "/root.pem"}}
        told = {"xds_servers": [{"server_uri": "istiod-canary.istio-system:15012", "channel_creds": [tls]}]}
        identity = {"identity": {"provider": "istio", **more}}
        kit = Kit(identity, cluster("a", pair_of()), bootstrap=parse_bootstrap(json.dumps(told), "test"))
        assert kit.one.given == {**given, "metadata": {}}

    def test_without_a_control_plane_it_is_that_of_the_configuration(self):
        config = {**ISTIO, "node": {"metadata": {"CLUSTER_ID": "east", "more": {"a": [1]}}}}
        kit = Kit(config, cluster("a", pair_of()))
        assert kit.one.given == {"metadata": {"CLUSTER_ID": "east", "more": {"a": [1]}}}

    def test_an_instance_of_the_bootstrap_answers_to_its_name(self):
        one, other = {"ca_certificate_file": "1"}, {"ca_certificate_file": "2"}
        kit = Kit(
            {},
            cluster("a", roots=roots_of("one")),
            cluster("b", roots=roots_of("two")),
            cluster("c", roots=roots_of("same")),
            bootstrap=bootstrapped(
                one=("file_watcher", one), two=("file_watcher", other), same=("file_watcher", one)
            ),
        )
        given = [each.given["config"] for each in kit.made["file_watcher"]]
        assert sorted(given, key=repr) == [one, other]  # BS-08

    def test_istios_name_of_the_roots_is_the_instance_beside_it(self):
        bootstrap = bootstrapped(default=("file_watcher", {"ca_certificate_file": "1"}))
        kit = Kit({}, cluster("a", roots=roots_of()), bootstrap=bootstrap)
        assert kit.one.journal == ["start"]

    def test_a_plug_in_that_is_not_known_is_refused_when_it_is_named(self):
        bootstrap = bootstrapped(mine=("vault", {}), other=("file_watcher", {"ca_certificate_file": "1"}))
        kit = Kit({}, cluster("a", pair_of("mine")), bootstrap=bootstrap)
        assert kit.tls().lacking == (
            "secret 'mine' cannot be had: the plug-in 'vault' of certificate_providers['mine'] of the bootstrap is not known"
        )
        assert [status.state for status in kit.bench.merge.identities()] == ["failed", "idle"]

    def test_a_configuration_that_is_wrong_is_told_when_it_is_named(self):
        kit = Kit(
            {}, cluster("a", pair_of("mine")), bootstrap=bootstrapped(mine=("file_watcher", {})), real=True
        )
        assert kit.tls().lacking == (
            "secret 'mine' cannot be had of file_watcher (certificate_providers['mine'] of the bootstrap): it names no file"
        )

    def test_a_workload_api_of_the_environment_is_found(self):
        config = resolve({}, {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/a.sock"})
        kit = Kit(config, cluster("a", pair_of()))
        assert kit.one.given == {"socket": "unix:/run/a.sock"}
        assert (kit.status.provider, kit.status.found) == ("spiffe", "SPIFFE_ENDPOINT_SOCKET")

    def test_instances_of_the_bootstrap_go_before_what_is_found(self):
        config = resolve({}, {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/a.sock"})
        bootstrap = bootstrapped(mine=("file_watcher", {"ca_certificate_file": "1"}))
        kit = Kit(config, cluster("a", roots=roots_of("mine")), bootstrap=bootstrap)
        assert list(kit.made) == ["file_watcher"]
        kit.publish(cluster("a", roots=roots_of("ROOTCA")))
        assert list(kit.made) == ["file_watcher", "spiffe"]

    def test_spiffe_without_its_socket_is_told_of(self):
        kit = Kit({"identity": {"provider": "spiffe"}}, cluster("a", pair_of()))
        assert kit.tls().lacking == (
            "secret 'default' cannot be had: identity.socket is not given, and SPIFFE_ENDPOINT_SOCKET is not set"
        )

    def test_where_there_is_nobody_calls_fail_at_once_in_words(self):
        kit = Kit({}, cluster("a", pair_of()))
        assert kit.tls().lacking.startswith(
            "secret 'default' cannot be had: nobody gives an identity: neither [identity]"
        )
        assert kit.bench.merge.identities() == ()
        [(source, state, error)] = kit.bench.changes
        assert (source, state) == ("identity", "failed")
        assert error.startswith("nobody gives an identity")

    @pytest.mark.parametrize(
        ("server", "node", "found"),
        [
            ("istiod.istio-system.svc:15012", "me", "istiod.istio-system.svc:15012"),
            ("dns:///istiod-canary.istio-system:15010", "me", "istiod-canary.istio-system:15012"),
            ("10.0.0.1:15010", "proxyless~10.0.0.2~me.shop~shop.svc.cluster.local", "10.0.0.1:15012"),
            ("10.0.0.1:15010", "me", None),
            ("istiod.istio-system.svc:443", "me", None),
            ("unix:///etc/istio/proxy/XDS", "proxyless~10.0.0.2~me.shop~shop.svc.cluster.local", None),
        ],
    )
    def test_istios_token_beside_a_control_plane_of_istios_is_found(
        self, server, node, found, tmp_path, monkeypatch
    ):
        token = tmp_path / "istio-token"
        monkeypatch.setattr(module, "TOKEN", str(token))
        told = {
            "xds_servers": [{"server_uri": server, "channel_creds": [{"type": "insecure"}]}],
            "node": {"id": node},
        }
        bootstrap = parse_bootstrap(json.dumps(told), "test")
        assert Kit({}, cluster("a", pair_of()), bootstrap=bootstrap).made == {}
        token.write_text("x")
        kit = Kit({}, cluster("a", pair_of()), bootstrap=bootstrap)
        assert ([each.given for each in kit.made.get("istio", ())]) == (
            [{"server": found, "metadata": {}}] if found else []
        )

    def test_the_roots_of_that_control_plane_are_those_of_its_ca(self, tmp_path, monkeypatch):
        token = tmp_path / "istio-token"
        token.write_text("x")
        monkeypatch.setattr(module, "TOKEN", str(token))
        tls = {"type": "tls", "config": {"ca_certificate_file": "/root.pem"}}
        told = {"xds_servers": [{"server_uri": "istiod:15012", "channel_creds": [tls]}]}
        kit = Kit({}, cluster("a", pair_of()), bootstrap=parse_bootstrap(json.dumps(told), "test"))
        assert kit.one.given == {"server": "istiod:15012", "ca": "/root.pem", "metadata": {}}

    @pytest.mark.parametrize(
        ("kind", "told", "name"),
        [
            ("files", {"cert": "c", "key": "k", "ca": ""}, "FilesProvider"),
            ("file_watcher", {"config": {"ca_certificate_file": "r"}}, "FilesProvider"),
            ("istio", {"server": "istiod:15012", "metadata": {}}, "IstioProvider"),
            ("spiffe", {"socket": "unix:/run/a.sock"}, "SpiffeProvider"),
        ],
    )
    def test_each_kind_has_a_provider_that_starts_nothing(self, kind, told, name):
        worker = Worker(VirtualClock())
        made = module._PROVIDERS[kind](worker, lambda: 0.5, **told)
        assert type(made).__name__ == name
        assert made.status().state == "idle"
        assert worker.run_due() is None


class TestStatus:
    def test_it_says_who_we_are_and_for_how_long(self, secrets):
        kit = Kit(ISTIO, cluster("a", pair_of(), roots_of()))
        kit.one.has(pair := secrets.pair(), secrets.roots())
        kit.bench.step()
        status = kit.status
        assert (status.provider, status.found, status.server) == (
            "istio",
            "identity (argument)",
            "istiod:15012",
        )
        assert (status.state, status.name, status.roots, status.last_error) == ("ready", MINE, 1, "")
        ends = secrets.authority and kit.bench.clock.wall() + status.expires_in
        assert module._facts(pair)[1] == ends
        assert set(status.to_dict()) == {
            "provider", "found", "server", "state", "name", "expires_in", "roots", "last_error",
        }  # fmt: skip

    def test_nothing_of_it_is_the_key(self, secrets):
        kit = Kit(ISTIO, cluster("a", pair_of(), roots_of()))
        kit.one.has(pair := secrets.pair(), secrets.roots())
        kit.bench.step()
        body = pair.certificate.key.data.splitlines()[1].decode()
        told = repr((kit.status, kit.bench.published, kit.identity._wants)) + json.dumps(kit.status.to_dict())
        assert body not in told
