"""The marker `sandbox(image=…)`: this test runs in a container of the image, the others do not.

A pytest in the container runs the marked tests, one at a time and in the run's own order; its
reports are ours. Fixtures are set up there. In a run with `--sandbox-image` the option decides.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_sandbox.manners import explained
from pytest_sandbox.marker import marked, runs_in_image
from pytest_sandbox.matrix.image import look_into
from pytest_sandbox.matrix.known import keys, markers
from pytest_sandbox.matrix.matrix import PROPERTY
from pytest_sandbox.matrix.remote import SOURCE
from pytest_sandbox.matrix.workplace import Workplace
from pytest_sandbox.options import options_of
from pytest_sandbox.run_client import RunClient
from pytest_sandbox.suite import Suite

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client

_OWN: Final = (
    *("basetemp", "collectonly", "file_or_dir", "inifilename", "rootdir", "override_ini"),
    *("keyword", "markexpr", "deselect", "lf", "failedfirst", "newfirst", "stepwise", "plugins"),
    *("maxfail", "usepdb", "trace", "dist", "tx", "numprocesses", "xmlpath", "report_log"),
)
"""Options of the run outside that mean nothing there."""
_OWN_BEGINNINGS: Final = ("cov", "no_cov", "sandbox_", "hermetic")


def begin(session: pytest.Session) -> None:
    """Take care of the marked tests among those collected, if there are any."""
    tests: dict[str, list[str]] = {}
    for item in filter(runs_in_image, session.items):
        tests.setdefault(str(marked(item).image), []).append(item.nodeid)
    if tests:
        session.config.pluginmanager.register(Single(session.config, tests), "sandbox-single")


class Single:
    """Runs the marked tests; `tests` are their ids by image, in the run's order."""

    def __init__(self, config: pytest.Config, tests: dict[str, list[str]]) -> None:
        self._config = config
        self._tests = tests
        self._client: RunClient | None = None
        self._visits: dict[str, _Visit] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if not runs_in_image(item):
            return None
        image = str(marked(item).image)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item, nextitem, image):
            report.user_properties.append((PROPERTY, image))
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _reports(
        self, item: pytest.Item, nextitem: pytest.Item | None, image: str
    ) -> Iterator[pytest.TestReport]:
        """Those of the test, and one about fixtures that were set up here for tests before it, and
        that the next test does not need."""
        begun = pytest.CallInfo.from_call(lambda: self._visit(image), when="setup")
        torn_down = False
        if begun.excinfo is not None:
            yield pytest.TestReport.from_item_and_call(item, begun)
        else:
            for report in self._reports_of(item, image):
                torn_down = torn_down or report.when == "teardown"
                yield report
        written = io.StringIO()
        with redirect_stdout(written), redirect_stderr(written):
            setups = item.session._setupstate
            ended = pytest.CallInfo.from_call(
                lambda: setups.teardown_exact(nextitem), when="teardown"
            )
        if ended.excinfo is not None or not torn_down:
            report = pytest.TestReport.from_item_and_call(item, ended)
            if written.getvalue():
                report.sections.append(("Captured output teardown", written.getvalue()))
            yield report

    def _reports_of(self, item: pytest.Item, image: str) -> Iterator[pytest.TestReport]:
        try:
            for data in self._visits[image].reports(self._tests[image].index(item.nodeid)):
                if "broken" in data:
                    yield _failure(item, str(data["broken"]))
                else:
                    yield self._config.hook.pytest_report_from_serializable(
                        config=self._config, data=data
                    )
        except EOFError as error:
            self._visits.pop(image).end()
            yield _failure(item, f"{error}: the image {image}")

    def _visit(self, image: str) -> None:
        """Start a pytest in a container of the image, if none is there. Fails, or skips."""
        if image in self._visits:
            return
        with explained(self._config):
            client = self._connected()
            place = Workplace(self._config, client, look_into(client, image))
            self._visits[image] = _Visit(self._config, place, self._tests[image])

    def _connected(self) -> Client:
        if self._client is None:
            label = f"pytest {self._config.rootpath.name} in images"
            named = Suite.of(self._config).named
            self._client = RunClient(options_of(self._config), label, named)
        return self._client

    def pytest_unconfigure(self) -> None:
        for visit in self._visits.values():
            visit.end()
        if self._client is not None:
            self._client.close()


def _failure(item: pytest.Item, why: str) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid, item.location, {}, "failed", why, "call", sections=[], duration=0
    )


class _Visit:
    """A pytest in a container, through the standard streams of an exec."""

    def __init__(self, config: pytest.Config, place: Workplace, tests: list[str]) -> None:
        command = [*shlex.split(place.command), "-u", "-c", SOURCE]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._count = len(tests)
        root = config.rootpath
        self._send(
            {
                "sites": place.found.sites,
                "keys": keys(),
                "markers": markers(),
                "options": dict(_options(config)),
                "root": str(root),
                "ini": str(config.inipath or ""),
                "tests": tests,
                "places": list(
                    dict.fromkeys(f"{root}/{test.partition('::')[0]}" for test in tests)
                ),
            }
        )

    def reports(self, index: int) -> Iterator[dict[str, Any]]:
        """Run the test at this position. Raises EOFError when its process ends before it does."""
        following = index + 1 if index + 1 < self._count else None
        try:
            self._send([index, following])
        except BrokenPipeError:
            pass  # what it has said before its end is still to be read
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line == "\n":
                return
            yield json.loads(line)
        code = self._process.wait()
        raise EOFError(f"the process that ran the test has ended (exit code {code})")

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(value)}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Let it tear down and wait for that."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _options(config: pytest.Config) -> Iterator[tuple[str, Any]]:
    """The plain values among the options, those of the project's own conftest with them."""
    for name, value in vars(config.option).items():
        plain = value is None or isinstance(value, bool | int | float | str)
        if plain and name not in _OWN and not name.startswith(_OWN_BEGINNINGS):
            yield name, value
