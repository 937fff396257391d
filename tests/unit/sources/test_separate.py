"""A stream for each type: who gets which request, and what becomes of a stream that ends, is silent or grows old."""

from __future__ import annotations

from functools import partial

import pytest

from meshlib.sources.separate import AGE, PATIENCE, SeparateStreams
from meshlib.sources.xds import XdsSource
from meshlib.testing import build
from meshlib.xds import schema, v2
from meshlib.xds.bootstrap import Bootstrap, Node
from meshlib.xds.discovery import DELTA_REQUEST
from tests.support.sources_kit import SERVER, Bench, FakeStream, XdsBench
from tests.support.xds_kit import REQUEST, RESPONSE, delta_response, message, response

OURS = "demo_def-mesh4f_gr1"
#: The bench's random numbers are 0: each stream lives for the longest time.
DUE = AGE
BACK = {url.rpartition("/")[2]: short for url, short in schema.SHORT_NAMES.items()}
FORMER = {v2: BACK[v3] for v2, v3 in v2.TYPES.items() if v3 in BACK}


def demanding(name):
    """A cluster that demands a secret."""
    config = {"name": "s", "sds_config": {"ads": {}}}
    context = {"common_tls_context": {"tls_certificate_sds_secret_configs": [config]}}
    kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    socket = {"name": "tls", "typed_config": build.any_of(kind, context)}
    return build.cluster(name, ["10.0.0.1:80"], transport_socket=socket)


class Stream(FakeStream):
    method = ""

    @property
    def requests(self):
        """(names, version, nonce, node's cluster, refusal) of what was written."""
        parsed = [REQUEST.FromString(each) for each in self.written]
        return [
            (
                list(each.resource_names),
                each.version_info,
                each.response_nonce,
                each.node.cluster,
                each.error_detail.message,
            )
            for each in parsed
        ]


class Plane(XdsBench):
    """One xDS source over separate streams, all fake. ``of``: those of a type, in the order in which they were opened."""

    def __init__(self, *, api="v2", view="sidecar", protocol="sotw"):
        self.streams = []
        self.nonces = {}

        def build_source(merge, bench):
            separate = partial(
                SeparateStreams,
                api=api,
                later=bench.worker.later,
                random=bench.random,
                ours=OURS,
                make=self.make,
            )

            def opener(*arguments):
                self.separate = separate(*arguments)
                return self.separate

            bootstrap = Bootstrap((SERVER,), Node(OURS, OURS))
            return [XdsSource(merge, bootstrap, view, opener, protocol=protocol)]

        self.api = api
        self.bench = Bench(build_source)

    def make(self, server, ears, post, protocol, *, method, announces):
        self.streams.append(Stream(server, ears, post, protocol))
        self.streams[-1].method, self.streams[-1].announces = method, announces
        return self.streams[-1]

    def of(self, plural):
        return [each for each in self.streams if each.method.endswith(plural)]

    def up(self):
        for stream in self.streams:
            stream.ready()
        self.bench.step()

    def answer(self, plural, *resources, version="version_1", at=-1):
        """From the newest stream of a type, with the next nonce of it."""
        stream = self.of(plural)[at]
        self.nonces[stream] = self.nonces.get(stream, 0) + 1
        url = {
            "Listeners": schema.LISTENER,
            "Clusters": schema.CLUSTER,
            "Endpoints": schema.ENDPOINT,
            "Routes": schema.ROUTE,
        }[plural]
        packed = [schema.pack(message(each)) for each in resources]
        if self.api == "v2":
            url = v2.url_of(url)
            for each in packed:
                each.type_url = url
        response = RESPONSE(
            type_url=url, version_info=version, nonce=str(self.nonces[stream]), resources=packed
        )
        stream.answer(response.SerializeToString())
        self.bench.step()

    def serve(self, *names, version="version_1"):
        """Clusters with an endpoint each, and a listener."""
        names = names or ("a",)
        source = {
            "api_config_source": {
                "api_type": "GRPC",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "kato_xds_cluster"}}],
            }
        }
        routes = [build.virtual_host(each, build.route("/", cluster=each), domains=[each]) for each in names]
        self.answer(
            "Listeners",
            build.listener("web", build.route_config("r", *routes), address="127.0.0.1:80"),
            version=version,
        )
        clusters = [build.cluster(each, eds_cluster_config={"eds_config": source}) for each in names]
        self.answer("Clusters", *clusters, version=version)
        self.answer("Endpoints", *(build.endpoints(each, "10.0.0.1:80") for each in names), version=version)


