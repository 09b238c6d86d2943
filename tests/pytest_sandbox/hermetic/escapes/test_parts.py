"""The parts of the escape report that need no sandbox."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_sandbox.hermetic.escapes import addresses, lookups
from pytest_sandbox.hermetic.escapes.environment import State
from pytest_sandbox.hermetic.escapes.escape import Escape, attach, found_in
from pytest_sandbox.hermetic.escapes.writes import Writes, ignoring

_QUERY = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\7example\3org\0" + struct.pack("!2H", 1, 1)


def test_a_question_is_read_and_refused() -> None:
    name, end = lookups.question(_QUERY)
    assert (name, end) == ("example.org", len(_QUERY))
    answer = lookups.refusal(_QUERY + b"additional", end)
    assert struct.unpack_from("!6H", answer) == (7, 0x8185, 1, 0, 0, 0)
    assert answer[12:] == _QUERY[12:]


@pytest.mark.parametrize("length", range(len(_QUERY)))
def test_a_question_that_is_cut_off_is_none(length: int) -> None:
    with pytest.raises(ValueError, match="question"):
        lookups.question(_QUERY[:length])


def test_a_compressed_name_is_no_question() -> None:
    with pytest.raises(ValueError, match="compressed"):
        lookups.question(_QUERY[:12] + b"\xc0\x0c" + bytes(4))


def _sockaddr(family: int, port: int, packed: bytes) -> bytes:
    head = struct.pack("=H", family) + struct.pack("!H", port)
    return head + (packed if family == socket.AF_INET else bytes(4) + packed + bytes(4))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("0.0.0.0", True),
        ("192.0.2.7", False),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("2001:db8::1", False),
    ],
)
def test_ip_addresses(host: str, loopback: bool) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = addresses.parse(_sockaddr(family, 443, socket.inet_pton(family, host)))
    assert found is not None
    assert found.is_loopback is loopback
    assert str(found) == (f"[{host}]:443" if ":" in host else f"{host}:443")


def test_other_addresses() -> None:
    unix = struct.pack("=H", socket.AF_UNIX)
    named = addresses.parse(unix + b"/run/x.sock\0junk")
    assert str(named) == "/run/x.sock"
    for nothing in (b"", b"\1", unix, unix + b"\0abstract", struct.pack("=HH", socket.AF_INET, 1)):
        assert addresses.parse(nothing) is None
    assert addresses.parse(struct.pack("=H", socket.AF_NETLINK) + bytes(10)) is None


def test_listeners_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert addresses.somebody_listens(os.getpid(), port)
    assert not addresses.somebody_listens(os.getpid(), port)


def test_changes_of_a_process() -> None:
    before = State({"A": "1", "B": "2", "PYTEST_CURRENT_TEST": "x"}, "/", 0o022)
    after = State({"A": "3", "C": "secret"}, "/tmp", 0o077)
    assert before.changes_to(after) == {
        "A": ("changed", ""),
        "B": ("unset", ""),
        "C": ("set", ""),
        "working directory": ("changed", "now /tmp"),
        "umask": ("changed", "now 077"),
    }
    assert before.changes_to(before) == {}
    assert State.now() == State.now()


def test_escapes_travel_as_lists() -> None:
    class Report:
        nodeid = "x"

    report = Report()
    escape = Escape("writes", "created", "/x/", "with 2 entries", "test_a")
    assert found_in(report) == []
    attach(report, [escape])
    assert found_in(report) == [escape]
    assert str(escape) == "created /x/ (with 2 entries, since test_a)"


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    path = tmp_path / "uppers" / "0" / "upper"
    path.mkdir(parents=True)
    return path


Look = Callable[[], list[str]]


@pytest.fixture
def look(upper: Path, tmp_path: Path) -> Look:
    """What was written since the last look, as text; the host's side is tmp_path/host."""
    (tmp_path / "host").mkdir()
    uppers = os.open(upper.parents[1], os.O_PATH)
    layout = {"0": str(tmp_path / "host"), "1": "/never/made"}
    writes = Writes(uppers, layout, (), ignoring(["*.tmp", f"{tmp_path}/host/sub/*"]))
    root = f"{tmp_path}/host"
    return lambda: [
        str(escape).replace(root, "") for escape in writes.fresh() if escape.kind == "writes"
    ]


def test_new_files_are_told_once(upper: Path, look: Look) -> None:
    assert look() == []
    (upper / "a").write_text("x")
    assert look() == ["created /a"]
    assert look() == []
    (upper / "a").write_text("xy")
    assert look() == ["changed /a"]


def test_a_new_tree_is_one_line(upper: Path, look: Look) -> None:
    (upper / "d" / "e").mkdir(parents=True)
    (upper / "d" / "e" / "f").write_text("x")
    (upper / "z").symlink_to("d")
    assert look() == ["created /d/ (with 2 entries)", "created /z"]
    (upper / "d" / "g").write_text("x")
    assert look() == ["created /d/g"]


def test_what_was_there_is_changed_replaced_or_as_it_was(
    upper: Path, look: Look, tmp_path: Path
) -> None:
    host = tmp_path / "host"
    for name in ("same", "longer", "kind"):
        (host / name).write_text("x")
        (upper / name).write_text("x")
        stamp = (host / name).stat().st_mtime_ns
        os.utime(upper / name, ns=(stamp, stamp))
    (host / "copied_up").mkdir(mode=0o700)
    (upper / "copied_up").mkdir(mode=0o700)
    (upper / "longer").write_text("xx")
    (upper / "kind").unlink()
    (upper / "kind").symlink_to("same")
    assert look() == ["replaced /kind", "changed /longer"]


@pytest.mark.needs_userns
def test_whiteouts_are_deletions(upper: Path, look: Look, tmp_path: Path) -> None:
    for name in ("gone", "never_there"):
        os.mknod(upper / name, 0o020000, 0)
    (tmp_path / "host" / "gone").write_text("x")
    assert look() == ["deleted /gone"]


def test_a_still_directory_is_looked_at_again_when_it_changes(upper: Path, look: Look) -> None:
    long_ago = time.time_ns() - 10**9
    (upper / "made").mkdir()
    assert look() == ["created /made/"]
    while time.time_ns() - (upper / "made").stat().st_ctime_ns < 30_000_000:
        time.sleep(0.005)
    assert look() == []
    (upper / "made" / "x").write_text("x")
    os.utime(upper / "made", ns=(long_ago, long_ago))
    assert look() == ["created /made/x"]


def test_caches_and_patterns_are_left_out(upper: Path, look: Look) -> None:
    for name in ("__pycache__", "deep/.pytest_cache", "sub", "pytest-of-me"):
        (upper / name).mkdir(parents=True)
        (upper / name / "x").write_text("x")
    for name in (".coverage", ".coverage.host.1", "a.pyc", "b.tmp"):
        (upper / name).write_text("x")
    assert look() == ["created /deep/", "created /sub/"]


def test_a_directory_that_nobody_may_read_is_a_line(upper: Path, look: Look) -> None:
    (upper / "closed").mkdir(mode=0)
    assert look() == ["created /closed/"]
    (upper / "closed").chmod(0o700)
    assert look() == ["changed /closed/"]
