"""The socket's file: its mode, and what is never removed for it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest, Conflict, Forbidden
from sandboxd.listener import listen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "docker.sock"


def test_nobody_else_may_connect(path: Path) -> None:
    with listen(path):
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.lstat(path.parent).st_mode) == 0o700
    assert not path.exists()


def test_a_dead_service_leaves_a_socket_that_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listen(path) as listener:
        assert listener.getsockname() == str(path)


def test_a_live_service_keeps_its_socket(path: Path) -> None:
    with listen(path), pytest.raises(Conflict, match="another service answers"), listen(path):
        pass


def test_a_file_is_never_removed(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")
    with pytest.raises(BadRequest, match="something else than a socket"), listen(path):
        pass
    assert path.read_text() == "precious"


def test_a_directory_that_others_may_enter_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o755)
    with pytest.raises(Forbidden, match="chmod 700"), listen(path):
        pass


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="107 bytes"), listen(tmp_path / ("x" * 108)):
        pass
