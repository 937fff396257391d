"""An identity of files: what is read, what is waited for, what takes nothing away (A29, A65, A87, TL-06)."""

from __future__ import annotations

import base64
import json
import os
import ssl
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from meshlib.model.tls import Pem, SecretFrom, SecretKind, SecretName
from meshlib.runtime.worker import Worker
from meshlib.sources import identity_files
from meshlib.sources.identity_facts import domains, facts_of
from meshlib.sources.identity_files import FilesProvider, WatchedFiles
from meshlib.testing.clock import VirtualClock
from tests.support.certificates import Authority, replaced

PAIR = SecretName("default", SecretKind.CERTIFICATE, SecretFrom.IDENTITY)
ROOTS = SecretName("ROOTCA", SecretKind.CA, SecretFrom.IDENTITY)
MINE = "spiffe://td/ns/shop/sa/me"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def leaf(authority):
    return authority.issue(MINE)


class Kit:
    """A provider on a virtual clock that shows the time of day."""

    def __init__(self, folder, **files):
        self.folder = folder
        self.clock = VirtualClock(time.time())
        self.worker = Worker(self.clock)
        paths = files or {
            "cert": str(folder / "cert.pem"),
            "key": str(folder / "key.pem"),
            "ca": str(folder / "ca.pem"),
        }
        self.provider = FilesProvider(self.worker, WatchedFiles(**paths))
        self.told = 0

    def start(self):
        self.provider.start(self.heard)
        return self

    def heard(self):
        self.told += 1

    def step(self, seconds=1.0):
        self.clock.advance(seconds)
        self.worker.run_due()

    def pair(self):
        found = self.provider.secret(PAIR)
        return found if found is None or isinstance(found, str) else found.certificate

    def roots(self):
        found = self.provider.secret(ROOTS)
        return found if found is None or isinstance(found, str) else found.validation

    @property
    def status(self):
        return self.provider.status()


@pytest.fixture
def kit(tmp_path, authority, leaf):
    leaf.write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    return Kit(tmp_path).start()


def of_another_sort(chain):
    """The leaf with a key of a sort that nobody knows."""
    known, unknown = (bytes.fromhex(f"2a8648ce3d02{last}") for last in ("01", "09"))
    der = ssl.PEM_cert_to_DER_cert(chain.decode())
    assert known in der
    return ssl.DER_cert_to_PEM_cert(der.replace(known, unknown)).encode()


