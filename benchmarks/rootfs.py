"""The image that every engine runs: this machine's busybox and its links, 2 MB."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from benchmarks.peers import Absent

IMAGE = "busybox:latest"

_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "sys", "var")
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\n"


def busybox_tar(target: Path) -> Path:
    """Write the rootfs tar to `target`. Raises Absent without a static busybox."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Absent("no busybox on PATH (Debian: busybox-static)")
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    with tarfile.open(target, "w") as tar:
        for directory in _DIRECTORIES:
            add_directory(tar, directory)
        add_directory(tar, "tmp", 0o1777)
        add_file(tar, "bin/busybox", Path(busybox).read_bytes(), 0o755)
        add_file(tar, "etc/passwd", _PASSWD)
        for name in names.stdout.split():
            if name != "busybox":
                add_link(tar, f"bin/{name}", "busybox")
    return target


def unpack(archive: Path, target: Path) -> Path:
    """The same rootfs as a directory, for peers that take no image."""
    target.mkdir(mode=0o755)
    subprocess.run(["tar", "-C", str(target), "-xf", str(archive)], check=True)
    return target


def add_directory(tar: tarfile.TarFile, name: str, mode: int = 0o755, owner: int = 0) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, mode
    member.uid = member.gid = owner
    tar.addfile(member)


def add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    tar.addfile(member, io.BytesIO(data))


def add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    tar.addfile(member)
