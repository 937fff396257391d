"""What a listener adds to responses last. Each line measured with Envoy 1.40 (tests/e2e/oracle/test_manager_lines.py)."""

from __future__ import annotations

import pytest

from meshlib.core.departure import compile_departure
from meshlib.core.replies import PLAIN, Reply, compile_replies
from meshlib.model.call import Head, Response
from meshlib.model.headers import Headers
from meshlib.model.listener import HttpManager, ProxyStatus


def head(*lines: tuple[str, str]) -> Head:
    return Head("GET", "http", "shop.test", "/", Headers.of(*lines))


def marked(manager: HttpManager, *lines: tuple[bytes, bytes], request: Head | None = None) -> list:
    found = list(lines)
    departure = compile_departure(manager)
    assert departure is not None
    departure.mark(found, request)
    return found


def test_a_listener_that_orders_nothing_has_none():
    assert compile_departure(HttpManager(server_name="s")) is None
    assert compile_replies(HttpManager()) is PLAIN


def test_via_stands_in_one_line():
    manager = HttpManager(via=" mesh ")
    assert marked(manager) == [(b"via", b"mesh")]
    assert marked(manager, (b"Via", b"a"), (b"x", b"1"), (b"via", b"b")) == [
        (b"Via", b"a,b, mesh"),
        (b"x", b"1"),
    ]


def test_the_id_is_that_of_the_request_as_it_was_sent():
    manager = HttpManager(tells_request_id=True)
    assert marked(manager, (b"x-request-id", b"theirs"), request=head(("x-request-id", "mine"))) == [
        (b"x-request-id", b"mine")
    ]
    assert marked(manager, (b"x-request-id", b"theirs"), request=head()) == [(b"x-request-id", b"theirs")]
    assert marked(manager) == []


@pytest.mark.parametrize(
    ("says", "flags", "status", "line"),
    [
        (ProxyStatus(), "UH", 503, 'envoy; error=destination_unavailable; details="no_healthy_upstream; UH"'),
        (
            ProxyStatus(flags=False),
            "NR",
            503,
            'envoy; error=destination_not_found; details="route_not_found"',
        ),
        (ProxyStatus(details=False, name="n", node_id=True), "UO", 503, "n; error=connection_limit_reached"),
        (
            ProxyStatus(details=False, node_id=True, recommended=True),
            "URX,UF",
            502,
            "me; error=connection_refused",
        ),
        (ProxyStatus(recommended=True), "FI", 503, None),
        (ProxyStatus(recommended=True), "", 503, None),
    ],
)
def test_a_failure_is_named(says, flags, status, line):
    replies = compile_replies(HttpManager(proxy_status=says), "me")
    made = replies.give(Reply(head(), Response(503), flags=flags))
    assert made.status == status
    assert dict(made.headers).get("proxy-status") == line


def test_what_an_edit_says_of_a_failure_stands_before():
    replies = compile_replies(HttpManager(proxy_status=ProxyStatus(details=False), server_name="edge"))
    made = replies.give(Reply(head(), Response(503, (("proxy-status", "other"),)), flags="UC"))
    assert dict(made.headers)["proxy-status"] == "other, edge; error=connection_terminated"
