"""What becomes of a head and of a response: RA and RW, in Envoy's order (held against a real one in tests/e2e/oracle)."""

from __future__ import annotations

import pytest

from meshlib.core.match import compile_routes
from meshlib.core.replies import local_reply
from meshlib.core.rewrite import ResponseContext
from meshlib.model.call import Head, Response
from meshlib.model.headers import Headers
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.policy import HashKind, HashPolicy
from meshlib.model.route import (
    ClusterWeight,
    DirectResponse,
    Edit,
    EditAction,
    Forward,
    HeaderEdits,
    HostRewrite,
    HostRewriteKind,
    Redirect,
    RegexRewrite,
    Route,
    RouteConfiguration,
    VirtualHost,
)


def head(path="/a/b?q=1", *headers, authority="shop.test", method="GET", scheme="http"):
    return Head(method, scheme, authority, path, Headers.of(*headers))


def match_of(action, request=None, *, path=None, route=None, host=None, config=None, most_specific=False):
    """The Match of a configuration with this one route."""
    none = HeaderEdits()
    made = Route(RouteMatch(path or PathMatch(PathKind.PREFIX, "/")), action, "r", route or none)
    hosts = (VirtualHost("v", ("*",), (made,), host or none),)
    routes = RouteConfiguration("c", hosts, config or none, most_specific_wins=most_specific)
    found = compile_routes(routes).match(request or head(), lambda: 0.0)
    assert found is not None
    return found


def sent(action, request=None, weight=None, **fields):
    request = request or head()
    return match_of(action, request, **fields).compiled.request_head(weight, request, cluster="reviews")


def adds(*pairs, **fields):
    return HeaderEdits(request_add=tuple(Edit(name, value, **fields) for name, value in pairs))


def lines(headers, name):
    return [value for key, value in headers if key.lower() == name]


C = Forward(cluster="c")


class TestCluster:
    def test_plain(self):
        assert match_of(C).compiled.choose_cluster(head(), lambda: 0.5) == ("c", None)

    @pytest.mark.parametrize(("drawn", "cluster"), [(0.0, "a"), (0.0999, "a"), (0.1, "b"), (0.9999, "b")])
    def test_weighted(self, drawn, cluster):
        action = Forward(weighted=(ClusterWeight("a", 1), ClusterWeight("none", 0), ClusterWeight("b", 9)))
        told = []
        name, weight = match_of(action).compiled.choose_cluster(head(), lambda: drawn, told)
        assert (name, weight.cluster) == (cluster, cluster)
        assert f"cluster {cluster} has" in told[0]

    @pytest.mark.parametrize(
        ("lines", "cluster"),
        [
            (["0"], "a"),
            ([" +11 "], "b"),
            (["10"], "a"),
            (["18446744073709551615"], "b"),  # 2⁶⁴ − 1, of 10
            (["18446744073709551616"], "drawn"),
            (["-1"], "drawn"),
            (["1.0"], "drawn"),
            ([""], "drawn"),
            (["1", "1"], "drawn"),
            ([], "drawn"),
        ],
    )
    def test_the_number_that_chooses_is_in_a_header(self, lines, cluster):
        shares = (ClusterWeight("a", 1), ClusterWeight("b", 8), ClusterWeight("drawn", 1))
        match = match_of(Forward(weighted=shares, share_header="x-share"))
        asked = head("/", *(("X-Share", line) for line in lines))
        assert match.compiled.choose_cluster(asked, lambda: 0.99)[0] == cluster

    def test_the_number_that_chooses_is_the_calls_hash(self):
        shares = (ClusterWeight("a", 5), ClusterWeight("b", 5))
        policy = (HashPolicy(HashKind.HEADER, "x-user"),)
        match = match_of(Forward(weighted=shares, hash_policy=policy, share_by_hash=True))

        def chosen(user, drawn):
            return match.compiled.choose_cluster(head("/", ("x-user", user)), lambda: drawn)[0]

        for user in map(str, range(20)):
            assert chosen(user, 0.0) == chosen(user, 0.99)
        assert {chosen(str(user), 0.0) for user in range(20)} == {"a", "b"}
        other = match_of(Forward(weighted=shares, share_by_hash=True))  # nothing is hashed: it is drawn
        assert other.compiled.choose_cluster(head(), lambda: 0.0)[0] == "a"
        assert other.compiled.choose_cluster(head(), lambda: 0.99)[0] == "b"

    def test_named_by_the_first_line_of_a_header(self):
        match = match_of(Forward(cluster_header="X-Cluster"))
        assert match.compiled.choose_cluster(
            head("/", ("x-cluster", "a"), ("x-cluster", "b")), lambda: 0.0
        ) == (
            "a",
            None,
        )
        assert match.compiled.choose_cluster(head(), lambda: 0.0) == ("", None)

    def test_a_share_can_be_named_by_a_header(self):
        match = match_of(Forward(weighted=(ClusterWeight("", 1, cluster_header="x-cluster"),)))
        assert match.compiled.choose_cluster(head("/", ("x-cluster", "a")), lambda: 0.0)[0] == "a"


