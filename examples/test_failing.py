"""A failing test shows what its containers wrote while it ran.

It is marked as an expected failure, so that these examples pass. See its report with
`pytest examples/test_failing.py --runxfail`: below the traceback stands

    ---- container web-3fa2c1 (running): log since the test began ----
    127.0.0.1 - - [24/Nov/2026 20:00:00] code 404, message File not found
    127.0.0.1 - - [24/Nov/2026 20:00:00] "GET /missing.html HTTP/1.1" 404 -

A container that died shows its exit code there, and the service its own log.
"""

import sys

import pytest

from pytest_sandbox import Container, container

web = container(command=[sys.executable, "-m", "http.server", "8000"], workdir="/tmp", ready=8000)

GET = "import sys, urllib.request as r; r.urlopen(sys.argv[1])"


@pytest.mark.xfail(reason="shows the report of a failure", raises=AssertionError, strict=True)
def test_a_page_that_is_missing(web: Container) -> None:
    answer = web.exec([sys.executable, "-c", GET, "http://localhost:8000/missing.html"])
    assert answer.exit_code == 0
