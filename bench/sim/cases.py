"""The published results that are made again, each as a table: who does better, and by how much."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.sim.hedged import HedgedSimulation
from bench.sim.model import Server, Simulation, quantile
from meshlib.model.policy import (
    Adaptive,
    Balancer,
    Balancing,
    Hedge,
    Limits,
    Outlier,
    RetryBudget,
    SlowOutlier,
    SlowStart,
)

__all__ = ["CASES", "Curve", "Row"]


@dataclass(frozen=True, slots=True)
class Curve:
    """What is drawn: over seconds, a number."""

    name: str
    points: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Row:
    """``values``: by column."""

    name: str
    values: dict[str, str]
    curve: Curve


def _free(**fields: Any) -> dict[str, Any]:
    return {"limits": Limits.unlimited(), **fields}


def slow_server(seconds: float = 60.0) -> Iterator[Row]:
    """Ten servers of 20 ms, one of which is ten times as slow from the tenth second on; 2,000 calls a second, a timeout of 2 s.

    What Finagle's authors show of peak EWMA: it leaves the slow one at once, least request when its queue is long, round robin never.
    """
    kinds = {
        "round_robin": _free(),
        "least_request": _free(balancing=Balancing(Balancer.LEAST_REQUEST)),
        "peak_ewma": _free(balancing=Balancing(Balancer.PEAK_EWMA)),
        "round_robin, outlier.latency": _free(
            outlier=Outlier(
                success_rate=None,
                latency=SlowOutlier(3.0),
                interval=1.0,
                always_eject_one=True,
                max_ejection_percent=20.0,
            )
        ),
    }
    for name, fields in kinds.items():
        servers = [Server(0.02, workers=16) for _ in range(9)]
        servers.append(Server(0.02, workers=16, slow=lambda now: 10.0 if now > 10.0 else 1.0))
        made = Simulation(servers, 2000.0, timeout=2.0, **fields).run(seconds)
        late = [took for when, took in made.latencies if when > 15.0]
        served = sum(server.served for server in servers)
        yield Row(
            name,
            {
                "p50": f"{quantile(late, 0.5) * 1000:.0f} ms",
                "p99": f"{quantile(late, 0.99) * 1000:.0f} ms",
                "failed": f"{len(made.failures) / (len(made.failures) + len(made.latencies)):.2%}",
                "to the slow one": f"{servers[-1].served / served:.1%}",
            },
            Curve(name, _over_time(made.latencies, 0.99)),
        )


def retry_storm(seconds: float = 90.0) -> Iterator[Row]:
    """Four servers that can serve 1,600 calls a second get 1,100; from the 20th to the 25th second 2,000. A call is given up after 0.5 s and
    made again up to three times.

    Bronson and others, "Metastable failures in distributed systems" (2021): without a budget the retries keep the servers busy with
    calls that nobody waits for, long after the peak. With a budget of 20 % the service is well again as soon as the queues are.
    """
    budgets = {
        "no retries": (0, None),
        "3 retries, no budget": (3, None),
        "3 retries, a budget of 20 %": (3, RetryBudget(20.0, 3)),
    }
    for name, (retries, budget) in budgets.items():
        servers = [Server(0.02, workers=8) for _ in range(4)]
        made = Simulation(
            servers,
            lambda now: 2000.0 if 20.0 < now < 25.0 else 1100.0,
            timeout=0.5,
            retries=retries,
            budget=budget,
            **_free(balancing=Balancing(Balancer.LEAST_REQUEST)),
        ).run(seconds)
        well = _well_again(made, 25.0)
        after = [when for when in made.failures if when > 60.0]
        calls = len(after) + sum(when > 60.0 for when, _ in made.latencies)
        yield Row(
            name,
            {
                "failed after 60 s": f"{len(after) / max(1, calls):.1%}",
                "attempts a call": f"{len(made.attempts) / (len(made.failures) + len(made.latencies)):.2f}",
                "well again": "never" if well is None else f"after {well:.0f} s",
            },
            Curve(name, _good_share(made)),
        )


def cold_server(seconds: float = 60.0) -> Iterator[Row]:
    """Four servers of 10 ms get 1,200 calls a second; at the 20th second a fifth joins, which takes fifty times as long at first and is warm
    after 20 s. Calls are given up after 1 s.

    With slow start it gets a tenth of its share at first, and all of it once it is warm.
    """
    for name, slow in (("no slow start", None), ("slow start, 20 s", SlowStart(20.0))):
        servers = [Server(0.01, workers=8) for _ in range(4)]
        servers.append(
            Server(0.01, workers=8, came=20.0, slow=lambda now: max(1.0, 50.0 - 2.45 * (now - 20.0)))
        )
        made = Simulation(servers, 1200.0, **_free(balancing=Balancing(slow_start=slow))).run(seconds)
        window = [took for when, took in made.latencies if 20.0 < when < 45.0]
        failed = [when for when in made.failures if 20.0 < when < 45.0]
        yield Row(
            name,
            {
                "p99, 20 to 45 s": f"{quantile(window, 0.99) * 1000:.0f} ms",
                "failed": f"{len(failed) / (len(failed) + len(window)):.2%}",
            },
            Curve(name, _over_time(made.latencies, 0.99)),
        )


def overload(seconds: float = 60.0) -> Iterator[Row]:
    """Four servers that can serve 1,600 calls a second get 1,200, and from the 20th second on 3,000. A call is given up after 0.5 s.

    Netflix's "Performance under load" (2018): without a limit each call waits behind those for which nobody waits any more, and none is
    answered in time. A limit that follows latency refuses at once what is too much, and the others are served as if there were no more.
    """
    for name, adaptive in (("no limit", None), ("adaptive = { min = 4, max = 1000 }", Adaptive())):
        servers = [Server(0.02, workers=8) for _ in range(4)]
        made = Simulation(
            servers,
            lambda now: 3000.0 if now > 20.0 else 1200.0,
            timeout=0.5,
            **_free(balancing=Balancing(Balancer.LEAST_REQUEST), adaptive=adaptive),
        ).run(seconds)
        late = [took for when, took in made.latencies if when > 25.0]
        before = [when for when in made.failures if when < 20.0]
        yield Row(
            name,
            {
                "good calls a second": f"{len(late) / (seconds - 25.0):.0f}",
                "their p99": f"{quantile(late, 0.99) * 1000:.0f} ms" if late else "none",
                "refused before": f"{len(before) / 24_000:.2%}",
            },
            Curve(name, _good_share(made)),
        )


def hedge(seconds: float = 60.0) -> Iterator[Row]:
    """Ten servers of 10 ms get 400 calls a second; one call in fifty takes fifty times as long, wherever it goes. From the 40th second on all
    of them are ten times as slow.

    Dean and Barroso, "The tail at scale" (2013): a second attempt beside each call that is slower than 95 % of all takes the tail away for a few
    percent more calls. Where everything is slow the budget holds: hedges cannot double the load.
    """
    for name, policy in (
        ("no hedges", None),
        ('hedge = { after = "p95" }', Hedge(quantile=0.95)),
        ("hedge = { after = 0.1 }", Hedge(after=0.1)),
    ):
        chance = random.Random(2)

        def slow(now: float, chance: random.Random = chance) -> float:
            return (50.0 if chance.random() < 0.02 else 1.0) * (10.0 if now > 40.0 else 1.0)

        servers = [Server(0.01, workers=64, slow=slow) for _ in range(10)]
        made = HedgedSimulation(servers, 400.0, hedge=policy, timeout=10.0, **_free()).run(seconds)
        usual = [took for when, took in made.latencies if 5.0 < when < 40.0]

        def more(since: float, until: float, made: HedgedSimulation = made) -> str:
            calls = sum(since < when - took < until for when, took in made.latencies)
            return f"{sum(since < when < until for when in made.attempts) / max(1, calls) - 1.0:.1%}"

        yield Row(
            name,
            {
                "p50": f"{quantile(usual, 0.5) * 1000:.0f} ms",
                "p99": f"{quantile(usual, 0.99) * 1000:.0f} ms",
                "p99.9": f"{quantile(usual, 0.999) * 1000:.0f} ms",
                "more calls": more(5.0, 39.0),
                "all are slow: more calls": more(41.0, 55.0),
            },
            Curve(name, _over_time(made.latencies, 0.99)),
        )


#: By name: what makes the rows, and the axis of its curves.
CASES: dict[str, tuple[Callable[..., Iterator[Row]], str]] = {
    "slow_server": (slow_server, "p99, seconds"),
    "retry_storm": (retry_storm, "good calls, share"),
    "cold_server": (cold_server, "p99, seconds"),
    "overload": (overload, "good calls, share"),
    "hedge": (hedge, "p99, seconds"),
}


def _over_time(latencies: list[tuple[float, float]], share: float) -> list[tuple[float, float]]:
    """A quantile for each second."""
    by_second: dict[int, list[float]] = {}
    for when, took in latencies:
        by_second.setdefault(int(when), []).append(took)
    return [(float(second), quantile(values, share)) for second, values in sorted(by_second.items())]


def _good_share(made: Simulation) -> list[tuple[float, float]]:
    good: dict[int, int] = {}
    bad: dict[int, int] = {}
    for when, _ in made.latencies:
        good[int(when)] = good.get(int(when), 0) + 1
    for when in made.failures:
        bad[int(when)] = bad.get(int(when), 0) + 1
    seconds = sorted({*good, *bad})
    return [(float(each), good.get(each, 0) / (good.get(each, 0) + bad.get(each, 0))) for each in seconds]


def _well_again(made: Simulation, since: float) -> float | None:
    """Seconds until 99 % of the calls are good, and stay so; None: never."""
    shares = [(when, share) for when, share in _good_share(made) if when >= since][:-1]
    for index, (when, _) in enumerate(shares):
        if all(share >= 0.99 for _, share in shares[index:]) and len(shares) - index > 5:
            return when - since
    return None
