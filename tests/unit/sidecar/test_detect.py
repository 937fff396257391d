"""What follows from the evidence: every row of the table, and everything that only looks like one."""

from __future__ import annotations

import pytest

from meshlib.model.address import Address
from meshlib.sidecar.detect import NOTHING, detect
from meshlib.sidecar.evidence import Answer, Listening, Probe
from meshlib.sidecar.signatures import SIGNATURES
from tests.support.sidecar_kit import APPLICATION, ISTIO, LINKERD, READY, seen, settings

AMBIENT = dict.fromkeys((15001, 15006, 15008, 15053), 0)
KUMA = dict.fromkeys((15001, 15006, 15053, 9902, 9001), 5678)
CONSUL = dict.fromkeys((15001, 20000, 19000, 21000), 5995)
OSM = dict.fromkeys((15000, 15001, 15003, 15010), 1500)

CONSUL_VARIABLES = {"REVIEWS_CONNECT_SERVICE_HOST": "127.0.0.1", "REVIEWS_CONNECT_SERVICE_PORT": "1234"}
KATO_VARIABLES = {
    "TENANT_ID": "t",
    "SERVICE_ID": "s",
    "SERVICE_NAME": "gr1",
    "DEPEND_SERVICE": "gr12238e:abc",
    "GR12238E80_HOST": "127.0.0.1",
    "GR12238E80_PORT": "8001",
}
KATO_LISTENERS = b"ns_me_gr12238e_80::127.0.0.1:8001\nns_me_http_80::127.0.0.1:80\n"
KATO_ANSWERS = {
    Probe.at(65533, "/ready", b"LIVE"): Answer("answered", 200, b"LIVE\n"),
    Probe.at(65533, "/listeners"): Answer("answered", 200, KATO_LISTENERS),
}
DAPR_HEALTH = Probe.at(3500, "/v1.0/healthz/outbound")
DAPR_HEALTH = DAPR_HEALTH._replace(older="/v1.0/healthz")


def found(evidence, late=False, **config):
    return detect(evidence, settings(**config), late=late)


CASES = [
    ("istio", ISTIO),
    ("istio", AMBIENT),
    ("linkerd", LINKERD),
    ("kuma", KUMA),
    ("consul", CONSUL),
    ("envoy", OSM),
]


