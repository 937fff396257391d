"""What is gRPC's own of a control plane that is polled: its methods, statuses, channel and versions of the protocol."""

from __future__ import annotations

import threading

import grpc
import pytest
import trustme

from meshlib.model.snapshot import Part
from meshlib.sources import fetch, stream
from meshlib.sources.channel import open_channel
from meshlib.sources.polling import TIMEOUT
from meshlib.testing import ControlPlane, KatoControlPlane
from meshlib.testing.kato import dependency
from meshlib.xds import schema
from meshlib.xds.discovery import REQUEST, RESPONSE
from tests.support.asking import asked
from tests.support.polling_kit import SOONEST, FetchServer, Noted, Plane, resources

LISTENERS = "/envoy.service.listener.v3.ListenerDiscoveryService/FetchListeners"
NODE = "demo_plugin_gr000001"
NOTHING = Part("xds 1")
EMPTY = schema.message(RESPONSE)(version_info="1").SerializeToString()


def fetched(server, **xds):
    return Plane(server.address, protocol="fetch", **xds)


def again(plane):
    """Time for the pause after a failure, and less than a poll may take; once all polls that are due have an end."""
    stream = plane.merge.sources[0]._servers[0].stream
    plane.until(lambda: not stream._busy and not stream._due)
    plane.step(1.0)


class TestStatuses:
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            ((grpc.StatusCode.UNIMPLEMENTED, "Method not found!"), "UNIMPLEMENTED: Method not found!"),
            ((grpc.StatusCode.UNKNOWN, 'missing snapshot for "me"'), 'UNKNOWN: missing snapshot for "me"'),
            ((grpc.StatusCode.UNKNOWN, ""), "UNKNOWN"),
            ((grpc.StatusCode.PERMISSION_DENIED, "skip fetch"), "PERMISSION_DENIED: skip fetch"),
            ((grpc.StatusCode.UNAVAILABLE, "later"), "UNAVAILABLE: later"),
            ((grpc.StatusCode.DEADLINE_EXCEEDED, "x"), f"no whole answer within {TIMEOUT:g} s"),
        ],
    )
    def test_an_error_names_its_method_and_what_was_good_stays(self, answer, words):
        with FetchServer(EMPTY) as server, fetched(server) as plane:
            plane.want("reviews")
            plane.until(lambda: plane.xds.versions)
            server.answer = answer
            plane.step(SOONEST)
            plane.in_state("stale")
            assert plane.xds.last_error == f"{LISTENERS}: {words}"
            assert plane.xds.versions == {"listener": "1"}
            server.answer = EMPTY
            again(plane)
            plane.in_state("ready")
            assert plane.xds.last_error == ""

    def test_up_to_date_is_an_error_that_is_none(self):
        with FetchServer(EMPTY) as server, fetched(server) as plane:
            plane.want("reviews")
            plane.until(lambda: plane.xds.versions)
            server.answer = (grpc.StatusCode.UNKNOWN, "skip fetch: version up to date")
            server.bodies = Noted(plane.posted)
            for polls in (1, 2):  # at the pace of polls, and not of failures
                plane.step(SOONEST)
                plane.until(lambda polls=polls: len(server.bodies) == polls)
                plane.until(lambda: not plane.merge.sources[0]._servers[0].stream._busy)
                assert (plane.xds.state, plane.xds.last_error) == ("ready", "")
            assert schema.message(REQUEST).FromString(server.bodies[0]).version_info == "1"

    def test_an_answer_that_is_too_large(self):
        """ST-13: there is no limit but the one that is configured, as for streams."""
        answer = schema.message(RESPONSE)(version_info="1", nonce="x" * 8 * 2**20).SerializeToString()
        with FetchServer(answer) as server:
            with fetched(server) as plane:
                plane.want("reviews")
                plane.until(lambda: plane.xds.versions)
            with fetched(server, options={"grpc.max_receive_message_length": 2**20}) as plane:
                plane.want("reviews")
                plane.lost()
                assert f"{LISTENERS}: RESOURCE_EXHAUSTED" in plane.xds.last_error