class TestRequests:
    def test_each_type_has_the_stream_of_its_own_service(self):
        plane = Plane()
        plane.up()
        plane.serve()
        assert [each.method for each in plane.streams] == [
            "/envoy.api.v2.ListenerDiscoveryService/StreamListeners",
            "/envoy.api.v2.ClusterDiscoveryService/StreamClusters",
            "/envoy.api.v2.EndpointDiscoveryService/StreamEndpoints",
        ]
        assert [str(one.address) for one in plane.bench.cluster("xds", "a").assignment.endpoints] == [
            "10.0.0.1:80"
        ]
        assert plane.status.state == "ready"

    def test_the_first_of_them_says_when_the_server_is_reached(self):
        plane = Plane()
        plane.up()
        plane.serve()
        assert [each.announces for each in plane.streams] == [True, False, False]
        plane.bench.step(DUE)
        assert [each.announces for each in plane.streams[3:]] == [False, False, False]

    def test_v3_has_its_own_services(self):
        plane = Plane(api="v3")
        plane.up()
        plane.serve()
        assert [each.method for each in plane.streams] == [
            "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners",
            "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
            "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints",
        ]
        assert plane.status.state == "ready"

    def test_delta_has_methods_of_its_own(self):
        plane = Plane(api="v3", protocol="delta")
        plane.up()
        assert [each.method.rpartition("/")[2] for each in plane.streams] == [
            "DeltaListeners",
            "DeltaClusters",
        ]
        first = schema.message(DELTA_REQUEST).FromString(plane.streams[1].written[0])
        assert (first.type_url, first.node.cluster) == (schema.CLUSTER, OURS)

    def test_each_request_has_the_node(self):
        """ST-02, DV-13"""
        plane = Plane()
        plane.up()
        plane.serve()
        for stream in plane.streams:
            assert [request[3] for request in stream.requests] == [OURS, OURS]

    def test_requests_and_answers_are_v2(self):
        plane = Plane()
        plane.up()
        assert [REQUEST.FromString(each.written[0]).type_url for each in plane.streams] == [
            "type.googleapis.com/envoy.api.v2.Listener",
            "type.googleapis.com/envoy.api.v2.Cluster",
        ]

    def test_nothing_is_acknowledged_before_it_is_in_force_and_one_answer_follows_another(self):
        """ST-10: the second answer is handed on when the first was dealt with."""
        plane = Plane()
        plane.up()
        for plural in ("Listeners", "Clusters"):
            stream = plane.of(plural)[0]
            url = v2.url_of(schema.LISTENER if plural == "Listeners" else schema.CLUSTER)
            stream.answer(RESPONSE(type_url=url, version_info="version_1", nonce="1").SerializeToString())
        plane.bench.step()
        assert [each.consumptions for each in plane.streams] == [1, 1]
        assert [each.requests[-1][1:3] for each in plane.streams] == [("version_1", "1")] * 2

    def test_names_that_are_added_are_asked_for_with_an_empty_version(self):
        """A v2 server answers a request of its own version never: whoever adds a name would wait for the next change."""
        plane = Plane()
        plane.up()
        plane.serve("a")
        plane.serve("a", "b", version="version_2")
        (stream,) = plane.of("Endpoints")
        assert [request[:3] for request in stream.requests] == [
            (["a"], "", ""),
            (["a"], "version_1", "1"),
            (["a", "b"], "", "1"),
            (["a", "b"], "", "2"),  # the answer may have been that to "a" alone
        ]
        plane.answer("Endpoints", build.endpoints("a"), build.endpoints("b"), version="version_2")
        assert stream.requests[-1][:3] == (["a", "b"], "version_2", "3")

    def test_an_answer_that_crosses_such_a_request_settles_nothing(self):
        """The server passes over what has an older nonce than its newest."""
        plane = Plane()
        plane.up()
        plane.serve("a")
        plane.answer("Endpoints", build.endpoints("a", "10.0.0.1:80"), version="version_2")
        (stream,) = plane.of("Endpoints")
        assert stream.requests[-1][:3] == (["a"], "version_2", "2")
        plane.serve("a", "b", version="version_3")
        assert [request[:3] for request in stream.requests][-2:] == [
            (["a", "b"], "", "2"),
            (["a", "b"], "", "3"),
        ]

    def test_a_type_of_which_nothing_is_wanted_any_more_loses_its_stream(self):
        """1.4: no names are all names to it."""
        plane = Plane()
        plane.up()
        plane.serve("a")
        plane.answer("Clusters", build.cluster("other", ["10.0.0.9:80"]), version="version_2")
        host = build.virtual_host("o", build.route("/", cluster="other"), domains=["o"])
        plane.answer(
            "Listeners",
            build.listener("web", build.route_config("r", host), address="127.0.0.1:80"),
            version="version_2",
        )
        assert plane.of("Endpoints")[0].cancelled
        plane.serve("a", version="version_3")
        assert plane.of("Endpoints")[-1].requests[0][:3] == (["a"], "", "")

    def test_a_refusal_says_why_and_repeats_no_version(self):
        plane = Plane()
        plane.up()
        plane.answer("Clusters", build.cluster("a", connect_timeout="0s"))
        (names, version, nonce, _, refusal) = plane.of("Clusters")[0].requests[-1]
        assert (names, version, nonce) == ([], "", "1")
        assert "connect_timeout" in refusal


