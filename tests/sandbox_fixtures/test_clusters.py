"""Servers that are launched ahead: used once, by the test that asks for just that one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import connect

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_postgres]

THREE_TESTS = """
import pytest
from sandbox_fixtures import postgres

pg = postgres()

@pytest.mark.parametrize("number", range(3))
def test_it(pg, sandbox, number):
    pg.psql("create table a ()")
"""


def test_the_next_one_boots_beside_the_test(live: pytest.Pytester, service: Service) -> None:
    live.makepyfile(
        THREE_TESTS
        + """
    sandbox.departures.settle()
    # The first test does not know its successor, the last has none.
    while len(sandbox.containers()) < [1, 2, 1][number]:
        pass
    assert len(sandbox.containers()) == [1, 2, 1][number]
"""
    )
    live.runpytest_subprocess().assert_outcomes(passed=3)
    with connect(service.host, autostart=False) as client:
        assert client.containers(all=True) == []


def test_it_is_not_in_the_report_of_the_test_beside_it(live: pytest.Pytester) -> None:
    live.makepyfile(THREE_TESTS + "    assert number != 1\n")
    result = live.runpytest_subprocess()
    result.assert_outcomes(passed=2, failed=1)
    sections = [line for line in result.outlines if "container pg-" in line]
    assert len(sections) == 1


def test_one_that_was_killed_meanwhile_is_replaced(live: pytest.Pytester) -> None:
    live.makepyfile(
        THREE_TESTS
        + """
    if number == 1:
        for each in sandbox.containers():
            if each.name.startswith("pg-") and each.id != pg.container.id:
                each.kill()
"""
    )
    live.runpytest_subprocess().assert_outcomes(passed=3)


def test_it_is_what_the_marker_of_its_test_asks_for(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from sandbox_fixtures import postgres

        pg = postgres()

        @pytest.mark.parametrize(
            "color",
            [
                pytest.param(color, marks=pytest.mark.sandbox(env={"COLOR": color}))
                for color in ("red", "red", "blue", "green")
            ],
        )
        def test_it(pg, color):
            echo = pg.container.exec(["sh", "-c", "echo $COLOR"])
            assert echo.stdout.decode().strip() == color
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=4)


def test_none_is_launched_for_a_test_that_needs_none(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from sandbox_fixtures import postgres

        pg = postgres()
        wide = postgres(scope="module")

        def servers(sandbox):
            sandbox.departures.settle()
            return len(sandbox.containers())

        def test_one(pg):
            pass

        def test_two(pg, sandbox):
            assert servers(sandbox) == 1

        def test_three(sandbox):
            assert servers(sandbox) == 0

        def test_four(wide, sandbox):
            assert servers(sandbox) == 1

        def test_five(wide, sandbox):
            assert servers(sandbox) == 1
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=5)
