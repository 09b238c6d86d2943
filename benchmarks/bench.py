"""What the scenarios of one run share: a work directory, one service, one dockerd, one image."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks import rootfs, service
from benchmarks.alternate import Subject
from benchmarks.peers import Absent, dockerd, postgresql
from benchmarks.result import Result


@dataclass
class Bench:
    """Parts are made when first asked for and taken down with `stack`. `quick` means few runs."""

    work: Path
    quick: bool
    stack: ExitStack
    _template_servers: dict[Path, Callable[[str], postgresql.TemplateClones]] = field(
        default_factory=dict
    )

    @cached_property
    def archive(self) -> Path:
        """The busybox rootfs as a tar."""
        return rootfs.busybox_tar(self.work / "busybox.tar")

    @cached_property
    def rootfs(self) -> Path:
        """The busybox rootfs as a directory."""
        return rootfs.unpack(self.archive, self.work / "rootfs")

    @cached_property
    def service(self) -> service.Service:
        """Our service, with the busybox image imported."""
        running = self.stack.enter_context(service.running(self.work))
        with running.connect() as client:
            client.image_import(self.archive, rootfs.IMAGE)
        return running

    @cached_property
    def _daemon(self) -> dockerd.Daemon | str:
        try:
            daemon = self.stack.enter_context(dockerd.running(self.work))
        except Absent as absent:
            return str(absent)
        daemon.import_image(self.archive, rootfs.IMAGE)
        return daemon

    @property
    def daemon(self) -> dockerd.Daemon:
        """dockerd with the busybox image imported, or Absent."""
        if isinstance(self._daemon, str):
            raise Absent(self._daemon)
        return self._daemon

    def template_server(
        self, base: Path, seed: Sequence[str]
    ) -> Callable[[str], postgresql.TemplateClones]:
        """A running PostgreSQL below `base` with a template database; started once, or Absent."""
        if base not in self._template_servers:
            directory = Path(tempfile.mkdtemp(prefix="sb-", dir=base))
            directory.chmod(0o711)
            self.stack.callback(shutil.rmtree, directory, ignore_errors=True)
            started = postgresql.template_server(directory, seed)
            self._template_servers[base] = self.stack.enter_context(started)
        return self._template_servers[base]

    def enter(self, context: AbstractContextManager[Subject]) -> Subject:
        """Keep a subject's context open until the run ends."""
        return self.stack.enter_context(context)

    def rounds(self, full: int) -> int:
        return max(3, full // 10) if self.quick else full


@contextlib.contextmanager
def prepared(quick: bool) -> Iterator[Bench]:
    """A Bench in a fresh directory, whose parts are stopped and whose files are gone afterwards."""
    # Short, for unix sockets and podman; searchable, for servers that run as another user.
    work = Path(tempfile.mkdtemp(prefix="sb-"))
    work.chmod(0o711)
    try:
        with ExitStack() as stack:
            yield Bench(work, quick, stack)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def present(result: Result, peers: Mapping[str, Callable[[], Subject]]) -> list[Subject]:
    """The subjects that this machine can run; the others are noted in `result.absent`."""
    subjects = []
    for name, make in peers.items():
        try:
            subjects.append(make())
        except Absent as absent:
            result.absent[name] = str(absent)
    return subjects
