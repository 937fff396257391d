"""Replies of a listener's own: mappers, bodies, the server's name. Each value measured with Envoy 1.40."""

from __future__ import annotations

import pytest

from meshlib.core.bodies import compile_body
from meshlib.core.formats import Values
from meshlib.core.replies import PLAIN, Replies, Reply, compile_replies
from meshlib.model.body import BodyFormat
from meshlib.model.call import Head, Response
from meshlib.model.headers import Headers
from meshlib.model.listener import HttpManager
from meshlib.model.match import HeaderMatch
from meshlib.model.replies import (
    AllOf,
    AnyOf,
    Anything,
    Comparison,
    DurationTest,
    FlagTest,
    GrpcStatusTest,
    HeaderTest,
    LocalReplies,
    ReplyMapper,
    StatusTest,
)
from meshlib.model.route import Edit, EditAction

GRPC = ("content-type", "application/grpc")
IS_404 = StatusTest(Comparison.EQ, 404)


def head(*lines, method="GET", path="/nope"):
    return Head(method, "http", "shop.test", path, Headers.of(*lines))


def manager(*mappers, body=None, **fields):
    return HttpManager(local_replies=LocalReplies(mappers, body), **fields)


def given(made, response=Response(404), *, asked=None, **fields):  # noqa: B008 - frozen
    return compile_replies(made).give(Reply(asked or head(), response, **fields))


class TestBodies:
    def render(self, body, *lines, flags="", content=b"told"):
        values = Values(head(*lines), cluster="", route="", virtual_host="")
        values.status = values.code = 404
        values.flags, values.body, values.response = flags, content, []
        return compile_body(body).render(values)

    @pytest.mark.parametrize(
        ("text", "omitted", "kept"),
        [
            ("[%LOCAL_REPLY_BODY%|%RESPONSE_CODE%]", b"[told|404]", b"[told|404]"),
            ("%RESPONSE_FLAGS% %REQ(x-miss)% %REQ(x-miss):3%", b"-  ", b"- - -"),
            ("%REQ(x-empty)%|%UPSTREAM_CLUSTER%|%HOSTNAME%|%RESP(x)%", b"|||", b"|-|-|-"),
            ("%% %REQ(:path)% %PROTOCOL%\\n", b"% /nope HTTP/1.1\\n", b"% /nope HTTP/1.1\\n"),
            ("", b"", b""),
        ],
    )
    def test_text(self, text, omitted, kept):
        assert self.render(BodyFormat(text), ("x-empty", "")) == kept
        assert self.render(BodyFormat(text, omit_empty=True), ("x-empty", "")) == omitted

    def test_json(self):
        members = {
            "z": "%RESPONSE_CODE%",
            "a": "%LOCAL_REPLY_BODY%",
            "m": "%REQ(x-miss)%",
            "mix": "c=%RESPONSE_CODE% %REQ(x-miss)%",
            "n": {"p": "%REQ(:path)%", "l": ["%PROTOCOL%", "lit"]},
            "f": "%RESPONSE_FLAGS%",
            "num": 1.5,
            "int": 7.0,
            "t": True,
            "nul": None,
            "lit": '\u00e9"\\/<',
            "empty": "",
        }
        assert self.render(BodyFormat(json=members), flags="NR", content=b"").decode() == (
            '{"a":"","empty":"","f":"NR","int":7,"lit":"\u00e9\\"\\\\/<","m":null,"mix":"c=404 -",'
            '"n":{"l":["HTTP/1.1","lit"],"p":"/nope"},"nul":null,"num":1.5,"t":true,"z":404}\n'
        )

    def test_json_without_what_is_empty(self):
        members = {
            "a": "%REQ(x-miss)%",
            "b": "x%REQ(x-miss)%",
            "c": {"d": "%REQ(x-miss)%"},
            "e": ["%REQ(x-miss)%", "q"],
            "f": "%RESPONSE_FLAGS%",
        }
        assert self.render(BodyFormat(json=members, omit_empty=True)) == b'{"b":"x","e":["q"],"f":"-"}\n'

    def test_bytes_that_are_no_text(self):
        body = BodyFormat(json={"body": "%LOCAL_REPLY_BODY%"})
        assert self.render(body, content=b"\xff\x00\xfe") == b'{"body":"\\u00ff\\u0000\\u00fe"}\n'


