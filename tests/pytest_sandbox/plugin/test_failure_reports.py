"""What a failing test's report shows of its containers and of the service."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs_userns

FAILING = """
from pytest_sandbox import container

box = container(command=["sh", "-c", "mkfifo /tmp/pipe; echo up; cat /tmp/pipe; exit 3"])
quiet = container(command=["sleep", "1000"], scope="module")

def test_fails(box, quiet):
    box.exec(["sh", "-c", "until [ -p /tmp/pipe ]; do :; done; echo a word > /tmp/pipe"])
    box.wait()
    assert False, "on purpose"

def test_passes(box, quiet):
    pass
"""


@pytest.mark.parametrize("args", [(), pytest.param(("-n2",), marks=pytest.mark.needs_xdist)])
def test_logs_and_exit_codes_are_in_the_report(
    live: pytest.Pytester, args: tuple[str, ...]
) -> None:
    live.makepyfile(FAILING)
    result = live.runpytest_subprocess("--junitxml=report.xml", *args)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.re_match_lines(
        [
            r"E +AssertionError: on purpose",
            r"-+ container box-\w{6} \(exit code 3\): log since the test began -+",
            r"up",
            r"a word",
        ]
    )
    result.stdout.re_match_lines(
        [r"-+ container quiet-\w{6} \(running\): log .*", r"\[nothing was written\]"]
    )
    assert 'value="exit code 3"' in (live.path / "report.xml").read_text()


def test_a_failing_setup_shows_the_log_too(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from pytest_sandbox import container

        box = container(command=["sh", "-c", "echo up; exec sleep 1000"])

        @pytest.fixture
        def broken(box):
            while b"up" not in box.logs():
                pass
            raise RuntimeError("on purpose")

        def test_it(broken):
            pass
        """
    )
    result = live.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.re_match_lines([r".*on purpose", r"-+ container box-\w{6} \(running\): .*", "up"])


def test_only_what_was_written_since_the_test_began(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from pytest_sandbox import container

        box = container(
            command=["sh", "-c", "mkfifo /tmp/p; echo up; while cat /tmp/p; do :; done"],
            scope="module",
        )

        def say(box, word):
            box.exec(["sh", "-c", f"until [ -p /tmp/p ]; do :; done; echo {word} > /tmp/p"])
            while word.encode() not in box.logs():
                pass

        def test_passes(box):
            say(box, "early")

        def test_fails(box):
            say(box, "late")
            assert False
        """
    )
    result = live.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.re_match_lines([r"-+ container box-.*", "late"], consecutive=True)
    result.stdout.no_fnmatch_line("early")


def test_a_container_made_by_hand_is_shown_while_it_is_there(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        def test_it(sandbox):
            with sandbox.container("host", ["echo", "gone"]) as gone:
                gone.start().wait()
            kept = sandbox.container("host", ["sh", "-c", "echo kept; exit 7"], name="by-hand")
            kept.start().wait()
            assert False
        """
    )
    result = live.runpytest_subprocess()
    result.stdout.re_match_lines([r"-+ container by-hand \(exit code 7\): log .*", "kept"])
    result.stdout.no_fnmatch_line("gone")


LONG = """
import pytest
from pytest_sandbox import container

box = container(command=["seq", "100"])

def test_option(box):
    box.wait()
    assert False

@pytest.mark.sandbox(log_lines=2)
def test_marker(box):
    box.wait()
    assert False
"""


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["-k", "option"], [str(line) for line in range(51, 101)]),
        (["-k", "option", "--sandbox-log-lines=3"], ["98", "99", "100"]),
        (["-k", "marker", "--sandbox-log-lines=3"], ["99", "100"]),
        (["-k", "option", "--sandbox-log-lines=0"], []),
        (["-k", "option", "--show-capture=no"], []),
    ],
)
def test_a_log_is_cut(live: pytest.Pytester, args: list[str], expected: list[str]) -> None:
    live.makepyfile(LONG)
    result = live.runpytest_subprocess(*args)
    result.assert_outcomes(failed=1, deselected=1)
    assert [line for line in result.outlines if line.isdecimal()] == expected


def test_an_expected_failure_reads_no_log(live: pytest.Pytester) -> None:
    live.makepyfile(LONG.replace("def test_option", "@pytest.mark.xfail\ndef test_option"))
    result = live.runpytest_subprocess("-rx", "-k", "option")
    result.assert_outcomes(xfailed=1, deselected=1)
    result.stdout.no_fnmatch_line("*log since*")


KILL = """
import os, select, signal

def test_dies(sandbox):
    service = sandbox.status()["Pid"]
    pidfd = os.pidfd_open(service)
    os.kill(service, signal.SIGKILL)
    select.select([pidfd], [], [])
    sandbox.service.autostart = False
    sandbox.version()

def test_next(sandbox):
    sandbox.service.autostart = True
    assert sandbox.run("host", ["true"]).exit_code == 0

def test_fails_for_its_own_reasons(sandbox):
    assert False
"""


def test_a_service_that_died_is_in_the_report_once(autostarted: pytest.Pytester) -> None:
    autostarted.makepyfile(KILL)
    result = autostarted.runpytest_subprocess()
    result.assert_outcomes(failed=2, passed=1)
    deaths = [line for line in result.outlines if "sandboxd (it died: SIGKILL): log since" in line]
    assert len(deaths) == 1


def test_the_service_log_is_in_the_report(autostarted: pytest.Pytester) -> None:
    autostarted.makepyfile("def test_it(sandbox): assert False")
    result = autostarted.runpytest_subprocess()
    result.stdout.re_match_lines([r"-+ sandboxd: log since the test began -+", r"\d{4}-.*Z .*"])
