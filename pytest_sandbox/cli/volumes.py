"""`sandboxctl volume …` and `snapshot …`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from pytest_sandbox.cli.tables import echo_table, megabytes, short_id

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client


@click.group()
def volume() -> None:
    """Make, list and remove volumes."""


@volume.command()
@click.option("-d", "--driver", default="local", show_default=True, help="Who keeps it.")
@click.option("-s", "--snapshot", metavar="KEY", help="A writable copy of this snapshot.")
@click.option("-l", "--label", "labels", multiple=True, metavar="NAME=VALUE", help="Label it.")
@click.option("-o", "--opt", "options", multiple=True, metavar="NAME=VALUE", help="Driver option.")
@click.argument("name", required=False)
def create(
    name: str | None,
    driver: str,
    snapshot: str | None,
    labels: tuple[str, ...],
    options: tuple[str, ...],
) -> None:
    """Make a volume and print its name."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        made = client.volume(
            name, snapshot=snapshot, driver=driver, labels=_pairs(labels), options=_pairs(options)
        )
        click.echo(made.name)


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words)}


@volume.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
def list_volumes(quiet: bool) -> None:
    """List volumes."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        found = client.volumes()
    if quiet:
        for each in found:
            click.echo(each.name)
        return
    echo_table(("DRIVER", "VOLUME NAME"), [(each.driver, each.name) for each in found])


@volume.command("inspect")
@click.argument("names", nargs=-1, required=True)
def inspect_volumes(names: tuple[str, ...]) -> None:
    """Print volumes as JSON."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        found = [client.get_volume(name).inspect() for name in names]
    click.echo(json.dumps(found, indent=2))


@volume.command("rm")
@click.option("-f", "--force", is_flag=True, help="Pardon the absence of any.")
@click.argument("names", nargs=-1, required=True)
def remove_volumes(names: tuple[str, ...], force: bool) -> None:
    """Remove volumes and what is in them."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        for name in names:
            client.volume_remove(name, force)
            click.echo(name)


@volume.command()
@click.option("-a", "--all", "all_", is_flag=True, help="Named ones, too.")
def prune(all_: bool) -> None:
    """Remove the anonymous volumes that no container uses."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        gone = client.volume_prune(all=all_)
    for name in gone["VolumesDeleted"] or ():
        click.echo(name)
    click.echo(f"Reclaimed: {megabytes(gone['SpaceReclaimed'])}")


@click.group()
def snapshot() -> None:
    """List, share and remove the snapshots that volumes start from."""


@snapshot.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Only keys.")
def list_snapshots(quiet: bool) -> None:
    """List snapshots."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        found = client.snapshots()
    if quiet:
        for each in found:
            click.echo(each.key)
        return
    rows = [
        (short_id(each.key), short_id(each.digest), each.created, str(each.files))
        + (megabytes(each.size),)
        for each in found
    ]
    echo_table(("SNAPSHOT", "CONTENT", "CREATED", "FILES", "SIZE"), rows)


@snapshot.command("inspect")
@click.argument("keys", nargs=-1, required=True)
def inspect_snapshots(keys: tuple[str, ...]) -> None:
    """Print snapshots as JSON."""
    from dataclasses import asdict

    from pytest_sandbox import connect

    with connect(lease=False) as client:
        found = [asdict(client.snapshot_inspect(key)) for key in keys]
    click.echo(json.dumps(found, indent=2))


@snapshot.command("rm")
@click.argument("keys", nargs=-1, required=True)
def remove_snapshots(keys: tuple[str, ...]) -> None:
    """Remove snapshots that no volume starts from."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        for key in keys:
            client.snapshot_remove(key)
            click.echo(key)


@snapshot.command("push")
@click.option("-k", "--key", metavar="KEY", help="Which one; its beginning is enough.")
@click.argument("reference")
def push_snapshot(reference: str, key: str | None) -> None:
    """Store a snapshot in a registry.

    REFERENCE is [HOST/]NAME[:TAG]; without TAG it lies under its key, where a test session with the
    option --sandbox-snapshot-cache finds it. Without --key there must be only one snapshot.
    """
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        sent = client.snapshot_push(key or _only_key(client), reference)
    note = "there already" if sent.existed else megabytes(sent.size)
    click.echo(f"{sent.reference}@{sent.digest} ({note})")


@snapshot.command("pull")
@click.option("-k", "--key", metavar="KEY", help="Which one, where the reference has no tag.")
@click.argument("reference")
def pull_snapshot(reference: str, key: str | None) -> None:
    """Fetch a snapshot from a registry and print its key."""
    from pytest_sandbox import connect

    with connect(lease=False) as client:
        click.echo(client.snapshot_pull(reference, key).key)


def _only_key(client: Client) -> str:
    found = client.snapshots()
    if len(found) != 1:
        raise click.UsageError(f"there are {len(found)} snapshots: say which one with --key")
    return found[0].key
