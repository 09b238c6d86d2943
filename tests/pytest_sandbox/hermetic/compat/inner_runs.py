"""Inner runs of one small project, plain and hermetic: what a user sees must be the same.

Each run is a pytest process of its own with the plugins that it names and no others. What it
says is read from its terminal, its JUnit file and its report log, and compared once what differs
between any two runs (times, addresses, the plugin's header line) is taken out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

PLUGINS = {
    "anyio": "anyio.pytest_plugin",
    "asyncio": "pytest_asyncio.plugin",
    "cov": "pytest_cov.plugin",
    "django": "pytest_django.plugin",
    "hypothesis": "_hypothesis_pytestplugin",
    "randomly": "pytest_randomly",
    "rerunfailures": "pytest_rerunfailures",
    "timeout": "pytest_timeout",
    "xdist": "xdist.plugin",
}

INI = """
[pytest]
addopts = -p pytest_sandbox.plugin -p pytest_reportlog.plugin --color=no
"""

SCOPES = ("--hermetic", "--hermetic=function")

_TIMES = re.compile(r"\b\d+\.\d\ds\b(?: \(\d:\d\d:\d\d\))?|\b\d:\d\d:\d\d ago\b")
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_HEADER = re.compile(r"^(?:sandbox|hermetic): .*\n", re.MULTILINE)
_POST_MORTEM = re.compile(r"^-+ post mortem -+\n.*\n", re.MULTILINE)
_RULES = re.compile(r"(?:(?<=\n)|(?<=^))=+ (.*?) =+(?=\n|$)")

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What one pytest process said."""

    ret: int
    text: str
    """Its standard output, without times, addresses and what the plugin itself says."""
    errors: str
    log: list[Record]
    """Its report log: one record for each report, without times."""
    junit: ElementTree.Element | None

    @property
    def summary(self) -> str:
        """The last line of the terminal, such as `1 failed, 2 passed in Ns`."""
        found: list[str] = re.findall(r"(?m)^=+ (.* in Ns) =+$", self.text)
        return found[-1]

    def outcomes(self, part: str = "") -> list[tuple[str, str, str]]:
        """(node id, phase, outcome) of each report whose node id contains `part`, in order."""
        return [(r["nodeid"], r["when"], r["outcome"]) for r in self.reports(part)]

    def reports(self, part: str = "") -> list[Record]:
        """The test reports whose node id contains `part`, in order."""
        return [r for r in self.log if "when" in r and "keywords" in r and part in r["nodeid"]]

    def warnings(self) -> list[Record]:
        """The warnings, in order."""
        return [r for r in self.log if r["$report_type"] == "WarningMessage"]

    def failure(self, part: str) -> str:
        """All that the one failing report says whose node id contains `part`."""
        [report] = [r for r in self.reports(part) if r["outcome"] == "failed"]
        return json.dumps(report["longrepr"]) + json.dumps(report["sections"])

    def cases(self, part: str = "") -> list[Any]:
        """The test cases of the JUnit file whose class or name contains `part`, in order."""
        assert self.junit is not None
        cases = self.junit.iter("testcase")
        return [_plain(c) for c in cases if part in f"{c.get('classname')}::{c.get('name')}"]


_NO_PROPERTIES: Any = ("properties", {}, "", [])


def _plain(element: ElementTree.Element) -> Any:
    """The element as a tree of tuples, without times."""
    attributes = {k: _same(v) for k, v in element.items() if k not in ("time", "timestamp")}
    text = _same((element.text or "").strip())
    children = [_plain(child) for child in element if child.get("name") != "post mortem"]
    return element.tag, attributes, text, [child for child in children if child != _NO_PROPERTIES]


def _same(text: str) -> str:
    text = _POST_MORTEM.sub("", _HEADER.sub("", text))
    return _RULES.sub(r"=== \1 ===", _ADDRESS.sub("0x…", _TIMES.sub("Ns", text)))


def _record(line: str) -> Record:
    record: Record = json.loads(_same(line))
    for name in ("duration", "start", "stop"):
        record.pop(name, None)
    for name in ("sections", "user_properties"):
        if name in record:
            record[name] = [each for each in record[name] if each[0] != "post mortem"]
    return record


class Project:
    """A directory with tests, and runs of them; what they leave elsewhere lies beside it."""

    def __init__(self, path: Path) -> None:
        self.path, self.tmp = path / "project", path / "tmp"
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST", "SANDBOX_", "COV_", "COVERAGE"))
            and name not in ("PYTHONDONTWRITEBYTECODE", "HYPOTHESIS_STORAGE_DIRECTORY")
        }
        self.environ |= {
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "COLUMNS": "100",
            "TMPDIR": str(self.tmp),
            "SANDBOX_ROOT": str(path / "state"),
            # A service that a test does not ask for must not be found either.
            "SANDBOX_HOST": f"unix://{path}/no-service.sock",
        }
        for directory in (self.path, self.tmp):
            directory.mkdir()
        self.write(**{"pytest.ini": INI})

    def write(self, **files: str) -> None:
        """Write the files, named by keyword; Python files may leave out their `.py`."""
        for name, text in files.items():
            path = self.path / (name if "." in name else f"{name}.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).lstrip("\n"))

    def ini(self, *lines: str) -> None:
        """Add lines to the ini file."""
        with (self.path / "pytest.ini").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def command(self, *args: str) -> list[str]:
        """The command line of a run: arguments, and `+name` for a plugin of PLUGINS."""
        named = [("-p", PLUGINS[a[1:]]) if a.startswith("+") else (a,) for a in args]
        return [sys.executable, "-m", "pytest", *(word for words in named for word in words)]

    def run(self, *args: str, python: str | None = None) -> Run:
        """Run pytest to its end; `python` is another interpreter than this one."""
        log, junit = self.path / "report.jsonl", self.path / "junit.xml"
        for file in (log, junit):
            file.unlink(missing_ok=True)
        options = (f"--report-log={log}", f"--junitxml={junit}")
        command = [python or sys.executable, *self.command(*args, *options)[1:]]
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=100,
        )
        text = done.stdout.decode(errors="replace")
        records = [_record(line) for line in log.read_text().splitlines()] if log.exists() else []
        tree = ElementTree.parse(junit).getroot() if junit.exists() else None
        errors = done.stderr.decode(errors="replace")
        sys.stdout.write(f"$ {' '.join(command)}\n{text[-20_000:]}{errors[-20_000:]}")
        return Run(done.returncode, _same(text), errors, records, tree)

    def same(self, *args: str, scopes: Sequence[str] = SCOPES) -> Run:
        """A plain run; a hermetic run of each scope must agree with it in everything."""
        plain = self.run(*args)
        for scope in scopes:
            assert_same(plain, self.run(*args, scope))
        return plain


def assert_same(plain: Run, hermetic: Run) -> None:
    """Both runs said the same, each by all of its ways."""
    assert hermetic.outcomes() == plain.outcomes()
    assert hermetic.text == plain.text
    for one, other in zip(plain.log, hermetic.log, strict=False):
        assert other == one
    assert len(hermetic.log) == len(plain.log)
    assert hermetic.cases() == plain.cases()
    assert hermetic.ret == plain.ret
