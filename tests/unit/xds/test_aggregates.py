"""Aggregates in the graph (CD-04): what they lead to, when they are in force, and what they keep wanted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.model.cluster import Cluster, Discovery
from meshlib.testing import build
from meshlib.xds.aggregates import DEEPEST, MOST, reach
from tests.support.xds_kit import Wire


def clusters(**children: str):
    """Clusters by name: aggregates of the names that are written, each a letter, and others."""
    return {
        name: Cluster(name, Discovery.AGGREGATE if inner else Discovery.EDS, children=tuple(inner))
        for name, inner in children.items()
    }


class TestReach:
    @pytest.mark.parametrize(
        ("held", "leaves"),
        [
            ({"a": "xy"}, "xy"),
            ({"a": "xby", "b": "zx"}, "xzy"),
            ({"a": "bc", "b": "x", "c": "bxy"}, "xy"),
            ({"a": "abx", "b": "ay"}, "yx"),
        ],
        ids=["flat", "depth first, the first holds", "diamond", "circles"],
    )
    def test_leaves(self, held, leaves):
        found = clusters(**held)
        assert reach(found["a"], found.get).leaves == tuple(leaves)

    def test_a_circle_without_leaves_is_of_no_use(self):
        found = clusters(a="b", b="ca", c="b")
        made = reach(found["a"], found.get)
        assert (made.leaves, made.names) == ((), ("b", "c"))
        assert "no cluster" in made.trouble

    @pytest.mark.parametrize(("chain", "fine"), [(DEEPEST, True), (DEEPEST + 1, False)])
    def test_sixteen_deep_as_grpc(self, chain, fine):
        """AggregateClusterRecursionMaxDepth, AggregateClusterRecursionDepthJustBelowMax."""
        held = {f"c{n}": Cluster(f"c{n}", Discovery.AGGREGATE, children=(f"c{n + 1}",)) for n in range(chain)}
        made = reach(held["c0"], held.get)
        assert made.leaves == ((f"c{chain}",) if fine else ())
        assert bool(made.trouble) is not fine

    def test_a_thousand_and_no_more(self):
        names = tuple(f"n{number}" for number in range(MOST))
        inner = Cluster("in", Discovery.AGGREGATE, children=names)
        assert reach(inner, {}.get).leaves == names
        outer = Cluster("out", Discovery.AGGREGATE, children=("in", "one more"))
        assert reach(outer, {"in": inner}.get).leaves == ()

    @settings(max_examples=200)
    @given(
        st.dictionaries(
            st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefxyz"), min_size=1, max_size=4)
        )
    )
    def test_any_graph_ends_and_each_leaf_is_there_once(self, held):
        found = {
            name: Cluster(name, Discovery.AGGREGATE, children=tuple(inner)) for name, inner in held.items()
        }
        root = Cluster("root", Discovery.AGGREGATE, children=("a", "b", "x"))
        made = reach(root, found.get)
        assert len(set(made.names)) == len(made.names)
        assert set(made.leaves) == {name for name in made.names if name not in found}
        # What is reached is closed under "names".
        assert all(
            inner in (*made.names, "root")
            for name in made.names
            if name in found
            for inner in found[name].children
        )


def target(*names: str, **options: object):
    """A wire on which the target `t` is wanted, whose route names the first, an aggregate of the others."""
    wire = Wire("target", **options)
    wire.open()
    wire.want("t")
    wire.send("listener", build.api_listener("t", "r"))
    wire.send("route", routes(names[0]))
    return wire


def routes(*names: str):
    return build.route_config(
        "r", build.virtual_host("v", *(build.route(cluster=n) for n in names), domains=["t"])
    )


def say(wire: Wire, *resources: object):
    """The server says what it is asked for, until nothing more is."""
    for _ in range(4):
        wire.send("cluster", *resources)


def static(name: str, address: str = "10.0.0.1:80"):
    return build.cluster(name, [address])


class TestTarget:
    def test_its_clusters_are_asked_for_and_waited_for(self):
        wire = target("agg")
        wire.send("cluster", build.aggregate("agg", "one", "two"))
        assert wire.asked[-1][:2] == ("cluster", ["agg", "one", "two"])
        assert wire.part.lacking["agg"] == ""
        assert wire.session.pending("t") == "cluster 'one' has not come yet"
        wire.send("cluster", build.aggregate("agg", "one", "two"), build.cluster("one"), static("two"))
        assert wire.session.pending("t") == "the endpoints 'one' of cluster 'one' have not come yet"
        assert "agg" not in wire.part.clusters
        wire.send("endpoint", build.endpoints("one", "10.0.0.9:80"))
        assert wire.session.pending("t") == ""
        assert wire.part.clusters["agg"].leaves == ("one", "two")
        assert "agg" not in wire.part.lacking

    def test_one_that_does_not_exist_is_skipped(self):
        """AggregateClusterMultipleClustersWithSameLocalities's sibling: A37 failed all; C-core skips (CD-04)."""
        wire = target("agg")
        wire.send("cluster", build.aggregate("agg", "gone", "two"), static("two"))
        assert "agg" not in wire.part.clusters
        wire.pass_time(16)
        assert wire.part.clusters["agg"].leaves == ("gone", "two")
        assert "gone" in wire.part.lacking
        assert wire.part.lacking["gone"]
        assert wire.session.pending("t") == ""

    def test_one_that_comes_later_and_goes_again(self):
        wire = target("agg")
        both = build.aggregate("agg", "one", "two")
        wire.send("cluster", both, static("two"))
        wire.pass_time(16)
        wire.send("cluster", both, static("one"), static("two"))
        assert set(wire.part.clusters) == {"agg", "one", "two"}
        assert "one" not in wire.part.lacking
        wire.send("cluster", both, static("two"))
        assert "one" in wire.part.clusters, "what replaces it may be on its way"
        wire.pass_time(2)
        assert set(wire.part.clusters) == {"agg", "two"}
        assert wire.part.lacking["one"]
        wire.send("cluster", both, static("one"), static("two"))
        assert set(wire.part.clusters) == {"agg", "one", "two"}

    def test_a_new_version_waits_for_its_clusters(self):
        wire = target("agg")
        say(wire, build.aggregate("agg", "one"), static("one"))
        before = wire.part.clusters["agg"]
        wire.send("cluster", build.aggregate("agg", "two"), static("one"))
        assert wire.part.clusters["agg"] is before
        assert wire.asked[-1][:2] == ("cluster", ["agg", "one", "two"]), "the old one serves until then"
        wire.send("cluster", build.aggregate("agg", "two"), static("one"), static("two"))
        assert wire.part.clusters["agg"].leaves == ("two",)
        assert ("cluster", ["agg", "two"]) in [each[:2] for each in wire.asked]
        assert set(wire.part.clusters) == {"agg", "two"}

    def test_a_nested_one_that_changes_changes_what_is_above(self):
        wire = target("agg")
        say(wire, build.aggregate("agg", "in", "z"), build.aggregate("in", "x"), static("x"), static("z"))
        assert wire.part.clusters["agg"].leaves == ("x", "z")
        wire.send(
            "cluster",
            build.aggregate("agg", "in", "z"),
            build.aggregate("in", "y"),
            static("x"),
            static("y"),
            static("z"),
        )
        assert wire.part.clusters["agg"].leaves == ("x", "z")
        wire.send(
            "cluster", build.aggregate("agg", "in", "z"), build.aggregate("in", "y"), static("y"), static("z")
        )
        assert wire.part.clusters["agg"].leaves == ("y", "z")
        assert set(wire.part.clusters) == {"agg", "in", "y", "z"}

    def test_what_nobody_names_any_more_is_not_asked_for(self):
        """Circles do not keep themselves, though the server has them still."""
        wire = target("agg")
        held = build.aggregate("agg", "b", "x"), build.aggregate("b", "agg", "x"), static("x")
        say(wire, *held)
        assert wire.part.clusters["agg"].leaves == ("x",)
        wire.send("route", routes("other"))
        wire.send("cluster", static("other"), *held)
        assert wire.asked[-1][:2] == ("cluster", ["other"])
        assert set(wire.part.clusters) == {"other"}

    def test_one_that_a_route_names_too_stays(self):
        wire = target("agg")
        say(wire, build.aggregate("agg", "one"), static("one"))
        wire.send("route", routes("agg", "one"))
        wire.send("route", routes("one"))
        assert set(wire.part.clusters) == {"one"}
        assert wire.asked[-1][:2] == ("cluster", ["one"])

    def test_a_nested_one_that_a_route_names_then(self):
        """It holds what it leads to by itself from then on."""
        wire = target("agg")
        say(wire, build.aggregate("agg", "in"), build.aggregate("in", "x"), static("x"))
        assert wire.session.pending("t") == ""
        wire.send("route", routes("agg", "in"))
        wire.send("route", routes("in"))
        assert wire.part.clusters["in"].leaves == ("x",)
        assert set(wire.part.clusters) == {"in", "x"}

    @pytest.mark.parametrize("deep", [False, True])
    def test_of_no_use(self, deep):
        """AggregateClusterRecursionMaxDepth, AggregateClusterCycleWithNoLeaf: in force, and calls fail."""
        wire = target("c0")
        count = DEEPEST + 1 if deep else 3
        chain = [build.aggregate(f"c{n}", f"c{(n + 1) % (100 if deep else count)}") for n in range(count)]
        for _ in range(count // 4 + 1):
            say(wire, *chain)
        wire.pass_time(16)
        assert wire.part.clusters["c0"].leaves == ()
        assert wire.part.clusters["c0"].unassigned
        say(wire, *chain[1:], build.aggregate("c0", "x"), static("x"))
        assert wire.part.clusters["c0"].leaves == ("x",)
        assert not wire.part.clusters["c0"].unassigned

    def test_a_route_waits_for_all_that_its_aggregate_leads_to(self):
        wire = target("old")
        wire.send("cluster", static("old"))
        wire.send("route", routes("agg"))
        wire.send("cluster", static("old"), build.aggregate("agg", "one"))

        def in_force():
            [found] = wire.part.targets["t"].http.routes.virtual_hosts
            return found.routes[0].action.cluster

        assert in_force() == "old"
        wire.send("cluster", static("old"), build.aggregate("agg", "one"), build.cluster("one"))
        assert in_force() == "old"
        wire.send("endpoint", build.endpoints("one", "10.0.0.1:80"))
        assert in_force() == "agg"

    def test_what_becomes_an_aggregate_and_no_aggregate_again(self):
        wire = target("c")
        wire.send("cluster", build.cluster("c"))
        wire.send("endpoint", build.endpoints("c", "10.0.0.1:80"))
        wire.send("cluster", build.aggregate("c", "x"))
        assert wire.part.clusters["c"].discovery is Discovery.EDS
        wire.send("cluster", build.aggregate("c", "x"), static("x"))
        assert wire.part.clusters["c"].leaves == ("x",)
        wire.send("cluster", static("c"), static("x"))
        assert wire.part.clusters["c"].leaves == ()
        assert set(wire.part.clusters) == {"c"}


class TestSidecar:
    def wire(self, *resources):
        wire = Wire("sidecar")
        wire.open()
        wire.send("cluster", *resources)
        wire.send("listener", build.listener("l", "r"))
        return wire

    def test_one_that_is_not_listed_is_skipped_at_once(self):
        wire = self.wire(build.aggregate("agg", "one", "two"), static("two"))
        wire.send("route", routes("agg"))
        assert wire.part.clusters["agg"].leaves == ("one", "two")
        assert wire.part.lacking["one"]
        wire.send("cluster", build.aggregate("agg", "one", "two"), static("one"), static("two"))
        assert "one" not in wire.part.lacking
        assert set(wire.part.clusters) == {"agg", "one", "two"}

    def test_endpoints_that_are_on_their_way_are_waited_for(self):
        wire = self.wire(build.aggregate("agg", "one", "two"), build.cluster("one"), static("two"))
        assert wire.part.lacking == {"one": "", "agg": ""}
        wire.send("endpoint", build.endpoints("one", "10.0.0.1:80"))
        assert wire.part.clusters["agg"].leaves == ("one", "two")
        assert wire.part.lacking == {}

    def test_a_new_version_waits_for_what_may_come(self):
        wire = self.wire(build.aggregate("agg", "one"), static("one"))
        wire.send("cluster", build.aggregate("agg", "late"), static("one"))
        assert wire.part.clusters["agg"].leaves == ("one",)
        wire.send("cluster", build.aggregate("agg", "late"), static("one"), static("late"))
        assert wire.part.clusters["agg"].leaves == ("late",)

    def test_two_that_name_each_other_go_together(self):
        wire = self.wire(build.aggregate("a", "b", "x"), build.aggregate("b", "a", "x"), static("x"))
        assert wire.part.clusters["a"].leaves == wire.part.clusters["b"].leaves == ("x",)
        wire.send("cluster", static("x"))
        wire.pass_time(2)
        assert set(wire.part.clusters) == {"x"}
        assert wire.part.lacking == {}
