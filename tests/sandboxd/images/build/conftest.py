"""A build's floors for real, but for the commands: what a RUN would do is played by a function."""

from __future__ import annotations

import asyncio
import os
import shlex
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from sandboxd.images import Image, Images
from sandboxd.images.build.builder import build_image
from sandboxd.images.build.cache import CacheDirectories, StepCache
from sandboxd.images.build.context import Context, unpack_context
from sandboxd.images.build.file_digests import KnownFiles
from sandboxd.images.build.options import BuildOptions
from sandboxd.images.build.shop import Tools
from sandboxd.images.build.steps import RunStep
from sandboxd.images.build.union import Union, walk
from sandboxd.images.reference import Reference
from sandboxd.linux import idmap
from sandboxd.store import Store

Tree = dict[str, Any]


@dataclass
class Workshop:
    """`files` are the context by path: text, bytes, or a Path for a symbolic link's target."""

    store: Store
    images: Images
    context: Path
    ran: list[RunStep] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    tools: Tools = field(init=False)

    def __post_init__(self) -> None:
        cache, directories = StepCache(self.store), CacheDirectories(self.store)
        files = KnownFiles(self.store)
        self.tools = Tools(
            self.store, self.images, self.store.idmap, self, cache, directories, files
        )

    def files(self, **tree: Any) -> Workshop:
        """Put files into the context; `__` in a name is a slash, `_dot_` a dot."""
        for key, content in tree.items():
            self.put(key.replace("_dot_", ".").replace("__", "/"), content)
        return self

    def put(self, name: str, content: str | bytes | Path, mode: int = 0o644) -> Workshop:
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
            return self
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return self

    def build(
        self, dockerfile: str, *names: str, tar: bytes | None = None, **options: Any
    ) -> Image:
        """Build it; `ran` are the commands of this build alone, `told` its output."""
        self.ran.clear()
        self.told.clear()
        references = tuple(Reference.parse(name) for name in names)
        with self.store.staging("build") as staged:
            root, lasting = self.context, tar is None
            if tar is not None:
                root = unpack_context(BytesIO(tar), staged, self.store.idmap)
            context = Context.open(root, text=dockerfile.encode(), is_lasting=lasting)
            wanted = BuildOptions(names=references, **options)
            work = build_image(self.tools, context, wanted, self.told.append)
            return asyncio.run(work)

    async def run(self, step: RunStep) -> int:
        """`write PATH TEXT`, `say TEXT`, `fail CODE`, `wait`; anything else does nothing."""
        self.ran.append(step)
        upper = step.staged / "u"
        upper.mkdir()
        os.chmod(upper, 0o755)
        for command in step.args[-1].split(";"):
            words = shlex.split(command)
            match words:
                case ["write", path, text]:
                    target = upper / path.lstrip("/")
                    for parent in reversed(target.parents):
                        if not parent.is_dir():
                            parent.mkdir()
                            parent.chmod(0o755)
                    target.write_text(text)
                    target.chmod(0o644)
                case ["say", text]:
                    step.output(f"{text}\n".encode())
                case ["fail", code]:
                    return int(code)
                case ["wait"]:
                    await asyncio.sleep(60)
        return 0

    @property
    def commands(self) -> list[str]:
        """The last word of each command that was run."""
        return [step.args[-1] for step in self.ran]

    @property
    def output(self) -> str:
        return "".join(each.get("stream", "") for each in self.told)

    def tree(self, image: Image) -> Tree:
        """The image's files: text by path, `None` for a directory, `-> TARGET` for a link."""
        found: Tree = {}
        with Union(self.images.lowers(image)) as union, union.at(()) as root:
            if root is None:
                return found
            for parts, node in walk(root, lambda *_: True):
                path = "/".join(parts)
                if node.is_directory:
                    found[path] = None
                elif os.path.islink(f"/proc/self/fd/{node.parent}/{node.name}"):
                    found[path] = f"-> {node.link_target()}"
                else:
                    with open(node.open(), "rb") as file:
                        found[path] = file.read().decode(errors="replace")
        return found

    def stat(self, image: Image, path: str) -> os.stat_result:
        parts = tuple(path.split("/"))
        with Union(self.images.lowers(image)) as union, union.at(parts) as node:
            assert node is not None, path
            return node.status

    def base(
        self, name: str, members: list[tuple[str, Any]], changes: list[str] | None = None
    ) -> Image:
        """An image of one layer: text, None for a directory, a Path for a link."""
        return self.images.import_rootfs(
            BytesIO(archive(members)), name, changes=changes or ['CMD ["base"]']
        )


def archive(members: list[tuple[str, Any]]) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif isinstance(content, Path):
                info.type, info.linkname = tarfile.SYMTYPE, str(content)
                tar.addfile(info)
            else:
                data = content.encode()
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, BytesIO(data))
    return buffer.getvalue()


Opened = Callable[[], AbstractContextManager[Workshop]]


@pytest.fixture
def workshop(tmp_path: Path) -> Opened:
    """Opens a workshop with the image `base`; call it inside the namespace."""

    @contextmanager
    def opened(ids: idmap.IdMap | None = None) -> Iterator[Workshop]:
        ids = ids or idmap.choose()
        store = Store(tmp_path / "root", ids)
        images = Images(store, ids)
        context = tmp_path / "context"
        context.mkdir()
        shop = Workshop(store, images, context)
        shop.base(
            "base",
            [
                ("etc", None),
                ("etc/passwd", "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"),
                ("etc/group", "root:x:0:\nstaff:x:50:\n"),
                ("usr", None),
                ("usr/lib", None),
                ("usr/lib/old", "old"),
                ("lib", Path("usr/lib")),
                ("file", "a file"),
            ],
        )
        try:
            yield shop
        finally:
            images.close()
            store.close()

    return opened
