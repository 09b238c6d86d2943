"""`sandboxctl service start|stop|reset|status|logs`, `doctor` and `version`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from pytest_sandbox.cli.hangup import heed_signal

_NOT_RUNNING = 3
"""Exit status of `service status` for a service that does not run, as in systemctl(1)."""


@click.group()
def service() -> None:
    """Start, stop and look at the sandbox service."""


@service.command()
def start() -> None:
    """Start the service, unless it runs already."""
    from pytest_sandbox.autostart import Service

    found = Service()
    started = found.start()
    click.echo(f"{'started' if started else 'running already'}: {found.host}")


@service.command()
def stop() -> None:
    """Stop the service, and all its containers with it."""
    from pytest_sandbox.autostart import Service
    from pytest_sandbox.client.session import Client

    found = Service(autostart=False)
    if not found.running():
        click.echo(f"not running: {found.host}")
        return
    with Client(found, leased=False) as client:
        pid = client.status()["Pid"]
        ended = _watch(pid)
        client.shutdown()
    _wait(ended)
    click.echo(f"stopped: {found.host}")


@service.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def reset(yes: bool) -> int:
    """Stop the service and delete all that it keeps: images, volumes, snapshots, containers.

    A plain `rm -r` cannot: some of those files belong to subordinate ids.
    """
    import subprocess

    from sandboxd.paths import state_root

    root = state_root()
    if not yes:
        click.confirm(f"Delete everything in {root}?", abort=True)
    click.get_current_context().invoke(stop)
    done = subprocess.run([sys.executable, "-m", "sandboxd", "reset"], stderr=subprocess.PIPE)
    if done.returncode:
        raise click.ClickException(done.stderr.decode(errors="replace").strip().splitlines()[-1])
    click.echo(f"deleted: {root}")
    return 0


def _watch(pid: int) -> int | None:
    """A descriptor that polls readable when the process ends; None when it has: pidfd_open(2)."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _wait(pidfd: int | None) -> None:
    import select

    if pidfd is not None:
        select.select([pidfd], [], [])
        os.close(pidfd)


@service.command()
@click.option("--json", "as_json", is_flag=True, help="The service's JSON.")
def status(as_json: bool) -> int:
    """Say whether the service runs, and what it holds. Exit status 3 when it does not run."""
    from pytest_sandbox.autostart import Service
    from pytest_sandbox.client.session import Client

    found = Service(autostart=False)
    if not found.running():
        click.echo("null" if as_json else f"not running: {found.host}")
        return _NOT_RUNNING
    with Client(found, leased=False) as client:
        facts = client.status()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        click.echo(f"{name + ':':12} {value}")
    return 0


@service.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows.")
@click.option("-n", "--tail", default=100, show_default=True, help="So many last lines.")
def logs(follow: bool, tail: int) -> None:
    """Print the service's log."""
    from sandboxd.paths import state_root

    path = state_root() / "service.log"
    sys.stdout.flush()
    options = ["-F"] if follow else []
    heed_signal()
    os.execvp("tail", ["tail", "-n", str(tail), *options, os.fspath(path)])


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The checks as JSON.")
def doctor(as_json: bool) -> int:
    """Say whether this machine can run containers, and what would mend it if not.

    Exit status 0 only if it can.
    """
    import subprocess

    command = [sys.executable, "-m", "sandboxd", "doctor", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise click.ClickException(f"the checks ended with status {done.returncode}") from None
    if as_json:
        click.echo(done.stdout.rstrip())
    else:
        _echo_report(report)
    return 0 if report["ok"] else 1


def _echo_report(report: dict[str, Any]) -> None:
    width = max(len(check["name"]) for check in report["checks"])
    for check in report["checks"]:
        click.echo(f"{_verdict(check)} {check['name']:{width}} {check['detail']}")
        if not check["ok"] and check["mend"]:
            click.echo(f"{'':9}to mend it: {check['mend']}")
    if report["ok"]:
        click.echo("This machine can run containers.")
    else:
        click.echo("This machine cannot run containers yet.", err=True)


def _verdict(check: dict[str, Any]) -> str:
    if check["ok"]:
        return click.style("ok      ", fg="green")
    colour, text = ("red", "missing ") if check["required"] else ("yellow", "without ")
    return click.style(text, fg=colour)


@click.command()
def version() -> None:
    """Print the versions of this program and of the service, if it runs."""
    from pytest_sandbox import __version__
    from pytest_sandbox.autostart import Service
    from pytest_sandbox.client.session import Client

    click.echo(f"sandboxctl {__version__}")
    found = Service(autostart=False)
    if not found.running():
        click.echo(f"sandboxd   not running: {found.host}")
        return
    with Client(found, leased=False) as client:
        about = client.version()
    click.echo(f"sandboxd   {about['Version']}, Engine API {about['ApiVersion']}: {found.host}")
