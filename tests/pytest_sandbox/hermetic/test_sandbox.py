"""What a test sees of the machine from inside its sandbox, and what is left outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_userns

SEEN = """
import ctypes, errno, os, pathlib, shutil, socket, subprocess, sys
import pytest

OUTSIDE = dict(part.split("=") for part in os.environ["OUTSIDE"].split())
HOME = pathlib.Path.home()
ROOT = os.geteuid() == 0

def test_namespaces_are_fresh():
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        assert str(os.stat(f"/proc/self/ns/{kind}").st_ino) != OUTSIDE[kind], kind

def test_process():
    assert os.getpid() == 2
    assert [os.geteuid(), os.getegid()] == [int(OUTSIDE["uid"]), int(OUTSIDE["gid"])]
    assert [name for name in os.listdir("/proc") if name.isdigit()] == ["1", "2"]
    assert socket.gethostname() == "localhost"
    assert socket.gethostbyname(socket.gethostname()).startswith("127.")

def test_no_capability_over_the_sandbox():
    status = pathlib.Path("/proc/self/status").read_text()
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    assert held == 0 or ROOT
    assert not held & (1 << 21 | 1 << 12 | 1 << 19)  # SYS_ADMIN NET_ADMIN SYS_PTRACE
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.umount2(b"/tmp", 2) == -1 and ctypes.get_errno() == errno.EPERM
    assert subprocess.run(["mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True).returncode

def test_only_loopback():
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        with pytest.raises(OSError) as raised:
            out.connect(("192.0.2.1", 9))
        assert raised.value.errno == errno.ENETUNREACH
    with socket.create_server(("localhost", 5432)) as server:
        socket.create_connection(server.getsockname()).close()

def test_fresh_directories():
    kept = [pathlib.Path(path) for path in (sys.prefix, sys.base_prefix, *sys.path) if path]
    for directory in ("/var/tmp", "/dev/shm", "/dev/mqueue", HOME):
        below = [path for path in kept if path.is_relative_to(directory)]
        ways = {path.relative_to(directory).parts[:1] for path in below}
        assert {(name,) for name in os.listdir(directory)} <= ways, directory
    assert not os.path.exists(OUTSIDE["canary"])
    for path in (*map(pathlib.Path, ("/tmp", "/var/tmp", "/dev/shm", "/run")), HOME):
        if os.access(path, os.W_OK):
            (path / "written").write_text("by a test")

def test_the_project_is_copy_on_write():
    project = pathlib.Path(__file__).parent
    (project / "written").write_text("by a test")
    (project / "given.txt").write_text("changed")
    os.utime(project / "tox.ini", (1, 1))
    shutil.move(project / "sub", project / "moved")  # a rename of a directory is EXDEV
    (project / "moved" / "inner").unlink()
    assert sorted(os.listdir(project / "moved")) == ["other"]

def test_what_may_not_be_written_still_may_not():
    if ROOT:
        pathlib.Path("/etc/hermetic-canary").write_text("x")
        os.chown("/etc/hermetic-canary", 12, 34)
        pathlib.Path("/hermetic-canary").write_text("x")
    else:
        for path in ("/etc", "/", "/usr", "/dev", "/sys", "/proc"):
            with pytest.raises(OSError):
                pathlib.Path(path, "hermetic-canary").write_text("x")
        with pytest.raises(OSError):
            os.listdir("/root")
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname"):
        with pytest.raises(OSError):
            pathlib.Path(path).write_text("x")

def test_descriptors():
    def target(fd):
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            return ""
    open_ = {int(fd): target(fd) for fd in os.listdir("/proc/self/fd")}
    with pytest.raises(OSError):
        os.fstat(int(OUTSIDE["inherited"]))
    unknown = {fd: to for fd, to in open_.items() if fd > 2 and to and not (
        to.startswith(("/dev/null", "socket:", "pipe:", "/proc/"))
        or to.endswith("(deleted)") or to == os.environ.get("TERMINAL"))}
    sockets = [to for to in open_.values() if to.startswith("socket:")]
    assert len(sockets) == 1, open_
    assert not unknown
    assert "pidfd" not in str(open_) and "net:" not in str(open_)

def test_a_program_sees_the_same():
    seen = subprocess.run(["sh", "-c", "hostname; echo $PPID; ls /tmp | wc -l"],
                          capture_output=True, text=True, check=True).stdout.split()
    assert seen[:2] == ["localhost", str(os.getpid())]
"""


def test_a_test_sees_its_sandbox_and_leaves_nothing(
    hermetic: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
    told: dict[str, object] = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in kinds}
    canary = hermetic.path.parent / "canary"
    canary.write_text("")
    (hermetic.path / "given.txt").write_text("given")
    (hermetic.path / "sub").mkdir()
    for name in ("inner", "other"):
        (hermetic.path / "sub" / name).write_text("")
    inherited = os.open(hermetic.path, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    told |= {"uid": os.geteuid(), "gid": os.getegid(), "canary": canary, "inherited": inherited}
    monkeypatch.setenv("OUTSIDE", " ".join(f"{name}={value}" for name, value in told.items()))
    hermetic.makepyfile(SEEN)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--hermetic=function", "-q"],
        cwd=hermetic.path,
        pass_fds=[inherited],
        capture_output=True,
        text=True,
    )
    os.close(inherited)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (hermetic.path / "given.txt").read_text() == "given"
    assert (hermetic.path / "tox.ini").stat().st_mtime > 2
    assert sorted(os.listdir(hermetic.path / "sub")) == ["inner", "other"]
    for place in (hermetic.path, Path.home(), "/tmp", "/var/tmp", "/dev/shm", "/run"):
        assert not Path(place, "written").exists()
    for path in ("/etc/hermetic-canary", "/hermetic-canary"):
        assert not os.path.exists(path)
