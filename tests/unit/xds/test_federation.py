"""Several control planes as one session: federation (FE, BS-12) and fallback (FB)."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.model.snapshot import Fate
from meshlib.testing import build
from meshlib.xds import last_good, schema
from meshlib.xds.bootstrap import Authority, Bootstrap, Channel, Feature, Server
from meshlib.xds.elsewhere import MOST
from meshlib.xds.session import Session
from tests.support.xds_kit import NODE, WRAPPER, packed, raw, read, response

FIRST, SECOND, THIRD = (Server(f"127.0.0.1:{port}") for port in (1, 2, 3))
KINDS = ("listener", "route", "cluster", "endpoint")


def resources(name, server, cluster=None):
    """What a target needs, with marks of the server: its virtual host is named after it, its endpoint's port is its number."""
    cluster = cluster or f"c-{name}"
    host = build.virtual_host(f"of {server}", build.route("/", cluster=cluster), domains=["*"])
    return {
        "listener": build.api_listener(name, f"r-{name}"),
        "route": build.route_config(f"r-{name}", host),
        "cluster": build.cluster(cluster),
        "endpoint": build.endpoints(cluster, f"10.0.0.1:{server + 1}"),
    }


class Planes:
    """A session, and what its servers do."""

    def __init__(self, *servers, view="target", **bootstrap):
        self.now = 0.0
        self.session = Session(
            NODE, view=view, jitter=lambda: 0.5, bootstrap=Bootstrap(servers or (FIRST, SECOND), **bootstrap)
        )
        self.nonce = 0
        self.asked = {}

    def want(self, *names):
        for name in names:
            self.session.want(name, now=self.now)

    def up(self, at):
        self.session.opened(self.now, at)
        self.flush(at)

    def flush(self, at):
        for short, names, *_ in read(self.session.outgoing(self.now, at)):
            self.asked[at, short] = names

    def send(self, at, short, *given):
        self.nonce += 1
        self.session.received(response(short, *given, nonce=f"n{self.nonce}"), self.now, at)
        for each in self.session.open:
            self.flush(each)

    def serve(self, at, *names, **options):
        """Everything of these targets, in order."""
        made = [resources(name, at, **options) for name in names]
        for short in KINDS:
            self.send(at, short, *(each[short] for each in made))

    def down(self, at, error="refused"):
        return self.session.closed(self.now, error, at)

    def wait(self, seconds):
        self.now += seconds
        self.session.tick(self.now)

    @property
    def open(self):
        return set(self.session.open)

    def server_of(self, name):
        """The server whose data serve a target; None: nobody's. Raises AssertionError where it is not one server's."""
        for part in self.session.parts:
            listener = part.targets.get(name)
            routes = listener.http.routes if listener is not None else None
            if routes is None:
                continue
            (host,) = routes.virtual_hosts
            cluster = part.clusters.get(host.routes[0].action.cluster)
            marks = {host.name}
            if cluster is not None and cluster.assignment is not None:
                marks |= {f"of {each.address.port - 1}" for each in cluster.assignment.endpoints}
            assert len(marks) == 1, marks
            return int(host.name.removeprefix("of "))
        return None


