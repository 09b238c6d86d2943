"""podman: `podman run --rm --network none`, its store and state in directories of our own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.alternate import Subject
from benchmarks.peers import Absent, command, found
from benchmarks.rootfs import IMAGE

NAME = "podman run --rm"


def own_store(work: Path) -> list[str]:
    """The command, with store and state below `work`. Raises Absent."""
    # Without --storage-driver, rootless podman with --root falls back to copying (vfs).
    # Debian 12's crun refuses hybrid cgroups, hence runc. Its run root must be a short path.
    podman = [found("podman"), "--root", str(work / "pod"), "--runroot", str(work / "podr")]
    podman += ["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs"]
    podman += ["--tmpdir", str(work / "podt")]
    podman += ["--events-backend", "file", "--log-level", "error"]
    if runc := shutil.which("runc"):
        podman += ["--runtime", runc]
    return podman


@contextlib.contextmanager
def one_shot(work: Path, archive: Path) -> Iterator[Subject]:
    """A subject whose image is imported; what podman keeps mounted or running is ended after."""
    podman = own_store(work)
    imported = subprocess.run([*podman, "import", "-q", str(archive), IMAGE], capture_output=True)
    if imported.returncode:
        raise Absent(imported.stderr.decode(errors="replace").strip())
    # podman's default limits are more than a small machine or an ordinary user may set.
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    run = command([*podman, "run", "--rm", "--network", "none", *limits, IMAGE, "/bin/true"])
    try:
        run()
    except RuntimeError as error:
        end(podman, work / "pod")
        raise Absent(str(error)) from error
    try:
        yield Subject(NAME, run, every=5)
    finally:
        end(podman, work / "pod")


def end(podman: list[str], store: Path) -> None:
    """podman keeps its store mounted on itself, and without root a process that holds the ids."""
    remove = ["sh", "-c", 'umount "$1/overlay" 2>/dev/null; rm -rf "$1"', "sh", str(store)]
    if os.geteuid() == 0:
        subprocess.run(remove, check=True)
    else:
        subprocess.run([*podman, "unshare", *remove], check=True)
        subprocess.run([*podman, "system", "migrate"], check=True)
