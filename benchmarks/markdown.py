"""python -m benchmarks.markdown FILE: the README's account of a saved run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import amount, times
from benchmarks.result import OURS, TORN_DOWN

_VERDICTS = {True: "met", False: "**missed**", None: "not measured"}


def account(document: dict[str, Any]) -> str:
    """Medians as a table, what they were measured on, and each goal with its figure."""
    machine = document["machine"]
    facts = f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']:.0f} GiB"
    system = f"{machine['system']}, kernel {machine['kernel']}, as {machine['user']}"
    load = f"load {machine['load'][0]:.1f} at its start"
    lines = [f"Medians of one run, {document['when'][:10]}: {facts}, {system}, {load}.", ""]
    lines += ["| | runs | median | times ours |", "|---|---:|---:|---:|"]
    for scenario in document["scenarios"]:
        lines += [f"| **{scenario['title']}** | | | |", *_rows(scenario)]
    lines += ["", "The goals that this project set itself, in the same run:", ""]
    lines += [line for scenario in document["scenarios"] for line in _goals(scenario)]
    return "\n".join(lines) + "\n"


def _rows(scenario: dict[str, Any]) -> Iterator[str]:
    ours = next(row["median"] for row in scenario["rows"] if row["subject"] == OURS)
    for row in scenario["rows"]:
        if row["subject"].endswith(TORN_DOWN):
            continue
        compared = row["unit"] == "s" and row["subject"] != OURS
        shown = times(row["median"] / ours) if compared else ""
        median = amount(row["median"], row["unit"])
        yield f"| {row['subject']} | {row['runs']} | {median} | {shown} |"


def _goals(scenario: dict[str, Any]) -> Iterator[str]:
    for goal in scenario["goals"]:
        value = "-" if goal["value"] is None else f"{goal['value']:.3g}"
        bound = f"{goal['bound']} {goal['limit']:g}"
        verdict = _VERDICTS[goal["met"]]
        yield f"- {scenario['name']}: {value} {goal['text']} (goal: {bound}): {verdict}"


if __name__ == "__main__":
    sys.stdout.write(account(json.loads(Path(sys.argv[1]).read_text())))
