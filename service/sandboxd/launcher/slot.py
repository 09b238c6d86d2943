"""A warm slot: pid 1 of fresh namespaces, with all that no image influences already mounted.

It waits on its socket for one message, assembles the root file system, and becomes the container's
command. Everything here runs in the child of the fork server. What goes wrong before exec is one
message `("error", exit code, text)`; the end of the socket without one means that exec succeeded.
"""

from __future__ import annotations

import gc
import os
import socket
from typing import Literal, NamedTuple, NoReturn

from sandboxd.launcher import entry, kernel_mounts, profile, reaper, rehearsal, rootfs, wire
from sandboxd.launcher.spec import ContainerSpec, HostRoot, Process
from sandboxd.launcher.stage import PathRefused, Stage
from sandboxd.linux import capabilities, mount
from sandboxd.linux import process as own_process
from sandboxd.linux.loopback import bring_up

SlotKind = Literal["image", "host", "any"]
"""What a slot waits for: an image of the store, the image `host` assembled ahead, or anything.

The first two have left the host's tree when the request comes; the last still sees it.
"""


class SlotWork(NamedTuple):
    """What a slot is made for: where layers and uppers lie, and for `host` its root."""

    kind: SlotKind
    store: str
    memory: str
    single_id: bool
    host: HostRoot | None = None


def begin_in_child(told: socket.socket, work: SlotWork) -> NoReturn:
    """Wait until the id map is written; with that news come the control socket, a pipe that this
    process has open until it executes its command, and the sysfs(5) of a network that it joins."""
    try:
        _, (control, alive, *joined) = wire.receive(told)
    except EOFError:
        os._exit(125)
    run_in_child(socket.socket(fileno=control), alive, work, *joined)


def run_in_child(
    control: socket.socket, alive: int, work: SlotWork, sys: int | None = None
) -> NoReturn:
    """The rest of a slot's life, up to exec."""
    try:
        kept = (control.fileno(), alive) if sys is None else (control.fileno(), alive, sys)
        quiet_in_child("sandbox-slot", *kept)
        stage = prepare_in_child(work, sys)
        message, fds = wire.receive(control)
        _launch_in_child(control, stage, work, message, fds)
    except EOFError:
        os._exit(0)
    except BaseException as error:
        report_in_child(control, error)
    os._exit(125)


def report_in_child(control: socket.socket, error: BaseException) -> NoReturn:
    """Tell the service why nothing was executed, and end."""
    if isinstance(error, entry.Refusal):
        code, text = error.exit_code, error.text
    elif isinstance(error, PathRefused):
        code, text = 125, str(error)
    else:
        code, text = 125, str(error) if isinstance(error, OSError) else repr(error)
    try:
        wire.send(control, ("error", code, text))
    except OSError:
        pass
    os._exit(code)


def quiet_in_child(name: str, *kept: int) -> None:
    """Nothing of the fork server stays: name, session, descriptors but those `kept`."""
    os.setsid()
    own_process.set_name(name)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null, number)
    first = 3
    for fd in sorted(kept):
        if fd > first:
            own_process.close_from(first, fd - 1)
        first = fd + 1
    own_process.close_from(first)


def prepare_in_child(work: SlotWork, sys: int | None = None) -> Stage:
    """Mount ahead what every container has: proc, sys, dev, and a tmpfs for writes.

    `sys` is a detached sysfs of the network namespace, where that is not a fresh one.
    """
    os.umask(0)
    mount.make_private()
    base = f"{work.store}/stage"
    mount.mount("sandbox", base, "tmpfs", mount.MS_NODEV, "mode=755")
    stage = Stage(base)
    path = stage.path
    os.mkdir(path, 0o755)
    for name in ("root", "proc", "sys", "dev", "files", "empty", "old", "u", "u/etc", "w"):
        os.mkdir(f"{path}/{name}", 0o755)
    mount.mount(stage.root_path, stage.root_path, "", mount.MS_BIND)
    kernel_mounts.mount_proc(f"{path}/proc")
    kernel_mounts.mount_sys(f"{path}/sys", sys)
    kernel_mounts.mount_dev(f"{path}/dev")
    if sys is None:
        bring_up()
    for name in ("proc", "sys", "dev"):
        stage.parts[name] = mount.open_tree(f"{path}/{name}", clone=False)
    if work.kind == "image":
        for shown in (work.store, work.memory):
            os.makedirs(f"{base}{shown}", exist_ok=True)
            mount.mount(shown, f"{base}{shown}", "", mount.MS_BIND)
    if work.host is not None:
        for operation in rootfs.plan_host(work.host, None):
            operation.execute(stage)
    if work.kind != "any":
        rehearsal.rehearse_in_child(stage, single_id=work.single_id)
        stage.leave_host()
        capabilities.drop_bounding(profile.DEFAULT_CAPABILITIES)
    gc.freeze()
    return stage


def _launch_in_child(
    control: socket.socket,
    stage: Stage,
    work: SlotWork,
    message: wire.Message,
    fds: list[int],
) -> NoReturn:
    spec = ContainerSpec.from_wire(message[1], fds[3:])
    for name, value in spec.sysctls:
        _set_sysctl(name, value)
    own_process.sethostname(spec.hostname)
    if spec.domainname:
        own_process.setdomainname(spec.domainname)
    operations = rootfs.plan(spec) if work.host is None else rootfs.plan_on_host(spec)
    for operation in operations:
        operation.execute(stage)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _attach_streams_in_child(control, spec.process, fds[:3])
    os.umask(0o022)
    if spec.process.init:
        reaper.fork_in_child(control)
    entry.become_in_child(
        spec.process,
        root,
        single_id=work.single_id,
        bounded=work.kind != "any",
    )


def _attach_streams_in_child(control: socket.socket, process: Process, streams: list[int]) -> None:
    """A terminal of the container's devpts, its master for the service, or three descriptors."""
    if not process.tty:
        entry.take_streams_in_child(*streams)
        return
    master, slave = entry.open_terminal_in_child(process)
    _bind_console(slave)
    wire.send(control, ("pty",), [master])
    entry.take_terminal_in_child(slave)


def _bind_console(slave: int) -> None:
    """/dev/console is the first process's terminal, as in Docker: console(4)."""
    os.close(os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC, 0o600))
    tree = mount.open_tree(os.ttyname(slave), recursive=False)
    mount.move_mount(tree, "/dev/console")
    os.close(tree)


def _set_sysctl(name: str, value: str) -> None:
    """sysctl(8) of this container's own namespaces, before its /proc/sys turns read-only."""
    parts = name.replace("/", ".").split(".")
    if not _is_namespaced(parts):
        raise entry.Refusal(125, f"sysctl {name}: it belongs to the host, not to a namespace")
    try:
        with open("/proc/sys/" + "/".join(parts), "w") as file:
            file.write(value)
    except OSError as error:
        raise entry.Refusal(125, f"sysctl {name}={value}: {error.strerror}") from None


def _is_namespaced(parts: list[str]) -> bool:
    if ".." in parts or "" in parts:
        return False
    if parts[0] == "net":
        return True
    return parts[:2] == ["fs", "mqueue"] or (
        parts[0] == "kernel" and parts[-1].startswith(("shm", "msg", "sem"))
    )
