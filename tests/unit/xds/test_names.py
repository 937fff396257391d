"""FE-01, FE-02: names of resources."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.xds.names import TOP, authority_of, canonical, misfit

LISTENER = "envoy.config.listener.v3.Listener"


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("xdstp://a/t/x?b=2&a=1", "xdstp://a/t/x?a=1&b=2"),
        ("xdstp://a/t/x?a=0&b=2&a=1", "xdstp://a/t/x?a=1&b=2"),  # of two values the last
        ("xdstp://a/t/%78", "xdstp://a/t/x"),
        ("xdstp://a/t/x%2fy", "xdstp://a/t/x%2Fy"),  # which is not x/y
        ("xdstp://a/t/x%2520", "xdstp://a/t/x%2520"),
        ("xdstp://a/t/x?", "xdstp://a/t/x"),
        ("xdstp:/t/x", "xdstp:///t/x"),
        ("xdstp://a/t/ü", "xdstp://a/t/%C3%BC"),
        ("xdstp://a/t", "xdstp://a/t"),  # no name at all: as it is
        ("b?b=2&a=1", "b?b=2&a=1"),  # of the old kind: opaque
        ("", ""),
    ],
)
def test_spellings_of_one_name(name, same):
    """FE-01"""
    assert canonical(name) == same


def test_an_escaped_slash_is_another_name():
    assert canonical("xdstp://a/t/x%2Fy") != canonical("xdstp://a/t/x/y")


@given(st.text().map(lambda text: f"xdstp:{text}".encode("utf-8", "ignore").decode()))
def test_a_canonical_name_is_its_own_canonical_name(name):
    once = canonical(name)
    assert canonical(once) == once
    assert authority_of(once) == authority_of(name)
    assert bool(misfit(once, "t")) == bool(misfit(name, "t"))


@pytest.mark.parametrize(
    ("name", "authority"),
    [
        ("xdstp://a.example:1/t/x", "a.example:1"),
        ("xdstp:///t/x", ""),
        ("xdstp:/t/x", ""),
        ("x", TOP),
        ("https://a/x", TOP),
    ],
)
def test_the_authority_of_a_name(name, authority):
    assert authority_of(name) == authority


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("x", ""),
        (f"xdstp://a/{LISTENER}/x", ""),
        ("xdstp://a/envoy.config.route.v3.RouteConfiguration/x", "names a resource of type"),
        (f"xdstp://a/{LISTENER}", "is no name"),
        (f"xdstp://a/{LISTENER}/", "is no name"),
        (f"xdstp://a/{LISTENER}/%zz", "is no name"),
        (f"xdstp://a/{LISTENER}/x#alt=y", "is no name"),
        ("xdstp:", "is no name"),
    ],
)
def test_what_is_no_name_of_a_type(name, wrong):
    """FE-02"""
    found = misfit(name, LISTENER)
    assert found.startswith(wrong)
    assert bool(found) == bool(wrong)
