"""Images and containers out of the service: `commit`, `diff`, `export`, `save`, `push`, and
`image history|prune`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from pytest_sandbox.cli.tables import ago, echo_table, megabytes, short_id

if TYPE_CHECKING:
    from pytest_sandbox.client.pulls import PullProgress

_INSTRUCTION = 45
"""Characters of a step in `history`, as docker shows it."""


@click.command()
@click.option("-a", "--author", default="", help="NAME <MAIL>.")
@click.option("-c", "--change", "changes", multiple=True, metavar="LINE",
              help='Apply a line of a Dockerfile: CMD ["sh"].')  # fmt: skip
@click.option("-m", "--message", default="", help="Say what it is.")
@click.option("-p", "--pause/--no-pause", default=True,
              help="Stop its processes while its files are copied (on).")  # fmt: skip
@click.option("--source-date-epoch", "epoch", type=click.IntRange(0), envvar="SOURCE_DATE_EPOCH",
              metavar="SECONDS", help="Nothing in the image is later: reproducible.")  # fmt: skip
@click.argument("container")
@click.argument("reference", required=False)
def commit(
    container: str,
    reference: str | None,
    author: str,
    changes: tuple[str, ...],
    message: str,
    pause: bool,
    epoch: int | None,
) -> None:
    """Make an image of what a container has written. Prints the image's id."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        id = client.get_container(container).commit(
            reference, message=message, author=author, changes=changes, pause=pause, epoch=epoch
        )
    click.echo(id)


@click.command()
@click.argument("container")
def diff(container: str) -> None:
    """List what a container has added (A), changed (C) and deleted (D)."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        for kind, path in client.get_container(container).changes():
            click.echo(f"{kind} {path}")


@click.command()
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Not standard output.")
@click.argument("container")
def export(container: str, output: str | None) -> None:
    """Write a container's files to a tar archive."""
    from pytest_sandbox import connect

    with connect(lease=False) as client, _written(output) as (target, progress):
        client.get_container(container).export(target, progress=progress)


@click.command()
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Not standard output.")
@click.argument("names", nargs=-1, required=True)
def save(names: tuple[str, ...], output: str | None) -> None:
    """Write images to a tar archive that docker, podman, skopeo and umoci take."""
    from pytest_sandbox import connect

    with connect(lease=False) as client, _written(output) as (target, progress):
        client.image_save(names, target, progress=progress)


@contextmanager
def _written(
    output: str | None,
) -> Iterator[tuple[str | BinaryIO, Callable[[int], None] | None]]:
    """Where an archive goes, and who is told how much of it is there."""
    if output is None and sys.stdout.isatty():
        from pytest_sandbox.errors import BadRequest

        why = "an archive is nothing for a terminal"
        raise BadRequest("standard output", why, "use -o FILE, or redirect it")
    target = sys.stdout.buffer if output is None else output
    if not sys.stderr.isatty():
        yield target, None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TransferSpeedColumn

    columns = (SpinnerColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield target, lambda written: bar.update(task, completed=written)


@click.command()
@click.option("--index", multiple=True, metavar="IMAGE",
              help="Push these images, each for its platform, as one.")  # fmt: skip
@click.option("--compression", type=click.Choice(["gzip", "zstd"]), default="gzip")
@click.option("--format", "format_", type=click.Choice(["oci", "docker"]), help="Of the manifest.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("-a", "--all-tags", is_flag=True, help="All tags of the repository.")
@click.argument("reference")
def push(
    reference: str,
    index: tuple[str, ...],
    compression: str,
    format_: str | None,
    quiet: bool,
    all_tags: bool,
) -> None:
    """Send an image to its registry.

    REFERENCE is [HOST[:PORT]/]NAME[:TAG]; the credentials are those of `docker login`. Prints each
    tag with the digest of its manifest.
    """
    from pytest_sandbox import connect

    is_bare = ":" not in reference.rpartition("/")[2]
    tagged = reference if all_tags or not is_bare else f"{reference}:latest"
    with connect(lease=False) as client, _bars(quiet) as progress:
        pushed = client.image_push(
            tagged, index=index, compression=compression, format=format_ or "", progress=progress
        )
    for each in pushed:
        click.echo(f"{each.tag}: {each.digest}")


@contextmanager
def _bars(quiet: bool) -> Iterator[PullProgress | None]:
    from pytest_sandbox.cli.pulling import pull_progress

    with pull_progress(quiet) as progress:
        yield progress


@click.command()
@click.option("--no-trunc", is_flag=True, help="Whole commands and ids.")
@click.argument("name")
def history(name: str, no_trunc: bool) -> None:
    """List the steps that made an image, the newest first."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        steps = client.image_history(name)
    rows = [_step(step, no_trunc) for step in steps]
    echo_table(("IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"), rows)


def _step(step: dict[str, Any], whole: bool) -> list[str]:
    by = " ".join(step["CreatedBy"].split())
    if not whole and len(by) > _INSTRUCTION:
        by = f"{by[: _INSTRUCTION - 1]}…"
    id = step["Id"] if whole or step["Id"] == "<missing>" else short_id(step["Id"])
    return [id, ago(step["Created"]), by, megabytes(step["Size"]), step["Comment"]]


@click.command()
@click.option("-a", "--all", "all_", is_flag=True, help="All that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def prune(all_: bool, force: bool) -> None:
    """Remove images without a tag."""
    from pytest_sandbox import connect

    which = "that no container uses" if all_ else "without a tag"
    if not force and os.isatty(0):
        click.confirm(f"Remove all images {which}?", abort=True, err=True)
    with connect(lease=False) as client:
        done = client.image_prune(all_)
    for entry in done["ImagesDeleted"] or ():
        for what, reference in entry.items():
            click.echo(f"{what}: {reference}")
    click.echo(f"Total reclaimed space: {megabytes(done['SpaceReclaimed'])}")
