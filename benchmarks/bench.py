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

from benchmarks import journaled, rootfs, service
from benchmarks.alternate import Subject
from benchmarks.peers import Absent, dockerd, postgresql
from benchmarks.result import Result
from benchmarks.service import Service


@dataclass
class Bench:
    """Parts are made when first asked for and taken down with `stack`. `quick` means few runs."""

    work: Path
    quick: bool
    stack: ExitStack
    _daemons: dict[Path, dockerd.Daemon | str] = field(default_factory=dict)
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
    def disk(self) -> Path:
        """A directory on a file system of the benchmark's own where that can be: `journaled`."""
        return self.stack.enter_context(journaled.disk(self.work))

    @cached_property
    def service(self) -> Service:
        """Our service, with the busybox image imported."""
        return self._service_in(self.work)

    @cached_property
    def image_service(self) -> Service:
        """Another one, whose layers lie on `disk`."""
        return self._service_in(_made(self.disk / "ours"))

    @property
    def daemon(self) -> dockerd.Daemon:
        """dockerd with the busybox image imported, or Absent."""
        return self._daemon_in(self.work)

    @property
    def image_daemon(self) -> dockerd.Daemon:
        """Another one, whose layers lie on `disk`, or Absent."""
        return self._daemon_in(self.disk / "docker")

    def _service_in(self, work: Path) -> Service:
        running = self.stack.enter_context(service.running(work))
        with running.connect() as client:
            client.image_import(self.archive, rootfs.IMAGE)
        return running

    def _daemon_in(self, work: Path) -> dockerd.Daemon:
        if work not in self._daemons:
            self._daemons[work] = self._started_daemon(_made(work))
        found = self._daemons[work]
        if isinstance(found, str):
            raise Absent(found)
        return found

    def _started_daemon(self, work: Path) -> dockerd.Daemon | str:
        try:
            daemon = self.stack.enter_context(dockerd.running(work))
        except Absent as absent:
            return str(absent)
        daemon.import_image(self.archive, rootfs.IMAGE)
        return daemon

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


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o711, exist_ok=True)
    return directory
