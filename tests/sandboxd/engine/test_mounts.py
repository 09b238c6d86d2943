"""Volumes, binds and tmpfs in containers: found, made, filled, shared, removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxd.errors import BadRequest, Conflict, NoSuchVolume

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]


def test_a_named_volume_outlives_its_containers(any_bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        host = {"Binds": ["data:/v"]}
        await b.sh("echo x > /v/f", HostConfig=host)
        result = await b.sh(
            "cat /v/f; touch /v/g 2>/dev/null || echo ro", HostConfig={"Binds": ["data:/v:ro"]}
        )
        return result.stdout, [volume.name for volume in b.engine.list_volumes({})]

    assert any_bench(scenario) == (b"x\nro\n", ["data"])


def test_an_empty_volume_is_filled_from_the_image_with_owner_and_mode(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        filled = await b.sh("cat /etc/passwd | wc -l", HostConfig={"Binds": ["filled:/etc"]})
        mode = await b.sh("stat -c %a /tmp", HostConfig={"Binds": ["tmp:/tmp"]})
        bare = await b.sh("ls /etc | grep -c passwd", HostConfig={"Binds": ["bare:/etc:nocopy"]})
        return filled.stdout, mode.stdout, bare.stdout

    assert bench(scenario) == (b"2\n", b"1777\n", b"0\n")


def test_anonymous_volumes_go_with_their_container(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("true", Volumes={"/v": {}})
        (volume,) = b.engine.list_volumes({})
        kept = await b.make("true", Volumes={"/v": {}})
        await b.engine.remove(container, volumes=True)
        await b.engine.remove(kept)
        left = list(b.engine.list_volumes({}))
        await b.sh("true", Volumes={"/v": {}})
        return volume.anonymous, len(left), len(list(b.engine.list_volumes({})))

    assert bench(scenario) == (True, 1, 1)


def test_binds_of_directories_and_files(any_bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        shared = b.base / "shared"
        shared.mkdir()
        (shared / "file").write_text("content\n")
        result = await b.sh(
            "cat /d/file /f; echo new > /d/new; echo no > /f 2>/dev/null || echo ro",
            HostConfig={
                "Binds": [f"{shared}:/d", f"{shared}/file:/f:ro"],
            },
        )
        return result.stdout, (shared / "new").read_text()

    assert any_bench(scenario) == (b"content\ncontent\nro\n", "new\n")


def test_a_bind_that_is_copy_on_write_leaves_its_source_as_it_is(any_bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        shared = b.base / "shared"
        (shared / "below").mkdir(parents=True)
        (shared / "file").write_text("content\n")
        shared.chmod(0o750)
        write = "stat -c %a /d; echo new >> /d/file; rm -r /d/below; touch /d/x; cat /d/file; ls /d"
        for host in (
            {"Binds": [f"{shared}:/d:O"]},
            {"Mounts": [_copied(shared)], "ReadonlyRootfs": True},
        ):
            result = await b.sh(write, HostConfig=host)
            assert (result.stderr, result.stdout) == (b"", b"750\ncontent\nnew\nfile\nx\n")
        kept = await b.make(
            "sh", "-c", "echo more >> /d/file", HostConfig={"Mounts": [_copied(shared)]}
        )
        for _ in range(2):
            await b.engine.start_container(kept)
            await b.engine.wait(kept)
        (row,) = b.engine.inspect(kept)["Mounts"]
        (upper,) = kept.upper.glob("binds/*/u")
        assert (upper / "file").read_text() == "content\nmore\nmore\n"
        with pytest.raises(BadRequest, match="only a directory can be bound copy-on-write"):
            await b.sh("true", HostConfig={"Mounts": [_copied(shared / "file")]})
        assert "bind on /d: copy-on-write" in b.engine.mounts(kept)
        return (
            row["Mode"],
            row["RW"],
            sorted(os.listdir(shared)),
            (shared / "file").read_text(),
        )

    assert any_bench(scenario) == ("O", True, ["below", "file"], "content\n")


def _copied(source: Path) -> dict[str, Any]:
    sandbox = {"CopyOnWrite": True}
    return {"Type": "bind", "Source": str(source), "Target": "/d", "Sandbox": sandbox}


def test_a_missing_bind_source(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        missing = b.base / "missing"
        mount = {"Type": "bind", "Source": str(missing), "Target": "/m"}
        with pytest.raises(BadRequest, match=f"bind source path does not exist: {missing}"):
            await b.make("true", HostConfig={"Mounts": [mount]})
        created = await b.sh("touch /m/x", HostConfig={"Binds": [f"{missing}:/m"]})
        return created.exit_code, (missing / "x").exists()

    assert bench(scenario) == (0, True)


def test_mounts_inside_mounts_and_the_plan_that_shows_them(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        host = {"Binds": ["outer:/a", "inner:/a/b/c"], "Tmpfs": {"/a/b": ""}}
        container = await b.make("sh", "-c", "mount | grep -c ' /a'", HostConfig=host)
        plan = b.engine.mounts(container)
        await b.engine.start_container(container)
        await b.engine.wait(container)
        shown = {row["Destination"]: row["Type"] for row in b.engine.inspect(container)["Mounts"]}
        return b.logged(container), shown, [line for line in plan if " on /a" in line]

    count, shown, plan = bench(scenario)
    assert count == b"3\n"
    assert shown == {"/a": "volume", "/a/b": "tmpfs", "/a/b/c": "volume"}
    assert [line.split(" on ")[1].split(":")[0] for line in plan] == ["/a", "/a/b", "/a/b/c"]


def test_a_part_of_a_volume(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        await b.sh("mkdir -p /v/a/b; echo deep > /v/a/b/f", HostConfig={"Binds": ["whole:/v"]})
        mount = {
            "Type": "volume",
            "Source": "whole",
            "Target": "/part",
            "VolumeOptions": {"Subpath": "a/b"},
        }
        return (await b.sh("cat /part/f", HostConfig={"Mounts": [mount]})).stdout

    assert bench(scenario) == b"deep\n"


def test_the_volumes_of_another_container(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        await b.sh("echo x > /v/f", HostConfig={"Binds": ["data:/v"]})
        await b.make("true", name="other", HostConfig={"Binds": ["data:/v"]})
        both = await b.sh(
            "cat /v/f; touch /v/y 2>/dev/null || echo ro", HostConfig={"VolumesFrom": ["other:ro"]}
        )
        with pytest.raises(BadRequest):
            await b.sh("true", HostConfig={"VolumesFrom": ["other:what"]})
        return both.stdout

    assert bench(scenario) == b"x\nro\n"


def test_a_volume_in_use_is_not_removed(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("true", HostConfig={"Binds": ["data:/v"]})
        for force in (False, True):
            with pytest.raises(Conflict, match=f"remove data: volume is in use - .{container.id}"):
                b.engine.remove_volume("data", force)
        with pytest.raises(NoSuchVolume, match="get nosuch: no such volume"):
            b.engine.remove_volume("nosuch")
        b.engine.remove_volume("nosuch", True)
        dangling = [volume.name for volume in b.engine.list_volumes({"dangling": ["true"]})]
        used = [volume.name for volume in b.engine.list_volumes({"dangling": ["0"]})]
        await b.engine.remove(container)
        b.engine.remove_volume("data")
        return dangling, used

    assert bench(scenario) == ([], ["data"])


def test_pruning_volumes(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        b.engine.create_volume("named")
        kept = b.engine.create_volume(labels={"keep": "1"})
        loose = b.engine.create_volume()
        await b.make("true", HostConfig={"Binds": ["used:/v"]})
        first, _ = b.engine.prune_volumes({"label!": ["keep"]})
        second, _ = b.engine.prune_volumes({}, named_too=True)
        left = [volume.name for volume in b.engine.list_volumes({})]
        return list(first) == [loose.name], set(second) == {"named", kept.name}, left

    assert bench(scenario) == (True, True, ["used"])


def test_a_create_that_fails_leaves_no_volume(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        missing = {"Type": "bind", "Source": "/no/such/path", "Target": "/z/z"}
        body = {
            "Volumes": {"/anon": {}},
            "HostConfig": {"Binds": ["fresh:/f"], "Mounts": [missing]},
        }
        with pytest.raises(BadRequest):
            await b.make("true", **body)
        await b.make("true", name="taken")
        with pytest.raises(Conflict):
            await b.make("true", name="taken", Volumes={"/anon": {}})
        return list(b.engine.list_volumes({})), len(b.directories())

    assert bench(scenario) == ([], 1)


def test_no_descriptor_of_a_mount_stays_open(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        import os

        host = {"Binds": ["data:/v", "/tmp:/t:ro"]}
        await b.sh("true", HostConfig=host)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(30):
            await b.sh("true", HostConfig=host)
        return len(os.listdir("/proc/self/fd")) - before

    assert bench(scenario) <= 8
