"""`sandboxctl ps`, `logs`, `stop`, `kill`, `wait`, `rm`, `rename` and `inspect`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from pytest_sandbox.cli import terminal
from pytest_sandbox.cli.tables import ago, echo_table, short_id

if TYPE_CHECKING:
    from pytest_sandbox import Client, Container

_PLACEHOLDER = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")


@click.command()
@click.option("-a", "--all", "all_", is_flag=True, help="Also those that do not run.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("--no-trunc", is_flag=True, help="Whole ids and commands.")
@click.option("--json", "as_json", is_flag=True, help="The Engine API's JSON.")
@click.option("--format", "template", help="For each, text with {{.ID}}, {{.Names}}, {{.State}}…")
def ps(all_: bool, quiet: bool, no_trunc: bool, as_json: bool, template: str | None) -> None:
    """List containers."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        found = client.call("GET", "/containers/json", {"all": all_})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [_row(each, no_trunc) for each in found]
    if quiet or template:
        for row in rows:
            click.echo(row["ID"] if quiet else _filled(template or "", row))
        return
    columns = ("ID", "Image", "Command", "CreatedAt", "Status", "Names")
    header = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES")
    echo_table(header, [[row[name] for name in columns] for row in rows])


def _row(found: dict[str, Any], whole: bool) -> dict[str, str]:
    command = found["Command"]
    if not whole and len(command) > 20:
        command = f"{command[:19]}…"
    return {
        "ID": found["Id"] if whole else short_id(found["Id"]),
        "Image": found["Image"],
        "Command": f'"{command}"',
        "CreatedAt": ago(found["Created"]),
        "State": found["State"],
        "Status": found["Status"],
        "Names": ",".join(name.lstrip("/") for name in found["Names"]),
        "Labels": ",".join(f"{k}={v}" for k, v in (found["Labels"] or {}).items()),
    }


def _filled(template: str, row: dict[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in row:
            known = ", ".join(row)
            raise click.BadParameter(f"no field {found[1]}; there are {known}")
        return row[found[1]]

    return _PLACEHOLDER.sub(value, template).replace(r"\t", "\t").replace(r"\n", "\n")


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until it has ended.")
@click.option("-n", "--tail", type=click.IntRange(min=0), help="Only so many last lines.")
@click.option("-t", "--timestamps", is_flag=True, help="Before each line, when it was written.")
@click.option("--since", type=float, metavar="SECONDS", help="Only later than this time (epoch).")
@click.argument("container")
def logs(container: str, follow: bool, **wanted: Any) -> None:
    """Print what a container has written, on standard output and error as it did."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        for stream, data in client.get_container(container).read_log(follow=follow, **wanted):
            terminal.write(stream, data)


@click.command()
@click.option("-t", "--time", "seconds", default=10.0, show_default=True, help="Then kill it.")
@click.option("-s", "--signal", help="What to send first.")
@click.argument("containers", nargs=-1, required=True)
def stop(containers: tuple[str, ...], seconds: float, signal: str | None) -> int:
    """Ask containers to end, and kill them after a while."""
    return _for_each(containers, lambda container: container.stop(seconds, signal=signal))


@click.command()
@click.option("-s", "--signal", default="KILL", show_default=True, help="What to send.")
@click.argument("containers", nargs=-1, required=True)
def kill(containers: tuple[str, ...], signal: str) -> int:
    """Send a signal to containers."""
    return _for_each(containers, lambda container: container.kill(signal))


@click.command()
@click.argument("containers", nargs=-1, required=True)
def wait(containers: tuple[str, ...]) -> int:
    """Wait until containers have ended, and print their exit codes."""
    return _for_each(containers, lambda container: str(container.wait()))


@click.command()
@click.option("-f", "--force", is_flag=True, help="Kill it when it runs; pardon its absence.")
@click.argument("containers", nargs=-1, required=True)
def rm(containers: tuple[str, ...], force: bool) -> int:
    """Remove containers and their anonymous volumes."""
    return _for_each(containers, lambda container: container.remove(force), pardon=force)


@click.command()
@click.argument("container")
@click.argument("name")
def rename(container: str, name: str) -> None:
    """Give a container another name."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        client.get_container(container).rename(name)


def _for_each(
    references: Iterable[str], act: Callable[[Container], str | None], *, pardon: bool = False
) -> int:
    """Act on each and print it, or what `act` returns; 1 when one failed, after all were tried."""
    from pytest_sandbox import NoSuchContainer, SandboxError, connect
    from pytest_sandbox.cli.failures import render

    status = 0
    with connect(lease=False) as client:
        for reference in references:
            try:
                click.echo(act(client.get_container(reference)) or reference)
            except SandboxError as error:
                if not (pardon and isinstance(error, NoSuchContainer)):
                    click.echo(render(error), err=True)
                    status = 1
    return status


@click.command()
@click.option("--mounts", is_flag=True, help="The mount operations of containers, in order.")
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], mounts: bool) -> None:
    """Print containers, images, volumes or snapshots as JSON."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        if mounts:
            for name in names:
                click.echo("\n".join(client.get_container(name).mounts()))
            return
        found = [_inspect(client, name) for name in names]
    click.echo(json.dumps(found, indent=2))


def _inspect(client: Client, name: str) -> Any:
    """The first thing of this name, in Docker's order."""
    from pytest_sandbox import NotFound
    from pytest_sandbox.client.targets import image_part, path_part

    one = path_part(name, ":")
    paths = (
        *(f"/containers/{one}/json", f"/images/{image_part(name)}/json"),
        *(f"/volumes/{one}", f"/sandbox/snapshots/{one}"),
    )
    for path in paths:
        try:
            return client.call("GET", path)
        except NotFound:
            continue
    raise NotFound(f"No such object: {name}")
