"""What lies outside of a container: its host's mounts, processes, sockets, keys and interpreter."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox import Client
from pytest_sandbox.errors import SandboxError
from sandboxd.linux.syscall_numbers import NUMBERS

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

_OWN = NUMBERS[os.uname().machine]


def _mounts(pid: int | str = "self") -> list[str]:
    return Path(f"/proc/{pid}/mountinfo").read_text().splitlines()


def test_no_mount_of_a_container_reaches_the_host(client: Client) -> None:
    """While a container holds a mount of its own making, nobody else has it."""
    name = f"leak-{os.getpid()}"
    script = f"mount -t tmpfs {name} /mnt && touch /mnt/x && exec sleep 1000"
    command = ["sh", "-c", f"mkdir -p /mnt; {script}"]
    with client.container("busybox:latest", command, cap_add=["SYS_ADMIN"]) as container:
        container.start()
        pid = container.inspect()["State"]["Pid"]
        while not any(name in line for line in _mounts(pid)):
            assert container.status == "running"
        launcher = Path(f"/proc/{client.status()['Pid']}/task/{client.status()['Pid']}/children")
        for outside in ("self", client.status()["Pid"], *launcher.read_text().split()):
            assert not any(name in line for line in _mounts(outside))


def test_without_sys_admin_nothing_is_mounted(shell: Any) -> None:
    for script in (
        "mount -t tmpfs t /tmp",
        "mount --bind /etc /tmp",
        "mount -o remount,rw /proc/sys",
        "umount /proc/sys",
        "umount -l /",
        "pivot_root / /tmp",
    ):
        found = shell(script)
        assert found.exit_code != 0, script
        assert b"not permitted" in found.stderr or b"denied" in found.stderr, found


def test_no_namespace_is_made_inside(shell: Any, python: Any) -> None:
    for flag in ("-U", "-m", "-n", "-p", "-i", "-u", "-Ur"):
        assert b"not permitted" in shell(f"unshare {flag} true").stderr
    clone = _OWN["clone"]
    code = f"""if True:
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        print(libc.syscall({clone}, 0x10000000 | 17, 0, 0, 0, 0), ctypes.get_errno())
    """
    assert python(code) == "-1 1"


def test_refused_calls_inside(python: Any) -> None:
    names = "keyctl io_uring_setup bpf perf_event_open userfaultfd kexec_load setns clone3".split()
    calls = {name: _OWN[name] for name in names}
    code = f"""if True:
        import ctypes, json
        libc, found = ctypes.CDLL(None, use_errno=True), {{}}
        for name, number in {calls!r}.items():
            libc.syscall(number, 0, 0, 0, 0, 0)
            found[name] = ctypes.get_errno()
        print(json.dumps(found))
    """
    assert json.loads(python(code)) == {name: 38 if name == "clone3" else 1 for name in names}


def test_sockets_of_the_hypervisor_and_of_the_kernels_crypto(python: Any) -> None:
    code = """if True:
        import socket
        for family in (socket.AF_ALG, socket.AF_VSOCK):
            try:
                socket.socket(family, socket.SOCK_SEQPACKET)
            except OSError as error:
                print(error.errno)
    """
    assert python(code).split() == ["1", "1"]


def test_abstract_sockets_are_not_shared(python: Any) -> None:
    """CVE-2020-15257: a host's abstract socket belongs to the host's network namespace."""
    name = f"sandbox-test-{os.getpid()}"
    code = f"""if True:
        import socket
        try:
            socket.socket(socket.AF_UNIX).connect("\\0{name}")
        except OSError as error:
            print(type(error).__name__)
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        assert python(code) == "ConnectionRefusedError"


def test_the_hosts_loopback_is_not_ours(python: Any) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        code = f"import socket; print(socket.socket().connect_ex(('127.0.0.1', {port})))"
        assert python(code) == "111"


