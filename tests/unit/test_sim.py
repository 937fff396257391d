"""The simulator: its cases say the same each time, and what the page says of them."""

from __future__ import annotations

import pytest

from bench.sim.cases import CASES, cold_server, hedge, overload, retry_storm, slow_server
from bench.sim.model import Server, Simulation, quantile
from meshlib.model.policy import Limits


def percent(text: str) -> float:
    return float(text.removesuffix("%")) / 100


def test_the_slow_one_is_left_by_those_who_look():
    rows = {row.name: row.values for row in slow_server(25.0)}
    shares = {name: percent(values["to the slow one"]) for name, values in rows.items()}
    assert shares["round_robin"] == pytest.approx(0.1, abs=0.005)
    assert shares["peak_ewma"] < shares["least_request"] < shares["round_robin"]


def test_a_budget_ends_a_storm_of_retries():
    rows = {row.name: row.values for row in retry_storm(65.0)}
    assert rows["3 retries, no budget"]["well again"] == "never"
    assert rows["3 retries, a budget of 20 %"]["well again"] != "never"
    assert percent(rows["3 retries, no budget"]["failed after 60 s"]) > 0.9


def test_a_cold_server_hurts_less_with_slow_start():
    without, with_it = cold_server(46.0)
    assert percent(with_it.values["failed"]) < 0.6 * percent(without.values["failed"])


def test_a_limit_that_follows_latency_keeps_an_overrun_service_useful():
    without, with_it = overload(40.0)
    assert float(without.values["good calls a second"]) < 50
    assert float(with_it.values["good calls a second"]) > 1400
    assert percent(with_it.values["refused before"]) < 0.02


def test_hedges_at_a_percentile_take_the_tail_away_for_as_many_more_calls():
    without, at_p95, _ = hedge(12.0)
    assert float(at_p95.values["p99"].removesuffix(" ms")) < 0.3 * float(
        without.values["p99"].removesuffix(" ms")
    )
    assert percent(without.values["more calls"]) < 0.01
    assert percent(at_p95.values["more calls"]) == pytest.approx(0.05, abs=0.01)


def test_the_same_seed_says_the_same_and_a_queue_is_what_queueing_theory_says():
    """One server with one worker, half busy: a call takes twice as long as it is served, in the mean (M/M/1)."""

    def run(seed: int) -> list[tuple[float, float]]:
        server = [Server(0.01, workers=1)]
        return (
            Simulation(server, 50.0, seed=seed, timeout=60.0, limits=Limits.unlimited()).run(400.0).latencies
        )

    found = run(3)
    assert found == run(3)
    mean = sum(took for _, took in found) / len(found)
    assert mean == pytest.approx(0.02, rel=0.08)
    assert quantile([took for _, took in found], 0.99) == pytest.approx(0.092, rel=0.15)


def test_every_case_has_words_and_an_axis():
    for make, axis in CASES.values():
        assert make.__doc__
        assert axis