class TestFallback:
    def test_who_has_everything_stays(self):
        """FB-01: the first server goes, and all that is wanted is known."""
        planes = Planes()
        planes.want("x")
        planes.up(0)
        planes.serve(0, "x")
        planes.down(0, "")
        planes.down(0)
        assert planes.open == {0}
        assert planes.server_of("x") == 0

    def test_a_secret_that_has_not_come_moves_nobody(self):
        """FB-01: no other server is asked because of it; that it is waited for is told."""
        planes = Planes(view="auto")
        planes.want("x")
        planes.up(0)
        planes.serve(0, "x")
        config = {"name": "s", "sds_config": {"ads": {}}}
        context = {"common_tls_context": {"validation_context_sds_secret_config": config}}
        kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        socket = {"name": "tls", "typed_config": build.any_of(kind, context)}
        planes.send(0, "cluster", build.cluster("c-x", transport_socket=socket))
        assert planes.asked[0, "secret"] == ["s"]
        assert planes.session.status(0.0).waiting == ("secret s",)
        assert planes.session.complete
        planes.down(0, "")
        planes.down(0)
        assert planes.open == {0}

    def test_a_start_without_the_first_server(self):
        """FB-01, FB-02: everything is asked of the second."""
        planes = Planes()
        planes.want("x", "y")
        planes.down(0)
        assert planes.open == {0, 1}
        planes.up(1)
        assert planes.asked[1, "listener"] == ["x", "y"]
        planes.serve(1, "x", "y")
        assert (planes.server_of("x"), planes.server_of("y")) == (1, 1)
        assert planes.session.complete

    def test_a_new_name_while_the_first_is_away_moves_no_other(self):
        """FB-04, FB-05"""
        planes = Planes()
        planes.want("x")
        planes.up(0)
        planes.serve(0, "x")
        planes.down(0)
        planes.down(0)
        planes.want("y")
        assert planes.open == {0, 1}
        planes.up(1)
        planes.serve(1, "x", "y")
        assert (planes.server_of("x"), planes.server_of("y")) == (0, 1)

    def test_two_servers_clusters_of_one_name_stay_apart(self):
        planes = Planes()
        planes.want("x")
        planes.up(0)
        planes.serve(0, "x", cluster="shared")
        planes.down(0)
        planes.down(0)
        planes.want("y")
        planes.up(1)
        planes.serve(1, "x", "y", cluster="shared")
        assert (planes.server_of("x"), planes.server_of("y")) == (0, 1)

    def test_what_the_first_server_has_not_is_known(self):
        """FB-07"""
        planes = Planes()
        planes.want("x")
        planes.up(0)
        planes.send(0, "listener")
        planes.wait(15.0)
        assert planes.session.part.absent["x"].fate is Fate.ABSENT
        planes.down(0, "")
        planes.down(0)
        assert planes.open == {0}

    def test_three_servers_step_by_step(self):
        """FB-04"""
        planes = Planes(FIRST, SECOND, THIRD)
        planes.want("x")
        planes.down(0)
        assert planes.open == {0, 1}
        planes.down(1)
        assert planes.open == {0, 1, 2}
        planes.up(2)
        planes.serve(2, "x")
        assert planes.server_of("x") == 2
        planes.up(1)
        planes.send(1, "listener", resources("x", 1)["listener"])
        assert planes.open == {0, 1}  # who is better answers: the third is closed
        assert planes.server_of("x") == 2  # and serves until the second has all of it
        for short in KINDS[1:]:
            planes.send(1, short, resources("x", 1)[short])
        assert planes.server_of("x") == 1

    def test_the_first_server_wins_when_it_is_back(self):
        """FB-02"""
        planes = Planes()
        planes.want("x")
        planes.down(0)
        planes.up(1)
        planes.serve(1, "x")
        planes.up(0)
        planes.send(0, "listener", resources("x", 0)["listener"])
        assert planes.open == {0}
        assert planes.server_of("x") == 1
        for short in KINDS[1:]:
            planes.send(0, short, resources("x", 0)[short])
        assert planes.server_of("x") == 0
        assert len(planes.session.parts) == 1

    def test_what_the_first_server_does_not_have_when_it_is_back_is_gone(self):
        """FB-02, FB-07: its data wins, also where that is none."""
        planes = Planes()
        planes.want("x")
        planes.down(0)
        planes.up(1)
        planes.serve(1, "x")
        planes.up(0)
        planes.send(0, "listener")
        assert planes.server_of("x") == 1
        planes.wait(15.0)
        assert planes.server_of("x") is None
        assert planes.session.part.absent["x"].fate is Fate.ABSENT

    def test_one_that_comes_back_and_goes_again_takes_nothing_away(self):
        planes = Planes()
        planes.want("x")
        planes.down(0)
        planes.up(1)
        planes.serve(1, "x")
        planes.up(0)
        planes.send(0, "listener", resources("x", 0)["listener"])
        planes.down(0, "")
        planes.down(0)
        assert planes.open == {0, 1}
        assert planes.server_of("x") == 1

    def test_an_outage_is_one_only_without_a_server_behind(self):
        """FB-03"""
        planes = Planes()
        planes.want("x")
        planes.down(0)
        assert planes.session.relied_on("x") == 1
        assert not planes.session.relies_on(0)
        planes.down(1)
        assert planes.session.relies_on(1)

    def test_an_unfinished_update_keeps_what_was_whole(self):
        planes = Planes()
        planes.want("x")
        planes.up(0)
        planes.serve(0, "x")
        planes.send(0, "route", resources("x", 0, cluster="new")["route"])
        planes.down(0, "")
        planes.down(0)
        assert planes.open == {0, 1}  # FB-01: the new cluster is not known
        planes.up(1)
        assert planes.server_of("x") == 0

    def test_listeners_made_for_an_envoy_come_of_one_server(self):
        planes = Planes(view="sidecar")
        planes.down(0)
        planes.up(1)
        route = build.route_config("r", build.virtual_host("v", build.route("/", cluster="c"), domains=["*"]))
        planes.send(1, "cluster", build.cluster("c"))
        planes.send(1, "endpoint", build.endpoints("c", "10.0.0.1:2"))
        planes.send(1, "listener", build.listener("second", route, address="127.0.0.1:80"))
        first, more = planes.session.parts
        assert (first.sidecar, first.listed, set(first.clusters)) == ((), True, set())
        assert ([each.name for each in more.sidecar], set(more.clusters)) == (["second"], {"c"})
        planes.up(0)
        planes.send(0, "listener", build.listener("first", route, address="127.0.0.1:80"))
        assert [part.source for part in planes.session.parts if part.sidecar] == [more.source]
        planes.send(0, "cluster", build.cluster("c"))
        planes.send(0, "endpoint", build.endpoints("c", "10.0.0.1:1"))
        (only,) = planes.session.parts
        assert [each.name for each in only.sidecar] == ["first"]

    def test_where_to_be_unreachable_is_enough_who_can_be_reached_serves(self):
        """FB-06"""
        authority = Authority((FIRST, SECOND), "xdstp://a/envoy.config.listener.v3.Listener/%s", eager=True)
        name = "xdstp://a/envoy.config.listener.v3.Listener/x"
        planes = Planes(FIRST, SECOND, authorities={"a": authority})
        planes.want(name)
        planes.up(0)
        self._serve(planes, 0, name)
        planes.down(0, "")
        planes.down(0)
        assert planes.open == {0, 1}
        assert planes.server_of(name) == 0
        planes.up(1)
        self._serve(planes, 1, name)
        assert planes.server_of(name) == 1

    @staticmethod
    def _serve(planes, at, name):
        host = build.virtual_host(f"of {at}", build.route("/", cluster="c"), domains=["*"])
        planes.send(at, "listener", build.api_listener(name, build.route_config("r", host)))


