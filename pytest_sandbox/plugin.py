"""The pytest plugin: options, the marker `sandbox`, the fixture `sandbox`, one header line.

It is imported in every run of every project that has it installed, so it imports next to nothing;
the client is loaded, and the service started, when the first fixture asks for it. What is always
imported says PYTEST_DONT_REWRITE: rewriting its asserts would cost more than importing it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox import hookspecs
from pytest_sandbox.options import LOCK_FLAG, add_options, options_of

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client

pytest_plugins = ("pytest_sandbox.hermetic.hooks",)

MARKER = (
    "sandbox(*, image=None, postgres=None, env=None, container_image=None, timeout=None, "
    "log_lines=None): the image that this test runs in; the versions of PostgreSQL that it runs "
    "with; and for its containers: environment variables to add, the image, seconds to become "
    "ready, log lines to show when the test fails"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, Any, Any]:
    """A run in images is one of pytest-xdist's; pytest-cov wants to know it as early as this."""
    known = early_config.known_args_namespace
    given = early_config.getini("sandbox_image") or os.environ.get("SANDBOX_IMAGE")
    if (known.sandbox_image or given) and getattr(known, "dist", "") == "no":
        known.dist = "load"
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    options = options_of(config)
    if options.image and not hasattr(config, "workerinput") and not config.getoption(LOCK_FLAG):
        from pytest_sandbox.matrix.matrix import begin

        begin(config, options)
    if options.durations is not None or options.report is not None:
        from pytest_sandbox.cost.collecting import record

        record(config)


def pytest_report_header(config: pytest.Config) -> str:
    host = options_of(config).host or default_host()
    state = "socket present" if os.path.exists(host.removeprefix("unix://")) else "not started"
    return f"sandbox: {host} ({state})"


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    """Fail the collection, with file and line, where a marker's arguments cannot be used."""
    made = yield
    for item in made if isinstance(made, list) else [made]:
        if isinstance(item, pytest.Item) and item.get_closest_marker("sandbox"):
            from pytest_sandbox.marker import refuse_bad_marker

            refuse_bad_marker(item)
    return made


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """To pin images, the tests are collected once, in this process."""
    if config.getoption(LOCK_FLAG) and config.pluginmanager.has_plugin("xdist"):
        config.option.numprocesses, config.option.dist, config.option.tx = 0, "no", []


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Now the images of the run are known: see pytest_sandbox.suite."""
    config, lock = session.config, session.config.getoption(LOCK_FLAG)
    if session.testsfailed or (config.option.collectonly and not lock):
        return
    from pytest_sandbox.needs import has_plans

    if lock:
        from pytest_sandbox.suite import write_lock

        write_lock(session)
    elif any(map(has_plans, session.items)):
        from pytest_sandbox.suite import collection_finished

        collection_finished(session)
    if not lock and any(item.get_closest_marker("sandbox") for item in session.items):
        from pytest_sandbox.matrix.single import begin

        begin(session)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    return True if session.config.getoption(LOCK_FLAG) and not session.testsfailed else None


@pytest.fixture(scope="session")
def sandbox(pytestconfig: pytest.Config) -> Iterator[Client]:
    """A client of the sandbox service, which starts when it is needed.

    Everything made through it is removed at the end of the session, however that ends; with
    pytest-xdist each worker has its own.
    """
    from pytest_sandbox.manners import explained
    from pytest_sandbox.reporting import FailureReports
    from pytest_sandbox.run_state import SandboxRun

    with explained(pytestconfig):
        run = SandboxRun(pytestconfig)
    reports = FailureReports(run)
    pytestconfig.pluginmanager.register(reports, "sandbox-reports")
    yield run.client
    pytestconfig.pluginmanager.unregister(reports)
    run.close()


def default_host() -> str:
    """Where the service of this user listens; the same rule as in sandboxd.paths.

    It stands here once more because the header must not cost the import of the other side.
    """
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return f"unix://{runtime}/sandboxd/docker.sock"
    return f"unix:///tmp/sandboxd-{os.getuid()}/docker.sock"
