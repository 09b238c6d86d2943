"""The frames in which a stream without a terminal carries stdout and stderr side by side."""

from __future__ import annotations

import struct

STDIN, STDOUT, STDERR, SYSTEM_ERROR = range(4)

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

_HEADER = struct.Struct(">BxxxI")


def frame(stream: int, payload: bytes) -> bytes:
    """Docker's frame: stream number, three zeros, length (big endian, 4 bytes), payload."""
    return _HEADER.pack(stream, len(payload)) + payload


def stream_type(version: tuple[int, int], *, tty: bool) -> str:
    """The Content-Type of a stream. Before API 1.42 both kinds were announced as raw."""
    return RAW_STREAM if tty or version < (1, 42) else MULTIPLEXED_STREAM
