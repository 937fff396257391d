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
    made = Control(protocol, "a")
    made.connect()
    made.serve("a")
    made.asked()
    return made


def lacking(plane, name="c-a"):
    return plane.part.clusters[name].tls.lacking


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
        "config",
        [
            {"name": "s"},
            of("s", path_config_source={"path": "/etc/secret.yaml"}),
            of(
                "default",
                api_config_source={
                    "api_type": "GRPC",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
                },
            ),
            of("ROOTCA"),
        ],
        ids=["static", "a file", "the agent's", "the agent's CA"],
    )
    def test_what_comes_from_elsewhere(self, plane, config):
        """SD-01, SD-02: nobody is asked for it, it is reported, and the cluster is closed."""
        plane.send("cluster", demanding("c-a", config))
        assert plane.asked("secret") == []
        assert plane.part.clusters["c-a"].tls.unsupported
        assert any(each.field.endswith("sds_secret_configs[0]") for each in plane.status.ignored)

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
        assert (lacking(plane), plane.status.rejected) == ("", ())

    def test_a_new_one_takes_the_place_of_the_old(self, plane):
        """SD-03."""
        plane.send("cluster", demanding("c-a", of("s")))
        plane.send("secret", pair("s"))
        plane.send("secret", pair("s", OTHER))
        assert held(plane) == OTHER
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
        assert (held(plane), lacking(plane)) == (KEY, "")
        assert plane.status.rejected


class TestWithout:
    def test_calls_are_told_why(self, plane):
        """SD-02, EX-01: the cluster is closed, and says of each of its secrets what is wrong."""
        plane.send("cluster", demanding("c-a", of("s"), validation_context_sds_secret_config=of("t")))
        assert lacking(plane) == "secret 's' has not come yet; secret 't' has not come yet"
        plane.send("secret", build.secret("t", ca=CERTIFICATE))
        plane.advance(15.0)
        assert lacking(plane) == "secret 's' does not exist: the server did not send it within 15 s"
        assert plane.part.clusters["c-a"].tls.unsupported

    def test_nothing_else_waits(self, plane):
        """SD-02: the cluster is in force at once, and so is what comes behind it."""
        plane.send("cluster", demanding("c-a", of("s")), build.cluster("c-b"))
        assert plane.part.clusters["c-a"].tls.secrets
        assert plane.status.waiting == ("secret s",)
        plane.send("endpoint", build.endpoints("c-a", "10.0.0.7:80"))
        assert plane.target("a") == "10.0.0.7:80"
