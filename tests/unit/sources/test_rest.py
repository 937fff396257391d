"""A control plane that is polled (`protocol = "rest"`): a real server on loopback, and time that the test moves."""

from __future__ import annotations

import json
import queue
import ssl

import pytest
import trustme

from meshlib.config import Config
from meshlib.model.snapshot import Part
from meshlib.sources.control_plane import control_plane
from meshlib.sources.last_good import SETTLE
from meshlib.sources.rest import JITTER
from meshlib.sources.rest_wire import LARGEST, TIMEOUT
from meshlib.testing import ControlPlane, build
from meshlib.testing.upstream import Upstream
from meshlib.xds.bootstrap import bootstrap_of
from tests.support.raw_server import RawServer
from tests.support.sources_kit import Bench
from tests.support.xds_kit import simple

REFRESH = 30.0
#: The bench's random numbers are 0: the soonest that a poll may come again.
SOONEST = REFRESH * (1 - JITTER)
REST = {"api_config_source": {"api_type": "REST", "transport_api_version": "V3", "cluster_names": ["xds"]}}


class Plane(Bench):
    """A bench whose source polls `server`; `until` waits for what its thread posts."""

    def __init__(self, server, view="target", **xds):
        self.posted = queue.SimpleQueue()
        config = Config.from_mapping(
            {"xds": {"server": server, "protocol": "rest", "view": view, **xds}, "node": {"id": "me"}}
        )
        bootstrap = bootstrap_of(config, None, "", "host")

        def build_source(merge, bench):
            post = bench.worker.post

            def noted(command):
                post(command)
                bench.posted.put(None)

            bench.worker.post = noted
            return control_plane(merge, bootstrap, config.xds)

        super().__init__(build_source)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.merge.stop()

    def until(self, true, timeout=10.0):
        """Runs what is posted, until `true()`."""
        self.step()
        while not (found := true()):
            self.posted.get(timeout=timeout)
            self.step()
        return found

    def want(self, *names):
        for name in names:
            self.merge.want(name, name)
        self.step()

    def asked(self, control, kind, after, where=lambda each: True):
        """The first request of this type with an index of at least `after`."""
        found = self.until(
            lambda: [
                each for each in control.requests if each.kind == kind and each.index >= after and where(each)
            ]
        )
        return found[0]

    @property
    def xds(self):
        return self.status("xds")

    def ready(self, name="reviews"):
        self.want(name)
        self.until(lambda: name in self.parts.get("xds", NOTHING).targets and not self.merge.pending(name))

    def in_state(self, *states):
        return self.until(lambda: self.merge.sources[0].state.value in states)

    def lost(self):
        """Away: failed, or stale where it was reached before a name was wanted."""
        return self.in_state("failed", "stale")


class Noted(list):
    """Whoever waits for `posted` looks at it after each thing that comes."""

    def __init__(self, posted):
        self.posted = posted

    def append(self, item):
        super().append(item)
        self.posted.put(None)


NOTHING = Part("xds")


def resources(name="reviews", address="127.0.0.1:1001"):
    """As a control plane writes them for an Envoy that it serves by REST."""
    made = simple(name)
    made["cluster"] = build.cluster(name, eds_cluster_config={"eds_config": REST})
    made["endpoint"] = build.endpoints(name, address)
    manager = made["listener"]["api_listener"]["api_listener"]
    manager["rds"]["config_source"] = REST
    return made


@pytest.fixture
def control():
    return ControlPlane(*resources().values())


@pytest.fixture
def server(control):
    with control.rest() as rest:
        yield rest


