from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.nearest import nearest

KNOWN = ["inventory", "reviews:9080", "ratings.default.svc.cluster.local", "10.0.0.1", "[::1]:80", "db"]


@pytest.mark.parametrize(
    ("host", "meant"),
    [
        ("inventroy", "inventory"),  # two changed places
        ("inventry", "inventory"),  # one is missing
        ("inventoryy", "inventory"),  # one too many
        ("inventori", "inventory"),  # one is another
        ("nventory", "inventory"),
        ("invnetroy", ""),  # two slips
        ("reviews", "reviews:9080"),  # another port
        ("reveiws", "reviews:9080"),
        ("ratings", "ratings.default.svc.cluster.local"),  # a longer name
        ("ratngs", "ratings.default.svc.cluster.local"),
        ("ratings.default.svc.cluster.loca", "ratings.default.svc.cluster.local"),
        ("ratings.other", ""),
        ("example.com", ""),
        ("dc", ""),  # too short to be a slip of db
        ("", ""),
        ("x" * 5000, ""),
    ],
)
def test_what_was_meant(host, meant):
    assert nearest(host, KNOWN) == meant


@given(st.text("abc-.", min_size=4, max_size=20), st.data())
def test_a_swap_is_found_in_any_name(name, data):
    at = data.draw(st.integers(0, len(name) - 2))
    swapped = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    assert nearest(swapped, [name]) == name


@given(st.text(max_size=80), st.lists(st.text(max_size=20)))
def test_whatever_it_is_given_it_answers_with_one_of_the_names(host, names):
    assert nearest(host, names) in {*names, ""}