class TestMappers:
    @pytest.mark.parametrize(
        ("test", "reply", "holds"),
        [
            (StatusTest(Comparison.EQ, 404), {}, True),
            (StatusTest(Comparison.NE, 404), {}, False),
            (StatusTest(Comparison.GE, 404), {}, True),
            (StatusTest(Comparison.GE, 405), {}, False),
            (StatusTest(Comparison.LE, 403), {}, False),
            (FlagTest(("NR", "NC")), {"flags": "NR"}, True),
            (FlagTest(("URX",)), {"flags": "URX,UF"}, True),
            (FlagTest(("UF",)), {"flags": "NR"}, False),
            (FlagTest(), {"flags": "UF"}, True),
            (FlagTest(), {}, False),
            (GrpcStatusTest(frozenset({12})), {}, True),  # 404 is UNIMPLEMENTED
            (GrpcStatusTest(frozenset({14})), {}, False),
            (GrpcStatusTest(frozenset({14}), exclude=True), {}, True),
            (HeaderTest(HeaderMatch("x-h", present=True)), {"asked": head(("x-h", "1"))}, True),
            (HeaderTest(HeaderMatch("x-h", present=True)), {}, False),
            (Anything(), {}, True),
            (Anything(False), {}, False),
            (AllOf((IS_404, Anything(False))), {}, False),
            (AnyOf((Anything(False), IS_404)), {}, True),
        ],
    )
    def test_tests(self, test, reply, holds):
        made = given(manager(ReplyMapper(test, 290)), **reply)
        assert made.status == (290 if holds else 404)

    def test_the_first_that_holds_applies(self):
        made = manager(
            ReplyMapper(Anything(False), 291), ReplyMapper(Anything(), 292), ReplyMapper(Anything(), 293)
        )
        assert given(made).status == 292

    def test_edits_see_the_status_that_was_and_the_body_the_one_that_is(self):
        edits = (
            Edit("x-m", "%RESPONSE_CODE% %RESP(:status)% %REQ(:path)% "),
            Edit("x-d", "2", EditAction.OVERWRITE),
        )
        mapper = ReplyMapper(IS_404, 599, b"mapped", BodyFormat("%RESPONSE_CODE% %LOCAL_REPLY_BODY%"), edits)
        made = given(manager(mapper), Response(404, (("x-d", "1"),)))
        assert (made.status, made.body) == (599, b"599 mapped")
        assert dict(made.headers) == {
            "x-m": "404 404 /nope",
            "x-d": "2",
            "content-length": "10",
            "content-type": "text/plain",
        }

    def test_an_empty_body_takes_the_place_of_one(self):
        made = given(manager(ReplyMapper(Anything(), body=b"")), Response(200, (), b"x"))
        assert (made.body, made.headers) == (b"", ())

    @pytest.mark.parametrize(
        ("text", "own", "wanted"),
        [
            ("<%LOCAL_REPLY_BODY%>", "e/d", "l/r"),  # another body: the type of what made it
            ("%LOCAL_REPLY_BODY%", "e/d", "e/d"),  # the same body: its own type
            ("%LOCAL_REPLY_BODY%", "", "l/r"),
        ],
    )
    def test_content_types(self, text, own, wanted):
        lines = (("content-type", own),) if own else ()
        made = given(manager(body=BodyFormat(text, content_type="l/r")), Response(200, lines, b"x"))
        assert dict(made.headers)["content-type"] == wanted

    def test_a_mapper_that_sets_the_type_is_heard(self):
        edits = (Edit("content-type", "a/b", EditAction.OVERWRITE),)
        made = given(manager(ReplyMapper(Anything(), body=b"le", add=edits)), Response(200, (), b"dd"))
        assert (made.body, dict(made.headers)["content-type"]) == (b"le", "a/b")

    def test_grpc(self):
        body = BodyFormat(json={"code": "%RESPONSE_CODE%"})
        made = given(manager(ReplyMapper(IS_404, 503), body=body), asked=head(GRPC))
        assert made == Response(
            200,
            (GRPC, ("grpc-status", "14"), ("grpc-message", '{"code":503}')),
        )
        text = given(manager(body=BodyFormat("gone\n")), asked=head(GRPC))
        assert dict(text.headers)["grpc-message"] == "gone%0A"

    def test_a_head_request_and_a_status_without_a_body(self):
        made = given(manager(body=BodyFormat("gone")), asked=head(method="HEAD"))
        assert (made.body, dict(made.headers)["content-length"]) == (b"", "4")
        made = given(manager(ReplyMapper(Anything(), 204)), Response(200, (), b"x"))
        assert (made.status, made.body) == (204, b"")


class TestServer:
    @pytest.mark.parametrize(
        ("keeps", "lines", "server"),
        [
            (False, (), "me"),
            (False, (("Server", "edited"),), "me"),
            (True, (), "me"),
            (True, (("server", "edited"),), "edited"),
        ],
    )
    def test_name(self, keeps, lines, server):
        made = given(HttpManager(server_name=" me ", keeps_server=keeps), Response(404, lines))
        assert [(name.lower(), value) for name, value in made.headers] == [("server", server)]

    def test_a_listener_that_orders_nothing(self):
        assert compile_replies(HttpManager()) is PLAIN
        assert Replies().give(Reply(head(), Response(404))) == Response(404)


@pytest.mark.parametrize(
    ("test", "seconds", "holds"),
    [
        (DurationTest(Comparison.GE, 200), 0.2009, True),
        (DurationTest(Comparison.GE, 200), 0.1999, False),
        (DurationTest(Comparison.EQ, 0), 0.0009, True),
        (DurationTest(Comparison.LE, 5), 0.0059, True),
        (DurationTest(Comparison.NE, 5), 0.005, False),
    ],
)
def test_a_reply_is_mapped_by_the_milliseconds_of_its_call(test, seconds, holds):
    made = given(manager(ReplyMapper(test, status=599)), seconds=seconds)
    assert made.status == (599 if holds else 404)