class TestFiles:
    def test_nothing_is_read_before_it_starts(self, tmp_path):
        kit = Kit(tmp_path)
        assert (kit.pair(), kit.status.state) == (None, "idle")

    def test_what_is_there_is_there_at_once(self, kit, authority, leaf):
        assert (kit.pair().chain, kit.pair().key) == (Pem(leaf.chain_pem), Pem(leaf.key_pem))
        assert kit.roots().roots == Pem(authority.pem)
        assert (kit.status.state, kit.status.last_error, kit.told) == ("ready", "", 1)
        assert kit.status.server == ", ".join(
            str(kit.folder / name) for name in ("cert.pem", "key.pem", "ca.pem")
        )

    def test_a_secret_that_did_not_change_is_the_same_object_and_nobody_is_told(self, kit, leaf):
        before = kit.provider.secret(PAIR)
        leaf.write(kit.folder)  # the same bytes anew
        kit.step()
        assert kit.provider.secret(PAIR) is before
        assert kit.told == 1

    def test_what_was_broken_and_is_as_it_was_is_the_same_object(self, kit, leaf):
        before = kit.provider.secret(PAIR)
        replaced(kit.folder / "cert.pem", b"nonsense")
        kit.step()
        leaf.write(kit.folder)
        kit.step()
        assert kit.provider.secret(PAIR) is before
        assert (kit.status.state, kit.told) == ("ready", 3)

    def test_what_is_written_anew_is_taken_up(self, kit, authority):
        other = authority.issue(MINE)
        other.write(kit.folder)
        kit.step()
        assert kit.pair().chain == Pem(other.chain_pem)
        assert kit.told == 2

    @pytest.mark.parametrize("name", ["cert.pem", "key.pem", "ca.pem"])
    def test_a_pipe_in_the_place_of_a_file_takes_nothing_away_and_is_not_waited_for(self, kit, leaf, name):
        (kit.folder / name).unlink()
        os.mkfifo(kit.folder / name)
        kit.step(3)
        assert kit.pair().chain == Pem(leaf.chain_pem)
        assert (kit.status.state, kit.status.last_error) == (
            "stale",
            f"{kit.folder}/{name} cannot be read: it is no file",
        )

    def test_half_of_a_new_pair_changes_nothing_until_the_other_is_there(self, kit, authority, leaf):
        """TL-06: certificate and key are one."""
        other = authority.issue(MINE)
        replaced(kit.folder / "cert.pem", other.chain_pem)
        kit.step()
        assert kit.pair().chain == Pem(leaf.chain_pem)
        assert (kit.status.state, kit.status.last_error) == (
            "stale",
            f"{kit.folder}/cert.pem, {kit.folder}/key.pem: certificate and private key are no pair",
        )
        replaced(kit.folder / "key.pem", other.key_pem)
        kit.step()
        assert kit.pair().key == Pem(other.key_pem)
        assert (kit.status.state, kit.status.last_error) == ("ready", "")

    @pytest.mark.parametrize("name", ["cert.pem", "key.pem", "ca.pem"])
    @pytest.mark.parametrize(
        "data", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", None]
    )
    def test_what_is_broken_or_gone_takes_nothing_away(self, kit, authority, leaf, name, data):
        if data is None:
            (kit.folder / name).unlink()
        else:
            (kit.folder / name).write_bytes(data)
        kit.step()
        assert (kit.pair().chain, kit.roots().roots) == (Pem(leaf.chain_pem), Pem(authority.pem))
        assert kit.status.state == "stale"
        assert kit.status.last_error

    def test_a_new_certificate_that_has_expired_takes_nothing_away(self, kit, authority, leaf):
        authority.issue(MINE, expired=True).write(kit.folder)
        kit.step()
        assert kit.pair().chain == Pem(leaf.chain_pem)
        assert kit.status.last_error.endswith("/key.pem: the certificate has expired")

    def test_one_that_comes_to_its_end_is_told_of(self, tmp_path, authority):
        authority.issue(MINE, seconds=10).write(tmp_path)
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        kit = Kit(tmp_path).start()
        assert kit.pair().chain
        kit.step(11)
        assert kit.pair() == "has expired"
        assert (kit.status.state, kit.status.last_error) == ("failed", "the certificate has expired")
        assert kit.told == 2
        assert kit.roots().roots == Pem(authority.pem)
        authority.issue(MINE).write(tmp_path)
        kit.step()
        assert kit.pair().chain
        assert kit.status.state == "ready"

    def test_the_end_is_not_waited_for_longer_than_it_takes(self, tmp_path, authority):
        authority.issue(MINE, seconds=10).write(tmp_path)
        files = WatchedFiles(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"), period=600.0)
        kit = Kit(tmp_path)
        kit.provider = FilesProvider(kit.worker, files)
        kit.start()
        kit.step(11)
        assert kit.pair() == "has expired"

    def test_a_file_that_is_not_there_yet_is_awaited(self, tmp_path, authority, leaf):
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        kit = Kit(tmp_path).start()
        assert (kit.pair(), kit.status.state) == (None, "failed")
        assert kit.status.last_error == f"{tmp_path / 'cert.pem'} is not there"
        leaf.write(tmp_path)
        kit.step()
        assert kit.pair().chain == Pem(leaf.chain_pem)

    @pytest.mark.parametrize(
        ("name", "data", "words"),
        [
            ("cert.pem", b"nonsense", "it is no certificate in PEM: "),
            ("cert.pem", "foreign", "the key in the certificate cannot be read: "),
            ("key.pem", b"nonsense", "there is no private key in PEM that can be read"),
            ("key.pem", "another", "certificate and private key are no pair"),
            ("key.pem", "encrypted", "the private key is encrypted"),
        ],
    )
    def test_one_that_cannot_be_used_is_told_of_at_once(self, tmp_path, authority, leaf, name, data, words):
        leaf.write(tmp_path)
        made = {
            "another": authority.issue(MINE).key_pem,
            "encrypted": leaf.encrypted(b"word"),
            "foreign": of_another_sort(leaf.chain_pem),
        }
        (tmp_path / name).write_bytes(made.get(data, data))
        said = Kit(tmp_path).start().pair()
        assert said.startswith(f"cannot be used: {tmp_path}/cert.pem, {tmp_path}/key.pem: {words}")

    def test_what_is_not_among_the_files_will_not_come(self, tmp_path, authority):
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        kit = Kit(tmp_path, ca=str(tmp_path / "ca.pem")).start()
        assert kit.pair() == "is not among the files of identity"
        assert kit.roots().roots == Pem(authority.pem)

    def test_both_may_be_in_one_file(self, tmp_path, leaf):
        both = tmp_path / "both.pem"
        both.write_bytes(leaf.key_pem + leaf.chain_pem)
        kit = Kit(tmp_path, cert=str(both), key=str(both)).start()
        assert kit.pair().key == Pem(leaf.key_pem + leaf.chain_pem)

    def test_a_file_is_bounded(self, tmp_path, monkeypatch):
        monkeypatch.setattr(identity_files, "LARGEST", 1024)
        (tmp_path / "ca.pem").write_bytes(b" " * 1025)
        kit = Kit(tmp_path, ca=str(tmp_path / "ca.pem")).start()
        assert "is larger than" in kit.roots()

    def test_it_stops_and_goes_on_with_what_it_has(self, kit, authority, leaf):
        kit.provider.stop()
        authority.issue(MINE).write(kit.folder)
        kit.step(10)
        assert kit.pair().chain == Pem(leaf.chain_pem)
        assert (kit.status.state, kit.worker.run_due()) == ("idle", None)
        kit.start()
        assert kit.pair().chain != Pem(leaf.chain_pem)

    def test_no_byte_of_a_key_is_told(self, kit, leaf):
        secret = kit.provider.secret(PAIR)
        (kit.folder / "cert.pem").write_bytes(leaf.key_pem)  # the wrong way round
        kit.step()
        body = leaf.key_pem.splitlines()[1].decode()
        assert body not in repr((secret, kit.status))


class TestWatcher:
    """The configuration of a ``file_watcher`` in the bootstrap (A29, A65)."""

    def test_it_says_files_and_how_often_they_are_looked_at(self):
        config = {
            "certificate_file": "c",
            "private_key_file": "k",
            "ca_certificate_file": "r",
            "refresh_interval": "1.5s",
        }
        assert WatchedFiles.of_bootstrap(config) == WatchedFiles("c", "k", "r", "", 1.5)
        assert WatchedFiles.of_bootstrap({"ca_certificate_file": "r"}) == WatchedFiles(ca="r", period=600.0)

    def test_a_map_of_bundles_takes_the_place_of_roots(self):
        """A87: then ca_certificate_file is ignored."""
        config = {"ca_certificate_file": "r", "spiffe_trust_bundle_map_file": "m"}
        assert WatchedFiles.of_bootstrap(config) == WatchedFiles(bundles="m", period=600.0)

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({}, "it names no file"),
            ({"certificate_file": "c"}, "certificate_file and private_key_file go together"),
            ({"private_key_file": "k", "ca_certificate_file": "r"}, "go together"),
            ({"ca_certificate_file": 1}, "ca_certificate_file must be the path of a file"),
            ({"ca_certificate_file": "a\0b"}, "ca_certificate_file must be the path of a file"),
            ({"ca_certificate_file": "r", "refresh_interval": "soon"}, "refresh_interval must be a duration"),
            ({"ca_certificate_file": "r", "refresh_interval": 600}, "refresh_interval must be a duration"),
            ({"ca_certificate_file": "r", "refresh_interval": "0s"}, "refresh_interval must be a duration"),
        ],
    )
    def test_what_is_wrong_is_told(self, config, words):
        with pytest.raises(ValueError, match=words):
            WatchedFiles.of_bootstrap(config)


