"""What a session makes of a request is what requests makes of it."""

from __future__ import annotations

import http.cookiejar
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from requests.cookies import cookiejar_from_dict

import meshlib_requests
from meshlib_requests.shortcuts import environment

SESSIONS: list[dict[str, Any]] = [
    {},
    {"headers": {"X-Mine": "1", "Accept": None}},
    {"params": {"a": "1", "b": None}},
    {"auth": ("me", "secret")},
    {"cookies": cookiejar_from_dict({"s": "1"})},
    {"cookies": http.cookiejar.CookieJar()},
]
REQUESTS: list[dict[str, Any]] = [
    {},
    {"headers": {"x-mine": "2", "user-agent": None}},
    {"params": {"a": "2", "c": None, "d": ["x", "y"]}},
    {"params": [("a", "1"), ("a", "2")]},
    {"params": "raw=1"},
    {"auth": ("other", "word")},
    {"cookies": {"r": "2"}},
    {"data": {"x": "y"}},
    {"json": {"x": [1]}},
    {"files": {"f": ("name", b"body")}},
]


def prepared(kind: type[requests.Session], session: dict[str, Any], request: dict[str, Any]) -> Any:
    with kind() as made:
        for name, value in session.items():
            if name in {"headers", "params"}:
                getattr(made, name).update(value)
            else:
                setattr(made, name, value)
        found = made.prepare_request(requests.Request("get", "http://me:pw@reviews/a?z=1", **request))
        found.headers.pop("Content-Type", None)  # a boundary is drawn anew each time
        body = found.body if "files" not in request else b""
        return (
            found.method,
            found.url,
            dict(found.headers),
            body,
            found._cookies.get_dict() if hasattr(found._cookies, "get_dict") else None,
        )


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
@pytest.mark.parametrize("session", SESSIONS, ids=str)
def test_requests_are_prepared_as_requests_does(session: dict[str, Any], request_: dict[str, Any]) -> None:
    assert prepared(meshlib_requests.Session, session, request_) == prepared(
        requests.Session, session, request_
    )


SETTINGS: list[tuple[Any, ...]] = [
    ({}, None, None, None),
    ({"http": "http://p"}, True, False, "c.pem"),
    ({"http": None}, None, "ca.pem", ("a", "b")),
    ({"no_proxy": "reviews"}, False, True, None),
]
if tuple(map(int, requests.__version__.split(".")[:2])) >= (2, 34):
    SETTINGS.append(
        (None, None, None, None)
    )  # an AttributeError of requests' own before, where a proxy is in the environment


