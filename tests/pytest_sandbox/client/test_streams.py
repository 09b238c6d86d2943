from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from pytest_sandbox.client.connection import Connection, Head
from pytest_sandbox.client.streams import Attachment, split_frames

MULTIPLEXED = Head(101, {"content-type": "application/vnd.docker.multiplexed-stream"})
RAW = Head(101, {"content-type": "application/vnd.docker.raw-stream"})


def frame(stream: int, payload: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def joined(pieces: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Neighbours of one stream put together."""
    out: list[tuple[int, bytes]] = []
    for stream, data in pieces:
        if out and out[-1][0] == stream:
            stream, data = stream, out.pop()[1] + data
        out.append((stream, data))
    return out


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 1000])
def test_frames_in_pieces_of_any_size(size: int) -> None:
    wire = frame(1, b"out") + frame(2, b"err") + frame(1, b"") + frame(2, b"more")
    pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
    assert joined(split_frames(pieces, True)) == [(1, b"out"), (2, b"errmore")]


def test_a_frame_that_is_cut_off_gives_what_there_is() -> None:
    assert joined(split_frames([frame(2, b"error")[:-2]], True)) == [(2, b"err")]


def test_a_terminal_has_no_frames() -> None:
    assert list(split_frames([b"\1\0", b"x"], False)) == [(1, b"\1\0"), (1, b"x")]


class Program:
    """The far end of an attachment, in a thread."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.received = b""

    def echo(self) -> None:
        """Send back what comes, in frames, at once: a program that stores nothing."""
        while data := self.theirs.recv(4096):
            self.received += data
            self.theirs.sendall(frame(1, data))
        self.theirs.sendall(frame(2, b"bye"))
        self.theirs.close()

    def deaf(self) -> None:
        """Close the input without reading it, then write."""
        self.theirs.shutdown(socket.SHUT_RD)
        self.theirs.sendall(frame(1, b"did not listen"))
        self.theirs.close()


@pytest.fixture
def program() -> Iterator[Program]:
    program = Program()
    yield program
    program.ours.close()
    program.theirs.close()


def test_more_input_than_any_buffer_holds(program: Program) -> None:
    sent = os.urandom(3_000_000)
    thread = threading.Thread(target=program.echo)
    thread.start()
    with Attachment(MULTIPLEXED, Connection(program.ours)) as attachment:
        stdout, stderr, timed_out = attachment.communicate(sent, 60)
    thread.join()
    assert (stdout == sent, stderr, timed_out) == (True, b"bye", False)


def test_a_program_that_does_not_read_its_input(program: Program) -> None:
    thread = threading.Thread(target=program.deaf)
    thread.start()
    with Attachment(MULTIPLEXED, Connection(program.ours)) as attachment:
        stdout, _, _ = attachment.communicate(b"x" * 3_000_000, 60)
    thread.join()
    assert stdout == b"did not listen"


@pytest.mark.parametrize("stdin", [b"", b"x" * 3_000_000])
def test_a_program_that_takes_too_long(program: Program, stdin: bytes) -> None:
    program.theirs.sendall(frame(1, b"so far"))
    with Attachment(MULTIPLEXED, Connection(program.ours)) as attachment:
        assert attachment.communicate(stdin, 0.05) == (b"so far", b"", True)


def test_input_from_a_descriptor_until_its_end(program: Program) -> None:
    thread = threading.Thread(target=program.echo)
    thread.start()
    source, feed = os.pipe()
    os.write(feed, b"typed")
    os.close(feed)
    with Attachment(MULTIPLEXED, Connection(program.ours)) as attachment:
        assert joined(attachment.exchange(source=source)) == [(1, b"typed"), (2, b"bye")]
    os.close(source)
    thread.join()


def test_the_program_ends_while_the_descriptor_has_not(program: Program) -> None:
    source, feed = os.pipe()
    program.theirs.sendall(b"raw")
    program.theirs.close()
    with Attachment(RAW, Connection(program.ours)) as attachment:
        assert list(attachment.exchange(source=source)) == [(1, b"raw")]
    os.close(source)
    os.close(feed)


def test_output_that_came_with_the_head_is_not_forgotten(program: Program) -> None:
    head = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    program.theirs.sendall(head + b"quick")
    connection = Connection(program.ours)
    source, feed = os.pipe()
    with Attachment(connection.read_head(), connection) as attachment:
        pieces = attachment.exchange(source=source)
        assert next(pieces) == (1, b"quick")
    os.close(source)
    os.close(feed)
