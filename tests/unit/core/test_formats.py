"""Envoy's format text: parsed once, refused where Envoy refuses it, told where a command has no value here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.formats import Values, check_format, compile_format
from meshlib.model.call import Head
from meshlib.model.headers import Headers


def values(*headers, path="/a/b?q=1&p=x%20y"):
    head = Head("GET", "http", "shop.test", path, Headers.of(*headers))
    made = Values(head, cluster="reviews", route="first", virtual_host="any")
    made.status, made.code, made.endpoint = 404, 200, "10.0.0.1:8080"
    made.response = [(b"x-up", b"1"), (b"X-Up", b"2")]
    return made


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("100%%", "100%"),
        ("%%%%", "%%"),
        ("café", "café"),
        ("%REQ(x-user)%", "alice"),
        ("<%REQ(X-User)%>", "<alice>"),
        ("%REQ(x-user):2%", "al"),
        ("%REQ(x-none?x-user)%", "alice"),
        ("%REQ(x-none)%", ""),
        (
            "%REQ(:METHOD)% %REQ(:path)% %REQ(:authority)% %REQ(:scheme)%",
            "GET /a/b?q=1&p=x%20y shop.test http",
        ),
        ("%REQ(x-two)%", "one"),
        ("%REQ(accept)%", "a,b"),
        ("%RESP(x-up)%", "1"),
        ("%RESP(x-none?X-UP)%", "1"),
        ("%RESP(:status)%", "404"),
        ("%RESPONSE_CODE%", "200"),
        ("%PROTOCOL%", "HTTP/1.1"),
        ("%UPSTREAM_CLUSTER%", "reviews"),
        ("%ROUTE_NAME%", "first"),
        ("%VIRTUAL_HOST_NAME%", "any"),
        ("%UPSTREAM_HOST%", "10.0.0.1:8080"),
        ("%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.1"),
        ("%QUERY_PARAM(q)%", "1"),
        ("%QUERY_PARAM(p)%", "x y"),
        ("%QUERY_PARAM(none)%", ""),
        ("%PATH(NQ)%", "/a/b"),
        ("%PATH(WQ:PATH):4%", "/a/b"),
        ("%PATH(NQ:ORIG)%", ""),
        ("%HOSTNAME%", ""),
    ],
)
def test_values(text, value):
    made = values(("x-user", "alice"), ("x-two", "one"), ("X-Two", "two"), ("accept", "a"), ("accept", "b"))
    assert compile_format(text).render(made) == value.encode()


def test_the_path_that_was_is_found():
    made = values(("x-envoy-original-path", "/old?x"))
    assert compile_format("%PATH(NQ:ORIG)%").render(made) == b"/old"
    assert compile_format("%PATH(WQ)%").render(made) == b"/old?x"
    assert compile_format("%PATH(NQ:PATH)%").render(made) == b"/a/b"


def test_response_has_no_value_on_the_way_out():
    made = values()
    made.response = None
    assert compile_format("<%RESP(x-up)%>").render(made) == b"<>"


def test_decoding_cannot_end_a_line():
    assert (
        compile_format("%QUERY_PARAM(q)%").render(values(path="/?q=a%0d%0ax:%20y%00%zz%4")) == b"ax: y%zz%4"
    )


def test_a_constant_needs_no_rendering():
    assert compile_format("100%%").constant == b"100%"
    assert compile_format("%REQ(a)%").constant is None


def test_commands_without_value_are_named():
    assert compile_format("%HOSTNAME%-%TRACE_ID%").unsupported == (
        "HOSTNAME",
        "TRACE_ID",
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("50% off", "position 2"),
        ("%", "position 0"),
        ("%%%", "position 2"),
        ("%REQ(x", "not closed"),
        ("%REQ(x)", "position 0"),
        ("%REQ(x):y%", "length"),
        ("%REQ%", "header's name"),
        ("%REQ(a?b?c)%", "at most one"),
        ("%NOPE%", "%NOPE%"),
        ("%PROTOCOL(x)%", "no argument"),
        ("%PATH(XX)%", "WQ or NQ"),
        ("%QUERY_PARAM%", "name"),
        ("a" * 20_000, "at most"),
    ],
)
def test_what_envoy_refuses_is_told_with_its_place(text, place):
    assert place in check_format(text)


@given(st.text("%()?:AREQPTH_ax0", max_size=20))
def test_any_text_is_parsed_or_refused(text):
    if check_format(text) is None:
        assert isinstance(compile_format(text).render(values()), bytes)


@given(st.text(max_size=20))
def test_doubled_signs_are_themselves(text):
    assert compile_format(text.replace("%", "%%")).render(values()) == text.encode("utf-8", "surrogatepass")
