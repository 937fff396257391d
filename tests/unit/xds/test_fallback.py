"""FB-01 to FB-06: which servers of an authority have a stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshlib.xds.fallback import Fallback


class Authority:
    """A fallback, and how its servers are: "new", "well" or "failed"."""

    def __init__(self, count=3, *, eager=False):
        self.fallback = Fallback(count, eager=eager)
        self.servers = ["new"] * count
        self.wanted = True
        self.lacks = True

    def settle(self):
        return self.fallback.settle(
            wanted=self.wanted,
            lacks=lambda: self.lacks,
            failed=lambda place: self.servers[place] == "failed",
            answers=lambda place: self.servers[place] == "well",
        )

    def opened(self, **how):
        for name, value in how.items():
            setattr(self, name, value)
        self.settle()
        return self.fallback.opened

    def turn(self, place, how):
        self.servers[place] = how
        return self.opened()


def test_nothing_is_opened_before_anything_is_wanted():
    """ST-01"""
    authority = Authority()
    assert authority.opened(wanted=False) == 0
    assert authority.opened(wanted=True) == 1
    assert authority.opened(wanted=False) == 0


def test_an_outage_alone_is_no_reason():
    """FB-01: all that is wanted is known."""
    authority = Authority()
    authority.opened(lacks=False)
    assert authority.turn(0, "failed") == 1


def test_something_unknown_alone_is_no_reason():
    """FB-01: the server is there, and may yet say it."""
    authority = Authority()
    assert authority.opened(lacks=True) == 1
    assert authority.turn(0, "well") == 1


def test_both_are():
    authority = Authority()
    authority.settle()
    assert authority.turn(0, "failed") == 2


def test_a_name_that_is_wanted_while_the_server_is_away_is_one_at_that_moment():
    """FB-04"""
    authority = Authority()
    authority.opened(lacks=False)
    authority.turn(0, "failed")
    assert authority.opened(lacks=True) == 2


def test_servers_are_tried_one_by_one():
    """FB-04"""
    authority = Authority()
    authority.settle()
    assert authority.turn(0, "failed") == 2
    assert authority.turn(1, "failed") == 3
    assert authority.turn(2, "failed") == 3


def test_a_server_that_another_authority_knows_to_be_away_is_passed_at_once():
    authority = Authority()
    authority.servers[1] = "failed"
    authority.settle()
    assert authority.turn(0, "failed") == 3


def test_the_first_answer_of_a_better_server_closes_the_others():
    """FB-02"""
    authority = Authority()
    authority.settle()
    authority.turn(0, "failed")
    authority.turn(1, "failed")
    authority.turn(2, "well")
    assert authority.turn(1, "well") == 2
    assert authority.turn(0, "well") == 1


def test_to_be_unreachable_is_enough_where_the_bootstrap_says_so():
    """FB-06"""
    authority = Authority(eager=True)
    authority.opened(lacks=False)
    assert authority.turn(0, "failed") == 2


HOW = st.sampled_from(["new", "well", "failed"])


@given(
    st.lists(st.tuples(st.lists(HOW, min_size=3, max_size=3), st.booleans(), st.booleans())), st.booleans()
)
def test_after_any_history_the_table_holds(history, eager):
    authority = Authority(eager=eager)
    for servers, wanted, lacks in history:
        authority.servers = servers
        before = authority.fallback.opened
        now = authority.opened(wanted=wanted, lacks=lacks)
        assert not authority.settle()  # it is settled
        if not wanted:
            assert now == 0
            continue
        assert 1 <= now <= 3
        assert "well" not in servers[: now - 1]  # who answers is behind nobody
        if now > max(before, 1):
            assert set(servers[max(before, 1) - 1 : now - 1]) == {"failed"}
            assert lacks or eager
        if servers[now - 1] == "failed" and now < 3:
            assert not lacks
            assert not eager
