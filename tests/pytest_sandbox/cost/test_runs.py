"""Real runs: what the terminal says of their costs, and what the page has of them."""

from __future__ import annotations

import re

import pytest

from tests.pytest_sandbox.cost.conftest import drawn

SERVICES = """
import sys
import pytest
from pytest_sandbox import container, volume

site = volume(files={"a": "SEED"}, commands=[["sh", "-c", "cat a >b"]])
web = container(
    "host",
    ["sh", "-c", "echo begun '</script>'; exec sleep 60"],
    volumes={"/site": "site"},
)
shared = container("host", ["sleep", "60"], scope="module", ready=lambda made: made.exec(["true"]))

@pytest.mark.parametrize("n", range(3))
def test_web(web, shared, n):
    assert n != 2, "</script>"

def test_by_hand(sandbox):
    with sandbox.container("host", ["sleep", "60"]) as made:
        made.start()
"""
OUTCOMES = """
import pytest

@pytest.fixture
def broken():
    raise OSError("no disk")

def test_passed(): pass
def test_failed(): assert 0
def test_error(broken): pass
def test_skipped(): pytest.skip()
@pytest.mark.xfail
def test_xfailed(): assert 0
@pytest.mark.xfail
def test_xpassed(): pass
"""


@pytest.mark.needs_userns
def test_a_run_in_one_process(live: pytest.Pytester) -> None:
    live.makepyfile(SERVICES.replace("SEED", "one process"))
    result = live.runpytest_subprocess("--sandbox-durations=0", "--sandbox-report=out/run.html")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*= sandbox durations: all =*",
            "    total     pull    build snapshot    start    ready     stop  resource",
        ]
    )
    result.stdout.re_match_lines_random(
        [
            r" +[\d.]+s {18,}[\d.]+s +snapshot site$",
            r"( +[\d.]+s){3,4}  container web \(function scope, 3 times\)$",
            r"( +[\d.]+s){4}  container shared \(module scope\)$",
            r" +[\d.]+s .* container by hand, of host$",
            r"sandbox report: file:///.*/out/run.html$",
        ]
    )
    data = drawn(live.path / "out" / "run.html")
    assert data["workers"] == ["main"]
    assert [row[0].partition("::")[2] for row in data["tests"]] == [
        "test_web[0]", "test_web[1]", "test_web[2]", "test_by_hand",
    ]  # fmt: skip
    failed = data["tests"][2]
    assert data["outcomes"][failed[2]] == "failed"
    assert failed[8] == "failure-0"
    assert [data["names"][use] for use in failed[7]] == ["web", "shared", "site"]
    phases = {data["phases"][row[0]]: row for row in data["spans"]}
    assert phases.keys() >= {"snapshot", "start", "ready", "stop", "setup"}
    assert phases["snapshot"][1:3] == ["site", 0]
    assert phases["snapshot"][5] == 0, "it was the first test that asked"
    assert all(0 <= start <= stop <= data["length"] for _, _, _, start, stop, _ in data["spans"])
    assert len(data["lives"]) == 5
    states = {row[0].partition("-")[0]: row[4] for row in data["lives"]}
    assert states["web"] == "running"
    assert "exit code 137" in states.values()
    text = (live.path / "out" / "run.html").read_text()
    assert "begun &lt;/script&gt;" in text
    assert text.count("</script>") == 2


@pytest.mark.needs_userns
@pytest.mark.needs_xdist
def test_what_workers_share_is_billed_once(live: pytest.Pytester) -> None:
    live.makepyfile(SERVICES.replace("SEED", "workers"))
    result = live.runpytest_subprocess(
        "-n2", "--dist=load", "--sandbox-durations=2", "--sandbox-report=run.html"
    )
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*= sandbox durations: costliest 2 of 4 =*"])
    data = drawn(live.path / "run.html")
    assert data["workers"] == ["gw0", "gw1"]
    assert {row[1] for row in data["tests"]} == {0, 1}
    assert len(data["lives"]) in (5, 6), "the module's container is made by each worker"
    rows = re.findall(r"<tr><td>(snapshot [^<]*)</td>", (live.path / "run.html").read_text())
    assert rows == ["snapshot site"]