def xdstp(authority, kind, identity):
    types = {
        "listener": "envoy.config.listener.v3.Listener",
        "route": "envoy.config.route.v3.RouteConfiguration",
        "cluster": "envoy.config.cluster.v3.Cluster",
        "endpoint": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    }
    return f"xdstp://{authority}/{types[kind]}/{identity}"


def authority(name, *servers):
    return Authority(servers or (FIRST,), f"xdstp://{name}/envoy.config.listener.v3.Listener/%s")


class TestFederation:
    two: ClassVar = {"a": authority("a", FIRST), "b": authority("b", SECOND)}

    def test_who_is_asked_follows_from_the_name(self):
        planes = Planes(FIRST, authorities=self.two)
        assert planes.open == {0}
        planes.want("plain", xdstp("b", "listener", "x"))
        assert planes.open == {0, 1}
        planes.up(0)
        planes.up(1)
        assert planes.asked == {(0, "listener"): ["plain"], (1, "listener"): [xdstp("b", "listener", "x")]}
        planes.session.forget(xdstp("b", "listener", "x"))
        assert planes.open == {0}

    def test_load_is_reported_to_the_server_of_a_cluster(self):
        """LR-01: also of one that an earlier process kept."""
        name = xdstp("b", "cluster", "x")
        asks = {"lrs_server": {"self": {}}}
        made = [build.cluster(each, ["10.0.0.1:80"], **asks) for each in ("plain", name)]
        kept = tuple(last_good.Kept("cluster", each["name"], "1", raw(each)) for each in made)
        contents = last_good.Contents({}, frozenset(), {"cluster": "1"}, kept)
        held = last_good.decode(b"".join(last_good.encode("me", "", 1.0, {"target": contents})))
        bootstrap = Bootstrap((FIRST,), authorities=self.two)
        session = Session(NODE, view="target", jitter=lambda: 0.5, bootstrap=bootstrap, load_reports=True)
        assert session.restore(held, 0.0)[1] == []
        found = {
            at: [each.value.load_report.server for each in session.cache_of(at).entries("cluster")]
            for at in (0, 1)
        }
        assert found == {0: [FIRST.uri], 1: [SECOND.uri]}

    def test_authorities_of_one_server_share_its_stream(self):
        """BS-12"""
        same = Server(FIRST.uri, features=frozenset())
        other = Server(FIRST.uri, features=frozenset({Feature.TRUSTED_XDS_SERVER}))
        planes = Planes(FIRST, authorities={"a": authority("a", same), "b": authority("b", other)})
        assert planes.session.servers == (FIRST, other)
        planes.want("plain", xdstp("a", "listener", "x"))
        assert planes.open == {0}
        planes.want(xdstp("b", "listener", "x"))
        assert planes.open == {0, 1}

    def test_an_authority_that_is_not_there_is_an_error_of_that_name_only(self):
        """FE-02"""
        planes = Planes(FIRST)
        wrong = xdstp("nobody", "listener", "x")
        planes.want(wrong, "plain")
        planes.up(0)
        assert planes.asked == {(0, "listener"): ["plain"]}
        absence = planes.session.part.absent[wrong]
        assert absence.fate is Fate.UNUSABLE
        assert "'nobody', which the xDS bootstrap does not have" in absence.why
        assert [each.resource for each in planes.session.status(0.0).rejected] == [wrong]
        planes.serve(0, "plain")
        assert planes.server_of("plain") == 0

    def test_a_name_of_another_type_is_one_too(self):
        """FE-02"""
        planes = Planes(FIRST, authorities=self.two)
        wrong = xdstp("b", "cluster", "x")
        planes.want(wrong)
        assert planes.open <= {0}
        assert "names a resource of type" in planes.session.part.absent[wrong].why

    @pytest.mark.parametrize("view", ["sidecar", "auto"])
    def test_an_envoy_asks_its_own_server_for_authorities_that_nobody_knows(self, view):
        planes = Planes(FIRST, view=view)
        planes.up(0)
        cluster = xdstp("nobody", "cluster", "c")
        planes.send(0, "cluster", build.cluster(cluster, service_name=xdstp("nobody", "endpoint", "e")))
        assert planes.asked[0, "endpoint"] == [xdstp("nobody", "endpoint", "e")]
        assert planes.session.status(0.0).rejected == ()

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_one_name_in_two_spellings_is_one_resource(self, wrapped):
        """FE-01: wanted, sent and named in different orders of its parameters."""
        planes = Planes(FIRST, authorities=self.two)
        spelled = "a=1&b=2", "b=2&a=1"
        listener, route, cluster, ends = (
            [xdstp("a", kind, f"x?{each}") for each in spelled] for kind in KINDS
        )
        planes.want(listener[1])
        planes.up(0)
        assert planes.asked[0, "listener"] == [listener[0]]
        host = build.virtual_host("of 0", build.route("/", cluster=cluster[1]), domains=["*"])
        for short, made in (
            ("listener", build.api_listener(listener[1], route[1])),
            ("route", build.route_config(route[1], host)),
            ("cluster", build.cluster(cluster[1], service_name=ends[1])),
            ("endpoint", build.endpoints(ends[1], "10.0.0.1:1")),
        ):
            name = made.get("name") or made["cluster_name"]
            planes.send(0, short, schema.pack(WRAPPER(name=name, resource=packed(made))) if wrapped else made)
        assert planes.asked[0, "endpoint"] == [ends[0]]
        assert planes.session.waiting() == ()
        assert planes.server_of(listener[0]) == 0

    def test_what_a_source_names_comes_from_the_server_that_named_it(self):
        """FE-04: self and ads; a name of another authority is that one's all the same."""
        planes = Planes(FIRST, authorities=self.two)
        listener, route = xdstp("b", "listener", "x"), xdstp("b", "route", "r")
        planes.want(listener)
        second = planes.session.servers.index(SECOND)
        planes.up(second)
        planes.send(second, "listener", build.api_listener(listener, route))
        assert planes.asked[second, "route"] == [route]
        assert planes.open == {second}

    def test_a_wildcard_does_not_bring_what_another_authority_has(self):
        planes = Planes(FIRST, authorities=self.two, view="sidecar")
        cluster, ends = xdstp("b", "cluster", "c"), xdstp("b", "endpoint", "e")
        host = build.virtual_host("v", build.route("/", cluster=cluster), domains=["*"])
        planes.up(0)
        planes.send(0, "cluster")
        planes.send(0, "listener", build.listener("l", build.route_config("r", host), address="127.0.0.1:80"))
        second = planes.session.servers.index(SECOND)
        assert planes.open == {0, second}
        planes.up(second)
        assert planes.asked[second, "cluster"] == [cluster]
        planes.send(second, "cluster", build.cluster(cluster, service_name=ends))
        planes.send(second, "endpoint", build.endpoints(ends, "10.0.0.1:1"))
        assert planes.session.part.clusters[cluster].assignment.endpoints

    def test_a_listener_may_name_what_another_authority_has(self):
        planes = Planes(FIRST, authorities=self.two)
        route, cluster, ends = (
            xdstp("b", "route", "r"),
            xdstp("a", "cluster", "c"),
            xdstp("b", "endpoint", "e"),
        )
        planes.want("x")
        planes.up(0)
        planes.send(0, "listener", build.api_listener("x", route))
        assert planes.open == {0, 1}
        planes.up(1)
        assert planes.asked[1, "route"] == [route]
        host = build.virtual_host("of 0", build.route("/", cluster=cluster), domains=["*"])
        planes.send(1, "route", build.route_config(route, host))
        assert planes.asked[0, "cluster"] == [cluster]
        planes.send(0, "cluster", build.cluster(cluster, service_name=ends))
        planes.send(1, "endpoint", build.endpoints(ends, "10.0.0.1:1"))
        assert planes.server_of("x") == 0
        assert planes.session.waiting() == ()

    def test_an_outage_of_one_authority_moves_no_other(self):
        """FB-05"""
        lists = {"a": authority("a", FIRST, THIRD), "b": authority("b", SECOND, THIRD)}
        planes = Planes(FIRST, authorities=lists)
        first, second, third = map(planes.session.servers.index, (FIRST, SECOND, THIRD))
        mine, others = xdstp("a", "listener", "x"), xdstp("b", "listener", "x")
        planes.want(mine, others)
        planes.up(first)
        host = build.virtual_host("of 0", build.route("/", cluster="c"), domains=["*"])
        planes.send(first, "listener", build.api_listener(mine, build.route_config("r", host)))
        planes.down(second)
        assert planes.open == {first, second, third}
        planes.up(third)
        assert planes.asked[third, "listener"] == [others]
        planes.down(third)
        assert planes.session.part.absent[others].fate is Fate.UNANSWERED
        assert THIRD.uri in planes.session.part.absent[others].why
        assert set(planes.session.part.targets) == {mine}


