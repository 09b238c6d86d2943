"""Rulesets that the kernel really enforces, each in a forked child."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxd.linux import landlock

pytestmark = pytest.mark.needs_landlock


def _in_child(body: Callable[[], None]) -> None:
    """Run it in a child, which a ruleset may confine for good; its assertions fail this test."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            body()
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        trouble = pipe.read()
    os.waitpid(child, 0)
    assert not trouble, trouble


def test_writes_are_confined_to_what_is_named(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("as it was")

    def body() -> None:
        landlock.confine([str(inside), "/dev/null"])
        (inside / "new").write_text("x")
        (inside / "new").rename(inside / "renamed")
        Path("/dev/null").write_text("x")
        assert (outside / "kept").read_text() == "as it was"
        for forbidden in (
            lambda: (outside / "new").write_text("x"),
            lambda: (outside / "directory").mkdir(),
            lambda: (outside / "link").symlink_to("kept"),
            lambda: (outside / "kept").unlink(),
            lambda: (inside / "renamed").rename(outside / "moved"),
            lambda: (outside / "kept").open("a"),
        ):
            with pytest.raises(OSError, match=r"Permission denied|Invalid cross-device"):
                forbidden()

    _in_child(body)
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (inside / "renamed").exists()


def test_programs_that_are_executed_are_confined_too(tmp_path: Path) -> None:
    def body() -> None:
        landlock.confine(["/dev/null"])
        code = f"open({str(tmp_path / 'new')!r}, 'w')"
        done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
        assert "PermissionError" in done.stderr

    _in_child(body)
    assert not list(tmp_path.iterdir())


def test_an_open_descriptor_keeps_its_rights(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:

        def body() -> None:
            landlock.confine(["/dev/null"])
            log.write("said")
            log.flush()

        _in_child(body)
    assert (tmp_path / "log").read_text() == "said"


@pytest.mark.skipif(
    "landlock.abi() < landlock.ABI_NET", reason="Landlock knows TCP since Linux 6.7"
)
def test_tcp_connections_are_confined_to_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as b:

        def body() -> None:
            landlock.confine(["/dev/null"], ports=[one.getsockname()[1]])
            socket.create_connection(one.getsockname()).close()
            with pytest.raises(PermissionError):
                socket.create_connection(b.getsockname())

        _in_child(body)

        def free() -> None:
            landlock.confine(["/dev/null"], tcp=False)
            socket.create_connection(b.getsockname()).close()

        _in_child(free)


@pytest.mark.skipif(
    "landlock.abi() < landlock.ABI_SCOPE", reason="Landlock scopes signals since Linux 6.12"
)
def test_signals_and_abstract_sockets_stay_within() -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    name = f"\0landlock-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()

        def body() -> None:
            landlock.confine(["/dev/null"])
            with pytest.raises(PermissionError):
                os.kill(sleeper.pid, signal.SIGTERM)
            with pytest.raises(PermissionError), socket.socket(socket.AF_UNIX) as client:
                client.connect(name)

        _in_child(body)
    sleeper.kill()
    assert sleeper.wait() == -signal.SIGKILL


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_older_interfaces_are_asked_for_no_more_than_they_know(
    version: int, tmp_path: Path
) -> None:
    if version > landlock.abi():
        pytest.skip(f"Landlock {landlock.abi()}")

    def body() -> None:
        limits = landlock.confine([str(tmp_path)], version=version)
        assert limits == (version, version >= landlock.ABI_NET, version >= landlock.ABI_SCOPE)
        (tmp_path / "new").write_text("x")
        with pytest.raises(PermissionError):
            Path("/tmp/never-made-by-landlock").write_text("x")

    _in_child(body)


def test_a_missing_path_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        landlock.confine(["/nowhere"])