class TestTwoDialectsOfOneAnswer:
    def test_a_source_that_names_a_cluster_is_the_server_it_came_from(self):
        """1.6: it is neither ads nor self. Over an aggregated stream it is refused."""
        for api in ("v2", "v3"):
            plane = Plane(api=api)
            plane.up()
            plane.serve()
            assert plane.status.rejected == ()

    def test_one_that_gives_an_address_is_another_server(self):
        plane = Plane(api="v3")
        plane.up()
        service = {"google_grpc": {"target_uri": "127.0.0.1:1"}}
        source = {"api_config_source": {"api_type": "GRPC", "grpc_services": [service]}}
        plane.answer("Clusters", build.cluster("a", eds_cluster_config={"eds_config": source}))
        (refused,) = plane.status.rejected
        assert "api_config_source" in refused.problems[0]

    def test_what_was_put_right_is_told_and_goes_when_it_is_mended(self):
        plane = Plane()
        plane.up()
        plane.answer("Clusters", build.cluster("a", ["10.0.0.1:80"], connect_timeout="250s"))
        (told,) = [each for each in plane.status.ignored if each.field == "connect_timeout"]
        assert (told.type, told.resource) == ("cluster", "a")
        assert plane.bench.cluster("xds", "a").connect_timeout == 5.0
        plane.answer(
            "Clusters", build.cluster("a", ["10.0.0.1:80"], connect_timeout="3s"), version="version_2"
        )
        assert [each for each in plane.status.ignored if each.field == "connect_timeout"] == []

    def test_bytes_that_are_no_answer_are_told_and_harm_nothing(self):
        """SW-20"""
        plane = Plane()
        plane.up()
        plane.serve()
        plane.of("Clusters")[0].answer(b"\xff\xff")
        plane.bench.step()
        assert "no DiscoveryResponse" in plane.status.last_error
        assert "a" in plane.part.clusters


