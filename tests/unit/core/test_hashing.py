from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.hashing import RouteHash, combine, hash_bytes, hash_text
from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.model.policy import HashKind, HashPolicy


def test_the_hash_is_xxh64_with_seed_0():  # HP-01; the value is xxHash's own for no bytes
    assert hash_text("") == 0xEF46DB3751D8E999


def test_two_policies_are_turned_and_mixed():  # HP-01
    assert combine(None, 5) == 5
    assert combine(1 << 63, 0) == 1
    assert combine(0b10, 0b1) == 0b101


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_has_a_hash(text):
    assert 0 <= hash_text(text) < 1 << 64
    assert hash_text(text) == hash_text(text)


def head(*lines, path="/", authority="reviews"):
    return Head("GET", "http", authority, path, Headers.of(*lines))


def hashed(policies, request, *, own=77, chance=0.25):
    return RouteHash(policies).of(request, own, lambda: chance)


def by(kind, name="", **fields):
    return HashPolicy(kind, name, **fields)


DRAWN = 1 << 62  # a quarter of all hashes


@pytest.mark.parametrize(
    ("policy", "request_", "value"),
    [
        (by(HashKind.HEADER, "x-user"), head(("X-User", "me")), hash_bytes(b"me")),
        (by(HashKind.HEADER, "x-user"), head(("x-user", "b"), ("x-user", "a")), hash_bytes(b"b", hash_bytes(b"a"))),
        (by(HashKind.HEADER, "x-user"), head(("x-user", "b, a")), hash_bytes(b"b, a")),
        (by(HashKind.HEADER, ":authority"), head(), hash_bytes(b"reviews")),
        (by(HashKind.HEADER, ":path"), head(path="/a?b"), hash_bytes(b"/a?b")),
        (by(HashKind.HEADER, "x", pattern="a(.)", substitution=r"\1\1"), head(("x", "abac")), hash_bytes(b"bbcc")),
        (by(HashKind.HEADER, "x-user"), head(), None),
        (by(HashKind.COOKIE, "sid"), head(("cookie", 'a=b; sid="x"')), hash_bytes(b"x")),
        (by(HashKind.COOKIE, "sid"), head(("cookie", "sid=")), None),
        (by(HashKind.COOKIE, "sid"), head(), None),
        (by(HashKind.QUERY, "q"), head(path="/?q=1&q=2"), hash_bytes(b"1")),
        (by(HashKind.QUERY, "q"), head(path="/?q="), hash_bytes(b"")),
        (by(HashKind.QUERY, "q"), head(path="/?r=1"), None),
        (by(HashKind.SOURCE_IP), head(), 77),
        (by(HashKind.FILTER_STATE, "io.grpc.channel_id"), head(), 77),
        (by(HashKind.FILTER_STATE, "another"), head(), None),
    ],
)  # fmt: skip
def test_what_of_a_request_is_hashed(policy, request_, value):
    """HP-02."""
    assert hashed([policy], request_) == (DRAWN if value is None else value, "")


def test_policies_are_combined_and_a_terminal_one_ends_the_row():
    """HP-01."""
    header, query = by(HashKind.HEADER, "x"), by(HashKind.QUERY, "q")
    a, b = hash_bytes(b"a"), hash_bytes(b"b")
    both, last = head(("x", "a"), path="/?q=b"), head(path="/?q=b")
    assert hashed([header, query], both).value == combine(a, b)
    ending = replace(header, terminal=True)
    assert hashed([ending, query], both).value == a
    assert hashed([ending, query], last).value == b, "a terminal policy without a hash goes on"
    assert hashed([], both).value == DRAWN


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"ttl": 60.0, "path": "/a"}, 'sid="4000000000000000"; Max-Age=60; Path=/a; HttpOnly'),
        ({"ttl": 0.0}, 'sid="4000000000000000"; HttpOnly'),
        ({"ttl": 0.0, "attributes": (("SameSite", "Strict"), ("Secure", ""))}, 'sid="4000000000000000"; SameSite=Strict; Secure; HttpOnly'),
    ],
)  # fmt: skip
def test_a_cookie_that_is_not_there_is_made(fields, line):
    """HP-02: its value is what is hashed, so that the next request, which has it, goes the same way."""
    policy = by(HashKind.COOKIE, "sid", **fields)
    made = hashed([policy], head())
    assert made.cookie == line
    again = hashed([policy], head(("cookie", line.partition(";")[0])), chance=0.9)
    assert again == (made.value, "")
