"""SPIFFE's Workload API as the issuer of our identity: what is read, what is refused, what serves meanwhile, and what is withdrawn."""

from __future__ import annotations

import ssl
import threading

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from meshlib.model.tls import SecretKind, SecretName
from meshlib.sources import stream
from meshlib.sources.identity_issued import Unusable, of_der
from meshlib.sources.identity_spiffe import SpiffeProvider, target
from meshlib.testing import Authority
from meshlib.testing.workload_api import WorkloadApi
from tests.support.identity_kit import ROOTS, Provided

LIFE = 1000.0


@pytest.fixture
def api(tmp_path):
    with WorkloadApi(tmp_path / "api.sock", lifetime=LIFE) as running:
        yield running


def provided(api):
    return Provided(lambda worker, random: SpiffeProvider(worker, random, socket=api.socket))


def leaf(bench):
    return x509.load_pem_x509_certificate(bench.chain)


def changed(api, change):
    made = api.message()
    change(made)
    api.send(made.SerializeToString())


class TestSocket:
    @pytest.mark.parametrize(
        ("socket", "grpcs"),
        [
            ("unix:/run/spire/agent.sock", "unix:/run/spire/agent.sock"),
            ("unix:///run/spire/agent.sock", "unix:/run/spire/agent.sock"),
            ("tcp://127.0.0.1:8000", "ipv4:127.0.0.1:8000"),
            ("tcp://[::1]:8000", "ipv6:[::1]:8000"),
            ("127.0.0.1:8000", "ipv4:127.0.0.1:8000"),
            ("[::1]:8000", "ipv6:[::1]:8000"),
        ],
    )
    def test_as_the_specification_has_it(self, socket, grpcs):
        assert target(socket) == grpcs

    @pytest.mark.parametrize(
        "socket",
        [
            "",
            "/run/agent.sock",
            "unix:",
            "unix:agent.sock",
            "unix://host/path",
            "unix:///a?b=c",
            "unix:///a#b",
            "tcp://localhost:80",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:0",
            "tcp://127.0.0.1:99999",
            "tcp://127.0.0.1:x",
            "tcp://127.0.0.1:80/path",
            "tcp://me@127.0.0.1:80",
            "http://127.0.0.1:80",
        ],
    )
    def test_what_is_none(self, socket):
        with pytest.raises(ValueError, match=r".+"):
            target(socket)

    def test_a_port_of_loopback(self):
        with WorkloadApi() as api, provided(api) as bench:
            bench.in_state("ready")
            assert api.socket.startswith("tcp://127.0.0.1:")