class TestEnds:
    def test_one_of_several_begins_again_and_the_others_go_on(self):
        plane = Plane(api="v3")
        plane.up()
        plane.serve()
        plane.of("Clusters")[0].end("UNAVAILABLE: gone")
        plane.bench.step()
        assert plane.status.state == "ready"  # ST-05: it had an answer
        plane.bench.step(2)
        assert [len(plane.of(each)) for each in ("Listeners", "Clusters", "Endpoints")] == [1, 2, 1]
        # ST-08: the version is known; the nonce was the other stream's.
        assert plane.of("Clusters")[1].requests == [([], "version_1", "", OURS, "")]
        plane.answer("Clusters", build.cluster("b", ["10.0.0.2:80"]), version="version_2")
        assert plane.of("Clusters")[1].requests[-1][1:3] == ("version_2", "1")
        assert "b" in plane.part.clusters

    def test_one_that_never_has_an_answer_is_tried_ever_later_and_told(self):
        """ST-04"""
        plane = Plane(api="v3")
        plane.up()
        plane.serve()
        begun = []
        for _ in range(4):
            plane.of("Clusters")[-1].end("INTERNAL: no")
            plane.bench.step()
            at = plane.bench.clock.now()
            count = len(plane.of("Clusters"))
            while len(plane.of("Clusters")) == count:
                plane.bench.step(0.1)
            begun.append(plane.bench.clock.now() - at)
        assert begun == pytest.approx([0.8, 1.3, 2.1, 3.3], abs=0.11)
        assert (
            plane.status.last_error
            == "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters: INTERNAL: no"
        )
        assert plane.status.state == "stale"
        plane.answer("Clusters", build.cluster("b", ["10.0.0.2:80"]))
        assert (plane.status.state, plane.status.last_error) == ("ready", "")

    def test_what_was_refused_before_is_not_refused_on_the_next(self):
        """The refusal was of another stream's response."""
        plane = Plane(api="v3")
        plane.up()
        plane.answer("Clusters", build.cluster("a", connect_timeout="0s"))
        assert plane.of("Clusters")[0].requests[-1][4]
        plane.of("Clusters")[0].end("UNAVAILABLE: gone")
        plane.bench.step(2)
        assert plane.of("Clusters")[1].requests == [([], "", "", OURS, "")]

    def test_a_server_that_has_no_service_of_a_type_and_answered_nothing(self):
        plane = Plane(api="v3")
        plane.up()
        plane.of("Listeners")[0].end("UNIMPLEMENTED: unknown service", unimplemented=True)
        plane.bench.step()
        assert all(each.cancelled for each in plane.streams)
        assert plane.status.state == "failed"
        assert "ListenerDiscoveryService/StreamListeners: UNIMPLEMENTED" in plane.status.last_error

    def test_a_service_that_is_not_there_is_told_and_asked_no_more(self):
        plane = Plane(api="v3")
        plane.up()
        plane.answer("Listeners", build.listener("web", "r", address="127.0.0.1:80"))
        (routes,) = plane.of("Routes")
        routes.end("UNIMPLEMENTED: unknown service", unimplemented=True)
        plane.bench.step(300)
        assert len(plane.of("Routes")) == 1
        assert "RouteDiscoveryService/StreamRoutes: UNIMPLEMENTED" in plane.status.last_error

    @pytest.mark.parametrize("protocol", ["sotw", "delta"])
    def test_a_server_without_secrets_serves_what_it_has(self, protocol):
        """SD-01: it may have known nothing of them as long as nobody asked."""
        plane = Plane(api="v3", protocol=protocol)
        plane.up()
        make = delta_response if protocol == "delta" else response
        for short, plural, resource in (
            ("listener", "Listeners", build.listener("web", "r", address="127.0.0.1:80")),
            ("cluster", "Clusters", demanding("c")),
        ):
            plane.of(plural)[0].answer(make(short, resource))
            plane.bench.step()
        (secrets,) = plane.of("Secrets")
        secrets.end("UNIMPLEMENTED: unknown service", unimplemented=True)
        plane.bench.step(300)
        assert len(plane.of("Secrets")) == 1
        assert not any(each.cancelled for each in plane.of("Clusters"))
        assert (plane.status.state, plane.status.last_error) == ("ready", "")
        (told,) = [each for each in plane.status.ignored if each.type == "secret"]
        assert (told.field.rpartition("/")[2].endswith("Secrets"), told.value) == (
            True,
            "UNIMPLEMENTED: unknown service",
        )
        assert "does not exist" in plane.part.clusters["c"].tls.lacking
        # The next time secrets are asked for at once, and may be the first to be answered.
        for stream in plane.streams:
            stream.end("UNAVAILABLE: gone")
        plane.bench.step(3)
        plane.up()
        plane.of("Secrets")[1].end("UNIMPLEMENTED: unknown service", unimplemented=True)
        plane.bench.step()
        assert not plane.of("Listeners")[-1].cancelled
        assert "Delta" in plane.of("Listeners")[-1].method or protocol == "sotw"

    def test_the_last_one_ends_all_and_the_source_tries_again(self):
        plane = Plane()
        plane.up()
        plane.serve()
        for stream in plane.streams:
            stream.end("UNAVAILABLE: gone")
        plane.bench.step()
        assert len(plane.streams) == 3
        plane.bench.step(2)
        plane.up()
        assert [each.requests[0][:3] for each in plane.streams[3:]] == [
            ([], "", ""),
            ([], "", ""),
            (["a"], "", ""),
        ]
        assert "a" in plane.part.clusters

    def test_a_server_that_cannot_be_reached(self):
        plane = Plane()
        plane.streams[0].end("UNAVAILABLE: refused")
        plane.bench.step()
        assert plane.status.state == "failed"
        assert plane.status.last_error.endswith("StreamListeners: UNAVAILABLE: refused")
        assert plane.part.unreached

    def test_of_deltas_one_end_ends_all(self):
        """What a stream knows is the session's: it is asked for whole, on new streams."""
        plane = Plane(api="v3", protocol="delta")
        plane.up()
        plane.of("DeltaClusters")[0].end("UNAVAILABLE: gone")
        plane.bench.step()
        assert all(each.cancelled for each in plane.streams)

    def test_a_server_without_delta_is_asked_for_state_of_the_world(self):
        from meshlib.sources import protocol

        plane = Plane(api="v3", protocol="auto")
        try:
            plane.of("DeltaListeners")[0].end("UNIMPLEMENTED", unimplemented=True)
            plane.bench.step()
            assert plane.streams[-1].method.endswith("StreamListeners")
        finally:
            protocol._without_delta.discard(SERVER.uri)

    def test_when_the_mesh_is_closed_every_stream_is(self):
        plane = Plane()
        plane.up()
        plane.serve()
        plane.bench.merge.stop()
        assert all(each.cancelled for each in plane.streams)
        count = len(plane.streams)
        plane.bench.step(300)
        assert len(plane.streams) == count