class TestLastGood:
    """CA-10: what an earlier process left, where there are several servers."""

    @pytest.fixture
    def left(self):
        """A file of a process that had ``x`` from the first server."""
        planes = Planes()
        planes.want("x")
        planes.up(0)
        planes.serve(0, "x")
        contents = planes.session.contents()
        return last_good.decode(b"".join(last_good.encode("me", "s", 1.0, {"target": contents})))

    def restored(self, left):
        planes = Planes()
        found, refused = planes.session.restore(left, 0.0)
        assert (set(found), refused) == (set(KINDS), [])
        planes.want("x")
        return planes

    def test_it_serves_until_a_server_answers(self, left):
        planes = self.restored(left)
        assert planes.server_of("x") == 0
        planes.down(0)
        assert planes.open == {0, 1}  # it is no answer
        planes.down(1)
        assert planes.server_of("x") == 0

    def test_any_answer_is_better(self, left):
        planes = self.restored(left)
        planes.down(0)
        planes.up(1)
        planes.send(1, "listener", resources("x", 1)["listener"])
        assert planes.server_of("x") == 0
        for short in KINDS[1:]:
            planes.send(1, short, resources("x", 1)[short])
        assert planes.server_of("x") == 1

    def test_what_a_server_in_reserve_gave_is_not_kept(self):
        planes = Planes()
        planes.want("x")
        planes.down(0)
        planes.up(1)
        planes.serve(1, "x")
        assert planes.session.contents() is None
        planes.up(0)
        planes.serve(0, "x")
        assert {kept.name for kept in planes.session.contents().resources} == {"x", "r-x", "c-x"}

    def test_each_resource_goes_to_the_server_of_its_authority(self):
        lists = {"b": authority("b", SECOND)}
        name, cluster = xdstp("b", "listener", "x"), xdstp("b", "cluster", "c")
        ends = xdstp("b", "endpoint", "e")
        host = build.virtual_host("of 0", build.route("/", cluster=cluster), domains=["*"])
        given = {
            "listener": build.api_listener(name, build.route_config("r", host)),
            "cluster": build.cluster(cluster, service_name=ends),
            "endpoint": build.endpoints(ends, "10.0.0.1:1"),
        }
        planes = Planes(FIRST, authorities=lists)
        planes.want(name)
        planes.up(1)
        for short, made in given.items():
            planes.send(1, short, made)
        contents = planes.session.contents()
        left = last_good.decode(b"".join(last_good.encode("me", "s", 1.0, {"target": contents})))
        again = Planes(FIRST, authorities=lists)
        again.session.restore(left, 0.0)
        again.want(name)
        assert set(again.session.held(1)["listener"]) == {name}
        assert again.server_of(name) == 0


