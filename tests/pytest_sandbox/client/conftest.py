"""A peer on a real unix socket that answers word for word what a test gives it."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar

import pytest

from pytest_sandbox.client.transport import Transport


@dataclass
class Script:
    """What to say on each connection, in the order in which they come.

    Each element of a connection's list is sent after one whole request has been read; then the
    peer closes its side, unless the last element is `HOLD`. After `UNASKED` the rest is sent
    without any request.
    """

    path: Path
    connections: list[list[bytes]] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    accepted: int = 0
    transports: list[Transport] = field(default_factory=list)

    HOLD: ClassVar = b"hold"
    UNASKED: ClassVar = b"unasked"

    def transport(self) -> Transport:
        self.transports.append(Transport(self._connect, str(self.path)))
        return self.transports[-1]

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))
        return sock

    def serve(self, listener: socket.socket) -> None:
        """Accept until the listener is shut down, each connection in a thread of its own."""
        threads = []
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                break
            answers = self.connections[self.accepted]
            self.accepted += 1
            threads.append(threading.Thread(target=self._converse, args=(sock, answers)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _converse(self, sock: socket.socket, answers: list[bytes]) -> None:
        """Until the answers are given, or the client has hung up."""
        with suppress(BrokenPipeError), sock, sock.makefile("rb") as file:
            if answers[:1] == [self.UNASKED]:
                sock.sendall(b"".join(answers[1:]))
                return
            for answer in answers:
                if answer == self.HOLD:
                    file.read()
                    return
                if not (head := _head(file)):
                    return
                self.requests.append(head + _body(file, head))
                sock.sendall(answer)


def _head(file: BinaryIO) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (line := file.readline()):
            return b""
        head += line
    return head


def _body(file: BinaryIO, head: bytes) -> bytes:
    if b"transfer-encoding: chunked" in head.lower():
        lines = b""
        while not lines.endswith(b"0\r\n\r\n"):
            lines += file.readline()
        return lines
    for line in head.lower().splitlines():
        if line.startswith(b"content-length:"):
            return file.read(int(line.split(b":")[1]))
    return b""


@pytest.fixture
def script() -> Iterator[Script]:
    """A scripted peer; set `script.connections` before the first call."""
    with tempfile.TemporaryDirectory(prefix="sbx-") as directory:
        path = Path(directory) / "s"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        script = Script(path)
        thread = threading.Thread(target=script.serve, args=(listener,))
        thread.start()
        yield script
        for transport in script.transports:
            transport.close()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
