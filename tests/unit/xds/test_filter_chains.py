"""Filter chains that come by themselves (FCDS): what a listener is until they come, and then. (Envoy's: `e2e/oracle/test_filter_chains.py`.)"""

from __future__ import annotations

from meshlib.model.listener import Listener
from meshlib.testing import build
from meshlib.xds.cache import Cache
from meshlib.xds.filter_chains import FilterChains
from meshlib.xds.machine import EXISTENCE_TIMEOUT
from meshlib.xds.roots import Root
from tests.support.matchers import chain_named
from tests.support.xds_kit import wire_of


def routes(name, cluster="c"):
    return build.route_config(name, build.virtual_host("v", build.route(cluster=cluster)))


def listener(name, *chains, connect=80):
    """One that leads to the last of these chains, and to the others as well."""
    matcher = {"on_no_match": chain_named(chains[-1])}
    for each in chains[:-1]:
        matcher = {"on_no_match": {"matcher": {**matcher, "matcher_list": one_of(each)}}}
    source = {"config_source": build.ADS}
    made = build.listener(
        name, "r", address=f"10.0.0.1:{connect}", filter_chain_matcher=matcher, fcds_config=source
    )
    del made["filter_chains"]
    return made


def one_of(chain):
    source = {
        "name": "x",
        "typed_config": build.any_of(
            "envoy.extensions.matching.common_inputs.network.v3.DestinationPortInput", {}
        ),
    }
    single = {"single_predicate": {"input": source, "value_match": {"exact": "1"}}}
    return {"matchers": [{"predicate": single, "on_match": chain_named(chain)}]}


def shown(wire, name="l"):
    """Each chain of the listener in force: its virtual hosts' clusters; None while its routes have not come."""
    found = next(each for each in wire.part.sidecar if each.name == name)
    return {
        chain.name: None
        if chain.http.routes is None
        else [host.routes[0].action.cluster for host in chain.http.routes.virtual_hosts]
        for chain in found.chains
    }


def test_a_chain_is_asked_for_and_then_there():
    wire = wire_of(listener("l", "f"))
    assert [ask[1] for ask in wire.asked if ask[0] == "filter_chain"] == [["f"]]
    assert shown(wire) == {"f": None}
    wire.send("filter_chain", build.filter_chain("f", routes("own")))
    assert shown(wire) == {"f": ["c"]}


def test_its_routes_may_come_by_themselves_as_well():
    wire = wire_of(listener("l", "f"))
    wire.send("filter_chain", build.filter_chain("f", "of-f"))
    assert shown(wire) == {"f": None}
    wire.send("route", routes("of-f"))
    assert shown(wire) == {"f": ["c"]}


def test_one_that_does_not_come_takes_no_call():
    wire = wire_of(listener("l", "f"))
    assert wire.pass_time(EXISTENCE_TIMEOUT)
    assert shown(wire) == {}
    assert wire.part.sidecar[0].discovered == ("f",)
    wire.send("filter_chain", build.filter_chain("f", routes("own")))
    assert shown(wire) == {"f": ["c"]}


def test_a_listener_that_names_another_waits_for_it():
    wire = wire_of(listener("l", "f"))
    wire.send("filter_chain", build.filter_chain("f", routes("own")))
    wire.send("listener", listener("l", "f", "g"))
    assert shown(wire) == {"f": ["c"]}
    wire.send("filter_chain", build.filter_chain("f", routes("own")), build.filter_chain("g", routes("own")))
    assert shown(wire) == {"f": ["c"], "g": ["c"]}


def test_a_chain_that_names_a_cluster_that_is_not_there_waits_for_it():
    wire = wire_of(listener("l", "f"))
    wire.send("filter_chain", build.filter_chain("f", routes("own")))
    wire.send("filter_chain", build.filter_chain("f", routes("own", "d")))
    assert shown(wire) == {"f": ["c"]}
    wire.send("cluster", build.cluster("c", ["10.0.0.1:80"]), build.cluster("d", ["10.0.0.2:80"]))
    assert shown(wire) == {"f": ["d"]}


def test_one_chain_is_of_all_listeners_that_name_it():
    wire = wire_of(listener("l", "f"), listener("m", "f", connect=81))
    wire.send("filter_chain", build.filter_chain("f", routes("own")))
    assert shown(wire) == shown(wire, "m") == {"f": ["c"]}
    before = {each.name: each for each in wire.part.sidecar}
    wire.send("listener", listener("l", "f"))
    assert [each for each in wire.part.sidecar if each is before[each.name]] == [before["l"]]
    wire.send("listener", listener("l", "g"))
    assert [ask[1] for ask in wire.asked if ask[0] == "filter_chain"] == [["g"]]


def test_what_a_listener_was_made_of_is_let_go_with_it():
    cache = Cache(["filter_chain"])
    chains, made = FilterChains(cache), Listener("l", discovered=("f",))
    root = Root("l", latest=made)
    joined = chains.joined(root, made)
    assert chains.joined(root, made) is joined, "nothing changed"
    assert chains.follow(root)
    root.latest = None
    assert chains.follow(root)
    assert chains.named.names == frozenset()
    assert chains._joined == {}


def test_a_bad_chain_is_refused_and_the_last_good_one_stays():
    wire = wire_of(listener("l", "f"))
    wire.send("filter_chain", build.filter_chain("f", routes("own")))
    found = wire.send("filter_chain", build.filter_chain("f", {"virtual_hosts": [{"name": ""}]}))
    assert not found.accepted
    assert "filter_chain 'f'" in found.error
    assert shown(wire) == {"f": ["c"]}