@pytest.mark.needs_userns
def test_hermetic_tests_hand_on_what_their_processes_noted(live: pytest.Pytester) -> None:
    live.makepyfile(
        SERVICES.replace("SEED", "hermetic").replace("def test_by_hand", "def test_dies")
        + "    import os; open('written', 'w').close(); os.kill(os.getpid(), 9)\n"
    )
    live.makeini("[pytest]\n")
    result = live.runpytest_subprocess(
        "--hermetic=function",
        "--hermetic-report=observe",
        "--sandbox-report=run.html",
        "--sandbox-durations=0",
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.re_match_lines_random(
        [r".*  container web \(function scope, 3 times\)$", r".*  snapshot site$"]
    )
    data = drawn(live.path / "run.html")
    fixtures = {row[0].rpartition("-")[0] for row in data["lives"]}
    assert fixtures >= {"web", "shared"}
    phases = {(data["phases"][row[0]], row[1]) for row in data["spans"]}
    assert phases >= {("start", "web"), ("ready", "shared"), ("snapshot", "site")}
    text = (live.path / "run.html").read_text()
    assert "died by SIGKILL" in text
    assert "<code>sandboxctl shell &#x27;test_hermetic" in text
    assert re.search(r"created [^<]*written", text)


@pytest.mark.needs_xdist
def test_what_ended_early_is_told_too(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        test_dies="import os\ndef test_dies(): os._exit(3)\ndef test_lives(): pass",
        test_absent="import nothing_of_that_name",
    )
    inner.runpytest_subprocess(
        "-n1", "--continue-on-collection-errors", "--sandbox-report=run.html"
    ).stdout.fnmatch_lines(["sandbox report: file://*"])
    data = drawn(inner.path / "run.html")
    told = {row[0]: data["outcomes"][row[2]] for row in data["tests"]}
    assert told == {
        "test_absent.py": "error",
        "test_dies.py::test_dies": "failed",
        "test_dies.py::test_lives": "passed",
    }
    assert all(0 < row[3] <= data["length"] for row in data["tests"])
    assert "No module named" in (inner.path / "run.html").read_text()


def test_a_page_that_cannot_be_written_is_no_success(inner: pytest.Pytester) -> None:
    inner.makepyfile("def test_it(): pass")
    result = inner.runpytest_subprocess("--sandbox-report=/proc/none/run.html")
    result.stdout.fnmatch_lines(["sandbox report: not written: *"])
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR


def test_every_outcome_is_told(inner: pytest.Pytester) -> None:
    inner.makepyfile(OUTCOMES)
    result = inner.runpytest_subprocess("--sandbox-report=run.html", "--sandbox-durations=1")
    result.stdout.fnmatch_lines(["no image, snapshot or container was used"])
    data = drawn(inner.path / "run.html")
    told = [row[0].partition("::test_")[2] == data["outcomes"][row[2]] for row in data["tests"]]
    assert told == [True] * 6
    assert [bool(row[8]) for row in data["tests"]] == [False, True, True, False, False, False]
    assert "OSError: no disk" in (inner.path / "run.html").read_text()


def test_nothing_is_loaded_that_nobody_asked_for(inner: pytest.Pytester) -> None:
    inner.makeconftest(
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    print('loaded:', sorted(n for n in sys.modules if 'pytest_sandbox.cost' in n))\n"
    )
    inner.makepyfile("def test_nothing(): pass")
    result = inner.runpytest_subprocess()
    result.stdout.fnmatch_lines(["loaded: []*"])
    result.stdout.no_fnmatch_line("*sandbox durations*")


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--sandbox-durations=-1", "*--sandbox-durations=-1: it is negative*"),
        ("--sandbox-durations=few", "*--sandbox-durations=few: invalid literal*"),
        ("--sandbox-report=.", "*--sandbox-report=.: it is no name of a file*"),
    ],
)
def test_bad_values_are_refused(inner: pytest.Pytester, option: str, why: str) -> None:
    result = inner.runpytest(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([why])
