"""What a restart of the service finds again, and what a crash may not leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.engine import State
from sandboxd.errors import NoSuchContainer

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]


async def crash(b: Any) -> None:
    """End the engine without a word to its database, as kill -9 of the service would."""
    b.engine._persistence.write = lambda container: None
    b.engine._persistence.forget = lambda container: None


def test_containers_come_back(any_bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        labels = {"Labels": {"l": "1"}}
        created = await b.make("sh", "-c", "cat /kept", name="created", **labels)
        exited = await b.up("sh", "-c", "echo out > /kept; echo hi; exit 3", name="exited")
        await b.engine.wait(exited)
        running = await b.up("sleep", "1000", name="running", HostConfig={"Binds": ["data:/v"]})
        await b.engine.create(
            {"Image": "busybox", "Cmd": ["x"], "HostConfig": {"AutoRemove": True}}
        )
        await b.make("true", name="leased", lease=b.engine.lease())
        before = {row["Id"] for row in b.engine.list(all=True, filters={})}
        await crash(b)
        await b.engine.close()
        async with b.floors() as again:
            engine = again.engine
            after = {row["Id"] for row in engine.list(all=True, filters={})}
            found = {name: engine.find(name) for name in ("created", "exited", "running")}
            facts = {name: (each.state, each.facts.exit_code) for name, each in found.items()}
            error = engine.inspect(found["running"])["State"]["Error"]
            output = [data async for _, data in engine.logs(found["exited"])]
            await engine.start_container(found["exited"])
            code = await engine.wait(found["exited"])
            await engine.start_container(found["running"])
            mounted = await again.exec(found["running"], "ls", "-d", "/v")
            assert engine.inspect(found["created"])["Config"]["Labels"] == {"l": "1"}
            for name in ("leased",):
                with pytest.raises(NoSuchContainer):
                    engine.find(name)
            return (
                after == {created.id, exited.id, running.id},
                len(before - after),
                facts,
                error,
                output,
                code,
                mounted,
                len(again.directories()),
            )

    same, gone, facts, error, output, code, mounted, directories = any_bench(scenario)
    assert (same, gone, directories) == (True, 2, 3)
    assert facts == {
        "created": (State.CREATED, 0),
        "exited": (State.EXITED, 3),
        "running": (State.EXITED, 137),
    }
    assert "service ended" in error
    assert output == [b"hi\n"]
    assert code == 3
    assert mounted == (0, b"/v\n")


def test_an_orderly_end_leaves_exited_containers(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000")
        await b.engine.close()
        async with b.floors() as again:
            found = again.engine.find(container.id)
            return found.state, found.facts.exit_code, found.facts.error

    assert bench(scenario) == (State.EXITED, 137, "")


def test_a_record_that_cannot_be_read_does_not_stop_the_rest(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("true")
        b.engine.store.database.containers.put("f" * 64, {"what": "is this"})
        await b.engine.close()
        async with b.floors() as again:
            return [row["Id"] for row in again.engine.list(all=True, filters={})] == [container.id]

    assert bench(scenario) is True


def test_a_removal_that_was_cut_short_is_finished(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("true")
        rows = b.engine.store.database.containers
        row = rows.get(container.id)
        row["facts"]["state"] = "removing"
        await b.engine.close()
        rows.put(container.id, row)
        async with b.floors() as again:
            return again.engine.list(all=True, filters={}), again.directories(), rows.all()

    assert bench(scenario) == ([], [], {})