class TestReading:
    def test_the_identity_and_the_bundle_of_its_domain(self, api, tmp_path):
        with provided(api) as bench:
            assert bench.status.state == "connecting"
            bench.in_state("ready")
            pair = bench.certificate.certificate
            (tmp_path / "pair.pem").write_bytes(pair.key.data + pair.chain.data)
            ssl.create_default_context().load_cert_chain(tmp_path / "pair.pem")
            assert {name: roots.data for name, roots in bench.roots.domains.items()} == {
                "example.org": api.authority.roots_pem
            }
            assert bench.status.server == api.socket
            assert "PRIVATE" not in repr((bench.certificate, vars(bench.provider)))

    def test_what_changes_comes_by_the_open_stream(self, api):
        with provided(api) as bench:
            bench.in_state("ready")
            first, told = leaf(bench).serial_number, bench.told
            api.renew()
            bench.until(lambda: leaf(bench).serial_number != first)
            assert bench.told == told + 1
            api.rotate()
            bench.until(lambda: bench.roots.domains["example.org"].data == api.authority.roots_pem)
            assert api.opened == 1

    def test_bundles_of_several_domains(self, api):
        others = Authority("one.org"), Authority("two.org")
        with provided(api) as bench:
            bench.in_state("ready")
            certificate = bench.certificate
            api.federate(*others)
            bench.until(lambda: len(bench.roots.domains) == 3)
            assert bench.roots.domains["two.org"].data == others[1].roots_pem
            assert bench.certificate is not certificate
            api.federate(others[0])
            bench.until(lambda: sorted(bench.roots.domains) == ["example.org", "one.org"])

    def test_the_same_again_stays_the_same_object(self, api):
        with provided(api) as bench:
            bench.in_state("ready")
            before, told = (bench.certificate, bench.roots), bench.told
            api.send(api._answer)
            bench.until(lambda: bench.told > told)
            assert bench.certificate is before[0]
            assert bench.provider.secret(SecretName("ROOTCA", SecretKind.CA)).validation is before[1]

    def test_identities_and_bundles_by_their_ids(self, tmp_path):
        ids = "spiffe://example.org/app", "spiffe://example.org/batch"
        with WorkloadApi(tmp_path / "api.sock", *ids) as api, provided(api) as bench:
            secret = bench.provider.secret
            assert secret(SecretName(ids[1], SecretKind.CERTIFICATE)) is None
            bench.in_state("ready")
            chains = [secret(SecretName(each, SecretKind.CERTIFICATE)).certificate.chain.data for each in ids]
            assert bench.chain == chains[0] != chains[1]
            bundle = secret(SecretName("spiffe://example.org", SecretKind.CA)).validation.roots.data
            assert bundle == api.authority.roots_pem
            words = f"is not among those of the Workload API at {api.socket}"
            assert secret(SecretName("spiffe://example.org/none", SecretKind.CERTIFICATE)) == words
            assert secret(SecretName(ids[0], SecretKind.CA)) == words

    def test_no_thread_stays(self, api):
        before = set(threading.enumerate())  # those of other tests may be about to end
        with provided(api) as bench:
            bench.in_state("ready")
            opened = bench.provider._stream
            assert opened in stream._streams.get().live  # a fork waits for it
        opened._thread.join(5)
        assert opened not in stream._streams.get().live
        assert "meshlib-xds" not in [each.name for each in set(threading.enumerate()) - before]


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda made: made.ClearField("svids"), "there is no identity in it"),
            (lambda made: made.svids[0].ClearField("x509_svid"), "there is no certificate in it"),
            (lambda made: made.svids[0].ClearField("x509_svid_key"), "its key cannot be read"),
            (lambda made: made.svids[0].ClearField("bundle"), "the bundle of example.org is empty"),
            (lambda made: setattr(made.svids[0], "x509_svid", b"x"), "it is no certificate in DER"),
            (
                lambda made: setattr(made.svids[0], "x509_svid", made.svids[0].x509_svid[:-1]),
                "it is no certificate in DER: it is cut off",
            ),
            (lambda made: setattr(made.svids[0], "bundle", b"0\x01x"), "the bundle of example.org: it is no"),
            (
                lambda made: setattr(made.svids[0], "spiffe_id", "spiffe://example.org/other"),
                "the certificate is of spiffe://example.org/app",
            ),
            (
                lambda made: setattr(made.svids[0], "x509_svid", made.svids[0].bundle),
                "the certificate is not of the key that it came with",
            ),
            (
                lambda made: made.federated_bundles.update({"spiffe://b.org": b"1"}),
                "the bundle of b.org: it is",
            ),
            (
                lambda made: made.federated_bundles.update({f"spiffe://{i}.org": b"" for i in range(1000)}),
                "it has more than 1000 identities and bundles",
            ),
        ],
    )
    def test_an_answer_that_cannot_be_used(self, api, change, words):
        with provided(api) as bench:
            bench.in_state("ready")
            certificate, roots = bench.certificate, bench.roots
            changed(api, change)
            status = bench.in_state("stale")
            assert status.last_error.startswith(f"the answer of {api.socket} cannot be used: ")
            assert words in status.last_error
            assert (bench.certificate, bench.roots) == (certificate, roots)
            api.renew()
            bench.in_state("ready")
            assert bench.certificate is not certificate
            assert api.opened == 1

    def test_bytes_that_are_no_message(self, api):
        api.send(b"\xff\xff")
        with provided(api) as bench:
            assert "it is no X509SVIDResponse" in bench.in_state("failed").last_error
            api.renew()
            bench.in_state("ready")

    def test_one_that_has_expired(self, api):
        with provided(api) as bench:
            bench.in_state("ready")
            first = bench.certificate
            api.lifetime = -1.0
            api.renew()
            assert "the certificate has expired" in bench.in_state("stale").last_error
            assert bench.certificate is first

    def test_one_that_is_too_large(self, api):
        api.send(b"x" * 2_000_000)
        with provided(api) as bench:
            assert "RESOURCE_EXHAUSTED" in bench.in_state("failed").last_error

    @pytest.mark.parametrize(
        "data",
        [b"\x30", b"\x30\x80", b"\x30\x85\1\1\1\1\1", b"\x30\x84\xff\xff\xff\xff", b"1\x01x", b"\x30\x01"],
    )
    def test_lengths_that_lie(self, data):
        with pytest.raises(Unusable, match="it is no certificate in DER"):
            of_der(data)


