"""Make before break: what comes into force when, seen through a session with a scripted server."""

from __future__ import annotations

import pytest

from meshlib.model.snapshot import Fate
from meshlib.testing import build
from meshlib.xds import decode, schema
from meshlib.xds.hosts import best_host, clusters_of, merge, named
from meshlib.xds.roots import tcp_clusters
from meshlib.xds.session import Session
from meshlib.xds.values import ServerFeatures
from tests.support.xds_kit import NODE, Wire, istio, raw, simple


def host(name, cluster=None, *domains, **route):
    return build.virtual_host(name, build.route(cluster=cluster or name, **route), domains=domains or [name])


def routes(*hosts, name="r"):
    return build.route_config(name, *hosts)


def fates(wire):
    return {name: absence.fate for name, absence in wire.part.absent.items()}


def addresses(wire, cluster):
    return [str(each.address) for each in wire.part.clusters[cluster].assignment.endpoints]


def target(name="a", view="target", **options):
    """A wire on which the target `name` is in force."""
    wire = Wire(view, **options)
    wire.open()
    wire.want(name)
    things = simple(name)
    for short in ("listener", "route", "cluster", "endpoint"):
        wire.send(short, things[short])
    assert name in wire.part.targets
    return wire


def sidecar(*hosts, clusters=(), view="sidecar"):
    """A wire with one socket listener `l`, whose routes `r` have these hosts, and static clusters."""
    wire = Wire(view)
    wire.open()
    wire.send("cluster", *(static(name) for name in clusters))
    wire.send("listener", build.listener("l", "r"))
    wire.send("route", routes(*hosts))
    return wire


def static(name, address="10.0.0.1:80"):
    return build.cluster(name, [address])


def tcp_listener(*clusters):
    return build.tcp_listener("t", dict.fromkeys(clusters, 1))


class TestDiscovery:
    def test_ca_02_top_down_and_all_at_once(self):
        wire = Wire()
        assert wire.open() == []
        assert wire.want("a") == [("listener", ["a"], "", "", "")]
        things = simple("a")
        wire.send("listener", things["listener"])
        assert [each[:2] for each in wire.asked] == [("listener", ["a"]), ("route", ["r-a"])]
        wire.send("route", things["route"])
        assert wire.asked[-1][:2] == ("cluster", ["a"])
        wire.send("cluster", things["cluster"])
        assert wire.asked[-1][:2] == ("endpoint", ["a"])
        assert wire.session.waiting() == ("a",)
        wire.send("endpoint", things["endpoint"])
        assert wire.session.waiting() == ()
        assert wire.session.pending("a") == ""
        listener = wire.part.targets["a"]
        assert listener.http.routes.name == "r-a"
        assert addresses(wire, "a") == ["10.0.0.1:80"]

    def test_what_is_missing_is_told_in_words(self):
        wire = Wire()
        wire.open()
        things = simple("a")
        assert wire.session.pending("a") == "listener 'a' was not asked for"
        wire.want("a")
        said = [wire.session.pending("a")]
        for short in ("listener", "route", "cluster"):
            wire.send(short, things[short])
            said.append(wire.session.pending("a"))
        assert said == [
            "listener 'a' has not come yet",
            "route configuration 'r-a' has not come yet",
            "cluster 'a' has not come yet",
            "the endpoints 'a' of cluster 'a' have not come yet",
        ]
        assert wire.session.waiting() == ("a",)

    def test_forgetting_a_target_unsubscribes_what_only_it_needed(self):
        wire = target("a")
        wire.want("b")
        shared = simple("b", cluster="a")
        wire.send("listener", simple("a")["listener"], shared["listener"])
        wire.send("route", shared["route"])
        assert set(wire.part.targets) == {"a", "b"}
        wire.session.forget("a")
        assert [each[:2] for each in wire.flush()] == [("listener", ["b"]), ("route", ["r-b"])]
        assert set(wire.part.clusters) == {"a"}
        wire.session.forget("b")
        assert [each[:2] for each in wire.flush()] == [
            ("listener", []),
            ("route", []),
            ("cluster", []),
            ("endpoint", []),
        ]
        assert wire.part.clusters == {}
        assert wire.part.targets == {}

    def test_the_part_is_the_same_object_until_something_changed(self):
        wire = target("a")
        before, revision = wire.part, wire.session.revision
        wire.send("endpoint", simple("a")["endpoint"])
        wire.send("cluster", simple("a")["cluster"])
        assert wire.part is before
        wire.send("endpoint", build.endpoints("a", "10.0.0.2:80"))
        assert wire.session.revision == revision + 1
        assert wire.part.targets is before.targets
        assert wire.part.targets["a"] is before.targets["a"]


