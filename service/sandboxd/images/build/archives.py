"""Whether ADD takes a file for an archive: what it holds decides, not what it is called."""

from __future__ import annotations

import stat

from sandboxd.errors import BadRequest, HostLacks
from sandboxd.images.build.union import Node
from sandboxd.images.compression import Decompressed
from sandboxd.images.tar import BLOCK, TarReader


def is_archive(node: Node) -> bool:
    """Whether a regular file begins as a tar archive, plain or compressed. Raises OSError."""
    if not stat.S_ISREG(node.status.st_mode) or node.status.st_size == 0:
        return False
    with open(node.open(), "rb") as file:
        try:
            stream, head = Decompressed(file), b""
            while len(head) < BLOCK and (piece := stream.read(BLOCK - len(head))):
                head += piece
            # Every archive that is not of before 1988 says so: ustar, or GNU's `ustar  `.
            if len(head) < BLOCK or head[257:262] != b"ustar":
                return False
            file.seek(0)
            return next(iter(TarReader(Decompressed(file))), None) is not None
        except (BadRequest, HostLacks):
            return False