def bundle_map(**bundles):
    return json.dumps({"trust_domains": bundles}).encode()


def key_of(authority, **other):
    der = base64.b64encode(authority.certificate.public_bytes(Encoding.DER)).decode()
    return {"kty": "EC", "use": "x509-svid", "x5c": [der], **other}


class TestBundles:
    """A map of SPIFFE's trust bundles (A87)."""

    def test_each_domain_has_its_roots(self, authority):
        other = Authority("Other")
        keys = [key_of(authority), key_of(other, kid="1")]
        raw = bundle_map(
            **{"example.org": {"spiffe_sequence": 1, "keys": keys}, "td": {"keys": [key_of(other)]}}
        )
        assert domains(raw) == {"example.org": Pem(authority.pem + other.pem), "td": Pem(other.pem)}

    def test_it_is_read_again_and_what_is_wrong_takes_nothing_away(self, tmp_path, authority):
        path = tmp_path / "map.json"
        path.write_bytes(bundle_map(td={"keys": [key_of(authority)]}))
        kit = Kit(tmp_path, bundles=str(path)).start()
        assert kit.roots().domains == {"td": Pem(authority.pem)}
        path.write_bytes(b"{")
        kit.step()
        assert kit.roots().domains == {"td": Pem(authority.pem)}
        assert (kit.status.state, kit.status.last_error) == ("stale", f"{path}: it is not JSON")

    def test_an_empty_one_trusts_nobody(self, tmp_path):
        """It is valid, and no connection is accepted: it must not become "no validation"."""
        (tmp_path / "map.json").write_bytes(bundle_map())
        kit = Kit(tmp_path, bundles=str(tmp_path / "map.json")).start()
        assert (
            kit.provider.secret(ROOTS).unsupported == "a map of trust bundles without any: nobody is trusted"
        )

    @pytest.mark.parametrize(
        ("raw", "words"),
        [
            (b"[" * 100_000, "it is not JSON"),
            (b"[]", "trust_domains is missing"),
            (b'{"trust_domains": []}', "trust_domains is missing"),
            (bundle_map(**{"Example.org": {"keys": []}}), "'Example.org' is no trust domain"),
            (bundle_map(**{"": {"keys": []}}), "'' is no trust domain"),
            (bundle_map(**{"a" * 256: {"keys": []}}), "is no trust domain"),
            (bundle_map(td=1), "keys of the trust domain 'td' is no list of keys"),
            (bundle_map(td={"keys": [1]}), "keys of the trust domain 'td' is no list of keys"),
            (bundle_map(td={"keys": [{"kty": "oct", "use": "x509-svid"}]}), "is not of kty"),
            (bundle_map(td={"keys": [{"kty": "EC", "use": "jwt-svid"}]}), "is not of kty"),
            (bundle_map(td={"keys": [{"kty": "EC", "use": "x509-svid"}]}), "must have one certificate"),
            (
                bundle_map(td={"keys": [{"kty": "EC", "use": "x509-svid", "x5c": ["a", "b"]}]}),
                "must have one",
            ),
            (
                bundle_map(td={"keys": [{"kty": "EC", "use": "x509-svid", "x5c": ["!"]}]}),
                "is no certificate in base64",
            ),
            (
                bundle_map(td={"keys": [{"kty": "EC", "use": "x509-svid", "x5c": ["AAAA"]}]}),
                "is no certificate",
            ),
        ],
    )
    def test_what_is_wrong_is_told_and_makes_all_of_it_wrong(self, raw, words):
        with pytest.raises(ValueError, match=words):
            domains(raw)

    def test_a_domain_without_a_root_trusts_nobody_of_it(self):
        assert domains(bundle_map(td={"keys": []})) == {"td": Pem()}