def test_a_terminal_is_ones_own_and_takes_no_input_from_within(client: Client) -> None:
    """CVE-2017-5226: TIOCSTI types into the terminal that the caller sits at."""
    code = """if True:
        import fcntl, os
        print(os.ttyname(0), os.getsid(0) == os.getpid(), os.tcgetpgrp(0) == os.getpgrp())
        for request in (0x5412, 0x541C, 1 << 32 | 0x5412):
            try:
                fcntl.ioctl(0, request, b"x")
            except (OSError, OverflowError) as error:
                print(getattr(error, "errno", "overflow"))
    """
    args = [sys.executable, "-I", "-S", "-c", code]
    with client.container("host", args, tty=True) as container:
        container.start()
        assert container.wait() == 0
        lines = container.logs().decode().splitlines()
    assert lines[0] == "/dev/pts/0 True True"
    assert lines[1:3] == ["1", "1"]


def test_processes_of_the_host_cannot_be_seen_or_hit(shell: Any) -> None:
    found = shell(f"kill -9 {os.getpid()}; ls -d /proc/{os.getpid()} /proc/{os.getppid()}")
    assert found.exit_code != 0
    shell("kill -9 -1")
    os.kill(os.getpid(), 0)


def test_one_container_cannot_see_another(client: Client, shell: Any) -> None:
    with client.container("busybox:latest", ["sleep", "54321"]) as other:
        other.start()
        assert b"54321" not in shell("cat /proc/[0-9]*/cmdline").stdout


_WATCH = r"""
    while [ ! -e /tmp/stop ]; do
        for p in /proc/[0-9]*; do
            for link in $p/exe $p/root $p/cwd $p/fd/*; do
                readlink $link
            done
            cat $p/maps | grep -o ' /.*'
        done 2>/dev/null
    done | sort -u
"""


@pytest.mark.parametrize("options", [{}, {"cap_add": ["SYS_PTRACE"]}, {"init": True}])
def test_the_launcher_is_out_of_reach(client: Client, options: dict[str, Any]) -> None:
    """CVE-2019-5736: /proc/PID/exe of whoever enters leads to a program of the host.

    A container that looks at every process behind each of its links, while commands are executed
    in it, finds the commands' own files and never the launcher's interpreter, root or sockets.
    """
    with client.container("busybox:latest", ["sh", "-c", _WATCH], **options) as container:
        container.start()
        for user in ("", "1000") * 10:
            assert container.exec(["true"], user=user).exit_code == 0
        container.exec(["touch", "/tmp/stop"])
        assert container.wait() == 0
        found = container.logs().decode().splitlines()
    assert "/bin/busybox" in found
    assert [line for line in found if not _OF_THE_CONTAINER.match(line.strip())] == []


_OF_THE_CONTAINER = re.compile(
    r"/$|/bin/busybox|/proc(/|$)|/dev/null$|/tmp|pipe:|anon_inode:|/dev/pts|/sys$"
)


def test_the_ways_out_of_a_chroot_end_at_the_containers_root(client: Client, canary: Path) -> None:
    """SYS_CHROOT is in the default profile, and a warm slot enters its root by move and chroot."""
    code = f"""if True:
        import os
        root = os.open("/", os.O_RDONLY)
        before = sorted(os.listdir(root))
        os.mkdir("/tmp/below")
        os.chroot("/tmp/below")
        os.fchdir(root)
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
        print(sorted(os.listdir("/")) == before, os.path.exists({str(canary)!r}))
        print([name for name in os.listdir("/") if name.startswith(".")])
    """
    done = client.run("host", [sys.executable, "-I", "-S", "-c", code])
    assert done.stdout == b"True False\n[]\n", done.stderr


