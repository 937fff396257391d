"""Where calls of a pass-through cluster go, where not to their URL (Envoy ``OriginalDstLbConfig``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.destination import bound_for
from meshlib.model.address import Address
from meshlib.model.call import Head
from meshlib.model.cluster import Destination
from meshlib.model.headers import Headers

HEADER = "x-envoy-original-dst-host"


def head(*values: str, authority: str = "reviews:9080") -> Head:
    lines = [(HEADER.upper().encode(), value.encode("latin-1")) for value in values]
    return Head("GET", "http", authority, "/", Headers(lines))


def where(rule: Destination, asked: Head) -> str | None:
    found = bound_for(rule, asked)
    return None if found is None else str(found.address)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("10.0.0.1", None),
        ("10.0.0.1:0", None),
        ("10.0.0.1:65536", None),
        ("reviews:80", None),
        ("localhost:80", None),
        ("unix:/etc/passwd", None),
        ("/var/run/x.sock", None),
        ("@abstract", None),
        ("10.0.0.1:80,10.0.0.2:80", None),
        (" 10.0.0.1:80", None),
        ("0x7f000001:80", None),
        ("", None),
    ],
)
def test_an_address_and_a_port_and_nothing_else(value: str, found: str | None) -> None:
    assert where(Destination(HEADER), head(value)) == found


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_whatever_is_said_it_is_an_ip_address(value: str) -> None:
    found = bound_for(Destination(HEADER), head(value))
    assert found is None or (found.address.is_ip and 0 < found.address.port < 65536)


def test_the_first_line_counts() -> None:
    assert where(Destination(HEADER), head("10.0.0.1:80", "10.0.0.2:80")) == "10.0.0.1:80"
    assert where(Destination(HEADER), head("nobody", "10.0.0.2:80")) is None
    assert where(Destination("x-other"), head("10.0.0.1:80")) is None


@pytest.mark.parametrize(
    ("authority", "found"),
    [("reviews:9080", "reviews:15001"), ("reviews", "reviews:15001"), ("[::1]:80", "[::1]:15001")],
)
def test_a_port_in_the_place_of_its_own(authority: str, found: str) -> None:
    assert where(Destination(port=15001), head("10.0.0.1:80", authority=authority)) == found
    assert where(Destination(HEADER, 15001), head(authority=authority)) == found
    assert where(Destination(HEADER, 15001), head("10.0.0.1:80")) == "10.0.0.1:15001"


def test_of_each_attempt() -> None:
    found = bound_for(Destination(HEADER), head("10.0.0.1:80"))
    assert found is not None
    assert found.address == Address("10.0.0.1", 80)
    assert found.override(1) is found.override(2)
    assert (found.override(1).names, found.override(1).strict) == (("10.0.0.1:80",), True)