class TestUpdates:
    def test_ca_03_a_route_to_a_cluster_that_is_not_there(self):
        wire = target("a")
        wire.send("route", build.route_config("r-a", host("a", "new")))
        assert wire.routes("a") == {"a": ("a",)}
        old = wire.part.targets["a"].http.routes.virtual_hosts[0].routes[0].action.cluster
        assert (old, set(wire.part.clusters)) == ("a", {"a"})
        assert wire.asked[-1][:2] == ("cluster", ["a", "new"])
        wire.send("cluster", build.cluster("a"), build.cluster("new"))
        assert wire.part.targets["a"].http.routes.virtual_hosts[0].routes[0].action.cluster == "a"
        wire.send("endpoint", build.endpoints("new", "10.0.0.9:80"))
        assert wire.part.targets["a"].http.routes.virtual_hosts[0].routes[0].action.cluster == "new"
        assert set(wire.part.clusters) == {"new"}
        assert ("cluster", ["new"]) in [each[:2] for each in wire.asked]

    def test_ca_03_a_cluster_that_is_being_replaced_is_kept_though_the_server_deletes_it(self):
        wire = target("a")
        wire.send("route", build.route_config("r-a", host("a", "new")))
        wire.send("cluster", build.cluster("new"))
        assert addresses(wire, "a") == ["10.0.0.1:80"]
        # Its endpoints stay as they were, and are not asked for: a server may be silent where it has not all that is named.
        assert ("endpoint", ["new"]) in [each[:2] for each in wire.asked]
        wire.send("endpoint", build.endpoints("a", "10.0.0.2:80"))
        assert addresses(wire, "a") == ["10.0.0.1:80"]
        wire.send("endpoint", build.endpoints("new", "10.0.0.9:80"))
        assert set(wire.part.clusters) == {"new"}
        assert wire.part.lacking == {}

    def test_ca_03_also_where_it_is_deleted_before_its_replacement_is_named(self):
        for seconds in (0.5, 1.5):  # in the same update, or in a later one
            wire = target("a")
            wire.send("cluster")
            wire.pass_time(seconds)
            assert ("a" in wire.part.clusters) is (seconds < 1)
            wire.send("route", build.route_config("r-a", host("a", "new")))
            wire.pass_time(5.0)
            assert addresses(wire, "a") == ["10.0.0.1:80"]
            assert wire.part.lacking == {"new": ""}

    def test_er_03_a_cluster_that_is_deleted_and_not_replaced_is_gone(self):
        wire = target("a")
        wire.send("cluster")
        assert ("endpoint", []) in [each[:2] for each in wire.asked]
        assert wire.session.next_timer() == 1.0
        assert not wire.pass_time(0.9)
        assert addresses(wire, "a") == ["10.0.0.1:80"]
        assert wire.pass_time(0.1)
        wire.flush()
        assert wire.part.clusters == {}
        assert wire.part.lacking == {"a": "was deleted by the server"}
        assert "a" in wire.part.targets
        assert wire.session.pending("a") == "cluster 'a' was deleted by the server"
        assert wire.session.lacking() == ("cluster a (was deleted by the server)",)
        wire.send("cluster", simple("a")["cluster"])
        assert wire.part.lacking == {"a": ""}
        wire.send("endpoint", simple("a")["endpoint"])
        assert addresses(wire, "a") == ["10.0.0.1:80"]

    def test_a_cluster_that_is_deleted_and_comes_back_in_the_next_response_was_never_gone(self):
        wire = target("a")
        wire.send("cluster")
        wire.send("cluster", simple("a")["cluster"])
        assert not wire.pass_time(5.0)
        assert addresses(wire, "a") == ["10.0.0.1:80"]

    def test_ca_05_a_cluster_update_keeps_its_endpoints(self):
        wire = target("a")
        wire.send("cluster", build.cluster("a", connect_timeout=3))
        assert wire.part.clusters["a"].connect_timeout == 3.0
        assert addresses(wire, "a") == ["10.0.0.1:80"]

    def test_ca_07_other_routes(self):
        wire = target("a")
        wire.send("listener", build.api_listener("a", "other"))
        assert wire.part.targets["a"].http.routes.name == "r-a"
        assert ("route", ["other", "r-a"]) in [each[:2] for each in wire.asked]
        wire.send("route", build.route_config("other", host("a")))
        assert wire.part.targets["a"].http.routes.name == "other"
        assert ("route", ["other"]) in [each[:2] for each in wire.asked]

    def test_ca_03_what_is_in_force_keeps_its_clusters_though_its_routes_move_on(self):
        wire = target("a")
        wire.send("listener", build.api_listener("a", "other"))
        wire.send(
            "route", build.route_config("r-a", host("a", "b"))
        )  # no longer of interest to the newest listener
        wire.send("cluster", static("a"), static("b"))
        assert wire.part.targets["a"].http.routes.virtual_hosts[0].routes[0].action.cluster == "a"
        assert "a" in wire.part.clusters

    def test_ca_03_its_host_by_another_domain(self):
        wire = target("a")
        wire.send("route", build.route_config("r-a", host("any", "a", "*")))
        wire.send("route", build.route_config("r-a", host("own", "missing", "a")))
        assert wire.routes("a") == {"any": ("a",)}
        assert set(wire.part.clusters) == {"a"}

    def test_a_host_that_the_server_took_away(self):
        wire = target("a")
        wire.send("route", build.route_config("r-a", host("b", "missing")))
        assert wire.routes("a") == {"b": ("b",)}
        assert wire.part.clusters == {}

    def test_ca_07_inline_and_back(self):
        wire = target("a")
        wire.send("listener", build.api_listener("a", routes(host("a"), name="inline")))
        assert wire.part.targets["a"].http.routes.name == "inline"
        assert ("route", []) in [each[:2] for each in wire.asked]
        wire.send("listener", build.api_listener("a", "r-a"))
        assert wire.part.targets["a"].http.routes.name == "inline"
        wire.send("route", simple("a")["route"])
        assert wire.part.targets["a"].http.routes.name == "r-a"

    def test_ca_07_inline_routes_that_are_not_complete(self):
        wire = Wire()
        wire.open()
        wire.want("a")
        wire.send("listener", build.api_listener("a", routes(host("a"))))
        wire.send("cluster", static("a"))
        assert "a" in wire.part.targets
        wire.send("listener", build.api_listener("a", routes(host("a", "b"))))
        assert wire.part.targets["a"].http.routes.virtual_hosts[0].routes[0].action.cluster == "a"
        wire.send("cluster", static("a"), static("b"))
        assert wire.part.targets["a"].http.routes.virtual_hosts[0].routes[0].action.cluster == "b"

    def test_ca_07_the_manager_changes_and_not_the_routes(self):
        wire = target("a")
        wire.send("listener", build.api_listener("a", "r-a", manager={"merge_slashes": True}))
        assert wire.part.targets["a"].http.merge_slashes
        assert wire.part.targets["a"].http.routes.name == "r-a"

    def test_ca_08_other_endpoints(self):
        wire = target("a")
        wire.send("cluster", build.cluster("a", service_name="s"))
        assert ("endpoint", ["a", "s"]) in [each[:2] for each in wire.asked]
        wire.send("endpoint", build.endpoints("a", "10.0.0.2:80"))
        assert addresses(wire, "a") == ["10.0.0.2:80"]
        wire.send("endpoint", build.endpoints("s", "10.0.0.3:80"))
        assert addresses(wire, "a") == ["10.0.0.3:80"]
        assert ("endpoint", ["s"]) in [each[:2] for each in wire.asked]

    def test_clusters_may_share_endpoints(self):
        wire = Wire("sidecar")
        wire.open()
        wire.send("cluster", build.cluster("a", service_name="s"), build.cluster("b", service_name="s"))
        wire.send("endpoint", build.endpoints("s", "10.0.0.3:80"))
        assert addresses(wire, "a") == addresses(wire, "b") == ["10.0.0.3:80"]


