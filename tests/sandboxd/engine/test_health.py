"""Health checks run on time, and their results are shown as Docker shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.engine.health import Health
from sandboxd.engine.settings import Healthcheck

Run = Callable[[Callable[..., Any]], Any]
TICK = 20_000_000
"""Nanoseconds between two checks."""


def record(health: Health, check: Healthcheck, code: int, age: float = 0) -> bool:
    return health.record(check, begun=1, ended=2, code=code, output="o", age=age)


def test_failures_in_a_row_make_unhealthy_and_one_success_healthy() -> None:
    health, check = Health(), Healthcheck(("x",), retries=2)
    assert not record(health, check, 1)
    assert record(health, check, 1)
    assert (health.status, health.streak) == ("unhealthy", 2)
    assert record(health, check, 0)
    assert (health.status, health.streak) == ("healthy", 0)
    assert not record(health, check, 0)


def test_failures_in_the_start_period_do_not_count() -> None:
    health, check = Health(), Healthcheck(("x",), retries=1, start_period=10)
    assert not record(health, check, 1, age=5)
    assert health.status == "starting"
    assert record(health, check, 1, age=11)


def test_only_the_last_five_results_are_kept() -> None:
    health, check = Health(), Healthcheck(("x",))
    for _ in range(9):
        record(health, check, 0)
    assert len(health.about()["Log"]) == 5


@pytest.mark.needs_userns
@pytest.mark.needs_busybox
class TestInContainers:
    def test_starting_healthy_unhealthy(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            check = {"Test": ["CMD", "test", "-e", "/ok"], "Interval": TICK, "Retries": 2}
            events = aiter(b.engine.events.subscribe(None, None, {"event": ["health_status"]}))
            script = "touch /ok; while [ ! -e /end ]; do sleep 0.01; done; rm /ok; sleep 1000"
            container = await b.up("sh", "-c", script, Healthcheck=check)
            seen = [b.engine.inspect(container)["State"]["Health"]["Status"]]
            seen.append((await anext(events))["Action"])
            row = b.engine.list(filters={"health": ["healthy"]})[0]["Status"]
            await b.exec(container, "touch", "/end")
            seen.append((await anext(events))["Action"])
            return seen, row, b.engine.inspect(container)["State"]["Health"]["FailingStreak"]

        seen, row, streak = bench(scenario)
        assert seen == ["starting", "health_status: healthy", "health_status: unhealthy"]
        assert row.endswith("(healthy)")
        assert streak == 2

    def test_a_check_that_hangs_is_killed(self, bench: Run) -> None:
        async def scenario(b: Any) -> Any:
            check = {
                "Test": ["CMD", "sleep", "999"],
                "Interval": TICK,
                "Timeout": TICK,
                "Retries": 1,
            }
            events = aiter(b.engine.events.subscribe(None, None, {"event": ["health_status"]}))
            container = await b.up("sleep", "1000", Healthcheck=check)
            action = (await anext(events))["Action"]
            return action, b.engine.inspect(container)["State"]["Health"]["Log"][0]

        action, entry = bench(scenario)
        assert action == "health_status: unhealthy"
        assert "exceeded timeout" in entry["Output"]