class TestPolls:
    def test_each_type_is_asked_for_by_name_and_what_comes_serves(self, control, server):
        with Plane(server.url) as plane:
            plane.ready()
            assert plane.addresses("xds", "reviews") == ["127.0.0.1:1001"]
            assert plane.xds.state == "ready"
            assert plane.xds.server == server.address
            asked = {each.kind: each for each in control.requests}
            assert {kind: each.names for kind, each in asked.items()} == {
                "listener": ("reviews",),
                "route": ("r-reviews",),
                "cluster": ("reviews",),
                "endpoint": ("reviews",),
            }
            assert all(each.node.id == "me" for each in control.requests)

    def test_the_sidecar_view_asks_for_everything(self, control, server):
        host = build.virtual_host("v", build.route("/", cluster="reviews"), domains=["*"])
        control.update(build.listener("in", build.route_config("r", host), address="127.0.0.1:1"))
        with Plane(server.url, "sidecar") as plane:
            plane.until(lambda: plane.parts.get("xds", NOTHING).sidecar)
            assert [each.name for each in plane.parts["xds"].sidecar] == ["in"]

    def test_both_views(self, control, server):
        with Plane(server.url, "auto") as plane:
            plane.ready()
            assert {each.names for each in control.requests if each.kind == "listener"} == {(), ("reviews",)}

    def test_nothing_is_asked_before_the_refresh_is_over(self, control, server):
        with Plane(server.url) as plane:
            plane.ready()
            before = control.seen
            plane.step(SOONEST - 1)
            assert control.seen == before
            plane.step(1)
            plane.asked(control, "endpoint", before)

    def test_the_next_poll_says_what_was_accepted_and_304_changes_nothing(self, control, server):
        with Plane(server.url) as plane:
            plane.ready()
            before = control.seen
            plane.step(SOONEST)
            asked = plane.asked(control, "listener", before)
            assert asked.version == control.version("listener")
            assert asked.error is None
            plane.asked(control, "endpoint", before)
            part = plane.parts["xds"]
            plane.in_state("ready")
            assert plane.parts["xds"] is part

    def test_a_change_comes_with_the_next_poll(self, control, server):
        with Plane(server.url) as plane:
            plane.ready()
            control.update(build.endpoints("reviews", "127.0.0.1:1002"))
            plane.step(SOONEST)
            plane.until(lambda: plane.addresses("xds", "reviews") == ["127.0.0.1:1002"])

    def test_another_name_is_asked_for_at_once_and_without_a_version(self, control, server):
        """A server that compares versions alone would have nothing new for it."""
        control.update(*resources("ratings").values())
        with Plane(server.url) as plane:
            plane.ready()
            before = control.seen
            plane.ready("ratings")
            asked = plane.asked(control, "listener", before)
            assert (asked.names, asked.version) == (("ratings", "reviews"), "")

    def test_many_names_at_once_are_few_polls(self, control, server):
        names = [f"s{number}" for number in range(50)]
        with Plane(server.url) as plane:
            plane.want(*names)
            plane.asked(control, "listener", 0, lambda each: len(each.names) == 50)
            assert len(control.requests) <= 3

    def test_who_gives_up_every_name_does_not_ask_for_everything(self, control, server):
        with Plane(server.url) as plane:
            plane.ready()
            before = control.seen
            plane.merge.forget("reviews")
            plane.step(4 * REFRESH)
            plane.want("ratings")
            plane.asked(control, "listener", before)
            assert all(each.names for each in control.requests)

    def test_a_resource_that_is_wrong_is_refused_in_the_next_poll(self, control, server):
        with Plane(server.url) as plane:
            plane.ready()
            before = control.seen
            control.update({**resources()["cluster"], "lb_policy": "CLUSTER_PROVIDED"})
            plane.step(SOONEST)
            plane.until(lambda: plane.xds.rejected)
            plane.step(SOONEST)
            asked = plane.asked(control, "cluster", before, lambda each: each.is_nack)
            assert "reviews" in asked.error
            assert asked.version == ""
            assert plane.addresses("xds", "reviews") == ["127.0.0.1:1001"]

    def test_a_server_that_takes_back_what_was_refused(self, control, server):
        """Its version is the one in force again, so that 304 would leave the refusal standing."""
        with Plane(server.url) as plane:
            plane.ready()
            before = control.version("cluster")
            control.update({**resources()["cluster"], "lb_policy": "CLUSTER_PROVIDED"})
            plane.step(SOONEST)
            plane.until(lambda: plane.xds.rejected)
            control.update(resources()["cluster"], version=before)
            plane.step(SOONEST)
            plane.until(lambda: not plane.xds.rejected)

    def test_a_file_that_a_resource_names_is_not_read(self, control, server, tmp_path):
        path = tmp_path / "eds.yaml"
        path.write_text("resources: []")
        source = {"path_config_source": {"path": str(path)}}
        control.update(build.cluster("reviews", eds_cluster_config={"eds_config": source}))
        with Plane(server.url) as plane:
            plane.want("reviews")
            plane.until(lambda: plane.xds.rejected)
            (refused,) = plane.xds.rejected
            assert "path_config_source" in refused.problems[0]

    def test_a_field_that_nobody_knows_is_reported(self):
        resource = {**resources()["listener"], "of_a_later_envoy": 1}
        with (
            RawServer(answer=http(200, {"version_info": "1", "resources": [resource]})) as raw,
            Plane(f"http://{raw.address}") as plane,
        ):
            plane.want("reviews")
            plane.until(
                lambda: [each for each in plane.xds.ignored if each.field == "resources[0].of_a_later_envoy"]
            )

    def test_over_a_unix_socket(self, tmp_path):
        with RawServer(str(tmp_path / "s"), http(200, {"version_info": "7"})) as raw:
            with Plane(f"unix:{tmp_path / 's'}") as plane:
                plane.want("reviews")
                plane.until(lambda: plane.xds.versions == {"listener": "7"})
            assert raw.heads[0].startswith(b"POST /v3/discovery:listeners HTTP/1.1\r\nHost: localhost\r\n")
            assert b"User-Agent: meshlib/" in raw.heads[0]


