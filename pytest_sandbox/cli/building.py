"""`sandboxctl build`: as `docker build`, its output on a terminal and quiet in a pipe."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pytest_sandbox.client.builds import BuildOptions

_ARCHIVES = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_USTAR_AT = 257


@click.command()
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME[:TAG]", help="Name the image.")
@click.option("-f", "--file", "dockerfile", metavar="FILE", help="Not PATH/Dockerfile; - is stdin.")
@click.option("--target", metavar="STAGE", help="Build this stage, not the last one.")
@click.option("--build-arg", "arguments", multiple=True, metavar="NAME[=VALUE]",
              help="Set an ARG; without a value it is the variable's of this shell.")  # fmt: skip
@click.option("--secret", "secrets", multiple=True, metavar="id=ID[,src=FILE|,env=NAME]",
              help="A secret for RUN --mount=type=secret.")  # fmt: skip
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Set a label.")
@click.option("--no-cache", is_flag=True, help="Make every step anew.")
@click.option("--pull", is_flag=True, help="Fetch base images again.")
@click.option("--network", metavar="MODE", help="The network of RUN: none.")
@click.option("--platform", metavar="OS/ARCH", help="Not this machine's: linux/arm64.")
@click.option("-q", "--quiet", is_flag=True, help="Print the image's id only.")
@click.argument("path", default=".")
def build(
    path: str,
    tags: tuple[str, ...],
    dockerfile: str | None,
    arguments: tuple[str, ...],
    secrets: tuple[str, ...],
    labels: tuple[str, ...],
    quiet: bool,
    **options: Any,
) -> None:
    """Build an image from a Dockerfile; prints the image's id.

    PATH is a directory, or - for a Dockerfile or a tar archive on standard input.
    """
    from pytest_sandbox import connect

    wanted: BuildOptions = {key: value for key, value in options.items() if value}  # type: ignore[assignment]
    wanted |= {
        "tag": tags,
        "build_args": dict(map(_argument, arguments)),
        "labels": dict(_pair(each, "--label") for each in labels),
        "secrets": dict(_secret(each) for each in secrets),
    }
    if not quiet and sys.stderr.isatty():
        wanted["progress"] = _show
    with connect(lease=False) as client, tempfile.TemporaryDirectory() as scratch:
        if path == "-":
            data = sys.stdin.buffer.read()
            if _is_archive(data):
                wanted["dockerfile"] = dockerfile or ""
                id = client.build(io.BytesIO(data), **wanted)
            else:
                empty = Path(scratch, "context")
                empty.mkdir()
                wanted["dockerfile"] = _saved(data, scratch)
                id = client.build(empty, **wanted)
        else:
            if dockerfile == "-":
                dockerfile = _saved(sys.stdin.buffer.read(), scratch)
            if dockerfile is not None:
                wanted["dockerfile"] = os.path.abspath(dockerfile)
            id = client.build(path, **wanted)
    click.echo(id)


def _show(entry: Mapping[str, Any]) -> None:
    """Docker's own words; the progress of a pull in one line that is written over."""
    if text := entry.get("stream"):
        click.echo(text, nl=False, err=True)
    elif status := entry.get("status"):
        layer = f"{entry['id']}: " if entry.get("id") else ""
        click.echo(f"\r\x1b[K{layer}{status}", nl=not entry.get("progressDetail"), err=True)


def _argument(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name, value if equals else os.environ.get(name)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return name, value


def _secret(text: str) -> tuple[str, bytes]:
    """`id=ID`, with the file `src` or the variable `env`; without either, what has that name."""
    fields = dict(_pair(each, "--secret") for each in text.split(","))
    id = fields.pop("id", "")
    source = fields.pop("src", "") or fields.pop("source", "")
    variable = fields.pop("env", "")
    kind = fields.pop("type", "")
    if not id or fields or kind not in ("", "file", "env"):
        raise click.BadParameter(
            f"{text!r} is not id=ID[,src=FILE|,env=NAME]", param_hint="--secret"
        )
    if kind == "env" and not variable:
        variable, source = source or id, ""
    if not variable and not source and id in os.environ:
        variable = id
    if variable:
        if variable not in os.environ:
            raise click.BadParameter(f"no variable {variable}", param_hint="--secret")
        return id, os.environb[os.fsencode(variable)]
    try:
        return id, Path(source or id).read_bytes()
    except OSError as error:
        raise click.BadParameter(str(error), param_hint="--secret") from error


def _saved(data: bytes, scratch: str) -> str:
    path = Path(scratch, "Dockerfile")
    path.write_bytes(data)
    return str(path)


def _is_archive(data: bytes) -> bool:
    return data.startswith(_ARCHIVES) or data[_USTAR_AT : _USTAR_AT + 5] == b"ustar"