class TestElsewhere:
    """A102: a resource that says which server what it names comes from."""

    AT: ClassVar = "127.0.0.1:9"

    def planes(self, *features, view="target", services=(), **more):
        first = Server("127.0.0.1:1", features=frozenset(features))
        return Planes(first, view=view, services={target: Channel() for target in services}, **more)

    def cluster(self, **service):
        held = {"google_grpc": {"target_uri": self.AT}} | service
        source = {"api_config_source": {"api_type": "DELTA_GRPC", "grpc_services": [held]}}
        return build.cluster("c", eds_cluster_config={"eds_config": source})

    def listener(self):
        host = build.virtual_host("of 0", build.route("/", cluster="c"), domains=["*"])
        return build.api_listener("x", build.route_config("r", host))

    @pytest.mark.parametrize("view", ["target", "sidecar"])
    def test_one_that_is_allowed_is_asked_for_that_resource_alone(self, view):
        planes = self.planes(services=[self.AT], view=view)
        planes.want("x")
        planes.up(0)
        if view == "target":
            planes.send(0, "listener", self.listener())
        planes.send(0, "cluster", self.cluster())
        assert planes.session.servers[1] == Server(self.AT)
        assert planes.open == {0, 1}
        assert planes.session.method(1) == ""
        planes.up(1)
        assert planes.asked[1, "endpoint"] == ["c"]
        assert (0, "endpoint") not in planes.asked
        planes.send(1, "endpoint", build.endpoints("c", "10.0.0.1:1"))
        assert planes.session.part.clusters["c"].assignment.endpoints
        assert planes.session.waiting() == ()
        planes.send(0, "cluster", build.cluster("c"))
        assert planes.open == {0}
        assert planes.asked[0, "endpoint"] == ["c"]

    def test_one_that_is_not_refuses_the_resource(self):
        planes = self.planes()
        planes.want("x")
        planes.up(0)
        planes.send(0, "listener", self.listener())
        planes.send(0, "cluster", self.cluster())
        (refused,) = planes.session.status(0.0).rejected
        assert refused.resource == "c"
        assert (
            "api_config_source.grpc_services[0].google_grpc: 127.0.0.1:9 is not among" in refused.problems[0]
        )
        assert planes.session.servers == (planes.session.servers[0],)

    def test_a_trusted_server_says_how_and_with_what(self):
        planes = self.planes(Feature.TRUSTED_XDS_SERVER)
        planes.want("x")
        planes.up(0)
        planes.send(0, "listener", self.listener())
        said = [{"key": "x-tenant", "value": "shop"}]
        planes.send(0, "cluster", self.cluster(initial_metadata=said))
        assert planes.session.servers[1] == Server(self.AT, metadata=(("x-tenant", "shop"),))

    def test_one_that_is_not_trusted_says_nothing_of_metadata(self):
        planes = self.planes(services=[self.AT])
        planes.want("x")
        planes.up(0)
        planes.send(0, "listener", self.listener())
        planes.send(0, "cluster", self.cluster(initial_metadata=[{"key": "x-tenant", "value": "shop"}]))
        assert planes.session.servers[1].metadata == ()

    @pytest.mark.parametrize(
        ("service", "words"),
        [
            ({"google_grpc": {"target_uri": AT, "channel_credentials": {}}}, "are not supported"),
            ({"initial_metadata": [{"key": "grpc-timeout", "value": "1S"}]}, "cannot be sent"),
            ({"initial_metadata": [{"key": "a", "value": "b\n"}]}, "cannot be sent"),
            ({"google_grpc": {}}, "with a target_uri"),
        ],
    )
    def test_what_a_trusted_server_says_and_cannot_be_done_refuses_the_resource(self, service, words):
        planes = self.planes(Feature.TRUSTED_XDS_SERVER)
        planes.want("x")
        planes.up(0)
        planes.send(0, "listener", self.listener())
        planes.send(0, "cluster", self.cluster(**service))
        (refused,) = planes.session.status(0.0).rejected
        assert words in refused.problems[0]

    def test_a_resource_that_is_refused_moves_nothing(self):
        planes = self.planes(services=[self.AT])
        planes.want("x")
        planes.up(0)
        planes.send(0, "listener", self.listener())
        planes.send(0, "cluster", {**self.cluster(), "connect_timeout": "-1s"})
        assert planes.open == {0}

    def secret(self, name="s"):
        """A cluster that names a secret of another server."""
        held = {"google_grpc": {"target_uri": self.AT, "stat_prefix": "x"}}
        config = {
            "name": name,
            "sds_config": {"api_config_source": {"api_type": "GRPC", "grpc_services": [held]}},
        }
        context = {"common_tls_context": {"tls_certificate_sds_secret_configs": [config]}}
        kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        socket = {"name": "tls", "typed_config": build.any_of(kind, context)}
        return build.cluster("c", ["10.0.0.1:1"], transport_socket=socket)

    def test_a_secret_comes_from_there(self):
        """SD-01: it is asked for that alone, and the cluster waits for it as for one of the control plane's own."""
        planes = self.planes(services=[self.AT], view="sidecar")
        planes.up(0)
        planes.send(0, "cluster", self.secret())
        assert planes.open == {0, 1}
        assert planes.session.part.awaited == {"c": "waits for the secret 's'"}
        assert planes.session.method(1) == "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
        assert planes.session.method(0) == ""
        planes.up(1)
        assert planes.asked[1, "secret"] == ["s"]
        assert (0, "secret") not in planes.asked
        text = "-----BEGIN {0}-----\nMAA=\n-----END {0}-----\n"
        pair = build.secret("s", certificate=text.format("CERTIFICATE"), key=text.format("PRIVATE KEY"))
        planes.send(1, "secret", pair)
        assert planes.session.part.clusters["c"].tls.closed == ""
        planes.send(0, "cluster", build.cluster("c", ["10.0.0.1:1"]))
        assert planes.open == {0}

    def test_one_that_never_comes_from_there(self):
        """SD-02."""
        planes = self.planes(services=[self.AT], view="sidecar")
        planes.up(0)
        planes.send(0, "cluster", self.secret())
        planes.up(1)
        planes.wait(15.0)
        assert planes.session.part.clusters["c"].tls.closed.startswith("secret 's' does not exist")

    def test_a_secret_of_one_that_may_not_be_asked_refuses_the_cluster(self):
        planes = self.planes(view="sidecar")
        planes.up(0)
        planes.send(0, "cluster", self.secret())
        (refused,) = planes.session.status(0.0).rejected
        assert (
            "sds_config.api_config_source.grpc_services[0].google_grpc: 127.0.0.1:9 is not"
            in refused.problems[0]
        )

    def test_there_are_not_too_many(self):
        planes = self.planes(Feature.TRUSTED_XDS_SERVER, view="sidecar")
        planes.up(0)
        for number in range(MOST + 1):
            held = {"google_grpc": {"target_uri": f"127.0.0.1:{number + 1000}"}}
            source = {"api_config_source": {"api_type": "GRPC", "grpc_services": [held]}}
            made = build.cluster(f"c{number}", eds_cluster_config={"eds_config": source})
            planes.session.received(response("cluster", made, nonce=str(number)), 0.0)
        assert len(planes.session.servers) == 1 + MOST
        assert planes.session.status(0.0).rejected


