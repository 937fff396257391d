from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.call import Head, Outcome, OutcomeKind
from meshlib.model.events import AttemptStarted
from meshlib.observe.spans import (
    error_type,
    host_port,
    known_methods,
    mesh_attributes,
    peer,
    redacted,
    start_attributes,
)

EVENT = AttemptStarted(
    key=1,
    number=1,
    head=Head("GET", "http", "reviews", "/"),
    asked="reviews",
    scheme="http",
    url="http://reviews/",
    endpoint="10.0.0.1:8080",
    cluster="reviews|v1",
    route="r",
    via="mesh",
)


@pytest.mark.parametrize(
    ("authority", "scheme", "expected"),
    [
        ("reviews", "http", ("reviews", 80)),
        ("reviews", "https", ("reviews", 443)),
        ("reviews:9080", "http", ("reviews", 9080)),
        ("10.0.0.1:8080", "http", ("10.0.0.1", 8080)),
        ("[::1]:8080", "http", ("::1", 8080)),
        ("[::1]", "https", ("::1", 443)),
        ("::1", "http", ("::1", 80)),
        ("reviews", "", ("reviews", 0)),
        ("reviews:", "http", ("reviews", 80)),
        ("", "http", ("", 80)),
        ("a:b", "http", ("a:b", 80)),
        ("a:999999", "http", ("a:999999", 80)),
        ("[::1", "http", ("[::1", 80)),
        ("[::1]x", "http", ("[::1]x", 80)),
        ("[::1]:", "http", ("::1", 80)),
        ("a:²", "http", ("a:²", 80)),
    ],
)
def test_host_and_port(authority: str, scheme: str, expected: tuple[str, int]) -> None:
    assert host_port(authority, scheme) == expected


@given(st.text(max_size=40), st.sampled_from(["http", "https", ""]))
def test_any_host_header_is_some_host(authority: str, scheme: str) -> None:
    host, port = host_port(authority, scheme)
    assert host in authority
    assert 0 <= port <= 99999


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://reviews/a?b=1#c", "http://reviews/a?b=1#c"),
        ("http://u:p@reviews/a", "http://REDACTED:REDACTED@reviews/a"),
        ("http://u@reviews", "http://REDACTED@reviews"),
        ("http://u:p@x@reviews/", "http://REDACTED:REDACTED@reviews/"),
        ("http://reviews/a@b?c=d@e", "http://reviews/a@b?c=d@e"),
        ("http://reviews?x=a@b", "http://reviews?x=a@b"),
        ("http://reviews/?sig=1&a=2&Signature=3#sig=4", "http://reviews/?sig=REDACTED&a=2&Signature=REDACTED#sig=4"),
        ("http://reviews/?signal=1&sig", "http://reviews/?signal=1&sig"),
        ("http://h/?X-Goog-Signature=a%20b&AWSAccessKeyId=c", "http://h/?X-Goog-Signature=REDACTED&AWSAccessKeyId=REDACTED"),
        ("/relative?sig=1", "/relative?sig=1"),
    ],
)  # fmt: skip
def test_credentials_are_taken_out(url: str, expected: str) -> None:
    assert redacted(url) == expected


@given(
    user=st.text(st.characters(exclude_characters="/?#@:"), min_size=1, max_size=8).map(lambda t: "§" + t),
    password=st.text(st.characters(exclude_characters="/?#"), max_size=8).map(lambda t: "§" + t),
    rest=st.text(st.characters(exclude_characters="§"), max_size=20),
)
def test_no_credentials_are_left_whatever_follows(user: str, password: str, rest: str) -> None:
    assert "§" not in redacted(f"http://{user}:{password}@host/{rest}")


def test_start_attributes() -> None:
    assert start_attributes(EVENT, known_methods()) == {
        "http.request.method": "GET",
        "server.address": "reviews",
        "server.port": 80,
        "url.full": "http://reviews/",
        "meshlib.via": "mesh",
        "meshlib.cluster": "reviews|v1",
        "meshlib.route": "r",
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 8080,
    }


def test_a_resend_has_its_ordinal() -> None:
    assert "http.request.resend_count" not in mesh_attributes(EVENT)
    assert mesh_attributes(replace(EVENT, number=3))["http.request.resend_count"] == 2


def test_methods_that_may_name_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    brew = replace(EVENT, head=Head("BREW", "http", "reviews", "/"))
    said = start_attributes(brew, known_methods())
    assert (said["http.request.method"], said["http.request.method_original"]) == ("_OTHER", "BREW")
    lower = replace(EVENT, head=Head("get", "http", "reviews", "/"))
    assert start_attributes(lower, known_methods())["http.request.method"] == "_OTHER"
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "BREW, GET")
    assert start_attributes(brew, known_methods())["http.request.method"] == "BREW"


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("", {}),
        ("unix:/run/a.sock", {"network.peer.address": "/run/a.sock", "network.transport": "unix"}),
        ("[2001:db8::1]:80", {"network.peer.address": "2001:db8::1", "network.peer.port": 80}),
        ("host.internal", {"network.peer.address": "host.internal"}),
    ],
)
def test_peer(endpoint: str, expected: dict[str, object]) -> None:
    assert peer(endpoint) == expected


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome(OutcomeKind.OK, 200), ""),
        (Outcome(OutcomeKind.OK, 399), ""),
        (Outcome(OutcomeKind.OK, 404), "404"),
        (Outcome(OutcomeKind.STATUS, 503), "503"),
        (Outcome(OutcomeKind.CONNECT, error=OSError()), "OSError"),
        (Outcome(OutcomeKind.TIMEOUT), "timeout"),
        (Outcome(OutcomeKind.RESET, 200, error=ConnectionError()), "ConnectionError"),
        (Outcome(OutcomeKind.CANCELLED), ""),
        (Outcome(OutcomeKind.CANCELLED, error=KeyboardInterrupt()), ""),
        (Outcome(OutcomeKind.CANCELLED, error=KeyError("body")), "KeyError"),
    ],
)
def test_what_is_an_error(outcome: Outcome, expected: str) -> None:
    assert error_type(outcome) == expected