class TestNotThere:
    def test_ex_08_one_that_does_not_exist_holds_nobody_up_for_ever(self):
        wire = Wire()
        wire.open()
        wire.want("a")
        wire.send("listener", build.api_listener("a", "r"))
        split = build.virtual_host("a", build.route(weights={"a": 1, "gone": 1}), domains=["a"])
        wire.send("route", routes(split))
        wire.send("cluster", static("a"))
        assert wire.session.pending("a") == "cluster 'gone' has not come yet"
        assert wire.pass_time(15)
        assert "a" in wire.part.targets
        assert set(wire.part.clusters) == {"a"}
        assert wire.session.pending("a") == ""
        wire.send("cluster", static("a"), static("gone"))
        assert set(wire.part.clusters) == {"a", "gone"}

    def test_a_target_of_which_nothing_is_there(self):
        wire = target("a")
        wire.send("route", build.route_config("r-a", host("a", "gone")))
        wire.pass_time(15)
        assert set(wire.part.clusters) == set()
        assert "cluster 'gone' does not exist" in wire.session.pending("a")

    def test_er_02_a_refused_cluster(self):
        wire = Wire()
        wire.open()
        wire.want("a")
        wire.send("listener", build.api_listener("a", routes(host("a"))))
        wire.send("cluster", build.cluster("a", connect_timeout=0))
        assert "a" in wire.part.targets
        assert "was refused: connect_timeout" in wire.session.pending("a")

    def test_endpoints_that_do_not_exist(self):
        wire = Wire()
        wire.open()
        wire.want("a")
        wire.send("listener", build.api_listener("a", routes(host("a"))))
        wire.send("cluster", build.cluster("a"))
        wire.pass_time(15)
        assert addresses(wire, "a") == []
        wire.send("endpoint", build.endpoints("a", "10.0.0.1:80"))
        assert addresses(wire, "a") == ["10.0.0.1:80"]

    def test_a_target_that_does_not_exist(self):
        wire = Wire()
        wire.open()
        wire.want("a")
        wire.pass_time(15)
        assert fates(wire) == {"a": Fate.ABSENT}
        assert "does not exist" in wire.session.pending("a")
        assert wire.session.waiting() == ()
        wire.send(
            "listener",
            build.api_listener("a", routes(build.virtual_host("v", build.route(respond=(200, ""))))),
        )
        assert wire.part.absent == {}
        assert "a" in wire.part.targets

    def test_routes_that_do_not_exist(self):
        wire = Wire()
        wire.open()
        wire.want("a")
        wire.send("listener", build.api_listener("a", "r"))
        wire.pass_time(15)
        assert fates(wire) == {"a": Fate.UNUSABLE}  # the control plane has it: its host is of the mesh
        assert wire.part.targets == {}
        assert wire.session.pending("a").startswith("route configuration 'r' does not exist")

    def test_er_03_a_deleted_target(self):
        wire = target("a")
        wire.send("listener")
        assert wire.part.targets == {}
        assert fates(wire) == {"a": Fate.ABSENT}
        assert wire.part.clusters == {}

    def test_er_03_a_deleted_target_is_kept_where_the_bootstrap_says_so(self):
        wire = target("a", features=ServerFeatures(ignore_resource_deletion=True))
        before = wire.part
        wire.send("listener")
        assert wire.part is before

    def test_a_refused_target(self):
        wire = Wire()
        wire.open()
        wire.want("a")
        wire.send("listener", build.api_listener("a", "r", manager={"http_filters": []}))
        assert fates(wire) == {"a": Fate.UNUSABLE}
        assert "was refused" in wire.session.pending("a")

    def test_ld_01_a_socket_listener_is_no_target(self):
        wire = Wire()
        wire.open()
        wire.want("a")
        wire.send("listener", build.listener("a", "r"))
        assert fates(wire) == {"a": Fate.ABSENT}
        assert "has no api_listener" in wire.session.pending("a")
        assert wire.part.sidecar == ()

    def test_ca_01_an_outage_changes_nothing(self):
        wire = target("a")
        before = wire.part
        wire.close("gone")
        wire.pass_time(1000)
        assert wire.part is before


