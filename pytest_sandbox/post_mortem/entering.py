"""A sandbox over a kept state: what was kept lies below fresh upper directories, read-only.

Nothing that happens in it changes what is kept, so that it is entered as often as wanted.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from pytest_sandbox.errors import HostLacks, NotFound
from pytest_sandbox.hermetic.plan import Plan
from pytest_sandbox.hermetic.workshop import Workshop
from pytest_sandbox.hermetic.zygote import ROOTS
from pytest_sandbox.post_mortem.shelf import Kept
from pytest_sandbox.post_mortem.state import UPPERS
from sandboxd.linux import capabilities, namespaces, process

_NOT_EXECUTED: Final = 126
_NOT_FOUND: Final = 127
_SPECIAL: Final = frozenset(":,\\")
"""What mount(2) takes for separators in its options."""


def run_inside(kept: Kept, command: Sequence[str], directory: str) -> int:
    """Run a command in a sandbox over the state, on this process's standard streams.

    Returns its exit code, 128 and the number for a signal. Raises HostLacks, NotFound.
    """
    plan = layered(kept)
    workshop = Workshop()
    try:
        workshop.enter()
        shell = workshop.take(plan, fresh=True)
        maker = os.pidfd_open(workshop.pid)
        child = os.fork()
        if child == 0:
            _enter_in_child(maker, shell.pidfd, plan, command, directory, kept.state.environ)
        os.close(maker)
        return _wait(child)
    finally:
        workshop.close()


def layered(kept: Kept) -> Plan:
    """The plan of the test's sandbox with the kept uppers as the topmost lower directories.

    Raises NotFound where the state cannot be laid over this machine as it is now.
    """
    uppers = kept.path / UPPERS
    if _SPECIAL & set(str(uppers)):
        why = "its path has a colon, a comma or a backslash"
        raise NotFound(f"{kept.path}", why, "set SANDBOX_ROOT to another directory, and run again")
    operations, stage, network, tag = kept.state.plan
    plan = Plan(stage=stage, network=network, tag=f"{tag}{kept.id}")
    for kind, *arguments in operations:
        plan.operations += _relaid(plan, kind, arguments, uppers, kept.state.uppers)
    return plan


def _relaid(
    plan: Plan, kind: str, arguments: list[Any], uppers: Path, numbers: Sequence[str]
) -> list[tuple[object, ...]]:
    if kind == "overlay":
        number, path, mode, uid, gid, lower = arguments
        plan.layout[number] = path
        layers = [str(uppers / number)] if number in numbers else []
        layers += [lower] if os.path.isdir(lower) else []
        if not layers:
            return [("fresh", number, path, mode)]
        return [(kind, number, path, mode, uid, gid, ":".join(layers))]
    if kind == "fresh":
        number, path, mode = arguments
        plan.layout[number] = path
        if number in numbers:
            owner = os.stat(uppers / number)
            layer = str(uppers / number)
            return [("overlay", number, path, mode, owner.st_uid, owner.st_gid, layer)]
    elif kind == "root":
        number, mode = arguments
        plan.layout[number] = "/"
        if number in numbers:
            owner = os.stat("/")
            layer = f"{uppers / number}:{plan.stage}/skeleton"
            return [("overlay", number, "/", mode, owner.st_uid, owner.st_gid, layer)]
    elif kind in ("bind", "tree") and not os.path.exists(arguments[1]):
        return []  # the socket of a service that has ended
    return [(kind, *arguments)]


def _wait(child: int) -> int:
    """Its exit code; the terminal, if there is one, is ours again."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _OF_TERMINAL}
    try:
        _, status = os.waitpid(child, 0)
        if os.isatty(0):
            os.tcsetpgrp(0, os.getpgrp())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


_OF_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTTOU)
"""Ctrl-C is the command's; and who takes the terminal back is a background process so far."""


def _enter_in_child(
    maker: int,
    shell: int,
    plan: Plan,
    command: Sequence[str],
    directory: str,
    environ: Mapping[str, str],
) -> NoReturn:
    """Between us and the command: it enters the user namespace in which the sandbox may be."""
    try:
        process.set_parent_death_signal(signal.SIGKILL)
        namespaces.setns(maker, namespaces.CLONE_NEWUSER)
        rights = ROOTS if os.geteuid() == 0 else ()
        capabilities.drop_bounding(rights)
        namespaces.setns(shell, namespaces.CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            flags = namespaces.CONTAINER & ~namespaces.CLONE_NEWPID
            namespaces.setns(shell, flags if plan.network else flags & ~namespaces.CLONE_NEWNET)
            capabilities.set_exactly(rights)
            process.set_parent_death_signal(signal.SIGKILL)
            _execute_in_child(command, directory, environ)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    except BaseException as error:
        os.write(2, f"sandboxctl: enter the sandbox: {error}\n".encode())
        os._exit(_NOT_EXECUTED)


def _execute_in_child(
    command: Sequence[str], directory: str, environ: Mapping[str, str]
) -> NoReturn:
    try:
        os.chdir(directory)
        if os.isatty(0):
            os.setpgid(0, 0)
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.execvpe(command[0], list(command), dict(environ))
    except OSError as error:
        os.write(2, f"sandboxctl: {command[0]}: {error.strerror}\n".encode())
        os._exit(_NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTED)


def require_sandbox(kept: Kept) -> None:
    """Raises HostLacks for a state that has no sandbox to enter."""
    if not kept.state.hermetic:
        why = "neither a sandbox nor containers are kept of it"
        raise HostLacks(kept.state.nodeid, why, "sandboxctl rerun runs it again")