class TestTheTable:
    """Each mesh in its own place is taken; each with one thing wrong is not."""

    @pytest.mark.parametrize(("kind", "listeners"), CASES)
    def test_taken(self, kind, listeners):
        one = found(seen(listeners, answers=READY))
        assert (one.kind, one.mode, one.confidence, one.ready) == (kind, "transparent", "high", True)
        assert one.listening
        assert one.probe is None

    @pytest.mark.parametrize(("kind", "listeners"), CASES)
    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"redirected": False}, "nothing shows that connections are redirected"),
            ({"redirected": None}, "nothing shows that connections are redirected"),
            ({"shared": ("kubelet listens on 10250",)}, "kubelet"),
        ],
    )
    def test_not_taken_where_the_surroundings_are_not_a_pods(self, kind, listeners, wrong, words):
        one = found(seen(listeners, answers=READY, **wrong))
        assert (one.kind, one.confidence) == (kind, "low")
        assert not one.sure
        assert not one.here
        assert words in " ".join(one.evidence)
        assert one.probe is None  # nobody else's proxy is asked anything

    @pytest.mark.parametrize(("kind", "listeners"), CASES)
    @pytest.mark.parametrize("owner", [APPLICATION, 1234])
    def test_not_taken_of_another_user(self, kind, listeners, owner):
        one = found(seen(dict.fromkeys(listeners, owner), answers=READY))
        assert one.confidence == "low"
        assert not one.here
        assert f"user id {owner}" in " ".join(one.evidence)
        assert one.probe is None

    @pytest.mark.parametrize(("kind", "listeners"), CASES)
    def test_not_taken_where_this_process_is_of_its_user(self, kind, listeners):
        (owner,) = set(listeners.values())
        one = found(seen(listeners, answers=READY, uid=owner))
        assert not one.sure
        assert f"this process runs as user id {owner} itself" in " ".join(one.evidence)

    @pytest.mark.parametrize("row", SIGNATURES, ids=lambda row: row.name)
    def test_ports_alone_name_no_mesh(self, row):
        one = found(seen(dict.fromkeys(row.ports, APPLICATION), answers=READY))
        assert one.confidence == "low"
        assert not one.here

    @pytest.mark.parametrize(
        "row", [row for row in SIGNATURES if row.uid is not None], ids=lambda row: row.name
    )
    def test_one_port_of_somebody_else_spoils_it(self, row):
        for port in row.ports:
            one = found(seen({**dict.fromkeys(row.ports, row.uid), port: 4242}, answers=READY))
            assert not one.sure, port

    @pytest.mark.parametrize(
        "row", [row for row in SIGNATURES if row.uid is not None], ids=lambda row: row.name
    )
    def test_one_port_that_two_listen_on_spoils_it(self, row):
        evidence = seen(dict.fromkeys(row.ports, row.uid), answers=READY)
        for port in row.ports:
            shared = Listening("127.0.0.1", port, 4242)
            assert not found(evidence._replace(listeners=(*evidence.listeners, shared))).sure

    @pytest.mark.parametrize(
        "listeners",
        [
            {},
            dict.fromkeys((15010, 15012, 15014, 15017, 8080), APPLICATION),  # istiod on a developer's machine
            {8080: APPLICATION, 5432: 70, 6379: 999},
            {3500: APPLICATION, 50001: APPLICATION},  # Dapr's numbers, without its variables
            {65533: APPLICATION},
            {19000: APPLICATION, 8500: APPLICATION, 8502: APPLICATION},
            {5681: APPLICATION, 5678: APPLICATION},
            {18000: APPLICATION},
        ],
    )
    def test_nothing_of_a_sidecar(self, listeners):
        assert found(seen(listeners)) == NOTHING

    def test_the_user_tells_meshes_apart_that_share_ports(self):
        shared = (15001, 15006)
        assert found(seen(dict.fromkeys(shared, 5678))).kind == "kuma"
        assert found(seen(dict.fromkeys((*shared, 15021), 1337), answers=READY)).kind == "istio"

    @pytest.mark.parametrize("port", [15000, 15020, 15021])
    @pytest.mark.parametrize("owner", [0, 1337])
    def test_where_there_is_an_agent_or_a_health_port_it_is_not_ambient(self, port, owner):
        one = found(seen({**AMBIENT, port: owner}, answers=READY))
        assert not one.sure

    def test_ambient_is_not_root_in_its_own_container(self):
        assert not found(seen(AMBIENT, uid=0)).sure

    def test_off(self):
        assert found(seen(ISTIO, answers=READY), mode="off") == NOTHING

    def test_no_table_of_listeners(self):
        assert found(seen({})._replace(listeners=None)) == NOTHING


