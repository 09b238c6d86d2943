"""The last steps before exec, the same for a container's first process and for every exec into it.

One order, one profile (security-anchors: exec must not get more than create): user, limits, working
directory, bounding set, ids, capabilities, no_new_privs, seccomp, exec. Everything here runs in the
child.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import struct
import termios
from collections.abc import Callable
from typing import Final, NoReturn

from sandboxd.launcher import accounts, profile
from sandboxd.launcher.spec import Process
from sandboxd.linux import capabilities, namespaces
from sandboxd.linux import process as own_process
from sandboxd.linux.openat2 import make_directories, open_beneath
from sandboxd.linux.seccomp import PreparedFilter

_TIOCGPTPEER: Final = 0x5441
_TIOCSPTLCK: Final = 0x40045431
_SHELL_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Refusal(Exception):
    """Why the command was not executed, and the exit code a shell would give for that."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(exit_code, text)
        self.exit_code, self.text = exit_code, text


def become_in_child(
    command: Process,
    root: int,
    *,
    single_id: bool,
    bounded: bool = False,
) -> NoReturn:
    """Turn this process into `command`. Raises Refusal; returns never otherwise.

    A missing working directory is made, as Docker does for create, not for exec.
    `bounded`: the bounding set holds no more than the default capabilities already.
    """
    environment = take_on_in_child(
        command, root, single_id=single_id, bounded=bounded, make_directory=True
    )
    os.close(root)

    def attempt(path: bytes) -> None:
        os.execve(path, command.args, environment)

    _first_that_runs(command.args[0], environment, attempt)
    raise AssertionError("execve(2) returned")


def take_on_in_child(
    command: Process,
    root: int,
    *,
    single_id: bool,
    bounded: bool = False,
    make_directory: bool = False,
    own: int | None = None,
) -> dict[bytes, bytes]:
    """Give this process all that `command` is to have; its environment. Raises Refusal.

    `own`: this process's directory of /proc, where the one at /proc is of another pid namespace.
    """
    if not command.args:
        raise Refusal(125, "no command specified")
    account = _account(command, root)
    environment = _environment(command, account)
    _apply_limits(command, own)
    _enter_directory(command.cwd, root, make=make_directory)
    if single_id and (account.uid, account.gid) != (os.getuid(), os.getgid()):
        _map_single_in_child(account, own)
        # The new namespace came with every capability in the bounding set.
        bounded = False
    if not (bounded and command.capabilities == profile.DEFAULT_CAPABILITIES):
        capabilities.drop_bounding(command.capabilities)
    _drop_privileges(command, account, single_id=single_id)
    _restore_signals()
    return environment


def rehearse_in_child(command: Process, root: int, *, single_id: bool) -> None:
    """The same steps for root with all capabilities, which changes nothing, and no filter."""
    account = _account(command, root)
    environment = _environment(command, account)
    _apply_limits(command, None)
    _enter_directory("/", root, make=True)
    harmless = command._replace(seccomp=False, no_new_privs=False)
    _drop_privileges(harmless, account, single_id=single_id)
    _restore_signals()
    _candidates(command.args[0], environment)
    os.chdir("/")


def _account(command: Process, root: int) -> accounts.Account:
    try:
        return accounts.resolve(root, command.user, command.groups)
    except accounts.UnknownUser as error:
        raise Refusal(125, str(error)) from None


def _environment(command: Process, account: accounts.Account) -> dict[bytes, bytes]:
    pairs = (os.fsencode(entry).partition(b"=") for entry in command.env)
    environment = {key: value for key, _, value in pairs if key}
    environment.setdefault(b"HOME", os.fsencode(account.home))
    return environment


def _apply_limits(command: Process, own: int | None) -> None:
    for name, soft, hard in command.rlimits:
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None:
            raise Refusal(125, f"ulimit {name}: unknown limit")
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError) as error:
            text = f"ulimit {name}={soft}:{hard}: {error}: the service's own limit is lower"
            raise Refusal(125, text) from None
    if command.oom_score_adj is not None:
        try:
            _write_own("oom_score_adj", str(command.oom_score_adj), own)
        except OSError as error:
            raise Refusal(125, f"oom_score_adj {command.oom_score_adj}: {error}") from None


def _enter_directory(path: str, root: int, *, make: bool) -> None:
    """By descriptor, so that /proc/self/fd leads nowhere (CVE-2024-21626)."""
    try:
        if make:
            fd = make_directories(root, path, 0o755)
        else:
            fd = open_beneath(root, path, os.O_PATH | os.O_DIRECTORY)
        os.fchdir(fd)
        os.close(fd)
    except OSError as error:
        raise Refusal(126, f"chdir to cwd ({path}): {error.strerror}") from None


