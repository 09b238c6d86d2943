"""Input that no client of good will sends: a 4xx each time, and the service lives."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest

from sandboxd.api import call as call_module
from sandboxd.api import peer

from .conftest import ScriptedEngine, Wire, parsed


@pytest.fixture(autouse=True)
async def _the_service_lives(wire: Wire) -> object:
    yield
    assert (await wire.get("/_ping"))[0] == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "invalid JSON: got EOF while reading request body"),
        (b"  \n", "invalid JSON: got EOF while reading request body"),
        (b"{", "invalid JSON"),
        (b"{}{}", "unexpected content after JSON"),
        (b"{} trailing", "unexpected content after JSON"),
        (b"null", "invalid JSON"),
        (b"[]", "invalid JSON"),
        (b"[" * 200_000, "invalid JSON: exceeded max depth"),
        (b'{"a":' * 100_000, "invalid JSON: exceeded max depth"),
        (b'{"Image":NaN}', "invalid JSON"),
        (b'{"StopTimeout":1e999}', "invalid JSON"),
        (b'{"StopTimeout":' + b"9" * 10_000 + b"}", "invalid JSON"),
        (b'{"Image":"\xff"}', "invalid JSON: it is not UTF-8"),
        (b'{"Image":"a\\u0000b"}', "NUL"),
        (b"\xef\xbb\xbf{}", "invalid JSON"),
        (b"\xff\xfe{\x00}\x00", "invalid JSON: it is not UTF-8"),
    ],
)
async def test_bad_json(wire: Wire, body: bytes, message: str) -> None:
    status, _, answer = await wire.post("/containers/create", body)
    assert status == 400
    assert message in json.loads(answer)["message"]


async def test_an_unpaired_surrogate_is_replaced(wire: Wire, engine: ScriptedEngine) -> None:
    status, _, _ = await wire.post("/containers/create", b'{"Image":"a\\ud800b"}')
    assert status == 201
    assert engine.created["Image"].encode() == b"a?b"


async def test_another_content_type_is_refused_in_dockerds_words(wire: Wire) -> None:
    status, _, answer = await wire.post("/containers/create", b"{}", "text/plain")
    assert status == 400
    assert json.loads(answer)["message"] == (
        "unsupported Content-Type header (text/plain): must be 'application/json'"
    )


async def test_a_charset_is_no_other_content_type(wire: Wire) -> None:
    status, _, _ = await wire.post("/containers/create", b"{}", "application/json; charset=utf-8")
    assert status == 201


async def test_a_body_beyond_the_limit_is_refused(wire: Wire) -> None:
    body = b'{"Image":"' + b"x" * call_module.DOCKER_BODY_LIMIT + b'"}'
    status, _, answer = await wire.post("/containers/create", body)
    assert status == 400
    assert "too large" in json.loads(answer)["message"]


async def test_a_body_that_never_ends_is_given_up(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_module, "BODY_SECONDS", 0.05)
    reader, writer = await wire.open()
    writer.write(
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")


@pytest.mark.parametrize("path", ["/containers/create", "/images/create?fromSrc=-"])
async def test_a_malformed_body_is_answered_at_once(
    wire: Wire, engine: ScriptedEngine, path: str
) -> None:
    reader, writer = await wire.open()
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n".encode()
        + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    await reader.readuntil(b"100 Continue\r\n\r\n")
    writer.write(b"5\r\nhello\r\n")
    await writer.drain()
    writer.write(b"no chunk" + bytes(100_000))
    assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 400 Bad Request\r\n"
    assert (await reader.read()).count(b"HTTP/1.1") == 0


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"NONSENSE\r\n\r\n",
        b"GET /_ping HTTP/9.9\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: x\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: d\r\nBad\0Name: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
    ids=range(8),
)
async def test_what_is_not_http_is_a_400_in_json(wire: Wire, request_: bytes) -> None:
    status, headers, body = parsed(await wire.exchange(request_))
    assert status == 400
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/containers/%00/json",
        "/containers/%ff/json",
        "/containers/c/wait?condition=%ff",
        "/containers/c/wait?condition=%00",
        "/containers/json?filters=" + "%5B" * 20_000,
        "/containers/json?limit=many",
        "/containers/c/logs",
        "/containers/c/resize?h=-1&w=99999999999",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_odd_paths_and_queries(wire: Wire, path: str, method: str) -> None:
    status, _, body = await wire.get(path, method)
    assert status in (400, 404)
    assert json.loads(body)["message"]


@pytest.mark.parametrize("path", ["/containers/../../etc/passwd/json", "/../_ping", "/./_ping"])
async def test_dots_lead_nowhere(wire: Wire, path: str) -> None:
    assert (await wire.get(path))[0] == 404


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "DELETE"])
async def test_methods_that_no_route_has(wire: Wire, method: str) -> None:
    assert (await wire.get("/version", method))[0] in (400, 404)


async def test_clients_that_leave_in_the_middle_of_a_request(wire: Wire) -> None:
    request = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\n\r\n{}"
    for cut in range(1, len(request), 7):
        _, writer = await wire.open()
        writer.write(request[:cut])
        writer.close()
        await writer.wait_closed()


async def test_closing_the_connection_ends_a_run(wire: Wire, engine: ScriptedEngine) -> None:
    engine.run_blocks = True
    _, writer = await wire.open()
    writer.write(
        b"POST /sandbox/run HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
        b'Content-Length: 13\r\n\r\n{"Image":"x"}'
    )
    await engine.run_started.wait()
    writer.close()
    await asyncio.wait_for(engine.run_cancelled.wait(), 5)


async def test_connections_leave_no_descriptor_behind(wire: Wire) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        await wire.get("/_ping")
    await wire.close()
    await wire.get("/_ping")
    await wire.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


async def test_another_user_is_refused_with_a_reason(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(peer, "peer_uid", lambda sock: os.geteuid() + 1)
        status, headers, body = await wire.get("/_ping")
    assert status == 403
    assert int(headers["Content-Length"]) == len(body)
    assert "only the user" in json.loads(body)["message"]


async def test_peer_uid_is_the_connecting_processs(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "peer"))
        listener.listen()
        client.connect(str(tmp_path / "peer"))
        accepted, _ = listener.accept()
        with accepted:
            assert peer.peer_uid(accepted) == os.geteuid()
            assert peer.is_own_user(accepted)