class TestReadiness:
    def test_what_is_asked_next(self):
        one = found(seen(ISTIO))
        assert (one.ready, one.sure, one.here) == (None, True, True)
        assert one.probe == Probe.at(15021, "/healthz/ready")
        assert one.confidence == "low"

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (Answer("answered", 503), "answered 503: not ready"),
            (Answer("answered", 301), "answered 301: not ready"),
            (Answer("silent"), "was silent: not ready"),
            (Answer("refused"), "was refused: not ready"),
        ],
    )
    def test_an_answer_that_is_not_ready(self, answer, words):
        one = found(seen(ISTIO, answers={Probe.at(15021, "/healthz/ready"): answer}))
        assert (one.ready, one.sure, one.here, one.confidence) == (False, True, True, "low")
        assert words in one.evidence[-1]

    def test_a_health_port_on_ipv6_alone_is_asked_there(self):
        one = found(seen(ISTIO, host="::1"))
        assert str(one.probe.address) == "[::1]:15021"
        assert str(found(seen(ISTIO, host="::")).probe.address) == "127.0.0.1:15021"

    @pytest.mark.parametrize(
        ("listeners", "probe"),
        [
            (KUMA, Probe.at(9902, "/ready")),
            (LINKERD, Probe.at(4191, "/ready")),
            (CONSUL, Probe.at(21000, "/ready")),
        ],
    )
    @pytest.mark.parametrize(
        ("status", "body"), [(200, b"READY"), (200, b"LIVE\n"), (200, b""), (503, b"READY")]
    )
    def test_the_status_counts_and_not_the_body(self, listeners, probe, status, body):
        one = found(seen(listeners, answers={probe: Answer("answered", status, body)}))
        assert one.ready is (status == 200)

    @pytest.mark.parametrize("owner", [None, APPLICATION])
    def test_a_health_port_that_is_not_its_own_is_not_asked(self, owner):
        listeners = {15001: 5678, 15006: 5678, **({9902: owner} if owner else {})}
        one = found(seen(listeners))
        assert (one.ready, one.probe, one.confidence) == (True, None, "high")
        assert "9902" in one.evidence[-1]

    @pytest.mark.parametrize(
        "listeners",
        [{15000: 1337}, {15020: 1337}, {15000: 1337, 15020: 1337, 15001: 1337}, {4191: 2102}, {9902: 5678}],
    )
    def test_one_that_is_coming_up_is_waited_for(self, listeners):
        one = found(seen(listeners))
        assert (one.sure, one.here, one.ready) == (True, True, False)

    @pytest.mark.parametrize("listeners", [{15000: 1337}, {15020: 1337}, {4191: 2102}])
    def test_and_is_not_where_nothing_is_redirected(self, listeners):
        assert not found(seen(listeners, redirected=False)).here

    def test_root_on_15001_alone_is_no_ztunnel_that_is_coming_up(self):
        assert not found(seen({15001: 0})).here


class TestProxyless:
    def test_this_process_is_the_data_plane(self):
        one = found(seen({15020: 1338}, bootstrap="/etc/istio/proxy/grpc-bootstrap.json"))
        assert (one.kind, one.mode, one.confidence) == ("istio", "proxyless", "high")
        assert not one.sure
        assert not one.here

    def test_a_sidecar_beside_it_wins(self):
        one = found(seen(ISTIO, bootstrap="/etc/istio/proxy/grpc-bootstrap.json", answers=READY))
        assert one.mode == "transparent"

    @pytest.mark.parametrize("mode", ["istio", "require"])
    def test_told_or_required_it_is_proxyless_all_the_same(self, mode):
        one = found(seen({}, bootstrap="/etc/istio/proxy/grpc-bootstrap.json"), mode=mode)
        assert one.mode == "proxyless"
        assert not one.here


