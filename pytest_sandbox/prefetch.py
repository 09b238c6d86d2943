"""Fetching images before the first test: several at a time, with one bar where somebody looks.

Each worker of pytest-xdist does it for its own tests. The service fetches an image once, whoever
asks for it at the same time.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_sandbox.cost.events import SILENT, Recorder

if TYPE_CHECKING:
    from pytest_sandbox.client.pulls import PullProgress
    from pytest_sandbox.client.session import Client
    from pytest_sandbox.errors import SandboxError

WIDTH = 3
"""Images at a time: each of them is several connections already."""


def missing(client: Client, images: Iterable[str]) -> dict[str, SandboxError]:
    """Those of `images`, names or ids, that the service does not have, with what it says."""
    from pytest_sandbox.errors import NoSuchImage

    absent: dict[str, SandboxError] = {}
    for image in images:
        try:
            client.image_inspect(image)
        except NoSuchImage as error:
            absent[image] = error
    return absent


def fetch(
    client: Client, absent: Mapping[str, SandboxError], recorder: Recorder = SILENT
) -> dict[str, SandboxError]:
    """Pull what is `missing`; the images that could not be had, with the reason."""
    from pytest_sandbox.errors import NoSuchImage, SandboxError

    failures: dict[str, SandboxError] = {}

    def pull(image: str) -> None:
        try:
            with recorder.span("pull", "image", image):
                client.pull(image, progress=progress)
        except SandboxError as error:
            why = f"{error.what}: {error.why}" if error.why else error.what
            why = f"and pulling it failed: {why}"
            mend = error.mend or absent[image].mend
            failures[image] = NoSuchImage(absent[image].what, why, mend)

    with _bar(len(absent)) as progress, ThreadPoolExecutor(WIDTH) as threads:
        list(threads.map(pull, absent))
    return failures


@contextmanager
def _bar(count: int) -> Iterator[PullProgress | None]:
    """One bar on standard error for all the bytes; nothing where it is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    text = "fetching an image" if count == 1 else f"fetching {count} images"
    columns = (TextColumn(text), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)
        total = _Total()

        def show(entry: dict[str, Any]) -> None:
            known, done = total.after(entry)
            if known:
                shown.update(task, total=known, completed=done)

        yield show


class _Total:
    """Bytes to fetch, and fetched, over all layers that were mentioned; layers may be shared."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._layers: dict[str, tuple[int, int]] = {}

    def after(self, entry: dict[str, Any]) -> tuple[int, int]:
        layer, detail = entry.get("id"), entry.get("progressDetail") or {}
        with self._mutex:
            if isinstance(layer, str) and detail.get("total"):
                done = max(int(detail.get("current") or 0), self._layers.get(layer, (0, 0))[1])
                self._layers[layer] = (int(detail["total"]), done)
            elif layer in self._layers and entry.get("status") == "Pull complete":
                self._layers[layer] = (self._layers[layer][0],) * 2
            layers = self._layers.values()
            return sum(size for size, _ in layers), sum(done for _, done in layers)
