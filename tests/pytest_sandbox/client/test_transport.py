from __future__ import annotations

import json
import os
import select
import socket
import threading
from itertools import repeat

import pytest

from pytest_sandbox.client.transport import Request
from pytest_sandbox.errors import (
    BadRequest,
    Conflict,
    NoSuchImage,
    SandboxError,
    ServiceUnavailable,
    StartFailed,
    TimedOut,
)

from .conftest import Script

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
GET = Request("GET", "/x")


def answer(body: bytes, status: str = "200 OK", *fields: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status}".encode(), b"Content-Length: %d" % len(body), *fields, b""]
    return b"\r\n".join(lines) + b"\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


def test_a_connection_serves_many_calls(script: Script) -> None:
    script.connections = [[OK, OK, OK, Script.HOLD]]
    transport = script.transport()
    for _ in range(3):
        assert transport.request(GET).json() == {}
    assert script.accepted == 1
    transport.close()


def test_a_request_says_no_more_than_it_must(script: Script) -> None:
    script.connections = [[OK]]
    script.transport().request(Request("POST", "/a?b=c", b"{}", {"Content-Type": "x"}))
    expected = (
        "POST /a?b=c HTTP/1.1\r\nHost: sandboxd\r\nContent-Type: x\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert script.requests[0].decode() == expected


def test_a_connection_that_the_service_has_closed_is_replaced(script: Script) -> None:
    script.connections = [[OK], [OK]]
    transport = script.transport()
    transport.request(GET)
    while transport._idle[0].idle():  # until the peer's close has arrived
        os.sched_yield()
    assert transport.request(GET).json() == {}
    assert script.accepted == 2


def test_connection_close_is_heeded(script: Script) -> None:
    script.connections = [[answer(b"", "200 OK", b"Connection: close")], [OK]]
    transport = script.transport()
    transport.request(GET)
    transport.request(GET)
    assert script.accepted == 2


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 3_000_001])
def test_bodies_of_any_size(script: Script, size: int) -> None:
    body = os.urandom(size)
    script.connections = [[answer(body), chunked(body[:7], body[7:]) if size > 7 else OK]]
    transport = script.transport()
    assert transport.request(GET).body == body
    if size > 7:
        assert transport.request(GET).body == body


def test_a_body_without_length_ends_with_the_connection(script: Script) -> None:
    script.connections = [[b"HTTP/1.1 200 OK\r\n\r\nall of it"]]
    assert script.transport().request(GET).body == b"all of it"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_that_have_no_body(script: Script, status: str) -> None:
    script.connections = [[f"HTTP/1.1 {status}\r\n\r\n".encode(), OK]]
    transport = script.transport()
    assert transport.request(GET).json() is None
    assert transport.request(GET).json() == {}
    assert script.accepted == 1


def test_trailers_and_chunk_extensions_are_read_over(script: Script) -> None:
    body = b"3;x=y\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"
    script.connections = [[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body, OK]]
    transport = script.transport()
    assert transport.request(GET).body == b"abc"
    assert transport.request(GET).body == b"{}"


@pytest.mark.parametrize(
    "bad",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"",
    ],
    ids=["not http", "status", "cut", "length", "chunk size", "cut chunk", "endless head", "eof"],
)
def test_a_peer_that_breaks_off_or_speaks_something_else(script: Script, bad: bytes) -> None:
    script.connections = [[bad]]
    with pytest.raises(ServiceUnavailable, match="went away during GET /x") as caught:
        script.transport().request(Request("GET", "/x?secret=1"))
    assert str(script.path) in caught.value.what
    assert "secret" not in str(caught.value)


def test_an_answer_that_takes_too_long(script: Script) -> None:
    script.connections = [[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Script.HOLD], [OK]]
    transport = script.transport()
    with pytest.raises(TimedOut, match=r"no answer after 0\.05 s"):
        transport.request(GET._replace(timeout=0.05))
    assert transport.request(GET).json() == {}


