"""What the choice of an endpoint costs, as `python -m bench.picking` shows it."""

from __future__ import annotations

from bench.picking import balancers, measure, render
from meshlib.model.policy import Balancer


def test_every_balancer_is_measured_and_shown() -> None:
    assert {balancing.kind for balancing, _ in balancers().values()} == set(Balancer)
    sizes = (3, 20)
    found = measure(sizes, rounds=2)
    head, *lines = render(sizes, found)
    assert head.split() == ["3", "20", "made"]
    assert len(lines) == len(found) == len(balancers())
    for name, line in zip(found, lines, strict=True):
        assert line.startswith(name)
        for chosen in found[name]:
            assert len(chosen.samples) == 2
            assert chosen.median > 0
    # The first is what all others are compared with.
    assert lines[0].count("1.00×") == len(sizes)