class TestHosts:
    """Of one route configuration, each host by itself."""

    def test_an_incomplete_host_holds_up_no_other(self):
        wire = sidecar(host("a"), host("b"), clusters=["a"])
        assert wire.sidecar_routes("l") == {"a": ("a",), "b": ("b",)}
        assert wire.part.lacking == {"b": "is not among those that the control plane has"}
        wire.send("cluster", static("a"), static("b"))
        assert wire.part.lacking == {}

    def test_an_update_of_an_incomplete_host_leaves_it_as_it_was(self):
        wire = sidecar(host("a"), host("b"), clusters=["a", "b"])
        wire.send("route", routes(host("a", "missing"), host("b", timeout=7)))
        config = wire.part.sidecar[0].http.routes
        assert [each.routes[0].action.cluster for each in config.virtual_hosts] == ["a", "b"]
        assert config.virtual_hosts[1].routes[0].action.timeout == 7.0

    def test_a_domain_that_moves_to_a_complete_host(self):
        wire = sidecar(host("a", "a", "x", "y"), clusters=["a", "b"])
        wire.send("route", routes(host("a", "missing", "y"), host("b", "b", "x")))
        assert wire.sidecar_routes("l") == {"a": ("y",), "b": ("x",)}

    def test_a_renamed_host_is_served_as_before_until_it_is_complete(self):
        wire = sidecar(host("old", "a", "x"), clusters=["a"])
        wire.send("route", routes(host("new", "missing", "x")))
        assert wire.sidecar_routes("l") == {"old": ("x",)}
        wire.send("cluster", static("a"), static("missing"))
        assert wire.sidecar_routes("l") == {"new": ("x",)}

    def test_at_first_all_hosts_are_in_force(self):
        wire = sidecar(
            host("a"), host("b.x"), host("any", "a", "*"), host("x", "a", "*.x", "y"), clusters=["a"]
        )
        assert list(wire.sidecar_routes("l")) == ["a", "b.x", "any", "x"]

    def test_a_new_host_is_served_as_before_by_the_wildcard(self):
        wire = sidecar(host("any", "a", "*"), clusters=["a"])
        wire.send("route", routes(host("any", "a", "*"), host("b")))
        made = wire.part.sidecar[0].http.routes
        # The host of `b` is known to have it: a call by that name must not be taken for one of no listener.
        assert [(each.name, each.domains) for each in made.virtual_hosts] == [
            ("any", ("*",)),
            ("any", ("b",)),
        ]
        wire.pass_time(15)
        assert wire.sidecar_routes("l") == {"any": ("*",), "b": ("b",)}

    def test_an_update_that_lacks_no_more_than_what_is_in_force_holds_nothing_up(self):
        """A route to a cluster that there is not must not keep its host as it is for ever."""
        wire = sidecar(host("a", "a"), host("b", "gone"), clusters=["a"])
        wire.send("route", routes(host("a", "a"), host("b", "gone", timeout=7)))
        config = wire.part.sidecar[0].http.routes
        assert config.virtual_hosts[1].routes[0].action.timeout == 7.0
        wire.send("route", routes(host("a", "gone"), host("b", "gone")))
        config = wire.part.sidecar[0].http.routes
        assert [each.routes[0].action.cluster for each in config.virtual_hosts] == ["a", "gone"]

    def test_a_new_host_that_nothing_served_before_is_in_force_at_once(self):
        wire = sidecar(host("a"), clusters=["a"])
        wire.send("route", routes(host("a"), host("b")))
        assert wire.sidecar_routes("l") == {"a": ("a",), "b": ("b",)}

    def test_a_new_pattern_is_served_as_the_pattern_that_had_it(self):
        wire = sidecar(host("any", "a", "*"), host("x", "b", "*.x"), clusters=["a", "b"])
        wire.send(
            "route", routes(host("any", "a", "*"), host("x", "b", "*.x"), host("new", "c", "*.y.x", "p.*"))
        )
        made = wire.part.sidecar[0].http.routes.virtual_hosts
        assert [(each.name, each.domains) for each in made[2:]] == [("x", ("*.y.x",)), ("any", ("p.*",))]

    def test_a_removed_host_is_gone_at_once(self):
        wire = sidecar(host("a"), host("b"), clusters=["a", "b"])
        wire.send("route", routes(host("a")))
        assert wire.sidecar_routes("l") == {"a": ("a",)}

    def test_unchanged_hosts_are_the_same_objects(self):
        wire = sidecar(host("a"), host("b"), clusters=["a", "b"])
        before = wire.part.sidecar[0].http.routes
        wire.send("cluster", static("a", "10.0.0.2:80"), static("b"))
        assert wire.part.sidecar[0].http.routes is before

    def test_what_is_served_as_before_has_the_version_that_it_came_with(self):
        wire = sidecar(host("v1"), clusters=["v1"])
        before = wire.part.sidecar[0].http.routes
        wire.send("route", routes(host("v1", "soon"), host("w", "v1")), version="9")
        now = wire.part.sidecar[0].http.routes
        assert (before.version, now.version) == ("3", "9")
        served = {each.name: each.version or now.version for each in now.virtual_hosts}
        assert served == {"v1": "3", "w": "9"}
        wire.send("cluster", static("v1"), static("soon"), version="10")
        now = wire.part.sidecar[0].http.routes
        assert {each.name: each.version for each in now.virtual_hosts} == {"v1": "", "w": ""}
        assert now.version == "9"

    def test_a_target_waits_for_its_own_host_only(self):
        wire = Wire()
        wire.open()
        wire.want("a")
        wire.send("listener", build.api_listener("a", "r"))
        wire.send("route", routes(host("never"), host("a")))
        assert wire.session.waiting() == ("a",)
        wire.send("cluster", static("a"))
        assert wire.session.waiting() == ()

    def test_a_target_is_not_taken_by_anothers_host(self):
        wire = Wire()
        wire.open()
        wire.want("a")
        wire.send("listener", build.api_listener("a", "r"))
        wire.send("route", routes(host("other"), host("a"), host("any", "other", "*")))
        wire.send("cluster", static("other"))
        assert best_host(wire.part.targets["a"].http.routes, "a")[0].name == "a"
        assert wire.part.lacking == {"a": ""}
        assert wire.session.pending("a") == "cluster 'a' has not come yet"

    def test_the_authority_may_differ_from_the_name(self):
        wire = Wire()
        wire.open()
        wire.session.want("xdstp://x/a", "a.example:80")
        wire.flush()
        wire.send("listener", build.api_listener("xdstp://x/a", "r"))
        wire.send("route", routes(host("never"), host("a", "a", "A.example:80")))
        wire.send("cluster", static("a"))
        assert "xdstp://x/a" in wire.part.targets


