"""The names of a connection, and who looks after its context."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

from meshlib.hosts.tls import Names, asked_of, host_of, is_rotated, mesh_context, names_of
from meshlib.model.call import Head
from meshlib.model.cluster import Cluster
from meshlib.model.headers import Headers
from meshlib.model.tls import Pem, SecretFrom, SecretKind, SecretName, Tls, Validation
from meshlib.runtime.worker import Worker
from meshlib.testing.clock import VirtualClock
from meshlib.wire.errors import TlsUnusable
from meshlib.wire.stream_tls import Handshakes
from tests.support.certificates import Authority, replaced
from tests.support.mesh_tls import demanded

CA = Authority("Mesh")


class Named:
    """An upstream, of which nothing else is asked."""

    def __init__(self, name):
        self.cluster = Cluster(name)


upstream = Named
UPSTREAM = upstream("c")


def asked(tls, cluster=None, *, endpoint="", authority="url.example:80", host="", **headers):
    lines = Headers.of(*((name.replace("_", "-"), value) for name, value in headers.items()))
    head = Head("GET", "http", authority, "/", lines)
    attempt = SimpleNamespace(
        endpoint=SimpleNamespace(hostname=endpoint),
        head=head,
        upstream=SimpleNamespace(cluster=cluster or Cluster("c")),
    )
    # What is asked for follows from what is remembered of the request.
    found, key = names_of(tls, attempt, host), asked_of(tls, attempt, host)
    assert KNOWN.setdefault((tls, attempt.upstream.cluster, endpoint, key), found) == found
    return found


KNOWN = {}


@pytest.mark.parametrize(
    ("fields", "endpoint", "sni"),
    [
        ({}, "", "url.example"),
        ({}, "own.example", "own.example"),
        ({}, "own.example:80", "own.example"),
        ({"sni": "mesh.example"}, "own.example", "mesh.example"),
        ({"sni": "mesh.example", "auto_host_sni": True}, "own.example", "own.example"),
        ({"sni": "mesh.example", "auto_host_sni": True}, "", "mesh.example"),
    ],
)
def test_the_name_that_is_asked_for(fields, endpoint, sni):  # TL-05
    assert asked(Tls(**fields), endpoint=endpoint) == Names(sni)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("a.example", "a.example"),
        ("a.example:80", "a.example"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("a.example.", "a.example"),
        ("a.example.:80", "a.example"),
        ("", ""),
    ],
)
def test_the_host_of_an_authority(authority, host):
    assert host_of(authority) == host


def test_the_host_of_an_https_url_goes_before_the_requests():
    assert asked(Tls(), host="https.example") == Names("https.example")


@pytest.mark.parametrize(
    ("cluster", "request_", "names"),
    [
        ({"auto_sni": True}, {}, ("url.example", ())),
        ({"auto_sni": True, "auto_san": True}, {}, ("url.example", ("url.example",))),
        ({"auto_san": True}, {}, ("mesh.example", ("url.example",))),
        (
            {"auto_sni": True},
            {"authority": "10.0.0.1:80"},
            ("mesh.example", ()),
        ),  # nobody asks for an address
        ({"auto_sni": True, "auto_san": True}, {"authority": "[::1]:80"}, ("mesh.example", ("::1",))),
        (
            {"auto_sni": True, "auto_sni_header": "x-name"},
            {"x_name": "header.example:1"},
            ("header.example", ()),
        ),
        ({"auto_sni": True, "auto_sni_header": "x-name"}, {"x_name": ""}, ("url.example", ())),
        ({"auto_sni": True, "auto_sni_header": "x-name"}, {}, ("url.example", ())),
    ],
)
def test_a_cluster_may_take_it_from_the_request(cluster, request_, names):
    tls = Tls(sni="mesh.example", auto_host_sni=True)
    assert asked(tls, Cluster("c", **cluster), **request_) == Names(*names)


def files(folder):
    (folder / "ca.pem").write_bytes(CA.pem)
    CA.issue("me").write(folder)
    return demanded(f"{folder}/ca.pem", chain=f"{folder}/cert.pem", key=f"{folder}/key.pem")


def test_files_are_looked_at_every_five_seconds_while_they_are_used(tmp_path):
    clock = VirtualClock()
    worker = Worker(clock)
    made = mesh_context(worker, UPSTREAM, files(tmp_path))
    assert mesh_context(worker, UPSTREAM, made[0].tls) == made
    user = Handshakes.of(made[0], ["http/1.1"])
    worker.run_due()
    CA.issue("renewed").write(tmp_path)
    assert not is_rotated(made)
    clock.advance(4.9)
    worker.run_due()
    assert not is_rotated(made)
    clock.advance(0.2)
    worker.run_due()
    assert is_rotated(made)
    # By one timer, whoever asked for it how often, and by none once nobody uses it.
    assert worker.run_due() == pytest.approx(5.0, abs=0.2)
    del user
    clock.advance(5.1)
    assert worker.run_due() is None
    again = mesh_context(worker, UPSTREAM, made[0].tls)
    assert again == (made[0], 1)
    assert worker.run_due() == pytest.approx(5.0)


def test_what_has_no_files_is_looked_at_by_nobody():
    worker = Worker(VirtualClock())
    mesh_context(worker, UPSTREAM, demanded(CA.pem))
    assert worker.run_due() is None


def test_a_pair_that_is_torn_is_tried_again_by_the_worker(tmp_path, caplog):
    clock = VirtualClock()
    worker = Worker(clock)
    made = mesh_context(worker, UPSTREAM, files(tmp_path))
    user = Handshakes.of(made[0], [])
    fresh = CA.issue("renewed")
    replaced(tmp_path / "cert.pem", fresh.chain_pem)
    with caplog.at_level(logging.WARNING, "meshlib"):
        for _ in range(3):
            clock.advance(5.1)
            worker.run_due()
    assert (made[0].epoch, len(caplog.records)) == (0, 1)
    replaced(tmp_path / "key.pem", fresh.key_pem)
    clock.advance(5.1)
    worker.run_due()
    assert made[0].epoch == 1
    del user


def test_tls_that_cannot_be_had_names_its_cluster():
    with pytest.raises(TlsUnusable, match="cluster 'shop': TLS: the roots '/nowhere' cannot be read"):
        mesh_context(Worker(VirtualClock()), upstream("shop"), demanded("/nowhere"))


def test_the_last_material_that_was_good_stays_in_use(caplog):  # SD-03
    worker, shop, other = Worker(VirtualClock()), upstream("shop"), upstream("shop")
    one, two = CA.issue("one"), CA.issue("two")

    def rotated(chain, key):
        return demanded(CA.pem, chain=chain.chain_pem, key=key.key_pem, sni="a")

    good, torn, better = rotated(one, one), rotated(two, one), rotated(two, two)
    made = mesh_context(worker, shop, good)
    with caplog.at_level(logging.WARNING, "meshlib"):
        for _ in range(2):
            assert mesh_context(worker, shop, torn) == made
    (record,) = caplog.records
    assert (
        "cluster 'shop': its TLS changed and cannot be used; what was there before stays"
        in record.getMessage()
    )
    assert "no pair of certificate and key: KEY_VALUES_MISMATCH" in record.getMessage()
    newest = mesh_context(worker, shop, better)
    assert newest[0].tls.certificate is better.certificate
    assert mesh_context(worker, shop, torn) == newest
    # Of this cluster, and for the same demand, alone: a name of another mesh's is another cluster.
    for of, tls in ((other, torn), (shop, replace(torn, sni="b"))):
        with pytest.raises(TlsUnusable, match="no pair"):
            mesh_context(worker, of, tls)


def test_a_demand_whose_secret_is_to_come_is_met_by_nothing_of_before():
    """A call that chose its endpoint comes here after the demand changed."""
    worker, shop = Worker(VirtualClock()), upstream("shop")
    for before in (Tls(), demanded(CA.pem)):
        mesh_context(worker, shop, before)
        waiting = replace(before, roots=SecretName("ROOTCA", SecretKind.CA, SecretFrom.IDENTITY))
        with pytest.raises(TlsUnusable, match="cluster 'shop': secret 'ROOTCA' has not come yet"):
            mesh_context(worker, shop, waiting)


@pytest.mark.parametrize(
    ("validation", "warned"),
    [
        (None, True),
        (Validation(), True),
        (Validation(roots=Pem(CA.pem), untrusted=True), True),
        (Validation(hashes=(b"x" * 32,)), False),
        (Validation(roots=Pem(CA.pem)), False),
        (Validation(system=True), False),
    ],
)
def test_who_verifies_nobody_is_told_once(validation, warned, caplog):
    name = f"of {validation}"
    tls = Tls(validation=validation)
    worker = Worker(VirtualClock())
    with caplog.at_level(logging.WARNING, "meshlib"):
        for again in (tls, tls, replace(tls, sni="another")):
            mesh_context(worker, upstream(name), again)
    assert [repr(name) in record.getMessage() for record in caplog.records] == [True] * warned