class TestVariables:
    def test_consuls_upstreams(self):
        one = found(seen({1234: 5995}, environ=CONSUL_VARIABLES, redirected=None))
        assert (one.kind, one.mode, one.confidence, one.ready) == ("consul", "listener", "high", True)
        assert one.upstreams == {"reviews": Address("127.0.0.1", 1234)}

    def test_nobody_listens_for_them_yet(self):
        one = found(seen({}, environ=CONSUL_VARIABLES))
        assert (one.origin, one.here, one.ready, one.listening) == ("environment", True, False, False)

    def test_one_of_two_is_enough_once_it_is_late(self):
        more = {"RATINGS_CONNECT_SERVICE_HOST": "localhost", "RATINGS_CONNECT_SERVICE_PORT": "1235"}
        evidence = seen({1234: 5995}, environ={**CONSUL_VARIABLES, **more})
        assert not found(evidence).ready
        one = found(evidence, late=True)
        assert one.ready
        assert set(one.upstreams) == {"reviews"}
        assert "127.0.0.1:1235" in one.evidence[-1]

    def test_the_transparent_proxy_is_preferred(self):
        one = found(seen({**CONSUL, 1234: 5995}, environ=CONSUL_VARIABLES, answers=READY))
        assert one.mode == "transparent"

    def test_kato(self):
        one = found(seen({65533: 0, 8001: 0}, environ=KATO_VARIABLES, answers=KATO_ANSWERS, redirected=None))
        assert (one.kind, one.mode, one.confidence) == ("kato", "listener", "high")
        address = Address("127.0.0.1", 8001)
        assert one.upstreams == {"gr12238e": address, "gr12238e:80": address}

    @pytest.mark.parametrize("body", [b"", b"other::127.0.0.1:8002\n", b"\xff\x00::127.0.0.1:800100000\n"])
    def test_kato_without_the_dependencys_listener(self, body):
        answered = {**KATO_ANSWERS, Probe.at(65533, "/listeners"): Answer("answered", 200, body)}
        one = found(seen({65533: 0}, environ=KATO_VARIABLES, answers=answered))
        assert (one.ready, one.here) == (False, True)
        assert not found(seen({65533: 0}, environ=KATO_VARIABLES, answers=answered), late=True).ready

    def test_kato_that_is_not_live(self):
        answered = {Probe.at(65533, "/ready", b"LIVE"): Answer("answered", 503, b"DRAINING")}
        one = found(seen({65533: 0}, environ=KATO_VARIABLES, answers=answered))
        assert (one.ready, one.probe) == (False, None)

    def test_a_port_that_was_given_a_name_is_an_upstream_where_it_has_a_listener(self):
        more = {
            "CACHE_HOST": "127.0.0.1",
            "CACHE_PORT": "80",
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": "6379",
        }
        one = found(seen({65533: 0}, environ={**KATO_VARIABLES, **more}, answers=KATO_ANSWERS))
        assert set(one.upstreams) == {"gr12238e", "gr12238e:80", "cache"}

    def test_dapr(self):
        evidence = seen({3500: 0}, environ={"DAPR_HTTP_PORT": "3500", "DAPR_GRPC_PORT": "50002"})
        assert found(evidence).probe == DAPR_HEALTH
        one = found(evidence._replace(answers={DAPR_HEALTH: Answer("answered", 204)}))
        assert (one.kind, one.mode, one.confidence) == ("dapr", "api", "high")
        assert (str(one.address), str(one.grpc)) == ("127.0.0.1:3500", "127.0.0.1:50002")

    def test_dapr_of_old(self):
        evidence = seen(
            {3500: 0}, environ={"DAPR_HTTP_PORT": "3500"}, answers={DAPR_HEALTH: Answer("answered", 404)}
        )
        older = Probe.at(3500, "/v1.0/healthz")
        assert found(evidence).probe == older
        answered = {**evidence.answers, older: Answer("answered", 204)}
        assert found(evidence._replace(answers=answered)).ready

    @pytest.mark.parametrize("port", ["", "0", "65536", "3500x", "-1", "３５００"])
    def test_dapr_without_a_port(self, port):
        one = found(seen({3500: 0}, environ={"DAPR_HTTP_PORT": port}))
        assert not one.here
        assert one.confidence in ("none", "low")

    def test_without_a_table_of_listeners_they_are_asked(self):
        blind = seen({}, environ=CONSUL_VARIABLES)._replace(listeners=None)
        asked = found(blind).probe
        assert asked == Probe(Address("127.0.0.1", 1234))
        assert found(blind._replace(answers={asked: Answer("accepted")})).ready
        assert found(blind._replace(answers={asked: Answer("refused")})).listening is False