# --- random histories ------------------------------------------------------------------------------------------------

NAMES = ("x", "y", "z")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.sampled_from(NAMES)),
        st.tuples(st.just("forget"), st.sampled_from(NAMES)),
        st.tuples(st.just("down"), st.sampled_from([0, 0, 0, 1, 2])),
        st.tuples(  # an answer of so many types, in order, from a server that may have to be reached first
            st.just("answer"),
            st.integers(0, 2),
            st.sampled_from([4, 4, 4, 3, 2, 1]),
            st.sets(st.sampled_from(NAMES), min_size=1),
        ),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 16.0])),
    ),
    min_size=12,
    max_size=30,
)


class History(Planes):
    """All targets share the names of their clusters among the servers, and two of them share a cluster."""

    clusters: ClassVar = {"x": "shared", "y": "shared", "z": "own"}

    def __init__(self):
        super().__init__(FIRST, SECOND, THIRD)
        self.streams = set()
        self.want("x")

    def do(self, step):
        act, *what = step
        if act == "want":
            self.want(*what)
        elif act == "forget":
            self.session.forget(*what, now=self.now)
        elif act == "wait":
            self.wait(*what)
        elif what[0] not in self.open:
            pass
        elif act == "up" and what[0] not in self.streams:
            self.streams.add(what[0])
            self.up(what[0])
        elif act == "down":  # and not to be reached again at once
            if what[0] in self.streams:
                self.streams.discard(what[0])
                self.down(what[0], "")
            self.down(what[0])
        elif act == "answer":
            at, count, names = what
            self.do(("up", at))
            for short in KINDS[:count]:
                if at in self.streams:
                    self.give(at, short, names)
                    self.reconcile()
        self.reconcile()

    def give(self, at, short, names):
        made = {
            str(resource): resource for name in sorted(names) for resource in [self.made(at, short, name)]
        }
        self.send(at, short, *made.values())

    def made(self, at, short, name):
        return resources(name, at, cluster=self.clusters[name])[short]

    def reconcile(self):
        for at in self.streams - self.open:
            self.streams.discard(at)
            self.session.shut(self.now, at)
        for at in self.open:
            self.flush(at)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_no_target_is_ever_served_by_two_servers_and_the_first_wins_in_the_end(steps):
    """FB-02, FB-05"""
    history = History()
    held = set()
    for step in steps:
        history.do(step)
        # Whatever happens to streams, nobody who was served is served no more.
        now = {name for name in NAMES if history.server_of(name) is not None}  # which says where it is of two
        if step[0] == "down":
            assert now >= held
        held = now
    history.want(*NAMES)
    if 0 not in history.streams:
        history.streams.add(0)
        history.up(0)
    for _ in range(3):
        for short in KINDS:
            history.give(0, short, NAMES)
            history.reconcile()
    assert history.open == {0}
    assert [history.server_of(name) for name in NAMES] == [0, 0, 0]
    assert len(history.session.parts) == 1
    assert history.session.waiting() == ()