class TestRequestEdits:
    """RW-01."""

    def test_a_new_head_is_made_even_if_nothing_changes(self):
        request = head("/", ("x-a", "1"))
        made = sent(C, request)
        made.headers.append("x-b", "2")
        made.path = "/else"
        assert (request.path, len(request.headers)) == ("/", 1)

    def test_levels_apply_from_the_most_specific_on(self):
        levels = {"route": adds(("x", "r")), "host": adds(("x", "h")), "config": adds(("x", "c"))}
        weight = ClusterWeight("w", 1, adds(("x", "w")))
        action = Forward(weighted=(weight,))
        assert lines(sent(action, weight=weight, **levels).headers, "x") == ["w", "r", "h", "c"]
        other_way = sent(action, weight=weight, most_specific=True, **levels)
        assert lines(other_way.headers, "x") == ["w", "c", "h", "r"]

    def test_last_level_to_overwrite_wins(self):
        levels = {
            "route": adds(("x", "r"), action=EditAction.OVERWRITE),
            "config": adds(("x", "c"), action=EditAction.OVERWRITE),
        }
        assert lines(sent(C, **levels).headers, "x") == ["c"]
        assert lines(sent(C, most_specific=True, **levels).headers, "x") == ["r"]

    @pytest.mark.parametrize(
        ("action", "absent", "present"),
        [
            (EditAction.APPEND, ["new"], ["old", "old2", "new"]),
            (EditAction.ADD_IF_ABSENT, ["new"], ["old", "old2"]),
            (EditAction.OVERWRITE, ["new"], ["new"]),
            (EditAction.OVERWRITE_IF_EXISTS, [], ["new"]),
        ],
    )
    def test_actions(self, action, absent, present):
        edits = adds(("X-New", "new"), action=action)
        assert lines(sent(C, head("/"), route=edits).headers, "x-new") == absent
        there = head("/", ("x-new", "old"), ("X-NEW", "old2"))
        assert lines(sent(C, there, route=edits).headers, "x-new") == present

    def test_removal_comes_before_addition(self):
        edits = HeaderEdits(request_add=(Edit("x", "new"), Edit("y", "%REQ(x)%|")), request_remove=("X",))
        made = sent(C, head("/", ("x", "old")), route=edits)
        assert (lines(made.headers, "x"), lines(made.headers, "y")) == (["new"], ["|"])

    def test_formats_of_a_level_see_the_head_as_the_level_before_left_it(self):
        route = HeaderEdits(request_add=(Edit("x", "1"), Edit("y", "<%REQ(x)%>")))
        made = sent(C, head("/"), route=route, host=adds(("z", "<%REQ(x)%>")))
        assert (lines(made.headers, "y"), lines(made.headers, "z")) == (["<>"], ["<1>"])

    def test_empty_values_are_dropped_unless_kept(self):
        assert lines(sent(C, route=adds(("x", "%REQ(none)%"))).headers, "x") == []
        assert lines(sent(C, route=adds(("x", "%REQ(none)%"), keep_empty=True)).headers, "x") == [""]
        overwriting = adds(("x", ""), action=EditAction.OVERWRITE)
        assert lines(sent(C, head("/", ("x", "1")), route=overwriting).headers, "x") == ["1"]

    def test_a_header_of_one_line_grows_in_its_line(self):
        made = sent(C, head("/", ("User-Agent", "me")), route=adds(("user-agent", "too"), ("user-agent", "")))
        assert list(made.headers) == [("User-Agent", "me,too")]

    def test_lookups_see_what_was_edited(self):
        request = head("/", ("x", "1"))
        assert request.headers.get("x") == "1"
        assert sent(C, request, route=adds(("x", "2"))).headers.get("x") == "1,2"


