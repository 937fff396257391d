from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshlib.runtime.interest import UNKNOWN, Interest


class TestInterest:
    def test_a_name_is_new_once(self):
        interest = Interest()
        assert not interest.touch("reviews")
        assert interest.add("reviews", "reviews", 0.0) == (True, ())
        assert interest.add("reviews", "reviews", 1.0) == (False, ())
        assert interest.touch("reviews")
        assert interest.get("reviews").since == 0.0

    def test_what_is_not_used_for_long_goes(self):
        interest = Interest(idle=600.0)
        interest.add("a", "a", 0.0)
        assert interest.sweep(10.0) == ()
        assert interest.sweep(500.0) == ()
        assert interest.sweep(610.0) == ("a",)
        assert len(interest) == 0

    def test_use_keeps_it(self):
        interest = Interest(idle=600.0)
        interest.add("a", "a", 0.0)
        for now in range(0, 6000, 30):
            interest.touch("a")
            assert interest.sweep(float(now)) == ()

    def test_what_goes_on_keeps_it_until_it_is_over(self):
        interest = Interest(idle=90.0)
        for name in ("stream", "short"):
            interest.add(name, "", 0.0)
        assert interest.sweep(15.0, ["stream"].__contains__) == ()
        assert interest.sweep(30.0, ["stream"].__contains__) == ()
        for now in range(45, 300, 15):  # somebody else's calls are no use of a name whose own were over
            gone = interest.sweep(float(now), ["stream", "short"].__contains__)
            assert gone == (("short",) if now == 105 else ())
        assert interest.sweep(300.0) == ()
        assert interest.sweep(375.0, ["stream"].__contains__) == ("stream",)

    def test_of_names_that_nobody_knows_the_last_used_are_kept(self):
        interest = Interest()
        names = [str(number) for number in range(UNKNOWN + 7)]
        for name in ("known", *names):
            interest.add(name, "", 0.0)

        def unknown(wanted):
            return wanted.name != "known"

        interest.sweep(0.0)
        for name in names[7:]:
            interest.touch(name)
        assert interest.trim(15.0, unknown) == tuple(names[:7])
        assert interest.trim(15.0, unknown) == ()
        assert len(interest) == UNKNOWN + 1
        assert interest.get("known")

    def test_the_longest_unused_go_when_there_are_too_many(self):
        interest = Interest(idle=600.0, most=8)
        for number in range(8):
            interest.add(str(number), "", 0.0)
        interest.sweep(0.0)
        for number in range(2, 8):
            interest.touch(str(number))
        interest.sweep(100.0)
        new, dropped = interest.add("next", "", 101.0)
        assert new
        assert dropped == ("0",)

    def test_a_copy_for_another_process_wants_the_same_from_now_on(self):
        interest = Interest()
        interest.add("a", "a:80", 5.0)
        copied = interest.copy(90.0)
        assert [(each.name, each.authority, each.since) for each in copied.names()] == [("a", "a:80", 90.0)]

    @given(st.lists(st.integers(0, 200), max_size=400))
    def test_it_never_holds_more_than_its_bound_and_drops_what_it_says(self, hosts):
        interest = Interest(most=16)
        held = set()
        for now, host in enumerate(hosts):
            name = str(host)
            if not interest.touch(name):
                new, dropped = interest.add(name, name, float(now))
                assert new
                held.add(name)
                assert set(dropped) <= held
                held -= set(dropped)
            assert len(interest) <= 16
        assert {each.name for each in interest.names()} == held
