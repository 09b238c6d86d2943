"""The worker processes of pulls: started when needed, kept a few seconds for the next pull.

One process for each layer, as many at once as there are processors, the largest layer first, so
that no two stages of one layer wait for each other and nothing shares an interpreter lock.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from sandboxd.errors import HostLacks, SandboxError, Unavailable
from sandboxd.images.registry.jobs import Job, error_from

_ENTRY: Final = (
    "import sys; sys.path[:] = sys.argv[1:];"
    "from sandboxd.images.registry.worker import main; main()"
)
_LOOK: Final = 0.1
"""Seconds between looks whether the pull was given up."""
_BLOCK: Final = 1 << 16

OnBytes = Callable[[Job, int], None]
OnDone = Callable[[Job, str, dict[str, Any]], None]


class Worker:
    """One process, and what of its next line has come."""

    def __init__(self) -> None:
        paths = [path for path in sys.path if path]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _ENTRY, *paths],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                cwd="/",
            )
        except OSError as error:
            raise HostLacks("start a worker for the pull", str(error)) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._received = b""

    def fileno(self) -> int:
        return self._output

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, job: Job) -> bool:
        """Whether it took the job: it may have ended of itself just now."""
        try:
            rest = job.to_line()
            while rest:
                rest = rest[os.write(self._input, rest) :]
        except BrokenPipeError:
            return False
        return True

    def receive(self) -> list[dict[str, Any]] | None:
        """The lines that are complete by now; None once it has ended."""
        data = os.read(self._output, _BLOCK)
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Crew:
    """Workers for all pulls of one service. Any thread may use it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._idle: list[Worker] = []
        self._size = len(os.sched_getaffinity(0))

    def prewarm(self, count: int = 1) -> None:
        """Have so many workers ready, or starting, while the pull asks what there is to fetch."""
        missing = min(count, self._size) - len(self._idle)
        for _ in range(missing):
            self._give_back(Worker())

    def fetch(
        self,
        jobs: Sequence[Job],
        on_bytes: OnBytes,
        on_done: OnDone,
        cancelled: threading.Event,
    ) -> None:
        """Do all jobs, the largest first; `on_done` gets each layer's place and metadata.

        Raises the error of the first one that fails, or Unavailable when the pull was given up;
        all others are ended then.
        """
        waiting = sorted(jobs, key=lambda job: job.blob.size)
        with ExitStack() as stack, selectors.DefaultSelector() as selector:
            busy: dict[Worker, Job] = {}
            stack.callback(self._end, busy)
            while waiting or busy:
                while waiting and len(busy) < self._size:
                    self._begin(selector, busy, waiting.pop())
                for key, _ in selector.select(_LOOK):
                    worker: Worker = key.fileobj  # type: ignore[assignment]
                    if self._handle(worker, busy[worker], on_bytes, on_done):
                        selector.unregister(worker)
                        del busy[worker]
                        self._give_back(worker)
                if cancelled.is_set():
                    raise Unavailable("pull", "whoever asked for it went away")

    def close(self) -> None:
        with self._mutex:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def _begin(self, selector: selectors.BaseSelector, busy: dict[Worker, Job], job: Job) -> None:
        worker = self._taken()
        while not worker.send(job):
            worker.end()
            worker = self._taken()
        busy[worker] = job
        selector.register(worker, selectors.EVENT_READ)

    def _handle(self, worker: Worker, job: Job, on_bytes: OnBytes, on_done: OnDone) -> bool:
        """Whether the job is done."""
        lines = worker.receive()
        if lines is None:
            raise SandboxError("pull", f"the worker for layer {job.blob.digest} was killed")
        for line in lines:
            if "error" in line:
                raise error_from(line["error"])
            if "done" in line:
                on_done(job, line["done"], line["metadata"])
                return True
            on_bytes(job, line["bytes"])
        return False

    def _taken(self) -> Worker:
        with self._mutex:
            self._reap()
            if self._idle:
                return self._idle.pop()
        return Worker()

    def _give_back(self, worker: Worker) -> None:
        with self._mutex:
            self._idle.append(worker)
            self._reap()

    def _reap(self) -> None:
        ended = [worker for worker in self._idle if not worker.alive]
        self._idle = [worker for worker in self._idle if worker not in ended]
        for worker in ended:
            worker.end()

    def _end(self, busy: dict[Worker, Job]) -> None:
        for worker in busy:
            worker.end()