class TestPath:
    """RW-02."""

    @pytest.mark.parametrize(
        ("kind", "value", "path", "rewritten"),
        [
            (PathKind.PREFIX, "/a", "/a/b?q=1", "/new/b?q=1"),
            (PathKind.EXACT, "/a/b", "/a/b?q=1", "/new?q=1"),
            (PathKind.SEPARATED_PREFIX, "/a", "/a?q=1", "/new?q=1"),
            (PathKind.REGEX, "/.*", "/a/b?q=1", "/new?q=1"),
            (PathKind.PREFIX, "", "/a", "/new/a"),
        ],
    )
    def test_prefix_rewrite_replaces_what_matched(self, kind, value, path, rewritten):
        action = Forward(cluster="c", prefix_rewrite="/new")
        made = sent(action, head(path), path=PathMatch(kind, value))
        assert (made.path, lines(made.headers, "x-envoy-original-path")) == (rewritten, [path])

    @pytest.mark.parametrize(
        ("new", "rewritten"),
        [
            ("/a b HTTP/1.0\r\nx: 1", "/a%20b%20HTTP/1.0%0D%0Ax:%201"),
            ("/\0\x7f\t", "/%00%7F%09"),
            ("/é", "/%C3%A9"),
            ("/a%20b", "/a%20b"),
        ],
    )
    def test_a_rewritten_path_can_stand_in_the_first_line_of_a_request(self, new, rewritten):
        path = PathMatch(PathKind.EXACT, "/x")
        assert sent(Forward(cluster="c", prefix_rewrite=new), head("/x"), path=path).path == rewritten
        regex = Forward(cluster="c", regex_rewrite=RegexRewrite("^/x$", new))
        assert sent(regex, head("/x"), path=path).path == rewritten

    def test_prefix_rewrite_of_any_case(self):
        action = Forward(cluster="c", prefix_rewrite="/new")
        assert sent(action, head("/Ab/c"), path=PathMatch(PathKind.PREFIX, "/aB", False)).path == "/new/c"

    def test_regex_rewrite_leaves_the_query(self):
        action = Forward(cluster="c", regex_rewrite=RegexRewrite("([a-z])", r"<\1>"))
        assert sent(action).path == "/<a>/<b>?q=1"

    def test_a_rewrite_to_nothing_is_none(self):
        made = sent(Forward(cluster="c", regex_rewrite=RegexRewrite(".*", "")))
        assert (made.path, len(made.headers)) == ("/a/b?q=1", 0)

    def test_an_original_path_from_outside_is_replaced(self):
        made = sent(
            Forward(cluster="c", prefix_rewrite="/n"), head("/a", ("x-envoy-original-path", "/forged"))
        )
        assert lines(made.headers, "x-envoy-original-path") == ["/a"]


