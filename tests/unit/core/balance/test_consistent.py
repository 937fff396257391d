"""Consistent hashing: shares follow weights, keys stay where they were, loads are bounded (LB-03 to LB-05). What Envoy chooses: tests/e2e/oracle."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.core.balance.consistent import Consistent, Tables, hash_key
from meshlib.core.balance.maglev import MOST_SLOTS, Maglev
from meshlib.core.balance.murmur import murmur2
from meshlib.core.balance.picker import make_table
from meshlib.core.balance.ring import MOST_PLACES, Ring
from meshlib.core.balance.weights import normalized
from meshlib.core.endpoint import Down, LiveEndpoint
from meshlib.core.hashing import hash_text
from meshlib.core.upstream import PickContext
from meshlib.model.address import Address
from meshlib.model.endpoint import Endpoint, Locality
from meshlib.model.policy import Balancer, Balancing, SlowStart
from tests.support.live_kit import Watched, flat, live_endpoint

KINDS = pytest.mark.parametrize("kind", [Balancer.RING_HASH, Balancer.MAGLEV])
KEYS = [hash_text(f"key {number}") for number in range(4000)]


def made(kind, sizes, **fields):
    endpoints = [live_endpoint(number, weight) for number, weight in enumerate(sizes)]
    balancing = Balancing(kind, **{"table_size": 4099, **fields})
    return consistent(balancing, endpoints), endpoints


def consistent(balancing, endpoints, **fields):
    table = make_table(balancing, normalized([(1.0, endpoints)]))
    return Consistent(table, endpoints, random.Random(1).random, **fields)


def chosen(picker, key, **fields):
    return picker.pick(PickContext(hash=key, **fields))


@KINDS
def test_shares_follow_weights(kind):
    picker, endpoints = made(kind, [1, 2, 5], least_places=20_000)
    counts = Counter(chosen(picker, key) for key in KEYS)
    shares = [counts[endpoint] / len(KEYS) for endpoint in endpoints]
    assert shares == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)


@KINDS
def test_the_same_key_always_goes_the_same_way_and_a_peek_says_which(kind):
    picker, _ = made(kind, [1, 1, 3])
    again, _ = made(kind, [1, 1, 3])
    for key in KEYS[:300]:
        assert chosen(picker, key) is picker.peek(PickContext(hash=key))
        assert chosen(picker, key).name == chosen(again, key).name


@KINDS
def test_an_endpoint_that_goes_moves_its_own_keys_and_few_others(kind):
    """LB-04: some 1/N of the keys move, and few of the others: of a ring as many as the others have more places then."""
    before, endpoints = made(kind, [1] * 10)
    rest = [endpoint for endpoint in endpoints if endpoint is not endpoints[4]]
    balancing = Balancing(kind, table_size=4099)
    after = consistent(balancing, rest)
    moved = [key for key in KEYS if chosen(before, key) is not chosen(after, key)]
    own = [key for key in KEYS if chosen(before, key) is endpoints[4]]
    assert set(own) <= set(moved)
    assert len(moved) - len(own) <= (0.06 if kind is Balancer.MAGLEV else 0.12) * len(KEYS)


@KINDS
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    key=st.integers(0, 2**64 - 1),
    seed=st.integers(),
)
@settings(max_examples=60)
def test_any_hash_leads_to_an_endpoint_and_in_whatever_order_they_come(kind, sizes, key, seed):
    picker, endpoints = made(kind, sizes, table_size=251)
    assert chosen(picker, key) in endpoints
    if kind is Balancer.MAGLEV:
        shuffled = list(endpoints)
        random.Random(seed).shuffle(shuffled)
        other = consistent(Balancing(kind, table_size=251), shuffled)
        assert chosen(other, key) is chosen(picker, key)


@KINDS
def test_a_second_attempt_goes_elsewhere_the_same_way_each_time(kind):
    picker, _ = made(kind, [1] * 5, table_size=65_537)
    others = Counter()
    for key in KEYS[:500]:
        first = chosen(picker, key)
        second = chosen(picker, key, tried=(first,))
        assert second is not first
        assert second is chosen(picker, key, tried=(first,))
        others[second] += 1
    assert len(others) == 5


@KINDS
def test_a_call_without_a_hash_goes_by_chance(kind):
    picker, endpoints = made(kind, [1] * 4)
    assert {picker.pick(PickContext()) for _ in range(200)} == set(endpoints)


def test_a_ring_has_the_size_that_is_asked_for():
    """LB-03: the least endpoint has a whole number of places, the ring its bounds."""
    endpoints = [live_endpoint(number, weight) for number, weight in enumerate([1, 2])]
    weighted = normalized([(1.0, endpoints)])
    assert len(Ring(weighted, 1024)._hashes) == 1026
    assert len(Ring(weighted, 7, 8)._hashes) == 8
    assert len(Ring(weighted, 0, 8 * 1024 * 1024)._hashes) >= 1
    far = normalized([(1.0, [live_endpoint(0, 1), live_endpoint(1, 2**31)])])
    assert len(Ring(far)._hashes) <= MOST_PLACES + 2


def test_a_table_is_bounded_whatever_is_asked_for(monkeypatch):
    """LB-05. The bound is a prime, so that each order of slots reaches each slot."""
    assert all(MOST_SLOTS % factor for factor in range(2, 1025))
    monkeypatch.setattr("meshlib.core.balance.maglev.MOST_SLOTS", 251)
    table = Maglev(normalized([(1.0, [live_endpoint(0), live_endpoint(1)])]), 5_000_011)
    assert len(table._table) == 251
    assert {table.at(key, 0, 0).name for key in range(251)} == {"10.0.0.0:80", "10.0.0.1:80"}


def test_what_stands_for_an_endpoint():
    """LB-04."""
    metadata = {"envoy.lb": {"hash_key": "own"}}
    address = Address("10.0.0.1", 80)
    plain = LiveEndpoint(Endpoint(address, hostname="a.b"), priority=0, locality=Locality())
    keyed = LiveEndpoint(Endpoint(address, metadata=metadata), priority=0, locality=Locality())
    assert hash_key(plain) == b"10.0.0.1:80"
    assert hash_key(plain, hostname=True) == b"a.b"
    assert hash_key(keyed, hostname=True) == b"own"
    six = LiveEndpoint(Endpoint(Address("::1", 80)), priority=0, locality=Locality())
    assert hash_key(six) == b"[::1]:80"
    socket = LiveEndpoint(Endpoint(Address("/run/a.sock", 0, unix=True)), priority=0, locality=Locality())
    assert hash_key(socket) == b"/run/a.sock"


@KINDS
def test_nobody_has_more_than_its_part_allows(kind):
    """LB-05, with all calls of one key: they spread as they would have to."""
    picker, endpoints = made(kind, [1, 1, 2], load_factor=120)
    for active in range(200):
        context = PickContext(hash=KEYS[0])
        context.active = active
        picker.pick(context).active += 1
    for endpoint, part in zip(endpoints, [0.25, 0.25, 0.5], strict=True):
        assert endpoint.active <= 200 * 1.2 * part + 2
    for endpoint in endpoints:
        endpoint.active = 0
    assert len({chosen(picker, KEYS[0]) for _ in range(20)}) == 1


def test_bounded_loads_spill_the_same_way_for_the_same_key():
    picker, _ = made(Balancer.RING_HASH, [1] * 6, load_factor=100)
    first = chosen(picker, KEYS[1])
    first.active = 50
    spilled = {chosen(picker, KEYS[1]) for _ in range(20)}
    assert len(spilled) == 1
    assert first not in spilled


def test_localities_weigh_in():
    one, two = [live_endpoint(0, 1), live_endpoint(1, 3)], [live_endpoint(2, 7)]
    parts = dict(normalized([(1.0, one), (3.0, two), (0.0, [live_endpoint(3)]), (5.0, [])]))
    assert [parts[endpoint] for endpoint in (*one, *two)] == pytest.approx([1 / 16, 3 / 16, 3 / 4])
    assert len(parts) == 3


@pytest.mark.parametrize(
    ("data", "value"),
    [  # of GCC's std::_Hash_bytes, which Envoy's own tests hold it to be
        (b"", 6142509188972423790),
        (b"a", 4993892634952068459),
        (b"foo", 9631199822919835226),
        (b"bar", 11474628671133349555),
        (b"foo\nbar", 16306510975912980159),
        (b"lyft", 12847078931730529320),
        (
            b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~",
            14665239431416774925,
        ),
    ],
)
def test_murmur_is_that_of_gcc(data, value):
    assert murmur2(data) == value


@KINDS
def test_who_is_ejected_is_passed_over_and_moves_nobody_elses_keys(kind):
    picker, endpoints = made(kind, [1] * 5)
    before = {key: chosen(picker, key) for key in KEYS[:1000]}
    endpoints[2].down = Down.EJECTED
    after = {key: chosen(picker, key) for key in before}
    assert endpoints[2] not in after.values()
    assert all(after[key] is found for key, found in before.items() if found is not endpoints[2])
    for endpoint in endpoints[1:]:
        endpoint.down = Down.EJECTED
    assert {chosen(picker, key) for key in before} == {endpoints[0]}
    panicking = consistent(Balancing(kind, table_size=4099), endpoints, all_of_them=True)
    assert {key: chosen(panicking, key) for key in before} == before


def test_tables_are_made_once_and_the_last_are_kept():
    tables, calls = Tables(), []

    def make(key):
        calls.append(key)
        return object()

    first = tables.get(1, lambda: make(1))
    assert tables.get(1, lambda: make(1)) is first
    for key in range(2, 10):
        tables.get(key, lambda key=key: make(key))
    assert tables.get(1, lambda: make(1)) is not first
    assert len(calls) == 10


@KINDS
def test_an_ejection_makes_no_other_table(kind, monkeypatch):
    """It happens under the lock of the cluster, and a table takes long to make."""
    from meshlib.core import share as module
    from meshlib.model.policy import Outlier
    from tests.support.live_kit import REFUSED, Watched, flat

    tables = []
    real = module.make_table
    monkeypatch.setattr(module, "make_table", lambda *arguments: tables.append(1) or real(*arguments))
    outlier = Outlier(consecutive_5xx=1, max_ejection_percent=50.0, base_ejection=30.0)
    watched = Watched(flat(4, balancing=Balancing(kind, table_size=251), outlier=outlier))
    key = KEYS[0]
    pick = watched.live.pick(PickContext(hash=key), 0.0)
    first = pick.endpoint
    pick.report(REFUSED, 0.0)
    pick.release(0.0)
    assert first.down
    assert watched.live.pick(PickContext(hash=key), 1.0).endpoint is not first
    assert watched.live.pick(PickContext(hash=key), 60.0).endpoint is first
    assert len(tables) == 1


class TestSlowStart:
    SLOW = SlowStart(10.0)

    def warming(self, kind, since=100.0, count=10):
        endpoints = [live_endpoint(number) for number in range(count)]
        endpoints[-1].since = since
        balancing = Balancing(kind, table_size=4099)
        return (
            consistent(balancing, endpoints, slow=self.SLOW),
            consistent(balancing, endpoints),
            endpoints[-1],
        )

    def at(self, picker, key, now):
        context = PickContext(hash=key)
        context.now = now
        return picker.pick(context)

    @KINDS
    def test_a_new_endpoint_gets_its_keys_one_after_the_other_and_keeps_them(self, kind):
        picker, whole, new = self.warming(kind)
        own = {key for key in KEYS if chosen(whole, key) is new}
        had: set[int] = set()
        for age, part in ((0.0, 0.1), (2.5, 0.25), (5.0, 0.5), (7.5, 0.75), (9.9, 0.99)):
            has = {key for key in KEYS if self.at(picker, key, 100.0 + age) is new}
            assert had <= has <= own
            assert len(has) / len(own) == pytest.approx(part, abs=0.07)
            had = has
        assert {key for key in KEYS if self.at(picker, key, 110.0) is new} == own

    @KINDS
    def test_nobody_elses_keys_move_and_each_of_its_own_has_one_place_before(self, kind):
        picker, whole, new = self.warming(kind)
        for key in KEYS[:1000]:
            places = [self.at(picker, key, 100.0 + age) for age in (0.0, 1.0, 3.0, 6.0, 9.0, 10.0)]
            last = chosen(whole, key)
            assert places[-1] is last
            if last is not new:
                assert set(places) == {last}
            else:
                assert len(set(places) - {new}) <= 1

    @KINDS
    def test_alone_it_has_all_of_them(self, kind):
        endpoints = [live_endpoint(0)]
        endpoints[0].since = 100.0
        picker = consistent(Balancing(kind, table_size=4099), endpoints, slow=self.SLOW)
        assert self.at(picker, KEYS[0], 100.0) is endpoints[0]

    def test_the_other_one_is_down(self):
        endpoints = [live_endpoint(0), live_endpoint(1)]
        endpoints[1].since = 100.0
        endpoints[0].down = Down.EJECTED
        picker = consistent(Balancing(Balancer.RING_HASH), endpoints, slow=self.SLOW)
        assert {self.at(picker, key, 100.0) for key in KEYS[:200]} == {endpoints[1]}

    def test_in_a_live_cluster(self):
        slow = Balancing(Balancer.RING_HASH, slow_start=self.SLOW)
        watched = Watched(flat(4, balancing=slow), now=100.0)
        live = watched.live
        live.update(flat(5, balancing=slow), 200.0)
        new = live.endpoints[4]

        def part(now):
            picks = [live.pick(PickContext(hash=key), now) for key in KEYS]
            for pick in picks:
                pick.release(now)
            return sum(pick.endpoint is new for pick in picks) / len(KEYS)

        whole = part(210.0)
        assert part(200.0) == pytest.approx(whole / 10, abs=0.02)
        assert part(205.0) == pytest.approx(whole / 2, abs=0.03)
