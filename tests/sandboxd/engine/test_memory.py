"""What the containers of a lease write to their roots lies in the service's memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.errors import BadRequest, CannotEnforce
from sandboxd.linux import mount

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]
ON_DISK = {"HostConfig": {"StorageOpt": {"upper": "disk"}}}


def in_memory(b: Any) -> list[str]:
    return os.listdir(b.base / "memory" / "containers")


def test_a_leased_containers_writes_are_in_memory_and_outlast_a_stop(any_bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        lease = b.engine.lease()
        script = "cat /kept || echo first > /kept; sleep 1000"
        container = await b.up("sh", "-c", script, lease=lease)
        while (await b.exec(container, "test", "-s", "/kept"))[0] != 0:
            pass
        await b.engine.stop(container, timeout=0)
        assert (container.upper / "u" / "kept").read_text() == "first\n"
        places = in_memory(b) == [container.id], b.directories()
        await b.engine.start_container(container)
        code, _ = await b.exec(container, "cat", "/kept")
        await b.engine.release(lease)
        return places, code, in_memory(b)

    assert any_bench(scenario) == ((True, []), 0, [])


@pytest.mark.parametrize("leased", [True, False])
def test_it_lies_on_disk_where_that_is_asked_for_or_nobody_holds_a_lease(
    bench: Run, leased: bool
) -> None:
    async def scenario(b: Any) -> Any:
        lease = b.engine.lease() if leased else None
        container = await b.up("sleep", "1000", lease=lease, **(ON_DISK if leased else {}))
        found = b.directories() == [container.id], in_memory(b)
        await b.engine.remove(container, force=True)
        return found, b.directories()

    assert bench(scenario) == ((True, []), [])


def test_it_lies_on_disk_when_memory_is_short(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        fd = mount.new_filesystem("tmpfs", (("size", "8m"),), (), 0)
        mount.move_mount(fd, str(b.base / "memory" / "containers"))
        os.close(fd)
        container = await b.make("true", lease=b.engine.lease())
        return b.directories() == [container.id], in_memory(b)

    assert bench(scenario) == (True, [])


def test_memory_is_refused_to_what_outlives_it(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        with pytest.raises(CannotEnforce, match=r"upper=memory.*make it under a lease"):
            await b.make("true", HostConfig={"StorageOpt": {"upper": "memory"}})
        with pytest.raises(BadRequest, match="it is disk or memory"):
            await b.make("true", HostConfig={"StorageOpt": {"upper": "moon"}})
        return b.engine.list(all=True, filters={})

    assert bench(scenario) == []
