"""What tests put into the JUnit file beside their reports: properties of the suite, attributes.

`record_testsuite_property` and `record_xml_attribute` write to an object of pytest's; in a test's
process that is a copy, so what it gets there is sent along. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from _pytest.junitxml import xml_key

from pytest_sandbox.hermetic.companion import Companion

if TYPE_CHECKING:
    from _pytest.junitxml import LogXML

_ATTRIBUTES: Final = "_hermetic_xml_attributes"
"""On a report: goes over with it, as everything there does."""


class JunitCompanion(Companion):
    """A plugin of pytest's as well: it unpacks the attributes before anybody sees the report."""

    def __init__(self, config: pytest.Config, xml: LogXML) -> None:
        self._config = config
        self._xml = xml

    def in_zygote(self) -> None:
        self._xml.global_properties.clear()
        self._xml.node_reporters.clear()
        self._config.pluginmanager.register(_Attributes(self._xml), "hermetic-junit-child")

    def child_ends(self) -> list[tuple[str, str]]:
        return self._xml.global_properties

    def child_told(self, told: Any) -> None:
        self._xml.global_properties += told

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        for name, value in report.__dict__.pop(_ATTRIBUTES, {}).items():
            self._xml.node_reporter(report).add_attribute(name, value)


class _Attributes:
    """In a test's process: puts those that are known by then onto the report of each phase."""

    def __init__(self, xml: LogXML) -> None:
        self._xml = xml

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        key = (getattr(report, "id", report.nodeid), None)
        reporter: Any = self._xml.node_reporters.get(key)
        if reporter is not None and reporter.attrs:
            setattr(report, _ATTRIBUTES, {k: str(v) for k, v in reporter.attrs.items()})


def companion_of(config: pytest.Config) -> JunitCompanion | None:
    """One for the JUnit file of this run; None: it writes none."""
    xml = config.stash.get(xml_key, None)
    if xml is None:
        return None
    companion = JunitCompanion(config, xml)
    config.pluginmanager.register(companion, "hermetic-junit")
    return companion
