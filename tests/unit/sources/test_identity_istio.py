"""Istio's CA as the issuer of our identity: what is asked, what is taken for an answer, when it is asked again, and what serves meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import ssl
import threading
from base64 import urlsafe_b64encode

import grpc
import pytest
from cryptography import x509

from meshlib.model.tls import SecretName
from meshlib.sources import identity_istio, stream
from meshlib.sources.identity_istio import VALIDITY, IstioProvider, _subject
from meshlib.testing.istio_ca import IstioCa
from tests.support.identity_kit import CERTIFICATE, ROOTS, Provided

LIFE = 1000.0


@pytest.fixture
def ca(tmp_path):
    with IstioCa(tmp_path, lifetime=LIFE) as running:
        yield running


def provided(running, share=0.5, **more):
    settings = {**running.settings, **more}
    return Provided(lambda worker, random: IstioProvider(worker, random, **settings), share)


def leaf(bench):
    return x509.load_pem_x509_certificate(bench.chain)


def serial(bench):
    return leaf(bench).serial_number


class TestAsking:
    def test_a_key_is_made_here_and_the_answer_serves(self, ca, tmp_path):
        with provided(ca) as bench:
            assert bench.status.state == "connecting"
            assert bench.certificate is None
            bench.in_state("ready")
            names = leaf(bench).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.UniformResourceIdentifier) == [ca.uri]
            pair = bench.certificate.certificate
            (tmp_path / "pair.pem").write_bytes(pair.key.data + pair.chain.data)
            ssl.create_default_context().load_cert_chain(tmp_path / "pair.pem")  # it is the key's
            assert bench.roots.roots.data == ca.authority.roots_pem
            assert bench.status.server == ca.address
            assert bench.status.last_error == ""
        assert bench.status.state == "idle"

    def test_what_is_said_is_what_istios_agent_says(self, ca):
        metadata = {
            "NAMESPACE": "shop",
            "SERVICE_ACCOUNT": "front",
            "CLUSTER_ID": "c1",
            "TRUST_DOMAIN": "example.org",
        }
        with provided(ca, metadata=metadata) as bench:
            bench.in_state("ready")
        (asked,) = ca.requests
        assert asked.uri == "spiffe://example.org/ns/shop/sa/front"
        assert asked.validity == VALIDITY == 86400
        assert asked.cluster == "c1"
        assert asked.admitted

    def test_who_we_are_is_what_the_token_says_where_the_node_does_not(self, ca):
        with provided(ca) as bench:
            bench.in_state("ready")
        (asked,) = ca.requests
        assert asked.uri == "spiffe://cluster.local/ns/default/sa/app"
        assert asked.cluster == ""

    @pytest.mark.parametrize(
        "token",
        ["", "opaque", "a.b.c", "a.!!.c", "é.é", f"a.{urlsafe_b64encode(b'[' * 9000).decode()}.c"]
        + [
            f"a.{urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c"
            for claims in ([], {}, {"sub": 1}, {"sub": "a:b"}, {"sub": "user:x:y:z"}, "sub", None)
        ],
    )
    def test_a_token_that_names_nobody(self, token):
        assert _subject(f"Bearer {token}") == ("default", "default")

    def test_an_intermediate_is_part_of_the_chain_and_the_root_is_not(self, tmp_path):
        with IstioCa(tmp_path, intermediate=True) as ca, provided(ca) as bench:
            bench.in_state("ready")
            assert bench.chain.count(b"BEGIN CERTIFICATE") == 2
            assert bench.roots.roots.data == ca.authority.roots_pem

    def test_nothing_of_a_key_or_token_is_told(self, ca):
        with provided(ca) as bench:
            bench.in_state("ready")
            told = repr((bench.certificate, bench.status, vars(bench.provider)))
            assert "PRIVATE" not in told
            assert ca.token not in told
            with pytest.raises(TypeError):
                pickle.dumps(bench.certificate)

    def test_no_thread_and_no_channel_stays(self, ca):
        held = threading.Event()
        ca.change(lambda chain: held.wait(10) and chain)
        with provided(ca) as bench:
            asking = bench.provider._asking
            assert asking in stream._streams.get().live  # a fork waits for it
            held.set()
            bench.in_state("ready")
            asking._thread.join(5)
            assert asking._thread in stream._streams.get().ending  # and for its thread, which ends
            assert not asking._thread.is_alive()
            assert asking not in stream._streams.get().live
            assert bench.provider._asking is None


class TestRenewal:
    @pytest.mark.parametrize(("share", "due"), [(0.0, 0.4), (0.5, 0.5), (0.999, 0.6)])
    def test_at_a_random_point_around_its_half_life(self, ca, share, due):
        with provided(ca, share) as bench:
            bench.in_state("ready")
            first = serial(bench)
            bench.step(due * LIFE - 10)
            assert len(ca.requests) == 1
            bench.step(15)
            bench.until(lambda: serial(bench) != first)
            assert len({asked.public for asked in ca.requests}) == 2  # each has a key of its own

    def test_the_old_one_serves_until_it_ends(self, ca):
        with provided(ca) as bench:
            bench.in_state("ready")
            first = bench.certificate
            ca.refuse(grpc.StatusCode.UNAVAILABLE, "later")
            bench.step(LIFE / 2 + 5)
            status = bench.in_state("stale")
            assert status.last_error == f"{ca.address}: UNAVAILABLE: later"
            assert bench.certificate is first
            bench.step(LIFE / 2)
            bench.until(lambda: isinstance(bench.certificate, str))
            assert bench.certificate == f"has expired: {ca.address}: UNAVAILABLE: later"
            assert bench.status.state == "failed"
            assert bench.roots.roots  # others are known as before
            ca.authority.ahead = LIFE  # its clock is the bench's
            ca.obey()
            bench.recovers()
            assert bench.certificate is not first

    def test_that_it_ends_is_told_when_it_does(self, ca):
        with provided(ca) as bench:
            bench.in_state("ready")
            ca.kill()
            bench.step(LIFE / 2 + 5)
            bench.in_state("stale")
            end = leaf(bench).not_valid_after_utc.timestamp()
            while isinstance(bench.certificate, str) is False:
                told = bench.told
                bench.step(min(1.0, max(0.01, end - bench.clock.wall())))
            assert bench.clock.wall() - end < 0.5
            assert bench.told > told

    def test_pauses_grow_and_shrink_with_what_is_left(self, ca):
        """So that a certificate of seconds is tried for in time, and a CA that is away is not stormed."""
        with provided(ca) as bench:
            bench.in_state("ready")
            ca.refuse(grpc.StatusCode.UNAVAILABLE)
            asked = []
            bench.step(LIFE / 2)
            for _ in range(8):
                bench.until(lambda: bench.provider._asking is None)
                count = len(ca.requests)
                while len(ca.requests) == count:
                    bench.step(0.5)
                    if bench.provider._asking is not None:
                        bench.until(lambda: bench.provider._asking is None)
                asked.append(bench.clock.now())
            gaps = [later - sooner for sooner, later in itertools.pairwise(asked)]
            assert gaps == sorted(gaps)
            assert gaps[0] < 4
            assert 20 <= gaps[-1] <= 31

    def test_the_last_seconds_of_a_certificate_are_used(self, ca):
        with provided(ca) as bench:
            bench.in_state("ready")
            end = leaf(bench).not_valid_after_utc.timestamp()
            ca.refuse(grpc.StatusCode.UNAVAILABLE)
            asked = []
            while bench.clock.wall() < end - 1:
                bench.step(0.5)
                if bench.provider._asking is not None:
                    asked.append(bench.clock.wall())
                    bench.until(lambda: bench.provider._asking is None)
            assert sum(end - 30 < when for when in asked) >= 5

    def test_a_clock_that_jumped_is_noticed_within_seconds(self, ca):
        with provided(ca) as bench:
            bench.in_state("ready")
            first = serial(bench)
            ahead = LIFE * 0.7
            bench.clock.wall = lambda: bench.clock.now() + ahead
            bench.step(identity_istio.TIMEOUT)
            bench.until(lambda: serial(bench) != first)

    def test_it_goes_on_after_it_was_stopped(self, ca):
        bench = provided(ca)
        with bench:
            bench.in_state("ready")
            held = bench.certificate
        assert bench.certificate is held  # what was had stays
        with bench:
            bench.in_state("ready")
            bench.step(1)
            assert len(ca.requests) == 1
            bench.step(LIFE)
            bench.until(lambda: bench.certificate is not held)

    def test_stopped_in_the_midst_of_asking(self, ca):
        bench = provided(ca)
        with bench:
            asking = bench.provider._asking
        asking._thread.join(10)
        assert not asking._thread.is_alive()
        bench.step(1)
        assert (bench.status.state, bench.status.last_error) == ("idle", "")

    def test_where_nothing_can_be_asked_for_that_is_said_at_once_and_what_is_held_serves(
        self, ca, monkeypatch
    ):
        bench = provided(ca)
        with monkeypatch.context() as patched:
            patched.setattr(identity_istio, "refusal", lambda: "not in this process")
            with bench:
                assert bench.certificate == "cannot be had: not in this process"
                assert bench.status.last_error == "not in this process"
                assert bench.roots  # of the file
        with bench:
            bench.recovers()
            held = bench.certificate
        monkeypatch.setattr(identity_istio, "refusal", lambda: "not in this process")
        with bench:
            bench.step(LIFE * 0.7)
            assert bench.in_state("stale").last_error == "not in this process"
            assert bench.certificate is held


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda chain: [], "its chain has 0 certificates, and not a leaf and a root"),
            (lambda chain: chain[-1:], "its chain has 1 certificates, and not a leaf and a root"),
            (lambda chain: ["x", *chain[1:]], "it is no certificate in PEM"),
            (lambda chain: ["", *chain[1:]], "it is no certificate in PEM"),
            (lambda chain: [*chain[:-1], "x"], "it is no certificate in PEM"),
            (lambda chain: [*chain[:-1], chain[-1].replace("MII", "XII", 1)], "it is no certificate in PEM"),
            (lambda chain: [chain[1], chain[1]], "the certificate is not of the key that it came with"),
        ],
        ids=["empty", "root-alone", "leaf", "no-leaf", "root", "broken-root", "another-key"],
    )
    def test_an_answer_that_cannot_be_used(self, ca, change, words):
        with provided(ca) as bench:
            bench.in_state("ready")
            first, roots = bench.certificate, bench.roots
            ca.change(change)
            bench.step(LIFE / 2 + 5)
            status = bench.in_state("stale")
            assert status.last_error.startswith(f"the answer of {ca.address} cannot be used: {words}")
            assert bench.certificate is first
            assert bench.roots is roots
            ca.obey()
            bench.recovers()
            assert bench.certificate is not first

    def test_one_that_has_expired(self, ca):
        ca.lifetime = -10.0
        with provided(ca) as bench:
            status = bench.in_state("failed")
            assert "cannot be used: the certificate has expired at 20" in status.last_error
            assert bench.certificate is None

    def test_one_that_is_too_large(self, ca):
        ca.change(lambda chain: [chain[0] * 2000, *chain[1:]])
        with provided(ca) as bench:
            assert "RESOURCE_EXHAUSTED" in bench.in_state("failed").last_error

    def test_a_token_is_read_at_each_use(self, ca):
        token = ca.token
        ca.new_token()
        good = ca.token_file.read_bytes()
        ca.token_file.write_text(token)
        with provided(ca) as bench:
            status = bench.in_state("failed")
            assert status.last_error == f"{ca.address}: UNAUTHENTICATED: request authenticate failure"
            ca.token_file.write_bytes(good)
            bench.recovers()

    @pytest.mark.parametrize(
        ("content", "words"),
        [(None, "cannot be read: No such file"), (b"", "holds no token"), (b"\xff", "holds")],
    )
    def test_a_token_that_is_none_is_never_sent(self, ca, content, words):
        if content is None:
            ca.token_file.unlink()
        else:
            ca.token_file.write_bytes(content)
        with provided(ca) as bench:
            assert words in bench.in_state("failed").last_error
        assert ca.requests == ()

    def test_no_token_goes_to_a_server_that_the_roots_do_not_name(self, ca, tmp_path):
        (tmp_path / "other").mkdir()
        with IstioCa(tmp_path / "other") as other, provided(ca, server=other.address) as bench:
            assert "UNAVAILABLE" in bench.in_state("failed").last_error
            assert other.requests == ()

    def test_roots_that_are_not_there(self, ca, tmp_path):
        with provided(ca, ca=str(tmp_path / "none.pem")) as bench:
            assert "none.pem" in bench.in_state("failed").last_error

    def test_a_server_that_is_away_and_comes_back(self, ca):
        ca.kill()
        with provided(ca) as bench:
            bench.in_state("failed")
            ca.start()
            bench.recovers()

    def test_one_that_does_not_answer_in_time(self, ca, monkeypatch):
        monkeypatch.setattr(identity_istio, "TIMEOUT", 0.2)
        held = threading.Event()
        ca.change(lambda chain: held.wait(10) and chain)
        with provided(ca) as bench:
            assert "DEADLINE_EXCEEDED" in bench.in_state("failed").last_error
            held.set()


class TestRoots:
    def test_those_of_the_file_are_trusted_before_our_next_certificate(self, ca):
        with provided(ca) as bench:
            bench.in_state("ready")
            before, told = bench.roots, bench.told
            ca.rotate(drop=True)
            bench.step(6)
            assert bench.roots is not before
            assert ca.authority.roots_pem in bench.roots.roots.data
            assert bench.roots.roots.data.endswith(before.roots.data)  # whoever still has one of those
            assert bench.told == told + 1
            first = serial(bench)
            bench.step(LIFE / 2)
            bench.until(lambda: serial(bench) != first)
            assert bench.roots.roots.data == ca.authority.roots_pem

    def test_each_is_there_once(self, ca):
        ca.rotate()
        with provided(ca) as bench:
            bench.in_state("ready")
            assert bench.roots.roots.data == ca.authority.roots_pem
            assert bench.roots.roots.data.count(b"BEGIN") == 2
            ca.drop_old_roots()
            bench.step(6)
            assert bench.roots.roots.data.count(b"BEGIN") == 2  # that of the answer stays until the next

    def test_the_same_file_again_is_no_change(self, ca):
        with provided(ca) as bench:
            bench.in_state("ready")
            before, told = bench.roots, bench.told
            ca.roots_file.write_bytes(ca.roots_file.read_bytes())
            bench.step(11)
            assert bench.roots is before
            assert bench.told == told

    @pytest.mark.parametrize("content", [None, b"", b"rubbish"])
    def test_a_broken_file_takes_nothing_away(self, ca, content):
        with provided(ca) as bench:
            bench.in_state("ready")
            before = bench.roots
            ca.roots_file.unlink()
            if content is not None:
                ca.roots_file.write_bytes(content)
            bench.step(11)
            assert bench.roots is before

    def test_a_pipe_is_no_file_and_nobody_waits_for_it(self, ca):
        with provided(ca) as bench:
            bench.in_state("ready")
            before = bench.roots
            ca.roots_file.unlink()
            os.mkfifo(ca.roots_file)
            bench.step(11)
            assert bench.roots is before

    def test_a_name_of_a_provider_instance_is_answered_by_its_kind(self, ca):
        with provided(ca) as bench:
            bench.in_state("ready")
            for name in (CERTIFICATE, ROOTS):
                found = bench.provider.secret(SecretName("anything", name.kind))
                assert found is bench.provider.secret(name)
