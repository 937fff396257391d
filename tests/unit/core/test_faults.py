"""Which fault is in force, and what it comes to (FI-01 to FI-04)."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from meshlib.core.faults import Injected, drawn, in_force
from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.model.listener import FilterKind, HttpFilter
from meshlib.model.match import HeaderMatch
from meshlib.model.policy import Fault
from meshlib.model.route import ClusterWeight, FilterSwitch, Forward

HELD = "x-envoy-fault-throughput-response"
ALL = 1_000_000
NAME = "envoy.filters.http.fault"
ONE, TWO, THREE = (
    Fault(abort=501, abort_per_million=ALL),
    Fault(abort=502, abort_per_million=ALL),
    Fault(abort=503),
)


def head(**headers):
    return Head(
        "GET", "http", "reviews", "/", Headers.of(*((k.replace("_", "-"), v) for k, v in headers.items()))
    )


def injected(fault, request=None, *, cluster="c", chance=0.0):
    return drawn(fault, request or head(), cluster, lambda: chance)


def test_delay_and_answer_are_drawn_by_themselves():
    """FI-01."""
    both = Fault(0.5, ALL // 2, 503, ALL // 2)
    draws = iter([0.4, 0.6, 0.6, 0.4, 0.6, 0.6, 0.4, 0.4])
    found = [drawn(both, head(), "c", lambda: next(draws)) for _ in range(4)]
    assert found == [Injected(0.5), Injected(0.0, 503), None, Injected(0.5, 503)]


def test_a_code_of_grpc_is_a_200_to_others():
    """FI-02."""
    assert injected(Fault(abort_code=14, abort_per_million=ALL)) == Injected(0.0, 200, 14)
    assert injected(Fault(abort_code=0, abort_per_million=ALL)) == Injected(0.0, 200, 0)


BY_HEADER = Fault(
    delay_by_header=True, delay_per_million=ALL // 2, abort_by_header=True, abort_per_million=ALL // 2
)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"x_envoy_fault_delay_request": "250"}, Injected(0.25)),
        ({"x_envoy_fault_abort_request": "429"}, Injected(0.0, 429)),
        ({"x_envoy_fault_abort_grpc_request": "8"}, Injected(0.0, 200, 8)),
        ({"x_envoy_fault_abort_request": "429", "x_envoy_fault_abort_grpc_request": "8"}, Injected(0.0, 429)),
        ({"x_envoy_fault_abort_request": "99"}, None),
        ({"x_envoy_fault_abort_request": "600"}, None),
        ({"x_envoy_fault_abort_grpc_request": "17"}, None),
        ({"x_envoy_fault_delay_request": "-5"}, None),
        ({"x_envoy_fault_delay_request": "a lot"}, None),
        ({"x_envoy_fault_abort_request": "429", "x_envoy_fault_abort_request_percentage": "20"}, None),
        ({"x_envoy_fault_abort_request": "429", "x_envoy_fault_abort_request_percentage": "40"}, Injected(0.0, 429)),
        ({"x_envoy_fault_abort_request": "429", "x_envoy_fault_abort_request_percentage": "x"}, Injected(0.0, 429)),
    ],
)  # fmt: skip
def test_by_header_the_call_says_it_itself_and_may_lower_the_share(headers, found):
    """FI-03: at a chance of 30 % of which 50 % are configured."""
    assert injected(BY_HEADER, head(**headers), chance=0.3) == found
    assert (
        injected(BY_HEADER, head(**headers, x_envoy_fault_delay_request_percentage="100"), chance=0.6) is None
    )


def test_without_header_mode_headers_say_nothing():
    """FI-03."""
    assert injected(Fault(), head(x_envoy_fault_abort_request="503")) is None


def test_a_fault_may_be_for_some_calls():
    """FI-04."""
    some = replace(ONE, cluster="c", headers=(HeaderMatch("x-user", present=True),))
    assert injected(some, head(x_user="me")) == Injected(0.0, 501)
    assert injected(some) is None
    assert injected(some, head(x_user="me"), cluster="other") is None


def match(route=(), host=(), config=()):
    return SimpleNamespace(
        route=SimpleNamespace(filters=route),
        virtual_host=SimpleNamespace(filters=host),
        config=SimpleNamespace(filters=config),
    )


def said(fault=None, *, on=True):
    return (FilterSwitch(NAME, on, fault=fault),)


@pytest.mark.parametrize(
    ("disabled", "places", "weight", "found"),
    [
        (False, {}, (), ONE),
        (True, {}, (), None),
        (False, {"config": said(TWO)}, (), TWO),
        (False, {"config": said(TWO), "host": said(THREE)}, (), THREE),
        (False, {"host": said(TWO), "route": said(on=False)}, (), None),
        (False, {"route": said(TWO)}, said(THREE), THREE),
        (True, {"route": said(TWO)}, (), TWO),
        (False, {"route": (FilterSwitch("another", True, fault=TWO),)}, (), ONE),
    ],
)
def test_the_most_specific_place_decides(disabled, places, weight, found):
    filters = (HttpFilter(NAME, FilterKind.FAULT, disabled, fault=ONE),)
    share = ClusterWeight("c", 1, filters=weight)
    assert in_force(filters, match(**places), share, Forward(cluster="c")) is found


def test_a_place_without_the_filter_injects_nothing():
    assert in_force((), match(route=said(ONE)), None, Forward(cluster="c")) is None
    assert in_force((), match(), None, Forward(cluster="c", fault=TWO)) is TWO


@pytest.mark.parametrize(
    ("fault", "lines", "rate"),
    [
        (Fault(rate=2048, rate_per_million=1_000_000), (), 2048),
        (Fault(rate=2048), (), 0),
        (Fault(rate_by_header=True, rate_per_million=1_000_000), ((HELD, "3"),), 3072),
        (Fault(rate_by_header=True, rate_per_million=1_000_000), ((HELD, "0"),), 0),
        (Fault(rate_by_header=True, rate_per_million=1_000_000), ((HELD, "-1"),), 0),
        (Fault(rate_by_header=True, rate_per_million=1_000_000), ((HELD, "9" * 30),), 0),
        (Fault(rate_by_header=True, rate_per_million=1_000_000), (), 0),
        (
            Fault(rate_by_header=True, rate_per_million=1_000_000),
            ((HELD, "3"), (f"{HELD}-percentage", "0")),
            0,
        ),
    ],
)
def test_how_slowly_a_response_comes(fault, lines, rate):
    found = drawn(fault, Head("GET", "http", "h", "/", Headers.of(*lines)), "c", lambda: 0.5)
    assert (0 if found is None else found.rate) == rate
    assert found is None or (found.delay, found.status) == (0.0, 0)
