"""A process that fetches and unpacks one layer after another, all in one thread.

Started by `crew` in the service's own user namespace, as a fresh interpreter. Jobs come as lines on
standard input, what happened goes as lines to standard output. When its input ends, because the
pull was given up or the service died, it ends at once, wherever it is.
"""

from __future__ import annotations

import gc
import os
import queue
import threading
import time
from pathlib import Path
from typing import Final, NoReturn

from sandboxd.errors import BadRequest, RegistryError, SandboxError
from sandboxd.images.registry.blob_stream import BlobStream
from sandboxd.images.registry.client import RegistryClient
from sandboxd.images.registry.jobs import DIFFERENT, Job, bytes_line, done_line, error_line
from sandboxd.images.unpack import Unpacked, unpack

IDLE_SECONDS: Final = 5.0
"""A worker without a job for so long ends; the next pull starts another."""
_TELL_SECONDS: Final = 0.1
_GARBAGE: Final = 100_000
"""Objects between two collections of cycles."""


def main() -> NoReturn:
    """Work until there is nothing to do any more."""
    os.umask(0)
    # Hardly anything that is made here is part of a cycle, and there is a lot of it.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        try:
            line = jobs.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            os._exit(0)
        _tell(_outcome(Job.from_line(line)))


def _listen(jobs: queue.SimpleQueue[bytes]) -> NoReturn:
    """Blocked in read(2), so that it takes nothing from the other thread but at the end."""
    with open(0, "rb", closefd=False) as lines:
        for line in lines:
            jobs.put(line)
    os._exit(1)


def _outcome(job: Job) -> bytes:
    try:
        return _fetched(job)
    except SandboxError as error:
        return error_line(error)
    except OSError as error:
        return error_line(SandboxError.from_os("unpack the layer", error))
    except MemoryError:
        return error_line(SandboxError("unpack the layer", "not enough memory"))


def _fetched(job: Job) -> bytes:
    """Unpack from whoever has the layer; what a mirror got wrong, once more from the registry."""
    source = job.source
    with RegistryClient(source.reference, source.settings, source.credentials) as client:
        client.adopt(source.authorizations)
        try:
            return done_line("first", _unpacked(client, job, "first").metadata)
        except (RegistryError, BadRequest):
            if not client.has_mirrors:
                raise
            client.use_registry_only()
            return done_line("second", _unpacked(client, job, "second").metadata)


def _unpacked(client: RegistryClient, job: Job, place: str) -> Unpacked:
    staged = Path(job.staged, place)
    staged.mkdir(mode=0o700)
    stream = BlobStream(client, job.blob, job.source.settings.network, _Teller().tell)
    try:
        layer = unpack(stream, staged, job.idmap, job.limits, umask=0)
        while stream.read(1 << 18):
            raise BadRequest(f"blob {job.blob.digest}", "data after its end")
    finally:
        stream.close()
    if layer.diff_id != job.diff_id:
        raise BadRequest("layer", DIFFERENT.format(job.blob.digest, layer.diff_id, job.diff_id))
    return layer


class _Teller:
    """Tells how far a download is, ten times a second at most."""

    def __init__(self) -> None:
        self._next = 0.0

    def tell(self, count: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _TELL_SECONDS
            _tell(bytes_line(count))


def _tell(line: bytes) -> None:
    try:
        while line:
            line = line[os.write(1, line) :]
    except BrokenPipeError:
        os._exit(1)
