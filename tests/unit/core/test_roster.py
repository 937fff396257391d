"""Who stays is the same object, who leaves is marked; what TLS an endpoint needs."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.endpoint import Down
from meshlib.core.roster import plan_roster, tls_of
from meshlib.model.address import Address
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Health
from meshlib.model.tls import Tls, TlsMatch
from tests.support.live_kit import address, changed, cluster, endpoint, flat, locality

PLAIN, NEEDS = None, Tls(sni="a")


def planned(config, old=None):
    roster = plan_roster(old.live if old else {}, config)
    roster.apply()
    return roster


def test_nothing_known_is_nobody():
    assert planned(Cluster("c")).live == {}


def test_the_same_address_is_the_same_object():
    first = planned(flat(3))
    kept = list(first.live.values())
    kept[1].active = 5
    kept[1].down |= Down.EJECTED
    second = planned(
        cluster(locality(endpoint(1, 9, hostname="h"), endpoint(7), priority=2, zone="b")), first
    )
    survivor = second.live[address(1)]
    assert survivor is kept[1]
    assert (survivor.weight, survivor.priority, survivor.hostname) == (9, 2, "h")
    assert (survivor.locality.zone, survivor.active, survivor.ejected) == ("b", 5, True)
    assert [item.gone for item in kept] == [True, False, True]
    assert not second.live[address(7)].gone


def test_whether_weights_are_health_is_a_change_that_needs_another_balance():
    first = planned(flat(3))
    config = flat(3)
    again = planned(config, first)
    weighted = replace(config, assignment=replace(config.assignment, weighted_health=True))
    assert again.says_again(first)
    assert not planned(weighted, first).says_again(first)


@given(st.lists(st.sets(st.integers(0, 8)), min_size=1, max_size=6))
def test_over_any_row_of_updates(rounds):
    roster = planned(flat(0))
    for numbers in rounds:
        before = dict(roster.live)
        roster = planned(cluster(locality(*map(endpoint, numbers))), roster)
        assert set(roster.live) == {address(number) for number in numbers}
        for where, live in before.items():
            assert live.gone is (where not in roster.live)
            assert roster.live.get(where, live) is live
        assert not any(live.gone for live in roster.live.values())


def test_health_is_the_control_planes_mark():
    first = planned(cluster(locality(endpoint(0), endpoint(1, health=Health.DRAINING))))
    live = list(first.live.values())
    assert [item.down for item in live] == [0, Down.CONTROL_PLANE]
    live[0].down |= Down.EJECTED
    swapped = cluster(locality(endpoint(0, health=Health.UNHEALTHY), endpoint(1, health=Health.HEALTHY)))
    planned(swapped, first)
    assert [item.down for item in live] == [Down.EJECTED | Down.CONTROL_PLANE, 0]


def test_a_planned_roster_changes_nothing_yet():
    first = planned(flat(2))
    live = list(first.live.values())
    plan_roster(first.live, changed(flat(0), locality(endpoint(0, 5, Health.UNHEALTHY))))
    assert [(item.weight, item.down, item.gone) for item in live] == [(1, 0, False)] * 2


def test_the_first_in_priority_of_a_shared_address_counts():
    roster = planned(cluster(locality(endpoint(0, 7), priority=1), locality(endpoint(0, 3), endpoint(0, 4))))
    assert [item.weight for item in roster.live.values()] == [3]
    assert sum(len(group.endpoints) for group in roster.groups) == 1


def test_a_set_of_addresses_is_one_endpoint_in_any_order():  # DS-01
    one = replace(endpoint(0), additional_addresses=(address(1),))
    other = replace(endpoint(1), additional_addresses=(address(0),))
    first = planned(cluster(locality(one)))
    (live,) = first.live.values()
    second = planned(cluster(locality(other)), first)
    assert list(second.live.values()) == [live]
    assert (live.address, live.name, live.gone) == (address(1), str(address(1)), False)


def test_two_that_share_an_additional_address_stay_two():
    both = [replace(endpoint(number), additional_addresses=(address(9),)) for number in (0, 1)]
    first = planned(cluster(locality(*both)))
    second = planned(cluster(locality(*reversed(both))), first)
    assert set(map(id, first.live.values())) == set(map(id, second.live.values()))


def test_a_weight_of_zero_still_counts_a_little():
    assert next(iter(planned(cluster(locality(endpoint(0, 0)))).live.values())).weight == 1


# --- TLS --------------------------------------------------------------------------------------------------------------


def labelled(**labels):
    return endpoint(0, metadata={"envoy.transport_socket_match": labels} if labels else {})


MATCHED = Tls(sni="matched")


def matching(*entries):
    return Cluster("c", tls=NEEDS, tls_matches=entries)


def test_the_clusters_tls_where_nothing_matches():
    config = matching(TlsMatch("m", {"tls": "on"}, MATCHED))
    assert tls_of(config, labelled(), locality()) is NEEDS
    assert tls_of(config, labelled(tls="off"), locality()) is NEEDS
    assert tls_of(config, labelled(tls="on", more="x"), locality()) is MATCHED


def test_the_first_match_counts_and_may_be_plain_text():
    config = matching(TlsMatch("raw", {"mode": "raw"}, PLAIN), TlsMatch("all", {}, MATCHED))
    assert tls_of(config, labelled(mode="raw"), locality()) is PLAIN
    assert tls_of(config, labelled(mode="x"), locality()) is MATCHED


def test_a_localitys_labels_hold_where_the_endpoint_has_none():
    config = matching(TlsMatch("m", {"tls": "on"}, MATCHED))
    of_locality = replace(locality(), metadata={"envoy.transport_socket_match": {"tls": "on"}})
    assert tls_of(config, labelled(), of_locality) is MATCHED
    assert tls_of(config, labelled(tls="off"), of_locality) is NEEDS


def test_tls_that_cannot_be_had_marks_the_endpoint():
    demanded = replace(flat(1), tls=Tls(unsupported="SDS"))
    first = planned(demanded)
    (live,) = first.live.values()
    assert live.down == Down.TLS
    planned(replace(flat(1), tls=NEEDS), first)
    assert (live.down, live.tls) == (0, NEEDS)


ONE, TWO, THREE = address(91), address(92), address(93)
PROXIED = Tls(sni="p", proxied=True)


def through(config, own=None, of_locality=None):
    """The proxy on the way to an endpoint."""
    found = planned(cluster(replace(locality(replace(endpoint(0), proxy=own)), proxy=of_locality), **config))
    (live,) = found.live.values()
    return live.tls and live.tls.proxy


def test_tl_07_an_endpoints_proxy_then_its_localitys_then_the_default():
    default = {"tls": replace(PROXIED, proxy=THREE)}
    assert through(default, ONE, TWO) == ONE
    assert through(default, None, TWO) == TWO
    assert through(default) == THREE
    assert through({"tls": PROXIED}) is None
    assert through({"tls": NEEDS}, ONE, TWO) is None, "where the transport does not go through one"
    matches = (TlsMatch("plain", {"x": "y"}, PLAIN), TlsMatch("all", {}, PROXIED))
    assert through({"tls_matches": matches}, ONE) == ONE
    assert through({}, ONE, TWO) is None


def test_tl_07_another_proxy_is_another_demand_and_a_socket_has_none():
    first = planned(cluster(locality(replace(endpoint(0), proxy=ONE)), tls=PROXIED))
    (live,) = first.live.values()
    kept = live.tls
    again = planned(cluster(locality(replace(endpoint(0, 9), proxy=ONE)), tls=PROXIED), first)
    assert live.tls is kept
    planned(cluster(locality(replace(endpoint(0), proxy=TWO)), tls=PROXIED), again)
    assert live.tls == replace(PROXIED, proxy=TWO)
    unix = replace(endpoint(0), address=Address("/run/s", 0, True), proxy=ONE)
    (live,) = planned(cluster(locality(unix), tls=PROXIED)).live.values()
    assert live.down == Down.TLS
    assert live.tls.closed == "unix:/run/s cannot be reached through a proxy"
    (live,) = planned(cluster(locality(replace(unix, proxy=None)), tls=PROXIED)).live.values()
    assert not live.down


def test_an_equal_tls_stays_the_same_object():
    """Pools compare it by identity: a new weight must not close connections."""
    first = planned(replace(flat(1), tls=NEEDS))
    (live,) = first.live.values()
    planned(cluster(locality(endpoint(0, 9)), tls=Tls(sni="a")), first)
    assert live.weight == 9
    assert live.tls is NEEDS
