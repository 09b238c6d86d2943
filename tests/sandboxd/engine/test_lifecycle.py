"""Create, start, wait, stop, kill, restart, rename, remove: states, answers and their order."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.engine import State
from sandboxd.engine.signals import heeds
from sandboxd.errors import BadRequest, Conflict, NoSuchContainer, StartFailed

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]
TRAP = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done"


async def until_written(b: Any, container: Any, text: bytes) -> None:
    """Follow the log until it holds `text`."""
    seen = b""
    async for _, data in b.engine.logs(container, follow=True):
        seen += data
        if text in seen:
            return


def test_a_life(any_bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        states = []
        container = await b.make("sh", "-c", "echo hi; exit 5", name="mine")
        states.append(container.state)
        exited = b.engine.wait(container, "next-exit")
        removed = b.engine.wait(container, "removed")
        assert await b.engine.start_container(container)
        states.append(container.state)
        code = await exited
        # Nothing may be left to happen between the answer and these looks.
        states.append(container.state)
        output = b.logged(container)
        await b.engine.remove(container)
        assert removed.done()
        return states, code, output, await removed

    states, code, output, removed = any_bench(scenario)
    assert states == [State.CREATED, State.RUNNING, State.EXITED]
    assert (code, output, removed) == (5, b"hi\n", 5)


def test_inspect_from_birth_to_end(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make(
            "sh", "-c", "exit 3", name="mine", Labels={"a": "b"}, ExposedPorts={"80/tcp": {}}
        )
        created = b.engine.inspect(container)
        ended = b.engine.wait(container, "next-exit")
        await b.engine.start_container(container)
        await ended
        return created, b.engine.inspect(container, size=True)

    created, exited = bench(scenario)
    assert created["State"]["Status"] == "created"
    assert created["State"]["StartedAt"] == "0001-01-01T00:00:00Z"
    assert created["NetworkSettings"]["Ports"] == {}
    assert created["Name"] == "/mine"
    assert created["Config"]["Labels"] == {"a": "b"}
    assert created["HostConfig"]["LogConfig"]["Type"] == "json-file"
    state = exited["State"]
    assert (state["Status"], state["ExitCode"], state["Running"]) == ("exited", 3, False)
    assert state["StartedAt"] < state["FinishedAt"]
    assert exited["SizeRootFs"] > exited["SizeRw"] >= 0


def test_starting_twice_is_no_error_and_no_second_start(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("sleep", "1000")
        first, second = await asyncio.gather(
            b.engine.start_container(container), b.engine.start_container(container)
        )
        return sorted((first, second))

    assert bench(scenario) == [False, True]


def test_what_it_wrote_survives_a_stop(any_bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sh", "-c", "echo x >> /root/kept; cat /root/kept; exit 0")
        await b.engine.wait(container)
        await b.engine.start_container(container)
        await b.engine.wait(container)
        return b.logged(container)

    assert any_bench(scenario) == b"x\nx\nx\n"


def test_a_stop_signal_that_is_caught(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sh", "-c", TRAP)
        await until_written(b, container, b"ready")
        stopped = await b.engine.stop(container)
        again = await b.engine.stop(container)
        return stopped, again, container.facts.exit_code, b.logged(container)

    assert bench(scenario) == (True, False, 7, b"ready\ncaught\n")


def test_the_containers_own_stop_signal(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        script = TRAP.replace("TERM", "USR1")
        container = await b.up("sh", "-c", script, StopSignal="SIGUSR1")
        await until_written(b, container, b"ready")
        await b.engine.stop(container)
        return container.facts.exit_code

    assert bench(scenario) == 7


def test_a_stop_signal_that_is_caught_and_ignored_ends_in_a_kill(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        script = "trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done"
        container = await b.up("sh", "-c", script)
        await until_written(b, container, b"ready")
        begun = time.monotonic()
        await b.engine.stop(container, 0.3)
        return container.facts.exit_code, time.monotonic() - begun >= 0.3, b.logged(container)

    assert bench(scenario) == (137, True, b"ready\nno\n")


def test_a_stop_signal_that_pid_1_cannot_see_ends_it_at_once(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000")
        async with asyncio.timeout(60):
            await b.engine.stop(container, 1000)
        return container.facts.exit_code

    assert bench(scenario) == 137


def test_kill(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sh", "-c", TRAP)
        await until_written(b, container, b"ready")
        for wrong in ("SIGNOPE", "0"):
            with pytest.raises(BadRequest):
                await b.engine.kill(container, wrong)
        ended = b.engine.wait(container, "next-exit")
        await b.engine.kill(container, "TERM")
        first = await ended
        with pytest.raises(Conflict, match="is not running"):
            await b.engine.kill(container, "KILL")
        await b.engine.start_container(container)
        await b.engine.kill(container, "9")
        return first, container.state, container.facts.exit_code

    assert bench(scenario) == (7, State.EXITED, 128 + signal.SIGKILL)


def test_restart(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sh", "-c", "echo run; " + TRAP)
        await until_written(b, container, b"ready")
        first = container.facts.started
        await b.engine.restart(container)
        return container.running, container.facts.started > first

    assert bench(scenario) == (True, True)


def test_names(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        first = await b.make("true", name="first")
        other = await b.make("true", name="other")
        with pytest.raises(Conflict, match='"/first" is already in use by container "' + first.id):
            await b.make("true", name="/first")
        with pytest.raises(Conflict):
            await b.engine.rename(other, "first")
        with pytest.raises(BadRequest):
            await b.engine.rename(other, "not a name")
        await b.engine.rename(first, "renamed")
        found = [
            b.engine.find(ref) is first for ref in ("renamed", "/renamed", first.id, first.id[:10])
        ]
        with pytest.raises(NoSuchContainer):
            b.engine.find("first")
        for ref in ("", "nosuch", "/"):
            with pytest.raises(NoSuchContainer):
                b.engine.find(ref)
        await b.engine.rename(other, "first")
        await b.engine.remove(first)
        await b.make("true", name="renamed")
        return found

    assert bench(scenario) == [True] * 4


def test_a_prefix_that_several_share_is_refused(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        ids = [(await b.make("true")).id for _ in range(17)]
        shared = next(a[0] for a in ids if sum(i[0] == a[0] for i in ids) > 1)
        with pytest.raises(BadRequest, match="Multiple IDs found with provided prefix"):
            b.engine.find(shared)

    bench(scenario)


def test_remove_refuses_what_runs_unless_forced(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000", name="mine")
        with pytest.raises(Conflict, match="container is running: stop the container before"):
            await b.engine.remove(container)
        both = await asyncio.gather(
            b.engine.remove(container, force=True),
            b.engine.remove(container, force=True),
            return_exceptions=True,
        )
        with pytest.raises(NoSuchContainer):
            b.engine.find("mine")
        with pytest.raises(Conflict):
            await b.engine.start_container(container)
        return [type(result).__name__ for result in both], b.directories()

    results, directories = bench(scenario)
    assert sorted(results) == ["Conflict", "NoneType"]
    assert directories == []


def test_removal_and_start_at_once_end_in_one_of_the_two(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        for _ in range(5):
            container = await b.make("sleep", "1000")
            await asyncio.gather(
                b.engine.start_container(container),
                b.engine.remove(container, force=True),
                return_exceptions=True,
            )
            assert container.state is State.REMOVED
            assert container.program is None
        return b.directories()

    assert bench(scenario) == []


def test_auto_remove_is_never_seen_exited(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("sh", "-c", "exit 6", HostConfig={"AutoRemove": True})
        removed = b.engine.wait(container, "removed")
        exited = b.engine.wait(container, "next-exit")
        seen = []
        exited.add_done_callback(lambda _: seen.append(container.state))
        await b.engine.start_container(container)
        code = await removed
        with pytest.raises(NoSuchContainer):
            b.engine.find(container.id)
        return code, await exited, seen, b.directories()

    assert bench(scenario) == (6, 6, [State.REMOVED], [])


def test_auto_remove_after_a_failed_start_answers_everybody(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("nosuch", HostConfig={"AutoRemove": True})
        removed = b.engine.wait(container, "removed")
        attachment = b.engine.attach(container)
        with pytest.raises(StartFailed):
            await b.engine.start_container(container)
        return await removed, [piece async for piece in attachment]

    assert bench(scenario) == (127, [])


def test_a_failed_start_is_told_by_inspect_and_can_be_tried_again(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("nosuch")
        for _ in range(2):
            with pytest.raises(StartFailed):
                await b.engine.start_container(container)
        return b.engine.inspect(container)["State"]

    state = bench(scenario)
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "executable file not found" in state["Error"]


def test_waiting_for_what_has_happened_and_for_nonsense(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("true")
        with pytest.raises(BadRequest, match="invalid condition"):
            b.engine.wait(container, "zz")
        return b.engine.wait(container, "not-running").result()

    assert bench(scenario) == 0


def test_init_reaps_and_passes_signals_on(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sh", "-c", TRAP, HostConfig={"Init": True})
        await until_written(b, container, b"ready")
        await b.engine.stop(container)
        return container.facts.exit_code

    assert bench(scenario) == 7


def test_pruning_takes_what_has_stopped(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        running = await b.up("sleep", "1000")
        old = await b.make("true", Labels={"keep": "no"})
        kept = await b.make("true", Labels={"keep": "yes"})
        removed = await b.engine.prune({"label!": ["keep=yes"]})
        later = await b.engine.prune({"until": ["1h"]})
        rest = {row["Id"] for row in b.engine.list(all=True, filters={})}
        return removed == [old.id], later, rest == {running.id, kept.id}

    assert bench(scenario) == (True, [], True)


def test_events_tell_the_life_in_order(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sh", "-c", "exit 2", name="mine", Labels={"l": "1"})
        await b.engine.wait(container)
        await b.engine.rename(container, "other")
        await b.engine.remove(container)
        return [
            event
            async for event in b.engine.events.subscribe(
                1.0, time.time(), {"container": [container.id]}
            )
        ]

    events = bench(scenario)
    assert [event["Action"] for event in events] == [
        "create", "start", "die", "rename", "destroy",
    ]  # fmt: skip
    attributes = events[2]["Actor"]["Attributes"]
    assert attributes == {
        "image": "busybox:latest", "name": "mine", "l": "1", "exitCode": "2", "execDuration": "0",
    }  # fmt: skip
    assert events[3]["Actor"]["Attributes"]["oldName"] == "/mine"


def test_pausing_is_refused_clearly(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000")
        with pytest.raises(BadRequest, match="freezer"):
            await b.engine.pause(container)

    bench(scenario)


def test_read_only_and_small_shared_memory(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        result = await b.sh(
            "touch /x 2>/dev/null || echo refused; touch /t/x && echo ok;"
            "for d in /dev/shm /t; do df -k $d | tail -1 | tr -s ' ' | cut -d' ' -f2; done",
            HostConfig={
                "ReadonlyRootfs": True,
                "ShmSize": 1 << 20,
                "Tmpfs": {"/t": "size=2m,mode=1777"},
            },
        )
        return result.stdout.split()

    assert bench(scenario) == [b"refused", b"ok", b"1024", b"2048"]


def test_a_program_that_waits_for_its_stop_signal_gets_it(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        # The reaper of --init waits in sigwait(3), where /proc shows no blocked signal.
        container = await b.up("sh", "-c", TRAP, HostConfig={"Init": True})
        await until_written(b, container, b"ready")
        return heeds(container.program.running.pid, signal.SIGTERM)

    assert bench(scenario) is True
