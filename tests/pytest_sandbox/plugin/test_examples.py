"""The examples pass, and the failing one reports what its text promises."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_postgres]

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_examples_pass(live: pytest.Pytester) -> None:
    result = live.runpytest_subprocess("-p", "no:cacheprovider", EXAMPLES)
    assert result.ret == 0
    outcomes = result.parseoutcomes()
    assert outcomes["xfailed"] == 1
    assert outcomes.keys() == {"passed", "xfailed"}


def test_the_failing_one_shows_its_container_log(live: pytest.Pytester) -> None:
    example = EXAMPLES / "test_failing.py"
    result = live.runpytest_subprocess("-p", "no:cacheprovider", example, "--runxfail")
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            r"-+ container web-\w{6} \(running\): log since the test began -+",
            r"127\.0\.0\.1 - - .* code 404, message File not found",
            r'127\.0\.0\.1 - - .* "GET /missing\.html HTTP/1\.1" 404 -',
        ],
        consecutive=True,
    )
