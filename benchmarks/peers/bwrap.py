"""bubblewrap: namespaces without images; the rootfs is bound read-only."""

from __future__ import annotations

from pathlib import Path

from benchmarks.alternate import Subject
from benchmarks.peers import Absent, command, found

NAME = "bwrap --unshare-all"


def one_shot(rootfs: Path) -> Subject:
    argv = [found("bwrap"), "--unshare-all", "--ro-bind", str(rootfs), "/"]
    run = command([*argv, "--proc", "/proc", "--dev", "/dev", "/bin/true"])
    try:
        run()
    except RuntimeError as error:
        raise Absent(str(error)) from error
    return Subject(NAME, run)
