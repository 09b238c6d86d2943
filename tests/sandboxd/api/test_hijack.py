"""Connections taken over for a raw stream: attach, exec, wait and leases."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from .conftest import ScriptedEngine, Wire

ATTACH = (
    b"POST /v1.45/containers/c/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: d\r\n"
)
UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


async def test_an_upgrade_is_answered_with_101_upgraded(wire: Wire) -> None:
    reader, writer = await wire.open()
    writer.write(ATTACH + UPGRADE + b"Content-Length: 0\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    assert head[0] == "HTTP/1.1 101 UPGRADED"
    assert "Content-Type: application/vnd.docker.multiplexed-stream" in head
    assert "Connection: Upgrade" in head
    assert "Upgrade: tcp" in head


async def test_before_api_1_42_every_stream_is_announced_as_raw(wire: Wire) -> None:
    reader, writer = await wire.open()
    writer.write(ATTACH.replace(b"v1.45", b"v1.41") + UPGRADE + b"\r\n")
    assert b"vnd.docker.raw-stream" in await reader.readuntil(b"\r\n\r\n")


async def test_without_upgrade_it_is_200_and_raw_bytes_until_close(
    wire: Wire, engine: ScriptedEngine
) -> None:
    reader, writer = await wire.open()
    engine.attachment.say(b"hi")
    engine.attachment.end()
    writer.write(ATTACH + b"\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"chunked" not in head
    assert await reader.read() == b"\x01\0\0\0\0\0\0\x02hi"


async def test_output_goes_on_after_the_client_has_closed_its_sending_side(
    wire: Wire, engine: ScriptedEngine
) -> None:
    reader, writer = await wire.open()
    writer.write(ATTACH + UPGRADE + b"\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"typed")
    writer.write_eof()
    await engine.attachment.stdin_closed.wait()
    assert engine.attachment.written == b"typed"
    engine.attachment.say(b"later")
    engine.attachment.end()
    assert await reader.read() == b"\x01\0\0\0\0\0\0\x05later"


async def test_nothing_is_sent_until_the_head_has_been_read(
    wire: Wire, engine: ScriptedEngine
) -> None:
    # docker-py reads the head through a buffer and drops what came with it.
    engine.attachment.say(b"first")
    engine.attachment.end()
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, str(wire.path))
        await loop.sock_sendall(sock, ATTACH + UPGRADE + b"\r\n")
        first_read = await loop.sock_recv(sock, 8192)
        assert first_read.endswith(b"\r\n\r\n")
        assert await loop.sock_recv(sock, 8192) == b"\x01\0\0\0\0\0\0\x05first"


async def test_a_client_that_half_closes_with_its_request_still_gets_the_output(
    wire: Wire, engine: ScriptedEngine
) -> None:
    reader, writer = await wire.open()
    writer.write(ATTACH + UPGRADE + b"\r\n")
    writer.write_eof()
    await reader.readuntil(b"\r\n\r\n")
    await engine.attachment.stdin_closed.wait()
    engine.attachment.say(b"later")
    engine.attachment.end()
    assert await reader.read() == b"\x01\0\0\0\0\0\0\x05later"


async def test_a_client_that_leaves_after_its_half_close_is_noticed(
    wire: Wire, engine: ScriptedEngine
) -> None:
    # The CLI without standard input half-closes at once; Ctrl-C on a quiet container comes later.
    reader, writer = await wire.open()
    writer.write(ATTACH + UPGRADE + b"\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.write_eof()
    await engine.attachment.stdin_closed.wait()
    assert not engine.attachment.detached.is_set()
    writer.close()
    await asyncio.wait_for(engine.attachment.detached.wait(), 5)


async def test_unread_input_does_not_reset_the_clients_connection(
    wire: Wire, engine: ScriptedEngine
) -> None:
    # A unix socket closed with unread bytes gives its peer ECONNRESET in place of the end.
    reader, writer = await wire.open()
    writer.write(ATTACH + UPGRADE + b"\r\n")
    await reader.readuntil(b"\r\n\r\n")
    engine.attachment.say(b"x" * 100_000)
    engine.attachment.end()
    writer.write(b"y" * 50_000)
    assert len(await reader.read()) == 100_008


async def test_a_terminals_stream_is_raw_and_detach_keys_end_it(
    wire: Wire, engine: ScriptedEngine
) -> None:
    engine.attachment.tty = True
    reader, writer = await wire.open()
    writer.write(ATTACH + UPGRADE + b"\r\n")
    assert b"vnd.docker.raw-stream" in await reader.readuntil(b"\r\n\r\n")
    engine.attachment.say(b"$ ")
    assert await reader.readexactly(2) == b"$ "
    writer.write(b"ls\x10")
    writer.write(b"\x11")
    assert await reader.read() == b""
    assert engine.attachment.written == b"ls"
    assert not engine.attachment.stdin_closed.is_set()
    await engine.attachment.detached.wait()


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_output_of_any_size_arrives_whole(
    wire: Wire, engine: ScriptedEngine, size: int
) -> None:
    engine.attachment.tty = True
    engine.attachment.say(b"z" * size)
    engine.attachment.end()
    reader, writer = await wire.open()
    writer.write(ATTACH + UPGRADE + b"\r\n")
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.read() == b"z" * size


async def test_a_refused_upgrade_is_json_and_closes(wire: Wire) -> None:
    reader, writer = await wire.open()
    writer.write(ATTACH.replace(b"/c/", b"/nope/") + UPGRADE + b"\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found")
    assert json.loads(body)["message"] == "No such container: nope"


async def test_waits_head_comes_before_the_exit(wire: Wire, engine: ScriptedEngine) -> None:
    reader, writer = await wire.open()
    writer.write(b"POST /containers/c/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert not engine.outcome.done()
    engine.outcome.set_result(7)
    assert b'{"StatusCode":7}' in await reader.readuntil(b"0\r\n\r\n")


async def test_an_invalid_condition_is_refused_before_the_200(wire: Wire) -> None:
    status, _, body = await wire.get("/containers/c/wait?condition=zz", "POST")
    assert (status, json.loads(body)["message"]) == (400, 'invalid condition: "zz"')


async def test_a_client_that_leaves_its_wait_ends_the_handler(
    wire: Wire, engine: ScriptedEngine
) -> None:
    reader, writer = await wire.open()
    writer.write(b"POST /containers/c/wait HTTP/1.1\r\nHost: d\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(engine.outcome, 5)


@pytest.mark.parametrize("half", [True, False])
async def test_a_lease_ends_with_its_connection(
    wire: Wire, engine: ScriptedEngine, half: bool
) -> None:
    reader, writer = await wire.open()
    writer.write(b"POST /sandbox/leases HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n")
    await reader.readuntil(b"\r\n\r\n")
    assert json.loads(await reader.readline()) == {"Id": "f" * 32}
    assert not engine.lease_released.is_set()
    if half:
        writer.write_eof()
    else:
        writer.close()
    await asyncio.wait_for(engine.lease_released.wait(), 5)


async def test_an_unknown_lease_is_404(wire: Wire) -> None:
    status, _, body = await wire.post("/sandbox/run", b'{"Image":"x"}', X_Sandbox_Lease="nope")
    assert (status, json.loads(body)["message"]) == (404, "No such lease: nope")
