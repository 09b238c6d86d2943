"""podman: `podman run --rm --network none`, its store and state in directories of our own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from benchmarks.alternate import Subject
from benchmarks.peers import Absent, command, found
from benchmarks.rootfs import IMAGE

NAME = "podman run --rm"


def one_shot(work: Path, archive: Path) -> Subject:
    # Without --storage-driver, rootless podman with --root falls back to copying (vfs).
    # Debian 12's crun refuses hybrid cgroups, hence runc. Its run root must be a short path.
    podman = [found("podman"), "--root", str(work / "pod"), "--runroot", str(work / "podr")]
    podman += ["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs"]
    podman += ["--events-backend", "file", "--log-level", "error"]
    if runc := shutil.which("runc"):
        podman += ["--runtime", runc]
    imported = subprocess.run([*podman, "import", "-q", str(archive), IMAGE], capture_output=True)
    if imported.returncode:
        raise Absent(imported.stderr.decode(errors="replace").strip())
    # podman's default limits are more than a small machine or an ordinary user may set.
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    run = command([*podman, "run", "--rm", "--network", "none", *limits, IMAGE, "/bin/true"])
    try:
        run()
    except RuntimeError as error:
        raise Absent(str(error)) from error
    return Subject(NAME, run, every=5)
