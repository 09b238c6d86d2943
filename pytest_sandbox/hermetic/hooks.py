"""The part of the plugin that hermetic tests need: options, the marker, and where they begin.

It is imported in every run; all else of this package when a test of the run is hermetic.
PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import pytest

from pytest_sandbox.hermetic import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    settings.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", settings.MARKER)
    settings.default_scope(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """The maker starts while the tests are collected."""
    config = session.config
    wanted = settings.default_scope(config) and not config.option.collectonly
    if wanted and not config.pluginmanager.has_plugin("dsession"):
        from pytest_sandbox.hermetic.denied import workshop_of

        workshop_of(config)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    if settings.default_scope(session.config) or any(
        item.get_closest_marker("hermetic") for item in session.items
    ):
        from pytest_sandbox.hermetic.loop import begin

        begin(session)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if config.stash.get(settings.STARTED, False):
        from pytest_sandbox.hermetic.denied import close_workshop

        close_workshop(config)
