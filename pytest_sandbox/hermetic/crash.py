"""The report of a test whose process ended without one. PYTEST_DONT_REWRITE"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any, Literal

import pytest

_NEXT: dict[str, Literal["setup", "call", "teardown"]] = {"setup": "call", "call": "teardown"}


def how_it_ended(status: int) -> str:
    """A wait status in words: `died by SIGSEGV`, `exited with status 3`."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"died by {signal.Signals(-code).name}"
    except ValueError:
        return f"died by signal {-code}"


def crash_report(
    item: pytest.Item,
    why: str,
    reports: Sequence[pytest.TestReport],
    started: float,
    left: Sequence[str],
) -> pytest.TestReport:
    """A failure in the phase after the last of `reports`, with the last that the test wrote.

    `started`: when the test began, in seconds since 1970. `left`: processes that outlived it.
    """
    when = _NEXT.get(reports[-1].when or "", "teardown") if reports else "setup"
    text = f"the test's process {why} during {when}"
    sections = list(reports[-1].sections) if reports else []
    if left:
        sections.append(("Leftover processes", "\n".join(left)))
    for name, output in zip(("stdout", "stderr"), _last_output(item.config), strict=True):
        if output:
            sections.append((f"Captured {name} {when}", output))
    now = time.time()
    report = pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="failed",
        longrepr=text,
        when=when,
        sections=sections,
        duration=now - started,
        start=started,
        stop=now,
        user_properties=item.user_properties,
    )
    _expected(item, report, text)
    return report


def _expected(item: pytest.Item, report: pytest.TestReport, text: str) -> None:
    """A test that is marked xfail, whatever it was to raise, did fail."""
    from _pytest.skipping import evaluate_xfail_marks

    if report.when == "teardown" or item.config.option.runxfail:
        return
    expected = evaluate_xfail_marks(item)
    if expected is not None and expected.raises is None:
        report.outcome = "skipped"
        report.wasxfail = expected.reason
        report.longrepr = text


def _last_output(config: pytest.Config) -> tuple[str, str]:
    """The files that capture output are shared with the test's process."""
    manager: Any = config.pluginmanager.get_plugin("capturemanager")
    if manager is None or not manager.is_globally_capturing():
        return "", ""
    manager.resume_global_capture()
    manager.suspend_global_capture(in_=False)
    out, err = manager.read_global_capture()
    return out, err
