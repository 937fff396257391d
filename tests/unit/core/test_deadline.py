from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.deadline import NONE, Deadline, nearest

seconds = st.floats(0.001, 1e6)


def test_the_nearest_wins_and_is_named():
    context = Deadline(110.0, "the deadline")
    assert nearest(100.0, context=context, route=15.0, option=20.0) is context
    assert nearest(100.0, context=context, route=5.0) == Deadline(105.0, "the route's timeout of 5 s")
    assert nearest(100.0, context=context, route=5.0, option=0.25) == Deadline(
        100.25, "the call's timeout of 0.25 s"
    )


def test_zero_from_the_call_switches_the_routes_off():
    assert nearest(100.0, route=15.0, option=0) is NONE
    context = Deadline(101.0, "the deadline")
    assert nearest(100.0, context=context, route=0.5, option=0) is context


def test_a_route_timeout_of_zero_is_none():  # TO-02
    assert nearest(0.0, route=0) is NONE


def test_time_left():
    deadline = Deadline(10.0, "")
    assert deadline.left(4.0) == 6.0
    assert deadline.left(11.0) == 0.0
    assert deadline.over(10.0)
    assert not deadline.over(9.999)
    assert not deadline.allows(4.0, 6.0)
    assert deadline.allows(4.0, 5.9)
    assert (NONE.left(1e9), NONE.over(1e9), NONE.allows(0.0, 1e9)) == (None, False, True)


@given(st.floats(0, 1e6), st.none() | seconds, st.none() | seconds, st.none() | seconds)
def test_nobody_is_overrun(now, context, route, option):
    found = nearest(
        now, context=NONE if context is None else Deadline(now + context, "x"), route=route, option=option
    )
    limits = [now + limit for limit in (context, route, option) if limit is not None]
    assert found.at == (min(limits) if limits else None)
