"""A file system of the benchmark's own, with a journal, on a loop device.

ext4 without a journal does not use an inode again that was freed in the last minutes, and searches
long for another: whoever makes files where others have deleted some pays ten times the price.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_SIZE = 32 << 30
"""Bytes that it could hold; the file below it is sparse."""


@contextlib.contextmanager
def disk(work: Path) -> Iterator[Path]:
    """A directory on it; for an ordinary user, who may not mount one, a plain directory."""
    place = work / "d"
    place.mkdir(mode=0o711)
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        yield place
        return
    image = work / "disk.img"
    with image.open("wb") as file:
        file.truncate(_SIZE)
    options = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
    subprocess.run(["mkfs.ext4", *options, str(image)], check=True)
    # Direct: through the cache of the file below, every page would lie in memory twice.
    attach = ["losetup", "--find", "--show", "--direct-io=on", str(image)]
    attached = subprocess.run(attach, check=True, capture_output=True, text=True)
    device = attached.stdout.strip()
    try:
        subprocess.run(["mount", device, str(place)], check=True)
        try:
            place.chmod(0o711)
            yield place
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        image.unlink()
