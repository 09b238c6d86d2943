"""A log keeps what was written, in order, within its bounds, and gives it back in many ways."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxd.engine.logs import Log
from sandboxd.engine.records import PAYLOAD_MAX, Record, Records


async def collect(pieces: AsyncIterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [piece async for piece in pieces]


def read(log: Log, **options: Any) -> list[tuple[int, bytes]]:
    return asyncio.run(collect(log.read(**options)))


def joined(log: Log, **options: Any) -> bytes:
    return b"".join(data for _, data in read(log, **options))


@pytest.fixture(params=["memory", "file"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    return Log(tmp_path, tmp_path / "log" if request.param == "file" else None)


def test_both_streams_come_back_in_the_order_of_writing(log: Log) -> None:
    log.append(1, b"a\n")
    log.append(2, b"b\n")
    log.append(1, b"partial")
    assert read(log) == [(1, b"a\n"), (2, b"b\n"), (1, b"partial")]
    assert read(log, streams={2}) == [(2, b"b\n")]
    assert log.collected() == (b"a\npartial", b"b\n")


def test_an_empty_log(log: Log) -> None:
    assert read(log) == []
    assert read(log, tail=5) == []
    assert log.last_lines(5) == b""


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, b""), (1, b"d"), (2, b"c\nd"), (3, b"b\nc\nd"), (9, b"a\nb\nc\nd")],
)
def test_the_last_lines(log: Log, count: int, expected: bytes) -> None:
    log.append(1, b"a\nb\n")
    log.append(1, b"c\nd")
    assert joined(log, tail=count) == expected
    assert log.last_lines(count) == expected


def test_the_last_lines_of_one_stream(log: Log) -> None:
    log.append(1, b"out1\nout2\n")
    log.append(2, b"err1\nerr2\n")
    assert joined(log, tail=1, streams={1}) == b"out2\n"
    assert joined(log, tail=1, streams={1, 2}) == b"err2\n"


def test_times_stand_before_each_line_and_once_in_a_broken_one(log: Log) -> None:
    log.append(1, b"one\ntwo")
    log.append(1, b" more\nthree\n")
    lines = joined(log, timestamps=True).splitlines()
    assert [line.split(b" ", 1)[1] for line in lines] == [b"one", b"two more", b"three"]
    assert all(line.split(b" ")[0].endswith(b"Z") for line in lines)


def test_since_and_until(log: Log) -> None:
    log.append(1, b"early\n")
    middle = asyncio.run(_a_moment_after(log))
    log.append(1, b"late\n")
    assert joined(log, since=middle) == b"late\n"
    assert joined(log, until=middle) == b"early\n"


async def _a_moment_after(log: Log) -> float:
    import time

    await asyncio.sleep(0.002)
    now = time.time()
    await asyncio.sleep(0.002)
    return now


def test_a_follower_sees_everything_and_ends_with_the_run(log: Log) -> None:
    async def scenario() -> list[tuple[int, bytes]]:
        log.begin()
        log.append(1, b"before\n")
        follower = asyncio.create_task(collect(log.read(follow=True)))
        await asyncio.sleep(0)
        for number in range(3):
            log.append(1, b"%d\n" % number)
            await asyncio.sleep(0)
        log.append(1, b"last\n")
        log.end()
        return await follower

    assert b"".join(data for _, data in asyncio.run(scenario())) == b"before\n0\n1\n2\nlast\n"


def test_following_a_log_that_nobody_writes_ends_at_once(log: Log) -> None:
    log.append(1, b"old\n")
    assert joined(log, follow=True) == b"old\n"


def test_a_follower_leaves_at_until(log: Log) -> None:
    import time

    log.begin()
    assert joined(log, follow=True, until=time.time() + 0.01) == b""


def test_memory_gives_way_to_a_file_without_a_name(tmp_path: Path) -> None:
    log = Log(tmp_path, memory=1000)
    for number in range(500):
        log.append(1, b"line %d\n" % number)
    assert log.collected()[0] == b"".join(b"line %d\n" % number for number in range(500))
    assert os.listdir(tmp_path) == []
    log.close()


@pytest.mark.parametrize("named", [False, True])
def test_a_full_log_keeps_the_end_and_says_so(tmp_path: Path, named: bool) -> None:
    log = Log(tmp_path, tmp_path / "log" if named else None, limit=20_000, memory=1000)
    for number in range(5000):
        log.append(1, b"line %04d\n" % number)
    pieces = read(log)
    assert pieces[0][0] == 2
    assert pieces[0][1].startswith(b"[sandboxd: earlier output is gone")
    kept = b"".join(data for _, data in pieces[1:])
    assert kept.endswith(b"line 4999\n")
    assert kept.startswith(b"line ")
    assert log.truncated
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000
    assert log.last_lines(2) == b"line 4998\nline 4999\n"


def test_a_follower_that_falls_behind_is_told(tmp_path: Path) -> None:
    log = Log(tmp_path, limit=20_000, memory=1000)

    async def scenario() -> list[bytes]:
        log.begin()
        log.append(1, b"first\n")
        pieces = log.read(follow=True)
        seen = [(await anext(pieces))[1]]
        for number in range(5000):
            log.append(1, b"line %04d\n" % number)
        log.end()
        return seen + [data async for _, data in pieces]

    seen = asyncio.run(scenario())
    assert seen[0] == b"first\n"
    assert seen[1].startswith(b"[sandboxd: earlier output is gone")
    assert seen[-1] == b"line 4999\n"


def test_a_named_log_is_found_again_without_the_record_that_a_crash_cut(tmp_path: Path) -> None:
    path = tmp_path / "log"
    first = Log(tmp_path, path)
    first.append(1, b"whole\n")
    first.append(1, b"cut\n")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 3)
    again = Log(tmp_path, path)
    assert joined(again) == b"whole\n"
    again.append(2, b"new\n")
    assert read(Log(tmp_path, path)) == [(1, b"whole\n"), (2, b"new\n")]


def test_a_rotated_log_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    first = Log(tmp_path, path, limit=20_000)
    for number in range(900):
        first.append(1, b"line %04d\n" % number)
    assert path.with_name("log.1").exists()
    assert joined(Log(tmp_path, path, limit=20_000)) == b"".join(
        data for _, data in read(first)[1:]
    )


def test_garbage_in_the_file_is_not_read_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(os.urandom(5000))
    assert read(Log(tmp_path, path)) == []


def test_a_full_disk_costs_the_record_and_nothing_else(tmp_path: Path) -> None:
    full = Path("/dev/full")
    log = Log(tmp_path, tmp_path / "log")
    log.append(1, b"kept\n")
    keeper = _Failing()
    records: Any = log._records  # the disk cannot be filled for real inside a unit test
    whole, records._newer.append = records._newer.append, keeper.append
    log.append(1, b"lost\n")
    records._newer.append = whole
    log.append(1, b"after\n")
    assert full.exists()
    assert log.truncated
    assert log.collected() == (b"kept\nafter\n", b"")
    assert b"5 bytes of output are missing" in joined(log)


class _Failing:
    def append(self, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@settings(max_examples=60, deadline=None, database=None)
@given(
    writes=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=300))),
    memory=st.integers(0, 2000),
)
def test_whatever_is_appended_comes_back(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, bytes]], memory: int
) -> None:
    log = Log(tmp_path_factory.mktemp("log"), memory=memory)
    for stream, data in writes:
        log.append(stream, data)
    assert read(log) == writes
    log.close()


def test_a_payload_of_any_size_is_split(tmp_path: Path) -> None:
    log = Log(tmp_path)
    data = os.urandom(3 * PAYLOAD_MAX + 5)
    log.append(1, data)
    assert log.collected()[0] == data


def test_records_walk_backwards_over_both_halves(tmp_path: Path) -> None:
    records = Records(tmp_path, None, limit=2000, memory=100)
    for number in range(100):
        records.append(Record(1, number, b"x" * 20))
    times = [record.time for _, record in records.backwards()]
    assert times == sorted(times, reverse=True)
    assert times[0] == 99
    assert len(times) < 100
