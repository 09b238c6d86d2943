"""The API served in the test's own event loop, before a scripted engine.

What is tested with it is the protocol: heads, half-closes, hang-ups, order of bytes. Whatever
depends on a container is tested in tests/clients against a real service.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from sandboxd.api import serve
from sandboxd.errors import BadRequest, NoSuchContainer, NotFound


@dataclass
class ScriptedAttachment:
    """An attachment whose output the test puts into a queue; None ends it."""

    tty: bool = False
    output: asyncio.Queue[tuple[int, bytes] | None] = field(default_factory=asyncio.Queue)
    written: bytearray = field(default_factory=bytearray)
    stdin_closed: asyncio.Event = field(default_factory=asyncio.Event)
    detached: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.output.put_nowait((1, piece))

    def end(self) -> None:
        self.output.put_nowait(None)

    async def write(self, data: bytes) -> None:
        self.written += data

    async def close_stdin(self) -> None:
        self.stdin_closed.set()

    def detach(self) -> None:
        self.detached.set()

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        while (piece := await self.output.get()) is not None:
            yield piece


@dataclass
class ScriptedLease:
    id: str = "f" * 32


class ScriptedImages:
    """Takes in any stream to its end."""

    def import_rootfs(self, stream: BinaryIO, reference: str | None, **_: object) -> None:
        while stream.read(1 << 16):
            pass


class ScriptedEngine:
    """Knows one container, `c`, and does what the test has put into its attributes."""

    def __init__(self) -> None:
        self.attachment = ScriptedAttachment()
        self.outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.run_result = SimpleNamespace(
            id="a" * 64, exit_code=3, stdout=b"out\0", stderr=b"err",
            timed_out=False, oom=False, truncated=False,
        )  # fmt: skip
        self.run_started = asyncio.Event()
        self.run_cancelled = asyncio.Event()
        self.run_blocks = False
        self.run_may_end = asyncio.Event()
        self.lease_released = asyncio.Event()
        self.created: dict[str, Any] = {}
        self.failure: Exception | None = None
        self.images = ScriptedImages()

    def find(self, ref: str) -> SimpleNamespace:
        if self.failure is not None:
            raise self.failure
        if ref.removeprefix("/") != "c":
            raise NoSuchContainer.named(ref)
        return SimpleNamespace(id="c" * 64)

    def attach(self, container: object, **_: bool) -> ScriptedAttachment:
        return self.attachment

    def wait(self, container: object, condition: str) -> asyncio.Future[int]:
        if condition not in ("not-running", "next-exit", "removed"):
            raise BadRequest(f'invalid condition: "{condition}"')
        return self.outcome

    async def create(
        self, body: dict[str, Any], name: str | None, platform: str, lease: object
    ) -> SimpleNamespace:
        self.created = body
        return SimpleNamespace(id="c" * 64)

    async def run(self, body: dict[str, Any], **_: object) -> SimpleNamespace:
        self.created = body
        self.run_started.set()
        try:
            if self.run_blocks:
                await self.run_may_end.wait()
        except asyncio.CancelledError:
            self.run_cancelled.set()
            raise
        return self.run_result

    def lease(self, label: str) -> ScriptedLease:
        return ScriptedLease()

    def find_lease(self, lease_id: str) -> ScriptedLease:
        raise NotFound(f"No such lease: {lease_id}")

    async def release(self, lease: ScriptedLease) -> None:
        self.lease_released.set()


class Wire:
    """A client that speaks bytes; its connections are closed when the test is over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: list[asyncio.StreamWriter] = []

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(self.path), limit=1 << 20)
        self._opened.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self._opened:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def exchange(self, request: bytes) -> bytes:
        """Send, half-close, and read all of the answer."""
        reader, writer = await self.open()
        writer.write(request)
        writer.write_eof()
        return await reader.read()

    async def get(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        return parsed(await self.exchange(f"{method} {path} HTTP/1.0\r\n\r\n".encode()))

    async def post(
        self, path: str, body: bytes, content_type: str = "application/json", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        lines = [f"POST {path} HTTP/1.0", f"Content-Length: {len(body)}"]
        if content_type:
            lines.append(f"Content-Type: {content_type}")
        lines += (f"{name.replace('_', '-')}: {value}" for name, value in headers.items())
        return parsed(await self.exchange("\r\n".join(lines).encode() + b"\r\n\r\n" + body))


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


@pytest.fixture
async def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def stop() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def wire(engine: ScriptedEngine, stop: asyncio.Event, tmp_path: Path) -> AsyncIterator[Wire]:
    path = tmp_path / "s"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    served = asyncio.create_task(serve(engine, sock, stop, shutdown_timeout=0.5))  # type: ignore[arg-type]
    client = Wire(path)
    yield client
    await client.close()
    stop.set()
    await served