class TestHost:
    @staticmethod
    def rewrite(kind, value="", regex=None, *, append=False):
        return Forward(
            cluster="c", host_rewrite=HostRewrite(kind, value, regex), append_forwarded_host=append
        )

    def test_literal(self):
        made = sent(self.rewrite(HostRewriteKind.LITERAL, "new.test"))
        assert (made.authority, list(made.headers)) == ("new.test", [("x-envoy-original-host", "shop.test")])

    def test_from_a_header_as_the_edits_left_it(self):
        action = self.rewrite(HostRewriteKind.HEADER, "x-host")
        assert sent(action, route=adds(("x-host", "added.test"))).authority == "added.test"
        assert sent(action).authority == "shop.test"

    def test_from_the_path_before_its_rewrite(self):
        regex = RegexRewrite("^/([a-z]+)/.*$", r"\1.test")
        action = Forward(
            cluster="c",
            prefix_rewrite="/new/",
            host_rewrite=HostRewrite(HostRewriteKind.PATH_REGEX, "", regex),
        )
        assert sent(action, head("/a/b?q")).authority == "a.test"

    def test_forwarded_host(self):
        action = self.rewrite(HostRewriteKind.LITERAL, "new.test", append=True)
        assert lines(sent(action).headers, "x-forwarded-host") == ["shop.test"]
        there = head("/", ("x-forwarded-host", "first.test"))
        assert lines(sent(action, there).headers, "x-forwarded-host") == ["first.test,shop.test"]
        again = head("/", ("x-forwarded-host", "first.test,shop.test"))
        assert lines(sent(action, again).headers, "x-forwarded-host") == ["first.test,shop.test"]

    def test_a_share_has_its_own_host_which_the_routes_overrides(self):
        weight = ClusterWeight("w", 1, host_rewrite=HostRewrite(HostRewriteKind.LITERAL, "share.test"))
        made = sent(Forward(weighted=(weight,)), weight=weight, route=adds(("x", "%REQ(:authority)%")))
        assert (made.authority, lines(made.headers, "x")) == ("share.test", ["share.test"])
        route = HostRewrite(HostRewriteKind.LITERAL, "route.test")
        assert sent(Forward(weighted=(weight,), host_rewrite=route), weight=weight).authority == "route.test"

    def test_auto_is_the_endpoints(self):
        match = match_of(self.rewrite(HostRewriteKind.AUTO, append=True))
        request = match.compiled.request_head(None, head(), cluster="c")
        assert request.authority == "shop.test"
        made = match.compiled.auto_host(request, "pod.test:8080")
        assert made.authority == "pod.test:8080"
        assert lines(made.headers, "x-forwarded-host") == ["shop.test"]
        assert len(request.headers) == 0
        assert match.compiled.auto_host(request, "") is request
        assert match_of(C).compiled.auto_host(request, "pod.test") is request


class TestResponse:
    def test_nothing_to_edit_is_none(self):
        assert match_of(C).compiled.response_edits(None, Headers.of(("a", "1"))) is None

    def test_edits_read_request_and_response(self):
        edits = HeaderEdits(
            response_add=(
                Edit("x", "%RESPONSE_CODE% %REQ(:path)% %RESP(a)% %UPSTREAM_HOST% %UPSTREAM_CLUSTER%"),
            ),
            response_remove=("b",),
        )
        given = Headers.of(("A", "1"), ("b", "2"))
        context = ResponseContext(head("/p"), status=200, cluster="c", endpoint="10.0.0.1:80")
        made = match_of(C, route=edits).compiled.response_edits(None, given, context)
        assert list(made) == [("A", "1"), ("x", "200 /p 1 10.0.0.1:80 c")]
        assert len(given) == 2

    def test_share_then_route_then_host_then_configuration(self):
        def level(value):
            return HeaderEdits(response_add=(Edit("x", value),))

        weight = ClusterWeight("w", 1, level("w"))
        match = match_of(Forward(weighted=(weight,)), route=level("r"), host=level("h"), config=level("c"))
        assert [value for _, value in match.compiled.response_edits(weight, Headers())] == [
            "w",
            "r",
            "h",
            "c",
        ]
        assert [value for _, value in match.compiled.response_edits(None, Headers())] == ["r", "h", "c"]


