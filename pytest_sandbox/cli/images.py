"""`sandboxctl images` and `image import|load|ls|inspect|pull|tag|rm`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import click

from pytest_sandbox.cli.pulling import pull
from pytest_sandbox.cli.python_image import python
from pytest_sandbox.cli.tables import ago, echo_table, megabytes, short_id
from pytest_sandbox.cli.transfer import history, prune, push, save

if TYPE_CHECKING:
    from pytest_sandbox.client.images import Progress


@click.group()
def image() -> None:
    """Make, list and remove images."""


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
def images(quiet: bool) -> None:
    """List images."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        found = client.images()
    if quiet:
        for each in dict.fromkeys(short_id(each.id) for each in found):
            click.echo(each)
        return
    rows = [
        [*_name_and_tag(tag), short_id(each.id), ago(each.created), megabytes(each.size)]
        for each in found
        for tag in each.tags or ("<none>:<none>",)
    ]
    echo_table(("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"), rows)


image.add_command(images, "ls")


def _name_and_tag(reference: str) -> tuple[str, str]:
    name, _, tag = reference.rpartition(":")
    return name, tag


@image.command("import")
@click.option("-c", "--change", "changes", multiple=True, metavar="LINE",
              help='Apply a line of a Dockerfile: CMD ["sh"].')  # fmt: skip
@click.option("-m", "--message", default="", help="Say what it is.")
@click.argument("file", type=click.File("rb"))
@click.argument("reference", required=False)
def import_(file: BinaryIO, reference: str | None, changes: tuple[str, ...], message: str) -> None:
    """Make an image from the tar of a root file system, plain or compressed.

    FILE is a path, or - for standard input.
    """
    from pytest_sandbox import connect

    with connect(lease=False) as client, _progress(file) as progress:
        image_id = client.image_import(
            file, reference, message=message, changes=changes, progress=progress
        )
    click.echo(image_id)


@image.command()
@click.option("-i", "--input", "file", type=click.File("rb"), default="-", help="Not stdin.")
def load(file: BinaryIO) -> None:
    """Load images from the tar that `docker save` writes, or of an OCI layout."""
    from pytest_sandbox import connect

    with connect(lease=False) as client, _progress(file) as progress:
        names = client.image_load(file, progress=progress)
    for name in names:
        click.echo(f"Loaded image: {name}")


@contextmanager
def _progress(file: BinaryIO) -> Iterator[Progress | None]:
    """A bar on standard error while a file goes to the service; nothing where no one looks."""
    if not sys.stderr.isatty():
        yield None
        return
    import os

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    status = os.fstat(file.fileno())
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sending", total=status.st_size or None)

        def show(sent: int, _total: int | None) -> None:
            done = sent == status.st_size
            bar.update(task, completed=sent, description="unpacking" if done else "sending")

        yield show


@image.command()
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...]) -> None:
    """Print images as JSON."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        click.echo(json.dumps([client.image_inspect(name) for name in names], indent=2))


@image.command()
@click.argument("source")
@click.argument("target")
def tag(source: str, target: str) -> None:
    """Give an image another name: REPOSITORY[:TAG]."""
    from pytest_sandbox import connect

    repository, tag_ = target, "latest"
    if ":" in target.rpartition("/")[2]:
        repository, _, tag_ = target.rpartition(":")
    with connect(lease=False) as client:
        client.image_tag(source, repository, tag_)


@image.command()
@click.option("-f", "--force", is_flag=True, help="Though stopped containers use it.")
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...], force: bool) -> None:
    """Remove images."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        for name in names:
            for entry in client.image_remove(name, force):
                for what, reference in entry.items():
                    click.echo(f"{what}: {reference}")


for command in (pull, push, save, history, prune, python):
    image.add_command(command)
