"""`sandboxctl pull` and `sandboxctl image pull`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from pytest_sandbox.client.pulls import PullProgress


@click.command()
@click.option("--platform", metavar="OS/ARCH", help="Not this machine's: linux/arm64.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("reference")
def pull(reference: str, platform: str | None, quiet: bool) -> None:
    """Fetch an image from its registry.

    REFERENCE is NAME[:TAG][@DIGEST], as `docker pull` takes it; so are the credentials. Prints the
    image's full name.
    """
    from pytest_sandbox import connect

    with connect(lease=False) as client, pull_progress(quiet) as progress:
        name = client.pull(reference, platform=platform, progress=progress)
    click.echo(name)


@contextmanager
def pull_progress(quiet: bool = False) -> Iterator[PullProgress | None]:
    """Bars on standard error, one for each layer; nothing where no one looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bars(bars).show


class _Bars:
    """A bar for each layer that is mentioned."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def show(self, entry: dict[str, Any]) -> None:
        layer, detail = entry.get("id"), entry.get("progressDetail")
        if not isinstance(layer, str) or detail is None:
            return
        status = str(entry.get("status", ""))
        if layer not in self._tasks:
            self._tasks[layer] = self._bars.add_task(layer, total=None, status=status)
        task = self._tasks[layer]
        total, current = detail.get("total"), detail.get("current")
        self._bars.update(task, total=total, completed=current, status=status)
        if status in ("Download complete", "Already exists", "Pull complete"):
            known = self._bars.tasks[self._bars.task_ids.index(task)].total or 1
            self._bars.update(task, total=known, completed=known)
