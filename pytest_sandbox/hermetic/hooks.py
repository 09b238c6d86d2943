"""The part of the plugin that hermetic tests need: options, the marker, and where they begin.

It is imported in every run; all else of this package when a test of the run is hermetic.
PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox.hermetic import settings
from pytest_sandbox.hermetic.escapes import settings as escapes
from pytest_sandbox.post_mortem import settings as post_mortem

if TYPE_CHECKING:
    from pytest_sandbox.client.container import Container


def pytest_addoption(parser: pytest.Parser) -> None:
    settings.add_options(parser)
    escapes.add_options(parser)
    post_mortem.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", settings.MARKER)
    settings.default_scope(config)
    post_mortem.bounds(config)
    if escapes.report_settings(config) is not None and not hasattr(config, "workerinput"):
        from pytest_sandbox.hermetic.escapes.registration import report_at_the_end

        report_at_the_end(config)


def pytest_report_header(config: pytest.Config) -> str | None:
    """With pytest-xdist, whose workers have no header; else it is said after the collection."""
    if settings.default_scope(config) and config.pluginmanager.has_plugin("dsession"):
        return _what_is_missing(config)
    return None


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> str | None:
    scope = settings.default_scope(config)
    if not config.option.collectonly and (scope or any(map(_is_marked, items))):
        return _what_is_missing(config)
    return None


def _is_marked(item: pytest.Item) -> bool:
    return item.get_closest_marker("hermetic") is not None


def _what_is_missing(config: pytest.Config) -> str | None:
    from pytest_sandbox.hermetic.denied import sandboxes_possible

    if (why := sandboxes_possible(config)) is None:
        return None
    if settings.require_full(config):
        raise pytest.UsageError(f"--hermetic-require=full: {why}")
    from pytest_sandbox.hermetic.landlocked import describe

    return describe(why)


@pytest.hookimpl(tryfirst=True)
def pytest_sandbox_container_started(container: Container, request: pytest.FixtureRequest) -> None:
    """From the first container on, the containers of failed tests are kept."""
    manager, kept = request.config.pluginmanager, post_mortem.bounds(request.config)
    if kept is not None and not manager.has_plugin("sandbox-container-keeper"):
        from pytest_sandbox.post_mortem.containers import ContainerKeeper

        keeper = ContainerKeeper(request.config, kept)
        manager.register(keeper, "sandbox-container-keeper")
        keeper.pytest_sandbox_container_started(container, request)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """The first sandboxes are built while the tests are collected."""
    config = session.config
    wanted = settings.default_scope(config) and not config.option.collectonly
    if wanted and not config.pluginmanager.has_plugin("dsession"):
        from pytest_sandbox.hermetic.loop import prepare

        prepare(config)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    if settings.default_scope(session.config) or any(map(_is_marked, session.items)):
        from pytest_sandbox.hermetic.loop import begin

        begin(session)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if config.stash.get(settings.STARTED, False):
        from pytest_sandbox.hermetic.denied import close_workshop

        close_workshop(config)