class TestSilence:
    """A v2 server that does not know a node says nothing; a watch can be lost without an end of its stream."""

    def test_a_node_that_the_server_does_not_know_is_told_within_90_seconds(self):
        plane = Plane()
        plane.up()
        assert plane.status.state == "connecting"
        plane.bench.step(PATIENCE)
        assert plane.status.state == "failed"
        assert f'does not know node.cluster "{OURS}"' in plane.status.last_error
        assert "StreamListeners, /envoy" in plane.status.last_error
        assert plane.part.unreached

    def test_what_is_wanted_no_more_may_be_silent(self):
        plane = Plane()
        plane.up()
        plane.serve()
        plane.serve("a", "b", version="version_2")
        plane.bench.step(PATIENCE)
        assert "StreamEndpoints" in plane.status.last_error
        for plural, resources in (
            ("Clusters", [build.cluster("other", ["10.0.0.9:80"])]),
            (
                "Listeners",
                [
                    build.listener(
                        "web",
                        build.route_config("r", build.virtual_host("o", build.route("/", cluster="other"))),
                    )
                ],
            ),
        ):
            plane.answer(plural, *resources, version="version_3")
        assert plane.of("Endpoints")[-1].cancelled
        assert (plane.status.state, plane.status.last_error) == ("ready", "")

    def test_secrets_are_silent_in_any_case(self):
        """Kato serves their stream, and has none."""
        plane = Plane()
        plane.up()
        plane.serve()
        plane.answer("Clusters", demanding("a"), version="version_2")
        assert plane.of("Secrets")
        plane.bench.step(PATIENCE)
        assert (plane.status.state, plane.status.last_error) == ("ready", "")

    def test_it_is_answered_when_the_server_comes_to_know_it(self):
        plane = Plane()
        plane.up()
        plane.bench.step(PATIENCE)
        plane.serve()
        assert (plane.status.state, plane.status.last_error) == ("ready", "")

    def test_a_watch_that_was_lost_is_noticed_within_90_seconds(self):
        plane = Plane()
        plane.up()
        plane.serve()
        plane.bench.step(90 - 0.1)
        assert plane.status.state == "stale"
        assert "node.cluster" in plane.status.last_error
        assert "a" in plane.part.clusters  # CA-01: what was there serves

    def test_a_stream_is_replaced_when_it_is_old_with_an_empty_version(self):
        """1.4: numbers of versions come again, and mean another state."""
        plane = Plane()
        plane.up()
        plane.serve()
        plane.bench.step(DUE)
        for plural, names in (("Listeners", []), ("Clusters", []), ("Endpoints", ["a"])):
            old, new = plane.of(plural)
            assert old.cancelled
            assert new.requests == [(names, "", "", OURS, "")]
        plane.serve("a", "b")  # under the same version
        assert set(plane.part.clusters) == {"a", "b"}
        assert plane.status.state == "ready"

    def test_all_are_replaced_at_once_also_those_that_are_younger(self):
        """A listener names clusters: who asked for one of them much later than for the others had routes that lead nowhere."""
        plane = Plane()
        plane.up()
        plane.bench.step(DUE - 10)
        plane.serve()
        plane.bench.step(10)
        assert [len(plane.of(each)) for each in ("Listeners", "Clusters", "Endpoints")] == [2, 2, 2]
        plane.bench.step(DUE - 0.1)
        assert [len(plane.of(each)) for each in ("Listeners", "Clusters", "Endpoints")] == [2, 2, 2]

    def test_what_an_old_stream_says_after_that_counts_for_nothing(self):
        plane = Plane()
        plane.up()
        plane.serve()
        plane.bench.step(DUE)
        plane.answer("Clusters", build.cluster("gone", ["10.0.0.1:80"]), at=0, version="version_9")
        plane.of("Clusters")[0].end("CANCELLED")
        plane.bench.step()
        assert set(plane.part.clusters) == {"a"}
        assert len(plane.of("Clusters")) == 2

    def test_what_waited_its_turn_when_its_stream_was_replaced_counts_for_nothing(self):
        plane = Plane()
        plane.up()
        plane.serve()
        streams = plane.separate
        for plural, url in (("Listeners", schema.LISTENER), ("Clusters", schema.CLUSTER)):
            old = v2.url_of(url)
            plane.of(plural)[0].answer(
                RESPONSE(type_url=old, version_info="version_9", nonce="9").SerializeToString()
            )
        plane.bench.worker.post(lambda: streams._replace(streams._watches[schema.CLUSTER]))
        plane.bench.step()
        assert "a" in plane.part.clusters
        assert plane.status.versions["cluster"] == "version_1"
        assert plane.status.versions["listener"] == "version_9"

    def test_v3_streams_live_on_and_may_be_silent(self):
        plane = Plane(api="v3")
        plane.up()
        plane.serve()
        plane.bench.step(10 * AGE)
        assert len(plane.streams) == 3
        assert plane.status.state == "ready"


class TestTargetView:
    def test_a_listener_is_asked_for_by_name(self):
        plane = Plane(api="v3", view="target")
        plane.up()
        assert plane.streams[0].written == []
        plane.want("reviews")
        assert plane.streams[0].requests == [(["reviews"], "", "", OURS, "")]