@pytest.mark.parametrize("capability", ["SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "ALL"])
def test_more_capabilities_open_no_way_to_the_host(
    client: Client, canary: Path, capability: str
) -> None:
    """What a container may do to its own namespaces leads nowhere: its root is all there is."""
    code = f"""if True:
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        found = set()
        def look(where):
            for place in ("/", "/proc/1/root", *[f"/proc/self/fd/{{n}}" for n in range(20)]):
                if os.path.exists(place + {str(canary)!r}):
                    found.add((where, place))
        look("at first")
        own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        for step in range(4):
            libc.umount2(b"/", 2)
            libc.setns(own, 0)
            os.chdir("/")
            look(f"root detached {{step}}")
            libc.chroot(b"..")
            look(f"chroot {{step}}")
        libc.unshare(0x10020000)
        for step in range(4):
            libc.umount2(b"/", 2)
            look(f"nested {{step}}")
        print(sorted(found))
    """
    args = [sys.executable, "-I", "-S", "-c", code]
    done = client.run("host", args, cap_add=[capability])
    assert (done.exit_code, done.stdout) == (0, b"[]\n"), done.stderr


def test_without_the_filter_the_kernel_still_holds(client: Client, canary: Path) -> None:
    """seccomp=unconfined: a nested user namespace with every capability over copied mounts."""
    code = f"""if True:
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        print("unshare", libc.unshare(0x10020000))
        own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        for step in range(4):
            libc.umount2(b"/", 2)
            libc.umount2(b"/proc/kcore", 2)
            libc.mount(b"none", b"/proc/sys", None, 32 | 4096, None)
            libc.setns(own, 0)
            os.chdir("/")
        print(os.path.exists({str(canary)!r}), sorted(os.listdir("/"))[:1])
        try:
            open("/proc/sys/kernel/core_pattern", "w")
        except OSError as error:
            print(error.errno)
    """
    body: dict[str, Any] = {
        "Image": "host",
        "Cmd": [sys.executable, "-I", "-S", "-c", code],
        "HostConfig": {"SecurityOpt": ["seccomp=unconfined"]},
    }
    with client.container("host", ["true"]) as plain:
        body["HostConfig"]["SandboxShow"] = plain.inspect()["HostConfig"].get("SandboxShow", [])
    with client.create_container(body) as container:
        container.start()
        assert container.wait() == 0
        said = container.logs(stderr=False).decode().splitlines()
    assert said[0] in ("unshare 0", "unshare -1")
    assert said[1].startswith("False")
    assert said[2] in ("30", "13", "1")


def test_what_lies_under_a_moved_root_stays_covered(client: Client) -> None:
    """A warm slot's tmpfs, with the store in it, lies under the container's root.

    Without the filter, busybox has every capability in a nested namespace: detaching the root,
    joining the namespace anew and pivoting away show nothing of what is below.
    """
    root = client.status()["Root"]
    script = f"""
        look() {{ ls -Ad /.sandbox {root} /old/.sandbox /old{root} 2>/dev/null; }}
        umount -l / 2>/dev/null; look
        nsenter -m/proc/self/ns/mnt -- /bin/busybox ls -Ad /.sandbox {root} 2>/dev/null
        mkdir /tmp/new && mount -t tmpfs new /tmp/new && mkdir /tmp/new/old /tmp/new/bin
        cp /bin/busybox /tmp/new/bin && cd /tmp/new && pivot_root . old || exit 7
        alias ls="/bin/busybox ls"
        look; /bin/busybox umount -l /old; look; /bin/busybox umount -l / 2>/dev/null; look
        echo looked
    """
    nested = ["unshare", "-Urm", "sh", "-c", script]
    unconfined = {"SecurityOpt": ["seccomp=unconfined"]}
    body = {"Image": "busybox:latest", "Cmd": nested, "HostConfig": unconfined}
    with client.create_container(body) as container:
        container.start()
        container.wait()
        assert container.logs(stderr=False) == b"looked\n", container.logs()


def test_a_mount_point_that_another_container_swaps(client: Client, canary: Path) -> None:
    """CVE-2021-30465: a shared volume in which a directory and a link change places."""
    swap = f"""
        cd /shared; exec 2>/dev/null
        while [ ! -e stop ]; do ln -s {canary} sub; rm -rf sub; mkdir sub; rm -rf sub; done
        exit 0
    """
    with client.volume() as shared:
        volumes = {"/shared": shared}
        with client.container("busybox:latest", ["sh", "-c", swap], volumes=volumes) as swapper:
            swapper.start()
            for number in range(30):
                deep = f"/shared/sub/deep{number}"
                with suppress(SandboxError):
                    client.run("busybox:latest", ["touch", deep], volumes=volumes, tmpfs=[deep])
            swapper.exec(["touch", "/shared/stop"])
            assert swapper.wait() == 0