class TestTold:
    @pytest.mark.parametrize(
        ("mode", "listeners"),
        [("istio", ISTIO), ("istio", AMBIENT), ("linkerd", LINKERD), ("kuma", KUMA), ("consul", CONSUL)],
    )
    @pytest.mark.parametrize("wrong", [{"redirected": False}, {"shared": ("docker0",)}, {"owner": 4242}])
    def test_a_kind_holds_where_detection_would_doubt(self, mode, listeners, wrong):
        wrong = dict(wrong)
        owner = wrong.pop("owner", None)
        listeners = dict.fromkeys(listeners, owner) if owner else listeners
        one = found(seen(listeners, answers=READY, **wrong), mode=mode)
        assert (one.kind, one.mode, one.confidence, one.sure, one.ready) == (
            mode,
            "transparent",
            "high",
            True,
            True,
        )
        assert one.evidence[0] == f"sidecar.mode is {mode}"

    @pytest.mark.parametrize("mode", ["istio", "linkerd", "kuma", "consul", "envoy", "dapr", "kato"])
    def test_a_kind_that_is_not_there_is_waited_for(self, mode):
        one = found(seen({}), mode=mode)
        assert (one.kind, one.origin, one.confidence) == (mode, "configuration", "high")
        assert (one.here, one.ready, one.listening) == (True, False, False)

    def test_another_kind_than_told_is_not_taken(self):
        one = found(seen(LINKERD, answers=READY), mode="istio")
        assert (one.kind, one.ready) == ("istio", False)

    def test_an_envoy_behind_a_redirect(self):
        one = found(seen({15001: 4242}), mode="envoy")
        assert (one.kind, one.mode, one.ready) == ("envoy", "transparent", True)

    def test_dapr_has_its_own_ports(self):
        one = found(seen({3500: 0}, answers={DAPR_HEALTH: Answer("answered", 204)}), mode="dapr")
        assert (one.mode, str(one.address), str(one.grpc), one.ready) == (
            "api",
            "127.0.0.1:3500",
            "127.0.0.1:50001",
            True,
        )

    @pytest.mark.parametrize("listeners", [{}, dict.fromkeys(ISTIO, 4242), {9901: 4242}])
    def test_required_is_waited_for_and_not_taken_for_something_else(self, listeners):
        one = found(seen(listeners, answers=READY), mode="require")
        assert (one.mode, one.here, one.sure, one.ready) == ("transparent", True, False, False)
        assert one.confidence in ("none", "low")

    def test_required_and_there(self):
        one = found(seen(ISTIO, answers=READY), mode="require")
        assert (one.kind, one.confidence, one.ready) == ("istio", "high", True)


class TestAddress:
    @pytest.mark.parametrize(
        ("address", "mode", "where"),
        [
            ("127.0.0.1:15001", "listener", "127.0.0.1:15001"),
            ("http://127.0.0.1:15001", "forward_proxy", "127.0.0.1:15001"),
            ("localhost:15001", "listener", "127.0.0.1:15001"),
        ],
    )
    @pytest.mark.parametrize(("told", "kind"), [("auto", "envoy"), ("require", "envoy"), ("istio", "istio")])
    def test_it_is_ready_while_somebody_listens_there(self, address, mode, where, told, kind):
        one = found(seen({15001: 4242}, redirected=None), mode=told, address=address)
        assert (one.kind, one.mode, one.confidence, one.ready) == (kind, mode, "high", True)
        assert str(one.address) == where
        away = found(seen({15002: 4242}), mode=told, address=address)
        assert (away.here, away.ready, away.listening, away.confidence) == (True, False, False, "high")

    def test_localhost_is_where_somebody_listens(self):
        one = found(seen({15001: 4242}, host="::1"), address="localhost:15001")
        assert str(one.address) == "[::1]:15001"

    @pytest.mark.parametrize(
        ("host", "address", "listens"),
        [
            ("0.0.0.0", "127.0.0.1:80", True),
            ("::", "127.0.0.1:80", True),
            ("::", "[::1]:80", True),
            ("127.0.0.1", "127.0.0.1:80", True),
            ("0.0.0.0", "[::1]:80", False),
            ("127.0.0.2", "127.0.0.1:80", False),
            ("10.0.0.1", "127.0.0.1:80", False),
        ],
    )
    def test_where_a_connection_would_go(self, host, address, listens):
        assert found(seen({80: 0}, host=host), address=address).listening is listens

    def test_a_unix_socket(self):
        address = {"address": "unix:/run/envoy"}
        assert found(seen({}, sockets=frozenset({"/run/envoy"})), **address).ready
        asked = found(seen({}, sockets=frozenset()), **address)
        assert (asked.ready, asked.listening) == (None, None)
        answered = {asked.probe: Answer("accepted")}
        assert found(seen({}, sockets=frozenset(), answers=answered), **address).ready
        answered = {asked.probe: Answer("refused")}
        assert found(seen({}, sockets=frozenset(), answers=answered), **address).listening is False

    def test_daprs(self):
        probe = Probe.at(3501, "/v1.0/healthz/outbound")._replace(older="/v1.0/healthz")
        evidence = seen(
            {3501: 0}, environ={"DAPR_GRPC_PORT": "50003"}, answers={probe: Answer("answered", 204)}
        )
        one = found(evidence, mode="dapr", address="127.0.0.1:3501")
        assert (one.mode, one.ready, str(one.grpc)) == ("api", True, "127.0.0.1:50003")
