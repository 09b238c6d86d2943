"""A lease owns what is made under it, and its end takes all of that away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.errors import Conflict, NotFound

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]


def test_everything_goes_at_once(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        lease = b.engine.lease("tests")
        volume = b.engine.create_volume("mine", lease=lease)
        mount = {"HostConfig": {"Binds": ["mine:/v"]}, "Volumes": {"/anon": {}}}
        running = [await b.up("sleep", "1000", lease=lease, **mount) for _ in range(5)]
        created = await b.make("true", lease=lease)
        auto = await b.up("sleep", "1000", lease=lease, HostConfig={"AutoRemove": True})
        about = lease.about()
        async with asyncio.timeout(20):
            await b.engine.release(lease)
        with pytest.raises(NotFound, match="No such lease"):
            b.engine.find_lease(lease.id)
        return (
            about["Containers"] == [each.id for each in [*running, created, auto]],
            about["Volumes"] == [volume.name],
            b.engine.list(all=True, filters={}),
            list(b.engine.list_volumes({})),
            b.directories(),
            b.engine.idle,
        )

    assert bench(scenario) == (True, True, [], [], [], True)


def test_what_is_removed_before_is_not_missed(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        lease = b.engine.lease()
        container = await b.up("sleep", "1000", lease=lease)
        b.engine.create_volume("gone", lease=lease)
        b.engine.remove_volume("gone")
        await b.engine.remove(container, force=True)
        left = lease.about()["Containers"]
        await b.engine.release(lease)
        await b.engine.release(lease)
        return left

    assert bench(scenario) == []


def test_what_others_made_stays(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        mine, other = b.engine.lease(), b.engine.lease()
        await b.up("sleep", "1000", lease=mine)
        kept = await b.up("sleep", "1000", lease=other)
        free = await b.make("true")
        b.engine.create_volume("shared", lease=mine)
        user = await b.make("true", HostConfig={"Binds": ["shared:/v"]})
        await b.engine.release(mine)
        rows = {row["Id"] for row in b.engine.list(all=True, filters={})}
        volumes = [volume.name for volume in b.engine.list_volumes({})]
        return rows == {kept.id, free.id, user.id}, kept.running, volumes

    assert bench(scenario) == (True, True, ["shared"])


def test_an_ended_lease_takes_nothing_more(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        lease = b.engine.lease()
        await b.engine.release(lease)
        with pytest.raises(Conflict, match="has ended"):
            await b.make("true", lease=lease)
        with pytest.raises(Conflict, match="has ended"):
            await b.sh("true", lease=lease)
        with pytest.raises(Conflict, match="has ended"):
            b.engine.create_volume(lease=lease)
        return b.engine.list(all=True, filters={}), list(b.engine.list_volumes({}))

    assert bench(scenario) == ([], [])


def test_a_release_in_the_middle_of_everything(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        for delay in range(8):
            lease = b.engine.lease()
            work = [
                asyncio.create_task(b.up("sleep", "1000", lease=lease)),
                asyncio.create_task(b.sh("sleep 1000", lease=lease)),
                asyncio.create_task(
                    b.up("sleep", "1000", lease=lease, Volumes={"/etc": {}, "/v": {}})
                ),
            ]
            for _ in range(delay * 3):
                await asyncio.sleep(0)
            await b.engine.release(lease)
            await asyncio.wait(work, timeout=20)
            for task in work:
                assert task.done()
                # Whatever they became, they may not be a surprise.
                assert task.exception() is None or isinstance(task.exception(), Conflict | NotFound)
        return b.engine.list(all=True, filters={}), list(b.engine.list_volumes({})), b.directories()

    assert bench(scenario) == ([], [], [])


def test_one_removal_that_fails_does_not_stop_the_others(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        lease = b.engine.lease()
        first = await b.up("sleep", "1000", lease=lease)
        second = await b.up("sleep", "1000", lease=lease)
        # A directory that cannot be renamed away: its parent is gone.
        forget = b.engine._persistence.forget

        def failing(container: Any) -> None:
            if container is first:
                raise OSError("disk on fire")
            forget(container)

        b.engine._persistence.forget = failing
        await b.engine.release(lease)
        return str(first.state), str(second.state), first.program is None

    assert bench(scenario) == ("dead", "removed", True)


def test_leased_containers_keep_their_files_over_a_stop(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        lease = b.engine.lease()
        container = await b.up("sh", "-c", "echo x >> /kept; cat /kept", lease=lease)
        await b.engine.wait(container)
        await b.engine.start_container(container)
        await b.engine.wait(container)
        return b.logged(container), b.engine.store.database.containers.all()

    assert bench(scenario) == (b"x\nx\nx\n", {})


def test_a_named_volume_that_a_leased_container_brought_goes_too(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        b.engine.create_volume("before")
        lease = b.engine.lease()
        await b.sh("true", lease=lease, HostConfig={"Binds": ["before:/a", "brought:/b"]})
        during = [volume.name for volume in b.engine.list_volumes({})]
        rows = list(b.engine.store.database.volumes.all())
        await b.engine.release(lease)
        return during, rows, [volume.name for volume in b.engine.list_volumes({})]

    assert bench(scenario) == (["before", "brought"], ["before"], ["before"])
