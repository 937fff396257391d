"""Orders travel as JSON."""

import json

import pytest

from meshlib.testing import Order


@pytest.mark.parametrize(
    "order",
    [
        Order(),
        Order(status=503, headers=(("retry-after", "1"), ("retry-after", "2")), body="x", close=True),
        Order(hold="body", reset="head", truncate=True, delay=0.5, chunks=3, chunk_delay=1.0),
        Order(echo=True, early=True, garbage="\xff"),
    ],
)
def test_there_and_back(order):
    assert Order.from_dict(json.loads(json.dumps(order.to_dict()))) == order


def test_only_what_is_ordered_is_written():
    assert Order(status=500).to_dict() == {"status": 500}


@pytest.mark.parametrize(
    "given",
    [
        {"stats": 500},
        {"status": "500"},
        {"delay": "1"},
        {"body": 5},
        {"headers": 1},
        {"headers": ["x"]},
        [],
        3,
    ],
)
def test_what_is_no_order(given):
    with pytest.raises((ValueError, TypeError)):
        Order.from_dict(given)
