"""Suites that nobody here wrote, plain and hermetic: do the same tests pass?

    python -m benchmarks.real_suites [--scope module function] [SUITE ...]

Each sdist is fetched by pip when it is not in the cache ($XDG_CACHE_HOME/pytest-sandbox/suites),
its suite runs in an environment of its own, and each outcome that differs is printed. Exit status
1 if any does. It is no part of CI: it needs an index, and some minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

LIMIT = 300
"""Seconds that one run of a suite may take."""


class Suite(NamedTuple):
    """A project's sdist, and how its tests are run."""

    project: str
    version: str
    arguments: tuple[str, ...] = ("tests",)
    needs: tuple[str, ...] = ()
    """What its tests import beside it and pytest."""
    quick: bool = True
    """Whether a sandbox for each test is no matter of minutes."""


SUITES = (
    Suite("click", "8.5.1", ("tests", "-m", "not stress"), quick=False),
    Suite("jinja2", "3.1.6", needs=("trio",)),
    Suite("pluggy", "1.7.0", ("testing", "--ignore=testing/benchmark.py")),
    Suite("itsdangerous", "2.2.0", needs=("freezegun",)),
    Suite(
        "packaging",
        "25.0",
        ("tests/test_markers.py", "tests/test_tags.py"),
        ("pretend",),
        quick=False,
    ),
    Suite("markupsafe", "3.0.2"),
    Suite("attrs", "26.1.0", needs=("hypothesis", "cloudpickle"), quick=False),
    Suite("toolz", "1.0.0", ("toolz", "tlz")),
)
OURS = ("-p", "pytest_sandbox.plugin", "-o", "addopts=", "-p", "no:cacheprovider")

_VERDICTS = {"error": "error", "failure": "failed", "skipped": "skipped"}

Outcomes = Mapping[tuple[str, str], str]
"""(class, test) of the JUnit file → passed, failed, error, skipped."""


class Run(NamedTuple):
    """One run of a suite."""

    outcomes: Outcomes
    status: int
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suites", nargs="*", default=[suite.project for suite in SUITES])
    parser.add_argument("--scope", nargs="+", default=["module", "function"])
    asked = parser.parse_args()
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    differing = 0
    print(f"{'suite':<22}{'mode':<10}{'tests':>6}{'passed':>8}{'seconds':>9}  differing")
    for suite in SUITES:
        if suite.project in asked.suites:
            differing += compare(suite, cache / "pytest-sandbox" / "suites", asked.scope)
    return 1 if differing else 0


def compare(suite: Suite, cache: Path, scopes: Sequence[str]) -> int:
    """Run it plain and in each scope, print a line for each; how many outcomes differ."""
    tree, python = prepared(suite, cache)
    plain = run(suite, tree, python)
    _line(suite, "plain", plain, "")
    differing = 0
    for scope in scopes:
        if scope == "function" and not suite.quick:
            continue
        hermetic = run(suite, tree, python, f"--hermetic={scope}")
        found = list(differences(plain, hermetic))
        _line(suite, scope, hermetic, str(len(found)))
        for difference in found:
            print(f"    {difference}")
        differing += len(found)
    return differing


def prepared(suite: Suite, cache: Path) -> tuple[Path, str]:
    """The suite's tree, and an interpreter that has what it needs, made if they are not there."""
    name = f"{suite.project}-{suite.version}"
    tree, place = cache / name, cache / f"{name}.venv-{sys.version_info[0]}{sys.version_info[1]}"
    python = str(place / "bin" / "python")
    pip = [sys.executable, "-m", "pip"]
    if not tree.exists():
        cache.mkdir(parents=True, exist_ok=True)
        wanted = f"{suite.project}=={suite.version}"
        options = ("-q", "--no-deps", "--no-binary", suite.project)
        _call([*pip, "download", *options, "-d", str(cache), wanted])
        [sdist] = cache.glob(f"{name}*.tar.gz")
        with tarfile.open(sdist) as tar:
            tar.extractall(cache / f".{name}", filter="data")
        [unpacked] = (cache / f".{name}").iterdir()
        unpacked.rename(tree)
    if not place.exists():
        _call([sys.executable, "-m", "venv", "--without-pip", str(place)])
        _call([*pip, f"--python={python}", "install", "-q", str(tree), "pytest", *suite.needs])
        [site] = place.glob("lib/python*/site-packages")
        behind = sysconfig.get_path("purelib")
        (site / "behind.pth").write_text(f"import site; site.addsitedir({behind!r})\n")
    return tree, python


def run(suite: Suite, tree: Path, python: str, *options: str) -> Run:
    """One run, with no plugin but ours."""
    report = tree.with_name(f"{tree.name}.xml")
    report.unlink(missing_ok=True)
    began = time.monotonic()
    done = subprocess.run(
        [python, "-m", "pytest", "-q", *OURS, f"--junitxml={report}", *suite.arguments, *options],
        cwd=tree,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    seconds = time.monotonic() - began
    outcomes = dict(_outcomes(report)) if report.exists() else {}
    if not outcomes:
        raise SystemExit(f"{suite.project}: no test\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Run(outcomes, done.returncode, seconds)


def differences(plain: Run, hermetic: Run) -> Iterator[str]:
    """A line for each outcome that is not the same, and one for the exit status."""
    for test in sorted(plain.outcomes.keys() | hermetic.outcomes.keys()):
        before, after = plain.outcomes.get(test, "absent"), hermetic.outcomes.get(test, "absent")
        if before != after:
            yield f"{'::'.join(test)}: {before} plain, {after} hermetic"
    if plain.status != hermetic.status:
        yield f"exit status {plain.status} plain, {hermetic.status} hermetic"


def _outcomes(report: Path) -> Iterator[tuple[tuple[str, str], str]]:
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        verdicts = [child.tag for child in case if child.tag in _VERDICTS]
        yield (
            (case.get("classname", ""), case.get("name", "")),
            _VERDICTS[verdicts[0]] if verdicts else "passed",
        )


def _line(suite: Suite, mode: str, run: Run, differing: str) -> None:
    passed = sum(outcome == "passed" for outcome in run.outcomes.values())
    name = f"{suite.project} {suite.version}"
    count = len(run.outcomes)
    print(f"{name:<22}{mode:<10}{count:>6}{passed:>8}{run.seconds:>9.1f}  {differing}", flush=True)


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    raise SystemExit(main())
