"""The readiness check's side of PostgreSQL's protocol, against a server that answers by script."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox_fixtures.postgresql import protocol
from sandbox_fixtures.postgresql.protocol import Refused, await_session, open_session

READY = b"R\0\0\0\x08\0\0\0\0" + b"S\0\0\0\x11TimeZone\0UTC\0" + b"Z\0\0\0\x05I"
STARTING = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


@contextmanager
def server(path: Path, answers: Sequence[Sequence[bytes]]) -> Iterator[list[bytes]]:
    """Serves one connection after another, each with its pieces; what clients sent first."""
    received: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for pieces in answers:
                connection, _ = listener.accept()
                with connection:
                    received.append(connection.recv(1000))
                    for piece in pieces:
                        connection.sendall(piece)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1000):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield received
        thread.join()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("socket")


def test_a_session_is_opened_with_user_and_database(path: Path) -> None:
    with server(path, [[READY]]) as received:
        open_session(str(path), "alice", "shop", 5)
    length, version = struct.unpack_from("!ii", received[0])
    assert length == len(received[0])
    assert version == 196608
    assert received[0][8:].startswith(b"user\0alice\0database\0shop\0")


def test_messages_may_come_byte_by_byte(path: Path) -> None:
    with server(path, [[READY[i : i + 1] for i in range(len(READY))]]):
        open_session(str(path), "u", "d", 5)


def test_a_starting_server_is_asked_again(path: Path) -> None:
    starting = [message(b"E", STARTING)]
    with server(path, [starting, starting, [READY]]) as received:
        await_session(str(path), "u", "d", 5)
    assert len(received) == 3


def test_a_server_that_keeps_starting_is_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "RETRY_SECONDS", 10.0)  # what the one answer may take
    with server(path, [[message(b"E", STARTING)]]), pytest.raises(Refused, match="starting up"):
        await_session(str(path), "u", "d", 0)


def test_a_refusal_is_told_at_once(path: Path) -> None:
    refusal = message(b"E", b'SFATAL\0C3D000\0Mdatabase "d" does not exist\0\0')
    with server(path, [[refusal]]), pytest.raises(Refused, match="does not exist") as caught:
        await_session(str(path), "u", "d", 5)
    assert caught.value.sqlstate == "3D000"


def test_a_password_request_is_a_refusal(path: Path) -> None:
    with server(path, [[b"R\0\0\0\x08\0\0\0\x03"]]), pytest.raises(Refused, match="password"):
        open_session(str(path), "u", "d", 5)


@pytest.mark.parametrize("answer", [b"", b"R\0\0", b"R\0\0\0\x08\0\0\0\0", b"E\0\0\0"])
def test_a_server_that_hangs_up(path: Path, answer: bytes) -> None:
    with server(path, [[answer]]), pytest.raises(ConnectionResetError):
        open_session(str(path), "u", "d", 5)


@pytest.mark.parametrize("length", [-1, 0, 3])
def test_an_impossible_length_is_refused(path: Path, length: int) -> None:
    with server(path, [[b"S" + struct.pack("!i", length)]]), pytest.raises(Refused, match="length"):
        open_session(str(path), "u", "d", 5)


def test_nobody_listens(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_session(str(path), "u", "d", 5)


def test_a_silent_server(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(TimeoutError):
            open_session(str(path), "u", "d", 0.05)