def http(status, value=b"", **headers):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class TestTrouble:
    def test_nobody_listens(self):
        with RawServer() as raw:
            address = raw.address
        with Plane(f"http://{address}") as plane:
            plane.want("reviews")
            plane.lost()
            assert f"cannot connect to {address}: Connection refused" in plane.xds.last_error
            assert plane.parts["xds"].unreached

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (http(500, b"no\nsnapshot"), "answered 500: no snapshot"),
            (http(404), "answered 404"),
            (http(301, Location="http://127.0.0.1:1/"), "answered 301"),
            (http(200, b"{"), "is no DiscoveryResponse: Expecting"),
            (http(200, b""), "is no DiscoveryResponse"),
            (http(200, b"\xff"), "is no DiscoveryResponse"),
            (http(200, b"[]"), "must be a mapping"),
            (http(200, b"NaN"), "NaN is no number of JSON"),
            (http(200, b'{"resources":' * 100_000), "nested too deeply"),
            (http(200, {"resources": 5}), "resources[0]"),
            (http(200, {"version_info": {}}), "version_info"),
            (http(200, b"{}", Content_Encoding="gzip"), "is encoded (gzip)"),
            (b"SSH-2.0-x\r\n\r\n", "SSH-2.0"),
            (b"HTTP/1.1 200 X\r\n" + b"a: b\r\n" * 200 + b"\r\n", "more than 100 headers"),
        ],
    )  # fmt: skip
    def test_what_is_no_answer_is_told_and_what_was_good_stays(self, answer, words):
        with (
            RawServer(answer=http(200, {"version_info": "1", "resources": []})) as raw,
            Plane(f"http://{raw.address}") as plane,
        ):
            plane.want("reviews")
            plane.in_state("ready")
            raw.answer = answer
            plane.step(SOONEST)
            plane.in_state("stale")
            assert words in plane.xds.last_error
            assert "/v3/discovery:listeners" in plane.xds.last_error
            raw.answer = http(200, {"version_info": "2", "resources": []})
            plane.step(60.0)
            plane.in_state("ready")
            assert plane.xds.last_error == ""

    def test_a_body_that_is_none_is_refused_with_the_next_poll(self):
        with RawServer(answer=http(200, b"{")) as raw:
            with Plane(f"http://{raw.address}") as plane:
                plane.want("reviews")
                plane.lost()
                plane.step(60.0)
                plane.until(lambda: len(raw.bodies) > 1)
            first, second, *_ = map(json.loads, raw.bodies)
            assert "error_detail" not in first
            assert second["error_detail"]["code"] == 3
            assert second["error_detail"]["details"] == []  # sovereign answers 422 without it
            assert "is no DiscoveryResponse" in second["error_detail"]["message"]

    def test_pauses_after_failures_grow(self, control, server):
        """With the least that chance gives there is a floor; its bound doubles up to a minute."""
        with Plane(server.url) as plane:
            plane.random = lambda: 0.99
            source = plane.merge.sources[0]
            source._open_stream.keywords["random"] = plane.random
            control.refuse()
            plane.want("reviews")
            plane.lost()
            for bound in (1, 2, 4, 8, 16, 32, 60, 60):
                seen = control.seen
                plane.step(bound * 0.9)
                assert control.seen == seen
                plane.step(bound * 0.1)
                plane.asked(control, "listener", seen)
                plane.until(lambda: source._servers[0].stream._types and not source._servers[0].stream._busy)
            control.accept()
            plane.step(60.0)
            plane.ready()

    def test_names_that_are_wanted_in_an_outage_wait_for_its_pause(self, control, server):
        with Plane(server.url) as plane:
            plane.ready()
            control.refuse()
            plane.step(SOONEST)
            plane.in_state("stale")
            seen = control.seen
            plane.want(*(f"s{number}" for number in range(20)))
            assert control.seen == seen

    def test_one_type_that_cannot_be_had_is_an_outage_though_the_others_come(self):
        """Else its state would flap with each poll."""
        control = ControlPlane(*resources().values())
        with control.rest() as server:
            answer = server.answer
            server.answer = lambda path, body: (500, b"no") if "endpoints" in path else answer(path, body)
            with Plane(server.url) as plane:
                plane.want("reviews")
                plane.until(lambda: "discovery:endpoints" in plane.xds.last_error)
                plane.changes.clear()
                control.update({**resources()["cluster"], "connect_timeout": "3s"})
                plane.step(SOONEST)
                plane.until(lambda: plane.xds.versions["cluster"] == control.version("cluster"))
                assert plane.xds.state == "stale"
                assert [state for _, state, _ in plane.changes if state == "ready"] == []

    def test_an_answer_that_does_not_end_is_given_up(self):
        """The server sends a byte of it now and then: what bounds the poll is its own time, not the pauses."""
        with (
            RawServer(answer=b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{") as raw,
            Plane(f"http://{raw.address}") as plane,
        ):
            raw.bodies = Noted(plane.posted)
            plane.want("reviews")
            plane.until(lambda: raw.bodies)
            plane.step(TIMEOUT)
            plane.lost()
            assert f"no whole answer within {TIMEOUT:g} s" in plane.xds.last_error

    def test_an_answer_that_is_too_large(self):
        head = f"HTTP/1.1 200 X\r\nContent-Length: {LARGEST + 1}\r\n\r\n".encode()
        with RawServer(answer=head + b" " * (LARGEST + 1)) as raw, Plane(f"http://{raw.address}") as plane:
            plane.want("reviews")
            plane.lost()
            assert "larger than 64 MiB" in plane.xds.last_error

    def test_a_server_that_closes_idle_connections_is_asked_on_another(self):
        answer = http(200, {"version_info": "1"}, Keep_Alive="timeout=0")
        with RawServer(answer=answer) as raw, Plane(f"http://{raw.address}") as plane:
            plane.want("reviews")
            plane.in_state("ready")
            for each in list(raw._open):
                each.shutdown(2)
            seen = len(raw.bodies)
            plane.step(SOONEST)
            plane.until(lambda: len(raw.bodies) > seen)
            assert plane.xds.last_error == ""

    def test_it_ends_while_an_answer_is_awaited(self):
        with RawServer(answer=b"HTTP/1.1 200 X\r\n") as raw:
            with Plane(f"http://{raw.address}") as plane:
                raw.bodies = Noted(plane.posted)
                plane.want("reviews")
                plane.until(lambda: raw.bodies)
                stream = plane.merge.sources[0]._servers[0].stream
            assert not stream._thread.is_alive()


class TestTls:
    @pytest.fixture
    def authority(self, tmp_path):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        return authority

    @pytest.mark.parametrize("mutual", [False, True])
    def test_https(self, tmp_path, authority, mutual):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        tls = {"ca": str(tmp_path / "ca.pem")}
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            authority.configure_trust(context)
            mine = authority.issue_cert("me@example.org")
            mine.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
            mine.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
            tls |= {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
        with Upstream(tls=context) as upstream:
            port = upstream.address.rpartition(":")[2]
            with Plane(f"https://localhost:{port}", tls=tls) as plane:
                plane.want("reviews")
                plane.lost()
                # The upstream is no control plane, and what it says has come.
                assert "name: is no field of" in plane.xds.last_error
                assert upstream.requests[0].path == "/v3/discovery:listeners"

    def test_a_token_is_a_bearer_of_each_poll(self, tmp_path, authority):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        token = tmp_path / "token"
        token.write_text("mine\n")
        with Upstream(tls=context) as upstream:
            port = upstream.address.rpartition(":")[2]
            more = {"tls": {"ca": str(tmp_path / "ca.pem")}, "token": str(token)}
            with Plane(f"https://localhost:{port}", **more) as plane:
                plane.want("reviews")
                plane.lost()
                said = {name.lower(): value for name, value in upstream.requests[0].headers}
                assert said["authorization"] == "Bearer mine"
                token.unlink()
                plane.step(5.0)
                plane.until(lambda: "cannot be read" in plane.xds.last_error)
                assert "mine" not in plane.xds.last_error

    def test_a_certificate_that_is_not_trusted(self, tmp_path, authority):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost").configure_cert(context)
        with Upstream(tls=context) as upstream:
            port = upstream.address.rpartition(":")[2]
            with Plane(f"https://localhost:{port}", tls={"ca": str(tmp_path / "ca.pem")}) as plane:
                plane.lost()
                assert "CERTIFICATE_VERIFY_FAILED" in plane.xds.last_error
                assert not upstream.requests


def test_the_last_good_state_of_a_server_that_is_away(control, tmp_path):
    kept = str(tmp_path / "kept" / "state.bin")
    with control.rest() as server, Plane(server.url, last_good=kept) as plane:
        plane.ready()
        plane.step(SETTLE)
        plane.until(lambda: plane.status("last_good").state == "ready")
        url = server.url
    with Plane(url, last_good=kept) as again:
        again.step()
        assert again.addresses("xds", "reviews") == ["127.0.0.1:1001"]
        assert again.status("last_good").state == "stale"
        again.until(lambda: again.xds.state == "stale" and again.xds.last_error)
        assert again.addresses("xds", "reviews") == ["127.0.0.1:1001"]
