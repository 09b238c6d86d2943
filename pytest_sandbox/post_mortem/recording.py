"""What of the run and of a failing test belongs to its kept state."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence

import pytest

SECTION = "post mortem"


def command(nodeid: str) -> str:
    """What enters the state of a test."""
    return f"sandboxctl shell {shlex.quote(nodeid)}"


def mention(reports: Iterable[pytest.TestReport], line: str) -> None:
    """Say in the reports of the failed phases, and in a property, how the state is entered."""
    for report in reports:
        if report.failed:
            report.sections.append((SECTION, line))
            report.user_properties.append((SECTION, line))


def text_of(reports: Sequence[pytest.TestReport]) -> str:
    """The failures and all that was captured, as a terminal shows it without colours."""
    parts = []
    for report in reports:
        if report.failed:
            parts.append(f"{report.nodeid}: {report.when} failed\n\n{report.longreprtext}")
    seen = {section for report in reports for section in report.sections}
    parts += [f"--- {title} ---\n{text}" for title, text in sorted(seen)]
    return "\n\n".join(parts) + "\n"


def options_of_run(config: pytest.Config) -> tuple[str, ...]:
    """The command line less the files and directories that were to be collected."""
    chosen = set(config.option.file_or_dir or ())
    return tuple(str(word) for word in config.invocation_params.args if word not in chosen)


def identity(config: pytest.Config, environ: Mapping[str, str]) -> dict[str, object]:
    """The fields of a State that every kind of test has."""
    worker = getattr(config, "workerinput", {})
    return {
        "interpreter": sys.executable,
        "rootdir": str(config.rootpath),
        "directory": str(config.invocation_params.dir),
        "options": tuple(worker.get("sandbox_options", options_of_run(config))),
        "environ": {name: text for name, text in environ.items() if name not in _OF_WORKERS},
    }


_OF_WORKERS = frozenset(
    ("PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT")
    + ("PYTEST_XDIST_TESTRUNUID",)
)
