"""A report on its way from a test's process to pytest's: by pytest's own hooks, and what they lose.

They turn what doctest says into text, write down a subtest's arguments twice, and know nothing of
the count of failed subtests, by which a test that passed is a failure. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import pickle
from typing import Any, Final, cast

import pytest

_LONGREPR: Final = "_hermetic_longrepr"
_FAILED: Final = "_hermetic_failed_subtests"


def packed(config: pytest.Config, report: pytest.TestReport) -> dict[str, Any]:
    """What to send for it."""
    hook = config.hook.pytest_report_to_serializable
    data: dict[str, Any] = hook(config=config, report=report)
    if failed := _failed_subtests(config).get(_key(report), 0):
        data[_FAILED] = failed
    if isinstance(data.get("longrepr"), str) and not isinstance(report.longrepr, str):
        try:
            data[_LONGREPR] = pickle.dumps(report.longrepr)
        except Exception:
            return data  # its text will do
    return data


def unpacked(config: pytest.Config, data: dict[str, Any]) -> pytest.TestReport:
    """The report that `packed` was given."""
    longrepr, failed = data.pop(_LONGREPR, None), data.pop(_FAILED, 0)
    hook = config.hook.pytest_report_from_serializable
    report: Any = hook(config=config, data=data)
    if longrepr is not None:
        report.longrepr = pickle.loads(longrepr)
    if context := data.get("_subtest.context"):
        # A frozen dataclass, whose constructor writes the arguments down once more.
        object.__setattr__(report.context, "kwargs", context["kwargs"])
    if failed:
        _failed_subtests(config)[_key(report)] = failed
    else:
        _failed_subtests(config).pop(_key(report), None)
    return cast(pytest.TestReport, report)


def _failed_subtests(config: pytest.Config) -> dict[Any, int]:
    """How many of each test have failed, as pytest counts them to fail the test too."""
    try:
        from _pytest.subtests import failed_subtests_key
    except ImportError:  # a pytest before 9
        return {}
    return cast("dict[Any, int]", config.stash[failed_subtests_key])


def _key(report: Any) -> Any:
    return getattr(report, "id", report.nodeid)
