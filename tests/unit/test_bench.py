"""The benchmark's harness; what it measures is measured by `make bench`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import instructions, routes, run, table
from bench.shapes import Case, Row, Unavailable

ROOT = Path(__file__).resolve().parents[2]


def result(peer: float, against: float | None, at_most: float | None, unit: str = "") -> run.Result:
    row = Row("a ÷ b", "a", "b" if against is not None else "", at_most, unit)
    spreads = [None if each is None else run.Spread(each / 2, each, each * 2) for each in (peer, against)]
    return run.Result(Case("case", "how", (row,)), row, *spreads)


def test_every_row_names_peers_that_exist() -> None:
    known = run.peers()
    cases = run.cases()
    assert [case.name for case in cases][:5] == ["sync", "async", "sidecar", "decide", "import"]
    for case in cases:
        assert case.peers <= set(known)
        assert case.title
        for row in case.rows:
            assert row.against or row.unit in {"µs", "ms", "KiB", "threads"}


def test_the_bounds_are_those_that_were_promised() -> None:
    """Those of the first row of each library; the same bound holds over TLS, for a POST and for chunks."""
    bounds = {
        row.what: row.at_most
        for case in run.cases()[:5]
        for row in case.rows
        if row.at_most is not None and not row.what.startswith("the same")
    }
    assert list(bounds.values()) == [0.65, 0.70, 0.20, 0.45, 0.85, 12.0, 1.2, 60.0]


@pytest.mark.parametrize(
    ("given", "value", "holds"),
    [
        (result(1.1, 1.0, 1.15), 1.1, True),
        (result(1.2, 1.0, 1.15), 1.2, False),
        (result(9.0, 1.0, None), 9.0, True),
        (result(24e-6, None, 25.0, "µs"), 24.0, True),
        (result(26e-6, None, 25.0, "µs"), 26.0, False),
        (result(0.061, None, 60.0, "ms"), 61.0, False),
    ],
)
def test_a_bound_is_on_the_ratio_of_medians_or_on_the_median(
    given: run.Result, value: float, holds: bool
) -> None:
    assert given.value == pytest.approx(value)
    assert given.holds is holds
    assert given.to_dict()["holds"] is holds
    assert ("MISSED" in table.render([given])) is not holds


def test_the_table_has_a_line_a_row() -> None:
    text = table.render([result(1e-4, 2e-4, 0.5), result(3.0, None, 60.0, "ms")])
    lines = text.splitlines()
    assert len(lines) == 4
    assert " ".join(lines[2].split()) == "case a ÷ b 50.0 µs 100.0 µs 200.0 µs 200.0 µs 0.50 0.5 ok"
    assert " ".join(lines[3].split()) == "case a ÷ b 1500.00 ms 3000.00 ms 6000.00 ms – – 60 ms MISSED"
    assert "CPython" in table.machine()


def test_every_peer_has_the_same_routes() -> None:
    """A request that a mesh's route is for is one that Envoy's route of the same place is for."""
    ours, theirs = routes.service(["127.0.0.1:1"], 100)["routes"], routes.envoy_routes(100)
    assert (len(ours), len(theirs)) == (99, 100)
    for mine, other in zip(ours, theirs, strict=False):
        assert mine["name"] == other["name"]
        assert {key: mine["match"].get(key) for key in ("prefix", "path")} == {
            key: other["match"].get(key) for key in ("prefix", "path")
        }
        assert len(mine["match"].get("headers", ())) == len(other["match"].get("headers", ()))
    assert len(set(routes.paths(100))) > 5


def test_a_peer_that_is_not_to_be_had_is_said_and_its_rows_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class One:
        def __init__(self, name: str) -> None:
            self.name = name
            self.closed = False

        def open(self, world: object) -> None:
            if self.name == "b":
                raise Unavailable("it does not install")

        def sample(self) -> float:
            return 1.0

        def close(self) -> None:
            self.closed = True

    known = {name: One(name) for name in "ab"}
    monkeypatch.setattr(run, "peers", lambda: known)
    rows = (Row("a ÷ b", "a", "b", 0.5), Row("b", "b", at_most=1.0, unit="ms"), Row("a", "a", unit="ms"))
    results, missing = run.measure([Case("case", "how", rows)], 2, 1)
    assert [each.row.what for each in results] == ["a"]
    assert missing == {"b": "it does not install"}
    assert all(one.closed for one in known.values())


def test_a_case_may_have_enough_of_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted:
        def __init__(self, name: str) -> None:
            self.name = name
            self.samples = 0

        def open(self, world: object) -> None:
            """Nothing is needed."""

        def sample(self) -> float:
            self.samples += 1
            return 1.0

        def close(self) -> None:
            """Nothing is open."""

    known = {name: Counted(name) for name in "ab"}
    monkeypatch.setattr(run, "peers", lambda: known)
    chosen = [
        Case(name, "how", (Row(name, name, unit="ms"),), most=most) for name, most in (("a", 9), ("b", 2))
    ]
    assert len(run.measure(chosen, 5, 1)[0]) == 2
    assert {name: each.samples for name, each in known.items()} == {"a": 5, "b": 2}


def test_a_ratio_of_memory_is_shown_in_its_unit() -> None:
    row = Row("a ÷ b", "a", "b", 1.5, "MiB")
    made = run.Result(Case("case", "how", (row,)), row, run.Spread(150, 160, 170), run.Spread(310, 320, 330))
    assert " ".join(table.render([made]).splitlines()[2].split()) == (
        "case a ÷ b 150 MiB 160 MiB 170 MiB 320 MiB 0.50 1.5 ok"
    )


def test_one_case_as_a_command() -> None:
    command = [sys.executable, "-m", "bench", "--only", "import", "--rounds", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    said = json.loads(done.stdout)
    assert done.returncode == (0 if said["rows"][0]["holds"] else 1)
    assert said["rounds"] == 2
    assert said["rows"][0]["peer"]["seconds"]["min"] > 0


def counting(body: str) -> instructions.Counter:
    """A program that says what it counted as cachegrind does, of the command behind it."""
    return instructions.Counter(
        "fake", (sys.executable, "-c", f"import sys; {body}"), instructions.COUNTERS[1].said
    )


def test_the_instructions_of_a_call_are_those_of_more_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "print(f'==7== I   refs:  {10**9 + int(sys.argv[-1]) * 1500:,}', file=sys.stderr)"
    once = f"sys.argv[-1] == 'true' and sys.argv.append('1'); {said}"
    monkeypatch.setattr(instructions, "COUNTERS", (counting(once),))
    counter, found, missing = instructions.measure(("a", "b"))
    assert (counter, found, missing) == ("fake", {"a": 1500.0, "b": 1500.0}, {})
    assert instructions.render(counter, found).splitlines()[1].split() == ["a", "1,500"]


def test_what_cannot_be_counted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = instructions.Counter("none", ("no-such-program",), instructions.COUNTERS[1].said)
    monkeypatch.setattr(instructions, "COUNTERS", (nothing, counting("sys.exit('it is not permitted')")))
    _, found, missing = instructions.measure()
    assert not found
    assert "no-such-program" in missing["instructions"]
    assert "it is not permitted" in missing["instructions"]
    fails = (
        "sys.argv[-1] == 'true' or print('broken', file=sys.stderr); print('== I refs: 7', file=sys.stderr)"
    )
    refuses = f"{fails}; sys.exit(sys.argv[-1] != 'true')"
    monkeypatch.setattr(instructions, "COUNTERS", (counting(refuses),))
    assert instructions.measure(("a",)) == ("fake", {}, {"a": "fake: broken"})


def test_what_is_counted_runs() -> None:
    assert set(instructions.NAMES) <= set(run.peers())
    command = [sys.executable, "-m", "bench.instructions", "decide 100 × 50", "20"]
    subprocess.run(command, check=True, cwd=ROOT)
