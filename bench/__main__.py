"""``python -m bench [--only CASE] [--rounds N] [--json]``: one table; exit code 1 if a bound is missed."""

from __future__ import annotations

import argparse
import json
import sys

from bench import instructions
from bench.run import cases, measure
from bench.table import machine, render


def main() -> int:
    known = cases()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = [*(case.name for case in known), "instructions"]
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="CASE",
        help=f"one of {', '.join(names)}; may be repeated",
    )
    parser.add_argument("--rounds", type=int, default=25, help="samples of each peer (25)")
    parser.add_argument("--seed", type=int, default=1, help="of the order in which peers are measured (1)")
    parser.add_argument("--json", action="store_true", help="the same facts as JSON")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error("--rounds: at least 1")
    chosen = [case for case in known if not asked.only or case.name in asked.only]
    on = machine()
    results, missing = measure(chosen, asked.rounds, asked.seed)
    counter, counts = "", {}
    if not asked.only or "instructions" in asked.only:
        counter, counts, uncounted = instructions.measure()
        missing |= uncounted
    if asked.json:
        print(
            json.dumps(
                {
                    "machine": on,
                    "rounds": asked.rounds,
                    "rows": [each.to_dict() for each in results],
                    "instructions": {"counter": counter, "of a call": counts},
                    "missing": missing,
                },
                indent=2,
            )
        )
    else:
        print(f"{on}; {asked.rounds} rounds\n")
        if results:
            print(f"{render(results)}\n")
        if counts:
            print(f"{instructions.render(counter, counts)}\n")
        for case in chosen:
            print(f"{case.name}: {case.title}")
        for name, reason in missing.items():
            print(f"not measured: {name}: {reason}")
    missed = [each for each in results if not each.holds]
    if missed and not asked.json:
        print(f"\n{len(missed)} of {sum(each.row.at_most is not None for each in results)} bounds missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