class TestChannel:
    def test_one_serves_all_polls_and_another_after_an_error(self, monkeypatch):
        made = []
        monkeypatch.setattr(fetch, "open_channel", lambda server: made.append(1) or open_channel(server))
        with FetchServer(EMPTY) as server, fetched(server) as plane:
            plane.want("reviews")
            plane.until(lambda: plane.xds.versions)
            plane.step(SOONEST)
            plane.until(lambda: len(server.bodies) == 2)
            plane.until(lambda: not plane.merge.sources[0]._servers[0].stream._busy)
            assert len(made) == 1
            server.answer = (grpc.StatusCode.INTERNAL, "no")
            plane.step(SOONEST)
            plane.in_state("stale")
            server.answer = EMPTY
            again(plane)
            plane.in_state("ready")
            assert len(made) == 2

    def test_a_server_that_comes_back_is_asked_at_the_next_poll(self):
        """ST-04: grpc's own backoff of an old connection does not matter."""
        with ControlPlane(*resources().values()) as control, fetched(control) as plane:
            plane.ready()
            control.kill()
            plane.step(SOONEST)
            plane.in_state("stale")
            assert "/Fetch" in plane.xds.last_error
            assert "UNAVAILABLE" in plane.xds.last_error
            control.set(*resources(address="127.0.0.1:1002").values())
            control.start()
            again(plane)
            plane.until(lambda: plane.addresses("xds", "reviews") == ["127.0.0.1:1002"])
            plane.in_state("ready")

    def test_a_server_in_reserve(self):
        """FB-02"""
        with ControlPlane(*resources().values()) as control, ControlPlane() as away:
            away.kill()
            with Plane([away.address, control.address], protocol="fetch") as plane:
                plane.want("reviews")
                plane.until(lambda: "reviews" in plane.parts.get("xds 1", NOTHING).targets)

    def test_tls_with_a_token(self, tmp_path):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        issued = authority.issue_cert("localhost")
        pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
        token = tmp_path / "token"
        token.write_text("mine\n")
        with FetchServer(EMPTY, grpc.ssl_server_credentials([pair])) as server:
            port = server.address.rpartition(":")[2]
            more = {"tls": {"ca": str(tmp_path / "ca.pem")}, "token": str(token)}
            with Plane(f"localhost:{port}", protocol="fetch", **more) as plane:
                plane.want("reviews")
                plane.until(lambda: plane.xds.versions)
                assert server.metadata[0]["authorization"] == "Bearer mine"
                token.unlink()
                plane.step(SOONEST)
                plane.until(lambda: "cannot be read" in plane.xds.last_error)
                assert "mine" not in plane.xds.last_error

    def test_a_certificate_that_is_not_trusted(self, tmp_path):
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        issued = trustme.CA().issue_cert("localhost")
        pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
        with FetchServer(EMPTY, grpc.ssl_server_credentials([pair])) as server:
            port = server.address.rpartition(":")[2]
            with Plane(f"localhost:{port}", protocol="fetch", tls={"ca": str(tmp_path / "ca.pem")}) as plane:
                plane.lost()
                assert plane.xds.last_error.startswith(f"cannot connect to localhost:{port}: UNAVAILABLE")
                assert "CERTIFICATE_VERIFY_FAILED" in plane.xds.last_error
                assert not server.methods

    def test_a_file_that_is_not_there(self, tmp_path):
        with Plane("localhost:1", protocol="fetch", tls={"ca": str(tmp_path / "none.pem")}) as plane:
            plane.lost()
            assert "cannot connect to localhost:1" in plane.xds.last_error
            assert "none.pem" in plane.xds.last_error

    def test_before_a_fork_a_poll_is_ended_and_its_channel_closed(self):
        live = stream._streams.get().live
        before = live.copy()  # those of other tests may be about to end
        with FetchServer(None) as server, fetched(server) as plane:
            server.bodies = Noted(plane.posted)
            plane.want("reviews")
            plane.until(lambda: server.bodies)
            (wire,) = [each for each in live - before if type(each).__name__ == "FetchWire"]
            stream._settle()
            assert wire not in live
            assert wire._channel is None

    def test_nothing_is_left_of_one_that_ended(self):
        before = stream._streams.get().live.copy()  # as above
        with ControlPlane(*resources().values()) as control:
            with fetched(control, view="auto") as plane:
                plane.ready()
            assert asked(lambda: "meshlib-xds-poll" not in [each.name for each in threading.enumerate()])
            assert not stream._streams.get().live - before


class TestV2:
    @pytest.fixture
    def kato(self):
        with KatoControlPlane() as running:
            running.serve("gr2", 5000, "127.0.0.1:1001")
            running.configure(NODE, dependency("gr2", 5000, Domains="shop"))
            yield running

    @pytest.fixture
    def plane(self, kato):
        with Plane(kato.address, "auto", protocol="fetch", api="v2", node={"cluster": NODE}) as plane:
            yield plane

    def endpoints(self, plane):
        held = plane.parts["xds"].clusters if "xds" in plane.parts else ()
        return [plane.addresses("xds", each) for each in held if each.endswith("gr2_5000")]

    def test_what_it_answers_serves(self, kato, plane):
        """By the methods of v2, with v2's types, and as separate streams read it."""
        plane.until(lambda: self.endpoints(plane) == [["127.0.0.1:1001"]])
        assert {each.protocol for each in kato.requests} == {"fetch"}
        assert {each.kind for each in kato.requests} == {"listener", "cluster", "endpoint"}
        assert {schema.message(REQUEST).FromString(each.raw).type_url for each in kato.requests} == {
            f"type.googleapis.com/envoy.api.v2.{name}"
            for name in ("Listener", "Cluster", "ClusterLoadAssignment")
        }
        assert [each for each in plane.xds.ignored if "connect_timeout" in each.field]
        assert plane.xds.state == "ready"

    def test_no_poll_says_a_version(self, kato, plane):
        """Equal numbers may mean different states: an agent that starts anew counts anew."""
        plane.until(lambda: self.endpoints(plane) == [["127.0.0.1:1001"]])
        before = plane.xds.versions
        kato.restart()
        kato.serve("gr2", 5000, "127.0.0.1:1002")
        plane.step(SOONEST)
        again(plane)
        plane.until(lambda: self.endpoints(plane) == [["127.0.0.1:1002"]])
        assert {each.version for each in kato.requests} == {""}
        assert before

    def test_a_node_that_it_does_not_know(self, kato):
        with Plane(
            kato.address, protocol="fetch", api="v2", view="sidecar", node={"cluster": "a_b_c"}
        ) as plane:
            plane.lost()
            method = "/envoy.api.v2.ListenerDiscoveryService/FetchListeners"
            plane.until(lambda: f'{method}: UNKNOWN: missing snapshot for "a_b_c"' in plane.xds.last_error)
