"""python -m benchmarks [--json FILE] [--quick] [SCENARIO ...]"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import bench, machine, report
from benchmarks.result import Result
from benchmarks.scenarios import SCENARIOS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the scenarios and report; the exit status is 1 if a goal was missed."""
    options = _options(argv)
    console = Console(width=None if sys.stdout.isatty() else 120)
    facts = machine.facts()
    console.print(", ".join(f"{key}: {value}" for key, value in facts.items()), style="dim")
    if not options.quick:
        machine.touch_memory()
    results: list[Result] = []
    with bench.prepared(options.quick) as prepared:
        for name in options.scenarios or SCENARIOS:
            results.append(SCENARIOS[name](prepared))
            report.show(results[-1], console)
    report.summary(results, console)
    if options.json:
        _save(options.json, facts, results, quick=options.quick)
    return 1 if any(goal.met is False for result in results for goal in result.goals) else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="save every sample")
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs, to try it out")
    options = parser.parse_args(argv)
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return options


def _save(path: Path, facts: dict[str, object], results: list[Result], *, quick: bool) -> None:
    document = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": facts,
        "scenarios": [result.to_json() for result in results],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
