"""What a listener does to a head first; each line measured with Envoy 1.40."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.normalize import merged_slashes, normal_path, normalized, stripped
from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.model.listener import HttpManager


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a/b", "/a/b"),
        ("//a//b", "//a//b"),
        ("/a/./b", "/a/b"),
        ("/a/x/../b", "/a/b"),
        ("/../a", "/a"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/.", "/"),
        ("/a/.b", "/a/.b"),
        ("/a/%2e/b", "/a/b"),
        ("/a/%2E%2e/b", "/b"),
        ("/%61%7eb", "/a~b"),
        ("/a%2fb", "/a%2fb"),
        ("/a\\b", "/a/b"),
        ("/a%5cb", "/a%5cb"),
        ("/%zz%", "/%zz%"),
        ('/{|}"<>^`', "/%7B%7C%7D%22%3C%3E%5E%60"),
        ("/%20'!$&()*+,;=:@[]", "/%20'!$&()*+,;=:@[]"),
    ],
)
def test_normal_path(path, normal):
    assert normal_path(path) == normal


@given(st.text("/.%2eE5c\\ab;", max_size=15))
def test_normal_paths_stay_as_they_are(text):
    once = normal_path("/" + text)
    assert normal_path(once) == once or "%" in once
    assert once.startswith("/")
    assert not any(segment in (".", "..") for segment in once.split("/"))


def test_slashes():
    assert merged_slashes("//a///b//") == "/a/b/"
    assert [merged_slashes("/" * count) for count in (1, 2, 3)] == ["/", "//", "//"]


@pytest.mark.parametrize(
    ("authority", "any_port", "matching"),
    [
        ("h:80", "h", "h:80"),
        ("h:8080", "h", "h"),
        ("h", "h", "h"),
        ("[::1]:8080", "[::1]", "[::1]"),
        ("[::1]", "[::1]", "[::1]"),
        ("h:", "h:", "h:"),
        ("h:x", "h:x", "h:x"),
        ("h:99999999999999999999", "h:99999999999999999999", "h:99999999999999999999"),
    ],
)
def test_ports(authority, any_port, matching):
    assert stripped(authority, HttpManager(strip_any_port=True), 8080) == any_port
    assert stripped(authority, HttpManager(strip_matching_port=True), 8080) == matching
    assert stripped(authority, HttpManager(), 8080) == authority


def test_a_head_with_nothing_to_do_is_itself():
    head = Head("GET", "http", "h:80", "/a?x=//./", Headers())
    everything = HttpManager(merge_slashes=True, normalize_path=True)
    assert normalized(head, everything) is head
    assert normalized(head, HttpManager()) is head


def test_the_query_is_left_alone_and_the_head_given_too():
    head = Head("GET", "http", "h:80", "//a/./b?x=//./", Headers.of(("a", "1")))
    made = normalized(head, HttpManager(merge_slashes=True, normalize_path=True, strip_any_port=True))
    assert (made.path, made.authority, list(made.headers)) == ("/a/b?x=//./", "h", [("a", "1")])
    assert (head.path, head.authority) == ("//a/./b?x=//./", "h:80")