def test_refusals_become_the_errors_that_the_service_raised(script: Script) -> None:
    failed = StartFailed("exec: x", "no such file", "install x", exit_code=127)
    bodies = [
        (NoSuchImage.named("x:latest"), "404 Not Found"),
        (failed, "400 Bad Request"),
        (Conflict("busy"), "409 Conflict"),
    ]
    script.connections = [[answer(json.dumps(e.to_wire()).encode(), s) for e, s in bodies]]
    transport = script.transport()
    for raised, _ in bodies:
        with pytest.raises(type(raised)) as caught:
            transport.request(GET)
        assert caught.value.message == raised.message
        assert caught.value.mend == raised.mend
        assert getattr(caught.value, "exit_code", None) == getattr(raised, "exit_code", None)
    assert script.accepted == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        ("400 Bad Request", b'{"message":"bad"}', BadRequest, "bad"),
        ("409 Conflict", b"plain text\n", Conflict, "plain text"),
        ("418 Teapot", b"", SandboxError, "HTTP status 418"),
        ("500 Oh", b'["list"]', SandboxError, '["list"]'),
        ("404 Not Found", b'{"message":"m","sandbox":{"type":"json","what":"w"}}', None, "w"),
        ("400 Bad", b'{"message":"m","sandbox":{"type":"NewKind","what":"w"}}', BadRequest, "w"),
    ],
)
def test_refusals_of_other_makers(
    script: Script, status: str, body: bytes, kind: type[SandboxError] | None, message: str
) -> None:
    script.connections = [[answer(body, status)]]
    with pytest.raises(kind or SandboxError) as caught:
        script.transport().request(GET)
    assert str(caught.value) == message


def test_a_stream_is_read_as_it_comes_and_left_half_way(script: Script) -> None:
    script.connections = [[chunked(b"one", b"two", b"three"), Script.HOLD], [OK]]
    transport = script.transport()
    with transport.stream(GET) as stream:
        assert stream.head.status == 200
        assert next(iter(stream)) == b"one"
    assert transport.request(GET).json() == {}


def test_an_error_of_the_reader_of_a_stream_stays_its_own(script: Script) -> None:
    script.connections = [[chunked(b"one")]]
    with pytest.raises(BrokenPipeError), script.transport().stream(GET):
        raise BrokenPipeError


def test_an_upload_goes_out_in_chunks(script: Script) -> None:
    script.connections = [[OK]]
    script.transport().request(Request("POST", "/x", iter([b"ab", b"", b"c"])))
    assert script.requests[0].endswith(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")


def test_an_upload_that_is_refused_half_way_tells_why(script: Script) -> None:
    refusal = answer(b'{"message":"invalid reference format"}', "400 Bad Request")
    script.connections = [[Script.UNASKED, refusal]]
    endless = repeat(b"x" * 65536)
    with pytest.raises(BadRequest, match="invalid reference format"):
        script.transport().request(Request("POST", "/images/create", endless))


def test_a_refusal_that_came_before_the_first_byte_was_sent_is_read(script: Script) -> None:
    script.connections = [[Script.UNASKED, answer(b'{"message":"too busy"}', "400 Bad Request")]]
    transport = script.transport()
    connect = transport._connect

    def connect_and_wait_for_the_end() -> socket.socket:
        sock = connect()
        while select.select([sock], [], [], 5)[0]:
            try:
                sock.send(b"")
            except BrokenPipeError:
                break
        return sock

    transport._connect = connect_and_wait_for_the_end
    with pytest.raises(BadRequest, match="too busy"):
        transport.request(GET)
    assert script.accepted == 1


def test_threads_share_a_transport(script: Script) -> None:
    script.connections = [[OK] * 50 + [Script.HOLD]] * 50
    transport = script.transport()
    transport.request(GET)

    def calls() -> None:
        for _ in range(10):
            assert transport.request(GET).json() == {}

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    transport.close()


def test_after_close_nothing_is_sent(script: Script) -> None:
    script.connections = [[OK, OK]]
    transport = script.transport()
    transport.request(GET)
    transport.close()
    with pytest.raises(RuntimeError, match="closed"):
        transport.request(GET)


def test_a_forked_child_drops_what_it_inherited_and_the_parent_keeps_it(script: Script) -> None:
    script.connections = [[OK, OK, Script.HOLD]]
    transport = script.transport()
    transport.request(GET)
    connection = transport._idle[0]
    pid = os.fork()
    if pid == 0:
        os._exit(0 if connection.socket.fileno() == -1 and not connection.idle() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert transport.request(GET).json() == {}
    assert script.accepted == 1
    transport.close()
