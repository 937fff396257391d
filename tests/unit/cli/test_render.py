from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from meshlib.cli.render import clean, decision_view, duration, status_view
from meshlib.model.call import Decision, Response
from meshlib.model.policy import RetryPolicy


def printed(view: Any, *, terminal: bool = False, width: int = 200) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=terminal, markup=False, highlight=False).print(view)
    return stream.getvalue()


def status(**more: Any) -> dict[str, Any]:
    return {
        "node": {"id": "me", "cluster": "shop"},
        "sources": [],
        "clusters": {},
        "process": {"pid": 7, "forked": False, "started": True, "patched": []},
        **more,
    }


def source(**more: Any) -> dict[str, Any]:
    return {"name": "xds", "kind": "xds", "server": "127.0.0.1:18000", "state": "ready", "since": 3.0, **more}


def endpoint(address: str, health: str = "healthy") -> dict[str, Any]:
    return {"address": address, "weight": 1, "priority": 0, "locality": "", "health": health, "active": 0}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1 min"), (7300, "2 h"), (200_000, "2 d")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.text(max_size=60))
def test_nothing_that_a_terminal_obeys_gets_through(text: str) -> None:
    assert clean(text).isprintable()
    view = status_view(
        status(sources=[source(last_error=text, server=text)], clusters={text: {"endpoints": []}})
    )
    assert "\x1b" not in printed(view)
    assert "\r" not in printed(view)


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    assert "[bold]x[/nonsense]" in printed(
        status_view(status(sources=[source(last_error="[bold]x[/nonsense]")]))
    )


def test_a_status_has_what_matters() -> None:
    view = printed(
        status_view(
            status(
                sources=[
                    source(
                        state="stale",
                        last_error="connection refused",
                        versions={"listener": "7", "cluster": ""},
                        resources={"listener": 2, "secret": 0},
                        waiting=[f"n{index}" for index in range(12)],
                        rejected=[{"resource": "r", "type": "route", "problems": ["a: wrong", "b: wrong"]}],
                        ignored=[{"resource": "", "type": "bootstrap", "field": "admin", "value": ""}] * 12,
                    )
                ],
                clusters={
                    "reviews": {"endpoints": [endpoint("10.0.0.1:1"), endpoint("10.0.0.2:1", "ejected")], "breaker": "open", "active": 0},
                    "empty": {"endpoints": [], "breaker": "closed", "active": 0},
                },
            )
        )
    )  # fmt: skip
    for text in (
        "process 7", "node me", "127.0.0.1:18000", "stale", "listener 7", "2 listener", "connection refused",
        "route r rejected: a: wrong; b: wrong", "not honoured: 12, of which the first 10", "bootstrap: admin is not honoured",
        "waiting for n0", "and 2 more", "open", "ejected", "10.0.0.1:1", "no endpoints",
    ):  # fmt: skip
        assert text in view, text
    assert "secret" not in view
    assert view.index("10.0.0.2:1") < view.index("10.0.0.1:1")  # what needs a look comes first


def test_rows_are_bounded() -> None:
    clusters = {
        f"c{index}": {"endpoints": [endpoint(f"10.0.{index}.{n}:1") for n in range(10)], "breaker": "closed", "active": 0}
        for index in range(10)
    }  # fmt: skip
    view = printed(status_view(status(clusters=clusters), rows=15))
    assert view.count("10.0.") == 15
    assert "and 85 more" in view


def test_a_status_of_another_version_is_shown_as_far_as_it_goes() -> None:
    assert "process None" in printed(status_view({}))


def decision(**more: Any) -> Decision:
    fields: dict[str, Any] = {
        "via": "mesh", "listener": "l", "virtual_host": "v", "route": "r", "cluster": "c", "endpoint": "10.0.0.1:1",
        "method": "GET", "authority": "reviews", "path": "/rewritten", "headers": {"x-a": "1"}, "timeout": 2.0,
        "retry": RetryPolicy(), "response": None, "lines": ("GET http://reviews/", "because"),
    }  # fmt: skip
    return Decision(**(fields | more))


def test_a_decision() -> None:
    view = printed(decision_view(decision(), "http://reviews/", fails=""))
    for text in (
        "✓ GET http://reviews/ → c at 10.0.0.1:1",
        "GET reviews/rewritten",
        "x-a: 1",
        "2 s",
        "because",
    ):
        assert text in view


@pytest.mark.parametrize(
    ("more", "fails", "text"),
    [
        ({"response": Response(418, (("a", "b"),), b"teapot")}, "", "the configuration answers 418"),
        ({"via": "direct"}, "", "directly"),
        ({"endpoint": ""}, "nobody is there", "✗ GET http://reviews/ fails: nobody is there"),
        ({"timeout": None, "retry": None}, "", "none"),
    ],
)
def test_decisions_of_other_kinds(more: dict[str, Any], fails: str, text: str) -> None:
    assert text in printed(decision_view(decision(**more), "http://reviews/", fails=fails))


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        (
            {"name": "spiffe://td/a", "expires_in": 7200.0, "roots": 2},
            "· spiffe://td/a · expires in 2 h · 2 roots",
        ),
        (
            {"name": "a", "expires_in": -60.0, "roots": 1, "last_error": "no\x1b[0m"},
            "· a · expired 1 min ago · 1 root · no\\x1b[0m",
        ),
        ({"state": "idle"}, "identity  istio, identity (mesh.toml)  idle"),
    ],
)
def test_who_the_process_is(other: dict[str, Any], shown: str) -> None:
    identity = {"provider": "istio", "found": "identity (mesh.toml)", "state": "ready", **other}
    assert shown in printed(status_view(status(identity=[identity])))
