from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Sandboxctl

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


def test_output_and_exit_code_are_the_commands_own(sandboxctl: Sandboxctl, busybox: str) -> None:
    done = sandboxctl("run", "--rm", busybox, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_options_after_the_image_belong_to_the_command(
    sandboxctl: Sandboxctl, busybox: str
) -> None:
    assert sandboxctl.ok("run", "--rm", busybox, "echo", "--rm", "-it", "--help") == (
        "--rm -it --help\n"
    )


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [("nope", 127, "executable file not found"), ("/etc/passwd", 126, "permission denied")],
)
def test_commands_that_cannot_start(
    sandboxctl: Sandboxctl, busybox: str, command: str, code: int, words: str
) -> None:
    done = sandboxctl("run", "--rm", busybox, command)
    assert done.returncode == code
    assert done.stderr.startswith(b"sandboxctl: ")
    assert words in done.stderr.decode()


def test_other_failures_are_125_and_say_what_mends_them(sandboxctl: Sandboxctl) -> None:
    done = sandboxctl("run", "--rm", "127.0.0.1:1/nope", "true")
    assert done.returncode == 125
    what, mend = done.stderr.decode().splitlines()
    assert what.startswith("sandboxctl: No such image: 127.0.0.1:1/nope:latest: pulling it failed")
    assert mend.endswith("sandboxctl image load -i FILE")


def test_wrong_usage_is_2(sandboxctl: Sandboxctl) -> None:
    assert sandboxctl("run", "--nope").returncode == 2
    assert sandboxctl("run").returncode == 2
    assert sandboxctl("nope").returncode == 2


