"""Attach, logs and terminals: nothing lost, nothing twice, nobody held up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.engine import attachments
from sandboxd.errors import Conflict

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]


def test_a_client_attached_before_the_start_misses_nothing(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("sh", "-c", "echo out; echo err >&2")
        both, errors = b.engine.attach(container), b.engine.attach(container, stdout=False)
        await b.engine.start_container(container)
        return sorted([piece async for piece in both]), [piece async for piece in errors]

    both, errors = bench(scenario)
    assert both == [(1, b"out\n"), (2, b"err\n")]
    assert errors == [(2, b"err\n")]


def test_the_streams_end_before_the_exit_is_told(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("sh", "-c", "seq 20000")
        attachment = b.engine.attach(container)
        exited = b.engine.wait(container, "next-exit")
        await b.engine.start_container(container)
        await exited
        # The log is whole at this moment, and the client needs not wait for anything any more.
        logged = b.logged(container)
        return logged, await asyncio.wait_for(b.drained(attachment), 5)

    logged, attached = bench(scenario)
    assert logged == attached == b"".join(b"%d\n" % number for number in range(1, 20001))


def test_history_first_and_then_what_comes(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up(
            "sh", "-c", "echo before; read line; echo after $line", OpenStdin=True
        )
        early = b.engine.attach(container, stdin=True)
        async for _ in b.engine.logs(container, follow=True):
            break
        late = b.engine.attach(container, logs=True)
        past = b.engine.attach(container, logs=True, stream=False)
        await early.write(b"input\n")
        return await b.drained(late), await b.drained(past)

    assert bench(scenario) == (b"before\nafter input\n", b"before\n")


def test_an_attachment_without_anything_ends_at_once(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sleep", "1000")
        return await b.drained(b.engine.attach(container, stream=False))

    assert bench(scenario) == b""


def test_input_sent_before_the_start_and_its_end(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("cat", OpenStdin=True, StdinOnce=True)
        attachment = b.engine.attach(container, stdin=True)

        async def feed() -> None:
            await attachment.write(b"early ")
            await attachment.write(b"birds\n")
            await attachment.close_stdin()

        feeding = asyncio.create_task(feed())
        await asyncio.sleep(0)
        await b.engine.start_container(container)
        await feeding
        return await b.drained(attachment)

    assert bench(scenario) == b"early birds\n"


def test_input_stays_open_for_the_next_client_unless_it_is_for_one(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("cat", OpenStdin=True)
        first = b.engine.attach(container, stdin=True)
        await first.write(b"one\n")
        await first.close_stdin()
        first.detach()
        second = b.engine.attach(container, stdin=True)
        await second.write(b"two\n")
        async for _ in b.engine.logs(container, follow=True):
            if b"two" in b.logged(container):
                break
        return container.running, b.logged(container)

    assert bench(scenario) == (True, b"one\ntwo\n")


def test_whoever_writes_to_a_container_that_is_removed_goes_on(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("cat", OpenStdin=True)
        attachment = b.engine.attach(container, stdin=True)
        writing = asyncio.create_task(attachment.write(b"x"))
        await asyncio.sleep(0)
        await b.engine.remove(container)
        await asyncio.wait_for(writing, 5)
        return await b.drained(attachment)

    assert bench(scenario) == b""


def test_leaving_does_not_stop_the_container(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sh", "-c", "while :; do echo x; sleep 0.01; done")
        attachment = b.engine.attach(container)
        async for _ in attachment:
            break
        attachment.detach()
        return container.running

    assert bench(scenario) is True


def test_a_slow_client_slows_the_program_and_then_gets_everything(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        size = 3 * attachments.QUEUE
        container = await b.make("sh", "-c", f"head -c {size} /dev/zero; echo end >&2")
        attachment = b.engine.attach(container)
        exited = b.engine.wait(container, "next-exit")
        await b.engine.start_container(container)
        done, _ = await asyncio.wait([exited], timeout=0.3)
        held_up = not done
        total = len(await b.drained(attachment))
        await exited
        return held_up, total == size + 4

    assert bench(scenario) == (True, True)


def test_a_slow_client_that_leaves_frees_the_program(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("sh", "-c", f"head -c {3 * attachments.QUEUE} /dev/zero")
        attachment = b.engine.attach(container)
        exited = b.engine.wait(container, "next-exit")
        await b.engine.start_container(container)
        await asyncio.wait([exited], timeout=0.1)
        attachment.detach()
        return await asyncio.wait_for(exited, 20)

    assert bench(scenario) == 0


def test_following_sees_all_and_ends_with_the_container(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.up("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.02; done")
        followed = b"".join([data async for _, data in b.engine.logs(container, follow=True)])
        state = container.state
        tail = b"".join([data async for _, data in b.engine.logs(container, tail=1)])
        return followed, tail, str(state)

    followed, tail, _ = bench(scenario)
    assert (followed, tail) == (b"1\n2\n3\n", b"3\n")


def test_a_terminal(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make(
            "sh", "-c", "tty; stty size; echo $TERM; read x; stty size; echo got $x",
            Tty=True, OpenStdin=True, HostConfig={"ConsoleSize": [30, 100]},
        )  # fmt: skip
        attachment = b.engine.attach(container, stdin=True)
        with pytest.raises(Conflict):
            b.engine.resize(container, 1, 1)
        await b.engine.start_container(container)
        output = b""
        async for _, data in attachment:
            output += data
            if b"xterm" in output:
                break
        b.engine.resize(container, 40, 120)
        await attachment.write(b"word\r")
        output += await b.drained(attachment)
        return output.decode().split()

    words = bench(scenario)
    assert words[0].startswith("/dev/pts/") or words[0] == "/dev/console"
    assert words[1:4] == ["30", "100", "xterm"]
    assert words[-4:] == ["40", "120", "got", "word"]


def test_no_log_at_all(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        container = await b.make("echo", "x", HostConfig={"LogConfig": {"Type": "none"}})
        attachment = b.engine.attach(container)
        await b.engine.start_container(container)
        return await b.drained(attachment), b.logged(container)

    assert bench(scenario) == (b"x\n", b"")