class TestSidecar:
    def test_clusters_by_wildcard_and_their_endpoints_by_name(self):
        wire = Wire("sidecar")
        assert [each[:2] for each in wire.open()] == [("listener", []), ("cluster", [])]
        wire.send("cluster", build.cluster("b"), static("a"))
        assert wire.asked[-1][:2] == ("endpoint", ["b"])
        assert set(wire.part.clusters) == {"a"}
        wire.send("endpoint", build.endpoints("b"))
        assert set(wire.part.clusters) == {"a", "b"}
        wire.send("cluster", static("a"))
        assert set(wire.part.clusters) == {"a"}

    def test_a_listener_whose_routes_do_not_exist_finds_nothing(self):
        wire = Wire("sidecar")
        wire.open()
        wire.send("listener", build.listener("l", "r"))
        assert wire.part.sidecar[0].http.routes is None
        wire.pass_time(15)
        assert wire.sidecar_routes("l") == {}
        wire.send("route", routes(build.virtual_host("v", build.route(respond=(200, "")))))
        assert wire.sidecar_routes("l") == {"v": ("*",)}

    def test_other_routes_wait_until_they_are_whole(self):
        wire = sidecar(host("a"), host("b"), clusters=["a", "b"])
        wire.send("listener", build.listener("l", "other"))
        wire.send("route", routes(host("a"), host("b", "missing"), name="other"))
        assert wire.part.sidecar[0].http.routes.name == "r"
        wire.pass_time(15)
        assert wire.part.sidecar[0].http.routes.name == "other"

    def test_ca_03_a_chain_of_tcp_that_leads_to_a_cluster_that_is_not_there(self):
        wire = Wire("sidecar")
        wire.open()
        wire.send("cluster", static("x"))
        wire.send("listener", tcp_listener("x"))
        assert tcp_clusters(*wire.part.sidecar) == {"x"}
        wire.send("listener", tcp_listener("x", "y"))
        wire.send("cluster", static("y"))
        assert tcp_clusters(*wire.part.sidecar) == {"x", "y"}
        wire.send("listener", tcp_listener("z"))
        assert tcp_clusters(*wire.part.sidecar) == {"x", "y"}
        wire.send("cluster", static("z"))
        assert (tcp_clusters(*wire.part.sidecar), set(wire.part.clusters)) == ({"z"}, {"z"})

    def test_a_chain_of_tcp_is_in_force_at_first_whatever_it_leads_to(self):
        wire = Wire("sidecar")
        wire.open()
        wire.send("listener", tcp_listener("x"))
        assert tcp_clusters(*wire.part.sidecar) == {"x"}
        assert wire.part.lacking["x"] == ""

    def test_a_deleted_listener(self):
        wire = sidecar(host("a"), clusters=["a"])
        wire.send("listener")
        assert wire.part.sidecar == ()
        assert ("route", []) in [each[:2] for each in wire.asked]

    def test_a_refused_update_leaves_the_listener(self):
        wire = sidecar(host("a"), clusters=["a"])
        before = wire.part
        found = wire.send("listener", build.listener("l", "r", manager={"http_filters": []}))
        assert not found.accepted
        assert wire.part is before

    def test_targets_are_of_no_use_in_this_view(self):
        wire = Wire("sidecar")
        wire.open()
        assert not wire.session.want("a")
        wire.send("listener", build.api_listener("a", routes(host("a"))))
        assert (wire.part.sidecar, wire.part.targets) == ((), {})

    def test_a_listener_becomes_a_target_and_back(self):
        wire = sidecar(host("a"), clusters=["a"], view="auto")
        wire.want("l")
        assert fates(wire) == {"l": Fate.ABSENT}
        wire.send("listener", build.api_listener("l", "r"))
        assert (set(wire.part.targets), wire.part.sidecar) == ({"l"}, ())
        wire.send("listener", build.listener("l", "r"))
        assert wire.sidecar_routes("l") == {"a": ("a",)}


