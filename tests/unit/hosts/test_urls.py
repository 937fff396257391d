"""URLs as ``explain`` reads them are what httpx would send."""

from __future__ import annotations

import httpx
import pytest

from meshlib.hosts.urls import asked

URLS = [
    "http://reviews",
    "http://reviews/",
    "http://Reviews:80/a/b?c=d#e",
    "http://reviews:9080/a%2fb/%C3%BC",
    "https://reviews:443/ä ö?q=ü&x=%20",
    "http://bücher.example/",
    "http://[0:0::1]:11/x",
    "http://127.0.0.1:8001/a/./b/../c",
    "http://reviews/a/..",
    "http://reviews/../../x",
    "http://reviews/x?a=[1]&b=|",
]


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_read_as_httpx_reads_it(url: str) -> None:
    request = httpx.Request("GET", url, headers={"x-a": "1"})
    place, head = asked("GET", url, [("x-a", "1")])
    theirs = request.url
    assert place[0] == theirs.scheme
    assert place[2] == theirs.port
    assert place[3] == request.headers["host"] == head.authority
    assert head.path == theirs.raw_path.decode()
    assert head.headers.raw == [(b"x-a", b"1")]


def test_a_host_line_is_the_authority_and_no_line() -> None:
    place, head = asked("GET", "http://10.0.0.1:80/", [("Host", "reviews"), ("x", "y")])
    assert place == ("http", "10.0.0.1", None, "reviews")
    assert head.headers.raw == [(b"x", b"y")]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "reviews",
        "ftp://reviews/",
        "http://",
        "http://a:0/",
        "http://a:99999/",
        "http://[::x]/",
        "http://a:b/",
    ],
)
def test_what_is_no_url_of_a_call_is_an_error_that_names_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"must be|[Pp]ort|IPv6|[Ii]nvalid|Expected|not") as caught:
        asked("GET", url, [])
    assert repr(url) in str(caught.value)
