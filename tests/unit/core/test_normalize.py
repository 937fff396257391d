"""What a listener does to a head first; each line measured with Envoy 1.40."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.normalize import Entrance, merged_slashes, normal_path, stripped
from meshlib.model.call import Head
from meshlib.model.edits import Edit, Removal
from meshlib.model.headers import Headers
from meshlib.model.listener import EscapedSlashes, HttpManager, Underscores
from meshlib.model.match import StringKind, StringMatch


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


@pytest.mark.parametrize(
    ("manager", "large"),
    [
        ({"most_lines": 3}, False),
        ({"most_lines": 2}, True),
        ({"most_head": 2 + 5 + 5 + 4 + 1}, False),
        ({"most_head": 2 + 5 + 5 + 4}, True),
    ],
)
def test_how_large_a_head_may_be(manager, large):
    """Two lines and the Host; the path and both of each line."""
    entrance = Entrance(HttpManager(**manager))
    assert entrance.changes
    head = Head("GET", "http", "h", "/a", Headers.of(("x-a", "bc"), ("y-a", "de")))
    assert (entrance.answer(head, head) is not None) is large


def test_a_head_with_nothing_to_do_is_itself():
    head = Head("GET", "http", "h:80", "/a?x=//./", Headers())
    everything = HttpManager(merge_slashes=True, normalize_path=True)
    assert Entrance(everything).seen(head) is head
    assert Entrance(HttpManager()).seen(head) is head
    assert not Entrance(HttpManager()).changes


def test_the_query_is_left_alone_and_the_head_given_too():
    head = Head("GET", "http", "h:80", "//a/./b?x=//./", Headers.of(("a", "1")))
    made = Entrance(HttpManager(merge_slashes=True, normalize_path=True, strip_any_port=True)).seen(head)
    assert (made.path, made.authority, list(made.headers)) == ("/a/b?x=//./", "h", [("a", "1")])
    assert (head.path, head.authority) == ("//a/./b?x=//./", "h:80")


@pytest.mark.parametrize(
    ("authority", "without"),
    [
        ("shop.test.", "shop.test"),
        ("shop.test..", "shop.test."),
        ("shop.test.:80", "shop.test:80"),
        ("shop.test:80.", "shop.test:80"),
        ("shop.test", "shop.test"),
        (".", ""),
        ("localhost", "localhost"),
        ("[::1]:80", "[::1]:80"),
    ],
)
def test_the_dot_at_the_end_of_a_host(authority, without):
    assert stripped(authority, HttpManager(strip_trailing_dot=True)) == without
    assert stripped(authority, HttpManager()) == authority


def head(path="/", *lines, method="GET", scheme="http", authority="shop.test"):
    return Head(method, scheme, authority, path, Headers.of(*lines))


GRPC = ("content-type", "application/grpc")


@pytest.mark.parametrize(
    ("path", "forwarded", "cleaned"),
    [
        ("/a%2Fb?q=%2F", "/a/b?q=%2F", "/a/b?q=%2F"),
        ("/a%5cb", "/a\\b", "/a/b"),
        ("/a%2f..%2fb", "/a/../b", "/b"),
        ("/a%2f%2f/b", "/a///b", "/a/b"),
        ("/a%252Fb", "/a%252Fb", "/a%252Fb"),
        ("/%2f", "//", "//"),
    ],
)
def test_escaped_slashes_are_undone_before_all_else(path, forwarded, cleaned):
    plain = HttpManager(escaped_slashes=EscapedSlashes.FORWARD)
    clean = HttpManager(escaped_slashes=EscapedSlashes.FORWARD, normalize_path=True, merge_slashes=True)
    assert Entrance(plain).seen(head(path)).path == forwarded
    assert Entrance(clean).seen(head(path)).path == cleaned
    assert Entrance(clean).answer(head(path), head(cleaned)) is None
    redirecting = Entrance(HttpManager(escaped_slashes=EscapedSlashes.REDIRECT))
    asked = head(path)
    own = redirecting.answer(asked, redirecting.seen(asked))
    if path == forwarded:
        assert own is None
    else:
        reply, words = own
        assert (reply.status, reply.lines) == (307, [(b"location", forwarded.encode())])
        assert words == "the path has an escaped slash"


def test_escaped_slashes_kept_refused_and_of_grpc():
    asked = head("/a%2fb")
    keeping = Entrance(HttpManager())
    assert keeping.seen(asked) is asked
    assert keeping.answer(asked, asked) is None
    refusing = Entrance(HttpManager(escaped_slashes=EscapedSlashes.REJECT))
    assert refusing.answer(asked, refusing.seen(asked))[0].status == 400
    assert refusing.answer(head("/a?x=%2f"), head("/a?x=%2f")) is None
    redirecting = Entrance(HttpManager(escaped_slashes=EscapedSlashes.REDIRECT))
    assert redirecting.answer(head("/a%2fb", GRPC), asked)[0].status == 400


@pytest.mark.parametrize("name", ["x_user", "X-User_", "_"])
def test_underscores_in_the_names_of_headers(name):
    asked = head("/", ("x-kept", "a_b"), (name, "1"))
    assert not Entrance(HttpManager(underscores=Underscores.ALLOW)).changes
    dropping = Entrance(HttpManager(underscores=Underscores.DROP))
    assert list(dropping.seen(asked).headers) == [("x-kept", "a_b")]
    assert dropping.answer(asked, dropping.seen(asked)) is None
    refusing = Entrance(HttpManager(underscores=Underscores.REJECT, escaped_slashes=EscapedSlashes.REDIRECT))
    reply, words = refusing.answer(asked, asked)
    assert (reply.status, reply.body) == (400, b"Bad Request")
    assert words == "a header's name has an underscore"
    assert (
        refusing.answer(head("/a_b%2f", (name, "1")), asked)[0].status == 400
    )  # before its path is looked at
    for entrance in (dropping, refusing):
        plain = head("/a_b", ("x-kept", "a_b"))
        assert entrance.seen(plain) is plain
        assert entrance.answer(plain, plain) is None


def test_the_scheme_that_a_listener_orders():
    made = Entrance(HttpManager(scheme="https")).seen(head("/", ("x-forwarded-proto", "http")))
    assert (made.scheme, list(made.headers)) == ("https", [("x-forwarded-proto", "https")])


def test_whose_calls_they_are():
    entrance = Entrance(HttpManager(user_agent=True), None, (" shop ", "pod-1"))
    cluster, node = (
        ("x-envoy-downstream-service-cluster", "shop"),
        ("x-envoy-downstream-service-node", "pod-1"),
    )
    assert list(entrance.seen(head()).headers) == [cluster, node, ("user-agent", "shop")]
    mine = entrance.seen(head("/", ("user-agent", "mine"), ("x-envoy-downstream-service-node", "z")))
    assert list(mine.headers) == [("user-agent", "mine"), node, cluster]
    assert next(iter(entrance.seen(head("/", ("User-Agent", ""))).headers)) == ("User-Agent", "shop")
    assert not Entrance(HttpManager(user_agent=True)).changes


def test_the_port_of_the_listener():
    entrance = Entrance(HttpManager(forwarded_port=True), 8001)
    assert list(entrance.seen(head()).headers) == [("x-forwarded-port", "8001")]
    for given_port in ("1", ""):
        asked = head("/", ("x-forwarded-port", given_port))
        assert list(entrance.seen(asked).headers) == [("x-forwarded-port", given_port)]
    assert not Entrance(HttpManager(forwarded_port=True)).changes


def test_headers_are_edited_before_the_listener_adds_its_own():
    manager = HttpManager(
        via="mesh",
        user_agent=True,
        normalize_path=True,
        mutations=(Removal("x-gone"), Edit("x-path", "%REQ(:path)%|%REQ(x-gone)%"), Edit("via", "early")),
    )
    entrance = Entrance(manager, node=("shop", ""))
    head = Head("GET", "http", "h", "/a/./b", Headers.of(("x-gone", "1"), ("connection", "close")))
    seen = dict(entrance.seen(head).headers)
    assert entrance.changes
    assert (seen["via"], seen["x-path"], seen["user-agent"]) == ("early, mesh", "/a/b|", "shop")
    assert "x-gone" not in seen
    assert dict(head.headers)["x-gone"] == "1"


def test_what_is_removed_by_a_match_is_none_of_the_connection():
    every = Removal(matching=StringMatch(StringKind.PREFIX, ""))
    head = Head("GET", "http", "h", "/", Headers.of(("X-A", "1"), ("Host", "h"), ("Connection", "close")))
    seen = Entrance(HttpManager(mutations=(every,))).seen(head)
    assert list(seen.headers) == [("Host", "h"), ("Connection", "close")]
