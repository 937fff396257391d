"""How far services have joined: names, shares, and what the mesh would have made of a call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.adoption import is_safe
from meshlib.core.joining import Adoption, Joinings
from meshlib.model.call import Head
from meshlib.model.headers import Headers


def of(adoption, host, port=80):
    found = Joinings(adoption).of(host, port)
    return found.service, found.mode


def test_names_are_those_of_services():
    services = (("reviews", "observe"), ("ratings:9080", "off"), ("*.shop", "25%"), ("::1", "observe"))
    adoption = Adoption("on", services)
    assert of(adoption, "reviews", 1234) == ("reviews", "observe")
    assert of(adoption, "ratings", 9080) == ("ratings:9080", "off")
    assert of(adoption, "ratings") == ("ratings", "on")
    assert of(adoption, "a.shop") == ("*.shop", "25%")
    assert of(adoption, "elsewhere") == ("elsewhere", "on")


def test_a_service_that_is_named_is_not_of_the_default():
    adoption = Adoption("off", (("reviews", "on"),))
    assert of(adoption, "reviews") == ("reviews", "on")
    assert of(adoption, "elsewhere") == ("elsewhere", "off")


@given(st.text(), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_larger_share_moves_nobody_out(user, one, other):
    small, large = sorted((one, other))
    joinings = [
        Joinings(Adoption(services=(("a", f"{share / 100}%"),))).of("a", 80) for share in (small, large)
    ]
    if joinings[0].includes(user):
        assert joinings[1].includes(user)


@pytest.mark.parametrize("percent", [0, 1, 12.5, 50, 99])
def test_a_share_is_that_share(percent):
    joining = Joinings(Adoption(services=(("a", f"{percent}%"),))).of("a", 80)
    inside = sum(joining.includes(f"user-{number}") for number in range(20_000))
    assert inside / 200 == pytest.approx(percent, abs=1.2)


def test_everybody_is_in_at_a_hundred_percent():
    joining = Joinings(Adoption(services=(("a", "100%"),))).of("a", 80)
    assert all(joining.includes(f"user-{number}") for number in range(2_000))


def test_what_a_share_is_drawn_from():
    adoption = Adoption("50%", (), "x-user", "node-1")
    assert adoption.text_of(Head("GET", "http", "a", "/", Headers([(b"X-User", b"u")]))) == "u"
    assert adoption.text_of(Head("GET", "http", "a", "/")) == "node-1"
    assert Adoption("50%", (), "", "node-1").text_of(Head("GET", "http", "a", "/")) == "node-1"


@pytest.mark.parametrize(
    ("calls", "different", "safe"),
    [
        (0, {}, False),
        (3, {}, True),
        (3, {"host": 3, "retry": 1, "timeout": 1, "tls": 2}, True),
        (3, {"not_known": 3}, False),
        (4, {"not_known": 3}, True),
        (1000, {"port": 1}, False),
        (1000, {"no_route": 1}, False),
        (1000, {"refused": 1}, False),
        (1000, {"no_endpoint": 1}, False),
        (1000, {"answered": 1}, False),
    ],
)
def test_when_it_is_safe_to_go_on(calls, different, safe):
    assert is_safe(calls, different) is safe
