"""runc: a bundle with its default specification, the rootfs read-only."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path

from benchmarks.alternate import Subject
from benchmarks.peers import Absent, command, found

NAME = "runc run"


def one_shot(work: Path, rootfs: Path) -> Subject:
    runc = found("runc")
    bundle = work / "runc-bundle"
    bundle.mkdir()
    kind = [] if os.geteuid() == 0 else ["--rootless"]
    subprocess.run([runc, "spec", *kind, "--bundle", str(bundle)], check=True)
    specification = bundle / "config.json"
    config = json.loads(specification.read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/true"]}
    config["root"] = {"path": str(rootfs), "readonly": True}
    specification.write_text(json.dumps(config))
    numbers = itertools.count()
    state = str(work / "runc-state")

    def run() -> float:
        name = f"bench{next(numbers)}"
        return command([runc, "--root", state, "run", "--bundle", str(bundle), name])()

    try:
        run()
    except RuntimeError as error:
        raise Absent(str(error)) from error
    return Subject(NAME, run)
