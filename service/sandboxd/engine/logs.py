"""What a container wrote, as it can be read again: from a time, the last lines, or as it grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from functools import cached_property
from pathlib import Path

from sandboxd.engine.clock import rfc3339
from sandboxd.engine.records import PAYLOAD_MAX, Record, Records

MEMORY = 1 << 20
LIMIT = 64 << 20


class Log:
    """The output of one container over all its runs. See `Records` for where it is kept."""

    def __init__(
        self, directory: Path, path: Path | None = None, *, limit: int = LIMIT, memory: int = MEMORY
    ) -> None:
        self._place = (directory, path)
        self._limit, self._memory = limit, memory
        self._live = False
        self._unwritten = 0
        self._growing: set[asyncio.Future[None]] = set()

    @cached_property
    def _records(self) -> Records:
        """Opened at first use: most logs of an earlier service are never read again."""
        directory, path = self._place
        return Records(directory, path, limit=self._limit, memory=self._memory)

    @property
    def position(self) -> int:
        """Where the next record will stand."""
        return self._records.end

    @property
    def truncated(self) -> bool:
        """Whether output is missing: the log was full, or its disk."""
        return bool(self._records.start or self._unwritten)

    def begin(self) -> None:
        """A run starts: followers wait for more from now on."""
        self._live = True

    def end(self) -> None:
        """A run is over and all it wrote was appended: followers read to the end and finish."""
        self._live = False
        self._wake()

    def close(self) -> None:
        self.end()
        if "_records" in self.__dict__:
            self._records.close()

    def append(self, stream: int, data: bytes) -> None:
        """Record output of `stream`. A full disk costs the record, never the container."""
        now = time.time_ns()
        try:
            for at in range(0, len(data), PAYLOAD_MAX):
                self._records.append(Record(stream, now, data[at : at + PAYLOAD_MAX]))
        except OSError:
            self._unwritten += len(data)
        if self._growing:
            self._wake()

    def collected(self) -> tuple[bytes, bytes]:
        """Everything kept, as (standard output, standard error)."""
        parts: tuple[list[bytes], list[bytes]] = ([], [])
        at = self._records.start
        while at < self._records.end:
            records, at = self._records.read(at)
            for record in records:
                parts[record.stream - 1].append(record.data)
        return b"".join(parts[0]), b"".join(parts[1])

    def last_lines(self, count: int) -> bytes:
        """The last lines of both streams, for error messages."""
        at, cut = self._tail(count, (1, 2))
        lines = bytearray()
        while at < self._records.end:
            records, at = self._records.read(at)
            for record in records:
                lines += record.data[cut:]
                cut = 0
        return bytes(lines)

    async def read(
        self,
        *,
        streams: Collection[int] = (1, 2),
        since: float | None = None,
        until: float | None = None,
        timestamps: bool = False,
        tail: int | None = None,
        follow: bool = False,
        end: int | None = None,
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (stream, bytes) in the order of writing.

        `since` and `until` are Unix times in seconds, `tail` a number of lines of the chosen
        streams; `timestamps` puts RFC 3339 with nanoseconds before each line. With `follow` it
        goes on until the container's run is over. `end` is a `position` at which to stop.
        """
        first = round(since * 1e9) if since else 0
        last = round(until * 1e9) if until else None
        at, cut = self._records.start, 0
        if tail is not None:
            at, cut = self._tail(tail, streams)
        elif notice := self._notice():
            yield 2, notice
        stamp = _Stamps() if timestamps else None
        while True:
            while at < (self._records.end if end is None else end):
                if at < self._records.start:
                    at = self._records.start
                    yield 2, self._notice()
                records, at = self._records.read(at, end)
                for record in records:
                    data, cut = (record.data[cut:], 0) if cut else (record.data, 0)
                    if last is not None and record.time > last:
                        return
                    if record.stream in streams and record.time >= first and data:
                        yield record.stream, stamp.mark(record, data) if stamp else data
            if not (follow and self._live and await self._grown(until)):
                return

    def _tail(self, count: int, streams: Collection[int]) -> tuple[int, int]:
        """Position and offset in its record from which `count` lines of `streams` are left."""
        seen: set[int] = set()
        for at, record in self._records.backwards():
            if record.stream not in streams:
                continue
            data, cut = record.data, len(record.data)
            if record.stream not in seen and not data.endswith(b"\n"):
                if not count:
                    return at, len(data)
                count -= 1
            seen.add(record.stream)
            while (cut := data.rfind(b"\n", 0, cut)) >= 0:
                count -= 1
                if count < 0:
                    return at, cut + 1
        return self._records.start, 0

    def _notice(self) -> bytes:
        """The line that stands where output is missing."""
        if self._records.start:
            size = self._limit >> 20
            return b"[sandboxd: earlier output is gone: the log keeps the last %d MiB]\n" % size
        if self._unwritten:
            return b"[sandboxd: %d bytes of output are missing: disk full]\n" % self._unwritten
        return b""

    async def _grown(self, until: float | None) -> bool:
        """Wait for more; False when `until` has come first."""
        grown = asyncio.get_running_loop().create_future()
        self._growing.add(grown)
        try:
            left = None if until is None else until - time.time()
            async with asyncio.timeout(left):
                await grown
        except TimeoutError:
            return False
        finally:
            self._growing.discard(grown)
        return True

    def _wake(self) -> None:
        for grown in self._growing:
            if not grown.done():
                grown.set_result(None)
        self._growing.clear()


class _Stamps:
    """Puts the time before each line; a line that came in pieces gets that of its first."""

    def __init__(self) -> None:
        self._amid: set[int] = set()

    def mark(self, record: Record, data: bytes) -> bytes:
        stamp = rfc3339(record.time).encode() + b" "
        body, end = (data[:-1], b"\n") if data.endswith(b"\n") else (data, b"")
        lines = body.replace(b"\n", b"\n" + stamp) + end
        begun = record.stream in self._amid
        (self._amid.discard if end else self._amid.add)(record.stream)
        return lines if begun else stamp + lines
