"""Lines that a connection manager adds, and edits that it makes first: a real Envoy and meshlib do the same."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from meshlib.testing import build
from tests.e2e.oracle.beside import Beside
from tests.support.late import again_if_late, soon

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

EARLY = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
OVERWRITE = "OVERWRITE_IF_EXISTS_OR_ADD"
ANSWERS = build.route("/own", respond=(404, "x"))
OK = build.route("/", cluster="c")
FAILING = [
    build.route("/nobody", cluster="empty"),
    build.route("/closed", cluster="closed"),
    build.route("/missing", cluster="missing"),
    build.route("/own", respond=(503, "x")),
    build.route("/slow", cluster="c", timeout=0.3),
]


def appended(name: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD") -> dict[str, Any]:
    return {"append": build.header(name, value, action=action)}


MUTATIONS = [
    {"remove": "x-gone"},
    {"remove": "x-request-id"},
    {"remove": "x-envoy-downstream-service-cluster"},
    appended("via", "early"),
    appended("x-path", "%REQ(:path)%|%REQ(x-mine)%|%REQ(x-gone)%"),
    appended("x-twice", "2"),
    appended("x-path-again", "%REQ(x-path)%"),
    appended("x-absent", "1", "ADD_IF_ABSENT"),
    appended("x-mine", "1", "ADD_IF_ABSENT"),
    appended("x-there", "1", "OVERWRITE_IF_EXISTS"),
    appended("x-not-there", "1", "OVERWRITE_IF_EXISTS"),
    appended("x-over", "1", OVERWRITE),
    appended("x-empty", "%REQ(nothing)%"),
    {"remove_on_match": {"key_matcher": {"prefix": "x-m-"}}},
    {"remove_on_match": {"key_matcher": {"exact": "X-UP", "ignore_case": True}}},
]
MANAGERS = {
    "via": {"via": "mesh"},
    "ids": {"always_set_request_id_in_response": True},
    "made": {"always_set_request_id_in_response": True, "generate_request_id": True},
    "early": {
        "via": "mesh",
        "add_user_agent": True,
        "normalize_path": True,
        "generate_request_id": True,
        "early_header_mutation_extensions": [
            {"name": "e", "typed_config": build.any_of(EARLY, {"mutations": MUTATIONS})}
        ],
    },
}
STATUSES = {
    "plain": {"proxy_status_config": {}},
    "named": {"server_name": "edge", "proxy_status_config": {"remove_response_flags": True}},
    "node": {"proxy_status_config": {"use_node_id": True, "set_recommended_response_code": True}},
    "short": {"proxy_status_config": {"literal_proxy_name": "mine", "remove_details": True}},
}


def mapped(op: str, milliseconds: int, status: int) -> dict[str, Any]:
    comparison = {"op": op, "value": {"default_value": milliseconds, "runtime_key": "nobody.sets.it"}}
    return {"filter": {"duration_filter": {"comparison": comparison}}, "status_code": status}


DURATIONS = {
    "local_reply_config": {"mappers": [mapped("GE", 200, 599), mapped("EQ", 0, 598), mapped("LE", 199, 598)]}
}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    held = socket.socket()
    held.bind(("127.0.0.1", 0))  # and does not listen
    quiet = {"generate_request_id": False}
    listeners: dict[str, Any] = {
        name: ([ANSWERS, OK], {"manager": quiet | fields}) for name, fields in MANAGERS.items()
    }
    edited = {
        **OK,
        "request_headers_to_add": [build.header("x-request-id", "edited", action=OVERWRITE)],
        "response_headers_to_add": [build.header("via", "edit")],
    }
    listeners["edited"] = ([edited], {"manager": quiet | MANAGERS["via"] | MANAGERS["ids"]})
    listeners["timed"] = (FAILING, {"manager": quiet | DURATIONS})
    listeners |= {name: (FAILING, {"manager": quiet | fields}) for name, fields in STATUSES.items()}
    clusters = (
        build.cluster("empty", []),
        build.cluster("closed", [f"127.0.0.1:{held.getsockname()[1]}"]),
    )
    config = {"node": {"id": "oracle", "cluster": "oracle"}}
    with held, Beside(tmp_path_factory.mktemp("envoy"), listeners, *clusters, config=config) as made:
        yield made


@pytest.mark.parametrize("lines", [[], [("via", "1.1 a")], [("via", "1.1 a"), ("via", "b")]])
@pytest.mark.parametrize("name", ["via", "edited"])
def test_each_hop_says_that_it_was_one(beside: Beside, name: str, lines: list[tuple[str, str]]) -> None:
    ours, envoy = beside.ask(name, headers=lines)
    assert ours.line("via") == envoy.line("via") == ("edit, mesh" if name == "edited" else "mesh")
    assert ours.sent("via") == envoy.sent("via")
    assert ours.sent("via").endswith("mesh")


def test_replies_of_the_listeners_own_say_it_too(beside: Beside) -> None:
    ours, envoy = beside.ask("via", "/own")
    assert (ours.status, ours.line("via")) == (envoy.status, envoy.line("via")) == (404, "mesh")


def test_a_response_has_the_id_of_its_request(beside: Beside) -> None:
    for path in ("/", "/own"):
        assert [got.line("x-request-id") for got in beside.ask("ids", path)] == [None, None]
        for got in beside.ask("ids", path, headers={"x-request-id": "mine"}):
            assert got.line("x-request-id") == "mine"
    for got in beside.ask("edited", headers={"x-request-id": "mine"}):
        assert got.line("x-request-id") == got.sent("x-request-id") == "edited"
    for got in beside.ask("made"):
        assert got.line("x-request-id") == got.sent("x-request-id")
        assert len(got.sent("x-request-id")) == 36
    for got in beside.ask("made", "/own"):
        assert len(got.line("x-request-id")) == 36


def test_headers_are_edited_before_all_else(beside: Beside) -> None:
    sent = {
        "x-gone": "1",
        "x-mine": "M",
        "x-twice": "1",
        "x-there": "0",
        "x-over": "0",
        "x-m-1": "1",
        "x-up": "1",
        "x-request-id": "mine",
    }
    ours, envoy = beside.ask("early", "/a/./b", headers=sent)
    names = (
        *sent,
        *("via", "x-path", "x-path-again", "x-absent", "x-not-there", "x-empty"),
        "x-envoy-downstream-service-cluster",
        "x-envoy-downstream-service-node",
    )
    found = {name: [got.sent(name) for got in (ours, envoy)] for name in names if name != "x-request-id"}
    assert all(mine == theirs for mine, theirs in found.values()), found
    assert found["via"][0] == "early, mesh"
    assert found["x-path"][0] == found["x-path-again"][0] == "/a/b|M|"
    assert found["x-gone"] == found["x-m-1"] == found["x-up"] == [None, None]
    assert ours.sent("x-request-id") not in (None, "mine")
    assert envoy.sent("x-request-id") not in (None, "mine")


@pytest.mark.parametrize("name", STATUSES)
@pytest.mark.parametrize("path", ["/nobody", "/closed", "/missing", "/own", "/nothing", "/slow"])
def test_a_failure_is_named(beside: Beside, name: str, path: str) -> None:
    beside.upstream.delay(2.0 if path == "/slow" else 0.0)
    ours, envoy = beside.ask(name, path)
    # Envoy's transport says more of a connection that was refused.
    told = (envoy.line("proxy-status") or "").replace("|delayed_connect_error:_Connection_refused", "")
    assert (ours.status, ours.line("proxy-status") or "") == (envoy.status, told)
    assert bool(told) is (path != "/own")


@pytest.mark.parametrize(
    ("path", "status"), [("/own", 598), ("/nobody", 598), ("/nothing", 598), ("/closed", 598), ("/slow", 599)]
)
@again_if_late
def test_a_reply_is_mapped_by_how_long_the_call_took(beside: Beside, path: str, status: int) -> None:
    beside.upstream.delay(2.0 if path == "/slow" else 0.0)
    found = [got.status for got in beside.ask("timed", path)]
    if status == 598:
        soon(found.count(599), 1, "replies that took 0.2 s and longer")
    assert found == [status, status]
