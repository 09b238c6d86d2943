"""What every answer has in common: headers, versions, error bodies."""

from __future__ import annotations

import asyncio
import json

import pytest

from sandboxd.errors import SandboxError

from .conftest import ScriptedEngine, Wire, parsed


async def test_ping_carries_what_the_cli_negotiates_by(wire: Wire) -> None:
    status, headers, body = await wire.get("/_ping")
    assert (status, body) == (200, b"OK")
    assert headers["Api-Version"] == "1.45"
    assert headers["Ostype"] == "linux"
    assert headers["Docker-Experimental"] == "false"
    assert headers["Swarm"] == "inactive"
    assert headers["Builder-Version"] == "1"
    assert headers["Server"].startswith("Docker/")
    assert headers["Server"].endswith(" (linux)")


async def test_head_ping_has_the_headers_and_no_body(wire: Wire) -> None:
    status, headers, body = await wire.get("/_ping", "HEAD")
    assert (status, headers["Api-Version"], body) == (200, "1.45", b"")


@pytest.mark.parametrize("path", ["/nowhere", "/v1.45", "/v1.45/nowhere", "/containers/c/nowhere"])
async def test_unknown_routes_are_404_page_not_found(wire: Wire, path: str) -> None:
    status, headers, body = await wire.get(path)
    assert (status, json.loads(body)) == (404, {"message": "page not found"})
    assert headers["Api-Version"] == "1.45"


async def test_a_wrong_method_is_404_as_in_dockerd(wire: Wire) -> None:
    status, _, body = await wire.get("/version", "POST")
    assert (status, json.loads(body)) == (404, {"message": "page not found"})


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.41", "/v1.45"])
async def test_the_version_prefix_is_optional(wire: Wire, prefix: str) -> None:
    status, _, body = await wire.get(f"{prefix}/version")
    assert status == 200
    assert json.loads(body)["ApiVersion"] == "1.45"
    assert json.loads(body)["MinAPIVersion"] == "1.24"


async def test_too_new_and_too_old_versions_are_refused_in_dockerds_words(wire: Wire) -> None:
    _, _, new = await wire.get("/v1.99/version")
    status, _, old = await wire.get("/v1.12/version")
    assert status == 400
    assert json.loads(new)["message"] == (
        "client version 1.99 is too new. Maximum supported API version is 1.45"
    )
    assert json.loads(old)["message"] == (
        "client version 1.12 is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version"
    )


async def test_errors_carry_dockers_message_and_the_parts(
    wire: Wire, engine: ScriptedEngine
) -> None:
    engine.failure = SandboxError("it broke", "rust", "oil it")
    status, _, body = await wire.get("/containers/c/wait", "POST")
    assert status == 500
    assert json.loads(body)["message"] == "it broke: rust (to mend it: oil it)"
    assert json.loads(body)["sandbox"]["mend"] == "oil it"


async def test_a_bug_is_a_500_with_a_message_and_the_service_lives(
    wire: Wire, engine: ScriptedEngine
) -> None:
    engine.failure = ZeroDivisionError("oops")
    status, _, body = await wire.get("/containers/c/wait", "POST")
    assert status == 500
    assert "oops" in json.loads(body)["message"]
    assert (await wire.get("/_ping"))[0] == 200


async def test_a_connection_is_kept_alive(wire: Wire) -> None:
    reader, writer = await wire.open()
    for _ in range(3):
        writer.write(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert await reader.readexactly(2) == b"OK"


async def test_a_client_that_half_closes_after_its_request_is_answered(wire: Wire) -> None:
    # socat and nc -N do so; asyncio alone would close the connection.
    answer = await wire.exchange(b"GET /version HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
    assert parsed(answer)[0] == 200


async def test_an_absolute_request_target_is_served(wire: Wire) -> None:
    assert (await wire.get("http://docker/v1.41/_ping"))[0] == 200


async def test_expect_100_continue_is_answered_before_the_body(wire: Wire) -> None:
    reader, writer = await wire.open()
    writer.write(
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: 13\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b'{"Image":"x"}')
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 201 Created")


async def test_stopping_ends_idle_connections_at_once(wire: Wire, stop: asyncio.Event) -> None:
    reader, writer = await wire.open()
    writer.write(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
    await reader.readuntil(b"\r\n\r\nOK")
    stop.set()
    assert await reader.read() == b""


async def test_stopping_leaves_the_sockets_file(wire: Wire, stop: asyncio.Event) -> None:
    # Under systemd it is not ours, and the next connection is to start the service again.
    reader, writer = await wire.open()
    writer.write(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
    await reader.readuntil(b"\r\n\r\nOK")
    stop.set()
    assert await reader.read() == b""
    assert wire.path.is_socket()


async def test_stopping_ends_streams_and_leases_at_once(
    wire: Wire, engine: ScriptedEngine, stop: asyncio.Event
) -> None:
    upgrade = b" HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    attached, attacher = await wire.open()
    attacher.write(b"POST /containers/c/attach?stream=1&stdout=1" + upgrade)
    await attached.readuntil(b"\r\n\r\n")
    leased, holder = await wire.open()
    holder.write(b"POST /sandbox/leases" + upgrade)
    await leased.readuntil(b"}\n")
    waited, waiter = await wire.open()
    waiter.write(b"POST /containers/c/wait HTTP/1.1\r\nHost: d\r\n\r\n")
    await waited.readuntil(b"\r\n\r\n")
    stop.set()
    assert (await attached.read(), await leased.read(), await waited.read()) == (b"", b"", b"")
    await engine.attachment.detached.wait()
    await engine.lease_released.wait()


async def test_stopping_lets_a_short_request_finish(
    wire: Wire, engine: ScriptedEngine, stop: asyncio.Event
) -> None:
    engine.run_blocks = True
    reader, writer = await wire.open()
    writer.write(
        b"POST /sandbox/run HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
        b'Content-Length: 13\r\n\r\n{"Image":"x"}'
    )
    await engine.run_started.wait()
    stop.set()
    engine.run_may_end.set()
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