@pytest.mark.parametrize(
    "variables",
    [{}, {"http_proxy": "http://env"}, {"HTTPS_PROXY": "x", "NO_PROXY": "reviews"}, {"CURL_CA_BUNDLE": "/b"}],
)
@pytest.mark.parametrize(
    "own",
    [
        {},
        {"proxies": {"http": "http://mine"}},
        {"verify": False, "cert": "mine.pem", "stream": True},
        {"trust_env": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("given", SETTINGS, ids=str)
def test_settings_are_merged_as_requests_does(
    given: tuple[Any, ...], own: dict[str, Any], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "requests_ca_bundle",
        "curl_ca_bundle",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = []
    for kind in (requests.Session, meshlib_requests.Session):
        with kind() as made:
            for name, value in own.items():
                setattr(made, name, value)
            proxies, *rest = given
            mine = None if proxies is None else dict(proxies)
            found.append((made.merge_environment_settings("http://reviews/", mine, *rest), mine))
    assert dict(found[1][0], proxies=dict(found[1][0]["proxies"] or {})) == dict(
        found[0][0], proxies=dict(found[0][0]["proxies"] or {})
    )
    assert found[0][1] == found[1][1]


def test_the_environment_is_asked_once_for_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = requests.utils.getproxies

    def counting() -> dict[str, str]:
        asked.append("")
        return original()

    monkeypatch.setenv("MESHLIB_TEST_ONLY", "1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(requests.utils, "getproxies", counting)
    for path in ("/", "/a", "/b?c"):
        environment.proxies_for(f"http://one.test{path}", None)
    assert len(asked) == 1
    environment.proxies_for("http://two.test/", None)
    assert len(asked) == 2
    monkeypatch.setenv("http_proxy", "http://p.test")
    assert environment.proxies_for("http://one.test/", None)["http"] == "http://p.test"
    assert len(asked) == 3


def test_a_patched_lookup_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests.sessions, "get_environ_proxies", lambda url, no_proxy=None: {"http": url})
    assert environment.proxies_for("http://one.test/", None) == {"http": "http://one.test/"}


def test_answers_are_the_callers_own() -> None:
    first = environment.proxies_for("http://three.test/", None)
    first["http"] = "changed"
    assert environment.proxies_for("http://three.test/", None).get("http") != "changed"


SEGMENTS = (
    "api",
    "v1",
    "a.b",
    ".",
    "..",
    ".well-known",
    "",
    "~me",
    "a%20b",
    "a%2e",
    "%7e",
    "a b",
    "caf\xe9",
    "x;y",
    "@",
    "a:b",
    "*",
    "[",
    "\\",
)
HOSTS = (
    "reviews",
    "Reviews",
    "a.b-c.internal",
    "127.0.0.1",
    "[::1]",
    "me:pw@reviews",
    ".a",
    "*.a",
    "a..b",
    "a_b",
    "r\xe9",
    "",
    "a.",
)
PORTS = ("", ":80", ":8080", ":65535", ":65536", ":59999", ":080", ":0", ":", ":x")
TAILS = (
    "",
    "?",
    "?a=b&c=d",
    "?a=%20",
    "?a= b",
    "#part",
    "?a=b#part",
    "?a='(*)'",
    "?\xe9",
    "?a?/b",
    "?[x]",
    "?a|b",
    "\n",
    " ",
    '?a="b"',
)


@given(
    st.sampled_from(("http://", "https://", "HTTP://", "http:/", " http://", "ftp://", "")),
    st.sampled_from(HOSTS),
    st.sampled_from(PORTS),
    st.lists(st.sampled_from(SEGMENTS), max_size=4),
    st.sampled_from(TAILS),
)
def test_urls_are_prepared_as_requests_does(
    scheme: str, host: str, port: str, segments: list[str], tail: str
) -> None:
    url = "".join((scheme, host, port, *(f"/{segment}" for segment in segments), tail))

    def found(kind: type[requests.Session]) -> Any:
        with kind() as made:
            try:
                return vars(made.prepare_request(requests.Request("GET", url)))["url"]
            except requests.RequestException as error:
                return type(error), str(error)

    assert found(meshlib_requests.Session) == found(requests.Session)


def test_a_sessions_headers_are_looked_at_again_when_they_change() -> None:
    with meshlib_requests.Session() as session:

        def lines() -> dict[str, Any]:
            return dict(session.prepare_request(requests.Request("GET", "http://reviews/")).headers)

        before = lines()
        assert lines() == before == dict(session.headers)
        session.headers["X-Mine"] = "1"
        assert lines() == {**before, "X-Mine": "1"}
        session.headers["X-Mine"] = "1\r\nEvil: 2"
        for _ in range(2):
            with pytest.raises(requests.exceptions.InvalidHeader):
                lines()
        session.headers["X-Mine"] = None  # type: ignore[assignment]
        assert lines() == before
        session.headers["X-Mine"] = b"2"
        assert lines() == {**before, "X-Mine": b"2"}
        session.headers["X-Mine"] = "3"
        prepared = session.prepare_request(requests.Request("GET", "http://reviews/"))
        prepared.headers["X-Mine"] = "4"
        assert session.headers["X-Mine"] == "3"
