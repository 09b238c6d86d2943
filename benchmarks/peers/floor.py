"""The kernel's own price: benchmarks/floor.c, compiled here and kept running."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.alternate import Subject
from benchmarks.peers import Absent, found

NAME = "C floor"
_SOURCE = Path(__file__).parent.parent / "floor.c"


@contextlib.contextmanager
def one_shot(work: Path, rootfs: Path) -> Iterator[Subject]:
    """A running floor program; each run asks it for one launch and takes the time it measured."""
    compiler = found("cc")
    binary = work / "floor"
    subprocess.run([compiler, "-O2", "-o", str(binary), str(_SOURCE)], check=True)
    map_kind = "root" if os.geteuid() == 0 else "single"
    with subprocess.Popen(
        [str(binary), str(rootfs), map_kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None

        def run() -> float:
            stdin.write("\n")
            if not (answer := stdout.readline()):
                raise RuntimeError(stderr.read())
            return int(answer) / 1e9

        try:
            run()
        except RuntimeError as error:
            raise Absent(f"the kernel refuses it: {error}") from error
        yield Subject(NAME, run, note=f"{map_kind} id map")
        stdin.close()
