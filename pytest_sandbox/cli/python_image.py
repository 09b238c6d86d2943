"""`sandboxctl image python`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pytest_sandbox.python_images.interpreters import Origin


@click.command()
@click.option("-t", "--tag", metavar="NAME[:TAG]", help="Give the image this name as well.")
@click.option("-r", "--requirements", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              metavar="FILE", help="Install what a requirements file names.")  # fmt: skip
@click.option("--from", "origin", type=click.Choice(["any", "host", "uv"]), default="any",
              help="Whose interpreter.")  # fmt: skip
@click.option("--refresh", is_flag=True, help="Resolve the requirements anew.")
@click.argument("version")
def python(
    version: str, tag: str | None, requirements: Path | None, origin: Origin, refresh: bool
) -> None:
    """Make an image of a Python interpreter of this machine.

    VERSION is 3.13 or 3.13.1. The image lies on `host`; with requirements they are in a virtual
    environment that comes first in PATH. What was made before is used again. Prints the image's
    name.
    """
    from pytest_sandbox import connect
    from pytest_sandbox.python_images import python_image, read_requirements

    lines = () if requirements is None else read_requirements(requirements)
    with connect(lease=False) as client:
        made = python_image(client, version, lines, origin=origin, refresh=refresh)
        if tag is not None:
            repository, colon, name = tag.rpartition(":")
            if not colon or "/" in name:
                repository, name = tag, "latest"
            client.image_tag(made.reference, repository, name)
    click.echo(made.reference)
