"""The filter of build steps under a single-id map: chown pretends, nothing else does."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxd.launcher import profile
from sandboxd.launcher.seccomp_policy import OWNERSHIP, build_filter
from sandboxd.linux import namespaces, process
from sandboxd.linux.syscall_numbers import NUMBERS

_DEFAULT = frozenset(profile.DEFAULT_CAPABILITIES)


def _in_child(work: Callable[[], Any], *, fake: bool) -> Any:
    """The result of `work` in a child under the filter."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            process.set_no_new_privs()
            profile.prepared_filter(_DEFAULT, fake).install()
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def _outcome(call: Callable[[], None]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("x")
    (tmp_path / "link").symlink_to("file")
    return path


def _chowns(file: Path) -> list[int]:
    fd = os.open(file, os.O_RDONLY)
    try:
        return [
            _outcome(lambda: os.chown(file, 12345, 12345)),
            _outcome(lambda: os.lchown(file.with_name("link"), 12345, 12345)),
            _outcome(lambda: os.fchown(fd, 12345, 12345)),
            _outcome(lambda: os.chown("/no/such/file", 1, 1)),
        ]
    finally:
        os.close(fd)


def test_every_form_of_chown_pretends(file: Path) -> None:
    before = os.stat(file)
    assert _in_child(lambda: _chowns(file), fake=True) == [0, 0, 0, 0]
    after = os.stat(file)
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


def test_the_calls_themselves_return_zero() -> None:
    numbers = NUMBERS[os.uname().machine]

    def raw() -> list[int]:
        libc = ctypes.CDLL(None, use_errno=True)
        return [
            libc.syscall(ctypes.c_long(numbers[name]), 0, 0, 0, 0, 0)
            for name in OWNERSHIP
            if name in numbers
        ]

    assert set(_in_child(raw, fake=True)) == {0}


def test_without_it_chown_is_what_it_was(file: Path) -> None:
    found = _in_child(lambda: _chowns(file), fake=False)
    assert found[3] == errno.ENOENT
    if os.geteuid() != 0:
        assert found[:3] == [errno.EPERM] * 3


def test_nothing_else_changes(file: Path) -> None:
    def others() -> list[int]:
        return [
            _outcome(lambda: os.chmod(file, 0o600)),
            _outcome(lambda: os.unlink("/no/such/file")),
            _outcome(lambda: namespaces.unshare(namespaces.CLONE_NEWUSER)),
        ]

    assert _in_child(others, fake=True) == [0, errno.ENOENT, errno.EPERM]
    plain, fake = build_filter(_DEFAULT), build_filter(_DEFAULT, fake_ownership=True)
    assert plain != fake
    assert build_filter(_DEFAULT) == plain