class TestOutages:
    def test_what_was_had_serves_and_the_stream_is_opened_again(self, api):
        with provided(api) as bench:
            bench.in_state("ready")
            certificate = bench.certificate
            api.drop()
            assert bench.in_state("stale").last_error == f"{api.socket}: UNAVAILABLE: dropped"
            assert bench.certificate is certificate
            bench.recovers()
            assert api.opened == 2

    def test_an_agent_that_is_restarted_with_another_root(self, api):
        with provided(api) as bench:
            bench.in_state("ready")
            api.kill()
            bench.in_state("stale")
            api.rotate(drop=True)
            bench.step(3)
            api.start()
            bench.recovers()
            assert bench.roots.domains["example.org"].data == api.authority.roots_pem

    def test_one_that_is_not_there_yet(self, api):
        api.kill()
        with provided(api) as bench:
            bench.in_state("failed")
            assert bench.certificate is None
            api.start()
            bench.recovers()

    def test_no_identity_is_told_in_words_and_may_still_come(self, api):
        api.deny()
        with provided(api) as bench:
            status = bench.in_state("failed")
            assert status.last_error == (
                f"{api.socket}: the Workload API has no identity for this process (PERMISSION_DENIED: no identity issued)"
            )
            assert bench.certificate is None
            api.renew()
            bench.recovers()

    def test_an_identity_that_is_withdrawn_is_not_used_any_more(self, api):
        with provided(api) as bench:
            bench.in_state("ready")
            api.deny("entry deleted")
            bench.in_state("failed")
            words = "was withdrawn: the Workload API has no identity for this process (PERMISSION_DENIED: entry deleted)"
            assert bench.certificate == words
            assert bench.provider.secret(SecretName("ROOTCA", SecretKind.CA)) == words
            assert (
                bench.provider.secret(SecretName("spiffe://example.org/app", SecretKind.CERTIFICATE)) == words
            )
            api.renew()
            bench.recovers()

    def test_another_identity_in_its_place(self, api):
        with provided(api) as bench:
            bench.in_state("ready")
            api.renew("spiffe://example.org/other")
            bench.until(lambda: b"CERT" in bench.chain and bench.provider.held.uris[0].endswith("/other"))
            gone = bench.provider.secret(SecretName("spiffe://example.org/app", SecretKind.CERTIFICATE))
            assert gone.startswith("is not among")

    def test_one_that_is_never_renewed_ends(self, api):
        with provided(api) as bench:
            bench.in_state("ready")
            bench.step(LIFE + 1)
            assert bench.certificate == "has expired"
            assert bench.status.state == "failed"
            assert bench.status.last_error == "the certificate has expired"
            assert api.opened == 1  # the stream is there, and the agent's turn
            api.authority.ahead = LIFE
            api.renew()
            bench.in_state("ready")

    def test_roots_of_one_that_has_ended_are_withdrawn_with_it(self, api):
        with provided(api) as bench:
            bench.in_state("ready")
            bench.step(LIFE + 1)
            assert bench.roots
            api.deny()
            bench.until(lambda: isinstance(bench.provider.secret(ROOTS), str))

    def test_an_identity_by_its_id_ends_too(self, api):
        name = SecretName("spiffe://example.org/app", SecretKind.CERTIFICATE)
        with provided(api) as bench:
            bench.in_state("ready")
            bench.step(LIFE + 1)
            assert bench.provider.secret(name) == "has expired"

    def test_that_one_which_is_not_the_first_ends_before_it_is_told(self, api):
        name = SecretName("spiffe://example.org/other", SecretKind.CERTIFICATE)
        with provided(api) as bench:
            bench.in_state("ready")
            pair = api.authority.issue(name.name, lifetime=LIFE / 2)
            chain = pair.chain[0].public_bytes(Encoding.DER)
            key = pair.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            changed(
                api,
                lambda made: made.svids.add(
                    spiffe_id=name.name, x509_svid=chain, x509_svid_key=key, bundle=made.svids[0].bundle
                ),
            )
            bench.until(lambda: not isinstance(bench.provider.secret(name), str))
            told = bench.told
            bench.step(LIFE / 2 - 10)
            assert bench.told == told
            bench.step(20)
            assert bench.told == told + 1
            assert bench.provider.secret(name) == "has expired"
            assert bench.status.state == "ready"

    def test_it_goes_on_after_it_was_stopped(self, api):
        bench = provided(api)
        with bench:
            bench.in_state("ready")
            held = bench.certificate
        assert bench.certificate is held
        assert bench.status.state == "idle"
        api.wait_for(lambda: api.streams == 0)
        with bench:
            bench.in_state("ready")
            api.wait_for(lambda: api.streams == 1)

    def test_without_the_header_there_is_no_answer(self, api):
        """Of the stand-in: it is as strict as SPIRE's agent."""
        with grpc.insecure_channel(f"unix:{api._path}") as channel:
            call = channel.unary_stream("/SpiffeWorkloadAPI/FetchX509SVID")(b"")
            with pytest.raises(grpc.RpcError) as refused:
                next(call)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