class TestDirectResponse:
    def test_body_and_lines(self):
        made = match_of(DirectResponse(404, b"gone")).compiled.direct_response(head())
        assert made == Response(404, (("content-length", "4"), ("content-type", "text/plain")), b"gone")

    def test_head_gets_the_lines_only(self):
        made = match_of(DirectResponse(200, b"hello")).compiled.direct_response(head(method="HEAD"))
        assert (made.body, dict(made.headers)["content-length"]) == (b"", "5")

    @pytest.mark.parametrize(("status", "location"), [(201, True), (308, True), (200, False), (404, False)])
    def test_created_and_moved_say_where(self, status, location):
        made = match_of(DirectResponse(status)).compiled.direct_response(
            head("/p?q", authority="shop.test:80")
        )
        assert dict(made.headers) == ({"location": "http://shop.test:80/p?q"} if location else {})

    def test_edits_apply_and_see_no_upstreams_code(self):
        edits = HeaderEdits(
            response_add=(Edit("x", "%RESPONSE_CODE%|%RESP(:status)%"), Edit("content-type", "text/x")),
        )
        made = match_of(DirectResponse(403, b"no"), route=edits).compiled.direct_response(head())
        assert dict(made.headers) == {"x": "0|403", "content-type": "text/x", "content-length": "2"}

    def test_a_grpc_request_is_told_in_its_way(self):
        request = head("/", ("content-type", "application/grpc"))
        made = match_of(DirectResponse(403, "n\u00f6\n".encode())).compiled.direct_response(request)
        assert made.status == 200
        assert dict(made.headers) == {
            "content-type": "application/grpc",
            "grpc-status": "7",
            "grpc-message": "n%C3%B6%0A",
        }

    @pytest.mark.parametrize(
        ("status", "code"), [(404, "12"), (503, "14"), (401, "16"), (301, "2"), (429, "14")]
    )
    def test_grpc_status(self, status, code):
        made = local_reply(head("/", ("content-type", "application/grpc+proto")), Response(status))
        assert dict(made.headers)["grpc-status"] == code

    def test_a_failure_told_as_a_response_gets_the_edits_of_its_share(self):
        weight = ClusterWeight("w", 1, HeaderEdits(response_add=(Edit("x", "%RESPONSE_CODE%"),)))
        made = match_of(Forward(weighted=(weight,))).compiled.failure_reply(
            weight, head(), Response(503, (), b"no")
        )
        assert dict(made.headers)["x"] == "0"


class TestRedirect:
    """RA-04."""

    @staticmethod
    def location(action, path="/a/b?q=1", **fields):
        request = head(path, **fields)
        return dict(
            match_of(action, request, path=PathMatch(PathKind.PREFIX, "/a"))
            .compiled.redirect(request)
            .headers
        )["location"]

    @pytest.mark.parametrize(
        ("action", "location"),
        [
            (Redirect(), "http://shop.test/a/b?q=1"),
            (Redirect(https=True), "https://shop.test/a/b?q=1"),
            (Redirect(scheme="ftp"), "ftp://shop.test/a/b?q=1"),
            (Redirect(host="else.test:9"), "http://else.test:9/a/b?q=1"),
            (Redirect(port=8443), "http://shop.test:8443/a/b?q=1"),
            (Redirect(path="/gone"), "http://shop.test/gone?q=1"),
            (Redirect(path="/gone?own"), "http://shop.test/gone?own"),
            (Redirect(path="/gone?own", strip_query=True), "http://shop.test/gone?own"),
            (Redirect(path="gone", strip_query=True), "http://shop.test/gone"),
            (Redirect(prefix_rewrite="/n"), "http://shop.test/n/b?q=1"),
            (Redirect(regex_rewrite=RegexRewrite("[ab]", "x")), "http://shop.test/x/x?q=1"),
            (Redirect(strip_query=True), "http://shop.test/a/b"),
        ],
    )
    def test_location(self, action, location):
        assert self.location(action) == location

    @pytest.mark.parametrize(
        ("action", "scheme", "authority", "location"),
        [
            (Redirect(https=True), "http", "shop.test:80", "https://shop.test/a"),
            (Redirect(https=True), "http", "shop.test:8080", "https://shop.test:8080/a"),
            (Redirect(scheme="http"), "https", "shop.test:443", "http://shop.test/a"),
            (Redirect(), "http", "shop.test:80", "http://shop.test:80/a"),
            (Redirect(port=81), "http", "[::1]:80", "http://[::1]:81/a"),
            (Redirect(port=81), "http", "[::1]", "http://[::1]:81/a"),
        ],
    )
    def test_port_that_the_old_scheme_implied_goes(self, action, scheme, authority, location):
        assert self.location(action, "/a", scheme=scheme, authority=authority) == location

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_status(self, status):
        assert match_of(Redirect(status)).compiled.redirect(head()).status == status

    def test_edits_see_the_rewritten_path(self):
        edits = HeaderEdits(response_add=(Edit("x", "%REQ(:path)% %REQ(x-envoy-original-path)%"),))
        request = head("/a/b")
        made = match_of(Redirect(path=None, prefix_rewrite="/n/"), request, route=edits).compiled.redirect(
            request
        )
        assert dict(made.headers)["x"] == "/n/a/b /a/b"
        assert request.path == "/a/b"

    def test_required_tls_keeps_the_port(self):
        hosts = (VirtualHost("v", ("*",), require_tls="all"),)
        request = head("/p?q", authority="shop.test:80")
        match = compile_routes(RouteConfiguration("c", hosts)).match(request, lambda: 0.0)
        assert match.compiled.redirect(request) == Response(301, (("location", "https://shop.test:80/p?q"),))


