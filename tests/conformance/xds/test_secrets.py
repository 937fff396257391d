"""Secrets over the stream of everything else: who is asked for, and what becomes of a good one, a bad one and none (SD)."""

from __future__ import annotations

import pytest

from meshlib.testing import build
from meshlib.xds import schema
from tests.conformance.support.ads import Control

TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
CERTIFICATE, KEY, OTHER = (
    f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"
    for label, body in (("CERTIFICATE", "MAA="), ("PRIVATE KEY", "MAA="), ("PRIVATE KEY", "MAMCAQU="))
)


def of(name, **source):
    return {"name": name, "sds_config": source or {"ads": {}}}


def demanding(name, *certificates, **common):
    """A cluster that demands TLS with these certificates."""
    if certificates:
        common["tls_certificate_sds_secret_configs"] = list(certificates)
    socket = {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": common})}
    return build.cluster(name, transport_socket=socket)


def pair(name, key=KEY):
    return build.secret(name, certificate=CERTIFICATE, key=key)


@pytest.fixture
def plane(protocol):
    made = Control(protocol, "a", view="auto")
    made.connect()
    made.serve("a")
    made.asked()
    return made


def lacking(plane, name="c-a"):
    return plane.part.clusters[name].tls.lacking


def waits(plane, name="c-a"):
    """Whether calls to the cluster wait."""
    return plane.part.lacking.get(name) == ""


def shown(plane, name="c-a"):
    """The key that is shown to the cluster."""
    tls = plane.part.clusters[name].tls
    return tls.certificate.key.data.decode() if not tls.closed else tls.closed


def held(plane, name="s"):
    """The key of a secret that is in force; None: there is none."""
    [source] = plane.bench.merge.sources
    value = source._session.cache.value("secret", name)
    return value and value.certificate.key.data.decode()


class TestNames:
    def test_each_place_that_names_one(self, plane):
        """SD-01: certificates, a CA, and a CA beside other rules; over `ads` and `self`, on the same stream."""
        combined = {
            "default_validation_context": {},
            "validation_context_sds_secret_config": of("roots", self={}),
        }
        plane.send("cluster", demanding("c-a", of("one"), combined_validation_context=combined))
        asked = plane.asked()
        assert {each.kind for each in asked if each.type == "cluster"} == {"ack"}
        [secrets] = [each for each in asked if each.type == "secret"]
        assert (secrets.kind, sorted(secrets.names)) == ("names", ["one", "roots"])
        plane.send("cluster", demanding("c-a", validation_context_sds_secret_config=of("roots")))
        [secrets] = plane.asked("secret")
        if plane.protocol == "delta":
            assert (secrets.names, secrets.less) == ((), ("one",))
        else:
            assert secrets.names == ("roots",)
        plane.send("cluster", build.cluster("c-a"))
        [secrets] = plane.asked("secret")
        assert (secrets.names, secrets.less) == ((), ("roots",) if plane.protocol == "delta" else ())

    @pytest.mark.parametrize(
        "config", [{"name": "s"}, of("s", path_config_source={"path": "/"})], ids=["static", "a file"]
    )
    def test_what_comes_from_elsewhere(self, plane, config):
        """SD-01, SD-02: nobody is asked for it, it is reported, and the cluster is closed."""
        plane.send("cluster", demanding("c-a", config))
        assert plane.asked("secret") == []
        assert plane.part.clusters["c-a"].tls.unsupported
        assert any(each.field.endswith("sds_secret_configs[0]") for each in plane.status.ignored)

    @pytest.mark.parametrize("name", ["default", "s"])
    def test_what_an_agent_has_is_of_the_identity(self, plane, name):
        """SD-01: Istio's agent beside an Envoy; the control plane is not asked."""
        agent = {"api_type": "GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]}
        plane.send("cluster", demanding("c-a", of(name, api_config_source=agent)))
        assert plane.asked("secret") == []
        assert plane.part.identified == {"c-a"}
        assert plane.part.clusters["c-a"].tls.closed == f"secret {name!r} has not come yet"

    def test_a_new_stream_asks_again(self, plane):
        """SD-01, ST-07: what is held is told in delta."""
        plane.send("cluster", demanding("c-a", of("s")))
        plane.send("secret", pair("s"))
        plane.end("gone")
        plane.advance(2.0)
        [again] = [each for each in plane.connect() if each.type == "secret"]
        assert again.names == ("s",)
        assert held(plane) == KEY
        assert again.versions == ((("s", "6"),) if plane.protocol == "delta" else ())


class TestAnswers:
    def test_each_name_has_its_verdict(self, plane):
        """SD-01, ER-01: what is good of a response is in force, beside what is refused by its name."""
        plane.send("cluster", demanding("c-a", of("s"), validation_context_sds_secret_config=of("t")))
        plane.asked()
        nonce = plane.send("secret", pair("s"), build.secret("t", ca="no PEM"))
        [asked] = plane.asked("secret")
        assert (asked.kind, asked.nonce) == ("nack", nonce)
        assert asked.error.startswith("secret 't': validation_context.")
        assert held(plane) == KEY
        assert lacking(plane).startswith("secret 't' was refused: ")
        [rejected] = plane.status.rejected
        assert (rejected.type, rejected.resource) == ("secret", "t")
        plane.send("secret", pair("s"), build.secret("t", ca=CERTIFICATE))
        assert plane.asked("secret")[0].kind == "ack"
        assert (shown(plane), plane.status.rejected) == (KEY, ())

    def test_a_new_one_takes_the_place_of_the_old(self, plane):
        """SD-03."""
        plane.send("cluster", demanding("c-a", of("s")))
        plane.send("secret", pair("s"))
        plane.send("secret", pair("s", OTHER))
        assert held(plane) == shown(plane) == OTHER
        assert {each.kind for each in plane.asked("secret")} == {"names", "ack"}

    @pytest.mark.parametrize(
        "bad",
        [
            build.secret("s"),
            build.secret("s", certificate=CERTIFICATE),
            build.secret("s", certificate=CERTIFICATE, key="no PEM"),
            build.secret("s", certificate=CERTIFICATE.replace("MAA=", "*"), key=KEY),
            build.secret("s", ca="no PEM"),
            schema.message("google.protobuf.Any")(type_url=schema.SECRET, value=b"\x0a\x01s\xff"),
        ],
        ids=["empty", "no key", "no PEM", "no base64", "no CA", "no secret"],
    )
    def test_a_bad_one_leaves_the_old(self, plane, bad):
        """SD-03, ER-02."""
        plane.send("cluster", demanding("c-a", of("s")))
        plane.send("secret", pair("s"))
        plane.asked()
        plane.send("secret", ("s", bad) if plane.protocol == "delta" else bad)
        [asked] = plane.asked("secret")
        assert asked.kind == "nack"
        assert held(plane) == shown(plane) == KEY
        assert plane.status.rejected


class TestWithout:
    def test_calls_wait_and_then_are_told_why(self, plane):
        """SD-02, EX-01: for 15 s; then the cluster is closed, and says of each of its secrets what is wrong."""
        plane.send("cluster", demanding("c-n", of("s"), validation_context_sds_secret_config=of("t")))
        assert waits(plane, "c-n")
        assert plane.part.awaited["c-n"] == "waits for the secrets 's', 't'"
        plane.send("secret", build.secret("t", ca=CERTIFICATE))
        plane.advance(14.9)
        assert waits(plane, "c-n")
        plane.advance(0.1)
        assert lacking(plane, "c-n") == "secret 's' does not exist: the server did not send it within 15 s"
        plane.send("secret", pair("s"))
        assert shown(plane, "c-n") == KEY

    def test_nothing_else_waits(self, plane):
        """SD-02: other clusters are in force, and so is what comes behind them."""
        plane.send("cluster", demanding("c-n", of("s")), demanding("c-b"))
        assert waits(plane, "c-n")
        assert "secret s" in plane.status.waiting
        plane.send("endpoint", build.endpoints("c-b", "10.0.0.7:80"))
        assert plane.part.clusters["c-b"].tls is not None

    def test_a_newer_version_waits(self, plane):
        """CA-08: plain text goes on until the secret of the newer one is there."""
        plane.send("endpoint", build.endpoints("c-a", "10.0.0.7:80"))
        plane.send("cluster", demanding("c-a", of("s")))
        assert plane.target("a") == "10.0.0.7:80"
        assert plane.part.clusters["c-a"].tls is None
        plane.send("secret", pair("s"))
        assert shown(plane) == KEY

    def test_one_that_is_deleted_stays(self, plane):
        """SD-03: as in Envoy."""
        plane.send("cluster", demanding("c-a", of("s")))
        plane.send("secret", pair("s"))
        if plane.protocol == "delta":
            plane.send("secret", removed=("s",))
        else:
            plane.send("secret")
        assert shown(plane) == KEY
