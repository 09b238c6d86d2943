"""The checks on standard output: lines for a reader, or one JSON document for the CLI's table."""

from __future__ import annotations

import json as json_format
import sys

from sandboxd.doctor.checks import Check, judge
from sandboxd.doctor.facts import collect


def main(json: bool) -> int:
    """Print every check. The exit status is 0 when containers can run: all required checks pass."""
    checks = judge(collect())
    passed = all(check.ok or not check.required for check in checks)
    sys.stdout.write(document(checks, passed) if json else lines(checks, passed))
    return 0 if passed else 1


def document(checks: list[Check], passed: bool) -> str:
    """`{"ok", "checks": [{"name", "ok", "required", "detail", "mend"}]}`"""
    rows = [check._asdict() for check in checks]
    return json_format.dumps({"ok": passed, "checks": rows}) + "\n"


def lines(checks: list[Check], passed: bool) -> str:
    """One line for each check, and below a missing one the command that mends it, once."""
    width = max(len(check.name) for check in checks)
    shown: dict[str, None] = {}
    for check in checks:
        word = "ok" if check.ok else "MISSING" if check.required else "without"
        shown[f"{word:8}{check.name:{width}}  {check.detail}"] = None
        if check.mend:
            shown.setdefault(f"{'':8}mend: {check.mend}")
    verdict = "containers can run" if passed else "containers cannot run: mend what is missing"
    return "\n".join([*shown, verdict, ""])