def test_a_certificate_is_called_by_its_spiffe_id_its_names_or_its_subject(authority):
    assert facts_of(authority.issue(MINE, "me.shop").chain_pem).name == MINE
    assert facts_of(authority.issue("me.shop", "http://a").chain_pem).name == "me.shop, http://a"
    assert facts_of(authority.issue(subject="me").chain_pem).name == "CN=me"


@pytest.mark.parametrize(
    ("found", "instead"),
    [(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"), (b"\x55\x1d\x13", b"\x55\x1d\x11")],
    ids=["of a version that there is not", "with two lists of names"],
)
def test_what_cryptography_has_errors_of_its_own_for_takes_nothing_away(kit, leaf, found, instead):
    """They are no ValueError, and would have ended the looks at the files."""
    good = kit.provider.secret(PAIR)
    strange = ssl.DER_cert_to_PEM_cert(leaf.der.replace(found, instead)).encode()
    replaced(kit.folder / "cert.pem", strange)
    replaced(kit.folder / "ca.pem", strange)
    kit.step()
    if b"\x07" in instead:
        assert kit.provider.secret(PAIR) is good
        assert "it is no certificate in PEM" in kit.provider.status().last_error
    else:
        assert facts_of(strange).name == "CN=leaf"
    replaced(kit.folder / "cert.pem", leaf.chain_pem)
    kit.step()
    assert kit.provider.secret(PAIR) == good
