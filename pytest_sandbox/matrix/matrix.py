"""`--sandbox-image`: pytest-xdist's workers in containers of one image or of several.

The controller is this process; it starts the containers, gives execnet the commands that lead into
them, and tells the reports of one image from those of another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_sandbox.cost.events import recorder_of
from pytest_sandbox.matrix.bootstrap import source
from pytest_sandbox.matrix.image import ImagePython, look_into
from pytest_sandbox.matrix.known import flags, keys, markers
from pytest_sandbox.matrix.workplace import Workplace
from pytest_sandbox.options import Options, options_of
from pytest_sandbox.run_client import RunClient
from pytest_sandbox.suite import Suite

if TYPE_CHECKING:
    import execnet

    from pytest_sandbox.matrix.scheduling import Scheduling, Worker

PROPERTY: Final = "sandbox_image"
"""The name of the JUnit property, and of the entry in a report's `user_properties`."""
_SHOWN: Final = ("passed", "failed", "error", "skipped", "xfailed", "xpassed", "rerun")


def begin(config: pytest.Config, options: Options) -> None:
    """Turn this run into one of xdist's, with its workers in images. Raises UsageError."""
    if config.option.collectonly:
        return
    if find_spec("xdist") is None or not config.pluginmanager.hasplugin("xdist"):
        raise pytest.UsageError(
            "--sandbox-image: the suite runs in workers of pytest-xdist, which is not there "
            "(to mend it: pip install pytest-xdist)"
        )
    if config.option.usepdb:
        raise pytest.UsageError("--sandbox-image: --pdb cannot reach a container: leave one out")
    workers = config.option.numprocesses or 1
    images = tuple(dict.fromkeys(options.image))
    config.option.numprocesses = workers * len(images)
    config.option.tx = ["popen"] * config.option.numprocesses
    if config.option.dist == "no":
        config.option.dist = "load"
    config.pluginmanager.register(Matrix(config, images, workers), "sandbox-matrix")


class Matrix:
    """The controller's part; `workers` is for each image."""

    def __init__(self, config: pytest.Config, images: Sequence[str], workers: int) -> None:
        self._config = config
        self._images = images
        self._workers = workers
        self._client: RunClient | None = None
        self._found: dict[str, ImagePython] = {}
        self._image_of_command: dict[str, str] = {}
        self._collected: dict[str, int] = {}
        self._session: pytest.Session | None = None

    # the workers

    def pytest_xdist_setupnodes(self, specs: Sequence[execnet.XSpec]) -> None:
        """Start a container for each worker, and let execnet find its interpreter there."""
        from pytest_sandbox.errors import SandboxError

        options, suite = options_of(self._config), Suite.of(self._config)
        label = f"pytest {self._config.rootpath.name} in images"
        self._client = RunClient(options, label, suite.named, recorder_of(self._config))
        try:
            for number, spec in enumerate(specs):
                image = self._images[number // self._workers]
                if image not in self._found:
                    self._found[image] = look_into(self._client, image)
                place = Workplace(self._config, self._client, self._found[image])
                self._image_of_command[place.command] = image
                spec.python = place.command
        except SandboxError as error:
            raise pytest.UsageError(f"sandbox: {error}") from None

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_getremotemodule(self) -> str:
        """The source of a worker; the images' interpreters may each need other directories."""
        import xdist.remote  # type: ignore[import-untyped]

        sites = {site for found in self._found.values() for site in found.sites}
        return source(
            xdist.remote,
            sites=sorted(sites),
            flags=flags(self._config),
            keys=keys(),
            markers=markers(),
        )

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Scheduling | None:
        from pytest_sandbox.matrix.scheduling import MatrixScheduling

        session = config.pluginmanager.get_plugin("dsession")
        assert session is not None
        schedulers = {}
        for image in self._images:
            made = session.pytest_xdist_make_scheduler(config, log)
            if made is None:
                return None  # somebody else's --dist
            made.numnodes = self._workers
            schedulers[image] = made
        return MatrixScheduling(config, self._image, schedulers)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    def pytest_xdist_node_collection_finished(self, node: Worker, ids: Sequence[str]) -> None:
        self._collected[self._image(node)] = len(ids)

    def _image(self, node: Worker) -> str:
        return self._image_of_command[node.gateway.spec.python]

    def pytest_unconfigure(self) -> None:
        if self._client is not None:
            self._client.close()

    # what is reported

    def pytest_report_header(self) -> str:
        shown = ", ".join(self._images)
        each = "1 worker" if self._workers == 1 else f"{self._workers} workers"
        return f"sandbox: tests run in {shown} ({each} each)"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say which image the test ran in; with several, its name is part of the test's."""
        node = getattr(report, "node", None)
        if node is None:
            return
        if self._session is not None:
            # xdist takes the number from one worker, as if all of them shared the same tests.
            self._session.testscollected = sum(self._collected.values())
        image = self._image(node)
        if all(name != PROPERTY for name, _ in report.user_properties):
            report.user_properties.append((PROPERTY, image))
        if len(self._images) > 1:
            path, line, name = report.location
            report.nodeid = with_suffix(report.nodeid, image)
            report.location = path, line, with_suffix(name, image)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """`--lf` and `--sw` know tests by the names that they have in every image."""
        cache = getattr(session.config, "cache", None)
        if cache is None or len(self._images) == 1:
            return
        failed = cache.get("cache/lastfailed", {})
        plain = {without_suffix(name, self._images): value for name, value in failed.items()}
        if plain != failed:
            cache.set("cache/lastfailed", plain)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._found:
            return
        outcomes = {image: Counter[str]() for image in self._images}
        seconds = Counter[str]()
        for category, reports in terminalreporter.stats.items():
            for report in reports:
                if node := getattr(report, "node", None):
                    outcomes[self._image(node)][category] += 1
                    seconds[self._image(node)] += getattr(report, "duration", 0)
        terminalreporter.section("images")
        wide = max(map(len, self._images))
        for image in self._images:
            counts = [f"{outcomes[image][name]} {name}" for name in _SHOWN if outcomes[image][name]]
            told = ", ".join(counts) or "no tests"
            version = self._found[image].version if image in self._found else "?"
            terminalreporter.line(
                f"{image:{wide}}  Python {version}  {told}  {seconds[image]:.2f}s"
            )


def with_suffix(nodeid: str, image: str) -> str:
    """`test_a.py::test_b[1]` in the image `i` is `test_a.py::test_b[1-i]`."""
    if nodeid.endswith("]"):
        return f"{nodeid[:-1]}-{image}]"
    return f"{nodeid}[{image}]"


def without_suffix(nodeid: str, images: Sequence[str]) -> str:
    """The test's own name again."""
    for image in images:
        if nodeid.endswith(f"[{image}]"):
            return nodeid.removesuffix(f"[{image}]")
        if nodeid.endswith(f"-{image}]"):
            return nodeid.removesuffix(f"-{image}]") + "]"
    return nodeid
