"""A run as a table: medians, with each subject's ratio to ours, and the goals below."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.result import OURS, Goal, Result, Row, Unit

_VERDICTS = {True: "[green]met[/]", False: "[red]missed[/]", None: "[yellow]not measured[/]"}


def show(result: Result, console: Console) -> None:
    """Print one scenario."""
    table = Table(title=result.title, title_justify="left", title_style="bold")
    table.add_column("subject", no_wrap=True)
    for column in ("runs", "median", "p90", "to ours"):
        table.add_column(column, justify="right")
    table.add_column("", style="dim")
    ours = result.median(OURS)
    for row in result.rows:
        table.add_row(
            row.subject,
            str(len(row.samples)),
            amount(row.median, row.unit),
            amount(row.p90, row.unit),
            _ratio(row, ours),
            row.note,
        )
    for peer, why in result.absent.items():
        table.add_row(peer, "-", "absent", "", "", _one_line(why))
    console.print(table)
    for goal in result.goals:
        console.print(f"  {_goal(goal)}")
    console.print()


def summary(results: Sequence[Result], console: Console) -> None:
    """Print how many goals were met, and name those that were not."""
    goals = [(result, goal) for result in results for goal in result.goals]
    met = sum(goal.met is True for _, goal in goals)
    console.print(f"{met} of {len(goals)} goals met")
    for result, goal in goals:
        if not goal.met:
            console.print(f"  {result.name}: {_goal(goal)}")


def amount(value: float, unit: Unit) -> str:
    """A figure with its unit, in three digits or so."""
    if unit != "s":
        return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def times(ratio: float) -> str:
    """A ratio in two digits, or more where it has more before the point."""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _ratio(row: Row, ours: float | None) -> str:
    if row.unit != "s" or ours is None or row.subject == OURS:
        return ""
    return f"{times(row.median / ours)}x"


def _goal(goal: Goal) -> str:
    bound = "at most" if goal.at_most else "at least"
    value = "-" if goal.value is None else f"{goal.value:.3g}"
    return f"{_VERDICTS[goal.met]}: {value} {goal.text} (goal: {bound} {goal.limit:g})"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:77]}..."
