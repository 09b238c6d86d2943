"""Further processes in running containers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.errors import BadRequest, CannotEnforce, Conflict, NoSuchExec, StartFailed

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]
OUTPUT = {"AttachStdout": True, "AttachStderr": True}


def test_output_and_code_and_the_containers_surroundings(any_bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000", Env=["A=1"], WorkingDir="/tmp")
        script = "echo $A $B; pwd; echo $HOSTNAME; ls /proc | grep -c '^1$'; exit 9"
        return container.id, await b.exec(container, "sh", "-c", script, Env=["B=2"])

    id, (code, output) = any_bench(scenario)
    assert code == 9
    assert output.decode().splitlines() == ["1 2", "/tmp", id[:12], "1"]


def test_the_code_is_there_when_the_stream_ends(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000")
        return [await b.exec(container, "sh", "-c", f"echo {n}; exit {n}") for n in range(20)]

    assert bench(scenario) == [(n, b"%d\n" % n) for n in range(20)]


def test_input(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000")
        id = await b.engine.exec_create(container, {"Cmd": ["cat"], "AttachStdin": True, **OUTPUT})
        attachment = await b.engine.exec_start(id)
        reading = asyncio.create_task(b.drained(attachment))
        await attachment.write(b"x" * 300_000)
        await attachment.close_stdin()
        return len(await reading), b.engine.exec_inspect(id)["ExitCode"]

    assert bench(scenario) == (300_000, 0)


def test_a_terminal_has_its_size_at_birth(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000")
        id = await b.engine.exec_create(container, {"Cmd": ["stty", "size"], "Tty": True, **OUTPUT})
        attachment = await b.engine.exec_start(id, size=(33, 99))
        return attachment.tty, await b.drained(attachment)

    assert bench(scenario) == (True, b"33 99\r\n")


@pytest.mark.parametrize(("command", "code"), [("nosuch", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed(bench: Run, command: str, code: int) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000")
        id = await b.engine.exec_create(container, {"Cmd": [command], **OUTPUT})
        with pytest.raises(StartFailed) as caught:
            await b.engine.exec_start(id)
        about = b.engine.exec_inspect(id)
        return caught.value.exit_code, about["ExitCode"], about["Running"]

    assert bench(scenario) == (code, code, False)


def test_refusals(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        stopped = await b.make("true")
        with pytest.raises(Conflict, match="is not running"):
            await b.engine.exec_create(stopped, {"Cmd": ["true"]})
        container = await b.up("sleep", "1000")
        empty: list[dict[str, Any]] = [{}, {"Cmd": []}, {"Cmd": None}]
        for body in empty:
            with pytest.raises(BadRequest, match="No exec command specified"):
                await b.engine.exec_create(container, body)
        with pytest.raises(CannotEnforce):
            await b.engine.exec_create(container, {"Cmd": ["true"], "Privileged": True})
        with pytest.raises(BadRequest):
            await b.engine.exec_create(container, {"Cmd": [3]})
        with pytest.raises(NoSuchExec, match="No such exec instance: nosuch"):
            b.engine.exec_inspect("nosuch")
        id = await b.engine.exec_create(container, {"Cmd": ["true"], **OUTPUT})
        await b.drained(await b.engine.exec_start(id))
        with pytest.raises(Conflict):
            await b.engine.exec_start(id)

    bench(scenario)


def test_detached(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sh", "-c", "while [ ! -e /tmp/done ]; do sleep 0.01; done")
        exited = b.engine.wait(container)
        id = await b.engine.exec_create(container, {"Cmd": ["touch", "/tmp/done"]})
        attachment = await b.engine.exec_start(id, detach=True)
        return attachment, await exited

    assert bench(scenario) == (None, 0)


def test_what_it_leaves_in_the_background_does_not_hold_the_stream(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000")
        late = "(sleep 0.02; echo late) & sleep 1000 & echo early"
        return await asyncio.wait_for(b.exec(container, "sh", "-c", late), 20)

    assert bench(scenario) == (0, b"early\nlate\n")


def test_the_end_of_the_container_ends_its_execs(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000")
        id = await b.engine.exec_create(container, {"Cmd": ["sleep", "1000"], **OUTPUT})
        attachment = await b.engine.exec_start(id)
        ids = b.engine.inspect(container)["ExecIDs"]
        await b.engine.remove(container, force=True)
        await asyncio.wait_for(b.drained(attachment), 20)
        return ids == [id], b.engine.exec_inspect(id)["ExitCode"]

    assert bench(scenario) == (True, 137)


def test_another_user(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        if b.ids.kind == "single":
            return b"1000\n"
        container = await b.up("sleep", "1000")
        return (await b.exec(container, "id", "-u", User="user"))[1]

    assert bench(scenario) == b"1000\n"


def test_events(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000")
        stream = b.engine.events.subscribe(None, None, {})
        await b.exec(container, "sh", "-c", "exit 3")
        seen = []
        async for event in stream:
            seen.append((event["Action"], event["Actor"]["Attributes"].get("exitCode")))
            if event["Action"] == "exec_die":
                return seen

    assert bench(scenario) == [
        ("exec_create: sh -c exit 3", None),
        ("exec_start: sh -c exit 3", None),
        ("exec_die", "3"),
    ]
