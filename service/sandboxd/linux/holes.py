"""Holes of sparse files: found by lseek(2), made by fallocate(2)."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import Final

from sandboxd.linux.syscalls import checked, libc

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02


def holes(fd: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of each hole of an open file, in bytes, in order. Moves its offset."""
    size = os.fstat(fd).st_size
    at = 0
    while at < size:
        begin = os.lseek(fd, at, os.SEEK_HOLE)
        if begin >= size:
            return
        try:
            at = os.lseek(fd, begin, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            at = size
        yield begin, at - begin


def punch(fd: int, offset: int, length: int) -> None:
    """Make a range a hole that reads as zeros. Raises OSError, EOPNOTSUPP where it cannot be."""
    call = libc.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    checked("fallocate", call(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length), "")