class TestWhiteSpace:
    """A value goes out without white space around it; formats see it as it was made (measured with Envoy 1.40)."""

    def wire(self, action, request, **fields):
        match = match_of(action, request, **fields)
        made = match.compiled.request_head(None, request, cluster="c")
        return match.compiled.sent(made)

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("   ", ""),
            (" edge", "edge"),
            ("\tq\t", "q"),
            ("%HOSTNAME% edge", "edge"),
            ("%REQ(x-user)% via mesh", "via mesh"),
            ("a b", "a b"),
        ],
    )
    def test_of_a_request(self, text, value):
        made = self.wire(C, head(), route=adds(("x-a", text)))
        assert lines(made.headers, "x-a") == [value]

    def test_formats_see_it(self):
        made = self.wire(C, head(), route=adds(("x-a", " edge")), host=adds(("x-b", "<%REQ(x-a)%>")))
        assert (lines(made.headers, "x-a"), lines(made.headers, "x-b")) == (["edge"], ["< edge>"])

    @pytest.mark.parametrize(
        "rewrite",
        [
            HostRewrite(HostRewriteKind.LITERAL, " a.test "),
            HostRewrite(HostRewriteKind.PATH_REGEX, "", RegexRewrite("^.*$", " a.test\t")),
        ],
    )
    def test_of_a_host(self, rewrite):
        assert self.wire(Forward(cluster="c", host_rewrite=rewrite), head()).authority == "a.test"

    def test_of_a_shares_host_and_of_an_endpoints(self):
        share = ClusterWeight("c", 1, host_rewrite=HostRewrite(HostRewriteKind.LITERAL, " a.test"))
        match = match_of(Forward(weighted=(share,)))
        made = match.compiled.request_head(share, head(), cluster="c")
        assert match.compiled.sent(made).authority == "a.test"
        match = match_of(Forward(cluster="c", host_rewrite=HostRewrite(HostRewriteKind.AUTO)))
        made = match.compiled.auto_host(match.compiled.request_head(None, head(), cluster="c"), " e.test ")
        assert match.compiled.sent(made).authority == "e.test"

    def test_of_responses_and_replies(self):
        edits = HeaderEdits(response_add=(Edit("x-a", " b "), Edit("x-c", "   ", keep_empty=True)))
        made = match_of(C, route=edits).compiled.response_edits(None, Headers())
        assert list(made) == [("x-a", "b"), ("x-c", "")]
        own = match_of(Redirect(path="/x "), route=edits).compiled.redirect(head("/a"))
        assert dict(own.headers) == {"location": "http://shop.test/x", "x-a": "b", "x-c": ""}

    def test_what_is_sent_as_it_is_is_not_copied(self):
        plain = match_of(C).compiled
        made = plain.request_head(None, head(), cluster="c")
        assert plain.sent(made) is made


class TestAttemptCounts:
    def test_after_the_edits(self):
        edits = HeaderEdits(response_add=(Edit("x-saw", "%RESP(x-envoy-attempt-count)%", keep_empty=True),))
        route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "/")), C, "r", edits)
        hosts = (VirtualHost("v", ("*",), (route,), attempt_count_in_response=True),)
        compiled = compile_routes(RouteConfiguration("c", hosts)).match(head(), lambda: 0.0).compiled
        assert compiled.edits_responses
        answered = Headers.of(("x-envoy-attempt-count", "9"))
        made = compiled.response_edits(None, answered, ResponseContext(head(), attempts=2))
        assert list(made) == [("x-envoy-attempt-count", "2"), ("x-saw", "9")]
        told = compiled.failure_reply(None, head(), Response(503), attempts=3)
        assert ("x-envoy-attempt-count", "3") in told.headers
        never = compiled.failure_reply(None, head(), Response(503))
        assert never.headers == (("x-saw", ""),)
