"""Recipes and claims: a snapshot is filled once, whoever asks, or not at all."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.errors import BadRequest, Conflict, NoSuchImage, NoSuchSnapshot

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]
KEY = f"sha256:{'5' * 64}"


def recipe(*steps: str, files: dict[str, bytes] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "Image": "busybox",
        "Target": "/data",
        "Steps": [{"Cmd": ["sh", "-c", step]} for step in steps],
        "Files": {
            path: {"Content": base64.b64encode(content).decode(), "Mode": 0o640}
            for path, content in (files or {}).items()
        },
        **more,
    }


async def content(
    b: Any, key: str, script: str = "cd /v; find . -type f | sort | xargs cat"
) -> bytes:
    """What a script finds in a volume that starts from the snapshot."""
    volume = b.engine.create_volume(snapshot=key)
    result = await b.sh(script, HostConfig={"Binds": [f"{volume.name}:/v"]})
    b.engine.remove_volume(volume.name)
    return bytes(result.stdout)


def test_files_and_steps_fill_a_snapshot(any_bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        body = recipe(
            "cat /elsewhere /data/in/file > /data/both; echo $WHO >> /data/both",
            "echo second >> /data/both; touch /not-part-of-it",
            files={"/data/in/file": b"inside\n", "/elsewhere": b"outside\n"},
            Env=["WHO=env"],
        )
        progress: list[Any] = []
        snapshot = await b.engine.snapshots.build(body, progress.append)
        rest = (list(b.engine.list_volumes({})), b.engine.list(all=True, filters={}))
        return (
            progress,
            await content(b, snapshot.key),
            await content(b, snapshot.key, "stat -c %a /v/in /v/in/file; ls /v"),
            rest,
            snapshot.spec["Target"],
        )

    progress, text, listing, rest, target = any_bench(scenario)
    assert [(each["Step"], each["Of"]) for each in progress] == [(1, 2), (2, 2)]
    assert text == b"outside\ninside\nenv\nsecond\ninside\n"
    assert listing == b"755\n640\nboth\nin\n"
    assert rest == ([], [])
    assert target == "/data"


def test_the_same_recipe_is_built_once_and_any_change_makes_another(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        count = b.base / "count"
        count.mkdir()
        script = "echo >> /count/n; sleep 0.1"
        body = recipe(script, Binds=[f"{count}:/count"])
        same = await asyncio.gather(*(b.engine.snapshots.build(dict(body)) for _ in range(5)))
        again = await b.engine.snapshots.build(dict(body))
        built = len((count / "n").read_text())
        keys = {(await b.engine.snapshots.build(changed)).key for changed in (
            {**body, "Env": ["A=1"]},
            {**body, "User": "0"},
            {**body, "Target": "/other"},
            {**body, "Files": {"/data/x": {"Content": ""}}},
            {**body, "Files": {"/data/x": {"Content": "", "Mode": 0o600}}},
        )}  # fmt: skip
        return {each.key for each in [*same, again]}, built, len(keys), again.key in keys

    same, built, others, overlap = bench(scenario)
    assert len(same) == 1
    assert built == 1
    assert (others, overlap) == (5, False)


def test_a_step_that_fails_seals_nothing_and_says_why(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        body = recipe("echo fine", "echo oops; echo broken >&2; exit 4")
        with pytest.raises(BadRequest) as caught:
            await b.engine.snapshots.build(body)
        return (
            caught.value.message,
            list(b.engine.store.snapshots.list()),
            list(b.engine.list_volumes({})),
            b.engine.idle,
        )

    message, snapshots, volumes, idle = bench(scenario)
    assert "step 2 of 2 failed" in message
    assert "exit code 4" in message
    assert "oops\nbroken" in message
    assert (snapshots, volumes, idle) == ([], [], True)


def test_nobody_left_who_waits_ends_the_build(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        body = recipe("sleep 1000")
        stream = aiter(b.engine.events.subscribe(None, None, {"event": ["start", "destroy"]}))
        waiting = [asyncio.create_task(b.engine.snapshots.build(dict(body))) for _ in range(2)]
        await anext(stream)
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        still = bool(b.engine.list(filters={}))
        waiting[1].cancel()
        await anext(stream)
        await asyncio.wait(waiting)
        while not b.engine.idle:
            await asyncio.sleep(0.001)
        return still, list(b.engine.list_volumes({})), b.engine.list(all=True, filters={})

    assert bench(scenario) == (True, [], [])


def test_a_recipe_on_top_of_another(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        base = await b.engine.snapshots.build(recipe("echo base > /data/a; echo gone > /data/b"))
        body = recipe("rm /data/b; echo more > /data/c", Base=base.key)
        top = await b.engine.snapshots.build(body)
        with pytest.raises(NoSuchSnapshot):
            await b.engine.snapshots.build({**body, "Base": KEY})
        return await content(b, base.key), await content(b, top.key)

    assert bench(scenario) == (b"base\ngone\n", b"base\nmore\n")


def test_the_images_own_content_is_the_beginning(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        snapshot = await b.engine.snapshots.build(recipe(Target="/etc"))
        return await content(b, snapshot.key, "grep -c root /v/passwd")

    assert bench(scenario) == b"1\n"


def test_another_user_may_write(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        body = recipe("mkdir /data/own; id -u > /data/own/f", User="1000")
        return await content(b, (await b.engine.snapshots.build(body)).key)

    assert bench(scenario) == b"1000\n"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"Image": "nosuch"}, NoSuchImage),
        ({"Target": ""}, BadRequest),
        ({"Target": "rel"}, BadRequest),
        ({"Target": "/a/../b"}, BadRequest),
        ({"Steps": [{}]}, BadRequest),
        ({"Steps": [{"Cmd": [1]}]}, BadRequest),
        ({"Files": {"/data/../x": {"Content": ""}}}, BadRequest),
        ({"Files": {"/x": {"Content": "not base64!"}}}, BadRequest),
        ({"Files": {"/x": 5}}, BadRequest),
    ],
)
def test_broken_recipes(bench: Run, body: dict[str, Any], error: type[Exception]) -> None:
    async def scenario(b: Any) -> Any:
        with pytest.raises(error):
            await b.engine.snapshots.build({**recipe("true"), **body})
        return list(b.engine.list_volumes({}))

    assert bench(scenario) == []


def test_a_file_never_leaves_the_volume_through_a_link(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        outside = b.base / "outside"
        outside.mkdir()
        script = f"ln -s {outside} /data/dir; ln -s {outside}/file /data/file"
        base = await b.engine.snapshots.build(recipe(script))
        refused = 0
        for path in ("/data/dir/x", "/data/file"):
            with pytest.raises(BadRequest):
                await b.engine.snapshots.build(recipe(files={path: b"x"}, Base=base.key))
            refused += 1
        return refused, list(outside.iterdir())

    assert bench(scenario) == (2, [])


def test_one_claims_and_the_others_wait_for_the_seal(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        first, other = b.engine.lease(), b.engine.lease()
        assert await b.engine.snapshots.claim(KEY, first) is None
        waiting = [asyncio.create_task(b.engine.snapshots.claim(KEY, other)) for _ in range(3)]
        await asyncio.sleep(0)
        volume = b.engine.create_volume(scratch=True, lease=first)
        await b.sh("echo seeded > /v/f", HostConfig={"Binds": [f"{volume.name}:/v"]})
        with pytest.raises(Conflict, match="holds no claim"):
            await b.engine.snapshots.seal(KEY, volume.name, {}, other)
        sealed = await b.engine.snapshots.seal(KEY, volume.name, {"by": "test"}, first)
        results = await asyncio.gather(*waiting)
        await b.engine.release(first)
        return (
            {each.key for each in [*results, sealed]},
            await content(b, KEY),
            sealed.spec,
            list(b.engine.list_volumes({})),
        )

    assert bench(scenario) == ({KEY}, b"seeded\n", {"by": "test"}, [])


def test_a_claim_passes_on_when_it_is_given_back_or_its_lease_ends(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        leases = [b.engine.lease() for _ in range(3)]
        assert await b.engine.snapshots.claim(KEY, leases[0]) is None
        second = asyncio.create_task(b.engine.snapshots.claim(KEY, leases[1]))
        await asyncio.sleep(0)
        b.engine.snapshots.abandon(KEY, leases[2])
        assert not second.done()
        b.engine.snapshots.abandon(KEY, leases[0])
        assert await second is None
        third = asyncio.create_task(b.engine.snapshots.claim(KEY, leases[2]))
        await asyncio.sleep(0)
        await b.engine.release(leases[1])
        return await third

    assert bench(scenario) is None


def test_a_volume_in_use_is_not_sealed(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        lease = b.engine.lease()
        await b.engine.snapshots.claim(KEY, lease)
        container = await b.up("sleep", "99", HostConfig={"Binds": ["data:/v"]})
        with pytest.raises(Conflict, match="volume is in use"):
            await b.engine.snapshots.seal(KEY, "data", {}, lease)
        with pytest.raises(BadRequest):
            await b.engine.snapshots.claim("not a digest", lease)
        await b.engine.kill(container)

    bench(scenario)