def test_environment_directory_user_and_tmpfs(
    sandboxctl: Sandboxctl, busybox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("-e", "A=1", "-e", "PATH_OF_NOBODY", "-e", "HOME", "-w", "/tmp", "-u", "user")
    script = "echo $A ${PATH_OF_NOBODY-unset} $HOME; pwd; id -un; stat -f -c %T /t"
    output = sandboxctl.ok("run", "--rm", *options, "--tmpfs", "/t", busybox, "sh", "-c", script)
    assert output == f"1 unset {os.environ['HOME']}\n/tmp\nuser\ntmpfs\n"


def test_host_directories_and_volumes(
    sandboxctl: Sandboxctl, busybox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_text("hello")
    monkeypatch.chdir(tmp_path)
    options = ("-v", ".:/here:ro", "-v", "named:/v")
    sandboxctl.ok("run", "--rm", *options, busybox, "cp", "/here/in", "/v/in")
    assert sandboxctl.ok("run", "--rm", "-v", "named:/v", busybox, "cat", "/v/in") == "hello"
    assert sandboxctl.ok("volume", "rm", "named") == "named\n"


def test_an_anonymous_volume_goes_with_its_container(sandboxctl: Sandboxctl, busybox: str) -> None:
    before = sandboxctl.ok("volume", "ls", "-q")
    sandboxctl.ok("run", "--rm", "-v", "/v", busybox, "touch", "/v/x")
    assert sandboxctl.ok("volume", "ls", "-q") == before


def test_it_joins_a_network(sandboxctl: Sandboxctl, busybox: str, running: str) -> None:
    look = ("readlink", "/proc/self/ns/net")
    own = sandboxctl.ok("exec", running, *look)
    joined = ("--network", f"container:{running}")
    assert sandboxctl.ok("run", "--rm", *joined, busybox, *look) == own
    assert sandboxctl.ok("run", "--rm", busybox, *look) != own
    done = sandboxctl("run", "--rm", "--network", "container:no-such", busybox, "true")
    assert done.returncode == 125
    assert b"No such container: no-such" in done.stderr


def test_input_comes_from_standard_input(sandboxctl: Sandboxctl, busybox: str) -> None:
    data = bytes(range(256)) * 10_000
    assert sandboxctl("run", "--rm", "-i", busybox, "cat", stdin=data).stdout == data
    assert sandboxctl("run", "--rm", busybox, "cat", stdin=data).stdout == b""


def test_what_is_not_removed_stays(sandboxctl: Sandboxctl, busybox: str) -> None:
    sandboxctl.ok("run", "--name", "kept", busybox, "echo", "hi")
    assert sandboxctl.ok("logs", "kept") == "hi\n"
    assert sandboxctl.ok("rm", "kept") == "kept\n"


def test_detached(sandboxctl: Sandboxctl, busybox: str) -> None:
    container = sandboxctl.ok("run", "-d", "--init", busybox, "sleep", "60").strip()
    assert len(container) == 64
    assert sandboxctl.ok("ps", "-q", "--no-trunc").strip() == container
    sandboxctl.ok("rm", "-f", container)


def test_a_container_that_is_to_be_removed_dies_with_sandboxctl(
    sandboxctl: Sandboxctl, busybox: str
) -> None:
    process = sandboxctl.start("run", "--rm", busybox, "sh", "-c", "echo up; exec sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    [container] = sandboxctl.ok("ps", "-q").split()
    process.kill()
    process.communicate()
    assert sandboxctl("wait", container).returncode in (0, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_go_to_the_command(sandboxctl: Sandboxctl, busybox: str, number: int) -> None:
    script = f"trap 'echo got it; exit 9' {number}; echo up; while :; do sleep 0.05; done"
    process = sandboxctl.start("run", "--rm", busybox, "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    assert process.communicate() == (b"got it\n", b"")
    assert process.returncode == 9


def test_the_second_interrupt_kills(sandboxctl: Sandboxctl, busybox: str) -> None:
    script = "trap 'echo no' INT; echo up; while :; do sleep 0.05; done"
    process = sandboxctl.start("run", "--rm", busybox, "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"no\n"
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 137


def test_a_reader_that_leaves_ends_it_quietly(sandboxctl: Sandboxctl, busybox: str) -> None:
    process = sandboxctl.start("run", "--rm", busybox, "yes")
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.stdin is not None
    process.stdin.close()
    process.stderr.close()
    assert process.wait() == -signal.SIGPIPE


def test_a_terminal_of_the_same_size(sandboxctl: Sandboxctl, busybox: str) -> None:
    terminal = sandboxctl.on_terminal("run", "--rm", "-it", busybox, "sh", rows=33, columns=99)
    terminal.expect("# ")
    terminal.type("stty size; tty\n")
    terminal.expect("33 99")
    terminal.expect("/dev/")
    assert not terminal.echoes()
    terminal.resize(44, 55)
    terminal.expect("# ")
    terminal.type("until [ \"$(stty size)\" = '44 55' ]; do :; done; echo re''sized\n")
    terminal.expect("resized")
    terminal.expect("# ")
    terminal.type("exit 5\n")
    assert terminal.wait() == 5


def test_keys_go_to_the_terminal_of_the_command(sandboxctl: Sandboxctl, busybox: str) -> None:
    script = "trap 'echo interrupted' INT; sh -c 'echo up; exec cat'; echo after"
    terminal = sandboxctl.on_terminal("run", "--rm", "-it", busybox, "sh", "-c", script)
    terminal.expect("up")
    terminal.type("\x03")
    terminal.expect("interrupted")
    terminal.expect("after")
    assert terminal.wait() == 0


def test_the_end_of_a_typed_input(sandboxctl: Sandboxctl, busybox: str) -> None:
    script = "echo up; cat"
    terminal = sandboxctl.on_terminal("run", "--rm", "-it", busybox, "sh", "-c", script)
    terminal.expect("up")
    terminal.type("typed\n\x04")
    terminal.expect("typed\r\ntyped")
    assert terminal.wait() == 0


def test_a_terminal_for_nobody(sandboxctl: Sandboxctl, busybox: str) -> None:
    done = sandboxctl("run", "--rm", "-it", busybox, "true")
    assert (done.returncode, b"standard input is not a terminal" in done.stderr) == (125, True)
    assert b"/dev/" in sandboxctl("run", "--rm", "-t", busybox, "tty").stdout


@pytest.fixture
def running(sandboxctl: Sandboxctl, busybox: str) -> Iterator[str]:
    yield sandboxctl.ok("run", "-d", "--init", busybox, "sleep", "60").strip()
    sandboxctl.ok("rm", "-f", *sandboxctl.ok("ps", "-aq").split())


def test_exec(sandboxctl: Sandboxctl, running: str) -> None:
    script = "cat; echo $A >&2; pwd; id -u; exit 5"
    options = ("-i", "-e", "A=1", "-w", "/tmp", "-u", "1000")
    done = sandboxctl("exec", *options, running, "sh", "-c", script, stdin=b"in ")
    assert (done.returncode, done.stdout, done.stderr) == (5, b"in /tmp\n1000\n", b"1\n")


def test_exec_of_what_is_not_there(sandboxctl: Sandboxctl, running: str) -> None:
    assert sandboxctl("exec", running, "nope").returncode == 127
    assert sandboxctl("exec", running, "/etc/passwd").returncode == 126
    done = sandboxctl("exec", "nope", "true")
    assert (done.returncode, done.stderr) == (1, b"sandboxctl: No such container: nope\n")


def test_exec_on_a_terminal(sandboxctl: Sandboxctl, running: str) -> None:
    terminal = sandboxctl.on_terminal("exec", "-it", running, "sh", rows=20, columns=70)
    terminal.expect("# ")
    terminal.type("stty size\n")
    terminal.expect("20 70")
    terminal.type("exit 3\n")
    assert terminal.wait() == 3


def test_exec_detached(sandboxctl: Sandboxctl, running: str) -> None:
    assert sandboxctl.ok("exec", "-d", running, "touch", "/tmp/made") == ""
    script = "until [ -e /tmp/made ]; do :; done"
    assert sandboxctl.ok("exec", running, "sh", "-c", script) == ""
