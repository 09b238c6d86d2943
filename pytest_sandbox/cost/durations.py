"""The section of `--sandbox-durations`: a line for each resource, a column for each step."""

from __future__ import annotations

from pytest_sandbox.cost.run import PHASES, Resource, Run, resources

_WIDTH = 9


def lines(run: Run, count: int) -> tuple[str, list[str]]:
    """The section's title and its lines, for the `count` costliest resources, 0 for all."""
    found = resources(run)
    shown = found[:count] if count else found
    if not shown:
        return "sandbox durations", ["no image, snapshot or container was used"]
    head = "".join(f"{name:>{_WIDTH}}" for name in ("total", *PHASES))
    title = f"costliest {len(shown)} of {len(found)}" if len(shown) < len(found) else "all"
    return f"sandbox durations: {title}", [f"{head}  resource", *map(_line, shown)]


def named(resource: Resource) -> str:
    """`container pg (module scope, 12 times)`, `image python:3.13`."""
    notes = [f"{resource.scope} scope"] if resource.scope else []
    if resource.times > 1:
        notes.append(f"{resource.times} times")
    return f"{resource.kind} {resource.label}" + (f" ({', '.join(notes)})" if notes else "")


def _line(resource: Resource) -> str:
    steps = [resource.total, *(resource.seconds.get(phase) for phase in PHASES)]
    cells = ["" if step is None else f"{step:.3f}s" for step in steps]
    return "".join(f"{cell:>{_WIDTH}}" for cell in cells) + f"  {named(resource)}"
