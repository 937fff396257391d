"""What an endpoint says of its load, read from an answer: OR-01."""

from __future__ import annotations

import base64
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.loads import Metrics
from meshlib.model.headers import Headers
from meshlib.xds import schema
from meshlib.xds.orca import of_bytes, of_headers, of_metadata

REPORT = schema.message("xds.data.orca.v3.OrcaLoadReport")
FULL = REPORT(
    cpu_utilization=0.5,
    mem_utilization=0.25,
    application_utilization=1.5,
    rps_fractional=7.5,
    eps=2,
    named_metrics={"q": -3.5},
    utilization={"disk": 0.1},
    request_cost={"rows": 10},
)
MEANT = Metrics(0.5, 0.25, 1.5, 7.5, 2.0, {"q": -3.5}, {"disk": 0.1}, {"rows": 10.0})
PACKED = base64.b64encode(FULL.SerializeToString(deterministic=True)).decode()


def test_or_01_a_serialized_report():
    assert of_bytes(FULL.SerializeToString()) == MEANT


def test_rps_of_old():
    assert of_bytes(REPORT(rps=3).SerializeToString()).rps == 3.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("endpoint-load-metrics-bin", PACKED),
        ("endpoint-load-metrics-bin", PACKED.rstrip("=")),
        ("Endpoint-Load-Metrics-Bin", f" {PACKED} "),
        ("endpoint-load-metrics", f"BIN {PACKED}"),
        (
            "endpoint-load-metrics",
            (
                "TEXT cpu_utilization=0.5,mem_utilization=0.25, application_utilization=1.5,rps_fractional=7.5,eps=2,"
                "named_metrics.q=-3.5,utilization.disk=0.1,request_cost.rows=10"
            ),
        ),
        (
            "endpoint-load-metrics",
            (
                'JSON {"cpu_utilization": 0.5, "memUtilization": 0.25, "applicationUtilization": 1.5, "rpsFractional": 7.5,'
                ' "eps": 2, "namedMetrics": {"q": -3.5}, "utilization": {"disk": 0.1}, "request_cost": {"rows": 10}}'
            ),
        ),
    ],
)
def test_or_01_the_headers_of_a_response(name, value):
    assert of_headers(Headers.of((name, value))) == MEANT


def test_or_01_the_metadata_of_an_rpc():
    raw = FULL.SerializeToString()
    assert of_metadata([("x", "y"), ("endpoint-load-metrics-bin", raw)]) == MEANT
    assert of_metadata([("endpoint-load-metrics", "TEXT eps=1")]) == Metrics(eps=1.0)
    assert of_metadata([("endpoint-load-metrics-bin", "text"), ("endpoint-load-metrics", b"bytes")]) is None


def test_what_is_not_said_is_not_known():
    assert of_headers(Headers.of(("endpoint-load-metrics", "TEXT named_metrics.q=1"))) == Metrics(
        named_metrics={"q": 1.0}
    )


@pytest.mark.parametrize(
    "value",
    ["", "TEXT", "TEXT x", "TEXT x=1", "TEXT cpu_utilization=much", "JSON", "JSON [", "JSON 7", "JSON []", 'JSON {"x": 1}',
     'JSON {"cpu_utilization": "NaN"}x', "JSON " + "[" * 100_000, "XML <a/>", "BIN ", "BIN !", "nothing"],
)  # fmt: skip
def test_or_01_what_is_no_report_is_passed_over(value):
    found = of_headers(Headers.of(("endpoint-load-metrics", value)))
    assert found is None or found == Metrics(
        0.0, 0.0, 0.0, 0.0, 0.0
    )  # no bytes are a report in which all is 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.5])
def test_numbers_that_mean_nothing_are_left_out(value):
    found = of_bytes(REPORT(cpu_utilization=value, named_metrics={"a": value, "b": 1.0}).SerializeToString())
    kept = {"b": 1.0} if not math.isfinite(value) else {"a": value, "b": 1.0}
    assert (found.cpu_utilization, found.named_metrics) == (None, kept)
    text = of_headers(
        Headers.of(("endpoint-load-metrics", f"TEXT cpu_utilization={value},named_metrics.b=1"))
    )
    assert (text.cpu_utilization, text.named_metrics) == (None, {"b": 1.0})


def test_a_report_is_bounded():
    many = REPORT(named_metrics={f"n{number}": 1.0 for number in range(1000)} | {"x" * 300: 1.0})
    found = of_bytes(many.SerializeToString())
    assert len(found.named_metrics) == 200
    assert max(map(len, found.named_metrics)) <= 256
    assert of_bytes(REPORT(named_metrics={"x" * 70_000: 1.0}).SerializeToString()) is None


@given(st.binary(max_size=200), st.text(max_size=200))
def test_or_01_nothing_breaks_it(raw, text):
    of_bytes(raw)
    for form in ("TEXT ", "JSON ", "BIN ", ""):
        value = (
            (form + text).encode("latin-1", "replace").decode("latin-1").replace("\r", "").replace("\n", "")
        )
        of_headers(Headers.of(("endpoint-load-metrics", value)))
        of_headers(Headers.of(("endpoint-load-metrics-bin", value)))