def _map_single_in_child(account: accounts.Account, own: int | None) -> None:
    """Under a single-id map the command's own user is the one that is mapped."""
    if os.getuid() != 0:
        text = f"user {account.uid}: this container knows user {os.getuid()} only (single-id map)"
        raise Refusal(125, text + "; give the user a subordinate range: see `sandboxctl doctor`")
    namespaces.unshare(namespaces.CLONE_NEWUSER)
    for name, inside in (("uid_map", account.uid), ("gid_map", account.gid)):
        _write_own(name, f"{inside} 0 1", own)


def _write_own(name: str, text: str, own: int | None) -> None:
    """Write a file of this process's directory of proc(5)."""
    fd = os.open(f"/proc/self/{name}" if own is None else name, os.O_WRONLY, dir_fd=own)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _drop_privileges(command: Process, account: accounts.Account, *, single_id: bool) -> None:
    if command.seccomp and not command.no_new_privs:
        # Without no_new_privs a filter needs CAP_SYS_ADMIN: seccomp(2). It lets the rest through.
        _filter(command).install()
    try:
        if not single_id:
            os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        text = f"user {account.uid}:{account.gid}: {error.strerror}: the id map ends before it"
        raise Refusal(125, text) from None
    capabilities.set_exactly(command.capabilities if account.uid == 0 else ())
    if not command.no_new_privs:
        return
    own_process.set_no_new_privs()
    if command.seccomp:
        _filter(command).install()


def _filter(command: Process) -> PreparedFilter:
    capabilities = frozenset(command.capabilities)
    if command.fake_ownership:
        return profile.prepared_filter(capabilities, fake_ownership=True)
    return profile.prepared_filter(capabilities)


def _restore_signals() -> None:
    """Python ignores these two; an ignored signal would stay so across execve(2)."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


FileAction = tuple[int | str, ...]
"""One of posix_spawn_file_actions_adddup2(3) and posix_spawn_file_actions_addopen(3)."""


def piped(stdin: int, stdout: int, stderr: int) -> list[FileAction]:
    """Standard streams from descriptors above 2."""
    return [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, stdout, stderr))]


def on_terminal(path: str) -> list[FileAction]:
    """The terminal at `path`: what a session's leader opens first controls it, tty_ioctl(4)."""
    return [
        (os.POSIX_SPAWN_OPEN, 0, path, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
    ]


def spawn(args: tuple[str, ...], environment: dict[bytes, bytes], actions: list[FileAction]) -> int:
    """posix_spawn(3) in a session of its own; the pid, as this process's pid namespace counts.

    Nothing but the standard streams is inherited. Raises Refusal.
    """
    own_process.close_from(3, flags=own_process.CLOSE_RANGE_CLOEXEC)
    started = 0

    def attempt(path: bytes) -> None:
        nonlocal started
        os.stat(path)  # a tenth of a spawn that fails
        started = os.posix_spawn(path, args, environment, file_actions=actions, setsid=True)

    _first_that_runs(args[0], environment, attempt)
    return started


def _first_that_runs(
    name: str, environment: dict[bytes, bytes], attempt: Callable[[bytes], None]
) -> None:
    """Look `name` up as a shell does; `attempt` raises OSError where there is no such program."""
    denied = None
    for path in _candidates(name, environment):
        try:
            attempt(path)
            return
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            denied = denied or error
            if error.errno not in (errno.EACCES, errno.EISDIR):
                break
        except ValueError as error:
            raise Refusal(125, f'exec: "{name}": {error}') from None
    if denied is not None:
        text = (
            "permission denied" if denied.errno == errno.EACCES else os.strerror(denied.errno or 0)
        )
        raise Refusal(126, f'exec: "{name}": {text.lower()}')
    if "/" in name:
        raise Refusal(127, f'exec: "{name}": stat {name}: no such file or directory')
    raise Refusal(127, f'exec: "{name}": executable file not found in $PATH')


def _candidates(name: str, environment: dict[bytes, bytes]) -> list[bytes]:
    encoded = os.fsencode(name)
    if b"/" in encoded or not encoded:
        return [encoded]
    directories = environment.get(b"PATH", _SHELL_PATH.encode()).split(b":")
    return [(directory or b".") + b"/" + encoded for directory in directories]


def open_terminal_in_child(command: Process) -> tuple[int, int]:
    """(master, slave) of the container's own devpts; the size is set before the command runs."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    if command.rows or command.cols:
        size = struct.pack("HHHH", command.rows, command.cols, 0, 0)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
    return master, slave


def take_terminal_in_child(slave: int) -> None:
    """Make `slave` the controlling terminal and the standard streams: tty_ioctl(4)."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    take_streams_in_child(slave, slave, slave)


def take_streams_in_child(stdin: int, stdout: int, stderr: int) -> None:
    """Standard streams from descriptors above 2; everything else closes at exec."""
    for number, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, number, inheritable=True)
    own_process.close_from(3, flags=own_process.CLOSE_RANGE_CLOEXEC)
