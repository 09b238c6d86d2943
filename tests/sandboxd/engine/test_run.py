"""One command in one call: what comes back, and that nothing stays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.errors import BadRequest, NoSuchImage, StartFailed

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Run = Callable[[Callable[..., Any]], Any]


def test_output_error_and_exit_code_come_back(any_bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        return await b.sh("echo out; echo err >&2; exit 3")

    result = any_bench(scenario)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert not any((result.timed_out, result.oom, result.truncated))
    assert len(result.id) == 64


def test_standard_input_of_any_size(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        sizes = []
        for size in (0, 1, 65536, 3_000_000):
            result = await b.sh("wc -c", stdin=bytes(size))
            sizes.append((result.exit_code, int(result.stdout)))
        return sizes

    assert bench(scenario) == [(0, 0), (0, 1), (0, 65536), (0, 3_000_000)]


def test_input_that_nobody_reads_holds_nobody_up(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        return (await b.sh("exit 4", stdin=bytes(1_000_000))).exit_code

    assert bench(scenario) == 4


def test_output_of_many_pipe_sizes(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        result = await b.sh("head -c 5000000 /dev/zero; head -c 100000 /dev/zero >&2")
        return len(result.stdout), len(result.stderr), result.truncated

    assert bench(scenario) == (5_000_000, 100_000, False)


def test_a_flood_is_cut_and_said_to_be(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        result = await b.sh("head -c 90000000 /dev/zero; echo the end")
        return len(result.stdout), result.stdout[-8:], result.truncated

    size, end, truncated = bench(scenario)
    assert end == b"the end\n"
    assert truncated
    assert 32 << 20 <= size <= 64 << 20


def test_a_timeout_kills(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        result = await b.sh("echo started; sleep 1000", timeout=0.3)
        return (
            result.exit_code,
            result.timed_out,
            result.stdout,
            list(b.engine.list(all=True, filters={})),
        )

    assert bench(scenario) == (137, True, b"started\n", [])


def test_a_command_that_ends_in_time_has_not_timed_out(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        return (await b.sh("exit 137", timeout=30)).timed_out

    assert bench(scenario) is False


def test_cancelling_kills_and_leaves_nothing(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        lasting = asyncio.create_task(b.sh("sleep 1000"))
        events = b.engine.events.subscribe(None, None, {"event": ["start", "destroy"]})
        stream = aiter(events)
        await anext(stream)
        lasting.cancel()
        await anext(stream)
        return lasting.cancelled() or (await asyncio.wait([lasting])), b.engine.list(
            all=True, filters={}
        )

    _, rows = bench(scenario)
    assert rows == []


@pytest.mark.parametrize(
    ("command", "code"),
    [(["nosuch"], 127), (["/nosuch"], 127), (["/etc/passwd"], 126), (["/etc"], 126)],
)
def test_what_cannot_be_executed(bench: Run, command: list[str], code: int) -> None:
    async def scenario(b: Any) -> Any:
        try:
            await b.engine.run({"Image": "busybox", "Cmd": command})
        except StartFailed as error:
            return error.exit_code, error.message, b.engine.list(all=True, filters={})

    exit_code, message, rows = bench(scenario)
    assert exit_code == code
    assert command[0] in message
    assert rows == []


def test_arguments_that_the_kernel_finds_too_long(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        big = await b.engine.run(
            {"Image": "busybox", "Cmd": ["sh", "-c", "echo $#", "x", *["y" * 9] * 9000]}
        )
        with pytest.raises(StartFailed, match="too long"):
            await b.engine.run({"Image": "busybox", "Cmd": ["echo", "x" * (1 << 20)]})
        return big.stdout, b.engine.list(all=True, filters={})

    assert bench(scenario) == (b"9000\n", [])


def test_text_of_any_language(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        result = await b.sh("echo $1; echo $A; pwd", Env=["A=ü"], WorkingDir="/täst")
        return result.stdout.decode()

    assert bench(scenario) == "\nü\n/täst\n"


def test_refusals_leave_nothing(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        kinds = []
        for body in (
            {"Image": "nosuch", "Cmd": ["true"]},
            {"Image": "Not A Reference", "Cmd": ["true"]},
            {"Cmd": ["true"]},
            {"Image": "busybox", "Cmd": [1]},
            {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": ["v:/a/../b"]}},
        ):
            with pytest.raises((BadRequest, NoSuchImage)) as caught:
                await b.engine.run(body)
            kinds.append(type(caught.value).__name__)
        return (
            kinds,
            b.engine.list(all=True, filters={}),
            b.engine.list_volumes({}),
            b.directories(),
        )

    kinds, rows, volumes, directories = bench(scenario)
    assert kinds == ["NoSuchImage", *["BadRequest"] * 4]
    assert (rows, list(volumes), directories) == ([], [], [])


def test_what_a_command_finds(any_bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        result = await b.sh(
            "echo $HOSTNAME; hostname; cat /etc/hostname; grep -c localhost /etc/hosts;"
            "grep $HOSTNAME /etc/hosts; echo $HOME; pwd; echo $X; cat /etc/resolv.conf; echo $$",
            Env=["X=y"],
            WorkingDir="/made/up",
        )
        return result.id, result.stdout.decode()

    id, output = any_bench(scenario)
    short = id[:12]
    assert output.splitlines() == [
        short,
        short,
        short,
        "2",
        f"127.0.0.1\t{short}",
        "/root",
        "/made/up",
        "y",
        "# no network, no name server",
        "1",
    ]


def test_hosts_names_and_servers_that_were_asked_for(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        return (
            await b.sh(
                "cat /etc/hosts /etc/resolv.conf; hostname",
                Hostname="db",
                Domainname="example",
                HostConfig={
                    "ExtraHosts": ["far:10.9.8.7"],
                    "Dns": ["10.0.0.53"],
                    "DnsSearch": ["a", "b"],
                    "DnsOptions": ["ndots:2"],
                },
            )
        ).stdout.decode()

    output = bench(scenario)
    for line in (
        "127.0.0.1\tdb.example db",
        "10.9.8.7\tfar",
        "nameserver 10.0.0.53",
        "search a b",
        "options ndots:2",
        "db",
    ):
        assert line in output.splitlines()


def test_users_by_name_and_number(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        outputs = []
        for user in ("", "user", "1000", "7:8", "nobody-knows"):
            try:
                outputs.append((await b.sh("id -u; id -g", User=user)).stdout.split())
            except StartFailed as error:
                outputs.append(error.exit_code)
        return outputs

    root, named, number, pair, unknown = bench(scenario)
    assert root == [b"0", b"0"]
    if os.geteuid() == 0 or named != 125:
        assert named == number == [b"1000", b"1000"]
        assert pair == [b"7", b"8"]
    assert unknown == 125


def test_many_at_once(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        results = await asyncio.gather(*(b.sh(f"echo {number}") for number in range(40)))
        return [int(result.stdout) for result in results], b.engine.list(all=True, filters={})

    assert bench(scenario) == (list(range(40)), [])


def test_nothing_is_left_of_a_hundred(bench: Run) -> None:
    async def scenario(b: Any) -> Any:
        await b.sh("true")
        before = _descriptors()
        for _ in range(100):
            await b.sh("true")
        return before, _descriptors(), b.directories(), len(asyncio.all_tasks())

    before, after, directories, tasks = bench(scenario)
    # The warm slots come and go: two descriptors for each that is on hand.
    assert after <= before + 8
    assert directories == []
    assert tasks == 1


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