class TestAuto:
    def test_both_on_one_stream(self):
        wire = Wire("auto")
        wire.open()
        assert wire.want("a")[0][:2] == ("listener", ["*", "a"])
        wire.send("cluster", static("a"))
        wire.send(
            "listener",
            build.listener("l", routes(host("a"))),
            build.api_listener("a", routes(host("a"))),
            build.api_listener("nobody", routes(host("a"))),
        )
        assert [each.name for each in wire.part.sidecar] == ["l"]
        assert set(wire.part.targets) == {"a"}
        wire.session.want("nobody", "a")  # it is there already
        assert set(wire.part.targets) == {"a", "nobody"}

    def test_istios_grpc_generator_has_no_wildcards(self):
        node = schema.from_json("envoy.config.core.v3.Node", {"metadata": {"GENERATOR": "grpc"}})
        for given in (node, node.SerializeToString()):
            assert Session(given, view="auto", jitter=lambda: 0.5).view == "target"
        assert Session(NODE, view="auto", jitter=lambda: 0.5).view == "auto"
        with pytest.raises(ValueError, match="view must be one of"):
            Session(NODE, view="x", jitter=lambda: 0.5)


class TestIstio:
    def test_a_sidecars_configuration(self):
        given = istio("envoy")
        wire = Wire("auto")
        wire.open()
        for short in ("cluster", "endpoint", "listener", "route"):
            assert wire.send(short, *given[short]).error == "" or short == "endpoint"
        wire.send("endpoint", *given["endpoint"])
        assert {each.name for each in wire.part.sidecar if each.http} == {
            "0.0.0.0_80",
            "0.0.0.0_9080",
            "0.0.0.0_9090",
        }
        assert len(wire.part.clusters) == 11
        # Hosts of port 80 name clusters that are not there: calls to these fail, and to no other.
        assert {"api.example.com:80", "allow_any"} <= set(wire.sidecar_routes("0.0.0.0_80"))
        assert wire.part.lacking
        assert set(wire.part.lacking.values()) == {"is not among those that the control plane has"}

    def test_targets(self):
        given = istio("grpc")
        wire = Wire("target")
        wire.open()
        wire.want("reviews:9080", "ratings:9080", "nosuch:9080")
        for short in ("listener", "route", "cluster", "endpoint"):
            found = wire.send(short, *given[short])
            assert found.accepted
        assert set(wire.part.targets) == {"reviews:9080", "ratings:9080"}
        assert wire.part.sidecar == ()
        assert wire.session.pending("reviews:9080") == ""
        wire.pass_time(15)
        assert fates(wire) == {"nosuch:9080": Fate.ABSENT}


class TestHostRules:
    @pytest.fixture
    def config(self):
        return decode.route(
            raw(
                routes(
                    host("exact", "c", "A.x.example:80"),
                    host("suffix", "c", "*.x.example:80", "*.example:80"),
                    host("prefix", "c", "a.*", "a.x.*"),
                    host("any", "c", "*"),
                )
            )
        ).value

    @pytest.mark.parametrize(
        ("authority", "name"),
        [
            ("a.X.example:80", "exact"),
            ("b.x.example:80", "suffix"),
            ("a.x.other", "prefix"),
            ("a.", "any"),
            (".x.example:80", "suffix"),
            ("other", "any"),
        ],
    )
    def test_vh_01_vh_02(self, config, authority, name):
        assert best_host(config, authority)[0].name == name

    def test_the_clusters_of_a_host(self, config):
        assert clusters_of(config.virtual_hosts[0]) == {"c"}

    def test_merging_nothing(self, config):
        assert merge(config, named(config), None, ready=lambda _: False) == (config, False)
        assert merge(config, named(config), None, ready=lambda _: True) == (config, True)
