"""A sandbox over a kept state: what was kept lies below fresh upper directories, read-only.

Nothing that happens in it changes what is kept, so that it is entered as often as wanted.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NoReturn

from pytest_sandbox.errors import NotFound
from pytest_sandbox.hermetic.network import HOST, OWN
from pytest_sandbox.hermetic.plan import Plan
from pytest_sandbox.hermetic.workshop import Workshop
from pytest_sandbox.hermetic.zygote import ROOTS
from pytest_sandbox.post_mortem.copying import Copier
from pytest_sandbox.post_mortem.finding import is_below
from pytest_sandbox.post_mortem.shelf import Kept, remove_tree
from pytest_sandbox.post_mortem.state import UPPERS
from pytest_sandbox.post_mortem.variables import NETWORK, STATE
from sandboxd.linux import capabilities, namespaces, process

_NOT_EXECUTED: Final = 126
_NOT_FOUND: Final = 127
_PLACES: Final = ("/dev/shm", "/var/tmp", "/tmp", "/run")
"""For copies: not all of them lie in one tree."""
_SPECIAL: Final = frozenset(":,\\")
"""What mount(2) takes for separators in its options."""


def run_inside(kept: Kept, command: Sequence[str], directory: str) -> int:
    """Run a command in a sandbox over the state, on this process's standard streams.

    Returns its exit code, 128 and the number for a signal. Raises HostLacks, NotFound.
    """
    with ExitStack() as held:
        return _run(layered(kept, held), kept, command, directory, held)


def _run(plan: Plan, kept: Kept, command: Sequence[str], directory: str, held: ExitStack) -> int:
    outer = _namespace_of_services(held) if kept.state.containers else None
    workshop = Workshop()
    try:
        workshop.enter(outer)
        shell = workshop.take(plan, fresh=True)
        environ = {**kept.state.environ, STATE: str(kept.path), NETWORK: str(shell.pid)}
        maker = os.pidfd_open(workshop.pid)
        child = os.fork()
        if child == 0:
            _enter_in_child(maker, shell.pidfd, plan, command, directory, environ)
        os.close(maker)
        return _wait(child)
    finally:
        workshop.close()


def layered(kept: Kept, held: ExitStack) -> Plan:
    """The plan of the test's sandbox with the kept uppers as the topmost lower directories.

    `held` removes what is needed until the sandbox has ended. Raises NotFound where the state
    cannot be laid over this machine as it is now.
    """
    uppers = kept.path / UPPERS
    operations, stage, network = kept.state.plan
    if _SPECIAL & set(str(uppers)) or is_below(str(uppers), stage):
        why = f"its path has a colon, a comma or a backslash, or lies in {stage}"
        raise NotFound(f"{kept.path}", why, "set SANDBOX_ROOT to another directory, and run again")
    plan = Plan(stage=stage, network=HOST if network == HOST else OWN)
    layers = {number: uppers / number for number in kept.state.uppers}
    for kind, *arguments in operations:
        plan.operations += _relaid(plan, kind, arguments, layers, held)
    if kept.state.containers:
        plan.operations.append(("tree", str(kept.path), str(kept.path)))
    return plan


def _namespace_of_services(held: ExitStack) -> int:
    """The service's user namespace, within which sandboxes lie that containers may join."""
    from pytest_sandbox import connect

    client = held.enter_context(connect(lease=False))
    namespace = client.user_namespace()
    held.callback(os.close, namespace)
    return namespace


def _relaid(
    plan: Plan, kind: str, arguments: list[Any], kept: Mapping[str, Path], held: ExitStack
) -> list[tuple[object, ...]]:
    if kind == "overlay":
        number, path, mode, uid, gid, lower = arguments
        plan.layout[number] = path
        layers = [str(_apart(kept[number], lower, plan.stage, held))] if number in kept else []
        layers += [lower] if os.path.isdir(lower) else []
        if not layers:
            return [("fresh", number, path, mode)]
        return [(kind, number, path, mode, uid, gid, ":".join(layers))]
    if kind == "fresh":
        number, path, mode = arguments
        plan.layout[number] = path
        if number in kept:
            owner = os.stat(kept[number])
            layer = str(kept[number])
            return [("overlay", number, path, mode, owner.st_uid, owner.st_gid, layer)]
    elif kind == "root":
        number, mode = arguments
        plan.layout[number] = "/"
        if number in kept:
            owner = os.stat("/")
            layer = f"{kept[number]}:{plan.stage}/skeleton"
            return [("overlay", number, "/", mode, owner.st_uid, owner.st_gid, layer)]
    elif kind in ("bind", "tree") and not os.path.exists(arguments[1]):
        return []  # the socket of a service that has ended
    return [(kind, *arguments)]


def _apart(upper: Path, lower: str, stage: str, held: ExitStack) -> Path:
    """The kept upper, or a copy of it where it lies in the very tree that it is to be laid over,
    which overlayfs refuses (ELOOP)."""
    if not is_below(str(upper), lower):
        return upper
    place = next(each for each in _PLACES if not is_below(each, lower) and each != stage)
    copy = tempfile.mkdtemp(prefix="post-mortem-", dir=place)
    held.callback(remove_tree, Path(copy))
    with ExitStack() as opened:
        source, target = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (upper, copy))
        for fd in (source, target):
            opened.callback(os.close, fd)
        Copier(sys.maxsize).copy(source, target)
    return Path(copy)


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
        namespaces.setns(shell, namespaces.CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            flags = namespaces.CONTAINER & ~namespaces.CLONE_NEWPID
            namespaces.setns(shell, flags & ~(plan.network == HOST and namespaces.CLONE_NEWNET))
            if os.geteuid() == 0:
                capabilities.drop_bounding(ROOTS)
            capabilities.set_exactly(ROOTS if os.geteuid() == 0 else ())
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
